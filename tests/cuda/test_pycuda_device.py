"""pycuda's device on the stand-in for the driver: nothing is early, nothing leaks, and every failure has its error."""

from __future__ import annotations

import gc
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
import pytest

from tests.cuda.standin import Standin
from tests.cuda.things import SIZE, Set, captured, noise, one_line, outcome
from vidsr.backends.cuda import Device, Graph
from vidsr.backends.cuda.pycuda_device import PycudaDevice, count, lack
from vidsr.errors import BackendError, DeviceLostError, DeviceMemoryError

LOST = (4, 46, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911, 999)


@pytest.fixture
def pycuda(standin: Standin) -> Iterator[PycudaDevice]:
    made = PycudaDevice(0)
    yield made
    made.close()


@pytest.fixture
def pycuda_things(pycuda: PycudaDevice) -> Iterator[Set]:
    with pycuda.current(), closing(Set(pycuda)) as made:
        yield made


# -- As late as CUDA may be


def test_nothing_has_happened_before_somebody_waits(standin: Standin, pycuda: PycudaDevice, pycuda_things: Set) -> None:
    things = pycuda_things
    things.source.array[:] = 1
    things.copy()
    things.event.record(things.stream)
    assert not things.target.array.any() and standin.live()["queued"] == 2
    things.source.array[:] = 2
    things.event.wait()
    assert (things.target.array == 2).all(), "the input was overwritten early"


def test_a_mark_is_no_more_than_what_was_before_it(standin: Standin, pycuda_things: Set) -> None:
    things = pycuda_things
    done: list[int] = []
    for index in range(4):
        assert standin.call(things.stream.handle, lambda index=index: done.append(index)) == 0  # type: ignore[misc]
        if index == 1:
            things.event.record(things.stream)
    things.event.wait()
    assert done == [0, 1]
    things.stream.wait()
    assert done == [0, 1, 2, 3]


def test_waiting_releases_the_interpreter(standin: Standin, pycuda_things: Set) -> None:
    other_ran = threading.Event()
    thread = threading.Thread(target=other_ran.set)

    def work() -> None:
        thread.start()
        assert other_ran.wait(60)

    for wait in (pycuda_things.stream.wait, None):
        other_ran.clear()
        thread = threading.Thread(target=other_ran.set)
        standin.call(pycuda_things.stream.handle, work)
        pycuda_things.event.record(pycuda_things.stream)
        (wait or pycuda_things.event.wait)()
        thread.join()
    assert not standin.raised


def test_closing_a_stream_waits_for_its_copies(standin: Standin, pycuda: PycudaDevice) -> None:
    with pycuda.current():
        things = Set(pycuda)
        things.source.array[:] = 3
        things.copy()
        target = things.target.array
        things.close()
    assert (target == 3).all()


def test_a_stream_keeps_what_it_copies(standin: Standin, pycuda: PycudaDevice) -> None:
    with pycuda.current(), closing(pycuda.stream()) as stream, closing(pycuda.pinned(SIZE)) as target:
        source, memory = pycuda.pinned(SIZE), pycuda.allocate(SIZE)
        source.array[:] = 8
        stream.copy_in(memory, source)
        stream.copy_out(target, memory)
        closing_later = source.close
        del source, memory
        gc.collect()
        stream.wait()
        assert (target.array == 8).all()
        closing_later()


# -- pycuda's own traps


def test_memory_is_unlocked_once(standin: Standin, pycuda: PycudaDevice) -> None:
    views: queue.Queue[Any] = queue.Queue()
    gone = threading.Event()

    def hold() -> None:
        view = views.get()
        gone.wait(60)
        assert (view == 9).all()
        del view
        gc.collect()

    thread = threading.Thread(target=hold)
    thread.start()
    with pycuda.current():
        pinned = pycuda.pinned(SIZE)
        pinned.array[:] = 9
        views.put(pinned.array[10:20])
        pinned.close()
    del pinned
    gone.set()
    thread.join()
    gc.collect()
    assert (standin.calls("cuMemHostRegister"), standin.calls("cuMemHostUnregister")) == (1, 1)


def test_memory_that_cannot_be_locked_is_used_as_it_is(standin: Standin, pycuda: PycudaDevice) -> None:
    standin.allow("unpinned_copies")
    standin.fail("cuMemHostRegister", 801, times=None)
    with pycuda.current(), closing(Set(pycuda)) as things:
        things.source.array[:] = noise(1)
        things.copy()
        things.stream.wait()
        np.testing.assert_array_equal(things.target.array, noise(1))
        assert things.capture() is None
        things.copy()
        things.stream.wait()


