"""What travels through the pipeline: frame layouts, frames and their time. numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vidsr.color import ColorTags, HdrMetadata

__all__ = ["Frame", "FrameLayout", "Plane", "Siting", "VideoTrack"]

Plane = NDArray[Any]
"""One component of a picture: uint8 or uint16 `[H, W]`."""

Siting = Literal["left", "center", "topleft"]
"""Where a subsampled chroma sample sits within the block of luma samples it covers.

`left`: on the left luma column, halfway between the rows (MPEG-2, H.264 default).
`center`: in the middle of the block (JPEG, MPEG-1). `topleft`: on the top left luma sample (BT.2020).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameLayout:
    """How one picture lies in memory.

    family: "yuv" (planes Y, U, V), "rgb" (planes G, B, R, FFmpeg's order) or "gray" (one plane).
    bits: significant bits of a sample, 8 to 16, in the low bits; `uint8` at 8 bits, else `uint16`.
    chroma: (vertical, horizontal) subsampling factors of U and V; (1, 1) for rgb and gray.
    alpha: a plane of full size behind the others, 0 transparent to 2**bits - 1 opaque.
    """

    family: Literal["yuv", "rgb", "gray"]
    bits: int
    height: int
    width: int
    chroma: tuple[int, int] = (1, 1)
    siting: Siting = "left"
    alpha: bool = False

    def __post_init__(self) -> None:
        if not 8 <= self.bits <= 16:
            raise ValueError(f"bits must be 8 to 16, not {self.bits}")
        if self.height < 1 or self.width < 1:
            raise ValueError(f"a frame cannot be {self.width}x{self.height}")
        if self.family != "yuv" and self.chroma != (1, 1):
            raise ValueError(f"{self.family} planes are never subsampled")

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8 if self.bits == 8 else np.uint16)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """`(height, width)` of each plane; odd sizes round chroma up, as FFmpeg does."""
        full = (self.height, self.width)
        behind = (full,) if self.alpha else ()
        if self.family == "gray":
            return (full, *behind)
        if self.family == "rgb":
            return (full, full, full, *behind)
        down, right = self.chroma
        small = (-(-self.height // down), -(-self.width // right))
        return (full, small, small, *behind)

    def allocate(self) -> tuple[Plane, ...]:
        """Fresh contiguous planes, `uint8|uint16 [H, W]` each, contents undefined."""
        return tuple(np.empty(shape, self.dtype) for shape in self.shapes)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoTrack:
    """What a sink must know of the video before the first frame.

    `rate` (frames a second) only informs rate control and progress; times come from each frame.
    `display_matrix`: nine 16.16 fixed-point integers (ISO 14496-12 order) or None.
    """

    layout: FrameLayout
    color: ColorTags
    time_base: Fraction
    rate: Fraction | None
    sample_aspect_ratio: Fraction | None = None
    display_matrix: tuple[int, ...] | None = None
    hdr: HdrMetadata | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One picture with everything later stages need to know of it.

    planes: `uint8|uint16 [H, W]` each, in the order of its layout. They belong to a slot: whoever
        needs them longer copies them.
    pts, duration: in units of `time_base` seconds; duration 0 where the source states none.
    key: the source has a key frame here.
    source: the planes it was made of, of the engine's source layout; as long valid as `planes`. Empty where it was made
        of none.
    """

    planes: Sequence[Plane]
    pts: int
    duration: int
    time_base: Fraction
    color: ColorTags
    key: bool = False
    source: Sequence[Plane] = ()

    @property
    def seconds(self) -> float:
        """Presentation time in seconds, for people to read; never computed with."""
        return float(self.pts * self.time_base)
