// Images as cards: thumbnails, scores and labels, and what can be done with one.

import { showThumbnail } from "./api.js";
import { make } from "./dom.js";

const THUMBNAIL = 256;
// So many pixels are few.
const TINY = 64;

/** A picture of a gallery's image, or a line that says that its file is gone. */
export function picture(gallery, hit, size = THUMBNAIL) {
  const image = make("img", { alt: "", loading: "lazy", decoding: "async" });
  image.addEventListener("load", () => markTiny(image));
  image.addEventListener("error", () =>
    image.replaceWith(make("span", { class: "missing" }, "picture not found")),
  );
  showThumbnail(image, gallery.name, hit.id, size);
  return image;
}

/** Has a picture of few pixels enlarged without being blurred. */
export const markTiny = (image) => image.classList.toggle("tiny", image.naturalWidth <= TINY);

/** What an image is called: its label, or else its id, which of a frame ends with its time. */
export const title = (hit) => hit.label ?? hit.id;

/**
 * A card in a list.
 *
 * @param {{open: Function, steer?: Function}} does opens a hit, and asks for more or less like it
 * @param {{badge?: string, kind?: string, words?: string}} mark a word over the picture, its colour, and what it means
 */
export function card(gallery, hit, does, mark = {}) {
  const score = hit.score ?? null;
  const numbers = score === null ? "" : `${hit.rank}  ·  ${score.toFixed(3)}`;
  const open = make(
    "button",
    {
      type: "button",
      class: "frame",
      "aria-label": [spoken(hit), mark.words].filter(Boolean).join("; "),
      onclick: () => does.open(hit),
      onkeydown: (event) => steerBy(event, hit, does),
    },
    picture(gallery, hit),
    numbers ? make("span", { class: "badge" }, numbers) : null,
    mark.badge
      ? make("span", { class: `badge mark ${mark.kind ?? ""}`, title: mark.words }, mark.badge)
      : null,
  );
  const bar =
    score === null
      ? null
      : make("div", { class: "bar" }, make("i", { style: { width: `${100 * clamp(score)}%` } }));
  const caption = make(
    "figcaption",
    { title: hit.id },
    make("b", {}, title(hit)),
    hit.label === null || hit.label === undefined ? null : make("span", { class: "detail" }, hit.id),
  );
  const figure = make(
    "figure",
    { class: mark.kind ?? "" },
    open,
    does.steer ? steering(hit, does) : null,
    bar,
    caption,
  );
  return make("li", { "data-id": hit.id }, figure);
}

/** Moves the focus among the cards of a list with the arrow keys. */
export function arrowKeys(list) {
  list.addEventListener("keydown", (event) => {
    const cards = [...list.querySelectorAll(".frame")];
    const place = cards.indexOf(event.target);
    const columns = getComputedStyle(list).gridTemplateColumns.split(" ").length;
    const steps = {
      ArrowLeft: -1,
      ArrowRight: 1,
      ArrowUp: -columns,
      ArrowDown: columns,
      Home: -place,
      End: cards.length - 1 - place,
    };
    const next = cards[place + (steps[event.key] ?? NaN)];
    if (place < 0 || !next) return;
    event.preventDefault();
    next.focus();
  });
}

function steering(hit, { steer }) {
  const button = (kind, sign, words) =>
    make(
      "button",
      {
        type: "button",
        class: `round ${kind}`,
        title: words,
        "aria-label": `${words}: ${title(hit)}, ${hit.id}`,
        onclick: () => steer(hit.id, kind),
      },
      sign,
    );
  return make(
    "div",
    { class: "steer" },
    button("like", "+", "More like this"),
    button("unlike", "−", "Less like this"),
  );
}

function steerBy(event, hit, { steer }) {
  const kind = { "+": "like", "=": "like", "-": "unlike" }[event.key];
  if (!kind || !steer || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  steer(hit.id, kind);
}

function spoken(hit) {
  const named = hit.label ? `${hit.label}, ${hit.id}` : hit.id;
  return hit.rank === undefined ? named : `${hit.rank}: ${named}, score ${hit.score.toFixed(3)}`;
}

const clamp = (score) => Math.min(1, Math.max(0, score));
