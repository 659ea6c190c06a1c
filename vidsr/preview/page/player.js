// Brings pictures and sound to the screen and the ear in time.

import { Clock, wallSeconds } from "./clock.js";
import { Pictures, close, decoded } from "./picture.js";
import { Sound, chunkFrom } from "./sound.js";

/** How long playback waits for the second picture, or for sound. */
const START_MILLIS = 1500;
const START_SOUND_SECONDS = 0.25;
const TELL_MILLIS = 250;
/** Half a refresh of a usual screen: a picture that is due before the next one is drawn now. */
const EARLY_SECONDS = 0.008;
/** How long what was asked for counts for more than what the server last said. */
const TRUST_MILLIS = 3000;
/** How long a picture may take until the next is asked for while a key or the seek bar is held. */
const PATIENT_MILLIS = 700;

/** view: draws; send(command); changed(what): what the controls show is another, see `playerChanged`. */
export class Player {
  #view;
  #send;
  #changed;
  #clock = new Clock();
  #pictures;
  #sound;
  #serial = -1;
  /** What has at most this number is void, whoever sends it. */
  #void = -1;
  #first = false;
  #waiting = false;
  #timer = 0;
  #asked = null;
  #told = { playing: false, ended: false, seconds: 0 };
  #order = 0;
  #drawn = -1;
  #looping = false;
  #leftAt = -Infinity;
  /** "preview" follows the clock, "watch" shows what comes. */
  mode = "preview";
  frameSeconds = 1 / 25;
  withSound = false;
  /** Where a seek goes whose picture is not here yet. */
  target = null;
  shown = 0;
  late = 0;
  offsetMillis = 0;

  constructor(view, send, changed) {
    this.#view = view;
    this.#send = send;
    this.#changed = changed;
    this.#pictures = new Pictures(() => changed("undecodable"));
    this.#sound = new Sound(() => this.#sourced());
    setInterval(() => this.#tell(), TELL_MILLIS);
  }

  get playing() {
    return this.#asked?.playing ?? (this.#told.playing || this.#finishing);
  }

  /** The end was reached, and all of it shown. */
  get ended() {
    return this.#told.ended && !this.playing;
  }

  /** The server has sent the last picture, but it is not on screen yet. */
  get #finishing() {
    return this.#told.ended && this.#clock.running;
  }

  get audible() {
    return this.#sound.running;
  }

  get serial() {
    return this.#serial;
  }

  get queued() {
    return this.#pictures.length;
  }

  /** Header of the picture on screen. */
  get header() {
    return this.#view.pair?.header ?? null;
  }

  /** Of the picture on screen, or where a seek goes. */
  get seconds() {
    return this.target ?? this.header?.seconds ?? this.#told.seconds;
  }

  get clockSeconds() {
    return this.#clock.seconds;
  }

  set loudness(value) {
    this.#sound.loudness = value;
  }

  /** From within a gesture. */
  wake() {
    if (this.mode === "preview") this.#sound.wake();
  }

  /** A new connection: numbers begin anew. */
  reset() {
    this.#halt();
    this.#serial = -1;
    this.#void = -1;
    this.#first = false;
    this.#asked = null;
    this.#told = { playing: false, ended: false, seconds: 0 };
    this.target = null;
  }

