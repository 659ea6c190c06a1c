"""torch on NVIDIA cards: its module on a processor, its device with torch's calls played, and cards themselves."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from tests.contract.test_engine import (
    EVEN,
    FORMATS,
    LIMITED,
    ODD,
    SPAN,
    difference,
    enlarged,
    fill,
    layout,
    one_line,
    picture,
    result,
    same,
)
from vidsr import models
from vidsr.backends import Engine, EngineOptions, Slot
from vidsr.backends import torch_engine as backend_module
from vidsr.backends.base import Precision
from vidsr.backends.cuda.slots import CudaEngine
from vidsr.backends.torch_engine import BACKEND
from vidsr.errors import BackendError, DeviceLostError, DeviceMemoryError
from vidsr.frame import FrameLayout, Plane
from vidsr.models import Model

torch = pytest.importorskip("torch", reason="needs torch")
from vidsr.backends.cuda import torch_device  # noqa: E402
from vidsr.backends.cuda.torch_device import TorchDevice, TorchMemory, TorchStream, reported  # noqa: E402
from vidsr.backends.torch_program import TorchProgram  # noqa: E402

SAMPLES = Path(__file__).resolve().parents[1] / "samples"


class HostDevice:
    """A processor as a device: memory is numpy's, and what is enqueued has run."""

    index, name, capability, multiprocessors, total_bytes, driver = 0, "host", (0, 0), 1, 0, ""

    def current(self) -> AbstractContextManager[None]:
        return nullcontext()

    def free_bytes(self) -> int:
        return 0

    def allocate(self, size: int) -> Any:
        room = np.empty(size + 256, np.uint8)
        first = -room.ctypes.data % 256
        array = room[first : first + size]
        return SimpleNamespace(array=array, address=array.ctypes.data, size=size, close=lambda: None)

    pinned = allocate

    def stream(self) -> Any:
        def copy(target: Any, source: Any) -> None:
            target.array[:] = source.array

        return SimpleNamespace(
            handle=0, copy_in=copy, copy_out=copy, capture=lambda work: None, wait=lambda: None, close=lambda: None
        )

    def event(self) -> Any:
        return SimpleNamespace(record=lambda stream: None, wait=lambda: None, close=lambda: None)

    def close(self) -> None:
        pass


def on_host(
    model: Model, source: FrameLayout, target: FrameLayout | None = None, precision: Precision = "fp32"
) -> CudaEngine:
    target = target or enlarged(source)
    return CudaEngine(
        HostDevice(), TorchProgram(model, source, target, device="cpu", precision=precision), source, target
    )


def reference(model: Model, source: FrameLayout, target: FrameLayout | None = None) -> Engine:
    options = BACKEND.settle(EngineOptions(device="cpu", precision="fp32"))
    return BACKEND.open(model, source, target or enlarged(source), options)


def one(engine: Engine, planes: Sequence[Plane]) -> list[Plane]:
    with closing(engine):
        return result(engine, planes)


@pytest.fixture(scope="module")
def span() -> Model:
    return models.load(str(SPAN))


def crop(name: str, height: int, width: int, frame: int = 20) -> tuple[FrameLayout, list[Plane]]:
    """A part of a sample's picture."""
    with av.open(str(SAMPLES / name)) as container:
        decoded = [found for _, found in zip(range(frame + 1), container.decode(video=0), strict=False)][-1]
    bits = decoded.format.components[0].bits
    source = FrameLayout(family="yuv", bits=bits, height=height, width=width, chroma=(2, 2))
    planes = []
    for plane, (rows, columns) in zip(decoded.planes, source.shapes, strict=True):
        lines = np.frombuffer(plane, source.dtype).reshape(plane.height, -1)
        planes.append(lines[:rows, :columns].copy())
    return source, planes


