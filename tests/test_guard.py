"""Frames that a low precision spoils are found and computed again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from vidsr.backends.base import Slot
from vidsr.backends.guard import Guard, collapsed
from vidsr.color import ColorTags
from vidsr.frame import Frame, FrameLayout
from vidsr.notes import Notes

SOURCE = FrameLayout(family="yuv", bits=8, height=90, width=160, chroma=(2, 2))
DOUBLE = FrameLayout(family="yuv", bits=8, height=180, width=320, chroma=(2, 2))
TARGET = FrameLayout(family="yuv", bits=10, height=180, width=320, chroma=(2, 2))


def scene(seed: int = 0) -> np.ndarray:
    """A picture with light and dark parts, uint8 [H, W]."""
    rows, columns = np.mgrid[0 : SOURCE.height, 0 : SOURCE.width]
    noise = np.random.default_rng(seed).normal(0, 6, (SOURCE.height, SOURCE.width))
    return np.clip(60 + rows + 0.3 * columns + 30 * np.sin(columns / 9) + noise, 16, 235).astype(np.uint8)


def enlarged(plane: np.ndarray) -> np.ndarray:
    return plane.repeat(2, axis=0).repeat(2, axis=1).astype(np.uint16) * 4


class Doubling:
    """An engine that repeats pixels."""

    source, target, description, in_flight = SOURCE, TARGET, "doubling", 2

    def __init__(self) -> None:
        self.runs, self.closed = 0, False

    def slots(self, count: int) -> Sequence[Slot]:
        return [Slot.allocate(SOURCE, TARGET) for _ in range(count)]

    def submit(self, slot: Slot) -> None:
        self.runs += 1

    def wait(self, slot: Slot) -> None:
        for large, small in zip(slot.output, slot.input, strict=True):
            np.copyto(large, enlarged(small))

    def close(self) -> None:
        self.closed = True


def filled() -> tuple[Slot, Frame]:
    slot = Slot.allocate(SOURCE, TARGET)
    slot.input[0][:] = scene()
    for plane in slot.input[1:]:
        plane[:] = 128
    Doubling().wait(slot)
    return slot, Frame(planes=slot.input, pts=50, duration=1, time_base=Fraction(1, 25), color=ColorTags())


def black(plane: np.ndarray) -> None:
    plane[:] = 0


def black_tile(plane: np.ndarray) -> None:
    plane[90:135, 80:160] = 0


def grey(plane: np.ndarray) -> None:
    plane[:] = int(plane.mean())


def white_band(plane: np.ndarray) -> None:
    plane[:45] = 1023


@pytest.mark.parametrize("spoil", [black, black_tile, grey, white_band])
def test_collapsed_frames_are_computed_again(spoil: Callable[[np.ndarray], None]) -> None:
    slot, frame = filled()
    wanted = [plane.copy() for plane in slot.output]
    spoil(slot.output[0])
    exact, notes = Doubling(), Notes()
    guard = Guard(lambda: exact, SOURCE, TARGET, notes, Fraction(1))
    guard.check(slot, frame)
    guard.close()
    for plane, right in zip(slot.output, wanted, strict=True):
        np.testing.assert_array_equal(plane, right)
    assert exact.closed
    assert notes.lines() == ["frames collapsed in the chosen precision and were computed again in FP32 at 1.000 s"]


def test_good_frames_cost_no_engine() -> None:
    def refuse() -> Doubling:
        raise AssertionError("no exact engine is needed")

    slot, frame = filled()
    guard = Guard(refuse, SOURCE, TARGET, Notes(), Fraction(0))
    guard.check(slot, frame)
    guard.close()


def test_what_fp32_gives_as_well_stays() -> None:
    slot, frame = filled()
    slot.output[0][:] = 1023 - slot.output[0]
    before = slot.output[0].copy()

    class Inverting(Doubling):
        def wait(self, slot: Slot) -> None:
            super().wait(slot)
            slot.output[0][:] = 1023 - slot.output[0] + 1

    notes = Notes()
    Guard(Inverting, SOURCE, TARGET, notes, Fraction(0)).check(slot, frame)
    np.testing.assert_array_equal(slot.output[0], before)
    assert not notes


@pytest.mark.parametrize("seed", range(20))
def test_sharpening_denoising_and_dark_scenes_are_no_collapse(seed: int) -> None:
    small = scene(seed)
    large = small.repeat(2, axis=0).repeat(2, axis=1).astype(np.float64)
    blurred = (large + np.roll(large, 2, 0) + np.roll(large, 2, 1) + np.roll(large, -2, 0) + np.roll(large, -2, 1)) / 5
    for changed in (blurred, large + 2 * (large - blurred), large * 0.98 + 2):
        assert not collapsed([small], SOURCE, [np.clip(changed, 0, 255).astype(np.uint8)], DOUBLE)
    dark = (small // 40 + 16).astype(np.uint8)
    assert not collapsed([dark], SOURCE, [np.full((180, 320), 17, np.uint8)], DOUBLE)


def test_a_collapse_beside_what_the_model_means_is_found() -> None:
    """A model that flattens one part must not make the guard blind for the rest."""

    class Flattening(Doubling):
        def wait(self, slot: Slot) -> None:
            super().wait(slot)
            slot.output[0][:45, :80] = 400

    slot, frame = filled()
    slot.output[0][:] = 0
    notes = Notes()
    Guard(Flattening, SOURCE, TARGET, notes, Fraction(0)).check(slot, frame)
    assert slot.output[0].max() > 0
    assert notes


def test_rgb_beside_yuv() -> None:
    rgb = replace(DOUBLE, family="rgb", chroma=(1, 1))
    green = [np.full((180, 320), value, np.uint8) for value in (255, 0, 0)]
    assert not collapsed([np.full((90, 160), 182, np.uint8)], SOURCE, green, rgb)
