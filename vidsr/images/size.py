"""How large a picture becomes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from vidsr.errors import OutputError
from vidsr.frame import FrameLayout, Plane
from vidsr.images.picture import FULL_RANGE
from vidsr.job.geometry import target_geometry, wanted_factor
from vidsr.job.settings import Settings
from vidsr.media.info import VideoInfo
from vidsr.media.resize import Resizer
from vidsr.media.source import MAX_PIXELS

__all__ = ["check_wish", "factor_of", "resized", "target_size"]

_LARGE = 10**5


def check_wish(settings: Settings) -> None:
    """Raises UsageError for a scale or size that no picture can have."""
    factor_of(FrameLayout(family="rgb", bits=8, height=_LARGE, width=_LARGE), settings)


def factor_of(layout: FrameLayout, settings: Settings) -> Fraction | None:
    """How many times as large as the user wants it; None for the model's own factor. Raises UsageError."""
    return wanted_factor(_still(layout), scale=settings.scale, size=settings.size)


def target_size(layout: FrameLayout, settings: Settings, model_scale: int) -> tuple[int, int, bool]:
    """(height, width) of the enlarged picture, and whether that has another shape.

    Raises UsageError, and OutputError for more than `resized` can do.
    """
    height, width, shape = target_geometry(
        _still(layout), scale=settings.scale, size=settings.size, model_scale=model_scale, even=(1, 1)
    )
    made = layout.height * model_scale, layout.width * model_scale
    if (height, width) != made and max(math.prod(made), height * width) > MAX_PIXELS:
        raise OutputError(f"{made[1]}x{made[0]} is more than can be resized: leave out --scale and --size")
    return height, width, shape is not None


def _still(layout: FrameLayout) -> VideoInfo:
    """A picture as a video of one frame."""
    return VideoInfo(
        index=0, codec="", decoder=None, pixel_format="", conversion=None, layout=layout, siting_stated=None,
        color=FULL_RANGE, time_base=Fraction(1), rate=None, frames=1, duration_seconds=None, sample_aspect_ratio=None,
        display_matrix=None, scan="progressive", hdr=None, dynamic_hdr=(),
    )  # fmt: skip


def resized(
    planes: Sequence[Plane], layout: FrameLayout, height: int, width: int
) -> tuple[Sequence[Plane], FrameLayout]:
    """Planes in another size, each by itself, since no layout of a picture is subsampled."""
    if (layout.height, layout.width) == (height, width):
        return planes, layout
    gray = FrameLayout(family="gray", bits=layout.bits, height=layout.height, width=layout.width)
    resizer = Resizer(gray, replace(gray, height=height, width=width))
    return [resizer([plane])[0] for plane in planes], replace(layout, height=height, width=width)
