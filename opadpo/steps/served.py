"""Rollouts by a server of the base model: vLLM, SGLang, `transformers serve` or anything that speaks their protocol.

Every answer is kept in `sampler/requests.db` before it is counted, so that a run that was stopped asks nothing twice.
The rollouts are then made from what is kept, in the order of the prompts.

What a server may do otherwise than this process, and what is done about it: it may not tell the sampled token ids (the
text is tokenized again, and the row says so), not know a setting, have another chat template or image geometry, or
serve another model (each is told).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from opadpo.errors import StepFailed
from opadpo.images import open_rgb
from opadpo.llm.asking import Asker
from opadpo.llm.estimate import Estimate
from opadpo.llm.requests import Answer, ChatRequest, Failure, Message, Picture, Sample
from opadpo.llm.store import FailedRow, RequestStore
from opadpo.llm.working import Asking, Work, carry_out
from opadpo.models.base import BasePin, names_base
from opadpo.models.families.base import Processing
from opadpo.progress import Progress
from opadpo.records import FinishReason, Rollout
from opadpo.steps.responding import Origin, cut_warning
from opadpo.steps.result import StepResult
from opadpo.steps.speakers import Job
from opadpo.tables import iter_records, write_jsonl, write_records
from opadpo.workspace import Workspace, Writer

NO_RESPONSE = "no response of the server"

_AS_IT_IS = 2**31
"""Longest side of a picture that is not to be scaled."""
_CHECKED = 32
"""Rows whose prompt is counted anew: each needs its image to be processed."""


@dataclass(frozen=True)
class Ways:
    """How to ask."""

    progress: Progress
    retry_failed: bool = False
    agree: Callable[[Estimate], bool] | None = None


class Response(NamedTuple):
    """An answer as a response of the base model."""

    text: str
    token_ids: list[int]
    exact: bool
    """False if the ids come from tokenizing the text again."""
    finish_reason: FinishReason


@dataclass
class _Seen:
    """What is worth a warning."""

    failed: list[FailedRow] = field(default_factory=list)
    models: Counter[str] = field(default_factory=Counter)
    left_out: set[str] = field(default_factory=set)
    inexact: int = 0
    rows: int = 0


class Served:
    """Asks a server for responses and makes rollouts of them."""

    def __init__(self, workspace: Workspace, processing: Processing, pin: BasePin, origin: Origin) -> None:
        self.workspace, self.processing, self.pin, self.origin = workspace, processing, pin, origin
        self.section = workspace.recipe.rollout
        self.colour = processing.family.square_colour(processing, processing.aspect)

    def sample(self, writer: Writer, jobs: Sequence[Job], dropped: list[dict[str, Any]], ways: Ways) -> StepResult:
        """Ask for every job, write the rollouts and finish the artefact.

        Raises:
            CostRefused, BudgetReached, EndpointError, StepFailed: as `carry_out`.
            StepFailed: if no row has a response.
        """
        run = datetime.now(UTC).isoformat()
        with RequestStore.open(self.workspace.sampler_db) as store:

            async def talk(job: Job, asker: Asker) -> Failure | None:
                return await self._talk(job, asker)

            failures: list[FailedRow] = []

            def take(job: Job, outcome: Failure | None) -> None:
                if outcome is not None:
                    failures.append(FailedRow(_row_id(job), outcome.kind, outcome.reason))

            work = Work("Sampling responses from the server", lambda: iter(jobs), talk, take)
            carry_out(
                work,
                Asking(self.section.server, store, ways.progress, retry_failed=ways.retry_failed, agree=ways.agree),
            )
            store.put_rows(run, failures, [])
            store.forget_rows(run)
            seen = _Seen()
            shards: list[Path] = []
            rollouts = self._rollouts(jobs, store, seen)
            while rows := list(islice(rollouts, self.section.shard_rows)):
                shards.append(writer.folder / f"part-{len(shards):05d}.parquet")
                write_records(shards[-1], rows, Rollout)
            for file in set(writer.folder.glob("part-*.parquet")) - set(shards):
                file.unlink()
            warnings = self._warnings(jobs, store, seen)
        if not seen.rows:
            raise StepFailed(
                "The server has given no usable response",
                seen=f"{len(seen.failed)} rows, the first: {seen.failed[0].reason}",
                remedy=f"mend that and run `opadpo rollout {self.workspace.shown} --retry failed`",
            )
        failed_rows = [
            {"prompt_id": row.row_id.partition("/")[0], "reason": NO_RESPONSE, "detail": f"{row.kind}: {row.reason}"}
            for row in seen.failed
        ]
        write_jsonl(writer.folder / "dropped.jsonl", [*dropped, *failed_rows])
        counts = {
            "rollouts": seen.rows,
            "prompts": len({job.prompt.prompt_id for job in jobs}),
            "dropped": len(dropped),
            "failed": len(seen.failed),
            "token_ids_exact": seen.rows - seen.inexact,
        }
        warnings += cut_warning(iter_records(writer.folder, Rollout), "rollout.max_new_tokens")
        writer.finish(counts)
        reasons = Counter(entry["reason"] for entry in [*dropped, *failed_rows])
        return StepResult(
            step="rollout",
            status="done",
            outputs=["rollouts"],
            counts=counts,
            dropped=dict(reasons),
            warnings=warnings,
        )

    # -- asking ------------------------------------------------------------------------------------------------

    def request(self, job: Job) -> ChatRequest:
        """What the server is asked for one response."""
        sampling, prompt = self.origin.sampling, job.prompt
        picture = Picture(
            self.workspace.prompts / prompt.image_file,
            prompt.image_id,
            _AS_IT_IS,
            self.workspace.recipe.image.max_pixels,
            square=self.colour,
            stored=True,
        )
        return ChatRequest(
            model=self.section.server.endpoint.model,
            messages=(Message("user", prompt.question, picture),),
            temperature=sampling.temperature,
            max_tokens=sampling.max_new_tokens,
            # Some servers take 32 bits only.
            sample=Sample(sampling.top_k, sampling.top_p, job.seed % 2**31),
        )

    async def _talk(self, job: Job, asker: Asker) -> Failure | None:
        """Ask for one response; an answer that is none of the base model counts as failed."""
        request = self.request(job)
        answer = await asker.ask(request)
        if isinstance(answer, Failure):
            return answer
        response = read_response(answer, self.processing)
        if isinstance(response, Failure):
            asker.reject([request], response)
            return response
        return None

    # -- making ------------------------------------------------------------------------------------------------

    def _rollouts(self, jobs: Sequence[Job], store: RequestStore, seen: _Seen) -> Iterator[Rollout]:
        """The rollouts of what is kept, in the order of the jobs."""
        for job in jobs:
            answer = store.get(self.request(job).key)
            response = read_response(answer, self.processing) if isinstance(answer, Answer) else answer
            if not isinstance(response, Response) or not isinstance(answer, Answer):
                assert isinstance(response, Failure)
                seen.failed.append(FailedRow(_row_id(job), response.kind, response.reason))
                continue
            seen.rows += 1
            seen.inexact += not response.exact
            seen.models[answer.model] += 1
            seen.left_out |= set(answer.left_out)
            yield Rollout.create(
                prompt_id=job.prompt.prompt_id,
                sample_index=job.sample_index,
                seed=job.seed,
                response=response.text,
                response_token_ids=response.token_ids,
                token_ids_exact=response.exact,
                finish_reason=response.finish_reason,
                **{**self.origin.fields(), "model": self._model(answer.model)},
            )

    def _model(self, reported: str) -> str:
        """What is recorded as the model that sampled: our name of the base, or the server's of another model."""
        return self.pin.name if names_base(reported, self.pin) else reported

    def _warnings(self, jobs: Sequence[Job], store: RequestStore, seen: _Seen) -> list[str]:
        warnings: list[str] = []
        others = sorted(name or "(no name)" for name in seen.models if not names_base(name, self.pin))
        if others:
            warnings.append(
                f"The server calls its model {', '.join(others)}, the recipe's base is {self.pin.base}: if it is"
                " another model, the responses are off-policy. Serve the base under its own name to be sure"
            )
        if seen.left_out:
            warnings.append(
                f"The server does not know {', '.join(sorted(seen.left_out))}: it sampled without what the recipe says"
                " of that"
            )
        if seen.inexact:
            warnings.append(
                f"The server did not tell the sampled token ids of {seen.inexact} of {seen.rows} responses: their text"
                " was tokenized again, which may differ from what was sampled (vLLM tells them)"
            )
        warnings += self._other_prompts(jobs, store)
        if seen.failed:
            warnings.append(
                f"{len(seen.failed)} responses are missing; the first: {seen.failed[0].reason}. Ask again with"
                f" `opadpo rollout {self.workspace.shown} --retry failed`"
            )
        return warnings

    def _other_prompts(self, jobs: Sequence[Job], store: RequestStore) -> list[str]:
        """A warning if the server's prompts have other lengths than ours: another chat template or image geometry."""
        differ: list[str] = []
        checked = 0
        for job in islice(jobs, _CHECKED):
            answer = store.get(self.request(job).key)
            if not isinstance(answer, Answer) or not answer.usage.prompt_tokens:
                continue
            checked += 1
            image = open_rgb(self.workspace.prompts / job.prompt.image_file)
            ours = len(self.processing.encode(job.prompt.question, image).input_ids)
            if ours != answer.usage.prompt_tokens:
                differ.append(f"{answer.usage.prompt_tokens} tokens at the server, {ours} here")
        if not differ:
            return []
        return [
            f"The server's prompts are not the recipe's in {len(differ)} of {checked} rows that were compared (the"
            f" first: {differ[0]}): its chat template or image geometry is another than prompt.template"
            f" {self.processing.template} and image.aspect {self.processing.aspect}, so training would see other"
            " prompts than were sampled from. Start the server with that template, or set the two to the server's"
        ]


