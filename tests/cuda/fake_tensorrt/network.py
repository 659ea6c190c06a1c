"""The fake's network, and the parser that fills it."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import TensorProto

from tests.cuda.fake_tensorrt.bindings import Bound, Buffer, Dims, Enum, ILogger, bound, enum, make
from tests.cuda.fake_tensorrt.world import World

DataType = enum("DataType", FLOAT=0, HALF=1, INT8=2, INT32=3, BOOL=4, UINT8=5, BF16=7, INT64=8)
BORDER_TYPES = {
    TensorProto.FLOAT: DataType.FLOAT, TensorProto.FLOAT16: DataType.HALF, TensorProto.INT32: DataType.INT32,
    TensorProto.INT64: DataType.INT64, TensorProto.BOOL: DataType.BOOL, TensorProto.UINT8: DataType.UINT8,
}  # fmt: skip
"""What may go in and out; BFLOAT16 might too, but nothing here could run it."""


class ITensor(metaclass=Bound):
    __slots__ = ("_made", "_network", "_value")

    @property
    def name(self) -> str:
        return str(self._value.name)

    @property
    def dtype(self) -> Enum:
        return BORDER_TYPES[self._value.type.tensor_type.elem_type]

    @property
    def shape(self) -> Dims:
        return Dims(shape_of(self._value))


def shape_of(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """With -1 for what is free."""
    sizes = value.type.tensor_type.shape.dim
    return tuple(size.dim_value if size.HasField("dim_value") else -1 for size in sizes)


class INetworkDefinition(metaclass=Bound):
    __slots__ = ("_builder", "_made", "_model", "_parsed", "_strongly_typed")

    @property
    def num_inputs(self) -> int:
        return len(self._graph().input)

    @property
    def num_outputs(self) -> int:
        return len(self._graph().output)

    @bound
    def get_input(self, index: int) -> ITensor | None:
        return self._tensor(self._graph().input, index)

    @bound
    def get_output(self, index: int) -> ITensor | None:
        return self._tensor(self._graph().output, index)

    def _graph(self) -> onnx.GraphProto:
        return self._model.graph if self._parsed else onnx.GraphProto()

    def _tensor(self, values: Any, index: int) -> ITensor | None:
        return make(ITensor, _network=self, _value=values[index]) if 0 <= index < len(values) else None


class ParserError(metaclass=Bound):
    __slots__ = ("_made", "_node", "_text")

    @bound
    def desc(self) -> str:
        return str(self._text)

    @bound
    def node(self) -> int:
        return int(self._node)


class OnnxParser(metaclass=Bound):
    """Takes what TensorRT would take: a valid, strongly typed graph with types that it knows."""

    __slots__ = ("_errors", "_logger", "_made", "_network")
    _constructible = True

    @bound
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._logger, self._errors, self._made = network, logger, [], True

    @bound
    def parse(self, model: Buffer, path: str | None = None) -> bool:
        world: World = self._network._builder._world
        fresh = self._network._model is None
        found = self._objections(model, world) if fresh else ["the network is not empty"]
        self._errors += [make(ParserError, _text=text, _node=-1) for text in found]
        for text in found:
            world.error(self._logger, text, "In node -1: UNSUPPORTED_NODE")
        self._network._parsed = not found
        return not found

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    @bound
    def get_error(self, index: int) -> ParserError | None:
        return self._errors[index] if 0 <= index < len(self._errors) else None

    def _objections(self, data: bytes, world: World) -> list[str]:
        from tests import strong_types

        if world.faults.parser_errors:
            return list(world.faults.parser_errors)
        try:
            model = onnx.load_model_from_string(data)
            onnx.checker.check_model(model, full_check=True)
        except Exception as error:  # protobuf and the checker raise several unrelated classes
            return [f"Failed to parse the ONNX model: {' '.join(str(error).split())}"]
        self._network._model = model
        border = [*model.graph.input, *model.graph.output]
        types = {value.name: value.type.tensor_type.elem_type for value in border}
        found = [
            f"Unsupported ONNX data type of {name}: {TensorProto.DataType.Name(kind)}"
            for name, kind in types.items()
            if kind not in BORDER_TYPES
        ]
        if world.faults.refuses_bytes:
            found += [f"{name}: bytes are not supported" for name, kind in types.items() if kind == TensorProto.UINT8]
        if not model.graph.output:
            found.append("Network must have at least one output")
        return found + (strong_types.violations(model) if self._network._strongly_typed else [])


class IOptimizationProfile(metaclass=Bound):
    """(smallest, usual, largest) shapes of the inputs."""

    __slots__ = ("_builder", "_made", "_shapes")

    @bound
    def set_shape(self, input: str, min: Dims, opt: Dims, max: Dims) -> None:
        shapes = (tuple(min), tuple(opt), tuple(max))
        same_rank = len({len(shape) for shape in shapes}) == 1
        if not same_rank or any(not 0 <= a <= b <= c for a, b, c in zip(*shapes, strict=True)):
            raise ValueError("Shape provided for min is inconsistent with other shapes.")
        self._shapes[input] = shapes

    def __bool__(self) -> bool:
        return bool(self._shapes)
