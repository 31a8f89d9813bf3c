// The rollouts page: which records there are, and the one that is open. All of its state lives in the page's address.

import * as api from "./api.js";
import { Cards } from "./cards.js";
import { button, h, icon, number, sr } from "./dom.js";
import { Drawer } from "./drawer.js";
import { SORT, address, countOf, filtersOf } from "./filters.js";
import { noteForm } from "./foot.js";
import { histograms } from "./histograms.js";
import { Panel } from "./overlay.js";
import { Page, mounted } from "./page.js";
import { Rail } from "./rail.js";

const SORTS = {
  lowest_score: "Lowest score first", longest: "Longest first", shortest: "Shortest first", newest: "Newest decisions",
  sampled: "As sampled",
};
const USUAL = "lowest_score";
const PAGE = 48;
const TYPING = 250;
/** While a key is held down the drawer waits this long before it follows. */
const HELD = 80;
/** Put the page into an element whose `data-workspace` names the workspace. */
export const mount = (element) => mounted(Rollouts, "rollouts", element);

class Rollouts extends Page {
  constructor(element, table) {
    super(element, table);
    const query = new URLSearchParams(location.search);
    this.filters = filtersOf(query, USUAL);
    this.table = query.get("view") === "table";
    this.page = Math.max(0, (Number.parseInt(query.get("page"), 10) || 1) - 1);
    this.record = query.get("record");
    this.pictures = new api.Pictures();
    this.rail = new Rail((filters) => this.refilter(filters));
    this.cards = new Cards((id) => this.open(id), (id) => this.address(id));
    this.drawer = new Drawer(this);
    this.build();
  }

  build() {
    this.title = h("h1", {}, sr("Rollouts"));
    this.input = h("input", { type: "search", placeholder: "Search text", autocomplete: "off", spellcheck: "false", maxlength: "1000", on: { input: () => this.typed(), change: () => this.searched() } });
    const form = h(
      "form", { class: "d-search", role: "search", on: { submit: (event) => (event.preventDefault(), this.searched()) } },
      h("label", {}, icon("search"), sr("Search text"), this.input, h("kbd", { class: "d-kbd", "aria-hidden": "true" }, "/")),
    );
    this.sort = h("select", { class: "d-select", "aria-label": "Sort", on: { change: () => this.sorted() } }, Object.entries(SORTS).map(([value, name]) => h("option", { value }, name)));
    const view = (name, table, label) => h("button", { type: "button", "aria-pressed": String(this.table === table), on: { click: () => this.view(table) } }, icon(name), h("span", { class: "d-fold" }, label));
    this.views = [view("grid", false, "Gallery"), view("table", true, "Table")];
    const bar = h(
      "div", { class: "r-bar-top", role: "group", "aria-label": "Search, order and view" }, this.title, h("span", { class: "d-grow" }), form,
      h("span", { class: "d-select-box" }, this.sort, icon("down")), h("div", { class: "d-seg", role: "group", "aria-label": "View" }, this.views),
    );
    this.hists = h("div", { class: "r-hists" });
    this.back = button("Previous page", () => this.turn(this.page - 1), { name: "left", small: true, quiet: true });
    this.forward = button("Next page", () => this.turn(this.page + 1), { name: "right", small: true, quiet: true });
    this.where = h("span", { class: "d-num d-muted" });
    this.pager = h("nav", { class: "r-pager", "aria-label": "Pages" }, this.back, this.where, this.forward);
    this.center = h("section", { class: "r-center", "aria-label": "Rollouts" }, bar, this.hists, this.cards.node, this.blank, this.pager);
    this.root = h("div", { class: "d-root r-root" }, this.rail.node, this.center, this.drawer.node, this.notes.nodes);
  }

  async begin() {
    if (!this.record) return this.load();
    await this.open(this.record, !new URLSearchParams(location.search).has("page"));
    return this.found ? undefined : this.load();
  }

  // -- the list ---------------------------------------------------------------------------------------------------

