// Puts the parts together: what the server tells goes to them, what people do goes to the server.

import { clockTime } from "./format.js";
import { handle } from "./hand.js";
import { Job } from "./job.js";
import { keep, kept } from "./keep.js";
import { explain, listen } from "./keys.js";
import { Link } from "./link.js";
import { cover, toast, uncover } from "./notice.js";
import { Overlay } from "./overlay.js";
import { Panel, mark } from "./panel.js";
import { Player } from "./player.js";
import { Screen } from "./screen.js";
import { keyTable } from "./table.js";
import { Theme } from "./theme.js";
import { Transport } from "./transport.js";
import { View } from "./view.js";

const LOOK_MILLIS = 250;
const LOST_MILLIS = 700;

const byId = (id) => document.getElementById(id);
const app = byId("app");

let source = null;
let state = null;
let lostTimer = 0;
let looked = "0.50,0.50";
let lookTimer = 0;

const send = (command) => link.send(command);
const overlay = new Overlay(() => view.refresh());
const view = new View(byId("canvas"), (drawn) => overlay.place(view, drawn));
const player = new Player(view, send, playerChanged);
const transport = new Transport(player);
const panel = new Panel(send);
const job = new Job(send);
const screen = new Screen(() => player.playing || player.mode === "watch");
const theme = new Theme(byId("theme"), () => view.refresh());
const link = new Link({ tell, data: (message) => player.data(message), state: linked });

const tells = {
  source(message) {
    source = message;
    const { name, width, height, fps, seconds, sound, notes, mode } = message;
    app.dataset.mode = mode;
    player.mode = mode;
    player.withSound = Boolean(sound);
    player.frameSeconds = 1 / (fps || 25);
    const [across, down] = (message.aspect ?? "1:1").split(":").map(Number);
    view.shape = {
      width,
      height,
      growth: view.shape?.growth ?? 2,
      aspect: across / down || 1,
      turn: message.turn ?? 0,
      mirrored: message.mirrored === true,
    };
    byId("name").textContent = name;
    document.title = `${name} – vidsr`;
    transport.length = mode === "watch" ? null : seconds;
    byId("volume-group").hidden = !sound;
    panel.source(message);
    job.source(message);
    byId("notes").hidden = !notes?.length;
    byId("notes").firstElementChild.replaceChildren(
      ...(notes ?? []).map((text) => Object.assign(document.createElement("li"), { textContent: text })),
    );
    overlay.shape(view.shape);
    wakeHint();
    view.refresh();
  },
  state(message) {
    state = message;
    player.state(message);
    panel.state(message);
    job.chosen(panel.choice, panel.factor);
    overlay.loading(message.loading);
    facts();
    transport.refresh();
  },
  stats(message) {
    panel.stats(message, player.shown, player.offsetMillis, player.audible && source?.sound);
  },
  predicted(message) {
    panel.predicted(message);
  },
  notice({ text, level }) {
    toast(text, level);
  },
  job(message) {
    const done = job.told(message);
    if (source) document.title = `${done === null ? "" : `${Math.floor(done * 100)} % `}${source.name} – vidsr`;
  },
  taken() {
    link.rest();
    player.reset();
    cover("taken", "Playing in another tab", "A preview has one viewer at a time, and another tab has taken over.", [
      "Continue here",
      () => link.open(),
    ]);
  },
  broken({ text }) {
    link.rest();
    player.reset();
    cover("broken", "This cannot be shown", text);
  },
};

function tell(message) {
  if (Object.hasOwn(tells, message.tell)) tells[message.tell](message);
}

function linked(how) {
  clearTimeout(lostTimer);
  if (how === "open") {
    player.reset();
    uncover();
    looked = "";
    look();
    return;
  }
  player.reset();
  transport.refresh();
  if (source?.mode === "watch" && job.over) {
    link.rest(); // the run has ended, and the server with it
    return;
  }
  if (how === "refused") {
    cover("broken", "This page has no key any more", "Open the address that vidsr has printed; it has the key in it.");
    return;
  }
  const text = "Trying again. If you have ended vidsr, start it again; a job that ran in it has ended with it.";
  // What is back at once need not be announced.
  lostTimer = setTimeout(() => cover("lost", "Connection lost", text), LOST_MILLIS);
}

/** @param {"position" | "playing" | "sound" | "undecodable"} what */
function playerChanged(what) {
  if (what === "undecodable") {
    toast("A picture could not be read and was left out.", "warning");
    return;
  }
  transport.refresh();
  named();
  wakeHint();
  if (what === "playing") screen.stir();
}

function facts() {
  const { size, crop } = state;
  const shown = size && !crop ? ` → ${size[0]} × ${size[1]}` : "";
  const length = source?.seconds ? ` · ${clockTime(source.seconds)}` : "";
  byId("facts").textContent = source ? `${source.width} × ${source.height}${shown}${length}` : "";
  named();
  byId("canvas").setAttribute("aria-label", `${source?.name}, and what ${state.model} makes of it`);
}

