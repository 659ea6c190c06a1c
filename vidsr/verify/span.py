"""The part of a source that an output holds, and where it lies there."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from vidsr.verify.expectation import Expectation

__all__ = ["Span"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """All in seconds of the source's own clock.

    begin: where the file begins, which times are named from. start, end: what is kept is in [start, end), None is
    without limit. offset: what is added to a time to be that of the output. moved: by the container, not by the cut.
    """

    begin: Fraction
    start: Fraction | None
    end: Fraction | None
    offset: Fraction
    moved: bool

    @classmethod
    def of(cls, expected: Expectation, first: Fraction, offset: Fraction) -> Span:
        """first: time of the first frame that is kept: a cut goes there."""
        begin = expected.source.start_seconds
        usual = -first if expected.start else Fraction(0)
        return cls(
            begin=begin,
            start=first if expected.start else None,
            end=None if expected.end is None else begin + expected.end,
            offset=offset,
            moved=offset != usual,
        )

    @property
    def cut(self) -> bool:
        return self.start is not None or self.end is not None
