"""Containers: which file names mean which, their encoders, and which tracks they can hold."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av

from vidsr.errors import OutputError
from vidsr.media.source import SourceInfo, TrackInfo, open_input

__all__ = ["CONTAINERS", "Container", "TrackPlan", "container_of", "plan_tracks"]

How = Literal["copy", "attach"]
_TS_CODECS = {
    "aac", "ac3", "dts", "dvb_subtitle", "dvb_teletext", "eac3", "h264", "hevc", "hdmv_pgs_subtitle", "mp2", "mp3",
    "mpeg1video", "mpeg2video", "opus", "truehd",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One output format.

    encoders: by bit depth (8, more). time_base: the only one it keeps, None where it keeps any; zero where it keeps no
    times at all. encoder_options: what every encoder must do for it.
    """

    format: str
    encoders: dict[int, str]
    time_base: Fraction | None = None
    encoder_options: dict[str, str] = field(default_factory=dict)


_MODERN = {8: "libx264", 16: "libx265"}
_MP4 = Container(format="mp4", encoders=_MODERN)
_MATROSKA = Container(format="matroska", encoders=_MODERN, time_base=Fraction(1, 1000))
_TS = Container(format="mpegts", encoders=_MODERN, time_base=Fraction(1, 90000))
CONTAINERS = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": Container(format="mov", encoders=_MODERN),
    ".mkv": _MATROSKA,
    ".webm": Container(format="webm", encoders={8: "libsvtav1", 16: "libsvtav1"}, time_base=Fraction(1, 1000)),
    # AVI holds neither B-frames nor times.
    ".avi": Container(
        format="avi", encoders={8: "libx264", 16: "libx264"}, time_base=Fraction(0), encoder_options={"bf": "0"}
    ),
    ".ts": _TS,
    ".m2ts": _TS,
    ".nut": Container(format="nut", encoders=_MODERN),
}
"""By file name suffix. A new container is one row here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackPlan:
    """What becomes of one track besides the video: `how` is None for what is left out, `reason` says why.

    first_seconds: time of its first packet, None if unknown.
    """

    track: TrackInfo
    how: How | None
    reason: str = ""
    first_seconds: Fraction | None = None


def container_of(path: Path) -> Container:
    """The container that a file name asks for. Raises OutputError with the known ones."""
    try:
        return CONTAINERS[path.suffix.lower()]
    except KeyError:
        known = ", ".join(CONTAINERS)
        raise OutputError(f"{path}: the name must end in one of {known} to say what kind of file to write") from None


def plan_tracks(source: SourceInfo, container: Container) -> tuple[TrackPlan, ...]:
    """Decides for every other track, by really writing its header and first packet into memory."""
    others = [track for track in source.tracks if track.index != source.video.index]
    if not others:
        return ()
    first = _first_packets(source, [track.index for track in others if track.kind != "attachment"])
    with open_input(source.path) as opened:
        return tuple(_plan(opened, track, first.get(track.index), container) for track in others)


def _first_packets(source: SourceInfo, wanted: Sequence[int]) -> dict[int, Any]:
    """The first packet of each track, as far as they come within the first 2,000."""
    found: dict[int, Any] = {}
    if not wanted:
        return found
    with open_input(source.path) as opened:
        streams = [opened.streams[index] for index in wanted]
        try:
            for count, packet in enumerate(opened.demux(streams)):
                if packet.size and packet.stream_index not in found:
                    found[packet.stream_index] = packet
                if len(found) == len(wanted) or count > 2000:
                    break
        except (av.error.FFmpegError, OSError):
            pass  # the run itself meets and reports the damage
    return found


def _plan(opened: Any, track: TrackInfo, packet: Any, container: Container) -> TrackPlan:
    stream = opened.streams[track.index]
    first = packet.pts if packet is not None else None  # before muxing, which moves it
    if container.format == "matroska" and track.cover:
        return TrackPlan(track=track, how="attach" if packet else None, reason="" if packet else "the picture is empty")
    if container.format == "mpegts" and track.codec not in _TS_CODECS:
        return TrackPlan(track=track, how=None, reason=f"it cannot be copied into {container.format}")
    try:
        with av.open(io.BytesIO(), "w", format=container.format) as trial:
            copy = trial.add_stream_from_template(stream, opaque=True)
            if track.cover:
                copy.disposition = stream.disposition
            if track.kind == "attachment":
                # Attachments alone make no valid file; give them company.
                trial.add_stream("flac", rate=48000)
            trial.start_encoding()
            if packet is not None:
                packet.stream = copy
                trial.mux(packet)
    except (av.error.FFmpegError, OSError, ValueError):
        return TrackPlan(track=track, how=None, reason=f"it cannot be copied into {container.format}")
    first_seconds = None if first is None else first * stream.time_base
    return TrackPlan(track=track, how="copy", first_seconds=first_seconds)
