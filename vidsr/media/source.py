"""Reading: what a file holds, and its video frames one after the other."""

from __future__ import annotations

import os
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from vidsr.color import UNSPECIFIED, ColorTags
from vidsr.errors import InputError
from vidsr.frame import Frame, FrameLayout, Plane
from vidsr.media.pixel import layout_of, planar_equivalent, planes_of, siting_of
from vidsr.media.timeline import Timeline

__all__ = ["SourceInfo", "TrackInfo", "VideoInfo", "VideoReader", "file_url", "open_input", "probe"]

MAX_PIXELS = 16384 * 16384
_REFORMAT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackInfo:
    """One track as the container states it. `kind`: video, audio, subtitle, attachment or data."""

    index: int
    kind: str
    codec: str
    language: str
    title: str
    cover: bool

    def __str__(self) -> str:
        name = "cover picture" if self.cover else f"{self.kind} track {self.index}"
        return f"{name} ({', '.join(part for part in (self.codec, self.language, self.title) if part)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """The video track that is upscaled.

    layout: of the planes the reader delivers. pixel_format: of the decoder; differs where FFmpeg converts first.
    frames: as the container states or its duration suggests; None if unknown. duration_seconds: as the track itself
    states, None where only the file as a whole does.
    """

    index: int
    codec: str
    pixel_format: str
    layout: FrameLayout
    color: ColorTags
    time_base: Fraction
    rate: Fraction | None
    frames: int | None
    duration_seconds: Fraction | None
    sample_aspect_ratio: Fraction | None
    display_matrix: tuple[int, ...] | None
    interlaced: bool
    has_alpha: bool
    has_hdr_metadata: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """What a file holds. Times in seconds from the container's own zero."""

    path: Path
    format: str
    video: VideoInfo
    tracks: tuple[TrackInfo, ...]
    start_seconds: Fraction
    duration_seconds: Fraction | None


def file_url(path: Path) -> str:
    """A path as FFmpeg takes it whatever is in it: without the prefix, "12:30.mp4" would be a protocol."""
    return f"file:{path}"


def open_input(path: Path) -> av.container.InputContainer:
    """Opens a file for reading. Raises InputError with one clear line."""
    if os.path.isdir(path):  # unlike the method, this takes names that no file can have
        raise InputError(f"{path} is a folder, not a video file")
    if not os.path.exists(path):
        raise InputError(f"{path}: no such file")
    if not os.path.isfile(path):
        raise InputError(f"{path} is no ordinary file; vidsr reads its input several times, so store it first")
    try:
        return av.open(file_url(path), metadata_errors="replace")
    except av.error.InvalidDataError as error:
        raise InputError(f"{path} is not a video file, or it is damaged from the start on") from error
    except PermissionError as error:
        raise InputError(f"{path}: not allowed to read it") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def probe(path: Path) -> SourceInfo:
    """Opens the file, decodes one frame, closes it. Raises InputError."""
    with open_input(path) as container:
        tracks = tuple(_track(stream) for stream in container.streams)
        stream = _main_video(container, path)
        frame = _first_frame(container, stream, path)
        start = Fraction(container.start_time or 0, av.time_base)
        duration = Fraction(container.duration, av.time_base) if container.duration else None
        return SourceInfo(
            path=path,
            format=container.format.name,
            video=_video(stream, frame, duration),
            tracks=tracks,
            start_seconds=start,
            duration_seconds=duration,
        )


def _track(stream: Any) -> TrackInfo:
    context = stream.codec_context
    metadata = stream.metadata
    return TrackInfo(
        index=stream.index,
        kind=stream.type or "unknown",
        codec=context.codec.canonical_name if context is not None else metadata.get("mimetype", ""),
        language=metadata.get("language", ""),
        title=metadata.get("title", "") or (metadata.get("filename", "") if stream.type == "attachment" else ""),
        cover=bool(stream.disposition & av.stream.Disposition.attached_pic),
    )


