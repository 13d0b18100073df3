// Elements made by hand: whatever is shown is text, never read as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** The element of an id, which the page has. */
export const byId = (id) => document.getElementById(id);

/**
 * An element with its attributes, listeners ("onclick") and children (elements or texts; null is left out).
 */
export function make(tag, attributes = {}, ...children) {
  return dress(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function draw(tag, attributes = {}, ...children) {
  return dress(document.createElementNS(SVG, tag), attributes, children);
}

function dress(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    // Set by script, for the page's policy forbids styles in attributes.
    else if (name === "style")
      for (const [key, set] of Object.entries(value)) element.style.setProperty(key, set);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Shows these children in place of those that were there. */
export function fill(element, ...children) {
  element.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Calls `work` once, when nothing was asked for `ms` milliseconds. */
export function debounced(work, ms) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), ms);
  };
}
