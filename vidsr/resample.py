"""Pictures made smaller and larger, as products with matrices. numpy only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["KERNELS", "Kernel", "Matrix", "bicubic", "resize_matrix", "resized", "shrink"]

Matrix = NDArray[np.float64]
"""[target, length]: a line of pixels from another."""


def _cubic(x: NDArray[np.float64], a: float) -> NDArray[np.float64]:
    """The cubic convolution kernel of R. Keys (1981)."""
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


@dataclass(frozen=True, slots=True)
class Kernel:
    """An interpolation kernel over the distance in target pixels, zero from `reach` on."""

    weight: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    reach: float


KERNELS = {
    "bicubic": Kernel(lambda x: _cubic(x, -0.5), 2),  # MATLAB, Pillow
    "swscale": Kernel(lambda x: _cubic(x, -0.6), 2),  # FFmpeg's default
    "box": Kernel(lambda x: (x < 0.5) + 0.5 * (x == 0.5), 0.5),
    "bilinear": Kernel(lambda x: np.maximum(1 - x, 0), 1),
    "lanczos": Kernel(lambda x: np.sinc(x) * np.sinc(x / 3) * (x < 3), 3),
}


@cache
def resize_matrix(length: int, target: int, kernel: str) -> Matrix:
    """Rows sum to 1: another number of pixels for a line of them, centres aligned.

    Where it shrinks, the kernel is stretched by the factor against aliasing. Edge pixels are repeated.
    """
    step = length / target
    stretch = max(1.0, step)
    shape = KERNELS[kernel]
    centres = (np.arange(target) + 0.5) * step - 0.5
    first = np.floor(centres - shape.reach * stretch).astype(int)
    taps = first[:, None] + np.arange(int(np.ceil(2 * shape.reach * stretch)) + 2)
    weights = shape.weight(np.abs(centres[:, None] - taps) / stretch)
    matrix = np.zeros((target, length))
    np.add.at(matrix, (np.arange(target)[:, None], np.clip(taps, 0, length - 1)), weights)
    result: Matrix = matrix / matrix.sum(axis=1, keepdims=True)
    return result


def bicubic(image: NDArray[Any], scale: int) -> NDArray[Any]:
    """Cubic interpolation as the field compares with: uint8 [H, W, 3] -> uint8 [scale*H, scale*W, 3]."""
    return resized(image, scale * image.shape[0], scale * image.shape[1])


def resized(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """The same to any size: uint8 [H, W, 3] -> uint8 [height, width, 3]."""
    rows = resize_matrix(image.shape[0], height, "bicubic")
    columns = resize_matrix(image.shape[1], width, "bicubic")
    return _rounded(_columns(columns, _rows(rows, image)))


def shrink(image: NDArray[Any], scale: int) -> NDArray[Any]:
    """As MATLAB's imresize, which the test sets come from: rows first, rounded to 8 bits between the directions.

    uint8 [scale*H, scale*W, 3] -> uint8 [H, W, 3].
    """
    rows, columns = (resize_matrix(length, length // scale, "bicubic") for length in image.shape[:2])
    return _rounded(_columns(columns, _rounded(_rows(rows, image))))


def _rows(matrix: Matrix, image: NDArray[Any]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = np.einsum("ah,hwc->awc", matrix, image, optimize=True)
    return result


def _columns(matrix: Matrix, image: NDArray[Any]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = np.einsum("bw,hwc->hbc", matrix, image, optimize=True)
    return result


def _rounded(value: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.clip(np.floor(value + 0.5), 0, 255).astype(np.uint8, order="C")
