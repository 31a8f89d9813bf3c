// The JSON API of the page of jobs, what its address says, and its words.

import { call } from "./api.js";
import { icon, h, when } from "./dom.js";

const base = "/api/jobs";
const query = (pairs) => new URLSearchParams(Object.entries(pairs).flatMap(([name, value]) => (Array.isArray(value) ? value : [value]).filter((one) => one != null && one !== "").map((one) => [name, one])));
const get = (path, pairs = {}) => call("GET", `${path}?${query(pairs)}`, { base });
const post = (path, body = {}) => call("POST", path, { base, body });
const of = (id, rest = "") => `/${encodeURIComponent(id)}${rest}`;

export const list = (filters, limit) => get("", { ...filters, limit });
export const live = (id, since) => get(of(id, "/live"), since);
export const curves = (id, run) => get(of(id, "/curves"), { run });
export const compared = (job, key) => get("/curves", { job, key });
export const memory = (id) => get(of(id, "/memory"));
export const search = async (id, text) => (await get(of(id, "/log/search"), { text })).lines;
export const form = (asked) => get("/form", asked);
export const preview = (entered) => post("/preview", entered);
export const estimate = (entered) => post("/memory", entered);
export const submit = async (entered) => (await post("", entered)).job_id;
export const cancel = (id) => post(of(id, "/cancel"));
export const resume = (id) => post(of(id, "/resume"));
export const mute = (id, alarm) => post(of(id, "/mute"), { alarm });
export const logOf = (id) => `${base}${of(id, "/log")}`;

export const STEPS = { prepare: "Prepare", rollout: "Rollout", revise: "Revise", build: "Build", opa: "OPA", opadpo: "OPA-DPO", caption: "Caption", evaluate: "Evaluate", pipeline: "Pipeline" };
export const STATES = { running: "Running", queued: "Queued", succeeded: "Succeeded", failed: "Failed", cancelled: "Cancelled", lost: "Lost" };
const ICONS = { running: "sync", queued: "clock", succeeded: "ok", failed: "no", cancelled: "ban", lost: "lost" };
const KINDS = { ssh: " by SSH", slurm: ", Slurm" };

export const isOver = (job) => !["running", "queued"].includes(job.state);

/** Whether it may train on pairs: then there are rewards, and parts of the loss. */
export const hasPairs = (job) => job.step !== "opa";

/** State of a job as an icon and a word. */
export const stateTag = (state, wordless) => h("span", { class: `t-state ${state}`, "aria-hidden": wordless ? "true" : null }, icon(ICONS[state] ?? "circle"), !wordless && (STATES[state] ?? state));

export const placeOf = (job) => `${job.target}${KINDS[job.kind] ?? ""}`;

/** Seconds in words: "45 s", "12 min", "1 h 09 min", "2 d 3 h". */
export function lasting(seconds) {
  if (!Number.isFinite(seconds)) return "";
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.round(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(minutes / 1440)} d ${Math.floor((minutes % 1440) / 60)} h`;
}

export const between = (from, to) => (from && to ? lasting((Date.parse(to) - Date.parse(from)) / 1000) : "");
/** A time of the server's: seconds since 1970, or a text. */
export const timeOf = (at) => (typeof at === "number" ? at * 1000 : Date.parse(at));

/** Why what is shown of a job is not what there is on its machine. */
export function awayText(job) {
  const { since, away } = job.unreachable;
  const what = away ? `${placeOf(job)} cannot be reached since ${when(since)}` : `${isOver(job) ? "What it has made does not come" : "No news come"} from ${placeOf(job)} since ${when(since)}`;
  return `${what}${isOver(job) ? (away ? "; what it has made is still there." : ".") : "; the job goes on there."}`;
}

/** How far what a job has made has come from its machine. */
export const comesText = (job) => `its results come: ${job.comes}`;

/** What stands below a job's title in the list. */
export function summary(job) {
  const step = STEPS[job.step] ?? job.step;
  const { progress } = job;
  if (job.comes) return `${step}, ${comesText(job)}`;
  if (job.unreachable) return `${step}, ${awayText(job)}`;
  if (job.stopping) return `${step}, was asked to stop`;
  if (job.state === "running") {
    const share = shareOf(progress);
    return [step, share == null ? null : `${Math.floor(100 * share)} %`, progress?.seconds_left != null && `${lasting(progress.seconds_left)} left`, placeOf(job)].filter(Boolean).join(", ");
  }
  if (job.state === "queued") return [step, job.reason || `waits, ${placeOf(job)}`].join(", ");
  if (job.state === "succeeded") return [step, between(job.started_at, job.ended_at), job.ended_at && when(job.ended_at)].filter(Boolean).join(", ");
  return [step, job.reason ?? (job.ended_at && when(job.ended_at))].filter(Boolean).join(", ");
}

export const shareOf = (progress) => (progress?.total ? Math.min(1, progress.done / progress.total) : null);

export const bytes = (value) => {
  if (value == null) return "";
  const gib = value / 2 ** 30;
  return gib >= 100 ? `${Math.round(gib)} GiB` : gib >= 0.1 ? `${gib.toFixed(1)} GiB` : `${Math.round(value / 2 ** 20)} MiB`;
};

/** "51.2 of 80.0 GiB". */
export function ofBytes(part, whole) {
  const [few, all] = [bytes(part), bytes(whole)];
  return `${few.split(" ")[1] === all.split(" ")[1] ? few.split(" ")[0] : few} of ${all}`;
}

/** A figure with about three digits. */
export function figure(value) {
  if (value == null || !Number.isFinite(value)) return "";
  const size = Math.abs(value);
  const text = size && (size < 0.001 || size >= 1e6) ? value.toExponential(1) : size >= 1000 ? Math.round(value).toLocaleString("en-US") : String(Number(value.toPrecision(3)));
  return text.replace("-", "−").replace("e−", "e-").replace("e+", "e");
}

/** What the address says. */
export function stateOf(address) {
  const asked = new URLSearchParams(address);
  return {
    job: asked.get("job"), run: asked.get("run"), curve: asked.get("curve") ?? "loss", compare: asked.getAll("with").slice(0, 4),
    filters: { state: asked.getAll("state").filter((one) => one in STATES), step: asked.getAll("step").filter((one) => one in STEPS), text: asked.get("text") ?? "" },
  };
}

export function addressOf({ job, run, curve, compare, filters }) {
  const found = query({ job, run, curve: curve === "loss" ? null : curve, with: compare, ...filters });
  return found.size ? `?${found}` : "";
}
