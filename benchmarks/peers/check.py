"""Whether an output is the clip at twice the size: every frame, when it is shown, and what it shows."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from vidsr.errors import InputError
from vidsr.media.source import VideoReader, probe
from vidsr.verify import expectation_from
from vidsr.verify.description import compare_picture_format
from vidsr.verify.packets import presentation_times
from vidsr.verify.result import clock
from vidsr.verify.video import compare_video

__all__ = ["Findings", "Span", "check", "span"]

_EXACT = Fraction(1, 1000)
"""Times nearer than this are the same: containers and average rates round."""
_CHANGED = ("shape",)
_LOST = ("colour tags", "HDR metadata")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The first frames of a clip. end: in seconds from its beginning, between the last one and the next; None where
    there is no next."""

    clip: Path
    frames: int
    end: Fraction | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """wrong: what makes an output another video. lost: what players were told about it and no longer are."""

    wrong: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def span(clip: Path, frames: int) -> Span:
    """The first `frames` of a clip, fewer where it has fewer."""
    source = probe(clip)
    reader, times = VideoReader(source, deinterlace="off"), []
    planes = source.video.layout.allocate()
    while len(times) <= frames and (frame := reader.read(planes)) is not None:
        times.append(frame.pts * frame.time_base)
    reader.close()
    end = (times[frames - 1] + times[frames]) / 2 - source.start_seconds if len(times) > frames else None
    return Span(clip=clip, frames=min(frames, len(times)), end=end)


def check(output: Path, expected: Span, scale: int) -> Findings:
    """Reads both and compares."""
    try:
        info = probe(output)
    except InputError as error:
        return Findings(wrong=(str(error),))
    given = expectation_from(expected.clip, output, end=expected.end, deinterlace="off")
    times = presentation_times(output, info.video.index)
    video = compare_video(info, given, times, on_progress=lambda _: None, stop=None)
    wrong = [f"{one.name}: {one.text}" for one in video.checks if one.status == "fault" and one.name != "times"]
    if (late := max(video.worst_time, abs(video.offset))) > _EXACT:
        wrong.append(f"times: off by up to {clock(late)}")
    layout, wanted = info.video.layout, given.source.video.layout
    if (layout.height, layout.width) != (wanted.height * scale, wanted.width * scale):
        size = f"{wanted.width * scale}x{wanted.height * scale}"
        wrong.append(f"size: {layout.width}x{layout.height} instead of {size}")
    shown = [one for one in compare_picture_format(info, given) if one.status == "fault"]
    wrong += [f"{one.name}: {one.text}" for one in shown if one.name in _CHANGED]
    return Findings(wrong=tuple(wrong), lost=tuple(f"{one.name}: {one.text}" for one in shown if one.name in _LOST))
