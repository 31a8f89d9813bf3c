// Fields of a form, each made from what the recipe says of its setting.

import { h, icon } from "./dom.js";

let count = 0;

/** One setting: its control, its help, the preset's value beside it where it differs, and what is wrong with it. */
export class Field {
  /** `info`: {key, label, kind, help, choices, nullable, value, preset}; `changed()` is called with every change. */
  constructor(info, changed) {
    Object.assign(this, { info, changed });
    this.id = `t-field-${(count += 1)}`;
    this.control = this.make();
    this.reset = h("button", { type: "button", class: "t-reset", hidden: true, on: { click: () => this.back() } }, icon("pen"), h("span", {}));
    this.wrong = h("p", { class: "t-wrong bad", id: `${this.id}-wrong`, hidden: true });
    this.help = info.help && h("p", { class: "t-help d-muted", id: `${this.id}-help`, title: info.help }, ...coded(info.help));
    const label = info.kind === "many" ? h("span", { class: "d-mono", id: `${this.id}-label` }, info.label) : h("label", { for: this.id, class: "d-mono" }, info.label);
    this.node = h("div", { class: "t-field", title: info.key }, h("div", { class: "t-label" }, label, this.reset), this.control, this.wrong, this.help);
    this.set(info.value);
  }

  get described() {
    return `${this.id}-wrong ${this.info.help ? `${this.id}-help` : ""}`;
  }

  make() {
    const { kind, choices, nullable, preset, own } = this.info;
    const on = { input: () => this.edited(), change: () => this.edited() };
    if (kind === "many") {
      this.boxes = choices.map((value) => h("input", { type: "checkbox", value, on: { change: () => this.edited() } }));
      this.boxes.forEach((box, at) => box.setAttribute("value", choices[at]));
      return h("div", { class: "t-many", role: "group", "aria-labelledby": `${this.id}-label` }, this.boxes.map((box, at) => h("label", {}, box, choices[at])));
    }
    if (kind === "choice" || kind === "bool") {
      const options = kind === "bool" ? [["true", "yes"], ["false", "no"]] : choices.map((value) => [value, this.info.labels?.[value] ?? value]);
      if (nullable) options.push(["", "none"]);
      // What is no choice any more, as an adapter that has gone, is shown as it is.
      if (options.every(([value]) => value !== this.info.value)) options.push([this.info.value, this.info.value || "none"]);
      this.input = h("select", { class: "d-select", id: this.id, "aria-describedby": this.described, on }, options.map(([value, text]) => h("option", { value }, text)));
      return h("span", { class: "d-select-box" }, this.input, icon("down"));
    }
    const mode = { number: "decimal", integer: "numeric" }[kind];
    this.input = h("input", { class: "d-small", id: this.id, type: "text", inputmode: mode, autocomplete: "off", spellcheck: "false", maxlength: "4000", placeholder: own ? "as usual" : nullable || !preset ? "none" : "", "aria-describedby": this.described, on });
    return this.input;
  }

  get value() {
    if (this.boxes) return this.boxes.filter((box) => box.checked).map((box) => box.getAttribute("value")).join(", ");
    return this.input.value.trim();
  }

  set(value) {
    const parts = value.split(",").map((part) => part.trim());
    if (this.boxes) for (const box of this.boxes) box.checked = parts.includes(box.getAttribute("value"));
    else this.input.value = value;
    this.told = this.value;
    this.mark();
  }

  get differs() {
    if (this.info.own) return false;
    const [now, preset] = [this.value, this.info.preset];
    if (["number", "integer"].includes(this.info.kind) && now !== "" && preset !== "" && Number.isFinite(Number(now))) return Number(now) !== Number(preset);
    if (this.boxes) return [...now.split(", ")].sort().join() !== preset.split(", ").sort().join();
    return now !== preset;
  }

  mark() {
    const { differs } = this;
    this.node.classList.toggle("changed", differs);
    this.reset.hidden = !differs;
    const text = `preset ${this.info.preset || "none"}`;
    this.reset.lastChild.textContent = text.length > 28 ? `${text.slice(0, 27)}…` : text;
    this.reset.setAttribute("aria-label", `${this.info.label}: back to the ${text}`);
    this.reset.title = `Back to the ${text}`;
  }

  /** What was typed is told once: leaving the field tells it again, which would take the button away that is being pressed. */
  edited() {
    if (this.value === this.told) return;
    this.told = this.value;
    this.mark();
    this.changed();
  }

  back() {
    this.set(this.info.preset);
    (this.input ?? this.boxes[0]).focus();
    this.changed();
  }

  /** Say what is wrong, or nothing. */
  complain(text) {
    this.wrong.hidden = !text;
    this.wrong.textContent = text ?? "";
    for (const control of this.boxes ?? [this.input]) {
      if (text) control.setAttribute("aria-invalid", "true");
      else control.removeAttribute("aria-invalid");
    }
  }
}

/** A text in which `what stands between backticks` is code. */
export function coded(text) {
  const parts = text.split("`");
  return parts.length % 2 ? parts.map((part, at) => (at % 2 ? h("code", {}, part) : part)) : [text];
}

/** A group of fields; it opens when one of its fields is wrong or changed. */
export function groupOf({ title, open, fields }) {
  const changed = fields.some((field) => field.differs);
  return h("details", { class: "t-group", open: open || changed }, h("summary", {}, icon("right"), h("span", {}, title), h("span", { class: "d-muted d-num" }, ` ${fields.length}`)), h("div", { class: "t-fields" }, fields.map((field) => field.node)));
}
