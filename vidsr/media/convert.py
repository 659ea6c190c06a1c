"""Pictures that are not as promised: of another format or size than the engine takes."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import av

from vidsr.color import RGB, ColorTags
from vidsr.frame import FrameLayout
from vidsr.media.pixel import layout_of, native, pixel_format, planar_equivalent

__all__ = ["FLAGS", "MATRICES", "Converter", "plain_name"]

MATRICES = {1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020nc"}
"""FFmpeg's names by H.273 code."""
FLAGS = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
"""Of the scaler, for the least error that it can have."""


def plain_name(name: str) -> str:
    """A format's name without the range in it, which travels in the tags."""
    return name.replace("yuvj", "yuv")


def _detour(given: av.VideoFormat) -> tuple[str, ...]:
    """What RGB of 5 or 6 bits a channel is converted to first: straight to planes the scaler makes 248 of white, and
    from big-endian to RGB24 it forgets the order of bytes."""
    if not given.is_rgb or given.components[0].bits != 5:
        return ()
    return (*([f"{given.name[:-2]}le"] if given.is_big_endian else []), "rgb24")


class Converter:
    """Brings pictures into one layout by FFmpeg's scaler, range and matrix kept.

    interlaced: the two fields are scaled each for itself. also: further formats that hold the layout's samples and that
    the caller takes as they are. Belongs to one thread.
    """

    def __init__(
        self, layout: FrameLayout, color: ColorTags, *, interlaced: bool, also: frozenset[str] = frozenset()
    ) -> None:
        self._layout, self._interlaced, self._also = layout, interlaced, also
        self._target = pixel_format(layout)
        self._promised = color
        self._key: object = None
        self._graph: av.filter.Graph | None = None

    def fits(self, picture: av.VideoFrame) -> bool:
        """Whether the picture is as promised already; an alpha plane too many does not matter."""
        name = picture.format.name
        return self._same_size(picture) and (name in self._also or self._same_format(name))

    def __call__(self, picture: av.VideoFrame, tags: ColorTags) -> tuple[av.VideoFrame, ColorTags]:
        """The picture as promised and its tags; those change only where YUV becomes RGB or the other way round.

        It can have more planes than promised behind those.
        """
        if self.fits(picture):
            return picture, tags
        key = (picture.width, picture.height, picture.format.name, tags)
        if self._graph is None or key != self._key:
            self._graph, self._key = self._build(picture, tags), key
        self._graph.push(picture)
        return self._graph.vpull(), self._tags(picture, tags)

    def _same_size(self, picture: av.VideoFrame) -> bool:
        return (picture.height, picture.width) == (self._layout.height, self._layout.width)

    def _same_format(self, name: str) -> bool:
        if not native(name):
            return False
        layout = layout_of(name, height=1, width=1, siting=self._layout.siting)
        return pixel_format(layout if self._layout.alpha else replace(layout, alpha=False)) == self._target

    def _family_changes(self, picture: av.VideoFrame) -> bool:
        """Between RGB and the others."""
        return planar_equivalent(picture.format.name).startswith("gbr") != (self._layout.family == "rgb")

    def _tags(self, picture: av.VideoFrame, tags: ColorTags) -> ColorTags:
        if not self._family_changes(picture):
            return tags
        if self._layout.family == "rgb":
            return replace(tags, matrix=RGB, full_range=True)
        return replace(self._resolved(self._promised), primaries=tags.primaries, transfer=tags.transfer)

    def _resolved(self, tags: ColorTags) -> ColorTags:
        return tags.resolved(height=self._layout.height, width=self._layout.width, rgb=False)

    def _build(self, picture: av.VideoFrame, tags: ColorTags) -> av.filter.Graph:
        layout = self._layout
        graph = av.filter.Graph()
        graph.threads = 1
        nodes = [
            graph.add_buffer(
                width=picture.width, height=picture.height, format=picture.format, time_base=Fraction(1, 1000)
            ),
            *(
                graph.add(*node)
                for name in _detour(picture.format)
                for node in (("scale", f"flags={FLAGS}"), ("format", name))
            ),
            graph.add(
                "scale",
                f"{layout.width}:{layout.height}:flags={FLAGS}{self._colour(picture, tags)}{self._places(picture)}",
            ),
            graph.add("format", self._target_of(picture)),
            graph.add("buffersink"),
        ]
        graph.link_nodes(*nodes).configure()
        return graph

    def _target_of(self, picture: av.VideoFrame) -> str:
        """Gray is the luma plane of YUV: the scaler would change its range."""
        if self._layout.family == "gray" and not picture.format.name.startswith("gray"):
            return pixel_format(replace(self._layout, family="yuv"))
        return self._target

    def _colour(self, picture: av.VideoFrame, tags: ColorTags) -> str:
        """The same matrix and range on both sides, so that nothing is changed to what the scaler would guess."""
        if self._layout.family == "rgb" and not self._family_changes(picture):
            return ""
        tags = self._resolved(tags)
        ranges = ["full" if tags.full_range else "limited"] * 2
        matrices = [MATRICES[tags.matrix]] * 2
        if self._family_changes(picture):
            other = self._resolved(self._promised)
            ranges[1] = "full" if self._layout.family == "rgb" or other.full_range else "limited"
            matrices[1] = matrices[0] if self._layout.family == "rgb" else MATRICES[other.matrix]
            ranges[0] = ranges[0] if self._layout.family == "rgb" else "full"
        elif picture.format.name.startswith("gray") and self._layout.family == "yuv":
            # The scaler always takes gray for full range; with that on both sides its codes stay.
            ranges = ["full", "full"]
        return (
            f":in_range={ranges[0]}:out_range={ranges[1]}:in_color_matrix={matrices[0]}:out_color_matrix={matrices[1]}"
        )

    def _places(self, picture: av.VideoFrame) -> str:
        """Fields, and where chroma samples lie: 0 on the first luma sample, 128 amid those they cover.

        By number, since the filter's names for it move nothing between equal formats. Nothing where no sample moves:
        FFmpeg has direct ways for that.
        """
        chroma = (picture.format.chroma_height(64), picture.format.chroma_width(64))
        if self._same_size(picture) and chroma == (64 // self._layout.chroma[0], 64 // self._layout.chroma[1]):
            return ""
        across = 128 if self._layout.siting == "center" else 0
        down = 0 if self._layout.siting == "topleft" else 128
        source = f":in_h_chr_pos={across}:in_v_chr_pos={down}" if chroma != (64, 64) else ""
        target = f":out_h_chr_pos={across}:out_v_chr_pos={down}" if self._layout.chroma != (1, 1) else ""
        return f":interl={int(self._interlaced)}{source}{target}"
