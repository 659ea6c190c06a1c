"""Frames in tiles: how they are cut, and in which order they go to the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import nearest_model
from vidsr import models
from vidsr.backends.base import Slot
from vidsr.backends.tiled import TiledEngine, frame_bytes, halo_of, tile_layouts, tile_size
from vidsr.errors import BackendError
from vidsr.frame import FrameLayout

SOURCE = FrameLayout(family="yuv", bits=8, height=64, width=96, chroma=(2, 2))
TARGET = replace(SOURCE, height=128, width=192)
TILE, HALO = (40, 56), 8
COUNT = 4
"""Tiles of a frame with these."""


class Repeater:
    """Repeats pixels, and notes what is asked of it. fails: at which wait."""

    description, in_flight = "repeater", 3

    def __init__(self, source: FrameLayout, target: FrameLayout, fails: int | None) -> None:
        self.source, self.target = source, target
        self.log: list[str] = []
        self.under_way: list[Slot] = []
        self._fails = fails

    def slots(self, count: int) -> Sequence[Slot]:
        return [Slot.allocate(self.source, self.target) for _ in range(count)]

    def submit(self, slot: Slot) -> None:
        assert slot not in self.under_way
        for small, large in zip(slot.input, slot.output, strict=True):
            large[:] = small.repeat(2, axis=0).repeat(2, axis=1)
        self.under_way.append(slot)
        self.log.append("submit")

    def wait(self, slot: Slot) -> None:
        self.under_way.remove(slot)
        self.log.append("wait")
        if self._fails == self.log.count("wait"):
            raise BackendError("the device is gone")

    def close(self) -> None:
        self.log.append("close")


def opened(fails: int | None = None, **more: Callable[[int, int], None]) -> tuple[TiledEngine, Repeater]:
    made: list[Repeater] = []

    def inner(source: FrameLayout, target: FrameLayout) -> Repeater:
        made.append(Repeater(source, target, fails))
        return made[-1]

    engine = TiledEngine(inner, SOURCE, TARGET, tile=TILE, halo=HALO, **more)
    return engine, made[0]


def filled(engine: TiledEngine, count: int) -> list[Slot]:
    draw = np.random.default_rng(3)
    slots = list(engine.slots(count))
    for slot in slots:
        for plane in slot.input:
            plane[:] = draw.integers(0, 256, plane.shape)
    return slots


def enlarged(slot: Slot) -> bool:
    pairs = zip(slot.input, slot.output, strict=True)
    return all(np.array_equal(small.repeat(2, axis=0).repeat(2, axis=1), large) for small, large in pairs)


def test_the_device_is_never_without_work_between_frames() -> None:
    """While the last tiles of one frame are on the device, those of the next are given to it."""
    engine, inner = opened()
    first, second = filled(engine, 2)
    engine.submit(first)
    engine.submit(second)
    engine.wait(first)
    assert enlarged(first)
    assert inner.log.count("submit") > COUNT
    busy = len(inner.under_way)
    assert busy == inner.in_flight - 1
    engine.wait(second)
    assert enlarged(second)
    assert inner.log.count("submit") == inner.log.count("wait") == 2 * COUNT


def test_frames_may_be_waited_for_in_any_order() -> None:
    engine, _ = opened()
    slots = filled(engine, 3)
    for slot in slots:
        engine.submit(slot)
    for slot in reversed(slots):
        engine.wait(slot)
    assert all(map(enlarged, slots))


@pytest.mark.parametrize("fails", [1, COUNT, COUNT + 2])
def test_a_failure_leaves_nothing_under_way(fails: int) -> None:
    """Whoever ends the run waits for the other frames too, and that is no second error; the next frame is whole."""
    engine, inner = opened(fails)
    first, second = filled(engine, 2)
    engine.submit(first)
    engine.submit(second)
    with pytest.raises(BackendError, match="gone"):  # noqa: PT012 - which wait it is depends on `fails`
        for slot in (first, second):
            engine.wait(slot)
    assert not inner.under_way
    engine.wait(first)
    engine.wait(second)
    engine.submit(first)
    engine.wait(first)
    assert enlarged(first)


def test_closing_waits_for_the_device() -> None:
    """A run that is given up has frames under way."""
    engine, inner = opened()
    first, second = filled(engine, 2)
    engine.submit(first)
    engine.submit(second)
    engine.wait(first)
    engine.close()
    assert not inner.under_way
    assert inner.log[-1] == "close"
    engine.close()


def test_tiles_are_counted_to_the_last() -> None:
    told: list[tuple[int, int]] = []
    engine, _ = opened(on_tile=lambda done, count: told.append((done, count)))
    (slot,) = filled(engine, 1)
    engine.submit(slot)
    engine.wait(slot)
    assert told == [(done, COUNT) for done in range(1, COUNT + 1)]


def test_who_is_told_of_tiles_can_end_the_frame() -> None:
    def enough(done: int, count: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    engine, inner = opened(on_tile=enough)
    (slot,) = filled(engine, 1)
    engine.submit(slot)
    with pytest.raises(KeyboardInterrupt):
        engine.wait(slot)
    assert not inner.under_way


@pytest.mark.parametrize("size", [(360, 640), (361, 639), (200, 1000), (720, 404)])
@pytest.mark.parametrize("share", [0.8, 0.4, 0.2, 0.08])
def test_no_other_cut_computes_less(tmp_path: Path, size: tuple[int, int], share: float) -> None:
    """Of all tiles that fit the budget, as the engine would lay them out."""
    model = models.load(str(nearest_model(tmp_path / "nearest.onnx")))
    source = replace(SOURCE, height=size[0], width=size[1])
    target = replace(TARGET, height=2 * size[0], width=2 * size[1])
    budget = share * frame_bytes(model, source, target, 4)
    halo = halo_of(model, source, target)
    assert halo is not None

    def computed(tile: tuple[int, int]) -> int:
        across = [tiles(length, side, halo) for length, side in zip(size, tile, strict=True)]
        return across[0] * across[1] * tile[0] * tile[1]

    def fits(tile: tuple[int, int]) -> bool:
        return frame_bytes(model, *tile_layouts(source, target, tile), 4) <= budget

    chosen = tile_size(model, source, target, item_bytes=4, overhead=1.0, budget_bytes=int(budget))
    assert chosen is not None
    assert fits(chosen)
    heights, widths = (range(length, 2 * halo + 1, -2) for length in size)
    others = [(height, width) for height in heights for width in widths if fits((height, width))]
    assert computed(chosen) == min(map(computed, others))


def tiles(length: int, tile: int, halo: int) -> int:
    """How many it takes along an axis: the outermost have one halo, the others two. Begins lie on even pixels."""
    if tile >= length:
        return 1
    even = (tile - length % 2) - 2 * halo
    return -(-(length - length % 2 - 2 * halo) // even)
