"""A file's frames by time: the one on screen at some moment, the next, the one before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from vidsr.frame import Frame
from vidsr.media.info import SourceInfo
from vidsr.media.reader import VideoReader

__all__ = ["Footage", "Held"]

_HELD = 3
"""The frame that is asked for, the one behind it, and the one that is being read."""
_BACK_SECONDS = (1, 10, 60, 600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A frame of the source. seconds: its time from the beginning of the file. Its planes are valid until the next but
    one is asked for."""

    frame: Frame
    seconds: Fraction


class Footage:
    """Frames of a file in any order, exact to the frame. Passive; belongs to one thread.

    open_reader: makes a reader of `source` that begins at so many seconds, or None for the beginning. given_up: asked
    for each frame that is read; where it says yes there is none any more. passed: how many frames were left out because
    of `until`.
    """

    def __init__(
        self,
        source: SourceInfo,
        open_reader: Callable[[Fraction | None], VideoReader],
        given_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self._source, self._open_reader, self._given_up = source, open_reader, given_up
        self._buffers = [source.video.layout.allocate() for _ in range(_HELD)]
        self._turn = 0
        self._reader: VideoReader | None = None
        self._ahead: Held | None = None
        self._current: Held | None = None
        self._latest: Fraction | None = None
        self._last: Fraction | None = None
        self._passed = 0

    @property
    def passed(self) -> int:
        return self._passed + (self._reader.passed if self._reader is not None else 0)

    def at(self, seconds: Fraction) -> Held | None:
        """The frame that is on screen then: the last that begins by that time, or the first of all. None for a file
        without frames. Raises InputError."""
        return self._find(seconds, lambda begin: begin <= seconds)

    def beside(self, seconds: Fraction, by: int) -> Held | None:
        """So many frames behind the one on screen then, before it where `by` is below 0; the first or last where there
        are not so many. Raises InputError."""
        here = self._current
        if here is None or here.seconds != seconds:
            here = self.at(seconds)
        for _ in range(abs(by)):
            if here is None:
                break
            there = self.next() if by > 0 else self._before(here.seconds)
            here = self._current = there or here
        return here

    def next(self, until: Fraction | None = None) -> Held | None:
        """The frame behind the last one; those that are over by `until` are left out. None at the end."""
        ahead, self._ahead = self._ahead, None
        if ahead is None or (until is not None and ahead.seconds < until):
            later = self._read(until)
            if ahead is not None and (later is None or (until is not None and later.seconds > until)):
                self._ahead = later
            else:
                self._passed += ahead is not None
                ahead = later
        self._current = ahead
        return ahead

    def close(self) -> None:
        if self._reader is not None:
            self._passed += self._reader.passed
            self._reader.close()
            self._reader = None

    def _before(self, seconds: Fraction) -> Held | None:
        return self._find(seconds, lambda begin: begin < seconds)

    def _find(self, seconds: Fraction, wanted: Callable[[Fraction], bool]) -> Held | None:
        """The last frame whose beginning is wanted, else the first of the file."""
        rate = self._source.video.rate or Fraction(25)
        near = seconds if self._last is None else min(seconds, self._last)
        for back in (2 / rate, *_BACK_SECONDS, None):
            begin = None if back is None or back >= near else near - back
            self.close()
            self._reader, self._latest = self._open_reader(begin), None
            found, self._ahead = None, self._read()
            while self._ahead is not None and wanted(self._ahead.seconds):
                found, self._ahead = self._ahead, self._read()
            if found is not None or begin is None or self._given_up():
                break
        self._current = found if found is not None else self.next()
        return self._current

    def _read(self, until: Fraction | None = None) -> Held | None:
        if self._reader is None or self._given_up():
            return None
        frame = self._reader.read(self._buffers[self._turn], until)
        if frame is None:
            if not self._given_up():
                self._last = self._latest or self._last
            return None
        self._turn = (self._turn + 1) % _HELD
        self._latest = frame.pts * frame.time_base - self._source.start_seconds
        return Held(frame=frame, seconds=self._latest)
