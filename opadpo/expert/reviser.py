"""Revising one response: ask the expert, understand the answer, send it back once if it cannot be used."""

from collections.abc import Sequence
from dataclasses import dataclass

from opadpo.expert.instructions import SYSTEM, repair_text, task_text
from opadpo.expert.parsing import Reading, read_answer
from opadpo.expert.schema import answer_schema
from opadpo.llm.asking import Asker
from opadpo.llm.requests import Answer, ChatRequest, Failure, Message, Picture
from opadpo.llm.tokens import text_tokens
from opadpo.llm.wire import total_usage
from opadpo.recipe.sections import ReviseSection
from opadpo.records import Revision
from opadpo.text.revising import compose
from opadpo.text.sentences import split_sentences

_PROBLEMS_TOLD = 10
_PROBLEMS_KEPT = 3
_DESCRIPTION_TOKENS = 200
_ENTRY_TOKENS = 60
"""Of an answer: its description of the image, and what each sentence has besides its text."""


@dataclass(frozen=True, slots=True)
class Task:
    """One response to revise."""

    rollout_id: str
    """The rollout."""
    question: str
    """What the model was asked."""
    reference: str
    """A good answer; may be empty."""
    response: str
    """What the model said."""
    picture: Picture
    """What it was asked about."""


class Reviser:
    """Turns tasks into revisions with the settings of a recipe."""

    def __init__(self, section: ReviseSection, asker: Asker) -> None:
        self._section = section
        self._asker = asker
        self._schema = answer_schema()

    async def revise(self, task: Task) -> Revision | Failure:
        """The expert's revision of a response, or why there is none.

        An answer that cannot be used is sent back once with its problems; if the second one is no better, both
        requests count as failed.

        Raises:
            NotAsked, EndpointError, StepFailed: as `Asker.ask`.
        """
        spans = split_sentences(task.response)
        if not spans:
            return Failure(kind="empty_response", reason="the response is empty", retryable=False)
        sentences = [task.response[span.start : span.end] for span in spans]
        request = self._request(task, sentences)
        answer = await self._asker.ask(request)
        if isinstance(answer, Failure):
            return answer
        reading = read_answer(answer.text, sentences)
        answers, requests = [answer], [request]
        if reading.problems:
            request = self._repair(request, answer, reading.problems)
            answer = await self._asker.ask(request)
            if isinstance(answer, Failure):
                return answer
            reading = read_answer(answer.text, sentences)
            answers.append(answer)
            requests.append(request)
        if reading.problems:
            reason = "unusable answer: " + "; ".join(reading.problems[:_PROBLEMS_KEPT])
            failure = Failure(kind="unusable_answer", reason=reason, retryable=True, model=answer.model)
            self._asker.reject(requests, failure)
            return failure
        return self._revision(task, reading, answers)

    def _request(self, task: Task, sentences: Sequence[str]) -> ChatRequest:
        text = task_text(task.question, task.reference, sentences)
        return ChatRequest(
            model=self._section.endpoint.model,
            messages=(Message("system", SYSTEM), Message("user", text, task.picture)),
            schema=self._schema,
            schema_name="revision",
            temperature=self._section.temperature,
            max_tokens=self._section.max_tokens,
            expected_tokens=_DESCRIPTION_TOKENS + sum(_ENTRY_TOKENS + text_tokens(text) for text in sentences),
        )

    def _repair(self, request: ChatRequest, answer: Answer, problems: Sequence[str]) -> ChatRequest:
        turns = (Message("assistant", answer.text), Message("user", repair_text(problems[:_PROBLEMS_TOLD])))
        return ChatRequest(
            model=request.model,
            messages=(*request.messages, *turns),
            schema=request.schema,
            schema_name=request.schema_name,
            temperature=request.temperature,
            max_tokens=request.max_tokens,
            expected_tokens=request.expected_tokens,
        )

    def _revision(self, task: Task, reading: Reading, answers: Sequence[Answer]) -> Revision:
        sentences, text = compose(
            task.response, reading.decisions, reading.additions, minimal_share=self._section.minimal_share
        )
        return Revision.create(
            rollout_id=task.rollout_id,
            author_kind="expert",
            author=answers[-1].model or self._section.endpoint.model,
            image_description=reading.image_description,
            sentences=sentences,
            text=text,
            usage=total_usage([answer.usage for answer in answers]),
        )
