"""What tests of a device do with one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
import pytest

from vidsr.backends.cuda import Device, Event, Graph, Memory, Pinned, Stream
from vidsr.errors import BackendError

SIZE = 3 * 4096 + 5


class Set:
    """One of everything, in `current`; closed in the order the seam asks for."""

    def __init__(self, device: Device, size: int = SIZE) -> None:
        with ExitStack() as undo:
            self.source: Pinned = undo.enter_context(closing(device.pinned(size)))
            self.target: Pinned = undo.enter_context(closing(device.pinned(size)))
            self.memory: Memory = undo.enter_context(closing(device.allocate(size)))
            self.stream: Stream = undo.enter_context(closing(device.stream()))
            self.event: Event = undo.enter_context(closing(device.event()))
            self.source.array[:] = 0
            self.target.array[:] = 0
            self._undo = undo.pop_all()

    def copy(self) -> None:
        self.stream.copy_in(self.memory, self.source)
        self.stream.copy_out(self.target, self.memory)

    def capture(self) -> Graph | None:
        graph = self.stream.capture(self.copy)
        if graph is not None:
            self._undo.enter_context(closing(graph))
        return graph

    def close(self) -> None:
        self._undo.close()


def noise(seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, SIZE, np.uint8)


def outcome(operation: Callable[[], object]) -> BackendError | None:
    """The error, or None; what the operation makes is closed."""
    try:
        made: Any = operation()
    except BackendError as error:
        return error
    if hasattr(made, "close"):
        made.close()
    return None


def one_line(error: BaseException) -> bool:
    return bool(str(error)) and "\n" not in str(error)


def captured(things: Set) -> Graph:
    graph = things.capture()
    if graph is None:
        pytest.skip("needs cuda-bindings for graphs")
    return graph
