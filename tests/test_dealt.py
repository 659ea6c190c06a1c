"""Several cards: frames are dealt by speed, and come out in their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest

from vidsr.backends import Slot
from vidsr.backends.dealt import DealtEngine, deal
from vidsr.color import ColorTags, conversion
from vidsr.errors import BackendError, DeviceMemoryError
from vidsr.frame import Frame, FrameLayout, Plane
from vidsr.pipeline import Pipeline, PipelineSpec

GRAY = FrameLayout(family="gray", bits=8, height=2, width=2)
TAGS = ColorTags(matrix=1, full_range=True)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Card:
    """Copies, and takes `seconds` of the clock for it."""

    source = target = GRAY
    in_flight = 16

    def __init__(self, name: str, clock: Clock, seconds: float, room: int = 99) -> None:
        self.description, self._clock, self._seconds, self._room = name, clock, seconds, room
        self.frames: list[int] = []
        self.closed = 0

    def slots(self, count: int) -> Sequence[Slot]:
        made = [Slot.allocate(GRAY, GRAY) for _ in range(min(count, self._room))]
        if count and not made:
            raise DeviceMemoryError("no room")
        self._room -= len(made)
        return made

    def submit(self, slot: Slot) -> None:
        self.frames.append(int(slot.input[0][0, 0]))

    def wait(self, slot: Slot) -> None:
        self._clock.now += self._seconds
        np.copyto(slot.output[0], slot.input[0])

    def close(self) -> None:
        self.closed += 1


class Counting:
    """A reader of `total` frames that hold their number."""

    def __init__(self, total: int) -> None:
        self._numbers = iter(range(1, total + 1))

    def read(self, planes: Sequence[Plane]) -> Frame | None:
        number = next(self._numbers, None)
        if number is None:
            return None
        planes[0].fill(number)
        return Frame(planes=planes, pts=number, duration=1, time_base=Fraction(1, 25), color=TAGS)

    def close(self) -> None:
        pass


def run(engine: DealtEngine, frames: int) -> Iterator[int]:
    unchanged = conversion(TAGS, TAGS, source_bits=8, target_bits=8, gray_source=True)
    spec = PipelineSpec(
        open_reader=lambda: Counting(frames), open_engine=lambda: engine, convert=lambda tags: unchanged, slots=4
    )
    with Pipeline(spec) as pipeline:
        for frame in pipeline.frames():
            yield int(frame.planes[0][0, 0])


def test_each_gets_what_its_speed_deserves() -> None:
    clock = Clock()
    fast, slow = Card("fast", clock, 1.0), Card("slow", clock, 3.0)
    engine = DealtEngine([fast, slow], clock)
    fast.frames.clear()
    slow.frames.clear()
    assert list(run(engine, 80)) == list(range(1, 81))
    assert sorted(fast.frames + slow.frames) == list(range(1, 81))
    assert (len(fast.frames), len(slow.frames)) == (60, 20)
    assert (fast.closed, slow.closed) == (1, 1)


def test_deal_is_spread_evenly() -> None:
    turns = list(islice(deal([2.0, 1.0]), 9))
    assert turns == [0, 1, 0] * 3
    assert Counter(islice(deal([5.0, 3.0, 2.0]), 100)) == {0: 50, 1: 30, 2: 20}


def test_a_card_too_slow_to_help_gets_nothing() -> None:
    clock = Clock()
    fast, slow = Card("fast", clock, 0.01), Card("slow", clock, 5.0)
    engine = DealtEngine([fast, slow], clock)
    slow.frames.clear()
    assert list(run(engine, 30)) == list(range(1, 31))
    assert slow.frames == []


def test_card_with_little_memory() -> None:
    """It gives fewer slots; the order stays."""
    clock = Clock()
    roomy, tight = Card("roomy", clock, 1.0), Card("tight", clock, 1.0, room=2)
    engine = DealtEngine([roomy, tight], clock)
    assert len(engine.slots(4)) == 6
    assert list(run(DealtEngine([Card("roomy", clock, 1.0), Card("tight", clock, 1.0, room=1)], clock), 50)) == list(
        range(1, 51)
    )


def test_failure_of_one_ends_the_run() -> None:
    clock = Clock()
    good, bad = Card("good", clock, 1.0), Card("bad", clock, 1.0)
    engine = DealtEngine([good, bad], clock)

    def fail(slot: Slot) -> None:
        raise BackendError("bad is lost")

    bad.wait = fail  # type: ignore[method-assign]
    with pytest.raises(BackendError, match="bad is lost"):
        list(run(engine, 20))
    assert (good.closed, bad.closed) == (1, 1)


def test_description_names_all() -> None:
    clock = Clock()
    assert DealtEngine([Card("A", clock, 1.0), Card("B", clock, 1.0)], clock).description == "A; with B"
