"""An engine on a card: what every library that runs a model there has in common."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vidsr.backends.base import Slot
from vidsr.backends.cuda.device import Device, Event, Graph, Stream
from vidsr.errors import BackendError, DeviceMemoryError
from vidsr.frame import FrameLayout, Plane
from vidsr.graph import CODES_FROM_RGB, RGB_FROM_CODES, Planes, PlaneTensor, plane_tensors

__all__ = ["CudaEngine", "Program", "Run", "border_tensors"]

_ALIGNMENT = 256


class Run(Protocol):
    """A program bound to the tensors of one slot. Used and closed inside `Device.current`."""

    def enqueue(self) -> None:
        """Puts one run on the stream it is bound to. Raises BackendError."""

    def close(self) -> None: ...


class Program(Protocol):
    """A model ready for one device and one pair of layouts. planes: how they lie at its border."""

    description: str
    planes: Planes

    def bind(self, stream: Stream, addresses: Mapping[str, int]) -> Run:
        """addresses: of every input and output on the device, by the tensor's name. Raises BackendError."""

    def close(self) -> None: ...


class CudaEngine:
    """Every slot has its own page-locked planes, device memory, stream, run and event, and where it can be captured
    one graph that copies in, runs and copies out.

    All inputs of a slot lie in one block, as do its outputs, so that a frame is one copy in each direction.
    `submit` never waits. Frames come out as they went in, because each slot is waited for by itself.

    Takes `device` and `program` over and closes them, also when this fails. Memory for one slot is taken at once, so
    that a model too large for the device is found here.
    """

    def __init__(self, device: Device, program: Program, source: FrameLayout, target: FrameLayout) -> None:
        self.source, self.target, self.description = source, target, program.description
        self.in_flight = 16
        self._device, self._program = device, program
        self._flights: list[_Flight] = []
        # Also for who forgets to: what is left would be freed outside the context, and its memory locked for ever.
        self._freeing = weakref.finalize(self, _free, device, program, self._flights)
        self._given, self._made = border_tensors(source, target, program.planes)
        try:
            with device.current():
                self._spare = [self._slot()]
        except BaseException:
            self.close()
            raise

    def slots(self, count: int) -> Sequence[Slot]:
        """Fewer than `count`, but at least one, where the device's memory ends."""
        slots, self._spare = self._spare[:count], self._spare[count:]
        with self._device.current():
            while len(slots) < count:
                try:
                    slots.append(self._slot())
                except DeviceMemoryError:
                    if not slots:
                        raise
                    break
        return slots

    def submit(self, slot: Slot) -> None:
        flight: _Flight = slot.handle
        flight.convert("in")
        with self._device.current():
            flight.launch()

    def wait(self, slot: Slot) -> None:
        flight: _Flight = slot.handle
        with self._device.current():
            flight.done.wait()
        flight.convert("out")

    def close(self) -> None:
        self._freeing()

    def _slot(self) -> Slot:
        flight = _Flight(self._device, self._program, self._given, self._made)
        self._flights.append(flight)
        inward, outward = (flight.staged[tensor.name].view(np.float32).reshape(tensor.shape) for tensor in _MATRICES)
        slot = Slot(flight.planes(self.source, "in"), flight.planes(self.target, "out"), inward, outward, flight)
        for plane in (*slot.input, *slot.output):
            plane.fill(0)
        return slot


def _free(device: Device, program: Program, flights: list[_Flight]) -> None:
    with ExitStack() as current:
        # A lost device has no context to enter; what is left is given back all the same.
        with suppress(BackendError):
            current.enter_context(device.current())
        for flight in reversed(flights):
            flight.close()
        flights.clear()
        program.close()
    device.close()


def border_tensors(
    source: FrameLayout, target: FrameLayout, planes: Planes
) -> tuple[list[PlaneTensor], list[PlaneTensor]]:
    """(inputs, outputs) of an engine's program, in the order in which they lie in a slot's memory."""
    return [*plane_tensors("in", source, planes), *_MATRICES], [*plane_tensors("out", target, planes)]


