"""Frames with transparency: an engine that runs one for the colours and one for the alpha plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vidsr.backends.base import Engine, Slot
from vidsr.color import BT709, ColorTags, conversion
from vidsr.frame import FrameLayout, Plane

__all__ = ["AlphaEngine", "alpha_parts"]

_FULL = ColorTags(matrix=BT709, full_range=True)


@dataclass(slots=True)
class _Pair:
    """The inner engines' slots of one slot. flat: the alpha plane has one value, and no engine works on it."""

    color: Slot
    alpha: Slot
    flat: bool = False


class AlphaEngine:
    """Enlarges colours and alpha with the same model, alpha as a gray picture.

    No alpha value leaves the range of the pixels around it, so what is fully opaque or fully transparent stays it,
    and edges get no halo. Frames with one alpha value all over cost nothing more than those without alpha.

    open_inner: makes an engine for two layouts without alpha.
    """

    def __init__(
        self,
        open_inner: Callable[[FrameLayout, FrameLayout], Engine],
        source: FrameLayout,
        target: FrameLayout,
    ) -> None:
        self.source, self.target = source, target
        colors, alpha = alpha_parts(source, target)
        self._color = open_inner(*colors)
        try:
            self._alpha = open_inner(*alpha)
        except BaseException:
            self._color.close()
            raise
        bits = {"source_bits": source.bits, "target_bits": target.bits}
        self._conversion = conversion(_FULL, _FULL, gray_source=True, **bits)
        self.in_flight = self._color.in_flight

    @property
    def description(self) -> str:
        return f"{self._color.description}, alpha likewise"

    def slots(self, count: int) -> Sequence[Slot]:
        slots = []
        # Either can give fewer, where memory is short.
        for color, alpha in zip(self._color.slots(count), self._alpha.slots(count), strict=False):
            alpha.convert(self._conversion)
            slots.append(
                Slot(
                    (*color.input, *alpha.input),
                    (*color.output, *alpha.output),
                    color.rgb_from_codes,
                    color.codes_from_rgb,
                    _Pair(color, alpha),
                )
            )
        return slots

    def submit(self, slot: Slot) -> None:
        pair: _Pair = slot.handle
        self._color.submit(pair.color)
        plane = slot.input[-1]
        pair.flat = bool(plane.min() == plane.max())
        if not pair.flat:
            self._alpha.submit(pair.alpha)

    def wait(self, slot: Slot) -> None:
        pair: _Pair = slot.handle
        self._color.wait(pair.color)
        if not pair.flat:
            self._alpha.wait(pair.alpha)
        _keep_within(slot.input[-1], slot.output[-1], (2**self.target.bits - 1) / (2**self.source.bits - 1))

    def close(self) -> None:
        self._color.close()
        self._alpha.close()


def alpha_parts(source: FrameLayout, target: FrameLayout) -> list[tuple[FrameLayout, FrameLayout]]:
    """(source, target) of the engine for the colours and of that for alpha. Raises ValueError where there is none."""
    if not (source.alpha and target.alpha):
        raise ValueError("both layouts need an alpha plane")
    return [(replace(source, alpha=False), replace(target, alpha=False)), (_gray(source), _gray(target))]


def _gray(layout: FrameLayout) -> FrameLayout:
    return FrameLayout(family="gray", bits=layout.bits, height=layout.height, width=layout.width)


def _keep_within(source: Plane, target: Plane, gain: float) -> None:
    """Clips each pixel of `target` to the lowest and highest of the 3x3 pixels of `source` around it, times `gain`."""
    scale = target.shape[0] // source.shape[0]
    lowest, highest = (
        np.rint(_around(source, pick) * gain).astype(target.dtype) if gain != 1 else _around(source, pick)
        for pick in (np.minimum, np.maximum)
    )
    for row in range(scale):
        for column in range(scale):
            phase = target[row::scale, column::scale]
            np.clip(phase, lowest, highest, out=phase)


def _around(plane: Plane, pick: np.ufunc) -> Plane:
    """What `pick` (minimum or maximum) gives over each pixel and its eight neighbours; edges have fewer."""
    rows = plane.copy()
    pick(rows[1:], plane[:-1], out=rows[1:])
    pick(rows[:-1], plane[1:], out=rows[:-1])
    result = rows.copy()
    pick(result[:, 1:], rows[:, :-1], out=result[:, 1:])
    pick(result[:, :-1], rows[:, 1:], out=result[:, :-1])
    return result
