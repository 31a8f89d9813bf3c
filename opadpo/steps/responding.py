"""What `rollout` and `caption` share: a model answers prompts in shards, and what is there already is kept.

The rows of a shard and their batches depend on the list of jobs alone, so a run that was killed and started again
makes the same batches, and with them the same texts, as one that was not. Neither matters how many processes answer.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from opadpo.errors import UserError, WorkspaceError
from opadpo.images import open_rgb
from opadpo.manifest import Plan
from opadpo.models.families.base import Processing
from opadpo.progress import Progress
from opadpo.records import Caption, Generated, Prompt, Rollout, Sampling
from opadpo.steps.speakers import Job, Speaker, SpeakerTeam
from opadpo.tables import iter_records, write_records
from opadpo.workspace import Workspace

if TYPE_CHECKING:
    from opadpo.models.generation import Generation

R = TypeVar("R", Rollout, Caption)
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Origin:
    """What makes the responses: stored with each of them."""

    model: str
    adapter: str
    adapter_hash: str
    template: str
    image_aspect: str
    sampling: Sampling

    def fields(self) -> dict[str, Any]:
        """As fields of a `Generated` record."""
        return dict(vars(self))


class Shards(Generic[R]):
    """The jobs of one artefact in shards; each is written when its rows are complete, or the work is broken off."""

    def __init__(
        self,
        record_type: type[R],
        origin: Origin,
        make: "Callable[[Job, Generation], R]",
        *,
        batch_size: int,
        shard_rows: int,
    ) -> None:
        self.record_type, self.origin, self.make = record_type, origin, make
        self.batch_size, self.shard_rows = batch_size, shard_rows
        self.reused = 0

    def write(
        self,
        folder: Path,
        jobs: Sequence[Job],
        pool: dict[Key, R],
        speaker: Speaker | SpeakerTeam,
        progress: Progress,
        title: str,
    ) -> list[Path]:
        """Write `part-00000.parquet` ... in the jobs' order; rows in `pool` are taken from there."""
        self.reused = sum(self._key(job) in pool for job in jobs)
        shards = [jobs[start : start + self.shard_rows] for start in range(0, len(jobs), self.shard_rows)]
        paths = [folder / f"part-{number:05d}.parquet" for number in range(len(shards))]
        rows = [{key: pool[key] for key in map(self._key, shard) if key in pool} for shard in shards]

        def write_if_complete(number: int) -> None:
            if len(rows[number]) == len(shards[number]):
                write_records(paths[number], [rows[number][self._key(job)] for job in shards[number]], self.record_type)
                rows[number] = {}

        def batches() -> Iterator[tuple[int, list[Job]]]:
            for number, shard in enumerate(shards):
                lacking = [job for job in shard if self._key(job) not in rows[number]]
                write_if_complete(number)
                yield from ((number, batch) for batch in self._batches(lacking, speaker.processing))

        try:
            with progress.task(title, len(jobs), done=self.reused) as task:
                for number, batch, responses in speaker.respond_to_all(batches(), self.origin.sampling):
                    made = (self.make(job, response) for job, response in zip(batch, responses, strict=True))
                    rows[number].update(zip(map(self._key, batch), made, strict=True))
                    write_if_complete(number)
                    task.advance(len(batch))
        finally:
            # What an interruption or an error leaves incomplete; the next run takes the rows from there.
            for path, found in zip(paths, rows, strict=True):
                if found:
                    write_records(path, list(found.values()), self.record_type)
        for file in [*folder.glob("part-*.parquet"), *folder.glob(".part-*.tmp")]:
            if file not in paths:
                file.unlink()
        return paths

    def pool(self, folders: Iterable[Path]) -> dict[Key, R]:
        """Rows that were made before, by what they were made from. A damaged file counts as not there."""
        rows: dict[Key, R] = {}
        for path in folders:
            try:
                rows.update((_record_key(row), row) for row in iter_records(path, self.record_type))
            except WorkspaceError:
                continue
        return rows

    def _batches(self, jobs: Sequence[Job], processing: Processing) -> Iterator[list[Job]]:
        """Prompts of like length together, the longest first: too large a batch shows at once."""
        lengths = {
            job.prompt.prompt_id: len(processing.family.text_ids(processing, job.prompt.question)) for job in jobs
        }
        ordered = sorted(jobs, key=lambda job: -lengths[job.prompt.prompt_id])
        for start in range(0, len(ordered), self.batch_size):
            yield ordered[start : start + self.batch_size]

    def _key(self, job: Job) -> Key:
        row = (job.sample_index, job.seed) if self.record_type is Rollout else ()
        return (job.prompt.prompt_id, *row, *_origin_key(self.origin.fields()))


def reusable(workspace: Workspace, plan: Plan, *keys: str) -> bool:
    """Whether single rows of the artefact in place may be kept although it is stale as a whole.

    They may if the settings that no record carries (`keys`: data type, quantization, weights of the base) are those
    of the plan; the rest is compared row by row.
    """
    manifest = workspace.manifest(plan.artefact)
    return manifest is not None and all(manifest.settings.get(key) == plan.settings.get(key) for key in keys)


def check_positions(processing: Processing, prompts: Sequence[Prompt], folder: Path, limit: int, key: str) -> None:
    """Check that the longest prompt and response together fit the model's positions.

    `folder` holds the prompts' images; `key` is the recipe's key of `limit`.

    Raises:
        UserError: if they do not.
    """
    positions = getattr(processing.config.get_text_config(), "max_position_embeddings", None)
    if positions is None or not prompts:
        return
    longest = max(prompts, key=lambda prompt: len(prompt.question))
    image = open_rgb(folder / longest.image_file)
    length = len(processing.encode(longest.question, image).input_ids)
    if length + limit > positions:
        raise UserError(
            f"{key} leaves no room for the prompt",
            seen=f"{limit} new tokens after up to {length} prompt tokens; the model has {positions} positions",
            remedy=f"set {key} to {max(1, positions - length)} or less",
        )


def cut_warning(rows: Iterable[Generated], key: str) -> list[str]:
    """A warning if more than one response in twenty was cut."""
    reasons = [row.finish_reason for row in rows]
    cut = reasons.count("length")
    if cut * 20 <= len(reasons):
        return []
    return [f"{cut} of {len(reasons)} responses were cut at {key}; raise it if they are to end by themselves"]


def _record_key(row: Rollout | Caption) -> Key:
    own = (row.sample_index, row.seed) if isinstance(row, Rollout) else ()
    names = Origin.__dataclass_fields__
    return (row.prompt_id, *own, *_origin_key({name: getattr(row, name) for name in names}))


def _origin_key(fields: dict[str, Any]) -> Key:
    """Everything but the adapter's name: its hash says which it is."""
    return tuple(
        value.model_dump_json() if isinstance(value, Sampling) else value
        for name, value in fields.items()
        if name != "adapter"
    )
