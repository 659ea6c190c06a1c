"""Whether a picture of the output shows what its source shows: by cells, within what codecs and models change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidsr.verify.cells import Cells
from vidsr.verify.result import clock

__all__ = ["Affine", "PictureJudge", "Shown"]

Affine = NDArray[np.float64]
"""float64 [3, 4]: colour of cells under a misreading, from what it should be and 1."""

_TILES = 4
_FOREIGN = 32.0
"""Root mean square difference of a tile that no model and no codec makes. Measured over all test clips: up to 14 with
SPAN at any quality, up to 22 with a model that repaints what it sees."""
_FLAT_SHARE, _FLAT_DIFFERENCE, _CONTRAST = 0.2, 8.0, 8.0
_ALPHA = 32.0
_MOVED = 6.0
"""A cell has changed between two frames when any of its components did by this much; noise does by less."""
_EXPLAINED, _STALE = 0.12, 9.0
_SHIFT_PIXELS, _SHIFT_SHARE, _SHIFT_CODES, _SHIFT_CERTAINTY = 0.75, 0.1, 0.4, 15.0
_COLOUR, _MISREAD = 6.0, 0.7


@dataclass(frozen=True, slots=True)
class Shown:
    """One frame as verification knows it. Times in seconds of its own file."""

    seconds: Fraction
    duration: Fraction
    cells: Cells


class PictureJudge:
    """Looks at one pair of pictures after the other.

    pixels: (height, width) of a cell in pixels of the source. scale: (down, across) of the output. misreadings: what
    the colours would be if someone had taken them for something else, by description. begin: the source's zero.
    """

    def __init__(
        self,
        pixels: tuple[float, float],
        scale: tuple[float, float],
        misreadings: Mapping[str, Affine],
        begin: Fraction,
    ) -> None:
        self._pixels, self._scale, self._misreadings, self._begin = pixels, scale, misreadings, begin
        self.worst = 0.0
        self._faulty = False
        self._count = 0
        self._moments = np.zeros((4, 4))
        self._products = np.zeros((3, 4))
        self._energy = 0.0

    def look(self, source: Shown, output: Cells, neighbours: Sequence[Shown]) -> str | None:
        """What is wrong with the output's picture, None if nothing. neighbours: of `source`, in the source."""
        wanted, found = source.cells[:3], output[:3]
        difference = found - wanted
        energy = np.einsum("chw,chw->hw", difference, difference)
        fault = (
            self._other_frame(wanted, difference, energy, neighbours)
            or self._foreign(wanted, found, energy)
            or self._shifted(wanted[0], found[0])
            or self._transparency(source.cells, output)
        )
        self.worst = max(self.worst, float(np.sqrt(energy.mean())))
        self._faulty |= fault is not None
        self._remember(wanted, difference, energy)
        return fault

    def colours(self) -> str | None:
        """What is wrong with the colours of all pictures together, None if nothing."""
        if not self._count:
            return None
        for name, affine in self._misreadings.items():
            change = affine - np.eye(3, 4)
            predicted = float(np.einsum("ij,jk,ik->", change, self._moments, change)) / self._count
            left = self._energy / self._count - 2 * float((change * self._products).sum()) / self._count + predicted
            if predicted > _MISREAD**2 and left < self._energy / self._count / 2:
                return f"the colours are as if {name} (off by {np.sqrt(predicted):.1f} code values)"
        if self._faulty:
            return None
        ridge = self._moments + np.eye(4) * self._count * 1e-3
        fit = np.linalg.solve(ridge, self._products.T).T
        changed = np.sqrt(np.einsum("ij,jk,ik->i", fit, self._moments, fit) / self._count)
        if changed.max() > _COLOUR:
            component = ("brightness", "blue difference", "red difference")[int(changed.argmax())]
            return f"the {component} is off by {changed.max():.1f} code values throughout"
        return None

    def _remember(self, wanted: Cells, difference: Cells, energy: NDArray[np.float32]) -> None:
        values = np.concatenate([wanted.reshape(3, -1), np.ones((1, energy.size), np.float32)])
        self._moments += np.einsum("in,jn->ij", values, values)
        self._products += np.einsum("in,jn->ij", difference.reshape(3, -1), values)
        self._energy += float(energy.sum())
        self._count += energy.size

    def _other_frame(
        self, wanted: Cells, difference: Cells, energy: NDArray[np.float32], neighbours: Sequence[Shown]
    ) -> str | None:
        """Whether the picture is that of another frame: where the two differ, it goes all the way to the other.

        At very low quality codecs leave small changes out for a few frames, so these have to be large ones.
        """
        least, total = max(12, energy.size // 300), float(energy.sum())
        if np.count_nonzero(energy > _MOVED) < least:
            return None
        best: tuple[float, Shown] | None = None
        for neighbour in neighbours:
            step = neighbour.cells[:3] - wanted
            moved = np.abs(step).max(axis=0) > _MOVED
            count = np.count_nonzero(moved)
            own = float(energy[moved].sum())
            if count < least or own < count * _STALE**2:
                continue
            left = np.square(difference - step)
            other = float(left[:, moved].sum())
            if other < _EXPLAINED * own and left.sum() < total / 2 and (best is None or other / own < best[0]):
                best = other / own, neighbour
        return best and f"shows the picture of {clock(best[1].seconds - self._begin)}"

    def _foreign(self, wanted: Cells, found: Cells, energy: NDArray[np.float32]) -> str | None:
        """Parts that show something else, or nothing."""
        differences = np.sqrt(_by_tile(energy))
        if differences.max() <= _FLAT_DIFFERENCE:
            return None
        own, other = _contrast(wanted[0]), _contrast(found[0])
        flat = (differences > _FLAT_DIFFERENCE) & (own > _CONTRAST) & (other < _FLAT_SHARE * own)
        wrong = (differences > _FOREIGN) | flat
        if not wrong.any():
            return None
        row, column = np.unravel_index(int(np.argmax(np.where(wrong, differences, 0))), wrong.shape)
        rows, columns = _edges(energy.shape[0]), _edges(energy.shape[1])
        part = found[:, rows[row] : rows[row + 1], columns[column] : columns[column + 1]]
        what = _appearance(part[:, 1:-1, 1:-1] if min(part.shape[1:]) > 4 else part, float(own[row, column]))
        if wrong.mean() > 0.7:
            return what
        return f"{what} in {wrong.sum()} of {wrong.size} parts (row {row + 1}, column {column + 1})"

    def _shifted(self, wanted: NDArray[np.float32], found: NDArray[np.float32]) -> str | None:
        """Whether the picture lies beside its place: least squares on the gradients (Lucas and Kanade)."""
        middle = (wanted + found) / 2
        if min(middle.shape) < 8:
            return None
        down = ((middle[2:] - middle[:-2]) / 2)[:, 1:-1].ravel()
        across = ((middle[:, 2:] - middle[:, :-2]) / 2)[1:-1].ravel()
        difference = (found - wanted)[1:-1, 1:-1].ravel()
        difference = difference - difference.mean()
        gradients = np.stack([down, across])
        normal = np.einsum("in,jn->ij", gradients, gradients).astype(np.float64) + 1e-3 * np.eye(2)
        moved = -np.linalg.solve(normal, gradients @ difference)
        explained = moved @ normal @ moved
        total = float(difference @ difference)
        variance = max(total - explained, 1e-9) / difference.size
        pixels = moved * self._pixels
        certainty = np.abs(moved) / np.sqrt(variance * np.linalg.inv(normal).diagonal())
        clear = (np.abs(pixels) > _SHIFT_PIXELS) & (certainty > _SHIFT_CERTAINTY)
        visible = explained > _SHIFT_CODES**2 * difference.size and explained > _SHIFT_SHARE * total
        if not (clear.any() and visible):
            return None
        y, x = pixels * self._scale
        return f"is shifted by about {x:.1f} pixels across, {y:.1f} down"

    def _transparency(self, source: Cells, output: Cells) -> str | None:
        if len(source) < 4 or len(output) < 4:
            return None
        tiles = np.sqrt(_by_tile((output[3] - source[3]) ** 2))
        return "has another transparency" if tiles.max() > _ALPHA else None


def _edges(length: int) -> list[int]:
    """Where tiles begin and the last one ends."""
    return sorted({length * index // _TILES for index in range(_TILES + 1)})


def _by_tile(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 [4, 4]: the mean of each sixteenth of the picture; fewer where there are not as many cells."""
    rows, columns = (_edges(length) for length in cells.shape)
    sums: Any = np.add.reduceat(np.add.reduceat(cells, rows[:-1], axis=0), columns[:-1], axis=1)
    counts = np.outer(np.diff(rows), np.diff(columns))
    return np.asarray(sums / counts, np.float32)


def _contrast(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 [4, 4]: standard deviation of each tile."""
    return np.asarray(np.sqrt(np.maximum(_by_tile(luma * luma) - _by_tile(luma) ** 2, 0)), np.float32)


def _appearance(part: Cells, contrast: float) -> str:
    """What to call a part of an output. contrast: of that part of the source."""
    luma, blue, red = (float(component.mean()) for component in part)
    if blue < -40 and red < -40:
        return "is green"
    if part[0].std() > max(2.0, _FLAT_SHARE * contrast):
        return "shows something else"
    if luma < 8 and abs(blue) < 8 and abs(red) < 8:
        return "is black"
    return "shows one colour only"
