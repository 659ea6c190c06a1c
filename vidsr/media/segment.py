"""Segments: closed runs of frames, each encoded into a file of its own, and joined without encoding again."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
from av.bitstream import BitStreamFilterContext

from vidsr.errors import EncoderError, OutputError
from vidsr.frame import Frame, VideoTrack
from vidsr.media.coder import FrameCoder
from vidsr.media.demux import file_url
from vidsr.media.encoder import EncoderSettings, describe
from vidsr.media.mastering import add_boxes

__all__ = ["JoinedSegments", "SegmentInfo", "SegmentWriter", "segment_format"]

_BOXED = ("mp4", "mov")
_FORMATS = (*_BOXED, "nut", "matroska")
"""From the one that keeps times and tags best to the one that keeps times worst; NUT knows no colour tags."""

_NO_TAG = "\0\0\0\0"
_FILTERS = {("avi", "h264"): "h264_mp4toannexb", ("mpegts", "mpeg4"): "dump_extra"}
"""By target and codec: what must become of packets from MP4 where FFmpeg's muxer does not see to it itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentInfo:
    """A finished segment.

    name: of its file. first_pts, end_pts: where its first frame begins and its last one ends, in the track's time
    base. reorder: how many frames a decoder must hold back to give them in order. extradata: SHA-256 of what the
    encoder writes but once, ahead of all frames; sha256: of the whole file.
    """

    name: str
    frames: int
    first_pts: int
    end_pts: int
    bytes: int
    reorder: int
    extradata: str
    sha256: str


def segment_format(encoder: EncoderSettings, video: VideoTrack) -> str:
    """The container format in which a segment of this encoder keeps what it is made of. Raises EncoderError."""
    if encoder.name == "libvpx-vp9" and video.layout.alpha:
        return "matroska"  # the only one that holds a second picture beside the first
    if encoder.name == "libvpx":
        return "nut"  # MOV says that it takes VP8, and then does not
    for name in _FORMATS:
        with av.open(io.BytesIO(), "w", format=name) as trial, contextlib.suppress(ValueError):
            trial.add_stream(encoder.name)
            return name
    raise EncoderError(
        f"--encoder {encoder.name}: its video fits none of {', '.join(_FORMATS)}; choose another encoder"
    )


class SegmentWriter:
    """Encodes frames into a file; their times in it count from the first one. Passive; belongs to one thread.

    written_bytes: packets handed to the file so far.
    """

    def __init__(self, path: Path, video: VideoTrack, encoder: EncoderSettings) -> None:
        self.path, self.written_bytes = path, 0
        self._video = video
        self._format = segment_format(encoder, video)
        self._coded: list[int] = []
        # Matroska gives its tracks random numbers otherwise.
        options = {"fflags": "+bitexact"}
        self._output: Any = av.open(file_url(path), "w", format=self._format, container_options=options)
        self._stream: Any = self._output.add_stream(encoder.name)
        self._coder = FrameCoder(self._stream, video, encoder)

    def write(self, frame: Frame) -> None:
        """Takes one frame; its planes are the caller's again. Raises EncoderError, OutputError."""
        self._mux(self._coder.encode(frame))

    def close(self) -> SegmentInfo:
        """Finishes the file and syncs it. Raises EncoderError, OutputError; `abandon` then removes what there is."""
        if self._coder.first_pts is None:
            raise OutputError(f"{self.path}: a segment needs a frame")
        self._mux(self._coder.finish())
        extradata = self._stream.codec_context.extradata or b""
        try:
            self._output.close()
            if self._video.hdr is not None and self._format in _BOXED:
                add_boxes(self.path, self._video.hdr)
            digest = _synced_digest(self.path)
        except (av.error.FFmpegError, OSError) as error:
            raise OutputError(f"{self.path}: cannot be finished ({error.strerror or error})") from error
        return SegmentInfo(
            name=self.path.name,
            frames=self._coder.frames,
            first_pts=self._coder.first_pts,
            end_pts=self._coder.first_pts + self._coder.end_pts,
            bytes=self.path.stat().st_size,
            reorder=_reorder_depth(self._coded),
            extradata=hashlib.sha256(extradata).hexdigest(),
            sha256=digest,
        )

    def abandon(self) -> None:
        """Closes and removes the file, whatever state it is in."""
        # Closing writes a trailer, which a broken file can refuse.
        with contextlib.suppress(av.error.FFmpegError, OSError):
            self._output.close()
        self.path.unlink(missing_ok=True)

    def _mux(self, packets: Iterable[Any]) -> None:
        for packet in packets:
            self.written_bytes += packet.size
            self._coded.append(packet.pts)
            try:
                self._output.mux(packet)
            except (av.error.FFmpegError, OSError) as error:
                raise OutputError(f"{self.path}: writing failed ({error.strerror or error})") from error


