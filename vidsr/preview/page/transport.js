// Playback's controls: buttons, seek bar, time, volume.

import { clockTime, duration, exactTime } from "./format.js";
import { keep, kept } from "./keep.js";

const JUMP_SECONDS = 5;
const PAGE_SECONDS = 30;

const byId = (id) => document.getElementById(id);

export class Transport {
  #player;
  #length = null;
  #dragging = null;
  #shown = "";

  constructor(player) {
    this.#player = player;
    byId("play").onclick = () => this.toggle();
    byId("back").onclick = () => player.step(-1);
    byId("next").onclick = () => player.step(1);
    byId("mute").onclick = () => this.mute();
    this.#volume();
    this.#bar();
  }

  /** seconds: of the whole video, or null where nobody knows. */
  set length(seconds) {
    this.#length = seconds;
    byId("length").textContent = seconds === null ? "" : clockTime(seconds);
    byId("seek").setAttribute("aria-valuemax", seconds ?? 0);
    byId("seek").setAttribute("aria-disabled", String(seconds === null));
    this.refresh();
  }

  toggle() {
    if (this.#player.playing) this.#player.pause();
    else this.#player.play();
  }

  mute() {
    keep("muted", kept("muted") !== "yes" ? "yes" : "no");
    this.#louder();
  }

  jump(seconds) {
    this.#to(this.#player.seconds + seconds);
  }

  /** share: 0..1 of the whole */
  jumpTo(share) {
    if (this.#length !== null) this.#to(share * this.#length);
  }

  /** Shows where playback stands. */
  refresh() {
    const { playing, ended, seconds } = this.#player;
    const [name, does] = playing ? ["pause", "Pause"] : ended ? ["again", "Play again"] : ["play", "Play"];
    const play = byId("play");
    if (play.dataset.icon !== name) {
      play.dataset.icon = name;
      play.querySelector("use").setAttribute("href", `#i-${name}`);
      play.setAttribute("aria-label", does);
      play.title = `${does} (space)`;
    }
    const here = this.#dragging ?? seconds;
    const text = exactTime(here);
    if (text === this.#shown) return;
    this.#shown = text;
    byId("time").textContent = text;
    const share = this.#length ? Math.min(1, here / this.#length) : 0;
    byId("seek-fill").style.transform = `scaleX(${share})`;
    byId("seek-knob").style.left = `${share * 100}%`;
    const bar = byId("seek");
    // A bar that has the focus is read out with every change.
    const said = playing ? clockTime(here) : text;
    bar.setAttribute("aria-valuenow", here.toFixed(playing ? 0 : 3));
    bar.setAttribute("aria-valuetext", this.#length ? `${said} of ${duration(this.#length)}` : said);
  }

  #to(seconds, eager = false) {
    const last = this.#length === null ? Infinity : this.#length;
    this.#player.seek(Math.max(0, Math.min(seconds, last)), eager);
  }

  #volume() {
    const slider = byId("volume");
    slider.value = kept("volume") ?? 1;
    slider.oninput = () => {
      keep("volume", slider.value);
      keep("muted", "no");
      this.#louder();
    };
    this.#louder();
  }

  #louder() {
    const muted = kept("muted") === "yes";
    this.#player.loudness = muted ? 0 : Number(byId("volume").value);
    byId("mute").setAttribute("aria-pressed", String(muted));
    byId("mute").querySelector("use").setAttribute("href", muted ? "#i-mute" : "#i-sound");
  }

  #bar() {
    const bar = byId("seek");
    const hover = byId("seek-hover");
    const at = (event) => {
      const box = bar.getBoundingClientRect();
      return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * (this.#length ?? 0);
    };
    const hint = (event) => {
      const box = bar.getBoundingClientRect();
      hover.hidden = this.#length === null;
      hover.textContent = clockTime(at(event));
      const half = hover.offsetWidth / 2;
      const left = Math.min(box.width - half, Math.max(half, event.clientX - box.left));
      hover.style.left = `${left}px`;
    };
    const drag = (event, eager) => {
      this.#dragging = at(event);
      this.#to(this.#dragging, eager);
      this.refresh();
    };
    bar.onpointerdown = (event) => {
      if (event.button !== 0 || this.#length === null) return;
      bar.setPointerCapture(event.pointerId);
      drag(event, false);
    };
    bar.onpointermove = (event) => {
      hint(event);
      if (this.#dragging !== null) drag(event, true);
    };
    bar.onpointerup = (event) => {
      if (this.#dragging === null) return;
      if (at(event) !== this.#player.target) drag(event, false);
      else this.#to(this.#dragging);
      this.#dragging = null;
      this.refresh();
    };
    bar.onpointercancel = () => {
      this.#dragging = null;
    };
    bar.onpointerleave = () => {
      hover.hidden = true;
    };
    bar.onkeydown = (event) => {
      const steps = {
        ArrowLeft: -JUMP_SECONDS,
        ArrowDown: -JUMP_SECONDS,
        ArrowRight: JUMP_SECONDS,
        ArrowUp: JUMP_SECONDS,
        PageDown: -PAGE_SECONDS,
        PageUp: PAGE_SECONDS,
      };
      if (!(event.key in steps) || event.shiftKey || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      this.jump(steps[event.key]);
    };
  }
}
