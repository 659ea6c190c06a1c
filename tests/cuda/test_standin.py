"""The stand-in for the CUDA driver itself: a test on it is worth what it refuses."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.cuda.standin import Standin


@pytest.fixture
def driver(standin: Standin) -> Iterator[Any]:
    """pycuda itself, with a context that is current."""
    from pycuda import driver

    driver.init()
    context = driver.Device(0).retain_primary_context()
    context.push()
    yield driver
    context.detach()
    standin.allow("live")  # pycuda leaves the context on the stack.


def test_queries_wait_for_nobody(driver: Any) -> None:
    stream, event, target = driver.Stream(1), driver.Event(), driver.pagelocked_empty(8, np.uint8)
    memory = driver.mem_alloc(8)
    driver.memset_d8_async(int(memory), 7, 8, stream)
    driver.memcpy_dtoh_async(target, memory, stream)
    event.record(stream)
    for _ in range(2):
        assert not stream.is_done() and not event.query() and not (target == 7).all()
    event.synchronize()
    assert stream.is_done() and event.query() and (target == 7).all()


def test_a_stream_waits_for_an_event_of_another(standin: Standin, driver: Any) -> None:
    first, second, event = driver.Stream(1), driver.Stream(1), driver.Event()
    done: list[str] = []
    standin.call(int(first.handle), lambda: done.append("first"))
    event.record(first)
    standin.call(int(first.handle), lambda: done.append("behind the mark"))
    second.wait_for_event(event)
    standin.call(int(second.handle), lambda: done.append("second"))
    second.synchronize()
    assert done == ["first", "second"]
    driver.Context.synchronize()
    assert done == ["first", "second", "behind the mark"]


def test_an_ordinary_array_is_noticed(standin: Standin, driver: Any) -> None:
    stream, memory = driver.Stream(1), driver.mem_alloc(8)
    source, target = np.full(8, 3, np.uint8), np.zeros(8, np.uint8)
    driver.memcpy_htod_async(memory, source, stream)
    source[:] = 4
    driver.memcpy_dtoh_async(target, memory, stream)
    assert (target == 3).all() and standin.faults()["unpinned_copies"] == 2
    standin.allow("unpinned_copies")


def test_memory_freed_under_work_is_noticed(standin: Standin, driver: Any) -> None:
    stream, memory, target = driver.Stream(1), driver.mem_alloc(8), driver.pagelocked_empty(8, np.uint8)
    target[:] = 1
    driver.memset_d8_async(int(memory), 7, 8, stream)
    driver.memcpy_dtoh_async(target, memory, stream)
    memory.free()
    stream.synchronize()
    assert (target == 1).all() and standin.faults()["freed_in_use"] == 1
    standin.allow("freed_in_use")


def test_a_copy_beyond_its_memory_is_the_end(standin: Standin, driver: Any) -> None:
    stream, memory, source = driver.Stream(1), driver.mem_alloc(8), driver.pagelocked_empty(9, np.uint8)
    driver.memcpy_htod_async(memory, source, stream)
    for _ in range(2):
        with pytest.raises(driver.LogicError, match="illegal memory access"):
            stream.synchronize()
    with pytest.raises(driver.LogicError, match="illegal memory access"):
        driver.mem_alloc(8)


def test_work_names_the_memory_it_uses(standin: Standin, driver: Any) -> None:
    stream, memory, done = driver.Stream(1), driver.mem_alloc(8), []
    uses = [(int(memory), 8)]
    standin.call(int(stream.handle), lambda: done.append(1), uses)
    memory.free()
    assert standin.faults()["freed_in_use"] == 1
    stream.synchronize()
    standin.call(int(stream.handle), lambda: done.append(2), uses)
    with pytest.raises(driver.LogicError, match="illegal memory access"):
        stream.synchronize()
    assert not done
    standin.allow("freed_in_use")


def test_locking_twice_is_refused(standin: Standin, driver: Any) -> None:
    array = np.zeros(8192, np.uint8)
    address, library = array.ctypes.data, standin.library

    register = [ctypes.c_void_p(address), ctypes.c_size_t(8192), 1]
    codes = [library.cuMemHostRegister_v2(*register), library.cuMemHostRegister_v2(*register)]
    codes += [library.cuMemHostUnregister(register[0]), library.cuMemHostUnregister(register[0])]
    assert codes == [0, 712, 0, 713] and standin.faults()["bad_frees"] == 1
    standin.allow("bad_frees")


def test_failures_hit_the_calls_they_are_meant_for(standin: Standin, driver: Any) -> None:
    driver.Stream(1)
    standin.fail("cuStreamCreate", 304, nth=2)
    streams = [driver.Stream(1)]
    with pytest.raises(driver.LogicError, match="OS call failed"):
        driver.Stream(1)
    streams.append(driver.Stream(1))
    assert standin.calls("cuStreamCreate") == 4


def test_memory_has_a_limit(standin: Standin, driver: Any) -> None:
    standin.limit(1000)
    first = driver.mem_alloc(600)
    assert driver.mem_get_info() == (400, 1000)
    with pytest.raises(driver.MemoryError):
        driver.mem_alloc(401)
    first.free()
    driver.mem_alloc(1000)


def test_python_work_and_the_interpreter_never_wait_for_each_other(standin: Standin) -> None:
    """Threads that hold Python's lock in the driver, while others run work that takes it."""
    from pycuda import driver

    driver.init()
    context = driver.Device(0).retain_primary_context()
    done: list[int] = []
    together = threading.Barrier(4)
    shared: list[Any] = []

    def work(index: int) -> None:
        context.push()
        try:
            if index == 0:
                shared.append(driver.Stream(1))
            together.wait()
            for _ in range(200):
                memory = driver.mem_alloc(64)
                standin.call(int(shared[0].handle), lambda: done.append(index))
                event = driver.Event()
                event.record(shared[0])
                shared[0].is_done()
                event.synchronize()
                memory.free()
                del event
            together.wait()
            if index == 0:
                shared.clear()
        finally:
            context.pop()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == sorted([0, 1, 2, 3] * 200)
    context.detach()
    standin.allow("live")
