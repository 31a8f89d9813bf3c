// A word from the browser when a job ends; asked for by a click only, and kept in this browser.

import { STATES, isOver, list } from "./training.js";

export class Notifier {
  /** Each workspace has jobs of its own, though the browser may see them all at one address. */
  constructor(notes, workspace) {
    this.notes = notes;
    this.kept = `opadpo-tell:${workspace}`;
  }

  get possible() {
    return "Notification" in window;
  }

  get wanted() {
    try {
      const found = JSON.parse(localStorage.getItem(this.kept) ?? "[]");
      return Array.isArray(found) ? found : [];
    } catch {
      return [];
    }
  }

  wants(id) {
    return this.wanted.includes(id);
  }

  /** Whether a hidden page has something to wait for. */
  get waiting() {
    return this.wanted.length > 0;
  }

  async flip(job) {
    const others = this.wanted.filter((id) => id !== job.job_id);
    if (this.wants(job.job_id)) return this.keep(others);
    if ((await Notification.requestPermission()) !== "granted") return this.notes.toast("The browser does not allow notifications from this page.");
    this.notes.toast("You will be told when it ends, as long as this page is open somewhere.");
    return this.keep([...others, job.job_id]);
  }

  keep(ids) {
    try {
      localStorage.setItem(this.kept, JSON.stringify(ids.slice(-50)));
    } catch {
      this.notes.toast("The browser keeps nothing for this page, so it cannot tell you.");
    }
  }

  /** Tell of those that have ended, whether the list shows them or not; forget those that are no more. */
  async look() {
    const { wanted } = this;
    if (!wanted.length) return;
    const { items } = await list({ job: wanted }, wanted.length);
    const ended = items.filter((job) => isOver(job) && this.wants(job.job_id)); // another look may have told it meanwhile
    if (items.length === wanted.length && !ended.length) return;
    const going = new Set(items.filter((job) => !isOver(job)).map((job) => job.job_id));
    this.keep(this.wanted.filter((id) => going.has(id) || !wanted.includes(id)));
    for (const job of ended) {
      const told = new Notification(`${job.title}: ${STATES[job.state]}`, { body: job.reason ?? "", tag: job.job_id });
      told.onclick = () => window.focus();
    }
  }
}
