"""Several cards at work on one video: an engine that deals frames to one engine for each."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress

from vidsr.backends.base import Engine, Slot
from vidsr.errors import DeviceMemoryError

__all__ = ["DealtEngine", "deal", "open_each"]

_TRIALS = 3


class DealtEngine:
    """Each slot belongs to one of `engines`, and there are as many of each as its measured speed deserves, in the order
    of a fair deal. Slots come back in the order of the frames, so the deal stays as it is and the order of frames with
    it. Takes the engines over.
    """

    def __init__(self, engines: Sequence[Engine], clock: Callable[[], float] = time.perf_counter) -> None:
        first = engines[0]
        self.source, self.target = first.source, first.target
        self.in_flight = sum(engine.in_flight for engine in engines)
        others = ", ".join(engine.description for engine in engines[1:])
        self.description = f"{first.description}; with {others}" if others else first.description
        self._engines = list(engines)
        self._spare = [deque(engine.slots(1)) for engine in engines]
        self._speeds = [
            1 / _seconds(engine, spare[0], clock) for engine, spare in zip(engines, self._spare, strict=True)
        ]

        self._owners: dict[Slot, Engine] = {}

    def slots(self, count: int) -> Sequence[Slot]:
        """`count` for each card on average."""
        turns = deal(self._speeds)
        order = [next(turns) for _ in range(count * len(self._engines))]
        for index, (engine, spare) in enumerate(zip(self._engines, self._spare, strict=True)):
            missing = order.count(index) - len(spare)
            if missing > 0:
                with suppress(DeviceMemoryError):  # it has one
                    spare.extend(engine.slots(missing))
        slots = []
        for index in order:
            if self._spare[index]:
                slots.append(self._spare[index].popleft())
                self._owners[slots[-1]] = self._engines[index]
        return slots

    def submit(self, slot: Slot) -> None:
        self._owners[slot].submit(slot)

    def wait(self, slot: Slot) -> None:
        self._owners[slot].wait(slot)

    def close(self) -> None:
        for engine in self._engines:
            engine.close()


def open_each(numbers: Sequence[int], open_one: Callable[[int], Engine]) -> Engine:
    """One engine for the cards of these numbers."""
    if len(numbers) == 1:
        return open_one(numbers[0])
    with ExitStack() as undo:
        engines = []
        for number in numbers:
            engines.append(open_one(number))
            undo.callback(engines[-1].close)
        dealt = DealtEngine(engines)
        undo.pop_all()
    return dealt


def deal(speeds: Sequence[float]) -> Iterator[int]:
    """Whose turn it is, for ever: each as often as its speed deserves, as evenly spread as that can be."""
    shares = [0.0] * len(speeds)
    while True:
        shares = [credit + speed for credit, speed in zip(shares, speeds, strict=True)]
        index = max(range(len(speeds)), key=shares.__getitem__)
        shares[index] -= sum(speeds)
        yield index


def _seconds(engine: Engine, slot: Slot, clock: Callable[[], float]) -> float:
    """The shortest time of a few frames."""
    times = []
    for _ in range(_TRIALS):
        begin = clock()
        engine.submit(slot)
        engine.wait(slot)
        times.append(clock() - begin)
    return max(min(times), 1e-9)
