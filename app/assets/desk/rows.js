// The sentences in rows: the model's text, the current text, and what is said about the difference.

import { wordDiff } from "./diff.js";
import { button, fit, h, icon, marked, objectPair, scoreChip, sr } from "./dom.js";
import { editor } from "./editor.js";
import { hidden, modelText, problem } from "./sentences.js";

const KINDS = { kept: "unchanged", edited: "edited", deleted: "deleted", added: "added" };

/**
 * The column of sentences. `desk` handles what the reviewer does; `origin(sentence)` tells whose version it is,
 * as {icon, name}.
 */
export class Rows {
  constructor(desk, guide) {
    this.desk = desk;
    this.guide = guide;
    this.list = h("ol", { class: "d-list" });
    this.count = h("span", { class: "d-count" });
    this.standing = h("span", { class: "d-standing", dir: "auto" });
    const current = h("div", { class: "d-current" }, h("h2", {}, "Current"), this.standing);
    this.head = h("div", { class: "d-cols" }, h("span"), h("span"), h("h2", {}, "Model"), current, this.count);
    this.scroll = h(
      "div",
      { class: "d-sents", tabindex: "-1" },
      this.head,
      this.list,
      h(
        "button",
        { type: "button", class: "d-add", on: { click: () => desk.addSentence() } },
        icon("plus"), "Add a sentence", h("kbd", { class: "d-kbd" }, "N"),
      ),
    );
    this.node = h("section", { class: "d-desk", "aria-label": "Sentences" }, this.scroll);
    this.byKey = new Map();
  }

  /** Draw all rows of a record, from the top. */
  paint(sentences) {
    this.byKey.clear();
    this.list.replaceChildren(...sentences.map((sentence, position) => this.item(sentence, position)));
    this.scroll.scrollTop = 0;
    this.tally(sentences);
  }

  /** Draw the rows again where they are, for instance after one was added. */
  repaint(sentences) {
    const top = this.scroll.scrollTop;
    this.paint(sentences);
    this.scroll.scrollTop = top;
  }

  /** Draw one row again. */
  update(sentence) {
    const position = this.desk.sentences.indexOf(sentence);
    const old = this.byKey.get(sentence.key);
    if (position < 0 || !old) return;
    const held = old.contains(document.activeElement);
    old.replaceWith(this.item(sentence, position));
    if (held) this.focus(sentence);
    this.tally(this.desk.sentences);
  }

  /** Show whether a row is the current one. */
  mark(sentence) {
    const item = this.byKey.get(sentence.key);
    if (!item) return;
    const now = this.desk.current === sentence;
    item.classList.toggle("now", now);
    item.firstChild.tabIndex = now ? 0 : -1;
    if (now) item.setAttribute("aria-current", "true");
    else item.removeAttribute("aria-current");
  }

  /** What was decided about the record so far, in the head of the column. */
  state(text) {
    this.standing.textContent = text;
    this.standing.title = text;
  }

  tally(sentences) {
    const done = sentences.filter((sentence) => sentence.checked).length;
    this.count.replaceChildren(sr("accepted "), `${done}/${sentences.length}`);
  }

  row(sentence) {
    return this.byKey.get(sentence.key)?.firstChild;
  }

  /** Put the focus on a row; it scrolls to the middle only if it is not wholly in view. */
  focus(sentence) {
    const row = this.row(sentence);
    row?.focus({ preventScroll: true });
    this.reveal(sentence);
  }

  reveal(sentence) {
    const item = this.byKey.get(sentence.key);
    if (!item) return;
    const [frame, own] = [this.scroll.getBoundingClientRect(), item.getBoundingClientRect()];
    const top = frame.top + this.head.offsetHeight;
    if (own.top >= top && own.bottom <= frame.bottom) return;
    this.scroll.scrollTop += own.top - top - Math.max(0, (frame.bottom - top - own.height) / 2);
  }

  item(sentence, position) {
    const { desk } = this;
    const now = desk.current === sentence;
    const editing = now && desk.editing;
    const classes = ["d-sent", sentence.kind, now && "now", editing && "editing", problem(sentence) && "wrong"];
    const row = h(
      "div",
      {
        class: "d-row",
        role: "group",
        tabindex: now ? "0" : "-1",
        "aria-label": this.spoken(sentence, position),
        on: {
          mousedown: (event) => this.pressed(event, sentence),
          keydown: (event) => {
            if (event.target !== row || event.key !== "Enter" || event.ctrlKey || event.metaKey) return;
            event.preventDefault();
            desk.edit(sentence);
          },
          focus: () => desk.select(sentence),
        },
      },
      h("span", { class: "d-n", "aria-hidden": "true" }, position + 1),
      h("span", { class: "d-chip" }, scoreChip(sentence.score, sentence.kind)),
      editing ? editor(desk, this.guide, sentence, position + 1) : this.resting(sentence, position + 1),
      this.tick(sentence, position + 1),
    );
    const item = h("li", { class: classes.filter(Boolean).join(" "), "aria-current": now ? "true" : null }, row);
    this.byKey.set(sentence.key, item);
    if (editing) requestAnimationFrame(() => item.querySelectorAll("textarea").forEach(fit));
    return item;
  }

