"""What a frame has in common with the one before is not computed again: an engine around another one.

The result is the same, bit for bit. A frame that equals the one before gets its output; where parts of it differ,
`vidsr.backends.staged` computes what they can have reached. That a library gives the very bits of whole frames in parts
and tiles as well is not taken for granted: the frame that needs a size of tiles first is computed in such tiles, with
the corners of the frame, and whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from vidsr.backends.base import Engine, Slot
from vidsr.backends.change import Mask, Move, changed, scrolled, unchanged_share
from vidsr.backends.staged import CELL, Plan, Staged
from vidsr.frame import FrameLayout, Plane

__all__ = ["ReusingEngine", "Saved"]

_WORTH = 0.7
"""Share of a whole frame's cost below which parts are computed instead: they take 1.2 to 1.3 times as long for it, by
themselves as they are, and in small pieces."""
_PROMISING = 0.5
"""Share of the frame below which changes speak for computing parts from now on, and for making what that needs."""
_PROMISES = 2
_CUTS = 2
"""Frames in a row that change altogether, and are still computed in parts."""
_EVERYTHING = 1e9


@dataclass(slots=True)
class Saved:
    """Frames whose output was copied, computed in part, computed whole. cost: of those in part, in whole frames.
    proofs: how many of those were computed whole as well."""

    copied: int = 0
    partial: int = 0
    whole: int = 0
    cost: float = 0.0
    proofs: int = 0

    @property
    def share(self) -> float:
        """How much was not computed, 0..1."""
        frames = self.copied + self.partial + self.whole
        return max(0.0, 1 - (self.whole + self.proofs + self.cost) / frames) if frames else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """What is to be done for a slot. plan: what to compute of it, None for all. proven: nothing has to be computed both
    ways. same: its input is that of the frame before. keep: what comes behind needs its output."""

    plan: Plan | None = None
    proven: bool = True
    same: bool = False
    keep: bool = False


class ReusingEngine:
    """Takes `whole` over. open_staged: makes what computes parts of frames, where it can; None where only whole frames
    are compared.

    saved: what came of it.
    """

    def __init__(self, whole: Engine, open_staged: Callable[[], Staged | None] | None = None) -> None:
        self.source, self.target = whole.source, whole.target
        self.in_flight = whole.in_flight
        self.saved = Saved()
        self._whole, self._open_staged = whole, open_staged
        self._staged: Staged | None = None
        self._promises, self._cuts = 0, 0
        self._proven = set[tuple[int, int]]()
        self._look = _Look(self.source)
        self._tasks = deque[_Task]()
        self._output: Sequence[Plane] | None = None
        self._stale: Mask | None = None

    @property
    def description(self) -> str:
        share = self.saved.share
        return f"{self._whole.description}, {share:.0%} reused" if share >= 0.01 else self._whole.description

    def slots(self, count: int) -> Sequence[Slot]:
        return self._whole.slots(count)

    def submit(self, slot: Slot) -> None:
        task = self._decided(slot)
        if not task.same and (task.plan is None or not task.proven):
            self._whole.submit(slot)
        self._tasks.append(task)

    def wait(self, slot: Slot) -> None:
        task = self._tasks.popleft()
        if task.same:
            self.saved.copied += 1
            _copy(slot.output, self._kept())
        elif task.plan is None:
            self._whole.wait(slot)
            self.saved.whole += 1
            if task.keep:
                _copy(self._kept(), slot.output)
        elif not self._computed(slot, task, task.plan):
            self._open_staged = self._staged = None
            if task.proven:
                self._whole.submit(slot)
                self._whole.wait(slot)
            self.saved.whole += 1
            _copy(self._kept(), slot.output)

    def close(self) -> None:
        self._staged = None
        self._whole.close()

    def _decided(self, slot: Slot) -> _Task:
        dirty = self._look(slot)
        keep = self._look.close
        if dirty is None:
            self._forget()
            return _Task(keep=keep)
        if not dirty.any():
            self._look.succeed()
            return _Task(same=True)
        plan = self._planned(dirty, slot)
        if plan is not None:
            self._look.succeed()
            assert self._stale is not None
            task = self._proving(plan, dirty | self._stale) or _Task(plan=plan)
            self._stale = np.zeros_like(dirty)
            return task
        self._leave(dirty)
        return _Task(keep=keep)

    def _proving(self, plan: Plan, dirty: Mask) -> _Task | None:
        """Instead of a plan with tiles of a shape that was never tried: what is dirty in such tiles alone, and the
        frame's corners, where all of them is used; and the whole frame beside it."""
        shape = min(plan.shapes - self._proven, default=None)
        if shape is None:
            return None
        self._proven.add(shape)
        marked = dirty.copy()
        marked[[0, 0, -1, -1], [0, -1, 0, -1]] = True
        assert self._staged is not None
        return _Task(plan=self._staged.plan(marked, _EVERYTHING, shape=shape), proven=False)

    def _planned(self, dirty: Mask, slot: Slot) -> Plan | None:
        """What to compute; None where the whole frame is as good."""
        if self._staged is None:
            if self._open_staged is None or not self._promising(dirty.mean() < _PROMISING):
                return None
            with suppress(Exception):  # it was meant to save time
                self._staged = self._open_staged()
            if self._staged is None:
                self._open_staged = None
                return None
            _copy(self._staged.output, self._kept())
            self._output, self._stale = self._staged.output, np.full_like(dirty, self._staged.keeps)
        assert self._stale is not None
        plan = self._staged.plan(dirty, _WORTH)
        if not self._stale.any():
            if plan is None and (found := self._look.scrolled(slot, self._staged.step, dirty)):
                plan = self._staged.plan(found[1], _WORTH, move=found[0])
            self._cuts = 0 if plan is not None else self._cuts + 1
            if plan is None and self._cuts <= _CUTS and self._staged.keeps:
                # A single frame computed whole would have one stream to itself and leave all that is kept behind.
                everything = self._staged.plan(np.ones_like(dirty), _EVERYTHING)
                assert everything is not None
                plan = self._staged.plan(dirty, everything.cost) or everything
            return plan
        if not self._promising(plan is not None):
            return None
        return self._staged.plan(dirty | self._stale, _EVERYTHING)

    def _promising(self, small: bool) -> bool:
        """Whether so many frames in a row changed so little that those to come will."""
        self._promises = self._promises + 1 if small else 0
        if small:
            self._look.succeed()
        return self._promises >= _PROMISES

    def _computed(self, slot: Slot, task: _Task, plan: Plan) -> bool:
        """Whether parts could be computed, and gave what the whole frame gives where that was tried."""
        parts = self._staged  # None where they were given up meanwhile
        try:
            if parts is not None:
                parts.run(slot, plan)
        except Exception:  # it was meant to save time
            parts = None
        if not task.proven:
            self._whole.wait(slot)
        if parts is None:
            return False
        if task.proven:
            _copy(slot.output, parts.output)
        elif not all(map(np.array_equal, slot.output, parts.output)):
            return False
        self.saved.partial += 1
        self.saved.proofs += not task.proven
        self.saved.cost += plan.cost
        return True

    def _kept(self) -> Sequence[Plane]:
        """The output of the frame before."""
        if self._output is None:
            self._output = self.target.allocate()
        return self._output

    def _forget(self) -> None:
        """All may have changed."""
        self._promises = 0
        self._leave(True)

    def _leave(self, dirty: Mask | bool) -> None:
        """What is kept inside the model is not that of the frame any more."""
        if self._stale is not None and self._staged is not None and self._staged.keeps:
            self._stale |= dirty


