"""Tracks that are copied packet by packet or converted on the way, chapters and tags."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import av

from vidsr.media.container import TrackPlan
from vidsr.media.fit import converter
from vidsr.media.reorder import with_decode_times
from vidsr.media.source import SourceInfo, open_input
from vidsr.media.subtitle import SubtitleConverter
from vidsr.media.tags import container_tags, stream_tags
from vidsr.media.timeline import Timeline
from vidsr.media.transcode import AudioConverter, Span
from vidsr.notes import Notes

__all__ = ["Passthrough", "container_tags", "stream_tags"]

_SUBTITLE_SECONDS = 30
"""How long before a cut a subtitle may have begun and still be on screen."""
_DECODER_SECONDS = 1
"""How long before a cut a sound decoder begins, which needs a moment to be exact."""
_COVER_NAMES = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}


class Passthrough:
    """Brings tracks from a source into an open output, in step with the video.

    It reads the source a second time, on its own, so that a track that lies far ahead of the video in the file never
    has to be kept in memory. Belongs to the thread that writes.

    start, end: keep what lies, in seconds from the beginning of the file, in [start, end): packets of what is copied,
    samples of sound that is converted. shift: subtracted from every time, in seconds. notes: what had to be mended.
    """

    def __init__(
        self,
        source: SourceInfo,
        plans: Sequence[TrackPlan],
        *,
        start: Fraction | None,
        end: Fraction | None,
        shift: Fraction,
    ) -> None:
        self.input = open_input(source.path)
        self.notes = Notes()
        self.copied_bytes = 0
        self._path = source.path
        self._plans = {plan.track.index: plan for plan in plans if plan.how in ("copy", "attach", "convert")}
        self._begin = source.start_seconds
        self._start = self._begin + start if start else None
        self._end = self._begin + end if end is not None else None
        self._shift = shift
        self._targets: dict[int, Any] = {}
        self._offsets: dict[int, int] = {}
        self._converters: dict[int, AudioConverter | SubtitleConverter] = {}
        self._timelines: dict[int, Timeline] = {}
        self._packets: Any = None
        self._held: Any = None

    def add_streams(self, output: Any, add_video: Any, video_index: int) -> None:
        """Adds all tracks to `output` in the source's order, calling `add_video` at the video's place."""
        for stream in self.input.streams:
            if stream.index == video_index:
                add_video()
            elif stream.index in self._plans:
                self._add(output, stream, self._plans[stream.index])
        output.metadata.update(container_tags(self.input.metadata))
        output.set_chapters(self._chapters())
        streams = [self.input.streams[index] for index in self._targets]
        self._packets = with_decode_times(self.input.demux(streams)) if streams else iter(())
        if streams and self._start is not None and self._start - _SUBTITLE_SECONDS > self._begin:
            # AVI and FLV refuse to seek before their beginning; what cannot seek is read from there.
            with contextlib.suppress(av.error.FFmpegError, OSError):
                self.input.seek(int((self._start - _SUBTITLE_SECONDS) * av.time_base), backward=True)

    def copy_until(self, seconds: Fraction | None, output: Any) -> None:
        """Writes what belongs before `seconds` of output time; None writes the rest."""
        while True:
            packet = self._held if self._held is not None else self._next()
            self._held = None
            if packet is None:
                self._finish(output)
                return
            time = packet.dts if packet.dts is not None else packet.pts
            if seconds is not None and time is not None and time * packet.time_base - self._shift > seconds:
                self._held = packet
                return
            self._write(self._moved(packet), output)

    def close(self) -> None:
        self.input.close()

    def _add(self, output: Any, stream: Any, plan: TrackPlan) -> None:
        if plan.how == "attach":
            name, mimetype = _COVER_NAMES.get(plan.track.codec, ("cover", "application/octet-stream"))
            name = stream.metadata.get("filename", name)
            output.add_attachment(name, stream.metadata.get("mimetype", mimetype), self._cover(stream.index))
            return
        if plan.target is not None:
            span = Span(begin=self._begin, start=self._start, end=self._end, shift=self._shift)
            made = self._converters[stream.index] = converter(stream, plan.target, span, self.notes)
            copy = made.add(output)
        else:
            copy = output.add_stream_from_template(stream, opaque=True)
        changed = plan.target is not None or self._start is not None or self._end is not None
        tags = stream_tags(stream.metadata, changed=changed, recoded=plan.target is not None, format=output.format.name)
        copy.metadata.update(tags)
        copy.disposition = stream.disposition
        if stream.type != "attachment":
            self._targets[stream.index] = copy
            self._offsets[stream.index] = round(self._shift / stream.time_base) if stream.time_base else 0

    def _cover(self, index: int) -> bytes:
        with open_input(self._path) as again:
            return next((bytes(packet) for packet in again.demux(again.streams[index]) if packet.size), b"")

    def _chapters(self) -> list[Any]:
        chapters = []
        for chapter in self.input.chapters():
            base: Fraction = chapter["time_base"] or Fraction(1)
            begin, finish = chapter["start"] * base, chapter["end"] * base
            if (self._end is not None and begin >= self._end) or (self._start is not None and finish <= self._start):
                continue
            begin = begin if self._start is None else max(begin, self._start)
            finish = finish if self._end is None else min(finish, self._end)
            chapters.append(
                {**chapter, "start": round((begin - self._shift) / base), "end": round((finish - self._shift) / base)}
            )
        return chapters

    def _next(self) -> Any:
        """The next packet to copy, or None. What cannot be read any more ends the copy."""
        while True:
            try:
                packet = next(self._packets, None)
            except (av.error.FFmpegError, OSError):
                self.notes.add("tracks besides the video could not be read to their end")
                return None
            if packet is None:
                return None
            if packet.size:
                self._straighten(packet)
                if self._wanted(packet):
                    return packet

    def _straighten(self, packet: Any) -> None:
        """Moves a packet behind its predecessor where the file's times jump back; no container takes such times."""
        if packet.dts is None:
            return
        timeline = self._timelines.setdefault(packet.stream_index, Timeline(packet.time_base, strict=False))
        moved = timeline.place(packet.dts, packet.duration or 0) - packet.dts
        if moved:
            seconds = packet.dts * packet.time_base - self._begin
            self.notes.add("packets of other tracks had times before their predecessors and were moved", seconds)
            packet.dts += moved
            packet.pts = None if packet.pts is None else packet.pts + moved

    def _wanted(self, packet: Any) -> bool:
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None or (self._start is None and self._end is None):
            return True
        if packet.stream.disposition & av.stream.Disposition.attached_pic:
            return True
        seconds = time * packet.time_base
        if (
            packet.stream.type == "subtitle"
            and packet.pts is not None
            and self._start is not None
            and seconds < self._start
        ):
            self._begin_at_start(packet)
            return bool(packet.duration)
        lead = _DECODER_SECONDS if self._is_converted_sound(packet) else 0
        return (self._start is None or seconds >= self._start - lead) and (self._end is None or seconds < self._end)

    def _is_converted_sound(self, packet: Any) -> bool:
        return packet.stream.type == "audio" and packet.stream_index in self._converters

    def _begin_at_start(self, packet: Any) -> None:
        """Shortens a subtitle that begins before the cut to what is left of it behind, which may be nothing."""
        assert self._start is not None
        begin = math.ceil(self._start / packet.time_base)
        left = max(0, packet.pts + (packet.duration or 0) - begin)
        packet.pts = packet.dts = begin
        packet.duration = left

    def _moved(self, packet: Any) -> Iterator[Any]:
        """The packets to write for one of the source."""
        made = self._converters.get(packet.stream_index)
        if made is not None:
            yield from made.convert(packet)
            return
        offset = self._offsets[packet.stream_index]
        if offset and packet.pts is not None:
            packet.pts -= offset
        if offset and packet.dts is not None:
            packet.dts -= offset
        packet.stream = self._targets[packet.stream_index]
        yield packet

    def _finish(self, output: Any) -> None:
        """Writes what the converters still hold."""
        for made in self._converters.values():
            self._write(made.finish(), output)
        self._converters.clear()

    def _write(self, packets: Iterator[Any], output: Any) -> None:
        for packet in packets:
            self.copied_bytes += packet.size
            output.mux(packet)
