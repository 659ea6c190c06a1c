"""Pictures for eyes: JPEG where speed counts, exact RGB and PNG where pixels do; and which way up they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vidsr.color import BT601, ColorTags, conversion
from vidsr.frame import FrameLayout, Plane
from vidsr.media.convert import FLAGS, MATRICES, Converter
from vidsr.media.interleave import pack
from vidsr.media.picture import png_bytes
from vidsr.media.pixel import pixel_format, planes_of

__all__ = ["Orientation", "Shown", "orientation_of"]

_JFIF = ColorTags(matrix=BT601, full_range=True)
"""What every JPEG's samples mean."""
_DEPTHS = (8, 10, 12)
_SUBSAMPLINGS = ((2, 2), (1, 2), (1, 1))
"""Depths and subsamplings that FFmpeg's `colorspace` filter takes; browsers know these JPEGs."""
_STEP_AT_HALF, _LARGEST_STEP = 10, 31
"""FFmpeg's quantiser steps: at quality 50, by the PSNR that libjpeg has there on clips, and the coarsest."""
_STRIP_PIXELS = 1 << 14
"""What is worked on at a time stays in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Orientation:
    """What makes a picture upright: mirrored left to right first where it says so, then turned clockwise.

    turn: degrees, 0, 90, 180 or 270.
    """

    turn: int
    mirrored: bool


def orientation_of(matrix: Sequence[int] | None) -> Orientation:
    """What `VideoInfo.display_matrix` asks for, to the nearest right angle."""
    if matrix is None:
        return Orientation(0, False)
    # The picture's axes, x to the right and y down, come to lie along (a, b) and (c, d).
    a, b, c, d = (matrix[index] for index in (0, 1, 3, 4))
    mirrored = a * d - b * c < 0
    angle = math.atan2(-b, -a) if mirrored else math.atan2(b, a)
    return Orientation(round(math.degrees(angle) / 90) % 4 * 90, mirrored)


class Shown:
    """Makes pictures to look at of planes, `uint8|uint16 [H, W]` each, of one layout and colour. Belongs to one thread.

    color: where it leaves out matrix or range, the usual rule for this size holds. PQ and HLG are shown as they are,
    without tone mapping. What is transparent is laid on middle grey.
    """

    def __init__(self, layout: FrameLayout, color: ColorTags) -> None:
        yuv = layout.family == "yuv"
        self._alpha, self._layout = layout.alpha, replace(layout, alpha=False)
        self._color = color.resolved(height=layout.height, width=layout.width, rgb=layout.family == "rgb")
        self._maps = conversion(
            self._color, _JFIF, source_bits=layout.bits, target_bits=8, gray_source=layout.family == "gray"
        )
        self._full = Converter(replace(self._layout, chroma=(1, 1)), self._color, interlaced=False)
        self._coded = (self._layout, self._color) if yuv else (replace(self._layout, family="yuv", bits=8), _JFIF)
        self._jpeg: _Jpeg | None = None

    @classmethod
    def enlarged(cls, layout: FrameLayout, color: ColorTags, source: FrameLayout) -> Shown:
        """For what an engine has made of `source`: where the tags leave the matrix open, the source's size decides, as
        it does for the engine."""
        return cls(layout, color.resolved(height=source.height, width=source.width, rgb=layout.family == "rgb"))

    def jpeg(self, planes: Sequence[Plane], quality: float, *, most_width: int | None = None) -> bytes:
        """A JPEG, subsampled as the planes are, at most that wide.

        quality: 1 to 100, about what libjpeg makes of the number. Chroma samples stay where they are in the block they
        cover: up to half a pixel from where a JPEG has them.
        """
        width = min(self._layout.width, most_width or self._layout.width)
        size = (max(1, round(self._layout.height * width / self._layout.width)), width)
        step = _step(quality)
        if self._jpeg is None or (self._jpeg.size, self._jpeg.step) != (size, step):
            self._jpeg = _Jpeg(*self._coded, size, step)
        return self._jpeg(self._picture(self._opaque(planes)))

    def rgb(self, planes: Sequence[Plane]) -> NDArray[Any]:
        """uint8 [H, W, 3], full range, rounded once; chroma is interpolated from where its samples lie."""
        planes = self._opaque(planes)
        if self._layout.chroma != (1, 1):
            planes = planes_of(self._full(self._picture(planes), self._color)[0])
        image = np.empty((self._layout.height, self._layout.width, 3), np.uint8)
        _map(planes, 255 * self._maps.rgb_from_codes, [image[..., channel] for channel in range(3)])
        return image

    def png(self, planes: Sequence[Plane]) -> bytes:
        """A PNG of `rgb`, made for speed."""
        return png_bytes(self.rgb(planes), fast=True)

    def _picture(self, planes: Sequence[Plane]) -> av.VideoFrame:
        """As YUV: what is RGB or gray gets a JPEG's own samples."""
        layout, _ = self._coded
        picture = av.VideoFrame(layout.width, layout.height, pixel_format(layout))
        if self._layout.family == "yuv":
            pack(picture, planes, layout.bits)
        else:
            inward, outward = self._maps.rgb_from_codes, self._maps.codes_from_rgb
            matrix = outward[:, :3] @ inward
            matrix[:, 3] += outward[:, 3]
            _map(planes, matrix, planes_of(picture))
        picture.pts, picture.time_base = 0, Fraction(1, 1000)
        return picture

    def _opaque(self, planes: Sequence[Plane]) -> Sequence[Plane]:
        """Without alpha; each chroma sample takes that of the first pixel it covers."""
        if not self._alpha:
            return planes
        *colors, alpha = planes
        bits = self._layout.bits
        own = conversion(self._color, self._color, source_bits=bits, target_bits=bits).codes_from_rgb
        grays = own @ np.array([0.5, 0.5, 0.5, 1], np.float32)
        share = alpha / np.float32(2**bits - 1)
        down, right = self._layout.chroma
        shares = [share, share[::down, ::right], share[::down, ::right]]
        return [
            np.rint(gray + (plane - gray) * part).astype(plane.dtype)
            for plane, gray, part in zip(colors, grays, shares, strict=False)
        ]


