"""CUDA through pycuda, which wraps the driver's own library.

pycuda's own page-locked memory is gone for everyone who still looks at it when it is freed, and never freed when the
last one to look is another thread (inducer/pycuda#305); its `register_host_memory` frees its own object too early with
today's numpy (inducer/pycuda#459). So memory is numpy's, and `libcuda` locks it for a while.

pycuda ends the process where it has to free something and cannot make a valid context current. So a device that is
lost gives its context up at once: pycuda lets the objects of a context that is not valid go without a word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidsr.backends.cuda.device import Graph, Memory, Pinned, Stream, lockable
from vidsr.backends.cuda.libcuda import LOST, NO_DEVICE, OUT_OF_MEMORY, Library
from vidsr.errors import BackendError, DeviceLostError, DeviceMemoryError
from vidsr.nvidia import driver_library

__all__ = ["PycudaDevice", "count", "lack"]

CANNOT_LOCK = (800, 801)
NON_BLOCKING = 1


def lack() -> str | None:
    """None where pycuda and a card can be used, else what is missing and what to do."""
    try:
        import pycuda  # noqa: F401
    except ImportError:
        return (
            "pycuda is not installed (pip install pycuda; it is compiled on the spot and needs CUDA's headers and a "
            "compiler)"
        )
    functions = driver_library()
    if functions is None:
        return "there is no NVIDIA driver here: install the one for the card"
    library = Library(functions)
    try:
        from pycuda import driver
    except ImportError as error:
        reason = str(error).splitlines()[0] if str(error) else "no reason given"
        return f"pycuda cannot be loaded ({reason}): pip install --force-reinstall --no-cache-dir pycuda"
    try:
        driver.init()
        cards = driver.Device.count()
    except driver.Error as error:
        code = library.code(error)
        if code != NO_DEVICE:
            reason = str(error) if code is None else library.describe(code)
            return f"CUDA does not start, {reason}: see whether nvidia-smi works"
        cards = 0
    return None if cards else "the NVIDIA driver finds no card"


def count() -> int:
    """How many cards there are; 0 where `lack` has something to say."""
    if lack():
        return 0
    from pycuda import driver

    return int(driver.Device.count())


class PycudaDevice:
    """See `vidsr.backends.cuda.Device`."""

    def __init__(self, index: int) -> None:
        missing, functions = lack(), driver_library()
        if missing or functions is None:
            raise BackendError(missing or "there is no NVIDIA driver here")
        from pycuda import driver

        self.pycuda: Any = driver
        self.library = Library(functions)
        self.index, self.name = index, ""
        self.locked: dict[int, NDArray[np.uint8]] = {}
        self._lost: str | None = None
        self._context: Any = None
        with self.calls():
            card = self.pycuda.Device(index)
            self.name = str(card.name())
            major, minor = card.compute_capability()
            self.capability = (int(major), int(minor))
            self.multiprocessors = int(card.get_attribute(self.pycuda.device_attribute.MULTIPROCESSOR_COUNT))
            self.total_bytes = int(card.total_memory())
            version = int(self.pycuda.get_driver_version())
            self.driver = f"CUDA {version // 1000}.{version % 1000 // 10}"
            self._context = card.retain_primary_context()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Of a device that is lost nothing is made current, and nothing raised: what is inside says it, and closes."""
        pushed = self._lost is None
        if pushed:
            try:
                with self.calls():
                    self._context.push()
            except DeviceLostError:
                pushed = False
        try:
            yield
        finally:
            if pushed:
                self._pop()

    def _pop(self) -> None:
        try:
            self._context.pop()
        except self.pycuda.Error as error:
            # pycuda keeps what it could not pop, and would end the process with this thread for it.
            if self._lost is None:
                self._lose(f"{self._card}: {error}")
            self.pycuda.Context.get_current()

    @contextmanager
    def calls(self) -> Iterator[None]:
        """Errors of pycuda inside become ours; raises at once where the device is lost."""
        if self._lost is not None:
            raise DeviceLostError(self._lost)
        try:
            yield
        except self.pycuda.Error as error:
            function = re.match(r"\w*", str(error))
            name, code = function[0] if function else "", self.library.code(error)
            if code is None:
                code = OUT_OF_MEMORY if isinstance(error, self.pycuda.MemoryError) else 0
            raise (self.error(code, name) if code else BackendError(f"{self._card}: {error}")) from error

    def error(self, code: int, function: str) -> BackendError:
        """What to raise where a function of CUDA answered `code`; remembers a loss."""
        line = f"{self._card}: {function} failed with {self.library.describe(code)}"
        if code == OUT_OF_MEMORY:
            return DeviceMemoryError(f"{line}; close other programs that use the card")
        if code not in LOST:
            return BackendError(line)
        line += "; the card cannot be used any more in this process, start again"
        if self._lost is None:
            self._lose(line)
        return DeviceLostError(line)

    @property
    def _card(self) -> str:
        return f"CUDA card {self.index} ({self.name})" if self.name else f"CUDA card {self.index}"

    @property
    def lost(self) -> bool:
        return self._lost is not None

    def _lose(self, line: str) -> None:
        self._lost = line
        self._detach()

    def _detach(self) -> None:
        """Gives the context up, in whatever thread; safe to repeat."""
        with suppress(self.pycuda.Error):
            if self._context is not None:
                self._context.detach()
                self.library.pop(self._context.handle)

    def free_bytes(self) -> int:
        with self.calls():
            return int(self.pycuda.mem_get_info()[0])

    def allocate(self, size: int) -> PycudaMemory:
        return PycudaMemory(self, size)

    def pinned(self, size: int) -> PycudaPinned:
        return PycudaPinned(self, size)

    def stream(self) -> PycudaStream:
        return PycudaStream(self)

    def event(self) -> PycudaEvent:
        return PycudaEvent(self)

    def close(self) -> None:
        if self._context is None:
            return
        if self._lost is None:
            with suppress(self.pycuda.Error):
                # Without it pycuda gives back only in the thread that took.
                self._context.push()
        self._detach()
        self._context = None


