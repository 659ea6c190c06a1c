"""The fake's execution context: all rules about when and where one may be used."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import shape_inference

from tests.cuda.fake_tensorrt.bindings import Bound, Dims, ILogger, bound
from tests.cuda.fake_tensorrt.plan import Plan
from tests.cuda.fake_tensorrt.world import Allocation, World

ALIGNMENT = 256


@dataclass(slots=True, kw_only=True, eq=False)
class Execution:
    """What queued work knows of a context, which it must not keep alive.

    free: shapes by name with -1 for free sizes. shapes: of the inputs that have one. waiting: runs queued and not yet
    executed. switching: the stream on which the profile is still being set. warm: ran since the shapes were set.
    """

    world: World
    logger: ILogger
    plan: Plan
    model: onnx.ModelProto
    types: dict[str, np.dtype[Any]]
    free: dict[str, tuple[int, ...]]
    inputs: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]]
    addresses: dict[str, int] = field(default_factory=dict)
    memory: Allocation | None = None
    weights: Allocation | None = None
    profile_chosen: bool = True
    switching: int | None = None
    warm: bool = False
    stream: int | None = None
    waiting: int = 0
    destroyed: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    inferred: dict[tuple[tuple[int, ...], ...], dict[str, tuple[int, ...]]] = field(default_factory=dict)

    def unknown(self) -> list[str]:
        return [name for name in self.inputs if name not in self.shapes]

    def shape(self, name: str) -> tuple[int, ...]:
        """Of an input or output, with -1 for what is not known yet."""
        if name in self.inputs or self.unknown():
            return self.shapes.get(name, self.free[name])
        key = tuple(self.shapes[name] for name in self.inputs)
        if key not in self.inferred:
            model = onnx.ModelProto()
            model.CopyFrom(self.model)
            for value in model.graph.input:
                for size, known in zip(value.type.tensor_type.shape.dim, self.shapes[value.name], strict=True):
                    size.dim_value = known
            # Else the names of free sizes would stay where their values are known.
            for value in model.graph.output:
                value.type.tensor_type.ClearField("shape")
            del model.graph.value_info[:]
            graph = shape_inference.infer_shapes(model, data_prop=True).graph
            self.inferred[key] = {
                value.name: tuple(size.dim_value if size.HasField("dim_value") else -1 for size in sizes)
                for value in graph.output
                for sizes in [value.type.tensor_type.shape.dim]
            }
        return self.inferred[key][name]

    def held(self) -> dict[int, int]:
        """Size by address of the device memory that every run uses."""
        owned = [allocation for allocation in (self.memory, self.weights) if allocation is not None]
        return {allocation.address: allocation.size for allocation in owned if allocation.address is not None}

    def bytes_of(self, name: str) -> int:
        return int(np.prod(self.shape(name), dtype=np.int64)) * self.types[name].itemsize

    def refuse(self, text: str) -> bool:
        self.world.error(self.logger, text)
        return False

    def run(self, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> None:
        """Executes what was enqueued, when its turn on the stream has come."""
        world = self.world
        if self.destroyed:
            world.violated("an execution context was destroyed before its work had run")
            return
        feeds = {}
        for name in self.inputs:
            data = world.card.read(addresses[name], _size(shapes[name], self.types[name]))
            feeds[name] = np.frombuffer(data, self.types[name]).reshape(shapes[name])
        names = [name for name in shapes if name not in self.inputs]
        for name, result in zip(names, world.session(self.plan.model).run(names, feeds), strict=True):
            assert result.shape == shapes[name], f"{name} is {result.shape}, not {shapes[name]}"
            world.card.write(addresses[name], np.ascontiguousarray(result).tobytes())
        world.count("executed")


def _size(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize


class IExecutionContext(metaclass=Bound):
    """Belongs to whoever uses it, one at a time; returns False where something is wrong, and logs it."""

    __slots__ = ("__weakref__", "_engine", "_execution", "_made")

    @bound
    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        execution = self._execution
        with self._alone("set_optimization_profile_async") as alone:
            if not alone or not self._usable_stream(stream_handle) or profile_index != 0:
                execution.refuse(f"there is no profile {profile_index}, or it cannot be set now")
                # The one call that raises; the bindings do that, not TensorRT.
                raise RuntimeError("Error in set optimization profile async.")
            execution.profile_chosen, execution.warm = True, False
            for name in execution.plan.profile:
                execution.shapes.pop(name, None)
            execution.switching = stream_handle

            def switched() -> None:
                execution.switching = None

            if not execution.world.card.call(stream_handle, switched, {}):
                raise RuntimeError("Error in set optimization profile async.")
        return True

    @bound
    def set_input_shape(self, name: str, shape: Dims) -> bool:
        execution, wanted = self._execution, tuple(shape)
        with self._alone("set_input_shape") as alone:
            if not alone:
                return False
            if name not in execution.inputs:
                return execution.refuse(f"{name} is no input")
            if not execution.profile_chosen:
                return execution.refuse("no optimization profile was chosen for this context")
            free = execution.free[name]
            lowest, _, highest = execution.plan.profile.get(name, (free, free, free))
            if len(wanted) != len(free) or any(
                not low <= size <= high for low, size, high in zip(lowest, wanted, highest, strict=True)
            ):
                return execution.refuse(f"{name}: {wanted} is not within {lowest} to {highest}")
            if execution.shapes.get(name) != wanted:
                execution.shapes[name], execution.warm = wanted, False
            return True

    @bound
    def infer_shapes(self) -> list[str]:
        with self._alone("infer_shapes") as alone:
            if not alone:
                raise RuntimeError("infer_shapes failed")
            return self._execution.unknown()

    @bound
    def get_tensor_shape(self, name: str) -> Dims:
        execution = self._execution
        if name not in execution.free:
            execution.refuse(f"{name} is no tensor of the engine")
            return Dims()
        return Dims(execution.shape(name))

    @bound
    def set_tensor_address(self, name: str, memory: int) -> bool:
        execution = self._execution
        with self._alone("set_tensor_address") as alone:
            if not alone:
                return False
            if name not in execution.free:
                return execution.refuse(f"{name} is no tensor of the engine")
            if memory < 0 or memory % ALIGNMENT:
                return execution.refuse(f"the address of {name} is not aligned to {ALIGNMENT} bytes")
            execution.addresses[name] = memory
            return True

    @bound
    def execute_async_v3(self, stream_handle: int) -> bool:
        execution, world = self._execution, self._execution.world
        with self._alone("execute_async_v3") as alone:
            if not alone or not self._usable_stream(stream_handle):
                return False
            number = world.count("enqueued")
            if world.faults.during_enqueue is not None:
                world.faults.during_enqueue()
            objection = self._objection(stream_handle)
            if objection is not None:
                return execution.refuse(objection)
            if number == world.faults.enqueue_error_at:
                return execution.refuse("the kernels could not be launched")
            addresses = dict(execution.addresses)
            shapes = {name: execution.shape(name) for name in execution.free}
            memory = {address: _size(shapes[name], execution.types[name]) for name, address in addresses.items()}
            memory |= execution.held()
            if world.card.stream(stream_handle) == "capturing":
                world.count("captured")
                return world.card.call(stream_handle, lambda: execution.run(addresses, shapes), memory)
            execution.warm, execution.stream = True, stream_handle
            execution.waiting += 1

            def execute() -> None:
                execution.waiting -= 1
                execution.run(addresses, shapes)

            return world.card.call(stream_handle, execute, memory)

    def _objection(self, stream: int) -> str | None:
        """Why nothing can be enqueued now."""
        execution, card = self._execution, self._execution.world.card
        if not execution.profile_chosen:
            return "no optimization profile was chosen for this context"
        if execution.unknown():
            return f"the shape of {execution.unknown()[0]} was not set"
        if execution.switching not in (None, stream):
            return "the optimization profile is still being set on another stream"
        if execution.waiting and execution.stream != stream:
            return "the context still runs on another stream"
        if card.stream(stream) == "capturing" and not execution.warm:
            return "nothing ran since the shapes were set, so that this cannot be captured"
        for name in execution.free:
            if not execution.addresses.get(name):
                return f"the address of {name} was not set"
        return None

    def _usable_stream(self, stream: int) -> bool:
        execution = self._execution
        if execution.world.card.current() is None:
            return execution.refuse("no CUDA context is current")
        if not stream:
            # TensorRT would, with a device-wide synchronisation around every call.
            execution.world.violated("work was enqueued on the default stream")
            return execution.refuse("the default stream is not used here")
        if execution.world.card.stream(stream) is None:
            return execution.refuse("there is no such stream in the current context")
        return True

    @contextmanager
    def _alone(self, what: str) -> Iterator[bool]:
        execution = self._execution
        if not execution.lock.acquire(blocking=False):
            execution.world.violated(f"{what}: two threads were in one execution context")
            yield execution.refuse(f"{what}: another thread is in this context")
            return
        try:
            yield True
        finally:
            execution.lock.release()

    def __del__(self) -> None:
        execution = getattr(self, "_execution", None)
        if execution is not None:
            execution.destroyed = True
            execution.memory = execution.weights = None
