// The job: what it is to write, how far it is, what came of it.

import { duration, rate, shellWord, size } from "./format.js";
import { icon, toast } from "./notice.js";

const PHASES = { preparing: "Preparing", joining: "Joining the segments", verifying: "Verifying against the input" };

const byId = (id) => document.getElementById(id);

export class Job {
  #send;
  #source = { name: "" };
  #choice = { model: "", scale: null };
  #touched = false;
  /** Of the job that runs or has run, while it is shown. */
  #line = "";

  constructor(send) {
    this.#send = send;
    byId("job-form").onsubmit = (event) => {
      event.preventDefault();
      send({ do: "job", ...this.#wanted() });
    };
    byId("job-form").oninput = () => this.#command();
    byId("target").addEventListener("input", () => {
      this.#touched = true;
    });
    byId("copy").onclick = () => this.#copy();
    byId("job-stop").onclick = () => send({ do: "stop-job" });
    byId("job-again").onclick = () => {
      this.#view("form");
      this.#line = "";
      this.#command();
    };
    byId("job-chip").onclick = () => byId("job-progress").scrollIntoView({ block: "nearest" });
  }

  source(source) {
    this.#source = source;
    byId("encoders").replaceChildren(...(source.encoders ?? []).map((name) => new Option(name)));
    if (!this.#touched) byId("target").value = source.target ?? "";
    this.#command();
  }

  /** What is chosen, and how many times larger that makes it. */
  chosen(choice, factor) {
    this.#choice = choice;
    const target = byId("target");
    // The name that was proposed says how many times larger.
    if (!this.#touched && factor) target.value = target.value.replace(/-[\d.]+x(\.[^./\\]+)$/, `-${factor}x$1`);
    this.#command();
  }

  /** Whether what was started has come to its end, whatever that is. */
  get over() {
    return !byId("job-result").hidden;
  }

  /** @param {object} told as the server tells it */
  told(told) {
    const { state } = told;
    const running = state === "running" || state === "stopping";
    if (running) this.#progress(told);
    else if (state === "idle" && !told.text) this.#view("form");
    else this.#result(told);
    this.#line = byId("job-form").hidden ? told.command ?? "" : "";
    this.#command();
    const chip = byId("job-chip");
    chip.hidden = !running;
    chip.textContent = told.done === null ? "Job" : `Job ${percent(told.done)}`;
    chip.setAttribute("aria-label", `${chip.textContent}: show it`);
    return running ? told.done : null;
  }

  #view(which) {
    byId("job-form").hidden = which !== "form";
    byId("job-progress").hidden = which !== "progress";
    byId("job-result").hidden = which !== "result";
  }

  #progress({ state, phase, done, left_seconds: left, frames, total, fps, written_bytes: bytes, limit, text }) {
    this.#view("progress");
    const stopping = state === "stopping";
    byId("job-share").textContent = stopping ? "Stopping …" : phase ? PHASES[phase] ?? phase : percent(done ?? 0);
    byId("job-left").textContent = stopping || left === null ? "" : `${duration(left)} left`;
    const bar = byId("job-bar");
    if (done === null) bar.removeAttribute("value");
    else bar.value = done;
    const limits = { decode: "reading", model: "the model", encode: "the encoder" };
    const facts = [
      total ? `${frames} of ${total} frames` : `${frames} frames`,
      fps ? `${rate(fps)} a second` : null,
      bytes ? size(bytes) : null,
      limits[limit] ? `limited by ${limits[limit]}` : null,
    ];
    byId("job-facts").textContent = [facts.filter(Boolean).join(", "), text].filter(Boolean).join(". ");
    byId("job-stop").disabled = stopping;
  }

  #result({ state, text, target, verified, faults, warnings }) {
    this.#view("result");
    const bad = state === "failed" || faults?.length > 0;
    const words =
      state === "failed"
        ? "It failed"
        : state === "idle"
          ? "Stopped"
          : bad
            ? "Done, but it differs from the input"
            : verified
              ? "Done and verified"
              : "Done";
    const verdict = byId("verdict");
    verdict.className = `verdict ${bad ? "bad" : state === "done" ? "good" : ""}`;
    verdict.querySelector("use").setAttribute("href", bad || state === "idle" ? "#i-warn" : "#i-done");
    verdict.querySelector("span").textContent = words;
    byId("job-text").textContent = [text, state === "done" ? target : null].filter(Boolean).join(" · ");
    const line = (words) => Object.assign(document.createElement("li"), { textContent: words });
    byId("faults").replaceChildren(...[...(faults ?? []), ...(warnings ?? [])].map(line));
  }

  #wanted() {
    const crf = byId("crf").value;
    return {
      target: byId("target").value,
      overwrite: byId("overwrite").checked,
      crf: crf === "" ? null : Number(crf),
      preset: byId("preset").value.trim() || null,
      encoder: byId("encoder").value.trim() || null,
    };
  }

  /** The same for the command line. */
  #command() {
    const { target, overwrite, crf, preset, encoder } = this.#wanted();
    const { model, scale } = this.#choice;
    const words = ["vidsr", this.#source.path ?? this.#source.name, target];
    const options = { "--model": model, "--scale": scale, "--encoder": encoder, "--crf": crf, "--preset": preset };
    for (const [option, value] of Object.entries(options)) {
      if (value !== null && value !== "") words.push(option, String(value));
    }
    if (overwrite) words.push("-y");
    const line = this.#line || words.map(shellWord).join(" ");
    // Lines break between words, not at the hyphens of options.
    const pieces = line.split(" ").flatMap((word) => [Object.assign(document.createElement("span"), { textContent: word }), " "]);
    byId("command").replaceChildren(...pieces.slice(0, -1));
  }

  async #copy() {
    const button = byId("copy");
    try {
      await navigator.clipboard.writeText(byId("command").textContent);
    } catch {
      // Only secure addresses have a clipboard; what is selected can be copied anywhere.
      getSelection().selectAllChildren(byId("command"));
      toast("Press Ctrl C to copy");
      return;
    }
    button.replaceChildren(icon("i-done"));
    toast("Copied");
    setTimeout(() => button.replaceChildren(icon("i-copy")), 1500);
  }
}

const percent = (share) => `${Math.floor(share * 100)} %`;
