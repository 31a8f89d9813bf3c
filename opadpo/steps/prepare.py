"""`opadpo prepare`: prompts and images from the recipe's data source, and the base model pinned.

The source is read twice, so that memory does not grow with it. The first reading keeps a few hundred bytes per row:
hashes of image and texts, and the origin. From these the subsets are drawn. The second reading takes only the chosen
rows: their images are decoded, and stored once by content hash. A row whose image turns out to be broken is replaced
by the next one of its origin, so that the result depends on data and seed alone.
"""

import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from opadpo.errors import DataError, DiskFull, MissingArtefact, ModelError
from opadpo.images import ImageProblem, check_header
from opadpo.manifest import Manifest
from opadpo.progress import Progress
from opadpo.records import Prompt
from opadpo.steps import plans
from opadpo.steps.image_store import ImageStore
from opadpo.steps.result import StepResult
from opadpo.steps.sources import RawRow, Source, open_source
from opadpo.steps.subsets import Candidate, Selection, Wanted, select, stratum_sizes, without_duplicates
from opadpo.tables import PROMPTS_FILE, write_jsonl, write_records
from opadpo.workspace import Workspace, Writer

DROPPED_FILE = "dropped.jsonl"

_PLACEHOLDER = re.compile(r"\s*<image>\s*")
_TEXT_BYTES_PER_ROW = 4096


def prepare(workspace: Workspace, *, progress: Progress, offline: bool = False) -> StepResult:
    """Make `prompts/` and `base.json`.

    Args:
        workspace: where, and the recipe.
        progress: told about both readings of the source.
        offline: use what is on this machine only.

    Raises:
        DataError: if the source cannot be used.
        ModelError: if the base model cannot be found or is not complete.
        DiskFull: if the images do not fit.
        Busy: if another process prepares this workspace.
    """
    started = time.monotonic()
    plan = plans.prompts(workspace)
    source = None if workspace.state(plan) == "done" else open_source(workspace.recipe, progress, offline=offline)
    outputs = ["base.json"] if _pin_base(workspace, progress, offline=offline) else []
    warnings: list[str] = []
    if source is None:
        manifest, dropped = workspace.require("prompts", "run `opadpo prepare`"), {}
    else:
        with workspace.writing(plan) as writer:
            preparation = _Preparation(workspace, writer, source, progress)
            try:
                manifest = preparation.run()
            except DataError:
                # The source is at fault: there is nothing to continue with.
                shutil.rmtree(writer.folder)
                raise
        outputs.append("prompts")
        warnings, dropped = preparation.warnings, preparation.reasons()
    return StepResult(
        step="prepare",
        status="done" if outputs else "up_to_date",
        outputs=outputs,
        counts=manifest.counts,
        dropped=dropped,
        warnings=warnings,
        seconds=time.monotonic() - started,
    )


def _pin_base(workspace: Workspace, progress: Progress, *, offline: bool) -> bool:
    """Pin the recipe's base model; False if it was pinned already."""
    from opadpo.models.base import fetch_base, read_pin, write_pin

    try:
        read_pin(workspace)
    except (MissingArtefact, ModelError):
        write_pin(workspace, fetch_base(workspace.recipe.model, progress, offline=offline))
        return True
    return False


