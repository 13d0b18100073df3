// The image that is asked with: chosen, dropped or pasted.

import { byId } from "./dom.js";
import { markTiny } from "./grid.js";

/** Calls `taken` with a file, or null when the image is taken away. */
export function takeImages(taken) {
  const file = byId("file");
  byId("choose").onclick = () => file.click();
  byId("forget-image").onclick = () => taken(null);
  file.onchange = () => {
    if (file.files[0]) taken(file.files[0]);
    // So that the same file can be chosen again.
    file.value = "";
  };
  document.addEventListener("paste", (event) => {
    const pasted = imageOf(event.clipboardData);
    if (!pasted) return;
    event.preventDefault();
    taken(pasted);
  });
  takeDrops(taken);
}

/** An image may be dropped anywhere on the page. */
function takeDrops(taken) {
  const over = (event, is) => {
    if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
    event.preventDefault();
    document.body.classList.toggle("dropping", is);
  };
  document.addEventListener("dragover", (event) => over(event, true));
  document.addEventListener("dragleave", (event) => event.relatedTarget ?? over(event, false));
  document.addEventListener("drop", (event) => {
    over(event, false);
    const dropped = imageOf(event.dataTransfer);
    if (dropped) taken(dropped);
  });
}

/** The first image of what was dropped or pasted; a file of no known type may be one. */
function imageOf(data) {
  const files = [...(data?.files ?? [])];
  return files.find((file) => file.type.startsWith("image/")) ?? files[0];
}

/** Shows the image that is asked with. */
export function showQueryImage(image) {
  const shown = byId("query-image");
  shown.onload = () => markTiny(shown);
  if (shown.src) URL.revokeObjectURL(shown.src);
  byId("query-picture").hidden = !image;
  byId("choose").classList.toggle("small", Boolean(image));
  if (image) shown.src = URL.createObjectURL(image);
  else shown.removeAttribute("src");
}
