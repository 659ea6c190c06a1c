"""What TensorRT's strongly typed networks forbid, found in an ONNX model.

Types come from the file and nothing is converted on the way: all float inputs of a node have one type, bytes live at
the border only, and there is neither double nor any unsigned integer but those bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import TensorProto, helper, shape_inference

FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
FORBIDDEN = {TensorProto.DOUBLE, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64, TensorProto.INT16}
BYTE_PARTNERS = {TensorProto.FLOAT, TensorProto.FLOAT16}
"""All that bytes can be cast from and to."""
FLOAT32_ONLY = {"Resize": (1, 2)}
"""Inputs, by position, that are float32 whatever the picture is: they become shapes, not tensors."""
ANY_FLOAT = {"Cast", "CastLike", "Shape", "Size"}


def violations(model: onnx.ModelProto) -> list[str]:
    """One line for each thing that TensorRT would refuse; empty for a model it may take."""
    try:
        onnx.checker.check_model(model)
        graph = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    except Exception as error:  # the checker and the inference raise several unrelated classes
        return [f"not valid: {' '.join(str(error).split())}"]
    types = _types(graph)
    found = [f"{name} is {_word(kind)}" for name, kind in types.items() if kind in FORBIDDEN]
    found += [f"{name} has no known type" for name in _tensors(graph) if name not in types]
    for node in graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            found.append(f"{_called(node)} holds a subgraph, which is not looked into")
        found += _mixed(node, types)
        found += _bytes(node, types, {value.name for value in graph.input}, {value.name for value in graph.output})
    found += [f"{tensor.name} is a constant of bytes" for tensor in graph.initializer if _is_byte(tensor.name, types)]
    return found


def _types(graph: onnx.GraphProto) -> dict[str, int]:
    values = (*graph.value_info, *graph.input, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    return {name: kind for name, kind in types.items() if kind != TensorProto.UNDEFINED}


def _tensors(graph: onnx.GraphProto) -> Iterator[str]:
    return (name for node in graph.node for name in node.output if name)


def _mixed(node: onnx.NodeProto, types: dict[str, int]) -> list[str]:
    fixed = FLOAT32_ONLY.get(node.op_type, ())
    inputs = [(position, name) for position, name in enumerate(node.input) if name and types.get(name) in FLOATS]
    found = [
        f"{_called(node)}: input {name} is {_word(types[name])} where float32 is needed"
        for position, name in inputs
        if position in fixed and types[name] != TensorProto.FLOAT
    ]
    if node.op_type in ANY_FLOAT:
        return found
    kinds = {types[name] for position, name in inputs if position not in fixed}
    outputs = {types[name] for name in node.output if types.get(name) in FLOATS}
    if len(kinds) > 1:
        found.append(f"{_called(node)} mixes {' and '.join(sorted(map(_word, kinds)))}")
    elif kinds and outputs and kinds != outputs:
        found.append(f"{_called(node)} makes {_word(min(outputs))} of {_word(min(kinds))}")
    return found


def _bytes(node: onnx.NodeProto, types: dict[str, int], inputs: set[str], outputs: set[str]) -> list[str]:
    """Bytes come in and go straight into a Cast, or come out of one and go straight out."""
    found = []
    for name in node.input:
        if _is_byte(name, types):
            if node.op_type != "Cast" or types.get(node.output[0]) not in BYTE_PARTNERS:
                found.append(f"{_called(node)} computes with bytes ({name})")
            elif name not in inputs:
                found.append(f"{_called(node)} takes bytes from inside the network ({name})")
    for name in node.output:
        if _is_byte(name, types):
            if node.op_type != "Cast" or types.get(node.input[0]) not in BYTE_PARTNERS:
                found.append(f"{_called(node)} makes bytes ({name})")
            elif name not in outputs:
                found.append(f"{_called(node)} makes bytes inside the network ({name})")
    return found


def _is_byte(name: str, types: dict[str, int]) -> bool:
    return types.get(name) == TensorProto.UINT8


def _called(node: onnx.NodeProto) -> str:
    return f"{node.name or node.output[0]} ({node.op_type})"


def _word(kind: int) -> str:
    return {TensorProto.FLOAT: "float32"}.get(kind, helper.tensor_dtype_to_string(kind).rpartition(".")[2].lower())
