"""What the page compares: a set's prompts, and one model's captions of them with what a benchmark found in each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from opadpo.damage import damaged
from opadpo.evaluation.benchmark import Benchmark
from opadpo.evaluation.result import Evaluation, read_evaluation
from opadpo.steps.benchmarks import BENCHMARKS
from opadpo.steps.sets import prompts_of_set
from opadpo.workspace import Workspace

_FIELDS = ("prompt_id", "response", "response_token_ids", "finish_reason", "adapter_hash")

_OBJECTS = ("hallucinated", "unjudged", "covered", "missed")


class Answer(NamedTuple):
    """What was answered to a yes-no question."""

    label: str
    """What is true."""
    predicted: str | None
    """What was said; None: neither."""


class Rating(NamedTuple):
    """What a judge thinks of an answer."""

    value: float
    """Higher is better."""
    reason: str
    """In the judge's own words."""


class Found(NamedTuple):
    """What a benchmark found in one caption."""

    mentioned: tuple[str, ...] = ()
    """Objects that it names, in order, repeats included."""
    hallucinated: tuple[str, ...] = ()
    """Those that are not in the image, each once."""
    unjudged: tuple[str, ...] = ()
    """Those that count neither way."""
    covered: tuple[str, ...] = ()
    """Objects of the image that it names, each once."""
    missed: tuple[str, ...] = ()
    """Objects of the image that it does not name."""
    answers: tuple[Answer, ...] = ()
    """Of yes-no questions: one for each time that the benchmark asks it."""
    rating: Rating | None = None
    """A judge's."""

    @property
    def wrong(self) -> float:
        """How many hallucinated objects, or wrong answers; of a judge's rating, the points that it has less."""
        points = self.rating.value if self.rating else 0
        return len(self.hallucinated) + sum(one.label != one.predicted for one in self.answers) - points


class Caption(NamedTuple):
    """One model's answer to a prompt."""

    text: str
    """What it said."""
    tokens: int
    """Number of generated tokens."""
    finish: str
    """`stop` or `length`."""
    adapter_hash: str
    """What made it."""


class Question(NamedTuple):
    """A prompt of a set."""

    prompt_id: str
    """Its id."""
    question: str
    """What is asked."""
    image_file: str
    """Relative to the set's folder."""


@dataclass(frozen=True)
class Questions:
    """The prompts of a set, in their order."""

    rows: tuple[Question, ...]
    """One per prompt."""

    @cached_property
    def place(self) -> Mapping[str, int]:
        """Prompt id -> place."""
        return {row.prompt_id: place for place, row in enumerate(self.rows)}


@dataclass(frozen=True)
class Column:
    """One model's captions of a set."""

    model: str
    """Its name."""
    captions: Mapping[str, Caption]
    """Prompt id -> caption."""
    found: Mapping[str, Found] = field(default_factory=dict)
    """Prompt id -> what a benchmark found; empty where it was not scored since the captions were made."""
    evaluation: Evaluation | None = None
    """Figures of these very captions, without their items."""

    @cached_property
    def folded(self) -> Mapping[str, str]:
        """Prompt id -> caption in one case, to search."""
        return {prompt: caption.text.casefold() for prompt, caption in self.captions.items()}


def image_address(set_name: str, prompt_id: str) -> str:
    """Where the app serves the image of a prompt."""
    return f"/api/compare/images?{urlencode({'set': set_name, 'prompt': prompt_id})}"


def benchmark_of_set(name: str) -> Benchmark | None:
    """The benchmark that scores a set; None if none does."""
    return next((benchmark for benchmark in BENCHMARKS.values() if benchmark.prompt_set == name), None)


def read_questions(workspace: Workspace, name: str) -> Questions:
    """The prompts of a set; raises as `prompts_of_set`."""
    return Questions(tuple(Question(p.prompt_id, p.question, p.image_file) for p in prompts_of_set(workspace, name)))


def read_column(workspace: Workspace, model: str, name: str) -> Column:
    """A model's captions, and what is known of them if they were scored as they are now.

    Raises:
        WorkspaceError: if captions or figures are damaged.
    """
    captions = _read_captions(workspace.captions(model, name))
    benchmark = benchmark_of_set(name)
    if benchmark is None:
        return Column(model, captions)
    path = workspace.evaluation(model, benchmark.name)
    evaluation = read_evaluation(path) if path.is_file() else None
    if evaluation is None or evaluation.provenance.captions != workspace.fingerprint(
        f"captions/{model}/{name}.parquet"
    ):
        return Column(model, captions)
    return Column(model, captions, _found(evaluation.items), evaluation.model_copy(update={"items": []}))


def _read_captions(path: Path) -> dict[str, Caption]:
    """Only the fields that are shown: token ids of thousands of captions would take most of the time and memory."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=list(_FIELDS))
        lengths = pc.call_function("list_value_length", [table["response_token_ids"]]).to_pylist()
        names, texts, ends, hashes = (
            table[name].to_pylist() for name in ("prompt_id", "response", "finish_reason", "adapter_hash")
        )
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise damaged(path, error) from error
    return {name: Caption(*rest) for name, *rest in zip(names, texts, lengths, ends, hashes, strict=True)}


def _found(items: Iterable[Mapping[str, Any]]) -> dict[str, Found]:
    """Prompt id -> what was found; a benchmark may have asked the same prompt several times."""
    result: dict[str, Found] = {}
    for item in items:
        prompt = item["prompt_id"]
        if "hallucinated" in item:
            once = {name: tuple(dict.fromkeys(item.get(name, ()))) for name in _OBJECTS}
            result[prompt] = Found(mentioned=tuple(item["mentioned"]))._replace(**once)
        elif "label" in item:
            before = result[prompt].answers if prompt in result else ()
            result[prompt] = Found(answers=(*before, Answer(item["label"], item["predicted"])))
        elif "reason" in item:
            # LLaVA-Bench's judge rates the reference, then the answer.
            value = item["scores"][-1] if "scores" in item else item["rating"]
            result[prompt] = Found(rating=Rating(value, item["reason"]))
    return result
