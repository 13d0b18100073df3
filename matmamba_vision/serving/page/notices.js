// What went wrong, in words, with what helps.

import { UnreachableError } from "./api.js";
import { byId, fill, make } from "./dom.js";
import { plural } from "./words.js";

const TITLES = {
  400: "This was not understood",
  401: "A token is needed",
  403: "This is not allowed",
  404: "It is not there",
  413: "The image is too large",
  415: "This is no image that can be read",
  422: "This was not understood",
  503: "Too much to do at the moment",
};
let timer = 0;

/** Takes the notice away. */
export function clearNotice() {
  clearInterval(timer);
  fill(byId("notices"));
}

/** Shows an error; `again` repeats what failed. */
export function showError(error, again) {
  clearNotice();
  const gone = error instanceof UnreachableError;
  const title = gone ? "The service cannot be reached" : (TITLES[error.status] ?? "Something went wrong");
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
  if (error.status === 503) countDown(button, error.retryAfter || 1, again);
}

const repeat = (again) => () => {
  clearNotice();
  again();
};

/** Asks again by itself when the service said that it may be asked again. */
function countDown(button, seconds, again) {
  let left = Math.ceil(seconds);
  const say = () => (button.textContent = left > 0 ? `Again in ${plural(left, "second")}` : "Asking again");
  say();
  timer = setInterval(() => {
    left -= 1;
    say();
    if (left <= 0) repeat(again)();
  }, 1000);
}
