"""Resampling filters for chroma planes, as weights. numpy only.

Both directions use the cubic convolution kernel of R. Keys, "Cubic Convolution Interpolation for Digital Image
Processing" (1981), a = -0.5; downsampling stretches it by the factor so that it also removes what would alias.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["chroma_offsets", "downsample_taps", "keys_cubic", "upsample_taps"]


def keys_cubic(x: float) -> float:
    """The kernel at distance `x` samples, zero from 2 on."""
    x = abs(x)
    if x < 1.0:
        return 1.5 * x**3 - 2.5 * x**2 + 1.0
    if x < 2.0:
        return -0.5 * x**3 + 2.5 * x**2 - 4.0 * x + 2.0
    return 0.0


def chroma_offsets(factors: tuple[int, int], siting: str) -> tuple[float, float]:
    """Where chroma sample 0 lies, `(down, right)` in luma samples from luma sample 0."""
    down, right = factors
    return (
        0.0 if siting == "topleft" else (down - 1) / 2.0,
        (right - 1) / 2.0 if siting == "center" else 0.0,
    )


def upsample_taps(factor: int, offset: float) -> tuple[NDArray[np.float64], int]:
    """Weights that interpolate `factor` luma positions from chroma samples.

    Returns `(taps, first)`: taps float64 [factor, T]; luma sample `factor * i + p` is
    `sum(taps[p, t] * chroma[i + first + t])`. Rows sum to 1.
    """
    centres = [(p - offset) / factor for p in range(factor)]
    return _taps(centres, lambda distance: keys_cubic(distance), reach=2.0)


def downsample_taps(factor: int, offset: float) -> tuple[NDArray[np.float64], int]:
    """Weights that filter luma-resolution samples down to one chroma sample.

    Returns `(taps, first)`: taps float64 [1, T]; chroma sample `i` is
    `sum(taps[0, t] * full[factor * i + first + t])`. The row sums to 1.
    """
    return _taps([offset], lambda distance: keys_cubic(distance / factor), reach=2.0 * factor)


def _taps(centres: list[float], kernel: Callable[[float], float], reach: float) -> tuple[NDArray[np.float64], int]:
    first = math.ceil(min(centres) - reach)
    last = math.floor(max(centres) + reach)
    taps = np.array([[kernel(k - centre) for k in range(first, last + 1)] for centre in centres], np.float64)
    used = np.flatnonzero(np.abs(taps).sum(axis=0) > 1e-12)
    taps, first = taps[:, used[0] : used[-1] + 1], first + int(used[0])
    return taps / taps.sum(axis=1, keepdims=True), first
