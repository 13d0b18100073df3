// The token of a service that wants one: asked for once, and kept as long as the tab is open.

import { byId } from "./dom.js";

const KEY = "matmamba-token";
let asking = null;

/** The token that was given, "" for none. */
export const token = () => sessionStorage.getItem(KEY) ?? "";

/**
 * Asks for a token, in one dialog however many requests wait for it.
 *
 * @returns {Promise<boolean>} whether one was given
 */
export function askToken(why) {
  asking ??= ask(why).finally(() => (asking = null));
  return asking;
}

function ask(why) {
  const dialog = byId("token");
  byId("token-why").textContent = why;
  byId("token-value").value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const leave = (given) => {
      if (given) sessionStorage.setItem(KEY, given);
      dialog.close();
      resolve(given !== "");
    };
    byId("token-form").onsubmit = (event) => {
      event.preventDefault();
      leave(byId("token-value").value.trim());
    };
    byId("token-cancel").onclick = () => leave("");
    dialog.oncancel = () => leave("");
  });
}
