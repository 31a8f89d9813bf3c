// The page of jobs: their list, and one of them as it runs. Its address holds its state; the server holds everything else.

import { button, h, icon } from "./dom.js";
import { Curves } from "./jobcurves.js";
import { Facts } from "./jobfacts.js";
import { JobHead } from "./jobhead.js";
import { JobList } from "./joblist.js";
import { Log } from "./joblog.js";
import { Machine, Memory } from "./jobmachine.js";
import { isTyping } from "./keys.js";
import { NewJob } from "./newjob.js";
import { Notifier } from "./notifier.js";
import { Page, mounted } from "./page.js";
import * as api from "./training.js";
import { Watch } from "./watch.js";

const CURVES = ["loss", "logps", "rate"];
/** Milliseconds between looks: at a job that runs, at one that has ended, at the list, at a long one; at all points of the curves. */
const [RUNNING, ENDED, LIST, LONG_LIST, WHOLE] = [1500, 8000, 3000, 10_000, 30_000];

/** Put the page into an element whose `data-workspace` names the workspace. */
export const mount = (element) => mounted(Train, "train", element);

class Train extends Page {
  constructor(element, table) {
    super(element, table);
    this.state = api.stateOf(location.search);
    this.notifier = new Notifier(this.notes, this.workspace);
    this.list = new JobList(this);
    this.input = this.list.input;
    this.head = new JobHead(this);
    this.curves = new Curves(this);
    this.log = new Log(this);
    this.machine = new Machine();
    this.memory = new Memory();
    this.facts = new Facts(this);
    this.dialog = new NewJob(this, (id) => this.begun(id));
    this.build();
    this.watch = new Watch(this.root, this.lost, () => this.notifier.waiting);
    window.addEventListener("popstate", () => this.moved());
  }

  build() {
    this.board = h("div", { class: "t-board" }, this.curves.nodes, this.machine.node, this.memory.node, this.log.node, this.facts.node);
    this.view = h("section", { class: "t-job", "aria-label": "Job", hidden: true }, this.head.node, h("div", { class: "t-scroll t-body", tabindex: "0", role: "region", "aria-label": "Curves, machine and log" }, this.board));
    this.lost = h("p", { class: "t-lost warn", role: "status", hidden: true }, icon("cloudOff"), h("span", {}));
    this.help = button("Keyboard shortcuts", () => this.shortcuts(), { name: "keyboard", quiet: true, bare: true, title: "Keyboard shortcuts (?)" });
    this.list.node.append(h("div", { class: "t-foot" }, this.list.count, this.help));
    this.root = h("div", { class: "d-root t-root" }, this.lost, h("div", { class: "d-split" }, this.list.node, this.view, this.blank), this.notes.nodes);
  }

  async begin() {
    await this.refreshList();
    if (!this.state.job && this.found?.items.length) this.state.job = this.found.items[0].job_id;
    if (this.state.job) await this.open(this.state.job, true);
    this.watch.every(() => (this.job && api.isOver(this.job) && !this.job.comes ? ENDED : RUNNING), () => (document.hidden ? null : this.refreshJob()));
    this.watch.every(() => (this.list.shown > 200 ? LONG_LIST : LIST), () => this.refreshList());
  }

  // -- asking the server --------------------------------------------------------------------------------------------

  /** What goes wrong with something that somebody asked for is said. */
  trouble(trouble) {
    if (trouble.offline) this.watch.saw("asking", trouble);
    this.toast([trouble.told, trouble.seen].filter(Boolean).join(". "), true);
  }

  /** Look again at something, `what` by name, quietly. */
  look(what, act) {
    return this.attempt(async () => {
      await act();
      this.watch.saw(what);
    }, (trouble) => {
      if (trouble.status === 404 && what === "job") return this.gone(trouble);
      this.watch.saw(what, trouble);
      return what === "job" && !this.job ? this.unseen(trouble) : undefined;
    });
  }

