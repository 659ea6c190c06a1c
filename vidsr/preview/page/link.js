// The connection to the server: a WebSocket, or long polling where none can be opened. Comes back by itself.

import { messages, unpacked } from "./wire.js";

const OPEN_MILLIS = 3000;
const WAIT_MILLIS = [300, 1000, 2000, 4000, 8000];
const FLYING = 3;

/**
 * on.tell(message), on.data({header, parts}), on.state("open" | "lost" | "refused"). After `rest` nothing comes until
 * `open`.
 */
export class Link {
  #on;
  #channel = null;
  #tries = 0;
  #timer = 0;
  #polling = typeof WebSocket === "undefined";

  constructor(on) {
    this.#on = on;
  }

  /** "socket", "poll" or "none" */
  get kind() {
    return this.#channel === null ? "none" : this.#channel.kind;
  }

  open() {
    this.rest();
    const channel = this.#polling ? new Poll() : new Socket();
    this.#channel = channel;
    channel.start({
      opened: () => {
        if (this.#channel !== channel) return;
        this.#tries = 0;
        this.#on.state("open");
      },
      message: (message) => {
        if (this.#channel === channel) this.#take(message);
      },
      ended: (how) => {
        if (this.#channel === channel) this.#ended(channel, how);
      },
    });
  }

  rest() {
    clearTimeout(this.#timer);
    const channel = this.#channel;
    this.#channel = null;
    channel?.stop();
  }

  send(command) {
    this.#channel?.send(JSON.stringify(command));
  }

  #take(message) {
    if (typeof message !== "string") this.#on.data(unpacked(message));
    else this.#on.tell(JSON.parse(message));
  }

  #ended(channel, how) {
    this.#channel = null;
    if (how === "refused") {
      this.#on.state("refused");
      return;
    }
    const never = how === "never";
    if (never && channel.kind === "socket") {
      this.#polling = true;
      this.open();
      return;
    }
    // Neither way worked: the server is away, and a socket deserves another chance when it is back.
    if (never) this.#polling = typeof WebSocket === "undefined";
    this.#on.state("lost");
    const wait = WAIT_MILLIS[Math.min(this.#tries, WAIT_MILLIS.length - 1)];
    this.#tries += 1;
    this.#timer = setTimeout(() => this.open(), wait);
  }
}

class Socket {
  kind = "socket";
  #socket = null;
  #waiting = [];

  start({ opened, message, ended }) {
    let was = false;
    const socket = new WebSocket(new URL("/ws", location.href.replace(/^http/, "ws")));
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    const timer = setTimeout(() => socket.close(), OPEN_MILLIS);
    socket.onopen = () => {
      clearTimeout(timer);
      was = true;
      opened();
      for (const text of this.#waiting.splice(0)) socket.send(text);
    };
    socket.onmessage = ({ data }) => message(typeof data === "string" ? data : new Uint8Array(data));
    socket.onclose = () => {
      clearTimeout(timer);
      ended(was ? "lost" : "never");
    };
  }

  send(text) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(text);
    else this.#waiting.push(text);
  }

  stop() {
    this.#socket.close();
  }
}

class Poll {
  kind = "poll";
  #id = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  #abort = new AbortController();
  #waiting = [];
  #flying = 0;
  #open = false;
  #call = null;

  start(call) {
    this.#call = call;
    this.#pump();
  }

  send(text) {
    this.#waiting.push(JSON.parse(text));
    this.#pump();
  }

  stop() {
    this.#abort.abort();
  }

  /** One request always waits for messages; others only carry commands past it. The first one makes us the viewer. */
  #pump() {
    if (this.#abort.signal.aborted) return;
    if (this.#flying === 0 || (this.#open && this.#waiting.length > 0 && this.#flying < FLYING)) this.#post();
  }

  async #post() {
    this.#flying += 1;
    const request = { id: this.#id, do: this.#waiting.splice(0) };
    try {
      const answer = await fetch("/poll", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(request),
        signal: this.#abort.signal,
      });
      if (!answer.ok) throw new Refused(answer.status);
      const bytes = new Uint8Array(await answer.arrayBuffer());
      if (!this.#open) {
        this.#open = true;
        this.#call.opened();
      }
      for (const message of messages(bytes)) this.#call.message(message);
    } catch (error) {
      if (this.#abort.signal.aborted) return;
      this.#abort.abort();
      const refused = error instanceof Refused && error.status === 403;
      this.#call.ended(refused ? "refused" : this.#open ? "lost" : "never");
      return;
    } finally {
      this.#flying -= 1;
    }
    this.#pump();
  }
}

class Refused extends Error {
  constructor(status) {
    super(`status ${status}`);
    this.status = status;
  }
}
