// Keys: one table (keys.json), from which the pages, their overlays and the docs are made.

const SWITCH = "opadpo-single-keys";
const NAMES = {
  ArrowDown: "↓", ArrowUp: "↑", ArrowLeft: "←", ArrowRight: "→", Enter: "↵", Escape: "Esc", Shift: "⇧", "-": "−",
};
const MAC = /Mac|iPhone|iPad/.test(navigator.platform);

/** The keys of a page, those of all pages last: [{group, action, keys, label, typing, shown}]. */
export async function loadKeys(page) {
  const tables = await (await fetch(new URL("keys.json", import.meta.url))).json();
  return [...tables[page], ...tables.everywhere];
}

/** Name of a pressed key as the table writes it: "j", "A" (with shift), "Ctrl+Enter", "Shift+ArrowLeft". */
export function nameOf(event) {
  const letter = event.key.length === 1;
  const graph = event.getModifierState("AltGraph"); // how some keyboards write [ and ]
  const command = !graph && (event.ctrlKey || event.metaKey);
  if (event.altKey && !graph) return "";
  if (letter && command) return "";
  if (letter) return event.shiftKey ? event.key.toUpperCase() : event.key.toLowerCase();
  return `${command ? "Ctrl+" : ""}${event.shiftKey ? "Shift+" : ""}${event.key}`;
}

/** Key caps of a name: "Ctrl+Enter" gives Ctrl and ↵, "A" gives ⇧ and A. */
export function caps(name) {
  const parts = name.length > 1 ? name.split("+") : [name];
  return parts.flatMap((part) => {
    if (part === "Ctrl") return [MAC ? "⌘" : "Ctrl"];
    if (/^[A-Z]$/.test(part)) return ["⇧", part];
    return [NAMES[part] ?? (part.length > 1 ? part : part.toUpperCase())];
  });
}

/** The caps in one text, for a button. */
export const capsText = (name) => caps(name).join(" ");

/** True where keys write text. */
export const isTyping = (node) =>
  node.isContentEditable || node.matches?.('textarea, select, input:not([type="checkbox"], [type="radio"], [type="button"])');

/** Listens for the whole page and calls `run(action, key, event)`; false from it leaves the key to the browser. */
export class Keys {
  constructor(root, table, run) {
    this.table = table;
    this.byKey = new Map(table.flatMap((entry) => entry.keys.map((key) => [key, entry])));
    this.run = run;
    addEventListener("keydown", (event) => root.isConnected && this.pressed(event));
  }

  get single() {
    return localStorage.getItem(SWITCH) !== "off";
  }

  set single(on) {
    localStorage.setItem(SWITCH, on ? "on" : "off");
  }

  first(action) {
    return this.table.find((entry) => entry.action === action).keys[0];
  }

  pressed(event) {
    if (event.defaultPrevented || event.isComposing) return;
    const key = nameOf(event);
    const entry = this.byKey.get(key);
    if (!entry || (key.length === 1 && !this.single)) return;
    if (isTyping(event.target) && !entry.typing) return;
    if (event.repeat && !/Sentence$|Card$|^row|^zoom|^pan/.test(entry.action)) return;
    if (this.run(entry.action, key, event) !== false) event.preventDefault();
  }
}
