"""Which frame of an output belongs to which of its source: by time, so that a missing one moves no others."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from typing import Generic, Protocol, TypeVar

__all__ = ["best_offset", "paired", "with_neighbours"]


class Timed(Protocol):
    """What has a time, in seconds."""

    @property
    def seconds(self) -> Fraction: ...


Item = TypeVar("Item", bound=Timed)
_NEIGHBOURS = 3
_FIRST = 3


def best_offset(
    source: Sequence[Fraction], output: Sequence[Fraction], usual: Fraction, tolerance: Fraction
) -> Fraction:
    """What to add to the source's first times to meet most of the output's; `usual` unless another does better."""

    def met(offset: Fraction) -> int:
        return sum(any(abs(time + offset - other) <= tolerance for other in output) for time in source)

    candidates = [other - time for time in source[:_FIRST] for other in output[:_FIRST]]
    best = max(candidates, key=lambda offset: (met(offset), -abs(offset - usual)), default=usual)
    return best if met(best) > met(usual) else usual


class _Heads(Generic[Item]):
    """Frames of which the times of the next two can be seen. offset: added to those."""

    def __init__(self, items: Iterator[Item], offset: Fraction) -> None:
        self._items, self._offset = items, offset
        self._ahead: deque[Item] = deque(islice(items, 2))

    def __getitem__(self, index: int) -> Fraction | None:
        """The time of the next one, or of the one behind it; None behind the end."""
        return self._ahead[index].seconds + self._offset if index < len(self._ahead) else None

    def take(self) -> Item:
        item = self._ahead.popleft()
        self._ahead.extend(islice(self._items, 1))
        return item


def paired(
    source: Iterator[Item], output: Iterator[Item], offset: Fraction
) -> Iterator[tuple[Item | None, Item | None]]:
    """Pairs in the order of time; None beside what has no partner. offset: added to the source's times."""
    ours, theirs = _Heads(source, offset), _Heads(output, Fraction(0))
    while (mine := ours[0]) is not None and (other := theirs[0]) is not None:
        if _claims(other, mine, ours[1], theirs[1]):
            yield ours.take(), None
        elif _claims(mine, other, theirs[1], ours[1]):
            yield None, theirs.take()
        else:
            yield ours.take(), theirs.take()
    while ours[0] is not None:
        yield ours.take(), None
    while theirs[0] is not None:
        yield None, theirs.take()


def _claims(time: Fraction, partner: Fraction, better: Fraction | None, rival: Fraction | None) -> bool:
    """Whether `time` belongs to `better`, which follows `partner`, and no `rival` behind `time` does so more."""
    if better is None or abs(time - better) >= abs(time - partner):
        return False
    return rival is None or abs(rival - better) > abs(time - better)


def with_neighbours(
    pairs: Iterable[tuple[Item | None, Item | None]],
) -> Iterator[tuple[Item | None, Item | None, list[Item]]]:
    """Each pair with up to three items of the source before and three behind its own."""
    before: deque[Item] = deque(maxlen=_NEIGHBOURS)
    waiting: deque[tuple[Item | None, Item | None]] = deque()
    coming = 0
    for pair in pairs:
        waiting.append(pair)
        coming += pair[0] is not None
        while coming > _NEIGHBOURS:
            mine, other = waiting.popleft()
            behind = [item for item, _ in waiting if item is not None][:_NEIGHBOURS]
            yield mine, other, [*before, *behind]
            if mine is not None:
                before.append(mine)
                coming -= 1
    while waiting:
        mine, other = waiting.popleft()
        yield mine, other, [*before, *(item for item, _ in waiting if item is not None)]
        if mine is not None:
            before.append(mine)
