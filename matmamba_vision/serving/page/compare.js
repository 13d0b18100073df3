// Two settings side by side, with what they agree on.

import { search } from "./api.js";
import { byId, fill, make } from "./dom.js";
import { card } from "./grid.js";
import { macs, plural, time, widthName } from "./words.js";
import { choices } from "./widths.js";

/** How two lists of hits agree: for each, its place in the other one (-1 if it is not there). */
export function agreement(first, second) {
  const places = (hits, others) => hits.map((hit) => others.findIndex((other) => other.id === hit.id));
  const found = [places(first, second), places(second, first)];
  return {
    places: found,
    common: found[0].filter((place) => place >= 0).length,
    sameFirst: first.length > 0 && first[0].id === second[0]?.id,
  };
}

/** The view of two settings of one question. */
export class Compare {
  constructor(does, failed) {
    Object.assign(this, { does, failed, running: null, sides: null, gallery: null });
  }

  /** Makes the two columns for a gallery, the narrowest width beside the full one. */
  prepare(gallery) {
    if (this.gallery === gallery) return;
    const widths = choices(gallery);
    this.gallery = gallery;
    this.sides = [widths[1] ?? "", widths.at(-1)].map(
      (width, place) => new Side(gallery, width, "AB"[place], () => this.ask(this.question)),
    );
    this.verdict = make("p", { class: "verdict", role: "status" });
    fill(
      byId("compare"),
      this.verdict,
      make("div", { class: "two" }, ...this.sides.map((side) => side.element)),
    );
  }

  /** Asks one after the other, so that neither waits for the other. */
  async ask(question) {
    this.question = question;
    this.prepare(question.gallery);
    this.running?.abort();
    const mine = (this.running = new AbortController());
    if (!question.asks) return this.wait();
    byId("compare").setAttribute("aria-busy", "true");
    try {
      const answers = [];
      for (const side of this.sides)
        answers.push(
          await search(question.gallery.name, question.request(side.settings), question.image, mine.signal),
        );
      if (this.running === mine) this.show(answers);
    } catch (error) {
      if (this.running === mine && error.name !== "AbortError") this.failed(error, () => this.ask(question));
    }
    byId("compare").setAttribute("aria-busy", "false");
    return undefined;
  }

  wait() {
    this.verdict.textContent = "Ask with an image, words or an id: both columns answer it.";
    for (const side of this.sides) side.clear();
  }

  show(answers) {
    const found = agreement(answers[0].hits, answers[1].hits);
    const most = Math.max(answers[0].hits.length, answers[1].hits.length);
    fill(
      this.verdict,
      make("b", { class: "agreed" }, `${found.common} of ${most}`),
      ` in both; the first hit is ${found.sameFirst ? "the same" : "another"}. `,
      ratio(answers),
    );
    this.sides.forEach((side, place) => side.show(answers[place], found.places[place], this.does));
  }
}

/** What B takes over A. */
function ratio([first, second]) {
  const over = second.ms.total / first.ms.total;
  const words = `${over.toFixed(1)} times the time`;
  if (!(first.gmacs > 0)) return `B takes ${words}.`;
  return `B takes ${words} and ${(second.gmacs / first.gmacs).toFixed(1)} times the multiply-adds.`;
}

class Side {
  constructor(gallery, width, name, changed) {
    this.gallery = gallery;
    const options = choices(gallery).map((value) =>
      make("option", { value, selected: value === width }, value === "" ? "auto" : value),
    );
    this.width = make("select", { "aria-label": `Width of ${name}`, onchange: changed }, ...options);
    const strategies = (gallery.strategies ?? ["auto"]).map((value) => make("option", { value }, value));
    this.strategy = make("select", { "aria-label": `Strategy of ${name}`, onchange: changed }, ...strategies);
    this.facts = make("p", { class: "note" });
    this.hits = make("ol", { class: "grid", "aria-label": `Hits of ${name}` });
    const head = make(
      "div",
      { class: "side-head" },
      make("b", { class: "letter" }, name),
      this.width,
      this.strategy,
    );
    this.element = make("div", { class: "side" }, head, this.facts, this.hits);
  }

  get settings() {
    return { width: this.width.value, strategy: this.strategy.value };
  }

  clear() {
    fill(this.facts);
    fill(this.hits);
  }

  show(answer, places, does) {
    const cost = answer.gmacs > 0 ? `, ${macs(answer.gmacs)} multiply-adds` : "";
    this.facts.textContent = `${time(answer.ms.total)}${cost}, ${answer.width ? widthName(answer.width) : "nothing encoded"}${answer.sent_on ? ", then full width" : ""}`;
    const cards = answer.hits.map((hit, place) => {
      const open = () => does.open(hit, answer.hits);
      return twins(card(this.gallery, hit, { open }, mark(place, places[place])), hit.id);
    });
    fill(this.hits, ...cards);
  }
}

/** Where a hit stands in the other list, seen from its place in this one. */
function mark(place, other) {
  if (other < 0) return { badge: "only here", kind: "lone", words: "only in this list" };
  if (other === place) return { badge: "=", kind: "same", words: "at the same place in both" };
  const [sign, way] = other < place ? ["↓", "lower"] : ["↑", "higher"];
  const far = Math.abs(other - place);
  return {
    badge: `${sign} ${far}`,
    kind: "moved",
    words: `${plural(far, "place")} ${way} than in the other list`,
  };
}

/** Points at a hit in both lists at once. */
function twins(item, id) {
  const point = (is) => () => {
    for (const other of byId("compare").querySelectorAll("li"))
      other.classList.toggle("pointed", is && other.dataset.id === id);
  };
  for (const name of ["mouseenter", "focusin"]) item.addEventListener(name, point(true));
  for (const name of ["mouseleave", "focusout"]) item.addEventListener(name, point(false));
  return item;
}
