"""Subtitles as text that a container cannot hold as they are, written in a form that it can."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.subtitles.subtitle import SubtitleSet

from vidsr.media.transcode import Span
from vidsr.notes import Notes

__all__ = ["TEXT_CODECS", "SubtitleConverter", "SubtitleTarget", "subtitle_targets"]

TEXT_CODECS = {"ass", "mov_text", "ssa", "subrip", "text", "webvtt"}
_UNKNOWN_SECONDS = 5
"""How long a subtitle stays whose end nobody states."""
_DRAWING = re.compile(rb"\\p[1-9]")
_OVERRIDE = re.compile(rb"\{[^}]*\\")
_STYLE_FIELD, _TEXT_FIELD = 2, 8
_KEPT = {
    "ass": "with its styling",
    "mov_text": "fonts, colours, bold and italics stay, positions and animation do not",
    "subrip": "fonts, colours, bold and italics stay, other styling does not",
    "webvtt": "bold, italics and underlining stay, other styling does not",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SubtitleTarget:
    """What a subtitle track is written as. single: the container shows one cue at a time, so cues that overlap are
    cut into stretches with the text of all. kept: what of the styling stays, for people.
    """

    codec: str
    single: bool
    kept: str

    def __str__(self) -> str:
        return f"{self.codec}: {self.kept}" if self.kept else self.codec


def subtitle_targets(cues: Sequence[Any], codec: str, offered: Sequence[str]) -> Iterator[SubtitleTarget]:
    """What these decoded cues can become, best first. offered: codecs that the container holds."""
    styled = any(_OVERRIDE.search(rect.ass) for cue in cues for rect in cue)
    wanted = sorted(offered, key=lambda name: (name == "ass") != styled) if "ass" in offered else offered
    for name in wanted:
        rich = codec in ("ass", "ssa") or styled
        yield SubtitleTarget(codec=name, single=name == "mov_text", kept=_KEPT[name] if rich else "")


class SubtitleConverter:
    """Decodes each cue and encodes it anew; times and durations are those of the packets.

    stream: of the open input; its decoder is used. Belongs to the thread that writes.
    """

    def __init__(self, stream: Any, target: SubtitleTarget, span: Span, notes: Notes) -> None:
        self._source, self._target, self._span, self._notes = stream, target, span, notes
        self._time_base: Fraction = stream.time_base
        self._track: Any = None
        self._active: list[tuple[int, bytes]] = []
        self._clock = 0

    def add(self, output: Any) -> Any:
        """Adds the track to an output and returns it."""
        decoder = self._source.codec_context
        decoder.open(strict=False)
        self._track = output.add_stream(self._target.codec)
        self._track.codec_context.subtitle_header = decoder.subtitle_header
        self._track.time_base = self._time_base
        return self._track

    def convert(self, packet: Any) -> Iterator[Any]:
        """The packets that an input packet makes ready; damaged ones are passed over and noted."""
        begin = packet.pts if packet.pts is not None else packet.dts
        try:
            cue = self._source.codec_context.decode2(packet)
        except av.error.FFmpegError:
            self._note("damaged subtitles were passed over", begin)
            return
        lines = [rect.ass for rect in cue or () if not _DRAWING.search(rect.ass)]  # shapes are no text
        if cue is None or begin is None or not lines:
            return
        begin -= round(self._span.shift / self._time_base)
        duration = packet.duration or self._stated_duration(cue)
        if not self._target.single:
            yield from self._encode(cue, begin, duration)
            return
        yield from self._until(begin)
        self._active += [(begin + duration, line) for line in lines]

    def example(self) -> Any:
        """A packet as this writes them, for trials."""
        (packet,) = self._encode(_cue([b"0,0,Default,,0,0,0,,Example"]), 0, max(1, round(1 / self._time_base)))
        return packet

    def finish(self) -> Iterator[Any]:
        """What is still to be shown."""
        yield from self._until(max((end for end, _ in self._active), default=0))

    def _note(self, what: str, time: int | None) -> None:
        self._notes.add(what, None if time is None else time * self._time_base - self._span.begin)

    def _stated_duration(self, cue: Any) -> int:
        """Of a packet without one: what the cue itself says, in milliseconds."""
        stated = cue.end_display_time - cue.start_display_time
        seconds = Fraction(stated, 1000) if 0 < stated < 2**31 else Fraction(_UNKNOWN_SECONDS)
        return max(1, round(seconds / self._time_base))

    def _until(self, time: int) -> Iterator[Any]:
        """Writes what is on screen before `time`, one packet for each stretch in which it stays the same."""
        while self._active and self._clock < time:
            stop = min(time, *(end for end, _ in self._active))
            if stop > self._clock:
                cue = _cue([line for _, line in self._active])
                yield from self._encode(cue, self._clock, stop - self._clock)
            self._clock = max(self._clock, stop)
            self._active = [(end, line) for end, line in self._active if end > self._clock]
        self._clock = max(self._clock, time)

    def _encode(self, cue: Any, begin: int, duration: int) -> Iterator[Any]:
        try:
            packet = self._track.codec_context.encode_subtitle(cue)
        except av.error.FFmpegError:
            time = begin + round(self._span.shift / self._time_base)
            self._note("subtitles that could not be converted were passed over", time)
            return
        packet.pts = packet.dts = begin
        packet.duration, packet.time_base, packet.stream = duration, self._time_base, self._track
        yield packet


def _cue(lines: Sequence[bytes]) -> SubtitleSet:
    """A cue with the texts of several ASS lines below each other, each in its own style."""
    first, *rest = (line.split(b",", _TEXT_FIELD) for line in lines)
    more = b"".join(b"\\N{\\r%b}%b" % (fields[_STYLE_FIELD], fields[_TEXT_FIELD]) for fields in rest)
    return SubtitleSet.create(text=b",".join(first) + more, start=0, end=0)
