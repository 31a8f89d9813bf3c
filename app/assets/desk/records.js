// What a reviewer does to whole records: which one comes next, decisions, conflicts, history.

import * as api from "./api.js";
import { SentenceActions } from "./actions.js";
import { number, when } from "./dom.js";
import { countOf, filtersOf } from "./filters.js";
import { isTyping } from "./keys.js";
import { Panel, conflict, history } from "./overlay.js";
import { counterpart, decided, merged, opened, outgoing, problem, same } from "./sentences.js";

const DECIDED = { accept: "Accepted", reject: "Rejected", flag: "Flagged" };
const STATES = { accepted: "Accepted", rejected: "Rejected", flagged: "Flagged" };

/** The part of the desk that works on the open `record`. */
export class RecordActions extends SentenceActions {
  record = null;

  // -- which record -----------------------------------------------------------------------------------------------

  /** The next record of the queue, or what to do where there is none. */
  async first() {
    await this.lead(async (current) => {
      const { record } = await api.next(null, this.filters);
      if (!current()) return undefined;
      if (record) return this.enter(record);
      const found = await api.find(this.filters);
      if (!current()) return undefined;
      this.leaveRecord();
      return this.nothing(found);
    }, () => this.first());
  }

  /** What to do next where the filters leave nothing to review. */
  nothing({ all, total, items }) {
    const everything = () => this.refilter(new URLSearchParams({ sort: "sampled" }));
    if (!all)
      return this.empty("No rollouts yet", `Run  opadpo rollout ${this.workspace}  and then  opadpo revise ${this.workspace}.`);
    if (total) // all of them are decided or in somebody's hands
      return this.empty("Nothing is waiting here", "Every record of this list is decided, or somebody is at it.", "Look through them", () => this.open(items[0].rollout_id));
    const count = countOf(this.filters);
    if (!count) return this.empty("Nothing is waiting for you", "Everything in this queue is decided.", "See all records", everything);
    const title = count === 1 ? "No record matches this filter" : `No record matches these ${count} filters`;
    return this.empty(title, "", "Clear filters", () => this.refilter(new URLSearchParams({ sort: this.filters.get("sort") })));
  }

  /** Show other records. */
  refilter(filters) {
    this.filters = filtersOf(filters);
    this.toolbar.paint(this.filters);
    this.locate({ query: this.address(null) });
    return this.first();
  }

  /** Show a record by its id. */
  async open(id) {
    await this.lead(async (current) => {
      const record = await api.record(id, this.filters);
      if (!current()) return;
      this.enter(record);
      api.claim(id).catch(() => {}); // others may be told of it; the review does not depend on it
    }, () => this.open(id));
  }

  /** Do something that leads to another record; only the newest such attempt may change the page. */
  lead(work, again) {
    return this.latest("record", work, (trouble) => this.trouble(trouble, again));
  }

  /** Leave the open record and show another; then look ahead. */
  enter(record, upcoming) {
    this.newest("record");
    this.leaveRecord();
    this.paint(record);
    this.ahead(record, upcoming);
  }

  /** Fetch the images of the records that can come next, so that they are there at once. */
  async ahead(record, upcoming) {
    const id = record.rollout.rollout_id;
    try {
      const next = upcoming ?? (await api.peek(id, this.filters)).rollout_id;
      for (const other of new Set([next, record.next].filter(Boolean)))
        this.pictures.get((await api.record(other, this.filters)).prompt.image);
    } catch (trouble) {
      if (!(trouble instanceof api.Trouble)) throw trouble; // looking ahead may fail; opening will tell
    }
  }

  /** Leave the open record, or only `record` if it is open. */
  leaveRecord(record = this.record) {
    if (record !== this.record) return;
    if (this.foot.node.contains(Panel.open?.node)) Panel.open.close(false); // it asks about this record
    this.root.querySelector("dialog.d-history")?.close();
    if (!this.record) return;
    this.drafts.stop();
    this.record = null;
  }

  paint(record) {
    this.record = record;
    const draft = this.drafts.newest(record);
    this.sentences = opened(draft?.sentences ?? record.sentences);
    this.base = draft ? draft.base_revision_id : record.base_revision_id;
    if (!draft && record.state === "accepted") for (const sentence of this.sentences) sentence.checked = true;
    this.steps = [];
    this.editing = false;
    this.current = (draft && this.sentences.find((sentence) => !sentence.checked)) || this.sentences[0] || null;
    this.settle();
    this.show(true);
    this.rows.node.inert = Boolean(this.busy);
    this.look.paint(record, this.pictures.get(record.prompt.image));
    this.rows.paint(this.sentences);
    this.rows.state(this.standing());
    this.foot.paint(record);
    this.name();
    this.locate();
    this.drafts.start(record, draft, () => ({ base_revision_id: this.base, sentences: outgoing(this.sentences), note: "" }));
    if (draft && draft.base_revision_id !== record.base_revision_id && record.current) this.disagree(record.current);
    this.attend();
  }