/** Says what is on screen: a model that stands in for a slow one has its own name there. */
function named() {
  const { header } = player;
  if (!source || !state) return;
  const [, , width, height] = header?.box ?? [0, 0, source.width, source.height];
  const times = panel.factor ? ` ${panel.factor}x` : "";
  overlay.picture(`${header?.model ?? state.model}${times}`, width < source.width || height < source.height);
}

/** Says where people look, now and then, so that a part that is enlarged is the one they see. */
function look() {
  if (lookTimer) return;
  lookTimer = setTimeout(() => {
    lookTimer = 0;
    const { x, y } = view.look;
    const now = `${x.toFixed(2)},${y.toFixed(2)}`;
    if (now === looked || source === null) return;
    looked = now;
    send({ do: "look", x, y });
  }, LOOK_MILLIS);
}

function viewChanged() {
  app.dataset.view = view.mode;
  app.dataset.zoomed = String(view.zoom !== 0);
  mark("[data-view]", "view", view.mode);
  mark("[data-zoom]", "zoom", view.zoom);
  mark("[data-flip]", "flip", view.shown);
  byId("flip").hidden = view.mode !== "ab";
  byId("pixels").setAttribute("aria-pressed", String(view.squares));
  view.refresh();
  look();
}

const does = {
  view(mode) {
    view.mode = mode;
    keep("view", mode);
    viewChanged();
  },
  flip() {
    if (view.mode === "ab") view.shown = view.shown === "original" ? "enlarged" : "original";
    does.view("ab");
  },
  show(which) {
    view.shown = which;
    viewChanged();
  },
  hold(on) {
    view.held = on;
    view.refresh();
  },
  zoom(factor) {
    view.zoomTo(factor);
    viewChanged();
  },
  pan(right, down) {
    view.pan(right, down);
    viewChanged();
  },
  border(share) {
    view.split = Math.min(1, Math.max(0, share));
    viewChanged();
  },
  squares() {
    view.squares = !view.squares;
    viewChanged();
  },
  panel() {
    const open = app.dataset.panel !== "open";
    app.dataset.panel = open ? "open" : "closed";
    byId("panel-toggle").setAttribute("aria-expanded", String(open));
    keep("panel", open ? "open" : "closed");
  },
  help() {
    byId("help").showModal();
  },
  full() {
    screen.toggle();
  },
  snapshot() {
    byId("snapshot").click();
  },
};

function wakeHint() {
  byId("wake").hidden = !(source?.sound && player.mode === "preview" && !player.audible && player.playing);
}

function each(key, act) {
  for (const button of document.querySelectorAll(`button[data-${key}]`)) {
    button.onclick = () => act(button.dataset[key]);
  }
}

each("view", does.view);
each("zoom", (factor) => does.zoom(Number(factor)));
each("flip", does.show);
byId("pixels").onclick = does.squares;
byId("panel-toggle").onclick = does.panel;
byId("help-open").onclick = does.help;
byId("help-close").onclick = () => byId("help").close();
byId("help").onclick = (event) => {
  if (event.target === byId("help")) byId("help").close();
};

byId("split").onkeydown = (event) => {
  const by = { ArrowLeft: -0.02, ArrowDown: -0.02, ArrowRight: 0.02, ArrowUp: 0.02, PageDown: -0.1, PageUp: 0.1 };
  const ends = { Home: 0, End: 1 };
  if (!(event.key in { ...by, ...ends }) || event.shiftKey) return;
  event.preventDefault();
  does.border(ends[event.key] ?? view.split + by[event.key]);
};
byId("job-chip").addEventListener("click", () => {
  if (app.dataset.panel !== "open") does.panel();
});
// What is kept is the picture that is seen, which only this page knows.
byId("snapshot").addEventListener("click", () => player.playing && player.pause());
handle(byId("stage"), byId("split"), view, {
  changed: viewChanged,
  clicked: () => player.mode === "preview" && transport.toggle(),
});
for (const gesture of ["pointerdown", "keydown"]) {
  document.addEventListener(gesture, () => source?.sound && player.wake(), true);
}

const table = keyTable({ does, player, transport, theme, view });
explain(table, byId("help-body"));
listen(table, () => player.mode === "preview");

if (["split", "side", "ab"].includes(kept("view"))) view.mode = kept("view");
if (kept("panel") === "closed") does.panel();
viewChanged();
link.open();

// For whoever tests or measures the page from outside.
Object.defineProperty(window, "vidsr", {
  value: Object.freeze({
    get state() {
      const { playing, ended, serial, queued, shown, late, offsetMillis, clockSeconds, audible, header } = player;
      const { mode, zoom, factor, x, y, split, squares, density } = view;
      return {
        seconds: header?.seconds ?? null,
        pts: header?.pts ?? null,
        exact: header?.exact ?? false,
        ...{ playing, ended, serial, queued, shown, late, offsetMillis, clockSeconds, audible, link: link.kind },
        view: { mode, zoom, factor, x, y, split, squares, density, shown: view.shown },
      };
    },
  }),
});
