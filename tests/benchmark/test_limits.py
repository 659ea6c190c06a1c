"""What the machine can do at most: plausible, and the same things on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from vidsr.backends import EngineOptions, load
from vidsr.benchmark import limits, peak
from vidsr.frame import FrameLayout
from vidsr.job import Settings, plan_engine
from vidsr.job.engine import EnginePlan
from vidsr.models import load as load_model


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "_SECONDS", 0.0)
    monkeypatch.setattr(limits, "_COPIED_BYTES", 2**20)


def plan(nearest: Path) -> EnginePlan:
    layout = FrameLayout(family="yuv", bits=8, height=32, width=32, chroma=(2, 2))
    target = FrameLayout(family="yuv", bits=8, height=64, width=64, chroma=(2, 2))
    return plan_engine(Settings(model=str(nearest), device="cpu"), load_model(str(nearest)), layout, target)


def test_a_processor_has_peaks_for_its_precisions_and_no_bus(nearest: Path) -> None:
    found = limits.limits(plan(nearest))
    assert {"fp32"} <= found.matrix_gflops.keys() <= {"fp32", "bf16", "fp16", "int8"}
    assert all(gflops > 1 for gflops in found.matrix_gflops.values())
    assert found.memory_gbps > 0.1
    assert found.bus_gbps is None
    assert 1 <= found.cores <= 4096


def test_the_load_is_what_was_counted() -> None:
    load_ = peak._Load(kernel=3, channels=32, layers=2, side=16)
    options = load("openvino").settle(EngineOptions(precision="fp32"))
    assert peak._gflops(load("openvino"), options, load_) > 0


def test_backends_refuse_precisions_without_spoiling_the_rest() -> None:
    backend = load("onnxruntime") if load("onnxruntime").lack() is None else load("openvino")
    found = peak.matrix_gflops(backend, backend.settle(EngineOptions()), ["fp16", "fp32"])
    assert "fp32" in found


def test_the_higher_of_two_measurements_stays(nearest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = plan(nearest)
    precision = here.options.precision
    found = limits.Limits(
        processor="p", cores=2, device="CPU", matrix_gflops={precision: 5.0, "int8": 1.0}, memory_gbps=1.0
    )
    for again, wanted in ((3.0, 5.0), (8.0, 8.0)):
        monkeypatch.setattr(limits, "matrix_gflops", lambda *given, again=again: {precision: again})
        assert limits.higher(found, here).matrix_gflops == {precision: wanted, "int8": 1.0}


class Card:
    """Copies by numpy, with their order kept."""

    name = "A card"

    def __init__(self, index: int) -> None:
        self.index, self.closed = index, False

    @contextmanager
    def current(self) -> Iterator[None]:
        yield

    def pinned(self, size: int) -> Block:
        return Block(size)

    allocate = pinned

    def stream(self) -> Stream:
        return Stream()

    def close(self) -> None:
        self.closed = True


class Block:
    def __init__(self, size: int) -> None:
        self.array = np.zeros(size, np.uint8)

    def close(self) -> None:
        pass


class Stream:
    def copy_in(self, target: Block, source: Block) -> None:
        np.copyto(target.array, source.array)

    copy_out = copy_in

    def wait(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_the_bus_is_measured_both_ways() -> None:
    inward, outward = limits.copy_seconds(Card(0), 2**16)
    assert inward > 0
    assert outward > 0