_MATRICES = [
    PlaneTensor(name=name, shape=(3, 4), dtype=np.dtype(np.float32)) for name in (RGB_FROM_CODES, CODES_FROM_RGB)
]


class _Flight:
    """What one slot has on the device. Made, launched and closed inside `Device.current`."""

    done: Event

    def __init__(
        self, device: Device, program: Program, given: Sequence[PlaneTensor], made: Sequence[PlaneTensor]
    ) -> None:
        self.staged: dict[str, NDArray[np.uint8]] = {}
        self._tensors = {tensor.name: tensor for tensor in (*given, *made)}
        self._copies: dict[str, list[tuple[Plane, Plane]]] = {"in": [], "out": []}
        (places_in, size_in), (places_out, size_out) = _placed(given), _placed(made)
        places, sizes = (places_in, places_out), (size_in, size_out)
        with ExitStack() as undo:  # closes in the reverse order of making
            self._pinned = [undo.enter_context(closing(device.pinned(size))) for size in sizes]
            self._memory = [undo.enter_context(closing(device.allocate(size))) for size in sizes]
            self._stream = undo.enter_context(closing(device.stream()))
            self.done = undo.enter_context(closing(device.event()))
            addresses = {}
            for pinned, memory, place in zip(self._pinned, self._memory, places, strict=True):
                for name, offset in place.items():
                    self.staged[name] = pinned.array[offset : offset + self._tensors[name].size_bytes]
                    addresses[name] = memory.address + offset
            self._run = undo.enter_context(closing(program.bind(self._stream, addresses)))
            undo.callback(self._settle)
            # A first run settles what the library puts off until then, which a graph must not hold.
            self._enqueue()
            self._stream.wait()
            self._graph: Graph | None = self._stream.capture(self._enqueue)
            if self._graph is not None:
                undo.enter_context(closing(self._graph))
                undo.callback(self._settle)
            self._undo = undo.pop_all()

    def planes(self, layout: FrameLayout, kind: str) -> tuple[Plane, ...]:
        """Views of the page-locked planes; planes of their own where the program takes another type."""
        planes: list[Plane] = []
        for index, shape in enumerate(layout.shapes):
            tensor = self._tensors[f"{kind}{index}"]
            staged = self.staged[tensor.name]
            if tensor.dtype.kind == "f":
                plane = np.zeros(shape, layout.dtype)
                lying = staged.view(tensor.dtype).reshape(shape)
                self._copies[kind].append((lying, plane) if kind == "in" else (plane, lying))
            else:
                plane = staged.view(layout.dtype).reshape(shape)
            planes.append(plane)
        return tuple(planes)

    def convert(self, kind: str) -> None:
        """Brings planes of their own ("in") to what the program takes, or back ("out")."""
        for target, source in self._copies[kind]:
            # A frame that overflowed is found by its constant planes.
            np.copyto(target, np.nan_to_num(source) if kind == "out" else source, casting="unsafe")

    def launch(self) -> None:
        if self._graph is not None:
            self._graph.launch()
        else:
            self._enqueue()
        self.done.record(self._stream)

    def close(self) -> None:
        self._undo.close()

    def _enqueue(self) -> None:
        self._stream.copy_in(self._memory[0], self._pinned[0])
        self._run.enqueue()
        self._stream.copy_out(self._pinned[1], self._memory[1])

    def _settle(self) -> None:
        """Nothing is freed under work that is still on its way."""
        with suppress(BackendError):
            self._stream.wait()


def _placed(tensors: Sequence[PlaneTensor]) -> tuple[dict[str, int], int]:
    """(offsets by name, size in all) of tensors one behind the other, each where a device reads best."""
    offsets, size = {}, 0
    for tensor in tensors:
        offsets[tensor.name] = size
        size += -(-tensor.size_bytes // _ALIGNMENT) * _ALIGNMENT
    return offsets, size