  refreshList() {
    const may = this.inOrder("list");
    return this.look("list", async () => {
      const { filters } = this.state;
      const found = await api.list(filters, this.list.shown);
      if (filters !== this.state.filters || !may()) return;
      this.found = found;
      this.list.paint(found, filters, this.state.job);
      await this.notifier.look();
      if (!found.all || (!this.state.job && !found.items.length)) this.nothing(found);
      else if (!this.job) this.blank.hidden = false;
    });
  }

  refreshJob() {
    const id = this.state.job;
    if (!id) return undefined;
    const may = this.inOrder("job");
    return this.look("job", async () => {
      const whole = Date.now() - this.whole > WHOLE;
      const step = this.job?.trained && this.points ? this.curves.last : null;
      const since = { log: this.log.offset, usage: this.machine.last, step };
      const found = await api.live(id, { ...since, run: this.state.run });
      if (id !== this.state.job || !may()) return;
      const again = this.job?.job_id !== id || this.job.attempt !== found.job.attempt;
      const before = this.job?.state;
      this.job = found.job;
      this.alarms = found.alarms;
      // Another answer may have brought the same since this was asked.
      if (since.log === this.log.offset) this.log.add(found.log);
      if (since.usage === this.machine.last) this.machine.add(found.usage);
      const full = step != null && step === this.curves.last && this.curves.add(found.curves);
      if (again || full || (whole && !api.isOver(found.job))) await this.fetchCurves();
      if (id !== this.state.job || !this.job) return;
      this.paint();
      if (again || (before && before !== found.job.state)) this.needed();
      if (before && before !== found.job.state) this.say(`${found.job.title}: ${api.STATES[found.job.state]}`);
    });
  }

  /** All points of the job, thinned by the server, and those of the jobs beside it. */
  async fetchCurves() {
    const { job, run, compare, curve } = this.state;
    this.whole = Date.now();
    if (!this.job.trained) return;
    const points = (await this.ahead) ?? (await api.curves(job, run));
    this.ahead = null;
    if (job !== this.state.job || run !== this.state.run) return;
    this.curves.begin(points);
    this.points = true;
    await this.curves.fetchOthers(compare, curve).catch((trouble) => this.toast(trouble.told ?? String(trouble), true));
  }

  /** Memory: the estimate takes the server a while. */
  async needed() {
    const id = this.state.job;
    for (let patience = 60; patience; patience -= 1) {
      const found = await api.memory(id).catch(() => null);
      if (id !== this.state.job) return;
      this.memory.paint(found);
      if (found?.state !== "estimating") return;
      await new Promise((done) => setTimeout(done, 2000));
    }
  }

  // -- what is shown ------------------------------------------------------------------------------------------------

  async open(id, first = false) {
    if (!first && id === this.state.job && this.job) return;
    if (!first) Object.assign(this.state, { job: id, run: null });
    Object.assign(this, { job: null, points: false, whole: Date.now(), alarms: [] });
    this.curves.begin({});
    this.machine.begin();
    this.memory.paint(null);
    this.log.begin(id);
    this.head.leaveCancel(false);
    this.acting(false);
    this.list.mark(id);
    this.list.reveal(id);
    this.locate({ push: !first });
    // Both at once: the record that says whether there are curves, and the curves.
    const known = this.found?.items.find((job) => job.job_id === id);
    this.ahead = known?.trained === false ? null : api.curves(id, this.state.run).catch(() => null);
    await this.refreshJob();
  }

  /** Until the next job is shown, nothing can be done with the one that still is. */
  acting(possible) {
    for (const { node } of [this.head, this.facts]) node.inert = !possible;
  }

  paint() {
    const { job, alarms } = this;
    const { curve, compare } = this.state;
    this.acting(true);
    this.blank.hidden = true;
    if (this.view.hidden) {
      this.view.hidden = false;
      this.log.settle();
    }
    this.view.setAttribute("aria-label", `Job ${job.title}`);
    this.entitle(`${job.title}, ${api.STATES[job.state] ?? job.state}`);
    this.head.paint(job, alarms, this.curves);
    this.curves.paint({ job, curve, compare, alarms });
    this.machine.paint(job);
    this.board.classList.toggle("plain", !job.trained);
    this.board.classList.toggle("few", job.trained && this.curves.rewardCard.hidden && this.curves.partCard.hidden);
    this.facts.paint(job);
  }

