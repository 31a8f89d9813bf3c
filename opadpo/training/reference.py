"""Log-probs of the frozen reference, computed once before training and kept on the disk.

Their arithmetic is that of training: the same micro-batches in the same layout and data type, so that in the first
epoch they are, to the last bit, what switching adapters in the step would give, and every log-ratio before the first
update is exactly 0. A row is one example under one image: the clean one once, the masked one once per mask seed. In
later epochs an example meets others than in the first. A kernel that goes by the shape of its batch (GPU, bfloat16)
would then compute it with other rounding; in float32 on a CPU it would not: each packed row attends by itself, and
`logps.padded_length` sees to the padded ones.
"""

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from opadpo.errors import disk_errors
from opadpo.files import atomic_write, fsync_tree
from opadpo.manifest import changed_values
from opadpo.processes.here import first_process, processes_here, rank_here, wait_for_all
from opadpo.progress import Progress
from opadpo.training.collate import MASKED, Batch, Collator, Visit
from opadpo.training.examples import TrainingExample
from opadpo.training.shards import KEY_BYTES, SUFFIX, Shards, ShardWriter

FINGERPRINT_FILE = "made_from.json"

CLEAN, MASK = 1, 2
"""The rows of a visit, as bits."""


class Part(NamedTuple):
    """Examples and the micro-batches in which all processes together visit them: training's, or the held-out ones'."""

    collator: Collator
    batches: Sequence[Sequence[Visit]]


