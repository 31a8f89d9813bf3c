// Questions asked now: an image of one's own, a question, and what each model says to it.

import { Trouble, call } from "./api.js";
import { button, h, icon, sr } from "./dom.js";
import { closeDialog, dialog } from "./overlay.js";
import { lookOf, named } from "./series.js";

const BASE = "/api/asking";
const LOOK = "c-asking";
const POLL = 500;
const LARGEST = 20_000_000;
const USUAL = "Describe this image in detail.";

/** The dialog. What was asked last stays while the page does. */
export class Asking {
  constructor(page) {
    this.page = page;
    this.file = null;
    this.last = null;
    this.chosen = null;
  }

  /** Open the dialog, or close it. */
  async open() {
    if (closeDialog(this.page.root, LOOK)) return;
    const stays = this.page.stays("asking");
    this.models ??= await call("GET", "/models", { base: BASE });
    if (!stays()) return;
    this.chosen ??= this.models.filter((name) => !this.page.state.models.length || this.page.state.models.includes(name));
    dialog(this.page.root, "Ask now", LOOK, this.form(), this.answers);
    this.paint();
    this.question.focus();
  }

  form() {
    this.picture ??= h("img", { alt: "The chosen image", hidden: true });
    this.picker = h("input", { type: "file", accept: "image/*", class: "d-sr", on: { change: () => this.take(this.picker.files[0]) } });
    this.hint ??= h("span", {}, icon("plus"), "Choose an image, drop it here, or paste it");
    const well = h("label", { class: "c-drop", on: { dragover: (event) => event.preventDefault(), drop: (event) => this.dropped(event) } }, this.picker, this.picture, this.hint, sr("Image"));
    this.question ??= h("textarea", { class: "d-box", rows: "3", maxlength: "2000", "aria-label": "Question", on: { keydown: (event) => this.pressed(event) } }, USUAL);
    const box = (name) => {
      const input = h("input", { type: "checkbox", checked: this.chosen.includes(name), on: { change: () => this.choose(name, input.checked) } });
      return h("label", { class: "d-option" }, input, named(name, lookOf(name, this.models)));
    };
    this.send = button("Ask", () => this.ask(), { primary: true, keys: "Ctrl+Enter" });
    this.problem = h("p", { class: "bad", role: "alert" });
    this.answers ??= h("div", { class: "c-answers", "aria-live": "polite" });
    return h(
      "div", { class: "c-askform", on: { paste: (event) => this.pasted(event) } }, well,
      h("div", { class: "c-askside" }, this.question, h("fieldset", { class: "c-askmodels" }, h("legend", { class: "d-label" }, "Models"), this.models.map(box)), this.send, this.problem),
    );
  }

  take(file) {
    if (!file) return;
    if (!file.type.startsWith("image/")) return this.tell("This file is no image.");
    if (file.size > LARGEST) return this.tell("The image is larger than 20 MB.");
    if (this.picture.src) URL.revokeObjectURL(this.picture.src);
    this.tell("");
    this.file = file;
    this.picture.src = URL.createObjectURL(file);
    this.picture.hidden = false;
    this.hint.hidden = true;
  }

  /** Said in the dialog: a toast would lie behind it. */
  tell(text) {
    this.problem.textContent = text;
  }

  dropped(event) {
    event.preventDefault();
    this.take(event.dataTransfer.files[0]);
  }

  pasted(event) {
    const file = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    this.take(file);
  }

  pressed(event) {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    this.ask();
  }

  choose(name, on) {
    this.chosen = this.models.filter((other) => (other === name ? on : this.chosen.includes(other)));
  }

