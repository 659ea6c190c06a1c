"""What a file holds, as `probe` finds it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from vidsr.color import ColorTags, HdrMetadata
from vidsr.frame import FrameLayout

__all__ = ["Accel", "Deinterlace", "Scan", "SourceInfo", "TrackInfo", "VideoInfo"]

Accel = Literal["auto", "cuda", "none"]
"""What may decode: a card where there is one that can, a card, or the processor."""

Deinterlace = Literal["off", "field", "frame"]
"""`frame`: one picture a frame. `field`: one picture a field, twice as many."""

Scan = Literal["progressive", "tff", "bff"]
"""How frames were taken: at once, or as two fields of which the top (tff) or the bottom one (bff) is the earlier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackInfo:
    """One track as the container states it. `kind`: video, audio, subtitle, attachment or data."""

    index: int
    kind: str
    codec: str
    language: str
    title: str
    cover: bool

    def __str__(self) -> str:
        name = "cover picture" if self.cover else f"{self.kind} track {self.index}"
        return f"{name} ({', '.join(part for part in (self.codec, self.language, self.title) if part)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """The video track that is upscaled.

    decoder: FFmpeg's name for it where it is not the usual one of the codec, else None.
    pixel_format: of the decoder. conversion: what FFmpeg makes of that first, in words, None where nothing.
    layout: of the planes the reader delivers. siting_stated: FFmpeg's name for the chroma siting if the file states
    one. frames: as the container states or its duration suggests; None if unknown. duration_seconds: as the track
    itself states, None where only the file as a whole does. dynamic_hdr: metadata that change from frame to frame, by
    the names people know. scan: judged by flags and by the pictures.
    """

    index: int
    codec: str
    decoder: str | None
    pixel_format: str
    conversion: str | None
    layout: FrameLayout
    siting_stated: str | None
    color: ColorTags
    time_base: Fraction
    rate: Fraction | None
    frames: int | None
    duration_seconds: Fraction | None
    sample_aspect_ratio: Fraction | None
    display_matrix: tuple[int, ...] | None
    scan: Scan
    hdr: HdrMetadata | None
    dynamic_hdr: tuple[str, ...]

    def deinterlace_for(self, wish: Literal["auto", "off", "field", "frame"]) -> Deinterlace:
        """What a wish comes to: "auto" makes one frame of each frame, so that frames and times stay."""
        if wish != "auto":
            return wish
        return "off" if self.scan == "progressive" else "frame"

    def time_base_for(self, deinterlace: Deinterlace) -> Fraction:
        """The time base of what the reader delivers: second fields lie halfway between frames."""
        return self.time_base / 2 if deinterlace == "field" else self.time_base


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """What a file holds. Times in seconds from the container's own zero."""

    path: Path
    format: str
    video: VideoInfo
    tracks: tuple[TrackInfo, ...]
    start_seconds: Fraction
    duration_seconds: Fraction | None
