"""Cuts a composed graph into parts that run one after the other, so that what passes between them can be kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

from vidsr.frame import FrameLayout
from vidsr.graph.border import HEAD, TAIL
from vidsr.graph.cost import node_pairs
from vidsr.graph.measure import reach_from, shapes_of

__all__ = ["Cut", "Tensor", "cuts", "part"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """What passes a cut. shape: [1, channels, height, width]; step: source pixels down and right between its samples.

    exact: no convolution has made it, so that backends keep it in FP32 whatever the precision of the model.
    """

    name: str
    shape: tuple[int, int, int, int]
    step: int
    exact: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """tensors: all that passes, but for the colour matrices. reach: how far what passes depends on what passed the cut
    before, or on the planes, in source pixels. share: of all arithmetic that lies between."""

    tensors: tuple[Tensor, ...]
    reach: int
    share: float


def cuts(composed: onnx.ModelProto, source: FrameLayout, count: int, *, reach: int) -> tuple[Cut, ...] | None:
    """The cuts that make `count` parts of about the same arithmetic, where little passes between them; the last one is
    the end of the graph and has no tensors. None where the graph cannot be cut so: a chain, or one in FP16.

    composed: a graph with fixed sizes, which are multiples of all steps. reach: of the whole graph, in source pixels.
    """
    graph = composed.graph
    if any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in graph.initializer):
        return None
    shapes = shapes_of(composed)
    weights = {tensor.name for tensor in graph.initializer}
    nodes = list(graph.node)
    last_use = {name: index for index, node in enumerate(nodes) for name in node.input}
    done, total = 0.0, sum(node_pairs(node, shapes) for node in nodes)
    alive: dict[str, None] = {}
    rounded: set[str] = set()
    places: list[tuple[float, int, tuple[Tensor, ...]]] = []
    for index, node in enumerate(nodes):
        done += node_pairs(node, shapes) / max(total, 1.0)
        alive |= dict.fromkeys([] if weights.issuperset(node.input) else node.output)
        alive = dict.fromkeys(name for name in alive if last_use.get(name, -1) > index)
        if not node.name.startswith(HEAD) and (node_pairs(node, shapes) or not rounded.isdisjoint(node.input)):
            rounded.update(node.output)
        # Libraries fuse what follows a convolution to it and round the end of that: elsewhere a cut would round, too.
        behind = nodes[index + 1] if index + 1 < len(nodes) else node
        if node.name.startswith((HEAD, TAIL)) or not 0 < done < 1 or behind.op_type != "Conv":
            continue
        passing = [_tensor(name, shapes, source, rounded) for name in alive]
        if all(passing):
            found = tuple(tensor for tensor in passing if tensor is not None)
            places.append((done, sum(math.prod(tensor.shape) for tensor in found), found))
    chosen: list[tuple[float, tuple[Tensor, ...]]] = []
    for number in range(1, count):
        near = [place for place in places if -0.5 / count <= place[0] - number / count < 0.5 / count]
        if not near:
            return None
        share, _, tensors = min(near, key=lambda place: (place[1], abs(place[0] - number / count)))
        chosen.append((share, tensors))
    return _measured(graph, chosen, source, reach)


def part(composed: onnx.ModelProto, before: Cut | None, behind: Cut) -> onnx.ModelProto:
    """The part between two cuts, of a graph composed around the same model in any fixed size. Its inputs are what
    passes `before` and what its nodes take of the composed graph's own inputs; its outputs what passes `behind` and did
    not pass `before`, or the planes."""
    given = [tensor.name for tensor in before.tensors] if before else []
    graph = composed.graph
    ends = [tensor.name for tensor in behind.tensors] or [value.name for value in graph.output]
    wanted = [name for name in ends if name not in given]
    needed, nodes = set(wanted), []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            nodes.append(node)
            needed.update(node.input)
            needed.difference_update(given)
    shapes = shapes_of(composed)
    own = [value for value in graph.input if value.name in needed]
    passed = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shapes[name])
        for name in given
        if any(name in node.input for node in nodes)
    ]
    known = {value.name: value for value in graph.output}
    outputs = [
        known.get(name) or helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shapes[name]) for name in wanted
    ]
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    made = helper.make_graph(nodes[::-1], "vidsr", [*own, *passed], outputs, weights)
    model = helper.make_model(made, opset_imports=composed.opset_import)
    model.ir_version = composed.ir_version
    return model


def _tensor(name: str, shapes: dict[str, list[int]], source: FrameLayout, rounded: set[str]) -> Tensor | None:
    """What it is where it lies on a grid over the picture."""
    shape = shapes.get(name, [])
    if len(shape) != 4 or shape[0] != 1 or not all(shape):
        return None
    channels, height, width = shape[1:]
    step = source.height // height
    if step * height != source.height or step * width != source.width:
        return None
    return Tensor(name=name, shape=(1, channels, height, width), step=step, exact=name not in rounded)


def _measured(
    graph: onnx.GraphProto,
    chosen: Sequence[tuple[float, tuple[Tensor, ...]]],
    source: FrameLayout,
    reach: int,
) -> tuple[Cut, ...] | None:
    """The cuts with their reach. None where a node's reach is unknown."""
    nodes = graph.node
    model = [node for node in nodes if not node.name.startswith((HEAD, TAIL))]
    names = {name for node in model for name in node.input} & {
        name for node in nodes if node.name.startswith(HEAD) for name in node.output
    }
    if not names:  # a chain of models
        return None
    start = dict.fromkeys(names, 1)
    ends = {name for node in nodes if node.name.startswith(TAIL) for name in node.input}
    within = reach_from(graph, model, start, ends)
    if within is None:
        return None
    # The colour maths on the way in reach two chroma samples; what is left of the whole reach is on the way out.
    head = 2 * max(source.chroma) if max(source.chroma) > 1 else 0
    tail = max(0, reach - within - head)
    found = list[Cut]()
    done, before = 0.0, start
    for share, tensors in chosen:
        far = reach_from(graph, model, before, {tensor.name for tensor in tensors})
        if far is None:
            return None
        found.append(Cut(tensors=tensors, reach=far + (0 if found else head), share=share - done))
        done, before = share, {tensor.name: tensor.step for tensor in tensors}
    far = reach_from(graph, model, before, ends)
    if far is None:
        return None
    return (*found, Cut(tensors=(), reach=far + tail + (0 if found else head), share=1 - done))
