// Voting blind, pair by pair: what is shown, what is sent, what follows.

import { Trouble } from "./api.js";
import { Booth, resultsCard, wordsOf } from "./ballots.js";
import * as api from "./comparing.js";
import { h, number } from "./dom.js";

/** The voting half of the comparing page; `page` is that page. */
export class Voting {
  constructor(page) {
    this.page = page;
    this.booth = new Booth(this);
    this.node = this.booth.node;
  }

  /** Show a ballot: that of a prompt, or the first without a vote. */
  async show(id) {
    const current = this.page.newest("ballot");
    await this.page.attempt(async () => {
      const ballot = await api.ballot(this.page.state, id);
      if (!current()) return;
      if (ballot) this.vest(ballot);
      else await this.done();
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

  async done() {
    const found = await api.results(this.page.state);
    this.page.empty("Nothing is left to vote on", `You have seen every pair of ${api.targetOf(this.page.state.models)} and ${api.referenceOf(this.page.state.models)} on which they differ.`, "Read, with the results", () => this.page.switchMode(false));
    this.page.blank.append(h("div", { class: "c-card c-results" }, h("div", {}, resultsCard(found, this.page.all))));
  }

  async vote(outcome) {
    const ballot = this.booth.ballot;
    if (!ballot || this.busy) return;
    this.busy = true;
    try {
      const answer = await api.vote(this.page.state, { prompt_id: ballot.prompt_id, outcome, note: this.booth.note.value.trim() });
      if (this.page.state.blind && this.page.state.record === ballot.prompt_id) this.vest(answer);
    } catch (trouble) {
      if (!(trouble instanceof Trouble)) throw trouble;
      this.page.toast([trouble.what, trouble.remedy].filter(Boolean).join(". "), true);
    } finally {
      this.busy = false;
    }
  }

  async takeBack() {
    const ballot = this.booth.ballot;
    if (!ballot?.vote) return;
    await this.page.attempt(async () => {
      await api.withdraw(ballot.vote.vote_id);
      await this.show(ballot.prompt_id);
      this.page.toast("The vote is taken back.");
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
