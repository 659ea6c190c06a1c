"""The guard: nodes behind a model that leaves all reason on hard patterns.

Some networks multiply their own activations and answer a checkerboard or sharp text with values of hundreds, where
white is 1. The guard looks for results that no interpolation is near, and blends their surroundings to one.
`vidsr.backends.guard` is something else: it looks at finished frames of a low precision, whatever the model.
`vidsr.stability` says which models need it; `vidsr.backends.torch_guard` is the same in torch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vidsr.graph.border import Shaping
from vidsr.graph.builder import Builder
from vidsr.graph.phases import WHOLE, Shuffle

__all__ = ["BEGIN", "GUARD_REACH", "REACH", "WILD", "guarded"]

BEGIN, WILD = 0.7, 0.9
"""Distances from bilinear interpolation, white being 1: from the first on the surroundings are blended, at the second
nothing of the model is left."""
REACH = 7
"""Input pixels around a wild one that are blended as it is."""
GUARD_REACH = REACH + 1
"""How far a result depends on the model's others, in input pixels: the interpolation reaches one further."""


def guarded(
    build: Builder,
    image: str,
    upscaled: str,
    scale: int,
    shape: tuple[int, int],
    shaping: Shaping,
    shuffle: Shuffle = WHOLE,
) -> str:
    """float32 [1, 3, scale*H, scale*W] from a model's result of that shape and its input, float32 [1, 3, H, W].

    Before `shuffle`, which then enlarges by `scale`, both are [1, 3*scale*scale, H, W].

    A result nearer than BEGIN to bilinear interpolation everywhere comes back as it is. NaN and infinity count as wild:
    `Less` is false for them on every engine, which holds for no minimum or maximum. Wild samples are replaced before
    anything is computed with them, so nothing of them can spread. All of it happens on the phases, scale*scale to an
    input pixel: convolution and shuffle are what engines do fast, and keep in FP32 where they are told to.

    shape: (H, W).
    """
    whole = shuffle == WHOLE and scale > 1
    phases = build.op("SpaceToDepth", upscaled, blocksize=scale) if whole else upscaled
    edged = shaping.extend(build, image, shape, (-1, shape[0] + 1), (-1, shape[1] + 1))
    base = build.op("Conv", edged, build.constant(_bilinear(scale, "DCR" if whole else shuffle.mode)))
    distance = build.op("Abs", build.op("Sub", phases, base))
    limit = build.constant(np.float32(WILD))
    sane = build.op("Less", distance, limit)
    worst = _largest(build, build.op("Where", sane, distance, limit))
    size = 2 * REACH + 1
    for kernel, pads in (([size, 1], [REACH, 0, REACH, 0]), ([1, size], [0, REACH, 0, REACH])):
        worst = build.op("MaxPool", worst, kernel_shape=kernel, pads=pads)
    excess = build.op("Max", build.op("Sub", worst, build.constant(np.float32(BEGIN))), build.constant(np.float32(0)))
    share = build.op("Mul", excess, build.constant(np.float32(1 / (WILD - BEGIN))))
    kept = build.op("Where", sane, phases, base)
    kept = build.op("Sub", kept, build.op("Mul", share, build.op("Sub", kept, base)))
    return build.op("DepthToSpace", kept, blocksize=scale, mode="DCR") if whole else kept


def _largest(build: Builder, value: str) -> str:
    """Over all channels. The axes became an input with opset 18."""
    if build.opset < 18:
        return build.op("ReduceMax", value, axes=[1], keepdims=1)
    return build.op("ReduceMax", value, build.constant([1]), keepdims=1)


def _bilinear(scale: int, mode: str) -> NDArray[np.float32]:
    """Weights float32 [scale*scale*3, 3, 3, 3] of a convolution that gives the phases in the order of a shuffle."""
    offsets = (np.arange(scale) - (scale - 1) / 2) / scale
    taps = np.maximum(0, 1 - np.abs(offsets[:, None] - np.arange(-1, 2)))
    weights: NDArray[np.float64] = np.einsum(
        "py,qx,oi->pqoiyx" if mode == "DCR" else "py,qx,oi->opqiyx", taps, taps, np.eye(3)
    )
    return weights.reshape(-1, 3, 3, 3).astype(np.float32)
