"""Writes a video file: encoded frames and the source's other tracks, under the final name only when complete."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np

from vidsr.errors import EncoderError, OutputError
from vidsr.frame import Frame, VideoTrack
from vidsr.media.container import Container, TrackPlan
from vidsr.media.encoder import EncoderSettings, configure
from vidsr.media.passthrough import Passthrough, stream_tags
from vidsr.media.pixel import pixel_format, planes_of
from vidsr.media.source import SourceInfo, file_url
from vidsr.sinks import Outcome

__all__ = ["FileSink"]

_MAX_MOVIE_TIMESCALE = 10_000_000


class FileSink:
    """Encodes into `PATH.part` and renames it to `PATH` at the end.

    kept: where the result lies after a run that was stopped.
    """

    overrun: Literal["wait", "drop"] = "wait"

    def __init__(
        self,
        path: Path,
        source: SourceInfo,
        container: Container,
        encoder: EncoderSettings,
        tracks: Sequence[TrackPlan],
        *,
        start: Fraction | None = None,
        end: Fraction | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path, self.part = path, self.part_of(path)
        self._source, self._container, self._encoder, self._tracks = source, container, encoder, tracks
        self._start, self._end, self._overwrite = start, end, overwrite
        self._output: Any = None
        self._stream: Any = None
        self._passthrough: Passthrough | None = None
        self._video: VideoTrack | None = None
        self._shift_pts = 0
        self._last_pts = -1
        self._begun = False
        self._video_bytes = 0
        self.kept: Path | None = None

    @staticmethod
    def part_of(path: Path) -> Path:
        """The name under which `path` is written until it is complete."""
        return path.with_name(path.name + ".part")

    @property
    def notes(self) -> Counter[str]:
        """What had to be mended in copied tracks: how often, by description."""
        return self._passthrough.notes if self._passthrough is not None else Counter()

    @property
    def written_bytes(self) -> int:
        """Packets handed to the container so far; the file itself lags behind by FFmpeg's buffer."""
        return self._video_bytes + (self._passthrough.copied_bytes if self._passthrough is not None else 0)

    @staticmethod
    def partial_of(path: Path) -> Path:
        """The name of what is kept of a run towards `path` that was stopped."""
        return path.with_name(f"{path.stem}.partial{path.suffix}")

    def _free_partial(self) -> Path:
        """That name, or with a number behind it: what earlier runs left stays."""
        first = self.partial_of(self.path)
        names = (first.with_stem(f"{first.stem}-{number}") for number in itertools.count(2))
        return first if not first.exists() else next(path for path in names if not path.exists())

    def open(self, video: VideoTrack) -> None:
        """Remembers the picture; the file begins with the first frame, whose time a trimmed output starts at."""
        self._video = video

    def write(self, frame: Frame) -> None:
        assert self._video is not None
        if self._output is None:
            self._begin(self._video, frame)
        layout = self._video.layout
        picture = av.VideoFrame(layout.width, layout.height, pixel_format(layout))
        for target, plane in zip(planes_of(picture), frame.planes, strict=True):
            np.copyto(target, plane)
        picture.pts, picture.time_base = self._pts(frame), self._video.time_base
        picture.duration = round(frame.duration * frame.time_base / self._video.time_base)
        self._encode(picture)

    def close(self, outcome: Outcome) -> None:
        try:
            if outcome == "complete":
                self._finish(self.path)
            elif outcome == "stopped" and self._output is not None:
                self.kept = self._free_partial()
                self._finish(self.kept)
        finally:
            if self._passthrough is not None:
                self._passthrough.close()
            self._discard()

    def _name(self, path: Path) -> None:
        """Gives the finished file its name; replaces another only where that was allowed or it is a part as well."""
        if self._overwrite or path != self.path:
            os.replace(self.part, path)
            return
        try:
            os.link(self.part, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if path.exists():
                raise FileExistsError(path) from None
            os.replace(self.part, path)
        else:
            self.part.unlink()

    def _discard(self) -> None:
        """Removes what is left under the temporary name; nothing is, once the file has its own."""
        if self._output is not None:
            # Closing writes a trailer, which a broken file can refuse once more.
            with contextlib.suppress(av.error.FFmpegError, OSError):
                self._output.close()
            self._output = None
        if self._begun:
            self.part.unlink(missing_ok=True)

    def _begin(self, video: VideoTrack, first: Frame) -> None:
        if self._start:
            self._shift_pts = first.pts
        shift = self._shift_pts * first.time_base
        start = first.pts * first.time_base - self._source.start_seconds if self._start else None
        self._passthrough = Passthrough(self._source, self._tracks, start=start, end=self._end, shift=shift)
        options = self._movie_timescale(video)
        try:
            self._output = av.open(file_url(self.part), "w", format=self._container.format, container_options=options)
        except OSError as error:
            raise OutputError(f"{self.part}: cannot be written ({error.strerror or error})") from error
        self._begun = True
        try:
            self._passthrough.add_streams(self._output, lambda: self._add_video(video), self._source.video.index)
            self._passthrough.copy_until(first.pts * first.time_base - shift, self._output)
        except (av.error.FFmpegError, OSError) as error:
            raise OutputError(f"{self.part}: cannot be begun ({error.strerror or error})") from error

    def _add_video(self, video: VideoTrack) -> None:
        stream = self._output.add_stream(self._encoder.name)
        configure(stream.codec_context, video, self._encoder)
        stream.time_base = video.time_base
        if self._encoder.name in ("libx265", "hevc_nvenc") and self._container.format in ("mp4", "mov"):
            stream.codec_context.codec_tag = "hvc1"  # Apple's players open no other
        assert self._passthrough is not None
        original = self._passthrough.input.streams[self._source.video.index]
        stream.metadata.update(stream_tags(original.metadata, changed=True, recoded=True))
        stream.disposition = original.disposition
        if video.display_matrix is not None:
            stream.set_display_matrix(video.display_matrix)
        self._stream = stream

    def _movie_timescale(self, video: VideoTrack) -> dict[str, str]:
        """A movie time scale in which the tracks' starts are whole numbers: MP4 rounds edit lists to it."""
        if self._container.format not in ("mp4", "mov"):
            return {}
        scale = video.time_base.denominator
        assert self._passthrough is not None
        for plan in self._tracks:
            base = self._passthrough.input.streams[plan.track.index].time_base if plan.how else None
            common = math.lcm(scale, base.denominator) if base else scale
            scale = common if common <= _MAX_MOVIE_TIMESCALE else scale
        return {"movie_timescale": str(scale * math.ceil(1000 / scale))}

    def _pts(self, frame: Frame) -> int:
        """The frame's time in the output's time base: the same but where the container knows only frame numbers."""
        assert self._video is not None
        pts = frame.pts - self._shift_pts
        if frame.time_base != self._video.time_base:
            pts = max(round(pts * frame.time_base / self._video.time_base), self._last_pts + 1)
        self._last_pts = pts
        return pts

    def _encode(self, picture: av.VideoFrame | None) -> None:
        """Encodes a picture, or what the encoder still holds; muxes what comes out."""
        try:
            packets = self._stream.encode(picture)
        except (av.error.FFmpegError, OSError) as error:
            raise EncoderError(f"{self._encoder.name} failed ({error.strerror or error})") from error
        self._mux(packets)

    def _mux(self, packets: Iterable[Any]) -> None:
        assert self._passthrough is not None
        for packet in packets:
            if packet.dts is not None and packet.pts is not None and packet.dts > packet.pts:
                # x265 leaves the decode time undefined when it gets fewer frames than it reorders.
                packet.dts = packet.pts
            seconds = None if packet.dts is None else packet.dts * packet.time_base
            self._video_bytes += packet.size
            try:
                self._output.mux(packet)
                if seconds is not None:
                    self._passthrough.copy_until(seconds, self._output)
            except (av.error.FFmpegError, OSError) as error:
                raise OutputError(f"{self.part}: writing failed ({error.strerror or error})") from error

    def _finish(self, path: Path) -> None:
        if self._output is None:
            raise OutputError(f"{path}: no frame to write: the chosen part of the input holds none")
        assert self._passthrough is not None
        self._encode(None)
        try:
            if path == self.path:
                self._passthrough.copy_until(None, self._output)
            output, self._output = self._output, None
            output.close()
            with self.part.open("rb+") as written:
                os.fsync(written.fileno())
            self._name(path)
        except FileExistsError:
            self._begun = False  # what took hours is not thrown away
            raise OutputError(f"{path} was made by someone else meanwhile; the finished video is {self.part}") from None
        except (av.error.FFmpegError, OSError) as error:
            raise OutputError(f"{path}: cannot be finished ({error.strerror or error})") from error
