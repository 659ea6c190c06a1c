"""Planes before the pixel shuffle: what a model's last node would put between each other lies in channels of its own.

Colour maps and chroma filters are linear, so they may come first; then single planes are shuffled in place of RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidsr.filters import chroma_offsets, downsample_taps
from vidsr.frame import FrameLayout
from vidsr.graph.builder import Builder

__all__ = ["WHOLE", "Shuffle", "downsampled_phases"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shuffle:
    """A DepthToSpace of RGB that is still to come, `factor` times larger; 1 for a picture that is whole."""

    factor: int
    mode: str

    def channels(self, colour: int) -> NDArray[np.int64]:
        """Where the phases of a colour lie, row by row."""
        count = self.factor**2
        return np.arange(count) * 3 + colour if self.mode == "DCR" else np.arange(count) + colour * count


WHOLE = Shuffle(factor=1, mode="CRD")


def downsampled_phases(build: Builder, phases: str, layout: FrameLayout, factor: int) -> str:
    """Phases of a plane at chroma size from those at luma size; edges repeat.

    phases: float32 [1, factor * factor, h, w]. The result has as many squares of `factor / down` by `factor / right`.
    `factor` is a multiple of both chroma factors.
    """
    grid = [factor, factor]
    offsets = chroma_offsets(layout.chroma, layout.siting)
    # out and in are phases along the axis, cells are steps of the grid, and along the other axis nothing happens.
    for axis, sums in enumerate(("oik,ab->oaibk", "oik,ab->aobik")):
        kernel, first = _kernel(factor, layout.chroma[axis], offsets[axis])
        cells = kernel.shape[2]
        phases = _extended(build, phases, grid, axis, layout.shapes[0][axis] // factor, (-first, cells - 1 + first))
        weights = np.einsum(sums, kernel, np.eye(grid[1 - axis])).astype(np.float32)
        window = (cells, 1) if axis == 0 else (1, cells)
        inputs, grid[axis] = grid[0] * grid[1], kernel.shape[0]
        phases = build.op("Conv", phases, build.constant(weights.reshape(-1, inputs, *window)))
    return phases


def _kernel(factor: int, step: int, offset: float) -> tuple[NDArray[np.float64], int]:
    """Weights [chroma phases, luma phases, cells] along one axis, and the first cell as seen from a result's own."""
    taps, first = downsample_taps(step, offset)
    results = np.arange(factor // step)[:, None]
    cells, phases = np.divmod(step * results + first + np.arange(taps.shape[1]), factor)
    kernel = np.zeros((factor // step, factor, int(np.ptp(cells)) + 1))
    kernel[results, phases, cells - cells.min()] = taps
    return kernel, int(cells.min())


def _extended(build: Builder, phases: str, grid: Sequence[int], axis: int, size: int, more: tuple[int, int]) -> str:
    """With cells more before and behind along an axis; all phases of theirs are the outermost one of the picture."""
    channels = np.arange(grid[0] * grid[1]).reshape(grid)

    def edge(count: int, cell: int, phase: int) -> list[str]:
        if not count:
            return []
        outermost = np.broadcast_to(channels.take([phase], axis), grid).ravel()
        cells = build.op("Gather", phases, build.constant([cell] * count), axis=2 + axis)
        return [build.op("Gather", cells, build.constant(outermost), axis=1)]

    parts = [*edge(more[0], 0, 0), phases, *edge(more[1], size - 1, grid[axis] - 1)]
    return build.op("Concat", *parts, axis=2 + axis) if len(parts) > 1 else phases
