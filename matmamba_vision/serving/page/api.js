// What the service is asked, by addresses relative to the page: it may lie anywhere.

import { askToken, token } from "./token.js";

/** The service answered with an error. */
export class ServiceError extends Error {
  constructor(status, { code = "", message = "", request_id = "" }, retryAfter) {
    super(message || `the service answered with status ${status}`);
    Object.assign(this, { status, code, requestId: request_id, retryAfter });
  }
}

/** Nothing answered at all. */
export class UnreachableError extends Error {}

export const galleries = () => getJson("v1/galleries").then((found) => found.galleries);
export const gallery = (name) => getJson(at(name));
export const plan = (name) => getJson(`${at(name)}/plan`);
export const status = () => getJson("v1/status");

/** Some images of a gallery in their order: `{items, next_offset, count}`. */
export const items = (name, { offset, limit, where }, signal) =>
  getJson(`${at(name)}/items?${new URLSearchParams({ offset, limit, ...(where ? { where } : {}) })}`, signal);

/** The answer to a question, with the image's file beside it if there is one. */
export async function search(name, question, image, signal) {
  const form = new FormData();
  if (image) form.append("image", image, image.name || "pasted.png");
  form.append("request", JSON.stringify(question));
  const asked = image
    ? { body: form }
    : { body: JSON.stringify(question), headers: { "Content-Type": "application/json" } };
  return (await send(`${at(name)}/search`, { method: "POST", signal, ...asked })).json();
}

/**
 * Shows an image of a gallery; with a token it is fetched, for the browser would not send it along.
 */
export function showThumbnail(picture, name, id, size) {
  const address = `${at(name)}/thumbnail?${new URLSearchParams({ id, size })}`;
  if (!token()) {
    picture.src = address;
    return;
  }
  send(address, {})
    .then((found) => found.blob())
    .then((blob) => {
      picture.src = URL.createObjectURL(blob);
      picture.addEventListener("load", () => URL.revokeObjectURL(picture.src), { once: true });
    })
    .catch(() => picture.dispatchEvent(new Event("error")));
}

const at = (name) => `v1/galleries/${encodeURIComponent(name)}`;

const getJson = (address, signal) => send(address, { signal }).then((found) => found.json());

async function send(address, options) {
  const found = await reach(address, options);
  if (found.ok) return found;
  const error = new ServiceError(found.status, await reason(found), seconds(found));
  if (found.status !== 401) throw error;
  const given = await askToken(token() ? "The token that was given is not the right one." : "");
  if (!given) throw error;
  return send(address, options);
}

async function reach(address, options) {
  const headers = { ...options.headers, ...(token() ? { Authorization: `Bearer ${token()}` } : {}) };
  try {
    return await fetch(address, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new UnreachableError("The service does not answer.");
  }
}

/** What it says went wrong; a proxy before it may say so in other words. */
async function reason(found) {
  try {
    return (await found.json()).error ?? {};
  } catch {
    return {};
  }
}

const seconds = (found) => Number.parseFloat(found.headers.get("Retry-After") ?? "") || 0;
