// The page of jobs: their list, and one of them as it runs. Its address holds its state; the server holds everything else.

import { Trouble } from "./api.js";
import { button, h, icon } from "./dom.js";
import { Curves } from "./jobcurves.js";
import { Facts } from "./jobfacts.js";
import { JobHead } from "./jobhead.js";
import { JobList } from "./joblist.js";
import { Log } from "./joblog.js";
import { Machine, Memory } from "./jobmachine.js";
import { Keys } from "./keys.js";
import { NewJob } from "./newjob.js";
import { Notes, copyLink } from "./notes.js";
import { Notifier } from "./notifier.js";
import { shortcuts } from "./overlay.js";
import * as api from "./training.js";

const KEYS = [
  { group: "Jobs", action: "nextJob", keys: ["j", "ArrowDown"], label: "Next" },
  { group: "Jobs", action: "previousJob", keys: ["k", "ArrowUp"], label: "Previous" },
  { group: "Jobs", action: "search", keys: ["/"], label: "Search jobs" },
  { group: "Jobs", action: "newJob", keys: ["n"], label: "New job" },
  { group: "Jobs", action: "copyLink", keys: ["y"], label: "Copy a link" },
  { group: "Jobs", action: "leave", keys: ["Escape"], label: "Leave the text", typing: true },
  { group: "This job", action: "cloneJob", keys: ["c"], label: "Clone with changes" },
  { group: "This job", action: "searchLog", keys: ["l"], label: "Search its log" },
  { group: "This job", action: "follow", keys: ["f"], label: "Follow its log" },
  { group: "This job", action: "nextCurve", keys: ["v"], label: "Loss, log-probs, rate" },
  { group: "View", action: "theme", keys: ["m"], label: "Light or dark" },
  { group: "View", action: "shortcuts", keys: ["?"], label: "This list" },
];
const CURVES = ["loss", "logps", "rate"];
/** Milliseconds between looks: at a job that runs, at one that has ended, at the list; hidden, and only if somebody wants to be told. */
const [RUNNING, ENDED, LIST, LONG_LIST, HIDDEN] = [1500, 8000, 3000, 10_000, 15_000];
const [PATIENT, SLOWEST, WHOLE] = [1000, 10_000, 30_000];

/** Put the page into an element whose `data-workspace` names the workspace. */
export async function mount(element) {
  const page = new Train(element);
  await page.begin();
  return page;
}

class Train {
  constructor(element) {
    this.workspace = element.dataset.workspace;
    this.state = api.stateOf(location.search);
    this.notes = new Notes();
    this.notifier = new Notifier(this.notes);
    this.list = new JobList(this);
    this.head = new JobHead(this);
    this.curves = new Curves(this);
    this.log = new Log(this);
    this.machine = new Machine();
    this.memory = new Memory();
    this.facts = new Facts(this);
    this.dialog = new NewJob(this, (id) => this.begun(id));
    this.keys = new Keys(element, KEYS, (action, key, event) => this.act(action, key, event));
    this.failures = 0;
    element.replaceChildren(this.build());
    document.addEventListener("visibilitychange", () => this.wake());
    window.addEventListener("online", () => this.wake());
    window.addEventListener("popstate", () => this.moved());
  }

  build() {
    this.board = h("div", { class: "t-board" }, this.curves.nodes, this.machine.node, this.memory.node, this.log.node, this.facts.node);
    this.view = h("section", { class: "t-job", "aria-label": "Job", hidden: true }, this.head.node, h("div", { class: "t-scroll t-body", tabindex: "0", role: "region", "aria-label": "Curves, machine and log" }, this.board));
    this.blank = h("div", { class: "d-blank" });
    this.lost = h("p", { class: "t-lost warn", role: "status", hidden: true }, icon("cloudOff"), h("span", {}, "The server does not answer. Jobs go on without it; this page tries again by itself."));
    this.help = button("Keyboard shortcuts", () => this.shortcuts(), { name: "keyboard", quiet: true, bare: true, title: "Keyboard shortcuts (?)" });
    this.list.node.append(h("div", { class: "t-foot" }, this.list.count, this.help));
    this.root = h("div", { class: "d-root t-root" }, this.lost, h("div", { class: "d-split" }, this.list.node, this.view, this.blank), this.notes.nodes);
    return this.root;
  }

