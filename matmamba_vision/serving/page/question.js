// What is asked: one value that the fields of the page write and the search reads.

const EMPTY = { image: null, text: "", id: "", like: [], unlike: [], where: "", minScore: 0 };

/** A question of a gallery; `changed` is called with the names of what changed. */
export class Question {
  constructor(changed) {
    this.changed = changed;
    this.gallery = null;
    Object.assign(this, EMPTY, { k: 24, width: "", strategy: "auto" });
  }

  /** Sets some of it, and says so. */
  set(values) {
    Object.assign(this, values);
    this.changed(values);
  }

  /** Forgets all that is asked with and the filters; width and page size stay. */
  reset() {
    this.set({ ...EMPTY, like: [], unlike: [] });
  }

  /** Answers should be like this image too, or unlike it: one of the two. */
  steer(id, kind) {
    const without = (ids) => ids.filter((known) => known !== id);
    const lists = { like: without(this.like), unlike: without(this.unlike) };
    lists[kind]?.push(id);
    this.set(lists);
  }

  /** All of it, to be set again. */
  get values() {
    const { gallery, image, text, id, like, unlike, where, minScore, k, width, strategy } = this;
    return { gallery, image, text, id, like, unlike, where, minScore, k, width, strategy };
  }

  /** Whether anything is asked with; unlike alone is not. */
  get asks() {
    return Boolean(this.image || this.text || this.id || this.like.length);
  }

  /** As the service takes it, with other settings if they are given. */
  request({ offset = 0, width = this.width, strategy = this.strategy } = {}) {
    const wanted = {
      id: this.id,
      text: this.text,
      like: this.like,
      unlike: this.unlike,
      where: this.where,
      min_score: this.minScore > 0 ? this.minScore : null,
      width,
      strategy: strategy === "auto" ? "" : strategy,
    };
    const given = Object.entries(wanted).filter(
      ([, value]) => value !== null && value !== undefined && value.length !== 0,
    );
    return { ...Object.fromEntries(given), k: this.k, offset };
  }

  /** The same for questions that differ in the width alone. */
  get key() {
    const { offset: _, ...asked } = this.request({ width: "" });
    return JSON.stringify([
      this.gallery?.name,
      this.image && [this.image.name, this.image.size, this.image.lastModified],
      asked,
    ]);
  }
}
