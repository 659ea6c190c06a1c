"""Times that never step back."""

from __future__ import annotations

from fractions import Fraction

__all__ = ["Timeline"]

_JUMP_SECONDS = 1


class Timeline:
    """Places what comes in the order of decoding or presentation on increasing times.

    strict: no two items at the same time, as an encoder needs it; copied subtitles may well share one.
    begin: where a first item without a time goes.

    A small step back puts the item right behind its predecessor. A jump back of a second or more means that the clock
    began anew, as in transport streams joined end to end: everything from there on moves behind what was before.
    """

    def __init__(self, time_base: Fraction, *, strict: bool, begin: int = 0) -> None:
        self._begin = begin
        self._step = int(strict)
        self._jump = Fraction(_JUMP_SECONDS) / time_base
        self._moved = 0
        self._last: int | None = None
        self._last_duration = 0

    def place(self, time: int | None, duration: int) -> int:
        """The item's time, in units of the time base; the same unless it had to move.

        None, for an item without a time, is right behind its predecessor.
        """
        if time is None:
            placed = self._begin if self._last is None else self._last + max(self._step, self._last_duration)
            self._last, self._last_duration = placed, duration
            return placed
        placed = time + self._moved
        if self._last is not None and placed < self._last + self._step:
            if self._last - placed >= self._jump:
                self._moved = self._last + max(1, self._last_duration) - time
                placed = time + self._moved
            else:
                placed = self._last + self._step
        self._last, self._last_duration = placed, duration
        return placed
