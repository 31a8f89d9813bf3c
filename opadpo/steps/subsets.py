"""Which rows go where: seeded, stratified, disjoint subsets, and a held-out part that shares no image with them.

Everything here depends on what the rows are (the hashes of image and question, the origin) and on the seed, never
on the order in which they came.
"""

import hashlib
import heapq
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from opadpo.records import Split

HELDOUT = "heldout"
"""Name of the held-out subset."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A usable row, as light as can be: what has to be known about every row at once (some 300 bytes)."""

    position: int
    """Where the source finds it again."""
    where: str
    """Where a person finds it."""
    image: bytes
    """SHA-256 of the image."""
    question: bytes
    """Hash of the question."""
    texts: bytes
    """Hash of the other texts; decides which of several rows with the same image and question stays."""
    source: str
    """Stratum."""
    split: Split | None = None
    """The split that the source itself gives the row."""
    image_bytes: int = 0
    """Size of the image file."""


class Wanted(NamedTuple):
    """What the recipe asks for."""

    subsets: int
    subset_size: int
    heldout_size: int

    @property
    def train(self) -> int:
        """Rows of all training subsets."""
        return self.subsets * self.subset_size


class Selection(NamedTuple):
    """The rows of each subset, in a seeded order."""

    train: list[list[Candidate]]
    """One list per subset; some are shorter, or empty, if there are too few rows."""
    heldout: list[Candidate]

    def named(self) -> Iterator[tuple[str, Split, list[Candidate]]]:
        """(subset name, split, rows) of every subset that has rows."""
        for index, rows in enumerate(self.train):
            if rows:
                yield f"train-{index}", "train", rows
        if self.heldout:
            yield HELDOUT, "heldout", self.heldout

    def all(self) -> Iterator[Candidate]:
        """Every chosen row."""
        for _, _, rows in self.named():
            yield from rows


def without_duplicates(candidates: Iterable[Candidate]) -> tuple[list[Candidate], list[tuple[Candidate, Candidate]]]:
    """(rows with distinct image and question, (duplicate, the row that stays) pairs)."""
    best: dict[tuple[bytes, bytes], Candidate] = {}
    pairs = []
    for row in candidates:
        key = (row.image, row.question)
        other = best.get(key)
        if other is None:
            best[key] = row
            continue
        # A row that the source itself holds out stays held out.
        stays, goes = sorted((other, row), key=lambda c: (c.split != "heldout", c.texts, c.position))
        best[key] = stays
        pairs.append((goes, best[key]))
    return list(best.values()), [(goes, best[goes.image, goes.question]) for goes, _ in pairs]


def stratum_sizes(candidates: Iterable[Candidate]) -> dict[str, int]:
    """Origin -> number of rows."""
    return dict(Counter(row.source for row in candidates))


def select(
    candidates: Sequence[Candidate], wanted: Wanted, seed: int, sizes: Mapping[str, int] | None = None
) -> Selection:
    """Choose and divide rows with distinct image and question.

    Each training subset, and the held-out part, has the strata in the proportions of all rows (to within a row or
    two). Other rows of a held-out image are in no subset. If there are too few rows, training and held-out part
    shrink alike, and training keeps its share of the images. Rows whose split the source gives go nowhere else.

    Args:
        candidates: usable rows, in any order.
        wanted: sizes.
        seed: the recipe's.
        sizes: of the strata, for the proportions, where some rows are not among the candidates any more.
    """
    sizes = stratum_sizes(candidates) if sizes is None else sizes
    train_size, heldout_size = _sizes(candidates, wanted)
    if any(row.split for row in candidates):
        heldout_rows, most_images = [row for row in candidates if row.split == "heldout"], len(candidates)
    else:
        heldout_rows, most_images = candidates, _most_heldout_images(candidates, wanted)
    heldout = _deal(
        heldout_rows,
        heldout_size,
        sizes,
        lambda row: (_key(seed, row.image), _key(seed, row.question)),
        most_images,
    )
    held_images = {row.image for row in heldout}
    rest = [row for row in candidates if row.split != "heldout" and row.image not in held_images]
    train = _deal(rest, train_size, sizes, lambda row: _key(seed, row.image, row.question))
    remaining, (size, larger) = iter(train), divmod(len(train), wanted.subsets)
    subsets = [list(itertools.islice(remaining, size + (i < larger))) for i in range(wanted.subsets)]
    return Selection(subsets, heldout)


def _sizes(candidates: Sequence[Candidate], wanted: Wanted) -> tuple[int, int]:
    """Rows for training and for the held-out part: what is wanted, or a share of what there is."""
    asked, there = wanted.train + wanted.heldout_size, len(candidates)
    if there >= asked or any(row.split for row in candidates):
        return wanted.train, wanted.heldout_size
    heldout = there * wanted.heldout_size // asked
    if wanted.heldout_size and there > 1:
        heldout = max(1, heldout)
    return there - heldout, heldout


def _most_heldout_images(candidates: Sequence[Candidate], wanted: Wanted) -> int:
    """As many images as leave training its share of them, and at least one."""
    images = len({row.image for row in candidates})
    return images - max(1, images * wanted.train // (wanted.train + wanted.heldout_size))


def _deal(
    rows: Iterable[Candidate],
    count: int,
    sizes: Mapping[str, int],
    key: Callable[[Candidate], bytes | tuple[bytes, ...]],
    most_images: int | None = None,
) -> list[Candidate]:
    """The first `count` rows of a stratified order: every stretch of it has the strata in proportion.

    The strata take turns as parties take seats by the method of Sainte-Laguë, largest claim first; a stratum that has
    run out is passed over. Once `most_images` images are in use, rows of others are passed over as well.
    """
    queues: Mapping[str, deque[Candidate]] = defaultdict(deque)
    for row in sorted(rows, key=key):
        queues[row.source].append(row)
    # Heap of (-claim, name, rows taken); the claim is size / (2 * rows taken + 1).
    claims = [(-float(sizes[name]), name, 0) for name in queues]
    heapq.heapify(claims)
    order: list[Candidate] = []
    images: set[bytes] = set()
    while claims and len(order) < count:
        claim, name, taken = heapq.heappop(claims)
        row = queues[name].popleft()
        if most_images is None or row.image in images or len(images) < most_images:
            order.append(row)
            images.add(row.image)
            taken += 1
            claim = -sizes[name] / (2 * taken + 1)
        if queues[name]:
            heapq.heappush(claims, (claim, name, taken))
    return order


def _key(seed: int, *parts: bytes) -> bytes:
    """A place in a random order that depends on the seed and on what the row is."""
    return hashlib.sha256(b"|".join([str(seed).encode(), *parts])).digest()
