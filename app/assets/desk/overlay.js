// What lies above the desk: shortcuts, guidelines, history, and small panels beside a button.

import { wordDiff } from "./diff.js";
import { button, h, icon, kbd, marked, scoreChip, when } from "./dom.js";
import { caps } from "./keys.js";

const STATUS = { done: "Accepted", rejected: "Rejected", flagged: "Flagged", failed: "Failed" };

/** The element of a modal dialog; `on` holds its listeners. */
export function modal(title, look, on, ...content) {
  // The browser takes the focus out of a closed dialog only when it paints again: a key pressed before that would still write in a box of it.
  const cancel = (event) => event.target === node && document.activeElement.blur();
  const node = h("dialog", { class: `d-dialog ${look}`, "aria-label": title, on: { cancel, ...on } }, ...content);
  return node;
}

/** A modal dialog with a title; it closes with Esc, its button, or a click beside it. */
export function dialog(root, title, look, ...content) {
  const node = modal(
    title,
    look,
    { close: () => node.remove(), mousedown: (event) => event.target === node && node.close() },
    h("header", {}, h("h2", {}, title), h("span", { class: "d-grow" }), button("Close", () => node.close(), { name: "x", quiet: true, bare: true })),
    ...content,
  );
  root.append(node);
  node.showModal();
  return node;
}

/** Close whatever dialog is open; true if one was of this look. */
export function closeDialog(root, look) {
  const open = root.querySelector("dialog[open]");
  const own = open?.classList.contains(look);
  open?.close();
  return Boolean(own);
}

/** The table of keys, with the switch for those of a single character; `hint` stands below it. */
export function shortcuts(root, keys, ...hint) {
  if (closeDialog(root, "d-keys")) return;
  const typing = keys.table.filter((entry) => entry.typing).flatMap((entry) => [" ", caps(entry.keys[0]).map(kbd)]);
  const groups = [...new Set(keys.table.map((entry) => entry.group))];
  const line = ({ label, keys: all, shown: names = all }) => h("div", {}, h("dt", {}, label), h("dd", {}, names.map((name) => h("span", { class: "d-caps" }, caps(name).map(kbd)))));
  const flip = h(
    "button",
    { type: "button", class: "d-switch", role: "switch", "aria-checked": String(keys.single), on: { click: () => {
      keys.single = !keys.single;
      flip.setAttribute("aria-checked", String(keys.single));
    } } },
    "Single-key shortcuts",
  );
  dialog(
    root,
    "Keyboard shortcuts",
    "d-keys",
    h("div", { class: "d-columns" }, groups.map((group) => h("section", {}, h("h3", {}, group), h("dl", {}, keys.table.filter((entry) => entry.group === group).map(line))))),
    h("footer", {}, h("span", {}, "While you type, only these act: ", typing, ". ", hint), h("span", { class: "d-grow" }), flip),
  );
}

/** How to score and decide. */
export function guidelines(root, guide) {
  if (closeDialog(root, "d-guide")) return;
  const terms = (rows) => h("dl", { class: "d-terms" }, rows.map(([name, text]) => [h("dt", {}, name), h("dd", {}, text)]));
  dialog(
    root,
    "Guidelines",
    "d-guide",
    h(
      "div",
      { class: "d-scroll", tabindex: "0", role: "region", "aria-label": "Guidelines" },
      h("ul", {}, guide.rules.map((rule) => h("li", {}, rule))),
      h("h3", {}, "Scores"),
      terms(guide.scores.map(({ score, name, text }) => [h("span", { class: "d-named" }, scoreChip(score), name), text])),
      h("h3", {}, "Error types"),
      terms(guide.errors.map(({ long, text }) => [long, text])),
      h("h3", {}, "Decisions"),
      terms(guide.decisions.map(({ name, text }) => [name, text])),
    ),
  );
}