  /** Fetch the page of records; what is shown stays until its successor is there. */
  async load() {
    this.controls();
    this.cards.node.setAttribute("aria-busy", "true");
    await this.latest("list", async (current) => {
      const found = await api.find(this.filters, PAGE, this.page * PAGE);
      if (!current()) return undefined;
      if (found.total && !found.items.length) return this.turn(Math.ceil(found.total / PAGE) - 1);
      return this.paint(found);
    });
  }

  /** Filters, search and order as they are asked for. */
  controls() {
    this.locate();
    this.rail.paint(this.filters);
    if (this.input !== document.activeElement) this.input.value = this.filters.get("text") ?? "";
    this.sort.value = this.filters.get(SORT);
  }

  paint(found) {
    this.found = found;
    const { total, all, items, facets } = found;
    const pages = Math.max(1, Math.ceil(total / PAGE));
    this.title.replaceChildren(sr("Rollouts: "), number(total), h("span", { class: "d-muted" }, ` of ${number(all)}`));
    this.entitle(`Rollouts, ${number(total)} of ${number(all)}`);
    this.rail.paint(this.filters, facets);
    this.hists.replaceChildren(...histograms(found));
    this.cards.paint(items, this.table, this.record);
    this.where.textContent = `Page ${number(this.page + 1)} of ${number(pages)}`;
    this.back.disabled = this.page === 0;
    this.forward.disabled = this.page + 1 >= pages;
    this.show(total > 0);
    if (!all) this.empty("No rollouts yet", `Run  opadpo rollout ${this.workspace}`);
    else if (!total) this.nothing();
    this.say(`${number(total)} of ${number(all)} records, page ${number(this.page + 1)} of ${number(pages)}`);
  }

  show(some) {
    this.cards.node.removeAttribute("aria-busy");
    for (const node of [this.hists, this.cards.node, this.pager]) node.hidden = !some;
    this.blank.hidden = some;
  }

  nothing() {
    const count = countOf(this.filters);
    this.empty(
      count === 1 ? "No record matches this filter" : `No record matches these ${count} filters`, "",
      "Clear filters", () => this.unfilter(),
    );
  }

  unfilter() {
    const sort = this.filters.get(SORT);
    return this.refilter(new URLSearchParams({ sort: sort in SORTS ? sort : USUAL }));
  }

  empty(...said) {
    this.show(false);
    super.empty(...said);
  }

  trouble(trouble) {
    if (trouble.status === 422) this.empty(trouble.what, trouble.more, "Clear filters", () => this.unfilter());
    else this.empty(trouble.what, trouble.more, "Try again", () => this.load());
  }

  refilter(filters) {
    this.filters = filtersOf(filters, USUAL);
    this.page = 0;
    this.notes.clear();
    const done = this.load();
    if (this.record) this.open(this.record, false);
    return done;
  }

  /** Show another page of the list. */
  turn(page) {
    this.page = Math.max(0, page);
    return this.load();
  }

  nextPage() {
    if (!this.forward.disabled) return this.turn(this.page + 1);
    return false;
  }

  previousPage() {
    if (!this.back.disabled) return this.turn(this.page - 1);
    return false;
  }

