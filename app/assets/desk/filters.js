// Which records are asked for, and in which order: it all lives in the page's address.

export const NAMES = {
  text: "Text", source: "Source", model: "Model", score: "Lowest score", error_type: "Error type", state: "Review",
  finish: "Finish", min_tokens: "At least", max_tokens: "At most", degenerate: "Text",
};
const WORDS = {
  state: { open: "To review", draft: "In review", accepted: "Accepted", flagged: "Flagged", rejected: "Rejected", disagreed: "Reviewers disagree" },
  error_type: { image_recognition_error: "Image recognition", language_comprehension_error: "Language", correct: "Correct" },
  finish: { stop: "Finished", length: "Cut at limit" },
  degenerate: { repeated_last_sentence: "Repeats its last sentence", repeated_last_word: "Repeats its last word" },
  score: { 5: "Not revised" },
};
/** Filters of which several values may be chosen. */
export const GROUPS = ["score", "state", "error_type", "finish", "degenerate", "source", "model"];
export const SORT = "sort";

/** A value of a filter in words. */
export const wordFor = (name, value) => WORDS[name]?.[value] ?? (name === "model" ? String(value).replace(/@\w+/, "") : String(value));
/** The values of a filter that stand in an order of their own. */
export const orderOf = (name) => Object.keys(WORDS[name] ?? {});

/** The filters in an address, with its order; `sort` where it names none. */
export function filtersOf(address, sort = "queue") {
  const filters = new URLSearchParams(address);
  for (const name of [...filters.keys()]) if (!NAMES[name] && name !== SORT) filters.delete(name);
  if (!filters.has(SORT)) filters.set(SORT, sort);
  return filters;
}

/** How many filters there are, the order apart. */
export const countOf = (filters) => [...new Set(filters.keys())].filter((name) => name !== SORT).length;

/** The query that leads to a record under filters; the usual order, `sort`, is left out. */
export function address(id, filters, sort = "queue") {
  const query = new URLSearchParams(id ? { record: id } : {});
  for (const [name, value] of filters) if (name !== SORT || value !== sort) query.append(name, value);
  return query.size ? `?${query}` : "";
}
