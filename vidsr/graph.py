"""Composes an engine's graph: planes -> RGB -> model -> RGB -> planes, as one ONNX model.

`compose` wraps any RGB model, ours or a downloaded one. The colour maths around the model is FP32 throughout; its
node names begin with `HEAD` and `TAIL`, so that a backend which lowers precision can leave them alone.

Inputs of a composed graph: `in0..in2` (planes, uint8|uint16 [H, W]), `rgb_from_codes` and `codes_from_rgb`
(float32 [3, 4], see `vidsr.color.Conversion`). Outputs: `out0..out2` (planes, uint8|uint16 [H', W']).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vidsr.filters import chroma_offsets, downsample_taps, upsample_taps
from vidsr.frame import FrameLayout

__all__ = ["CODES_FROM_RGB", "HEAD", "RGB_FROM_CODES", "TAIL", "Builder", "compose", "export_model", "plane_names"]

HEAD = "vidsr/head/"
TAIL = "vidsr/tail/"
RGB_FROM_CODES = "rgb_from_codes"
CODES_FROM_RGB = "codes_from_rgb"
IR_VERSION = 8
OPSET = 17


class Builder:
    """Collects nodes and initializers; every method returns the name of the tensor it makes."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
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
        opset: int = OPSET,
        metadata: dict[str, str] | None = None,
    ) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, name, list(inputs), list(outputs), self.initializers)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="vidsr", ir_version=IR_VERSION
        )
        helper.set_model_props(model, metadata or {})
        return model


def export_model(network: Callable[[Builder, str], str], *, name: str, metadata: dict[str, str]) -> onnx.ModelProto:
    """A network written with `Builder` as a checked model: RGB float32 [n, 3, h, w] in and out, sizes free.

    network: given the builder and the input's name, adds nodes and returns the output's name.
    """
    build = Builder()
    result = network(build, "input")
    _producer(build.nodes, result).output[0] = "output"
    tensors = [
        helper.make_tensor_value_info(tensor, TensorProto.FLOAT, shape)
        for tensor, shape in (("input", ("n", 3, "h", "w")), ("output", ("n", 3, "h_out", "w_out")))
    ]
    model = build.model(tensors[:1], tensors[1:], name=name, metadata=metadata)
    onnx.checker.check_model(model)
    return model


def plane_names(kind: str, layout: FrameLayout) -> tuple[str, ...]:
    """Tensor names of a layout's planes; `kind` is "in" or "out"."""
    return tuple(f"{kind}{index}" for index in range(len(layout.shapes)))


def compose(model: onnx.ModelProto, source: FrameLayout, target: FrameLayout) -> onnx.ModelProto:
    """The graph that takes `source` planes to `target` planes through `model`.

    model: one input and one output, float32 or float16 [N, 3, H, W], opset 13 or newer, `target` / `source` times
        larger on output. It is not modified.
    Rows of both matrices are those of `vidsr.color.conversion` for the same layouts.
    """
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < 13:
        raise ValueError(f"compose needs opset 13 or newer, the model has {opset}")
    composed = onnx.ModelProto()
    composed.CopyFrom(model)
    composed.ir_version = max(composed.ir_version, IR_VERSION)
    graph = composed.graph
    ours = {*plane_names("in", source), *plane_names("out", target), RGB_FROM_CODES, CODES_FROM_RGB}
    _rename(graph, {name: f"vidsr/model/{name}" for name in ours})
    (model_input,), (model_output,) = _free_inputs(composed), list(graph.output)
    head, tail = Builder(HEAD), Builder(TAIL)
    rgb = _rgb_from_planes(head, source)
    input_type = model_input.type.tensor_type.elem_type
    if input_type != TensorProto.FLOAT:
        rgb = head.op("Cast", rgb, to=input_type)
    head.nodes[-1].output[0] = model_input.name

    upscaled = model_output.name
    if model_output.type.tensor_type.elem_type != TensorProto.FLOAT:
        upscaled = tail.op("Cast", upscaled, to=TensorProto.FLOAT)
    outputs = _planes_from_rgb(tail, upscaled, target)
    for node, old, new in zip(
        (_producer(tail.nodes, name) for name in outputs), outputs, plane_names("out", target), strict=True
    ):
        assert node.output[0] == old
        node.output[0] = new

    plane_type = helper.np_dtype_to_tensor_dtype
    inputs = [
        helper.make_tensor_value_info(name, plane_type(source.dtype), shape)
        for name, shape in zip(plane_names("in", source), source.shapes, strict=True)
    ]
    inputs += [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (3, 4)) for name in (RGB_FROM_CODES, CODES_FROM_RGB)
    ]
    results = [
        helper.make_tensor_value_info(name, plane_type(target.dtype), shape)
        for name, shape in zip(plane_names("out", target), target.shapes, strict=True)
    ]
    _hold_accumulators(graph)
    nodes = [*head.nodes, *graph.node, *tail.nodes]
    for field in (graph.node, graph.input, graph.output, graph.value_info):
        del field[:]
    graph.node.extend(nodes)
    graph.input.extend(inputs)
    graph.output.extend(results)
    graph.initializer.extend([*head.initializers, *tail.initializers])
    graph.name = "vidsr"
    return composed


