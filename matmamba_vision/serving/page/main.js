// The page: fields write the question, the question asks the service, the answer is shown.

import { galleries, gallery as describeGallery } from "./api.js";
import { answerFacts, summary } from "./answer_facts.js";
import { Compare } from "./compare.js";
import { byId, debounced, fill, make } from "./dom.js";
import { arrowKeys, card, picture, regrown } from "./grid.js";
import { showQueryImage, takeImages } from "./intake.js";
import { Lightbox } from "./lightbox.js";
import { clearNotice, showError } from "./notices.js";
import { onReturn, remember } from "./past.js";
import { openPlan } from "./plan.js";
import { Question } from "./question.js";
import { byScene, isFrame } from "./scene.js";
import { Search } from "./search.js";
import { StatusPanel } from "./status.js";
import { changes, describe, describeChange, showWidths } from "./widths.js";
import { modelName, plural, widthName } from "./words.js";

const question = new Question(changed);
const search = new Search(showPage, failed, busy);
const lightbox = new Lightbox((id, kind) => question.steer(id, kind));
const compare = new Compare({ open: (hit, hits) => lightbox.open(question.gallery, hits, hit) }, failed);
const runSoon = debounced(run, 200);
// Whether the end of the list is near: then the next page is asked for.
let nearEnd = false;
const CAME = { badge: "new", kind: "came", words: "was not found at the width before" };
let hits = [];
// The cards that are shown, by scene, and how many hits each stands for.
const shown = new Map();
// The last first page of a question that differs from the present one in its width alone.
let before = null;
let comparing = false;
// Whether the browser's Back or Forward brought the question.
let returning = false;
// What the same question is asked with.
const SETTINGS = ["width", "minScore", "k", "strategy"];

/** Loads the galleries, and shows the first. */
async function start() {
  try {
    const found = await galleries();
    fill(byId("gallery"), ...found.map((known) => make("option", { value: known.name }, known.name)));
    byId("gallery").parentElement.hidden = found.length < 2;
    byId("ready").classList.add("good");
    if (found.length) openGallery(found[0]);
    else byId("summary").textContent = "This service has no gallery.";
  } catch (error) {
    failed(error, start);
  }
}

function openGallery(known) {
  const fields = known.fields ?? [];
  byId("gallery").value = known.name;
  byId("gallery-facts").textContent = `${plural(known.images, "image")} · ${modelName(known.model)}`;
  byId("gallery-facts").title = `${known.model}, ${known.dim} dims, version ${known.version}`;
  byId("text-label").hidden = !known.takes_text;
  byId("open-plan").hidden = known.plan === null || known.plan === undefined;
  byId("fields").textContent = fields.length ? `Names: ${fields.join(", ")}` : "";
  fill(
    byId("strategy"),
    ...(known.strategies ?? ["auto"]).map((name) => make("option", { value: name }, name)),
  );
  for (const option of byId("k").options) option.disabled = Number(option.value) > known.max_k;
  before = null;
  // What was asked before the galleries were known is asked now.
  const first = question.gallery === null;
  question.gallery = known;
  question.k = Math.min(question.k, known.max_k);
  question.width = known.widths.some((row) => row.width === question.width) ? question.width : "";
  question.strategy = "auto";
  showWidths(known, question.width, (width) => question.set({ width }));
  if (first) question.set({});
  else question.reset();
}

/** Asks a question again that was asked before. */
function goBackTo(values) {
  returning = true;
  if (values.gallery !== question.gallery) openGallery(values.gallery);
  question.set(values);
  returning = false;
}

/** Shows what was set, and asks again. */
function changed(values) {
  if ("image" in values) showQueryImage(question.image);
  if ("width" in values) {
    byId("width").value = [...byId("width-bars").children].findIndex(
      (column) => column.dataset.width === question.width,
    );
    describe(question.gallery, question.width);
  }
  if ("text" in values) byId("text").value = question.text;
  if ("id" in values) byId("id").value = question.id;
  if ("where" in values) byId("where").value = question.where;
  if ("minScore" in values) showMinScore();
  if ("k" in values) byId("k").value = question.k;
  if ("strategy" in values) byId("strategy").value = question.strategy;
  showExamples();
  if (question.gallery && !returning)
    remember(question.values, !Object.keys(values).every((name) => SETTINGS.includes(name)));
  if ("width" in values || "minScore" in values) runSoon();
  else run();
}

