"""What a benchmark is to the rest of the program: its questions, its figures, and which of them is better where."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from opadpo.evaluation.figures import Figures
from opadpo.llm.estimate import Estimate
from opadpo.progress import Progress
from opadpo.recipe.sections import EvaluateSection
from opadpo.records import Caption, Prompt

Direction = Literal["lower", "higher"]


class Question(NamedTuple):
    """A question of a benchmark, as its files have it."""

    image: str
    """Name of the image file."""
    text: str
    """What is asked."""
    known: dict[str, Any]
    """What scoring needs to know of it; its number is `id`."""


@dataclass(frozen=True)
class BenchmarkSet:
    """Questions and images of a benchmark, made from its files into a set of prompts.

    The same question about the same image is one prompt, however often the files ask it: its `extra[KEY]` is the list
    of what the files know of it each time.
    """

    name: str
    """Of the set, as in `captions/<model>/<set>.parquet`."""
    release: str
    """Key of the files in `opadpo.evaluation.files.RELEASES` and in the recipe's `evaluate.files`."""
    key: str
    """Where prompts keep what is known, in `Prompt.extra`."""
    files: tuple[str, ...]
    """Names of the files that it is made from."""
    questions: Callable[[Mapping[str, Path], EvaluateSection], list[Question]]
    """Reads them."""
    kept: tuple[str, ...] = ()
    """Files that scoring reads as well; they are copied into the set."""
    settings: tuple[str, ...] = ()
    """Settings of `evaluate` that the questions depend on."""


class Row(NamedTuple):
    """A caption and the prompt that it answers."""

    caption: Caption
    prompt: Prompt


@dataclass(frozen=True)
class Context:
    """What scoring may read beside the rows."""

    section: EvaluateSection
    """The recipe's settings."""
    files: Path
    """Folder with the files that the set has kept."""
    progress: Progress
    """Told about long work."""
    judge_db: Path
    """Where a judge's answers are kept."""
    judging: Callable[[], AbstractContextManager[None]]
    """Held while a judge is asked: two runs at once would pay twice, and spend the budget twice."""
    retry_failed: bool = False
    """Ask a judge again where it has failed before."""
    agree: Callable[[Estimate], bool] | None = None
    """Asks a person whether a judge's price is all right; None if nobody is there."""


@dataclass(frozen=True)
class Scored:
    """What scoring gives."""

    items: list[dict[str, Any]]
    """One per question that was scored, in the order of the rows; see `item`."""
    failures: dict[str, int] = field(default_factory=dict)
    """Why questions could not be judged -> how many."""
    printed: dict[str, Any] = field(default_factory=dict)
    """What the authors' script prints, where it rounds on the way."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What else the figures depend on (the judge's exact model), for the provenance."""


@dataclass(frozen=True)
class Benchmark:
    """One entry of the registry."""

    name: str
    """As in the recipe and in `evaluations/<model>/<benchmark>.json`."""
    title: str
    """For people."""
    prompt_set: str
    """The captions that it reads."""
    score: Callable[[Sequence[Row], Context], Scored]
    """Counts what is in the captions."""
    figures: Figures
    """Metrics in percent from sums of counts."""
    hallucination: str | None
    """The metric that says how much is made up; lower is better. None where the benchmark has none."""
    coverage: str
    """The metric that says how much is told or granted, so that silence cannot pass for honesty; higher is better."""
    directions: Mapping[str, Direction]
    """Metric (without its group) -> which way is better; those that are neither are left out."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Metric (without its group) -> what it is counted in, where that is not percent."""
    yes_no: bool = False
    """Whether items are right or wrong answers: accuracies are then compared by McNemar's test."""
    settings: tuple[str, ...] = ()
    """Settings of `evaluate` that the figures depend on."""

    def direction(self, metric: str) -> Direction | None:
        """Which way a metric is better; None where neither is."""
        return self.directions.get(metric.rpartition("/")[2])

    def unit(self, metric: str) -> str:
        """What a metric is counted in."""
        return self.units.get(metric.rpartition("/")[2], "%")

    @property
    def main(self) -> list[str]:
        """The metrics that every summary shows: what is made up, and beside it what is told."""
        return [name for name in (self.hallucination, self.coverage) if name]


def item(row: Row, counts: Mapping[str, int], *, question: int | str = 0, **details: Any) -> dict[str, Any]:
    """A row of `Evaluation.items`.

    Args:
        row: the caption and its prompt.
        counts: what `Benchmark.figures` sums.
        question: number of the question in the benchmark's files; it tells those of one prompt apart.
        details: what was found in the caption.
    """
    return {
        "prompt_id": row.prompt.prompt_id,
        "image_id": row.prompt.image_id,
        "question": question,
        "counts": dict(counts),
        **details,
    }