  /** Whether the reviewer has begun something in the toolbar, from where what comes late must not take the focus. */
  get elsewhere() {
    const held = document.activeElement;
    return this.toolbar.node.contains(held) && (isTyping(held) || Boolean(Panel.open));
  }

  /** Give the record the focus, unless the reviewer is elsewhere. */
  attend() {
    if (this.elsewhere) return;
    if (this.editing) this.edit();
    else if (this.current) this.rows.focus(this.current);
    else this.rows.scroll.focus();
  }

  name() {
    const { position, total } = this.record;
    const place = position == null ? "" : `, record ${number(position)} of ${number(total)}`;
    this.title.textContent = `Review${place}`;
    this.entitle(`Review${place}`);
  }

  /** What was decided about the record so far, in a few words; empty if nothing was. */
  standing() {
    const { state, current, disagree, in_review_by: others = [] } = this.record;
    if (disagree) return `${disagree.people.join(" and ")} disagree: ${disagree.settles ? "what you decide counts" : "somebody else has to decide"}`;
    if (others.length) return `${others.join(", ")} ${others.length === 1 ? "is" : "are"} at this record too`;
    if (!STATES[state] || !current) return "";
    return `${STATES[state]} by ${current.author}, ${when(current.created_at)}${current.note ? `: ${current.note}` : ""}`;
  }

  nextRecord() {
    if (this.record?.next) return this.open(this.record.next);
    return this.toast("This is the last record of the list.");
  }

  previousRecord() {
    if (this.record?.previous) return this.open(this.record.previous);
    return this.toast("This is the first record of the list.");
  }

  /** Decide nothing now; the record comes back at the end of this reviewer's queue. */
  async skip() {
    if (!this.record || this.busy) return;
    const id = this.record.rollout.rollout_id;
    await this.lead(async (current) => {
      await this.drafts.flush();
      if (!current()) return undefined;
      const { record } = await api.next(id, this.filters, true);
      if (!current()) return undefined;
      if (!record || record.rollout.rollout_id === id) return this.toast("Nothing else is left in this queue.");
      this.enter(record);
      return this.toast("Skipped. It comes back at the end.");
    }, () => this.skip());
  }

  /** The end of the queue. */
  finished({ mine, mine_total }) {
    this.newest("record");
    this.leaveRecord();
    const all = mine >= mine_total;
    const flagged = () => this.refilter(new URLSearchParams({ sort: "sampled", state: "flagged" }));
    this.empty(
      all ? `All done: ${number(mine)} of ${number(mine_total)}` : "This was the last record of the list",
      all ? "Thank you. Flagged records wait for a second look." : `${number(mine)} of ${number(mine_total)} are done.`,
      "See flagged records", flagged,
      "Back to the beginning", () => this.first(),
    );
  }

  // -- decisions --------------------------------------------------------------------------------------------------

  acceptRecord() {
    return this.decide("accept", "");
  }

  /** Commit a decision about the whole record and show the next one. */
  async decide(action, note) {
    if (!this.record || this.busy) return;
    if (this.theirs) return this.refuse("Choose one of the two versions first.");
    const wrong = action !== "reject" && this.sentences.find(problem);
    if (wrong) return this.object(wrong, problem(wrong));
    if (action === "reject") for (const sentence of this.sentences) if (problem(sentence)) sentence.score = 4;
    const open = this.record;
    const id = open.rollout.rollout_id;
    await this.settling(async (current) => {
      const sentences = decided(this.sentences);
      const body = { base_revision_id: this.base, action, sentences, note, seq: this.drafts.seq };
      const { record, upcoming, progress } = await api.commit(id, this.filters, body);
      this.drafts.done(id);
      this.foot.progress(progress);
      if (!current()) this.leaveRecord(open);
      else if (record) this.enter(record, upcoming);
      else this.finished(progress);
      this.toast(`${DECIDED[action]}. U takes it back.`);
    });
  }

  /**
   * Send what changes the open record for good. While it is on its way nothing can be changed that would not be part
   * of it; once the reviewer has asked for another record, its answer, which then is not `current`, leads nowhere.
   */
  async settling(act) {
    const { record } = this;
    const current = this.newest("record");
    this.hold(true);
    await this.drafts.hold();
    try {
      await act(current);
    } catch (trouble) {
      if (!(trouble instanceof api.Trouble)) throw trouble;
      if (this.record === record) this.refused(trouble);
      else this.refuse(trouble.told);
    } finally {
      this.drafts.release();
      this.hold(false);
    }
  }

