"""The composed graph against an independent float64 reference of the whole way, planes to planes.

The reference is written from the definitions (H.273 equations, Keys' cubic convolution at the siting's positions,
repeated edges) and calls neither `vidsr.filters` nor `vidsr.color.conversion`, so that an error in either shows.
In place of a network stands a nearest-neighbour enlargement.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.strong_types import violations
from vidsr import models
from vidsr.color import RGB, ColorTags, conversion
from vidsr.filters import chroma_offsets, downsample_taps, upsample_taps
from vidsr.frame import FrameLayout, Siting
from vidsr.graph import (
    CODES_FROM_RGB,
    HEAD,
    RGB_FROM_CODES,
    TAIL,
    Builder,
    border,
    compose,
    plane_names,
    plane_tensors,
)
from vidsr.graph import Planes as Form

Array = NDArray[np.float64]
Planes = list[NDArray[Any]]
Spec = tuple[Literal["yuv", "rgb", "gray"], int, tuple[int, int]]  # family, bits, chroma

KR_KB = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087)}
KR_KB[9] = (0.2627, 0.0593)
SITINGS: dict[Siting, tuple[float, float]] = {"left": (0.5, 0.0), "center": (0.5, 0.5), "topleft": (0, 0)}
"""Where a chroma sample lies, as shares (down, right) of the way from a block's first luma sample to its last."""
CHROMA = [(2, 2), (1, 2), (2, 1), (1, 4), (4, 4)]  # 4:2:0, 4:2:2, 4:4:0, 4:1:1, 4:1:0
BITS = [8, 9, 10, 12, 14, 16]
SIZES = [(12, 16, 2), (13, 17, 2), (1, 5, 3), (5, 1, 2), (1, 1, 3), (7, 6, 1)]  # height, width, scale
TAGS = [ColorTags(matrix=matrix, full_range=full) for matrix in KR_KB for full in (False, True)]
RGB_TAGS = [ColorTags(matrix=RGB, full_range=full) for full in (False, True)]
BT709, BT601, FULL_601, BT2020 = TAGS[0], TAGS[6], TAGS[7], TAGS[10]
SAME = [(tags, tags) for tags in TAGS]
CROSSED = list(zip(TAGS, TAGS[5:] + TAGS[:5], strict=True))  # another matrix and range, or errors would cancel


def keys(x: Array, a: float = -0.5) -> Array:
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


@cache
def resampler(size: int, count: int, factor: int, share: float, *, up: bool) -> Array:
    """`[count, size]`, one row per output sample: luma from chroma (`up`) or chroma from luma."""
    offset = share * (factor - 1)
    rows = np.zeros((count, size))
    for row in range(count):
        centre = (row - offset) / factor if up else row * factor + offset
        samples = np.arange(np.floor(centre) - 16, np.ceil(centre) + 17)
        weights = keys((samples - centre) / (1 if up else factor))
        np.add.at(rows[row], np.clip(samples, 0, size - 1).astype(int), weights / weights.sum())
    return rows


def resample(plane: Array, shape: tuple[int, int], layout: FrameLayout, *, up: bool) -> Array:
    (down, right), (share_y, share_x) = layout.chroma, SITINGS[layout.siting]
    vertical = resampler(plane.shape[0], shape[0], down, share_y, up=up)
    horizontal = resampler(plane.shape[1], shape[1], right, share_x, up=up)
    return np.asarray(vertical @ plane @ horizontal.T)


def excursions(bits: int, full: bool | None) -> tuple[float, float, float, float]:
    """Luma scale, black, chroma scale and chroma zero in code values."""
    if full:
        return 2.0**bits - 1, 0.0, 2.0**bits - 1, 2.0 ** (bits - 1)
    return 219 * 2.0 ** (bits - 8), 16 * 2.0 ** (bits - 8), 224 * 2.0 ** (bits - 8), 2.0 ** (bits - 1)


def reference(
    planes: Planes, source: FrameLayout, target: FrameLayout, source_tags: ColorTags, target_tags: ColorTags
) -> list[Array]:
    """The target's code values, clipped but not rounded."""
    scale, black, chroma_scale, zero = excursions(source.bits, source_tags.full_range)
    codes = [plane.astype(np.float64) for plane in planes]
    y = (codes[0] - black) / scale
    if source.family == "gray":
        r = g = b = y
    elif source.family == "rgb":
        g, b, r = y, (codes[1] - black) / scale, (codes[2] - black) / scale
    else:
        kr, kb = KR_KB[source_tags.matrix]
        pb, pr = ((resample(c, y.shape, source, up=True) - zero) / chroma_scale for c in codes[1:])
        r, b = y + 2 * (1 - kr) * pr, y + 2 * (1 - kb) * pb
        g = (y - kr * r - kb * b) / (1 - kr - kb)
    enlarge = target.height // source.height
    r, g, b = (channel.repeat(enlarge, axis=0).repeat(enlarge, axis=1) for channel in (r, g, b))

    scale, black, chroma_scale, zero = excursions(target.bits, target_tags.full_range)
    if target.family == "rgb":
        out = [scale * channel + black for channel in (g, b, r)]
    else:
        kr, kb = KR_KB[target_tags.matrix]
        y = kr * r + (1 - kr - kb) * g + kb * b
        out = [scale * y + black]
        if target.family == "yuv":
            for difference in ((b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))):
                out.append(chroma_scale * resample(difference, target.shapes[1], target, up=False) + zero)
    return [np.clip(plane, 0, 2**target.bits - 1) for plane in out]


