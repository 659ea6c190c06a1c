"""The frames of an output beside those of its source: how many, when, and what they show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice, zip_longest
from threading import Event

from vidsr.media.source import SourceInfo, VideoReader
from vidsr.verify.cells import Reducer, grid_of, misreadings
from vidsr.verify.expectation import Expectation
from vidsr.verify.pairing import best_offset, paired, with_neighbours
from vidsr.verify.picture import PictureJudge, Shown
from vidsr.verify.result import Check, Finding, clock

__all__ = ["VideoResult", "compare_video"]

_ALIGNED = 8
_CLOSE = Fraction(1, 10)
_SHIFTING = {"matroska", "webm", "mpegts", "nut"}
"""Containers that move everything where something would begin before zero; some of them before it is decoded."""
_MENDED_TIMES = "frames with a time before their predecessor"


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoResult:
    """frames: of the source that have their picture in the output. worst_time: the largest error of one of them, in
    seconds. first: time of the first frame of the span in the source. offset: what is added to the source's times in
    the output. moved: whether the container did that by itself.
    """

    checks: tuple[Check, ...]
    frames: int
    worst_time: Fraction
    worst_picture: float
    first: Fraction
    offset: Fraction
    moved: bool


class _Readers:
    """Both files as frames in cells. times: of the output's packets, sorted, in units of its time base."""

    def __init__(self, output: SourceInfo, expected: Expectation, times: Sequence[int]) -> None:
        source, self._times = expected.source, times
        layout, target = source.video.layout, output.video.layout
        grid, reference = grid_of(layout, target), (layout.height, layout.width)
        self._color = expected.video.color if expected.video else output.video.color
        self._reduce_source, self._reduce_output = Reducer(layout, grid, reference), Reducer(target, grid, reference)
        definite = self._color.resolved(height=layout.height, width=layout.width, rgb=target.family == "rgb")
        self.judge = PictureJudge(
            (layout.height / grid[0], layout.width / grid[1]),
            (target.height / layout.height, target.width / layout.width),
            misreadings(target, definite),
            source.start_seconds,
        )
        self.source = VideoReader(source, start=expected.start, end=expected.end, deinterlace=expected.deinterlace)
        self.output = VideoReader(output)
        self.read = 0

    def source_frames(self) -> Iterator[Shown]:
        planes = self.source.video.layout.allocate()
        while (frame := self.source.read(planes)) is not None:
            base, cells = frame.time_base, self._reduce_source(frame.planes, frame.color)
            yield Shown(frame.pts * base, frame.duration * base, cells)

    def output_frames(self) -> Iterator[Shown]:
        """With the times of their packets: the reader moves those apart that a container's grid has put together."""
        planes = self.output.video.layout.allocate()
        while (frame := self.output.read(planes)) is not None:
            base, cells = frame.time_base, self._reduce_output(frame.planes, self._color)
            stated = self._times[self.read] if self.read < len(self._times) else frame.pts
            self.read += 1
            pts = stated if 0 <= (frame.pts - stated) * base < 1 else frame.pts
            yield Shown(pts * base, frame.duration * base, cells)

    def close(self) -> None:
        self.source.close()
        self.output.close()


