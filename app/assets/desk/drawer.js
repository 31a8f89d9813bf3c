// The open record beside the list: image, question, what the expert or a reviewer made of the response, where it is from.

import { stateTag } from "./cards.js";
import { wordDiff } from "./diff.js";
import { button, h, icon, marked, number, objectPair, scoreChip, when } from "./dom.js";
import { FINISH, modelOf, part } from "./look.js";
import { hidden, modelText } from "./sentences.js";

const DONE = { done: "accepted", rejected: "rejected", flagged: "flagged", failed: "failed" };

/** The drawer. `page` has `close`, `go(id)` and `copyLink`. */
export class Drawer {
  constructor(page) {
    this.page = page;
    const bare = { quiet: true, bare: true };
    this.name = h("h2", { class: "d-mono d-grow" });
    this.back = button("Previous record", () => page.go(this.record?.previous), { name: "left", title: "Previous record", ...bare });
    this.forward = button("Next record", () => page.go(this.record?.next), { name: "right", title: "Next record", ...bare });
    const head = h(
      "header", {}, this.name,
      button("Copy a link to this record", () => page.copyLink(), { name: "link", title: "Copy a link (L)", ...bare }),
      this.back, this.forward,
      button("Close", () => page.close(), { name: "x", title: "Close (Esc)", ...bare }),
    );
    this.body = h("div", { class: "r-body", tabindex: "0", role: "region", "aria-label": "Contents of the record" });
    this.review = h("a", { class: "d-btn primary", title: "Review (R)" }, "Review this record");
    this.flag = button("Flag", () => page.flag(), { title: "Flag with a note (F)", "aria-haspopup": "dialog", "aria-expanded": "false" });
    this.state = h("span", { class: "r-state" });
    this.place = h("span", { class: "d-muted d-num" });
    this.foot = h("div", { class: "r-foot" }, this.review, this.flag, this.state, h("span", { class: "d-grow" }), this.place);
    this.node = h("section", { class: "r-drawer", "aria-label": "Record", hidden: true }, head, this.body, this.foot);
  }

  get open() {
    return !this.node.hidden;
  }

  close() {
    this.node.hidden = true;
    this.record = null;
  }

  /** Show a record with its image, of `Pictures` in api.js; `review` is the address where it is reviewed. */
  paint(record, picture, review) {
    const { rollout, prompt } = record;
    this.begin(rollout.rollout_id, record);
    this.review.href = review;
    this.state.replaceChildren(stateTag(record.state));
    this.place.textContent = `${number(record.position)} of ${number(record.total)}`;
    this.body.replaceChildren(
      well(picture, `Image of the question: ${prompt.question}`),
      part("Question", prompt.question),
      this.response(record),
      prompt.reference ? part("Reference answer", prompt.reference) : "",
      facts(record),
    );
  }

  /** Say why there is nothing to show. */
  fail(id, trouble) {
    this.begin(id, null);
    this.body.replaceChildren(h("h3", {}, trouble.what), h("p", { class: "d-muted" }, trouble.more));
  }

  begin(id, record) {
    this.record = record;
    this.node.hidden = false;
    this.node.setAttribute("aria-label", `Record ${id}`);
    this.name.textContent = id;
    this.name.title = id;
    this.foot.hidden = !record;
    this.back.disabled = !record?.previous;
    this.forward.disabled = !record?.next;
    this.body.scrollTop = 0;
  }

  response({ rollout, current }) {
    if (!current) return part("Response", rollout.response.trim() ? rollout.response : "No text", !rollout.response.trim());
    const whose = current.author_kind === "expert" ? "the expert" : current.author;
    return h("div", {}, h("h3", { class: "d-label" }, `Response, revised by ${whose}`), h("ol", { class: "r-sentences" }, current.sentences.map(sentence)));
  }
}

function well(picture, alt) {
  const frame = h("div", { class: "r-well" }, picture);
  picture.alt = alt;
  picture.ready.then(() => picture.naturalWidth || frame.replaceChildren(h("p", { class: "r-none" }, "The image cannot be shown.")));
  return frame;
}

function sentence(item) {
  const unseen = hidden(item.original + item.revised);
  const changed = item.kind !== "kept";
  const notes = [
    changed && item.objects.map((object) => h("span", { class: "d-pair" }, objectPair(object))),
    unseen.length > 0 && h("span", { class: "d-tag warn" }, icon("alert"), `Hidden characters ${unseen.join(", ")}`),
    changed && item.reason && h("span", { class: "d-reason", dir: "auto" }, item.reason),
  ];
  const some = unseen.length || (changed && (item.objects.length || item.reason));
  return h(
    "li", {}, scoreChip(item.score, item.kind),
    h("div", {}, h("p", { dir: "auto" }, marked(wordDiff(modelText(item), item.revised.trim()))), some ? h("p", { class: "r-notes" }, notes) : ""),
  );
}

function facts({ rollout, prompt, history }) {
  const { temperature, top_k, top_p } = rollout.sampling;
  const said = (step) => (step.author_kind === "human" ? `${step.author} ${step.withdrawn ? "took back" : DONE[step.status]}` : step.author_kind === "expert" ? "Expert" : step.author);
  const steps = history.map((step) => h("span", { class: "r-step" }, `${said(step)} ${when(step.created_at)}`));
  const pairs = [
    ["Model", modelOf(rollout)],
    ["Sampling", temperature ? `temperature ${temperature}, top-k ${top_k}, top-p ${top_p}` : "greedy"],
    ["Source", [prompt.source, prompt.subset, `sample ${rollout.sample_index + 1}`].filter(Boolean).join(", ")],
    ["Length", `${number(rollout.tokens)} tokens, ${FINISH[rollout.finish_reason] ?? rollout.finish_reason}`],
    ["Revisions", steps.length ? steps : "none"],
  ];
  return h("dl", { class: "d-facts" }, pairs.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}
