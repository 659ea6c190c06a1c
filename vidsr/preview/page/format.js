// Numbers in words.

/** 3723.4567 -> "1:02:03.456"; rounded down, as a picture is on screen from its time on. */
export function exactTime(seconds) {
  const millis = Math.max(0, Math.floor(seconds * 1000 + 1e-6));
  const rest = String(millis % 1000).padStart(3, "0");
  return `${clockTime(Math.floor(millis / 1000))}.${rest}`;
}

/** 3723 -> "1:02:03" */
export function clockTime(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (value) => String(value).padStart(2, "0");
  return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
}

/** 4000 -> "1 h 7 min"; what people say of a time to wait. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const minutes = Math.round(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  return minutes < 2880 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${Math.round(minutes / 1440)} days`;
}

/** 123456789 -> "123 MB" */
export function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value < 9.95 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** 23.976 -> "23.98", 24 -> "24" */
export function rate(fps) {
  return String(Number(fps.toFixed(fps < 10 ? 2 : fps % 1 ? 2 : 0)));
}

/** For a POSIX shell. */
export function shellWord(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
