// Curves of a job: loss, log-probs, rate; rewards; parts of the loss; and other jobs' curves beside them.

import { button, h, icon } from "./dom.js";
import { LineChart, smoothed, sparkline, swatch } from "./linechart.js";
import { Panel } from "./overlay.js";
import * as api from "./training.js";

const MOST = 4;
/** Points of a curve from which on it is fetched anew, thinned by the server. */
const FULL = 1600;
const OTHERS = ["t-c1", "t-c2", "t-c3", "t-c4"];
const VIEWS = {
  loss: { label: "Loss", series: [["loss", "loss"]], key: "loss" },
  logps: { label: "Log-probs", series: [["logps/standard", "standard"], ["logps/revised", "revised"], ["logps/generated", "generated"]], key: "logps/generated" },
  rate: { label: "Rate", series: [["learning_rate", "learning rate"]], key: "learning_rate" },
};
const LOOKS = ["t-c0", "t-c1", "t-c2"];
const REWARDS = [["rewards/chosen", "chosen", "t-c0", 0], ["rewards/rejected", "rejected", "t-c1", 1]];
const PARTS = ["standard_pair", "revised_pair", "standard_image", "revised_image", "anchor"];

/** Three panels. */
export class Curves {
  constructor(page) {
    this.page = page;
    this.points = {};
    this.others = {};
    this.alarms = [];
    this.main = new LineChart();
    this.rewards = new LineChart();
    this.seg = h("div", { class: "d-seg", role: "group", "aria-label": "Curve" }, Object.entries(VIEWS).map(([name, { label }]) => h("button", { type: "button", data: { curve: name }, on: { click: () => page.showCurve(name) } }, label)));
    this.title = h("h2", {}, "Loss");
    this.legend = h("span", { class: "t-legend" });
    this.runs = h("select", { class: "d-select t-small", "aria-label": "Run", on: { change: () => page.showRun(this.runs.value) } });
    this.runBox = h("span", { class: "d-select-box", hidden: true }, this.runs, icon("down"));
    this.compare = button("Compare job", () => this.choose(), { name: "plus", small: true, quiet: true, "aria-expanded": "false" });
    this.lossCard = h("section", { class: "t-card t-w8", "aria-label": "Curves" }, h("div", { class: "t-head" }, this.title, this.legend, h("span", { class: "d-grow" }), this.runBox, this.compare, this.seg), this.main.node);
    this.rewardCard = h("section", { class: "t-card", "aria-label": "Rewards" }, h("div", { class: "t-head" }, h("h2", { class: "d-grow" }, "Rewards"), REWARDS.map(([, name, look, dash]) => h("span", { class: "t-key" }, swatch(look, dash), name))), this.rewards.node);
    this.parts = h("div", { class: "t-parts" });
    this.partCard = h("section", { class: "t-card", "aria-label": "Parts of the loss" }, h("div", { class: "t-head" }, h("h2", {}, "Parts of the loss")), this.parts);
    this.nodes = [this.lossCard, this.rewardCard, this.partCard];
  }

  /** Begin with all points of another job or run. */
  begin(points) {
    this.points = points;
  }

  /** Add new points; true if there are so many that they should be fetched anew. */
  add(points) {
    for (const [key, more] of Object.entries(points)) if (more.length) this.points[key] = [...(this.points[key] ?? []), ...more];
    return (this.points.loss?.length ?? 0) > FULL;
  }

  /** Update of the newest point. */
  get last() {
    return Math.max(0, ...Object.values(this.points).map((points) => points.at(-1)?.[0] ?? 0));
  }

  latest(key) {
    return this.points[key]?.findLast(([, value]) => value != null)?.[1];
  }

