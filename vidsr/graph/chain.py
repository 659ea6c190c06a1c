"""Models that follow each other, as one RGB model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, version_converter
from onnx.compose import add_prefix

from vidsr.graph.border import TAIL, FreeSize
from vidsr.graph.builder import IR_VERSION, Builder, free_inputs, opset_of, producer
from vidsr.graph.guard import guarded

__all__ = ["CHAIN_REACH", "Link", "chained"]

CHAIN_REACH = 1
"""How far the limit behind a model looks around, in its input's pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A model of a chain: as `compose` takes it, `scale` times larger on output. guard: one stands behind it."""

    proto: onnx.ModelProto
    scale: int
    guard: bool = False


def chained(links: Sequence[Link]) -> onnx.ModelProto:
    """One model, float32 [N, 3, H, W] in and out; it takes multiples of what its parts need.

    The picture between two models is float32 and not rounded; it goes no further beyond black and white than the
    pixels around it in the first one's input do, for what a model makes of values it was not trained on may be wild.
    The first model sees the picture upside down and mirrored: a trained one moves it by a hundredth of a pixel or two,
    which later ones would enlarge, and now take back.
    Raises ValueError where the models' opsets cannot be brought together.
    """
    opset = max(opset_of(link.proto) for link in links)
    whole = Builder(f"{TAIL}chain/")
    picture = _turned(whole, "input")
    for index, link in enumerate(links):
        graph = add_prefix(_raised(link.proto, opset), f"vidsr/chain{index}/").graph
        (given,), (made,) = free_inputs(graph), graph.output
        build = Builder(f"{TAIL}chain{index}/", opset)
        cast = helper.make_node("Cast", [picture], [given.name], to=given.type.tensor_type.elem_type)
        result = made.name
        if made.type.tensor_type.elem_type != TensorProto.FLOAT:
            result = build.op("Cast", result, to=TensorProto.FLOAT)
        if link.guard:
            result = guarded(build, picture, result, link.scale, (0, 0), FreeSize())
        if index < len(links) - 1:
            result = _limited(build, picture, result, link.scale)
        if index == 0:
            result = _turned(build, result)
        whole.nodes += [cast, *graph.node, *build.nodes]
        whole.initializers += [*graph.initializer, *build.initializers]
        picture = result
    producer(whole.nodes, picture).output[0] = "output"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("input", ("n", 3, "h", "w")), ("output", (None, None, None, None)))
    ]
    graph = helper.make_graph(whole.nodes, "chain", ends[:1], ends[1:], whole.initializers)
    version = max(IR_VERSION, *(link.proto.ir_version for link in links))
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="vidsr", ir_version=version
    )


def _limited(build: Builder, image: str, upscaled: str, scale: int) -> str:
    """`upscaled`, within 0..1 or what the 3x3 pixels of `image` around hold beyond that."""
    one, zero = (build.constant(np.float32(value)) for value in (1, 0))
    window: dict[str, Any] = {"kernel_shape": [2 * CHAIN_REACH + 1] * 2, "pads": [CHAIN_REACH] * 4}
    highest = build.op("Max", build.op("MaxPool", image, **window), one)
    lowest = build.op("Neg", build.op("Max", build.op("MaxPool", build.op("Neg", image), **window), zero))
    repeats = build.constant([1, scale**2, 1, 1])

    def enlarged(bound: str) -> str:
        return build.op("DepthToSpace", build.op("Tile", bound, repeats), blocksize=scale, mode="DCR")

    return build.op("Max", build.op("Min", upscaled, enlarged(highest)), enlarged(lowest))


def _turned(build: Builder, picture: str) -> str:
    """By 180 degrees."""
    first, behind, backwards = ([value, value] for value in (-1, -(2**31), -1))
    return build.op("Slice", picture, *(build.constant(values) for values in (first, behind, [2, 3], backwards)))


def _raised(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    if opset_of(proto) == opset:
        return proto
    try:
        return version_converter.convert_version(proto, opset)
    except Exception as error:  # the converter raises RuntimeError and its own C++ errors alike
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"cannot be chained, there is no form of it in ONNX opset {opset} ({reason})") from error
