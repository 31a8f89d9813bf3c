// The list beside the record: which images there are, in which order, and how much each has changed.

import { ONLY, SORTS, imageOf } from "./comparing.js";
import { button, h, icon, number, sr } from "./dom.js";

export const PAGE = 50;
const TYPING = 250;

/** The list; `page` has `ask(change)`, `turn(page)`, `go(id)` and `address(id)`. */
export class Ranking {
  constructor(page) {
    this.page = page;
    const select = (label, table, name) =>
      h("select", { class: "d-select", "aria-label": label, on: { change: (event) => page.ask({ [name]: event.target.value }) } }, Object.entries(table).map(([value, text]) => h("option", { value }, text)));
    this.sort = select("Order", SORTS, "sort");
    this.only = select("Which", ONLY, "only");
    this.input = h("input", { type: "search", placeholder: "Search text", autocomplete: "off", spellcheck: "false", maxlength: "1000", on: { input: () => this.typed(), change: () => this.searched() } });
    const form = h(
      "form", { class: "d-search", role: "search", on: { submit: (event) => (event.preventDefault(), this.searched()) } },
      h("label", {}, icon("search"), sr("Search text"), this.input, h("kbd", { class: "d-kbd", "aria-hidden": "true" }, "/")),
    );
    const box = (node) => h("span", { class: "d-select-box" }, node, icon("down"));
    this.what = h("p", { class: "d-label" });
    this.list = h("ol", { on: { click: (event) => this.clicked(event) } });
    this.body = h("div", { class: "c-scroll", tabindex: "0", role: "region", "aria-label": "Images" }, this.list);
    this.back = button("Previous page", () => page.turn(-1), { name: "left", small: true, quiet: true, bare: true });
    this.forward = button("Next page", () => page.turn(1), { name: "right", small: true, quiet: true, bare: true });
    this.where = h("span", { class: "d-num d-muted" });
    this.node = h(
      "section", { class: "c-card c-ranking", "aria-label": "List" }, h("div", { class: "c-filters" }, box(this.sort), box(this.only), form, this.what), this.body,
      h("nav", { class: "c-pager", "aria-label": "Pages" }, this.back, this.where, this.forward),
    );
  }

  /** Show what is asked for. */
  controls(state) {
    this.sort.value = state.sort;
    this.only.value = state.only;
    if (this.input !== document.activeElement) this.input.value = state.text;
  }

  /** Show what the server found, with the record that is open marked. */
  paint(found, set, open) {
    const { total, all, offset, items, target, reference, counts } = found;
    for (const option of this.only.options) option.textContent = option.value ? `${ONLY[option.value]} (${number(counts[option.value])})` : "All";
    this.what.textContent = reference ? `${number(total)} of ${number(all)}, ${target} against ${reference}` : `${number(total)} of ${number(all)}`;
    const none = h("li", { class: "c-nothing d-muted" }, all ? "No record matches." : "The set is empty.");
    this.list.replaceChildren(...(items.length ? items.map((item) => this.item(item, set)) : [none]));
    this.body.scrollTop = 0;
    this.back.disabled = offset === 0;
    this.forward.disabled = offset + items.length >= total;
    this.where.textContent = total ? `${number(offset + 1)}–${number(offset + items.length)}` : "";
    this.mark(open);
  }

  item(item, set) {
    const picture = h("img", { src: imageOf(set, item.prompt_id), alt: "", loading: "lazy", decoding: "async", draggable: "false", on: { error: () => (picture.style.visibility = "hidden") } });
    return h(
      "li", {},
      h("a", { href: this.page.address(item.prompt_id), data: { record: item.prompt_id } }, picture, h("span", { class: "c-excerpt", dir: "auto" }, item.excerpt.trim() || "No text"), change(item)),
    );
  }

  /** Show which record is open. */
  mark(id) {
    for (const link of this.list.querySelectorAll("a")) {
      if (link.dataset.record === id) {
        link.setAttribute("aria-current", "true");
        this.reveal(link);
      } else link.removeAttribute("aria-current");
    }
  }

  /** Scroll the list, and nothing around it, until a link is in view. */
  reveal(link) {
    const [frame, place] = [this.body.getBoundingClientRect(), link.getBoundingClientRect()];
    this.body.scrollTop += Math.min(0, place.top - frame.top) + Math.max(0, place.bottom - frame.bottom);
  }

  /** Ids of the records on this page of the list. */
  get names() {
    return [...this.list.querySelectorAll("a")].map((link) => link.dataset.record);
  }

  clicked(event) {
    const link = event.target.closest("a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    this.page.go(link.dataset.record);
  }

  typed() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.searched(), TYPING);
  }

  searched() {
    clearTimeout(this.typing);
    const text = this.input.value.trim();
    if (text !== this.page.state.text) this.page.ask({ text });
  }
}

/** How many things more or fewer are wrong; where that is not known, how many words differ. */
function change({ delta, words }) {
  if (delta !== null) {
    const [look, word] = delta < 0 ? ["good", "better"] : delta > 0 ? ["bad", "worse"] : ["d-muted", "alike"];
    const shown = `${delta < 0 ? "−" : delta > 0 ? "+" : ""}${Math.abs(delta)}`;
    return h("span", { class: `c-delta ${look}`, title: word }, shown, sr(` ${word}`));
  }
  return words === null ? "" : h("span", { class: "c-delta d-muted", title: "words changed" }, `${number(words)} w`, sr(" words changed"));
}
