"""Where two frames differ, how far that can reach, and tiles that cover it. Masks are bool [rows, columns] of cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidsr.frame import FrameLayout, Plane

__all__ = [
    "Mask",
    "Move",
    "Tile",
    "TileSize",
    "changed",
    "cover",
    "dilated",
    "scrolled",
    "unchanged_share",
]

Mask = NDArray[np.bool_]

_WORDS: dict[int, type[Any]] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclass(frozen=True, slots=True, kw_only=True)
class TileSize:
    """height, width: in source pixels, with all that is computed around the inside. cost: of running one."""

    height: int
    width: int
    cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """top, left: of the tile in the frame. inside: (top, bottom, left, right) in the frame of what is exact; all in
    source pixels."""

    size: TileSize
    top: int
    left: int
    inside: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A part of the picture shows what was `down` luma pixels above. rows, columns: (begin, end) of it, in cells."""

    down: int
    rows: tuple[int, int]
    columns: tuple[int, int]


def changed(layout: FrameLayout, before: Sequence[Plane], now: Sequence[Plane], cell: int) -> Mask:
    """The cells of `cell` x `cell` luma pixels in which a sample of any plane differs.

    cell: a multiple of the chroma factors; cells at the right and lower edge may be smaller.
    """
    mask = np.zeros((-(-layout.height // cell), -(-layout.width // cell)), np.bool_)
    for index, (first, second) in enumerate(zip(before, now, strict=True)):
        down, right = layout.chroma if 0 < index < 3 else (1, 1)
        mask |= _differing(first, second, cell // down, cell // right, mask.shape)
    return mask


def _differing(first: Plane, second: Plane, tall: int, wide: int, shape: tuple[int, ...]) -> Mask:
    """For one plane: the cells of `tall` x `wide` samples that differ, as many as `shape` says."""
    height, width = first.shape
    word = _WORDS.get(wide * first.itemsize)
    whole = width // wide
    if word is not None:
        # A cell's samples of one row, compared as one number.
        rows = _words(first, word, whole) != _words(second, word, whole)
    else:
        rows = (first[:, : whole * wide] != second[:, : whole * wide]).reshape(height, whole, wide).any(axis=2)
    if whole * wide < width:
        rest = (first[:, whole * wide :] != second[:, whole * wide :]).any(axis=1)
        rows = np.concatenate([rows, rest[:, None]], axis=1)
    mask = np.zeros(shape, np.bool_)
    full = height // tall
    of_cells = rows[: full * tall].reshape(full, tall, rows.shape[1])
    mask[:full, : rows.shape[1]] = np.logical_or.reduce(of_cells, axis=1)
    if full * tall < height:
        mask[full, : rows.shape[1]] = rows[full * tall :].any(axis=0)
    return mask


def _words(plane: Plane, word: type[Any], count: int) -> NDArray[Any]:
    samples = np.dtype(word).itemsize // plane.itemsize
    return plane[:, : count * samples].view(word)


def scrolled(
    layout: FrameLayout, before: Sequence[Plane], now: Sequence[Plane], cell: int, step: int, dirty: Mask
) -> tuple[Move, Mask] | None:
    """What has moved up or down, where much of what changed has, and the cells that differ from the frame before with
    that part of it moved; its edges count as changed.

    The distance is the one that most rows of most strips of the first plane agree on; a multiple of `step`. dirty: the
    cells that differ without a move.
    """
    down = _distance(before[0], now[0])
    if down is None or down % step:
        return None
    # Of these rows of cells, what they show may have moved there.
    first, last = -(-max(0, down) // cell), min(layout.height, layout.height + down) // cell
    if first >= last:
        return None
    moved = np.zeros_like(dirty)
    moved[first:last] = ~_shifted(layout, before, now, cell, down, (first * cell, last * cell))
    better = moved & dirty
    if np.count_nonzero(better) < dirty.size * _MOVED_SHARE:
        return None
    rows, columns = (_extent(better.any(axis=axis)) for axis in (1, 0))
    part = (slice(*rows), slice(*columns))
    result = dirty.copy()
    result[max(0, rows[0] - 1) : rows[1] + 1, max(0, columns[0] - 1) : columns[1] + 1] = True
    result[part] = ~moved[part]
    result[part][[0, -1]] = True
    # What moves along an edge of the frame stays as far from it as it was.
    for edge, column in zip(columns, (0, -1), strict=True):
        if 0 < edge < dirty.shape[1]:
            result[part][:, column] = True
    return Move(down=down, rows=rows, columns=columns), result


_MOVED_SHARE = 0.1
_STRIPS = 8


def _distance(before: Plane, now: Plane) -> int | None:
    """How far rows have moved down; None where they do not agree, or stand still."""
    height = before.shape[0]
    words = before.shape[1] * before.itemsize // 8
    if not words:
        return None
    old, new = (_fingerprints(_words(plane, np.uint64, words)) for plane in (before, now))
    known, places, counts = np.unique(old, return_index=True, return_counts=True)
    # Rows that are there more than once, as empty ones are, say nothing.
    known, rows = known[counts == 1], places[counts == 1] // old.shape[1]
    moved = old != new
    near = np.searchsorted(known, new[moved])
    found = np.flatnonzero(near < len(known))
    found = found[known[near[found]] == new[moved][found]]
    votes = np.bincount(np.nonzero(moved)[0][found] - rows[near[found]] + height, minlength=1)
    return int(votes.argmax()) - height if votes.max() >= old.size * _MOVED_SHARE / 2 else None


def _fingerprints(words: NDArray[Any]) -> NDArray[Any]:
    """[rows, strips]: a number for what each row has there, another one in each strip. That two may be the same by
    chance is no harm: where a picture has moved is looked at closely later."""
    count = words.shape[1]
    strips = min(_STRIPS, count)
    factors = np.random.default_rng(0).integers(1, 2**64, count + strips, np.uint64, endpoint=False)
    begins = np.arange(strips) * count // strips
    numbers: NDArray[Any] = np.add.reduceat(words * factors[:count], begins, axis=1) + factors[count:]
    return numbers


def _shifted(
    layout: FrameLayout, before: Sequence[Plane], now: Sequence[Plane], cell: int, down: int, rows: tuple[int, int]
) -> Mask:
    """The cells of these luma rows that differ from those `down` above."""
    part = replace(layout, height=rows[1] - rows[0])
    old, new = list[Plane](), list[Plane]()
    for index, (first, second) in enumerate(zip(before, now, strict=True)):
        factor = layout.chroma[0] if 0 < index < 3 else 1
        begin, end, shift = rows[0] // factor, rows[1] // factor, down // factor
        old.append(first[begin - shift : end - shift])
        new.append(second[begin:end])
    return changed(part, old, new, cell)


def _extent(marked: Any) -> tuple[int, int]:
    """(begin, end) of what is marked."""
    places = np.flatnonzero(marked)
    return int(places[0]), int(places[-1]) + 1


def dilated(mask: Mask, reach: int) -> Mask:
    """All cells that are at most `reach` rows and `reach` columns away from one of the mask's."""
    return _along(_along(mask, reach).T, reach).T


def _along(mask: Mask, reach: int) -> Mask:
    """Down alone."""
    sums = np.zeros((mask.shape[0] + 2 * reach + 1, mask.shape[1]), np.int32)
    np.cumsum(mask, axis=0, out=sums[reach + 1 : reach + 1 + mask.shape[0]])
    sums[reach + 1 + mask.shape[0] :] = sums[reach + mask.shape[0]]
    result: Mask = sums[2 * reach + 1 :] > sums[: -2 * reach - 1]
    return result


def cover(
    mask: Mask, sizes: Sequence[TileSize], frame: tuple[int, int], *, cell: int, reach: int, limit: float
) -> tuple[list[Tile], float] | None:
    """Tiles whose insides hold all cells of the mask, cheap ones, and what they cost; None where that is more than
    `limit`. Greedy: the tile that covers most for its cost, at the first cell that is left.

    frame: (height, width). reach: what is computed around an inside but at the frame's border.
    """
    left, tiles, cost = mask.copy(), list[Tile](), 0.0
    while True:
        rows = np.flatnonzero(left.any(axis=1))
        if not len(rows):
            return tiles, cost
        y = int(rows[0])
        x = int(left[y].argmax())
        best: tuple[float, Tile, tuple[slice, slice]] | None = None
        for size in sizes:
            for column in _columns(left, y, x, size, cell, reach):
                tile = _placed(y * cell, column * cell, size, frame, reach)
                cells = _cells(tile.inside, frame, cell)
                worth = np.count_nonzero(left[cells]) / size.cost
                if left[cells].size and (best is None or worth > best[0]):
                    best = (worth, tile, cells)
        assert best is not None
        _, tile, cells = best
        left[cells] = False
        tiles.append(tile)
        cost += tile.size.cost
        if cost > limit:
            return None


def _columns(left: Mask, y: int, x: int, size: TileSize, cell: int, reach: int) -> set[int]:
    """Where a tile that holds the cell may begin: with it, or further left with what is left there below."""
    tall, wide = (max(1, (length - 2 * reach) // cell) for length in (size.height, size.width))
    begin = max(0, x - wide + 1)
    below = left[y : y + tall, begin : x + 1].any(axis=0)
    return {x, begin + int(below.argmax())}


def _placed(y: int, x: int, size: TileSize, frame: tuple[int, int], reach: int) -> Tile:
    """The tile whose inside begins at (y, x), or before it where the frame ends."""
    top, above, below = _span(y, size.height, frame[0], reach)
    left, before, behind = _span(x, size.width, frame[1], reach)
    return Tile(size=size, top=top, left=left, inside=(above, below, before, behind))


def _span(begin: int, length: int, frame: int, reach: int) -> tuple[int, int, int]:
    """(begin of the tile, begin of its inside, end of its inside)."""
    origin = min(max(0, begin - reach), frame - length)
    first = origin + reach if origin else 0
    end = origin + length
    return origin, first, end if end == frame else end - reach


def _cells(inside: tuple[int, int, int, int], frame: tuple[int, int], cell: int) -> tuple[slice, slice]:
    """The cells that lie inside whole."""
    top, bottom, left, right = inside
    rows, columns = (
        slice(-(-first // cell), -(-last // cell) if last == whole else last // cell)
        for first, last, whole in ((top, bottom, frame[0]), (left, right, frame[1]))
    )
    return rows, columns


def unchanged_share(before: Plane, now: Plane) -> float:
    """How much of two arrays of samples is the same, 0..1, in runs of eight bytes."""
    runs = before.shape[1] * before.itemsize // 8
    if not runs:
        return float(np.array_equal(before, now))
    return float((_words(before, np.uint64, runs) == _words(now, np.uint64, runs)).mean())
