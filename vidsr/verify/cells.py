"""Pictures as a coarse grid of area averages: what two pictures of different size and format can be compared by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vidsr.color import LUMA_WEIGHTS, ColorTags, conversion
from vidsr.frame import FrameLayout, Plane

__all__ = ["Cells", "Reducer", "grid_of", "misreadings"]

Cells = NDArray[np.float32]
"""float32 [3 or 4, rows, columns]: luma, blue and red difference (BT.709), alpha if there is; white is 255."""

_MOST_COLUMNS = 128
_LEAST_PIXELS = 4
_LUMA = np.array([0.2126, 0.7152, 0.0722])
_CELLS_FROM_RGB = 255 * np.stack(
    [_LUMA, (np.array([0.0, 0.0, 1.0]) - _LUMA) / 1.8556, (np.array([1.0, 0.0, 0.0]) - _LUMA) / 1.5748]
)


def grid_of(source: FrameLayout, target: FrameLayout) -> tuple[int, int]:
    """(rows, columns) for two pictures of the same scene: cells of 4 pixels or more in each, and not many.

    Rows are chosen so that they divide every plane evenly where possible: such sums are several times cheaper.
    """
    smallest = min(source.height, target.height), min(source.width, target.width)
    columns = min(_MOST_COLUMNS, max(1, smallest[1] // _LEAST_PIXELS))
    rows = min(max(1, smallest[0] // _LEAST_PIXELS), max(1, round(_MOST_COLUMNS * smallest[0] / smallest[1])), 256)
    common = np.gcd.reduce([shape[0] for layout in (source, target) for shape in layout.shapes])
    even = max(count for count in range(1, min(rows, common) + 1) if common % count == 0)
    return (even if 4 * even >= 3 * rows else rows), columns


class Reducer:
    """Makes cells of pictures of one layout; `grid` (rows, columns) as of `grid_of`.

    reference: height and width that decide what untagged colour means, those of the source.
    """

    def __init__(self, layout: FrameLayout, grid: tuple[int, int], reference: tuple[int, int]) -> None:
        self._layout, self._reference = layout, reference
        self._affine = lru_cache(maxsize=16)(self._affine_of)
        down, right = layout.chroma
        factors = [(1, 1), (down, right), (down, right), (1, 1)] if layout.family == "yuv" else [(1, 1)] * 4
        if layout.family == "gray":
            factors = factors[:1] * 2
        sizes = list(zip(layout.shapes, factors, strict=False))
        self._rows = [_RowMeans(layout.height / y, shape[0], grid[0]) for shape, (y, _) in sizes]
        self._columns = [_RowMeans(layout.width / x, shape[1], grid[1]) for shape, (_, x) in sizes]

    def __call__(self, planes: Sequence[Plane], tags: ColorTags) -> Cells:
        """The cells of a picture: planes in the order of the layout."""
        parts = zip(planes, self._rows, self._columns, strict=True)
        means = [columns(rows(plane).T).T for plane, rows, columns in parts]
        colours = np.stack(means[:-1] if self._layout.alpha else means)
        affine = self._affine(tags)
        cells = np.einsum("ij,jhw->ihw", affine[:, :-1], colours) + affine[:, -1:, None]
        if self._layout.alpha:
            opaque = np.float32(255 / (2**self._layout.bits - 1))
            cells = np.concatenate([cells, means[-1][None] * opaque])
        return np.asarray(cells, np.float32)

    def _affine_of(self, tags: ColorTags) -> NDArray[np.float32]:
        height, width = self._reference
        definite = tags.resolved(height=height, width=width, rgb=self._layout.family == "rgb")
        return np.asarray(_cells_from_codes(self._layout, definite), np.float32)


def misreadings(layout: FrameLayout, tags: ColorTags) -> dict[str, NDArray[np.float64]]:
    """What the colours of cells become if codes are taken for what they are not, by description: float64 [3, 4] each,
    for cells and 1. tags: definite ones (`ColorTags.resolved`)."""
    if layout.family == "gray":
        return {}
    right = _square(_cells_from_codes(layout, tags))
    wrong: dict[str, ColorTags] = {}
    if layout.family == "yuv":
        wrong["the range was taken for the other one"] = replace(tags, full_range=not tags.full_range)
        for matrix, name in {1: "BT.709", 6: "BT.601", 9: "BT.2020"}.items():
            if LUMA_WEIGHTS[matrix] != LUMA_WEIGHTS[tags.matrix]:
                wrong[f"the matrix was taken for {name}"] = replace(tags, matrix=matrix)
    found = {}
    for name, other in wrong.items():
        change = _square(_cells_from_codes(layout, other)) @ np.linalg.inv(right)
        found[name] = change[:3]
        found[f"{name}, the other way round"] = np.linalg.inv(change)[:3]
    swapped = np.eye(4)[[0, 2, 1, 3]]  # U and V, or blue and red
    found["two colour planes were swapped"] = (right @ swapped @ np.linalg.inv(right))[:3]
    return found


def _square(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.vstack([affine, [0, 0, 0, 1]])


def _cells_from_codes(layout: FrameLayout, tags: ColorTags) -> NDArray[np.float64]:
    """float64 [3, colour planes + 1]: cells from mean code values, and the constant."""
    gray = layout.family == "gray"
    maps = conversion(tags, tags, source_bits=layout.bits, target_bits=layout.bits, gray_source=gray)
    affine: NDArray[np.float64] = _CELLS_FROM_RGB @ maps.rgb_from_codes.astype(np.float64)
    return affine[:, [0, 3]] if gray else affine


class _RowMeans:
    """Averages rows of samples into rows of cells, the shares of rows that two cells divide included.

    Sums whole rows, which takes a fraction of the time of a product with a matrix of weights, and no threads of a
    linear algebra library that would wait for work in every core.

    extent: how much of the samples, from the first edge on, the cells divide among themselves; the last sample of
    subsampled planes of odd size lies half outside.
    """

    def __init__(self, extent: float, samples: int, cells: int) -> None:
        edges = np.linspace(0, extent, cells + 1)
        first = np.floor(edges + 1e-9).astype(np.intp)
        shares = np.maximum(edges - first, 0).astype(np.float32)[:, None]
        self._count: int = int(np.diff(first).min())
        longer = (np.diff(first) > self._count).astype(np.float32)[:, None]
        self._begins, self._size = first[:-1], np.float32(cells / extent)
        # One more row where a cell has it, what belongs to the cell before, what there is of the next row.
        rows = (first[:-1] + self._count, first[:-1], first[1:])
        weights = (longer, -shares[:-1], shares[1:])
        self._rest = [
            (np.minimum(row, samples - 1), weight) for row, weight in zip(rows, weights, strict=True) if weight.any()
        ]

    def __call__(self, plane: Plane) -> NDArray[np.float32]:
        """float32 [cells, width]."""
        wide = np.dtype(np.uint16 if plane.dtype == np.uint8 and self._count <= 257 else np.uint32)
        if plane.dtype == np.float32:
            plane, wide = np.ascontiguousarray(plane), plane.dtype
        if not self._rest:
            sums = plane.reshape(len(self._begins), self._count, -1).sum(axis=1, dtype=wide)
        else:
            sums = plane[self._begins].astype(wide)
            for step in range(1, self._count):
                sums += plane[self._begins + step]
        means: NDArray[np.float32] = sums.astype(np.float32)
        for row, weight in self._rest:
            means += weight * plane[row]
        means *= self._size
        return means
