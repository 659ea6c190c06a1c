"""The seam between CUDA engines and the library that drives the card.

Everything but `Event.wait` and `Stream.wait` returns at once; those two release the GIL. All calls are made inside
`Device.current` in the calling thread. Every failure is a `BackendError`: `DeviceMemoryError` where memory ran out,
`DeviceLostError` where the card cannot be used any more in this process.

Whoever makes an object closes it, inside `Device.current`, in the order graph, event, stream, memory, pinned. Closing
never raises and may be repeated.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Device", "Event", "Graph", "Memory", "Pinned", "Stream", "lockable"]


def lockable(size: int) -> NDArray[np.uint8]:
    """uint8 [size]: memory of the host in pages of its own, as it has to be to be locked.

    Shared with what a fork makes: its pages are never copied aside, away from where the card looks.
    """
    return np.frombuffer(mmap.mmap(-1, size), np.uint8)


class Memory(Protocol):
    """Memory of the device. address: aligned to 256 bytes."""

    address: int
    size: int

    def close(self) -> None: ...


class Pinned(Protocol):
    """Page-locked memory of the host, portable between devices.

    array: uint8 [size], aligned to a page. After `close` it is ordinary memory, which lives as long as anyone holds it:
    a reader or encoder in another thread may still look at a plane.
    """

    array: NDArray[np.uint8]

    def close(self) -> None: ...


class Graph(Protocol):
    """Work that was captured from a stream."""

    def launch(self) -> None:
        """Enqueues it on the stream it was captured from."""

    def close(self) -> None: ...


class Stream(Protocol):
    """A queue of work that does not wait for the default stream. handle: cudaStream_t as an integer."""

    handle: int

    def copy_in(self, target: Memory, source: Pinned) -> None:
        """Enqueues a copy of the whole of `source`, which has the size of `target`."""

    def copy_out(self, target: Pinned, source: Memory) -> None:
        """Enqueues a copy of the whole of `source`, which has the size of `target`."""

    def capture(self, work: Callable[[], Any]) -> Graph | None:
        """What `work` enqueues on this stream as a graph; nothing of it runs now. None where that cannot be done.

        An exception of `work` ends the capture and goes on to the caller.
        """

    def wait(self) -> None:
        """Until all of it has run."""

    def close(self) -> None: ...


class Event(Protocol):
    """A mark in a stream."""

    def record(self, stream: Stream) -> None:
        """Marks the end of what is enqueued on `stream` now."""

    def wait(self) -> None:
        """Until the work before the last mark has run; at once where nothing was marked."""

    def close(self) -> None: ...


class Device(Protocol):
    """One card.

    name, driver: for people and for cache keys. capability: compute capability (major, minor).
    """

    index: int
    name: str
    capability: tuple[int, int]
    multiprocessors: int
    total_bytes: int
    driver: str

    def current(self) -> AbstractContextManager[None]:
        """Makes the primary context current in this thread; may be nested."""

    def free_bytes(self) -> int:
        """Memory of the device that nobody has taken."""

    def allocate(self, size: int) -> Memory: ...

    def pinned(self, size: int) -> Pinned: ...

    def stream(self) -> Stream: ...

    def event(self) -> Event: ...

    def close(self) -> None:
        """Gives the primary context back; not inside `current`."""
