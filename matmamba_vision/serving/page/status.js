// The panel of the service now: load, which widths answer, and what their answers are worth.

import { status } from "./api.js";
import { interval, sparkline } from "./charts.js";
import { byId, fill, make } from "./dom.js";
import { count, duration, percent, plural, time, widestFirst, widthName } from "./words.js";

const EVERY = 2000;
// Values that the lines show.
const KEPT = 60;

/** Asks for the status as long as the panel is open and the tab is seen. */
export class StatusPanel {
  constructor(shown) {
    Object.assign(this, { shown, panel: byId("status"), timer: 0, rates: [], slowest: [] });
    this.button = byId("toggle-status");
    this.button.onclick = () => this.toggle();
    this.panel.addEventListener("keydown", (event) => event.key === "Escape" && this.toggle(false));
    document.addEventListener("visibilitychange", () => this.poll());
  }

  toggle(open = this.panel.hidden) {
    this.panel.hidden = !open;
    this.button.setAttribute("aria-expanded", String(open));
    document.body.classList.toggle("with-status", open);
    if (open) this.poll();
    else this.button.focus();
  }

  async poll() {
    clearTimeout(this.timer);
    if (this.panel.hidden || document.hidden) return;
    await this.refresh();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.poll(), EVERY);
  }

  async refresh() {
    try {
      const found = await status();
      this.rates = [...this.rates, found.per_second].slice(-KEPT);
      this.slowest = [...this.slowest, found.p95_ms ?? 0].slice(-KEPT);
      this.shown(found.ready);
      fill(this.panel, this.head(), ...this.parts(found));
    } catch {
      this.shown(false);
      fill(this.panel, this.head(), make("p", { class: "reason" }, "The service does not answer."));
    }
  }

  head() {
    // The same button each time, so that it keeps the focus.
    this.close ??= make(
      "button",
      { type: "button", class: "round", "aria-label": "Close the panel", onclick: () => this.toggle(false) },
      "×",
    );
    return make("div", { class: "panel-head" }, make("h2", {}, "The service now"), this.close);
  }

  parts(found) {
    return [
      ...found.notices.map((words) => make("p", { class: "reason" }, words)),
      tiles(found),
      graph("Searches a second", this.rates, found.per_second.toFixed(1)),
      graph("95 % of answers within", this.slowest, milliseconds(found.p95_ms)),
      mix(found.widths),
      recalls(found.recall),
      found.min_width
        ? make(
            "p",
            { class: "note" },
            `Nothing narrower than ${widthName(found.min_width)} answers at the moment.`,
          )
        : null,
      table(found.table, found.slo_ms),
      versions(found),
    ];
  }
}

const milliseconds = (ms) => (ms === null || ms === undefined ? "–" : time(ms));

function tiles(found) {
  const late = found.in_time !== null && found.in_time !== undefined && found.in_time < 0.99;
  const shown = [
    [
      `in ${time(found.slo_ms)}`,
      found.in_time === null || found.in_time === undefined ? "–" : percent(found.in_time),
      late ? "missed" : "good",
    ],
    ["median", milliseconds(found.p50_ms), ""],
    ["99 %", milliseconds(found.p99_ms), ""],
    ["waiting", count(found.queue), ""],
    ["in work", count(found.in_flight), ""],
    ["turned away", count(found.shed), found.shed ? "missed" : ""],
  ];
  const tile = ([name, value, kind]) =>
    make("div", { class: "tile" }, make("dt", {}, name), make("dd", { class: kind }, value));
  return make("dl", { class: "tiles", "aria-label": "In the last minute" }, ...shown.map(tile));
}

const graph = (title, values, now) =>
  make(
    "div",
    { class: "graph" },
    make("h3", {}, title, make("b", {}, now)),
    sparkline(values, `${title}, lately`),
  );

function mix(widths) {
  const shares = widestFirst(Object.keys(widths)).flatMap((width) =>
    widths[width] > 0 ? [[width, widths[width]]] : [],
  );
  const part = ([width, share], place) =>
    make("i", {
      class: `shade${place % 6}`,
      style: { width: `${100 * share}%` },
      title: `${widthName(width)}: ${percent(share)}`,
    });
  const legend = ([width, share], place) =>
    make("li", {}, make("i", { class: `shade${place % 6}` }), `${width || "none"} ${percent(share)}`);
  const shown = shares.length
    ? [
        make("div", { class: "stacked", "aria-hidden": "true" }, ...shares.map(part)),
        make("ul", { class: "legend" }, ...shares.map(legend)),
      ]
    : [make("p", { class: "note" }, "Nothing was encoded in the last minute.")];
  return make("div", { class: "graph" }, make("h3", {}, "Widths that answer"), ...shown);
}

function recalls(recall) {
  const known = Object.entries(recall).filter(([, live]) => live);
  const least = Math.min(0.9, ...known.map(([, live]) => Math.floor(10 * live.low) / 10));
  const row = ([width, live]) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, width),
      make("td", {}, interval(live, least)),
      make("td", { class: "number" }, `${percent(live.estimate)}`),
      make("td", { class: "number" }, percent(live.same_first)),
      make("td", { class: "number" }, count(live.samples)),
    );
  const heads = ["width", `${percent(least)} to 100 %`, "first 10", "same first", "samples"];
  const shown = known.length
    ? make(
        "table",
        {},
        make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
        make("tbody", {}, ...known.map(row)),
      )
    : make(
        "p",
        { class: "note" },
        "Not known yet: a sample of the answers is compared with the exact ones when there is time.",
      );
  return make("div", { class: "graph" }, make("h3", {}, "Of the exact answer, found"), shown);
}

/** Milliseconds by width and batch: what the width is chosen by. */
function table(measured, slo) {
  const widths = Object.keys(measured ?? {});
  if (!widths.length) return null;
  const batches = Object.keys(measured[widths[0]]);
  const cell = (ms) =>
    make(
      "td",
      { class: `number${ms > slo ? " missed" : ""}` },
      ms === undefined ? "–" : ms.toFixed(ms >= 100 ? 0 : 1),
    );
  const row = (width) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, width),
      ...batches.map((batch) => cell(measured[width][batch])),
    );
  const head = make(
    "tr",
    {},
    make("th", { scope: "col" }, "width"),
    ...batches.map((batch) => make("th", { scope: "col", class: "number" }, batch)),
  );
  return make(
    "details",
    { class: "graph" },
    make("summary", {}, "Milliseconds by width and batch"),
    make(
      "div",
      { class: "wide" },
      make(
        "table",
        {},
        make("caption", {}, "95 % of batches within, measured at start and followed since"),
        make("thead", {}, head),
        make("tbody", {}, ...widths.map(row)),
      ),
    ),
  );
}

const versions = (found) =>
  make(
    "p",
    { class: "note" },
    `Up for ${duration(found.uptime_s)}. `,
    plural(Object.keys(found.galleries).length, "gallery", "galleries"),
    ": ",
    Object.entries(found.galleries)
      .map(([name, version]) => `${name} at version ${version}`)
      .join(", "),
  );