class PycudaMemory:
    """See `vidsr.backends.cuda.Memory`."""

    def __init__(self, device: PycudaDevice, size: int) -> None:
        with device.calls():
            self._allocation: Any = device.pycuda.mem_alloc(size)
        self.address, self.size = int(self._allocation), size

    def close(self) -> None:
        allocation, self._allocation = self._allocation, None
        if allocation is not None:
            with suppress(Exception):
                allocation.free()


class PycudaPinned:
    """See `vidsr.backends.cuda.Pinned`.

    Where the platform cannot lock memory that is there already, it stays ordinary memory: copies of that are slower
    and wait, but are right. Memory that is locked and not closed is never freed, as the driver would go on using it.
    """

    def __init__(self, device: PycudaDevice, size: int) -> None:
        self.array = lockable(size)
        self._device = device
        with device.calls():
            code = device.library.lock(self.array.ctypes.data, size)
        if code and code not in CANNOT_LOCK:
            raise device.error(code, "cuMemHostRegister")
        if not code:
            device.locked[self.array.ctypes.data] = self.array

    def close(self) -> None:
        locked = self._device.locked.pop(self.array.ctypes.data, None) is not None
        if locked and not self._device.lost:
            self._device.library.unlock(self.array.ctypes.data)


class PycudaStream:
    """See `vidsr.backends.cuda.Stream`. Holds whatever it copied to or from until it is closed."""

    def __init__(self, device: PycudaDevice) -> None:
        self._device = device
        self._held: set[object] = set()
        with device.calls():
            self.raw: Any = device.pycuda.Stream(NON_BLOCKING)
        self.handle = int(self.raw.handle)

    def copy_in(self, target: Memory, source: Pinned) -> None:
        self._hold(target, source)
        with self._device.calls():
            self._device.pycuda.memcpy_htod_async(target.address, source.array, self.raw)

    def copy_out(self, target: Pinned, source: Memory) -> None:
        self._hold(source, target)
        with self._device.calls():
            self._device.pycuda.memcpy_dtoh_async(target.array, source.address, self.raw)

    def _hold(self, memory: Memory, pinned: Pinned) -> None:
        if pinned.array.nbytes != memory.size:
            raise ValueError(f"cannot copy between {pinned.array.nbytes} and {memory.size} bytes")
        self._held.update((memory, pinned))

    def capture(self, work: Callable[[], Any]) -> Graph | None:
        """Through cuda-bindings, as pycuda has nothing for it; None without them."""
        try:
            from cuda.bindings import driver as cuda
        except ImportError:
            return None
        with self._device.calls():
            mode = cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
            if self._refused("cuStreamBeginCapture", cuda.cuStreamBeginCapture(cuda.CUstream(self.handle), mode)[0]):
                return None
        try:
            work()
        except BaseException as error:
            if self._device.lost:
                raise
            captured = self._captured(cuda)
            if captured is not None:
                cuda.cuGraphDestroy(captured)
            elif isinstance(error, BackendError):
                return None  # It was the driver that did not want it.
            raise
        captured = self._captured(cuda)
        if captured is None:
            return None
        code, executable = cuda.cuGraphInstantiate(captured, 0)
        cuda.cuGraphDestroy(captured)
        return None if self._refused("cuGraphInstantiate", code) else PycudaGraph(self._device, self, cuda, executable)

    def _captured(self, cuda: Any) -> Any:
        """Ends a capture. None where the driver found something in it that cannot be captured."""
        code, captured = cuda.cuStreamEndCapture(cuda.CUstream(self.handle))
        return None if self._refused("cuStreamEndCapture", code) else captured

    def _refused(self, function: str, code: Any) -> bool:
        if int(code) in LOST:
            raise self._device.error(int(code), function)
        return bool(int(code))

    def wait(self) -> None:
        with self._device.calls():
            self.raw.synchronize()

    def close(self) -> None:
        """Waits, so that nothing it copies to or from is freed under a copy."""
        if self.raw is not None:
            with suppress(BackendError):
                self.wait()
        self.raw = None
        self._held.clear()


class PycudaGraph:
    """See `vidsr.backends.cuda.Graph`."""

    def __init__(self, device: PycudaDevice, stream: PycudaStream, cuda: Any, executable: Any) -> None:
        self._device, self._stream, self._cuda, self._executable = device, stream, cuda, executable
        self._handle = cuda.CUstream(stream.handle)

    def launch(self) -> None:
        with self._device.calls():
            code = int(self._cuda.cuGraphLaunch(self._executable, self._handle)[0])
        if code:
            raise self._device.error(code, "cuGraphLaunch")

    def close(self) -> None:
        executable, self._executable = self._executable, None
        if executable is not None and not self._device.lost:
            self._cuda.cuGraphExecDestroy(executable)


class PycudaEvent:
    """See `vidsr.backends.cuda.Event`."""

    def __init__(self, device: PycudaDevice) -> None:
        self._device = device
        with device.calls():
            flags = device.pycuda.event_flags
            # Without BLOCKING_SYNC a wait spins, and takes a core from decoder and encoder.
            self._raw: Any = device.pycuda.Event(flags.DISABLE_TIMING | flags.BLOCKING_SYNC)

    def record(self, stream: Stream) -> None:
        assert isinstance(stream, PycudaStream)
        with self._device.calls():
            self._raw.record(stream.raw)

    def wait(self) -> None:
        with self._device.calls():
            self._raw.synchronize()

    def close(self) -> None:
        self._raw = None
