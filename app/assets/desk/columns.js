// One image and what every model says of it: objects in a table, captions in columns, differences to the base.

import { wordDiff } from "./diff.js";
import { button, h, icon, number, sr } from "./dom.js";
import { lookOf, named } from "./series.js";
import { Zoom } from "./zoom.js";

const MARKS = { hallucinated: ["bad", "alert", "not in the image: "], grounded: ["good", "check", "in the image: "] };

/** The record that is shown; `page` has `go(id)` and `copyLink`. */
export class Stage {
  constructor(page) {
    this.zoom = new Zoom();
    this.question = h("h1", { class: "d-grow", dir: "auto" });
    this.where = h("span", { class: "d-num d-muted" });
    this.back = button("Previous record", () => page.go(this.record?.previous), { name: "left", quiet: true, bare: true, title: "Previous record (K)" });
    this.forward = button("Next record", () => page.go(this.record?.next), { name: "right", quiet: true, bare: true, title: "Next record (J)" });
    const link = button("Copy a link to this record", () => page.copyLink(), { name: "link", quiet: true, bare: true, title: "Copy a link (L)" });
    this.objects = h("div", { class: "c-objects", tabindex: "0", role: "region", "aria-label": "Objects" });
    this.columns = h("div", { class: "c-columns", tabindex: "0", role: "region", "aria-label": "Captions" });
    this.node = h(
      "section", { class: "c-card c-stage", "aria-label": "Record" },
      h("header", {}, this.question, this.where, link, this.back, this.forward), h("div", { class: "c-view" }, this.zoom.node, this.objects), this.columns,
    );
  }

  /** Show a record with its picture, of `Pictures` in api.js. */
  paint(record, picture, all, diff) {
    const other = this.record?.prompt_id !== record.prompt_id;
    [this.record, this.all] = [record, all];
    this.question.textContent = record.question;
    this.question.title = record.question;
    this.where.textContent = record.position ? `${number(record.position)} / ${number(record.total)}` : `not among ${number(record.total)}`;
    this.back.disabled = !record.previous;
    this.forward.disabled = !record.next;
    if (other) this.zoom.show(picture, `Image of the question: ${record.question}`);
    this.objects.replaceChildren(this.table(record));
    this.captions(diff);
    if (other) this.columns.scrollTop = this.objects.scrollTop = 0;
  }

  /** Captions in columns, with or without their differences to the reference. */
  captions(diff) {
    const { columns, reference } = this.record;
    const base = textOf(columns.find((column) => column.model === reference));
    this.columns.style.setProperty("--columns", columns.length);
    this.columns.classList.toggle("diff", diff);
    this.columns.replaceChildren(...columns.map((column) => this.column(column, diff && column.model !== reference && base !== null ? base : null)));
  }

  column(column, base) {
    const text = textOf(column);
    const facts = [column.words !== null && `${number(column.words)} ${column.words === 1 ? "word" : "words"} changed`, text !== null && `${number(column.tokens)} tokens`];
    return h(
      "article", { "aria-label": column.model },
      h("header", {}, named(column.model, lookOf(column.model, this.all)), h("span", { class: "d-grow" }), h("span", { class: "d-label d-num" }, facts.filter(Boolean).join(", "))),
      text === null ? h("p", { class: "d-muted" }, "No caption") : text.trim() ? h("p", { class: "c-text", dir: "auto" }, base === null ? column.pieces.map(piece) : changed(column.pieces, base)) : h("p", { class: "d-muted" }, "The model said nothing."),
      h("div", { class: "c-tally" }, tally(column, this.record.reference)),
    );
  }

