"""What FP16 does to a model's values, on a processor without FP16.

ONNX Runtime's CPU provider runs FP16 nodes in FP32 and takes away the casts it puts between them, so that nothing but
the weights is FP16 in the end. Casts that stand in the model it keeps: so they are written into it.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

LARGEST = "largest/"
"""Prefix of the outputs that `rounded` adds."""


def half_tensors(model: onnx.ModelProto) -> list[str]:
    """Names of all FP16 tensors that nodes make."""
    inferred = shape_inference.infer_shapes(model, strict_mode=True)
    values = (*inferred.graph.value_info, *model.graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return [name for node in model.graph.node for name in node.output if types[name] == TensorProto.FLOAT16]


def rounded(model: onnx.ModelProto, *, largest: bool = False) -> onnx.ModelProto:
    """`model`, float32 on the outside, as FP32 in which whatever was FP16 is rounded to it. Sums are FP32.

    largest: further outputs, `LARGEST` and the name of an FP16 tensor: its largest absolute value, infinite where it
        overflows.
    """
    halves, result = set(half_tensors(model)), onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            array = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    nodes = []
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
        made = list(node.output)
        node.output[:] = [f"exact/{name}" if name in halves else name for name in made]
        nodes.append(node)
        for name in halves.intersection(made):
            nodes.append(helper.make_node("Cast", [f"exact/{name}"], [f"half/{name}"], to=TensorProto.FLOAT16))
            nodes.append(helper.make_node("Cast", [f"half/{name}"], [name], to=TensorProto.FLOAT))
            if largest:
                nodes.append(helper.make_node("Abs", [name], [f"absolute/{name}"]))
                nodes.append(helper.make_node("ReduceMax", [f"absolute/{name}"], [LARGEST + name], keepdims=0))
                graph.output.append(helper.make_tensor_value_info(LARGEST + name, TensorProto.FLOAT, ()))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    for field in (graph.node, graph.value_info):
        del field[:]
    graph.node.extend(copies)
    return result
