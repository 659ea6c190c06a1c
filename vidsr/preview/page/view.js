// Draws original and enlarged, one beside, above or instead of the other, both always at the same place and size.

import { bounded, fitZoom, overlap, panes, placed, storedShare, turned, uprightSize } from "./geometry.js";

const GAP = 2;
const SQUARES_FROM = 2;
const MOST = 16;

/** On `canvas`, as large as its box. drawn(layout): called behind each drawing, for what lies over the picture. */
export class View {
  #canvas;
  #context;
  #pair = null;
  #asked = false;
  /** @type {import("./geometry.js").Shape | null} */
  shape = null;
  /** "split", "side" or "ab" */
  mode = "split";
  /** Screen pixels for a pixel of the output; 0: as much as fits. */
  zoom = 0;
  x = 0.5;
  y = 0.5;
  /** Where the border is, as a share of what is seen of the picture. */
  split = 0.5;
  /** The one shown where there is one: "original" or "enlarged" */
  shown = "enlarged";
  /** The original alone, while a key is held. */
  held = false;
  /** Whether the original's pixels are squares, too, where the enlarged one's are. */
  squares = false;

  constructor(canvas, drawn) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d", { alpha: false });
    this.drawn = drawn;
    const observer = new ResizeObserver(([entry]) => this.#resized(entry));
    try {
      observer.observe(canvas, { box: "device-pixel-content-box" });
    } catch {
      observer.observe(canvas);
    }
  }

  /** Screen pixels for one of CSS. */
  get density() {
    return this.#canvas.width / Math.max(1, this.#canvas.clientWidth);
  }

  get pair() {
    return this.#pair;
  }

