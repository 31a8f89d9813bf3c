// The comparing page: captions of several models side by side, or two of them without names. Its address holds its state.

import { Pictures } from "./api.js";
import { Asking } from "./asking.js";
import { resultsCard } from "./ballots.js";
import { Stage } from "./columns.js";
import * as api from "./comparing.js";
import { button, h, icon, number } from "./dom.js";
import { Figures, tradeOff } from "./figures.js";
import { Page, mounted } from "./page.js";
import { PAGE, Ranking } from "./ranking.js";
import { lookOf, named } from "./series.js";
import { Voting } from "./voting.js";

const MOST = 8;
/** Put the page into an element whose `data-workspace` names the workspace. */
export const mount = (element) => mounted(Compare, "compare", element);

class Compare extends Page {
  constructor(element, table) {
    super(element, table);
    this.pictures = new Pictures();
    this.records = new Map();
    this.state = { models: [] };
    this.figures = new Figures();
    this.stage = new Stage(this);
    this.ranking = new Ranking(this);
    this.input = this.ranking.input;
    this.voting = new Voting(this);
    this.asking = new Asking(this);
    this.build();
  }

  build() {
    const mode = (label, blind) => h("button", { type: "button", on: { click: () => this.switchMode(blind) } }, label);
    this.modes = [mode("Read", false), mode("Blind A/B", true)];
    this.models = h("div", { class: "c-models", role: "group", "aria-label": "Models" });
    this.sets = h("select", { class: "d-select", "aria-label": "Set", on: { change: () => this.changeSet(this.sets.value) } });
    this.diff = h("button", { type: "button", class: "d-switch", role: "switch", on: { click: () => this.flipDiff() } }, h("span", {}, "Differences"));
    this.toolbar = h(
      "div", { class: "c-toolbar", role: "group", "aria-label": "Mode, models and set" }, h("div", { class: "d-seg", role: "group", "aria-label": "Mode" }, this.modes), this.models,
      h("span", { class: "d-select-box" }, this.sets, icon("down")), h("span", { class: "d-grow" }), this.diff,
      button("Ask now", () => this.askNow(), { name: "spark", quiet: true, title: "Ask about an image of yours (a)" }),
      button("Keyboard shortcuts", () => this.shortcuts(), { name: "keyboard", quiet: true, bare: true, title: "Keyboard shortcuts (?)" }),
    );
    this.alert = h("p", { class: "c-alert", hidden: true });
    this.plot = h("div", { class: "c-plotbox" });
    this.votes = h("section", { class: "c-card c-results", "aria-label": "Votes" });
    this.side = h("div", { class: "c-aside" }, this.plot, this.votes, this.ranking.node);
    this.reading = h("div", { class: "c-grid2" }, this.stage.node, this.side);
    this.body = h("div", { class: "c-body" }, this.alert, this.figures.node, this.reading, this.voting.node, this.blank);
    this.root = h("div", { class: "d-root c-root" }, this.toolbar, this.body, this.notes.nodes);
  }

  async begin() {
    await this.attempt(async () => {
      this.overview = await api.sets();
      this.state = api.stateOf(location.search, this.overview);
      if (!this.overview.sets.length) return this.empty("No captions yet", `Run  ${this.overview.command}`);
      return this.refresh();
    });
  }

  trouble(trouble) {
    this.empty(trouble.what, trouble.more, "Try again", () => this.again());
  }

  /** Begin anew, without the record that may be what cannot be shown. */
  again() {
    this.state.record = null;
    this.locate();
    return this.begin();
  }

  // -- what is asked for --------------------------------------------------------------------------------------------

  /** Names of the models that have captions of the set. */
  get all() {
    return this.overview.sets.find((one) => one.name === this.state.set)?.models.map((model) => model.name) ?? [];
  }

  /** Everything anew: other models, another set, another mode. What was asked for before is not shown any more. */
  refresh() {
    for (const name of ["figures", "list", "record", "ballot"]) this.newest(name);
    this.records.clear();
    this.voting.leave();
    this.controls();
    if (this.state.blind) return this.voting.show(this.state.record);
    return Promise.all([this.loadFigures(), this.list(0, this.state.record)]);
  }

