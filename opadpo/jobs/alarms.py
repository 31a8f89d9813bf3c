"""What saves a night: signs in metrics and usage that a job goes wrong, each told once per episode.

The functions that judge are pure; `Alarms` remembers what they need and what is told already.
"""

import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from opadpo.recipe.jobs import AlarmKind, AlarmsSection

RECENT, FEWEST, WINDOW = 5, 10, 100
"""Losses that count as the present; the fewest and the most before them that they are compared with."""
QUARTERS = 4
FALLS = 5.0
"""A slope this many standard errors below 0 is a fall and no noise."""
SMALL_DRIFT = 0.25
"""Chosen rewards above minus this are still near where training started: good runs of the toy wander to -0.15, those
that lose their chosen responses pass -1."""
FEWEST_FALLING = 12
"""Lines below which nothing is said about a fall, however few updates are asked for."""
SKIPPED = 3
"""Gradients that are not finite, one after another: a single one is float16 finding its scale."""


class Alarm(BaseModel):
    """One sign that a job goes wrong."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    id: str
    """Unique within the job."""
    kind: AlarmKind
    """What for."""
    run: str | None = None
    """The run whose metrics tell it."""
    step: int | None = None
    """The update where it began."""
    at: float
    """When it was noticed, seconds since 1970."""
    what: str
    """For people."""
    remedy: str
    """What to do."""
    key: dict[str, str] | None = None
    """`{"set": "section.key=value"}`: a setting with which a clone of the job could do better."""
    stopped: bool = False
    """Whether the job was stopped for it (`jobs.alarms.stop_on`)."""


class Finding(NamedTuple):
    """What a judge has seen."""

    what: str
    remedy: str
    step: int | None = None
    key: dict[str, str] | None = None


class Point(NamedTuple):
    """A logged update."""

    step: int
    chosen: float
    rejected: float


def bad_numbers(line: Mapping[str, Any], gradients_before: int = 0) -> Finding | None:
    """A loss that is not finite, or a gradient the SKIPPED-th time in a row (`gradients_before` were so before)."""
    bad = [str(key) for key in line.get("not_finite") or []]
    losses = [key for key in bad if key in ("loss", "eval_loss")]
    if losses:
        return _not_finite("loss", line.get("step"))
    if "grad_norm" in bad and gradients_before + 1 >= SKIPPED:
        return _not_finite("gradient", line.get("step"))
    return None


def bad_batch(report: Mapping[str, Any]) -> Finding:
    """Training has refused a batch (`bad_batch.json` of the run) and ended."""
    return _not_finite(str(report.get("what", "loss")), report.get("step"))


def _not_finite(what: str, step: Any) -> Finding:
    return Finding(
        f"The {what} is not finite at update {step}.",
        "Lower the learning rate, train in bfloat16 or float32, or look at the examples in the run's bad_batch.json.",
        step if isinstance(step, int) else None,
    )


def exploding(losses: Sequence[float], start: float, factor: float) -> bool:
    """Whether the newest losses are `factor` times those before them.

    Medians are compared, so that a spike is none; small losses may wander, up to a quarter of the loss at the `start`.
    """
    if factor <= 0 or len(losses) < RECENT + FEWEST:
        return False
    before = median(losses[:-RECENT])
    return median(losses[-RECENT:]) > factor * max(abs(before), abs(start) / 4) > 0


def falling_together(points: Sequence[Point]) -> bool:
    """Whether the rewards of both sides fall all along, and the chosen side has come well below where it started.

    That the rejected side falls is what training is for. When the chosen side goes down with it, the model makes both
    less likely, and something else more likely that nobody has chosen.
    """
    if len(points) < FEWEST_FALLING:
        return False
    chosen, rejected = [point.chosen for point in points], [point.rejected for point in points]
    if fmean(chosen[-len(chosen) // QUARTERS :]) > -SMALL_DRIFT:
        return False
    steps = [point.step for point in points]
    return all(_falls(steps, values) for values in (chosen, rejected))


def _falls(steps: Sequence[int], values: Sequence[float]) -> bool:
    size = len(values)
    edges = [size * number // QUARTERS for number in range(QUARTERS + 1)]
    means = [fmean(values[start:end]) for start, end in itertools.pairwise(edges)]
    if any(later >= earlier for earlier, later in itertools.pairwise(means)):
        return False
    step, value = fmean(steps), fmean(values)
    spread = sum((each - step) ** 2 for each in steps)
    if spread == 0:
        return False
    slope = sum((s - step) * (v - value) for s, v in zip(steps, values, strict=True)) / spread
    rest = sum((v - value - slope * (s - step)) ** 2 for s, v in zip(steps, values, strict=True))
    error = (rest / (size - 2) / spread) ** 0.5
    return slope < -FALLS * error


def idle_gpus(samples: Sequence[Mapping[str, Any]], minutes: float, below: float) -> list[int]:
    """Indexes of GPUs whose utilisation was below that in all samples of the last `minutes`, if there are that many."""
    if minutes <= 0 or not samples or samples[-1]["at"] - samples[0]["at"] < 60 * minutes:
        return []
    since = samples[-1]["at"] - 60 * minutes
    busiest: dict[int, float] = {}
    for sample in samples:
        if sample["at"] >= since:
            for gpu in sample["gpus"]:
                busiest[gpu["index"]] = max(busiest.get(gpu["index"], 0.0), gpu["utilization"] or 0.0)
    return sorted(index for index, most in busiest.items() if most < below)


def stronger_anchor(loss: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """(remedy, setting) against falling rewards for a run with these settings of the loss."""
    kind, coefficient = loss.get("anchor", "released"), float(loss.get("anchor_coef", 1.0))
    section = "train.opadpo.loss"
    if kind in ("chosen_up", "squared") and coefficient > 0:
        return (
            f"A stronger anchor helps: anchor_coef is {coefficient:g}. Or lower the learning rate.",
            {"set": f"{section}.anchor_coef={2 * coefficient:g}"},
        )
    now = f"anchor is {kind or 'none'}" + (", which pulls on the standard response only" * (kind == "released"))
    return (
        f"An anchor that holds both chosen responses up helps: {now}. Or lower the learning rate.",
        {"set": f"{section}.anchor=chosen_up"},
    )


class Alarms:
    """Watches one attempt of a job."""

    def __init__(self, settings: AlarmsSection, loss: Mapping[str, Any], *, number: int = 0) -> None:
        """`loss`: the settings of OPA-DPO's loss; `number`: alarms that the job has had in earlier attempts."""
        self.settings, self.loss, self.number = settings, loss, number
        self._on: dict[str, float] = {}
        self._samples: deque[Mapping[str, Any]] = deque()
        self._run: str | None = None
        self._forget_run()

    def metrics(self, line: Mapping[str, Any], at: float) -> list[Alarm]:
        """A further line of metrics; lines of a run come in order."""
        if line.get("run") != self._run:
            self._run = line.get("run")
            self._forget_run()
        step = int(line.get("step") or 0)
        raised = self._raise("not_finite", bad_numbers(line, self._bad_gradients), step, 100, at)
        self._bad_gradients = self._bad_gradients + 1 if "grad_norm" in (line.get("not_finite") or []) else 0
        if _number(line.get("loss")):
            self._losses.append(line["loss"])
            self._first.extend([line["loss"]] * (len(self._first) < RECENT))
            raised += self._raise("exploding", self._explosion(step), step, WINDOW, at)
        if _number(line.get("rewards/chosen")) and _number(line.get("rewards/rejected")):
            self._points.append(Point(step, line["rewards/chosen"], line["rewards/rejected"]))
            raised += self._raise("rewards_falling", self._fall(), step, 2 * self.settings.falling_steps, at)
        return raised

    def refused(self, report: Mapping[str, Any], at: float) -> list[Alarm]:
        """Training has ended at numbers that are not finite."""
        return self._raise("not_finite", bad_batch(report), float(report.get("step") or 0), 100, at)

    def usage(self, sample: Mapping[str, Any]) -> list[Alarm]:
        """A further sample of usage."""
        at, limit = sample["at"], self.settings.disk_free_gb * 1e9
        self._samples.append(sample)
        while len(self._samples) > 2 and self._samples[1]["at"] <= at - 60 * self.settings.idle_minutes:
            self._samples.popleft()
        raised: list[Alarm] = []
        if idle := idle_gpus(list(self._samples), self.settings.idle_minutes, self.settings.idle_below):
            names = f"GPU {idle[0]}" if len(idle) == 1 else f"GPUs {', '.join(map(str, idle))}"
            finding = Finding(
                f"{names} idle for {self.settings.idle_minutes:g} minutes.",
                "See the log for what the job waits for: data, another process, a server. A step that needs no GPU runs"
                " with gpus 0.",
            )
            raised += self._raise("gpu_idle", finding, at, 60 * self.settings.idle_minutes, at)
        free = sample.get("disk_free")
        if free is not None and (free < limit or ("disk_full" in self._on and free < 1.2 * limit)):
            finding = Finding(
                f"The disk is nearly full: {free / 1e9:.1f} GB left.",
                "Free some space, or lower keep_checkpoints: without room no checkpoint can be written.",
            )
            raised += self._raise("disk_full", finding, at, 60.0, at)
        return raised

    def stillness(self, since: float, at: float) -> list[Alarm]:
        """Nothing countable was done since then."""
        minutes = self.settings.no_progress_minutes
        if minutes <= 0 or at - since < 60 * minutes:
            return []
        finding = Finding(
            f"No progress for {minutes:g} minutes.",
            "See the log; if nothing moves any more, cancel the job and resume it: it continues from its checkpoint.",
        )
        return self._raise("no_progress", finding, at, 60.0, at)

    def _explosion(self, step: int) -> Finding | None:
        if not exploding(list(self._losses), median(self._first), self.settings.exploding_factor):
            return None
        before, recent = median(list(self._losses)[:-RECENT]), median(list(self._losses)[-RECENT:])
        return Finding(
            f"The loss explodes: {recent:.3g} at update {step}, {before:.3g} before.",
            "Lower the learning rate or max_grad_norm, or warm up longer; a resumed run continues from its checkpoint.",
            step,
        )

    def _fall(self) -> Finding | None:
        length = self.settings.falling_steps
        while len(self._points) > FEWEST_FALLING and self._points[0].step <= self._points[-1].step - length:
            self._points.popleft()
        if length <= 0 or self._points[-1].step - self._points[0].step < length - 1:
            return None
        if not falling_together(list(self._points)):
            return None
        remedy, key = stronger_anchor(self.loss)
        since = self._points[0].step
        return Finding(
            f"Chosen and rejected rewards have been falling together since step {since}.", remedy, since, key
        )

    def _raise(self, kind: AlarmKind, finding: Finding | None, position: float, quiet: float, at: float) -> list[Alarm]:
        """The alarm, if its episode is new: for longer than `quiet` (updates or seconds) it was not found."""
        if finding is None:
            return []
        last = self._on.get(kind)
        self._on[kind] = position
        if last is not None and 0 <= position - last <= quiet:
            return []
        self.number += 1
        of_run = kind in ("not_finite", "exploding", "rewards_falling")
        return [
            Alarm(
                id=f"{kind}-{self.number}",
                kind=kind,
                run=self._run if of_run else None,
                step=finding.step,
                at=at,
                what=finding.what,
                remedy=finding.remedy,
                key=finding.key,
                stopped=kind in self.settings.stop_on,
            )
        ]

    def _forget_run(self) -> None:
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._first: list[float] = []
        self._points: deque[Point] = deque()
        self._bad_gradients = 0
        for kind in ("not_finite", "exploding", "rewards_falling"):
            self._on.pop(kind, None)


def _number(value: Any) -> bool:
    return isinstance(value, int | float)