  async begin() {
    await this.refreshList();
    if (!this.state.job && this.found?.items.length) this.state.job = this.found.items[0].job_id;
    if (this.state.job) await this.open(this.state.job, true);
    this.schedule();
  }

  // -- asking the server --------------------------------------------------------------------------------------------

  /** Do what somebody asked for; what goes wrong is said. Undefined if it went wrong. */
  async attempt(act) {
    try {
      return await act();
    } catch (trouble) {
      if (!(trouble instanceof Trouble)) throw trouble;
      if (trouble.offline) this.connected(false);
      this.notes.toast([trouble.told, trouble.seen].filter(Boolean).join(". "), true);
      return undefined;
    }
  }

  /** Look at something again, quietly; false if no answer came. */
  async look(act) {
    try {
      await act();
      this.connected(true);
      return true;
    } catch (trouble) {
      if (!(trouble instanceof Trouble)) throw trouble;
      if (trouble.status === 404 && this.state.job) this.gone(trouble);
      else this.connected(false);
      return false;
    }
  }

  connected(yes) {
    this.failures = yes ? 0 : this.failures + 1;
    this.lost.hidden = yes || this.failures < 2;
  }

  refreshList() {
    return this.look(async () => {
      const { filters } = this.state;
      const found = await api.list(filters, this.list.shown);
      if (filters !== this.state.filters) return;
      this.found = found;
      this.list.paint(found, filters, this.state.job);
      this.notifier.seen(found.items);
      if (!found.all || (!this.state.job && !found.items.length)) this.empty(found);
      else if (!this.job) this.blank.hidden = false;
    });
  }

