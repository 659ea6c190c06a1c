"""A card driven by torch alone, for people without pycuda. Read with torch 2.13's sources; older ones from 2.5 on.

Page-locked memory is ours, registered with CUDA, and not torch's: torch keeps such memory for itself when nobody uses
it, and records events when it is let go, which on a lost card ends the process.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

from vidsr.backends.cuda.device import Graph, Memory, Pinned, Stream, lockable
from vidsr.errors import BackendError, DeviceLostError, DeviceMemoryError
from vidsr.nvidia import driver_version

__all__ = ["TorchDevice", "reported"]

_PORTABLE = 1  # cudaHostRegisterPortable
_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation
_CANNOT_LOCK = (800, 801)  # cudaErrorNotPermitted, cudaErrorNotSupported
_MEMORY = ("out of memory", "ALLOC_FAILED")
_LOST = (
    "illegal memory access",
    "illegal instruction",
    "illegal address",
    "invalid program counter",
    "misaligned address",
    "hardware stack error",
    "launch failure",
    "launch timed out",
    "device-side assert",
    "uncorrectable",
    "context is destroyed",
    "address space",
    "busy or unavailable",
    "driver shutting down",
    "unknown error",
)
"""Parts of the texts of errors after which CUDA refuses everything else in this process."""


class _CaptureError(BackendError):
    """Something that cannot be captured into a graph."""


class TorchMemory:
    """See `vidsr.backends.cuda.Memory`."""

    def __init__(self, size: int, device: TorchDevice) -> None:
        self.size = size
        with reported(device.label):
            self.tensor: torch.Tensor | None = torch.empty(size, dtype=torch.uint8, device=device.place)
        self.address = self.tensor.data_ptr()

    def close(self) -> None:
        self.tensor = None


class TorchPinned:
    """See `vidsr.backends.cuda.Pinned`.

    Where the platform cannot lock memory that is there already, it stays ordinary memory: copies of that are slower
    and wait, but are right.
    """

    def __init__(self, size: int, device: TorchDevice) -> None:
        self.array = lockable(size)
        self.tensor = torch.from_numpy(self.array)
        self._place = device.place
        with reported(device.label):
            self._runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
            code = self._runtime.cudaHostRegister(self.tensor.data_ptr(), size, _PORTABLE)
        self._registered = int(code) == 0
        if not self._registered:
            self._forget_error()
            if int(code) not in _CANNOT_LOCK:
                text = f"{size / 2**20:.0f} MiB cannot be page-locked ({self._runtime.cudaGetErrorString(code)})"
                raise (DeviceMemoryError if int(code) == _OUT_OF_MEMORY else BackendError)(f"{device.label}: {text}")

    def close(self) -> None:
        if self._registered:
            self._registered = False
            with suppress(RuntimeError):
                if int(self._runtime.cudaHostUnregister(self.tensor.data_ptr())):
                    self._forget_error()

    def _forget_error(self) -> None:
        """CUDA remembers the last error, and torch's next kernel would report it as its own."""
        with suppress(RuntimeError):
            torch.zeros(1, device=self._place).add_(1)


class TorchGraph:
    """See `vidsr.backends.cuda.Graph`."""

    def __init__(self, graph: torch.cuda.CUDAGraph, queue: torch.cuda.Stream, label: str) -> None:
        self._graph: torch.cuda.CUDAGraph | None = graph
        self._queue, self._label = queue, label

    def launch(self) -> None:
        assert self._graph is not None
        with reported(self._label), torch.cuda.stream(self._queue):
            self._graph.replay()

    def close(self) -> None:
        graph, self._graph = self._graph, None
        if graph is not None:
            try:
                graph.reset()
            except RuntimeError:
                _keep_for_ever(graph)


