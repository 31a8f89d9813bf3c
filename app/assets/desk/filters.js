// Which records are asked for, and in which order: it all lives in the page's address.

export const NAMES = {
  text: "Text", source: "Source", model: "Model", score: "Lowest score", error_type: "Error", state: "State",
  finish: "Finish", min_tokens: "At least", max_tokens: "At most", degenerate: "Degenerate text",
};
const WORDS = {
  image_recognition_error: "image", language_comprehension_error: "language", stop: "finished", length: "cut at the limit",
  draft: "in review", 5: "not revised",
};
/** Filters of which several values may be chosen. */
export const GROUPS = ["score", "state", "error_type", "finish", "degenerate", "source", "model"];
export const SORT = "sort";

export const wordFor = (value) => WORDS[value] ?? String(value).replaceAll("_", " ");

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
