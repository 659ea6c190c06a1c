// Model and scale, how it goes right now, and how long the whole would take.

import { duration, rate, size } from "./format.js";

const LIMITS = {
  model: "The model is what takes the time.",
  decode: "Reading the video is what takes the time.",
  show: "Making pictures for this page is what takes the time.",
  link: "The connection to this page is what takes the time.",
};

const FORETELL_MILLIS = 5000;

const byId = (id) => document.getElementById(id);

export class Panel {
  #send;
  #models = [];
  #choice = { model: "", scale: null };
  #since = { shown: 0, at: 0 };
  #measured = false;
  #keeps = "";
  #foretoldAt = -Infinity;

  constructor(send) {
    this.#send = send;
    byId("model").onchange = () => {
      const model = byId("model").value;
      const { scale } = this.#choice;
      // A scale that the model has not itself is left to it.
      this.#choose(model, this.#about(model)?.scales.includes(scale) ? scale : null);
    };
    for (const button of document.querySelectorAll("[data-smooth]")) {
      button.onclick = () => {
        mark("[data-smooth]", "smooth", button.dataset.smooth);
        send({ do: "smooth", how: button.dataset.smooth });
      };
    }
    byId("predict").onclick = () => send({ do: "predict" });
  }

  get choice() {
    return this.#choice;
  }

  /** How many times larger it becomes, as text; undefined where nobody has said. */
  get factor() {
    const { model, scale } = this.#choice;
    return scale ?? this.#about(model)?.own ?? this.#about(model)?.scales[0];
  }

  source({ models }) {
    this.#models = models ?? [];
    byId("model").replaceChildren(...this.#models.map(({ name }) => new Option(name, name)));
  }

  state({ model, scale, smooth, playing, shown, crop }) {
    if (!playing) delete byId("live").dataset.told; // figures of what is over
    const fast = shown && shown !== model ? ` with ${shown}` : "";
    this.#keeps = `This machine keeps up${fast}${crop ? ", with a part of the picture" : ""}.`;
    const another = model !== this.#choice.model || scale !== this.#choice.scale;
    this.#choice = { model, scale };
    const list = byId("model");
    if (![...list.options].some((option) => option.value === model)) list.add(new Option(model, model));
    list.value = model;
    byId("model-about").textContent = this.#about(model)?.about ?? "";
    this.#scales(this.#about(model)?.scales ?? [], this.factor);
    mark("[data-smooth]", "smooth", smooth);
    if (another && this.#measured) {
      this.#measured = false;
      byId("forecast").textContent = "Not measured with this model and scale.";
    }
  }

  stats(stats, shown, offsetMillis, sound) {
    const { source_fps: source, made_fps: made, busy } = stats;
    byId("live").dataset.told = "";
    byId("made").textContent = made === null ? "–" : made.toFixed(made < 9.95 ? 1 : 0);
    byId("of-fps").textContent = source ? ` of ${rate(source)} frames a second` : " frames a second";
    const share = source && made !== null ? Math.min(100, Math.round((100 * made) / source)) : 0;
    const meter = byId("meter");
    meter.setAttribute("aria-valuenow", share);
    meter.firstElementChild.style.transform = `scaleX(${share / 100})`;
    meter.dataset.low = String(share < 90);
    byId("limit").textContent = LIMITS[stats.limit] ?? (share >= 95 ? this.#keeps : "");
    byId("f-shown").textContent = `${this.#shownRate(shown)} a second`;
    const onLink = stats.dropped_link ? `, ${stats.dropped_link} by the connection` : "";
    byId("f-dropped").textContent = `${stats.dropped} frames${onLink}`;
    byId("f-latency").textContent = stats.latency_ms === null ? "–" : `${Math.round(stats.latency_ms)} ms`;
    byId("f-offset").textContent = sound ? milliseconds(offsetMillis) : "–";
    byId("f-busy").textContent = Object.entries(busy ?? {})
      .map(([stage, part]) => `${stage} ${Math.round(part * 100)} %`)
      .join(", ");
    byId("f-engine").textContent = stats.engine ?? "–";
    if (!this.#measured && stats.job_seconds !== null && stats.job_seconds !== undefined) {
      const fps = stats.job_fps ? `, ${rate(stats.job_fps)} frames a second` : "";
      this.#foretell(`About ${duration(stats.job_seconds)} with ${this.#choice.model}${fps}`);
    }
  }

  /** Now and then: it is read out whenever it is written. */
  #foretell(words) {
    if (performance.now() - this.#foretoldAt < FORETELL_MILLIS) return;
    this.#foretoldAt = performance.now();
    if (byId("forecast").textContent !== words) byId("forecast").textContent = words;
  }

  predicted({ state, seconds, bytes, fps, text }) {
    const measuring = state === "measuring";
    if (!state) return;
    byId("measuring").hidden = !measuring;
    byId("predict").disabled = measuring;
    this.#measured = true;
    if (measuring) {
      byId("forecast").textContent = text ?? "Measuring by samples from all of the video …";
    } else if (state === "failed") {
      byId("forecast").textContent = text ?? "It could not be measured.";
    } else {
      const known = [
        seconds === null ? null : duration(seconds),
        bytes === null ? null : `about ${size(bytes)}`,
        fps ? `${rate(fps)} frames a second` : null,
      ];
      byId("forecast").textContent = [...known, text].filter(Boolean).join(", ");
    }
  }

  #about(model) {
    return this.#models.find(({ name }) => name === model);
  }

  #choose(model, scale) {
    this.#send({ do: "choose", model, scale });
  }

  #scales(scales, scale) {
    const group = byId("scale");
    const all = scale === undefined || scales.includes(scale) ? scales : [...scales, scale];
    if (all.join() !== group.dataset.all) {
      group.dataset.all = all.join();
      group.replaceChildren(
        ...all.map((value) => {
          const button = document.createElement("button");
          button.type = "button";
          button.dataset.scale = value;
          button.textContent = `${value}×`;
          button.onclick = () => this.#choose(this.#choice.model, value);
          return button;
        }),
      );
    }
    mark("[data-scale]", "scale", scale);
  }

  /** Pictures shown a second, since the last time. */
  #shownRate(shown) {
    const at = performance.now() / 1000;
    const fps = (shown - this.#since.shown) / Math.max(0.1, at - this.#since.at);
    this.#since = { shown, at };
    return rate(Math.max(0, fps));
  }
}

/** With a sign, so that early and late are told apart. */
function milliseconds(value) {
  return `${value >= 0 ? "+" : "−"}${Math.abs(value).toFixed(0)} ms`;
}

/** The button of a group whose data say `value` is the one that is pressed. */
export function mark(selector, key, value) {
  for (const button of document.querySelectorAll(selector)) {
    button.setAttribute("aria-pressed", String(button.dataset[key] === String(value)));
  }
}