  typed() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.searched(), TYPING);
  }

  searched() {
    clearTimeout(this.typing);
    const filters = new URLSearchParams(this.filters);
    const text = this.input.value.trim();
    if (text) filters.set("text", text);
    else filters.delete("text");
    if (String(filters) !== String(this.filters)) this.refilter(filters);
  }

  sorted() {
    const filters = new URLSearchParams(this.filters);
    filters.set(SORT, this.sort.value);
    this.refilter(filters);
  }

  view(table) {
    this.table = table;
    this.views.forEach((node, at) => node.setAttribute("aria-pressed", String(Boolean(at) === table)));
    this.locate();
    if (this.found) this.cards.paint(this.found.items, table, this.record);
  }

  flipView() {
    this.view(!this.table);
  }

  // -- the record -------------------------------------------------------------------------------------------------

  /** Open a record; the list turns to its page unless `turn` is false. */
  async open(id, turn = true) {
    this.record = id;
    this.locate();
    this.cards.mark(id);
    clearTimeout(this.following);
    const from = this.page;
    await this.latest("record", async (current) => {
      const record = await api.record(id, this.filters);
      if (!current()) return;
      this.drawer.paint(record, this.pictures.get(record.prompt.image), `/review${address(id, this.filters)}`);
      this.cards.mark(id);
      this.say(`Record ${number(record.position)} of ${number(record.total)} is open.`);
      const page = Math.floor((record.position - 1) / PAGE);
      if (turn && page !== this.page && from === this.page) await this.turn(page);
    }, (trouble) => this.drawer.fail(id, trouble));
  }

  go(id) {
    return id ? this.open(id) : undefined;
  }

  /** Close the record, also one that is still on its way. */
  close() {
    clearTimeout(this.following);
    const held = this.drawer.node.contains(document.activeElement) || document.activeElement === document.body;
    this.newest("record");
    this.record = null;
    this.drawer.close();
    this.cards.mark(null);
    this.locate();
    if (held) this.cards.focus(Math.max(0, this.cards.place));
  }

  /** Flag the open record with a note, where it is. What is written about it in a draft is not thrown away for that. */
  flag() {
    const { record } = this.drawer;
    if (record?.rollout.rollout_id !== this.record) return false; // another one is on its way
    if (record.draft) return this.review();
    if (Panel.open?.anchor === this.drawer.flag) return Panel.open.close();
    this.notes.clear();
    const finish = (note) => {
      panel.close();
      return this.flagged(record, note);
    };
    const panel = new Panel(this.drawer.foot, this.drawer.flag, "Flag with a note", h("h2", {}, "Flag for a second look"), noteForm("What should they look at?", "Flag", finish));
    return panel;
  }

  async flagged({ rollout, base_revision_id }, note) {
    await this.attempt(async () => {
      await api.commit(rollout.rollout_id, this.filters, { base_revision_id, action: "flag", note, go_on: false });
      this.toast("Flagged.");
    }, (trouble) => this.toast(trouble.told, true));
    await Promise.all([this.load(), this.record && this.open(this.record, false)]);
  }

  review() {
    if (!this.drawer.record) return false;
    return location.assign(`/review${address(this.record, this.filters)}`);
  }

  /** The query of this page with a record. */
  address(id = this.record) {
    const query = new URLSearchParams(address(id, this.filters, USUAL));
    if (this.page) query.set("page", this.page + 1);
    if (this.table) query.set("view", "table");
    return query.size ? `?${query}` : "";
  }

  // -- keys -------------------------------------------------------------------------------------------------------

  /** Go some records on, over the end of the page too; an open drawer comes along. */
  async move(step, held) {
    const count = this.cards.links.length;
    if (!count || this.moving) return;
    const place = document.activeElement;
    const list = this.cards.node.contains(place);
    const from = this.cards.place;
    let to = list || this.record ? from + step : from;
    if (to < 0 || to >= count) {
      const turned = Math.abs(step) === 1 && (step > 0 ? this.nextPage() : this.previousPage());
      if (!turned) return;
      this.moving = true;
      await turned.finally(() => (this.moving = false));
      if (![document.body, place].includes(document.activeElement)) return; // the reader has gone elsewhere
      to = step > 0 ? 0 : this.cards.links.length - 1;
    }
    const id = this.cards.focus(to);
    clearTimeout(this.following);
    if (this.drawer.open && id) this.following = setTimeout(() => this.open(id, false), held ? HELD : 0);
  }

  nextCard(event) {
    return this.move(1, event.repeat);
  }

  previousCard(event) {
    return this.move(-1, event.repeat);
  }

  rowDown(event) {
    return this.move(this.table ? 1 : this.cards.columns, event.repeat);
  }

  rowUp(event) {
    return this.move(this.table ? -1 : -this.cards.columns, event.repeat);
  }

  openCard() {
    if (this.cards.place < 0) return false;
    return this.open(this.cards.links[this.cards.place].dataset.record, false);
  }

  leave(event) {
    if (event.target.matches?.("input:not([type=checkbox])")) {
      if (this.cards.focus(Math.max(0, this.cards.place)) === undefined) event.target.blur();
      return;
    }
    if (this.record) this.close();
  }

  /** Arrows go through the list, and only there. */
  taken(key, target) {
    if (/^Arrow/.test(key)) return target !== document.body && !this.cards.node.contains(target);
    return super.taken(key, target);
  }
}
