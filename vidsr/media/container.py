"""Containers: which file names mean which, their encoders, and what becomes of each track in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from vidsr.errors import OutputError
from vidsr.media.fit import beginnings, decoded_cues, decoded_sound, fit_converted, fit_copied
from vidsr.media.selection import select
from vidsr.media.source import SourceInfo, TrackInfo, open_input
from vidsr.media.subtitle import TEXT_CODECS, SubtitleTarget, subtitle_targets
from vidsr.media.transcode import AudioTarget, audio_targets

__all__ = [
    "CONTAINERS",
    "PIPES",
    "VIDEO_WITHOUT_LANGUAGE",
    "Container",
    "TrackPlan",
    "container_of",
    "plan_tracks",
    "select",
]

How = Literal["copy", "attach", "convert", "regenerate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One output format.

    encoders: by bit depth (8, more). time_base: the only one it keeps, None where it keeps any; zero where it keeps no
    times at all. encoder_options: what every encoder must do for it. lossless, lossy, subtitles: codecs to convert
    those tracks to that it cannot hold as they are, best first; one without `subtitles` holds no text. chapters,
    timecode: whether it keeps them. hdr: whether it states HDR10 metadata beside the encoded video. pictures: what of
    the picture's "colour", "shape" and "turn" it states, which matters where the encoded video does not. formats:
    the only pixel formats it takes, empty where that is for the encoder to say.
    """

    format: str
    encoders: dict[int, str]
    time_base: Fraction | None = None
    encoder_options: dict[str, str] = field(default_factory=dict)
    lossless: tuple[str, ...] = ()
    lossy: tuple[str, ...] = ()
    subtitles: tuple[str, ...] = ()
    chapters: bool = True
    timecode: bool = True
    hdr: bool = False
    pictures: frozenset[str] = frozenset({"colour", "shape", "turn"})
    formats: tuple[str, ...] = ()


