// Plays PCM exactly when it is due, by Web Audio; its time is what is heard, not what is handed over.

import { wallSeconds } from "./clock.js";

const HELD_SECONDS = 3;
/** For sound that comes later than that time waits... */
const STALE_SECONDS = 0.08;
/** ...unless it is as late as nobody would wait. */
const HOPELESS_SECONDS = 2;
const FADE_SECONDS = 0.005;
const USUAL_RATE = 48000;

/** @typedef {{seconds: number, rate: number, channels: number, data: Int16Array, length: number}} Chunk */

export class Sound {
  #context = null;
  #volume = null;
  #bus = null;
  #playing = new Set();
  #held = [];
  #until = 0;
  #loudness = 1;

  /** changed(): sound began or ceased to run. */
  constructor(changed) {
    this.changed = changed;
  }

  get running() {
    return this.#context?.state === "running";
  }

  /** Of what waits to be scheduled. */
  get heldSeconds() {
    return this.#held.reduce((sum, chunk) => sum + chunk.length, 0);
  }

  /** The context's time that is heard now. */
  heard = () => {
    const context = this.#context;
    const latency = context.outputLatency || context.baseLatency || 0;
    const plain = context.currentTime - latency;
    const stamp = context.getOutputTimestamp?.();
    if (!stamp?.contextTime) return plain;
    const exact = stamp.contextTime + wallSeconds() - stamp.performanceTime / 1000;
    // The stamp is finer grained; where a browser's is nonsense the plain time is at least near.
    return Math.abs(exact - plain) < 0.25 ? exact : plain;
  };

  /** Browsers want a gesture before they let anything be heard; call this from one. */
  wake() {
    if (this.#context === null) {
      const Context = window.AudioContext ?? window.webkitAudioContext;
      if (Context === undefined) return;
      this.#context = new Context({ sampleRate: this.#held[0]?.rate ?? USUAL_RATE, latencyHint: "interactive" });
      this.#volume = this.#context.createGain();
      this.#volume.connect(this.#context.destination);
      this.#context.onstatechange = () => this.changed();
      this.loudness = this.#loudness;
    }
    if (!this.running) this.#context.resume().catch(() => {});
  }

  /** 0..1, as a slider stands; loudness is heard in powers. */
  set loudness(value) {
    this.#loudness = value;
    this.#volume?.gain.setTargetAtTime(value * value, this.#context.currentTime, FADE_SECONDS);
  }

  /**
   * Plays a chunk when that clock, which runs by `heard`, comes to it; keeps it while one of both stands. Where sound
   * ran dry the clock is set back: better to go on from there than to cut what comes to pieces. Returns whether it was.
   */
  take(chunk, clock) {
    if (!this.running || !clock.running) {
      this.#held.push(chunk);
      while (this.heldSeconds > HELD_SECONDS) this.#held.shift();
      return false;
    }
    const now = this.#context.currentTime;
    const late = now - clock.when(chunk.seconds);
    const dry = late > STALE_SECONDS && late < HOPELESS_SECONDS && this.#until < now;
    if (dry) clock.anchor(chunk.seconds, now + STALE_SECONDS / 2);
    this.#schedule(chunk, clock.when(chunk.seconds));
    return dry;
  }

  /** Plays what was kept by a clock that runs now. */
  release(clock) {
    if (!this.running || !clock.running) return;
    for (const chunk of this.#held.splice(0)) this.#schedule(chunk, clock.when(chunk.seconds));
  }

  /** Plays the chunk so that it begins at that time of the context; what is over by now is left out. */
  #schedule(chunk, moment) {
    const context = this.#context;
    const begin = Math.round(moment * context.sampleRate) / context.sampleRate;
    const late = Math.max(0, context.currentTime - begin);
    if (late >= chunk.length) return;
    const node = new AudioBufferSourceNode(context, { buffer: bufferFrom(chunk) });
    if (this.#bus === null) {
      this.#bus = context.createGain();
      this.#bus.connect(this.#volume);
    }
    node.connect(this.#bus);
    node.onended = () => this.#playing.delete(node);
    node.start(begin + late, late);
    this.#playing.add(node);
    this.#until = begin + chunk.length;
  }

  /** Silence, without a click. */
  clear() {
    this.#held = [];
    this.#until = 0;
    if (this.#bus === null) return;
    const now = this.#context.currentTime;
    this.#bus.gain.setTargetAtTime(0, now, FADE_SECONDS);
    for (const node of this.#playing) node.stop(now + 6 * FADE_SECONDS);
    this.#bus = null;
  }
}

function bufferFrom({ data, channels, rate }) {
  const length = data.length / channels;
  const buffer = new AudioBuffer({ length, numberOfChannels: channels, sampleRate: rate });
  for (let channel = 0; channel < channels; channel += 1) {
    const samples = buffer.getChannelData(channel);
    for (let index = 0; index < length; index += 1) samples[index] = data[index * channels + channel] / 32768;
  }
  return buffer;
}

/** @returns {Chunk} */
export function chunkFrom({ header, parts }) {
  // Copied: the part may begin at an odd byte, and the whole message need not be kept for it.
  const bytes = parts[0].slice();
  const data = new Int16Array(bytes.buffer, 0, bytes.length >> 1);
  const { seconds, rate, channels } = header;
  return { seconds, rate, channels, data, length: data.length / channels / rate };
}
