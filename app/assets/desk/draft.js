// Nothing typed is lost: every change goes into this browser at once and to the server within a second.

import { saveDraft } from "./api.js";

/** Milliseconds from the first unsaved change to the call that saves it; typing on does not put it off. */
const DELAY = 500;
const RETRY = [1000, 2000, 4000, 8000];

/**
 * Saves drafts, that of the open record and those of records that were left before they were saved. `status` is called
 * with {state, at, trouble}: state is one of clean, saving, saved, offline, conflict.
 */
export class Drafts {
  constructor(owner, status) {
    Object.assign(this, { owner, status, record: null, seq: 0, at: null, failures: 0 });
    /** What was written on this page, by record, as {draft, key, unsaved}: an answer that was asked for before may not know it. */
    this.written = new Map();
    addEventListener("pagehide", () => this.leave());
    document.addEventListener("visibilitychange", () => document.hidden && this.leave());
    addEventListener("online", () => this.soon(0));
  }

  /** The newest draft of a record: the server's or this browser's own, whichever was written last; null if none. */
  newest(record) {
    const id = record.rollout.rollout_id;
    const known = Math.max(record.draft?.seq ?? 0, record.draft_seq ?? 0);
    const own = [this.written.get(id)?.draft, this.local(this.key(id))].filter((draft) => draft?.seq > known);
    if (!own.length) return record.draft;
    return { ...own.reduce((one, other) => (other.seq > one.seq ? other : one)), unsaved: true };
  }

  /** Begin with a record; `read` gives {base_revision_id, sentences, note}. */
  start(record, draft, read) {
    this.record = record.rollout.rollout_id;
    this.read = read;
    this.seq = Math.max(draft?.seq ?? 0, record.draft_seq ?? 0);
    this.at = draft && !draft.unsaved ? Date.parse(draft.updated_at) : null;
    if (!this.failures) this.answered();
    if (draft?.unsaved) this.write();
    this.soon(0);
  }

  /** Something was changed. A record that is decided, and about to go from the page, takes no more changes. */
  changed() {
    if (!this.record) return;
    this.seq = Math.max(this.seq + 1, Date.now());
    this.write();
    this.soon(this.failures ? RETRY[0] : DELAY);
  }

  /** Keep the draft of the open record here and in this browser. */
  write() {
    const draft = { ...this.read(), seq: this.seq };
    const one = this.written.get(this.record) ?? { key: this.key(this.record) };
    this.written.set(this.record, Object.assign(one, { draft, unsaved: true }));
    try {
      localStorage.setItem(one.key, JSON.stringify(draft));
    } catch {
      // This browser keeps nothing (private window, full storage): the server still does.
    }
  }

  /** A record whose newest draft the server has not. */
  get waiting() {
    for (const [id, { unsaved }] of this.written) if (unsaved) return id;
    return null;
  }

  soon(delay) {
    if (this.held || this.timer || !this.waiting) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      this.save();
    }, delay);
  }

  /** Send a draft; when it cannot be sent, this browser keeps it and tries again. */
  async save(id = this.waiting) {
    if (!id || this.running) return;
    this.running = this.send(id);
    await this.running;
    this.running = null;
    this.soon(this.failures ? RETRY[Math.min(this.failures, RETRY.length) - 1] : DELAY);
  }

  async send(id) {
    const one = this.written.get(id);
    const { draft } = one;
    if (id === this.record && !this.failures) this.status({ state: "saving", at: null, trouble: null });
    try {
      await saveDraft(id, draft);
      this.kept(id, one, draft);
      this.answered();
    } catch (trouble) {
      if (this.written.get(id) !== one) return; // decided or given up meanwhile
      if (trouble.offline || id === this.record) return this.missed(id, one, trouble);
      one.unsaved = false; // refused, and nobody is there to mend it
      this.answered();
    }
  }

  /** The server has this draft of a record. */
  kept(id, one, draft) {
    if (one.draft === draft) one.unsaved = false;
    this.forget(one.key, draft.seq);
    if (id === this.record) this.at = Date.now();
  }

  /** The server is there: say how the open record stands. */
  answered() {
    this.failures = 0;
    this.status({ state: this.at ? "saved" : "clean", at: this.at, trouble: null });
  }

  /** A draft was not saved; other records have their turn before it is tried again. */
  missed(id, one, trouble) {
    this.written.delete(id);
    this.written.set(id, one);
    this.failures += 1;
    this.status({ state: "offline", at: null, trouble });
  }

  /** The page may go away: send what is unsaved with calls that outlive it. */
  leave() {
    for (const [id, one] of this.written) {
      const { draft } = one;
      if (one.unsaved) saveDraft(id, draft, true).then(() => (this.kept(id, one, draft), this.answered()), () => {});
    }
  }

  /** Hold back before a decision is sent; waits for a call under way, so that it cannot arrive after the decision. */
  async hold() {
    this.held = true;
    clearTimeout(this.timer);
    this.timer = null;
    await this.running;
  }

  /** The decision was answered. */
  release() {
    this.held = false;
    this.soon(0);
  }

  /** Send what is unsaved of the open record, if anything, and wait for it. */
  async flush() {
    await this.running;
    if (this.written.get(this.record)?.unsaved) await this.save(this.record);
  }

  /** The open record is left; what is unsaved is sent at once. */
  stop() {
    this.record = null;
    clearTimeout(this.timer);
    this.timer = null;
    this.soon(0);
  }

  /** The draft of a record has become a decision, or was given up. */
  done(id) {
    this.forget(this.written.get(id)?.key ?? this.key(id), Infinity);
    this.written.delete(id);
    this.failures = 0;
    if (this.record === id) this.record = null;
  }

  key(id) {
    return `opadpo-draft ${this.owner()} ${id}`;
  }

  local(key) {
    try {
      return JSON.parse(localStorage.getItem(key));
    } catch {
      return null; // another program's value under our name
    }
  }

  forget(key, seq) {
    const local = this.local(key);
    if (local && local.seq <= seq) localStorage.removeItem(key);
  }
}
