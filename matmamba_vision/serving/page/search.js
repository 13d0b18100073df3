// One answer, page by page: the newest question counts, and older ones are given up.

import { items, search } from "./api.js";

/** Asks the service; `found(answer, first)` gets each page. */
export class Search {
  constructor(found, failed, busy) {
    Object.assign(this, { found, failed, busy, running: null, next: null });
  }

  /** Asks a question from its first page on. */
  ask(question) {
    const { gallery, image } = question;
    // Pages end where the service answers no more.
    this.end = gallery.max_k - question.k;
    this.begin((offset, last, signal) =>
      // Further pages come from the same query vector, so at the width that answered the first.
      search(
        gallery.name,
        question.request({ offset, ...(last?.width ? { width: last.width } : {}) }),
        image,
        signal,
      ),
    );
  }

  /** Shows the gallery itself, in its order. */
  browse({ gallery, where, k }) {
    this.end = Infinity;
    this.begin((offset, _, signal) => items(gallery.name, { offset, limit: k, where }, signal));
  }

  begin(page) {
    this.page = page;
    this.last = null;
    this.fetch(0);
  }

  /** Gives up what is on its way. */
  stop() {
    this.running?.abort();
    this.running = this.next = null;
  }

  /** The next page, if there is one and none is on its way. */
  more() {
    if (this.next !== null && !this.running) this.fetch(this.next);
  }

  async fetch(offset) {
    this.running?.abort();
    const mine = (this.running = new AbortController());
    this.busy(true);
    try {
      const answer = await this.page(offset, this.last, mine.signal);
      if (this.running !== mine) return;
      this.running = null;
      this.last ??= answer;
      const next = answer.next_offset ?? null;
      this.next = next === null || next > this.end ? null : next;
      this.found(answer, offset === 0);
    } catch (error) {
      if (this.running !== mine) return;
      this.running = null;
      this.next = null;
      this.failed(error, () => this.fetch(offset), offset === 0);
    }
    this.busy(false);
  }
}