def psnr(first: Sequence[Plane], second: Sequence[Plane], bits: int) -> float:
    error = float(np.mean(difference(first, second).astype(np.float64) ** 2))
    return 10 * float(np.log10((2**bits - 1) ** 2 / max(error, 1e-12)))


# The module, on a processor


@pytest.mark.parametrize("size", [EVEN, ODD, (1, 1), (2, 3)], ids=["even", "odd", "one pixel", "six pixels"])
@pytest.mark.parametrize("name", FORMATS)
def test_module_does_what_the_reference_does(span: Model, name: str, size: tuple[int, int]) -> None:
    source = layout(name, *size)
    rng = np.random.default_rng(3)
    planes = [rng.integers(16, 236, shape).astype(source.dtype) << (source.bits - 8) for shape in source.shapes]
    if min(size) > 2:
        planes = picture(source)
    found = difference(one(on_host(span, source), planes), one(reference(span, source), planes))
    assert found.max() <= (1 if source.bits < 16 else 4)
    assert np.mean(found > 0) < 0.02


@pytest.mark.parametrize(
    ("source", "target"),
    [("gbrp", "yuv420p"), ("yuv444p", "yuv420p10"), ("yuv420p", "gray"), ("gray", "yuv411p"), ("gray", "yuv422p")],
)
def test_target_of_another_kind(span: Model, source: str, target: str) -> None:
    ends = layout(source, *ODD), enlarged(layout(target, *ODD))
    planes = picture(ends[0])
    assert difference(one(on_host(span, *ends), planes), one(reference(span, *ends), planes)).max() <= 1


@pytest.mark.parametrize("siting", ["left", "center", "topleft"])
def test_every_siting(span: Model, siting: Any) -> None:
    source = replace(layout("yuv420p", *ODD), siting=siting)
    planes = picture(source)
    assert difference(one(on_host(span, source), planes), one(reference(span, source), planes)).max() <= 1


def test_fp16_of_a_picture(span: Model) -> None:
    source, planes = crop("clip.mp4", 96, 128)
    fast, exact = (one(on_host(span, source, precision=kind), planes) for kind in ("fp16", "fp32"))
    assert 55 < psnr(fast, exact, 8) < 100
    assert difference(fast, exact).max() <= 1


def test_fp16_has_no_banding(span: Model) -> None:
    """A ramp in 12 bits: as many codes come out as in FP32, give or take chance. Near white FP16 itself has only every
    second one."""
    source = replace(layout("gbrp16", 4, 4096), bits=12)
    planes = [np.tile(np.arange(4096), (4, 1)).astype(source.dtype)] * 3
    fast, exact = (one(on_host(span, source, precision=kind), planes) for kind in ("fp16", "fp32"))
    assert difference(fast, exact).max() <= 4
    found, wanted = (set(np.unique(made[0][:, 50:-50])) for made in (fast, exact))
    assert len(wanted) > 3900
    assert len(found) > 0.99 * len(wanted), (len(found), len(wanted))


def test_fp16_is_only_inside(span: Model) -> None:
    """Between the first convolution and the last one's sums; types as they come by."""
    program = TorchProgram(span, layout("yuv420p", *EVEN), enlarged(layout("yuv420p", *EVEN)), device="cpu",
                           precision="fp16")  # fmt: skip
    network = program._work.network
    seen: dict[str, tuple[Any, Any]] = {}
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda module, given, made, name=name: seen.update({name: (given[0].dtype, made.dtype)})
            )
    with torch.inference_mode():
        made = network(torch.rand(1, 3, 8, 8))
    assert made.dtype == torch.float32
    assert seen.pop("upsampler.0") == (torch.float32, torch.float32)
    assert seen
    assert set(seen.values()) == {(torch.float16, torch.float16)}
    # TF32 has FP16's precision: what a card makes of the last convolution depends on no setting.
    weight = network.upsampler[0].weight
    assert torch.equal(weight.half().float(), weight)