  /** While a decision is on its way nothing can be changed that would not be part of it. */
  hold(on) {
    this.busy = on;
    this.foot.busy(on);
    this.rows.node.inert = on || !this.record;
    if (!on) this.attend();
  }

  /** A decision that was not taken: say why; everything stays as it is. */
  refused(trouble) {
    if (!(trouble instanceof api.Trouble)) throw trouble;
    const { theirs } = trouble.body ?? {};
    if (trouble.status === 409 && theirs && theirs.rollout_id === this.record?.rollout.rollout_id) return this.disagree(theirs);
    const at = trouble.body?.sentence;
    const written = this.sentences.filter((sentence) => sentence.kind !== "added" || sentence.revised.trim());
    if (trouble.status === 422 && written[at]) return this.object(written[at], trouble.message);
    return this.refuse(trouble.offline ? "The server does not answer. Your work is kept in this browser." : trouble.told);
  }

  /** Point at a sentence that cannot be committed. */
  object(sentence, why) {
    this.edit(sentence);
    this.refuse(why);
  }

  refuse(why) {
    this.toast(why, true);
  }

  /** Take back the last change of this record, else this reviewer's last decision. */
  async undo() {
    if (this.busy) return;
    if (this.steps.length) return this.stepBack();
    await this.settling(async (current) => {
      const { record } = await api.undo(this.filters);
      if (current()) this.enter(record);
      this.toast("Your last decision is taken back.");
    });
  }

  // -- conflicts and history --------------------------------------------------------------------------------------

  /** Somebody else decided first: both versions are shown, and nothing is committed until one is chosen. */
  disagree(theirs) {
    this.settle();
    this.theirs = theirs;
    const pairs = [];
    this.sentences.forEach((mine, position) => {
      const their = counterpart(mine, theirs.sentences);
      if (!their || !same(mine, their)) pairs.push({ number: position + 1, mine, their });
    });
    for (const their of theirs.sentences)
      if (!counterpart(their, this.sentences)) pairs.push({ number: their.index + 1, mine: null, their });
    this.banner = conflict(this, theirs, pairs);
    this.rows.node.prepend(this.banner);
    this.saved(this.status);
  }

  settle() {
    this.banner?.remove();
    this.banner = this.theirs = null;
  }

  async takeTheirs() {
    if (!this.theirs) return false;
    const id = this.record.rollout.rollout_id;
    return this.settling(async (current) => {
      await api.dropDraft(id);
      const record = await api.record(id, this.filters);
      this.drafts.done(id);
      if (current()) this.enter(record);
      this.toast("Their version is in force; your draft is gone.");
    });
  }

  /** Go on with mine: what I had not touched becomes theirs, and the next decision replaces theirs. */
  async keepMine() {
    const { theirs, record } = this;
    if (!theirs) return;
    const revisions = await this.lead(() => api.revisions(record.rollout.rollout_id));
    if (!revisions || this.theirs !== theirs) return;
    const base = revisions.find((revision) => revision.revision_id === this.base);
    this.finish();
    this.step("the merge");
    this.sentences = merged(this.sentences, theirs.sentences, base?.sentences ?? []);
    this.base = theirs.revision_id;
    this.settle();
    this.current = this.sentences.includes(this.current) ? this.current : this.sentences[0];
    this.rows.repaint(this.sentences);
    this.rows.focus(this.current);
    this.changed();
    this.toast("Your changes now lie on top of theirs.");
  }

  async history() {
    if (!this.record) return;
    const { record } = this;
    const stays = this.stays("history");
    try {
      const revisions = await api.revisions(record.rollout.rollout_id);
      if (record === this.record && stays()) history(this.root, record, revisions, (item) => this.restore(item));
    } catch (trouble) {
      this.trouble(trouble);
    }
  }

  /** Put an earlier version in force again, as a new entry of the history. */
  async restore(item) {
    if (this.busy) return;
    const { base_revision_id } = this.record;
    const id = this.record.rollout.rollout_id;
    await this.settling(async (current) => {
      await api.restore(id, this.filters, { revision_id: item.revision_id, base_revision_id });
      await api.dropDraft(id);
      const record = await api.record(id, this.filters);
      this.drafts.done(id);
      if (current()) this.enter(record);
      this.toast(`The version of ${item.author} is in force again.`);
    });
  }
}
