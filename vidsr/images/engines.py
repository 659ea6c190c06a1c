"""A model for pictures of any size: an engine for each of the last few sizes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from types import TracebackType

import numpy as np

from vidsr import job, models
from vidsr.backends.base import Engine, Watch
from vidsr.backends.guard import Guard
from vidsr.errors import MemoryBudgetError
from vidsr.frame import Frame, FrameLayout, Plane
from vidsr.images.picture import FULL_RANGE
from vidsr.job.engine import EnginePlan, plan_notes
from vidsr.job.settings import Settings
from vidsr.models import Model
from vidsr.notes import Notes
from vidsr.pipeline import aside

__all__ = ["Engines", "Enlarger", "ModelChooser", "OnTile"]

_KEPT = 4
_KEPT_BYTES = 2**30
_CHAINS_KEPT = 4
OnTile = Callable[[int, int], None]
"""Told how many tiles of how many are done; may raise to end the work."""


def _ignore(done: int, count: int) -> None:
    """Nobody wants to know."""


class Enlarger:
    """An engine with its one slot. Belongs to one thread.

    mended: whether the last picture collapsed in a low precision and was computed again in FP32.
    """

    def __init__(self, plan: EnginePlan) -> None:
        self._on_tile: OnTile = _ignore
        self._plan = replace(plan, on_tile=lambda done, count: self._on_tile(done, count))
        self.target, self.model, self.description, self.mended = plan.target, plan.model.name, str(plan), False
        self._engine = self._plan.open()
        try:
            self._slot = self._engine.slots(1)[0]
        except BaseException:
            self._engine.close()
            raise
        self._slot.convert(job.Conversions(plan.source, plan.target, FULL_RANGE)(FULL_RANGE))

    def __call__(self, planes: Sequence[Plane], on_tile: OnTile = _ignore) -> tuple[Plane, ...]:
        """Planes of the plan's source, full range -> those of its target, valid until the next call."""
        self._on_tile = on_tile
        for own, plane in zip(self._slot.input, planes, strict=True):
            np.copyto(own, plane)
        self._engine.submit(self._slot)
        self._engine.wait(self._slot)
        self.mended = self._mend()
        return self._slot.output

    def close(self) -> None:
        self._engine.close()

    def _mend(self) -> bool:
        plan, notes = self._plan, Notes()
        if plan.options.precision == "fp32":
            return False

        def exact() -> Engine:
            return replace(plan.exact(), on_tile=plan.on_tile).open()

        guard = Guard(exact, plan.source, plan.target, notes, Fraction(0))
        frame = Frame(planes=self._slot.output, pts=0, duration=0, time_base=Fraction(1), color=FULL_RANGE)
        try:
            guard.check(self._slot, frame)
        finally:
            guard.close()
        return bool(notes)


class ModelChooser:
    """`models.choose` for pictures that each may need another factor: every file is read once, and of the chains the
    last few are kept."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._load = lru_cache(maxsize=1)(models.load)
        self._members = lru_cache(maxsize=1)(lambda: {model.scale: model for model in models.family(name)})
        self._chain = lru_cache(maxsize=_CHAINS_KEPT)(self._chained)

    def __call__(self, factor: Fraction | None) -> Model:
        """Raises ModelError, UsageError."""
        return self._load(self._name) if factor is None else self._chain(models.scales_for(self._members(), factor))

    def _chained(self, scales: tuple[int, ...]) -> Model:
        return models.chain([self._members()[scale] for scale in scales])


class Engines:
    """Keeps the last few, fewer where their pictures are large.

    Backend "auto" therefore takes none that compiles minutes for each. Belongs to one thread.

    watch: of what takes minutes. notes: what the user should know of them, each once, in order.
    """

    def __init__(self, settings: Settings, watch: Watch | None = None) -> None:
        self._settings, self._watch = settings, watch
        self.notes: dict[str, None] = {}
        self._kept: OrderedDict[tuple[str, FrameLayout, FrameLayout], tuple[Enlarger, int]] = OrderedDict()

    def get(self, model: Model, source: FrameLayout, *, bits: int) -> Enlarger:
        """What takes pictures of that layout, rgb or gray, `model.scale` times as large, to samples of so many bits.

        Raises BackendError, MemoryBudgetError, also where the pictures themselves do not fit in memory.
        """
        scale = model.scale
        target = replace(source, bits=bits, height=source.height * scale, width=source.width * scale)
        key = (model.sha256, source, target)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]
        needed = sum(height * width * side.dtype.itemsize for side in (source, target) for height, width in side.shapes)
        self._make_room(needed)
        free = job.available_memory()
        if needed > free:
            raise MemoryBudgetError(
                f"{source.width}x{source.height} to {target.width}x{target.height} takes {needed / 2**20:.0f}M for "
                f"the pictures alone, and {free / 2**20:.0f}M are free: cut it up, or take a smaller scale"
            )
        plan = job.plan_engine(self._settings, model, source, target, many_sizes=True)
        aside(plan.prepare, self._watch or Watch())
        enlarger = Enlarger(plan)
        self.notes.update(dict.fromkeys([*plan_notes(self._settings, plan), *plan.notes.lines()]))
        self._kept[key] = (enlarger, needed)
        return enlarger

    def close(self) -> None:
        """Frees the engines; `get` makes new ones."""
        while self._kept:
            self._kept.popitem()[1][0].close()

    def __enter__(self) -> Engines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _make_room(self, needed: int) -> None:
        while self._kept and (
            len(self._kept) >= _KEPT or needed + sum(count for _, count in self._kept.values()) > _KEPT_BYTES
        ):
            self._kept.popitem(last=False)[1][0].close()
