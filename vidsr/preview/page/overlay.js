// What lies over the picture: the border, the labels, what is loading.

const MARGIN = 12;

const byId = (id) => document.getElementById(id);

/** @typedef {import("./geometry.js").Rect} Rect */

export class Overlay {
  #part = false;
  /** Of each label, in CSS pixels, known without a look at it for each picture. */
  #width = { original: 0, enlarged: 0 };

  /** again(): asks for `place`. */
  constructor(again) {
    const observer = new ResizeObserver((entries) => {
      for (const { target, borderBoxSize } of entries) {
        const [{ inlineSize }] = borderBoxSize;
        if (inlineSize > 0) this.#width[target.id.replace("tag-", "")] = inlineSize;
      }
      again();
    });
    for (const which of Object.keys(this.#width)) observer.observe(byId(`tag-${which}`));
  }

  /** The room that the picture needs, for the narrow layout. */
  shape({ width, height, aspect, turn }) {
    const ratio = (width * aspect) / height;
    byId("stage").style.setProperty("--aspect", turn % 180 === 0 ? ratio : 1 / ratio);
  }

  /** Names what is seen. part: whether only a part of it is enlarged. */
  picture(label, part) {
    this.#part = part;
    const tag = byId("tag-enlarged");
    if (tag.textContent === label) return;
    tag.textContent = label;
    document.querySelector("[data-flip=enlarged]").textContent = label;
  }

  loading(text) {
    byId("loading").hidden = !text;
    if (text) byId("loading-text").textContent = text;
  }

  /** Puts everything where the view has drawn it. */
  place(view, { layout, density, border }) {
    const [first, second = layout[0]] = layout;
    const [left, right] = [first, second].map(({ seen }) => cssRect(seen, density));
    const split = view.mode === "split" && !view.held;
    const handle = byId("split");
    handle.hidden = !split || !view.pair;
    if (split) this.#border(handle, view.split, border / density, left);
    const room = split ? border / density - left.left : left.width;
    const rest = split ? left.width - room : right.width;
    const original = view.held || view.mode !== "ab" || view.shown === "original";
    const enlarged = !view.held && (view.mode !== "ab" || view.shown === "enlarged");
    this.#tag("original", original && view.pair, left, room);
    this.#tag("enlarged", enlarged && view.pair, right, rest, split);
    byId("part").hidden = !this.#part || !enlarged;
  }

  #border(handle, share, left, { top, height }) {
    move(handle, left, top);
    handle.style.height = `${height}px`;
    const percent = String(Math.round(share * 100));
    if (handle.getAttribute("aria-valuenow") === percent) return;
    handle.setAttribute("aria-valuenow", percent);
    handle.setAttribute("aria-valuetext", `${percent} % original`);
  }

  #tag(which, wanted, { left, top, width }, room, atRight = false) {
    const tag = byId(`tag-${which}`);
    const own = this.#width[which];
    tag.hidden = !wanted || room < own + 2 * MARGIN;
    move(tag, atRight ? left + width - own - MARGIN : left + MARGIN, top + MARGIN);
  }
}

/** @returns {Rect} */
function cssRect({ left, top, width, height }, density) {
  return { left: left / density, top: top / density, width: width / density, height: height / density };
}

function move(element, left, top) {
  element.style.transform = `translate(${left}px, ${top}px)`;
}
