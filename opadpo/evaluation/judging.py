"""Answers that a model judges: asked once, kept, and never scored where the judgement cannot be read."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from opadpo.errors import DataError
from opadpo.evaluation.benchmark import Context, Row
from opadpo.llm.asking import Asker
from opadpo.llm.requests import ChatRequest, Failure, Message
from opadpo.llm.store import RequestStore
from opadpo.llm.working import Asking, Work, carry_out

Judgement = TypeVar("Judgement")


@dataclass(frozen=True)
class Case:
    """One answer to judge."""

    row: Row
    """The answer and its question."""
    known: dict[str, Any]
    """What the benchmark's files know of the question."""
    messages: tuple[Message, ...]
    """What the judge is told."""


@dataclass(frozen=True)
class Judge(Generic[Judgement]):
    """How a benchmark has answers judged."""

    title: str
    """For progress."""
    read: Callable[[str], Judgement | None]
    """The judgement in the judge's answer; None if there is none, or more than one."""
    again: str
    """Told to a judge whose answer could not be read."""
    schema: dict[str, Any] | None = None
    """JSON schema of an answer, where the server honours it."""
    temperature: float = 0.0
    """Of the judge."""


class Judged(NamedTuple, Generic[Judgement]):
    """A case with its judgement."""

    case: Case
    """What was judged."""
    judgement: Judgement
    """What the judge said, read."""
    text: str
    """What the judge said."""
    model: str
    """The judge, as its server names it."""


def judge(
    cases: Sequence[Case], how: Judge[Judgement], context: Context
) -> tuple[list[Judged[Judgement]], dict[str, int]]:
    """Have every case judged; returns (those with a judgement, in order; why others have none -> how many).

    What was judged before is not asked again. An answer that cannot be read is sent back once.

    Raises:
        Busy: if another process has answers judged.
        CostRefused, BudgetReached, EndpointError, StepFailed, UserError: as `llm.working.carry_out`.
        DataError: if different models have judged: such figures mean nothing together.
    """
    section = context.section.judge
    found: dict[int, Judged[Judgement] | Failure] = {}

    async def talk(place: int, asker: Asker) -> Judged[Judgement] | Failure:
        case, requests = cases[place], [_request(cases[place].messages, how, context)]
        for _ in range(2):
            answer = await asker.ask(requests[-1])
            if isinstance(answer, Failure):
                return answer
            judgement = how.read(answer.text)
            if judgement is not None:
                return Judged(case, judgement, answer.text, answer.model or section.endpoint.model)
            turns = (*requests[-1].messages, Message("assistant", answer.text), Message("user", how.again))
            requests.append(_request(turns, how, context))
        failure = Failure(kind="unusable_answer", reason="no judgement in the judge's answer", retryable=True)
        asker.reject(requests[:2], failure)
        return failure

    with context.judging(), RequestStore.open(context.judge_db) as store:
        asking = Asking(section, store, context.progress, retry_failed=context.retry_failed, agree=context.agree)
        carry_out(Work(how.title, lambda: iter(range(len(cases))), talk, found.__setitem__), asking)
    outcomes = [found[place] for place in range(len(cases))]
    judged = [outcome for outcome in outcomes if not isinstance(outcome, Failure)]
    _one_judge(judged)
    return judged, dict(Counter(outcome.reason for outcome in outcomes if isinstance(outcome, Failure)).most_common())


def _request(messages: tuple[Message, ...], how: Judge[Any], context: Context) -> ChatRequest:
    section = context.section.judge
    return ChatRequest(
        model=section.endpoint.model,
        messages=messages,
        schema=how.schema,
        schema_name="judgement",
        temperature=how.temperature,
        max_tokens=section.max_tokens,
        expected_tokens=150,
    )


def _one_judge(judged: Sequence[Judged[Any]]) -> None:
    models = sorted({each.model for each in judged})
    if len(models) > 1:
        raise DataError(
            "Different models have judged, so their figures cannot be put together",
            seen=", ".join(models),
            remedy="name one exact version of the model in evaluate.judge.endpoint.model, and run the command again",
        )
