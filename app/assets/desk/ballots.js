// Blind votes: two captions without names, what one thinks of them, and what all votes add up to.

import { button, h, icon, number } from "./dom.js";
import { digits } from "./figures.js";
import { lookOf, named } from "./series.js";
import { Zoom } from "./zoom.js";

export const OUTCOMES = { left: ["A is better", "1"], right: ["B is better", "2"], tie: ["Tie", "T"], both_bad: ["Both bad", "B"] };

/** The ballot that is shown; `page` (of voting.js) has `vote(outcome)`, `stay`, `noted`, `takeBack`, `step(where)` and `onward`. */
export class Booth {
  constructor(page) {
    this.zoom = new Zoom();
    this.question = h("h1", { class: "d-grow", dir: "auto" });
    this.where = h("span", { class: "d-num d-muted" });
    this.back = button("Previous pair", () => page.step("previous"), { name: "left", quiet: true, bare: true, title: "Previous pair (K)" });
    this.forward = button("Next pair", () => page.step("next"), { name: "right", quiet: true, bare: true, title: "Next pair (J)" });
    this.voted = h("span", { class: "d-num" });
    this.bar = h("i");
    this.progress = h("span", { class: "d-bar", role: "progressbar", "aria-label": "Your votes", "aria-valuemin": "0" }, this.bar);
    this.outcome = h("div", { class: "c-outcome" });
    const about = h(
      "div", { class: "c-about" }, h("h2", {}, "Which caption describes the image better?"),
      h("p", { class: "d-muted" }, "Order and names are hidden. Judge the content; length alone is no merit."),
      h("div", { class: "c-voted" }, h("p", {}, h("span", { class: "d-muted" }, "Your votes"), this.voted), this.progress), this.outcome,
    );
    this.heads = ["A", "B"].map((name) => h("h2", {}, name));
    this.texts = this.heads.map(() => h("p", { class: "c-text", dir: "auto" }));
    this.pair = h("div", { class: "c-pair", tabindex: "0", role: "region", "aria-label": "Captions A and B" }, this.heads.map((head, at) => h("article", {}, head, this.texts[at])));
    this.note = h("input", { class: "c-input", placeholder: "Note", maxlength: "4000", autocomplete: "off", on: { focus: () => page.stay(), change: () => page.noted() } });
    this.buttons = Object.entries(OUTCOMES).map(([outcome, [label, key]]) => button(label, () => page.vote(outcome), { keys: key, data: { outcome } }));
    this.on = button("Next", () => page.onward(), { primary: true, keys: "↵" });
    this.takeBack = button("Take back", () => page.takeBack(), { name: "undo", quiet: true, title: "Take back (U)" });
    this.node = h(
      "section", { class: "c-card c-booth", "aria-label": "Vote", hidden: true },
      h("header", {}, this.question, this.where, this.back, this.forward), h("div", { class: "c-side" }, this.zoom.node, about), this.pair,
      h("div", { class: "c-vote", role: "group", "aria-label": "Your vote" }, this.buttons, h("label", { class: "d-grow" }, h("span", { class: "d-sr" }, "Note"), this.note), this.takeBack, this.on),
    );
  }

  /** Until a ballot comes there is nothing to vote on. */
  clear() {
    this.ballot = null;
    for (const control of [...this.buttons, this.note, this.takeBack, this.on, this.back, this.forward]) control.disabled = true;
  }

  /** Show a ballot with its picture; names are there once there is a vote. */
  paint(ballot, picture, all) {
    const other = this.ballot?.prompt_id !== ballot.prompt_id;
    this.ballot = ballot;
    const { vote } = ballot;
    this.question.textContent = ballot.question;
    this.where.textContent = `${number(ballot.position)} / ${number(ballot.total)}`;
    this.back.disabled = !ballot.previous;
    this.forward.disabled = !ballot.next;
    if (other) {
      this.zoom.show(picture, `Image of the question: ${ballot.question}`);
      this.pair.scrollTop = 0;
      this.note.value = vote?.note ?? "";
    }
    [ballot.left, ballot.right].forEach((text, at) => {
      this.texts[at].textContent = text.trim() ? text : "The model said nothing.";
      const model = vote && [vote.left, vote.right][at];
      this.heads[at].replaceChildren(at ? "B" : "A", model ? named(model, lookOf(model, all)) : "");
    });
    this.voted.textContent = `${number(ballot.voted)} / ${number(ballot.total)}`;
    this.progress.setAttribute("aria-valuenow", ballot.voted);
    this.progress.setAttribute("aria-valuemax", ballot.total);
    this.bar.style.width = `${(100 * ballot.voted) / Math.max(1, ballot.total)}%`;
    for (const control of [...this.buttons, this.note]) control.disabled = false;
    for (const node of this.buttons) node.setAttribute("aria-pressed", String(node.dataset.outcome === vote?.outcome));
    this.takeBack.disabled = !vote;
    this.on.disabled = !vote || !ballot.upcoming;
    const same = ballot.same ? h("p", { class: "d-muted" }, `${number(ballot.same)} left out: both models say the same.`) : "";
    this.outcome.replaceChildren(vote ? h("p", {}, icon("check"), h("b", {}, wordsOf(vote))) : h("p", { class: "d-muted" }, "Names show when you have voted."), same);
  }
}

/** A vote in words. */
export function wordsOf(vote) {
  if (vote.outcome === "tie") return "You found both equally good.";
  if (vote.outcome === "both_bad") return "You found both bad.";
  return `You preferred ${vote[vote.outcome]}.`;
}

/** What all votes add up to. */
export function resultsCard(found, all) {
  const { first, second, total, rate, images, voters, outdated } = found;
  const count = total.first + total.second + total.tie + total.both_bad;
  if (!count) return [h("p", { class: "d-muted" }, `No votes on ${first} and ${second} yet.`), outdatedLine(outdated)];
  const decided = total.first + total.second + total.tie;
  const share = rate && `won ${digits(rate.value)} % of ${number(decided)} ${decided === 1 ? "vote" : "votes"}, ${digits(rate.low)} to ${digits(rate.high)}`;
  const columns = [first, second, "Tie", "Both bad"];
  const cells = (one) => [one.first, one.second, one.tie, one.both_bad].map((value) => h("td", { class: "d-num" }, number(value)));
  return [
    rate ? h("p", {}, named(first, lookOf(first, all)), " ", share) : h("p", { class: "d-muted" }, "All votes found both bad."),
    h(
      "details", {}, h("summary", {}, icon("right"), `By voter: ${number(voters.length)}`),
      h("p", { class: "d-muted" }, `On ${number(images)} ${images === 1 ? "image" : "images"}. A tie counts half, both bad is left out; ${Math.round(100 * found.confidence)} % interval.`),
      h(
        "div", { class: "c-scroll", tabindex: "0", role: "region", "aria-label": "Votes by voter" },
        h(
          "table", { class: "c-votes" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Voter"), columns.map((name) => h("th", { scope: "col", class: "d-num" }, h("bdi", {}, name))))),
          h("tbody", {}, voters.map((one) => h("tr", {}, h("th", { scope: "row" }, h("bdi", {}, one.voter)), cells(one)))),
          h("tfoot", {}, h("tr", {}, h("th", { scope: "row" }, "All"), cells(total))),
        ),
      ),
    ),
    outdatedLine(outdated),
  ];
}

const outdatedLine = (count) => (count ? h("p", { class: "d-muted" }, `${number(count)} on captions that have been made anew since are not counted.`) : "");