def _hold_accumulators(graph: onnx.GraphProto) -> None:
    """Puts a limit nobody reaches behind a last convolution that goes straight into the pixel shuffle.

    A backend that rounds convolution results to BF16 keeps them in FP32 when an FP32 operation is fused to them, and
    this one costs nothing. A convolution with an addition behind it has that already.
    """
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    if not convolutions:
        return
    weights = {tensor.name: tensor.data_type for tensor in graph.initializer}
    weights |= {
        node.output[0]: attribute.t.data_type
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
    }
    if weights.get(convolutions[-1].input[1]) != TensorProto.FLOAT:
        return
    result = convolutions[-1].output[0]
    if [node.op_type for node in consumers.get(result, [])] != ["DepthToSpace"]:
        return
    build = Builder(f"{TAIL}hold_")
    held = build.op("Clip", result, build.constant(np.float32(-1e9)), build.constant(np.float32(1e9)))
    consumers[result][0].input[0] = held
    graph.initializer.extend(build.initializers)
    position = next(index for index, node in enumerate(graph.node) if result in node.output) + 1
    graph.node.insert(position, build.nodes[0])


def _producer(nodes: Sequence[onnx.NodeProto], name: str) -> onnx.NodeProto:
    return next(node for node in nodes if name in node.output)


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Tensors called as a key of `names` take its value, in subgraphs as well."""
    for node in graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [names.get(name, name) for name in tensors]
        for attribute in node.attribute:
            for subgraph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                _rename(subgraph, names)
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)


def _free_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Graph inputs that no initializer fills (old exporters list the weights as inputs as well)."""
    filled = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in filled]


def _columns(build: Builder, matrix: str) -> list[str]:
    """The four columns of a [3, 4] input, each float32 [1, 3, 1, 1]."""
    shape = build.constant([1, 3, 1, 1])
    return [
        build.op("Reshape", build.op("Gather", matrix, build.constant([column]), axis=1), shape) for column in range(4)
    ]


def _rgb_from_planes(build: Builder, layout: FrameLayout) -> str:
    """float32 [1, 3, H, W] from the inputs `in0..`."""
    columns = _columns(build, RGB_FROM_CODES)
    rgb = columns[3]
    for index, (name, (height, width)) in enumerate(zip(plane_names("in", layout), layout.shapes, strict=True)):
        plane = build.op("Cast", name, to=TensorProto.FLOAT)
        plane = build.op("Reshape", plane, build.constant([1, 1, height, width]))
        if index and layout.chroma != (1, 1):
            plane = _upsample(build, plane, layout)
        rgb = build.op("Add", rgb, build.op("Mul", plane, columns[index]))
    return rgb


