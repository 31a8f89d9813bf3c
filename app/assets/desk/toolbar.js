// Which records come up: queue, filters as chips, search. All of it lives in the page's address.

import { find } from "./api.js";
import { button, h, icon, number, sr } from "./dom.js";
import { GROUPS, NAMES, SORT, wordFor } from "./filters.js";
import { Panel } from "./overlay.js";

const QUEUES = [
  ["My queue", { sort: "queue" }],
  ["Lowest scores first", { sort: "lowest_score" }],
  ["Longest first", { sort: "longest" }],
  ["Newest decisions", { sort: "newest" }],
  ["As sampled", { sort: "sampled" }],
  ["Flagged", { sort: "sampled", state: "flagged" }],
  ["Reviewers disagree", { sort: "sampled", state: "disagreed" }],
  ["Rejected", { sort: "sampled", state: "rejected" }],
  ["Accepted", { sort: "sampled", state: "accepted" }],
];
/** The bar above the desk. */
export class Toolbar {
  constructor(desk) {
    this.desk = desk;
    this.queue = h("select", { class: "d-select", "aria-label": "Queue", on: { change: () => this.chosen() } }, [...QUEUES, ["Own filters", {}]].map(([name], at) => h("option", { value: at }, name)));
    this.queue.lastChild.hidden = true;
    this.chips = h("span", { class: "d-chips" });
    this.filter = button("Filter", () => this.open(), { name: "filter", quiet: true, fold: true, "aria-haspopup": "dialog", "aria-expanded": "false", title: "Filters (;)" });
    this.input = h("input", { type: "search", placeholder: "Search text", autocomplete: "off", spellcheck: "false" });
    const form = h(
      "form",
      { class: "d-search", role: "search", on: { submit: (event) => this.searched(event) } },
      h("label", {}, icon("search"), sr("Search text"), this.input, h("kbd", { class: "d-kbd", "aria-hidden": "true" }, "/")),
    );
    this.input.addEventListener("search", () => !this.input.value && desk.filters.has("text") && this.searched());
    const fold = { quiet: true, fold: true };
    this.node = h(
      "div",
      { class: "d-toolbar", role: "group", "aria-label": "Queue and tools" },
      h("span", { class: "d-select-box" }, this.queue, icon("down")),
      h("span", { class: "d-sep" }),
      this.chips,
      this.filter,
      h("span", { class: "d-grow" }),
      form,
      button("History", () => desk.history(), { name: "history", title: "History (H)", ...fold }),
      button("Guidelines", () => desk.guidelines(), { name: "book", title: "Guidelines (G)", ...fold }),
      button("Copy a link to this record", () => desk.copyLink(), { name: "link", title: "Copy a link (L)", quiet: true, bare: true }),
      h("button", { type: "button", class: "d-btn quiet", "aria-label": "Keyboard shortcuts", "aria-haspopup": "dialog", on: { click: () => desk.shortcuts() } }, icon("keyboard"), h("kbd", { class: "d-kbd", "aria-hidden": "true" }, "?")),
    );
  }

  /** Show the filters in force. */
  paint(filters) {
    const asText = (pairs) => JSON.stringify([...new URLSearchParams(pairs)].sort());
    const at = QUEUES.findIndex(([, params]) => asText(params) === asText(filters));
    const bySort = QUEUES.findIndex(([, params]) => !params.state && params.sort === filters.get(SORT));
    this.queue.value = String(at >= 0 ? at : bySort >= 0 ? bySort : QUEUES.length);
    this.preset = at >= 0 ? QUEUES[at][1] : {};
    this.input.value = filters.get("text") ?? "";
    const shown = [...new Set(filters.keys())].filter((name) => NAMES[name] && name !== "text" && !(name in this.preset));
    this.chips.replaceChildren(...shown.map((name) => this.chip(name, filters.getAll(name))));
  }

  chip(name, values) {
    const tokens = name.endsWith("_tokens") ? " tokens" : "";
    const text = `${NAMES[name]}${tokens ? "" : ":"} ${values.map((value) => wordFor(name, value)).join(", ")}${tokens}`;
    return h("button", { type: "button", class: "d-filter", "aria-label": `Filter: ${text}. Remove`, on: { click: () => this.without(name) } }, h("span", {}, text), icon("x"));
  }

  chosen() {
    this.queue.blur(); // the record that comes takes the focus
    const kept = [...this.desk.filters].filter(([name]) => name !== SORT && !(name in this.preset) && !(name in QUEUES[this.queue.value][1]));
    this.desk.refilter(new URLSearchParams([...kept, ...Object.entries(QUEUES[this.queue.value][1])]));
  }

  without(name) {
    const filters = new URLSearchParams(this.desk.filters);
    filters.delete(name);
    this.desk.refilter(filters);
  }

  searched(event) {
    event?.preventDefault();
    this.input.blur(); // the record that comes takes the focus
    const filters = new URLSearchParams(this.desk.filters);
    filters.delete("text");
    if (this.input.value.trim()) filters.set("text", this.input.value.trim());
    this.desk.refilter(filters);
  }

  /** The panel of filters, with how many records each would leave. */
  async open() {
    if (Panel.open?.anchor === this.filter) return Panel.open.close();
    const stays = this.desk.stays("filters");
    const found = await this.desk.attempt(() => find(this.desk.filters));
    if (!found || !stays()) return undefined;
    const chosen = new URLSearchParams(this.desk.filters);
    const apply = () => this.desk.refilter(chosen);
    const flip = (name, value, on) => {
      const kept = chosen.getAll(name).filter((other) => other !== value);
      chosen.delete(name);
      for (const other of on ? [...kept, value] : kept) chosen.append(name, other);
    };
    const option = (name, value, count) =>
      h("label", { class: "d-option" }, h("input", { type: "checkbox", checked: chosen.getAll(name).includes(value), on: { change: (event) => flip(name, value, event.target.checked) } }), wordFor(name, value), h("span", { class: "d-count" }, number(count)));
    const groups = GROUPS.filter((name) => Object.keys(found.facets?.[name] ?? {}).length).map((name) =>
      h("fieldset", {}, h("legend", {}, NAMES[name]), Object.entries(found.facets[name]).slice(0, 12).map(([value, count]) => option(name, value, count))),
    );
    const bound = (name, label) => {
      const set = () => (input.value ? chosen.set(name, input.value) : chosen.delete(name));
      const input = h("input", { type: "number", min: "0", class: "d-small", value: chosen.get(name) ?? "", "aria-label": label, placeholder: name === "min_tokens" ? "from" : "to", on: { input: set } });
      return input;
    };
    const length = h("fieldset", {}, h("legend", {}, "Tokens"), h("span", { class: "d-range" }, bound("min_tokens", "At least this many tokens"), "–", bound("max_tokens", "At most this many tokens")));
    const form = h(
      "form",
      { on: { submit: (event) => (event.preventDefault(), panel.close(), apply()) } },
      h("div", { class: "d-groups" }, groups, length),
      h("footer", {}, h("button", { class: "d-btn primary small", type: "submit" }, "Apply"), button("Clear all", () => (panel.close(), this.desk.refilter(new URLSearchParams({ sort: chosen.get(SORT) }))), { small: true, quiet: true })),
    );
    const panel = new Panel(this.node, this.filter, "Filters", form);
    return panel;
  }
}
