// The list of jobs beside the page of one: filters, search, states, progress.

import { button, h, icon, number, sr } from "./dom.js";
import { STATES, STEPS, shareOf, stateTag, summary } from "./training.js";

const TYPING = 200;
export const PAGE = 100;

/** The list; `page` is asked to `open(id)` a job and to `ask(filters)` for others. */
export class JobList {
  constructor(page) {
    this.page = page;
    this.shown = PAGE;
    this.add = button("New job", () => page.newJob(), { name: "plus", primary: true, title: "New job (n)", hidden: true });
    this.states = this.select("State", "state", "All states", STATES);
    this.steps = this.select("Step", "step", "All steps", STEPS);
    let timer;
    const ask = () => {
      clearTimeout(timer);
      const text = this.input.value.trim().slice(0, 200);
      if (text !== page.state.filters.text) page.ask({ text });
    };
    const typed = () => {
      clearTimeout(timer);
      timer = setTimeout(ask, TYPING);
    };
    this.input = h("input", { type: "search", placeholder: "Search", autocomplete: "off", "aria-label": "Search jobs", on: { input: typed, change: ask } });
    this.items = h("ol", { class: "t-scroll", tabindex: "0", "aria-label": "Jobs, newest first", on: { scroll: () => this.scrolled() } });
    this.none = h("div", { class: "t-none", hidden: true });
    this.count = h("p", { class: "t-count d-num" });
    this.node = h(
      "aside", { class: "t-jobs", "aria-label": "Jobs" },
      h("header", {}, h("div", { class: "t-line" }, h("h1", { class: "d-grow" }, "Jobs"), this.add),
        h("div", { class: "t-line" }, this.states.box, this.steps.box), h("div", { class: "d-search" }, h("label", {}, icon("search"), this.input))),
      this.items, this.none,
    );
    this.rows = new Map();
  }

  select(label, name, all, words) {
    const select = h("select", { class: "d-select", "aria-label": label, on: { change: () => this.page.ask({ [name]: select.value ? [select.value] : [] }) } });
    return { select, name, all, words, box: h("span", { class: "d-select-box d-grow" }, select, icon("down")) };
  }

  get names() {
    return [...this.rows.keys()];
  }

  /** Show what the server found; what is there already changes in place. */
  paint(found, filters, current) {
    this.add.hidden = !found.admin;
    for (const one of [this.states, this.steps]) this.choices(one, found.counts[one.name] ?? {}, filters[one.name]);
    if (this.input !== document.activeElement) this.input.value = filters.text;
    const rows = new Map(found.items.map((job) => [job.job_id, this.row(job, this.rows.get(job.job_id))]));
    const nodes = [...rows.values()].map((row) => row.node);
    const same = nodes.length === this.items.children.length && nodes.every((node, at) => node === this.items.children[at]);
    if (!same) {
      const focused = this.items.contains(document.activeElement) ? document.activeElement : null;
      this.items.replaceChildren(...nodes);
      focused?.focus({ preventScroll: true });
    }
    this.rows = rows;
    this.total = found.total;
    this.mark(current);
    const any = Boolean(filters.state.length || filters.step.length || filters.text);
    this.items.hidden = !found.total;
    this.none.hidden = Boolean(found.total);
    if (!found.total) {
      const text = found.all ? "No job matches. " : "No jobs yet. ";
      this.none.replaceChildren(h("p", { class: "d-muted" }, text), ...(found.all && any ? [button("Clear filters", () => this.page.ask({ state: [], step: [], text: "" }), { small: true })] : []));
    }
    this.count.textContent = found.total === found.all ? `${number(found.all)} ${found.all === 1 ? "job" : "jobs"}` : `${number(found.total)} of ${number(found.all)} jobs`;
  }

  choices({ select, all, words }, counts, chosen) {
    const options = [["", all], ...Object.entries(words).filter(([value]) => counts[value] || chosen.includes(value)).map(([value, word]) => [value, `${word} (${counts[value] ?? 0})`])];
    const key = JSON.stringify(options);
    if (select.dataset.key !== key) {
      select.replaceChildren(...options.map(([value, text]) => h("option", { value }, text)));
      select.dataset.key = key;
    }
    select.value = chosen[0] ?? "";
  }

  /** A line of the list, made anew only if something in it has changed. */
  row(job, known) {
    const share = job.state === "running" ? shareOf(job.progress) : null;
    const text = summary(job);
    const key = JSON.stringify([job.title, job.state, text, share]);
    if (known?.key === key) return known;
    const node = known?.node ?? h("li", {}, h("a", { data: { job: job.job_id }, on: { click: (event) => this.clicked(event, job.job_id) } }));
    node.firstChild.replaceChildren(
      stateTag(job.state, true), h("span", { class: "t-name", dir: "auto", title: job.title }, job.title), h("span", { class: `t-state ${job.state}` }, sr(", "), STATES[job.state] ?? job.state),
      h("span", { class: job.unreachable ? "t-sub warn" : "t-sub", title: text }, sr(", "), text), share == null ? "" : h("span", { class: "d-bar" }, h("i", { style: `width:${100 * share}%` })),
    );
    return { key, node };
  }

  clicked(event, id) {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    this.page.open(id);
  }

  mark(id) {
    for (const [name, { node }] of this.rows) {
      node.firstChild.setAttribute("href", this.page.address(name));
      if (name === id) node.firstChild.setAttribute("aria-current", "true");
      else node.firstChild.removeAttribute("aria-current");
    }
  }

  /** Bring a job's line into view. */
  reveal(id) {
    this.rows.get(id)?.node.scrollIntoView({ block: "nearest" });
  }

  scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = this.items;
    if (this.shown >= this.total || scrollTop + clientHeight < scrollHeight - 200) return;
    this.shown = Math.min(this.shown + PAGE, 2000);
    this.page.refreshList();
  }
}
