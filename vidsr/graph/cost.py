"""How much a model computes, counted in its graph without running it."""

from __future__ import annotations

import math

import onnx

from vidsr.graph.measure import shapes_of
from vidsr.graph.settle import inferred

__all__ = ["multiply_adds", "node_pairs"]

_SIDE = 96
"""A multiple of most windows, so that little of what is counted is padding."""


def multiply_adds(proto: onnx.ModelProto) -> float:
    """Multiplications and additions in pairs, an input pixel, of convolutions and matrix products: what takes the
    time of nearly all networks."""
    known = inferred(proto, _SIDE, _SIDE)
    shapes = shapes_of(known)
    return sum(node_pairs(node, shapes) for node in known.graph.node) / _SIDE**2


def node_pairs(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int:
    """Of one node, in pairs. shapes: of all tensors, weights included."""
    first, second = (shapes.get(name, []) for name in [*node.input, "", ""][:2])
    made = shapes.get(node.output[0], [])
    match node.op_type:
        case "Conv":  # weight [out, in / groups, ...]
            return math.prod(made) * math.prod(second[1:])
        case "ConvTranspose":  # weight [in, out / groups, ...]: each sample of the input goes into so many
            return math.prod(first) * math.prod(second[1:])
        case "MatMul":
            return math.prod(made) * (first or [0])[-1]
        case "Gemm":
            flipped = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
            return math.prod(made) * (first or [0, 0])[0 if flipped else -1]
        case _:
            return 0
