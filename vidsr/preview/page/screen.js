// The whole screen for the picture, and controls that step back while it plays.

const IDLE_MILLIS = 2500;

const app = document.getElementById("app");
const button = document.getElementById("full");
const dock = document.getElementById("dock");

export class Screen {
  #plays;
  #timer = 0;

  /** plays(): whether there is something to look at undisturbed. */
  constructor(plays) {
    this.#plays = plays;
    button.onclick = () => this.toggle();
    document.addEventListener("fullscreenchange", () => this.#fill(document.fullscreenElement !== null));
    for (const kind of ["pointermove", "pointerdown", "keydown", "focusin"]) {
      document.addEventListener(kind, () => this.stir(), { passive: true });
    }
  }

  toggle() {
    const on = app.dataset.full !== "true";
    const asked = on ? app.requestFullscreen?.() : document.fullscreenElement && document.exitFullscreen();
    // Where a browser does not let the page have the screen, it still fills the window.
    Promise.resolve(asked).catch(() => {});
    this.#fill(on);
  }

  /** Somebody is there: everything is shown, for a while. */
  stir() {
    clearTimeout(this.#timer);
    app.dataset.idle = "false";
    this.#timer = setTimeout(() => {
      const used = dock.matches(":hover, :has(:focus-visible)");
      app.dataset.idle = String(this.#plays() && !used);
    }, IDLE_MILLIS);
  }

  #fill(on) {
    app.dataset.full = String(on);
    button.setAttribute("aria-pressed", String(on));
    this.stir();
  }
}