def test_the_context_is_given_back_from_any_thread(standin: Standin) -> None:
    devices = [PycudaDevice(0), PycudaDevice(1)]
    assert [device.name for device in devices] == ["vidsr stand-in 0", "vidsr stand-in 1"]
    with devices[0].current(), devices[1].current(), closing(Set(devices[1])) as things:
        things.copy()
        things.stream.wait()
    thread = threading.Thread(target=devices[0].close)
    thread.start()
    thread.join()
    devices[1].close()
    live = standin.live()
    assert (live["retains"], live["pushed"]) == (0, 0)


def operations(device: Device, things: Set, graph: Graph) -> list[Callable[[], object]]:
    return [
        device.free_bytes, lambda: device.allocate(SIZE), lambda: device.pinned(SIZE), device.stream, device.event,
        lambda: things.stream.copy_in(things.memory, things.source),
        lambda: things.stream.copy_out(things.target, things.memory),
        lambda: things.stream.capture(things.copy), things.stream.wait, graph.launch,
        lambda: things.event.record(things.stream), things.event.wait,
    ]  # fmt: skip


def test_outside_of_current(standin: Standin, pycuda: PycudaDevice) -> None:
    standin.allow("context_errors")
    with pycuda.current():
        things = Set(pycuda)
        graph = captured(things)
    errors = [outcome(operation) for operation in operations(pycuda, things, graph)]
    assert errors.count(None) == 1, "only a capture is refused without an error"
    for error in filter(None, errors):
        assert one_line(error) and "CUDA_ERROR_INVALID_CONTEXT" in str(error)
    with pycuda.current():
        things.copy()
        things.close()


# -- When CUDA fails


@pytest.mark.parametrize(
    ("function", "code"),
    [
        *(("cuStreamSynchronize", code) for code in (1, 2, 400, 701, 801, *LOST)),
        *((name, code) for name in ("cuMemAlloc", "cuMemcpyHtoDAsync", "cuGraphLaunch") for code in (1, 2, 700, 801)),
        *(("cuMemHostRegister", code) for code in (1, 2, 700)),
    ],
)
def test_errors_are_ours(standin: Standin, pycuda: PycudaDevice, function: str, code: int) -> None:
    standin.allow("abandoned", "freed_in_use")
    with pycuda.current(), closing(Set(pycuda)) as things:
        graph = captured(things)
        standin.fail(function, code, times=None)
        errors = [outcome(operation) for operation in operations(pycuda, things, graph)]
    error = next(error for error in errors if error is not None)
    kind = DeviceMemoryError if code == 2 else DeviceLostError if code in LOST else BackendError
    assert type(error) is kind and one_line(error)
    assert "vidsr stand-in 0" in str(error) and f"({code}: " in str(error)
    assert f"{function} failed with CUDA_ERROR_" in str(error)


def session() -> None:
    """All that is ever asked of a device, so that any of it can fail."""
    device = PycudaDevice(0)
    with closing(device), device.current(), closing(Set(device)) as things:
        device.free_bytes()
        things.copy()
        things.event.record(things.stream)
        things.event.wait()
        graph = things.capture()
        if graph is not None:
            graph.launch()
        things.stream.wait()


FUNCTIONS = [
    "cuDeviceGet", "cuDeviceGetName", "cuDeviceTotalMem", "cuDeviceGetAttribute", "cuDevicePrimaryCtxRetain",
    "cuCtxPushCurrent", "cuMemGetInfo", "cuMemAlloc", "cuMemHostRegister", "cuStreamCreate", "cuEventCreate",
    "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuEventRecord", "cuEventSynchronize", "cuStreamSynchronize",
    "cuStreamBeginCapture", "cuGraphInstantiate", "cuGraphLaunch",
]  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("code", [1, 2])
def test_nothing_leaks_whichever_call_fails(standin: Standin, function: str, code: int) -> None:
    session()
    calls = standin.calls(function)
    assert calls > 0
    for nth in range(1, calls + 1):
        standin.reset()
        standin.fail(function, code, nth=nth)
        error = outcome(session)
        assert error is None or one_line(error)
        gc.collect()
        assert not any(standin.live().values()), f"call {nth}: {standin.live()}"
        assert not any(standin.faults().values()), f"call {nth}: {standin.faults()}"


