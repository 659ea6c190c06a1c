"""Steps of `benchmarks/gpu_check.sh` on the stand-in for the driver and the one for TensorRT: that they run at all, and
that they find what is wrong."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu_check import card, frames, plans, step
from tests.cuda import fake_tensorrt
from tests.cuda.standin import Standin, load
from vidsr.backends.cuda import pycuda_device

Said = dict[str, Any]


@pytest.mark.parametrize("name", ["pycuda", "threads", "graph"])
def test_card(name: str, standin: Standin) -> None:
    said: Said = {}
    getattr(card, name)(said.update, True)
    assert said


def test_pinned(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "LARGE", 2_000_000)
    said: Said = {}
    card.pinned(said.update, True)
    assert set(said["pycuda_6MB_gb_per_s"]) == {"in", "out", "pageable_in", "write_combined_in"}
    assert said["pycuda_other_thread"] == "ok"


def test_threads_find_other_bytes(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pycuda_device.PycudaStream, "copy_out", lambda self, target, source: None)
    with pytest.raises(step.Failed, match="came back different"):
        card.threads(lambda found: None, True)


class Program:
    """In place of torch's: repeats luma, as a card would, late."""

    planes = "native"
    description = "a stand-in's"
    late = False

    def __init__(self, model: Any, source: Any, target: Any, *, device: str, precision: str) -> None:
        self.shapes = source.shapes[0], target.shapes[0]

    def bind(self, stream: Any, addresses: Mapping[str, int]) -> Any:
        def view(name: str, shape: tuple[int, int]) -> Any:
            return np.ctypeslib.as_array((ctypes.c_uint8 * (shape[0] * shape[1])).from_address(addresses[name]))

        small, large = view("in0", self.shapes[0]), view("out0", self.shapes[1])

        def work() -> None:
            large.reshape(self.shapes[1])[::2, ::2] = small.reshape(self.shapes[0])

        def enqueue() -> None:
            if self.late:
                work()  # when the frame before it lies there
            else:
                assert load().call(stream.handle, work) == 0

        return SimpleNamespace(enqueue=enqueue, close=lambda: None)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("late", [False, True])
def test_slots(standin: Standin, monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    torch_program = pytest.importorskip("vidsr.backends.torch_program", reason="needs torch")
    monkeypatch.setattr(torch_program, "TorchProgram", Program)
    monkeypatch.setattr(Program, "late", late)
    monkeypatch.setattr(frames, "need_torch_on_a_card", lambda: None)
    # The step replaces it; here it has to come back.
    monkeypatch.setattr(pycuda_device.PycudaStream, "capture", pycuda_device.PycudaStream.capture)
    said: Said = {}
    if late:
        with pytest.raises(step.Failed, match=r"same result|differs"):
            frames.slots(said.update, True)
    else:
        frames.slots(said.update, True)
        assert said["pycuda_engine"] == "a stand-in's"


def test_rounding_and_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the processor."""
    torch = pytest.importorskip("torch", reason="needs torch")
    monkeypatch.setattr(frames, "need_torch_on_a_card", lambda: torch)
    monkeypatch.setattr(frames, "CARD", "cpu")
    monkeypatch.setattr(frames, "_clip", lambda count: [])
    said: Said = {}
    frames.rounding(said.update, True)
    assert {key for key, value in said.items() if value["grey_as_it_was"]} == {
        f"{bits}_bit_{kind}" for bits in (8, 10) for kind in ("limited", "full")
    }
    said.clear()
    frames.fp16(said.update, True)
    assert said["psnr_db"] > 60
    assert said["not_finite"] == 0
    assert len(said["largest_activation"]) == 22


def test_rounding_finds_another_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    monkeypatch.setattr(frames, "need_torch_on_a_card", lambda: torch)
    monkeypatch.setattr(frames, "CARD", "cpu")
    real, calls = frames._through, []

    def off_by_one(*arguments: Any) -> Any:
        calls.append(1)
        planes = real(*arguments)
        return [plane + (len(calls) % 2 == 0) for plane in planes]

    monkeypatch.setattr(frames, "_through", off_by_one)
    with pytest.raises(step.Failed):
        frames.rounding(lambda found: None, True)


def test_runtime(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = fake_tensorrt.install(monkeypatch, standin)
    said: Said = {}
    plans.runtime(said.update, True)
    assert "Serialization" in said["garbage"]
    assert "Serialization" in said["without_last_byte"]
    fake.check()


@pytest.mark.parametrize("planes", ["bytes", "half"])
def test_tensorrt_against_exact(standin: Standin, monkeypatch: pytest.MonkeyPatch, planes: str) -> None:
    fake = fake_tensorrt.install(monkeypatch, standin)
    said: Said = {}
    plans._compare(said.update, planes)
    assert said[planes]["captured"]
    assert said[planes]["psnr_db"] > 60
    fake.check()


def test_tensorrt_rates(standin: Standin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = fake_tensorrt.install(monkeypatch, standin)
    built = {"engine": "x", "seconds": 1.0, "slots": 4, "frame_seconds": 0.1}
    monkeypatch.setattr(
        plans.subprocess,
        "run",
        lambda *arguments, **options: SimpleNamespace(returncode=0, stdout=json.dumps(built), stderr=""),
    )
    rate = frames.frames_per_second
    monkeypatch.setattr(plans, "frames_per_second", lambda engine, slots, count: rate(engine, slots, 2))
    said: Said = {}
    plans._timed(said.update, tmp_path, 48, 64)
    assert set(said["64x48"]["frames_per_second"]) == {1, 2, 3, 4}
    assert "TensorRT" in said["64x48"]["engine"]
    fake.check()