  /** The zoom in effect. */
  get factor() {
    return this.zoom || (this.shape ? fitZoom(this.shape, this.#panes()[0]) : 1);
  }

  /** The middle of what is looked at, as shares of the picture as stored. */
  get look() {
    return this.shape ? storedShare(this.shape, this) : { x: 0.5, y: 0.5 };
  }

  /** Shows a pair and gives back the one before, which the caller closes. */
  show(pair) {
    const before = this.#pair;
    this.#pair = pair;
    if (pair) {
      const { enlarged, header } = pair;
      const growth = enlarged.width / header.box[2];
      if (this.shape && this.shape.growth !== growth) {
        // The same place at the same size on screen, whatever is the output's size.
        if (this.zoom !== 0) this.zoom *= this.shape.growth / growth;
        this.shape = { ...this.shape, growth };
      }
    }
    this.#draw();
    return before;
  }

  /** Draws soon, for whatever has changed. */
  refresh() {
    if (this.#asked) return;
    this.#asked = true;
    requestAnimationFrame(() => this.#draw());
  }

  /** Zooms with the point of the canvas (CSS pixels) staying where it is; without one, the middle. */
  zoomTo(zoom, point = null) {
    if (!this.shape) return;
    const fit = fitZoom(this.shape, this.#panes()[0]);
    const wanted = zoom === 0 ? 0 : Math.min(MOST, Math.max(Math.min(fit, 1), zoom));
    if (wanted === 0 || (wanted <= fit && wanted < 1)) {
      Object.assign(this, { zoom: 0, x: 0.5, y: 0.5 });
    } else {
      const pane = this.#paneAt(point);
      const size = uprightSize(this.shape);
      const away = point ? this.#away(point, pane) : { x: 0, y: 0 };
      const before = this.factor;
      this.zoom = wanted;
      this.#centre(
        this.x + (away.x / size.width) * (1 / before - 1 / wanted),
        this.y + (away.y / size.height) * (1 / before - 1 / wanted),
      );
    }
    this.refresh();
  }

  /** Moves the picture by so many CSS pixels. */
  pan(right, down) {
    if (!this.shape || this.zoom === 0) return;
    const size = uprightSize(this.shape);
    const { density, zoom } = this;
    this.#centre(this.x - (right * density) / (size.width * zoom), this.y - (down * density) / (size.height * zoom));
    this.refresh();
  }

  /** The share of the picture seen at which the border would be under that place (CSS pixels from the left). */
  splitAt(left) {
    const { seen } = this.#layout()[0];
    return Math.min(1, Math.max(0, (left * this.density - seen.left) / Math.max(1, seen.width)));
  }

  #centre(x, y) {
    Object.assign(this, bounded(this.shape, this.#panes()[0], this.zoom, x, y));
  }

  #paneAt(point) {
    const all = this.#panes();
    const inside = ({ left, top, width, height }) =>
      point &&
      point.x * this.density >= left &&
      point.x * this.density < left + width &&
      point.y * this.density >= top &&
      point.y * this.density < top + height;
    return all.find(inside) ?? all[0];
  }

  #away(point, pane) {
    const { density } = this;
    return {
      x: point.x * density - pane.left - pane.width / 2,
      y: point.y * density - pane.top - pane.height / 2,
    };
  }

  #panes() {
    const { width, height } = this.#canvas;
    return panes(this.shape, width, height, this.mode === "side" && !this.held, GAP * this.density);
  }

  /** What is drawn where: pane, picture, and what is seen of it, for each pane. */
  #layout() {
    return this.#panes().map((pane) => {
      const picture = placed(this.shape, pane, this.factor, this.x, this.y);
      return { pane, picture, seen: overlap(picture, pane) };
    });
  }

  #resized(entry) {
    const [exact] = entry.devicePixelContentBoxSize ?? [];
    const { width, height } = entry.contentRect;
    this.#canvas.width = wholePixels(width, exact?.inlineSize);
    this.#canvas.height = wholePixels(height, exact?.blockSize);
    if (this.shape && this.zoom) this.#centre(this.x, this.y);
    this.#draw();
  }

  #draw() {
    this.#asked = false;
    const context = this.#context;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = getComputedStyle(this.#canvas).backgroundColor;
    context.fillRect(0, 0, this.#canvas.width, this.#canvas.height);
    if (!this.shape) return;
    const layout = this.#layout();
    if (this.#pair) this.#halves(layout).forEach(([which, place, clip]) => this.#paint(which, place, clip));
    this.drawn({ layout, density: this.density, border: this.#border(layout[0].seen) });
  }

  /** @returns {[string, object, Rect][]} which picture, where, and the part of the canvas that it has */
  #halves(layout) {
    const [first, second] = layout;
    if (this.held) return [["original", first, first.pane]];
    if (this.mode === "ab") return [[this.shown, first, first.pane]];
    if (this.mode === "side") {
      return [
        ["original", first, first.pane],
        ["enlarged", second, second.pane],
      ];
    }
    const border = this.#border(first.seen);
    const { width, height } = this.#canvas;
    return [
      ["original", first, { left: 0, top: 0, width: border, height }],
      ["enlarged", first, { left: border, top: 0, width: width - border, height }],
    ];
  }

  #border(seen) {
    return Math.round(seen.left + this.split * seen.width);
  }

  #paint(which, { picture }, clip) {
    const context = this.#context;
    const { original, enlarged, header } = this.#pair;
    const { matrix, width, height } = turned(this.shape, picture);
    const squares = this.zoom >= SQUARES_FROM;
    context.save();
    context.beginPath();
    context.rect(clip.left, clip.top, clip.width, clip.height);
    context.clip();
    context.setTransform(...matrix);
    context.imageSmoothingQuality = "high";
    const [left, top, wide, high] = header.box;
    const right = width / this.shape.width;
    const down = height / this.shape.height;
    const part = wide < this.shape.width || high < this.shape.height;
    if (which === "original" || part) {
      context.imageSmoothingEnabled = !(squares && this.squares);
      context.drawImage(original, 0, 0, width, height);
    }
    if (which === "enlarged") {
      context.imageSmoothingEnabled = !squares;
      context.drawImage(enlarged, left * right, top * down, wide * right, high * down);
    }
    if (part) this.#outline(left * right, top * down, wide * right, high * down);
    context.restore();
  }

  #outline(...box) {
    const context = this.#context;
    for (const [style, width] of [["rgb(0 0 0 / 0.55)", 3], ["rgb(255 255 255 / 0.9)", 1]]) {
      context.strokeStyle = style;
      context.lineWidth = width * this.density;
      context.strokeRect(...box);
    }
  }
}

/** A length in the screen's own pixels. exact: what the browser says it is, which it may say without its zoom. */
function wholePixels(length, exact = -1) {
  const near = Math.max(1, Math.round(length * devicePixelRatio));
  return Math.abs(exact - near) <= 1 ? exact : near;
}