class TorchStream:
    """See `vidsr.backends.cuda.Stream`. One of the 32 that torch has for a card and hands out in turn."""

    def __init__(self, device: TorchDevice) -> None:
        self._label = device.label
        with reported(device.label):
            self.queue = torch.cuda.Stream(device.place)  # type: ignore[no-untyped-call]
        self.handle: int = self.queue.cuda_stream

    def copy_in(self, target: Memory, source: Pinned) -> None:
        assert isinstance(target, TorchMemory)
        assert isinstance(source, TorchPinned)
        self._copy(target.tensor, source.tensor)

    def copy_out(self, target: Pinned, source: Memory) -> None:
        assert isinstance(target, TorchPinned)
        assert isinstance(source, TorchMemory)
        self._copy(target.tensor, source.tensor)

    def _copy(self, target: torch.Tensor | None, source: torch.Tensor | None) -> None:
        assert target is not None
        assert source is not None
        if target.numel() != source.numel():
            raise ValueError(f"cannot copy {source.numel()} bytes to {target.numel()}")
        with reported(self._label), torch.cuda.stream(self.queue):
            target.copy_(source, non_blocking=True)

    def capture(self, work: Callable[[], Any]) -> Graph | None:
        """Not by `torch.cuda.graph`, which waits for the whole card, and so for other threads' frames."""
        graph = torch.cuda.CUDAGraph()
        pool = torch.cuda.graph_pool_handle()
        with torch.cuda.stream(self.queue):
            try:
                # What ran before left memory in torch's hands that a graph, which has its own, cannot take.
                torch.cuda.empty_cache()
                graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            except RuntimeError:
                _abandon(graph, pool, self.queue.device_index)
                return None
            try:
                work()
            except BaseException as error:
                if self._end(graph, pool):
                    TorchGraph(graph, self.queue, self._label).close()
                if isinstance(error, _CaptureError):
                    return None
                raise
            return TorchGraph(graph, self.queue, self._label) if self._end(graph, pool) else None

    def _end(self, graph: torch.cuda.CUDAGraph, pool: Any) -> bool:
        """Whether a capture ended well."""
        try:
            graph.capture_end()
        except RuntimeError:
            _abandon(graph, pool, self.queue.device_index)
            return False
        return True

    def wait(self) -> None:
        with reported(self._label):
            self.queue.synchronize()

    def close(self) -> None:
        """It goes back to torch by itself."""


class TorchEvent:
    """See `vidsr.backends.cuda.Event`. Its waits sleep: torch's default keeps a core busy that an encoder could use."""

    def __init__(self, device: TorchDevice) -> None:
        self._label = device.label
        with reported(device.label):
            self._event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]

    def record(self, stream: Stream) -> None:
        assert isinstance(stream, TorchStream)
        with reported(self._label):
            self._event.record(stream.queue)

    def wait(self) -> None:
        with reported(self._label):
            self._event.synchronize()

    def close(self) -> None:
        """torch destroys it with its object."""


class TorchDevice:
    """See `vidsr.backends.cuda.Device`. torch itself keeps the primary context, which all of the process shares."""

    def __init__(self, index: int) -> None:
        self.index, self.place, self.label = index, f"cuda:{index}", f"CUDA card {index}"
        with reported(self.label):
            properties = torch.cuda.get_device_properties(index)
        self.name: str = properties.name
        self.label += f" ({self.name})"
        self.capability = (int(properties.major), int(properties.minor))
        self.multiprocessors = int(properties.multi_processor_count)
        self.total_bytes = int(properties.total_memory)
        self.driver = "CUDA {}.{}".format(*(driver_version() or (0, 0)))

    @contextmanager
    def current(self) -> Iterator[None]:
        guard = torch.cuda.device(self.index)
        with reported(self.label):
            guard.__enter__()  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            with suppress(RuntimeError):
                guard.__exit__(None, None, None)

    def free_bytes(self) -> int:
        with reported(self.label):
            return int(torch.cuda.mem_get_info(self.index)[0])

    def allocate(self, size: int) -> TorchMemory:
        return TorchMemory(size, self)

    def pinned(self, size: int) -> TorchPinned:
        return TorchPinned(size, self)

    def stream(self) -> TorchStream:
        return TorchStream(self)

    def event(self) -> TorchEvent:
        return TorchEvent(self)

    def close(self) -> None:
        """torch keeps the memory it was given back; others in this process may need it."""
        with suppress(RuntimeError):
            torch.cuda.empty_cache()


@contextmanager
def reported(label: str) -> Iterator[None]:
    """Turns what torch raises into the seam's errors, one line each. label: of the device, for people."""
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        raise _translated(error, label) from error


def _translated(error: Exception, label: str) -> BackendError:
    lines = (line.strip() for line in str(error).splitlines())
    text = next((line for line in lines if line), type(error).__name__)[:300]
    if isinstance(error, torch.cuda.OutOfMemoryError) or any(part in text for part in _MEMORY):
        # What follows is advice for those who write programs.
        text = ". ".join(text.split(". ")[:2]).rstrip(".")
        return DeviceMemoryError(f"{label}: {text}; close other programs that use the card")
    if any(part in text for part in _LOST):
        return DeviceLostError(f"{label}: {text}; the card cannot be used any more in this process, start again")
    return (_CaptureError if "captur" in text else BackendError)(f"{label}: {text}")


def _abandon(graph: torch.cuda.CUDAGraph, pool: Any, index: int) -> None:
    """Tidies up behind a capture that failed half way, which torch does not.

    Its allocator still believes that a capture is going on, and asks the graph about each allocation.
    """
    with suppress(RuntimeError, AttributeError):  # where torch came further, it knows of the pool by itself
        torch._C._cuda_endAllocateToPool(index, pool)
        torch._C._cuda_releasePool(index, pool)
    with suppress(RuntimeError):
        graph.reset()
    _keep_for_ever(graph)


def _keep_for_ever(graph: torch.cuda.CUDAGraph) -> None:
    """Its destructor would try again what failed, and an error in there ends the process."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(graph))
