"""Measures how busy each stage is."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from vidsr.events import Stage

__all__ = ["Meter"]

STAGES: tuple[Stage, ...] = ("decode", "model", "encode")
_WINDOW_SECONDS = 5.0


class Meter:
    """Busy seconds by stage, and the same over the last seconds. Each stage writes only its own entry."""

    def __init__(self) -> None:
        self._busy: dict[Stage, float] = dict.fromkeys(STAGES, 0.0)
        self._begin: float | None = None
        self._history: deque[tuple[float, int, dict[Stage, float]]] = deque()
        self._lock = Lock()

    def start(self) -> None:
        """Counts from now on: the model is loaded."""
        with self._lock:
            self._begin = time.perf_counter()
            self._busy = dict.fromkeys(STAGES, 0.0)
            self._history.clear()

    @property
    def seconds(self) -> float:
        """Since `start`; 0 before it."""
        return 0.0 if self._begin is None else time.perf_counter() - self._begin

    @contextmanager
    def at(self, stage: Stage) -> Iterator[None]:
        """Counts the time inside as work of `stage`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, begin)

    def add(self, stage: Stage, begin: float) -> None:
        """Counts the time since `begin` (`time.perf_counter`) as work of `stage`."""
        self._busy[stage] += time.perf_counter() - begin

    def shares(self) -> dict[Stage, float]:
        """Share of the whole time that each stage was at work, 0..1."""
        return self._shares(self.seconds, self._busy)

    def recent(self, frames: int) -> tuple[float, dict[Stage, float]]:
        """(frames a second, shares) over the last seconds, given the number of frames done so far."""
        with self._lock:
            now = self.seconds
            self._history.append((now, frames, dict(self._busy)))
            while len(self._history) > 2 and now - self._history[1][0] > _WINDOW_SECONDS:
                self._history.popleft()
            then, before, busy = self._history[0]
            if now - then < 1e-3:
                then, before, busy = 0.0, 0, dict.fromkeys(STAGES, 0.0)
            elapsed = max(now - then, 1e-9)
            spent = {stage: self._busy[stage] - busy[stage] for stage in STAGES}
            return (frames - before) / elapsed, self._shares(elapsed, spent)

    @staticmethod
    def _shares(elapsed: float, busy: dict[Stage, float]) -> dict[Stage, float]:
        return {stage: round(min(1.0, value / max(elapsed, 1e-9)), 3) for stage, value in busy.items()}
