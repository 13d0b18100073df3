// What was tried when the gallery was planned: quality against milliseconds, and the Pareto front.

import { plan } from "./api.js";
import { linearTicks, logTicks } from "./charts.js";
import { byId, draw, fill, make } from "./dom.js";
import { macs, percent, time, widestFirst, widthName } from "./words.js";

const [WIDTH, HEIGHT] = [720, 400];
const ROOM = { left: 64, right: 24, top: 20, bottom: 52 };

/** Opens the plan of a gallery. */
export async function openPlan(gallery, failed) {
  const dialog = byId("plan");
  try {
    const { points } = await plan(gallery.name);
    fill(
      dialog,
      head(dialog, gallery),
      ...(points.length
        ? [front(points), legend(points), list(points)]
        : [make("p", { class: "note" }, "This gallery has no plan.")]),
    );
    dialog.showModal();
  } catch (error) {
    failed(error, () => openPlan(gallery, failed));
  }
}

function head(dialog, gallery) {
  const close = make(
    "button",
    { type: "button", class: "round", "aria-label": "Close", onclick: () => dialog.close() },
    "×",
  );
  return make(
    "div",
    {},
    make(
      "div",
      { class: "panel-head" },
      make("h2", { id: "plan-title" }, `The plan of ${gallery.name}`),
      close,
    ),
    make("p", { class: "note" }, sentence(gallery.plan ?? "")),
  );
}

/** Scales of the two axes, with some room around the points. */
function scales(points) {
  const costs = points.map((point) => point.ms);
  const shares = points.map((point) => point.recall);
  const [low, high] = [Math.min(...costs) / 1.15, Math.max(...costs) * 1.15];
  const least = Math.min(...shares);
  const bottom = Math.max(0, least - 0.08 * (1 - least) - 0.002);
  const x = (ms) =>
    ROOM.left + ((WIDTH - ROOM.left - ROOM.right) * Math.log(ms / low)) / Math.log(high / low);
  const y = (share) => ROOM.top + ((HEIGHT - ROOM.top - ROOM.bottom) * (1 - share)) / (1 - bottom);
  return { x, y, across: logTicks(low, high), up: linearTicks(bottom, 1) };
}

function front(points) {
  const scale = scales(points);
  const best = points.filter((point) => point.front).sort((a, b) => a.ms - b.ms);
  return draw(
    "svg",
    {
      class: "front",
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      role: "img",
      "aria-label": `Recall against milliseconds of ${points.length} strategies; the table below says the same`,
    },
    ...grid(scale),
    draw("path", { class: "line", d: steps(best, scale) }),
    ...[...points].sort((a, b) => a.chosen - b.chosen).map((point) => dot(point, widths(points), scale)),
  );
}

function grid({ x, y, across, up }) {
  const bottom = HEIGHT - ROOM.bottom;
  return [
    ...across.map((ms) =>
      draw(
        "g",
        {},
        draw("line", { class: "rule", x1: x(ms), x2: x(ms), y1: ROOM.top, y2: bottom }),
        label(x(ms), bottom + 20, `${Number(ms.toPrecision(3))}`, "middle"),
      ),
    ),
    ...up.map((share) =>
      draw(
        "g",
        {},
        draw("line", { class: "rule", x1: ROOM.left, x2: WIDTH - ROOM.right, y1: y(share), y2: y(share) }),
        label(ROOM.left - 10, y(share) + 4, `${Number((100 * share).toPrecision(4))} %`, "end"),
      ),
    ),
    label((WIDTH + ROOM.left) / 2, HEIGHT - 8, "milliseconds of one query, encoder and search", "middle"),
  ];
}

const label = (x, y, words, anchor) => draw("text", { x, y, "text-anchor": anchor }, words);

/** What is reached for at most so many milliseconds: it rises in steps. */
function steps(best, { x, y }) {
  return best
    .map((point, place) =>
      place ? `H${x(point.ms)}V${y(point.recall)}` : `M${x(point.ms)},${y(point.recall)}`,
    )
    .join("");
}

const widths = (points) => widestFirst(new Set(points.map((point) => point.width)));

// Settings of a strategy that tell little of it; its tooltip has them all.
const DETAILS = /^(gallery width|index|effort|gate|again|expand|rerank width full)\b/;
const shortName = (name) =>
  name
    .split(", ")
    .filter((part) => !DETAILS.test(part))
    .join(", ");

/** What the plan does, as a sentence. */
function sentence(words) {
  const plain = words.replaceAll("`", "");
  return plain.charAt(0).toUpperCase() + plain.slice(1);
}

function dot(point, known, { x, y }) {
  const place = { cx: x(point.ms), cy: y(point.recall) };
  const words = `${point.name}: ${percent(point.recall)}, ${time(point.ms)}, ${macs(point.gmacs)} multiply-adds${point.chosen ? "; chosen" : ""}`;
  return draw(
    "g",
    { class: `dot shade${known.indexOf(point.width) % 6}${point.front ? " best" : ""}` },
    draw("title", {}, words),
    point.chosen ? draw("circle", { ...place, r: 12, class: "ring" }) : null,
    draw("circle", { ...place, r: point.front ? 6 : 4.5 }),
  );
}

function legend(points) {
  const known = widths(points).map((width, place) =>
    make("li", {}, make("i", { class: `shade${place % 6}` }), widthName(width)),
  );
  return make(
    "ul",
    { class: "legend" },
    ...known,
    make("li", {}, make("i", { class: "ring" }), "chosen"),
    make("li", {}, make("i", { class: "step" }), "nothing tried was better for less"),
  );
}

function list(points) {
  const cells = (point) => [
    make(
      "th",
      { scope: "row", title: point.name },
      shortName(point.name),
      point.chosen ? make("b", { class: "good" }, " chosen") : null,
    ),
    make("td", { class: "number" }, percent(point.recall)),
    make("td", { class: "number" }, time(point.ms)),
    make("td", { class: "number" }, macs(point.gmacs)),
  ];
  const rows = [...points].filter((point) => point.front || point.chosen).sort((a, b) => a.ms - b.ms);
  const heads = ["strategy", "of the exact answer", "a query", "multiply-adds"];
  return make(
    "div",
    { class: "wide" },
    make(
      "table",
      {},
      make("caption", {}, "The front, and the choice"),
      make(
        "thead",
        {},
        make(
          "tr",
          {},
          ...heads.map((words, place) => make("th", { scope: "col", class: place ? "number" : "" }, words)),
        ),
      ),
      make("tbody", {}, ...rows.map((point) => make("tr", {}, ...cells(point)))),
    ),
  );
}