  controls() {
    const { set, models, blind, diff } = this.state;
    this.locate();
    this.root.classList.toggle("is-blind", blind);
    this.modes.forEach((node, at) => node.setAttribute("aria-pressed", String(Boolean(at) === blind)));
    this.modes[1].disabled = this.all.length < 2;
    this.sets.replaceChildren(...this.overview.sets.map((one) => h("option", { value: one.name }, one.name)));
    this.sets.value = set;
    const held = this.models.contains(document.activeElement) ? document.activeElement.dataset.model : null;
    const shown = blind ? [api.targetOf(models), api.referenceOf(models)] : models;
    this.models.replaceChildren(...this.all.map((name) => {
      const on = shown.includes(name);
      return h("button", { type: "button", class: "d-btn small", "aria-pressed": String(on), data: { model: name }, on: { click: () => this.toggle(name) } }, named(name, lookOf(name, this.all)));
    }));
    if (held) this.models.querySelector(`[data-model="${CSS.escape(held)}"]`)?.focus();
    this.diff.setAttribute("aria-checked", String(diff));
    this.diff.hidden = blind || models.length < 2;
    this.ranking.controls(this.state);
    this.reading.hidden = blind;
    this.votes.hidden = true; // until they are counted
    this.voting.node.hidden = !blind;
    this.blank.hidden = true;
    if (blind) this.figures.node.hidden = this.alert.hidden = true;
  }

  /** Show a model, or no longer; a vote is always on two. */
  toggle(name) {
    const { models, blind } = this.state;
    let chosen = models.includes(name) ? models.filter((other) => other !== name) : this.all.filter((other) => models.includes(other) || other === name);
    if (blind) {
      const pair = [api.referenceOf(models), api.targetOf(models)];
      if (pair.includes(name)) return this.toast("A vote is on two models: choose the other one first.");
      chosen = [pair[0], name];
    }
    if (!chosen.length) return this.toast("At least one model stays.");
    if (chosen.length > MOST) return this.toast(`At most ${MOST} models stand side by side.`);
    if (blind) this.state.record = null;
    this.state.models = chosen;
    return this.refresh();
  }

  changeSet(set) {
    this.state = { ...api.stateOf(`?${new URLSearchParams({ set })}`, this.overview), diff: this.state.diff, sort: this.state.sort };
    return this.refresh();
  }

  switchMode(blind) {
    if (this.state.blind === blind || this.all.length < 2) return undefined;
    if (blind && this.state.models.length < 2) this.state.models = this.all.slice(0, 2);
    Object.assign(this.state, { blind, record: null });
    return this.refresh();
  }

  askNow() {
    return this.attempt(() => this.asking.open(), (trouble) => this.toast(trouble.told, true));
  }

  flipMode() {
    return this.switchMode(!this.state.blind);
  }

  /** Another order, filter or search; the list begins anew. */
  ask(change) {
    Object.assign(this.state, change, { record: null });
    this.records.clear();
    this.ranking.controls(this.state);
    return this.list(0, null);
  }

  address(id = this.state.record) {
    return api.addressOf({ ...this.state, record: id });
  }

  locate() {
    if (this.state.set) super.locate();
  }

  // -- figures ------------------------------------------------------------------------------------------------------

  /** Metrics at once; differences, which take thousands of resamples, when they are there; votes beside them. */
  loadFigures() {
    return this.latest("figures", async (current) => {
      const asked = { ...this.state };
      const { models } = asked;
      const told = (trouble) => current() && this.toast(trouble.what, true);
      const counted = models.length > 1 ? api.results(asked).catch(told) : null;
      const metrics = await api.metrics(asked);
      if (!current()) return;
      this.figures.paint(metrics, models, this.all, null);
      this.plot.replaceChildren(tradeOff(metrics, models, this.all) ?? "");
      const votes = await counted;
      if (!current()) return;
      this.votes.hidden = !votes;
      if (votes) this.votes.replaceChildren(h("div", { class: "c-head" }, h("h2", { class: "d-grow" }, "Blind A/B"), button("Vote", () => this.switchMode(true), { small: true })), ...resultsCard(votes, this.all));
      const differences = await api.differences(asked).catch(told);
      if (differences && current()) this.figures.paint(metrics, models, this.all, differences);
    });
  }

  // -- list and record ----------------------------------------------------------------------------------------------

