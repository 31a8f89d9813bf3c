// How models are told apart: a shape and a colour each, the same everywhere on the page.

import { h } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const KNOWN = { base: 0, opa: 1, opadpo: 2 };
/** Paths around 0, 0; the first three belong to the models of the method, the others are dealt out. */
const SHAPES = [
  "M-4 0a4 4 0 108 0a4 4 0 10-8 0", "M-3.6-3.6h7.2v7.2h-7.2z", "M0-5l5 5-5 5-5-5z", "M0-4.5l4.5 8h-9z", "M0 4.5l4.5-8h-9z",
  "M-1.5-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z", "M-4.5 0l3-4h3l3 4-3 4h-3z", "M-4.5-2h9v4h-9z",
];
const FREE = SHAPES.length - 3;

/** Which shape and colour a model has; `models` are all of the set's. */
export function lookOf(model, models) {
  if (Object.hasOwn(KNOWN, model)) return KNOWN[model];
  const others = models.filter((name) => !Object.hasOwn(KNOWN, name));
  return 3 + (Math.max(0, others.indexOf(model)) % FREE);
}

/** An SVG element. */
export function s(tag, props = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(props)) node.setAttribute(name, value);
  node.append(...children.flat(Infinity));
  return node;
}

/** The marker of a look at a place. */
export const marker = (look, x = 0, y = 0) => s("path", { d: SHAPES[look], class: `c-fill${look}`, transform: `translate(${x} ${y})` });

/** A model's name behind its marker. */
export const named = (model, look) =>
  h("span", { class: "c-name" }, s("svg", { viewBox: "-5 -5 10 10", class: "c-mark", "aria-hidden": "true" }, marker(look)), h("bdi", {}, model));