def test_run_writes_where_it_is_told_and_nowhere_else(span: Model) -> None:
    source = layout("yuv420p10", *ODD)
    target = enlarged(source)
    program = TorchProgram(span, source, target, device="cpu", precision="fp32")
    slot = Slot.allocate(source, target)
    guard = 64
    rooms = [np.full(plane.nbytes + 2 * guard, 0xA5, np.uint8) for plane in slot.output]
    engine: Any = SimpleNamespace(source=source, target=target)
    fill(engine, slot, picture(source), LIMITED)
    given = [*slot.input, slot.rgb_from_codes, slot.codes_from_rgb]
    before = [array.copy() for array in given]
    names = ["in0", "in1", "in2", "rgb_from_codes", "codes_from_rgb"]
    addresses = {name: array.ctypes.data for name, array in zip(names, given, strict=True)}
    addresses |= {f"out{index}": room.ctypes.data + guard for index, room in enumerate(rooms)}
    run = program.bind(HostDevice().stream(), addresses)
    run.enqueue()
    first = [room.copy() for room in rooms]
    gc.collect()
    tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
    run.enqueue()
    gc.collect()
    assert sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()) == tensors
    for room, earlier in zip(rooms, first, strict=True):
        assert np.array_equal(room, earlier)
        assert set(room[:guard]) | set(room[-guard:]) == {0xA5}
        assert np.ptp(room[guard:-guard])
    assert all(np.array_equal(*pair) for pair in zip(given, before, strict=True))
    run.close()
    program.close()


def test_new_bytes_in_the_same_memory(span: Model) -> None:
    """A run reads its inputs each time, the matrices as well: a graph on a card replays just that."""
    source = layout("yuv420p", *EVEN)
    with closing(on_host(span, source)) as engine:
        (slot,) = engine.slots(1)
        for seed in (1, 2, 1):
            planes = picture(source, seed)
            assert difference(result(engine, planes, slot), one(reference(span, source), planes)).max() <= 1


# The backend, where there is no card


