// Nothing typed is lost: every change goes into this browser at once and to the server within a second.

import { saveDraft } from "./api.js";

/** Milliseconds from the first unsaved change to the call that saves it; typing on does not put it off. */
const DELAY = 500;
const RETRY = [1000, 2000, 4000, 8000];

/**
 * Saves the draft of the open record. `status` is called with {state, at}: state is one of clean, saving, saved,
 * offline, conflict.
 */
export class Drafts {
  constructor(owner, status) {
    this.owner = owner;
    this.status = status;
    this.record = null;
    this.seq = 0;
    this.dirty = false;
    this.failures = 0;
    addEventListener("pagehide", () => this.leave());
    document.addEventListener("visibilitychange", () => document.hidden && this.leave());
    addEventListener("online", () => this.soon(0));
  }

  /** The newest draft of a record: the server's or this browser's own, whichever was written last; null if none. */
  newest(record) {
    const local = this.local(record.rollout.rollout_id);
    const server = record.draft;
    if (local && local.seq > Math.max(server?.seq ?? 0, record.draft_seq ?? 0)) return { ...local, unsaved: true };
    return server;
  }

  /** Begin with a record; `read` gives {base_revision_id, sentences, note}. */
  start(record, draft, read) {
    this.record = record.rollout.rollout_id;
    this.read = read;
    this.seq = Math.max(draft?.seq ?? 0, record.draft_seq ?? 0);
    this.dirty = Boolean(draft?.unsaved);
    this.failures = 0;
    this.say(draft && !this.dirty ? "saved" : "clean", draft && !this.dirty ? Date.parse(draft.updated_at) : null);
    if (this.dirty) this.soon(0);
  }

  /** Something was changed. */
  changed() {
    this.dirty = true;
    this.seq = Math.max(this.seq + 1, Date.now());
    this.keep();
    this.soon(this.failures ? RETRY[0] : DELAY);
  }

  soon(delay) {
    if (!this.dirty || this.timer || !this.record) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      this.save();
    }, delay);
  }

  /** Send the draft; when it cannot be sent, this browser keeps it and tries again. */
  async save() {
    if (!this.dirty || this.running || !this.record) return this.running;
    const [id, seq] = [this.record, this.seq];
    const here = () => this.record === id;
    this.dirty = false;
    if (!this.failures) this.say("saving");
    this.running = saveDraft(id, { ...this.read(), seq })
      .then(() => {
        this.forget(id, seq);
        if (!here()) return;
        this.failures = 0;
        this.say("saved", Date.now());
      })
      .catch((trouble) => {
        if (!here()) return;
        this.dirty = true;
        this.failures += 1;
        this.say("offline", null, trouble);
      });
    await this.running;
    this.running = null;
    this.soon(this.failures ? RETRY[Math.min(this.failures, RETRY.length) - 1] : DELAY);
    return null;
  }

  /** The page may go away: send what is unsaved with a call that outlives it. */
  leave() {
    if (!this.dirty || !this.record) return;
    this.keep();
    const [id, seq] = [this.record, this.seq];
    saveDraft(id, { ...this.read(), seq }, true).then(
      () => {
        this.forget(id, seq);
        if (this.record === id && this.seq === seq) {
          this.dirty = false;
          this.say("saved", Date.now());
        }
      },
      () => {},
    );
  }

  /** Hold back before a decision is sent; waits for a call under way, so that it cannot arrive after the decision. */
  async hold() {
    clearTimeout(this.timer);
    this.timer = null;
    await this.running;
  }

  /** Send what is unsaved, if anything, and wait for it. */
  async flush() {
    await this.hold();
    await this.save();
  }

  /** The open record is left; what is unsaved is sent first. */
  stop() {
    clearTimeout(this.timer);
    this.timer = null;
    if (this.dirty) this.save();
    this.record = null;
  }

  /** The draft has become a decision, or was given up. */
  done() {
    this.dirty = false;
    this.forget(this.record, Infinity);
    this.stop();
  }

  say(state, at = null, trouble = null) {
    this.status({ state, at, trouble });
  }

  key(id) {
    return `opadpo-draft ${this.owner()} ${id}`;
  }

  local(id) {
    try {
      return JSON.parse(localStorage.getItem(this.key(id)));
    } catch {
      return null; // another program's value under our name
    }
  }

  keep() {
    try {
      const updated_at = new Date().toISOString();
      localStorage.setItem(this.key(this.record), JSON.stringify({ ...this.read(), seq: this.seq, updated_at }));
    } catch {
      // This browser keeps nothing (private window, full storage): the server still does.
    }
  }

  forget(id, seq) {
    const local = this.local(id);
    if (local && local.seq <= seq) localStorage.removeItem(this.key(id));
  }
}
