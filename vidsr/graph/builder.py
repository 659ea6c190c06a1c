"""Writes ONNX graphs node by node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["IR_VERSION", "OPSET", "Builder", "export_model", "free_inputs", "opset_of", "producer"]

IR_VERSION = 8
OPSET = 17


class Builder:
    """Collects nodes and initializers; every method returns the name of the tensor it makes.

    opset: of the graph that the nodes are for, 13 or newer.
    """

    def __init__(self, prefix: str = "", opset: int = OPSET) -> None:
        self.prefix, self.opset = prefix, opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(
        self, value: NDArray[Any] | np.generic | Sequence[float] | Sequence[int], name: str | None = None
    ) -> str:
        """An initializer; lists of floats become float32 and lists of ints int64."""
        array = np.asarray(value)
        if not isinstance(value, np.ndarray | np.generic):
            array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        name = name or f"{self.prefix}constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """A node with one output, which carries the node's name."""
        name = name or f"{self.prefix}{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def model(
        self,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        *,
        name: str,
        metadata: dict[str, str] | None = None,
    ) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, name, list(inputs), list(outputs), self.initializers)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], producer_name="vidsr", ir_version=IR_VERSION
        )
        helper.set_model_props(model, metadata or {})
        return model


def producer(nodes: Sequence[onnx.NodeProto], name: str) -> onnx.NodeProto:
    """The node that makes a tensor."""
    return next(node for node in nodes if name in node.output)


def opset_of(proto: onnx.ModelProto) -> int:
    """Of standard ONNX; 0 where the model states none."""
    return next((int(entry.version) for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)


def free_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Inputs that no initializer fills (old exporters list the weights as inputs as well)."""
    filled = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in filled]


def export_model(network: Callable[[Builder, str], str], *, name: str, metadata: dict[str, str]) -> onnx.ModelProto:
    """A network written with `Builder` as a checked model: RGB float32 [n, 3, h, w] in and out, sizes free.

    network: given the builder and the input's name, adds nodes and returns the output's name.
    """
    build = Builder()
    result = network(build, "input")
    producer(build.nodes, result).output[0] = "output"
    tensors = [
        helper.make_tensor_value_info(tensor, TensorProto.FLOAT, shape)
        for tensor, shape in (("input", ("n", 3, "h", "w")), ("output", ("n", 3, "h_out", "w_out")))
    ]
    model = build.model(tensors[:1], tensors[1:], name=name, metadata=metadata)
    onnx.checker.check_model(model)
    return model
