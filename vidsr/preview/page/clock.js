// Where playback stands. What makes it run can be changed on the way: the sound that is heard, or the computer's time.

/** Seconds, from anywhere. */
export const wallSeconds = () => performance.now() / 1000;

export class Clock {
  #source = wallSeconds;
  #at = 0;
  #since = 0;
  #running = false;

  get running() {
    return this.#running;
  }

  get seconds() {
    return this.#running ? this.#at + this.#source() - this.#since : this.#at;
  }

  set(seconds) {
    this.#at = seconds;
    this.#since = this.#source();
  }

  /** Shows `seconds` when the source says `moment`. */
  anchor(seconds, moment) {
    this.#at = seconds;
    this.#since = moment;
  }

  /** The source's time when the clock shows that. */
  when(seconds) {
    return this.#since + seconds - this.#at;
  }

  start() {
    this.#since = this.#source();
    this.#running = true;
  }

  stop() {
    this.#at = this.seconds;
    this.#running = false;
  }

  /** Runs by another source from now on, without a jump. */
  follow(source) {
    const seconds = this.seconds;
    this.#source = source;
    this.set(seconds);
  }
}
