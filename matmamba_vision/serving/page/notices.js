// What went wrong, in words, with what helps.

import { UnreachableError } from "./api.js";
import { byId, fill, make } from "./dom.js";
import { plural } from "./words.js";

const TITLES = {
  bad_request: "This was not understood",
  unauthorised: "A token is needed",
  read_only: "This is not allowed",
  not_found: "It is not there",
  too_large: "The image is too large",
  unsupported: "This cannot be read here",
  overloaded: "Too much to do at the moment",
  not_ready: "The service is starting",
};
// Of answers that a proxy gives in its place.
const CODES = {
  401: "unauthorised",
  404: "not_found",
  413: "too_large",
  415: "unsupported",
  503: "not_ready",
};
// How often it asks again by itself: many pages that never stop would keep a service busy.
const TRIES = 5;
let [timer, tries] = [0, 0];

/** Takes the notice away. */
export function clearNotice() {
  tries = 0;
  dismiss();
}

function dismiss() {
  clearInterval(timer);
  fill(byId("notices"));
}

/** Shows an error; `again` repeats what failed. */
export function showError(error, again) {
  dismiss();
  const gone = error instanceof UnreachableError;
  const known = TITLES[error.code || CODES[error.status]];
  const title = gone ? "The service cannot be reached" : (known ?? "Something went wrong");
  const button = make("button", { type: "button", class: "quiet", onclick: repeat(again) }, "Try again");
  const words = gone ? "It may be starting again, or the network is gone." : error.message;
  const id = error.requestId ? make("small", {}, `Request ${error.requestId}`) : null;
  const close = make(
    "button",
    { type: "button", class: "round", "aria-label": "Close", onclick: clearNotice },
    "×",
  );
  const retried = gone || error.status === 503 || (error.status ?? 500) >= 500;
  fill(
    byId("notices"),
    make(
      "div",
      { class: "notice" },
      make("p", {}, make("b", {}, title), " ", words),
      id,
      retried ? button : null,
      close,
    ),
  );
  if (error.status === 503 && tries < TRIES) countDown(button, error.retryAfter || 1, again);
}

const repeat = (again) => () => {
  dismiss();
  again();
};

/** Asks again by itself when the service said that it may be asked again. */
function countDown(button, seconds, again) {
  tries += 1;
  let left = Math.ceil(seconds);
  const say = () => (button.textContent = left > 0 ? `Again in ${plural(left, "second")}` : "Asking again");
  say();
  timer = setInterval(() => {
    left -= 1;
    say();
    if (left <= 0) repeat(again)();
  }, 1000);
}
