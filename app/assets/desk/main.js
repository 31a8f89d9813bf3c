// The review desk: one record at a time, from the API to the screen and back. Focus, keys and draft live here.

import { Pictures, Trouble } from "./api.js";
import { h, kbd } from "./dom.js";
import { Drafts } from "./draft.js";
import { address, filtersOf } from "./filters.js";
import { Foot } from "./foot.js";
import { isTyping } from "./keys.js";
import { Look } from "./look.js";
import { Panel, guidelines, shortcuts } from "./overlay.js";
import { mounted } from "./page.js";
import { RecordActions } from "./records.js";
import { Rows } from "./rows.js";
import { Toolbar } from "./toolbar.js";

/** Put the desk into an element whose `data-workspace` names the workspace. */
export const mount = (element) => mounted(Desk, "review", element, loadGuide());

const loadGuide = async () => (await fetch(new URL("guide.json", import.meta.url))).json();

class Desk extends RecordActions {
  constructor(element, table, guide) {
    super(element, table);
    this.guide = guide;
    this.filters = filtersOf(location.search);
    this.pictures = new Pictures();
    this.drafts = new Drafts(() => `${this.workspace} ${this.record?.me ?? ""}`, (status) => this.saved(status));
    this.title = h("h1", { class: "d-sr" }, "Review");
    this.toolbar = new Toolbar(this);
    this.input = this.toolbar.input;
    this.look = new Look();
    this.zoom = this.look.zoom;
    this.rows = new Rows(this, guide);
    this.foot = new Foot(this, this.keys, guide);
    this.split = h("div", { class: "d-split" }, this.look.node, this.rows.node);
    this.root = h("div", { class: "d-root" }, this.title, this.toolbar.node, this.split, this.blank, this.foot.node, this.notes.nodes);
  }

  async begin() {
    this.toolbar.paint(this.filters);
    const id = new URLSearchParams(location.search).get("record");
    return id ? this.open(id) : this.first();
  }

  // -- the page ---------------------------------------------------------------------------------------------------

  saved(status) {
    this.status = status;
    this.foot?.status(this.theirs ? { state: "conflict" } : status);
    if (status.state === "offline" && this.told !== "offline") {
      const { trouble } = status;
      if (trouble.offline) this.say("Offline. Your work is kept in this browser.");
      else this.toast(`Not saved on the server: ${trouble.told}`, true);
    }
    if (status.state === "saved" && this.told === "offline") this.say("Saved again.");
    if (status.state !== "saving") this.told = status.state;
  }

  show(record) {
    this.split.hidden = !record;
    this.blank.hidden = record;
    this.root.classList.toggle("is-blank", !record);
  }

  /** A page without a record. */
  empty(title, ...said) {
    super.empty(title, ...said);
    this.title.textContent = `Review: ${title}`;
    this.show(false);
    if (!this.elsewhere) this.blank.querySelector("button")?.focus();
  }

  /** A call failed and there is nothing to show instead. */
  trouble(trouble, again) {
    if (!(trouble instanceof Trouble)) throw trouble;
    if (this.record || !again) return this.refused(trouble);
    const home = () => this.refilter(new URLSearchParams({ sort: "queue" }));
    if (trouble.offline) return this.empty("The server does not answer", "Nothing is lost: what you wrote is kept in this browser.", "Try again", again);
    return this.empty(trouble.what, trouble.more, "Go to my queue", home);
  }

  guidelines() {
    guidelines(this.root, this.guide);
  }

  shortcuts() {
    shortcuts(this.root, this.keys, kbd("↵"), " leaves the text.");
  }

  address(id = this.record?.rollout.rollout_id) {
    return address(id, this.filters);
  }

  /** Do what a key asks for; false leaves the key to the browser. */
  act(action, key, event) {
    if (this.busy) return undefined;
    const dialog = this.root.querySelector("dialog[open]");
    if (dialog && !["shortcuts", "guidelines", "history"].includes(action)) return false;
    if (Panel.open && action === "leave") return Panel.open.close();
    if (Panel.open && !["reject", "flag", "filters"].includes(action)) return false;
    if (/^Arrow/.test(key) && event.target.closest?.(".d-look, .d-panel")) return false;
    const arrow = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    const special = {
      pan: () => this.zoom.pan(...arrow),
      description: () => this.look.toggle(),
      filters: () => void this.toolbar.open(),
      queue: () => this.toolbar.queue.focus(),
      reject: () => this.record && void this.foot.rejecting(),
      flag: () => this.record && void this.foot.flagging(),
      score: () => this.score(Number(key)),
      acceptSentence: () => this.acceptSentence(this.current, true),
      leave: () => this.leave(isTyping(event.target)),
    };
    const done = (special[action] ?? (() => this[action]()))();
    return done === false ? false : undefined;
  }
}
