"""Lowers a model to FP16 where that pays: as a file for a strongly typed TensorRT network, whose types are the file's.

FP16 is what lies between the first and the last convolutions; before and behind them a model stays FP32: there it
normalises, adds a base and shuffles pixels, which costs nothing and is what BF16 and FP16 spoil. Every change of type
is a Cast node, and all float inputs of a node have one type.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

__all__ = ["HEAVY", "PREFIX", "half", "rests_on_base"]

HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
PREFIX = "vidsr/half/"
"""What is added begins with this; a tensor in FP16 is called by it and the name that it has in FP32."""
_SHAPE = {"Shape", "Size"}
"""Take any type, and what they give says nothing of their input's values."""
_WIDE = {
    "Exp", "GlobalAveragePool", "GlobalLpPool", "GroupNormalization", "InstanceNormalization", "LayerNormalization",
    "LogSoftmax", "LpNormalization", "MeanVarianceNormalization", "Pow", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceMean", "ReduceProd", "ReduceSum", "ReduceSumSquare",
}  # fmt: skip
"""Leave FP16's range with ordinary input: powers, and sums over a whole picture."""
_ALWAYS_FULL = {"Resize": (1, 2)}
"""Inputs by position that ONNX or TensorRT want in float32: region and scales."""
_ROUNDOFF = 2.0**-11


def half(model: onnx.ModelProto, *, keep_last: bool = False) -> onnx.ModelProto:
    """`model` with the nodes between its first and last convolutions (or matrix products) in FP16.

    Input and output keep their types. A model whose convolutions are FP16 already comes back as it is.
    keep_last: the last convolutions stay FP32 as well, which pays above 8 bits unless the model `rests_on_base`.
    A node stays FP32 where its weights do not survive FP16: they overflow, or so many are near zero that their sum
    of errors is larger than FP16's precision explains. So do powers and sums over the picture.
    Raises ValueError, in one line, for models with subgraphs and for those whose types cannot be told.
    """
    _refuse_subgraphs(model)
    lowered = onnx.ModelProto()
    lowered.CopyFrom(model)
    _inline_constants(lowered.graph)
    types = _types(lowered)
    region = _region(lowered.graph, types, keep_last)
    if not any(
        types[name] == TensorProto.FLOAT for index in region for name in lowered.graph.node[index].output if name
    ):
        return model
    _Lowering(lowered.graph, types, region).run()
    _inferred(lowered)  # operators that fix a type by themselves (dequantising ones, random ones) show here
    return lowered


def rests_on_base(model: onnx.ModelProto) -> bool:
    """Whether something that no convolution made is added behind the last ones, as our models add their input.

    Then what they give is small, and FP16 takes nothing from it that could be seen, at any depth: `keep_last` is for
    the other models.
    """
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    _inline_constants(graph)
    behind, ahead = _behind_heavy(graph.node), _ahead_of_heavy(graph.node)
    made = {name for index in behind for name in graph.node[index].output}
    made |= {tensor.name for tensor in graph.initializer}
    sums = [graph.node[index] for index in behind - ahead if graph.node[index].op_type in ("Add", "Sum")]
    return any(not made.issuperset(node.input) for node in sums)