def test_lack_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told without loading torch; for a processor nothing is lacking."""
    monkeypatch.setattr(backend_module, "driver_version", lambda: None)
    for device in ("cuda", "cuda:1", "CUDA"):
        assert "driver" in (BACKEND.lack(device) or "")
    assert BACKEND.lack() is None
    assert BACKEND.lack("cpu") is None
    assert BACKEND.settle(EngineOptions()).device == "cpu"


def test_lack_of_cuda_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_module, "driver_version", lambda: (13, 0))
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "without CUDA" in (BACKEND.lack("cuda") or "")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "finds no NVIDIA card" in (BACKEND.lack("cuda") or "")


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:0,1", "cuda:x", "cuda:", "cuda:0,", "cuda0"])
def test_cards_that_are_not_there(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr(backend_module, "driver_version", lambda: None)
    with pytest.raises(BackendError) as error:
        BACKEND.settle(EngineOptions(device=device))
    assert f"--device {device}" in one_line(error)


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """torch says that it has two cards; their compute capabilities may be changed."""
    capabilities = [(9, 0), (7, 5)]
    monkeypatch.setattr(backend_module, "driver_version", lambda: (13, 0))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    for name, made in {
        "is_available": lambda: True,
        "device_count": lambda: len(capabilities),
        "get_device_capability": lambda index: capabilities[index],
        "get_device_name": lambda index: f"Card {index}",
        "get_arch_list": lambda: ["sm_61", "sm_75", "sm_80", "sm_90a", "compute_90"],
    }.items():
        monkeypatch.setattr(torch.cuda, name, made)
    return capabilities


@pytest.mark.parametrize(
    ("given", "settled"),
    [
        ("auto", "cuda:0"),
        ("cuda", "cuda:0"),
        ("CUDA:1", "cuda:1"),
        ("cuda:0,1", "cuda:0,1"),
        ("cuda:1,0,1", "cuda:1,0"),
        ("cpu", "cpu"),
    ],
)
def test_settled_card(two_cards: list[tuple[int, int]], given: str, settled: str) -> None:
    options = BACKEND.settle(EngineOptions(device=given))
    assert (options.device, options.precision) == (settled, "fp32" if settled == "cpu" else "fp16")
    assert BACKEND.settle(options) == options
    assert BACKEND.settle(EngineOptions(device=given, precision="fp32")).precision == "fp32"


def test_settled_old_card(two_cards: list[tuple[int, int]]) -> None:
    """Too old for fast FP16; newer than the code in torch; older than it."""
    two_cards[0] = (6, 1)
    assert BACKEND.settle(EngineOptions(device="cuda")).precision == "fp32"
    assert BACKEND.settle(EngineOptions(device="cuda:0,1")).precision == "fp32"
    two_cards[0] = (12, 0)
    assert BACKEND.settle(EngineOptions(device="cuda")).precision == "fp16"
    two_cards[0] = (5, 2)
    assert BACKEND.settle(EngineOptions()).device == "cpu"
    with pytest.raises(BackendError, match=r"--device cuda: .* no code for Card 0 \(compute capability 5.2\)"):
        BACKEND.settle(EngineOptions(device="cuda"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"device": "cuda:0,2"}, "no card 2; this machine has 2"),
        ({"device": "cuda", "precision": "bf16"}, "--precision bf16: torch runs fp16 and fp32"),
        ({"device": "cpu", "precision": "fp16"}, "--precision fp16: torch without an NVIDIA card"),
    ],
)
def test_refused_card(two_cards: list[tuple[int, int]], options: dict[str, Any], reason: str) -> None:
    with pytest.raises(BackendError) as error:
        BACKEND.settle(EngineOptions(**options))
    assert reason in one_line(error)


# The device, with torch's calls to CUDA played


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"), DeviceMemoryError),
        (RuntimeError("CUDA error: out of memory\nCompile with"), DeviceMemoryError),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), DeviceMemoryError),
        (RuntimeError("CUDA error: an illegal memory access was encountered\nSearch for"), DeviceLostError),
        (RuntimeError("CUDA error: unspecified launch failure"), DeviceLostError),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), DeviceLostError),
        (RuntimeError("CUDA error: invalid argument\nSearch for"), BackendError),
        (AssertionError("Torch not compiled with CUDA enabled"), BackendError),
        (RuntimeError(""), BackendError),
    ],
)
def test_errors_of_torch(raised: Exception, kind: type[BackendError]) -> None:
    with pytest.raises(BackendError) as error, reported("CUDA card 3"):
        raise raised
    assert type(error.value) is kind
    assert one_line(error).startswith("CUDA card 3: ")
    assert error.value.__cause__ is raised


class PlayedCuda:
    """What of torch a stream's capture and page-locked memory need. failing: the name of a call that raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.failing = ""
        self.codes = {"cudaHostRegister": 0, "cudaHostUnregister": 0}
        call = self._call

        class Graph:
            def capture_begin(self, pool: Any, capture_error_mode: str) -> None:
                assert capture_error_mode == "thread_local"
                call("capture_begin")

            def capture_end(self) -> None:
                call("capture_end")

            def reset(self) -> None:
                call("reset")

            def replay(self) -> None:
                call("replay")

        runtime = SimpleNamespace(
            cudaHostRegister=lambda address, size, flags: self._runtime("cudaHostRegister"),
            cudaHostUnregister=lambda address: self._runtime("cudaHostUnregister"),
            cudaGetErrorString=lambda code: f"error {code}",
        )
        for name, made in {
            "CUDAGraph": Graph,
            "graph_pool_handle": lambda: (0, 7),
            "empty_cache": lambda: call("empty_cache"),
            "stream": lambda queue: nullcontext(),
            "Stream": lambda place: SimpleNamespace(cuda_stream=99, device_index=0, synchronize=lambda: None),
            "cudart": lambda: runtime,
        }.items():
            monkeypatch.setattr(torch.cuda, name, made)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda index, pool: call("end_pool"))
        monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda index, pool: call("release_pool"))
        monkeypatch.setattr(torch_device, "_keep_for_ever", lambda graph: call("keep"))
        monkeypatch.setattr(torch, "zeros", lambda size, device: SimpleNamespace(add_=lambda one: call("kernel")))
        self.device: Any = SimpleNamespace(place="cuda:0", label="CUDA card 0 (played)", index=0)

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.failing:
            raise RuntimeError(f"CUDA error: {name} failed while capturing")

    def _runtime(self, name: str) -> int:
        self.calls.append(name)
        return self.codes[name]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> PlayedCuda:
    return PlayedCuda(monkeypatch)


