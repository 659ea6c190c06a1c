"""What a model's graph does to a picture, found without running it: sizes, how far it sees, memory."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import onnx
from onnx import TensorProto, numpy_helper, shape_inference

__all__ = ["MOST", "multiple", "output_shape", "peak_bytes", "radius"]

MOST = 48
_WINDOWED = {"Conv", "MaxPool", "AveragePool", "Pad"}
_POINTWISE = {
    "Abs", "Add", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Div", "Elu", "Erf", "Exp", "Gather",
    "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Max", "Min", "Mish", "Mul", "Neg", "Pow",
    "PRelu", "Relu", "Sigmoid", "Softplus", "Split", "Sqrt", "Sub", "Sum", "Tanh",
}  # fmt: skip


def output_shape(proto: onnx.ModelProto, height: int, width: int) -> tuple[int, ...]:
    """Of one picture of that size; 0 for what cannot be told. Raises what `onnx` does where shapes contradict."""
    return _shape(_inferred(proto, height, width).graph.output[0])


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
    """How far an output depends on the input, in input pixels; None where the whole picture may matter.

    Walks the graph with (pixels seen before, after, step) per tensor, up to the first unknown operator. Sample `i` of
    a tensor lies at pixel `i * step` of the input, and what it sees is counted from there.
    """
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    reach = {
        value.name: (Fraction(0), Fraction(0), Fraction(1)) for value in proto.graph.input if value.name not in tensors
    }
    for node in proto.graph.node:
        if node.op_type == "Constant":
            tensors[node.output[0]] = _attribute(node, "value", TensorProto())
            continue
        sources = [reach[name] for name in node.input if name in reach]
        if not sources:
            continue
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
        elif node.op_type not in _POINTWISE:
            return None
        for output in node.output:
            reach[output] = (before, after, step)
    first, last, fine = reach[proto.graph.output[0].name]
    # The last sample that belongs to a pixel lies 1 - fine behind it.
    return math.floor(max(Fraction(0), first, last + 1 - fine))


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


def peak_bytes(proto: onnx.ModelProto) -> float:
    """Largest sum of tensors alive at once, in FP32 bytes an input pixel."""
    height = width = 64
    inferred = _inferred(proto, height, width)
    sizes = {
        value.name: 4.0 * math.prod(_shape(value)) / (height * width)
        for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    }
    last_use = {name: index for index, node in enumerate(proto.graph.node) for name in node.input}
    alive: dict[str, float] = {}
    peak = 0.0
    for index, node in enumerate(proto.graph.node):
        alive.update({name: sizes.get(name, 0.0) for name in node.output if node.op_type != "Constant"})
        peak = max(peak, sum(alive.values()))
        alive = {name: size for name, size in alive.items() if last_use.get(name, -1) > index}
    return peak


def _inferred(proto: onnx.ModelProto, height: int, width: int) -> onnx.ModelProto:
    """A copy with all tensor shapes known for one input size."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    filled = {tensor.name for tensor in copy.graph.initializer}
    shape = next(value for value in copy.graph.input if value.name not in filled).type.tensor_type.shape
    for dim, size in zip(shape.dim, (1, 3, height, width), strict=True):
        dim.dim_value = size
    return shape_inference.infer_shapes(copy, strict_mode=True, data_prop=True)


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
