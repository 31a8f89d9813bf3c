// The dialog of a new job: step, target, name, the recipe's fields; what it would run and need; Start.

import { Trouble } from "./api.js";
import { button, h, icon } from "./dom.js";
import { Field, groupOf } from "./fields.js";
import { Memory } from "./jobmachine.js";
import { copied, folded } from "./jobfacts.js";
import { modal } from "./overlay.js";
import * as api from "./training.js";

const TYPING = 350;
const AGAIN = 1500;
const OWN = {
  preset: { kind: "choice", help: "Where the recipe starts." },
  target: { kind: "choice", help: "The machine it runs on." },
  name: { kind: "text", help: "Of the adapter: letters, digits, - and _." },
  start: { kind: "choice", label: "from", help: "The adapter to continue." },
  models: { kind: "many", help: "None: the base and every adapter." },
  prompt_set: { kind: "text", label: "set", help: "Prompts: heldout, or a benchmark's." },
  steps: { kind: "many", help: "None: all of them; each does only what is missing." },
  gpus: { kind: "text", help: "How many (2), or which (0, 1). Empty: as the target says." },
  title: { kind: "text", help: "For people; shown in the list." },
};
const ASKED = { opa: ["name", "start"], opadpo: ["name", "start"], caption: ["models", "prompt_set"], evaluate: ["models"], pipeline: ["steps"] };

/** What went wrong, or `offline` where no answer came at all. */
const wordsOf = (trouble, offline) => (trouble.offline ? offline : [trouble.told, trouble.seen].filter(Boolean).join(". "));

/** Opened by the page; `started(id)` is called when a job has been submitted. */
export class NewJob {
  constructor(page, started) {
    Object.assign(this, { page, started });
    this.memory = new Memory(true);
    this.looking = 0;
  }

  /** Ask the server for a form and show it: of a step, or of a job to clone. */
  async open(asked = {}) {
    const still = this.page.newest("form");
    const form = await this.page.attempt(() => api.form({ step: "opadpo", ...asked }));
    if (!form || !still()) return;
    this.clone = asked.clone ?? null;
    this.build();
    this.fill(form);
    this.page.root.append(this.node);
    this.node.showModal();
    this.seg.querySelector('[aria-pressed="true"]')?.focus();
    if (asked.change) this.form.querySelector(".t-field.changed")?.scrollIntoView({ block: "center" });
  }

