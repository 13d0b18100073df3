// Small drawings in SVG.

import { draw, make } from "./dom.js";

/** A line of the last values, the newest at the right. */
export function sparkline(values, words) {
  const [width, height] = [220, 44];
  const most = Math.max(...values, 1e-9);
  const x = (place) => (values.length < 2 ? width : (place * width) / (values.length - 1));
  const y = (value) => height - 3 - (value / most) * (height - 8);
  const points = values.map((value, place) => `${x(place).toFixed(1)},${y(value).toFixed(1)}`);
  const area = `${points.join(" ")} ${width},${height} 0,${height}`;
  return draw(
    "svg",
    {
      class: "sparkline",
      viewBox: `0 0 ${width} ${height}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": words,
    },
    draw("polygon", { points: area, class: "area" }),
    draw("polyline", { points: points.join(" "), class: "line" }),
  );
}

/** A share within its interval, on a scale from `least` to 1. */
export function interval({ estimate, low, high }, least) {
  const at = (share) => `${(100 * Math.max(0, share - least)) / (1 - least)}%`;
  const long = `${(100 * (high - Math.max(low, least))) / (1 - least)}%`;
  return make(
    "div",
    { class: "interval", "aria-hidden": "true" },
    make("i", { class: "span", style: { left: at(low), width: long } }),
    make("i", { class: "point", style: { left: at(estimate) } }),
  );
}

/** Round values for an axis that spans from `low` to `high` by factors. */
export function logTicks(low, high) {
  const digits = high / low < 6 ? [1, 1.5, 2, 3, 4, 5, 7] : high / low < 60 ? [1, 2, 5] : [1];
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1)
    for (const digit of digits) found.push(digit * 10 ** power);
  const shown = found.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
  return shown.length ? shown : [low];
}

/** About `wanted` round values between two. */
export function linearTicks(low, high, wanted = 5) {
  const rough = (high - low) / wanted;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((digit) => digit * size).find((found) => found >= rough);
  const first = Math.ceil(low / step - 1e-9);
  const many = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length: many }, (_, place) => Number(((first + place) * step).toPrecision(12)));
}