@pytest.mark.parametrize("stack", [False, True], ids=["all", "all-but-the-stack"])
@pytest.mark.parametrize("found", ["inside", "outside"])
def test_a_lost_device(standin: Standin, capfd: pytest.CaptureFixture[str], stack: bool, found: str) -> None:
    """In a thread: pycuda ends the process with a thread whose contexts it could not take back."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            device = PycudaDevice(0)
            with ExitStack() as current:
                current.enter_context(device.current())
                current.enter_context(device.current())
                things = Set(device)
                graph = captured(things)
                things.copy()
                if found == "outside":
                    current.close()
                standin.lose(719, stack=stack)
                for _ in range(2):
                    with device.current():
                        for operation in operations(device, things, graph):
                            with pytest.raises(DeviceLostError, match="start again") as caught:
                                operation()
                            assert one_line(caught.value)
                with device.current():
                    things.close()
                    things.close()
            device.close()
            device.close()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures
    live = standin.live()
    if not stack:
        assert live.pop("pushed") <= 1, "what nobody can pop any more"
        standin.allow("live")
    assert not any(live.values())
    assert capfd.readouterr().err.count("\n") <= 4, "pycuda's word on a context that it could not release"


@pytest.mark.parametrize("stack", [False, True], ids=["all", "all-but-the-stack"])
def test_a_device_is_lost_to_all_threads(standin: Standin, stack: bool) -> None:
    device = PycudaDevice(0)
    inside, lost = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with device.current():
                things = Set(device)
                inside.set()
                assert lost.wait(60)
                with pytest.raises(DeviceLostError):
                    things.stream.wait()
                things.close()
            with device.current(), pytest.raises(DeviceLostError):
                device.stream()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(60)
    with device.current():
        standin.lose(700, stack=stack)
        with pytest.raises(DeviceLostError):
            device.free_bytes()
    lost.set()
    thread.join()
    device.close()
    assert not failures
    live = standin.live()
    if not stack:
        assert live.pop("pushed") <= 1, "what nobody can pop any more"
        standin.allow("live")
    assert not any(live.values())


def test_work_on_memory_that_is_gone_loses_the_device(standin: Standin, pycuda: PycudaDevice) -> None:
    standin.allow("live")  # The context that nobody can pop any more.
    with pycuda.current(), closing(Set(pycuda)) as things:
        graph = captured(things)
        things.memory.close()
        graph.launch()
        with pytest.raises(DeviceLostError, match="CUDA_ERROR_ILLEGAL_ADDRESS"):
            things.stream.wait()


# -- Captures that cannot be


def test_what_the_driver_does_not_capture_is_none(standin: Standin, pycuda_things: Set) -> None:
    standin.allow("capture_errors")
    things = pycuda_things
    for disturb in (things.stream.wait, things.event.wait):

        def work(disturb: Callable[[], None] = disturb) -> None:
            things.copy()
            disturb()

        assert things.stream.capture(work) is None
    things.source.array[:] = noise(6)
    things.copy()
    things.stream.wait()
    np.testing.assert_array_equal(things.target.array, noise(6))
    assert things.capture() is not None


@pytest.mark.parametrize("function", ["cuStreamBeginCapture", "cuGraphInstantiate"])
def test_graphs_that_are_refused_are_none(standin: Standin, pycuda_things: Set, function: str) -> None:
    standin.fail(function, 801)
    assert pycuda_things.capture() is None
    pycuda_things.copy()
    pycuda_things.stream.wait()
    assert pycuda_things.capture() is not None


def test_a_device_that_is_lost_in_a_capture(standin: Standin, pycuda_things: Set) -> None:
    standin.fail("cuMemcpyHtoDAsync", 700)
    with pytest.raises(DeviceLostError):
        pycuda_things.capture()
    standin.allow("abandoned")


def test_an_error_of_the_work_is_not_the_drivers(standin: Standin, pycuda_things: Set) -> None:
    def work() -> None:
        raise BackendError("of the work")

    with pytest.raises(BackendError, match="of the work"):
        pycuda_things.stream.capture(work)


def test_without_cuda_bindings_nothing_is_captured(pycuda_things: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    assert pycuda_things.capture() is None


# -- What is missing


def test_pycuda_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    assert "pip install pycuda" in str(lack()) and count() == 0
    with pytest.raises(BackendError, match="pip install pycuda"):
        PycudaDevice(0)


def test_cards_are_counted(standin: Standin) -> None:
    assert lack() is None and count() == 2
    with pytest.raises(BackendError, match=r"card 2.*CUDA_ERROR_INVALID_DEVICE"):
        PycudaDevice(2)
    standin.devices(0)
    assert "no card" in str(lack()) and count() == 0


@pytest.mark.parametrize(
    ("code", "says"), [(100, "finds no card"), (803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"), (999, "999")]
)
def test_a_driver_that_does_not_start(standin: Standin, code: int, says: str) -> None:
    standin.fail("cuInit", code, times=None)
    reason = lack()
    assert reason and says in reason and "\n" not in reason
    assert count() == 0
