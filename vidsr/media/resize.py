"""Resizing of finished frames, by FFmpeg's scale filter."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np

from vidsr.filters import chroma_offsets
from vidsr.frame import FrameLayout, Plane
from vidsr.media.pixel import pixel_format, planes_of

__all__ = ["Resizer"]


def _chroma_places(layout: FrameLayout) -> str:
    """Where chroma samples lie, as options of the filter: in 256ths of a luma sample from the first one's centre.

    By number, since the filter's names for it (`in_chroma_loc=left`) move nothing between equal formats.
    """
    down, right = (round(256 * offset) for offset in chroma_offsets(layout.chroma, layout.siting))
    return ":".join(
        f"{side}_{way}_chr_pos={place}" for side in ("in", "out") for way, place in (("h", right), ("v", down))
    )


class Resizer:
    """Planes of one size to planes of another in the same format.

    Lanczos with three lobes, centres aligned, chroma by its siting, sums in FFmpeg's exact mode. Belongs to one thread.
    """

    def __init__(self, source: FrameLayout, target: FrameLayout) -> None:
        self._source, self._name = source, pixel_format(source)
        self._graph = av.filter.Graph()
        entry = self._graph.add_buffer(
            width=source.width,
            height=source.height,
            format=av.VideoFormat(self._name, source.width, source.height),
            time_base=Fraction(1, 25),
        )
        scale = self._graph.add(
            "scale",
            f"{target.width}:{target.height}:flags=lanczos+accurate_rnd+full_chroma_inp+full_chroma_int"
            f":{_chroma_places(source)}",
        )
        out = self._graph.add("buffersink")
        entry.link_to(scale)
        scale.link_to(out)
        self._graph.configure()

    def __call__(self, planes: Sequence[Plane]) -> Sequence[Plane]:
        """uint8|uint16 [H, W] each -> the same dtype; the result is the caller's."""
        picture = av.VideoFrame(self._source.width, self._source.height, self._name)
        picture.pts, picture.time_base = 0, Fraction(1, 25)
        for target, plane in zip(planes_of(picture), planes, strict=True):
            np.copyto(target, plane)
        self._graph.push(picture)
        return planes_of(self._graph.vpull())
