// Figures of the chosen models: every metric with its interval and its difference, and made up against told.

import { button, h, number } from "./dom.js";
import { lookOf, marker, named, s } from "./series.js";

const TITLES = {
  chair: "CHAIR", chair_i: "CHAIR, objects", chair_s: "CHAIR, captions", cover: "Cover", hal: "Hal", cog: "Cog", coverage: "Coverage",
  recall: "Recall", precision: "Precision", accuracy: "Accuracy", f1: "F1", answered: "Answered", false_yes: "Wrong yes", true_yes: "Right yes", score: "Score", hallucination: "Hallucination", relative: "Relative score",
};
/** Metrics that are shown at first. */
const SOME = 3;

export const titleOf = (name) => TITLES[name] ?? name.replaceAll("_", " ");

/** A figure with one digit, a difference with its sign. */
export const digits = (value) => value.toFixed(1);
const signed = (value) => `${value < 0 ? "−" : value > 0 ? "+" : "±"}${digits(Math.abs(value))}`;
const chance = (p) => (p < 0.001 ? "p < 0.001" : `p = ${p.toFixed(p < 0.1 ? 3 : 2)}`);

/** The strip above the records. */
export class Figures {
  constructor() {
    this.tables = h("div", { class: "c-metrics" });
    this.more = button("", () => this.toggle(), { small: true, quiet: true });
    this.foot = h("p", { class: "c-note" });
    this.node = h("section", { class: "c-card c-figures", "aria-label": "Figures", hidden: true }, this.tables, h("div", { class: "c-under" }, this.foot, h("span", { class: "d-grow" }), this.more));
    this.open = false;
  }

  /** Show `metrics` of the server for these models; `differences` may come later, without them there are none. */
  paint(metrics, models, all, differences) {
    [this.metrics, this.models, this.all, this.differences] = [metrics, models, all, differences];
    const shown = this.open ? metrics.metrics : metrics.metrics.slice(0, SOME);
    this.node.hidden = !shown.length;
    this.tables.replaceChildren(...shown.map((metric) => this.table(metric)));
    this.more.hidden = metrics.metrics.length <= SOME;
    this.more.firstChild.textContent = this.open ? "Fewer figures" : `All ${metrics.metrics.length} figures`;
    this.more.setAttribute("aria-expanded", String(this.open));
    const counts = models.filter((model) => model in metrics.scored).map((model) => `${model} ${number(metrics.scored[model])}${metrics.failed[model] ? ` (${number(metrics.failed[model])} failed)` : ""}`);
    const against = differences?.reference ? ` Differences are against ${differences.reference}, tested in pairs.` : models.length > 1 && !differences ? " Differences are being computed." : "";
    this.foot.textContent = `${metrics.benchmark}, with ${Math.round(100 * metrics.confidence)} % intervals. Scored: ${counts.join(", ")}.${against}`;
  }

  toggle() {
    this.open = !this.open;
    this.paint(this.metrics, this.models, this.all, this.differences);
  }

