// The list of rollouts, as cards with pictures or as a table. One of its links takes the tab key; arrows go on from it.

import { imageOf } from "./api.js";
import { h, icon, number, scoreChip, sr } from "./dom.js";

const STATES = {
  open: ["circle", "To review", ""], draft: ["pen", "In review", ""], accepted: ["ok", "Accepted", "good"],
  flagged: ["flag", "Flagged", "warn"], rejected: ["no", "Rejected", "bad"], disagreed: ["alert", "Disagreed", "warn"],
};
const CHIPS = 10;
/** A picture longer than this times its width, or wider, is shown whole, not filling its place. */
const EXTREME = 3;

/** Where the review of a record stands: a shape and a word. */
export function stateTag(state) {
  const [name, word, look] = STATES[state];
  return h("span", { class: `d-tag ${look}` }, icon(name), word);
}

/** The list; `open(id)` is called for a click, `href(id)` gives the address of a record. */
export class Cards {
  constructor(open, href) {
    this.open = open;
    this.href = href;
    this.node = h("div", { class: "r-list", on: { click: (event) => this.clicked(event), focusin: (event) => this.focused(event) } });
    this.links = [];
  }

  /** Show records from the top. `open` is the id of the one that is open. */
  paint(items, table, open) {
    this.node.replaceChildren(table ? this.table(items) : h("ol", { class: "r-cards", "aria-label": "Rollouts" }, items.map((item) => h("li", {}, this.card(item)))));
    this.node.scrollTop = 0;
    this.links = [...this.node.querySelectorAll("a[data-record]")];
    this.mark(open);
    if (!this.links.some((link) => link.tabIndex === 0)) this.rove(this.links[0]);
  }

  /** Show which record is open; it scrolls into view. */
  mark(id) {
    for (const link of this.links) {
      const here = link.dataset.record === id;
      if (here) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
      link.closest("tr")?.classList.toggle("now", here);
      if (here) {
        this.rove(link);
        link.scrollIntoView({ block: "nearest" });
      }
    }
  }

  /** Position of the link that takes the tab key. */
  get place() {
    return this.links.findIndex((link) => link.tabIndex === 0);
  }

  /** How many records stand side by side. */
  get columns() {
    const tops = this.links.map((link) => link.getBoundingClientRect().top);
    return Math.max(1, tops.filter((top) => top === tops[0]).length);
  }

  focus(position) {
    const link = this.links[position];
    link?.focus();
    return link?.dataset.record;
  }

  rove(link) {
    for (const other of this.links) other.tabIndex = other === link ? 0 : -1;
  }

  focused(event) {
    const link = event.target.closest("a[data-record]");
    if (link) this.rove(link);
  }

  clicked(event) {
    const link = event.target.closest("a[data-record]") ?? event.target.closest("tr")?.querySelector("a[data-record]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || !getSelection().isCollapsed) return;
    event.preventDefault();
    link.focus({ preventScroll: true });
    this.open(link.dataset.record);
  }

  link(item, look, ...content) {
    return h("a", { class: look, href: this.href(item.rollout_id), tabindex: "-1", data: { record: item.rollout_id } }, content);
  }

  card(item) {
    return this.link(
      item, "r-card", h("span", { class: "r-pic" }, picture(item)), text(item, "r-tx"),
      h("span", { class: "r-ft" }, strip(item.scores), h("span", { class: "d-grow" }), stateTag(item.state)),
    );
  }

  table(items) {
    const heads = [["Response", ""], ["Lowest", ""], ["Sent.", "d-num"], ["Tokens", "d-num"], ["Source", ""], ["Review", ""]];
    const row = (item) =>
      h(
        "tr", {}, h("td", {}, h("span", { class: "r-thumb" }, picture(item))),
        h("td", { class: "r-tx" }, this.link(item, "r-row", text(item, ""))),
        h("td", {}, lowest(item.scores)), h("td", { class: "d-num" }, number(item.sentences)),
        h("td", { class: "d-num" }, number(item.tokens)), h("td", { class: "r-source" }, item.source), h("td", {}, stateTag(item.state)),
      );
    return h(
      "table", { class: "r-table", "aria-label": "Rollouts" },
      h("thead", {}, h("tr", {}, h("th", {}, sr("Image")), heads.map(([name, look]) => h("th", { class: look, scope: "col" }, name)))),
      h("tbody", {}, items.map(row)),
    );
  }
}

function text(item, look) {
  const empty = !item.response.trim();
  return h("span", { class: empty ? `${look} d-muted` : look, dir: "auto" }, empty ? "No text" : item.response);
}

function lowest(scores) {
  const given = scores.filter(Boolean);
  return given.length ? scoreChip(Math.min(...given)) : h("span", { class: "d-muted" }, "–");
}

/** The scores of the sentences side by side. */
function strip(scores) {
  if (!scores.length) return h("span", { class: "d-tag" }, "Not revised");
  const chips = scores.slice(0, CHIPS).map((score) => h("span", { class: score ? `s${score}` : "added" }, score ?? "+"));
  const more = scores.length > CHIPS && h("span", { class: "r-more" }, `+${scores.length - CHIPS}`);
  const spoken = scores.map((score) => score ?? "added").join(", ");
  return h("span", {}, sr(`Scores ${spoken}.`), h("span", { class: "r-strip", "aria-hidden": "true" }, chips, more));
}

function picture(item) {
  const image = h("img", {
    src: imageOf(item.prompt_id), alt: "", loading: "lazy", decoding: "async", draggable: "false",
    on: {
      load: () => {
        const shape = image.naturalWidth / image.naturalHeight;
        image.classList.toggle("whole", shape > EXTREME || shape < 1 / EXTREME);
      },
      error: () => image.replaceWith(h("span", { class: "r-none" }, "No image")),
    },
  });
  return image;
}