def _main_video(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """The default video track, else the first; cover pictures are not video."""
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        others = sorted({stream.type for stream in container.streams})
        raise InputError(f"{path} has no video track (it has: {', '.join(others) or 'nothing'})")
    default = [stream for stream in streams if stream.disposition & av.stream.Disposition.default]
    return (default or streams)[0]


def _first_frame(container: av.container.InputContainer, stream: av.VideoStream, path: Path) -> av.VideoFrame:
    frame = next(_decode(container, stream, lambda error: None), None)
    if frame is None:
        raise InputError(f"{path}: not one frame of its video ({stream.codec_context.name}) can be decoded")
    if frame.width * frame.height > MAX_PIXELS:
        raise InputError(f"{path}: its frames are {frame.width}x{frame.height}, larger than FFmpeg handles")
    return frame


def _decode(
    container: av.container.InputContainer, stream: av.VideoStream, on_error: Callable[[Exception], None]
) -> Iterator[av.VideoFrame]:
    """Frames of a track in presentation order; damaged packets are reported and passed over."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, OSError) as error:
            # What follows cannot be read; the decoder may still hold frames.
            on_error(InputError(f"the input cannot be read to its end ({error.args[-1]})"))
            packet = None
        try:
            yield from packet.decode() if packet is not None else stream.codec_context.decode(None)
        except av.error.EOFError:
            return
        except av.error.FFmpegError as error:
            on_error(error)
        if packet is None:
            return


def _tags(stream: av.VideoStream, frame: av.VideoFrame) -> ColorTags:
    """What the frame says, else the track; `yuvj` formats are full range by name."""
    context = stream.codec_context

    def stated(own: int | None, track: int | None) -> int:
        return int(own if own not in (None, UNSPECIFIED) else track if track is not None else UNSPECIFIED)

    color_range = int(frame.color_range or context.color_range or 0)
    full = True if frame.format.name.startswith("yuvj") else {1: False, 2: True}.get(color_range)
    return ColorTags(
        primaries=stated(frame.color_primaries, context.color_primaries),
        transfer=stated(frame.color_trc, context.color_trc),
        matrix=stated(frame.colorspace, context.colorspace),
        full_range=full,
    )


def _video(stream: av.VideoStream, frame: av.VideoFrame, duration: Fraction | None) -> VideoInfo:
    color = _tags(stream, frame)
    codec = stream.codec_context.codec.canonical_name
    layout = layout_of(
        planar_equivalent(frame.format.name), height=frame.height, width=frame.width, siting=siting_of(color, codec)
    )
    rate = next((r for r in (stream.average_rate, stream.guessed_rate, stream.base_rate) if r and 1 <= r <= 480), None)
    frames = stream.frames or (round(duration * rate) if duration and rate else None)
    entries: Any = frame.side_data
    side_data = {entry.type.name: bytes(entry) for entry in entries}
    matrix = side_data.get("DISPLAYMATRIX")
    ratio = stream.sample_aspect_ratio
    return VideoInfo(
        index=stream.index,
        codec=codec,
        pixel_format=frame.format.name,
        layout=layout,
        color=color,
        time_base=stream.time_base or Fraction(1, 90000),
        rate=rate,
        frames=frames,
        duration_seconds=_own_duration(stream),
        sample_aspect_ratio=ratio if ratio else None,
        display_matrix=struct.unpack("=9i", matrix[:36]) if matrix else None,
        interlaced=frame.interlaced_frame,
        # VP8 and VP9 keep alpha beside the picture, where FFmpeg's own decoders do not look.
        has_alpha=any(part.is_alpha for part in frame.format.components) or stream.metadata.get("alpha_mode") == "1",
        has_hdr_metadata=bool({"MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"} & side_data.keys()),
    )


def _own_duration(stream: av.VideoStream) -> Fraction | None:
    """The track's length; Matroska has it as a tag, H:MM:SS with nanoseconds."""
    if stream.duration and stream.time_base:
        return stream.duration * stream.time_base
    match = re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", stream.metadata.get("DURATION", ""))
    return int(match[1]) * 3600 + int(match[2]) * 60 + Fraction(match[3]) if match else None


class VideoReader:
    """Delivers the frames of a file's video track into planes that the caller owns.

    start, end: keep frames whose time, from the beginning of the file in seconds, is in [start, end).
    Passive; belongs to one thread. notes: how often something had to be mended, by description. end_seconds: where the
    last frame ends.
    """

    def __init__(self, info: SourceInfo, *, start: Fraction | None = None, end: Fraction | None = None) -> None:
        self.info, self.video = info, info.video
        self.notes: Counter[str] = Counter()
        self.end_seconds = Fraction(0)
        self._open()
        self._start = info.start_seconds + start if start else None
        self._end = info.start_seconds + end if end is not None else None
        self._reformatter = VideoReformatter()
        self._planar = planar_equivalent(info.video.pixel_format)
        self._timeline = Timeline(info.video.time_base, strict=True)
        self._frames = self._from_start()

    def read(self, planes: Sequence[Plane]) -> Frame | None:
        """Copies the next frame into `planes` (`video.layout`); None at the end."""
        taken = next(self._frames, None)
        if taken is None:
            return None
        picture, pts, duration = taken
        self.end_seconds = (pts + duration) * self.video.time_base - self.info.start_seconds
        color = _tags(self._stream, picture)
        for target, plane in zip(planes, planes_of(self._planar_picture(picture)), strict=True):
            np.copyto(target, plane)
        return Frame(planes=planes, pts=pts, duration=duration, time_base=self.video.time_base, color=color)

    def close(self) -> None:
        self._frames.close()
        self._container.close()

    def _from_start(self) -> Any:
        """The frames of the wanted span."""
        if self._start is not None:
            yield from self._until_end(self._seek(self._start))
        else:
            yield from self._until_end(_decode(self._container, self._stream, self._damaged))

    def _until_end(self, frames: Iterator[av.VideoFrame]) -> Iterator[tuple[av.VideoFrame, int, int]]:
        """(picture, pts, duration) of those within the span; times are mended first, so that every frame has one."""
        for frame in frames:
            pts, duration = self._time(frame)
            seconds = pts * self.video.time_base
            if self._start is not None and seconds < self._start:
                continue
            if self._end is not None and seconds >= self._end:
                return
            yield frame, pts, duration

    def _seek(self, start: Fraction) -> Iterator[av.VideoFrame]:
        """Frames from some point before `start` on.

        An index can be missing or lie (MPEG-TS lands behind the key frame), so a landing is used only if its first
        frame is early enough; else an earlier one, at last the beginning.
        """
        for back in (0, 10, 60, None):
            if back is None or start - back <= self.info.start_seconds:
                self._container.close()
                self._open()
                return _decode(self._container, self._stream, self._damaged)
            try:
                self._container.seek(int((start - back) / self.video.time_base), stream=self._stream, backward=True)
            except (av.error.FFmpegError, OSError):
                continue
            frames = _decode(self._container, self._stream, self._damaged)
            first = next(frames, None)
            if first is not None and first.pts is not None and first.pts * self.video.time_base <= start:
                return _chain(first, frames)
        raise AssertionError("the last landing is the beginning")

    def _open(self) -> None:
        """At the beginning of the file."""
        self._container = open_input(self.info.path)
        stream: Any = self._container.streams[self.video.index]
        self._stream: av.VideoStream = stream
        self._stream.thread_type = "AUTO"

    def _damaged(self, error: Exception) -> None:
        if isinstance(error, InputError):
            self.notes[str(error)] += 1
            return
        what = error.args[-1] if error.args else error
        self.notes[f"damaged data in the input was passed over ({what})"] += 1

    def _time(self, picture: av.VideoFrame) -> tuple[int, int]:
        """(pts, duration) of a frame: its own, made strictly increasing where the file's are not."""
        duration = int(picture.duration or 0)
        stated = picture.pts if picture.pts is not None else picture.dts
        pts = self._timeline.place(stated, duration or self._usual_duration())
        if stated is None:
            self.notes["frames without a time got one behind their predecessor"] += 1
        elif pts != stated:
            self.notes["frames with a time before their predecessor were moved behind it"] += 1
        return pts, duration

    def _usual_duration(self) -> int:
        return max(1, round(1 / ((self.video.rate or 25) * self.video.time_base)))

    def _planar_picture(self, picture: av.VideoFrame) -> av.VideoFrame:
        """The picture in the layout promised by `video`, converted by FFmpeg where it is not already."""
        layout = self.video.layout
        same_size = (picture.height, picture.width) == (layout.height, layout.width)
        if not same_size:
            self.notes[f"frames of another size than {layout.width}x{layout.height} were scaled to it"] += 1
        name = picture.format.name.replace("yuvj", "yuv")
        if same_size and name == self._planar.replace("yuvj", "yuv"):
            return picture
        return self._reformatter.reformat(
            picture, width=layout.width, height=layout.height, format=self._planar, interpolation=_REFORMAT
        )


def _chain(first: av.VideoFrame, rest: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    yield first
    yield from rest