class _Findings:
    """What is gathered while frames go by."""

    def __init__(self, expected: Expectation, first: Fraction, offset: Fraction, tolerance: Fraction) -> None:
        self._expected, self._begin = expected, expected.source.start_seconds
        self._offset, self._tolerance, self._first = offset, tolerance, first
        self.count, self.times, self.pictures = Finding("frames"), Finding("times"), Finding("pictures")
        self.matched, self.worst_time = 0, Fraction(0)
        self._last: tuple[Shown, Shown] | None = None

    def take(self, mine: Shown | None, other: Shown | None, neighbours: list[Shown], judge: PictureJudge) -> None:
        if mine is None:
            assert other is not None
            self.count.add(f"there is a frame too many at {clock(other.seconds - self._offset - self._begin)}")
            return
        when = clock(mine.seconds - self._begin)
        if other is None:
            self.count.add(f"the frame at {when} is missing")
            return
        self.matched += 1
        self._last = mine, other
        late = other.seconds - self._offset - mine.seconds
        self.worst_time = max(self.worst_time, abs(late))
        if abs(late) > self._tolerance:
            self.times.add(f"the frame at {when} is {_late(late)}", expected=self._expected.container.time_base == 0)
        fault = judge.look(mine, other.cells, neighbours)
        if fault:
            self.pictures.add(f"the frame at {when} {fault}")

    def judge_offset(self, usual: Fraction) -> None:
        """Whether everything may be moved as it is."""
        moved = self._offset - usual
        if not moved:
            return
        kept = [plan for plan in self._expected.tracks if plan.how in ("copy", "convert")]
        begins = [plan.first_seconds for plan in kept if plan.first_seconds is not None]
        name = self._expected.container.format
        forced = name in _SHIFTING
        if name in ("matroska", "webm"):
            primed = any(plan.how == "convert" for plan in kept)
            forced = moved > 0 and (primed or min([*begins, self._first]) + usual < 0)
        self.times.add(f"everything is {_late(moved)}, in step", expected=forced)

    def judge_last(self, lasting: Fraction | None) -> None:
        """How long the last frame stays; of all others the next one's time says it.

        lasting: from the output's first frame to the end of its last, as the track says. MP4 keeps how far frames are
        apart in the order of decoding, so that with an unsteady rate neither that nor the frame's own duration is what
        was written; one of the two has to be about right.
        """
        if self._last is None or lasting is None or self._expected.container.format not in ("mp4", "mov"):
            return
        mine, other = self._last
        shown = [other.duration, lasting - (other.seconds - self._offset - self._first)]
        if mine.duration and min(abs(seconds - mine.duration) for seconds in shown) > mine.duration * _CLOSE:
            self.times.add(f"the last frame is shown for {clock(shown[0])} instead of {clock(mine.duration)}")


def compare_video(
    output: SourceInfo,
    expected: Expectation,
    times: Sequence[int],
    *,
    on_progress: Callable[[float], None],
    stop: Event | None,
) -> VideoResult:
    """Decodes both files once and compares them frame by frame.

    times: presentation times of the output's packets, sorted. stop: ends it early with what was found until then.
    """
    readers = _Readers(output, expected, times)
    try:
        ours: Iterator[Shown] = readers.source_frames()
        theirs: Iterator[Shown] = readers.output_frames()
        our_first, their_first = list(islice(ours, _ALIGNED)), list(islice(theirs, _ALIGNED))
        grid = expected.container.time_base or Fraction(0)
        first = our_first[0].seconds if our_first else expected.source.start_seconds
        usual = -first if expected.start else Fraction(0)
        timeless = expected.container.time_base == 0
        starts = [[frame.seconds for frame in frames] for frames in (our_first, their_first)]
        offset = usual if timeless else best_offset(starts[0], starts[1], usual, grid / 2)
        findings = _Findings(expected, first, offset, grid if offset != usual else grid / 2)
        findings.judge_offset(usual)
        ours, theirs = chain(our_first, ours), chain(their_first, theirs)
        pairs = zip_longest(ours, theirs) if timeless else paired(ours, theirs, offset)
        for mine, other, neighbours in with_neighbours(pairs):
            findings.take(mine, other, neighbours, readers.judge)
            on_progress(min(1.0, readers.read / max(1, len(times))))
            if stop is not None and stop.is_set():
                break
        else:
            findings.judge_last(output.video.duration_seconds)
            for line in readers.output.notes.lines():
                if not line.startswith(_MENDED_TIMES):
                    findings.count.add(f"the output: {line}")
    finally:
        readers.close()
    return _result(findings, readers.judge, first, offset, usual)


def _result(
    findings: _Findings, judge: PictureJudge, first: Fraction, offset: Fraction, usual: Fraction
) -> VideoResult:
    colours = Finding("colours")
    if fault := judge.colours():
        colours.add(fault)
    worst = float(findings.worst_time)
    return VideoResult(
        checks=(
            findings.count.check(f"all {findings.matched} there"),
            findings.times.check("all exact" if not worst else f"all right, to {worst * 1000:.3f} ms"),
            findings.pictures.check(f"all show what they should, to {judge.worst:.1f} of 255"),
            colours.check("as in the source"),
        ),
        frames=findings.matched,
        worst_time=findings.worst_time,
        worst_picture=judge.worst,
        first=first,
        offset=offset,
        moved=offset != usual,
    )


def _late(seconds: Fraction) -> str:
    return f"{clock(abs(seconds))} {'late' if seconds > 0 else 'early'}"
