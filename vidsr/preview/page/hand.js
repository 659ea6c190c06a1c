// Mouse, pen and fingers on the picture: the border, moving, zooming, and a plain click.

const CLICK = 5;

/** over: takes the events; border: the handle; changed(): view was changed by hand; clicked(): on the picture. */
export function handle(over, border, view, { changed, clicked }) {
  /** @type {Map<number, {x: number, y: number}>} */
  const fingers = new Map();
  let moved = 0;
  let onBorder = false;
  let spread = 0;

  const place = (event) => {
    const box = over.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const pinch = () => {
    const [a, b] = [...fingers.values()];
    return { length: Math.hypot(a.x - b.x, a.y - b.y), x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
  };

  over.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.target.closest("button")) return;
    over.setPointerCapture(event.pointerId);
    if (fingers.size === 0) {
      moved = 0;
      onBorder = border.contains(event.target);
      if (onBorder) border.focus({ preventScroll: true, focusVisible: false });
    }
    fingers.set(event.pointerId, place(event));
    if (fingers.size === 2) spread = pinch().length;
  });

  over.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const here = place(event);
    const right = here.x - before.x;
    const down = here.y - before.y;
    moved += Math.hypot(right, down);
    fingers.set(event.pointerId, here);
    if (fingers.size === 2) {
      const now = pinch();
      view.pan(right / 2, down / 2);
      if (spread > 0) view.zoomTo((view.factor * now.length) / spread, now);
      spread = now.length;
    } else if (moved < CLICK && !onBorder) {
      return;
    } else if (onBorder || (view.zoom === 0 && view.mode === "split")) {
      view.split = view.splitAt(here.x);
      view.refresh();
    } else {
      view.pan(right, down);
    }
    changed();
  });

  const up = (event) => {
    if (!fingers.delete(event.pointerId)) return;
    if (event.type === "pointerup" && fingers.size === 0 && moved < CLICK && !onBorder) clicked();
    // What is left of a pinch is no click.
    if (fingers.size > 0) moved = CLICK;
  };
  over.addEventListener("pointerup", up);
  over.addEventListener("pointercancel", up);

  over.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const lines = event.deltaMode === 0 ? event.deltaY : event.deltaY * 30;
      // Pinching on a touchpad comes as small steps with the control key.
      const power = Math.max(-60, Math.min(60, lines)) * (event.ctrlKey ? 0.012 : 0.004);
      view.zoomTo(view.factor * Math.exp(-power), place(event));
      changed();
    },
    { passive: false },
  );

  // Goes to `over` as well, which has captured the pointer.
  over.addEventListener("dblclick", () => {
    if (!onBorder) return;
    view.split = 0.5;
    view.refresh();
    changed();
  });
}