class JoinedSegments:
    """The packets of segments in order, as those of one track.

    folder: where the files lie. shift_pts: what is taken off all times, in the track's time base. Memory does not grow
    with the number of frames. Raises OutputError, naming the file, for segments that are damaged or do not fit.
    """

    def __init__(self, folder: Path, segments: Sequence[SegmentInfo], video: VideoTrack, *, shift_pts: int = 0) -> None:
        self._folder, self._segments, self._video, self._shift = folder, segments, video, shift_pts
        self._stream: Any = None
        self._filter: BitStreamFilterContext | None = None
        for segment in segments:
            if segment.extradata != segments[0].extradata:
                raise OutputError(
                    f"{folder / segment.name} was encoded with other settings or by another version of the encoder "
                    f"than {segments[0].name}; both cannot be in one file"
                )

    def add_stream(self, output: Any) -> Any:
        """Adds the video track to a container that is not begun yet; disposition and tags are the caller's."""
        video = self._video
        with self._opened(self._segments[0]) as container:
            template = container.streams.video[0]
            stream: Any = output.add_stream_from_template(template, opaque=True)
            name = _FILTERS.get((output.format.name, template.codec_context.name))
            self._filter = BitStreamFilterContext(name, template, stream) if name else None
            tag = _codec_tag(template, container.format.name, output.format.name)
        context = stream.codec_context
        context.codec_tag = tag
        stream.time_base = video.time_base
        describe(context, video)
        if video.display_matrix is not None:
            stream.set_display_matrix(video.display_matrix)
        self._stream = stream
        return stream

    def packets(self) -> Iterator[Any]:
        """Packets for the track of `add_stream`, in the order of decoding, with times for the whole of the file.

        Times of decoding are those of presentation, in order and as many places late as any segment reorders: so they
        increase strictly and are never behind those of presentation, however uneven frame times are.

        MP4 adds up how far packets are apart to find how long a track lasts. That comes out right because decoding
        begins as much too early as it ends, and because the last packet lasts as long as the last frame.
        """
        late = max((segment.reorder for segment in self._segments), default=0)
        left = sum(segment.frames for segment in self._segments)
        decode: deque[int] = deque()
        end: int | None = None
        for segment, following in zip(self._segments, [*self._segments[1:], None], strict=True):
            stored = self._stored_pts(segment)
            times = _increasing((pts + segment.first_pts - self._shift for pts in sorted(stored)), end)
            next_pts = segment.end_pts if following is None else following.first_pts
            first, end = end is None, max(times[-1] + 1, next_pts - self._shift)
            gaps = [after - before for before, after in pairwise([*times, end])]
            if first and late:
                ahead = self._lasting(late)
                decode.extend(times[0] - ahead + ahead * place // late for place in range(late))
            decode.extend(times)
            for stored_packet, place in zip(self._demuxed(segment), _places(stored), strict=True):
                packet = self._filter.filter(stored_packet)[0] if self._filter else stored_packet
                packet.pts, packet.dts, packet.duration = times[place], decode.popleft(), gaps[place]
                left -= 1
                if not left:
                    packet.duration = gaps[-1]
                packet.time_base, packet.stream = self._video.time_base, self._stream
                yield packet

    def _lasting(self, count: int) -> int:
        """From the frame that is `count` before the last one to that, in the track's time base."""
        times: list[int] = []
        for segment in reversed(self._segments):
            times += [pts + segment.first_pts for pts in self._stored_pts(segment)]
            if len(times) > count:
                break
        times.sort()
        return max(count, times[-1] - times[-1 - count])

    def _stored_pts(self, segment: SegmentInfo) -> list[int]:
        """Of each packet, in the order of decoding; in the track's time base, from the segment's beginning."""
        pts = [
            None if packet.pts is None else round(packet.pts * packet.time_base / self._video.time_base)
            for packet in self._demuxed(segment)
        ]
        known = [time for time in pts if time is not None]
        if len(known) != segment.frames:
            raise self._damaged(segment, f"{len(known)} of {segment.frames} frames")
        begin = min(known)
        return [time - begin for time in known]

    def _demuxed(self, segment: SegmentInfo) -> Iterator[Any]:
        with self._opened(segment) as container:
            packets = container.demux(container.streams.video[0])
            while True:
                try:
                    packet = next(packets, None)
                except (av.error.FFmpegError, OSError) as error:
                    raise self._damaged(segment, error.strerror or str(error)) from error
                if packet is None:
                    return
                if packet.size:
                    yield packet

    def _opened(self, segment: SegmentInfo) -> av.container.InputContainer:
        try:
            # An edit list hides frames and moves times; all frames are wanted, and times are counted from the first.
            container = av.open(file_url(self._folder / segment.name), options={"ignore_editlist": "1"})
        except (av.error.FFmpegError, OSError) as error:
            raise self._damaged(segment, error.strerror or str(error)) from error
        if not container.streams.video:
            container.close()
            raise self._damaged(segment, "no video")
        return container

    def _damaged(self, segment: SegmentInfo, what: str) -> OutputError:
        return OutputError(f"{self._folder / segment.name} is missing or damaged ({what}); run again to make it anew")


def _codec_tag(template: Any, stored_in: str, target: str) -> str:
    """The code by which the target knows what is in the track; zeros leave it to the muxer.

    It tells apart what has one codec's name: the kinds of ProRes, the picture formats of Ut Video.
    """
    codec, tag = template.codec_context.name, str(template.codec_context.codec_tag)
    if codec == "hevc":
        return "hvc1" if target in _BOXED else _NO_TAG  # Apple's players open no other
    if codec == "prores" or stored_in == "nut":
        return tag
    return _NO_TAG


def _increasing(times: Iterable[int], begin: int | None) -> list[int]:
    """The times, none before `begin` nor at that of its predecessor."""
    placed: list[int] = []
    for time in times:
        earliest = placed[-1] + 1 if placed else begin
        placed.append(time if earliest is None else max(time, earliest))
    return placed


def _places(times: Sequence[int]) -> list[int]:
    """Of each item the place that it has in the order of their times."""
    places = [0] * len(times)
    for place, index in enumerate(sorted(range(len(times)), key=times.__getitem__)):
        places[index] = place
    return places


def _reorder_depth(coded_pts: Sequence[int]) -> int:
    """By how many places at most a packet comes later than it is shown."""
    return max(index - place for index, place in enumerate(_places(coded_pts)))


def _synced_digest(path: Path) -> str:
    """SHA-256 of a file that is then safely on disk."""
    with path.open("rb+") as written:
        os.fsync(written.fileno())
        return hashlib.file_digest(written, "sha256").hexdigest()
