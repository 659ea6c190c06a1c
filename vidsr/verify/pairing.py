"""Which frame of an output belongs to which of its source: by time, so that a missing one moves no others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Generic, TypeVar

__all__ = ["best_offset", "paired", "with_neighbours"]

Item = TypeVar("Item")
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
    """An iterator whose next two items can be seen, with their times."""

    def __init__(self, items: Iterable[Item], time: Callable[[Item], Fraction]) -> None:
        self._items, self._time = iter(items), time
        self._ahead: deque[tuple[Item, Fraction]] = deque()
        self._fill()

    def __getitem__(self, index: int) -> Fraction | None:
        """The time of the next item, or of the one behind it; None behind the end."""
        return self._ahead[index][1] if index < len(self._ahead) else None

    def take(self) -> Item:
        item, _ = self._ahead.popleft()
        self._fill()
        return item

    def _fill(self) -> None:
        while len(self._ahead) < 2 and (item := next(self._items, None)) is not None:
            self._ahead.append((item, self._time(item)))


def paired(
    source: Iterable[Item],
    output: Iterable[Item],
    source_time: Callable[[Item], Fraction],
    output_time: Callable[[Item], Fraction],
) -> Iterator[tuple[Item | None, Item | None]]:
    """Pairs in the order of time; None beside what has no partner. Times must be on the same zero."""
    ours, theirs = _Heads(source, source_time), _Heads(output, output_time)
    while True:
        mine, other = ours[0], theirs[0]
        if mine is None or other is None:
            break
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
