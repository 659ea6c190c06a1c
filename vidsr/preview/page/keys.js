// The keyboard, and the list of its keys.

/**
 * @typedef {{keys: string[], name: string, does: string, group: string, act: (event: KeyboardEvent) => void,
 *   release?: () => void, repeats?: boolean, preview?: boolean}} Key
 */

const GROUPS = ["Playback", "View", "Zoom", "Page"];

/**
 * @param {Key[]} table keys are names as events have them, a preview's own are dead while a job is watched
 * @param {() => boolean} previewing
 */
export function listen(table, previewing) {
  let held = null;
  const letGo = () => {
    held?.release();
    held = null;
  };
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (busy(event) || document.getElementById("app").inert || document.getElementById("help").open) return;
    const name = (event.shiftKey && event.key.startsWith("Arrow") ? "Shift+" : "") + lower(event.key);
    const key = table.find(({ keys }) => keys.includes(name));
    if (!key || (key.preview && !previewing()) || (event.repeat && !key.repeats)) return;
    event.preventDefault();
    key.act(event);
    if (key.release) held = key;
  });
  document.addEventListener("keyup", (event) => {
    if (held?.keys.includes(lower(event.key))) letGo();
  });
  // A window that loses the focus is not told that a key was let go.
  window.addEventListener("blur", letGo);
}

/** Writes the table into the help. */
export function explain(table, into) {
  for (const group of GROUPS) {
    const part = document.createElement("section");
    const head = document.createElement("h3");
    head.textContent = group;
    const list = document.createElement("dl");
    for (const { name, does } of table.filter((key) => key.group === group)) {
      const row = document.createElement("div");
      const keys = document.createElement("dt");
      for (const text of name.split(" ")) {
        const cap = document.createElement("kbd");
        cap.textContent = text;
        keys.append(cap);
      }
      const words = document.createElement("dd");
      words.textContent = does;
      row.append(keys, words);
      list.append(row);
    }
    part.append(head, list);
    into.append(part);
  }
}

/** Whether the key belongs to what has the focus. */
function busy({ key, target }) {
  if (!(target instanceof Element)) return false;
  if (target.matches("select, textarea") || target.matches("input:not([type=checkbox], [type=range])")) return true;
  if (target.matches("input[type=range]")) return key.startsWith("Arrow") || key === "Home" || key === "End";
  return target.matches("button, a, summary, input") && (key === " " || key === "Enter");
}

const lower = (key) => (key.length === 1 ? key.toLowerCase() : key);
