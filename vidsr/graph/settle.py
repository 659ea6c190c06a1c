"""All shapes of a graph at one picture size, also where it computes shapes itself, as exported networks do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, TypeProto, helper, numpy_helper, reference

from vidsr.graph.builder import free_inputs, opset_of

__all__ = ["inferred"]

_SMALL = 4096
"""Values of tensors up to this are followed: sizes, places and the like, no weights."""


def inferred(proto: onnx.ModelProto, height: int, width: int) -> onnx.ModelProto:
    """A copy with all tensor shapes known, as far as they can be told, for one picture of that size.

    Raises what `onnx` does where shapes contradict.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    shape = free_inputs(copy.graph)[0].type.tensor_type.shape
    for dim, size in zip(shape.dim, (1, 3, height, width), strict=True):
        dim.dim_value = size
    if not any(node.op_type == "Shape" for node in copy.graph.node):
        return onnx.shape_inference.infer_shapes(copy, strict_mode=True, data_prop=True)
    types = dict(_Walk(copy).run())
    del copy.graph.value_info[:]
    outputs = {value.name for value in copy.graph.output}
    copy.graph.value_info.extend(
        onnx.ValueInfoProto(name=name, type=kind) for name, kind in types.items() if name not in outputs
    )
    for value in copy.graph.output:
        value.type.CopyFrom(types[value.name])
    return copy


class _Walk:
    """Node by node: what follows from the types of the inputs, and from the values of the small constant ones."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._graph, self._opsets = proto.graph, list(proto.opset_import)
        self._opset = opset_of(proto)
        self._values: dict[str, NDArray[Any]] = {}
        self._types = {value.name: value.type for value in proto.graph.input}
        for tensor in proto.graph.initializer:
            self._types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
            if math.prod(tensor.dims) <= _SMALL:
                self._values[tensor.name] = numpy_helper.to_array(tensor)

    def run(self) -> Iterator[tuple[str, TypeProto]]:
        for node in self._graph.node:
            yield from (found := self._outputs(node)).items()
            self._types |= found
            if node.op_type == "Reshape":
                self._check(node)
            self._follow(node)

    def _outputs(self, node: onnx.NodeProto) -> dict[str, TypeProto]:
        schema = onnx.defs.get_schema(node.op_type, self._opset, node.domain)
        given = {name: self._types.get(name, TypeProto()) for name in node.input}
        values = {name: numpy_helper.from_array(self._values[name]) for name in node.input if name in self._values}
        found: dict[str, TypeProto] = onnx.shape_inference.infer_node_outputs(
            schema, node, given, values, opset_imports=self._opsets
        )
        return found

    def _check(self, node: onnx.NodeProto) -> None:
        """What `onnx` does not: that as much comes out as goes in. It shows windows that do not fill the picture."""
        before, after = (_dims(self._types.get(name, TypeProto())) for name in (node.input[0], node.output[0]))
        if before is not None and after is not None and math.prod(before) != math.prod(after):
            raise ValueError(f"{node.name or node.output[0]} cannot make {after} of {before}")

    def _follow(self, node: onnx.NodeProto) -> None:
        """Keeps the values of outputs that are small and known."""
        shapes = [_dims(self._types.get(name, TypeProto())) for name in node.output]
        if node.op_type == "Shape":
            if (shape := _dims(self._types[node.input[0]])) is not None:
                ends = {attribute.name: attribute.i for attribute in node.attribute}
                part = shape[ends.get("start", 0) : ends.get("end")]
                self._values[node.output[0]] = np.array(part, np.int64)
            return
        if any(shape is None or math.prod(shape) > _SMALL for shape in shapes) or node.op_type.startswith("Random"):
            return
        if all(name in self._values for name in node.input if name):
            feeds = {name: self._values[name] for name in node.input if name}
            results = reference.ReferenceEvaluator(node, opsets={"": self._opset}).run(None, feeds)
            self._values |= dict(zip(node.output, map(np.asarray, results), strict=True))


def _dims(kind: TypeProto) -> list[int] | None:
    """None where one is not known, or the type is no tensor of numbers."""
    tensor = kind.tensor_type
    if not tensor.HasField("shape") or tensor.elem_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        return None
    dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    return None if None in dims else [dim for dim in dims if dim is not None]
