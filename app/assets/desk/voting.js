// Voting blind, pair by pair: what is shown, what is sent, what follows.

import { Booth, resultsCard, wordsOf } from "./ballots.js";
import * as api from "./comparing.js";
import { h, number } from "./dom.js";

/** The voting half of the comparing page; `page` is that page. */
export class Voting {
  constructor(page) {
    this.page = page;
    this.booth = new Booth(this);
    this.node = this.booth.node;
    this.round = 0;
    this.sent = Promise.resolve();
  }

  /** What is shown is not voted on any more: another pair of models comes, or none. */
  leave() {
    this.booth.clear();
    this.round += 1;
  }

  /** Whoever begins to write stays at this ballot: one that was asked for before does not take its place any more. */
  stay() {
    this.page.newest("ballot");
  }

  /** Show a ballot: that of a prompt, or the first without a vote. */
  show(id) {
    return this.page.latest("ballot", async (current) => {
      const ballot = await api.ballot(this.page.state, id);
      if (!current()) return;
      if (ballot) this.vest(ballot);
      else await this.done(current);
    });
  }

  vest(ballot) {
    this.page.state.record = ballot.prompt_id;
    this.page.locate();
    this.node.hidden = false;
    this.page.blank.hidden = true;
    this.booth.paint(ballot, this.page.pictures.get(ballot.image), this.page.all);
    this.page.entitle(`Blind A/B, ${this.page.state.set}`);
    this.page.say(ballot.vote ? wordsOf(ballot.vote) : `Pair ${number(ballot.position)} of ${number(ballot.total)}`);
    if (ballot.upcoming) this.page.pictures.get(api.imageOf(this.page.state.set, ballot.upcoming));
  }

  async done(current) {
    const found = await api.results(this.page.state);
    if (!current()) return;
    this.page.empty("Nothing is left to vote on", `You have seen every pair of ${api.targetOf(this.page.state.models)} and ${api.referenceOf(this.page.state.models)} on which they differ.`, "Read, with the results", () => this.page.switchMode(false));
    this.page.blank.append(h("div", { class: "c-card c-results" }, h("div", {}, resultsCard(found, this.page.all))));
  }

  /** Do one thing after the other: each builds on what came of the last. */
  queue(act) {
    const told = (trouble) => this.page.toast(trouble.told, true);
    this.sent = this.sent.then(() => this.page.attempt(act, told));
    return this.sent;
  }

  /** Vote on the ballot that is shown. The same vote is on its way only once. */
  vote(outcome) {
    const { ballot, note } = this.booth;
    if (!ballot) return undefined;
    const body = { prompt_id: ballot.prompt_id, outcome, note: note.value.trim() };
    if (JSON.stringify(body) === JSON.stringify(this.coming)) return undefined;
    const { round } = this;
    const asked = { ...this.page.state };
    this.coming = body;
    return this.queue(async () => {
      try {
        const answer = await api.vote(asked, body);
        if (round === this.round && this.booth.ballot?.prompt_id === body.prompt_id) this.vest(answer);
      } finally {
        if (this.coming === body) this.coming = null;
      }
    });
  }

  /** The note has changed: a vote that is there, or on its way, gets it. */
  noted() {
    const { ballot } = this.booth;
    const outcome = this.coming?.prompt_id === ballot?.prompt_id ? this.coming?.outcome : ballot?.vote?.outcome;
    return outcome && this.vote(outcome);
  }

  /** Take the vote on this ballot back, also one that is on its way. */
  takeBack() {
    const { ballot } = this.booth;
    if (!ballot || this.taking) return undefined;
    const still = this.page.newest("ballot");
    this.taking = true;
    return this.queue(async () => {
      try {
        const here = this.booth.ballot?.prompt_id === ballot.prompt_id;
        const { vote } = here ? this.booth.ballot : ballot;
        if (!vote) return;
        await api.withdraw(vote.vote_id);
        this.page.toast("The vote is taken back.");
        if (still()) await this.show(ballot.prompt_id);
      } finally {
        this.taking = false;
      }
    });
  }

  onward() {
    if (!this.booth.ballot?.vote) return undefined;
    return this.show(this.booth.ballot.upcoming);
  }

  /** Show the ballot before or after this one. */
  step(where) {
    const id = this.booth.ballot?.[where];
    return id ? this.show(id) : undefined;
  }

  writeNote() {
    this.booth.note.focus();
  }

  voteLeft() {
    return this.vote("left");
  }

  voteRight() {
    return this.vote("right");
  }

  voteTie() {
    return this.vote("tie");
  }

  voteBothBad() {
    return this.vote("both_bad");
  }
}