  /** @param {{playing: boolean, serial: number, ended: boolean, seconds: number}} state as the server tells it */
  state({ playing, serial, ended, seconds }) {
    // Polled messages can overtake each other.
    if (serial < this.#serial) return;
    if (serial > this.#serial) this.#begin(serial);
    if (this.#asked && (serial > this.#asked.serial || performance.now() > this.#asked.until)) this.#asked = null;
    const before = this.playing;
    this.#told = { playing, ended, seconds };
    if (!this.playing) this.#halt();
    else if (this.playing && !before && this.#first) this.#wait();
  }

  play() {
    this.#ask(true);
    this.#send({ do: "play" });
  }

  pause() {
    const { seconds } = this;
    this.#ask(false);
    this.#halt();
    this.#send({ do: "pause", seconds });
  }

  /** eager: there is more to come, so wait until the last place is seen. */
  seek(seconds, eager = false) {
    this.target = seconds;
    this.#changed("position");
    if (eager && this.#isLeaving()) return;
    this.#leave();
    this.#send({ do: "seek", seconds });
  }

  step(by, eager = false) {
    if (eager && this.#isLeaving()) return;
    // From the picture that is seen, which only this page knows.
    if (this.playing) this.pause();
    this.#leave();
    this.#ask(false);
    this.#send({ do: "step", by });
  }

  data(message) {
    const { kind, serial } = message.header;
    if (serial <= this.#void || serial < this.#serial) return;
    if (kind === "picture") this.#picture(message);
    else if (kind === "sound") this.#chunk(chunkFrom(message), serial);
  }

  #picture(message) {
    const { serial, seconds, exact } = message.header;
    if (serial > this.#serial) this.#begin(serial);
    if (this.mode === "watch") {
      this.#show(message);
    } else if (!this.#first) {
      this.#first = true;
      // A picture that began long before, or will only begin, is shown all the same.
      this.#clock.set(this.playing ? this.#told.seconds : seconds);
      this.#show(message);
      if (this.playing) this.#wait();
    } else if (this.playing || this.#clock.running) {
      this.#pictures.add(message);
      if (this.#waiting && !(this.withSound && this.#sound.running)) this.#start();
    } else if (exact) {
      this.#clock.set(seconds);
      this.#show(message);
    }
  }

  #chunk(chunk, serial) {
    if (serial > this.#serial) this.#begin(serial);
    if (this.#sound.take(chunk, this.#clock)) this.#tell();
    if (this.#waiting && this.#sound.running && this.#sound.heldSeconds >= START_SOUND_SECONDS) this.#start();
  }

  /** Everything before that number is void. */
  #begin(serial) {
    this.#serial = serial;
    this.#first = false;
    this.#halt();
  }

  #ask(playing) {
    this.#asked = { playing, serial: this.#serial, until: performance.now() + TRUST_MILLIS };
    this.#changed("playing");
  }

  /** The place is left: what is under way from there is of no use. */
  #leave() {
    this.#void = this.#serial;
    this.#leftAt = performance.now();
    this.#halt();
  }

  #isLeaving() {
    return performance.now() - this.#leftAt < PATIENT_MILLIS;
  }

  #halt() {
    clearTimeout(this.#timer);
    this.#waiting = false;
    this.#clock.stop();
    this.#pictures.clear();
    this.#sound.clear();
  }

  #wait() {
    clearTimeout(this.#timer);
    this.#waiting = true;
    this.#timer = setTimeout(() => this.#start(), START_MILLIS);
  }

  #start() {
    if (!this.#waiting) return;
    clearTimeout(this.#timer);
    this.#waiting = false;
    this.#clock.start();
    this.#sound.release(this.#clock);
    this.#tell();
    this.#loop();
  }

  /** The sound's clock while it runs, else the wall's. */
  #sourced() {
    this.#clock.follow(this.#sound.running ? this.#sound.heard : wallSeconds);
    this.#sound.release(this.#clock);
    this.#changed("sound");
  }

  /** Decodes and shows one out of turn. */
  async #show(message) {
    const order = (this.#order += 1);
    let pair;
    try {
      pair = await decoded(message);
    } catch {
      this.#changed("undecodable");
      return;
    }
    const { serial } = message.header;
    if (order < this.#drawn || serial < this.#serial || serial <= this.#void) close(pair);
    else this.#put(pair, order);
  }

  #put(pair, order = (this.#order += 1)) {
    this.#drawn = order;
    close(this.#view.show(pair));
    this.shown += 1;
    this.#leftAt = -Infinity;
    this.target = null;
    if (!this.#clock.running) this.#changed("position");
  }

  #loop() {
    if (this.#looping) return;
    this.#looping = true;
    const tick = () => {
      this.#looping = this.#clock.running;
      if (!this.#looping) return;
      this.#due();
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  #due() {
    const pair = this.#pictures.take(this.#clock.seconds + EARLY_SECONDS);
    if (pair) {
      const { seconds } = pair.header;
      if (this.header?.serial === pair.header.serial && seconds <= this.header.seconds) {
        close(pair);
        return;
      }
      const offset = seconds - this.#clock.seconds;
      this.offsetMillis = offset * 1000;
      if (-offset > this.frameSeconds) this.late += 1;
      this.#put(pair);
      this.#changed("position");
    } else {
      this.#finish();
    }
  }

  /** Halts where there is no more to come. */
  #finish() {
    if (!this.#told.ended || this.#pictures.length) return;
    this.#halt();
    this.#changed("playing");
  }

  #tell() {
    if (!this.#clock.running) return;
    const { seconds } = this.#clock;
    // Nothing is drawn in a hidden tab, and what is not drawn must not pile up.
    if (document.hidden) {
      close(this.#pictures.take(seconds));
      this.#finish();
    }
    const { shown, late, offsetMillis } = this;
    this.#send({ do: "clock", seconds: Math.max(0, seconds), shown, late, offset_ms: offsetMillis });
  }
}
