// A word from the browser when a job ends; asked for by a click only, and kept in this browser.

import { STATES, isOver } from "./training.js";

const KEPT = "opadpo-tell";

export class Notifier {
  constructor(notes) {
    this.notes = notes;
    this.states = new Map();
  }

  get possible() {
    return "Notification" in window;
  }

  get wanted() {
    try {
      const found = JSON.parse(localStorage.getItem(KEPT) ?? "[]");
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
    localStorage.setItem(KEPT, JSON.stringify(ids.slice(-50)));
  }

  /** Tell of those that have ended since they were seen last. */
  seen(jobs) {
    for (const job of jobs.filter((one) => isOver(one) && this.wants(one.job_id))) {
      this.keep(this.wanted.filter((id) => id !== job.job_id));
      const told = new Notification(`${job.title}: ${STATES[job.state]}`, { body: job.reason ?? "", tag: job.job_id });
      told.onclick = () => window.focus();
    }
  }
}
