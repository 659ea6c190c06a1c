"""The frames of an output beside those of its source: how many, when, and what they show."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from threading import Event

from vidsr.media.source import SourceInfo, VideoReader
from vidsr.notes import Notes
from vidsr.verify.cells import Reducer, grid_of, misreadings
from vidsr.verify.expectation import Expectation
from vidsr.verify.pairing import best_offset, paired
from vidsr.verify.picture import PictureJudge, Shown
from vidsr.verify.result import Check, Finding, clock

__all__ = ["VideoResult", "compare_video"]

_NEIGHBOURS = 3
_ALIGNED = 8
_UNTIMED = {"avi"}
_SHIFTING = {"matroska", "webm", "mpegts", "nut", "avi"}
"""Containers that move everything where something would begin before zero, before it is decoded for some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoResult:
    """first: time of the first frame of the span in the source. offset: what is added to the source's times in the
    output. Both in seconds of their files."""

    checks: tuple[Check, ...]
    frames: int
    worst_time: Fraction
    worst_picture: float
    first: Fraction
    offset: Fraction
    moved: bool


class _Comparison:
    """One pass over both files."""

    def __init__(self, info: SourceInfo, expected: Expectation, times: Sequence[int]) -> None:
        source = expected.source
        self._expected, self._times = expected, times
        self._begin = source.start_seconds
        self._count, self._clock, self._show = Finding("frames"), Finding("times"), Finding("pictures")
        self.matched, self.worst_time = 0, Fraction(0)
        layout, target = source.video.layout, info.video.layout
        grid = grid_of(layout, target)
        reference = layout.height, layout.width
        color = expected.video.color if expected.video else info.video.color
        self._source = VideoReader(
            source, start=expected.start, end=expected.end, deinterlace=expected.deinterlace
        )
        self._output = VideoReader(info)
        self._reduce_source, self._reduce_output = Reducer(layout, grid, reference), Reducer(target, grid, reference)
        definite = color.resolved(height=layout.height, width=layout.width, rgb=target.family == "rgb")
        self._color = color
        self.judge = PictureJudge(
            (layout.height / grid[0], layout.width / grid[1]),
            (target.height / layout.height, target.width / layout.width),
            misreadings(target, definite),
            self._begin,
        )

    def source_frames(self) -> Iterator[Shown]:
        planes = self._expected.source.video.layout.allocate()
        while (frame := self._source.read(planes)) is not None:
            base = frame.time_base
            yield Shown(frame.pts * base, frame.duration * base, self._reduce_source(frame.planes, frame.color))

    def output_frames(self) -> Iterator[Shown]:
        """Times are those of the packets: the reader moves apart what a container's grid has put together."""
        planes = self._output.video.layout.allocate()
        number = 0
        while (frame := self._output.read(planes)) is not None:
            base = frame.time_base
            stated = self._times[number] if number < len(self._times) else frame.pts
            pts = stated if 0 <= (frame.pts - stated) * base < 1 else frame.pts
            number += 1
            yield Shown(pts * base, frame.duration * base, self._reduce_output(frame.planes, self._color))

    def close(self) -> None:
        self._source.close()
        self._output.close()