  spoken(sentence, position) {
    const score = sentence.score ? `, score ${sentence.score}` : "";
    const state = sentence.checked ? ", accepted" : "";
    return `Sentence ${position + 1} of ${this.desk.sentences.length}${score}, ${KINDS[sentence.kind]}${state}`;
  }

  /** A click makes a row current, a second one opens its text; a selection of text is left alone. */
  pressed(event, sentence) {
    if (event.button || event.target.closest("button, textarea, input")) return;
    const again = this.desk.current === sentence && !this.desk.editing && event.target.closest(".d-t");
    const done = () => {
      if (!getSelection().isCollapsed || !this.desk.sentences.includes(sentence)) return;
      if (again) this.desk.edit(sentence);
      else this.desk.go(sentence);
    };
    addEventListener("mouseup", done, { once: true });
  }

  resting(sentence, number) {
    const quick = h("span", { class: "d-quick" }, this.quick(sentence, number));
    if (sentence.kind === "kept")
      return [
        h(
          "div",
          { class: "d-wide" },
          h("p", { class: "d-t", dir: "auto" }, modelText(sentence)),
          this.unseen(sentence),
          h("span", { class: "d-slot" }, h("span", { class: "d-tag" }, "Unchanged"), quick),
        ),
        problem(sentence) && this.warning(sentence),
      ];
    const diff = wordDiff(modelText(sentence), sentence.revised.trim());
    const gone = h("span", { class: "d-tag bad" }, icon("trash"), "Deleted");
    const fresh = h("span", { class: "d-tag good" }, icon("plus"), "Added");
    const empty = h("span", { class: "d-muted" }, "No text yet");
    return [
      h("p", { class: "d-t old", dir: "auto" }, sentence.kind === "added" ? fresh : marked(diff, "old")),
      h(
        "p",
        { class: "d-t new", dir: "auto" },
        sentence.kind === "deleted" ? gone : sentence.revised.trim() ? marked(diff, "new") : empty,
      ),
      h("div", { class: "d-meta" }, this.facts(sentence), quick),
    ];
  }

  facts(sentence) {
    const origin = this.desk.origin(sentence);
    const error = this.guide.errors.find((known) => known.value === sentence.error_type);
    return [
      h("span", { class: "d-tag" }, icon(origin.icon), origin.name),
      error && sentence.kind !== "added" && h("span", { class: "d-tag", title: error.long }, `${error.name} error`),
      sentence.objects.map((object) => h("span", { class: "d-pair" }, objectPair(object))),
      this.unseen(sentence),
      sentence.reason && h("span", { class: "d-reason", dir: "auto" }, sentence.reason),
    ];
  }

  /** A mark on text that holds more than can be seen. */
  unseen(sentence) {
    const found = hidden(sentence.original + sentence.revised);
    return found.length > 0 && h("span", { class: "d-tag warn" }, icon("alert"), `Hidden characters ${found.join(", ")}`);
  }

  warning(sentence) {
    return h("p", { class: "d-warning" }, icon("alert"), problem(sentence));
  }

  quick(sentence, number) {
    const { desk } = this;
    const looks = { small: true, quiet: true, bare: true };
    const back = sentence.kind === "edited" || sentence.kind === "deleted";
    return [
      button(`Edit sentence ${number}`, () => desk.edit(sentence), { name: "pen", title: "Edit (E)", ...looks }),
      back && button(`Restore sentence ${number}`, () => desk.restoreOriginal(sentence), { name: "undo", title: "Restore the model's text (R)", ...looks }),
      sentence.kind !== "deleted" &&
        button(`Delete sentence ${number}`, () => desk.deleteSentence(sentence), { name: "trash", title: "Delete (D)", ...looks }),
    ];
  }

  tick(sentence, number) {
    return h(
      "button",
      {
        type: "button",
        class: "d-tick",
        "aria-pressed": String(sentence.checked),
        "aria-label": `Accept sentence ${number}`,
        title: "Accept (A)",
        on: { click: () => this.desk.acceptSentence(sentence) },
      },
      icon(sentence.checked ? "ok" : "circle"),
    );
  }
}
