// Frames of videos: which hits are such, when they are shown, and in which scenes they lie.

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

/**
 * Hits gathered by scene, the scene with the best hit first; an image is alone.
 *
 * @returns {{key: string, best: object, hits: object[]}[]} each with its hits, the best first
 */
export function byScene(hits) {
  const found = new Map();
  for (const hit of hits) {
    const key = JSON.stringify(isFrame(hit) ? [hit.metadata.video, hit.metadata.scene] : [hit.id]);
    if (found.has(key)) found.get(key).hits.push(hit);
    else found.set(key, { key, best: hit, hits: [hit] });
  }
  return [...found.values()];
}

/** From when to when the scene of a frame goes. */
export const span = ({ metadata }) => `${clock(metadata.scene_start)}-${clock(metadata.scene_end)}`;

// So many moments are told one by one.
const MOST = 4;

/** When the frames that were found are shown, in the order of time: "at 0:05, 0:07". */
export function moments(hits) {
  const times = hits.map((hit) => hit.metadata.time).sort((one, other) => one - other);
  const told = [...new Set(times.map(clock))];
  const rest = told.length > MOST ? ` and ${told.length - MOST} more` : "";
  return `at ${told.slice(0, MOST).join(", ")}${rest}`;
}
