"""What an output will not hold as its source does, said before the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from vidsr.color import ColorTags
from vidsr.frame import FrameLayout, VideoTrack
from vidsr.media.container import VIDEO_WITHOUT_LANGUAGE, Container, TrackPlan
from vidsr.media.encoder import PRESETS, EncoderSettings
from vidsr.media.info import Deinterlace, SourceInfo
from vidsr.media.pixel import pixel_format
from vidsr.media.source import open_input
from vidsr.media.tags import lost_tags

__all__ = ["Foreseen", "foresee"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """One line for people. loss: something of the source is missing afterwards, which `--strict` refuses."""

    text: str
    loss: bool


def foresee(
    source: SourceInfo,
    wanted: FrameLayout,
    video: VideoTrack,
    tracks: Sequence[TrackPlan],
    container: Container,
    container_options: Mapping[str, str],
    encoder: EncoderSettings,
    deinterlace: Deinterlace,
) -> Iterator[Foreseen]:
    """wanted: the layout that would lose nothing; video: what is written."""
    yield from _tracks(tracks)
    yield from _about(source, container, container_options)
    yield from _picture(source, wanted, video, deinterlace)
    yield from _unsaid(video, container, encoder)
    for line in _lost_light(source, video, encoder, container):
        yield Foreseen(text=line, loss=True)
    yield from _times(source, tracks, container)


def _tracks(tracks: Sequence[TrackPlan]) -> Iterator[Foreseen]:
    for plan in tracks:
        if plan.lost:
            yield Foreseen(text=f"{plan.track} is left out: {plan.reason}", loss=True)
        elif plan.how == "convert":
            yield Foreseen(text=plan.reason, loss=plan.reduced)
        for what in plan.loses:
            yield Foreseen(text=f"{plan.track} loses its {what}", loss=True)


def _about(source: SourceInfo, container: Container, container_options: Mapping[str, str]) -> Iterator[Foreseen]:
    """What the file says about itself."""
    lost = lost_tags(source.path, container.format, container_options)
    if lost:
        yield Foreseen(text=f"{container.format} cannot hold these tags: {', '.join(lost)}", loss=True)
    with open_input(source.path) as opened:
        chapters = len(opened.chapters())
        tags = opened.streams[source.video.index].metadata
    timecode, language = tags.get("timecode"), tags.get("language", "und")
    if language != "und" and container.format in VIDEO_WITHOUT_LANGUAGE:
        yield Foreseen(text=f"{container.format} holds no language of the video: {language} is left out", loss=True)
    if chapters and not container.chapters:
        yield Foreseen(text=f"{container.format} holds no chapters: {chapters} are left out", loss=True)
    if timecode and not container.timecode:
        yield Foreseen(text=f"{container.format} holds no timecode: {timecode} is left out", loss=True)


def _picture(
    source: SourceInfo, wanted: FrameLayout, video: VideoTrack, deinterlace: Deinterlace
) -> Iterator[Foreseen]:
    given, made = source.video.pixel_format, pixel_format(video.layout)
    if wanted.alpha and not video.layout.alpha:
        yield Foreseen(text="transparency is left out: the output cannot hold it", loss=True)
    if source.video.conversion is not None:
        yield Foreseen(text=source.video.conversion, loss=False)
    if (wanted.family, wanted.bits, wanted.chroma) != (video.layout.family, video.layout.bits, video.layout.chroma):
        lossless = wanted.bits <= video.layout.bits and wanted.family == video.layout.family
        finer = video.layout.chroma[0] <= wanted.chroma[0] and video.layout.chroma[1] <= wanted.chroma[1]
        text = f"the picture, {given}, is written as {made}: nothing closer fits the encoder"
        yield Foreseen(text=text, loss=not (lossless and finer))
    if source.video.layout.family == video.layout.family == "yuv":
        before, after = (
            source.video.color.resolved(height=layout.height, width=layout.width, rgb=False).matrix
            for layout in (source.video.layout, video.layout)
        )
        if before != after:
            text = "the input states no colour matrix; players that go by the size will change their guess"
            yield Foreseen(text=text, loss=False)
    if source.video.scan != "progressive":
        order = {"tff": "top", "bff": "bottom"}[source.video.scan]
        done = {
            "off": "and stays as it is; the network was not made for that: see --deinterlace",
            "frame": "and is deinterlaced, one frame for each of its frames (--deinterlace field makes two)",
            "field": "and is deinterlaced, two frames for each of its frames",
        }[deinterlace]
        yield Foreseen(text=f"the video is interlaced, {order} field first, {done}", loss=False)


def _unsaid(video: VideoTrack, container: Container, encoder: EncoderSettings) -> Iterator[Foreseen]:
    """What nobody tells a player of the picture: raw video says nothing itself."""
    within = {"colour", "shape"} if encoder.name in PRESETS else set()
    stated = {
        "colour": video.color != ColorTags(),
        "shape": video.sample_aspect_ratio not in (None, 1),
        "turn": video.display_matrix is not None,
    }
    names = {
        "colour": "how its colour is coded",
        "shape": f"the shape of its pixels ({video.sample_aspect_ratio})",
        "turn": "by how much it is to be turned",
    }
    lost = [names[name] for name, said in stated.items() if said and name not in container.pictures | within]
    if lost:
        yield Foreseen(text=f"{container.format} does not say of the picture {', nor '.join(lost)}", loss=True)


def _lost_light(source: SourceInfo, video: VideoTrack, encoder: EncoderSettings, container: Container) -> Iterator[str]:
    if video.hdr is None and source.video.hdr is not None:
        yield f"HDR mastering and light level data are left out: {encoder.name} and {container.format} hold none"
    elif video.hdr != source.video.hdr:
        yield f"HDR mastering data are left out: they are incomplete, which {encoder.name} does not take"
    for name in source.video.dynamic_hdr:
        yield f"{name} metadata is left out: it describes the picture before enlarging, scene by scene"


def _times(source: SourceInfo, tracks: Sequence[TrackPlan], container: Container) -> Iterator[Foreseen]:
    # Opus has its priming stated beside the times in Matroska, and so has what we encode; others have not.
    copied = [plan for plan in tracks if plan.how == "copy" and plan.track.codec != "opus"]
    begin = min((plan.first_seconds for plan in copied if plan.first_seconds is not None), default=Fraction(0))
    if begin < 0 and container.format in ("matroska", "webm"):
        text = f"{container.format} keeps no times before zero: everything begins {float(-begin):.3f} s later, in step"
        yield Foreseen(text=text, loss=False)
    kept = container.time_base
    if kept == 0:
        text = f"{container.format} keeps no times: frames follow at a fixed rate, and copied tracks begin at once"
        yield Foreseen(text=text, loss=True)
    elif kept is not None and (source.video.time_base / kept).denominator != 1:
        text = f"{container.format} keeps times in steps of {kept} seconds, so frame times are rounded to those"
        yield Foreseen(text=text, loss=False)
