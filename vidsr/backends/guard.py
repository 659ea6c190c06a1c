"""Looks at every result of a low precision and computes a collapsed one again in FP32.

The nodes of `vidsr.graph.guard` are something else: part of a model's graph, in FP32 as well, and per neighbourhood.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from vidsr.backends.base import Engine, Slot
from vidsr.frame import Frame, FrameLayout, Plane
from vidsr.notes import Notes

__all__ = ["Guard", "collapsed"]

_POINTS, _BLOCKS = 64, 8
_MEAN_SHARE = 0.12
_CONTRAST_SHARE = 0.02
_GBR_WEIGHTS = (0.7, 0.1, 0.2)
"""Brightness of FFmpeg's planes, near enough for any primaries."""


def collapsed(source: Sequence[Plane], given: FrameLayout, target: Sequence[Plane], made: FrameLayout) -> bool:
    """Whether the planes `target` cannot show what `source` shows: a part of them has another brightness, or none of
    the contrast. given, made: their layouts.

    NaN and infinity become a constant in integer planes, so this finds them, too. It looks at 64 x 64 points in
    8 x 8 blocks, which takes some 0.1 ms.
    """
    before, after = _blocks(source, given), _blocks(target, made)
    moved = np.abs(after.mean(axis=1) - before.mean(axis=1)) > _MEAN_SHARE
    flat = (np.ptp(after, axis=1) == 0) & (before.std(axis=1) > _CONTRAST_SHARE)
    return bool((moved | flat).any())


def _blocks(planes: Sequence[Plane], layout: FrameLayout) -> NDArray[np.float32]:
    """float32 [64, 64], 0..1: the brightness at points of 8 x 8 equal parts of the picture."""
    places = (np.arange(_POINTS) + 0.5) / _POINTS
    rows, columns = ((places * size).astype(np.intp) for size in (layout.height, layout.width))
    weights = _GBR_WEIGHTS if layout.family == "rgb" else (1.0,)
    points = np.zeros((_POINTS, _POINTS), np.float32)
    for plane, weight in zip(planes, weights, strict=False):
        points += np.float32(weight / (2**layout.bits - 1)) * plane[rows[:, None], columns[None, :]]
    side = _POINTS // _BLOCKS
    return points.reshape(_BLOCKS, side, _BLOCKS, side).swapaxes(1, 2).reshape(_BLOCKS**2, side**2)


class Guard:
    """Belongs to the thread of the engine it looks after.

    open_exact: makes an engine for the same layouts in FP32; called at the first need. notes: gets what was computed
    again, in seconds from `begin`.
    """

    def __init__(
        self, open_exact: Callable[[], Engine], source: FrameLayout, target: FrameLayout, notes: Notes, begin: Fraction
    ) -> None:
        self._open, self._source, self._target = open_exact, source, target
        self._notes, self._begin = notes, begin
        self._exact: tuple[Engine, Slot] | None = None

    def check(self, slot: Slot, frame: Frame) -> None:
        """Mends `slot.output` of `frame` where that is needed: only if FP32 gives something else."""
        if not collapsed(slot.input, self._source, slot.output, self._target):
            return
        engine, exact = self._engine()
        np.copyto(exact.rgb_from_codes, slot.rgb_from_codes)
        np.copyto(exact.codes_from_rgb, slot.codes_from_rgb)
        for own, given in zip(exact.input, slot.input, strict=True):
            np.copyto(own, given)
        engine.submit(exact)
        engine.wait(exact)
        if not collapsed(exact.output, self._target, slot.output, self._target):
            return  # the model means it
        for given, own in zip(slot.output, exact.output, strict=True):
            np.copyto(given, own)
        seconds = frame.pts * frame.time_base - self._begin
        self._notes.add("frames collapsed in the chosen precision and were computed again in FP32", seconds)

    def close(self) -> None:
        if self._exact is not None:
            self._exact[0].close()

    def _engine(self) -> tuple[Engine, Slot]:
        if self._exact is None:
            engine = self._open()
            try:
                self._exact = (engine, engine.slots(1)[0])
            except BaseException:
                engine.close()
                raise
        return self._exact
