// Which key does what.

const STOPS = [1, 2, 4, 8];
const PAN = 60;

/** @returns {import("./keys.js").Key[]} */
export function keyTable({ does, player, transport, theme, view }) {
  const closer = () => does.zoom(STOPS.find((stop) => stop > view.factor * 1.01) ?? STOPS.at(-1));
  const farther = () => does.zoom(STOPS.findLast((stop) => stop < view.factor * 0.99) ?? 0);
  const playback = (keys, name, words, act, repeats = false) => {
    return { keys, name, does: words, group: "Playback", act, repeats, preview: true };
  };
  const other = (group, keys, name, words, act, more = {}) => ({ keys, name, does: words, group, act, ...more });
  const digits = Array.from("0123456789");
  return [
    playback([" ", "k"], "Space K", "play or pause", () => transport.toggle()),
    playback([","], ",", "the frame before", (event) => player.step(-1, event.repeat), true),
    playback(["."], ".", "the next frame", (event) => player.step(1, event.repeat), true),
    playback(["ArrowLeft"], "←", "5 seconds back", () => transport.jump(-5), true),
    playback(["ArrowRight"], "→", "5 seconds on", () => transport.jump(5), true),
    playback(["j"], "J", "10 seconds back", () => transport.jump(-10), true),
    playback(["l"], "L", "10 seconds on", () => transport.jump(10), true),
    playback(["Home"], "Home", "to the beginning", () => transport.jumpTo(0)),
    playback(["End"], "End", "to the end", () => transport.jumpTo(1)),
    playback(digits, "0 … 9", "to 0 … 90 %", ({ key }) => transport.jumpTo(Number(key) / 10)),
    playback(["m"], "M", "sound on or off", () => transport.mute()),
    other("View", ["s"], "S", "split", () => does.view("split")),
    other("View", ["d"], "D", "side by side", () => does.view("side")),
    other("View", ["x"], "X", "one at a time, then change them", () => does.flip()),
    other("View", ["a"], "A", "the original while held", () => does.hold(true), { release: () => does.hold(false) }),
    other("View", ["["], "[", "border to the left", () => does.border(view.split - 0.05), { repeats: true }),
    other("View", ["]"], "]", "border to the right", () => does.border(view.split + 0.05), { repeats: true }),
    other("View", ["p"], "P", "squares for the original, too (from 200 %)", () => does.squares()),
    other("Zoom", ["+", "="], "+", "closer", closer),
    other("Zoom", ["-"], "−", "farther", farther),
    other("Zoom", ["z"], "Z", "fit or 100 %", () => does.zoom(view.zoom === 0 ? 1 : 0)),
    other("Zoom", ["Shift+ArrowLeft"], "Shift ←", "look left", () => does.pan(PAN, 0), { repeats: true }),
    other("Zoom", ["Shift+ArrowRight"], "Shift →", "look right", () => does.pan(-PAN, 0), { repeats: true }),
    other("Zoom", ["Shift+ArrowUp"], "Shift ↑", "look up", () => does.pan(0, PAN), { repeats: true }),
    other("Zoom", ["Shift+ArrowDown"], "Shift ↓", "look down", () => does.pan(0, -PAN), { repeats: true }),
    other("Page", ["f"], "F", "full screen", () => does.full()),
    other("Page", ["i"], "I", "panel", () => does.panel()),
    other("Page", ["n"], "N", "save this pair as PNG", () => does.snapshot()),
    other("Page", ["t"], "T", "dark, light, as the system", () => theme.next()),
    other("Page", ["?"], "?", "this list", () => does.help()),
  ];
}
