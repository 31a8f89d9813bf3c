// The log of a job: follows its end, searches all of it, keeps no more lines than a page can hold.

import { button, h, icon, number } from "./dom.js";
import * as api from "./training.js";

const MOST = 2000;
const TYPING = 250;
const NEAR = 24;
// eslint-disable-next-line no-control-regex
const COLOURS = /\u001b\[[0-9;?]*[ -/]*[@-~]|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)/g;
// eslint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/g;
const TURNING = /[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
const WARNING = /\b(warning|warn)\b/i;
const WRONG = /^(Traceback|\S*Error\b|error\b)|\b(ERROR|CRITICAL)\b/;

/** A line as it can be shown: colours gone, a progress bar's last state, every other control character visible. */
export function printable(line) {
  const last = line.replace(/\r+$/, "").split("\r").at(-1);
  return last
    .replace(COLOURS, "")
    .replace(CONTROL, (one) => (one < " " ? String.fromCharCode(0x2400 + one.charCodeAt(0)) : one === "\u007f" ? "\u2421" : `<${one.charCodeAt(0).toString(16).toUpperCase()}>`))
    .replace(TURNING, (one) => `<U+${one.charCodeAt(0).toString(16).toUpperCase()}>`);
}

/** The panel. */
export class Log {
  constructor(page) {
    this.page = page;
    this.follow = h("button", { type: "button", class: "d-switch t-follow", role: "switch", "aria-checked": "true", on: { click: () => this.setFollow(!this.following) } }, "Follow");
    this.following = true;
    this.searching = 0;
    let timer;
    this.input = h("input", { type: "search", placeholder: "Search log", autocomplete: "off", "aria-label": "Search log", maxlength: "200", on: { input: () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.search(), TYPING);
    } } });
    this.download = h("a", { class: "d-btn quiet small", download: true }, icon("download"), h("span", {}, "Download"));
    this.lines = h("pre", { class: "t-log", tabindex: "0", role: "region", "aria-label": "Lines of the log", on: { scroll: () => this.scrolled() } });
    this.top = 0;
    new ResizeObserver(() => this.settle()).observe(this.lines);
    this.found = h("pre", { class: "t-log", tabindex: "0", role: "region", "aria-label": "Lines found", hidden: true });
    this.note = h("span", { class: "d-muted t-lognote" });
    this.node = h(
      "section", { class: "t-card t-w8 t-logcard", "aria-label": "Log" },
      h("div", { class: "t-head" }, h("h2", {}, "Log"), this.follow, this.note, h("span", { class: "d-grow" }), h("div", { class: "d-search t-find" }, h("label", {}, icon("search"), this.input)), this.download), this.lines, this.found,
    );
  }

  /** Begin with another job. */
  begin(id) {
    this.id = id;
    this.searching += 1; // what is found in another log comes too late
    this.offset = null;
    this.empty = true;
    this.lines.replaceChildren(h("span", { class: "d-muted" }, "Nothing yet"));
    this.input.value = "";
    this.note.textContent = "";
    this.show(false);
    this.setFollow(true);
    this.download.href = api.logOf(id);
  }

  /** Add a piece of the server's. */
  add(piece) {
    if (!piece) return;
    const restarted = this.offset != null && piece.offset < this.offset;
    this.offset = piece.offset;
    if (!piece.text && !restarted) return;
    if (this.empty || restarted) this.lines.replaceChildren();
    if (piece.skipped) this.lines.append(h("span", { class: "t-skipped" }, this.empty ? `… ${kilobytes(piece.skipped)} before this: Download has all of it` : `… ${kilobytes(piece.skipped)} passed over: the log grows faster than it can be read`));
    this.empty = false;
    const lines = piece.text.replace(/\n$/, "").split("\n").slice(-MOST);
    this.lines.append(...lines.map(lineNode));
    const over = this.lines.childElementCount - MOST;
    if (over > 0) {
      const range = document.createRange();
      range.setStartBefore(this.lines.firstChild);
      range.setEndAfter(this.lines.children[over - 1]);
      range.deleteContents();
    }
    if (this.following) this.toEnd();
  }

  /** Where the end is, is known only once the panel is seen, and anew when its height changes. */
  settle() {
    if (this.following && !this.lines.hidden) this.toEnd();
  }

  toEnd() {
    this.lines.scrollTop = this.lines.scrollHeight;
    this.top = this.lines.scrollTop;
  }

  /** Reading further up ends following; coming back to the end begins it again. Another height of the panel, which moves the end, does neither. */
  scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = this.lines;
    const atEnd = scrollTop + clientHeight >= scrollHeight - NEAR;
    if (atEnd || scrollTop < this.top) this.setFollow(atEnd, false);
    this.top = scrollTop;
  }

  setFollow(on, jump = true) {
    this.following = on;
    this.follow.setAttribute("aria-checked", String(on));
    if (on && jump && !this.lines.hidden) this.toEnd();
  }

  show(results) {
    this.lines.hidden = results;
    this.found.hidden = !results;
    if (!results && this.following) this.toEnd();
  }

  async search() {
    const text = this.input.value.trim();
    const ticket = (this.searching += 1);
    if (!text) {
      this.note.textContent = "";
      return this.show(false);
    }
    const lines = await this.page.attempt(() => api.search(this.id, text));
    if (!lines || ticket !== this.searching) return undefined;
    this.found.replaceChildren(...lines.map(({ number: at, text: line }) => h("span", {}, h("span", { class: "t-no" }, number(at)), "  ", ...hits(printable(line), text))));
    if (!lines.length) this.found.replaceChildren(h("span", { class: "d-muted" }, "No line has this."));
    this.note.textContent = lines.length ? `${number(lines.length)}${lines.length >= 500 ? " or more" : ""} ${lines.length === 1 ? "line" : "lines"}` : "";
    return this.show(true);
  }
}

function lineNode(line) {
  const text = printable(line);
  const look = WRONG.test(text) ? "bad" : WARNING.test(text) ? "warn" : /^== /.test(text) ? "t-command" : null;
  const time = look ? null : text.match(/^(?:\d{4}-\d\d-\d\d[ T])?\d\d:\d\d:\d\d\S*/)?.[0];
  return h("span", { class: look, dir: "auto" }, time ? [h("span", { class: "d-muted" }, time), text.slice(time.length)] : text);
}

/** A line in pieces, with what was searched for marked. */
function hits(line, text) {
  const pieces = [];
  const [low, wanted] = [line.toLowerCase(), text.toLowerCase()];
  let from = 0;
  for (let at = low.indexOf(wanted); at >= 0 && low.length === line.length; at = low.indexOf(wanted, from)) {
    pieces.push(line.slice(from, at), h("mark", {}, line.slice(at, at + wanted.length)));
    from = at + wanted.length;
  }
  return [...pieces, line.slice(from)];
}

const kilobytes = (count) => (count < 1e6 ? `${number(Math.ceil(count / 1000))} kB` : `${number(Math.round(count / 1e5) / 10)} MB`);
