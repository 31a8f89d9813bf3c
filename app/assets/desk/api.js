// The JSON API of the review desk, and images that were fetched before they are asked for.

const BASE = "/api/review";
const PATIENCE = 20_000;
const KEPT = 8;

const capital = (text) => text.replace(/^[a-z]/, (letter) => letter.toUpperCase());

/** A call that did not succeed; `more` is what was seen and what to do, `told` what is wrong and what to do. `offline` if no answer came, or none that means anything. */
export class Trouble extends Error {
  constructor(status, body) {
    const { what, seen, remedy } = body?.error ?? {};
    super(what ?? "The server does not answer.");
    this.more = [seen, remedy && capital(remedy)].filter(Boolean).join(". ");
    this.told = [this.message.replace(/[.]$/, ""), remedy && capital(remedy)].filter(Boolean).join(". ");
    Object.assign(this, { status, body, what: this.message, seen: seen ?? "", remedy: remedy ?? "", offline: !what });
  }
}

/** Call the API; `base` is that of another desk. Raises Trouble. */
export async function call(method, path, { body, keepalive, base = BASE } = {}) {
  let answer;
  try {
    answer = await fetch(base + path, {
      method,
      keepalive,
      credentials: "same-origin",
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: keepalive ? undefined : AbortSignal.timeout(PATIENCE),
    });
  } catch {
    throw new Trouble(0);
  }
  let content = null;
  try {
    content = await answer.json();
  } catch {
    throw new Trouble(answer.ok ? 0 : answer.status);
  }
  if (!answer.ok) throw new Trouble(answer.status, content);
  return content;
}

const path = (id, rest = "") => `/records/${encodeURIComponent(id)}${rest}`;

export const find = (filters, limit = 1, offset = 0) =>
  call("GET", `/records?${new URLSearchParams([...filters, ["limit", limit], ["offset", offset]])}`);
export const record = (id, filters) => call("GET", path(id, `?${filters}`));
export const peek = (id, filters) => call("GET", `/next?${new URLSearchParams([...filters, ["after", id]])}`);
export const next = (id, filters, skip = false) => call("POST", `/next?${filters}`, { body: { after: id, skip } });
export const claim = (id) => call("POST", path(id, "/claim"), { body: {} });
export const saveDraft = (id, body, keepalive) => call("PUT", path(id, "/draft"), { body, keepalive });
export const dropDraft = (id) => call("DELETE", path(id, "/draft"));
export const commit = (id, filters, body) => call("POST", path(id, `/commit?${filters}`), { body });
export const restore = (id, filters, body) => call("POST", path(id, `/restore?${filters}`), { body });
export const undo = (filters) => call("POST", `/undo?${filters}`, { body: {} });
export const revisions = async (id) => (await call("GET", `/history/${encodeURIComponent(id)}`)).revisions;

/** Where the image of a prompt is. */
export const imageOf = (prompt) => `/images?${new URLSearchParams({ prompt })}`;

/** Images by address, decoded before they are shown, so that none appears piece by piece. */
export class Pictures {
  constructor() {
    this.kept = new Map();
  }

  get(url) {
    const image = this.kept.get(url) ?? picture(url);
    this.kept.delete(url); // the newest is kept longest
    this.kept.set(url, image);
    if (this.kept.size > KEPT) this.kept.delete(this.kept.keys().next().value);
    return image;
  }
}

function picture(url) {
  const image = new Image();
  image.decoding = "async";
  image.draggable = false;
  image.src = url;
  image.ready = image.decode().catch(() => {});
  return image;
}
