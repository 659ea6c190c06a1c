"""What had to be mended on the way: how often, and when."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

__all__ = ["Notes"]

_TIMES = 5


@dataclass(slots=True)
class _Entry:
    count: int = 0
    seconds: list[Fraction] = field(default_factory=list)


class Notes:
    """Counts events by their description and remembers when the first few happened.

    Memory does not grow with the number of events. Belongs to one thread at a time.
    """

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def add(self, what: str, seconds: Fraction | None = None) -> None:
        """Counts one more `what`, at `seconds` from the beginning of the file if that is known."""
        entry = self._entries.setdefault(what, _Entry())
        entry.count += 1
        if seconds is not None and len(entry.seconds) < _TIMES:
            entry.seconds.append(seconds)

    def lines(self) -> list[str]:
        """One line for people for each description, in the order of first appearance."""
        return [self._line(what, entry) for what, entry in self._entries.items()]

    def __getitem__(self, what: str) -> int:
        """How often `what` was counted."""
        return self._entries[what].count if what in self._entries else 0

    def __bool__(self) -> bool:
        return bool(self._entries)

    @staticmethod
    def _line(what: str, entry: _Entry) -> str:
        times = ", ".join(f"{float(time):.3f}" for time in entry.seconds)
        more = ", ..." if entry.count > len(entry.seconds) else ""
        when = f" at {times}{more} s" if times else ""
        count = f" ({entry.count} times)" if entry.count > 1 else ""
        return f"{what}{when}{count}"
