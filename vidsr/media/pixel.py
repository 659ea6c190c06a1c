"""FFmpeg's pixel formats and vidsr's frame layouts, and planes as arrays."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import av
import numpy as np

from vidsr.color import ColorTags
from vidsr.frame import FrameLayout, Plane, Siting

__all__ = ["closest", "layout_of", "native", "pixel_format", "planar_equivalent", "planes_of", "siting_of"]

_SUBSAMPLING = {"420": (2, 2), "422": (1, 2), "444": (1, 1), "440": (2, 1), "411": (1, 4), "410": (4, 4)}
_NAMES = {chroma: name for name, chroma in _SUBSAMPLING.items()}
_NATIVE = re.compile(
    r"(?:yuvj?(?P<chroma>\d{3})p|yuva(?P<chroma_a>4(?:20|22|44))p|(?P<rgb>gbra?p)|(?P<gray>gray))"
    r"(?:(?P<bits>9|10|12|14|16)le)?"
)
_SITINGS: dict[str, Siting] = {"left": "left", "center": "center", "topleft": "topleft", "top": "center"}
"""By FFmpeg's name. `top` has no filters here; in the middle it is half a line off."""


def native(name: str) -> bool:
    """Whether the engine takes planes of this format as they are."""
    match = _NATIVE.fullmatch(name)
    return bool(match and _known(name) and (match["chroma"] is None or match["chroma"] in _SUBSAMPLING))


def _known(name: str) -> bool:
    """Whether FFmpeg has it: not every family comes in every depth."""
    try:
        av.VideoFormat(name, 64, 64)
    except ValueError:
        return False
    return True


def layout_of(name: str, *, height: int, width: int, siting: Siting) -> FrameLayout:
    """The layout of a `native` pixel format."""
    match = _NATIVE.fullmatch(name)
    if not match:
        raise ValueError(f"{name} is not a planar format")
    chroma = match["chroma"] or match["chroma_a"]
    return FrameLayout(
        family="rgb" if match["rgb"] else "gray" if match["gray"] else "yuv",
        bits=int(match["bits"] or 8),
        height=height,
        width=width,
        chroma=_SUBSAMPLING[chroma] if chroma else (1, 1),
        siting=siting,
        alpha=bool(match["chroma_a"]) or match["rgb"] == "gbrap",
    )


def pixel_format(layout: FrameLayout) -> str:
    """FFmpeg's name for a layout; of those with alpha it has yuva420p, yuva422p, yuva444p and gbrap."""
    a = "a" if layout.alpha else ""
    stem = {"rgb": f"gbr{a}p", "gray": "gray"}.get(layout.family) or f"yuv{a}{_NAMES[layout.chroma]}p"
    return stem if layout.bits == 8 else f"{stem}{layout.bits}le"


def planar_equivalent(name: str) -> str:
    """The `native` format that holds everything of `name` but the alpha of a palette; FFmpeg converts to it."""
    if native(name):
        return name
    described = av.VideoFormat(name, 64, 64)
    parts = [part for part in described.components if not part.is_alpha]
    deepest = max(part.bits for part in parts)
    a = "a" if len(parts) < len(described.components) else ""
    if described.is_rgb or described.has_palette or described.is_bayer or name.startswith("xyz") or name[:2] == "ya":
        return _deep_enough(f"gbr{a}p", deepest)
    if len(parts) == 1:
        return _deep_enough("gray", deepest)
    chroma = (64 // described.chroma_height(64), 64 // described.chroma_width(64))
    return _deep_enough(f"yuv{a}{_NAMES.get(chroma, '444')}p", deepest)


def _deep_enough(stem: str, bits: int) -> str:
    names = [stem if depth == 8 else f"{stem}{depth}le" for depth in (8, 9, 10, 12, 14, 16) if depth >= bits]
    return next((name for name in names if native(name)), f"{stem}16le")


def closest(layout: FrameLayout, formats: Iterable[str]) -> FrameLayout | None:
    """Of the pixel formats an encoder takes, the one that loses least of `layout`; None if it takes no planar one.

    Alpha is lost before anything else is, if there is no other way, and never added.
    """

    def loss(candidate: FrameLayout) -> tuple[float, ...]:
        same = candidate.family == layout.family
        finer = candidate.chroma[0] <= layout.chroma[0] and candidate.chroma[1] <= layout.chroma[1]
        area = candidate.chroma[0] * candidate.chroma[1]
        colour_lost = candidate.family == "gray" and layout.family != "gray"
        chroma_cost = area if layout.family != "gray" and not finer else -area
        return (
            layout.alpha and not candidate.alpha,
            colour_lost,
            candidate.bits < layout.bits,
            not finer and layout.family != "gray",
            not same,
            chroma_cost,
            abs(candidate.bits - layout.bits),
        )

    candidates = [
        layout_of(name, height=layout.height, width=layout.width, siting=layout.siting)
        for name in formats
        if native(name) and not name.startswith("yuvj")
    ]
    return min((entry for entry in candidates if layout.alpha or not entry.alpha), key=loss, default=None)


def siting_of(tags: ColorTags, codec: str, stated: str | None) -> Siting:
    """Chroma siting as stated, else by convention.

    H.264 and HEVC say "left" also where the file says nothing, but BT.2020 HDR lies at the top left.
    Motion JPEG and MPEG-1 sample in the middle, everything else at the left.
    """
    wide = tags.primaries == 9 and tags.transfer in (16, 18)
    if stated in _SITINGS and not (stated == "left" and wide and codec in ("h264", "hevc")):
        return _SITINGS[stated]
    if codec in ("mjpeg", "mpeg1video"):
        return "center"
    return "topleft" if wide else "left"


def planes_of(frame: av.VideoFrame) -> Sequence[Plane]:
    """Views of a `native` frame's planes, uint8|uint16 [H, W]; valid as long as they are referenced."""
    dtype = np.dtype(np.uint8 if frame.format.components[0].bits == 8 else np.uint16)
    views = []
    for plane in frame.planes:
        stride = abs(plane.line_size) // dtype.itemsize
        buffer: Any = plane
        rows = np.frombuffer(buffer, dtype, plane.height * stride).reshape(plane.height, stride)[:, : plane.width]
        views.append(rows[::-1] if plane.line_size < 0 else rows)
    return views
