"""Counting what a graph computes, and its shapes where it computes those itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from vidsr import models
from vidsr.graph import Builder, export_model
from vidsr.graph.cost import multiply_adds
from vidsr.graph.measure import multiple, output_shape, radius


def model(network: Callable[[Builder, str], str]) -> onnx.ModelProto:
    return export_model(network, name="test", metadata={})


def weight(build: Builder, *shape: int) -> str:
    return build.constant(np.zeros(shape, np.float32))


def windows(build: Builder, image: str) -> str:
    """Squares of 8 x 8 with a matrix product each, as attention has them; sizes are computed in the graph."""
    op, shape = build.op, build.op("Shape", image)
    height, width = (op("Slice", shape, build.constant([axis]), build.constant([axis + 1])) for axis in (2, 3))
    eight = build.constant([8])
    down, right = (op("Div", length, eight) for length in (height, width))
    cut = op("Concat", build.constant([1, 3]), down, eight, right, eight, axis=0)
    parts = op("Transpose", op("Reshape", image, cut), perm=[0, 2, 4, 1, 3, 5])
    rows = op("Reshape", parts, op("Concat", op("Mul", down, right), build.constant([3, 64]), axis=0))
    mixed = op("MatMul", rows, weight(build, 64, 64))
    back = op("Reshape", mixed, op("Concat", build.constant([1]), down, right, build.constant([3, 8, 8]), axis=0))
    return op("Reshape", op("Transpose", back, perm=[0, 3, 1, 4, 2, 5]), shape)


@pytest.mark.parametrize(
    ("network", "pairs"),
    [
        (lambda build, image: build.op("Conv", image, weight(build, 3, 3, 3, 5), pads=[1, 2, 1, 2]), 3 * 3 * 15),
        (lambda build, image: build.op("Conv", image, weight(build, 3, 1, 3, 3), pads=[1] * 4, group=3), 3 * 9),
        (lambda build, image: build.op("ConvTranspose", image, weight(build, 3, 3, 2, 2), strides=[2, 2]), 9 * 4),
        (windows, 3 * 64),
        (lambda build, image: build.op("Relu", image), 0),
    ],
    ids=["convolution", "by channel", "transposed", "products", "none"],
)
def test_count(network: Callable[[Builder, str], str], pairs: int) -> None:
    """By hand, an input pixel."""
    assert multiply_adds(model(network)) == pairs


def test_span() -> None:
    """As its weights say: each is used once a pixel of the input."""
    span = models.load("span")
    used = {node.input[1] for node in span.proto.graph.node if node.op_type == "Conv"}
    weights = (tensor for tensor in span.proto.graph.initializer if tensor.name in used)
    assert multiply_adds(span.proto) == sum(np.prod(tensor.dims) for tensor in weights)


def test_sizes_computed_in_the_graph() -> None:
    proto = model(windows)
    assert output_shape(proto, 16, 40) == (1, 3, 16, 40)
    assert multiple(proto, 1) == 8
    assert radius(proto) is None


def test_positions_are_no_weights() -> None:
    """A network that adds where a pixel is sees all of the picture."""

    def network(build: Builder, image: str) -> str:
        width = build.op("Gather", build.op("Shape", image), build.constant(np.int64(3)))
        zero, one = (build.constant(np.int64(value)) for value in (0, 1))
        return build.op("Add", image, build.op("Cast", build.op("Range", zero, width, one), to=1))

    assert radius(model(network)) is None


@pytest.mark.parametrize(("begin", "reach"), [(0, 1), (1, None)])
def test_cut(begin: int, reach: int | None) -> None:
    """Taken from the end, rows leave the others where they are."""

    def network(build: Builder, image: str) -> str:
        wide = build.op("Conv", image, weight(build, 3, 3, 3, 3), pads=[1] * 4)
        return build.op("Slice", wide, build.constant([begin]), build.constant([-1]), build.constant([2]))

    assert radius(model(network)) == reach


@pytest.mark.parametrize(("mode", "reach"), [("floor", 2), ("ceil", None)])
def test_repeated_pixels(mode: str, reach: int | None) -> None:
    """3x3 on the repeated picture and 3x3 on the given one: two pixels, and no other kind of resampling."""

    def network(build: Builder, image: str) -> str:
        first = build.op("Conv", image, weight(build, 3, 3, 3, 3), pads=[1] * 4)
        large = build.op(
            "Resize", first, "", build.constant([1.0, 1.0, 2.0, 2.0]), mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode=mode,
        )  # fmt: skip
        return build.op("Conv", large, weight(build, 3, 3, 3, 3), pads=[1] * 4)

    assert radius(model(network)) == reach
