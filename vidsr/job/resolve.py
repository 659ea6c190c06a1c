"""From what the user said to a job: everything that can be known before the run is checked and decided here."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from vidsr import models
from vidsr.color import RGB, UNSPECIFIED, ColorTags
from vidsr.errors import InputError, OutputError, UsageError
from vidsr.frame import FrameLayout, VideoTrack
from vidsr.job.engine import guard_note, idle_note, plan_engine
from vidsr.job.foresee import foresee
from vidsr.job.geometry import target_geometry, wanted_factor
from vidsr.job.settings import Job, Settings
from vidsr.media import encoder as encoders
from vidsr.media.container import Container, container_of, plan_tracks, select
from vidsr.media.encoder import EncoderSettings, alpha_encoder
from vidsr.media.hardware import Hardware
from vidsr.media.info import Deinterlace, SourceInfo
from vidsr.media.nvdec import card_of, choose
from vidsr.media.pixel import closest, layout_of, native, pixel_format
from vidsr.media.source import probe
from vidsr.media.tags import tag_options
from vidsr.models import Model
from vidsr.sinks.workspace import folder_of

__all__ = [
    "check_paths",
    "check_span",
    "choose_decoder",
    "choose_deinterlace",
    "choose_model",
    "expected_frames",
    "output_tags",
    "resolve",
    "resolve_into",
    "wanted_layout",
    "without_alpha",
]


def resolve(source_path: Path, target_path: Path, settings: Settings) -> Job:
    """Checks and decides. Raises a VidsrError with one clear line."""
    if not os.path.exists(source_path):
        raise InputError(f"{source_path}: no such file")
    if os.path.isdir(target_path):
        raise OutputError(f"{target_path} is a folder: give the name of the file to write")
    container = container_of(target_path)
    if os.path.islink(target_path):  # unlike the method, this takes names that no file can have
        target_path = target_path.resolve()
    check_paths(source_path, target_path, settings)
    return resolve_into(target_path, container, probe(source_path), settings)


def resolve_into(target_path: Path, container: Container, source: SourceInfo, settings: Settings) -> Job:
    """The same for a target that may be written. Raises a VidsrError with one clear line."""
    check_span(settings, source)
    model = choose_model(settings, source)
    deinterlace = choose_deinterlace(settings, source)
    wanted = wanted_layout(settings, source.video.layout, model.scale)
    encoder, target = _choose_encoder(settings, container, wanted)
    source = without_alpha(source) if not target.alpha else source
    hdr = encoders.kept_hdr(encoder.name, container, source.video.hdr)
    video = replace(_video_track(settings, source, target, model, container, deinterlace), hdr=hdr)
    engine = plan_engine(settings, model, source.video.layout, target, encoder=str(encoder))
    encoders.prove(video, encoder, container.format)
    tracks = plan_tracks(source, container, select(source, settings.tracks))
    covers = any(plan.how is not None and plan.track.cover for plan in tracks)
    options = tag_options(source.path, container.format, covers=covers)
    hardware, why_not = choose_decoder(settings, source, deinterlace)
    notes = (idle_note(settings, engine), guard_note(settings, engine), why_not)
    foreseen = list(foresee(source, wanted, video, tracks, container, options, encoder, deinterlace))
    losses = [line.text for line in foreseen if line.loss]
    if settings.strict and losses:
        raise OutputError(f"--strict: {target_path} would lose something: {'; '.join(losses)}")
    return Job(
        settings=settings,
        source=source,
        path=target_path,
        container=container,
        container_options=options,
        tracks=tracks,
        engine=engine,
        encoder=encoder,
        video=video,
        deinterlace=deinterlace,
        frames=expected_frames(settings, source, deinterlace),
        warnings=(*(line for line in notes if line), *(line.text for line in foreseen)),
        hardware=hardware,
    )


def check_paths(source: Path, target: Path, settings: Settings) -> None:
    """Raises OutputError where `target` cannot be written, or is not to be."""
    if not os.path.isdir(target.parent):
        raise OutputError(f"{target.parent}: no such folder")
    if folder_of(target).resolve() in source.resolve().parents:
        raise OutputError(f"{source} lies where the work towards {target} is kept: give another name for the output")
    if not os.path.exists(target):
        return
    if target.samefile(source):
        raise OutputError(f"{target} is the input itself: give another name for the output")
    if not settings.overwrite and not (settings.resume and folder_of(target).exists()):
        none = ", and there is no unfinished run to resume" if settings.resume else ""
        raise OutputError(
            f"{target} exists already{none}: add -y (overwrite=True) to replace it, or choose another name"
        )


def check_span(settings: Settings, source: SourceInfo) -> None:
    """Raises UsageError for a start or end that this source has not."""
    duration = source.duration_seconds
    if settings.start is not None and settings.start < 0:
        raise UsageError("--start cannot be before the beginning")
    if settings.start is not None and duration is not None and settings.start >= duration:
        raise UsageError(f"--start {float(settings.start):g}: the input is only {float(duration):.3f} seconds long")
    if settings.start is not None and settings.end is not None and settings.end <= settings.start:
        raise UsageError(f"--end {float(settings.end):g} is not after --start {float(settings.start):g}")
    if settings.end is not None and settings.end <= 0:
        raise UsageError("--end must be later than the beginning of the input")


def choose_deinterlace(settings: Settings, source: SourceInfo) -> Deinterlace:
    """Raises UsageError for what is no way to deinterlace."""
    if settings.deinterlace not in ("auto", "off", "frame", "field"):
        raise UsageError(f"--deinterlace {settings.deinterlace}: choose auto, off, frame or field")
    return source.video.deinterlace_for(settings.deinterlace)


def choose_decoder(
    settings: Settings, source: SourceInfo, deinterlace: Deinterlace
) -> tuple[Hardware | None, str | None]:
    """The decoder on a card, None where the processor decodes, and why so where that is worth a word.

    It changes no frame of a file that is whole, which is why a run may be resumed with another. Raises UsageError.
    """
    return choose(source, settings.hwaccel, device=settings.device, deinterlace=deinterlace, strict=settings.strict)


def choose_model(settings: Settings, source: SourceInfo) -> Model:
    """The model or chain of models for the size that is wanted. Raises ModelError, UsageError."""
    factor = wanted_factor(source.video, scale=settings.scale, size=settings.size)
    return models.choose(settings.model, factor)


def wanted_layout(settings: Settings, source: FrameLayout, scale: int) -> FrameLayout:
    """What the model makes: the source's layout, enlarged, or the format asked for."""
    height, width = source.height * scale, source.width * scale
    if settings.pix_fmt is None:
        return replace(source, height=height, width=width)
    if not native(settings.pix_fmt):
        raise UsageError(
            f"--pix-fmt {settings.pix_fmt}: choose a planar format such as yuv420p, yuv444p10le, gray, gbrp"
        )
    wanted = layout_of(settings.pix_fmt, height=height, width=width, siting=source.siting)
    if wanted.alpha and not source.alpha:
        raise UsageError(f"--pix-fmt {settings.pix_fmt}: the input has no transparency")
    return wanted


