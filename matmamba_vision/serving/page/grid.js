// Images as cards: thumbnails, scores and labels, and what can be done with one.

import { showThumbnail } from "./api.js";
import { make } from "./dom.js";
import { clock, isFrame, moments, span } from "./scene.js";

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

/** What an image is called: its label, or else its id; a frame has its video's. */
export const title = (hit) => hit.label ?? (isFrame(hit) ? hit.metadata.video : hit.id);

/**
 * A card in a list.
 *
 * @param {{open: Function, steer?: Function}} does opens a hit, and asks for more or less like it
 * @param {{badge?: string, kind?: string, words?: string}} mark a word over the picture, its colour, and what it means
 * @param {object[]} scene what was found in the hit's scene, if the card stands for all of it
 */
export function card(gallery, hit, does, mark = {}, scene = []) {
  const score = hit.score ?? null;
  const numbers = score === null ? "" : `${hit.rank}  ·  ${score.toFixed(3)}`;
  const open = make(
    "button",
    {
      type: "button",
      class: "frame",
      "aria-label": [spoken(hit, scene), mark.words].filter(Boolean).join("; "),
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
    ...details(hit, scene).map((words) => make("span", { class: "detail" }, words)),
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

/** What stands below the title: of a scene its span and the moments that were found, of a frame its time. */
function details(hit, scene) {
  const labelled = hit.label !== null && hit.label !== undefined;
  if (!isFrame(hit)) return labelled ? [hit.id] : [];
  const when = scene.length ? [span(hit), moments(scene)] : [clock(hit.metadata.time)];
  return labelled ? [hit.metadata.video, ...when] : when;
}

/** Shows what was found in a scene since its card was made. */
export function regrown(item, hit, scene) {
  item.querySelector(".detail:last-child").textContent = moments(scene);
  item.querySelector(".frame").setAttribute("aria-label", spoken(hit, scene));
}

function spoken(hit, scene) {
  const name = isFrame(hit) ? [hit.metadata.video, ...details({ ...hit, label: null }, scene)].join(", ") : hit.id;
  const named = hit.label ? `${hit.label}, ${name}` : name;
  return hit.rank === undefined ? named : `${hit.rank}: ${named}, score ${hit.score.toFixed(3)}`;
}

const clamp = (score) => Math.min(1, Math.max(0, score));
