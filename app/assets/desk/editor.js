// The open sentence: its text with the live differences, score, error type, objects and reason.

import { wordDiff } from "./diff.js";
import { button, fit, h, icon, marked, objectPair, scoreChip } from "./dom.js";
import { modelText, problem, splitObject } from "./sentences.js";

/** Share of a sentence that must have stayed for its changed words to be taken as replacements. */
const SHARED = 0.6;

/** The parts of a row that is being edited. Typing changes only what shows the difference, never the text box. */
export function editor(desk, guide, sentence, number) {
  const old = h("p", { class: "d-t old", dir: "auto" });
  const now = h("p", { class: "d-t new d-preview", dir: "auto" });
  const tools = h("div", { class: "d-tools" });
  const box = h("textarea", {
    class: "d-box",
    rows: "1",
    dir: "auto",
    spellcheck: "true",
    maxlength: "20000",
    "aria-label": `Text of sentence ${number}`,
    value: sentence.revised.trim(),
    placeholder: sentence.kind === "added" ? "Write the sentence that is missing" : "Empty: the sentence is deleted",
    data: { field: "text" },
    on: { input: () => desk.typed(sentence, box.value), keydown: (event) => enter(event, () => desk.leave()) },
  });
  const live = () => {
    const diff = wordDiff(modelText(sentence), box.value.trim());
    old.replaceChildren(...(sentence.kind === "added" ? [addedTag()] : marked(diff, "old")));
    now.replaceChildren(...marked(diff, "new"));
    now.classList.toggle("plain", sentence.kind === "kept");
    now.hidden = sentence.kind === "added";
  };
  const judge = () => {
    const name = tools.contains(document.activeElement) && document.activeElement.getAttribute("aria-label");
    tools.replaceChildren(...judgement(desk, guide, sentence).filter(Boolean));
    if (name) tools.querySelector(`[aria-label="${CSS.escape(name)}"]`)?.focus();
  };
  desk.refreshEditor = (typed) => {
    if (!typed && box.value.trim() !== sentence.revised.trim()) box.value = sentence.revised.trim();
    const chip = box.closest(".d-row")?.querySelector(".d-chip");
    chip?.replaceChildren(scoreChip(sentence.score, sentence.kind));
    live();
    owner.replaceChildren(...whose(desk, sentence));
    if (!typed || tools.dataset.kind !== sentence.kind) judge();
    tools.dataset.kind = sentence.kind;
    fit(box);
  };
  const owner = h("span", { class: "d-tag" }, whose(desk, sentence));
  live();
  judge();
  tools.dataset.kind = sentence.kind;
  return [old, h("div", {}, box, now), tools, ending(desk, sentence, owner)];
}

const addedTag = () => h("span", { class: "d-tag good" }, icon("plus"), "Added");

/** Enter leaves the box; with shift it makes a line. */
function enter(event, leave) {
  if (event.key !== "Enter" || event.shiftKey || event.ctrlKey || event.metaKey || event.isComposing) return;
  event.preventDefault();
  leave();
}

function judgement(desk, guide, sentence) {
  if (sentence.kind === "added") return [reason(desk, sentence)];
  const kept = sentence.kind === "kept";
  return [
    group("Score", [1, 2, 3, 4].map((score) =>
      h(
        "button",
        {
          type: "button",
          class: `d-score s${score}`,
          "aria-pressed": String(sentence.score === score),
          "aria-label": `Score ${score}: ${guide.scores.find((known) => known.score === score).name}`,
          title: guide.scores.find((known) => known.score === score).name,
          on: { click: () => desk.score(score, sentence) },
        },
        String(score),
      ),
    )),
    !kept && group("Error", h("span", { class: "d-seg" }, guide.errors.map(({ value, name, long }) =>
      h(
        "button",
        { type: "button", "aria-pressed": String(sentence.error_type === value), title: `${long} (T)`, on: { click: () => desk.setError(sentence, value) } },
        name,
      ),
    ))),
    !kept && group("Objects", [sentence.objects.map((object, at) => chip(desk, sentence, object, at)), objectForm(desk, sentence)]),
    problem(sentence) && h("p", { class: "d-warning" }, icon("alert"), problem(sentence)),
    !kept && reason(desk, sentence),
  ];
}

function group(label, ...children) {
  return h("div", { class: "d-group", role: "group", "aria-label": label }, h("span", { class: "d-label", "aria-hidden": "true" }, label), children);
}

