// Pictures in the order of their times, decoded shortly before they are due.

const DECODED = 4;
const HELD = 90;

/**
 * original, enlarged: bitmaps; header: as the server sent it.
 * @typedef {{original: ImageBitmap, enlarged: ImageBitmap, header: object}} Pair
 */

/** @returns {Promise<Pair>} */
export async function decoded({ header, parts }) {
  const [original, enlarged] = await Promise.all(
    parts.map((part, index) =>
      // The bytes are colours for this screen as they are.
      createImageBitmap(new Blob([part], { type: header.types[index] }), { colorSpaceConversion: "none" }),
    ),
  );
  return { original, enlarged, header };
}

export function close(pair) {
  pair?.original.close();
  pair?.enlarged.close();
}

/** Bounded: a few decoded pairs, some more as they came. */
export class Pictures {
  #entries = [];
  #decoding = 0;

  /** failed(): a picture could not be decoded. */
  constructor(failed) {
    this.failed = failed;
  }

  get length() {
    return this.#entries.length;
  }

  add(packet) {
    const entry = { packet, seconds: packet.header.seconds, pair: null, state: "raw" };
    let at = this.#entries.length;
    while (at > 0 && this.#entries[at - 1].seconds > entry.seconds) at -= 1;
    this.#entries.splice(at, 0, entry);
    while (this.#entries.length > HELD) this.#drop(this.#entries.shift());
    this.#decode();
  }

  /**
   * The newest that is decoded and due by then, for the caller to close; older ones are gone.
   * @returns {Pair | null}
   */
  take(seconds) {
    // A picture behind which another one is due already needs no decoding any more.
    this.#entries = this.#entries.filter(
      (entry, index, all) => entry.state !== "raw" || index + 1 === all.length || all[index + 1].seconds > seconds,
    );
    let found = null;
    for (let index = 0; index < this.#entries.length && this.#entries[index].seconds <= seconds; index += 1) {
      if (this.#entries[index].pair !== null) found = index;
    }
    let pair = null;
    if (found !== null) {
      const gone = this.#entries.splice(0, found + 1);
      pair = gone.pop().pair;
      gone.forEach((entry) => this.#drop(entry));
    }
    this.#decode();
    return pair;
  }

  clear() {
    this.#entries.splice(0).forEach((entry) => this.#drop(entry));
  }

  #drop(entry) {
    entry.state = "gone";
    close(entry.pair);
  }

  #decode() {
    let ready = this.#decoding;
    for (const entry of this.#entries) {
      if (entry.pair !== null) ready += 1;
      if (ready >= DECODED) return;
      if (entry.state !== "raw") continue;
      entry.state = "decoding";
      ready += 1;
      this.#decoding += 1;
      decoded(entry.packet)
        .then((pair) => {
          if (entry.state === "gone") close(pair);
          else entry.pair = pair;
        })
        .catch(() => {
          this.#entries = this.#entries.filter((other) => other !== entry);
          this.failed();
        })
        .finally(() => {
          this.#decoding -= 1;
          this.#decode();
        });
    }
  }
}
