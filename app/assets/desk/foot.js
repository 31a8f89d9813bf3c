// The foot: decisions about the whole record, whether it is saved, how far you and the team are.

import { ago, button, h, icon, number, sr } from "./dom.js";
import { capsText } from "./keys.js";
import { Panel } from "./overlay.js";

const SAVED = {
  clean: ["cloud", () => "All saved"],
  saving: ["sync", () => "Saving"],
  saved: ["cloud", (at) => `Saved ${ago(at)}`],
  offline: ["cloudOff", () => "Offline, kept in this browser"],
  conflict: ["alert", () => "Conflict"],
};

/** The bar below the desk; nothing in it ever changes its place. */
export class Foot {
  constructor(desk, keys, guide) {
    Object.assign(this, { desk, guide });
    const key = (action) => capsText(keys.first(action));
    const menu = { "aria-haspopup": "dialog", "aria-expanded": "false" };
    this.accept = button("Accept & next", () => desk.acceptRecord(), { primary: true, keys: key("acceptRecord") });
    this.reject = button("Reject", () => this.rejecting(), { keys: key("reject"), ...menu });
    this.flag = button("Flag", () => this.flagging(), { keys: key("flag"), ...menu });
    this.skip = button("Skip", () => desk.skip(), { keys: key("skip") });
    this.undo = button("Undo", () => desk.undo(), { name: "undo", keys: key("undo"), quiet: true, fold: true, title: "Undo (U)" });
    this.saved = h("span", { class: "d-saved" });
    this.you = progress("You");
    this.team = progress("Team");
    this.position = h("span", { class: "d-num" });
    this.previous = button("Previous record", () => desk.previousRecord(), { name: "left", quiet: true, bare: true, title: "Previous record ([)" });
    this.next = button("Next record", () => desk.nextRecord(), { name: "right", quiet: true, bare: true, title: "Next record (])" });
    this.node = h(
      "div",
      { class: "d-foot", role: "group", "aria-label": "Decision and progress" },
      this.accept, this.reject, this.flag, this.skip, this.undo,
      h("span", { class: "d-grow" }),
      this.saved,
      h("span", { class: "d-sep" }),
      this.you.node,
      this.team.node,
      h("span", { class: "d-sep team" }),
      h("div", { class: "d-pos" }, this.previous, this.position, this.next),
    );
    this.status({ state: "clean" });
    setInterval(() => this.last.state === "saved" && this.status(this.last), 1000);
  }

  /** Position and neighbours. */
  paint(record) {
    const place = record.position == null ? "–" : number(record.position);
    this.position.replaceChildren(sr("Record "), `${place} / ${number(record.total)}`);
    this.previous.disabled = !record.previous;
    this.next.disabled = !record.next;
    this.progress(record.progress);
  }

  progress({ mine, mine_total, team, team_total }) {
    this.you.set(mine, mine_total);
    this.team.set(team, team_total);
  }

  /** One of four states, always in the same place. */
  status(status) {
    this.last = status;
    const [name, words] = SAVED[status.state];
    this.saved.className = `d-saved ${status.state}`;
    this.saved.title = status.trouble && !status.trouble.offline ? status.trouble.what : "";
    if (this.saved.dataset.icon !== name) this.saved.replaceChildren(icon(name), h("span", {}));
    this.saved.dataset.icon = name;
    this.saved.lastChild.textContent = words(status.at);
  }

  busy(on) {
    for (const control of [this.accept, this.reject, this.flag]) control.disabled = on;
  }

  /** Reasons to leave the record out of training; 1 to 6 choose one at once. */
  rejecting() {
    if (Panel.open?.anchor === this.reject) return Panel.open.close();
    this.desk.stay();
    this.desk.notes.clear();
    const { reasons } = this.guide;
    const choose = (position) => {
      if (position < reasons.length - 1) return finish(reasons[position]);
      other.hidden = false;
      return other.querySelector("input").focus();
    };
    const finish = (note) => {
      panel.close(false);
      this.desk.decide("reject", note);
    };
    const other = noteForm("Why", "Reject", finish);
    other.hidden = true;
    const list = h("ol", { class: "d-reasons" }, reasons.map((reason, position) => h("li", {}, h("button", { type: "button", on: { click: () => choose(position) } }, h("kbd", { class: "d-kbd" }, position + 1), reason))));
    const panel = new Panel(this.node, this.reject, "Reject: why?", h("h2", {}, "Leave out of training because"), list, other);
    panel.node.addEventListener("keydown", (event) => {
      const position = Number(event.key) - 1;
      if (event.target.matches("input") || !(position in reasons)) return;
      event.preventDefault();
      choose(position);
    });
    return panel;
  }

  /** A note for whoever looks again. */
  flagging() {
    if (Panel.open?.anchor === this.flag) return Panel.open.close();
    this.desk.stay();
    this.desk.notes.clear();
    const finish = (note) => {
      panel.close(false);
      this.desk.decide("flag", note);
    };
    const panel = new Panel(this.node, this.flag, "Flag with a note", h("h2", {}, "Flag for a second look"), noteForm("What should they look at?", "Flag", finish));
    return panel;
  }
}

/** A line of text and a button that sends it; `finish(text)` is called with what was written. */
export function noteForm(label, verb, finish) {
  const input = h("input", { class: "d-small", "aria-label": label, placeholder: label, maxlength: "2000", autocomplete: "off", required: true, dir: "auto" });
  const send = (event) => {
    event?.preventDefault();
    if (input.value.trim()) finish(input.value.trim());
    else input.focus();
  };
  input.addEventListener("keydown", (event) => event.key === "Enter" && !event.isComposing && send(event));
  return h("form", { class: "d-noteform", novalidate: true, on: { submit: send } }, input, h("button", { type: "submit", class: "d-btn primary small" }, verb));
}

function progress(name) {
  const count = h("span", { class: "d-num" });
  const fill = h("i");
  const bar = h("span", { class: "d-bar", role: "progressbar", "aria-label": `${name}: reviewed`, "aria-valuemin": "0" }, fill);
  const node = h("div", { class: `d-progress ${name.toLowerCase()} unknown` }, h("div", {}, h("span", { class: "d-muted" }, name), count), bar);
  const set = (done, total) => {
    node.classList.remove("unknown");
    count.textContent = `${number(done)} / ${number(total)}`;
    bar.setAttribute("aria-valuemax", Math.max(total, 1));
    bar.setAttribute("aria-valuenow", done);
    fill.style.width = `${total ? Math.min(100, (done / total) * 100) : 0}%`;
  };
  return { node, set };
}
