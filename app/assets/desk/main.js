// The review desk: one record at a time, from the API to the screen and back. Focus, keys and draft live here.

import { Pictures, Trouble } from "./api.js";
import { h, kbd } from "./dom.js";
import { Drafts } from "./draft.js";
import { address, filtersOf } from "./filters.js";
import { Foot } from "./foot.js";
import { Keys, isTyping, loadKeys } from "./keys.js";
import { Look } from "./look.js";
import { Panel, guidelines, shortcuts } from "./overlay.js";
import { Notes, copyLink } from "./notes.js";
import { RecordActions } from "./records.js";
import { Rows } from "./rows.js";
import { Toolbar } from "./toolbar.js";

/** Put the desk into an element whose `data-workspace` names the workspace. */
export async function mount(element) {
  const guide = fetch(new URL("guide.json", import.meta.url)).then((answer) => answer.json());
  const desk = new Desk(element, await loadKeys(), await guide);
  await desk.begin();
  return desk;
}

class Desk extends RecordActions {
  constructor(element, table, guide) {
    super();
    this.guide = guide;
    this.workspace = element.dataset.workspace;
    this.filters = filtersOf(location.search);
    this.pictures = new Pictures();
    this.drafts = new Drafts(() => `${this.workspace} ${this.record?.me ?? ""}`, (status) => this.saved(status));
    this.title = h("h1", { class: "d-sr" }, "Review");
    this.notes = new Notes();
    this.blank = h("div", { class: "d-blank" });
    this.keys = new Keys(element, table, (action, key, event) => this.act(action, key, event));
    this.toolbar = new Toolbar(this);
    this.look = new Look();
    this.rows = new Rows(this, guide);
    this.foot = new Foot(this, this.keys, guide);
    this.split = h("div", { class: "d-split" }, this.look.node, this.rows.node);
    this.root = h("div", { class: "d-root" }, this.title, this.toolbar.node, this.split, this.blank, this.foot.node, this.notes.nodes);
    element.replaceChildren(this.root);
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

  say(text) {
    this.notes.say(text);
  }

  toast(text, alarm = false) {
    this.notes.toast(text, alarm);
  }

  show(record) {
    this.split.hidden = !record;
    this.blank.hidden = record;
    this.root.classList.toggle("is-blank", !record);
  }

  /** A page without a record: what is the matter, and what to do next, as pairs of label and action. */
  empty(title, text, ...ways) {
    const buttons = [];
    for (let at = 0; at < ways.length; at += 2)
      buttons.push(h("button", { type: "button", class: at ? "d-btn" : "d-btn primary", on: { click: ways[at + 1] } }, ways[at]));
    this.blank.replaceChildren(h("h2", {}, title), text && h("p", {}, text), h("div", {}, buttons));
    this.title.textContent = `Review: ${title}`;
    this.show(false);
    this.say(title);
    buttons[0]?.focus();
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

  copyLink() {
    return copyLink(address(this.record?.rollout.rollout_id, this.filters), this.notes);
  }

  theme() {
    document.querySelector("[data-theme-switch]")?.click();
  }

  search() {
    this.toolbar.input.focus();
    this.toolbar.input.select();
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
      pan: () => this.look.zoom.pan(...arrow),
      zoomIn: () => this.look.zoom.by(1.25),
      zoomOut: () => this.look.zoom.by(0.8),
      zoomFit: () => this.look.zoom.fit(),
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
