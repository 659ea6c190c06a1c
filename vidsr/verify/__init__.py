"""Compares an output with the source it was made of: every frame, every packet, every tag."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event

from vidsr.errors import InputError
from vidsr.media.source import probe
from vidsr.verify.description import compare_chapters, compare_picture_format, compare_tags
from vidsr.verify.expectation import Expectation, expectation_from
from vidsr.verify.packets import presentation_times
from vidsr.verify.result import Check, Status, Verification
from vidsr.verify.tracks import compare_tracks
from vidsr.verify.video import compare_video

__all__ = ["Check", "Expectation", "Status", "Verification", "expectation_from", "verify"]


def verify(
    output: Path, expected: Expectation, *, on_progress: Callable[[float], None], stop: Event | None
) -> Verification:
    """Reads `output` and the source whole and compares them.

    on_progress: called with 0..1 after every frame. stop: set it from anywhere to end early, with what was found until
    then. An output that cannot be read at all is a fault. Raises InputError for a source that cannot be read any more.
    """
    try:
        info = probe(output)
    except InputError as error:
        unreadable = Check(name="file", status="fault", text=str(error))
        return Verification(checks=(unreadable,), frames=0, worst_time_seconds=0.0, worst_picture=0.0)
    times = presentation_times(output, info.video.index)
    video = compare_video(info, expected, times, on_progress=on_progress, stop=stop)
    checks = [*video.checks, *compare_picture_format(info, expected)]
    if stop is None or not stop.is_set():
        usual = -video.first if expected.start else 0
        checks += compare_tracks(info, expected, video)
        checks.append(compare_chapters(info, expected, video.first, video.offset - usual))
        checks.append(compare_tags(info, expected))
    return Verification(
        checks=tuple(checks),
        frames=video.frames,
        worst_time_seconds=float(video.worst_time),
        worst_picture=video.worst_picture,
    )
