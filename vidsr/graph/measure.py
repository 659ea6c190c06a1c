"""What a model's graph does to a picture, found without running it: sizes, how far it sees, memory."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from vidsr.graph.settle import inferred

__all__ = ["MOST", "multiple", "output_shape", "peak_bytes", "radius", "reach_from", "score_bytes", "shapes_of"]

MOST = 48
_WINDOWED = {"Conv", "MaxPool", "AveragePool", "Pad"}
_POINTWISE = {
    "Abs", "Add", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Div", "Elu", "Erf", "Exp", "Gather",
    "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Max", "Min", "Mish", "Mul", "Neg", "Pow",
    "PRelu", "Relu", "Sigmoid", "Softplus", "Split", "Sqrt", "Sub", "Sum", "Tanh",
}  # fmt: skip


def output_shape(proto: onnx.ModelProto, height: int, width: int) -> tuple[int, ...]:
    """Of one picture of that size; 0 for what cannot be told. Raises what `onnx` does where shapes contradict."""
    return _shape(inferred(proto, height, width).graph.output[0])


def multiple(proto: onnx.ModelProto, scale: int) -> int:
    """What height and width have to be multiples of, for an output of exactly `scale` times the size.

    A divisor of `MOST`, whose multiples every model takes that `vidsr.models` lets through.
    """
    steps = (step for step in range(1, MOST) if MOST % step == 0)
    return next((step for step in steps if _takes_multiples(proto, scale, step)), MOST)


def _takes_multiples(proto: onnx.ModelProto, scale: int, step: int) -> bool:
    """Whether sizes that are odd multiples of `step` come out exactly `scale` times larger."""
    height, width = (step * (length // step | 1) for length in (MOST, MOST + 16))
    try:
        return output_shape(proto, height, width)[2:] == (scale * height, scale * width)
    except Exception:  # the shapes contradict each other, which shape inference says in several ways
        return False


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default


def radius(proto: onnx.ModelProto) -> int | None:
    """How far an output depends on the input, in input pixels; None where the whole picture may matter."""
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    start = {value.name: 1 for value in proto.graph.input if value.name not in tensors}
    reach = _walk(proto.graph.node, tensors, start)
    return None if reach is None else _far(reach[proto.graph.output[0].name])


def reach_from(
    graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto], start: dict[str, int], ends: set[str]
) -> int | None:
    """How far the tensors `ends` depend on those of `start` through these nodes of a graph, in pixels; None where the
    whole picture may matter. start: pixels between the samples of each."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    reach = _walk(nodes, tensors, start)
    if reach is None:
        return None
    return max((_far(reach[name]) for name in ends if name in reach and name not in start), default=0)


_Seen = tuple[Fraction, Fraction, Fraction]
"""Pixels before, pixels after, step."""


def _far(seen: _Seen) -> int:
    # The last sample that belongs to a pixel lies 1 - fine behind it.
    first, last, fine = seen
    return math.floor(max(Fraction(0), first, last + 1 - fine))


def _walk(
    nodes: Iterable[onnx.NodeProto], tensors: dict[str, TensorProto], start: dict[str, int]
) -> dict[str, _Seen] | None:
    """What each tensor sees of those of `start`, of which the steps are given; None at the first unknown operator.

    Sample `i` of a tensor lies at pixel `i * step` of the input, and what it sees is counted from there.
    """
    reach = {name: (Fraction(0), Fraction(0), Fraction(step)) for name, step in start.items()}
    sized: set[str] = set()
    for node in nodes:
        if node.op_type == "Constant":
            tensors[node.output[0]] = _attribute(node, "value", TensorProto())
            continue
        sources = [reach[name] for name in node.input if name in reach]
        of_size = not sized.isdisjoint(node.input)
        if not sources or node.op_type == "Shape":
            sized.update(node.output if of_size or sources else ())
            continue
        if of_size and node.op_type != "Slice":  # positions of pixels, perhaps
            return None
        before, after = (max(source[side] for source in sources) for side in (0, 1))
        step = sources[0][2]
        if node.op_type in _WINDOWED:
            window = _padding(node, tensors) if node.op_type == "Pad" else _window(node, tensors)
            if window is None:
                return None
            before += step * max(first for first, _ in window)
            after += step * max(last for _, last in window)
            step *= max(_attribute(node, "strides", None) or [1])
        elif node.op_type == "SpaceToDepth":
            block = _attribute(node, "blocksize", 1)
            after += step * (block - 1)
            step *= block
        elif node.op_type == "DepthToSpace":
            block = _attribute(node, "blocksize", 1)
            step /= block
            before += step * (block - 1)
        elif node.op_type == "Resize":
            if (factor := _repeats(node, tensors)) is None:
                return None
            step /= factor
            before += step * (factor - 1)
        elif node.op_type not in _POINTWISE and not _begins_whole(node, tensors):
            return None
        # What a convolution of `start` itself makes is told by `start`.
        reach |= {name: (before, after, step) for name in node.output if name not in start}
    return reach


