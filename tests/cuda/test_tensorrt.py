"""The TensorRT backend from end to end: real pycuda over the stand-in driver, and a strict fake of TensorRT."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from threading import Event, Thread
from typing import Any

import av
import numpy as np
import onnx
import pytest

import vidsr
from tests.conftest import make_clip
from tests.contract.test_engine import difference, enlarged, layout, opened, picture, result, same
from tests.cuda.fake_tensorrt import World, install
from tests.cuda.standin import Standin
from vidsr import backends, models
from vidsr.backends import Backend, EngineOptions, Slot, Watch
from vidsr.backends.cuda.pycuda_device import PycudaDevice
from vidsr.backends.cuda.slots import CudaEngine
from vidsr.backends.trt.plans import PlanCache
from vidsr.errors import BackendError, Cancelled, DeviceLostError, DeviceMemoryError
from vidsr.events import Phase, Progress, Report, Warned
from vidsr.job import EnginePlan
from vidsr.media.pixel import planes_of
from vidsr.models import Model

SPAN = Path(__file__).resolve().parents[2] / "engines" / "span.onnx"
SMALL = layout("yuv420p", 24, 32)


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch, standin: Standin) -> Iterator[World]:
    world = install(monkeypatch, standin)
    yield world
    world.check()


@pytest.fixture
def backend(tensorrt: World) -> Backend:
    return backends.load("tensorrt")


@pytest.fixture
def model(nearest: Path) -> Model:
    return models.load(str(nearest))


@pytest.fixture(scope="module")
def span() -> Model:
    return models.load(str(SPAN))


def upscaled(clip: Path, out: Path, **chosen: Any) -> Report:
    return vidsr.upscale(clip, out, backend="tensorrt", hwaccel="none", **chosen)


def options(backend: Backend, cache: Path | None = None, **chosen: Any) -> EngineOptions:
    return backend.settle(EngineOptions(cache=cache, **chosen))


# From end to end


def test_video(tensorrt: World, standin: Standin, tmp_path: Path) -> None:
    """What comes out is what OpenVINO makes in FP32, frame by frame, each in its place."""
    clip = make_clip(tmp_path / "clip.mp4", frames=20, width=64, height=48, audio=False)
    report = upscaled(clip, tmp_path / "out.mkv", encoder="ffv1")
    assert (report.frames, report.verified) == (20, True)
    assert "TensorRT 10.16" in report.engine
    assert report.engine.endswith("FP16")
    expected = list(vidsr.frames(clip, backend="openvino", precision="fp32", hwaccel="none"))
    with av.open(str(tmp_path / "out.mkv")) as container:
        made = list(container.decode(video=0))
    assert [frame.time for frame in made] == pytest.approx([frame.seconds for frame in expected], abs=0.001)
    for ours, theirs in zip(made, expected, strict=True):
        assert difference(planes_of(ours), theirs.planes).max() <= 1
    assert standin.calls("cuGraphLaunch") >= 20


def test_auto_takes_it(tensorrt: World, model: Model) -> None:
    backend, settled = backends.choose("auto", EngineOptions(), model)
    assert (backend.name, settled.device, settled.precision) == ("tensorrt", "cuda:0", "fp16")
    backend, settled = backends.choose("auto", EngineOptions(device="cpu"), model)
    assert (backend.name, settled.device) == ("openvino", "CPU")


def test_fp16_network_fp32_colour(backend: Backend, tensorrt: World, span: Model) -> None:
    """The graph that TensorRT gets is in FP16 where the network is, and TF32 is off for the rest."""
    engine = opened(backend, span, SMALL, precision="fp16")
    reference = opened(backends.load("openvino"), span, SMALL)
    found = difference(result(engine, picture(SMALL)), result(reference, picture(SMALL)))
    engine.close()
    reference.close()
    assert found.max() <= 1
    (build,) = tensorrt.record.builds
    assert build.strongly_typed
    assert not build.tf32
    assert (build.level, build.workspace_bytes, build.aux_streams) == (3, 2**30, 0)
    assert engine.description.endswith("FP16")


def test_submit_does_not_wait(backend: Backend, model: Model, standin: Standin, tensorrt: World) -> None:
    """Three frames under way before anything has run; the oldest can be had while the others wait."""
    engine = opened(backend, model, SMALL)
    slots = engine.slots(3)
    before = tensorrt.record.executed
    for number, slot in enumerate(slots):
        for plane, values in zip(slot.input, picture(SMALL, number), strict=True):
            np.copyto(plane, values)
        engine.submit(slot)
    assert tensorrt.record.executed == before
    engine.wait(slots[0])
    assert tensorrt.record.executed == before + 1
    assert not slots[1].output[0].any()
    engine.close()


@pytest.mark.parametrize("missing", ["cuda.bindings", None])
def test_without_graphs(
    backend: Backend, model: Model, standin: Standin, monkeypatch: pytest.MonkeyPatch, missing: str | None
) -> None:
    """Where nothing can be captured, the same is enqueued every time, with the same result."""
    if missing:
        monkeypatch.setitem(sys.modules, missing, None)
    else:
        standin.fail("cuGraphInstantiate", 801, times=None)
    engine = opened(backend, model, SMALL)
    planes = picture(SMALL)
    made = result(engine, planes)
    engine.close()
    assert standin.calls("cuGraphLaunch") == 0
    assert difference(made[:1], [planes[0].repeat(2, 0).repeat(2, 1)]).max() <= 1


def test_two_cards(tensorrt: World, tmp_path: Path, nearest: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=30)
    report = upscaled(clip, tmp_path / "out.mp4", device="cuda:0,1", model=str(nearest), slots=2)
    assert (report.frames, report.verified) == (30, True)
    assert "stand-in 0" in report.engine
    assert "stand-in 1" in report.engine


def test_two_cards_from_python(tensorrt: World, nearest: Path) -> None:
    """One picture at a time needs only one of them; nothing is left on either."""
    image = np.arange(32 * 24 * 3, dtype=np.uint8).reshape(24, 32, 3)
    with vidsr.Upscaler(str(nearest), backend="tensorrt", device="cuda:0,1") as upscaler:
        assert abs(upscaler(image).astype(int) - image.repeat(2, 0).repeat(2, 1)).max() <= 1


def test_forgotten(tensorrt: World, standin: Standin, nearest: Path) -> None:
    """Who does not close an Upscaler, or drops an iterator half way, leaves nothing on the card."""
    upscaler = vidsr.Upscaler(str(nearest), backend="tensorrt")
    upscaler(np.zeros((24, 32, 3), np.uint8))
    del upscaler
    gc.collect()
    assert not any(standin.live().values())


def test_threads_with_one_upscaler(tensorrt: World, nearest: Path) -> None:
    images = [np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8) for seed in range(4)]
    wrong: list[int] = []
    with vidsr.Upscaler(str(nearest), backend="tensorrt") as upscaler:

        def work(seed: int) -> None:
            for _ in range(10):
                large = upscaler(images[seed]).astype(int)
                if abs(large - images[seed].repeat(2, 0).repeat(2, 1)).max() > 1:
                    wrong.append(seed)

        threads = [Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("device", "precision", "words"),
    [("cuda:7", "auto", "no card 7; this machine has 2"), ("cuda:x", "auto", "write cuda"), ("cuda", "bf16", "bf16")],
)
def test_who_asks_for_a_card_hears_of_cards(
    tensorrt: World, model: Model, device: str, precision: Any, words: str
) -> None:
    with pytest.raises(BackendError, match=words):
        backends.choose("auto", EngineOptions(device=device, precision=precision), model)


def test_why_a_card_is_idle(tensorrt: World, standin: Standin, model: Model) -> None:
    assert "no card" not in (backends.idle_card(EngineOptions(), model) or "")
    standin.fail("cuDevicePrimaryCtxRetain", 2, times=None)
    assert "OUT_OF_MEMORY" in (backends.idle_card(EngineOptions(), model) or "")


@pytest.mark.parametrize("device", ["cuda:0", "cuda:0,1"])
def test_collapsed_frame(
    tensorrt: World, tmp_path: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """It is computed again on the processor: no second plan is built in the middle of a run."""
    clip = make_clip(tmp_path / "clip.mp4", frames=16)
    wait = CudaEngine.wait
    spoiled: list[Slot] = []

    def collapse(engine: CudaEngine, slot: Slot) -> None:
        wait(engine, slot)
        if len(spoiled) == 10:  # two cards have been timed on three frames each by then
            slot.output[0][:] = 255
        spoiled.append(slot)

    monkeypatch.setattr(CudaEngine, "wait", collapse)
    report = upscaled(clip, tmp_path / "out.mp4", model=str(nearest), device=device)
    assert report.verified
    assert any("computed again in FP32" in line for line in report.warnings)
    assert {build.profile == {} for build in tensorrt.record.builds} == {True}
    assert len(tensorrt.record.builds) == len(device.split(","))


def test_other_card(tensorrt: World, standin: Standin, tmp_path: Path, nearest: Path) -> None:
    """A run that a card began is not finished by another kind of card; one of the same kind may."""
    clip = make_clip(tmp_path / "clip.mp4", frames=600, audio=False)
    stop = Event()

    def observe(event: Any) -> None:
        if isinstance(event, Progress) and event.frames > 300:
            stop.set()

    chosen = {"model": str(nearest), "observer": observe, "stop": stop}
    report = upscaled(clip, tmp_path / "out.mp4", **chosen)
    assert not report.complete
    with pytest.raises(vidsr.VidsrError, match="the engine"):
        upscaled(clip, tmp_path / "out.mp4", model=str(nearest), resume=True, device="cuda:1")
    report = upscaled(clip, tmp_path / "out.mp4", model=str(nearest), resume=True)
    assert (report.frames, report.verified) == (600, True)


# What `auto` does when it cannot be had


def test_tensorrt_that_cannot_be_loaded(
    tensorrt: World, model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Libraries of its own may be missing: `auto` goes on to the next, and says why the card is idle."""
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.10: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt")
    backend, settled = backends.choose("auto", EngineOptions(), model)
    assert (backend.name, settled.device) == ("openvino", "CPU")
    assert "libnvinfer.so.10" in (backends.idle_card(EngineOptions(), model) or "")
    with pytest.raises(BackendError, match="TensorRT cannot be loaded"):
        backends.load("tensorrt")
    with pytest.raises(BackendError, match=r"--device cuda: .*libnvinfer"):
        backends.choose("auto", EngineOptions(device="cuda"), model)


