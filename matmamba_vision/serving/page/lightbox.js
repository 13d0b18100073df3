// One image, large, with all that is known about it.

import { byId, fill, make } from "./dom.js";
import { picture, title } from "./grid.js";
import { isFrame } from "./scene.js";
import { strip } from "./strip.js";
import { plain } from "./words.js";

const SIZE = 1024;

/** Opens on a hit among those of a list; arrow keys go to its neighbours. */
export class Lightbox {
  constructor(steer) {
    this.dialog = byId("lightbox");
    this.steer = steer;
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.dialog.addEventListener("click", (event) => {
      // Beside the picture and its facts there is only the dialog itself.
      if (event.target === this.dialog) this.dialog.close();
    });
  }

  /** Shows a hit; `hits` are those to go through. */
  open(gallery, hits, hit) {
    Object.assign(this, { gallery, hits, place: hits.indexOf(hit) });
    this.show();
    if (!this.dialog.open) this.dialog.showModal();
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) this.go(step);
  }

  go(step) {
    this.place = (this.place + step + this.hits.length) % this.hits.length;
    this.show();
  }

  show() {
    const hit = this.hits[this.place];
    const held = document.activeElement?.dataset?.does;
    const stage = make("div", { class: "stage" });
    const scene = isFrame(hit) ? strip(this.gallery, hit, (frame) => this.stage(stage, frame, scene)) : null;
    this.stage(stage, hit, scene);
    fill(this.dialog, stage, this.facts(hit));
    this.dialog.querySelector(held ? `[data-does="${held}"]` : "[data-does]")?.focus();
  }

  /** Shows the picture of a hit, or of another frame of its scene. */
  stage(place, hit, scene) {
    const held = document.activeElement;
    fill(place, picture(this.gallery, hit, SIZE), scene);
    // What moves loses the focus, and keys would go nowhere.
    if (scene?.contains(held)) held.focus();
  }

  facts(hit) {
    const shown = {
      id: hit.id,
      ...(hit.score === undefined ? {} : { rank: hit.rank, score: hit.score.toFixed(4) }),
      ...hit.metadata,
    };
    const rows = Object.entries(shown).flatMap(([name, value]) => [
      make("dt", {}, name),
      make("dd", {}, plain(value)),
    ]);
    const does = (words, name, work) =>
      make("button", { type: "button", class: "quiet", "data-does": name, onclick: work }, words);
    const steer = (kind) => () => {
      this.dialog.close();
      this.steer(hit.id, kind);
    };
    return make(
      "div",
      { class: "about" },
      make("h2", {}, title(hit)),
      make("p", { class: "note" }, `${this.place + 1} of ${this.hits.length} shown`),
      make(
        "div",
        { class: "go" },
        does("Close", "close", () => this.dialog.close()),
        does("‹ Before", "before", () => this.go(-1)),
        does("Next ›", "next", () => this.go(1)),
      ),
      make(
        "div",
        { class: "go" },
        does("More like this", "like", steer("like")),
        does("Less like this", "unlike", steer("unlike")),
      ),
      make("dl", {}, ...rows),
    );
  }
}