def nearest(scale: int = 2, dtype: int = TensorProto.FLOAT, names: tuple[str, str] = ("x", "y")) -> onnx.ModelProto:
    build = Builder("net/")
    sizes = build.constant([1.0, 1.0, float(scale), float(scale)], name="scales")
    attributes = {"coordinate_transformation_mode": "asymmetric", "mode": "nearest", "nearest_mode": "floor"}
    build.op("Resize", names[0], "", sizes, name=names[1], **attributes)
    inputs, outputs = ([helper.make_tensor_value_info(name, dtype, [1, 3, None, None])] for name in names)
    return build.model(inputs, outputs, name="nearest", metadata={"author": "nobody"})


def shuffled(dtype: int) -> onnx.ModelProto:
    """Nearest x2 as networks end: a convolution straight into a pixel shuffle."""
    build = Builder("net/")
    weights = np.tile(np.eye(3), (4, 1))[:, :, None, None].astype(helper.tensor_dtype_to_np_dtype(dtype))
    features = build.op("Conv", "x", build.constant(weights))
    build.op("DepthToSpace", features, name="y", blocksize=2)
    inputs, outputs = ([helper.make_tensor_value_info(name, dtype, [1, 3, None, None])] for name in "xy")
    return build.model(inputs, outputs, name="shuffled")


def runner(model: onnx.ModelProto) -> Callable[[dict[str, Any]], Planes]:
    try:
        import onnxruntime
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        evaluator = ReferenceEvaluator(model)
        return lambda feed: list(evaluator.run(None, feed))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda feed: list(session.run(None, feed))


def pictures(layout: FrameLayout) -> Iterator[Planes]:
    """Noise, noise of extremes, checkerboard, all zero, all peak."""
    rng, peak = np.random.default_rng(7), 2**layout.bits - 1
    yield [rng.integers(0, peak, shape, layout.dtype, endpoint=True) for shape in layout.shapes]
    yield [rng.integers(0, 1, shape, layout.dtype, endpoint=True) * layout.dtype.type(peak) for shape in layout.shapes]
    yield [(np.indices(shape).sum(axis=0) % 2 * peak).astype(layout.dtype) for shape in layout.shapes]
    yield [np.zeros(shape, layout.dtype) for shape in layout.shapes]
    yield [np.full(shape, peak, layout.dtype) for shape in layout.shapes]


def layout(spec: Spec, height: int, width: int, siting: Siting = "left") -> FrameLayout:
    family, bits, chroma = spec
    return FrameLayout(family=family, bits=bits, height=height, width=width, chroma=chroma, siting=siting)


def pair(spec: Spec, size: tuple[int, int, int], siting: Siting = "left") -> tuple[FrameLayout, FrameLayout]:
    height, width, scale = size
    return layout(spec, height, width, siting), layout(spec, height * scale, width * scale, siting)


def feed(planes: Planes, source: FrameLayout, target: FrameLayout, tags: tuple[ColorTags, ColorTags]) -> dict[str, Any]:
    gray = source.family == "gray"
    maps = conversion(*tags, source_bits=source.bits, target_bits=target.bits, gray_source=gray)
    named = dict(zip(plane_names("in", source), planes, strict=True))
    return named | {RGB_FROM_CODES: maps.rgb_from_codes, CODES_FROM_RGB: maps.codes_from_rgb}


