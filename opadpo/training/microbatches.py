"""How the examples of an update are dealt to micro-batches: by count, or so that none holds too many tokens.

Either way every update has as many micro-batches as every other, the same number for each process; which examples meet
in one changes neither the update's loss nor its gradient.
"""

import heapq
from collections.abc import Sequence

Deal = list[list[int]]
"""Places within an update, micro-batch after micro-batch; processes take turns."""


def by_count(lengths: Sequence[int], size: int) -> Deal:
    """So many examples each, of about one length; the longest first: what does not fit into memory shows at once."""
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    return [order[first : first + size] for first in range(0, len(order), size)]


def evenly(lengths: Sequence[int], batches: int) -> Deal:
    """So many micro-batches with about the same number of tokens each, the fullest first.

    Every example, the longest first, goes where there are fewest tokens yet. Needs no fewer examples than batches.
    """
    heap: list[tuple[int, int, list[int]]] = [(0, number, []) for number in range(batches)]
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        tokens, number, places = heap[0]
        heapq.heapreplace(heap, (tokens + lengths[place], number, [*places, place]))
    return [places for _, _, places in sorted(heap, key=lambda batch: (-batch[0], batch[1]))]


def deal(updates: Sequence[Sequence[int]], *, processes: int, size: int, tokens: int | None) -> list[Deal]:
    """Micro-batches of all updates.

    Args:
        updates: lengths of the examples of each update, as many in each, a multiple of `processes`.
        processes: that take turns.
        size: examples of a micro-batch, where `tokens` is None; it divides the examples of a process.
        tokens: that no micro-batch exceeds, an example longer than that having one by itself. The fewest micro-batches
            with which that holds in every update.
    """
    if tokens is None:
        return [by_count(lengths, size) for lengths in updates]
    most = len(updates[0]) // processes
    fewest = max(-(-sum(lengths) // (tokens * processes)) for lengths in updates)
    dealt: list[Deal] = []
    for each in range(min(fewest, most), most + 1):
        dealt = []
        for lengths in updates:
            update = evenly(lengths, each * processes)
            if each < most and any(len(b) > 1 and sum(lengths[place] for place in b) > tokens for b in update):
                break
            dealt.append(update)
        if len(dealt) == len(updates):
            break
    return dealt
