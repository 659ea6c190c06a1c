"""Pixel formats of NVIDIA's decoders and encoders: chroma samples in pairs, and depths in the high bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vidsr.frame import FrameLayout, Plane
from vidsr.media.pixel import native, planes_of

__all__ = ["holds", "pack", "unpack"]

_PAIRED = {
    "nv12": (2, 2), "p010le": (2, 2), "p012le": (2, 2), "p016le": (2, 2),
    "nv16": (1, 2), "p210le": (1, 2), "p212le": (1, 2), "p216le": (1, 2),
    "nv24": (1, 1), "p410le": (1, 1), "p412le": (1, 1), "p416le": (1, 1),
}  # fmt: skip
"""Formats with U and V in one plane, and how their chroma is subsampled."""
_HIGH = {
    "yuv444p10msble": "yuv", "yuv444p12msble": "yuv", "yuv444p16le": "yuv",
    "gbrp10msble": "rgb", "gbrp12msble": "rgb", "gbrp16le": "rgb",
}  # fmt: skip
"""Planar formats, 4:4:4, whose samples can begin at the highest bit, and their families."""


def holds(name: str, layout: FrameLayout) -> bool:
    """Whether a picture of this format can hold the samples of `layout`, in other places."""
    if layout.alpha or (layout.bits == 8) != (name in ("nv12", "nv16", "nv24")):
        return False
    if name in _PAIRED:
        return layout.family == "yuv" and layout.chroma == _PAIRED[name]
    return name in _HIGH and layout.family == _HIGH[name] and layout.chroma == (1, 1)


def unpack(planes: Sequence[Plane], picture: av.VideoFrame, bits: int) -> None:
    """Copies the samples of a picture into planes of its size, uint8|uint16 [H, W], `bits` of them used.

    The picture is of a native format of that depth, and then may have a plane too many, or one that `holds` it.
    """
    if native(picture.format.name) and picture.format.components[0].bits == bits:
        for target, plane in zip(planes, planes_of(picture)[: len(planes)], strict=True):
            np.copyto(target, plane)
        return
    shift = 8 * planes[0].itemsize - bits
    paired = picture.format.name in _PAIRED
    np.right_shift(_samples(picture, 0), shift, out=planes[0])
    if not paired:
        for index in (1, 2):
            np.right_shift(_samples(picture, index), shift, out=planes[index])
        return
    # Both samples of a pair as one number, the first in its low half: several times faster than every other element.
    pairs = _pairs(picture)
    np.copyto(planes[1], pairs, casting="unsafe")
    np.right_shift(planes[1], shift, out=planes[1])
    np.right_shift(pairs, 8 * planes[0].itemsize + shift, out=planes[2], casting="unsafe")


def pack(picture: av.VideoFrame, planes: Sequence[Plane], bits: int) -> None:
    """Copies planes, uint8|uint16 [H, W], `bits` of them used, into a picture of their size: the way back."""
    if native(picture.format.name) and picture.format.components[0].bits == bits:
        for target, plane in zip(planes_of(picture), planes, strict=True):
            np.copyto(target, plane)
        return
    shift = 8 * planes[0].itemsize - bits
    np.left_shift(planes[0], shift, out=_samples(picture, 0))
    for index in (1, 2):
        if picture.format.name in _PAIRED:
            np.left_shift(planes[index], shift, out=_samples(picture, 1, 2)[:, index - 1 :: 2])
        else:
            np.left_shift(planes[index], shift, out=_samples(picture, index))


def _samples(picture: av.VideoFrame, index: int, each: int = 1) -> NDArray[Any]:
    """A view of a plane's samples, [H, each * W]."""
    dtype = np.dtype(np.uint8 if picture.format.components[0].bits == 8 else np.uint16)
    plane: Any = picture.planes[index]
    rows = np.frombuffer(plane, np.uint8, plane.height * plane.line_size).reshape(plane.height, plane.line_size)
    samples: NDArray[Any] = rows[:, : plane.width * each * dtype.itemsize].view(dtype)
    return samples


def _pairs(picture: av.VideoFrame) -> NDArray[Any]:
    """A view of the pairs of chroma samples, each as one number, [H, W]."""
    samples = _samples(picture, 1, 2)
    return samples.view(np.uint16 if samples.itemsize == 1 else np.uint32)
