// Elements made of data: every text becomes a text node, so nothing of a model's or a user's is ever read as markup.

import { splitObject } from "./sentences.js";

const SVG = "http://www.w3.org/2000/svg";

/** Paths on a 16 by 16 grid. */
const ICONS = {
  alert: "M8 2.3l6 10.9H2zM8 6.5v3.2M8 11.5v.1",
  arrow: "M3 8h10M9.5 4.5L13 8l-3.5 3.5",
  ban: "M8 2.3a5.7 5.7 0 100 11.4 5.7 5.7 0 000-11.4zM4 12l8-8",
  bell: "M4 11.5c1-1.2 1-2.3 1-4a3 3 0 016 0c0 1.7 0 2.8 1 4zM6.8 13.800h2.4",
  book: "M8 4.2C6.5 3 4.5 3 2.5 3.2v9c2-.2 4-.2 5.5 1 1.5-1.2 3.5-1.2 5.5-1v-9C11.5 3 9.5 3 8 4.2zM8 4.2v9",
  check: "M3 8.5l3.2 3.2L13 4.8",
  circle: "M8 2.3a5.7 5.7 0 100 11.4 5.7 5.7 0 000-11.4z",
  clock: "M8 2.3a5.7 5.7 0 100 11.4 5.7 5.7 0 000-11.4zM8 4.8V8l2.2 1.4",
  cloud: "M4.5 12.5a2.8 2.8 0 01-.3-5.6 3.9 3.9 0 017.5-.6 3.1 3.1 0 01-.2 6.2zM6 9.2l1.5 1.4 2.6-2.7",
  cloudOff: "M4.5 12.5a2.8 2.8 0 01-.3-5.6 3.9 3.9 0 017.5-.6 3.1 3.1 0 01-.2 6.2zM3 2.5l10.5 11.5",
  copy: "M7 5.5h5A1.5 1.5 0 0113.5 7v5a1.5 1.5 0 01-1.5 1.500H7A1.5 1.5 0 015.5 12V7A1.5 1.5 0 017 5.500zM10.5 5.500v-2a1 1 0 00-1-1h-6a1 1 0 00-1 1v6a1 1 0 001 1h2",
  down: "M3.5 6L8 10.5 12.5 6",
  download: "M8 2.5V10M4.8 7L8 10.2 11.2 7M3 13.200h10",
  filter: "M2.5 4h11M4.5 8h7M6.5 12h3",
  fit: "M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10",
  flag: "M4 14V2.5M4 3h8.5L10.7 6l1.8 3H4",
  grid: "M2.5 2.5H7V7H2.5zM9 2.5h4.5V7H9zM2.5 9H7v4.5H2.5zM9 9h4.5v4.5H9z",
  history: "M3 5a5.6 5.6 0 11-.6 3.5M2.5 2.5v2.7h2.7M8 5v3.3l2.2 1.3",
  keyboard: "M3 4h10a1.2 1.2 0 011.2 1.2v5.6A1.2 1.2 0 0113 12H3a1.2 1.2 0 01-1.2-1.2V5.2A1.2 1.2 0 013 4zM4.5 6.7h.1M7 6.7h.1M9.5 6.7h.1M12 6.7h-.1M5 9.5h6",
  left: "M10 3.5L5.5 8l4.5 4.5",
  link: "M6.5 9.5a2.6 2.6 0 003.7.1l2.3-2.3a2.6 2.6 0 00-3.7-3.7l-.9.9M9.5 6.5a2.6 2.6 0 00-3.7-.1L3.5 8.7a2.6 2.6 0 003.7 3.7l.9-.9",
  lost: "M8 2.3a5.7 5.7 0 100 11.4 5.7 5.7 0 000-11.4zM6.4 6.300a1.7 1.7 0 113 1.200c-.7.5-1.4.8-1.4 1.600M8 11.200v.1",
  minus: "M3.5 8h9",
  no: "M8 2.3a5.7 5.7 0 100 11.4 5.7 5.7 0 000-11.4zM6 6l4 4M10 6l-4 4",
  ok: "M8 2.3a5.7 5.7 0 100 11.4 5.7 5.7 0 000-11.4zM5.5 8.2l1.8 1.8 3.3-3.6",
  pen: "M3 13l.6-2.7L10.8 3.1a1.2 1.2 0 011.7 0l.4.4a1.2 1.2 0 010 1.7L5.7 12.4z",
  play: "M5 3.500l7 4.5-7 4.500z",
  plus: "M8 3.5v9M3.5 8h9",
  right: "M6 3.5L10.5 8 6 12.5",
  search: "M7 2.8a4.2 4.2 0 100 8.4 4.2 4.2 0 000-8.4zM10.2 10.2l3.3 3.3",
  spark: "M8 2.5l1.4 4.1L13.5 8l-4.1 1.4L8 13.5 6.6 9.4 2.5 8l4.1-1.4z",
  stop: "M5 4h6a1 1 0 011 1v6a1 1 0 01-1 1H5a1 1 0 01-1-1V5a1 1 0 011-1z",
  sync: "M13 8a5 5 0 01-9 3M3 8a5 5 0 019-3M12.5 2.5V5H10M3.5 13.5V11H6",
  table: "M2.5 3.5h11v9h-11zM2.5 6.5h11M2.5 9.5h11M6.5 6.5v6",
  trash: "M3 4.5h10M6.5 4.5V3h3v1.5M4.5 4.5l.6 8.5h5.8l.6-8.5",
  undo: "M6 3L3 6l3 3M3 6h6.5a3.5 3.5 0 010 7H7",
  user: "M8 2.8a2.7 2.7 0 100 5.4 2.7 2.7 0 000-5.4zM2.8 13.5a5.2 5.2 0 0110.4 0",
  x: "M4 4l8 8M12 4l-8 8",
};

