"""What verification found, as data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

__all__ = ["Check", "Finding", "Status", "Verification", "clock"]

Status = Literal["ok", "expected", "fault"]

_DETAILS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was compared.

    status: "expected" for a difference that the container forces and that was announced before the run.
    text: the result in one line. details: the first few differences, named by their time in the source.
    """

    name: str
    status: Status
    text: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """An output compared with its source.

    frames: how many of the source have their picture in the output. worst_time_seconds: the largest error of a
    frame's time, beside a shift of the whole file. worst_picture: the largest difference of a frame's picture, as root
    mean square of its cells in 8-bit code values.
    """

    checks: tuple[Check, ...]
    frames: int
    worst_time_seconds: float
    worst_picture: float

    @property
    def ok(self) -> bool:
        return not any(check.status == "fault" for check in self.checks)

    @property
    def faults(self) -> tuple[str, ...]:
        """One line for each check that failed."""
        return tuple(f"{check.name}: {check.text}" for check in self.checks if check.status == "fault")

    def rows(self) -> list[str]:
        """Lines for people: a check each, what differs indented below it."""
        width = max((len(check.name) for check in self.checks), default=0)
        lines = []
        for check in self.checks:
            lines.append(f"{check.status:8}  {check.name:{width}}  {check.text}")
            lines += [f"{'':{width + 12}}{detail}" for detail in check.details]
        return lines


class Finding:
    """Gathers the differences of one check while files are read; only the first few are kept in words."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._counts = {"fault": 0, "expected": 0}
        self._details: dict[str, list[str]] = {"fault": [], "expected": []}

    def add(self, detail: str, *, expected: bool = False) -> None:
        """One more difference. expected: the container forces it."""
        kind = "expected" if expected else "fault"
        self._counts[kind] += 1
        if len(self._details[kind]) < _DETAILS:
            self._details[kind].append(detail)

    def extend(self, details: Iterable[str]) -> None:
        for detail in details:
            self.add(detail)

    def check(self, fine: str) -> Check:
        """The result; `fine` is its text where nothing differs."""
        for status in ("fault", "expected"):
            count, details = self._counts[status], self._details[status]
            if count:
                text = details[0] if count == 1 else f"{details[0]}, and {count - 1} more"
                return Check(
                    name=self._name,
                    status="fault" if status == "fault" else "expected",
                    text=text,
                    details=tuple(details) if count > 1 else (),
                )
        return Check(name=self._name, status="ok", text=fine)


def clock(seconds: Fraction) -> str:
    """A time for people: milliseconds, and more digits only where they say something."""
    exact = f"{float(seconds):.6f}"
    return f"{exact[:-3] if exact.endswith('000') else exact} s"