  async ask() {
    if (this.send.disabled) return undefined;
    const question = this.question.value.trim();
    if (!this.file) return this.tell("Choose an image first.");
    if (!question) return this.tell("Ask something about the image.");
    if (!this.chosen.length) return this.tell("Choose a model to ask.");
    this.tell("");
    this.posting = this.send.disabled = true;
    try {
      this.last = await this.post(question);
      this.follow();
    } catch (trouble) {
      if (!(trouble instanceof Trouble)) throw trouble;
      this.tell([trouble.what, trouble.seen, trouble.remedy].filter(Boolean).join(". "));
    } finally {
      this.posting = false;
      this.paint();
    }
    return undefined;
  }

  /** The image is the body: JSON would make it a third larger. */
  async post(question) {
    const query = new URLSearchParams([["question", question], ...this.chosen.map((name) => ["model", name])]);
    let answer;
    try {
      answer = await fetch(`${BASE}/questions?${query}`, { method: "POST", credentials: "same-origin", headers: { "Content-Type": "application/octet-stream" }, body: this.file });
    } catch {
      throw new Trouble(0);
    }
    const content = await answer.json().catch(() => null);
    if (!answer.ok || !content) throw new Trouble(answer.status, content);
    return content;
  }

  /** Look how far it is, until it is done. */
  async follow() {
    let found = this.last;
    const { id } = found;
    while (["waiting", "answering"].includes(found.state)) {
      await new Promise((resolve) => setTimeout(resolve, POLL));
      if (this.last?.id !== id) return;
      try {
        found = await call("GET", `/questions/${id}`, { base: BASE });
      } catch (trouble) {
        if (!(trouble instanceof Trouble)) throw trouble;
        if (trouble.offline) continue;
        found = { ...found, state: "failed", problems: [{ model: null, ...trouble, what: trouble.what }] };
      }
      if (this.last?.id !== id) return; // taken back meanwhile, or another one was asked
      const news = JSON.stringify(found) !== JSON.stringify(this.last);
      this.last = found;
      if (news) this.paint(); // what is painted anew loses the focus, a selection, a click that has begun
    }
  }

  async takeBack() {
    const { id } = this.last;
    this.last = null;
    this.paint();
    await call("DELETE", `/questions/${id}`, { base: BASE }).catch(() => {});
  }

  paint() {
    const asked = this.last;
    const busy = asked && ["waiting", "answering"].includes(asked.state);
    this.send.disabled = Boolean(busy || this.posting);
    this.answers.hidden = !asked;
    if (!asked) return;
    const stop = busy && button("Take back", () => this.takeBack(), { small: true });
    const head = h("div", { class: "c-askhead" }, h("p", { class: "d-muted", dir: "auto" }, asked.question), h("span", { class: "d-grow" }), busy && h("span", { class: "d-tag", role: "status" }, icon("sync"), progress(asked)), stop);
    const column = (name) => {
      const answer = asked.answers.find(({ model }) => model === name);
      const problem = asked.problems.find(({ model }) => model === name);
      const facts = answer && [`${answer.tokens} tokens`, `${answer.seconds} s`, answer.finish_reason === "length" && "cut at the limit"].filter(Boolean).join(", ");
      return h(
        "article", {}, h("header", {}, named(name, lookOf(name, this.models))),
        answer && h("p", { class: "c-text", dir: "auto" }, answer.text.trim() || h("span", { class: "d-muted" }, "No text")),
        answer && h("p", { class: "d-label" }, facts), problem && trouble(problem),
        !answer && !problem && h("p", { class: "d-muted" }, busy ? "…" : "No answer"),
      );
    };
    this.answers.replaceChildren(head, ...asked.problems.filter(({ model }) => !model).map(trouble), h("div", { class: "c-askcolumns" }, asked.models.map(column)));
  }
}

function progress({ state, before, doing }) {
  if (state === "waiting") return before === 1 ? "1 question comes first" : before ? `${before} questions come first` : "Next";
  if (!doing || doing === "loading") return "The models are being loaded";
  return `${doing} is answering`;
}

function trouble({ what, seen, remedy }) {
  return h("p", { class: "bad" }, [what, seen, remedy].filter(Boolean).join(". "));
}