def read_response(answer: Answer, processing: Processing) -> Response | Failure:
    """An answer as a response: with the server's token ids where it told them, else tokenized again."""
    if answer.finish_reason not in ("stop", "length"):
        return _unusable(answer, f"the server stopped because of {answer.finish_reason}")
    finish: FinishReason = "stop" if answer.finish_reason == "stop" else "length"
    family = processing.family
    stops = family.stop_token_ids(processing)
    exact = answer.token_ids is not None
    if answer.token_ids is not None:
        ids = list(answer.token_ids)
        text = family.decode(processing, ids)
    else:
        text = answer.text.strip()
        ids = list(family.encode_response(processing, text).input_ids)
    # Servers differ in the white space around an answer; what is between words is the tokenizer's.
    if family.decode(processing, ids).split() != answer.text.split():
        kind = "the token ids that the server tells do not spell" if exact else "the base's tokenizer cannot spell"
        return _unusable(answer, f"{kind} its text: is it another model's?")
    if processing.family.image_token_id(processing) in ids:
        return _unusable(answer, "there is an image token in the response")
    if finish == "stop" and (not ids or ids[-1] not in stops):
        ids.append(stops[0])
    return Response(text, ids, exact, finish)


def _unusable(answer: Answer, reason: str) -> Failure:
    return Failure(kind="unusable_answer", reason=reason, retryable=True, model=answer.model)


def _row_id(job: Job) -> str:
    return f"{job.prompt.prompt_id}/{job.sample_index}"
