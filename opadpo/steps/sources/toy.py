"""The generated scenes of the toy world."""

from collections.abc import Collection, Iterator

from opadpo.steps.sources.base import RawRow
from opadpo.toy.dataset import rows as toy_rows


class ToySource:
    """Scenes with true references, and the toy world's own division into training and held-out rows."""

    has_references = True
    name = "toy world"

    def __init__(self, seed: int, images: int, held_out: int) -> None:
        """`images` rows for training and `held_out` for evaluation."""
        self.seed, self.images, self.held_out = seed, images, held_out
        self.total: int | None = images + held_out

    def rows(self, wanted: Collection[int] | None = None) -> Iterator[RawRow]:
        """Draw the scenes again: the generator is quick, and nothing is kept in memory."""
        chosen = None if wanted is None else frozenset(wanted)
        for position, row in enumerate(toy_rows(self.seed, self.images, self.held_out)):
            if chosen is None or position in chosen:
                yield RawRow(
                    position=position,
                    where=f"toy scene {position} of seed {self.seed}",
                    image=row["image"],
                    question=row["question"],
                    reference=row["reference"],
                    rejected=row["rejected"],
                    source=row["source"],
                    split=row["split"],
                    extra=row["extra"],
                )
