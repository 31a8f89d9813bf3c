// The filters beside the list of rollouts, each value with the number of records that it would leave.

import { button, h, number, scoreChip, sr } from "./dom.js";
import { GROUPS, NAMES, SORT, countOf, orderOf, wordFor } from "./filters.js";

/** Groups with fewer values than this say nothing. */
const LEAST = { source: 2, model: 2 };
/** Values shown of one group, the most frequent first. */
const MOST = 40;
const TYPING = 300;

/** The rail; `change(filters)` is called with what the reader chose. */
export class Rail {
  constructor(change) {
    this.change = change;
    this.options = new Map();
    this.clear = button("Clear", () => this.change(new URLSearchParams({ sort: this.filters.get(SORT) })), { small: true, quiet: true });
    this.groups = new Map(GROUPS.map((name) => [name, h("fieldset", { hidden: true }, h("legend", {}, NAMES[name]))]));
    this.least = this.bound("min_tokens", "At least this many tokens", "from");
    this.most = this.bound("max_tokens", "At most this many tokens", "to");
    const length = h("fieldset", {}, h("legend", {}, "Length in tokens"), h("span", { class: "d-range" }, this.least, "to", this.most));
    const shown = [...this.groups.entries()].flatMap(([name, group]) => (name === "finish" ? [length, group] : [group]));
    const head = h("header", { class: "r-head" }, h("h2", { class: "d-grow" }, "Filters"), this.clear);
    this.node = h("section", { class: "r-rail", "aria-label": "Filters", tabindex: "-1" }, head, shown);
  }

  /** Show the filters in force and, once they are known, the counts. */
  paint(filters, facets) {
    this.filters = filters;
    const count = countOf(filters);
    this.clear.textContent = count ? `Clear ${count}` : "Clear";
    this.clear.setAttribute("aria-label", count === 1 ? "Clear 1 filter" : `Clear ${count} filters`);
    this.clear.disabled = !count;
    for (const input of [this.least, this.most])
      if (input !== document.activeElement) input.value = filters.get(input.name) ?? "";
    for (const [name, group] of this.groups) this.group(name, group, facets?.[name]);
  }

  group(name, group, counts) {
    const chosen = this.filters.getAll(name);
    if (counts) {
      const values = Object.entries(counts).filter(([value, count]) => name !== "error_type" || value !== "correct" || count);
      const order = orderOf(name);
      if (name in LEAST) values.sort((a, b) => b[1] - a[1]);
      else if (name !== "score") values.sort((a, b) => order.indexOf(a[0]) - order.indexOf(b[0]));
      const shown = values.slice(0, MOST).map(([value]) => value);
      for (const value of new Set([...shown, ...chosen])) this.option(name, group, value).count.textContent = number(counts[value] ?? 0);
      group.hidden = shown.length < (LEAST[name] ?? 1) && !chosen.length;
    }
    for (const option of this.options.values()) if (option.name === name) option.box.checked = chosen.includes(option.value);
  }

  /** The box of a value, made when it is first seen: what has a place keeps it. */
  option(name, group, value) {
    const key = `${name} ${value}`;
    if (!this.options.has(key)) {
      const box = h("input", { type: "checkbox", name, on: { change: () => this.flip(name, value, box.checked) } });
      const count = h("span", { class: "d-count" });
      const text = name === "score" && value < 5 ? scoreChip(Number(value)) : wordFor(name, value);
      group.append(h("label", { class: "d-option" }, box, h("span", {}, text), sr(", "), count));
      this.options.set(key, { name, value, box, count });
    }
    return this.options.get(key);
  }

  flip(name, value, on) {
    const filters = new URLSearchParams(this.filters);
    const kept = filters.getAll(name).filter((other) => other !== value);
    filters.delete(name);
    for (const other of on ? [...kept, value] : kept) filters.append(name, other);
    this.change(filters);
  }

  bound(name, label, placeholder) {
    const set = () => {
      const filters = new URLSearchParams(this.filters);
      const value = input.value.replace(/\D/g, "").slice(0, 7);
      if (value) filters.set(name, value);
      else filters.delete(name);
      if (String(filters) !== String(this.filters)) this.change(filters);
    };
    let timer;
    const later = () => {
      clearTimeout(timer);
      timer = setTimeout(set, TYPING);
    };
    const input = h("input", { class: "d-small", name, inputmode: "numeric", autocomplete: "off", "aria-label": label, placeholder, on: { input: later, change: set } });
    return input;
  }
}