  /** What is in the image, and what is not, by model; of yes-no questions what was answered. */
  table({ columns }) {
    const scored = columns.filter((column) => column.scored);
    if (!scored.length) return h("p", { class: "d-muted c-none" }, "These captions were not scored: nothing is known of their objects.");
    const there = unique(scored.flatMap((column) => [...column.covered, ...column.missed]));
    const absent = unique(scored.flatMap((column) => column.hallucinated));
    if (scored.some((column) => column.answers.length)) return h("p", { class: "c-none" }, "The right answer is ", h("b", {}, unique(scored.flatMap((column) => column.answers.map((one) => one.label))).join(", ")), ".");
    if (scored.some((column) => column.rating !== null)) return h("p", { class: "d-muted c-none" }, "A judge has rated these answers.");
    if (!there.length && !absent.length) return h("p", { class: "d-muted c-none" }, "No caption names an object that the benchmark knows.");
    const head = (names, look, title) => names.length > 0 && h("th", { class: look, colspan: names.length, scope: "colgroup" }, title);
    const names = (list, look) => list.map((name, at) => h("th", { scope: "col", class: at ? null : look }, h("bdi", {}, name)));
    const row = (column) =>
      h(
        "tr", {}, h("th", { scope: "row" }, named(column.model, lookOf(column.model, this.all))),
        there.map((name, at) => cell(column, column.covered.includes(name), "good", "check", "named", at ? null : "edge")),
        absent.map((name, at) => cell(column, column.hallucinated.includes(name), "bad", "alert", "named, not in the image", at ? null : "edge")),
      );
    return h(
      "table", {},
      h("thead", {}, h("tr", {}, h("td", {}), head(there, "good", "In the image"), head(absent, "bad edge", "Not in the image")), h("tr", {}, h("td", {}), names(there, ""), names(absent, "edge"))),
      h("tbody", {}, columns.map(row)),
    );
  }
}

const unique = (list) => [...new Set(list)];
const textOf = (column) => column?.pieces?.map((one) => one.text).join("") ?? null;

function cell(column, yes, look, sign, word, edge) {
  if (!column.scored) return h("td", { class: edge }, sr("not scored"));
  return h("td", { class: edge }, yes ? h("span", { class: `d-tag ${look}` }, icon(sign, word)) : [h("span", { class: "d-muted", "aria-hidden": "true" }, "·"), sr("not named")]);
}

function piece({ text, mark }) {
  if (!mark) return text;
  const [look, sign, spoken] = MARKS[mark];
  return h("mark", { class: look }, icon(sign, spoken), text);
}

/** Runs of a caption: shared with `base` or not, each cut where marks begin and end. */
function changed(pieces, base) {
  const nodes = [];
  let [at, used] = [0, 0];
  for (const [op, text] of wordDiff(base, textOf({ pieces })).filter(([op]) => op !== "delete")) {
    const parts = [];
    let left = text.length;
    while (left) {
      const here = pieces[at];
      const size = Math.min(left, here.text.length - used);
      // A mark that a change cuts in two keeps one sign, at its beginning.
      const part = here.text.slice(used, used + size);
      parts.push(here.mark && used ? h("mark", { class: MARKS[here.mark][0] }, part) : piece({ text: part, mark: here.mark }));
      left -= size;
      used += size;
      if (used === here.text.length) [at, used] = [at + 1, 0];
    }
    nodes.push(op === "insert" ? h("ins", {}, parts) : h("span", { class: "c-same" }, parts));
  }
  return nodes;
}

function tally(column, reference) {
  if (column.pieces === null) return "";
  const cut = column.cut && h("span", { class: "d-tag warn" }, icon("alert"), "Cut at the limit");
  if (!column.scored) return [h("span", { class: "d-tag" }, "Not scored"), cut];
  if (column.answers.length) return [column.answers.map(answer).filter((one, at, all) => all.findIndex((other) => other.textContent === one.textContent) === at), cut];
  if (column.rating !== null) {
    const less = column.delta && `${Math.abs(column.delta)} ${column.delta < 0 ? "more" : "less"} than ${reference}`;
    return [h("span", { class: "d-tag" }, `Rated ${column.rating}`), less && h("span", { class: `d-tag ${column.delta < 0 ? "good" : "bad"}` }, less), cut, h("p", { class: "c-reason", dir: "auto" }, column.reason)];
  }
  const count = column.hallucinated.length;
  const total = column.covered.length + column.missed.length;
  return [
    h("span", { class: `d-tag ${count ? "bad" : "good"}` }, icon(count ? "alert" : "check"), `${count} hallucinated`),
    h("span", { class: "d-tag good" }, icon("check"), total ? `${column.covered.length} of ${total} in the image named` : "nothing to name"),
    column.delta !== null && h("span", { class: `d-tag ${column.delta < 0 ? "good" : column.delta > 0 ? "bad" : ""}` }, column.delta ? `${Math.abs(column.delta)} ${column.delta < 0 ? "fewer" : "more"} than ${reference}` : `as many as ${reference}`),
    cut,
  ];
}

function answer({ label, predicted }) {
  if (label === predicted) return h("span", { class: "d-tag good" }, icon("check"), `Right: ${label}`);
  return h("span", { class: "d-tag bad" }, icon("alert"), predicted === null ? `Neither yes nor no; right is ${label}` : `Wrong: ${predicted}, right is ${label}`);
}
