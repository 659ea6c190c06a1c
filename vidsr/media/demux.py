"""Opening files, and the frames of one track as FFmpeg decodes them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import chain, islice
from pathlib import Path
from typing import Any

import av

from vidsr.color import UNSPECIFIED, ColorTags
from vidsr.errors import InputError
from vidsr.media.hardware import Hardware, HardwareError

__all__ = ["Decoded", "Decoder", "file_url", "open_input", "tags_of"]


_SILENT = {"hevc"}
"""Codecs whose decoder says nothing of damage: they never run threaded, where the same file gives other frames."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """One frame from the decoder.

    key: it needs no other frame. time: in units of the track's time base, None where the file gives none.
    """

    picture: av.VideoFrame
    key: bool
    time: int | None


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
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


class _Times:
    """When frames are shown that do not say it themselves: the times at which packets are decoded, in order.

    counts: no frame is to be believed. AVI only counts packets, and what FFmpeg makes of that for H.264 is wrong.
    """

    def __init__(self, *, counts: bool) -> None:
        self._counts = counts
        self._waiting: list[int] = []

    def enter(self, packet: Any) -> None:
        if (self._counts or packet.pts is None) and packet.dts is not None:
            heappush(self._waiting, packet.dts)

    def lose(self, packet: Any) -> int | None:
        """The time of a packet that cannot be decoded."""
        if packet.dts in self._waiting:
            self._waiting.remove(packet.dts)
            heapify(self._waiting)
        time: int | None = packet.dts if packet.pts is None else packet.pts
        return time

    def of(self, picture: av.VideoFrame) -> int | None:
        if self._waiting and (self._counts or picture.pts is None):
            return heappop(self._waiting)
        return picture.pts


class _OddityError(Exception):
    """The data are damaged here, or not what this decoder is for; never leaves this module."""


class Decoder:
    """A file opened at one video track, in presentation order. Belongs to one thread.

    What FFmpeg's frame threads make of damaged data differs from run to run, and a card's decoder passes over damage
    without a word. So they work only as long as nothing is odd. From then on the processor decodes instead of the card,
    and from the first damage that it finds on without threads: the same file gives the same frames always.

    decoder: FFmpeg's name for another decoder than the usual one. threads: with FFmpeg's own threads.
    hardware: one on a card. on_error: told what is damaged and where, in units of the track's time base if that is
    known. on_leaving: told why the card is left.
    """

    def __init__(
        self,
        path: Path,
        index: int,
        *,
        decoder: str | None = None,
        threads: bool = True,
        hardware: Hardware | None = None,
        on_error: Callable[[Exception, int | None], None] = lambda error, time: None,
        on_leaving: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._path, self._index, self._name = path, index, decoder
        self._on_error, self._on_leaving = on_error, on_leaving
        self._threads, self._hardware = threads, hardware
        self._position: int | None = None
        self._open()

    def _open(self) -> None:
        self.container = open_input(self._path)
        self._counts = self.container.format.name == "avi"
        stream: Any = self.container.streams[self._index]
        self.stream: av.VideoStream = stream
        context: Any = self.stream.codec_context
        if context is None:
            raise InputError(f"{self._path}: FFmpeg has no decoder for its video")
        self._threads = self._threads and context.name not in _SILENT
        self._strict = self._threads or self._hardware is not None
        self.stream.thread_type = "AUTO" if self._threads else "SLICE"
        if self._threads:
            context.options = {"err_detect": "explode"}
        else:
            context.thread_count = 1

    def seek(self, time: int) -> bool:
        """To a key frame before `time`, in units of the track's time base; False where the file cannot."""
        try:
            self.container.seek(time, stream=self.stream, backward=True)
        except (av.error.FFmpegError, OSError):
            return False
        self._position = time
        return True

    def frames(self) -> Iterator[Decoded]:
        """From where the file stands on, to its end; damaged packets are reported and passed over."""
        count = 0
        keys: deque[tuple[int, int]] = deque(maxlen=3)
        frames = self._decoded(self.container.demux(self.stream))
        while True:
            try:
                for decoded in frames:
                    if decoded.key and decoded.time is not None and not self._counts:
                        keys.append((count, decoded.time))
                    yield decoded
                    count += 1
                return
            except _OddityError as oddity:
                self._step_down(str(oddity))
                frames = self._continued(count, tuple(keys))

    def first_frames(self, packets: int) -> Iterator[Decoded]:
        """Those among the next `packets` of any track."""
        mine = (
            packet
            for packet, _ in zip(self.container.demux(), range(packets), strict=False)
            if packet.stream_index == self._index
        )
        return self._decoded(mine)

    def close(self) -> None:
        self.container.close()

    def _step_down(self, reason: str) -> None:
        """To a decoder that can do more: from the card to the processor, from threads to none."""
        if self._hardware is not None:
            self._on_leaving(reason)
            self._hardware = None
        else:
            self._threads = False

    def _continued(self, count: int, keys: Sequence[tuple[int, int]]) -> Iterator[Decoded]:
        """Opens the file again and goes on behind the first `count` frames.

        keys: number and time of the last key frames. It begins at the third last one: open groups of pictures need
        the one before their own.
        """
        self.container.close()
        self._open()
        if len(keys) == 3:
            number, time = keys[0]
            report, self._on_error = self._on_error, lambda error, time: None
            begin = self._position
            try:
                frames = self._decoded(self.container.demux(self.stream)) if self.seek(time) else iter(())
                landed = next((entry for entry in frames if entry.time is None or entry.time >= time), None)
            finally:
                self._on_error, self._position = report, begin
            if landed is not None and landed.time == time:
                yield from islice(chain([landed], frames), count - number, None)
                return
            self.container.close()
            self._open()
        if self._position is not None:
            self.seek(self._position)
        yield from islice(self._decoded(self.container.demux(self.stream)), count, None)

    def _decoded(self, packets: Iterator[Any]) -> Iterator[Decoded]:
        """Raises _OddityError if threads or a card are at work, else reports what is damaged."""
        try:
            context = self._context()
        except HardwareError as error:
            raise _OddityError(str(error)) from error
        times = _Times(counts=self._counts)
        more = True
        while more:
            try:
                packet: Any = next(packets, None)
            except (av.error.FFmpegError, OSError) as error:
                # What follows cannot be read; the decoder may still hold frames.
                self._on_error(InputError(f"the input cannot be read to its end ({_reason(error)})"), None)
                packet = None
            more = packet is not None and packet.size > 0
            if more:
                times.enter(packet)
                if self._hardware is not None and packet.is_corrupt:
                    raise _OddityError("the file marks data as damaged")
            try:
                decoded = context.decode(packet)
            except av.error.EOFError:
                return
            except av.error.FFmpegError as error:
                if self._strict:
                    raise _OddityError(_reason(error)) from error
                self._on_error(error, times.lose(packet) if more else None)
                decoded = []
            for picture in decoded:
                if self._strict:
                    self._look_at(picture)
                # libvpx gives one picture for each packet and does not say which are key frames.
                key = picture.key_frame or (more and self._name is not None and packet.is_keyframe)
                yield Decoded(picture, bool(key), times.of(picture))

    def _look_at(self, picture: av.VideoFrame) -> None:
        """Raises _OddityError for a picture that is not as it should be."""
        if picture.is_corrupt:
            raise _OddityError("the data are damaged")
        shape = (picture.height, picture.width, picture.format.name)
        if self._hardware is not None and self._hardware.shape not in (None, shape):
            raise _OddityError(f"the frames become {shape[1]}x{shape[0]} {shape[2]}")

    def _context(self) -> Any:
        """The decoder, with nothing in it of what was decoded before. Raises HardwareError."""
        own = self.stream.codec_context
        if self._hardware is not None:
            return self._hardware.context(own)
        if self._name is None:
            return own
        context = av.CodecContext.create(self._name, "r")
        context.extradata = own.extradata
        context.thread_count = own.thread_count
        return context


def _reason(error: Exception) -> str:
    return str(error.args[-1] if error.args else error)


def tags_of(stream: av.VideoStream, frame: av.VideoFrame) -> ColorTags:
    """What the frame says, else the track; some formats have their range by name."""
    context = stream.codec_context

    def stated(own: int | None, track: int | None) -> int:
        return int(own if own not in (None, UNSPECIFIED) else track if track is not None else UNSPECIFIED)

    name = frame.format.name
    color_range = int(frame.color_range or context.color_range or 0)
    full = True if name.startswith(("yuvj", "mono")) else {1: False, 2: True}.get(color_range)
    return ColorTags(
        primaries=stated(frame.color_primaries, context.color_primaries),
        transfer=stated(frame.color_trc, context.color_trc),
        matrix=stated(frame.colorspace, context.colorspace),
        full_range=full,
    )
