// The scene of a video in which a frame lies: its frames side by side, and when each is shown.

import { items } from "./api.js";
import { make } from "./dom.js";
import { picture } from "./grid.js";

const MOST = 48;
const SIZE = 128;

/** Whether a hit is a frame of a video. */
export const isFrame = ({ metadata }) =>
  typeof metadata?.video === "string" && Number.isInteger(metadata.scene) && Number.isFinite(metadata.time);

/** Seconds as people say times: "12:03", or "1:12:03" from an hour on. */
export function clock(seconds) {
  const whole = Math.floor(Math.max(0, seconds) + 0.001);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return parts[0] ? `${parts[0]}:${two(parts[1])}:${two(parts[2])}` : `${parts[1]}:${two(parts[2])}`;
}

/** A list of the scene's frames, filled as soon as they are known; `show` gets the one that is chosen. */
export function strip(gallery, hit, show) {
  const { video, scene, scene_start, scene_end } = hit.metadata;
  const list = make("ol", {
    class: "strip",
    "aria-label": `Scene ${scene} of ${video}, ${clock(scene_start)} to ${clock(scene_end)}`,
  });
  const where = `video = '${video.replaceAll("'", "''")}' AND scene = ${scene}`;
  items(gallery.name, { offset: 0, limit: MOST, where })
    .then((found) => list.append(...found.items.map((frame) => one(gallery, frame, hit, show))))
    // The hit itself is shown; without the others nothing is lost that was asked for.
    .catch(() => list.remove());
  return list;
}

function one(gallery, frame, hit, show) {
  const time = clock(frame.metadata.time);
  const attributes = {
    type: "button",
    "aria-label": `Frame at ${time}`,
    "aria-current": frame.id === hit.id ? "true" : null,
    onclick: () => show(frame),
  };
  return make("li", {}, make("button", attributes, picture(gallery, frame, SIZE), make("span", {}, time)));
}
