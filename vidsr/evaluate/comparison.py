"""One picture with the same crops enlarged in several ways, side by side, for eyes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidsr.evaluate.lettering import HEIGHT, lettered
from vidsr.evaluate.metrics import psnr, y_of

__all__ = ["Box", "Column", "choose", "sheet"]

_GAP = 6
_LINE = 2 * HEIGHT + 8
_PAPER = 255
_INK = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A part of the picture that is enlarged, in its pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """image: uint8 [scale*H, scale*W, 3], the whole picture enlarged by one of the ways."""

    name: str
    image: NDArray[Any]
    scale: int


def choose(columns: Sequence[Column], *, count: int, height: int, width: int) -> list[Box]:
    """Up to `count` boxes of that size at most where the columns differ most from each other, none over another."""
    common = math.lcm(*(column.scale for column in columns))
    planes = np.stack([y_of(_repeated(column.image, common // column.scale)) for column in columns])
    # Squared, so that a few wild pixels count more than a slight difference everywhere.
    spread = np.ptp(planes, axis=0) ** 2
    rows, cells = (length // common for length in spread.shape)
    spread = spread.reshape(rows, common, cells, common).mean(axis=(1, 3))
    height, width = min(height, rows), min(width, cells)
    total = np.pad(spread, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    inside = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    boxes: list[Box] = []
    while len(boxes) < count and inside.max() > -np.inf:
        top, left = (int(place) for place in np.unravel_index(inside.argmax(), inside.shape))
        boxes.append(Box(top=top, left=left, height=height, width=width))
        inside[max(0, top - height + 1) : top + height, max(0, left - width + 1) : left + width] = -np.inf
    return boxes


def sheet(columns: Sequence[Column], boxes: Sequence[Box], *, zoom: int, truth: Column | None = None) -> NDArray[Any]:
    """uint8 [H, W, 3]: a column for each way with its name above, a row for each box, pixels repeated to `zoom`.

    zoom: pixels of the sheet for a pixel of the source, a multiple of every scale. truth: what the picture was before
    it was shrunk, of the same scale as the columns that are not the source; shown last, and each crop of those
    columns then has its PSNR on luma below it.
    """
    width = zoom * max(box.width for box in boxes)
    strips = []
    for column in [*columns, *([truth] if truth else [])]:
        parts = [_label(column.name, width)]
        for box in boxes:
            crop = _crop(column, box)
            parts.append(_widened(_repeated(crop, zoom // column.scale), width))
            if truth:
                measured = column is not truth and column.scale == truth.scale
                text = f"{psnr(y_of(crop), y_of(_crop(truth, box))):.2f} dB" if measured else ""
                parts.append(_label(text, width))
            parts.append(np.full((_GAP, width, 3), _PAPER, np.uint8))
        strips.append(_widened(np.vstack(parts[:-1]), width + _GAP))
    return np.hstack(strips)[:, :-_GAP]


def _crop(column: Column, box: Box) -> NDArray[Any]:
    scale = column.scale
    return column.image[
        box.top * scale : (box.top + box.height) * scale, box.left * scale : (box.left + box.width) * scale
    ]


def _repeated(image: NDArray[Any], times: int) -> NDArray[Any]:
    return image.repeat(times, axis=0).repeat(times, axis=1)


def _widened(image: NDArray[Any], width: int) -> NDArray[Any]:
    """With paper on the right."""
    return np.pad(image, ((0, 0), (0, width - image.shape[1]), (0, 0)), constant_values=_PAPER)


def _label(text: str, width: int) -> NDArray[Any]:
    """uint8 [_LINE, width, 3]: the text, cut where it is longer."""
    ink = _repeated(lettered(text), 2)[:, :width]
    line = np.full((_LINE, width, 3), _PAPER, np.uint8)
    line[4 : 4 + ink.shape[0], : ink.shape[1]][ink] = _INK
    return line