/** Who did what to the record, newest first; every version can be looked at and restored. */
export function history(root, record, revisions, restore) {
  if (closeDialog(root, "d-history")) return;
  const details = new Map(revisions.map((revision) => [revision.revision_id, revision]));
  const entries = [...record.history].sort((a, b) => Date.parse(b.created_at) - Date.parse(a.created_at));
  const inForce = record.current?.revision_id;
  const entry = (item, position) => {
    const full = details.get(item.revision_id);
    const count = item.parent_revision_id ? item.changed : full?.sentences.filter(({ kind }) => kind !== "kept").length ?? 0;
    const changed = count === 1 ? "1 sentence changed" : `${count} sentences changed`;
    return h(
      "li",
      {},
      h(
        "div",
        { class: "d-entry" },
        icon(item.author_kind === "human" ? "user" : "spark"),
        h("b", { dir: "auto" }, item.author),
        h("time", { datetime: item.created_at, class: "d-muted" }, when(item.created_at)),
        h("span", { class: "d-grow" }),
        item.revision_id === inForce
          ? h("span", { class: "d-tag good" }, icon("ok"), "In force")
          : button("Restore", () => restore(item), { small: true, "aria-label": `Restore the version of ${item.author}, ${when(item.created_at)}` }),
      ),
      h("p", { class: "d-muted" }, `${item.author_kind === "expert" ? "Expert's revision" : STATUS[item.status] ?? item.status}, ${changed}${item.withdrawn ? ", taken back" : ""}`),
      item.note && h("p", { class: "d-note", dir: "auto" }, item.note),
      full && h("details", { open: position === 0 }, h("summary", {}, icon("right"), "Text"), h("p", { class: "d-text", dir: "auto" }, full.sentences.map((sentence) => [differences(sentence), " "]))),
    );
  };
  const list = entries.length ? h("ol", {}, entries.map(entry)) : h("p", { class: "d-empty-line" }, "Nothing has been done to this record yet.");
  dialog(root, "History", "d-history", h("div", { class: "d-scroll", tabindex: "0", role: "region", "aria-label": "Versions" }, list));
}

function differences({ original, revised }) {
  return wordDiff(original.trim(), revised.trim()).map(([op, text]) => (op === "equal" ? text : h(op === "delete" ? "del" : "ins", {}, text)));
}

/** A small panel beside a button. Esc or a click elsewhere closes it and gives the focus back. */
export class Panel {
  constructor(host, anchor, label, ...content) {
    Panel.open?.close(false);
    Panel.open = this;
    [this.host, this.anchor] = [host, anchor];
    this.node = h("div", { class: "d-panel", role: "dialog", "aria-label": label }, ...content);
    this.node.addEventListener("keydown", (event) => this.pressed(event));
    this.outside = (event) => !this.node.contains(event.target) && !anchor.contains(event.target) && this.close(false);
    document.addEventListener("mousedown", this.outside);
    anchor.setAttribute("aria-expanded", "true");
    host.append(this.node);
    const [frame, place] = [host.getBoundingClientRect(), anchor.getBoundingClientRect()];
    this.node.style.left = `${Math.max(8, Math.min(place.left - frame.left, frame.width - this.node.offsetWidth - 8))}px`;
    [...this.node.querySelectorAll("button, input")].find((control) => control.offsetParent)?.focus();
  }

  pressed(event) {
    if (event.key !== "Escape") return;
    event.preventDefault();
    this.close();
  }

  close(focus = true) {
    document.removeEventListener("mousedown", this.outside);
    this.anchor.setAttribute("aria-expanded", "false");
    this.node.remove();
    if (Panel.open === this) Panel.open = null;
    if (focus) this.anchor.focus();
  }
}

/** Someone else's decision that came first: who, when, and both versions of every sentence that differs. */
export function conflict(desk, theirs, pairs) {
  const version = (name, sentence) => {
    if (!sentence) return h("div", {}, h("h3", {}, name), h("p", { class: "d-muted" }, "Not there"));
    const text = sentence.revised.trim()
      ? marked(wordDiff(sentence.original.trim(), sentence.revised.trim()), "new")
      : h("span", { class: "d-tag bad" }, icon("trash"), "Deleted");
    return h("div", {}, h("h3", {}, scoreChip(sentence.score, sentence.kind), name), h("p", { class: "d-text", dir: "auto" }, text));
  };
  const numbers = new Intl.ListFormat("en").format(pairs.map(({ number }) => String(number)));
  const what = pairs.length ? `${pairs.length === 1 ? "Sentence" : "Sentences"} ${numbers} ${pairs.length === 1 ? "differs" : "differ"}.` : "Both versions say the same.";
  const time = when(theirs.created_at);
  return h(
    "section",
    { class: "d-conflict", "aria-label": "Conflict" },
    h(
      "div",
      { class: "d-banner", role: "alert" },
      icon("alert"),
      h("span", { class: "d-grow" }, h("b", { dir: "auto" }, `${theirs.author} decided on this record at ${time}, while you were editing.`), ` Your draft is kept. ${what}`),
      button("Take theirs", () => desk.takeTheirs(), { small: true, title: "⇧ T" }),
      button("Edit mine on top of theirs", () => desk.keepMine(), { small: true, title: "⇧ M" }),
    ),
    h("div", { class: "d-versions" }, pairs.map(({ number, their, mine }) => [version(`Sentence ${number}, theirs`, their), version(`Sentence ${number}, yours`, mine)])),
  );
}
