"""Colours where nothing shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidsr.frame import Plane

__all__ = ["filled"]

_Values = NDArray[Any]


def filled(colors: Sequence[Plane], alpha: Plane) -> tuple[Plane, ...]:
    """The planes with the colours of visible pixels spread over the fully transparent ones.

    What lies hidden there is often black, and a model that looks at its neighbours would draw it into the edges of what
    is seen. Averages over blocks of 2, 4, 8, ... pixels, the smallest that hold something visible.
    """
    if alpha.all() or not alpha.any():
        return tuple(colors)
    weight = alpha.astype(np.float32)
    hidden = alpha == 0
    planes = []
    for color in colors:
        plane = color.copy()
        plane[hidden] = np.rint(_spread(color * weight, weight))[hidden]
        planes.append(plane)
    return tuple(planes)


def _spread(sums: _Values, weights: _Values) -> _Values:
    """float32 [H, W]: weighted means, from coarser blocks where there is no weight."""
    means = sums / np.maximum(weights, np.finfo(np.float32).tiny)
    if weights.all():
        return means
    coarse = _spread(_halved(sums), _halved(weights))
    height, width = sums.shape
    spread: _Values = np.where(weights > 0, means, coarse.repeat(2, 0).repeat(2, 1)[:height, :width])
    return spread


def _halved(values: _Values) -> _Values:
    """Sums over blocks of 2 x 2."""
    height, width = values.shape
    whole = np.pad(values, ((0, height % 2), (0, width % 2)))
    sums: _Values = whole[::2, ::2] + whole[1::2, ::2] + whole[::2, 1::2] + whole[1::2, 1::2]
    return sums