def test_tensorrt_newer_than_the_driver(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["vidsr.backends.tensorrt_engine"]

    def version(package: str) -> str:
        if package in ("tensorrt", "tensorrt-cu13"):
            return "10.16.1.11"
        raise PackageNotFoundError(package)

    monkeypatch.setattr(module, "version", version)
    assert backend.lack() is None
    monkeypatch.setattr(module, "driver_version", lambda: (12, 4))
    assert "CUDA 13 and the driver has 12.4" in (backend.lack() or "")


def test_card_too_old_for_tensorrt(
    tensorrt: World, backend: Backend, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["vidsr.backends.tensorrt_engine"], "_LEAST_CAPABILITY", (99, 0))
    with pytest.raises(BackendError, match=r"needs a card of compute capability .*: use --backend torch"):
        backend.settle(EngineOptions())
    chosen, _ = backends.choose("auto", EngineOptions(), model)
    assert chosen.name == "openvino"


def test_pictures_of_many_sizes(tensorrt: World, nearest: Path) -> None:
    """A plan for each would take minutes: `auto` takes something else for pictures."""
    with vidsr.Upscaler(str(nearest)) as upscaler:
        upscaler(np.zeros((24, 32, 3), np.uint8))
    assert not tensorrt.record.builds


# Plans


def test_plan_is_kept(backend: Backend, tensorrt: World, model: Model, tmp_path: Path) -> None:
    chosen = options(backend, tmp_path)
    shares: list[float] = []
    backend.prepare(model, SMALL, enlarged(SMALL), chosen, Watch(progress=shares.append))
    assert shares == sorted(shares)
    assert shares[-1] > 0.5
    backend.open(model, SMALL, enlarged(SMALL), chosen).close()
    assert len(tensorrt.record.builds) == 1
    # Anything else is another plan.
    other = layout("yuv420p", 24, 34)
    backend.open(model, other, enlarged(other), chosen).close()
    backend.open(model, SMALL, enlarged(SMALL), replace(chosen, precision="fp32")).close()
    assert len(tensorrt.record.builds) == 3


def test_key_says_what_the_plan_depends_on(backend: Backend, model: Model, tmp_path: Path) -> None:
    backend.prepare(model, SMALL, enlarged(SMALL), options(backend, tmp_path), Watch())
    (entry,) = PlanCache(tmp_path / "tensorrt").entries()
    card = PycudaDevice(0)
    key = entry.key
    assert key is not None
    assert (key.device, key.driver) == (card.name, card.driver)
    assert (key.memory_bytes, key.multiprocessors) == (card.total_bytes, card.multiprocessors)
    assert (key.tensorrt, key.capability) == ("10.16.1.11", "9.0")
    assert (key.model, key.model_sha256) == (model.name, model.sha256)
    assert (key.smallest, key.largest) == ((24, 32), (24, 32))
    card.close()


def test_without_a_cache_it_is_built_once(
    backend: Backend, tensorrt: World, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be kept goes from the preparation to the engine."""
    ends, chosen = (SMALL, enlarged(SMALL)), options(backend)
    backend.open(model, *ends, chosen, backend.prepare(model, *ends, chosen, Watch())).close()
    assert len(tensorrt.record.builds) == 1


def test_alpha_is_prepared_as_well(tensorrt: World, backend: Backend, model: Model) -> None:
    source = replace(layout("yuv444p", 24, 32), alpha=True)
    plan = EnginePlan(
        model=model, backend=backend, options=options(backend), source=source, target=enlarged(source), tile=None
    )
    plan.prepare(Watch())
    assert len(tensorrt.record.builds) == 2
    plan.open().close()
    assert len(tensorrt.record.builds) == 2


def test_last_convolution_of_ten_bits(backend: Backend, tensorrt: World, tmp_path: Path) -> None:
    """Where no base is added behind it, it stays in FP32: the graph has one convolution less in FP16."""
    weights = onnx.numpy_helper.from_array(np.full((12, 3, 3, 3), 0.03, np.float32), "weights")
    nodes = [
        onnx.helper.make_node("Conv", ["x", "weights"], ["c"], pads=[1, 1, 1, 1]),
        onnx.helper.make_node("DepthToSpace", ["c"], ["y"], blocksize=2),
    ]
    sizes = ([1, 3, "h", "w"], [1, 3, "H", "W"])
    tensors = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, size)
        for name, size in zip("xy", sizes, strict=True)
    ]
    graph = onnx.helper.make_graph(nodes, "plain", tensors[:1], tensors[1:], [weights])
    path = tmp_path / "plain.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    plain = models.load(str(path))
    exact = backends.load("openvino")
    for name, largest in (("gray", 1), ("gbrp16", 4)):
        source = layout(name, 24, 32)
        engine, reference = opened(backend, plain, source, precision="fp16"), opened(exact, plain, source)
        assert difference(result(engine, picture(source)), result(reference, picture(source))).max() <= largest
        engine.close()
        reference.close()


def test_second_size_builds_on_the_measurements_of_the_first(
    backend: Backend, tensorrt: World, span: Model, tmp_path: Path
) -> None:
    for source in (SMALL, layout("yuv420p", 24, 32)):
        backend.open(span, source, enlarged(source), options(backend, tmp_path)).close()
        for path in (tmp_path / "tensorrt").glob("*.plan"):
            path.unlink()
    first, second = tensorrt.record.builds
    assert first.timed > 0
    assert second.timed == 0


@pytest.mark.parametrize("damage", ["cut", "flip", "description", "version", "card", "refused"])
def test_kept_plan_that_is_no_good_is_built_again(
    backend: Backend, tensorrt: World, model: Model, tmp_path: Path, damage: str
) -> None:
    """Once, with the reason said; then it is kept."""
    chosen, ends = options(backend, tmp_path), (SMALL, enlarged(SMALL))
    backend.prepare(model, *ends, chosen, Watch())
    (plan,) = (tmp_path / "tensorrt").glob("*.plan")
    data = bytearray(plan.read_bytes())
    if damage == "cut":
        plan.write_bytes(data[:-20])
    elif damage == "flip":
        data[len(data) // 2] ^= 4
        plan.write_bytes(data)
    elif damage == "description":
        plan.with_suffix(".json").write_text("{")
    elif damage == "version":
        tensorrt.version = "10.13.0.1"
    elif damage == "card":
        tensorrt.card_name = "Tesla T4"
    else:
        tensorrt.faults.deserialize_error = "the plan is of another time"
    said: list[str] = []
    if damage == "refused":
        with pytest.raises(BackendError, match="of another time"):
            backend.prepare(model, *ends, chosen, Watch(warn=said.append))
        tensorrt.faults.deserialize_error = None
    else:
        backend.prepare(model, *ends, chosen, Watch(warn=said.append))
    (line,) = said
    assert "is built again" in line
    assert "\n" not in line
    count = len(tensorrt.record.builds)
    assert count == 2
    if damage not in ("version", "card"):  # which stay as they are in the key that the test cannot change
        backend.prepare(model, *ends, chosen, Watch(warn=said.append))
        assert len(said) == 1


def test_planes_in_half(backend: Backend, tensorrt: World, span: Model, tmp_path: Path) -> None:
    """Where uint8 does not build: the same result, a warning once, and no second attempt in later runs."""
    tensorrt.faults.refuses_bytes = True
    said: list[str] = []
    chosen = options(backend, tmp_path)
    for name in ("yuv420p", "yuv420p10", "gbrp16"):
        source = layout(name, 24, 32)
        backend.prepare(span, source, enlarged(source), chosen, Watch(warn=said.append))
        engine = backend.open(span, source, enlarged(source), chosen)
        exact = opened(backends.load("openvino"), span, source)
        found = difference(result(engine, picture(source)), result(exact, picture(source)))
        assert found.max() <= 2 ** max(0, source.bits - 9)
        engine.close()
        exact.close()
    assert len(said) == 3
    assert "no 8-bit planes" in said[0]
    assert len(tensorrt.record.builds) == 3


def test_range_of_sizes(backend: Backend, tensorrt: World, model: Model, tmp_path: Path) -> None:
    """One plan for all sizes within; others get their own."""
    ranged = options(backend, tmp_path, sizes=((16, 16), (48, 64)))
    largest = layout("yuv420p", 48, 64)
    backend.prepare(model, largest, enlarged(largest), ranged, Watch())
    (build,) = tensorrt.record.builds
    assert build.profile["in0"] == ((16, 16), (48, 64), (48, 64))
    chosen = options(backend, tmp_path)
    for size in ((16, 16), (24, 32), (48, 64)):
        source = layout("yuv420p", *size)
        engine = backend.open(model, source, enlarged(source), chosen)
        planes = picture(source)
        assert difference(result(engine, planes)[:1], [planes[0].repeat(2, 0).repeat(2, 1)]).max() <= 1
        engine.close()
    assert len(tensorrt.record.builds) == 1
    for size in ((50, 64), (17, 21)):  # too large; half a chroma sample
        source = layout("yuv420p", *size)
        backend.open(model, source, enlarged(source), chosen).close()
    assert len(tensorrt.record.builds) == 3


# What goes wrong


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"no_builder": True}, "cannot make a builder"),
        ({"no_runtime": True}, "cannot start"),
        ({"parser_errors": ("no importer for Frobnicate",)}, "no importer for Frobnicate"),
        ({"build_error": "could not find any implementation"}, "could not find any implementation"),
        ({"deserialize_error": "magic tag does not match"}, "magic tag does not match"),
        ({"enqueue_error_at": 1}, "refused a frame"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_failures(
    backend: Backend, tensorrt: World, model: Model, tmp_path: Path, fault: dict[str, Any], words: str
) -> None:
    """One clear line, nothing left on the card, and no plan that another run would trip over."""
    for name, value in fault.items():
        setattr(tensorrt.faults, name, value)
    with pytest.raises(BackendError) as error:
        backend.open(model, SMALL, enlarged(SMALL), options(backend, tmp_path))
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    for name in fault:
        setattr(tensorrt.faults, name, getattr(type(tensorrt.faults)(), name))
    backend.open(model, SMALL, enlarged(SMALL), options(backend, tmp_path)).close()


def test_enqueue_fails_midway(tensorrt: World, standin: Standin, tmp_path: Path, nearest: Path) -> None:
    """The run ends with a line; what was done is kept, and the next run goes on there."""
    clip = make_clip(tmp_path / "clip.mp4", frames=40)
    standin.fail("cuGraphInstantiate", 801, times=None)  # else TensorRT is not called again
    tensorrt.faults.enqueue_error_at = 30
    with pytest.raises(BackendError, match="TensorRT refused a frame"):
        upscaled(clip, tmp_path / "out.mp4", model=str(nearest))
    assert not (tmp_path / "out.mp4").exists()
    tensorrt.faults.enqueue_error_at = None
    report = upscaled(clip, tmp_path / "out.mp4", model=str(nearest), resume=True)
    assert report.verified


def test_card_lost_midway(tensorrt: World, standin: Standin, tmp_path: Path, nearest: Path) -> None:
    """One line that names the card; nothing hangs, and nothing lies under the output's name."""
    clip = make_clip(tmp_path / "clip.mp4", frames=40)
    standin.fail("cuGraphInstantiate", 801, times=None)

    def lose() -> None:
        if tensorrt.record.enqueued == 25:
            standin.lose(700)

    tensorrt.faults.during_enqueue = lose
    standin.allow("live", "abandoned", "freed_in_use")
    with pytest.raises(DeviceLostError) as error:
        upscaled(clip, tmp_path / "out.mp4", model=str(nearest))
    assert "stand-in 0" in str(error.value)
    assert "start again" in str(error.value)
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("function", ["cuMemAlloc", "cuMemHostRegister", "cuStreamCreate", "cuEventCreate"])
def test_allocation_fails_at_each_point(
    backend: Backend, model: Model, standin: Standin, function: str, tmp_path: Path
) -> None:
    """Whichever it is: a line, or fewer slots, and nothing is left behind."""
    chosen = options(backend, tmp_path)
    backend.prepare(model, SMALL, enlarged(SMALL), chosen, Watch())
    before = standin.calls(function)
    engine = backend.open(model, SMALL, enlarged(SMALL), chosen)
    engine.slots(2)
    engine.close()
    calls = standin.calls(function) - before
    assert calls >= 2
    counts = []
    for nth in range(1, calls + 1):
        standin.fail(function, 2, nth=nth)
        try:
            engine = backend.open(model, SMALL, enlarged(SMALL), chosen)
        except DeviceMemoryError:
            counts.append(0)
            continue
        counts.append(len(engine.slots(2)))
        engine.close()
    assert counts[0] == 0
    assert counts[-1] == 1


def test_no_room_for_another_context(backend: Backend, tensorrt: World, model: Model) -> None:
    tensorrt.faults.context_error_at = 3
    engine = backend.open(model, SMALL, enlarged(SMALL), options(backend))
    assert len(engine.slots(4)) == 2
    engine.close()


def test_short_of_memory_in_a_run(tensorrt: World, standin: Standin, tmp_path: Path) -> None:
    """First fewer slots, then tiles, whose frames are the same, then a line that says what to do."""
    clip = make_clip(tmp_path / "clip.mp4", frames=2, width=112, height=96, audio=False)
    limit, error = 2.0**30, ""
    engines: list[str] = []
    frames: list[list[Any]] = []
    while not error:
        standin.limit(int(limit))
        out = tmp_path / f"{limit:.0f}.mkv"
        try:
            report = upscaled(clip, out, encoder="ffv1")
        except vidsr.VidsrError as problem:
            error = str(problem)
        else:
            engines.append(report.engine)
            with av.open(str(out)) as container:
                frames.append([planes_of(frame) for frame in container.decode(video=0)])
        limit /= 1.7 if limit < 2**26 else 8
    assert "tiles" not in engines[0]
    assert "tiles" in engines[-1]
    for other in frames[1:]:
        for ours, theirs in zip(frames[0], other, strict=True):
            assert difference(ours, theirs).max() <= 1
    assert "cuda:0" in error
    assert "\n" not in error


def test_stopped_while_building(tensorrt: World, backend: Backend, model: Model, tmp_path: Path) -> None:
    """The build is given up; nothing is kept of it, and the next one is whole."""
    stop = Event()
    with pytest.raises(Cancelled, match="stopped while the TensorRT plan was built"):
        backend.prepare(
            model,
            SMALL,
            enlarged(SMALL),
            options(backend, tmp_path),
            Watch(progress=lambda done: stop.set(), stop=stop),
        )
    assert not list((tmp_path / "tensorrt").glob("*.plan"))
    backend.prepare(model, SMALL, enlarged(SMALL), options(backend, tmp_path), Watch())
    assert len(list((tmp_path / "tensorrt").glob("*.plan"))) == 1


def test_run_says_that_it_builds(tensorrt: World, tmp_path: Path, nearest: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=4)
    events: list[Any] = []
    upscaled(clip, tmp_path / "out.mp4", model=str(nearest), observer=events.append)
    kinds = [event.name for event in events if isinstance(event, Phase)]
    assert kinds[0] == "preparing"
    assert not [event for event in events if isinstance(event, Warned)]
    events.clear()
    upscaled(clip, tmp_path / "two.mp4", model=str(nearest), observer=events.append)
    assert "preparing" not in [event.name for event in events if isinstance(event, Phase)]


def test_unusable_devices(backend: Backend) -> None:
    for device, words in (
        ("cuda:7", "there is no card 7; this machine has 2"),
        ("gpu", "write cuda, cuda:1 or cuda:0,1"),
        ("cuda:x", "write cuda"),
    ):
        with pytest.raises(BackendError, match=words):
            backend.settle(EngineOptions(device=device))
    with pytest.raises(BackendError, match="--precision bf16"):
        backend.settle(EngineOptions(precision="bf16"))


def test_same_result_every_time(backend: Backend, span: Model, tmp_path: Path) -> None:
    chosen = options(backend, tmp_path)
    made = []
    for _ in range(2):
        engine = backend.open(span, SMALL, enlarged(SMALL), chosen)
        made.append(result(engine, picture(SMALL)))
        engine.close()
    assert same(*made)
