"""What a user may say about a job, and the job with everything decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vidsr import models
from vidsr.backends.base import Precision
from vidsr.frame import VideoTrack
from vidsr.media.container import Container, TrackPlan
from vidsr.media.encoder import EncoderSettings
from vidsr.media.hardware import Hardware
from vidsr.media.info import Accel, Deinterlace, SourceInfo

if TYPE_CHECKING:
    from vidsr.job.engine import EnginePlan

__all__ = ["Guarding", "Job", "Reusing", "Settings"]

Guarding = Literal["auto", "on", "off"]
Reusing = Literal["auto", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a user may say about a job; None is "as usual" and ends in `resolve`.

    scale: any factor up to 16; size: "WIDTHxHEIGHT", a name such as "1080p" or "150%"; not both. start, end: seconds
    from the beginning of the file. hwaccel: what decodes. memory_bytes: for one frame's inference. slots: frames in
    flight. streams: frames that a processor computes at once. reuse: do not compute again what frames have in common
    with the one before; the result is the same. tracks: see
    `vidsr.media.container.select`. strict: refuse whatever would be lost, and end at the first damage. resume: go on
    with an unfinished run. keep_partial: a run that is stopped leaves a playable file. verify: read the output again
    and compare. guard: keep results that leave all reason out of the picture, auto for models that need it. quality: of
    lossy pictures, 1 to 100. rate: of numbered pictures that become a video, frames a second.
    """

    scale: Fraction | None = None
    size: str | None = None
    model: str = models.DEFAULT
    deinterlace: Literal["auto", "off", "field", "frame"] = "auto"
    start: Fraction | None = None
    end: Fraction | None = None
    tracks: str = "all"
    strict: bool = False
    encoder: str | None = None
    crf: float | None = None
    preset: str | None = None
    encoder_options: Mapping[str, str] = field(default_factory=dict)
    pix_fmt: str | None = None
    overwrite: bool = False
    resume: bool = False
    keep_partial: bool = False
    verify: bool = True
    backend: str = "auto"
    precision: Precision = "auto"
    device: str = "auto"
    hwaccel: Accel = "auto"
    memory_bytes: int | None = None
    slots: int | None = None
    streams: int | None = None
    reuse: Reusing = "auto"
    guard: Guarding = "auto"
    quality: int | None = None
    rate: Fraction | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything about one run, decided.

    settings: as given, for what needs no deciding. source: its layout is that of the engine, without alpha where the
    output has none. video: of the output; where its size is not the engine's, frames are resized. frames: expected,
    None if unknown. warnings: what the user should know before it starts. hardware: the decoder on
    a card where one decodes.
    """

    settings: Settings
    source: SourceInfo
    path: Path
    container: Container
    container_options: Mapping[str, str]
    tracks: tuple[TrackPlan, ...]
    engine: EnginePlan
    encoder: EncoderSettings
    video: VideoTrack
    deinterlace: Deinterlace
    frames: int | None
    warnings: tuple[str, ...]
    hardware: Hardware | None = None
