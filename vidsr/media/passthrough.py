"""Tracks that are copied packet by packet, chapters and tags."""

from __future__ import annotations

import contextlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av

from vidsr.media.container import TrackPlan
from vidsr.media.source import SourceInfo, open_input
from vidsr.media.timeline import Timeline

__all__ = ["Passthrough", "container_tags", "stream_tags"]

_CONTAINER_OWN = {"major_brand", "minor_version", "compatible_brands", "encoder"}
_STATISTICS = re.compile(r"(bps|duration|number_of_frames|number_of_bytes|_statistics_.*)(-\w+)?", re.IGNORECASE)
_RECODED = {"encoder", "alpha_mode"}
_SUBTITLE_SECONDS = 30
"""How long before a cut a subtitle may have begun and still be on screen."""
_COVER_NAMES = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}


def container_tags(metadata: dict[str, str]) -> dict[str, str]:
    """Tags of the file that belong to its content; those that describe the old file are left to the new one."""
    return {key: value for key, value in metadata.items() if key.lower() not in _CONTAINER_OWN}


def stream_tags(metadata: dict[str, str], *, changed: bool, recoded: bool = False) -> dict[str, str]:
    """Tags of a track. `changed` content leaves out those that measured it, `recoded` what describes the encoding."""
    kept = {key: value for key, value in metadata.items() if not (changed and _STATISTICS.fullmatch(key))}
    return {key: value for key, value in kept.items() if not (recoded and key.lower() in _RECODED)}


class Passthrough:
    """Copies tracks from a source into an open output, in step with the video.

    It reads the source a second time, on its own, so that a track that lies far ahead of the video in the file never
    has to be kept in memory. Belongs to the thread that writes.

    start, end: keep packets whose time from the beginning of the file, in seconds, is in [start, end).
    shift: subtracted from every time, in seconds.
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
        self.notes: Counter[str] = Counter()
        self._path = source.path
        self._plans = [plan for plan in plans if plan.how]
        self._start = source.start_seconds + start if start else None
        self._end = source.start_seconds + end if end is not None else None
        self._begin = source.start_seconds
        self._shift = shift
        self._targets: dict[int, Any] = {}
        self._offsets: dict[int, int] = {}
        self._timelines: dict[int, Timeline] = {}
        self._packets: Any = None
        self._held: Any = None
        self.copied_bytes = 0

    def add_streams(self, output: Any, add_video: Any, video_index: int) -> None:
        """Adds all tracks to `output` in the source's order, calling `add_video` at the video's place."""
        planned = {plan.track.index: plan for plan in self._plans}
        for stream in self.input.streams:
            if stream.index == video_index:
                add_video()
            elif stream.index in planned:
                self._add(output, stream, planned[stream.index])
        output.metadata.update(container_tags(self.input.metadata))
        output.set_chapters(self._chapters())
        streams = [self.input.streams[index] for index in self._targets]
        self._packets = self.input.demux(streams) if streams else iter(())
        if streams and self._start is not None and self._start - _SUBTITLE_SECONDS > self._begin:
            # AVI and FLV refuse to seek before their beginning; what cannot seek is read from there.
            with contextlib.suppress(av.error.FFmpegError, OSError):
                self.input.seek(int((self._start - _SUBTITLE_SECONDS) * av.time_base), backward=True)

    def copy_until(self, seconds: Fraction | None, output: Any) -> None:
        """Copies what belongs before `seconds` of output time; None copies the rest."""
        while True:
            packet = self._held if self._held is not None else self._next()
            self._held = None
            if packet is None:
                return
            time = packet.dts if packet.dts is not None else packet.pts
            if seconds is not None and time is not None and time * packet.time_base - self._shift > seconds:
                self._held = packet
                return
            self._move(packet)
            self.copied_bytes += packet.size
            output.mux(packet)

    def close(self) -> None:
        self.input.close()

    def _add(self, output: Any, stream: Any, plan: TrackPlan) -> None:
        if plan.how == "attach":
            name, mimetype = _COVER_NAMES.get(plan.track.codec, ("cover", "application/octet-stream"))
            name = stream.metadata.get("filename", name)
            output.add_attachment(name, stream.metadata.get("mimetype", mimetype), self._cover(stream.index))
            return
        copy = output.add_stream_from_template(stream, opaque=True)
        copy.metadata.update(stream_tags(stream.metadata, changed=self._start is not None or self._end is not None))
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
                self.notes["copied tracks could not be read to their end"] += 1
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
            packet.dts += moved
            packet.pts = None if packet.pts is None else packet.pts + moved
            self.notes["packets of copied tracks had times before their predecessors and were moved"] += 1

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
        return (self._start is None or seconds >= self._start) and (self._end is None or seconds < self._end)

    def _begin_at_start(self, packet: Any) -> None:
        """Shortens a subtitle that begins before the cut to what is left of it behind, which may be nothing."""
        assert self._start is not None
        begin = math.ceil(self._start / packet.time_base)
        left = max(0, packet.pts + (packet.duration or 0) - begin)
        packet.pts = packet.dts = begin
        packet.duration = left

    def _move(self, packet: Any) -> None:
        offset = self._offsets[packet.stream_index]
        if offset and packet.pts is not None:
            packet.pts -= offset
        if offset and packet.dts is not None:
            packet.dts -= offset
        packet.stream = self._targets[packet.stream_index]