def _window(node: onnx.NodeProto, tensors: dict[str, TensorProto]) -> list[tuple[int, int]] | None:
    """(samples before, samples after) that an output sees along each axis.

    None where it depends on the size of the picture, or the axes have different strides.
    """
    strides = set(_attribute(node, "strides", None) or [1])
    same = _attribute(node, "auto_pad", b"NOTSET") in (b"SAME_UPPER", b"SAME_LOWER")
    if len(strides) > 1 or (same and strides != {1}):
        return None
    kernel = _attribute(node, "kernel_shape", None) or (
        list(tensors[node.input[1]].dims)[2:] if node.input[1] in tensors else None
    )
    if not kernel:
        return None
    dilations = _attribute(node, "dilations", None) or [1] * len(kernel)
    seen = [(size - 1) * dilation for size, dilation in zip(kernel, dilations, strict=True)]
    if same:
        return [(-(-extent // 2), -(-extent // 2)) for extent in seen]
    pads = _attribute(node, "pads", None) or [0] * len(kernel)
    return [(first, extent - first) for first, extent in zip(pads, seen, strict=False)]


def _padding(node: onnx.NodeProto, tensors: dict[str, TensorProto]) -> list[tuple[int, int]] | None:
    """`_window` of a Pad: it shifts the picture. None where it is not constant or brings the other side in."""
    if any(node.input[3:]) or node.input[1] not in tensors:
        return None
    if _attribute(node, "mode", b"constant") == b"wrap":
        return None
    pads = numpy_helper.to_array(tensors[node.input[1]]).tolist()
    return [(first, -first) for first in pads[2 : len(pads) // 2]]


def _repeats(node: onnx.NodeProto, tensors: dict[str, TensorProto]) -> int | None:
    """How often a Resize repeats each pixel down and right; None where it does something else."""
    scales = tensors.get(node.input[2]) if len(node.input) > 2 else None
    wanted = {"mode": b"nearest", "coordinate_transformation_mode": b"asymmetric", "nearest_mode": b"floor"}
    if scales is None or any(_attribute(node, name, None) != value for name, value in wanted.items()):
        return None
    down, right = numpy_helper.to_array(scales)[-2:]
    return int(down) if down == right == int(down) and down >= 1 else None


def _begins_whole(node: onnx.NodeProto, tensors: dict[str, TensorProto]) -> bool:
    """Whether it is a Slice that takes away from the end alone."""
    known = {index: tensors.get(name) for index, name in enumerate(node.input)}
    starts, steps = known.get(1), known.get(4, numpy_helper.from_array(np.ones(1)))
    if node.op_type != "Slice" or starts is None or steps is None:
        return False
    return not numpy_helper.to_array(starts).any() and bool((numpy_helper.to_array(steps) == 1).all())


def peak_bytes(proto: onnx.ModelProto) -> float:
    """Largest sum of tensors alive at once, in FP32 bytes an input pixel; attention counts as if it were fused."""
    sizes = _sizes(proto)
    hidden = {name for attention in _scores(proto) for name in attention}
    last_use = {name: index for index, node in enumerate(proto.graph.node) for name in node.input}
    moving = {value.name for value in proto.graph.input} - {tensor.name for tensor in proto.graph.initializer}
    alive: dict[str, float] = {}
    peak = 0.0
    for index, node in enumerate(proto.graph.node):
        if moving.isdisjoint(node.input):  # made of weights alone, once
            continue
        moving.update(node.output)
        alive.update({name: sizes.get(name, 0.0) for name in node.output if name not in hidden})
        peak = max(peak, sum(alive.values()))
        alive = {name: size for name, size in alive.items() if last_use.get(name, -1) > index}
    return peak


def score_bytes(proto: onnx.ModelProto) -> float:
    """What attention takes in a backend that does not fuse it: scores and shares of the largest one, in FP32 bytes an
    input pixel; 0 for a model without."""
    sizes = _sizes(proto)
    return max((2 * sizes.get(attention[0], 0.0) for attention in _scores(proto)), default=0.0)


def _scores(proto: onnx.ModelProto) -> list[list[str]]:
    """Of each attention the tensors that no one sees who fuses it: the shares, and back to the product behind them."""
    makers = {name: node for node in proto.graph.node for name in node.output}
    found = []
    for softmax in proto.graph.node:
        if softmax.op_type == "Softmax":
            tensors, node = [softmax.output[0]], makers.get(softmax.input[0])
            while node is not None and node.op_type in ("Add", "Div", "Mul", "Sub", "Where"):
                tensors.append(node.output[0])
                node = next((makers[name] for name in node.input if name in makers), None)
            if node is not None and node.op_type == "MatMul":
                found.append([*tensors, node.output[0]])
    return found


def shapes_of(proto: onnx.ModelProto) -> dict[str, list[int]]:
    """Of all tensors of a graph with fixed sizes, weights included; 0 for what shape inference cannot tell."""
    graph = onnx.shape_inference.infer_shapes(proto).graph
    values = {value.name: list(_shape(value)) for value in (*graph.input, *graph.value_info, *graph.output)}
    return values | {tensor.name: list(tensor.dims) for tensor in graph.initializer}


def _sizes(proto: onnx.ModelProto) -> dict[str, float]:
    """FP32 bytes an input pixel of all tensors, as far as they can be told."""
    height = width = 64
    known = inferred(proto, height, width)
    return {
        value.name: 4.0 * math.prod(_shape(value)) / (height * width)
        for value in (*known.graph.input, *known.graph.value_info, *known.graph.output)
    }


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
