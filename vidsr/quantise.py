"""Makes the INT8 form of a model that has ranges for it.

Weights and the inputs of convolutions become 8-bit codes where the model's metadata gives their ranges; everything
between stays as it is. It is written as pairs of QuantizeLinear and DequantizeLinear, which say what may be rounded
where; a backend that knows INT8 turns a convolution between such pairs into one that multiplies codes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from vidsr.errors import ModelError
from vidsr.graph import Builder
from vidsr.models import Model

__all__ = ["CODES", "KEY", "WEIGHT_CODES", "Ranges", "learned_ranges", "quantised", "text_from_ranges", "written"]

CODES = 255
"""Highest code of an input, which is uint8 with a zero point."""
WEIGHT_CODES = 63
"""Highest code of a weight, which is int8, symmetric, with a step of its own for each output channel.

Half of what int8 holds: processors without VNNI add two products in 16 bits, which 2 x 255 x 63 just fits and
2 x 255 x 127 does not. Such sums would be cut off without a word.
"""
KEY = "int8"
"""Of the ranges in a model's metadata."""
PREFIX = "vidsr/int8/"
_DIGITS = 6

Ranges = dict[str, tuple[float, float]]
"""Least and highest value of a convolution's input, by the convolution's name; the least is not above 0."""


def text_from_ranges(ranges: Mapping[str, tuple[float, float]]) -> str:
    """As a model's metadata hold them."""
    return json.dumps(
        {name: [float(f"{value:.{_DIGITS}g}") for value in pair] for name, pair in ranges.items()},
        separators=(",", ":"),
    )


def learned_ranges(model: Model) -> Ranges:
    """Those in the model's metadata. Raises ModelError for a model without, and for ranges that are not its own."""
    if KEY not in model.metadata:
        raise ModelError(f"--precision int8: {model.name} has no ranges for it; leave it at auto")
    try:
        found = {str(name): (float(low), float(high)) for name, (low, high) in json.loads(model.metadata[KEY]).items()}
    except (ValueError, TypeError, AttributeError):
        raise ModelError(f"{model.path}: its metadata hold no ranges under {KEY!r}; import the model again") from None
    known = {node.name for node in model.proto.graph.node if node.op_type == "Conv"}
    for name, (low, high) in found.items():
        if name not in known or not -np.inf < low <= 0 < high < np.inf:
            raise ModelError(f"{model.path}: its metadata hold a wrong range for {name!r}; import the model again")
    return found


def written(model: Model, precision: str) -> onnx.ModelProto:
    """The graph to run for a precision: INT8 is written into it, others are the backend's affair. Raises ModelError."""
    return (
        model.lowered(lambda part: quantised(part.proto, learned_ranges(part))) if precision == "int8" else model.proto
    )


def quantised(model: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]]) -> onnx.ModelProto:
    """`model` with the convolutions that `ranges` names in INT8. It is not modified.

    Their weights are initializers, as networks here write them.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    build = Builder(PREFIX)
    rounded: dict[tuple[str, tuple[float, float]], str] = {}
    for node in graph.node:
        if node.op_type == "Conv" and node.name in ranges:
            key = (node.input[0], ranges[node.name])
            if key not in rounded:  # what two convolutions take alike is rounded once
                rounded[key] = _rounded_input(build, node.name, *key)
            weight = numpy_helper.to_array(weights[node.input[1]])
            node.input[:2] = [rounded[key], _rounded_weight(build, weight, node.input[1])]
        build.nodes.append(node)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in build.nodes]
    used = {name for node in nodes for name in node.input}
    kept = [tensor for name, tensor in weights.items() if name in used]
    kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in (*kept, *build.initializers)]
    for field in (graph.node, graph.initializer, graph.value_info):
        del field[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    return result


def _rounded_input(build: Builder, name: str, value: str, span: tuple[float, float]) -> str:
    low, high = span
    step = np.float32((high - low) / CODES)
    scale, point = f"{PREFIX}scale/{name}", f"{PREFIX}zero/{name}"
    # Without an axis, or they would be taken for one step for each channel; `Builder.constant` gives them one.
    for constant, number in ((scale, step), (point, np.uint8(np.round(-low / step)))):
        build.initializers.append(numpy_helper.from_array(np.array(number), constant))
    return build.op("DequantizeLinear", build.op("QuantizeLinear", value, scale, point), scale, point)


def _rounded_weight(build: Builder, weight: NDArray[np.float32], name: str) -> str:
    highest = np.abs(weight).max(axis=tuple(range(1, weight.ndim)))
    steps = (np.maximum(highest, 1e-12) / WEIGHT_CODES).astype(np.float32)
    codes = np.round(weight / steps.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.int8)
    scale, point = build.constant(steps), build.constant(np.zeros(len(steps), np.int8))
    return build.op("DequantizeLinear", build.constant(codes, f"{PREFIX}{name}"), scale, point, axis=0)
