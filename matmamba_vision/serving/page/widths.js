// The slider of widths: what each costs, and what another one changes in the answer.

import { byId, fill, make } from "./dom.js";
import { macs, plural, time, widthName } from "./words.js";

/** Widths of a gallery, the least first, behind "auto": what the load allows. */
export const choices = (gallery) => ["", ...byCost(gallery).map((row) => row.width)];

const byCost = (gallery) => [...(gallery?.widths ?? [])].sort((a, b) => a.gmacs - b.gmacs);

/** Shows the widths of a gallery; `chosen` is called with the one that is chosen. */
export function showWidths(gallery, width, chosen) {
  const names = choices(gallery);
  const slider = byId("width");
  byId("width-panel").hidden = names.length < 2;
  slider.max = names.length - 1;
  slider.value = Math.max(0, names.indexOf(width));
  // Its ends under the middles of the first and the last column.
  slider.style.setProperty("width", `calc(${(100 * (names.length - 1)) / names.length}% + 1rem)`);
  slider.oninput = () => chosen(names[slider.value]);
  const rows = [null, ...byCost(gallery)];
  const most = Math.max(...rows.map((row) => row?.gmacs ?? 0));
  fill(byId("width-bars"), ...rows.map((row) => column(row, most, () => chosen(row?.width ?? ""))));
  describe(gallery, width);
}

function column(row, most, chosen) {
  const share = row ? Math.max(0.04, row.gmacs / most) : 0;
  return make(
    "span",
    { class: `column${row ? "" : " auto"}`, "data-width": row?.width ?? "", onclick: chosen },
    make("span", { class: "tower" }, make("i", { style: { height: `${100 * share}%` } })),
    make("b", {}, row ? row.width : "auto"),
    make("small", {}, row ? time(row.ms) : "by load"),
  );
}

/** Says what the chosen width costs. */
export function describe(gallery, width) {
  const slider = byId("width");
  const rows = byCost(gallery);
  const row = rows.find((known) => known.width === width);
  const full = rows.at(-1);
  const facts = row
    ? `${macs(row.gmacs)} multiply-adds, ${time(row.ms)} an image${row === full ? "" : `: ${saved(row, full)}`}`
    : "The service takes the widest that is in time, and narrower ones under load.";
  byId("width-facts").textContent = facts;
  slider.setAttribute("aria-valuetext", row ? `${widthName(width)}, ${facts}` : "automatic, by load");
  for (const shown of byId("width-bars").children)
    shown.classList.toggle("chosen", shown.dataset.width === width);
}

const saved = (row, full) => `${(full.gmacs / row.gmacs).toFixed(1)} times less than full`;

/** Hits of the first page beside those of the same question at the width before: which came, which went. */
export function changes(before, hits) {
  const ids = new Set(hits.map((hit) => hit.id));
  const known = new Set(before.map((hit) => hit.id));
  return { came: hits.filter((hit) => !known.has(hit.id)), gone: before.filter((hit) => !ids.has(hit.id)) };
}

/** Says what changed, "" while there is nothing to compare with. */
export function describeChange(change, before, now) {
  const line = byId("width-change");
  if (!change) line.textContent = "";
  else if (before === now) line.textContent = "";
  else if (!change.came.length && !change.gone.length)
    line.textContent = `The same images as at ${widthName(before)}.`;
  else
    line.textContent = `Against ${widthName(before)}: ${plural(change.came.length, "image")} came, ${change.gone.length} went.`;
}
