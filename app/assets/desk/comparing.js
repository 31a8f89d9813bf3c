// The JSON API of the comparing page, and what its address says.

import { call } from "./api.js";

const base = "/api/compare";
const get = (path, query) => call("GET", query ? `${path}?${query}` : path, { base });

export const SORTS = { improved: "Most improved", worse: "Got worse", changed: "Most changed", prompted: "As prompted" };
export const ONLY = { "": "All", changed: "Changed", improved: "Improved", worse: "Worse" };

export const sets = () => get("/sets");
export const metrics = (state) => get("/metrics", chosen(state));
export const differences = (state) => get("/differences", chosen(state));
export const results = (state) => get("/results", pair(state));
export const withdraw = (id) => call("DELETE", `/votes/${encodeURIComponent(id)}`, { base });
export const find = (state, offset, limit) => get("/records", new URLSearchParams([...filters(state), ["offset", offset], ["limit", limit]]));
export const record = (state, id) => get(`/records/${encodeURIComponent(id)}`, filters(state));
export const vote = (state, body) => call("POST", "/votes", { base, body: { ...Object.fromEntries(pair(state)), ...body } });
export const imageOf = (set, prompt) => `${base}/images?${new URLSearchParams({ set, prompt })}`;

export function ballot(state, prompt) {
  const query = pair(state);
  if (prompt) query.set("prompt", prompt);
  return get("/ballots", query);
}

const chosen = ({ set, models }) => new URLSearchParams([["set", set], ...models.map((model) => ["model", model])]);

function filters(state) {
  const query = chosen(state);
  query.set("sort", state.sort);
  if (state.text) query.set("text", state.text);
  if (state.only) query.set("only", state.only);
  return query;
}

/** The model that the others are compared with, and the one that is: as the server has it. */
export const referenceOf = (models) => (models.length < 2 ? null : models.includes("base") ? "base" : models[0]);
export const targetOf = (models) => models.findLast((model) => model !== referenceOf(models));

const pair = ({ set, models }) => new URLSearchParams({ set, first: targetOf(models), second: referenceOf(models) });

/** What an address asks for; what it does not name, or names wrongly, is as usual. */
export function stateOf(address, overview) {
  const query = new URLSearchParams(address);
  const set = overview.sets.find((one) => one.name === query.get("set")) ?? overview.sets[0];
  const there = set?.models.map((model) => model.name) ?? [];
  const models = query.getAll("model").filter((name) => there.includes(name));
  const known = (name, table, usual) => (Object.hasOwn(table, query.get(name) ?? usual) ? (query.get(name) ?? usual) : usual);
  return {
    set: set?.name, models: models.length ? [...new Set(models)] : there.slice(0, 3), sort: known("sort", SORTS, "improved"),
    only: known("only", ONLY, ""), text: query.get("text") ?? "", record: query.get("record"),
    diff: query.get("diff") === "on", blind: query.get("mode") === "blind" && there.length > 1,
  };
}

/** The query that leads to this state. */
export function addressOf(state) {
  const query = chosen(state);
  if (state.sort !== "improved") query.set("sort", state.sort);
  for (const name of ["only", "text", "record"]) if (state[name]) query.set(name, state[name]);
  if (state.diff) query.set("diff", "on");
  if (state.blind) query.set("mode", "blind");
  return `?${query}`;
}
