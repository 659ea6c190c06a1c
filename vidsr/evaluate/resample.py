"""Pictures made smaller and larger by a cubic filter. numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidsr.filters import downsample_taps, upsample_taps

__all__ = ["bicubic", "shrink"]


def bicubic(image: NDArray[Any], scale: int) -> NDArray[Any]:
    """Keys cubic interpolation (a = -0.5): uint8 [H, W, 3] -> uint8 [scale*H, scale*W, 3]."""
    taps, first = upsample_taps(scale, (scale - 1) / 2)
    value = image.astype(np.float64)
    for axis in (0, 1):
        length = value.shape[axis]
        result = np.zeros(())
        for index in range(taps.shape[1]):
            source = np.clip(np.arange(length) + first + index, 0, length - 1)
            phase = taps[:, index].reshape((1, scale, 1, 1) if axis == 0 else (1, 1, scale, 1))
            result = result + np.expand_dims(np.take(value, source, axis=axis), axis + 1) * phase
        shape = list(value.shape)
        shape[axis] *= scale
        value = result.reshape(shape)
    return np.clip(np.rint(value), 0, 255).astype(np.uint8)


def shrink(image: NDArray[Any], scale: int) -> NDArray[Any]:
    """The same cubic stretched by `scale`, and so free of aliasing, as MATLAB's imresize: edges are mirrored.

    uint8 [scale*H, scale*W, 3] -> uint8 [H, W, 3].
    """
    taps, first = downsample_taps(scale, (scale - 1) / 2)
    count = taps.shape[1]
    value = image.astype(np.float64)
    for axis in (0, 1):
        length = value.shape[axis] // scale
        margin = [(0, 0)] * value.ndim
        margin[axis] = (-first, first + count - scale)
        padded = np.moveaxis(np.pad(value, margin, mode="symmetric"), axis, 0)
        parts = (taps[0, index] * padded[index::scale][:length] for index in range(count))
        value = np.moveaxis(np.asarray(sum(parts)), 0, axis)
    return np.clip(np.rint(value), 0, 255).astype(np.uint8)
