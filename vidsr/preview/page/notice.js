// What the server has to say: passing notices, and what covers the page.

const STAY_MILLIS = { info: 6000, warning: 12000 };
const MOST = 4;

/** A short line that leaves by itself, unless it is an error. */
export function toast(text, level = "info") {
  const list = document.getElementById("toasts");
  const line = document.createElement("div");
  line.className = `toast ${level}`;
  const words = document.createElement("span");
  words.textContent = text;
  const away = button("Dismiss", "i-close", () => line.remove());
  line.append(icon(level === "info" ? "i-info" : "i-warn"), words, away);
  for (const same of [...list.children].filter((other) => other.textContent === line.textContent)) same.remove();
  list.append(line);
  while (list.children.length > MOST) list.firstElementChild.remove();
  const millis = STAY_MILLIS[level];
  if (millis) setTimeout(() => line.remove(), millis);
}

/** Covers the page. action: [label, what it does] or null. */
export function cover(kind, title, text, action = null) {
  const veil = document.getElementById("veil");
  const act = document.getElementById("veil-do");
  const same = !veil.hidden && veil.dataset.kind === kind;
  veil.dataset.kind = kind;
  veil.hidden = false;
  document.getElementById("veil-title").textContent = title;
  document.getElementById("veil-text").textContent = text;
  document.getElementById("app").inert = true;
  document.getElementById("help").close();
  act.hidden = action === null;
  if (action) [act.textContent, act.onclick] = action;
  if (same) return;
  const card = veil.firstElementChild;
  card.tabIndex = -1;
  (action ? act : card).focus();
}

export function uncover() {
  document.getElementById("veil").hidden = true;
  document.getElementById("app").inert = false;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#${name}`);
  svg.append(use);
  return svg;
}

function button(label, name, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "icon";
  made.setAttribute("aria-label", label);
  made.append(icon(name));
  made.onclick = act;
  return made;
}
