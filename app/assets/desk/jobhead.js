// The head of a job's page: what it is, what can be done with it, alarms, and the figures that matter.

import { button, h, icon, number, sr, when } from "./dom.js";
import { coded } from "./fields.js";
import * as api from "./training.js";

/** Head, alarm banner and tiles. */
export class JobHead {
  constructor(page) {
    this.page = page;
    this.title = h("h1", { dir: "auto", tabindex: "-1" });
    this.state = h("span", { class: "t-now" });
    this.about = h("span", { class: "d-muted t-about", dir: "auto" });
    this.bell = button("Tell me when it ends", () => page.notifier.flip(page.job), { name: "bell", quiet: true, bare: true, "aria-pressed": "false", title: "Tell me when it ends" });
    this.clone = button("Clone", () => page.cloneJob(), { name: "copy", title: "New job with this one's settings (c)" });
    this.resume = button("Resume", () => page.resumeJob(), { name: "play" });
    this.cancel = button("Cancel", () => this.askCancel(), { name: "stop" });
    this.cancel.classList.add("t-danger");
    this.sure = h("span", { class: "t-sure", role: "group", "aria-label": "Cancel this job?", hidden: true }, this.question = h("span"), button("Stop", () => this.reallyCancel()), button("No", () => this.leaveCancel(), { quiet: true }));
    this.actions = h("div", { class: "t-line t-actions" }, this.bell, this.clone, this.resume, this.cancel, this.sure);
    this.head = h("header", { class: "t-jobhead" }, h("div", { class: "t-titles d-grow" }, this.title, this.state, this.about), this.actions);
    this.banners = h("div", { class: "t-banners" });
    this.tiles = h("dl", { class: "t-tiles" });
    this.node = h("div", { class: "t-top" }, this.head, this.banners, this.tiles);
  }

  paint(job, alarms, curves) {
    this.title.textContent = job.title;
    if (this.shown !== job.state) this.state.replaceChildren(api.stateTag(job.state));
    this.shown = job.state;
    this.about.textContent = aboutOf(job);
    this.about.title = this.about.textContent;
    const over = api.isOver(job);
    for (const node of [this.clone, this.resume]) node.hidden = !job.admin;
    this.cancel.hidden = !job.admin || over || job.stopping || !this.sure.hidden;
    this.resume.hidden = !job.admin || job.state === "succeeded" || !over;
    if (over) this.leaveCancel(false);
    this.bell.hidden = over || !this.page.notifier.possible;
    this.bell.setAttribute("aria-pressed", String(this.page.notifier.wants(job.job_id)));
    this.paintBanners(job, alarms);
    this.paintTiles(job, curves);
  }

  askCancel() {
    this.question.textContent = this.page.job.trained ? "Stop it? It saves a checkpoint." : "Stop it? What is done is kept.";
    this.sure.hidden = false;
    this.cancel.hidden = true;
    this.sure.querySelector("button").focus();
  }

  leaveCancel(focus = true) {
    if (this.sure.hidden) return;
    this.sure.hidden = true;
    this.cancel.hidden = false;
    if (focus) this.cancel.focus();
  }

  async reallyCancel() {
    this.sure.hidden = true;
    await this.page.cancelJob();
  }

  paintBanners(job, alarms) {
    const key = JSON.stringify([job.state, job.reason, job.stopping, job.comes, job.unreachable, job.admin, alarms]);
    if (key === this.banner) return;
    this.banner = key;
    const shown = alarms.filter((alarm) => !alarm.muted).slice(-3).reverse();
    const reason = job.reason && ["failed", "lost", "cancelled", "queued"].includes(job.state);
    this.banners.replaceChildren(
      ...(job.unreachable ? [h("div", { class: "t-banner warn", role: "status" }, icon("cloudOff"), h("span", { class: "d-grow", dir: "auto" }, h("b", {}, api.awayText(job)), " ", coded(sentence(job.unreachable.what))))] : []),
      ...(job.stopping ? [h("div", { class: "t-banner plain", role: "status" }, icon("stop"), h("span", { class: "d-grow" }, job.state === "running" ? "It has been asked to stop, and saves a checkpoint first." : "It has been asked to stop."))] : []),
      ...(job.comes ? [h("div", { class: "t-banner plain", role: "status" }, icon("sync"), h("span", { class: "d-grow", dir: "auto" }, sentence(api.comesText(job))))] : []),
      ...(reason ? [h("div", { class: `t-banner ${["failed", "lost"].includes(job.state) ? "bad" : "plain"}`, role: job.state === "queued" ? "status" : "alert" }, icon({ failed: "no", lost: "lost", cancelled: "ban", queued: "clock" }[job.state]), h("span", { class: "d-grow", dir: "auto" }, coded(sentence(job.reason))))] : []),
      ...shown.map((alarm) => this.alarm(job, alarm)),
    );
  }

