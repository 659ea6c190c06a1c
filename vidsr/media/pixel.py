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
_NATIVE = re.compile(r"(?:yuvj?(?P<chroma>\d{3})p|(?P<rgb>gbrp)|(?P<gray>gray))(?:(?P<bits>9|10|12|14|16)le)?")


def native(name: str) -> bool:
    """Whether the engine takes planes of this format as they are."""
    match = _NATIVE.fullmatch(name)
    return bool(match and (match["chroma"] is None or match["chroma"] in _SUBSAMPLING))


def layout_of(name: str, *, height: int, width: int, siting: Siting) -> FrameLayout:
    """The layout of a `native` pixel format."""
    match = _NATIVE.fullmatch(name)
    if not match:
        raise ValueError(f"{name} is not a planar format")
    return FrameLayout(
        family="rgb" if match["rgb"] else "gray" if match["gray"] else "yuv",
        bits=int(match["bits"] or 8),
        height=height,
        width=width,
        chroma=_SUBSAMPLING[match["chroma"]] if match["chroma"] else (1, 1),
        siting=siting,
    )


def pixel_format(layout: FrameLayout) -> str:
    """FFmpeg's name for a layout."""
    stem = {"rgb": "gbrp", "gray": "gray"}.get(layout.family) or f"yuv{_NAMES[layout.chroma]}p"
    return stem if layout.bits == 8 else f"{stem}{layout.bits}le"


def planar_equivalent(name: str) -> str:
    """The `native` format that holds everything of `name` but alpha; FFmpeg converts to it."""
    if native(name):
        return name
    described = av.VideoFormat(name, 64, 64)
    parts = [part for part in described.components if not part.is_alpha]
    deepest = max(part.bits for part in parts)
    bits = next((bits for bits in (8, 9, 10, 12, 14, 16) if bits >= deepest), 16)
    suffix = "" if bits == 8 else f"{bits}le"
    if described.is_rgb or described.has_palette or described.is_bayer or name.startswith("xyz"):
        return f"gbrp{suffix}"
    if len(parts) == 1:
        return f"gray{suffix}"
    chroma = (64 // described.chroma_height(64), 64 // described.chroma_width(64))
    return f"yuv{_NAMES.get(chroma, '444')}p{suffix}"


def closest(layout: FrameLayout, formats: Iterable[str]) -> FrameLayout | None:
    """Of the pixel formats an encoder takes, the one that loses least of `layout`; None if it takes no planar one."""

    def loss(candidate: FrameLayout) -> tuple[float, ...]:
        same = candidate.family == layout.family
        finer = candidate.chroma[0] <= layout.chroma[0] and candidate.chroma[1] <= layout.chroma[1]
        area = candidate.chroma[0] * candidate.chroma[1]
        colour_lost = candidate.family == "gray" and layout.family != "gray"
        chroma_cost = area if layout.family != "gray" and not finer else -area
        return (
            colour_lost,
            candidate.bits < layout.bits,
            not finer and layout.family != "gray",
            not same,
            chroma_cost,
            candidate.bits,
        )

    candidates = [
        layout_of(name, height=layout.height, width=layout.width, siting=layout.siting)
        for name in formats
        if native(name) and not name.startswith("yuvj")
    ]
    return min(candidates, key=loss, default=None)


def siting_of(tags: ColorTags, codec: str) -> Siting:
    """Chroma siting by convention: PyAV 18 does not expose the stated one.

    Motion JPEG and MPEG-1 sample in the middle, BT.2020 material at the top left, everything else at the left.
    """
    if codec in ("mjpeg", "mpeg1video"):
        return "center"
    return "topleft" if tags.primaries == 9 and tags.transfer in (16, 18) else "left"


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
