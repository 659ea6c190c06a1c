// Dark, light, or as the system has it.

import { keep, kept } from "./keep.js";

const NAMES = { auto: "as the system", light: "light", dark: "dark" };

export class Theme {
  #button;
  #changed;

  constructor(button, changed) {
    this.#button = button;
    this.#changed = changed;
    button.onclick = () => this.next();
    this.#set(kept("theme") in NAMES ? kept("theme") : "auto");
    matchMedia("(prefers-color-scheme: light)").addEventListener("change", changed);
  }

  next() {
    const names = Object.keys(NAMES);
    const now = document.documentElement.dataset.theme;
    this.#set(names[(names.indexOf(now) + 1) % names.length]);
    keep("theme", document.documentElement.dataset.theme);
  }

  #set(name) {
    document.documentElement.dataset.theme = name;
    this.#button.querySelector("use").setAttribute("href", `#i-${name}`);
    this.#button.setAttribute("aria-label", `Colours: ${NAMES[name]}`);
    this.#button.title = `Colours: ${NAMES[name]} (t)`;
    this.#changed();
  }
}