  paint({ job, curve, compare, alarms }) {
    const has = Object.values(this.points).some((points) => points.length);
    const train = job.trained;
    this.alarms = alarms.filter((alarm) => alarm.step != null).map((alarm) => ({ step: alarm.step, text: `alarm at ${alarm.step}` }));
    for (const node of this.nodes) node.hidden = !train;
    if (!train) return;
    const view = VIEWS[curve] ?? VIEWS.loss;
    for (const node of this.seg.children) node.setAttribute("aria-pressed", String(node.dataset.curve === curve));
    this.title.textContent = view.label;
    this.runBox.hidden = job.runs.length < 2;
    if (this.runs.dataset.key !== job.runs.join()) {
      this.runs.replaceChildren(...job.runs.map((run) => h("option", { value: run }, run)));
      this.runs.dataset.key = job.runs.join();
    }
    this.runs.value = this.page.state.run ?? job.runs.at(-1) ?? "";
    const alone = view.series.length === 1;
    const own = view.series.map(([key, name], at) => ({ name: alone && compare.length ? job.title : name, points: this.points[key] ?? [], look: LOOKS[at], dash: alone ? 0 : at, smooth: curve !== "rate", faint: alone && curve !== "rate" })).filter((one) => one.points.length);
    const beside = compare.map((id, at) => ({ name: this.others[id]?.title ?? id, points: this.others[id]?.points[view.key] ?? [], look: OTHERS[at], dash: at + 1, smooth: curve !== "rate" }));
    this.legend.replaceChildren(...this.keys(own, compare, beside));
    const blank = api.isOver(job) ? "No update was made" : "No points yet";
    const until = api.isOver(job) || job.runs.length > 1 ? 0 : job.progress?.total ?? 0;
    this.main.paint({ label: view.label, series: [...own, ...beside], alarms: this.alarms, until, blank });
    this.rewardCard.hidden = !api.hasPairs(job) || (has && !this.points["rewards/chosen"]?.length);
    this.rewards.paint({ label: "Rewards", series: REWARDS.map(([key, name, look, dash]) => ({ name, points: this.points[key] ?? [], look, dash, smooth: true })), alarms: this.alarms.map(({ step }) => ({ step })), until, blank });
    this.paintParts(job, has, blank);
  }

  keys(own, compare, beside) {
    if (!compare.length && own.length === 1) return own[0].smooth ? [h("span", { class: "t-key" }, swatch("t-c0"), "smoothed")] : [];
    return [
      ...own.map((one) => h("span", { class: "t-key" }, swatch(one.look, one.dash), h("bdi", {}, one.name))),
      ...compare.map((id, at) => h("button", { type: "button", class: "t-key t-drop", title: "Take it away", on: { click: () => this.page.compareWith(compare.filter((other) => other !== id)) } }, swatch(beside[at].look, beside[at].dash), h("bdi", {}, beside[at].name), icon("x", "take away"))),
    ];
  }

  paintParts(job, has, blank) {
    const shown = PARTS.filter((name) => this.points[`parts/${name}`]?.length);
    this.partCard.hidden = !api.hasPairs(job) || (has && !shown.length);
    this.parts.replaceChildren(...(shown.length ? shown.map((name) => {
      const points = this.points[`parts/${name}`];
      return h("div", { class: "t-part" }, h("span", { class: "d-mono" }, name), sparkline(smoothed(points), "t-c0") ?? h("span"), h("b", { class: "d-num" }, api.figure(points.at(-1)[1])));
    }) : [h("p", { class: "d-muted" }, blank)]));
  }

  /** A panel with the jobs that can be shown beside this one. */
  async choose() {
    const { state } = this.page;
    const found = await this.page.attempt(() => api.list({ step: ["opa", "opadpo", "pipeline"] }, 40));
    if (!found) return;
    const jobs = found.items.filter((job) => job.trained && job.job_id !== state.job);
    const panel = new Panel(
      this.lossCard, this.compare, "Compare with",
      h("h2", {}, jobs.length ? "Compare with" : "No other job has curves."),
      h("div", { class: "t-choose" }, jobs.map((job) => {
        const box = h("input", { type: "checkbox", on: { change: () => {
          const chosen = box.checked ? [...state.compare, job.job_id] : state.compare.filter((id) => id !== job.job_id);
          if (chosen.length > MOST) {
            box.checked = false;
            return this.page.toast(`At most ${MOST} jobs stand beside this one.`);
          }
          return this.page.compareWith(chosen);
        } } });
        box.checked = state.compare.includes(job.job_id);
        return h("label", { class: "d-option" }, box, h("span", { class: "d-grow", dir: "auto" }, job.title), h("span", { class: "d-muted" }, api.summary(job)));
      })),
    );
    panel.node.classList.add("t-panel");
  }

  /** Fetch the other jobs' curves for what is shown. */
  async fetchOthers(ids, curve) {
    const { key } = VIEWS[curve] ?? VIEWS.loss;
    const wanted = ids.filter((id) => !this.others[id]?.points[key]);
    if (!wanted.length) return;
    const found = await api.compared(wanted, key);
    for (const id of wanted) {
      this.others[id] ??= { title: this.page.titleOf(id), points: {} };
      this.others[id].points[key] = found[id][key] ?? [];
    }
  }
}