function chip(desk, sentence, object, at) {
  const [wrong, right] = splitObject(object);
  const change = (put) => {
    const [form] = document.querySelectorAll(".d-object");
    desk.setObjects(sentence, sentence.objects.filter((_, other) => other !== at));
    if (put) fillObject(wrong, right);
    else form?.querySelector("input")?.focus();
  };
  const name = `${wrong} becomes ${right || "nothing"}`;
  return h(
    "span",
    { class: "d-object-chip" },
    h("button", { type: "button", class: "d-pair", "aria-label": `Change: ${name}`, title: "Change", on: { click: () => change(true) } }, objectPair(object)),
    h("button", { type: "button", class: "d-x", "aria-label": `Remove: ${name}`, on: { click: () => change(false) } }, icon("x")),
  );
}

function fillObject(wrong, right) {
  const [first, second] = document.querySelectorAll(".d-object input");
  [first.value, second.value] = [wrong, right];
  first.focus();
  first.select();
}

/** Two fields "wrong -> right"; offered is the first replacement in the text that is not yet listed. */
function objectForm(desk, sentence) {
  const field = (label, which) => h("input", { class: "d-small", size: "8", maxlength: "240", "aria-label": label, placeholder: which, autocomplete: "off", data: { field: `object-${which}` } });
  const [wrong, right] = [field("Object in error: wrong", "wrong"), field("Object in error: right", "right")];
  const add = () => {
    const from = wrong.value.replace("->", " ").trim();
    if (!from) return wrong.focus();
    desk.setObjects(sentence, [...sentence.objects, `${from} -> ${right.value.replace("->", " ").trim() || "nothing"}`]);
    return document.querySelector(".d-object input")?.focus();
  };
  wrong.addEventListener("focus", () => {
    if (wrong.value || right.value) return;
    [wrong.value, right.value] = offered(sentence);
    wrong.select();
  });
  for (const input of [wrong, right]) input.addEventListener("keydown", (event) => enter(event, add));
  return h("span", { class: "d-object" }, wrong, icon("arrow", "becomes"), right, button("Add the object", add, { name: "plus", small: true, quiet: true, bare: true, title: "Add (Enter)" }));
}

/** The first words that were replaced and are not listed yet, as [wrong, right]. */
function offered(sentence) {
  const diff = wordDiff(modelText(sentence), sentence.revised.trim());
  const listed = new Set(sentence.objects.map((object) => splitObject(object)[0]));
  const kept = diff.filter(([op]) => op === "equal").reduce((sum, [, text]) => sum + text.length, 0);
  if (kept < modelText(sentence).length * SHARED) return ["", ""]; // written anew: no word stands for another
  const short = (text) => text.trim().split(/\s+/).length <= 3;
  const bare = (text) => text.trim().replace(/^(an?|the|one)\s+/i, "");
  for (const [at, [op, text]] of diff.entries()) {
    if (op !== "delete" || !/[\p{L}\p{N}]/u.test(text) || !short(text) || listed.has(bare(text))) continue;
    const [next, other] = diff[at + 1] ?? [];
    return [bare(text), next === "insert" && short(other) ? bare(other) : ""];
  }
  return ["", ""];
}

function reason(desk, sentence) {
  const input = h("input", {
    class: "d-small d-why",
    "aria-label": "Reason",
    placeholder: "One line: what is wrong",
    maxlength: "4000",
    value: sentence.reason,
    autocomplete: "off",
    dir: "auto",
    data: { field: "reason" },
    on: { input: () => desk.setReason(sentence, input.value), keydown: (event) => enter(event, () => desk.leave()) },
  });
  return h("label", { class: "d-group d-grow" }, h("span", { class: "d-label" }, "Reason"), input);
}

function whose(desk, sentence) {
  const origin = desk.origin(sentence);
  return [icon(origin.icon), origin.name];
}

function ending(desk, sentence, owner) {
  const looks = { small: true, quiet: true };
  const can = sentence.kind !== "added";
  return h(
    "div",
    { class: "d-tools last" },
    button("Done", () => desk.leave(), { small: true, keys: "Esc" }),
    can && button("Model's text", () => desk.restoreOriginal(sentence), { name: "undo", ...looks }),
    can && desk.expertVersion(sentence) && button("Expert's text", () => desk.restoreExpert(sentence), { name: "spark", ...looks }),
    button(sentence.kind === "added" ? "Remove" : "Delete", () => desk.deleteSentence(sentence), { name: "trash", ...looks }),
    h("span", { class: "d-grow" }),
    owner,
  );
}