function run() {
  if (!question.gallery) return;
  clearNotice();
  byId("compare").hidden = !comparing;
  byId("hits").hidden = comparing;
  byId("answer-facts").hidden = byId("gone").hidden = comparing;
  if (comparing) {
    search.stop();
    byId("more").hidden = true;
    head("Two settings, one question", "");
    compare.ask(question);
  } else if (question.asks) search.ask(question);
  else search.browse(question);
}

function busy(is) {
  byId("results").setAttribute("aria-busy", String(is));
  // A short page leaves the end in sight, of which the observer says nothing more.
  if (!is && nearEnd) requestAnimationFrame(() => nearEnd && search.more());
}

/** Shows a page of an answer, or of the gallery itself. */
function showPage(answer, first) {
  const fresh = answer.hits ?? answer.items;
  const known = new Set(first ? [] : hits.map((hit) => hit.id));
  const added = fresh.filter((hit) => !known.has(hit.id));
  hits = first ? added : [...hits, ...added];
  const came = first ? compareWithBefore(answer) : new Set();
  showCards(came, first);
  byId("more").hidden = search.next === null;
  if (answer.hits) showAnswer(answer);
  else showGallery(answer);
}

/** A card for each scene, or image; one whose scene has more hits by now tells them. */
function showCards(came, first) {
  if (first) {
    fill(byId("hits"));
    shown.clear();
  }
  for (const { key, best, hits: found } of byScene(hits)) {
    const scene = isFrame(best) ? found : [];
    const known = shown.get(key);
    if (known === undefined) {
      const mark = found.every((hit) => came.has(hit.id)) ? CAME : {};
      const item = card(question.gallery, best, does, mark, scene);
      shown.set(key, { item, count: found.length });
      byId("hits").append(item);
    } else if (known.count < found.length) {
      known.count = found.length;
      regrown(known.item, best, scene);
    }
  }
}

function showAnswer(answer) {
  head(
    hits.length ? "What was found" : "Nothing was found",
    summary({ ...search.last, next_offset: search.next }, hits.length, hits.some(isFrame) ? shown.size : 0),
  );
  fill(byId("answer-facts"), answerFacts(search.last));
  if (!hits.length && !answer.reason)
    fill(byId("hits"), nothing("No image fulfils the filter and the least score."));
}

function showGallery({ count: images }) {
  head(
    "Images of the gallery",
    `${plural(images ?? hits.length, "image")}; choose one to see it, or ask for more like it`,
  );
  fill(byId("answer-facts"));
  describeChange(null);
  byId("id").placeholder = hits[0]?.id ?? "";
  if (!hits.length)
    fill(byId("hits"), nothing(question.where ? "No image fulfils the filter." : "This gallery is empty."));
}

const nothing = (words) => make("li", { class: "nothing" }, words);

function head(title, words) {
  byId("results-title").textContent = title;
  byId("summary").textContent = words;
}

/** Marks what the width changed against the one before; the ids that came. */
function compareWithBefore(answer) {
  const { key } = question;
  const same = answer.hits && before?.key === key && before.width !== answer.width;
  const change = same ? changes(before.hits, answer.hits) : null;
  if (answer.hits) {
    describeChange(change, before?.width, answer.width);
    showGone(change?.gone ?? []);
    before = { key, width: answer.width, hits: answer.hits };
  } else showGone([]);
  return new Set(change?.came.map((hit) => hit.id));
}