  table(metric) {
    const shown = this.models.filter((model) => metric.values[model]);
    const { low, high } = frame(shown.map((model) => metric.values[model]));
    const at = (value) => (100 * (value - low)) / (high - low);
    const word = `${metric.unit}, ${metric.direction} is better`;
    return h(
      "table", { class: "c-metric" },
      h("caption", {}, h("b", {}, titleOf(metric.name)), " ", h("span", { class: "d-label" }, word)),
      h("thead", { class: "d-sr" }, h("tr", {}, ["Model", "Interval, drawn", "Value", "Interval", "Difference"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, shown.map((model) => {
        const { value, low: from, high: to } = metric.values[model];
        const look = lookOf(model, this.all);
        return h(
          "tr", {}, h("th", { scope: "row" }, named(model, look)), h("td", { class: "c-line" }, line(look, at(value), at(from), at(to))),
          h("td", { class: "c-value" }, digits(value)), h("td", { class: "c-ci" }, `${digits(from)} – ${digits(to)}`), this.difference(model, metric),
        );
      })),
    );
  }

  difference(model, metric) {
    const found = this.differences?.differences[model]?.[metric.name];
    if (!found) return h("td", { class: "c-diff" });
    const better = metric.direction === "lower" ? found.value < 0 : found.value > 0;
    const sure = found.p_value < 0.05 && found.value !== 0;
    const title = `${signed(found.value)} (${signed(found.low)} to ${signed(found.high)}), ${chance(found.p_value)}, ${found.test} test of ${number(found.n)}`;
    return h(
      "td", { class: "c-diff", title }, h("span", { class: sure ? (better ? "good" : "bad") : "d-muted" }, signed(found.value)), " ",
      h("span", { class: "d-muted" }, chance(found.p_value)), sure ? h("span", { class: "d-sr" }, better ? ", better" : ", worse") : "",
    );
  }
}

function frame(values) {
  const low = Math.min(...values.map((one) => one.low));
  const high = Math.max(...values.map((one) => one.high));
  const room = Math.max(1, (high - low) * 0.1);
  return { low: low - room, high: high + room };
}

function line(look, at, from, to) {
  const share = (value) => `${value}%`;
  return s(
    "svg", { width: "100%", height: 16, "aria-hidden": "true" }, s("line", { x1: "0", x2: "100%", y1: 8, y2: 8, class: "c-grid" }),
    s("line", { x1: share(from), x2: share(to), y1: 8, y2: 8, class: `c-stroke${look}` }), s("svg", { x: share(at), overflow: "visible" }, marker(look, 0, 8)),
  );
}

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [340, 164, 34, 328, 10, 130];

/** Made up against told, top right is best; null where a model has not both. */
export function tradeOff(metrics, models, all) {
  const role = (name) => metrics.metrics.find((metric) => metric.role === name);
  const [up, across] = [role("hallucination"), role("coverage")];
  const shown = up && across ? models.filter((model) => up.values[model] && across.values[model]) : [];
  if (!shown.length) return null;
  const [horizontal, vertical] = [across, up].map((metric) => scale(shown.map((model) => metric.values[model])));
  const x = (value) => LEFT + ((value - horizontal.low) / (horizontal.high - horizontal.low)) * (RIGHT - LEFT);
  const y = (value) => TOP + ((value - vertical.low) / (vertical.high - vertical.low)) * (BOTTOM - TOP);
  const points = shown.map((model) => point(model, lookOf(model, all), across.values[model], up.values[model], x, y));
  const spoken = shown.map((model) => `${model} ${digits(across.values[model].value)} and ${digits(up.values[model].value)}`);
  return h(
    "section", { class: "c-card c-plot" }, h("div", { class: "c-head" }, h("h2", {}, "Trade-off"), h("span", { class: "d-label" }, `${titleOf(up.name)}, ${up.unit}; top right is best`)),
    s(
      "svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${titleOf(across.name)} and ${titleOf(up.name)}: ${spoken.join(", ")}` },
      horizontal.ticks.map((tick) => [s("line", { class: "c-grid", x1: x(tick), x2: x(tick), y1: TOP, y2: BOTTOM }), s("text", { x: x(tick), y: BOTTOM + 15, "text-anchor": "middle" }, String(tick))]),
      vertical.ticks.map((tick) => [s("line", { class: "c-grid", x1: LEFT, x2: RIGHT, y1: y(tick), y2: y(tick) }), s("text", { x: LEFT - 8, y: y(tick) + 4, "text-anchor": "end" }, String(tick))]),
      points, s("text", { x: (LEFT + RIGHT) / 2, y: HEIGHT - 2, "text-anchor": "middle" }, `${titleOf(across.name)}, ${across.unit}`),
    ),
  );
}

function point(model, look, across, up, x, y) {
  const left = x(across.value) > (LEFT + RIGHT) / 2;
  const cross = `M${x(across.low)} ${y(up.value)}H${x(across.high)}M${x(across.value)} ${y(up.low)}V${y(up.high)}`;
  const short = model.length > 18 ? `${model.slice(0, 17)}…` : model;
  return [
    s("path", { d: cross, class: `c-stroke${look}`, fill: "none" }), marker(look, x(across.value), y(up.value)),
    s("text", { class: "c-strong", x: x(across.value) + (left ? -9 : 9), y: y(up.value) - 8, "text-anchor": left ? "end" : "start" }, short),
  ];
}

/** Round ticks around values with their intervals. */
function scale(values) {
  const [low, high] = [Math.max(0, Math.min(...values.map((one) => one.low))), Math.min(100, Math.max(...values.map((one) => one.high)))];
  const step = [1, 2, 5, 10, 20, 25].find((size) => (high - low) / size <= 4) ?? 25;
  const to = Math.min(100, Math.max(Math.ceil(high / step), Math.floor(low / step) + 1) * step);
  const from = Math.max(0, Math.min(Math.floor(low / step) * step, to - step));
  return { low: from, high: to, ticks: Array.from({ length: Math.round((to - from) / step) + 1 }, (_, at) => from + at * step) };
}
