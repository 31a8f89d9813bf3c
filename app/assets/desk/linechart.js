// Curves drawn as SVG: ticks, a faint line of what was measured, a strong smoothed one, alarms, and what is under the pointer.

import { h, number } from "./dom.js";
import { s } from "./series.js";
import { figure } from "./training.js";

const [LEFT, RIGHT, TOP, BOTTOM] = [48, 56, 8, 24];
const DASHES = ["", "5 3", "2 3", "8 3 2 3", "1 3"];

/** A chart of a fixed height that is as wide as its place. */
export class LineChart {
  constructor(height = 196) {
    this.height = height;
    this.svg = s("svg", { class: "t-chart", role: "img", height });
    this.box = h("div", { class: "t-readout", hidden: true });
    this.node = h("div", { class: "t-plot", on: { pointermove: (event) => this.hover(event), pointerleave: () => this.leave() } }, this.svg, this.box);
    this.drawn = null;
    new ResizeObserver(() => this.shown && this.width !== this.node.clientWidth && this.paint(this.shown)).observe(this.node);
  }

  /**
   * Draw `{label, series, alarms, until, blank}`; `until` is the last step that there will be, `blank` stands where there is nothing to draw. A series: {name, points: [[step, value]], look (class of its colour), dash (0 to 4),
   * faint (also draw what was measured), smooth}. An alarm: {step, text}.
   */
  paint(shown) {
    this.shown = shown;
    this.width = Math.max(240, this.node.clientWidth);
    const { label, alarms = [] } = shown;
    const series = shown.series.filter((one) => one.points.length).map((one) => ({ ...one, line: one.smooth ? smoothed(one.points) : one.points }));
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    const frame = frameOf(series, shown.until);
    if (!frame) {
      this.svg.setAttribute("aria-label", `${label}: ${shown.blank.toLowerCase()}`);
      this.svg.replaceChildren(s("text", { x: this.width / 2, y: this.height / 2, "text-anchor": "middle" }, shown.blank));
      this.drawn = null;
      return;
    }
    const [right, bottom] = [this.width - RIGHT, this.height - BOTTOM];
    const x = (value) => LEFT + ((value - frame.from) / (frame.to - frame.from || 1)) * (right - LEFT);
    const y = (value) => bottom - ((value - frame.low) / (frame.high - frame.low)) * (bottom - TOP);
    this.drawn = { series, x, y, frame, right, bottom };
    this.cross = s("g", { "aria-hidden": "true" });
    this.svg.setAttribute("aria-label", `${label}: ${series.map((one) => `${one.name} ${figure(one.line.at(-1)[1])}`).join(", ")} at step ${number(frame.last)}`);
    this.svg.replaceChildren(
      ...frame.rows.flatMap((tick) => [s("line", { class: "t-grid", x1: LEFT, x2: right, y1: y(tick), y2: y(tick) }), s("text", { x: LEFT - 8, y: y(tick) + 4, "text-anchor": "end" }, figure(tick))]),
      ...frame.columns.map((tick) => s("text", { x: x(tick), y: this.height - 6, "text-anchor": "middle" }, number(tick))),
      ...alarms.filter(({ step }) => step >= frame.from && step <= frame.to).flatMap(({ step, text }) => this.alarm(x(step), bottom, right, text)),
      ...series.flatMap((one) => [
        one.faint ? s("path", { class: `${one.look} t-faint`, d: pathOf(one.points, x, y) }) : "",
        s("path", { class: one.look, d: pathOf(one.line, x, y), "stroke-dasharray": DASHES[one.dash ?? 0] }),
      ]).filter(Boolean),
      ...labels(series, y, TOP, bottom).map(({ one, at }) => s("text", { class: `t-end ${one.look}`, x: Math.min(x(one.line.at(-1)[0]) + 6, right + 4), y: at + 4 }, rounded(one.line.at(-1)[1], frame.gap))),
      this.cross,
    );
  }

  alarm(x, bottom, right, text) {
    const early = x - LEFT < 100;
    return [s("path", { class: "t-alarmline", d: `M${x} ${TOP}V${bottom}` }), text ? s("text", { class: "t-alarmtext", x: x + (early ? 6 : -6), y: TOP + 10, "text-anchor": early ? "start" : "end" }, text) : ""].filter(Boolean);
  }

  /** What the curves say at the step nearest to the pointer. */
  hover(event) {
    if (!this.drawn) return;
    const { series, x, y, frame, right, bottom } = this.drawn;
    const at = event.clientX - this.node.getBoundingClientRect().left;
    const step = frame.from + ((Math.max(LEFT, Math.min(right, at)) - LEFT) / (right - LEFT)) * (frame.to - frame.from);
    const near = series.map((one) => [one, nearest(one.line, step)]).filter(([, point]) => point?.[1] != null);
    if (!near.length) return;
    const place = x(near[0][1][0]);
    this.cross.replaceChildren(s("path", { class: "t-cross", d: `M${place} ${TOP}V${bottom}` }), ...near.map(([one, point]) => s("circle", { class: one.look, cx: x(point[0]), cy: y(point[1]), r: 3 })));
    this.box.replaceChildren(h("b", {}, `Step ${number(Math.round(near[0][1][0]))}`), ...near.map(([one, point]) => h("span", {}, swatch(one.look, one.dash), h("span", { class: "d-grow", dir: "auto" }, one.name), h("span", { class: "d-num" }, figure(point[1])))));
    this.box.hidden = false;
    const wide = this.box.offsetWidth;
    this.box.style.left = `${place + 12 + wide > this.width ? place - 12 - wide : place + 12}px`;
  }

