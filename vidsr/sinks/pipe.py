"""Streams the video as it is made, with the source's other tracks in step, into a pipe."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import partial
from threading import Event
from typing import Any, Literal

import av

from vidsr.errors import Cancelled, OutputError, ReaderGone, VidsrError
from vidsr.frame import Frame, VideoTrack
from vidsr.media.coder import FrameCoder
from vidsr.media.container import Container, TrackPlan
from vidsr.media.encoder import EncoderSettings
from vidsr.media.info import SourceInfo
from vidsr.media.passthrough import Passthrough
from vidsr.media.shape import with_shape
from vidsr.sinks import Outcome
from vidsr.sinks.join import mark_video

__all__ = ["Outlet", "PipeSink"]

_TICK_MILLISECONDS = 250
_BUFFER_BYTES = 1 << 20
_AT_ONCE_BYTES = getattr(select, "PIPE_BUF", 1 << 16)
"""How much a pipe takes without blocking once it says that it takes something."""
_OPTIONS = {
    "flush_packets": "1",
    # In microseconds. FFmpeg would hold ten seconds of video back until every subtitle track had something to say. A
    # little it must see of all tracks before it begins, to find the lowest time.
    "max_interleave_delta": "200000",
    "strict": "unofficial",  # y4m of more than 8 bits
}


class Outlet:
    """The writing end of a pipe, as PyAV takes files: written to in order, and without ever waiting unheeded.

    descriptor: the caller's. endings: where one of these is set and the reader takes nothing, writing raises Cancelled.
    mend: what becomes of the first bytes. Where the reader is gone `ReaderGone` is raised.
    """

    def __init__(self, descriptor: int, endings: Sequence[Event] = ()) -> None:
        self.written_bytes = 0
        self.mend: Callable[[bytes], bytes] = bytes
        self._descriptor, self._abandoned = descriptor, Event()
        self._endings = (*endings, self._abandoned)

    def check(self) -> None:
        """Raises ReaderGone where nobody reads any more."""
        self._ready(0)

    def abandon(self) -> None:
        """Ends a write that waits for the reader, in whatever thread."""
        self._abandoned.set()

    def write(self, data: bytes) -> int:
        left = memoryview(data if self.written_bytes else self.mend(data))
        while left:
            while not self._ready(_TICK_MILLISECONDS):
                if any(event.is_set() for event in self._endings):
                    raise Cancelled("stopped")
            try:
                count = os.write(self._descriptor, left[:_AT_ONCE_BYTES])
            except BrokenPipeError:
                raise ReaderGone("whoever read the stream has closed it") from None
            except OSError as error:
                raise OutputError(f"the stream cannot be written ({error.strerror or error})") from error
            self.written_bytes += count
            left = left[count:]
        return len(data)

    def _ready(self, milliseconds: int) -> bool:
        """Whether the reader takes something by then."""
        if not hasattr(select, "poll"):  # Windows has none, and waits unheeded
            return True
        waiting = select.poll()  # each thread needs one of its own
        waiting.register(self._descriptor, select.POLLOUT)
        events = waiting.poll(milliseconds)
        if events and events[0][1] & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
            raise ReaderGone("whoever read the stream has closed it")
        return bool(events)


class PipeSink:
    """Encodes frames into a stream that is read while it is written, so nothing can be gone back to.

    start, end: the span of the source, in seconds, that the other tracks are cut to; a `start` becomes the output's
    zero. seconds: how long it will be, as players show it; None if unknown. notes: what had to be mended.
    """

    overrun: Literal["wait", "drop"] = "wait"

    def __init__(
        self,
        outlet: Outlet,
        source: SourceInfo,
        container: Container,
        options: Mapping[str, str],
        tracks: Sequence[TrackPlan],
        encoder: EncoderSettings,
        *,
        start: Fraction | None,
        end: Fraction | None,
        seconds: Fraction | None,
    ) -> None:
        self.notes: list[str] = []
        self._outlet, self._source, self._container, self._tracks = outlet, source, container, tracks
        self._options = {**_OPTIONS, **options}
        self._encoder, self._start, self._end, self._seconds = encoder, start, end, seconds
        self._video: VideoTrack | None = None
        self._output: Any = None
        self._coder: FrameCoder | None = None
        self._passthrough: Passthrough | None = None
        self._first_seconds = Fraction(0)

    def open(self, video: VideoTrack) -> None:
        self._video = video

    def write(self, frame: Frame) -> None:
        if self._coder is None:
            self._begin(frame)
        assert self._coder is not None
        self._mux(self._coder.encode(frame))

    def close(self, outcome: Outcome) -> None:
        try:
            if self._coder is not None and self._passthrough is not None and outcome != "failed":
                self._mux(self._coder.finish())
                with _telling():
                    if outcome == "complete":
                        self._passthrough.copy_until(None, self._output)
                    self._output.close()
            elif outcome == "complete":
                raise OutputError("no frame to write: the chosen part of the input holds none")
        finally:
            self._free()

    def _begin(self, frame: Frame) -> None:
        """Opens the stream; how times are moved hangs on the first frame, as it does in a file."""
        video, source = self._video, self._source
        assert video is not None
        first = frame.pts * frame.time_base
        begin_pts = round(first / video.time_base) if self._start else 0
        begin = begin_pts * video.time_base
        start = first - source.start_seconds if self._start else None
        self._first_seconds = first - begin
        passthrough = Passthrough(source, self._tracks, start=start, end=self._end, shift=begin)
        self._passthrough = passthrough
        if video.sample_aspect_ratio is not None:
            self._outlet.mend = partial(
                with_shape,
                format=self._container.format,
                width=video.layout.width,
                height=video.layout.height,
                ratio=video.sample_aspect_ratio,
            )
        with _telling():
            self._output = av.open(
                self._outlet,
                "w",
                format=self._container.format,
                container_options=self._options,
                buffer_size=_BUFFER_BYTES,
            )
            passthrough.add_streams(
                self._output, lambda: self._add_video(video, passthrough, begin_pts), source.video.index
            )

    def _add_video(self, video: VideoTrack, passthrough: Passthrough, begin_pts: int) -> None:
        stream = self._output.add_stream(self._encoder.name, rate=video.rate or Fraction(25))
        self._coder = FrameCoder(stream, video, self._encoder, begin=begin_pts)
        mark_video(stream, passthrough, self._source, video)
        if video.display_matrix is not None:
            stream.set_display_matrix(video.display_matrix)
        if self._seconds is not None and self._container.format == "matroska":
            stream.metadata["DURATION"] = _clock(self._seconds)

    def _mux(self, packets: Iterable[Any]) -> None:
        assert self._passthrough is not None
        for packet in packets:
            seconds = max(packet.dts * packet.time_base, self._first_seconds)
            with _telling():
                self._output.mux(packet)
                self._passthrough.copy_until(seconds, self._output)

    def _free(self) -> None:
        self._outlet.abandon()
        if self._output is not None:
            with suppress(av.error.FFmpegError, OSError, VidsrError):
                self._output.close()  # writes an end, which nobody waits for any more
        if self._passthrough is not None:
            self.notes += self._passthrough.notes.lines()
            self._passthrough.close()


@contextmanager
def _telling() -> Iterator[None]:
    """Says in one line what FFmpeg refuses."""
    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        raise OutputError(f"the stream cannot be written ({error.strerror or error})") from error


def _clock(seconds: Fraction) -> str:
    """As Matroska writes lengths: 01:02:03.456000000."""
    whole, rest = divmod(round(seconds * 10**9), 10**9)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}.{rest:09}"