def test_capture(played: PlayedCuda) -> None:
    graph = TorchStream(played.device).capture(lambda: played.calls.append("work"))
    assert graph is not None
    graph.launch()
    graph.close()
    graph.close()
    assert played.calls == ["empty_cache", "capture_begin", "work", "capture_end", "replay", "reset"]


@pytest.mark.parametrize("failing", ["empty_cache", "capture_begin", "capture_end"])
def test_capture_that_torch_refuses(played: PlayedCuda, failing: str) -> None:
    """torch's allocator is told that the capture is over, and the graph is kept, as its destructor may not run."""
    played.failing = failing
    assert TorchStream(played.device).capture(lambda: None) is None
    assert played.calls[-4:] == ["end_pool", "release_pool", "reset", "keep"]


def test_pool_that_torch_has_ended_is_not_released_twice(played: PlayedCuda) -> None:
    """Where instantiating fails, torch has ended the capture by itself, and `reset` gives the pool back."""
    stream = TorchStream(played.device)
    played.failing = "capture_end"

    def work() -> None:
        torch._C._cuda_endAllocateToPool = fail

    def fail(index: int, pool: Any) -> None:
        raise RuntimeError("not currently recording")

    assert stream.capture(work) is None
    assert "release_pool" not in played.calls
    assert played.calls[-2:] == ["reset", "keep"]


def test_work_that_cannot_be_captured(played: PlayedCuda) -> None:
    def work() -> None:
        with reported("card"):
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    assert TorchStream(played.device).capture(work) is None
    assert played.calls[-2:] == ["capture_end", "reset"]


@pytest.mark.parametrize("ending", ["well", "badly"])
@pytest.mark.parametrize("error", [LookupError("mine"), RuntimeError("mine"), DeviceMemoryError("mine")], ids=type)
def test_work_that_fails_while_captured(played: PlayedCuda, error: Exception, ending: str) -> None:
    played.failing = "capture_end" if ending == "badly" else ""

    def work() -> None:
        raise error

    with pytest.raises(type(error), match="mine") as caught:
        TorchStream(played.device).capture(work)
    assert caught.value is error
    assert "capture_end" in played.calls
    assert "reset" in played.calls


def test_graph_that_cannot_be_destroyed_is_kept(played: PlayedCuda) -> None:
    graph = TorchStream(played.device).capture(lambda: None)
    assert graph is not None
    played.failing = "reset"
    graph.close()
    graph.close()
    assert played.calls.count("keep") == 1


def test_pinned_memory(played: PlayedCuda) -> None:
    pinned = torch_device.TorchPinned(5000, played.device)
    plane = pinned.array[100:200]
    plane[:] = 3
    assert pinned.array.ctypes.data % 4096 == 0
    assert pinned.tensor.data_ptr() == pinned.array.ctypes.data
    pinned.close()
    pinned.close()
    assert played.calls == ["cudaHostRegister", "cudaHostUnregister"]
    del pinned
    gc.collect()
    assert set(plane) == {3}