  refreshJob() {
    const id = this.state.job;
    if (!id) return true;
    return this.look(async () => {
      const whole = Date.now() - this.whole > WHOLE;
      const step = this.job?.trained && this.points ? this.curves.last : null;
      const found = await api.live(id, { log: this.log.offset, usage: this.machine.last, step, run: this.state.run });
      if (id !== this.state.job) return;
      const again = this.job?.job_id !== id || this.job.attempt !== found.job.attempt;
      const before = this.job?.state;
      this.job = found.job;
      this.alarms = found.alarms;
      this.log.add(found.log);
      this.machine.add(found.usage);
      const full = step != null && this.curves.add(found.curves);
      if (again || full || (whole && !api.isOver(found.job))) await this.fetchCurves();
      this.paint();
      if (again || (before && before !== found.job.state)) this.needed();
      if (before && before !== found.job.state) this.notes.say(`${found.job.title}: ${api.STATES[found.job.state]}`);
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
    await this.curves.fetchOthers(compare, curve).catch((trouble) => this.notes.toast(trouble.told ?? String(trouble), true));
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

  /** Look again and again: often at what runs, seldom at what has ended, not at all while nobody sees it. */
  schedule() {
    const soon = () => (document.hidden ? HIDDEN : this.failures ? Math.min(SLOWEST, PATIENT * 2 ** Math.min(this.failures, 4)) : 0);
    const again = (name, wait, act) => {
      clearTimeout(this[name]);
      this[name] = setTimeout(async () => {
        if (!this.root.isConnected) return;
        if (!document.hidden || this.notifier.waiting) await act();
        again(name, wait, act);
      }, soon() || wait());
    };
    again("jobTimer", () => (this.job && api.isOver(this.job) ? ENDED : RUNNING), () => (document.hidden ? null : this.refreshJob()));
    again("listTimer", () => (this.list.shown > 200 ? LONG_LIST : LIST), () => this.refreshList());
  }

  async wake() {
    if (document.hidden) return;
    await Promise.all([this.refreshJob(), this.refreshList()]);
    this.schedule();
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
    this.list.mark(id);
    this.list.reveal(id);
    this.address(id, !first);
    // Both at once: the record that says whether there are curves, and the curves.
    const known = this.found?.items.find((job) => job.job_id === id);
    this.ahead = known?.trained === false ? null : api.curves(id, this.state.run).catch(() => null);
    await this.refreshJob();
  }

  paint() {
    const { job, alarms } = this;
    const { curve, compare } = this.state;
    this.blank.hidden = true;
    if (this.view.hidden) {
      this.view.hidden = false;
      this.log.settle();
    }
    this.view.setAttribute("aria-label", `Job ${job.title}`);
    document.title = `${job.title}, ${api.STATES[job.state] ?? job.state} - ${this.workspace}`;
    this.head.paint(job, alarms, this.curves);
    this.curves.paint({ job, curve, compare, alarms });
    this.machine.paint(job);
    this.board.classList.toggle("plain", !job.trained);
    this.facts.paint(job);
  }

  empty(found) {
    this.view.hidden = true;
    this.blank.hidden = false;
    const none = !found.all;
    this.blank.replaceChildren(h("h2", {}, none ? "No jobs yet" : "No job matches"), none && h("p", {}, found.admin ? "A job trains, samples or captions, here or on another machine; it goes on when this page is closed." : "An admin can start one."), none && found.admin ? h("div", {}, button("New job", () => this.newJob(), { name: "plus", primary: true })) : "");
  }

  gone(trouble) {
    this.view.hidden = true;
    this.blank.hidden = false;
    this.job = null;
    this.blank.replaceChildren(h("h2", {}, trouble.what), h("p", {}, trouble.seen), h("div", {}, button("Newest job", async () => {
      this.state.job = null;
      await this.refreshList();
      const newest = this.found?.items[0];
      if (newest) this.open(newest.job_id);
    })));
    this.state.job = null;
  }

  address(id, follow) {
    const address = api.addressOf({ ...this.state, job: id });
    if (follow === undefined) return address;
    const change = follow ? "pushState" : "replaceState";
    window.history[change](window.history.state, "", location.pathname + address);
    return address;
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
    this.address(this.state.job, false);
    return this.refreshList();
  }

  showCurve(curve) {
    this.state.curve = curve;
    this.address(this.state.job, false);
    return this.compareWith(this.state.compare);
  }

  async compareWith(ids) {
    this.state.compare = ids;
    this.address(this.state.job, false);
    await this.attempt(() => this.curves.fetchOthers(ids, this.state.curve));
    if (this.job) this.paint();
  }

  async showRun(run) {
    this.state.run = run;
    this.address(this.state.job, false);
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
    this.head.title.focus();
  }

  async cancelJob() {
    if (await this.attempt(() => api.cancel(this.job.job_id))) this.notes.toast("It has been asked to stop; it saves a checkpoint first.");
    await this.wake();
  }

  async resumeJob() {
    if (await this.attempt(() => api.resume(this.job.job_id))) this.notes.toast("It goes on.");
    await this.wake();
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

  search() {
    this.list.input.focus();
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

  copyLink() {
    return copyLink(this.address(this.state.job), this.notes);
  }

  leave(event) {
    if (event.target.matches?.("input")) event.target.blur();
  }

  theme() {
    document.querySelector("[data-theme-switch]")?.click();
  }

  shortcuts() {
    shortcuts(this.root, this.keys);
  }

  /** Do what a key asks for; false leaves the key to the browser. */
  act(action, key, event) {
    if (this.root.querySelector("dialog[open]") && action !== "shortcuts") return false;
    if (/^Arrow/.test(key) && event.target.closest?.("[role=region], [role=switch], select, ol")) return false;
    return this[action](event) === false ? false : undefined;
  }
}