  /** Fetch the page of the list that begins at `offset`, and open a record: `open`, or the first; none if one was opened meanwhile. */
  list(offset, open) {
    const still = this.newest("record");
    return this.latest("list", async (current) => {
      const found = await api.find(this.state, offset, PAGE);
      if (!current()) return undefined;
      this.found = found;
      this.ranking.paint(found, this.state.set, open ?? this.state.record);
      this.warn(found);
      this.entitle(`Compare, ${this.state.set}`);
      this.blank.hidden = true;
      if (!still()) return undefined;
      this.stage.node.hidden = !found.items.length && !open;
      const id = open ?? found.items[0]?.prompt_id;
      if (id) return this.go(id);
      this.state.record = null;
      this.locate();
      return this.say("No record matches.");
    });
  }

  /** What is missing, and what to run for it. */
  warn({ unscored, command }) {
    const stale = this.overview.sets.find((one) => one.name === this.state.set).models.filter((model) => model.stale && this.state.models.includes(model.name));
    const lines = [
      unscored.length && ["Not scored: ", unscored.join(", "), ". Run ", h("code", {}, command), " "],
      stale.length && ["The recipe or an adapter has changed since these captions were made: ", stale.map((model) => model.name).join(", "), ". "],
      this.overview.command && this.all.length < 2 && ["Only one model has captions here. Run ", h("code", {}, this.overview.command)],
    ].filter(Boolean);
    this.alert.replaceChildren(...lines.flat(2));
    this.alert.hidden = !lines.length;
  }

  turn(step) {
    return this.list(Math.max(0, this.found.offset + step * PAGE), null);
  }

  /** Open a record; the list turns to its page. */
  async go(id) {
    if (!id) return;
    this.state.record = id;
    this.locate();
    this.ranking.mark(id);
    await this.latest("record", async (current) => {
      const record = await this.record(id);
      if (!current()) return;
      this.stage.paint(record, this.pictures.get(record.image), this.all, this.state.diff);
      this.stage.node.hidden = false;
      this.say(record.position ? `Record ${number(record.position)} of ${number(record.total)}` : "This record does not match.");
      this.prefetch(record);
      if (record.position && !this.ranking.names.includes(id)) await this.page(Math.floor((record.position - 1) / PAGE) * PAGE);
    });
  }

  page(offset) {
    return this.latest("list", async (current) => {
      const found = await api.find(this.state, offset, PAGE);
      if (!current()) return;
      this.found = found;
      this.ranking.paint(found, this.state.set, this.state.record);
    });
  }

  /** A record, as it was fetched ahead or now. */
  record(id) {
    const kept = this.records.get(id) ?? api.record(this.state, id);
    this.records.delete(id);
    return kept;
  }

  prefetch({ next }) {
    if (!next || this.records.has(next)) return;
    const coming = api.record(this.state, next);
    this.records.set(next, coming);
    coming.then((record) => this.pictures.get(record.image)).catch(() => this.records.delete(next));
  }

  // -- keys ---------------------------------------------------------------------------------------------------------

  nextCard() {
    return this.state.blind ? this.voting.step("next") : this.go(this.beside(1));
  }

  previousCard() {
    return this.state.blind ? this.voting.step("previous") : this.go(this.beside(-1));
  }

  /** The record before or after the one that was asked for last, also while that is still on its way. */
  beside(step) {
    const { names } = this.ranking;
    const at = names.indexOf(this.state.record);
    const near = at < 0 ? undefined : names[at + step];
    return near ?? (this.stage.record?.prompt_id === this.state.record ? this.stage.record[step > 0 ? "next" : "previous"] : null);
  }

  search() {
    return this.state.blind ? false : super.search();
  }

  flipDiff() {
    if (this.state.blind || !this.stage.record) return;
    this.state.diff = !this.state.diff;
    this.diff.setAttribute("aria-checked", String(this.state.diff));
    this.locate();
    this.stage.captions(this.state.diff);
  }

  get zoom() {
    return (this.state.blind ? this.voting.booth : this.stage).zoom;
  }

  /** Voting has keys of its own, which act while it is on the page. */
  does(action, event) {
    if (this[action]) return super.does(action, event);
    return this.state.blind && this.voting[action](event);
  }

  empty(...said) {
    for (const node of [this.reading, this.voting.node, this.figures.node, this.alert]) node.hidden = true;
    super.empty(...said);
  }
}
