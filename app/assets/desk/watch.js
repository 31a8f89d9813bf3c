// Asking the server again and again, for as long as somebody sees the page or wants to be told.

/** Milliseconds: between rounds of a hidden page; after failures, from the first to the longest wait. */
const [HIDDEN, PATIENT, SLOWEST] = [15_000, 1000, 10_000];

const SILENT = "The server does not answer. Jobs go on without it; this page tries again by itself.";

/** Rounds of looks at the server by the page `root`. `lost` shows what is wrong while anything is; `wanted` says whether a hidden page has something to wait for. */
export class Watch {
  constructor(root, lost, wanted) {
    Object.assign(this, { root, lost, wanted, failures: 0, rounds: [], troubles: new Map() });
    document.addEventListener("visibilitychange", () => this.now());
    window.addEventListener("online", () => this.now());
  }

  /** Begin a round that calls `act` every `wait()` milliseconds. */
  every(wait, act) {
    const round = { wait, act };
    this.rounds.push(round);
    this.schedule(round);
  }

  /** What came of a look at `what`: all went well, or the trouble; one look does not make good what another could not see. */
  saw(what, trouble) {
    if (!trouble) this.troubles.delete(what);
    else if (!trouble.offline) this.troubles.set(what, trouble);
    this.failures = trouble?.offline ? this.failures + 1 : 0;
    const [told] = this.troubles.values();
    this.lost.hidden = this.failures ? this.failures < 2 : !told;
    const text = this.failures || !told ? SILENT : `${[told.told, told.seen].filter(Boolean).join(". ")}. What is shown may be old; this page tries again by itself.`;
    if (this.lost.lastChild.textContent !== text) this.lost.lastChild.textContent = text;
  }

  get delay() {
    if (document.hidden) return HIDDEN;
    return this.failures ? Math.min(SLOWEST, PATIENT * 2 ** Math.min(this.failures, 4)) : 0;
  }

  schedule(round) {
    clearTimeout(round.timer);
    round.timer = setTimeout(async () => {
      if (!this.root.isConnected) return;
      try {
        if (!document.hidden || this.wanted()) await round.act();
      } finally {
        this.schedule(round); // whatever went wrong, the next look may go well
      }
    }, this.delay || round.wait());
  }

  /** Look at everything at once. */
  async now() {
    if (document.hidden) return;
    await Promise.all(this.rounds.map((round) => round.act()));
    for (const round of this.rounds) this.schedule(round);
  }
}