/** An icon; with a `label` it speaks, without it is decoration. */
export function icon(name, label) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", "d-i");
  if (label) {
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
  } else svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/**
 * An element. `props`: `class`, `on: {event: handler}`, `data: {name: value}`; everything else is an attribute, left
 * out if false, null or undefined. Children that are strings or numbers become text; empty ones are left out.
 */
export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === false || value == null) continue;
    if (name === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child != null && child !== false && child !== ""));
  return node;
}

/** A text that only screen readers get. */
export const sr = (text) => h("span", { class: "d-sr" }, text);

export const kbd = (text) => h("kbd", { class: "d-kbd" }, text);

/** A button. `keys` is shown as a key cap; `small`, `quiet`, `primary` and `bare` (icon only) are its looks. */
export function button(label, action, { name, keys, small, quiet, primary, bare, fold, ...more } = {}) {
  const looks = ["d-btn", small && "small", quiet && "quiet", primary && "primary", bare && "bare"];
  return h(
    "button",
    { type: "button", class: looks.filter(Boolean).join(" "), "aria-label": bare ? label : null, on: { click: action }, ...more },
    name && icon(name),
    !bare && h("span", { class: fold ? "d-fold" : null }, label),
    keys && kbd(keys),
  );
}

/** The score of a sentence; a plus sign for an added one. Heavier looks for worse scores. */
export function scoreChip(score, kind) {
  if (kind === "added") return h("span", { class: "d-score added" }, sr("added"), h("span", { "aria-hidden": "true" }, "+"));
  return h("span", { class: `d-score s${score}` }, sr("score "), String(score));
}

const TAGS = { delete: "del", insert: "ins" };

/** Runs of a diff as nodes: `side` is "old" (what was struck), "new" (what was put in) or, left out, both in a row. */
export function marked(changes, side) {
  const other = { old: "insert", new: "delete" }[side];
  return changes.filter(([op]) => op !== other).map(([op, text]) => (op === "equal" ? text : h(TAGS[op], {}, text)));
}

export const number = (value) => Number(value).toLocaleString("en-US");

/** How long ago, in words: "just now", "5 s ago", "3 min ago", then the date. */
export function ago(time, now = Date.now()) {
  const seconds = Math.max(0, Math.round((now - time) / 1000));
  if (seconds < 1) return "just now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  return when(time);
}

/** Day and time, in the reader's own time zone. */
export function when(time) {
  const date = new Date(time);
  const today = date.toDateString() === new Date().toDateString();
  const clock = date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  return today ? clock : `${date.toLocaleDateString("en-GB", { day: "numeric", month: "short" })}, ${clock}`;
}

/** "wrong -> right" as an element; "nothing" where it has no counterpart. */
export function objectPair(object) {
  const [wrong, right] = splitObject(object);
  return [h("s", {}, wrong), icon("arrow", "becomes"), right ? h("b", {}, right) : h("span", { class: "d-muted" }, "nothing")];
}

/** Make a text box as high as its text, where the browser does not by itself. */
export function fit(box) {
  if (CSS.supports("field-sizing", "content")) return;
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}
