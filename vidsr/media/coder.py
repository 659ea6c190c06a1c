"""From frames to the packets of one track."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from fractions import Fraction
from typing import Any

import av

from vidsr.errors import EncoderError
from vidsr.frame import Frame, VideoTrack
from vidsr.media.encoder import EncoderSettings, coded_format, configure
from vidsr.media.interleave import pack
from vidsr.media.schedule import as_scheduled

__all__ = ["FrameCoder"]

_LONGEST_DELAY_SECONDS, _MOST_REORDERED = 600, 32


class FrameCoder:
    """Encodes frames for a stream of an output that is not begun yet. Passive; belongs to one thread.

    begin: where times are counted from, in the track's time base; None takes the first frame's.
    first_pts: of the first frame, as it came. frames: how many were taken.
    """

    def __init__(self, stream: Any, video: VideoTrack, encoder: EncoderSettings, *, begin: int | None = None) -> None:
        self.first_pts: int | None = None
        self.frames = 0
        self._stream, self._video, self._encoder, self._begin = stream, video, encoder, begin
        self._last_pts, self._last_gap, self._last_duration = 0, 0, 0
        self._last_dts: int | None = None
        self._packets = 0
        self._picture: av.VideoFrame | None = None
        configure(stream.codec_context, video, encoder)
        stream.time_base = video.time_base

    @property
    def end_pts(self) -> int:
        """Where the last frame ends: as stated, else it lasts like the one before it, else as the rate says."""
        usual = max(1, round(1 / ((self._video.rate or Fraction(25)) * self._video.time_base)))
        return self._last_pts + (self._last_duration or self._last_gap or usual)

    def encode(self, frame: Frame) -> Iterator[Any]:
        """The packets that one frame brings; its planes are the caller's again then. Raises EncoderError."""
        layout, time_base = self._video.layout, self._video.time_base
        if self._picture is None:
            self._picture = av.VideoFrame(layout.width, layout.height, coded_format(self._encoder.name, layout))
        picture = self._picture
        # Most encoders have copied the picture before; for one that still reads it, this gets other memory.
        picture.make_writable()
        pack(picture, frame.planes, layout.bits)
        picture.pts, picture.time_base = self._place(frame), time_base
        self._last_duration = max(0, round(frame.duration * frame.time_base / time_base))
        picture.duration = self._last_duration
        return self._coded(picture)

    def finish(self) -> Iterator[Any]:
        """The packets that the encoder still holds. Raises EncoderError, also where it left frames out."""
        yield from self._coded(None)
        if self._packets != self.frames:
            raise EncoderError(
                f"{self._encoder.name} made {self._packets} packets of {self.frames} frames; "
                "choose options with which it neither drops nor adds any"
            )

    def _place(self, frame: Frame) -> int:
        """The frame's time, never that of its predecessor."""
        pts = frame.pts
        if frame.time_base != self._video.time_base:
            pts = round(frame.pts * frame.time_base / self._video.time_base)
        if self.first_pts is None:
            self.first_pts = pts
        placed = pts - (self.first_pts if self._begin is None else self._begin)
        if self.frames:
            placed = max(placed, self._last_pts + 1)
            self._last_gap = placed - self._last_pts
        self._last_pts, self.frames = placed, self.frames + 1
        return placed

    def _coded(self, picture: av.VideoFrame | None) -> Iterator[Any]:
        try:
            # The first call opens the encoder.
            with nullcontext() if self._stream.codec_context.is_open else as_scheduled():
                packets = self._stream.encode(picture)
        except (av.error.FFmpegError, OSError) as error:
            raise EncoderError(f"{self._encoder.name} failed ({error.strerror or error})") from error
        for packet in packets:
            packet.dts = self._last_dts = self._decode_time(packet)
            self._packets += 1
            yield packet

    def _decode_time(self, packet: Any) -> int:
        """The packet's own, or one that will do: x265 states none when it gets fewer frames than it reorders.

        Files that are joined get new ones anyway.
        """
        pts, dts, last = packet.pts, packet.dts, self._last_dts
        earliest = pts - round(_LONGEST_DELAY_SECONDS / self._video.time_base) if last is None else last + 1
        if dts is not None and earliest <= dts <= pts:
            return int(dts)
        return pts - _MOST_REORDERED if last is None else last + 1
