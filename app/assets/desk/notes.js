// Words on what has just happened, for the eye and for screen readers.

import { h } from "./dom.js";

/** Toasts above the page, and a region that screen readers read out. */
export class Notes {
  constructor() {
    this.live = h("div", { class: "d-sr", role: "status", "aria-live": "polite" });
    this.toasts = h("div", { class: "d-toasts", "aria-hidden": "true" });
    this.nodes = [this.toasts, this.live];
  }

  say(text) {
    this.live.textContent = text;
  }

  /** Take the toasts away: they would lie over what is opened now. */
  clear() {
    this.toasts.replaceChildren();
  }

  /** A word that lies above the page and goes by itself. */
  toast(text, alarm = false) {
    const node = h("div", { class: alarm ? "d-toast alarm" : "d-toast" }, text);
    this.toasts.replaceChildren(node);
    this.say(text);
    setTimeout(() => node.remove(), alarm ? 8000 : 3000);
  }
}
