"""A picture in memory, with what its file says about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidsr.color import RGB, ColorTags
from vidsr.frame import FrameLayout, Plane

__all__ = ["FULL_RANGE", "Extras", "Picture"]

FULL_RANGE = ColorTags(matrix=RGB, full_range=True)
"""Of every picture: its own RGB or gray values, whatever its profile makes of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What travels from a file to its enlargement besides pixels.

    fields: libvips' metadata by name, with their GTypes: profile, EXIF, XMP, IPTC, texts. resolution: pixels a
    millimetre, horizontal and vertical.
    """

    fields: Mapping[str, tuple[int, Any]] = field(default_factory=dict)
    resolution: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Planes `uint8|uint16 [H, W]` as their layout says, rgb or gray, full range, upright.

    depth: bits that a sample really has, up to the layout's. losses: what the file holds and these planes do not, in
    words.
    """

    path: Path
    layout: FrameLayout
    planes: tuple[Plane, ...]
    depth: int
    extras: Extras = field(default_factory=Extras)
    losses: tuple[str, ...] = ()
