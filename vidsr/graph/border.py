"""The nodes from planes to RGB and from RGB to planes. FP32 throughout; names begin with `HEAD` or `TAIL`."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from onnx import TensorProto, helper

from vidsr.filters import chroma_offsets, downsample_taps, upsample_taps
from vidsr.frame import FrameLayout
from vidsr.graph.builder import Builder
from vidsr.graph.phases import WHOLE, Shuffle, downsampled_phases
from vidsr.graph.planes import Planes, PlaneTensor, plane_tensors

__all__ = [
    "CODES_FROM_RGB",
    "HEAD",
    "RGB_FROM_CODES",
    "TAIL",
    "FixedSize",
    "FreeSize",
    "Shaping",
    "crop",
    "planes_from_rgb",
    "rgb_from_planes",
]

HEAD = "vidsr/head/"
TAIL = "vidsr/tail/"
RGB_FROM_CODES = "rgb_from_codes"
CODES_FROM_RGB = "codes_from_rgb"

Range = tuple[int, int]
"""First sample and the one behind the last, along one axis."""


class Shaping(Protocol):
    """The nodes that change shapes. A plane is float32 [H, W], a picture float32 [1, C, H, W]."""

    def picture_from_plane(self, build: Builder, plane: str, shape: tuple[int, int]) -> str: ...

    def plane_from_picture(self, build: Builder, picture: str, shape: tuple[int, int]) -> str: ...

    def extend(self, build: Builder, picture: str, shape: tuple[int, int], rows: Range, columns: Range) -> str:
        """Those rows and columns of a picture of `shape`; where there are none, the edge repeats."""

    def interleave(self, build: Builder, phases: str, factors: tuple[int, int], shape: tuple[int, int]) -> str:
        """[1, down * right, h, w], `shape` being (h, w), to [1, 1, h * down, w * right]."""


class FixedSize:
    """All sizes are constants.

    Edges by Gather and not Pad: OpenVINO rewrites Pad, and what it rewrites loses the mark that keeps it in FP32.
    """

    def picture_from_plane(self, build: Builder, plane: str, shape: tuple[int, int]) -> str:
        return build.op("Reshape", plane, build.constant([1, 1, *shape]))

    def plane_from_picture(self, build: Builder, picture: str, shape: tuple[int, int]) -> str:
        return build.op("Reshape", picture, build.constant(shape))

    def extend(self, build: Builder, picture: str, shape: tuple[int, int], rows: Range, columns: Range) -> str:
        for axis, size, (first, last) in ((2, shape[0], rows), (3, shape[1], columns)):
            if (first, last) != (0, size):
                indices = np.clip(np.arange(first, last), 0, size - 1)
                picture = build.op("Gather", picture, build.constant(indices), axis=axis)
        return picture

    def interleave(self, build: Builder, phases: str, factors: tuple[int, int], shape: tuple[int, int]) -> str:
        (down, right), (height, width) = factors, shape
        phases = build.op("Reshape", phases, build.constant([down, right, height, width]))
        phases = build.op("Transpose", phases, perm=[2, 0, 3, 1])
        return build.op("Reshape", phases, build.constant([1, 1, height * down, width * right]))


class FreeSize:
    """No size is written down, so that one graph serves them all; shapes still say how far edges extend."""

    def picture_from_plane(self, build: Builder, plane: str, shape: tuple[int, int]) -> str:
        return build.op("Unsqueeze", plane, build.constant([0, 1]))

    def plane_from_picture(self, build: Builder, picture: str, shape: tuple[int, int]) -> str:
        return build.op("Squeeze", picture, build.constant([0, 1]))

    def extend(self, build: Builder, picture: str, shape: tuple[int, int], rows: Range, columns: Range) -> str:
        top, bottom = -rows[0], rows[1] - shape[0]
        left, right = -columns[0], columns[1] - shape[1]
        if not any((top, bottom, left, right)):
            return picture
        return build.op("Pad", picture, build.constant([0, 0, top, left, 0, 0, bottom, right]), mode="edge")

    def interleave(self, build: Builder, phases: str, factors: tuple[int, int], shape: tuple[int, int]) -> str:
        phases = build.op("Reshape", phases, build.constant([*factors, 0, 0]))  # 0 keeps the size of that axis
        phases = build.op("Transpose", phases, perm=[2, 0, 3, 1])
        return self.picture_from_plane(build, build.op("Flatten", phases, axis=2), shape)


def rgb_from_planes(build: Builder, layout: FrameLayout, planes: Planes, shaping: Shaping) -> str:
    """float32 [1, 3, H, W] from the inputs `in0..`."""
    columns = _columns(build, RGB_FROM_CODES)
    rgb = columns[3]
    for index, tensor in enumerate(plane_tensors("in", layout, planes)):
        plane = shaping.picture_from_plane(build, _codes_from_tensor(build, tensor), layout.shapes[index])
        if index and layout.chroma != (1, 1):
            plane = _upsample(build, plane, layout, shaping)
        rgb = build.op("Add", rgb, build.op("Mul", plane, columns[index]))
    return rgb


_PAGE_BYTES = 4096
"""Planes of phases that lie a multiple of this apart fall into the same few lines of a cache: taking 48 of them out of
channels that lie side by side takes 15 times as long then (1280x720, one core). A row between them mends that."""


def planes_from_rgb(
    build: Builder, rgb: str, layout: FrameLayout, planes: Planes, shaping: Shaping, shuffle: Shuffle = WHOLE
) -> list[str]:
    """Rounded, clipped planes from float32 [1, 3, H', W'] before `shuffle`; returns the tensors in plane order."""
    peak = 2**layout.bits - 1
    phases = (layout.height // shuffle.factor, layout.width // shuffle.factor)
    apart = shuffle.factor > 1 and 4 * phases[0] * phases[1] % _PAGE_BYTES == 0
    if apart:
        rgb = build.op("Pad", rgb, build.constant([0, 0, 0, 0, 0, 0, 1, 0]))
    channels = [build.op("Gather", rgb, build.constant(shuffle.channels(colour)), axis=1) for colour in range(3)]
    outputs = []
    for index, tensor in enumerate(plane_tensors("out", layout, planes)):
        row = build.op("Gather", CODES_FROM_RGB, build.constant([index]), axis=0)
        weights = [build.op("Gather", row, build.constant([column]), axis=1) for column in range(4)]
        codes = weights[3]
        for channel, weight in zip(channels, weights[:3], strict=True):
            codes = build.op("Add", codes, build.op("Mul", channel, weight))
        if apart:
            codes = crop(build, codes, phases)
        sparse = layout.chroma if index else (1, 1)
        if shuffle.factor > 1:
            if sparse != (1, 1):
                codes = downsampled_phases(build, codes, layout, shuffle.factor)
            down, right = (shuffle.factor // step for step in sparse)
            codes = shaping.interleave(build, codes, (down, right), phases)
        elif sparse != (1, 1):
            codes = _downsample(build, codes, layout, shaping)
        codes = shaping.plane_from_picture(build, codes, layout.shapes[index])
        codes = build.op("Round", codes)
        codes = build.op("Clip", codes, build.constant(np.float32(0)), build.constant(np.float32(peak)))
        outputs.append(_tensor_from_codes(build, codes, tensor))
    return outputs


def crop(build: Builder, picture: str, shape: tuple[int, int]) -> str:
    """The first rows and columns of a picture."""
    return build.op("Slice", picture, build.constant([0, 0]), build.constant(shape), build.constant([2, 3]))


def _codes_from_tensor(build: Builder, tensor: PlaneTensor) -> str:
    """float32 [H, W], code values. The Cast comes first: TensorRT takes bytes at the border and nowhere else."""
    if tensor.dtype == np.float32:
        return tensor.name
    codes = build.op("Cast", tensor.name, to=TensorProto.FLOAT)
    if len(tensor.shape) == 2:
        return codes
    low, high = (build.op("Gather", codes, build.constant([byte]), axis=2) for byte in range(2))
    codes = build.op("Add", low, build.op("Mul", high, build.constant(np.float32(256))))
    return build.op("Squeeze", codes, build.constant([2]))


def _tensor_from_codes(build: Builder, codes: str, tensor: PlaneTensor) -> str:
    """The output from whole code values, float32 [H, W]. The Cast comes last and has nothing left to round."""
    if tensor.dtype == np.float32:
        return codes
    if len(tensor.shape) == 3:
        high = build.op("Floor", build.op("Mul", codes, build.constant(np.float32(1 / 256))))
        low = build.op("Sub", codes, build.op("Mul", high, build.constant(np.float32(256))))
        axes = build.constant([2])
        codes = build.op("Concat", *(build.op("Unsqueeze", byte, axes) for byte in (low, high)), axis=2)
    return build.op("Cast", codes, to=helper.np_dtype_to_tensor_dtype(tensor.dtype))


def _columns(build: Builder, matrix: str) -> list[str]:
    """The four columns of a [3, 4] input, each float32 [1, 3, 1, 1]."""
    shape = build.constant([1, 3, 1, 1])
    return [
        build.op("Reshape", build.op("Gather", matrix, build.constant([column]), axis=1), shape) for column in range(4)
    ]


def _upsample(build: Builder, plane: str, layout: FrameLayout, shaping: Shaping) -> str:
    """One chroma plane float32 [1, 1, h, w] to luma size [1, 1, H, W]; edges repeat."""
    height, width = layout.shapes[1]
    down, right = layout.chroma
    offset_y, offset_x = chroma_offsets(layout.chroma, layout.siting)
    taps_y, first_y = upsample_taps(down, offset_y)
    taps_x, first_x = upsample_taps(right, offset_x)
    rows = (first_y, height - 1 + first_y + taps_y.shape[1])
    columns = (first_x, width - 1 + first_x + taps_x.shape[1])
    plane = shaping.extend(build, plane, (height, width), rows, columns)
    weights = np.einsum("ay,bx->abyx", taps_y, taps_x).reshape(down * right, 1, taps_y.shape[1], taps_x.shape[1])
    phases = build.op("Conv", plane, build.constant(weights.astype(np.float32)))
    full = shaping.interleave(build, phases, layout.chroma, (height, width))
    if (height * down, width * right) == layout.shapes[0]:
        return full
    return crop(build, full, layout.shapes[0])


def _downsample(build: Builder, plane: str, layout: FrameLayout, shaping: Shaping) -> str:
    """One plane float32 [1, 1, H, W] filtered to chroma size [1, 1, h, w]; edges repeat."""
    down, right = layout.chroma
    offset_y, offset_x = chroma_offsets(layout.chroma, layout.siting)
    taps_y, first_y = downsample_taps(down, offset_y)
    taps_x, first_x = downsample_taps(right, offset_x)
    height, width = layout.shapes[1]
    rows = (first_y, down * (height - 1) + first_y + taps_y.shape[1])
    columns = (first_x, right * (width - 1) + first_x + taps_x.shape[1])
    plane = shaping.extend(build, plane, layout.shapes[0], rows, columns)
    weights = np.einsum("ay,bx->abyx", taps_y, taps_x).astype(np.float32)
    return build.op("Conv", plane, build.constant(weights), strides=[down, right])
