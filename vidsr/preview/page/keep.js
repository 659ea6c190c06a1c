// Small preferences that outlive the page; a browser that keeps nothing loses nothing else.

/** @returns {string | null} */
export function kept(name) {
  try {
    return localStorage.getItem(`vidsr.${name}`);
  } catch {
    return null;
  }
}

export function keep(name, value) {
  try {
    localStorage.setItem(`vidsr.${name}`, String(value));
  } catch {
    // Storage is blocked or full.
  }
}
