// What an answer says of itself: its width, its milliseconds by stage, and what it is worth.

import { make } from "./dom.js";
import { macs, percent, plural, time, widthName } from "./words.js";

/** One line: how many, how fast, by what. */
export function summary(answer, shown, scenes = 0) {
  const within = scenes ? ` in ${plural(scenes, "scene")}` : "";
  const many = `${plural(shown, "image")}${within}${answer.next_offset === null ? "" : " so far"}`;
  const by = answer.width
    ? `encoded at ${widthName(answer.width)}${answer.sent_on ? ", then at full width" : ""}`
    : "nothing had to be encoded";
  return `${many} in ${time(answer.ms.total)}, ${by}`;
}

// Folded on a phone, and as it was left from then on.
let unfolded = matchMedia("(min-width: 56rem)").matches;

/** A bar of the stages, and what is known about the answer. */
export function answerFacts(answer) {
  const stages = Object.entries(answer.ms).filter(([name, ms]) => name !== "total" && ms > 0);
  const details = make(
    "details",
    { class: "fold", open: unfolded, ontoggle: (event) => (unfolded = event.target.open) },
    make("summary", {}, "How it was answered"),
    stageBar(stages),
    make("ul", { class: "pills" }, ...pills(answer).map((words) => make("li", {}, words))),
  );
  const reason = answer.reason ? make("p", { class: "reason" }, answer.reason) : null;
  return make("div", { class: "answer-facts" }, reason, details);
}

function stageBar(stages) {
  const total = stages.reduce((sum, [, ms]) => sum + ms, 0);
  if (total <= 0) return null;
  const part = ([name, ms], place) =>
    make("i", {
      class: `shade${place % 6}`,
      style: { width: `${(100 * ms) / total}%` },
      title: `${name}: ${time(ms)}`,
    });
  const legend = ([name, ms], place) =>
    make("li", {}, make("i", { class: `shade${place % 6}` }), `${name} ${time(ms)}`);
  return make(
    "div",
    { class: "stages" },
    make("div", { class: "stacked", "aria-hidden": "true" }, ...stages.map(part)),
    make("ul", { class: "legend" }, ...stages.map(legend)),
  );
}

function pills(answer) {
  const { recall } = answer;
  return [
    answer.encoded_by ? `by ${answer.encoded_by}` : null,
    answer.gmacs > 0 ? `${macs(answer.gmacs)} multiply-adds` : null,
    answer.strategy?.name ? `strategy: ${answer.strategy.name}` : null,
    answer.queue_position > 0 ? `${answer.queue_position} before it in the queue` : null,
    recall
      ? `lately ${percent(recall.estimate)} of the exact first 10 at this width (${percent(recall.low)} to ${percent(recall.high)}, of ${plural(recall.samples, "answer")})`
      : null,
    `version ${answer.version}`,
  ].filter((words) => words !== null);
}