class _Jpeg:
    """Pictures of one YUV layout and colour to JPEGs of one size and quantiser step. size: (height, width)."""

    def __init__(self, layout: FrameLayout, color: ColorTags, size: tuple[int, int], step: int) -> None:
        self.size, self.step = size, step
        bits = next((depth for depth in _DEPTHS if depth >= layout.bits), _DEPTHS[-1])
        chroma = layout.chroma if layout.chroma in _SUBSAMPLINGS else (1, 1)
        fit = replace(layout, height=size[0], width=size[1], bits=bits, chroma=chroma)
        target = replace(fit, bits=8)
        self._color, self._fitted = color, Converter(fit, color, interlaced=False)
        self._graph = _recoloured(fit, target, color)
        self._encoder, self._count = _encoder(target, step), 0

    def __call__(self, picture: av.VideoFrame) -> bytes:
        fitted, _ = self._fitted(picture, self._color)
        self._graph.push(fitted)
        coded = self._graph.vpull()
        self._count += 1  # the encoder wants times that increase
        coded.pts, coded.time_base = self._count, self._encoder.time_base
        return b"".join(bytes(packet) for packet in self._encoder.encode(coded))


def _recoloured(source: FrameLayout, target: FrameLayout, color: ColorTags) -> av.filter.Graph:
    """From a matrix, range and depth to a JPEG's, directly; by way of RGB, as the scaler does it, takes ten times as
    long, and is left for odd sizes.
    """
    graph = av.filter.Graph()
    graph.threads = 1
    entry = av.VideoFormat(pixel_format(source), source.width, source.height)
    matrices = MATRICES[color.matrix], MATRICES[BT601]
    if source.width % 2 or source.height % 2:
        given = f"in_range={'full' if color.full_range else 'limited'}:in_color_matrix={matrices[0]}"
        filters = [
            ("scale", f"flags={FLAGS}:{given}:out_range=full:out_color_matrix={matrices[1]}"),
            ("format", pixel_format(target)),
        ]
    else:
        given = f"irange={'pc' if color.full_range else 'tv'}:ispace={matrices[0]}"
        same = "primaries=bt709:iprimaries=bt709:trc=bt709:itrc=bt709"  # have to be named, and stay
        wanted = f"range=pc:space={matrices[1]}:format={pixel_format(target)}"
        filters = [("colorspace", f"{given}:{wanted}:{same}")]
    begin = graph.add_buffer(width=source.width, height=source.height, format=entry, time_base=Fraction(1, 1000))
    nodes = (graph.add(*each) for each in (*filters, ("buffersink",)))
    graph.link_nodes(begin, *nodes).configure()
    return graph


def _encoder(layout: FrameLayout, step: int) -> Any:
    encoder: Any = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = layout.width, layout.height, pixel_format(layout)
    encoder.color_range, encoder.time_base, encoder.thread_count = 2, Fraction(1, 1000), 1
    encoder.qmin = encoder.qmax = step
    encoder.options = {"huffman": "optimal"}  # a third smaller, in the same time
    return encoder


def _step(quality: float) -> int:
    """FFmpeg's quantiser step for a quality as libjpeg counts it."""
    if not 1 <= quality <= 100:
        raise ValueError(f"quality is 1 to 100, not {quality}")
    coarseness = 50 / quality if quality < 50 else 2 - quality / 50
    return min(max(round(_STEP_AT_HALF * coarseness), 1), _LARGEST_STEP)


def _map(planes: Sequence[Plane], matrix: NDArray[np.float32], targets: Sequence[Plane]) -> None:
    """Writes matrix [3, 4] @ (planes, 1), rounded, into uint8 targets [H, W]; of gray only the first column counts."""
    height, width = planes[0].shape
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strips = [plane[top : top + rows].astype(np.float32) for plane in planes]
        for target, (*weights, offset) in zip(targets, matrix, strict=True):
            value = sum((strip * weight for strip, weight in zip(strips, weights, strict=False)), offset)
            target[top : top + rows] = np.clip(np.rint(value), 0, 255)
