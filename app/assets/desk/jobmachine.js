// What the machine does while a job runs, and how much memory it needs: estimated, and measured.

import { h } from "./dom.js";
import { s } from "./series.js";
import * as api from "./training.js";

const KEPT = 120;
const PARTS = [
  ["Weights", ["weights"], "t-m0"], ["Adapter and optimizer", ["adapters", "gradients", "optimizer"], "t-m1"],
  ["Activations", ["activations", "images"], "t-m2"], ["Libraries", ["margin"], "t-m3"],
];

/** The panel of GPUs and host. */
export class Machine {
  constructor() {
    this.body = h("div", {});
    this.node = h("section", { class: "t-card", "aria-label": "Utilization" }, h("div", { class: "t-head" }, h("h2", { class: "d-grow" }, "Utilization"), h("span", { class: "d-muted" }, "last 10 min")), this.body);
    this.samples = [];
  }

  begin() {
    this.samples = [];
  }

  get last() {
    const at = this.samples.at(-1)?.at;
    return typeof at === "number" ? at : 0;
  }

  add(samples) {
    this.samples = [...this.samples, ...samples].slice(-KEPT);
  }

  paint(job) {
    const now = this.samples.at(-1);
    this.node.hidden = !now && api.isOver(job);
    if (!now) return this.body.replaceChildren(h("p", { class: "d-muted t-nothing" }, job.state === "queued" ? "It has not started." : "Nothing has been measured yet."));
    const gpus = (now.gpus ?? []).map((gpu, at) => meter(`GPU ${gpu.index ?? at}`, this.samples.map((sample) => sample.gpus?.[at]?.utilization), gpu.memory_total ? api.ofBytes(gpu.memory_used, gpu.memory_total) : "", gpu.name));
    const cpu = meter("CPU", this.samples.map((sample) => sample.cpu), now.processes ? `${now.processes} ${now.processes === 1 ? "process" : "processes"}` : "");
    const rows = [
      now.memory_total && ["Host memory", api.ofBytes(now.memory_used, now.memory_total)],
      now.disk_free != null && ["Disk, free", api.bytes(now.disk_free)],
      gpus.length && now.cpu != null && ["CPU, all cores", `${Math.round(now.cpu)} %`],
    ].filter(Boolean);
    return this.body.replaceChildren(h("div", { class: "t-meters" }, gpus.length ? gpus : [cpu]), h("dl", { class: "t-facts d-num" }, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])));
  }
}

function meter(name, values, below, title) {
  const points = values.map((value, at) => [at, value]).filter(([, value]) => typeof value === "number");
  const x = (at) => (100 * at) / Math.max(1, values.length - 1);
  const y = (value) => 38 - 0.36 * Math.max(0, Math.min(100, value));
  const line = points.map(([at, value], place) => `${place ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const area = points.length > 1 ? `${line}L${x(points.at(-1)[0]).toFixed(1)} 40L${x(points[0][0]).toFixed(1)} 40Z` : "";
  const now = points.at(-1)?.[1];
  return h(
    "div", { class: "t-meter", title },
    s("svg", { viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img", "aria-label": `${name}: ${now == null ? "unknown" : `${Math.round(now)} %`}` }, s("line", { class: "t-grid", x1: 0, x2: 100, y1: 2, y2: 2 }), s("path", { class: "t-area", d: area }), s("path", { class: "t-c0", d: line, "vector-effect": "non-scaling-stroke" })),
    h("div", { class: "t-line" }, h("span", { class: "d-muted d-grow" }, name), h("b", { class: "d-num" }, now == null ? "–" : `${Math.round(now)} %`)), below && h("div", { class: "d-muted d-num t-under" }, below),
  );
}

/** Memory in a bar with its parts; the same on a job's page and in the dialog. */
export class Memory {
  /** `whole`: also say what fits into other machines. */
  constructor(whole = false) {
    this.whole = whole;
    this.sum = h("span", { class: "d-muted d-num" });
    this.body = h("div", { class: "t-memory", "aria-live": "polite" });
    this.node = h("section", { class: "t-card", "aria-label": "Memory estimate" }, h("div", { class: "t-head" }, h("h2", { class: "d-grow" }, "Memory estimate"), this.sum), this.body);
  }

  paint(found) {
    this.node.hidden = !found || (found.state === "none" && !found.peak);
    if (this.node.hidden) return;
    const room = found.memory || Math.max(found.capacity, found.total, found.peak);
    this.sum.textContent = found.state === "done" ? (found.memory ? api.ofBytes(found.total, found.memory) : api.bytes(found.total)) : "";
    const peak = found.peak ? [h("dt", {}, h("span", {}), h("span", { class: "d-muted" }, "Measured peak")), h("dd", {}, h("b", {}, api.bytes(found.peak)))] : [];
    if (found.state !== "done") {
      const words = { estimating: "Estimating…", failed: found.what, none: "Only training has an estimate." }[found.state];
      this.body.replaceChildren(h("p", { class: "d-muted t-nothing" }, words), peak.length ? h("dl", { class: "t-memlist d-num" }, peak) : "");
      return;
    }
    const parts = PARTS.map(([name, keys, look]) => ({ name, look, size: keys.reduce((sum, key) => sum + (found.parts[key] ?? 0), 0) }));
    this.body.replaceChildren(
      h("div", { class: found.impossible ? "t-membar over" : "t-membar", role: "img", "aria-label": api.ofBytes(found.total, room) }, parts.map(({ look, size }) => h("i", { class: look, style: `width:${(100 * size) / Math.max(room, found.total)}%` }))),
      h("dl", { class: "t-memlist d-num" }, parts.map(({ name, look, size }) => [h("dt", {}, h("i", { class: look }), h("span", { class: "d-muted" }, name)), h("dd", {}, api.bytes(size))]), peak),
      ...(found.memory && found.total > found.memory ? [h("p", { class: "warn t-advice" }, `More than this machine has free (${found.device}). ${found.advice.length ? `${found.advice[0][0].toUpperCase()}${found.advice[0].slice(1)}.` : ""}`)] : []),
      ...(!this.whole || (found.memory && found.total <= found.memory) ? [] : [h("p", { class: "d-muted t-advice" }, `Largest micro-batch: ${found.cards}.`)]),
    );
  }
}
