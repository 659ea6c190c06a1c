"""What `vidsr.backends.cuda.Device` promises, for everything that fulfils it."""

from __future__ import annotations

import gc
import mmap
import threading
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from tests.cuda.standin import real_driver
from tests.cuda.things import SIZE, Set, captured, noise, one_line
from vidsr.backends.cuda import Device
from vidsr.backends.cuda.pycuda_device import PycudaDevice, lack
from vidsr.errors import DeviceMemoryError


def pycuda_on_card() -> Device:
    if reason := lack():
        pytest.skip(reason)
    return PycudaDevice(0)


def torch_on_card() -> Device:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    return pytest.importorskip("vidsr.backends.cuda.torch_device").TorchDevice(0)  # type: ignore[no-any-return]


@pytest.fixture(params=["pycuda-standin", "pycuda-card", "torch-card"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    made: Device
    if request.param == "pycuda-standin":
        request.getfixturevalue("standin")
        made = PycudaDevice(0)
    elif not real_driver():
        pytest.skip("needs an NVIDIA card")
    else:
        made = pycuda_on_card() if request.param == "pycuda-card" else torch_on_card()
    yield made
    made.close()


@pytest.fixture
def things(device: Device) -> Iterator[Set]:
    with device.current(), closing(Set(device)) as made:
        yield made


# -- What everyone promises


def test_says_what_it_is(device: Device) -> None:
    assert device.index == 0 and device.name and device.driver
    assert device.capability >= (5, 0) and device.multiprocessors > 0
    with device.current():
        assert 0 < device.free_bytes() <= device.total_bytes


def test_memory_lies_as_promised(things: Set) -> None:
    assert things.memory.address % 256 == 0 and things.memory.size == SIZE
    for pinned in (things.source, things.target):
        assert pinned.array.shape == (SIZE,) and pinned.array.dtype == np.uint8
        assert pinned.array.ctypes.data % mmap.PAGESIZE == 0


def test_bytes_come_back(things: Set) -> None:
    for seed in range(3):
        things.source.array[:] = noise(seed)
        things.copy()
        things.stream.wait()
        np.testing.assert_array_equal(things.target.array, noise(seed))


def test_an_event_is_a_mark(device: Device, things: Set) -> None:
    things.source.array[:] = noise(1)
    things.copy()
    things.event.record(things.stream)
    things.event.wait()
    np.testing.assert_array_equal(things.target.array, noise(1))
    things.event.wait()
    with closing(device.event()) as never:
        never.wait()


def test_one_stream_goes_on_where_another_ended(device: Device, things: Set) -> None:
    with closing(Set(device)) as other:
        things.source.array[:] = noise(2)
        things.stream.copy_in(things.memory, things.source)
        things.event.record(things.stream)
        things.event.wait()
        other.stream.copy_out(other.target, things.memory)
        other.stream.wait()
        np.testing.assert_array_equal(other.target.array, noise(2))


def test_copies_only_between_equal_sizes(device: Device, things: Set) -> None:
    with closing(device.pinned(SIZE - 1)) as small, pytest.raises(ValueError, match=str(SIZE)):
        things.stream.copy_in(things.memory, small)


def test_a_graph_takes_the_bytes_of_the_day(things: Set) -> None:
    graph = captured(things)
    for seed in range(3):
        things.source.array[:] = noise(seed)
        graph.launch()
        things.event.record(things.stream)
        things.event.wait()
        np.testing.assert_array_equal(things.target.array, noise(seed))


def test_capturing_runs_nothing(things: Set) -> None:
    things.source.array[:] = 1
    captured(things)
    things.stream.wait()
    assert not things.target.array.any()


def test_an_exception_ends_a_capture(things: Set) -> None:
    def fail() -> None:
        things.copy()
        raise LookupError("of the work")

    captured(things)
    with pytest.raises(LookupError, match="of the work"):
        things.stream.capture(fail)
    things.source.array[:] = noise(4)
    things.copy()
    things.stream.wait()
    np.testing.assert_array_equal(things.target.array, noise(4))
    assert things.capture() is not None


def test_current_may_be_nested(device: Device) -> None:
    with device.current():
        with device.current():
            inner = Set(device)
        inner.copy()
        inner.stream.wait()
        inner.close()
    with device.current():
        assert device.free_bytes() > 0


def test_every_thread_has_its_own_current(device: Device) -> None:
    failures: list[BaseException] = []
    together = threading.Barrier(4)

    def work(seed: int) -> None:
        try:
            together.wait()
            with device.current(), closing(Set(device)) as mine:
                for index in range(20):
                    mine.source.array[:] = noise(100 * seed + index)
                    mine.copy()
                    mine.event.record(mine.stream)
                    mine.event.wait()
                    np.testing.assert_array_equal(mine.target.array, noise(100 * seed + index))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_pinned_memory_outlives_its_lock(device: Device) -> None:
    with device.current():
        pinned = device.pinned(SIZE)
        plane = pinned.array[100:200]
        plane[:] = 5
        pinned.close()
        pinned.close()
    array = pinned.array
    del pinned
    gc.collect()
    array[:100] = 6
    assert (plane == 5).all()


def test_closing_twice_is_harmless(device: Device) -> None:
    with device.current():
        things = Set(device)
        graph = things.capture()
        for _ in range(2):
            if graph is not None:
                graph.close()
            for thing in (things.event, things.stream, things.memory, things.source, things.target):
                thing.close()
    device.close()
    device.close()


def test_memory_ends(device: Device) -> None:
    with device.current():
        with pytest.raises(DeviceMemoryError) as caught:
            device.allocate(1 << 50)
        assert one_line(caught.value) and device.name in str(caught.value)
        with closing(Set(device)) as things:
            things.copy()
            things.stream.wait()
