// What is looked at: the image, the question, the reference, the expert's description, where the record comes from.

import { h, icon, number } from "./dom.js";
import { Zoom } from "./zoom.js";

export const FINISH = { stop: "finished", length: "cut at the limit" };

/** The left column. Its parts keep their places from record to record. */
export class Look {
  constructor() {
    this.zoom = new Zoom();
    this.body = h("div", { class: "d-body" });
    this.node = h("section", { class: "d-look", "aria-label": "Image and question", tabindex: "0" }, this.zoom.node, this.body);
    this.open = false;
  }

  paint(record, picture) {
    const { prompt, rollout, expert } = record;
    this.zoom.show(picture, `Image of the question: ${prompt.question}`);
    this.node.scrollTop = 0;
    this.body.replaceChildren(
      part("Question", prompt.question),
      part("Reference answer", prompt.reference || "There is none.", !prompt.reference),
      ...(expert?.image_description ? [this.description(expert.image_description)] : []),
      facts(record, rollout),
    );
  }

  description(text) {
    const fold = h(
      "details",
      { open: this.open, on: { toggle: () => (this.open = fold.open) } },
      h("summary", {}, icon("right"), "Expert's description of the image"),
      h("p", { class: "d-text", dir: "auto" }, text),
    );
    this.fold = fold;
    return fold;
  }

  /** Open or close the expert's description. */
  toggle() {
    if (!this.fold?.isConnected) return false;
    this.fold.open = !this.fold.open;
    return true;
  }
}

/** A text under a title. */
export function part(title, text, muted) {
  return h("div", {}, h("h2", { class: "d-label" }, title), h("p", { class: muted ? "d-text d-muted" : "d-text", dir: "auto" }, text));
}

/** What sampled a rollout, in short. */
export const modelOf = (rollout) => `${String(rollout.model).split("/").at(-1).split("@")[0]}, ${rollout.adapter}`;

function facts(record, rollout) {
  const tokens = rollout.tokens ?? rollout.response_token_ids?.length;
  const scores = (record.expert?.sentences ?? []).map((sentence) => sentence.score).filter(Boolean);
  const kept = scores.filter((score) => score === 4).length;
  const mean = scores.reduce((sum, score) => sum + score, 0) / scores.length;
  const pairs = [
    ["Model", `${modelOf(rollout)}, sample ${rollout.sample_index + 1}`],
    tokens != null && ["Response", `${number(tokens)} tokens, ${FINISH[rollout.finish_reason] ?? rollout.finish_reason}`],
    ["Expert", scores.length ? `${kept} of ${scores.length} kept, mean score ${mean.toFixed(1)}` : "not revised"],
    ["Source", [record.prompt.source, record.prompt.subset].filter(Boolean).join(", ")],
    ["Record", rollout.rollout_id],
  ];
  return h("dl", { class: "d-facts" }, pairs.filter(Boolean).map(([name, value]) => [h("dt", {}, name), h("dd", { class: name === "Record" ? "d-mono" : null }, value)]));
}