class _Preparation:
    """One run: the candidates, what has been dropped, and the texts of the chosen rows."""

    def __init__(self, workspace: Workspace, writer: Writer, source: Source, progress: Progress) -> None:
        recipe = workspace.recipe
        self.writer, self.source, self.progress = writer, source, progress
        self.seed, self.max_pixels = recipe.seed, recipe.image.max_pixels
        section = recipe.prepare
        self.wanted = Wanted(section.subsets, section.subset_size, section.heldout_size)
        self.store = ImageStore(writer.folder, self.max_pixels)
        self.rows_read = 0
        self.candidates: list[Candidate] = []
        self.dropped: list[tuple[int, dict[str, str]]] = []
        self.chosen: dict[int, RawRow] = {}
        self.images_read: set[bytes] = set()
        self.warnings: list[str] = []

    def run(self) -> Manifest:
        """Read, choose, store, write."""
        self._scan()
        selection, duplicates = self._choose_and_store()
        for row, stays in duplicates:
            self._drop(row.position, row.where, f"duplicate: same image and question as {stays.where}")
        self._warn_of_shortage(selection)
        return self._write(selection)

    def reasons(self) -> dict[str, int]:
        """Reason -> number of dropped rows."""
        return dict(Counter(entry["reason"] for _, entry in self.dropped))

    # -- first reading -----------------------------------------------------------------------------------------

    def _scan(self) -> None:
        """Make a candidate of every row that is not plainly unusable."""
        with self.progress.task(f"Reading {self.source.name}", self.source.total) as task:
            for raw in self.source.rows():
                self.rows_read += 1
                problem = _problem(raw, self.source.has_references, self.max_pixels)
                if problem:
                    self._drop(raw.position, raw.where, problem)
                else:
                    self.candidates.append(_candidate(raw))
                task.advance()
        if not self.rows_read:
            raise DataError("The data source has no rows", seen=self.source.name, remedy="correct prepare.source.path")

    def _drop(self, position: int, where: str, problem: str) -> None:
        reason, _, detail = problem.partition(": ")
        self.dropped.append((position, {"row": where, "reason": reason, "detail": detail}))

    # -- second reading ----------------------------------------------------------------------------------------

    def _choose_and_store(self) -> tuple[Selection, list[tuple[Candidate, Candidate]]]:
        """Choose rows and store their images, again and again until every chosen image is sound."""
        sizes = stratum_sizes(without_duplicates(self.candidates)[0])
        same: dict[bytes, bytes] = {}
        while True:
            problems = self.store.problems
            sound = (row for row in self.candidates if row.image not in problems)
            usable, duplicates = without_duplicates(
                replace(row, image=same[row.image]) if row.image in same else row for row in sound
            )
            selection = select(usable, self.wanted, self.seed, sizes)
            missing = [row for row in selection.all() if row.position not in self.chosen]
            if not missing:
                break
            if not self.chosen:
                self._check_space(missing)
            self._fetch(missing)
            same = self._same_pictures()
        for row in self.candidates:
            if row.image in problems:
                self._drop(row.position, row.where, f"broken image: {problems[row.image]}")
        if not selection.train[0]:
            raise self._nothing_usable()
        return selection, duplicates

    def _fetch(self, rows: Iterable[Candidate]) -> None:
        """Read these rows again, keep their texts and store their images."""
        images = {row.position: row.image for row in rows}
        workers = min(8, os.cpu_count() or 1)
        pending: deque[Future[None]] = deque()
        with (
            self.progress.task("Checking and storing images", len(images)) as task,
            ThreadPoolExecutor(workers, thread_name_prefix="images") as pool,
        ):
            try:
                for raw in self.source.rows(images):
                    data = raw.image
                    if data is None or hashlib.sha256(data).digest() != images[raw.position]:
                        raise _changed_underneath(raw)
                    self.chosen[raw.position] = replace(raw, image=None)
                    if images[raw.position] in self.images_read:
                        task.advance()
                        continue
                    self.images_read.add(images[raw.position])
                    pending.append(pool.submit(self.store.add, images[raw.position], data))
                    while len(pending) > 4 * workers:
                        pending.popleft().result()
                        task.advance()
                while pending:
                    pending.popleft().result()
                    task.advance()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _same_pictures(self) -> dict[bytes, bytes]:
        """Original hash -> the hash that stands for it, for originals that became the same file when encoded again."""
        stands: dict[str, bytes] = {}
        same: dict[bytes, bytes] = {}
        # Only what this run has read: what a killed run left in the store must not change the choice.
        for original in sorted(self.images_read - self.store.problems.keys()):
            first = stands.setdefault(self.store.stored[original].image_id, original)
            if first != original:
                same[original] = first
        return same

    def _check_space(self, rows: Iterable[Candidate]) -> None:
        """Refuse before anything is written what plainly cannot fit."""
        sizes = {row.image: row.image_bytes for row in rows if row.image not in self.store.stored}
        needed = sum(sizes.values()) + _TEXT_BYTES_PER_ROW * len(sizes)
        free = shutil.disk_usage(self.writer.folder).free
        if needed > free:
            raise DiskFull(
                "The images do not fit on the disk",
                seen=f"{needed / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free at {self.writer.workspace.root}",
                remedy="free some space, use a workspace on a larger disk, or lower prepare.subset_size",
            )

    # -- writing -----------------------------------------------------------------------------------------------

    def _write(self, selection: Selection) -> Manifest:
        folder = self.writer.folder
        files = {self.store.stored[row.image].file for row in selection.all()}
        self.store.remove_all_but(files)
        write_records(folder / PROMPTS_FILE, self._prompts(selection), Prompt)
        self.dropped.sort(key=lambda entry: entry[0])
        write_jsonl(folder / DROPPED_FILE, (entry for _, entry in self.dropped))
        counts = {
            "rows_read": self.rows_read,
            "train": sum(map(len, selection.train)),
            "heldout": len(selection.heldout),
            "images": len(files),
            "dropped": len(self.dropped),
        }
        content = hashlib.sha256()
        for name, _, rows in selection.named():
            for row in rows:
                content.update(b"|".join([name.encode(), row.image, row.question, row.texts]))
        return self.writer.finish(counts, content=content.hexdigest())

    def _prompts(self, selection: Selection) -> Iterator[Prompt]:
        for name, split, rows in selection.named():
            for row in rows:
                raw, stored = self.chosen[row.position], self.store.stored[row.image]
                yield Prompt.create(
                    image_id=stored.image_id,
                    image_file=stored.file,
                    question=clean_question(raw.question),
                    reference=raw.reference,
                    source=raw.source,
                    split=split,
                    subset=name,
                    extra=_extra(raw),
                )

    def _warn_of_shortage(self, selection: Selection) -> None:
        train, heldout = sum(map(len, selection.train)), len(selection.heldout)
        if train < self.wanted.train or heldout < self.wanted.heldout_size:
            sizes = ", ".join(f"{name} {len(rows)}" for name, _, rows in selection.named())
            self.warnings.append(
                f"the data gives {train} training rows of {self.wanted.train} wanted and {heldout} held-out rows of"
                f" {self.wanted.heldout_size} ({self.rows_read} rows read, {len(self.dropped)} dropped): {sizes}"
            )
        for warning in self.warnings:
            self.progress.warn(warning)

    def _nothing_usable(self) -> DataError:
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.reasons().items()) or "held out by the source"
        example = next((f"; for example {e['row']}: {e['detail']}" for _, e in self.dropped if e["detail"]), "")
        return DataError(
            "The data source has no usable training row",
            seen=f"{self.source.name}: {self.rows_read} rows: {reasons}{example}",
            remedy="mend the data or correct prepare.source in the recipe",
        )


