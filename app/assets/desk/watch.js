// Asking the server again and again, for as long as somebody sees the page or wants to be told.

/** Milliseconds: between rounds of a hidden page; after failures, from the first to the longest wait. */
const [HIDDEN, PATIENT, SLOWEST] = [15_000, 1000, 10_000];

/** Rounds of looks at the server by the page `root`. `lost` is shown while no answer comes; `wanted` says whether a hidden page has something to wait for. */
export class Watch {
  constructor(root, lost, wanted) {
    Object.assign(this, { root, lost, wanted, failures: 0, rounds: [] });
    document.addEventListener("visibilitychange", () => this.now());
    window.addEventListener("online", () => this.now());
  }

  /** Begin a round that calls `act` every `wait()` milliseconds. */
  every(wait, act) {
    const round = { wait, act };
    this.rounds.push(round);
    this.schedule(round);
  }

  /** Whether the server has answered the last look. */
  answered(yes) {
    this.failures = yes ? 0 : this.failures + 1;
    this.lost.hidden = yes || this.failures < 2;
  }

  get delay() {
    if (document.hidden) return HIDDEN;
    return this.failures ? Math.min(SLOWEST, PATIENT * 2 ** Math.min(this.failures, 4)) : 0;
  }

  schedule(round) {
    clearTimeout(round.timer);
    round.timer = setTimeout(async () => {
      if (!this.root.isConnected) return;
      if (!document.hidden || this.wanted()) await round.act();
      this.schedule(round);
    }, this.delay || round.wait());
  }

  /** Look at everything at once. */
  async now() {
    if (document.hidden) return;
    await Promise.all(this.rounds.map((round) => round.act()));
    for (const round of this.rounds) this.schedule(round);
  }
}