def _upsample(build: Builder, plane: str, layout: FrameLayout) -> str:
    """One chroma plane float32 [1, 1, h, w] to luma size [1, 1, H, W]; edges repeat."""
    _, (height, width) = layout.shapes[0], layout.shapes[1]
    down, right = layout.chroma
    offset_y, offset_x = chroma_offsets(layout.chroma, layout.siting)
    taps_y, first_y = upsample_taps(down, offset_y)
    taps_x, first_x = upsample_taps(right, offset_x)
    plane = _extend(build, plane, 2, height, first_y, height - 1 + first_y + taps_y.shape[1])
    plane = _extend(build, plane, 3, width, first_x, width - 1 + first_x + taps_x.shape[1])
    weights = np.einsum("ay,bx->abyx", taps_y, taps_x).reshape(down * right, 1, taps_y.shape[1], taps_x.shape[1])
    phases = build.op("Conv", plane, build.constant(weights.astype(np.float32)))
    # [1, down * right, h, w] -> [1, 1, h * down, w * right]: interleave the phases.
    phases = build.op("Reshape", phases, build.constant([down, right, height, width]))
    phases = build.op("Transpose", phases, perm=[2, 0, 3, 1])
    full = build.op("Reshape", phases, build.constant([1, 1, height * down, width * right]))
    if (height * down, width * right) == (layout.height, layout.width):
        return full
    ends = build.constant([layout.height, layout.width])
    return build.op("Slice", full, build.constant([0, 0]), ends, build.constant([2, 3]))


def _downsample(build: Builder, plane: str, layout: FrameLayout) -> str:
    """One plane float32 [1, 1, H, W] filtered to chroma size [1, 1, h, w]; edges repeat."""
    down, right = layout.chroma
    offset_y, offset_x = chroma_offsets(layout.chroma, layout.siting)
    taps_y, first_y = downsample_taps(down, offset_y)
    taps_x, first_x = downsample_taps(right, offset_x)
    height, width = layout.shapes[1]
    plane = _extend(build, plane, 2, layout.height, first_y, down * (height - 1) + first_y + taps_y.shape[1])
    plane = _extend(build, plane, 3, layout.width, first_x, right * (width - 1) + first_x + taps_x.shape[1])
    weights = np.einsum("ay,bx->abyx", taps_y, taps_x).astype(np.float32)
    return build.op("Conv", plane, build.constant(weights), strides=[down, right])


def _extend(build: Builder, value: str, axis: int, size: int, first: int, last: int) -> str:
    """Samples `first` to `last` (exclusive) along an axis of `size`; those outside repeat the edge.

    A Gather and not a Pad: OpenVINO rewrites Pad, and what it rewrites loses the mark that keeps it in FP32.
    """
    if first == 0 and last == size:
        return value
    indices = np.clip(np.arange(first, last), 0, size - 1)
    return build.op("Gather", value, build.constant(indices), axis=axis)


def _planes_from_rgb(build: Builder, rgb: str, layout: FrameLayout) -> list[str]:
    """Rounded, clipped planes from float32 [1, 3, H', W']; returns the tensors in plane order."""
    peak = 2**layout.bits - 1
    channels = [build.op("Gather", rgb, build.constant([channel]), axis=1) for channel in range(3)]
    outputs = []
    for index, shape in enumerate(layout.shapes):
        row = build.op("Gather", CODES_FROM_RGB, build.constant([index]), axis=0)
        weights = [build.op("Gather", row, build.constant([column]), axis=1) for column in range(4)]
        codes = weights[3]
        for channel, weight in zip(channels, weights[:3], strict=True):
            codes = build.op("Add", codes, build.op("Mul", channel, weight))
        if index and layout.chroma != (1, 1):
            codes = _downsample(build, codes, layout)
        codes = build.op("Reshape", codes, build.constant(shape))
        codes = build.op("Round", codes)
        codes = build.op("Clip", codes, build.constant(np.float32(0)), build.constant(np.float32(peak)))
        outputs.append(build.op("Cast", codes, to=helper.np_dtype_to_tensor_dtype(layout.dtype)))
    return outputs
