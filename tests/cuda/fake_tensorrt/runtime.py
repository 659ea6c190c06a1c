"""The fake's runtime and engine: plans back to something that runs."""

from __future__ import annotations

import json
import weakref
from typing import Any, ClassVar

import onnx
from onnx import helper

from tests.cuda.fake_tensorrt.bindings import Bound, Buffer, Dims, Enum, ILogger, bound, enum, make
from tests.cuda.fake_tensorrt.context import Execution, IExecutionContext
from tests.cuda.fake_tensorrt.network import BORDER_TYPES, DataType, shape_of
from tests.cuda.fake_tensorrt.plan import Refused, read_plan
from tests.cuda.fake_tensorrt.world import Allocation, World

TensorIOMode = enum("TensorIOMode", NONE=0, INPUT=1, OUTPUT=2)
LayerInformationFormat = enum("LayerInformationFormat", ONELINE=0, JSON=1)
WORKSPACE_BYTES = 2**16
"""What a context takes beside twice its tensors."""


class Runtime(metaclass=Bound):
    __slots__ = ("__weakref__", "_logger", "_made")
    _constructible = True
    _world: ClassVar[World]

    @bound
    def __init__(self, logger: ILogger) -> None:
        self._logger, world = logger, self._world
        world.register(logger)
        if world.card.current() is None or world.faults.no_runtime:
            world.error(logger, "CUDA initialization failure with error: 201", "6: API Usage Error")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._made = True

    @bound
    def deserialize_cuda_engine(self, serialized_engine: Buffer) -> ICudaEngine | None:
        world = self._world
        if world.card.current() is None:
            return self._refuse("no CUDA context is current")
        if world.faults.deserialize_error is not None:
            return self._refuse(world.faults.deserialize_error)
        try:
            plan = read_plan(serialized_engine, world)
        except Refused as error:
            return self._refuse(str(error))
        weights = Allocation(world, len(plan.model), "an ICudaEngine")
        if weights.address is None:
            return self._refuse("out of device memory for the weights", "2: OutOfMemory")
        world.count("deserialized")
        model = onnx.load_model_from_string(plan.model)
        tensors = {value.name: value for value in (*model.graph.input, *model.graph.output)}
        # As the bindings do, the child keeps its parent.
        return make(
            ICudaEngine, _runtime=self, _plan=plan, _model=model, _tensors=tensors, _weights=weights,
            _inputs=[value.name for value in model.graph.input], _contexts=0,
        )  # fmt: skip

    def _refuse(self, text: str, code: str = "1: Serialization Error") -> None:
        self._world.error(self._logger, text, code)


class ICudaEngine(metaclass=Bound):
    __slots__ = ("__weakref__", "_contexts", "_inputs", "_made", "_model", "_plan", "_runtime", "_tensors", "_weights")

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def device_memory_size_v2(self) -> int:
        """Depends on the largest shapes of the profile."""
        execution = self._execution()
        execution.shapes |= {name: shapes[2] for name, shapes in self._plan.profile.items()}
        return 2 * sum(execution.bytes_of(name) for name in self._tensors) + WORKSPACE_BYTES

    @bound
    def get_tensor_name(self, index: int) -> str | None:
        if not 0 <= index < len(self._tensors):
            self._error(f"there is no tensor {index}")
            return None
        return list(self._tensors)[index]

    @bound
    def get_tensor_mode(self, name: str) -> Enum:
        if not self._known(name):
            return TensorIOMode.__members__["NONE"]
        return TensorIOMode.__members__["INPUT" if name in self._inputs else "OUTPUT"]

    @bound
    def get_tensor_dtype(self, name: str) -> Enum:
        if not self._known(name):
            return DataType.__members__["FLOAT"]
        return BORDER_TYPES[self._tensors[name].type.tensor_type.elem_type]

    @bound
    def get_tensor_shape(self, name: str) -> Dims:
        return Dims(shape_of(self._tensors[name])) if self._known(name) else Dims()

    @bound
    def create_execution_context(self) -> IExecutionContext | None:
        world, size = self._runtime._world, self.device_memory_size_v2
        if world.card.current() is None:
            return self._error("no CUDA context is current")
        number = world.count("contexts")
        memory = None if number == world.faults.context_error_at else Allocation(world, size, "an IExecutionContext")
        if memory is None or memory.address is None:
            return self._error(f"out of device memory: {size} bytes for an execution context", "2: OutOfMemory")
        execution = self._execution()
        execution.memory, execution.weights = memory, self._weights
        # The first context has profile 0 from the start, the others must be told.
        self._contexts += 1
        execution.profile_chosen = self._contexts == 1 or not self._plan.profile
        return make(IExecutionContext, _engine=self, _execution=execution)

    @bound
    def create_engine_inspector(self) -> EngineInspector:
        return make(EngineInspector, _engine=weakref.ref(self))

    def _execution(self) -> Execution:
        world, logger = self._runtime._world, self._runtime._logger
        types = {
            name: helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            for name, value in self._tensors.items()
        }
        free = {name: shape_of(value) for name, value in self._tensors.items()}
        shapes = {name: free[name] for name in self._inputs if -1 not in free[name]}
        return Execution(
            world=world, logger=logger, plan=self._plan, model=self._model, types=types, free=free,
            inputs=tuple(self._inputs), shapes=shapes,
        )  # fmt: skip

    def _known(self, name: str) -> bool:
        if name not in self._tensors:
            self._error(f"{name} is no tensor of the engine")
        return name in self._tensors

    def _error(self, text: str, code: str = "3: API Usage Error") -> None:
        self._runtime._world.error(self._runtime._logger, text, code)


class EngineInspector(metaclass=Bound):
    """The bindings do not keep its engine alive."""

    __slots__ = ("_engine", "_made")

    @bound
    def get_engine_information(self, format: LayerInformationFormat) -> str:
        engine = self._engine()
        if engine is None:
            raise Lost("an EngineInspector was asked after its engine was gone")
        types = {tensor.name: tensor.data_type for tensor in engine._model.graph.initializer}
        layers: list[Any] = [node.name or node.output[0] for node in engine._model.graph.node]
        if engine._plan.detailed:
            halves = onnx.TensorProto.FLOAT16 in types.values()
            kind = "Half" if halves else "Float"
            # Version 11 has split what version 10 tells in one field.
            described = {"Format/Datatype": kind} if engine._runtime._world.major == 10 else {"Datatype": kind}
            layers = [{"Name": name, "Outputs": [{"Name": name, **described}]} for name in layers]
        border = "Bindings" if engine._runtime._world.major == 10 else "I/O Tensors"
        text = json.dumps({"Layers": layers, border: list(engine._tensors)})
        return text if format == LayerInformationFormat.__members__["JSON"] else "\n".join(map(str, layers))


class Lost(BaseException):
    """Memory was used after it was freed."""
