"""Composes an engine's graph: planes -> RGB -> model -> RGB -> planes, as one ONNX model.

`compose` wraps any RGB model, ours or a downloaded one. The colour maths around the model is FP32 throughout; its
node names begin with `HEAD` and `TAIL`, so that a backend which lowers precision can leave them alone.

Inputs of a composed graph: `in0..in2` (planes), `rgb_from_codes` and `codes_from_rgb` (float32 [3, 4], see
`vidsr.color.Conversion`). Outputs: `out0..out2` (planes). How planes lie: `vidsr.graph.planes`.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from vidsr.frame import FrameLayout
from vidsr.graph.border import (
    CODES_FROM_RGB,
    HEAD,
    RGB_FROM_CODES,
    TAIL,
    FixedSize,
    FreeSize,
    Shaping,
    crop,
    planes_from_rgb,
    rgb_from_planes,
)
from vidsr.graph.builder import IR_VERSION, Builder, free_inputs, opset_of, producer
from vidsr.graph.guard import guarded
from vidsr.graph.phases import WHOLE, Shuffle
from vidsr.graph.planes import Planes, plane_names, plane_tensors

__all__ = ["compose"]


def compose(
    model: onnx.ModelProto,
    source: FrameLayout,
    target: FrameLayout,
    *,
    multiple: int = 1,
    guard: bool = False,
    planes: Planes = "native",
    dynamic: bool = False,
) -> onnx.ModelProto:
    """The graph that takes `source` planes to `target` planes through `model`.

    model: one input and one output, float32 or float16 [N, 3, H, W], opset 13 or newer, `target` / `source` times
        larger on output. It is not modified.
    multiple: what the model needs its height and width to be multiples of (`Model.multiple`). Other pictures are
        extended by their last row and column, and the result is cropped.
    guard: keeps results that leave all reason out of the picture (`vidsr.graph.guard`).
    dynamic: height and width are free, and those of the layouts only tell how chroma relates to luma: they must be
        multiples of the chroma factors and of `multiple`, as must be the sizes it is run with.
    Rows of both matrices are those of `vidsr.color.conversion` for the same layouts.
    Raises ValueError for an older opset, and where `dynamic` cannot be had.
    """
    opset = opset_of(model)
    if opset < 13:
        raise ValueError(f"compose needs opset 13 or newer, the model has {opset}")
    if dynamic:
        _need_multiples(source, target, multiple)
    shaping: Shaping = FixedSize() if planes == "native" and not dynamic else FreeSize()
    composed = onnx.ModelProto()
    composed.CopyFrom(model)
    composed.ir_version = max(composed.ir_version, IR_VERSION)
    graph = composed.graph
    ours = {*plane_names("in", source), *plane_names("out", target), RGB_FROM_CODES, CODES_FROM_RGB}
    _rename(graph, {name: f"vidsr/model/{name}" for name in ours})
    (model_input,), (model_output,) = free_inputs(graph), list(graph.output)
    head, tail = Builder(HEAD, opset), Builder(TAIL, opset)
    rgb = rgb_from_planes(head, source, planes, shaping)
    height, width = (-(-length // multiple) * multiple for length in source.shapes[0])
    exact = rgb
    rgb = shaping.extend(head, rgb, source.shapes[0], (0, height), (0, width))
    input_type = model_input.type.tensor_type.elem_type
    if input_type != TensorProto.FLOAT:
        rgb = head.op("Cast", rgb, to=input_type)
    head.nodes[-1].output[0] = model_input.name
    if rgb == exact:
        exact = model_input.name

    _hold_accumulators(graph)
    upscaled, shuffle = model_output.name, WHOLE
    scale = target.height // source.height
    if planes == "native" and not dynamic and (height, width) == source.shapes[0]:
        upscaled, shuffle = _before_shuffle(graph, upscaled, target, factor=scale if guard else None)
    if model_output.type.tensor_type.elem_type != TensorProto.FLOAT:
        upscaled = tail.op("Cast", upscaled, to=TensorProto.FLOAT)
    if (height, width) != source.shapes[0]:
        upscaled = crop(tail, upscaled, target.shapes[0])
    if guard:
        upscaled = guarded(tail, exact, upscaled, scale, source.shapes[0], shaping, shuffle)
    outputs = planes_from_rgb(tail, upscaled, target, planes, shaping, shuffle)
    for node, old, new in zip(
        (producer(tail.nodes, name) for name in outputs), outputs, plane_names("out", target), strict=True
    ):
        assert node.output[0] == old
        node.output[0] = new

    inputs = _border("in", source, planes, dynamic)
    inputs += [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (3, 4)) for name in (RGB_FROM_CODES, CODES_FROM_RGB)
    ]
    nodes = [*head.nodes, *graph.node, *tail.nodes]
    for field in (graph.node, graph.input, graph.output, graph.value_info):
        del field[:]
    graph.node.extend(nodes)
    graph.input.extend(inputs)
    graph.output.extend(_border("out", target, planes, dynamic))
    graph.initializer.extend([*head.initializers, *tail.initializers])
    graph.name = "vidsr"
    return composed


def _need_multiples(source: FrameLayout, target: FrameLayout, multiple: int) -> None:
    for layout, step in ((source, multiple), (target, 1)):
        down, right = (math.lcm(factor, step) for factor in layout.chroma)
        if layout.height % down or layout.width % right:
            raise ValueError(
                f"a graph for any size needs a width that is a multiple of {right} and a height of {down}, "
                f"which {layout.width}x{layout.height} is not"
            )


def _border(
    kind: Literal["in", "out"], layout: FrameLayout, planes: Planes, dynamic: bool
) -> list[onnx.ValueInfoProto]:
    """The planes as inputs or outputs of a graph."""
    values = []
    for index, tensor in enumerate(plane_tensors(kind, layout, planes)):
        shape: tuple[int | str, ...] = tensor.shape
        if dynamic:
            names = zip(("height", "width"), layout.chroma, strict=True)
            free = [f"{kind}_{'chroma_' if index and factor > 1 else ''}{name}" for name, factor in names]
            shape = (*free, *tensor.shape[2:])
        values.append(helper.make_tensor_value_info(tensor.name, helper.np_dtype_to_tensor_dtype(tensor.dtype), shape))
    return values


def _before_shuffle(
    graph: onnx.GraphProto, output: str, target: FrameLayout, factor: int | None
) -> tuple[str, Shuffle]:
    """Takes a last pixel shuffle out of the graph where whole chroma samples lie in its squares.

    factor: the only one it may have; any for None.
    """
    node = producer(graph.node, output)
    if node.op_type != "DepthToSpace":
        return output, WHOLE
    stated = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    size = stated["blocksize"]
    if any(size % step for step in target.chroma) or factor not in (None, size):
        return output, WHOLE
    graph.node.remove(node)
    return node.input[0], Shuffle(factor=size, mode=stated.get("mode", b"DCR").decode())


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
