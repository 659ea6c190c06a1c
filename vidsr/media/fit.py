"""Whether a track fits a container, as it is or converted: its beginning is written into memory and read back."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av

from vidsr.media.reorder import with_decode_times
from vidsr.media.source import TrackInfo, open_input
from vidsr.media.subtitle import SubtitleConverter, SubtitleTarget
from vidsr.media.tags import same_language, stream_tags
from vidsr.media.transcode import AudioConverter, AudioTarget, Span
from vidsr.media.trial import REFUSALS, Written, add_silence, written_back
from vidsr.notes import Notes

__all__ = ["Fit", "beginnings", "converter", "decoded_cues", "decoded_sound", "fit_converted", "fit_copied"]

_PACKETS = 8
_SEARCHED_PACKETS = 2000
_CUES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """That a track fits. first_seconds: where it begins, None if unknown. loses: what of its tags and marks does not
    come back.
    """

    first_seconds: Fraction | None
    loses: tuple[str, ...]


def converter(
    stream: Any, target: AudioTarget | SubtitleTarget, span: Span, notes: Notes
) -> AudioConverter | SubtitleConverter:
    """What converts a track of an open input."""
    if isinstance(target, AudioTarget):
        return AudioConverter(stream, target, span, notes)
    return SubtitleConverter(stream, target, span, notes)


def beginnings(opened: Any, tracks: Sequence[TrackInfo]) -> dict[int, list[Any]]:
    """The first packets of each track, as far as they come within the first 2,000; of sparse ones at least one."""
    found: dict[int, list[Any]] = {track.index: [] for track in tracks}
    dense = {track.index for track in tracks if track.kind in ("audio", "video") and not track.cover}
    if not tracks:
        return found
    try:
        packets = with_decode_times(opened.demux([opened.streams[index] for index in found]))
        for packet in islice(packets, _SEARCHED_PACKETS):
            if packet.size and len(found[packet.stream_index]) < _PACKETS:
                found[packet.stream_index].append(packet)
            if all(len(have) >= (_PACKETS if index in dense else 1) for index, have in found.items()):
                break
    except REFUSALS:
        pass  # the run itself meets and reports the damage
    return found


def decoded_sound(path: Path, track: TrackInfo) -> list[Any]:
    """The frames that the beginning of a sound track decodes to."""
    frames: list[Any] = []
    with open_input(path) as opened:
        context: Any = opened.streams[track.index].codec_context
        if context is None:  # FFmpeg has no decoder for it
            return []
        for packet in beginnings(opened, [track])[track.index]:
            with suppress(*REFUSALS):
                frames += context.decode(packet)
    return frames


def decoded_cues(path: Path, track: TrackInfo) -> list[Any]:
    """The first cues of a text track in MP4, which has an index of them; elsewhere they can be far away."""
    if track.codec != "mov_text":
        return []
    cues = []
    with open_input(path) as opened, suppress(*REFUSALS):
        stream: Any = opened.streams[track.index]
        for packet in islice(opened.demux(stream), _CUES):
            cues.append(stream.codec_context.decode2(packet) if packet.size else None)
    return [cue for cue in cues if cue is not None]


def fit_copied(opened: Any, track: TrackInfo, packets: Sequence[Any], format: str) -> Fit | None:
    """Tries to copy a track. packets: its beginning; used up. format: the container's. None if it does not fit."""
    stream = opened.streams[track.index]
    first = packets[0].pts if packets else None  # before muxing, which moves it

    def write(output: Any) -> None:
        copy = output.add_stream_from_template(stream, opaque=True)
        _describe(copy, stream, format)
        if track.kind == "attachment":
            add_silence(output, format)
        output.start_encoding()
        for packet in packets:
            packet.stream = copy
            output.mux(packet)

    if not packets and track.kind != "attachment":
        return _fit_header(write, format)
    return _fit(write, stream, track, format, None if first is None else first * stream.time_base)


def fit_converted(path: Path, track: TrackInfo, target: AudioTarget | SubtitleTarget, format: str) -> Fit | None:
    """Tries to convert a track. format: the container's. None if it does not fit."""
    with open_input(path) as opened:
        stream = opened.streams[track.index]
        packets = beginnings(opened, [track])[track.index] if track.kind == "audio" else []

        def write(output: Any) -> None:
            made = converter(stream, target, Span(), Notes())
            _describe(made.add(output), stream, format)
            output.start_encoding()
            for packet in packets:
                output.mux(list(made.convert(packet)))
            if isinstance(made, SubtitleConverter):  # the first cue may be far away
                output.mux(made.example())
            output.mux(list(made.finish()))

        first = packets[0].pts if packets else None
        return _fit(write, stream, track, format, None if first is None else first * stream.time_base)


def _describe(copy: Any, stream: Any, format: str) -> None:
    copy.metadata.update(stream_tags(stream.metadata, changed=False, format=format))
    copy.disposition = stream.disposition


def _fit(
    write: Callable[[Any], None], stream: Any, track: TrackInfo, format: str, first_seconds: Fraction | None
) -> Fit | None:
    try:
        _, tracks = written_back(format, write)
    except REFUSALS:
        return None
    for written in tracks:
        # Transport streams take anything, but what they have no name for no reader knows.
        known = written.codec or track.kind == "attachment" or (track.kind == "data" and format != "mpegts")
        cover = bool(written.disposition & av.stream.Disposition.attached_pic)
        if written.kind == track.kind and known and cover == track.cover:
            return Fit(first_seconds=first_seconds, loses=tuple(_losses(stream, written)))
    return None


def _fit_header(write: Callable[[Any], None], format: str) -> Fit | None:
    """Of a track whose first packet is far away: many containers do not even name it when it is read back."""
    try:
        with av.open(io.BytesIO(), "w", format=format) as output:
            write(output)
    except REFUSALS:
        return None
    return Fit(first_seconds=None, loses=())


def _losses(stream: Any, written: Written) -> Iterator[str]:
    if not same_language(stream.metadata.get("language", "und"), written.tags.get("language", "und")):
        yield "language"
    title = stream.metadata.get("title") or stream.metadata.get("name")
    if title and title not in written.tags.values():
        yield "title"
    # Which track is the default one, every container says in its own way.
    marks = int(stream.disposition) & ~written.disposition & ~av.stream.Disposition.default
    yield from (str(mark.name).replace("_", " ") for mark in av.stream.Disposition if mark & marks)