_MODERN = {8: "libx264", 16: "libx265"}
_PCM = ("pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le")
_MP4 = Container(
    format="mp4",
    encoders=_MODERN,
    lossless=("flac", "alac", *_PCM[2:]),
    lossy=("aac",),
    subtitles=("mov_text",),
    hdr=True,
)
_MATROSKA = Container(
    format="matroska",
    encoders=_MODERN,
    time_base=Fraction(1, 1000),
    lossless=("flac", *_PCM[2:]),
    lossy=("opus", "aac"),
    subtitles=("subrip", "ass"),
    hdr=True,
)
_TS = Container(
    format="mpegts",
    encoders=_MODERN,
    time_base=Fraction(1, 90000),
    lossy=("aac",),
    chapters=False,
    timecode=False,
)
CONTAINERS = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": Container(
        format="mov",
        encoders=_MODERN,
        lossless=("alac", *_PCM),
        lossy=("aac",),
        subtitles=("mov_text",),
        hdr=True,
    ),
    ".mkv": _MATROSKA,
    ".webm": Container(
        format="webm",
        encoders={8: "libsvtav1", 16: "libsvtav1"},
        time_base=Fraction(1, 1000),
        lossy=("opus",),
        subtitles=("webvtt",),
        hdr=True,
    ),
    # AVI holds neither B-frames nor times, so nothing whose decoder begins with a delay stays in step.
    ".avi": Container(
        format="avi",
        encoders={8: "libx264", 16: "libx264"},
        time_base=Fraction(0),
        encoder_options={"bf": "0"},
        lossless=_PCM,
        chapters=False,
        timecode=False,
    ),
    ".ts": _TS,
    ".m2ts": _TS,
    # NUT knows no ends of subtitles, and what its FLAC ends with cannot be read.
    ".nut": Container(format="nut", encoders=_MODERN, lossless=_PCM, lossy=("opus", "aac")),
}
"""By file name suffix. A new container is one row here."""
_RAW = Container(
    format="rawvideo",
    encoders={8: "rawvideo", 16: "rawvideo"},
    time_base=Fraction(0),
    chapters=False,
    timecode=False,
    pictures=frozenset(),
)
_Y4M_FORMATS = (
    *("yuv411p", "yuv420p", "yuv422p", "yuv444p", "yuva444p", "gray"),
    *(f"{stem}{bits}le" for stem in ("yuv420p", "yuv422p", "yuv444p", "gray") for bits in (9, 10, 12, 14, 16)),
)
PIPES = {
    "matroska": replace(_MATROSKA, hdr=False),
    "nut": replace(CONTAINERS[".nut"], pictures=frozenset()),
    "y4m": replace(_RAW, format="yuv4mpegpipe", pictures=frozenset({"shape"}), formats=_Y4M_FORMATS),
    "raw": _RAW,
}
"""What goes through a pipe, by the name of `--format`."""
VIDEO_WITHOUT_LANGUAGE = {"avi", "mpegts", "nut"}
"""Formats that hold no language of a video track."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackPlan:
    """What becomes of one track besides the video.

    how: "regenerate" for what is made of chapters and tags, if the container keeps those; None for what is left out.
    chosen: False where the user did not want it. reason: why it is left out, or a sentence that says what it is
    converted to. target: what it is converted to. first_seconds: time of its first packet, None if unknown. loses:
    what of its tags and marks the container does not keep.
    """

    track: TrackInfo
    how: How | None
    chosen: bool = True
    reason: str = ""
    target: AudioTarget | SubtitleTarget | None = None
    first_seconds: Fraction | None = None
    loses: tuple[str, ...] = ()

    @property
    def lost(self) -> bool:
        """Whether the output misses something that the user wanted."""
        return self.chosen and self.how is None

    @property
    def reduced(self) -> bool:
        """Whether the track is converted to something that holds less."""
        if isinstance(self.target, AudioTarget):
            return not self.target.lossless
        return isinstance(self.target, SubtitleTarget) and bool(self.target.kept) and self.target.codec != "ass"


def container_of(path: Path) -> Container:
    """The container that a file name asks for. Raises OutputError with the known ones."""
    try:
        return CONTAINERS[path.suffix.lower()]
    except KeyError:
        known = ", ".join(CONTAINERS)
        raise OutputError(f"{path}: the name must end in one of {known} to say what kind of file to write") from None


def plan_tracks(source: SourceInfo, container: Container, keep: frozenset[int] | None = None) -> tuple[TrackPlan, ...]:
    """Decides for every other track: copied, else converted, else left out. Each is tried, not looked up.

    keep: the tracks that are wanted, by index; None wants all.
    """
    others = [track for track in source.tracks if track.index != source.video.index]
    wanted = [track for track in others if keep is None or track.index in keep]
    plans: dict[int, TrackPlan] = {}
    with open_input(source.path) as opened:
        packets = beginnings(opened, [track for track in wanted if track.kind != "attachment"])
        for track in wanted:
            plans[track.index] = _plan(source.path, opened, track, packets.get(track.index, []), container)
    return tuple(plans.get(track.index, TrackPlan(track=track, how=None, chosen=False)) for track in others)


def _plan(path: Path, opened: Any, track: TrackInfo, packets: list[Any], container: Container) -> TrackPlan:
    if container.format == "matroska" and track.cover:
        reason = "" if packets else "the picture is empty"
        return TrackPlan(track=track, how="attach" if packets else None, reason=reason)
    timecode = track.kind == "data" and "timecode" in opened.streams[track.index].metadata  # the video's, once more
    if timecode or _repeats_chapters(path, opened, track):
        return TrackPlan(track=track, how="regenerate")
    if track.codec in TEXT_CODECS and not container.subtitles:
        return TrackPlan(track=track, how=None, reason=f"{container.format} holds no subtitles as text")
    fit = fit_copied(opened, track, packets, container.format)
    if fit is not None:
        return TrackPlan(track=track, how="copy", first_seconds=fit.first_seconds, loses=fit.loses)
    for target in _targets(path, track, container):
        fit = fit_converted(path, track, target, container.format)
        if fit is not None:
            reason = f"{track} is converted to {target}"
            return TrackPlan(
                track=track, how="convert", reason=reason, target=target,
                first_seconds=fit.first_seconds, loses=fit.loses,
            )  # fmt: skip
    return TrackPlan(track=track, how=None, reason=_refusal(track, container))


def _targets(path: Path, track: TrackInfo, container: Container) -> Iterator[AudioTarget | SubtitleTarget]:
    """What a track may be converted to for a container, best first."""
    if track.kind == "audio" and (frames := decoded_sound(path, track)):
        yield from audio_targets(
            frames,
            track.codec,
            lossless=container.lossless,
            lossy=container.lossy,
            from_zero=container.time_base == 0,
        )
    elif track.kind == "subtitle" and track.codec in TEXT_CODECS:
        yield from subtitle_targets(decoded_cues(path, track), track.codec, container.subtitles)


def _refusal(track: TrackInfo, container: Container) -> str:
    if track.cover:
        return f"{container.format} holds no cover pictures"
    if track.kind == "attachment":
        return f"{container.format} holds no attachments"
    tried = ", nor converted for it" if track.kind in ("audio", "subtitle") else ""
    return f"it cannot be copied into {container.format}{tried}"


def _repeats_chapters(path: Path, opened: Any, track: TrackInfo) -> bool:
    """Whether a track only says when chapters begin, as in MP4; the output gets one of its own."""
    chapters, stream = opened.chapters(), opened.streams[track.index]
    if stream.type not in ("data", "subtitle") or not chapters or stream.frames != len(chapters):
        return False
    if stream.type == "data":
        return bool(stream.name == "bin_data")  # so FFmpeg calls it once it has made chapters of it
    if track.codec != "mov_text":
        return False
    with open_input(path) as again:
        packets: Any = again.demux(again.streams[track.index])
        shown = {round(packet.pts * packet.time_base * 1000) for packet in packets if packet.size}
    return shown == {round(chapter["start"] * chapter["time_base"] * 1000) for chapter in chapters}
