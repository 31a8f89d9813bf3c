// How a job was made: its command, where it runs, what differs from the recipe, and every attempt.

import { button, h, when } from "./dom.js";
import * as api from "./training.js";

/** The panel beside the log. */
export class Facts {
  constructor(page) {
    this.page = page;
    this.copy = button("Copy", () => this.copyCommand(), { name: "copy", small: true, quiet: true });
    this.title = h("h2", { class: "d-grow" });
    this.command = h("code", { class: "t-cmd", tabindex: "0", role: "region", "aria-label": "Command line" });
    this.list = h("dl", { class: "t-facts left" });
    this.tries = h("ol", { class: "t-tries", "aria-label": "Attempts" });
    this.node = h("section", { class: "t-card", "aria-label": "Command" }, h("div", { class: "t-head" }, this.title, this.copy), this.command, this.list, this.tries);
  }

  paint(job) {
    const key = JSON.stringify([job.job_id, job.attempts, job.command, job.state]);
    if (key === this.key) return;
    this.key = key;
    const shown = Boolean(job.admin && job.command);
    this.title.textContent = shown ? "Command" : "Details";
    this.node.setAttribute("aria-label", this.title.textContent);
    this.copy.hidden = this.command.hidden = !shown;
    this.command.textContent = folded(job.command);
    const devices = job.attempts.at(-1).devices.filter((name) => name !== "cpu");
    const changes = job.changes ? `${job.changes} ${job.changes === 1 ? "change" : "changes"}` : "";
    const rows = [
      ["Target", [api.placeOf(job), devices.length && devices.join(", ")].filter(Boolean).join(", ")],
      ["Recipe", [job.recipe, changes].filter(Boolean).join(", ")], ...job.overrides.map((one) => ["", one]),
      job.cloned_from && ["Cloned from", h("a", { href: this.page.address(job.cloned_from), on: { click: (event) => this.visit(event, job.cloned_from) } }, job.cloned_from)],
      ["Code", job.code_version], ["Job", job.job_id],
    ].filter((row) => row && row[1]);
    this.list.replaceChildren(...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", { class: name ? null : "d-mono", dir: "auto" }, value)]));
    this.tries.hidden = job.attempts.length < 2;
    this.tries.replaceChildren(...[...job.attempts].reverse().map((one) => h(
      "li", {}, api.stateTag(one.state), h("span", {}, `Attempt ${one.number}`),
      h("span", { class: "d-muted" }, [one.started_at && when(one.started_at), one.ended_at && api.between(one.started_at, one.ended_at), one.host, one.scheduler_id && `Slurm ${one.scheduler_id}`, one.resumed_from != null && `from checkpoint ${one.resumed_from}`].filter(Boolean).join(", ")),
    )));
  }

  visit(event, id) {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    this.page.open(id);
  }

  async copyCommand() {
    this.page.toast(await copied(this.page.job.command, this.command));
  }
}

/** Copy a command, or mark it where the browser does not let us; what to tell. */
export async function copied(command, node) {
  try {
    await navigator.clipboard.writeText(command);
    return "The command is copied.";
  } catch {
    getSelection().selectAllChildren(node);
    return "Press Ctrl+C: the browser does not let us copy it.";
  }
}

/** A command with each of its options on a line of its own, as a shell takes it too. */
export const folded = (command) => command.split("\n").map((line) => line.replace(/ (?=--)/g, " \\\n  ")).join("\n");