  alarm(job, alarm) {
    const [key, value] = (alarm.set ?? "").split("=");
    const short = alarm.set ? `Clone with ${key.split(".").at(-1)} ${value}` : "";
    return h(
      "div", { class: "t-banner warn", role: "alert" }, icon("alert"), h("span", { class: "d-grow", dir: "auto" }, h("b", {}, sentence(alarm.what)), " ", alarm.remedy ? coded(sentence(alarm.remedy)) : ""),
      short && job.admin && button(short, () => this.page.cloneJob(alarm.set), { small: true }), job.admin && button("Mute", () => this.page.muteAlarm(alarm.id), { small: true, quiet: true }),
    );
  }

  paintTiles(job, curves) {
    const { progress } = job;
    const over = api.isOver(job);
    const loss = curves.latest("loss");
    const margin = curves.latest("rewards/margins");
    const accuracy = curves.latest("rewards/accuracies");
    const speed = curves.latest("tokens_per_second");
    const saved = progress?.checkpoint;
    const step = job.trained && curves.last ? curves.last : progress?.done;
    const left = over ? ["Took", between(job)] : ["Time left", progress?.seconds_left != null ? api.lasting(progress.seconds_left) : null];
    const rate = speed != null ? [figureOf(speed), "tokens/s"] : progress?.rate ? [figureOf(progress.rate), "a second"] : [null];
    const tiles = [
      [job.trained ? "Step" : progress?.task || "Done", step != null ? number(step) : null, progress?.total && (!job.trained || progress.total >= step) ? `of ${number(progress.total)}` : ""],
      left, ["Throughput", ...rate],
      ...(job.trained ? [...(api.hasPairs(job) ? [margin != null || loss == null ? ["Reward margin", margin != null ? api.figure(margin) : null] : ["Loss", api.figure(loss)], ["Accuracy", accuracy != null ? `${Math.round(100 * accuracy)} %` : null]] : [["Loss", loss != null ? api.figure(loss) : null]]), job.state === "succeeded" ? ["Adapter", job.runs.at(-1)] : ["Checkpoint", saved ? number(saved.step) : null, saved?.at != null ? when(api.timeOf(saved.at)) : ""]] : [["Where", api.placeOf(job)]]),
    ];
    this.tiles.style.setProperty("--tiles", tiles.length);
    this.tiles.style.setProperty("--tiles-narrow", tiles.length > 5 ? tiles.length / 2 : tiles.length);
    this.tiles.replaceChildren(...tiles.map(([name, value, more]) => h("div", {}, h("dt", {}, name), h("dd", {}, value ?? h("span", { class: "d-muted" }, "–", sr("unknown")), more ? h("small", {}, ` ${more}`) : ""))));
  }
}

const between = (job) => api.between(job.started_at, job.ended_at) || null;
const figureOf = (value) => (value >= 100 ? number(Math.round(value)) : api.figure(value));
/** With a capital letter, unless it begins with a name as `gpu-0` is, and a full stop. */
const sentence = (text) => text.replace(/^[a-z](?=[a-z]*[\s,.:;!?])/, (letter) => letter.toUpperCase()).replace(/([^.!?])$/, "$1.");

function aboutOf(job) {
  const step = api.STEPS[job.step] ?? job.step;
  const first = job.start ? `${step} from ${job.start}` : step;
  const begun = job.started_at ? `started ${when(job.started_at)}` : `submitted ${when(job.submitted_at)}`;
  return [first, job.attempt > 1 && `attempt ${job.attempt}`, `${begun} by ${job.by}`].filter(Boolean).join(", ");
}