  empty(title, ...said) {
    this.view.hidden = true;
    const already = !this.blank.hidden && this.blank.firstChild?.textContent === title;
    if (!already) super.empty(title, ...said); // said anew at every look it would take the focus away
  }

  nothing({ all, admin }) {
    if (all) return this.empty("No job matches");
    if (!admin) return this.empty("No jobs yet", "An admin can start one.");
    return this.empty("No jobs yet", "A job trains, samples or captions, here or on another machine; it goes on when this page is closed.", "New job", () => this.newJob());
  }

  /** Instead of a job that cannot be read: why not. It is looked at again. */
  unseen({ what, seen, remedy }) {
    this.empty(what, [seen, remedy].filter(Boolean).join(". "));
  }

  gone(trouble) {
    this.state.job = this.job = null;
    this.watch.saw("job");
    this.empty(trouble.what, trouble.seen, "Newest job", async () => {
      await this.refreshList();
      const newest = this.found?.items[0];
      if (newest) this.open(newest.job_id);
    });
  }

  address(id = this.state.job) {
    return api.addressOf({ ...this.state, job: id });
  }

  moved() {
    this.state = api.stateOf(location.search);
    this.refreshList();
    if (this.state.job) this.open(this.state.job, true);
  }

  titleOf(id) {
    return this.found?.items.find((job) => job.job_id === id)?.title ?? id;
  }

  ask(change) {
    this.state.filters = { ...this.state.filters, ...change };
    this.locate();
    return this.refreshList();
  }

  showCurve(curve) {
    this.state.curve = curve;
    this.locate();
    return this.compareWith(this.state.compare);
  }

  async compareWith(ids) {
    this.state.compare = ids;
    this.locate();
    await this.attempt(() => this.curves.fetchOthers(ids, this.state.curve));
    if (this.job) this.paint();
  }

  async showRun(run) {
    this.state.run = run;
    this.locate();
    await this.attempt(() => this.fetchCurves());
    if (this.job) this.paint();
  }

  // -- what can be done ---------------------------------------------------------------------------------------------

  newJob() {
    if (!this.found?.admin) return false;
    this.dialog.open();
    return undefined;
  }

  cloneJob(change) {
    if (!this.job?.admin) return false;
    this.dialog.open({ clone: this.job.job_id, change: typeof change === "string" ? change : null });
    return undefined;
  }

  async begun(id) {
    this.state.filters = { state: [], step: [], text: "" };
    await this.refreshList();
    await this.open(id);
    if (!isTyping(document.activeElement)) this.head.title.focus();
  }

  async cancelJob() {
    if (await this.attempt(() => api.cancel(this.job.job_id))) this.toast("It has been asked to stop; it saves a checkpoint first.");
    await this.watch.now();
  }

  async resumeJob() {
    if (await this.attempt(() => api.resume(this.job.job_id))) this.toast("It goes on.");
    await this.watch.now();
  }

  async muteAlarm(id) {
    await this.attempt(() => api.mute(this.job.job_id, id));
    await this.refreshJob();
  }

  // -- keys ---------------------------------------------------------------------------------------------------------

  step(by) {
    const { names } = this.list;
    const at = names.indexOf(this.state.job);
    const next = at < 0 ? names[0] : names[at + by];
    return next ? this.open(next) : undefined;
  }

  nextJob() {
    this.step(1);
  }

  previousJob() {
    this.step(-1);
  }

  searchLog() {
    if (!this.job) return false;
    this.log.input.scrollIntoView({ block: "nearest" });
    this.log.input.focus();
    return undefined;
  }

  follow() {
    this.log.setFollow(!this.log.following);
  }

  nextCurve() {
    return this.showCurve(CURVES[(CURVES.indexOf(this.state.curve) + 1) % CURVES.length]);
  }

  taken(key, target) {
    return super.taken(key, target) || (/^Arrow/.test(key) && target.closest?.("ol"));
  }
}
