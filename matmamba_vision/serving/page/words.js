// Numbers and names as people read them.

const GROUPED = new Intl.NumberFormat("en");

/** A whole number with its thousands apart. */
export const count = (value) => GROUPED.format(value);

/** "1 image", "3 images". */
export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

/** Milliseconds: three digits at most, and seconds from one on. */
export function time(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(ms >= 10000 ? 0 : 1)} s`;
  return `${ms.toFixed(ms >= 100 ? 0 : ms >= 10 ? 1 : ms >= 1 ? 1 : 2)} ms`;
}

/** Multiply-adds, which are given in thousands of millions. */
export function macs(giga) {
  if (giga >= 1) return `${giga.toFixed(giga >= 10 ? 0 : 1)} G`;
  const mega = giga * 1000;
  return `${mega.toFixed(mega >= 10 ? 0 : 1)} M`;
}

/** A share as a percentage; the last percent in tenths, where they matter. */
export function percent(share) {
  const value = 100 * share;
  return `${value.toFixed(value > 99 && value < 100 ? 1 : 0)} %`;
}

/** A width in words; the empty one is whatever the load allows. */
export const widthName = (width) =>
  width === "" ? "auto" : width === "full" ? "full width" : `width ${width}`;

/** Widths in the order of what they cost, the widest first. */
export const widestFirst = (widths) => [...widths].sort((a, b) => part(b) - part(a));

/** The share of the full width that a width is; a mixed one has no such name, and stands last. */
function part(width) {
  const [above, below = "1"] = width === "full" ? ["1"] : width.split("/");
  return Number(above) / Number(below) || 0;
}

/** What a value of metadata looks like in one line. */
export const plain = (value) =>
  typeof value === "object" && value !== null ? JSON.stringify(value) : String(value);

/** A model by the last part of its path: the run's folder, where the file has a name that all have. */
export function modelName(model) {
  const parts = model.split("/").filter((part) => part && part !== "model.safetensors");
  return (parts.at(-1) ?? model).replace(/\.safetensors$/, "");
}

/** Seconds as a duration: "3 min", "2 h". */
export function duration(seconds) {
  const steps = [
    [86400, "d"],
    [3600, "h"],
    [60, "min"],
  ];
  const found = steps.find(([size]) => seconds >= size);
  return found ? `${Math.floor(seconds / found[0])} ${found[1]}` : `${Math.floor(seconds)} s`;
}
