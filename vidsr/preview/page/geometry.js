// Where the picture lies on the canvas. All lengths are the screen's own pixels; shares are 0..1.

const ABOVE_FROM = 1.3;

/** @typedef {{left: number, top: number, width: number, height: number}} Rect */

/**
 * The shape of the picture. width, height: of the source as stored; growth: how many times larger the output is;
 * aspect: width of a stored pixel for its height; turn: degrees clockwise until it is upright, after mirroring.
 * @typedef {{width: number, height: number, growth: number, aspect: number, turn: number, mirrored: boolean}} Shape
 */

/** @returns {{width: number, height: number}} the output, upright and with square pixels */
export function uprightSize({ width, height, growth, aspect, turn }) {
  const wide = width * growth * aspect;
  const high = height * growth;
  return turn % 180 === 0 ? { width: wide, height: high } : { width: high, height: wide };
}

/** The zoom at which all of it is seen. */
export function fitZoom(shape, pane) {
  const size = uprightSize(shape);
  return Math.min(pane.width / size.width, pane.height / size.height);
}

/** One pane, or two: beside each other, or above where the picture gets much larger so. @returns {Rect[]} */
export function panes(shape, width, height, both, gap) {
  if (!both) return [{ left: 0, top: 0, width, height }];
  const half = { width: Math.floor((width - gap) / 2), height };
  const row = [
    { left: 0, top: 0, ...half },
    { left: width - half.width, top: 0, ...half },
  ];
  const flat = { width, height: Math.floor((height - gap) / 2) };
  const column = [
    { left: 0, top: 0, ...flat },
    { left: 0, top: height - flat.height, ...flat },
  ];
  return fitZoom(shape, half) * ABOVE_FROM >= fitZoom(shape, flat) ? row : column;
}

/** The picture in a pane, with the share (x, y) of it in the middle. @returns {Rect} */
export function placed(shape, pane, zoom, x, y) {
  const size = uprightSize(shape);
  const width = Math.max(1, Math.round(size.width * zoom));
  const height = Math.max(1, Math.round(size.height * zoom));
  // Whole pixels, or squares would not be squares.
  const left = Math.round(pane.left + pane.width / 2 - x * width);
  const top = Math.round(pane.top + pane.height / 2 - y * height);
  return { left, top, width, height };
}

/** The middle kept so that no more of the pane than needed is empty. */
export function bounded(shape, pane, zoom, x, y) {
  const size = uprightSize(shape);
  const along = (share, length, room) => {
    const margin = Math.min(0.5, room / 2 / (length * zoom));
    return Math.min(1 - margin, Math.max(margin, share));
  };
  return { x: along(x, size.width, pane.width), y: along(y, size.height, pane.height) };
}

/** The part of a that lies in b. @returns {Rect} */
export function overlap(a, b) {
  const left = Math.max(a.left, b.left);
  const top = Math.max(a.top, b.top);
  const width = Math.max(0, Math.min(a.left + a.width, b.left + b.width) - left);
  const height = Math.max(0, Math.min(a.top + a.height, b.top + b.height) - top);
  return { left, top, width, height };
}

/**
 * For a canvas: from the picture as stored, `width` x `height` large, to where it lies upright.
 * @returns {{matrix: number[], width: number, height: number}}
 */
export function turned({ turn, mirrored }, rect) {
  const swapped = turn % 180 !== 0;
  const width = swapped ? rect.height : rect.width;
  const height = swapped ? rect.width : rect.height;
  const [a, b, c, d] = { 0: [1, 0, 0, 1], 90: [0, 1, -1, 0], 180: [-1, 0, 0, -1], 270: [0, -1, 1, 0] }[turn];
  const flip = mirrored ? -1 : 1;
  const first = [a * flip, b * flip];
  // What was the corner (0, 0) may lie beyond the rectangle: bring it back.
  const back = (along, down) => Math.max(0, -along * width) + Math.max(0, -down * height);
  const matrix = [...first, c, d, rect.left + back(first[0], c), rect.top + back(first[1], d)];
  return { matrix, width, height };
}

/** A share of the upright picture as a share of the stored one. */
export function storedShare({ turn, mirrored }, { x, y }) {
  const [u, v] = { 0: [x, y], 90: [y, 1 - x], 180: [1 - x, 1 - y], 270: [1 - y, x] }[turn];
  return { x: mirrored ? 1 - u : u, y: v };
}
