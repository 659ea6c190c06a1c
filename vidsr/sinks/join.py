"""Puts the finished file together: segments joined without encoding again, and the source's other tracks."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO

import av

from vidsr.errors import Cancelled, OutputError
from vidsr.frame import VideoTrack
from vidsr.media.container import Container, TrackPlan
from vidsr.media.info import SourceInfo
from vidsr.media.passthrough import Passthrough
from vidsr.media.segment import JoinedSegments, SegmentInfo
from vidsr.media.shape import with_shape
from vidsr.media.source import file_url
from vidsr.media.tags import stream_tags
from vidsr.media.transcode import AudioTarget
from vidsr.notes import Notes

__all__ = ["join", "mark_video"]

_MAX_MOVIE_TIMESCALE = 10_000_000
_HEAD_BYTES = 1 << 20
"""Within which a Matroska file lists its tracks."""


def join(
    target: Path,
    folder: Path,
    segments: Sequence[SegmentInfo],
    video: VideoTrack,
    source: SourceInfo,
    container: Container,
    options: Mapping[str, str],
    tracks: Sequence[TrackPlan],
    *,
    start: Fraction | None,
    end: Fraction | None,
    complete: bool,
    cancel: Event,
    on_progress: Callable[[float], None],
) -> Notes:
    """Writes `target`, synced, from the segments in `folder`; gives what had to be mended in copied tracks.

    options: of the container. start, end: the span of the source, in seconds, that the other tracks are cut to; a
    `start` becomes the output's zero. complete: False for a part, whose other tracks end with its video.
    on_progress: called with 0..1. Raises OutputError, InputError; Cancelled when `cancel` is set. A broken `target` is
    left to the caller.
    """
    first = segments[0].first_pts * video.time_base
    shift_pts = segments[0].first_pts if start else 0
    shift = shift_pts * video.time_base
    passthrough = Passthrough(
        source, tracks, start=first - source.start_seconds if start else None, end=end, shift=shift
    )
    try:
        joined = JoinedSegments(folder, segments, video, shift_pts=shift_pts)
        options = {**options, **_movie_timescale(container, video, passthrough, tracks)}
        with _opened(target, container, options) as output:
            passthrough.add_streams(
                output, lambda: mark_video(joined.add_stream(output), passthrough, source, video), source.video.index
            )
            passthrough.copy_until(first - shift, output)
            frames = sum(segment.frames for segment in segments)
            for number, packet in enumerate(joined.packets()):
                if cancel.is_set():
                    raise Cancelled("stopped while the segments were joined")
                seconds = packet.dts * packet.time_base
                output.mux(packet)
                passthrough.copy_until(seconds, output)
                on_progress(number / frames)
            if complete:
                passthrough.copy_until(None, output)
        with target.open("rb+") as written:
            _state_shape(written, container.format, video)
            os.fsync(written.fileno())
    except BrokenPipeError:  # not the file's: whoever read the progress is gone
        raise
    except (av.error.FFmpegError, OSError) as error:
        raise OutputError(f"{target}: writing failed ({error.strerror or error})") from error
    finally:
        passthrough.close()
    return passthrough.notes


@contextmanager
def _opened(path: Path, container: Container, options: dict[str, str]) -> Iterator[Any]:
    output: Any = av.open(file_url(path), "w", format=container.format, container_options=options)
    try:
        yield output
    except BaseException:
        # Closing writes a trailer, which a broken file can refuse once more.
        with suppress(av.error.FFmpegError, OSError):
            output.close()
        raise
    output.close()


def _state_shape(written: BinaryIO, format: str, video: VideoTrack) -> None:
    """Players believe Matroska's head rather than the video in it."""
    ratio = video.sample_aspect_ratio
    if ratio is None or format not in ("matroska", "webm"):
        return
    head = written.read(_HEAD_BYTES)
    stated = with_shape(head, "matroska", width=video.layout.width, height=video.layout.height, ratio=ratio)
    if len(stated) == len(head):  # nothing behind it may move
        written.seek(0)
        written.write(stated)


def mark_video(stream: Any, passthrough: Passthrough, source: SourceInfo, video: VideoTrack) -> None:
    """Gives the video track of an output the tags and marks of the source's."""
    original, name = passthrough.input.streams[source.video.index], stream.container.format.name
    stream.metadata.update(stream_tags(original.metadata, changed=True, recoded=True, format=name))
    if video.layout.alpha and name in ("matroska", "webm"):
        stream.metadata["alpha_mode"] = "1"  # players look for the second picture only then
    stream.disposition = original.disposition


def _movie_timescale(
    container: Container, video: VideoTrack, passthrough: Passthrough, tracks: Sequence[TrackPlan]
) -> dict[str, str]:
    """A movie time scale in which the tracks' starts are whole numbers: MP4 rounds edit lists to it."""
    if container.format not in ("mp4", "mov"):
        return {}
    scale = video.time_base.denominator
    for plan in tracks:
        for unit in _units(plan, passthrough) if plan.how else ():
            common = math.lcm(scale, unit)
            scale = common if common <= _MAX_MOVIE_TIMESCALE else scale
    return {"movie_timescale": str(scale * math.ceil(1000 / scale))}


def _units(plan: TrackPlan, passthrough: Passthrough) -> Iterator[int]:
    """In how many parts of a second the times of a track may be counted: as in the source, or in samples."""
    stream: Any = passthrough.input.streams[plan.track.index]
    if stream.time_base:
        yield stream.time_base.denominator
    if isinstance(plan.target, AudioTarget):
        yield plan.target.rate
    elif stream.type == "audio" and stream.codec_context is not None:
        yield stream.codec_context.sample_rate or 1
