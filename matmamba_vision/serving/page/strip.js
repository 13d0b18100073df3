// The scene of a video in which a frame lies: its frames side by side, and when each is shown.

import { items } from "./api.js";
import { make } from "./dom.js";
import { picture } from "./grid.js";
import { clock } from "./scene.js";

const MOST = 48;
const SIZE = 128;

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