@pytest.mark.parametrize(("code", "kind"), [(2, DeviceMemoryError), (1, BackendError)])
def test_memory_that_cannot_be_locked(played: PlayedCuda, code: int, kind: type[BackendError]) -> None:
    played.codes["cudaHostRegister"] = code
    with pytest.raises(BackendError) as error:
        torch_device.TorchPinned(3 << 20, played.device)
    assert type(error.value) is kind
    assert one_line(error) == f"CUDA card 0 (played): 3 MiB cannot be page-locked (error {code})"
    assert played.calls[-1] == "kernel", "the error is still CUDA's last one, and torch's next kernel reports it"


def test_platform_that_locks_nothing(played: PlayedCuda) -> None:
    played.codes["cudaHostRegister"] = 801
    pinned = torch_device.TorchPinned(5000, played.device)
    pinned.array[:] = 1
    pinned.close()
    assert played.calls == ["cudaHostRegister", "kernel"]


def test_copies_of_other_sizes(played: PlayedCuda) -> None:
    pinned = torch_device.TorchPinned(5000, played.device)
    memory = TorchMemory.__new__(TorchMemory)
    memory.tensor = torch.empty(4999, dtype=torch.uint8)
    with pytest.raises(ValueError, match="4999"):
        TorchStream(played.device).copy_in(memory, pinned)


# On a card


@pytest.fixture
def card() -> Iterator[int]:
    if reason := BACKEND.lack("cuda"):
        pytest.skip(f"needs an NVIDIA card: {reason}")
    yield 0
    gc.collect()


def on_card(
    model: Model, source: FrameLayout, target: FrameLayout | None = None, precision: Precision = "fp32"
) -> CudaEngine:
    target = target or enlarged(source)
    device = TorchDevice(0)
    with device.current():
        program = TorchProgram(model, source, target, device="cuda:0", precision=precision)
    return CudaEngine(device, program, source, target)


def graphs(engine: CudaEngine) -> list[Any]:
    return [flight._graph for flight in engine._flights]


@pytest.mark.parametrize("size", [EVEN, ODD], ids=["even", "odd"])
@pytest.mark.parametrize("name", FORMATS)
def test_card_does_what_the_reference_does(card: int, span: Model, name: str, size: tuple[int, int]) -> None:
    source = layout(name, *size)
    planes = picture(source)
    found = difference(one(on_card(span, source), planes), one(reference(span, source), planes))
    assert found.max() <= (1 if source.bits < 16 else 4)
    assert np.mean(found > 0) < 0.02


def test_card_in_fp16(card: int, span: Model) -> None:
    source, planes = crop("clip.mp4", 176, 320)
    fast, exact = one(on_card(span, source, precision="fp16"), planes), one(reference(span, source), planes)
    assert psnr(fast, exact, 8) > 55
    assert np.mean(difference(fast, exact) > 1) <= 0.01


def test_card_through_the_backend(card: int, span: Model) -> None:
    options = BACKEND.settle(EngineOptions(device="cuda"))
    assert (BACKEND.memory(options) or 0) > 0
    source = layout("yuv420p", *EVEN)
    with closing(BACKEND.open(span, source, enlarged(source), options)) as engine:
        assert engine.description.startswith("torch cuda:0 (")
        assert engine.description.endswith("FP16")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_graph_is_as_eager(card: int, span: Model, monkeypatch: pytest.MonkeyPatch, precision: Precision) -> None:
    source, planes = crop("clip.mp4", 176, 320)
    with closing(on_card(span, source, precision=precision)) as engine:
        assert None not in graphs(engine)
        captured = result(engine, planes)
    monkeypatch.setattr(TorchStream, "capture", lambda self, work: None)
    with closing(on_card(span, source, precision=precision)) as engine:
        assert set(graphs(engine)) == {None}
        assert same(result(engine, planes), captured)