def clean_question(text: str) -> str:
    """The question without image placeholders; every model family puts in its own."""
    return _PLACEHOLDER.sub(" ", text).strip()


def _problem(raw: RawRow, needs_reference: bool, max_pixels: int) -> str | None:
    """ "reason: detail" if a row is plainly unusable."""
    if raw.problem:
        return raw.problem
    if not raw.image:
        return "no image: the value is empty"
    if not clean_question(raw.question):
        return "no question: the value is empty"
    if needs_reference and not raw.reference:
        return "no reference: the value is empty"
    try:
        check_header(raw.image, max_pixels)
    except ImageProblem as problem:
        return f"broken image: {problem.reason}"
    return None


def _candidate(raw: RawRow) -> Candidate:
    image = raw.image or b""
    texts = json.dumps([raw.reference, raw.source, _extra(raw)], sort_keys=True)
    return Candidate(
        position=raw.position,
        where=raw.where,
        image=hashlib.sha256(image).digest(),
        question=hashlib.sha256(clean_question(raw.question).encode()).digest()[:16],
        texts=hashlib.sha256(texts.encode()).digest()[:16],
        source=sys.intern(raw.source),
        split=raw.split,
        image_bytes=len(image),
    )


def _extra(raw: RawRow) -> dict[str, Any]:
    return raw.extra if raw.rejected is None else {**raw.extra, "rejected": raw.rejected}


def _changed_underneath(raw: RawRow) -> DataError:
    return DataError(
        "The data source changed while it was being read",
        seen=raw.where,
        remedy="run `opadpo prepare` again when nothing writes to it any more",
    )
