// What every page of the desk does alike: mounting, keys, words, its address and a link to it, what goes wrong.

import { Trouble } from "./api.js";
import { h } from "./dom.js";
import { Keys, isTyping, loadKeys } from "./keys.js";
import { Notes } from "./notes.js";
import { Panel, shortcuts } from "./overlay.js";

/** Put a page into an element whose `data-workspace` names the workspace; `name` is the page's in keys.json, `more` what else it is made of. */
export async function mounted(Kind, name, element, ...more) {
  const page = new Kind(element, await loadKeys(name), ...(await Promise.all(more)));
  element.replaceChildren(page.root);
  await page.begin();
  return page;
}

/** A page; its own class makes `root`, `blank` and `input` (where one searches) and says its `address`. */
export class Page {
  constructor(element, table) {
    this.workspace = element.dataset.workspace;
    this.notes = new Notes();
    this.keys = new Keys(element, table, (action, key, event) => this.act(action, key, event));
    this.blank = h("div", { class: "d-blank", hidden: true });
    this.tickets = {};
    this.shownTickets = {};
  }

  say(text) {
    this.notes.say(text);
  }

  toast(text, alarm = false) {
    this.notes.toast(text, alarm);
  }

  entitle(title) {
    document.title = `${title} - ${this.workspace}`;
  }

  /** Instead of what cannot be shown: what is the matter, and what to do next, as pairs of label and action. */
  empty(title, text, ...ways) {
    const buttons = [];
    for (let at = 0; at < ways.length; at += 2)
      buttons.push(h("button", { type: "button", class: at ? "d-btn" : "d-btn primary", on: { click: ways[at + 1] } }, ways[at]));
    this.blank.replaceChildren(h("h2", {}, title), text ? h("p", {}, text) : "", buttons.length ? h("div", {}, buttons) : "");
    this.blank.hidden = false;
    this.say(title);
  }

  // -- asking the server --------------------------------------------------------------------------------------------

  /** Do something that asks the server; undefined, and `told` called, if that did not succeed. */
  async attempt(act, told = (trouble) => this.trouble(trouble)) {
    try {
      return await act();
    } catch (trouble) {
      if (!(trouble instanceof Trouble)) throw trouble;
      told(trouble);
      return undefined;
    }
  }

  /** Of what is asked under one name only the newest answer may be shown: the function says whether this is still it. */
  newest(name) {
    const ticket = (this.tickets[name] = (this.tickets[name] ?? 0) + 1);
    return () => ticket === this.tickets[name];
  }

  /** Of what is asked under one name again and again no answer may be shown after that to a later question: the function says whether this one may be, which is then shown. */
  inOrder(name) {
    const ticket = (this.tickets[name] = (this.tickets[name] ?? 0) + 1);
    return () => {
      if (ticket < (this.shownTickets[name] ?? 0)) return false;
      this.shownTickets[name] = ticket;
      return true;
    };
  }

  /** Do what is asked under one name; `act` and `told` are as in `attempt`, and no trouble with an older one is told. */
  latest(name, act, told = (trouble) => this.trouble(trouble)) {
    const current = this.newest(name);
    return this.attempt(() => act(current), (trouble) => current() && told(trouble));
  }

  /** For what opens when its answer is there: the function says whether it was asked for last, and neither is somebody writing nor has something else opened since. */
  stays(name) {
    const [current, place, above] = [this.newest(name), document.activeElement, this.above];
    const writing = () => document.activeElement !== place && isTyping(document.activeElement);
    return () => current() && !writing() && (!this.above || this.above === above);
  }

  /** What lies above the page, if anything does. */
  get above() {
    return this.root.querySelector("dialog[open]") ?? Panel.open;
  }

  // -- the address --------------------------------------------------------------------------------------------------

  /** Write what is shown into the address, so that a reload and a link lead back to it; with `push` also Back does. */
  locate({ query = this.address(), push = false } = {}) {
    window.history[push ? "pushState" : "replaceState"](window.history.state, "", location.pathname + query);
  }

  /** Where the browser does not let us copy the link, show it. */
  async copyLink() {
    const link = location.origin + location.pathname + this.address();
    try {
      await navigator.clipboard.writeText(link);
      this.toast("The link is copied.");
    } catch {
      this.toast(link);
    }
  }

  // -- keys ---------------------------------------------------------------------------------------------------------

  /** Do what a key asks for; false leaves the key to the browser. */
  act(action, key, event) {
    if (this.root.querySelector("dialog[open]") && action !== "shortcuts") return false;
    if (this.taken(key, event.target)) return false;
    return this.does(action, event) === false ? false : undefined;
  }

  does(action, event) {
    return this[action](event);
  }

  /** Whether the key does something else where the focus is. */
  taken(key, target) {
    if (key === "Enter") return target.closest?.("a, button, input, select, summary");
    return /^Arrow/.test(key) && target.closest?.("[role=region], [role=switch], select");
  }

  search() {
    this.input.focus();
    this.input.select();
  }

  leave(event) {
    if (event.target.matches?.("input")) event.target.blur();
  }

  zoomIn() {
    this.zoom.by(1.25);
  }

  zoomOut() {
    this.zoom.by(1 / 1.25);
  }

  zoomFit() {
    this.zoom.fit();
  }

  theme() {
    document.querySelector("[data-theme-switch]")?.click();
  }

  shortcuts() {
    shortcuts(this.root, this.keys);
  }
}