function showGone(gone) {
  if (!gone.length) return fill(byId("gone"));
  const small = gone.map((hit) =>
    make(
      "li",
      {},
      make(
        "button",
        {
          type: "button",
          class: "frame",
          title: hit.id,
          "aria-label": `No longer found: ${hit.id}`,
          onclick: () => lightbox.open(question.gallery, gone, hit),
        },
        picture(question.gallery, hit, 96),
      ),
    ),
  );
  return fill(
    byId("gone"),
    make(
      "div",
      { class: "gone" },
      make("span", {}, `Went, against ${widthName(before.width)}`),
      make("ul", {}, ...small),
    ),
  );
}

const does = {
  // One of each scene, whose other frames are in its strip.
  open: (hit) =>
    lightbox.open(
      question.gallery,
      byScene(hits).map(({ best }) => best),
      hit,
    ),
  steer: (id, kind) => question.steer(id, kind),
};

function failed(error, again, first = false) {
  byId("more").hidden = true;
  // What is there answers another question.
  if (first) for (const id of ["hits", "answer-facts", "gone"]) fill(byId(id));
  if (first) head("No answer", "");
  showError(error, again);
}

function showExamples() {
  const chip = (kind) => (id) =>
    make(
      "li",
      { class: `chip ${kind}` },
      picture(question.gallery, { id }, 64),
      make("span", { title: id }, `${kind === "like" ? "like" : "unlike"} ${id}`),
      make(
        "button",
        {
          type: "button",
          class: "round",
          "aria-label": `Remove ${kind} ${id}`,
          onclick: () => question.steer(id, "neither"),
        },
        "×",
      ),
    );
  fill(byId("examples"), ...question.like.map(chip("like")), ...question.unlike.map(chip("unlike")));
  byId("examples").hidden = !(question.like.length + question.unlike.length);
}

function showMinScore() {
  byId("min-score").value = question.minScore;
  byId("min-score-value").textContent = question.minScore > 0 ? question.minScore.toFixed(2) : "any";
}

/** The fields that are typed into, when Search is pressed or Enter. */
const typed = () => ({
  text: byId("text").value.trim(),
  id: byId("id").value.trim(),
  where: byId("where").value.trim(),
});

/** On a phone results come first: what refines them is folded. */
function fold() {
  if (matchMedia("(max-width: 56rem)").matches)
    for (const part of document.querySelectorAll(".fold")) part.open = false;
}

function listen() {
  takeImages((image) => question.set({ image, ...(image ? { id: "" } : {}) }));
  byId("ask").onsubmit = (event) => {
    event.preventDefault();
    const values = typed();
    // The service takes an image or an id.
    question.set({ ...values, ...(values.id ? { image: null } : {}) });
  };
  byId("reset").onclick = () => question.reset();
  byId("min-score").oninput = (event) => question.set({ minScore: Number(event.target.value) });
  byId("k").onchange = (event) => question.set({ k: Number(event.target.value) });
  byId("strategy").onchange = (event) => question.set({ strategy: event.target.value });
  byId("gallery").onchange = (event) =>
    describeGallery(event.target.value)
      .then(openGallery)
      .catch((error) => failed(error, start));
  byId("open-plan").onclick = () => openPlan(question.gallery, failed);
  byId("more").onclick = () => search.more();
  byId("toggle-compare").onclick = toggleCompare;
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.closest("input, select, textarea, dialog")) return;
    event.preventDefault();
    (byId("text-label").hidden ? byId("choose") : byId("text")).focus();
  });
  arrowKeys(byId("hits"));
  const observer = new IntersectionObserver(
    (seen) => {
      nearEnd = seen.at(-1).isIntersecting;
      if (nearEnd) search.more();
    },
    { rootMargin: "600px" },
  );
  observer.observe(byId("more"));
}

function toggleCompare() {
  comparing = !comparing;
  byId("toggle-compare").setAttribute("aria-pressed", String(comparing));
  document.body.classList.toggle("comparing", comparing);
  run();
}

fold();
listen();
onReturn(goBackTo);
new StatusPanel((ready) => byId("ready").classList.toggle("good", ready));
start();