_ROWS = 16
"""While nothing is reused, one of so many rows is looked at."""
_STILL_SHARE = 0.15
"""Of them that must be as before for a closer look."""
_PATIENCE, _REST, _LONGEST_REST = 8, 48, 768
"""Frames of a closer look without success, and frames of rest after it, twice as many each time."""


class _Look:
    """Compares each frame with the one before: closely where that has paid, else by a few rows, because what is never
    the same must not cost anything. close: whether the last frame is remembered whole."""

    def __init__(self, layout: FrameLayout) -> None:
        self.close = False
        self._layout = layout
        self._planes: Sequence[Plane] | None = None
        self._earlier: Sequence[Plane] | None = None
        self._rows: Plane | None = None
        self._colour = b""
        self._failures, self._rest, self._resting = 0, _REST, 0

    def __call__(self, slot: Slot) -> Mask | None:
        """The cells that differ; None where that is not known."""
        colour = slot.rgb_from_codes.tobytes() + slot.codes_from_rgb.tobytes()
        same_colour, self._colour = colour == self._colour, colour
        dirty = None
        if self.close and self._failures > _PATIENCE:
            self._resting, self._rest = self._rest, min(2 * self._rest, _LONGEST_REST)
            self.close = False
            self._rows = None
        if not self.close:
            self.close = self._worth_it(slot.input[0])
        elif same_colour:
            assert self._planes is not None
            dirty = changed(self._layout, self._planes, slot.input, CELL)
        self._failures += 1
        if self.close:
            # The one before is still asked for what has moved.
            self._planes, self._earlier = self._earlier or self._layout.allocate(), self._planes
            _copy(self._planes, slot.input)
        return dirty

    def scrolled(self, slot: Slot, step: int, dirty: Mask) -> tuple[Move, Mask] | None:
        """See `vidsr.backends.change.scrolled`; for the frame that was looked at last."""
        assert self._earlier is not None
        return scrolled(self._layout, self._earlier, slot.input, CELL, step, dirty)

    def succeed(self) -> None:
        """The closer look was worth it."""
        self._failures, self._rest = 0, _REST

    def _worth_it(self, plane: Plane) -> bool:
        rows = plane[:: min(_ROWS, plane.shape[0])]
        if self._rows is None:
            self._rows = rows.copy()
            return False
        share = unchanged_share(self._rows, rows)
        np.copyto(self._rows, rows)
        self._resting = max(0, self._resting - 1)
        if share < (1 if self._resting else _STILL_SHARE):
            return False
        self._failures = 0
        return True


def _copy(to: Sequence[Plane], planes: Sequence[Plane]) -> None:
    for own, given in zip(to, planes, strict=True):
        np.copyto(own, given)