class ReferenceRows:
    """The rows of a collator's examples: which keys they have, and what is stored under them."""

    def __init__(self, collator: Collator, shards: Shards) -> None:
        self.examples = collator.examples
        self.names = collator.names
        self.mask_seed = collator.mask_seed
        self.shards = shards
        self._contents = [_content(example, self.names) for example in collator.examples]

    @property
    def kinds(self) -> list[int]:
        """The rows that a visit has: `CLEAN`, `MASK`."""
        return [kind for kind in (CLEAN, MASK) if self.names_of(kind)]

    def names_of(self, kinds: int) -> tuple[str, ...]:
        """The responses in some rows of a visit, in the collator's order."""
        return tuple(name for name in self.names if kinds & _kind(name))

    def key(self, visit: Visit, kind: int) -> bytes:
        """The key of a row."""
        seed = b"" if kind == CLEAN else self.seed(visit).to_bytes(8, "little")
        return hashlib.blake2b(self._contents[visit.example] + seed, digest_size=KEY_BYTES).digest()

    def seed(self, visit: Visit) -> int:
        """Seed of the visit's masked image."""
        if self.mask_seed is None:
            raise ValueError("masked sequences need a mask seed")
        return self.mask_seed(self.examples[visit.example].example_id, visit.epoch)

    def __call__(self, visits: Sequence[Visit], names: Sequence[str]) -> Tensor:
        """Stored log-probs of all tokens of these responses, float32 (tokens,): response after response as in a batch.

        Raises:
            KeyError: if they are not stored.
        """
        stored = [self._responses(visit, names) for visit in visits]
        return torch.from_numpy(np.concatenate([responses[name] for name in names for responses in stored]))

    def _responses(self, visit: Visit, names: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
        """Every response of the rows that hold these ones."""
        lengths = {name: len(response.ids) for name, response in self.examples[visit.example].responses.items()}
        found = {}
        for kind in sorted({_kind(name) for name in names}):
            values = self.shards[self.key(visit, kind)]
            inside = self.names_of(kind)
            ends = np.cumsum([lengths[name.removesuffix(MASKED)] for name in inside])
            found |= dict(zip(inside, np.split(values, ends[:-1]), strict=True))
        return found


def _kind(name: str) -> int:
    return MASK if name.endswith(MASKED) else CLEAN


def fill(
    folder: Path,
    made_from: dict[str, Any],
    parts: Sequence[Part],
    score: Callable[[Batch], Tensor],
    *,
    progress: Progress,
    name: str,
    workers: int = 0,
) -> dict[str, int]:
    """Compute what is not in `folder` yet, and let the collators read all of it from there.

    Every process computes its share and writes it to a file of its own, batch by batch; called again after a kill it
    goes on behind the last whole row.

    Args:
        folder: of the run's reference.
        made_from: everything that decides the values; where it is not what the folder was made from, that is removed.
        parts: what is visited.
        score: reference log-probs of a batch, (responses, longest response).
        progress: where to tell how far it is.
        name: of the run.
        workers: processes that decode images ahead.

    Returns:
        Rows computed and rows reused, over all processes.

    Raises:
        DiskFull: if there is no room; what was written before stays and is not computed again.
    """
    with disk_errors(folder):
        if first_process():
            _keep_or_clear(folder, made_from, progress)
        wait_for_all()
        shards = Shards(folder)
        wait_for_all()  # no process may append before all have read
        work = [_Missing(part.batches, ReferenceRows(part.collator, shards)) for part in parts]
        computed, reused = (sum(getattr(one, which) for one in work) for which in ("computed", "reused"))
        if computed:
            path = folder / f"process-{rank_here():05d}{SUFFIX}"
            pending = [_Pending(part.collator, missing) for part, missing in zip(parts, work, strict=True)]
            total = sum(rows.total for rows in pending)
            shown = progress.task(f"reference {name}", total) if first_process() else nullcontext()
            with ShardWriter(path, shards.whole.get(path, 0)) as writer, shown as task:
                for batches in pending:
                    for rows in _scored(batches, score, workers):
                        writer.append(rows)
                        if task is not None:
                            task.advance(len(rows))
            fsync_tree(folder)
            wait_for_all()
            shards = Shards(folder)
    for part in parts:
        part.collator.reference = ReferenceRows(part.collator, shards)
    return {"reference_computed": computed, "reference_reused": reused}


def data_digest(examples: Sequence[TrainingExample], names: Sequence[str]) -> str:
    """Digest of everything in the examples that the log-probs depend on."""
    whole = hashlib.sha256()
    for content in sorted(_content(example, names) for example in examples):
        whole.update(content)
    return whole.hexdigest()


def _content(example: TrainingExample, names: Sequence[str]) -> bytes:
    """Digest of an example's prompt, image and response tokens."""
    whole = hashlib.blake2b(digest_size=KEY_BYTES)
    prompt = [example.example_id, example.question, example.image.name, example.prompt_length, list(names)]
    whole.update(json.dumps(prompt).encode())
    for name, response in sorted(example.responses.items()):
        whole.update(f"{name} {len(response.ids)} ".encode())
        whole.update(response.ids.astype("<i4").tobytes())
    return whole.digest()


def _keep_or_clear(folder: Path, made_from: dict[str, Any], progress: Progress) -> None:
    """Leave in the folder only what was made from the same."""
    path = folder / FINGERPRINT_FILE
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        stored = {}
    if stored == made_from:
        return
    if any(folder.glob(f"*{SUFFIX}")):
        reasons = changed_values(stored, made_from) if stored else [f"{FINGERPRINT_FILE} is not readable"]
        progress.say(f"The reference's log-probs in {folder} are computed anew: {'; '.join(reasons)}")
    if folder.exists():
        shutil.rmtree(folder)
    atomic_write(path, json.dumps(made_from, indent=2, sort_keys=True))


class _Missing:
    """Which rows are not stored, each at the first visit that needs it: the same on every process."""

    def __init__(self, batches: Sequence[Sequence[Visit]], rows: ReferenceRows) -> None:
        self.batches = batches
        self.rows = rows
        self.starts = np.concatenate([[0], np.cumsum([len(batch) for batch in batches], dtype=np.int64)])
        self.needed = np.zeros(self.starts[-1], np.uint8)
        self.computed = self.reused = 0
        met = {kind: np.full(len(rows.examples), -1, np.int64) for kind in rows.kinds}
        for place, visit in enumerate(visit for batch in batches for visit in batch):
            for kind in rows.kinds:
                # Epochs only grow, so that an example's seed is either its last one or has never been.
                seed = rows.seed(visit) if kind == MASK else 0
                if met[kind][visit.example] == seed:
                    continue
                met[kind][visit.example] = seed
                if rows.key(visit, kind) in rows.shards:
                    self.reused += 1
                else:
                    self.needed[place] |= kind
                    self.computed += 1

    def of(self, batch: int) -> npt.NDArray[np.uint8]:
        """Missing rows of every visit of a batch."""
        return self.needed[self.starts[batch] : self.starts[batch + 1]]


class _Pending(Dataset[tuple[int, Batch]]):
    """This process's share of the micro-batches in which a row is missing."""

    def __init__(self, collator: Collator, missing: _Missing) -> None:
        self.collator = copy.copy(collator)
        self.collator.reference = None
        self.missing = missing
        pending = [number for number in range(len(missing.batches)) if missing.of(number).any()]
        self.numbers = pending[rank_here() :: processes_here()]
        self.total = sum(int(np.unpackbits(missing.of(number)).sum()) for number in self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: int) -> tuple[int, Batch]:
        """A batch's number, and the whole batch: its rounding is that of training, whatever of it is stored."""
        number = self.numbers[place]
        kinds = int(np.bitwise_or.reduce(self.missing.of(number)))
        self.collator.names = self.missing.rows.names_of(kinds)
        return number, self.collator(self.missing.batches[number])


def _scored(
    pending: _Pending, score: Callable[[Batch], Tensor], workers: int
) -> Iterator[list[tuple[bytes, npt.NDArray[np.float32]]]]:
    """The missing rows of one batch after another."""
    rows = pending.missing.rows
    # A generator of its own: what training draws at random stays the same with and without this pass.
    loader: Iterable[tuple[int, Batch]] = DataLoader(
        pending,
        batch_size=None,
        collate_fn=_as_it_is,  # pyright: ignore[reportArgumentType]
        num_workers=workers,
        generator=torch.Generator(),
    )
    for number, batch in loader:
        visits, needed = pending.missing.batches[number], pending.missing.of(number)
        names = rows.names_of(int(np.bitwise_or.reduce(needed)))
        mask = batch.sequences.response_mask.view(len(names), len(visits), -1)
        values = score(batch).float().cpu().view(mask.shape)
        yield [
            (
                rows.key(visit, kind),
                np.concatenate(
                    [values[names.index(n), place][mask[names.index(n), place]].numpy() for n in rows.names_of(kind)]
                ),
            )
            for place, visit in enumerate(visits)
            for kind in rows.kinds
            if needed[place] & kind
        ]


def _as_it_is(item: tuple[int, Batch]) -> tuple[int, Batch]:
    return item