def output_tags(source: SourceInfo, target: FrameLayout) -> ColorTags:
    """The source's tags as they are, or definite ones where the family changes and a player could not guess."""
    video = source.video
    if video.layout.family == target.family:
        # Gray PNGs are tagged as RGB, which a stream that players decode as 4:2:0 must not be.
        untrue = target.family == "gray" and video.color.matrix == RGB
        return replace(video.color, matrix=UNSPECIFIED) if untrue else video.color
    if target.family == "rgb":
        return replace(video.color, matrix=RGB, full_range=True)
    plain = replace(video.color, full_range=video.color.full_range if video.layout.family == "gray" else False)
    return plain.resolved(height=target.height, width=target.width, rgb=False)


def _choose_encoder(
    settings: Settings, container: Container, wanted: FrameLayout
) -> tuple[EncoderSettings, FrameLayout]:
    """The encoder and the layout it gets: the wanted one or the closest it takes."""
    name = settings.encoder or (alpha_encoder(container, wanted) if wanted.alpha else None)
    name = name or container.encoders[8 if wanted.bits == 8 else 16]
    name = encoders.ALIASES.get(name, name)
    offered = list(container.formats) or encoders.formats(name)
    if settings.encoder is None and container.format == "webm" and pixel_format(wanted) not in offered:
        name, offered = "libvpx-vp9", encoders.formats("libvpx-vp9")
    if settings.pix_fmt is not None and offered and pixel_format(wanted) not in offered:
        raise UsageError(f"--pix-fmt {settings.pix_fmt}: {name} takes {', '.join(f for f in offered if native(f))}")
    layout = closest(wanted, offered) if offered else wanted
    if layout is None:
        raise UsageError(f"--encoder {name}: takes none of the picture formats vidsr makes ({', '.join(offered)})")
    extra = {**container.encoder_options, **settings.encoder_options}
    if encoders.on_card(name) and (card := card_of(settings.device)):
        extra.setdefault("gpu", str(card))
    chosen = encoders.settings(name, crf=settings.crf, preset=settings.preset, extra=extra, alpha=layout.alpha)
    return chosen, layout


def without_alpha(source: SourceInfo) -> SourceInfo:
    """The source for a reader that leaves its alpha plane alone."""
    layout = replace(source.video.layout, alpha=False)
    return replace(source, video=replace(source.video, layout=layout))


def _video_track(
    settings: Settings,
    source: SourceInfo,
    made: FrameLayout,
    model: Model,
    container: Container,
    deinterlace: Deinterlace,
) -> VideoTrack:
    """made: the engine's layout, whose format the output has."""
    given = source.video
    height, width, ratio = target_geometry(
        given, scale=settings.scale, size=settings.size, model_scale=model.scale, even=made.chroma
    )
    layout = replace(made, height=height, width=width)
    matrix = given.display_matrix
    if matrix is not None:
        # The last row moves the turned picture back into view: in pixels, so it grows with the picture.
        across, down = Fraction(width, given.layout.width), Fraction(height, given.layout.height)
        matrix = (*matrix[:6], round(matrix[6] * across), round(matrix[7] * down), matrix[8])
    rate = given.rate * 2 if given.rate and deinterlace == "field" else given.rate
    # A container without times gets frames by their number.
    time_base = given.time_base_for(deinterlace) if container.time_base != 0 else 1 / (rate or Fraction(25))
    return VideoTrack(
        layout=layout,
        color=output_tags(source, layout),
        time_base=time_base,
        rate=rate,
        sample_aspect_ratio=ratio,
        display_matrix=matrix,
    )


def expected_frames(settings: Settings, source: SourceInfo, deinterlace: Deinterlace) -> int | None:
    """How many there will be of the part that is wanted, as the file says; None if it does not."""
    frames, duration = source.video.frames, source.duration_seconds
    if not frames:
        return None
    if (settings.start is not None or settings.end is not None) and duration:
        kept = min(settings.end or duration, duration) - (settings.start or 0)
        frames = max(1, math.ceil(frames * kept / duration))
    return 2 * frames if deinterlace == "field" else frames
