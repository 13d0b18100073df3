// The browser's Back and Forward go through the questions that were asked.

// By their place: an image cannot lie in the browser's own history.
const asked = [];
let begun = false;

/** Notes a question: as a step of its own, or in place of the present one, from which it differs in a setting. */
export function remember(values, step) {
  const present = history.state?.place ?? 0;
  const place = present + (step && begun ? 1 : 0);
  asked.length = Math.min(asked.length, place + 1);
  asked[place] = values;
  if (!begun) history.replaceState({ place }, "");
  else if (step) history.pushState({ place }, "");
  begun = true;
}

/** Calls `restored` with a question that the user went back to, or forward. */
export function onReturn(restored) {
  window.addEventListener("popstate", ({ state }) => {
    const values = asked[state?.place];
    if (values) restored(values);
  });
}