  build() {
    this.seg = h("div", { class: "d-seg t-steps", role: "group", "aria-label": "Step" });
    this.form = h("form", { class: "t-form", tabindex: "0", "aria-label": "Settings", on: { submit: (event) => { event.preventDefault(); this.start(); } } });
    this.command = h("code", { class: "t-cmd", tabindex: "0", role: "region", "aria-label": "Command" });
    this.general = h("div", { class: "t-general bad", role: "alert" });
    this.copy = button("Copy", () => this.copyCommand(), { name: "copy", small: true, quiet: true });
    this.note = h("span", { class: "d-grow", role: "status" });
    this.go = button("Start", () => this.start(), { name: "play", primary: true });
    const title = this.clone ? "Clone with changes" : "New job";
    this.node = modal(
      title, "t-new", { close: () => this.closed(), keydown: (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && this.start() },
      h("header", {}, h("h2", { class: "d-grow" }, title), this.seg, button("Close", () => this.node.close(), { name: "x", quiet: true, bare: true })),
      h("div", { class: "t-cols" }, this.form, h("aside", { "aria-label": "Estimate and command" }, this.general, this.memory.node, h("section", { class: "t-card" }, h("div", { class: "t-head" }, h("h2", { class: "d-grow" }, "Command"), this.copy), this.command))),
      h("footer", {}, this.note, button("Close", () => this.node.close()), this.go),
    );
  }

  /** Show a form of the server's; what was entered before and still has a place is kept. */
  fill(form, kept = {}) {
    this.info = form;
    this.seg.replaceChildren(...form.steps.map(({ value, label }) => h("button", { type: "button", "aria-pressed": String(value === form.entered.step), on: { click: () => this.change({ step: value }) } }, label)));
    const changed = () => this.later();
    this.own = new Map(["preset", "target", ...(ASKED[form.entered.step] ?? []), "gpus", "title"].map((key) => [key, new Field(this.ownInfo(key, kept), changed)]));
    this.own.get("preset").input.addEventListener("change", () => this.change({ preset: this.own.get("preset").value }));
    this.groups = form.groups.map((group) => ({ ...group, fields: group.fields.map((info) => new Field({ ...info, value: kept.values?.[info.key] ?? info.value }, changed)) }));
    this.settings = new Map(this.groups.flatMap((group) => group.fields.map((field) => [field.info.key, field])));
    const job = h("section", { class: "t-group", "aria-label": "Job" }, h("h3", {}, "Job"), h("div", { class: "t-fields" }, [...this.own.values()].map((field) => field.node)));
    this.form.replaceChildren(job, ...this.groups.map(groupOf));
    this.form.scrollTop = 0;
    this.said("");
    this.go.disabled = true;
    this.look();
  }

  /** Show a command, as the server made it. */
  said(command) {
    this.line = command;
    this.command.textContent = folded(command);
    this.copy.disabled = !command;
  }

  async copyCommand() {
    this.note.textContent = await copied(this.line, this.command);
  }

  ownInfo(key, kept) {
    const { entered, presets, targets, models, pipeline } = this.info;
    const choices = { preset: presets, target: targets, start: [{ value: "", label: "as usual" }, ...models.map((value) => ({ value, label: value }))], models: models.map((value) => ({ value })), steps: pipeline }[key] ?? [];
    const value = key in kept ? kept[key] : entered[key];
    const info = { key, label: key, own: true, nullable: false, preset: "", ...OWN[key], choices: choices.map((one) => one.value), value: Array.isArray(value) ? value.join(", ") : value ?? "" };
    if (key === "target" && !info.value) info.value = info.choices[0] ?? "";
    if (OWN[key].kind === "choice") info.labels = Object.fromEntries(choices.map((one) => [one.value, one.label]));
    return info;
  }

  /** Another step or preset: the form is made anew, with what was changed in this one. */
  async change(asked) {
    const now = this.entered();
    const still = this.page.newest("form");
    this.wait();
    this.form.inert = true; // what were typed now would be lost
    const form = await this.page.attempt(() => api.form({ step: now.step, preset: now.preset, ...asked }), (trouble) => still() && this.unchanged(trouble));
    if (!still()) return;
    this.form.inert = false;
    if (!this.node.isConnected) return;
    if (!form) return this.focusOn(asked);
    this.clone = asked.step && asked.step !== now.step ? null : this.clone;
    this.fill(form, { ...now, ...asked });
    this.focusOn(asked);
  }

  /** Where the change was asked for. */
  focusOn({ step }) {
    const at = step ? this.seg.querySelector('[aria-pressed="true"]') : this.own.get("preset").input;
    at?.focus();
  }

  /** The form of another step or preset did not come: this one stays, and why is said in it. */
  unchanged(trouble) {
    this.own.get("preset").set(this.info.entered.preset ?? "");
    this.refused = wordsOf(trouble, "The server does not answer; choose it once more.");
    this.look();
  }

  entered() {
    const list = (key) => (this.own.get(key)?.value ?? "").split(", ").filter(Boolean);
    const text = (key) => this.own.get(key)?.value ?? "";
    const values = Object.fromEntries([...this.settings.values()].filter((field) => field.differs).map((field) => [field.info.key, field.value]));
    return {
      step: this.info.entered.step, preset: text("preset") || null, target: text("target") || null, name: text("name"), start: text("start"), models: list("models"), steps: list("steps"),
      prompt_set: text("prompt_set"), gpus: text("gpus"), title: text("title"), values, cloned_from: this.clone,
    };
  }

  /** Nothing can be started until somebody has looked at what is entered now. */
  wait() {
    clearTimeout(this.timer);
    this.looking += 1;
    this.go.disabled = true;
  }

  later() {
    this.refused = "";
    this.wait();
    this.timer = setTimeout(() => this.look(), TYPING);
  }

  /** Ask what the form would do: command, problems, memory. */
  async look() {
    clearTimeout(this.timer);
    const ticket = (this.looking += 1);
    const entered = this.entered();
    const count = Object.keys(entered.values).length;
    this.note.textContent = count ? `${count} ${count === 1 ? "value differs" : "values differ"} from the preset` : "As the preset says";
    let found;
    try {
      found = await api.preview(entered);
    } catch (trouble) {
      if (!(trouble instanceof Trouble)) throw trouble;
      if (ticket !== this.looking || !this.node.isConnected) return;
      // Words above the page would lie under this dialog.
      this.refuse(wordsOf(trouble, "The server does not answer; it is asked again."));
      this.timer = setTimeout(() => this.look(), AGAIN);
      return;
    }
    if (ticket !== this.looking || !this.node.isConnected) return;
    this.show(found);
    this.estimate(entered, ticket);
  }

  show({ command, problems }) {
    const mine = new Map();
    const rest = [];
    for (const { key, text } of problems) {
      const field = this.own.get(key) ?? this.settings.get(key);
      if (field) mine.set(field, mine.has(field) ? `${mine.get(field)} ${text}` : text);
      else rest.push(key ? `${key}: ${text}` : text);
    }
    for (const field of [...this.own.values(), ...this.settings.values()]) field.complain(mine.get(field));
    for (const field of mine.keys()) field.node.closest("details")?.setAttribute("open", "");
    this.refuse(...rest, ...(this.refused ? [this.refused] : []));
    this.said(command);
    this.go.disabled = Boolean(problems.length);
    const named = [...mine.keys()].map((field) => field.info.label);
    if (problems.length) this.note.textContent = `To be mended: ${[...named, ...(rest.length ? ["what is said on the right"] : [])].join(", ")}`;
  }

  /** Say what is wrong with the whole of it. */
  refuse(...texts) {
    this.general.replaceChildren(...texts.map((text) => h("p", {}, icon("alert"), h("span", {}, text))));
  }

  async estimate(entered, ticket) {
    for (;;) {
      const found = await api.estimate(entered).catch(() => null);
      if (ticket !== this.looking || !this.node.isConnected) return;
      this.memory.paint(found);
      if (found?.state !== "estimating") return;
      await new Promise((done) => setTimeout(done, AGAIN));
      if (ticket !== this.looking || !this.node.isConnected) return;
    }
  }

  async start() {
    if (this.go.disabled) return;
    this.wait();
    const held = this.form.contains(document.activeElement) ? document.activeElement : null;
    this.form.inert = true; // as long as it is not known whether a job has begun with it
    this.note.textContent = "Starting…";
    this.refused = "";
    let id;
    try {
      id = await api.submit(this.entered());
    } catch (trouble) {
      if (!(trouble instanceof Trouble)) throw trouble;
      this.form.inert = false;
      held?.focus();
      this.refused = wordsOf(trouble, "The server does not answer. The list will show whether the job was started.");
      this.look();
      return;
    }
    this.node.close();
    this.started(id);
  }

  closed() {
    clearTimeout(this.timer);
    this.looking += 1;
    this.node.remove();
  }
}
