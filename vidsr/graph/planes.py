"""The tensors at the border of a composed graph: which there are, and how they lie in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vidsr.frame import FrameLayout

__all__ = ["PlaneTensor", "Planes", "plane_names", "plane_tensors"]

Planes = Literal["native", "bytes", "half"]
"""How planes lie at the border of a graph.

`native`: as in a `FrameLayout`, uint8 or uint16 [H, W].
`bytes`: for libraries without uint16. 8 bits as before; more bits are the same memory seen as uint8 [H, W, 2], the low
    byte of each sample first.
`half`: for libraries without uint8 as well. Code values as floats: float16 [H, W] up to 11 bits, which it holds
    exactly, else float32 [H, W].
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneTensor:
    """One plane at a graph's border."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def plane_names(kind: str, layout: FrameLayout) -> tuple[str, ...]:
    """Tensor names of a layout's planes; `kind` is "in" or "out"."""
    return tuple(f"{kind}{index}" for index in range(len(layout.shapes)))


def plane_tensors(
    kind: Literal["in", "out"], layout: FrameLayout, planes: Planes = "native"
) -> tuple[PlaneTensor, ...]:
    """The tensors of a layout's planes, in their order."""
    pairs = planes == "bytes" and layout.bits > 8
    dtype = layout.dtype
    if planes == "bytes":
        dtype = np.dtype(np.uint8)
    elif planes == "half":
        dtype = np.dtype(np.float16 if layout.bits <= 11 else np.float32)
    return tuple(
        PlaneTensor(name=name, shape=(*shape, 2) if pairs else shape, dtype=dtype)
        for name, shape in zip(plane_names(kind, layout), layout.shapes, strict=True)
    )