def check(
    source: FrameLayout,
    target: FrameLayout,
    tags: list[tuple[ColorTags, ColorTags]],
    *,
    model: onnx.ModelProto | None = None,
    limit: float = 0.75,
) -> None:
    """At most `limit` from the unrounded reference and one code value from the rounded one.

    Noise goes under every pair of tags; the other pictures show clipping and edges, which three pairs do as well.
    """
    run = runner(compose(model or nearest(target.height // source.height), source, target))
    noise, *extremes = pictures(source)
    cases = [*itertools.product([noise], tags), *itertools.product(extremes, tags[-3:])]
    for planes, (before, after) in cases:
        actual = run(feed(planes, source, target, (before, after)))
        expected = reference(planes, source, target, before, after)
        for got, want, shape in zip(actual, expected, target.shapes, strict=True):
            assert got.dtype == target.dtype and got.shape == shape
            assert np.abs(got - want).max() <= limit, (source, target, before, after)
            assert np.abs(got - np.rint(want)).max() <= 1, (source, target, before, after)


@pytest.mark.parametrize("siting", SITINGS)
@pytest.mark.parametrize("chroma", CHROMA)
def test_subsampled(chroma: tuple[int, int], siting: Siting) -> None:
    for bits, size in itertools.product(BITS, SIZES):
        check(*pair(("yuv", bits, chroma), size, siting), CROSSED)
    check(*pair(("yuv", 8, chroma), (13, 17, 3), siting), SAME)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("family", ["yuv", "gray", "rgb"])
def test_full_resolution(family: Literal["yuv", "rgb", "gray"], bits: int) -> None:
    for size in SIZES:
        tags = list(itertools.product(RGB_TAGS, RGB_TAGS)) if family == "rgb" else SAME + CROSSED
        check(*pair((family, bits, (1, 1)), size), tags)


@pytest.mark.parametrize(
    ("source", "target", "before", "after"),
    [
        (("rgb", 8, (1, 1)), ("yuv", 8, (1, 1)), RGB_TAGS[1], BT709),
        (("rgb", 8, (1, 1)), ("yuv", 10, (2, 2)), RGB_TAGS[0], BT2020),
        (("yuv", 8, (2, 2)), ("yuv", 10, (2, 2)), BT601, BT601),
        (("yuv", 16, (2, 2)), ("yuv", 8, (1, 2)), FULL_601, BT709),
        (("yuv", 10, (1, 4)), ("rgb", 16, (1, 1)), BT2020, RGB_TAGS[1]),
        (("yuv", 9, (4, 4)), ("gray", 12, (1, 1)), BT709, FULL_601),
        (("gray", 8, (1, 1)), ("gray", 14, (1, 1)), FULL_601, BT709),
        (("gray", 10, (1, 1)), ("yuv", 8, (2, 2)), BT601, BT601),
        (("gray", 8, (1, 1)), ("rgb", 8, (1, 1)), BT601, RGB_TAGS[1]),
    ],
)
def test_across_layouts(source: Spec, target: Spec, before: ColorTags, after: ColorTags) -> None:
    for height, width, scale in [*SIZES, (13, 17, 3)]:
        there = layout(target, height * scale, width * scale, "center")
        check(layout(source, height, width), there, [(before, after)])


@pytest.mark.parametrize(
    ("network", "dtype"),
    [
        (nearest, TensorProto.FLOAT16),
        (shuffled, TensorProto.FLOAT),
        (shuffled, TensorProto.FLOAT16),
    ],
)
def test_model_types(network: Callable[..., onnx.ModelProto], dtype: int) -> None:
    model = network(dtype=dtype)
    for chroma, siting in itertools.product([(1, 1), (2, 2)], SITINGS):
        layouts = pair(("yuv", 8, chroma), (13, 17, 2), siting)
        onnx.checker.check_model(compose(model, *layouts), full_check=True)
        check(*layouts, SAME, model=model, limit=1.0)


def mixing(factor: int, mode: str, unshuffle: int = 1, dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """Random sums of nine neighbours, then a pixel shuffle."""
    build = Builder("net/")
    inputs, outputs = 3 * unshuffle**2, 3 * factor**2
    weights = np.random.default_rng(3).random((outputs, inputs, 3, 3))
    weights /= weights.sum(axis=(1, 2, 3), keepdims=True)
    squares = build.op("SpaceToDepth", "x", blocksize=unshuffle)
    weights = weights.astype(helper.tensor_dtype_to_np_dtype(dtype))
    features = build.op("Conv", squares, build.constant(weights), pads=[1] * 4)
    build.op("DepthToSpace", features, name="y", blocksize=factor, mode=mode)
    values = [helper.make_tensor_value_info(name, dtype, [1, 3, None, None]) for name in "xy"]
    return build.model(values[:1], values[1:], name="mixing")


def followed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model, whose shuffle is not its last node."""
    model.graph.node[-1].output[0] = "z"
    model.graph.node.append(helper.make_node("Identity", ["z"], ["y"], name="last"))
    return model


def shuffles(model: onnx.ModelProto) -> bool:
    """Whether the model's own is there; the guard has one as well."""
    return any(node.op_type == "DepthToSpace" and not node.name.startswith(TAIL) for node in model.graph.node)


SHUFFLES = [(2, 1), (4, 1), (4, 2)]  # factor, unshuffle


@pytest.mark.parametrize("mode", ["CRD", "DCR"])
@pytest.mark.parametrize(("factor", "unshuffle"), SHUFFLES)
@pytest.mark.parametrize("guard", [False, True])
def test_planes_before_the_shuffle(factor: int, unshuffle: int, mode: str, guard: bool) -> None:
    """Planes made before a last pixel shuffle, and guarded there, are those made behind it, to FP32's rounding."""
    scale, differing, count = factor // unshuffle, 0, 0
    specs: list[Spec] = [("yuv", 8, chroma) for chroma in [*CHROMA, (1, 1)]]
    for spec in [*specs, ("yuv", 10, (2, 2)), ("gray", 8, (1, 1)), ("rgb", 8, (1, 1))]:
        for (rows, columns), siting in [((1, 1), "left"), ((5, 2), "topleft"), ((6, 9), "left"), ((1, 4), "center")]:
            layouts = pair(spec, (rows * unshuffle, columns * unshuffle, scale), siting)
            short = compose(mixing(factor, mode, unshuffle), *layouts, guard=guard)
            assert shuffles(short) == (any(factor % step for step in spec[2]) or (guard and unshuffle > 1))
            onnx.checker.check_model(short, full_check=True)
            whole = compose(followed(mixing(factor, mode, unshuffle)), *layouts, guard=guard)
            assert shuffles(whole)
            runs = [runner(short), runner(whole)]
            tags = (RGB_TAGS[1], RGB_TAGS[1]) if spec[0] == "rgb" else (BT601, BT709)
            for values in itertools.islice(pictures(layouts[0]), 3):
                for got, want in zip(*(run(feed(values, *layouts, tags)) for run in runs), strict=True):
                    difference = np.abs(got.astype(int) - want)
                    assert difference.max() <= 1, (spec, rows, columns, siting)
                    differing, count = differing + np.count_nonzero(difference), count + got.size
    assert differing < count / 10_000


def test_shuffle_stays_where_it_must() -> None:
    """Behind it stand the crop to odd sizes, the guard of larger squares, and all that other forms of planes know."""
    layouts = pair(("yuv", 8, (2, 2)), (6, 8, 2))
    assert not shuffles(compose(mixing(4, "CRD", 2), *layouts))
    assert shuffles(compose(mixing(4, "CRD", 2), *pair(("yuv", 8, (2, 2)), (5, 8, 2)), multiple=2))
    assert shuffles(compose(mixing(4, "CRD", 2), *layouts, guard=True))
    assert shuffles(compose(mixing(4, "CRD", 2), *layouts, dynamic=True))
    assert all(shuffles(compose(mixing(4, "CRD", 2), *layouts, planes=planes)) for planes in FORMS)


@pytest.mark.parametrize(
    ("tags", "rgb", "codes"),
    [
        (BT601, (1, 0, 0), (81, 90, 240)),
        (BT709, (1, 0, 0), (63, 102, 240)),
        (BT709, (0, 0, 1), (32, 240, 118)),
        (FULL_601, (1, 0, 0), (76, 85, 255)),
        (BT601, (1, 1, 1), (235, 128, 128)),
    ],
)
def test_well_known_code_values(tags: ColorTags, rgb: tuple[int, int, int], codes: tuple[int, int, int]) -> None:
    """Values everyone knows of colour bars, so that reference and code cannot be wrong together."""
    source, target = layout(("rgb", 8, (1, 1)), 1, 1), layout(("yuv", 8, (1, 1)), 1, 1)
    planes: Planes = [np.full((1, 1), 255 * rgb[channel], np.uint8) for channel in (1, 2, 0)]
    out = runner(compose(nearest(1), source, target))(feed(planes, source, target, (RGB_TAGS[1], tags)))
    assert tuple(int(plane[0, 0]) for plane in out) == codes


@pytest.mark.parametrize("chroma", [(1, 1), *CHROMA])
def test_constant_planes_stay_constant(chroma: tuple[int, int]) -> None:
    source, target = pair(("yuv", 8, chroma), (13, 17, 2))
    run = runner(compose(nearest(2), source, target))
    for codes in [(16, 128, 128), (0, 0, 0), (255, 255, 255), (81, 90, 240)]:
        planes: Planes = [np.full(shape, code, np.uint8) for shape, code in zip(source.shapes, codes, strict=True)]
        for plane, code in zip(run(feed(planes, source, target, (BT601, BT601))), codes, strict=True):
            assert (plane == code).all()


def averages(dtype: int) -> onnx.ModelProto:
    """The mean of each square of two by two pixels, on four by four."""
    build = Builder("net/")
    squares = build.op("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2])
    build.op("Resize", squares, "", build.constant([1.0, 1.0, 4.0, 4.0]), name="y", mode="nearest")
    inputs, outputs = ([helper.make_tensor_value_info(name, dtype, [1, 3, None, None])] for name in "xy")
    return build.model(inputs, outputs, name="averages")


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16])
@pytest.mark.parametrize("planes", ["native", "bytes", "half"])
def test_multiples(planes: Any, dtype: int) -> None:
    """A model that needs even sizes gets the last row and column twice, and its result is cropped."""
    for height, width in [(4, 6), (5, 7), (4, 7), (1, 1)]:
        source, target = pair(("rgb", 8, (1, 1)), (height, width, 2))
        composed = compose(averages(dtype), source, target, multiple=2, planes=planes)
        onnx.checker.check_model(composed, full_check=True)
        assert violations(composed) == []
        for values in pictures(source):
            found = runner(composed)(
                feed(values, source, target, (RGB_TAGS[1], RGB_TAGS[1]))
                | {
                    tensor.name: plane.astype(tensor.dtype)
                    for tensor, plane in zip(plane_tensors("in", source, planes), values, strict=True)
                }
            )
            for plane, result in zip(values, found, strict=True):
                whole = np.pad(plane.astype(float), ((0, height % 2), (0, width % 2)), mode="edge")
                means = whole.reshape(whole.shape[0] // 2, 2, whole.shape[1] // 2, 2).mean(axis=(1, 3))
                wanted = means.repeat(4, axis=0).repeat(4, axis=1)[: 2 * height, : 2 * width]
                assert np.abs(result - wanted).max() <= 0.75


@pytest.mark.parametrize(("size", "refused"), [((12, 16), False), ((12, 17), True), ((13, 16), True)])
def test_free_size_needs_the_models_multiples(size: tuple[int, int], refused: bool) -> None:
    layouts = pair(("yuv", 8, (1, 1)), (*size, 2))
    if refused:
        with pytest.raises(ValueError, match="multiple of 2 and a height of 2"):
            compose(averages(TensorProto.FLOAT), *layouts, multiple=2, dynamic=True)
    else:
        composed = compose(averages(TensorProto.FLOAT), *layouts, multiple=2, dynamic=True)
        onnx.checker.check_model(composed, full_check=True)


def test_compose_keeps_the_model() -> None:
    model = nearest(2)
    model.doc_string = "a licence"
    before = model.SerializeToString()
    composed = compose(model, *pair(("yuv", 8, (2, 2)), (12, 16, 2)))
    assert model.SerializeToString() == before
    onnx.checker.check_model(composed, full_check=True)
    assert {entry.key: entry.value for entry in composed.metadata_props} == {"author": "nobody"}
    assert composed.doc_string == "a licence"
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in composed.graph.initializer}
    np.testing.assert_array_equal(kept["scales"], [1, 1, 2, 2])
    assert [value.name for value in composed.graph.input] == ["in0", "in1", "in2", RGB_FROM_CODES, CODES_FROM_RGB]
    assert [value.name for value in composed.graph.output] == ["out0", "out1", "out2"]


def test_compose_old_models() -> None:
    """Weights listed as inputs are no inputs; opsets before 13 are refused."""
    model, layouts = nearest(2), pair(("yuv", 8, (2, 2)), (12, 16, 2))
    model.graph.input.append(helper.make_tensor_value_info("scales", TensorProto.FLOAT, [4]))
    check(*layouts, SAME, model=model)
    model.opset_import[0].version = 12
    with pytest.raises(ValueError, match="opset 13"):
        compose(model, *layouts)


@pytest.mark.parametrize("names", [("in0", "out0"), ("x", RGB_FROM_CODES), ("out1", "y")])
def test_compose_model_with_our_names(names: tuple[str, str]) -> None:
    """pnnx calls a network's ends in0 and out0, as we call planes."""
    model, layouts = nearest(2, names=names), pair(("yuv", 8, (2, 2)), (12, 16, 2))
    onnx.checker.check_model(compose(model, *layouts))
    check(*layouts, SAME, model=model)


FORMS: list[Form] = ["bytes", "half"]
TENSORRT = {
    "Add", "Cast", "Clip", "Concat", "Conv", "Flatten", "Floor", "Gather", "Mul", "Pad", "Reshape", "Round", "Slice",
    "Squeeze", "Sub", "Transpose", "Unsqueeze",
}  # fmt: skip
"""Operators of the head and the tail. All are in onnx-tensorrt's list (docs/operators.md there) for float32."""


def as_tensors(planes: Form, kind: Literal["in", "out"], source: FrameLayout, values: Planes) -> dict[str, Any]:
    """Native planes as the graph takes them in another form; bytes are views, no copies."""
    fed = {}
    for tensor, value in zip(plane_tensors(kind, source, planes), values, strict=True):
        fed[tensor.name] = value.astype(tensor.dtype) if planes == "half" else value.view(tensor.dtype)
        fed[tensor.name] = fed[tensor.name].reshape(tensor.shape)
        assert planes == "half" or np.shares_memory(fed[tensor.name], value)
        assert fed[tensor.name].nbytes == tensor.size_bytes
    return fed


def in_form(
    run: Callable[[dict[str, Any]], Planes], planes: Form, layouts: tuple[FrameLayout, FrameLayout], values: Planes
) -> Planes:
    """Native planes in, native planes out, through a graph of another form."""
    source, target = layouts
    tags = (RGB_TAGS[1], RGB_TAGS[1]) if source.family == "rgb" else (BT601, FULL_601)
    named = feed(values, source, target, tags) | as_tensors(planes, "in", source, values)
    results = run(named)
    for tensor, result in zip(plane_tensors("out", target, planes), results, strict=True):
        assert (result.shape, result.dtype) == (tensor.shape, tensor.dtype)
        assert planes != "half" or (result == np.rint(result)).all()
    if planes == "half":
        return [result.astype(target.dtype) for result in results]
    return [result.view(target.dtype).reshape(result.shape[:2]) for result in results]


def same(first: Planes, second: Planes) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("planes", FORMS)
@pytest.mark.parametrize("spec", [*(("yuv", 0, chroma) for chroma in CHROMA), ("rgb", 0, (1, 1)), ("gray", 0, (1, 1))])
def test_forms_of_planes(spec: Spec, planes: Form) -> None:
    """Every form gives what the native one gives, also for odd sizes."""
    for bits, size in itertools.product([8, 10, 11, 12, 16], [(13, 17, 2), (1, 5, 3), (12, 16, 2)]):
        layouts = pair((spec[0], bits, spec[2]), size)
        native = runner(compose(nearest(size[2]), *layouts))
        other = runner(compose(nearest(size[2]), *layouts, planes=planes))
        for values in pictures(layouts[0]):
            assert same(in_form(other, planes, layouts, values), in_form(native, "native", layouts, values))


@pytest.mark.parametrize("planes", ["native", *FORMS])
@pytest.mark.parametrize("bits", [8, 10, 16])
def test_free_size(bits: int, planes: Form) -> None:
    """One graph, one session, every size; the same as the graph made for that size."""
    for (down, right), siting in itertools.product([*CHROMA, (1, 1)], ["left", "topleft"]):
        spec: Spec = ("yuv", bits, (down, right))
        scale = 2
        run = runner(compose(nearest(scale), *pair(spec, (4, 4, scale), siting), planes=planes, dynamic=True))
        for rows, columns in [(1, 1), (3, 5), (8, 2), (1, 7)]:
            layouts = pair(spec, (rows * down, columns * right, scale), siting)
            native = runner(compose(nearest(scale), *layouts))
            values = next(pictures(layouts[0]))
            assert same(in_form(run, planes, layouts, values), in_form(native, "native", layouts, values))


def test_free_size_across_layouts() -> None:
    """Chroma of another kind on the way out, and gray and RGB, which have none."""
    for here, there in [
        (("yuv", 8, (2, 2)), ("yuv", 10, (1, 2))),
        (("gray", 8, (1, 1)), ("yuv", 8, (2, 2))),
        (("rgb", 8, (1, 1)), ("rgb", 16, (1, 1))),
        (("yuv", 10, (1, 4)), ("gray", 8, (1, 1))),
    ]:
        model = compose(nearest(2), layout(here, 4, 8), layout(there, 8, 16), planes="bytes", dynamic=True)
        assert violations(model) == []
        run = runner(model)
        for height, width in [(4, 4), (6, 12)]:
            source, target = layout(here, height, width), layout(there, 2 * height, 2 * width)
            values = next(pictures(source))
            named = feed(values, source, target, (BT709, BT709))
            wanted = runner(compose(nearest(2), source, target))(named)
            found = run(named | as_tensors("bytes", "in", source, values))
            assert same([plane.view(target.dtype).reshape(plane.shape[:2]) for plane in found], wanted)


def test_free_size_bakes_nothing_in() -> None:
    """The graph does not depend on the sizes of the layouts it is made from."""
    spec: Spec = ("yuv", 10, (2, 2))
    first, second = (
        compose(nearest(2), *pair(spec, size), planes="bytes", dynamic=True).SerializeToString()
        for size in [(12, 16, 2), (1080, 1920, 2)]
    )
    assert first == second


@pytest.mark.parametrize(
    ("chroma", "size", "refused"),
    [((2, 2), (13, 16), True), ((2, 2), (12, 17), True), ((1, 2), (13, 16), False), ((1, 1), (13, 17), False)],
)
def test_free_size_needs_multiples(chroma: tuple[int, int], size: tuple[int, int], refused: bool) -> None:
    layouts = pair(("yuv", 8, chroma), (*size, 2))
    if not refused:
        onnx.checker.check_model(compose(nearest(2), *layouts, dynamic=True), full_check=True)
        return
    with pytest.raises(ValueError, match=f"{size[1]}x{size[0]}") as error:
        compose(nearest(2), *layouts, dynamic=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("planes", FORMS)
def test_tensorrt_may_take_it(planes: Form, dynamic: bool) -> None:
    """Operators it has, one float type a node, bytes at the border only."""
    for bits, chroma, dtype in itertools.product([8, 10, 16], [(2, 2), (1, 2), (1, 1)], [1, 10]):
        layouts = pair(("yuv", bits, chroma), (12, 16, 2))
        model = compose(nearest(2, dtype), *layouts, planes=planes, dynamic=dynamic)
        onnx.checker.check_model(model, full_check=True)
        assert violations(model) == []
        ours = [node for node in model.graph.node if node.name.startswith((HEAD, TAIL))]
        assert {node.op_type for node in ours} <= TENSORRT
        for kind, values in (("in", model.graph.input), ("out", model.graph.output)):
            tensors = plane_tensors(kind, layouts[kind == "out"], planes)  # type: ignore[arg-type]
            for tensor, value in zip(tensors, values, strict=False):
                found = value.type.tensor_type
                assert (value.name, helper.tensor_dtype_to_np_dtype(found.elem_type)) == (tensor.name, tensor.dtype)
                assert len(found.shape.dim) == len(tensor.shape)
                assert dynamic or [dim.dim_value for dim in found.shape.dim] == list(tensor.shape)


@pytest.mark.parametrize("planes", FORMS)
def test_nothing_is_left_to_the_last_cast(planes: Form) -> None:
    """TensorRT's cast to bytes cuts off fractions, and anything may come of what is not in 0..255."""
    for bits in (8, 10, 16):
        layouts = pair(("yuv", bits, (2, 2)), (12, 16, 2))
        model = compose(nearest(2), *layouts, planes=planes)
        outputs = {value.name for value in model.graph.output}
        casts = [node.input[0] for node in model.graph.node if node.op_type == "Cast" and node.output[0] in outputs]
        assert len(casts) == (0 if planes == "half" and bits > 11 else 3)
        del model.graph.output[:]
        model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in casts)
        for values in pictures(layouts[0]) if casts else ():
            named = feed(values, *layouts, (BT601, FULL_601)) | as_tensors(planes, "in", layouts[0], values)
            for result in runner(model)(named):
                assert (result == np.rint(result)).all()
                assert result.min() >= 0
                assert result.max() <= (255 if planes == "bytes" else 2047)


def test_native_is_left_as_it_is() -> None:
    """OpenVINO rewrites Pad, and what it rewrites loses its precision."""
    for chroma, size in itertools.product(CHROMA, SIZES):
        model = compose(nearest(size[2]), *pair(("yuv", 8, chroma), size))
        used = {node.op_type for node in model.graph.node if node.name.startswith((HEAD, TAIL))}
        assert used <= TENSORRT - {"Pad", "Flatten", "Squeeze", "Unsqueeze", "Floor", "Concat"}


def test_plane_tensors() -> None:
    def described(planes: Form, bits: int) -> list[tuple[str, tuple[int, ...], str, int]]:
        tensors = plane_tensors("out", layout(("yuv", bits, (2, 2)), 5, 7), planes)
        return [(tensor.name, tensor.shape, tensor.dtype.name, tensor.size_bytes) for tensor in tensors]

    assert described("native", 8) == described("bytes", 8)
    assert described("native", 10)[0] == ("out0", (5, 7), "uint16", 70)
    assert described("bytes", 10)[1:] == [("out1", (3, 4, 2), "uint8", 24), ("out2", (3, 4, 2), "uint8", 24)]
    assert described("half", 11)[0] == ("out0", (5, 7), "float16", 70)
    assert described("half", 12)[2] == ("out2", (3, 4), "float32", 48)


def small(*nodes: onnx.NodeProto, kinds: dict[str, int], weights: dict[str, Any] | None = None) -> onnx.ModelProto:
    """A model of these nodes, `a` and `b` to `y`, all tensors [2, 2]."""
    values = [helper.make_tensor_value_info(name, kind, [2, 2]) for name, kind in kinds.items()]
    constants = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(nodes, "small", values[:-1], values[-1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


FLOAT, HALF, BYTE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (small(helper.make_node("Add", ["a", "b"], ["y"]), kinds={"a": FLOAT, "b": FLOAT, "y": FLOAT}), None),
        (small(helper.make_node("Cast", ["a"], ["y"], to=BYTE), kinds={"a": FLOAT, "y": BYTE}), None),
        (small(helper.make_node("Cast", ["a"], ["y"], to=HALF), kinds={"a": BYTE, "y": HALF}), None),
        (small(helper.make_node("Pow", ["a", "b"], ["y"]), kinds={"a": HALF, "b": FLOAT, "y": HALF}), "mixes"),
        (small(helper.make_node("Add", ["a", "b"], ["y"]), kinds={"a": FLOAT, "b": HALF, "y": FLOAT}), "not valid"),
        (small(helper.make_node("Cast", ["a"], ["y"], to=11), kinds={"a": FLOAT, "y": 11}), "y is double"),
        (small(helper.make_node("Cast", ["a"], ["y"], to=FLOAT), kinds={"a": 4, "y": FLOAT}), "a is uint16"),
        (small(helper.make_node("Add", ["a", "a"], ["y"]), kinds={"a": BYTE, "y": BYTE}), "computes with bytes"),
        (small(helper.make_node("Identity", ["a"], ["y"]), kinds={"a": BYTE, "y": BYTE}), "makes bytes"),
        (small(helper.make_node("Cast", ["a"], ["y"], to=6), kinds={"a": BYTE, "y": 6}), "computes with bytes"),
        (
            small(
                helper.make_node("Cast", ["a"], ["m"], to=BYTE),
                helper.make_node("Cast", ["m"], ["y"], to=FLOAT),
                kinds={"a": FLOAT, "y": FLOAT},
            ),
            "inside the network",
        ),
        (
            small(
                helper.make_node("Cast", ["c"], ["y"], to=FLOAT),
                kinds={"a": FLOAT, "y": FLOAT},
                weights={"c": np.zeros((2, 2), np.uint8)},
            ),
            "constant of bytes",
        ),
    ],
)
def test_strong_types(model: onnx.ModelProto, said: str | None) -> None:
    """The check itself: what TensorRT refuses is named, and nothing else."""
    found = violations(model)
    assert bool(found) == (said is not None), found
    assert said is None or any(said in line for line in found), found


@pytest.mark.parametrize("siting", SITINGS)
@pytest.mark.parametrize("factor", [1, 2, 4])
def test_taps(factor: int, siting: Siting) -> None:
    """Rows sum to 1 and a linear ramp stays one, at the siting's phase."""
    offsets = chroma_offsets((factor, factor), siting)
    assert offsets == tuple(share * (factor - 1) for share in SITINGS[siting])
    for offset in offsets:
        taps, first = upsample_taps(factor, offset)
        np.testing.assert_allclose(taps.sum(axis=1), np.ones(factor))
        ramp = factor * (first + np.arange(taps.shape[1])) + offset
        np.testing.assert_allclose(taps @ ramp, np.arange(factor), atol=1e-12)

        taps, first = downsample_taps(factor, offset)
        np.testing.assert_allclose(taps.sum(axis=1), [1])
        np.testing.assert_allclose(taps @ (first + np.arange(taps.shape[1])), [offset], atol=1e-12)


@pytest.mark.parametrize(
    ("height", "width", "matrix"), [(719, 1279, 6), (576, 1024, 6), (720, 1, 1), (1, 1280, 1), (1080, 1920, 1)]
)
def test_untagged_goes_by_size(height: int, width: int, matrix: int) -> None:
    for stated in (2, 0, 3, 8, 10, 14):  # unspecified, and what the table does not hold
        tags = ColorTags(primaries=9, transfer=16, matrix=stated)
        expected = ColorTags(primaries=9, transfer=16, matrix=matrix, full_range=False)
        assert tags.resolved(height=height, width=width, rgb=False) == expected


def test_stated_tags_stay() -> None:
    for tags, size in itertools.product(TAGS, (1, 2160)):
        assert tags.resolved(height=size, width=size, rgb=False) == tags
    for stated, full in [(None, True), (True, True), (False, False)]:
        resolved = ColorTags(matrix=6, full_range=stated).resolved(height=1080, width=1920, rgb=True)
        assert resolved == ColorTags(matrix=RGB, full_range=full)


def test_planes_that_lie_a_page_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """They get a row more on the way, and come out the same."""
    model = models.load("span-fast")
    source = FrameLayout(family="yuv", bits=8, height=64, width=64, chroma=(2, 2))
    target = replace(source, height=128, width=128)
    rng = np.random.default_rng(2)
    inputs: dict[str, NDArray[Any]] = {
        name: rng.integers(16, 235, shape).astype(np.uint8)
        for name, shape in zip(plane_names("in", source), source.shapes, strict=True)
    }
    tags = ColorTags().resolved(height=64, width=64, rgb=False)
    found = conversion(tags, tags, source_bits=8, target_bits=8, gray_source=False)
    inputs |= {"rgb_from_codes": found.rgb_from_codes, "codes_from_rgb": found.codes_from_rgb}
    made = []
    onnxruntime = pytest.importorskip("onnxruntime")
    for page in (4096, 2**40):
        monkeypatch.setattr(border, "_PAGE_BYTES", page)
        composed = compose(model.proto, source, target, multiple=model.multiple)
        assert any(node.op_type == "Pad" for node in composed.graph.node) == (page == 4096)
        made.append(onnxruntime.InferenceSession(composed.SerializeToString()).run(None, inputs))
    assert all(map(np.array_equal, *made))