  leave() {
    this.cross?.replaceChildren();
    this.box.hidden = true;
  }
}

/** A piece of a series' line, for a legend. */
export const swatch = (look, dash = 0) => s("svg", { viewBox: "0 0 20 8", class: "t-swatch", "aria-hidden": "true" }, s("path", { d: "M0 4H20", class: look, "stroke-dasharray": DASHES[dash] }));

/** A small line without axes; `null` where there are fewer than two points. */
export function sparkline(points, look, height = 20) {
  const [wide, kept] = [100, points.filter(([, value]) => value != null)];
  if (kept.length < 2) return null;
  const values = kept.map(([, value]) => value);
  const [low, high, from, to] = [Math.min(...values), Math.max(...values), kept[0][0], kept.at(-1)[0]];
  const x = (value) => (wide * (value - from)) / (to - from || 1);
  const y = (value) => (high === low ? height / 2 : height - 2 - ((height - 4) * (value - low)) / (high - low));
  return s("svg", { viewBox: `0 0 ${wide} ${height}`, preserveAspectRatio: "none", class: "t-spark", "aria-hidden": "true" }, s("path", { class: look, d: pathOf(kept, x, y), "vector-effect": "non-scaling-stroke" }));
}

function pathOf(points, x, y) {
  let [path, up] = ["", true];
  for (const [step, value] of points) {
    if (value == null || !Number.isFinite(value)) {
      up = true;
      continue;
    }
    path += `${up ? "M" : "L"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`;
    up = false;
  }
  return path;
}

/** An exponential mean whose length grows with the number of points. */
export function smoothed(points) {
  const weight = Math.min(0.6, 40 / Math.max(60, points.length));
  let mean = null;
  return points.map(([step, value]) => {
    if (value != null && Number.isFinite(value)) mean = mean == null ? value : mean + weight * (value - mean);
    return [step, mean];
  });
}

function nearest(points, step) {
  let [low, high] = [0, points.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < step) low = middle + 1;
    else high = middle;
  }
  const before = points[low - 1];
  return before && step - before[0] < points[low][0] - step ? before : points[low];
}

/** Where the labels at the ends stand: beside their lines, but never on each other. */
function labels(series, y, top, bottom) {
  const ends = series.filter((one) => one.line.at(-1)[1] != null).map((one) => ({ one, at: y(one.line.at(-1)[1]) })).sort((a, b) => a.at - b.at);
  ends.forEach((end, place) => place && (end.at = Math.max(end.at, ends[place - 1].at + 14)));
  const over = ends.length ? ends.at(-1).at - bottom : 0;
  if (over > 0) ends.forEach((end) => (end.at = Math.max(top, end.at - over)));
  return ends;
}

/** What is shown, with round ticks; null if there is nothing. The few highest and lowest points do not squeeze the rest. */
function frameOf(series, until = 0) {
  const steps = series.flatMap((one) => [one.points[0][0], one.points.at(-1)[0]]);
  const last = Math.max(...steps);
  const values = series.flatMap((one) => one.points.map(([, value]) => value)).filter((value) => value != null && Number.isFinite(value));
  if (!values.length) return null;
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const gap = round((high - low || Math.abs(high) || 1) / 4);
  [low, high] = [Math.floor(low / gap + 1e-9) * gap, Math.ceil(high / gap - 1e-9) * gap];
  if (low === high) high = low + gap;
  const rows = Array.from({ length: Math.round((high - low) / gap) + 1 }, (_, at) => Number((low + at * gap).toPrecision(10)));
  const to = Math.max(last, until);
  const first = Math.min(...steps);
  const from = first <= (to - first) / 50 ? 0 : first;
  const stride = Math.max(1, round((to - from || 1) / 8));
  const columns = Array.from({ length: Math.floor(to / stride) - Math.ceil(from / stride) + 1 }, (_, at) => (Math.ceil(from / stride) + at) * stride);
  return { low, high, gap, rows, from, to, last, columns };
}

/** A value with as many digits as its axis makes sense of. */
function rounded(value, gap) {
  if (gap < 0.001 || gap >= 1000) return figure(value);
  const text = value.toFixed(Math.max(0, 1 - Math.floor(Math.log10(gap))));
  return Number(text) ? text.replace("-", "−") : "0";
}

/** The next of 1, 2, 5 times a power of ten. */
function round(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((size) => size * power >= value * (1 - 1e-9)) * power;
}