@pytest.mark.parametrize("captured", [True, False], ids=["graphs", "eager"])
def test_slots_at_once_are_as_one_after_another(
    card: int, span: Model, monkeypatch: pytest.MonkeyPatch, captured: bool
) -> None:
    """Frames of many kinds through four slots that are never waited for earlier than they must be."""
    if not captured:
        monkeypatch.setattr(TorchStream, "capture", lambda self, work: None)
    source = layout("yuv420p", 270, 480)
    frames = [picture(source, seed) for seed in range(7)]
    with closing(on_card(span, source, precision="fp16")) as engine:
        slots = engine.slots(4)
        alone = [result(engine, planes, slots[0]) for planes in frames]
        assert not any(same(alone[0], other) for other in alone[1:])
        for number in range(100 + len(slots)):
            slot = slots[number % len(slots)]
            if number >= len(slots):
                engine.wait(slot)
                assert same(slot.output, alone[(number - len(slots)) % len(frames)]), number - len(slots)
            if number < 100:
                fill(engine, slot, frames[number % len(frames)])
                engine.submit(slot)


def test_two_engines_in_two_threads(card: int, span: Model) -> None:
    """Each made, used and closed in a thread of its own, while the other captures, runs and closes."""
    source = layout("yuv420p", 135, 240)
    expected = {seed: one(on_card(span, source, precision="fp16"), picture(source, seed)) for seed in range(4)}
    failures: list[BaseException] = []
    together = threading.Barrier(2)

    def work() -> None:
        try:
            together.wait()
            for _ in range(3):
                with closing(on_card(span, source, precision="fp16")) as engine:
                    slots = engine.slots(2)
                    for seed in expected:
                        slot = slots[seed % 2]
                        assert same(result(engine, picture(source, seed), slot), expected[seed])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_nothing_is_left_on_the_card(card: int, span: Model) -> None:
    source = layout("yuv420p", 270, 480)

    def use() -> int:
        with closing(on_card(span, source, precision="fp16")) as engine:
            result(engine, picture(source), engine.slots(3)[-1])
        gc.collect()
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(0)[0])

    use()
    before = use()
    assert min(use() for _ in range(3)) >= before - (1 << 20)


def test_closing_with_frames_on_their_way(card: int, span: Model) -> None:
    source = layout("yuv420p", 270, 480)
    engine = on_card(span, source, precision="fp16")
    for slot in engine.slots(3):
        fill(engine, slot, picture(source))
        engine.submit(slot)
    engine.close()
    engine.close()


def refuse(tensor: Any) -> Callable[[], None]:
    """Work with a wait in it, which no graph can hold."""

    def work() -> None:
        with reported("card"):
            tensor.sum().item()

    return work


def test_stream_is_usable_after_a_refused_capture(card: int) -> None:
    device = TorchDevice(0)
    with device.current(), closing(device.allocate(4096)) as memory, closing(device.pinned(4096)) as pinned:
        stream = device.stream()
        assert stream.capture(refuse(memory.tensor)) is None
        pinned.array[:] = 9
        stream.copy_in(memory, pinned)
        pinned_back = device.pinned(4096)
        stream.copy_out(pinned_back, memory)
        stream.wait()
        assert set(pinned_back.array) == {9}
        graph = stream.capture(lambda: stream.copy_in(memory, pinned))
        assert graph is not None
        graph.close()
        pinned_back.close()
    device.close()


def test_device_memory_is_seen_in_place(card: int) -> None:
    """What a program makes of an address is that memory."""
    device = TorchDevice(0)
    with device.current(), closing(device.allocate(4096)) as memory:
        program = TorchProgram.__new__(TorchProgram)
        program._device = torch.device("cuda:0")
        tensor = program._tensor(memory.address + 256, (8, 16), np.dtype(np.uint16))
        tensor.copy_(torch.full((8, 16), 65535.0))
        torch.cuda.synchronize()
        assert memory.tensor is not None
        assert memory.tensor[256:512].cpu().eq(255).all()
    device.close()