def _refuse_subgraphs(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise ValueError(f"cannot be made FP16: its node {node.name or node.output[0]} ({node.op_type}) branches")
    if model.functions:
        raise ValueError(f"cannot be made FP16: it defines operators of its own ({model.functions[0].name})")


def _inline_constants(graph: onnx.GraphProto) -> None:
    """Constant nodes, and Identity nodes of weights, become initializers; initializers are no inputs any more."""
    filled = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    kept = []
    for node in graph.node:
        name = node.output[0]
        tensor = _constant(node)
        if node.op_type == "Identity" and node.input[0] in filled:
            tensor = onnx.TensorProto()
            tensor.CopyFrom(filled[node.input[0]])
        if tensor is None or name in outputs:
            kept.append(node)
            continue
        tensor.name = name
        filled[name] = tensor
        graph.initializer.append(tensor)
    inputs = [value for value in graph.input if value.name not in filled]
    _replace(graph, kept)
    del graph.input[:]
    graph.input.extend(inputs)


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    if node.op_type == "Constant":
        for attribute in node.attribute:
            value = helper.get_attribute_value(attribute)
            if attribute.name == "value":
                tensor = onnx.TensorProto()
                tensor.CopyFrom(value)
                return tensor
            if attribute.name in ("value_float", "value_floats"):
                return numpy_helper.from_array(np.asarray(value, np.float32))
    return None


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """Element types of all tensors. Raises ValueError where one cannot be told."""
    graph = _inferred(model).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        for name in node.output:
            if name and not types.get(name):
                raise ValueError(f"cannot be made FP16: the type of {name} ({node.op_type}) cannot be told")
    return types


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the types of its tensors. Raises ValueError for one that contradicts itself."""
    try:
        onnx.checker.check_model(model)
        return shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:  # ValidationError, InferenceError and plain RuntimeError have nothing in common
        raise ValueError(f"cannot be made FP16: {' '.join(str(error).split())[:200]}") from error


def _region(graph: onnx.GraphProto, types: dict[str, int], keep_last: bool) -> set[int]:
    """The nodes, by index, that go to FP16."""
    behind, ahead = _behind_heavy(graph.node), _ahead_of_heavy(graph.node)
    between = {index for index, node in enumerate(graph.node) if index in behind and index in ahead}
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    leads_on = {name for index in ahead for name in graph.node[index].input}
    region: set[int] = set()
    wide: set[str] = set()
    for index, node in enumerate(graph.node):
        floats = [name for name in node.input if types.get(name) == TensorProto.FLOAT and name not in weights]
        # What is computed from nothing but wide results is wide itself: the rest of a normalisation.
        if node.op_type in _WIDE or (floats and wide.issuperset(floats) and node.op_type not in HEAVY):
            wide.update(node.output)
        elif index in between and not _spoils(node, weights):
            last = node.op_type in HEAVY and leads_on.isdisjoint(node.output)
            if not (keep_last and last):
                region.add(index)
    return region


def _behind_heavy(nodes: list[onnx.NodeProto]) -> set[int]:
    """Heavy nodes and those that depend on one, by index."""
    found: set[int] = set()
    reached: set[str] = set()
    for index, node in enumerate(nodes):
        if node.op_type not in _SHAPE and (node.op_type in HEAVY or not reached.isdisjoint(node.input)):
            found.add(index)
            reached.update(name for name in node.output if name)
    return found


def _ahead_of_heavy(nodes: list[onnx.NodeProto]) -> set[int]:
    """Heavy nodes and those that one depends on, by index."""
    found: set[int] = set()
    wanted: set[str] = set()
    for index, node in reversed(list(enumerate(nodes))):
        if node.op_type not in _SHAPE and (node.op_type in HEAVY or not wanted.isdisjoint(node.output)):
            found.add(index)
            wanted.update(name for name in node.input if name)
    return found


def _spoils(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> bool:
    """Whether FP16 loses more of a node's weights than a rounding of each.

    Of a heavy node's bias only what overflows counts: next to zero it is no worse than the result's own rounding.
    """
    for position, name in enumerate(node.input):
        if name in weights and position not in _ALWAYS_FULL.get(node.op_type, ()):
            exact = numpy_helper.to_array(weights[name]).astype(np.float64)
            with np.errstate(over="ignore", invalid="ignore"):
                error = np.linalg.norm(exact.astype(np.float16) - exact)
            bias = node.op_type in HEAVY and position == 2
            if not (np.isfinite(error) if bias else error <= _ROUNDOFF * np.linalg.norm(exact)):
                return True
    return False


class _Lowering:
    """Rewrites a graph in place. A tensor `x` in FP32 stays `x`, in FP16 it is `prefix + x`."""

    def __init__(self, graph: onnx.GraphProto, types: dict[str, int], region: set[int]) -> None:
        self._graph, self._types, self._region = graph, types, region
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._nodes: list[onnx.NodeProto] = []
        self._made = {*self._weights, *(value.name for value in graph.input)}
        self._prefix = PREFIX
        while any(name.startswith(self._prefix) for name in types):  # a model that has been here before
            self._prefix += PREFIX

    def run(self) -> None:
        for index, node in enumerate(self._graph.node):
            lower = index in self._region
            for position, name in enumerate(node.input):
                if self._types.get(name) == TensorProto.FLOAT:
                    full = not lower or position in _ALWAYS_FULL.get(node.op_type, ())
                    node.input[position] = self._any(name) if node.op_type in _SHAPE else self._typed(name, full)
            if lower:
                self._lower_outputs(node)
            self._nodes.append(node)
            self._made.update(node.output)
        for value in self._graph.output:
            if self._types[value.name] == TensorProto.FLOAT:
                self._typed(value.name, full=True)
        _replace(self._graph, self._nodes)

    def _lower_outputs(self, node: onnx.NodeProto) -> None:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
        node.output[:] = [
            self._prefix + name if self._types.get(name) == TensorProto.FLOAT else name for name in node.output
        ]

    def _any(self, name: str) -> str:
        return name if name in self._made else self._prefix + name

    def _typed(self, name: str, full: bool) -> str:
        """The tensor in FP32 or FP16; a Cast makes what is not there yet, once."""
        wanted, other = (name, self._prefix + name) if full else (self._prefix + name, name)
        if wanted not in self._made:
            self._made.add(wanted)
            if name in self._weights:
                array = numpy_helper.to_array(self._weights[name]).astype(np.float16)
                self._graph.initializer.append(numpy_helper.from_array(array, wanted))
            else:
                to = TensorProto.FLOAT if full else TensorProto.FLOAT16
                cast = f"{self._prefix}cast/{'float' if full else 'half'}/{name}"
                self._nodes.append(helper.make_node("Cast", [other], [wanted], name=cast, to=to))
        return wanted


def _replace(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Other nodes for a graph; what is known of tensors is forgotten, and weights that nobody uses go."""
    used = {name for node in nodes for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    for field in (graph.node, graph.initializer, graph.value_info):
        del field[:]
    graph.node.extend(copies)
    graph.initializer.extend(kept)
