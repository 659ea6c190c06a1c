"""Models as people have them: found, checked, freed of fixed sizes, measured, or refused with a reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.conftest import nearest_model
from vidsr import backends, models
from vidsr.backends import EngineOptions
from vidsr.color import RGB, ColorTags, conversion
from vidsr.errors import BackendError, ModelError
from vidsr.frame import FrameLayout
from vidsr.graph import Builder
from vidsr.models import Model

SPAN = Path(__file__).resolve().parents[1] / "engines" / "span.onnx"
FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
DOWNLOADED = "2xLiveActionV1_SPAN_490000.onnx"

Network = Callable[[Builder], Any]
"""Adds nodes that lead from "x" to "y"."""


def write(
    path: Path,
    network: Network,
    *,
    takes: tuple[int, list[Any]] = (FLOAT, [1, 3, "h", "w"]),
    gives: tuple[int, list[Any]] = (FLOAT, [1, 3, None, None]),
    more: dict[str, str] | None = None,
    opset: int = 17,
) -> Path:
    """A model file. more: names of further ends, "inputs" or "outputs" by name."""
    build = Builder(opset=opset)
    network(build)
    ends = {
        "inputs": [helper.make_tensor_value_info("x", *takes)],
        "outputs": [helper.make_tensor_value_info("y", *gives)],
    }
    for name, kind in (more or {}).items():
        ends[kind].append(helper.make_tensor_value_info(name, *takes))
    onnx.save(build.model(ends["inputs"], ends["outputs"], name="test"), path)
    return path


def conv(
    build: Builder,
    value: str,
    outputs: int,
    *,
    inputs: int = 3,
    size: int = 3,
    dtype: Any = np.float32,
    **attributes: Any,
) -> str:
    """A convolution of positive weights, so that nothing it sees cancels out; keeps the size."""
    weights = np.random.default_rng(1).uniform(0.5, 1, (outputs, inputs, size, size)).astype(dtype)
    reach = size // 2 * attributes.get("dilations", [1])[0]
    return build.op("Conv", value, build.constant(weights), **{"pads": [reach] * 4, **attributes})


def shuffled(build: Builder, scale: int = 2, dtype: Any = np.float32) -> str:
    """As most networks end; reaches 1 pixel far."""
    features = conv(build, "x", 3 * scale**2, dtype=dtype)
    return build.op("DepthToSpace", features, name="y", blocksize=scale, mode="CRD")


def resized(height: float, width: float) -> Network:
    return lambda build: build.op(
        "Resize", "x", "", build.constant(np.array([1, 1, height, width], np.float32)), name="y"
    )


def reshaped(build: Builder) -> None:
    """A pixel shuffle as old exporters write it, with the size of the trace in it."""
    features = build.op("Reshape", conv(build, "x", 12), build.constant([1, 3, 2, 2, 32, 48]))
    features = build.op("Transpose", features, perm=[0, 1, 4, 2, 5, 3])
    build.op("Reshape", features, build.constant([1, 3, 64, 96]), name="y")


def run(model: onnx.ModelProto, image: NDArray[Any]) -> NDArray[Any]:
    """In ONNX Runtime, as the model stands."""
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (end, *_) = session.get_inputs()
    (result,) = session.run(None, {end.name: image})
    return np.asarray(result)


# Names and paths


def test_by_name_and_by_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    nearest_model(tmp_path / "Mine.ONNX")
    by_name, by_path, relative = models.load(models.DEFAULT), models.load(str(SPAN)), models.load("Mine.ONNX")
    assert (by_name.name, by_name.scale, by_name.metadata["network"]) == ("span", 2, "span")
    assert by_name.metadata == by_path.metadata
    assert by_name.sha256 == by_path.sha256
    assert (relative.name, relative.scale, relative.metadata) == ("Mine", 2, {})
    assert "conv_1.eval_conv.weight" in by_name.state()


def test_users_own_model_comes_first() -> None:
    """It takes the place of the shipped one of the same name; each name is listed once."""
    assert [path.stem for path in models.installed()].count("span") == 1
    models.user_folder().mkdir(parents=True)
    own = nearest_model(models.user_folder() / "span.onnx", scale=3)
    nearest_model(models.user_folder() / "a.b.onnx")
    assert models.load("span").path == own
    assert models.load("span").scale == 3
    assert models.load("a.b").scale == 2
    names = [path.stem for path in models.installed()]
    assert names == sorted(set(names))
    assert {"span", "a.b"} <= set(names)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nothing", "'nothing'.*installed are .*span"),
        ("models/span", "'models/span'.*or give an .onnx file"),
        ("", "''"),
        ("nothing.onnx", "nothing.onnx: no such model file"),
        ("folder.onnx", "folder.onnx: no such model file"),
        *(
            (f"weights{end}", f"`vidsr import weights{end} --name NAME`")
            for end in (".pth", ".PT", ".safetensors", ".ckpt")
        ),
    ],
)
def test_names_that_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ModelError, match=says) as error:
        models.load(name)
    assert "\n" not in str(error.value)


# Refusals


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello\n" * 9,
        b"<!DOCTYPE html>\n<html>Not found</html>\n",
        SPAN.read_bytes()[:9999],
        b"version https://git-lfs",
    ],
    ids=["empty", "text", "html", "truncated", "pointer"],
)
def test_files_that_are_no_models(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"file\.onnx: not a readable ONNX model") as error:
        models.load(str(path))
    assert "\n" not in str(error.value)


def _relu(build: Builder) -> None:
    build.op("Relu", "x", name="y")


def _relu_of_cast(build: Builder) -> None:
    build.op("Relu", build.op("Cast", "x", to=FLOAT), name="y")


def _with_z(build: Builder) -> None:
    build.op("Relu", "x", name="y")
    build.op("Neg", "x", name="z")


REFUSED: dict[str, tuple[str, Network, dict[str, Any]]] = {
    "gray": (
        r"takes \[1, 1, h, w\].*RGB",
        lambda b: b.op("DepthToSpace", conv(b, "x", 4, inputs=1), name="y", blocksize=2),
        {"takes": (FLOAT, [1, 1, "h", "w"]), "gives": (FLOAT, [1, 1, None, None])},
    ),
    "gray output": (
        "gives 1 channels.*RGB",
        lambda b: conv(b, "x", 1, name="y"),
        {"gives": (FLOAT, [1, 1, None, None])},
    ),
    "channels last": ("takes .*RGB", _relu, {"takes": (FLOAT, [1, "h", "w", 3]), "gives": (FLOAT, [1, None, None, 3])}),
    "no batch": ("takes .*RGB", _relu, {"takes": (FLOAT, [3, "h", "w"]), "gives": (FLOAT, [3, None, None])}),
    "two inputs": ("2 inputs", lambda b: b.op("Add", "x", "z", name="y"), {"more": {"z": "inputs"}}),
    "two outputs": ("2 outputs", _with_z, {"more": {"z": "outputs"}}),
    "int8": ("takes int8", _relu_of_cast, {"takes": (TensorProto.INT8, [1, 3, "h", "w"])}),
    "uint8": ("takes uint8", _relu_of_cast, {"takes": (TensorProto.UINT8, [1, 3, "h", "w"])}),
    "uint8 output": (
        "gives uint8",
        lambda b: b.op("Cast", "x", name="y", to=TensorProto.UINT8),
        {"gives": (TensorProto.UINT8, [1, 3, None, None])},
    ),
    "one size": (
        "one picture size.*free height and width",
        reshaped,
        {"takes": (FLOAT, [1, 3, 32, 48]), "gives": (FLOAT, [1, 3, 64, 96])},
    ),
    "x1.5": ("enlarges 1.5 x 1.5 times.*whole number", resized(1.5, 1.5), {}),
    "wider only": ("enlarges 2 x 1 times", resized(1, 2), {}),
    "smaller": ("enlarges 0.5 x 0.5 times", resized(0.5, 0.5), {}),
    "x32": ("enlarges 32 x 32 times", resized(32, 32), {}),
    "unknown operator": ("not a readable.*Enhance", lambda b: b.op("Enhance", "x", name="y"), {}),
}


@pytest.mark.parametrize(("says", "network", "ends"), REFUSED.values(), ids=REFUSED)
def test_refused(tmp_path: Path, says: str, network: Network, ends: dict[str, Any]) -> None:
    path = write(tmp_path / "model.onnx", network, **ends)
    with pytest.raises(ModelError) as error:
        models.load(str(path))
    assert re.fullmatch(f".*model.onnx: .*{says}.*", str(error.value))


def test_foreign_operators(tmp_path: Path) -> None:
    def network(build: Builder) -> None:
        shuffled(build)
        build.nodes[0].domain = "com.microsoft"

    proto = onnx.load(write(tmp_path / "model.onnx", network))
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"model.onnx: uses operators outside standard ONNX \(com.microsoft\)"):
        models.load(str(tmp_path / "model.onnx"))


def test_weights_in_a_file_that_is_missing(tmp_path: Path) -> None:
    proto = onnx.load(write(tmp_path / "model.onnx", shuffled))
    settings = {"all_tensors_to_one_file": True, "location": "model.data", "size_threshold": 0}
    onnx.save(proto, tmp_path / "model.onnx", save_as_external_data=True, **settings)
    assert models.load(str(tmp_path / "model.onnx")).scale == 2
    (tmp_path / "model.data").unlink()
    with pytest.raises(ModelError, match=r"model.onnx: not a readable.*model.data") as error:
        models.load(str(tmp_path / "model.onnx"))
    assert "\n" not in str(error.value)


# What is taken


def test_half_precision_ends(tmp_path: Path) -> None:
    half = lambda build: shuffled(build, dtype=np.float16)  # noqa: E731
    path = write(tmp_path / "m.onnx", half, takes=(FLOAT16, [1, 3, "h", "w"]), gives=(FLOAT16, [1, 3, None, None]))
    model = models.load(str(path))
    assert (model.scale, model.radius) == (2, 1)
    assert {array.dtype for array in model.state().values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("batch", [1, 4])
def test_stated_size_that_is_not_needed(tmp_path: Path, batch: int) -> None:
    """Exporters write the size of the trace, even if any would do."""
    ends = {"takes": (FLOAT, [batch, 3, 32, 48]), "gives": (FLOAT, [batch, 3, 64, 96])}
    model = models.load(str(write(tmp_path / "model.onnx", shuffled, **ends)))
    for height, width in ((32, 48), (5, 7)):
        assert run(model.proto, np.ones((1, 3, height, width), np.float32)).shape == (1, 3, 2 * height, 2 * width)


def _old_resize(build: Builder) -> None:
    none, scales = np.array([], np.float32), np.array([1, 1, 3, 3], np.float32)
    build.op("Resize", "x", build.constant(none), build.constant(scales), name="y", mode="nearest")


def _upsample(build: Builder) -> None:
    build.op("Upsample", "x", build.constant(np.array([1, 1, 2, 2], np.float32)), name="y", mode="nearest")


def _squeezed(build: Builder) -> None:
    """Both took their axes as attributes until opset 13."""
    build.op("Squeeze", build.op("Unsqueeze", conv(build, "x", 3), axes=[0]), name="y", axes=[0])


@pytest.mark.parametrize(
    ("opset", "network", "scale"), [(9, _upsample, 2), (11, _old_resize, 3), (11, shuffled, 2), (11, _squeezed, 1)]
)
def test_old_opset(tmp_path: Path, opset: int, network: Network, scale: int) -> None:
    path = write(tmp_path / "model.onnx", network, opset=opset)
    model = models.load(str(path))
    assert model.scale == scale
    assert [entry.version for entry in model.proto.opset_import] == [13]
    image = np.random.default_rng(0).random((1, 3, 5, 6), np.float32)
    np.testing.assert_allclose(run(model.proto, image), run(onnx.load(path), image), rtol=1e-6)


def test_weights_listed_as_inputs(tmp_path: Path) -> None:
    proto = onnx.load(write(tmp_path / "model.onnx", shuffled))
    (weight,) = (tensor for tensor in proto.graph.initializer if len(tensor.dims) == 4)
    proto.graph.input.insert(0, helper.make_tensor_value_info(weight.name, FLOAT, weight.dims))
    onnx.save(proto, tmp_path / "model.onnx")
    model = models.load(str(tmp_path / "model.onnx"))
    assert (model.scale, model.radius, model.activation_bytes) == (2, 1, 96)


# What is known of them


def _branches(build: Builder) -> None:
    build.op("Add", conv(build, conv(build, "x", 3), 3, size=5), conv(build, "x", 3, size=3), name="y")


def _after_shuffle(build: Builder) -> None:
    """1 pixel, and 3 of half the size: the outermost lies 1 + 2 pixels away."""
    large = build.op("DepthToSpace", conv(build, "x", 12), blocksize=2, mode="CRD")
    conv(build, large, 3, size=7, name="y")


def _constant_node(build: Builder) -> None:
    """Weights in a Constant node, and no `kernel_shape`."""
    weights = numpy_helper.from_array(np.full((3, 3, 5, 5), 0.1, np.float32))
    build.op("Conv", "x", build.op("Constant", value=weights), name="y", pads=[2] * 4)


def _padded(build: Builder) -> None:
    edges = build.constant([0, 0, 3, 3, 0, 0, 3, 3])
    conv(build, build.op("Pad", "x", edges, mode="reflect"), 3, size=7, name="y", pads=[0] * 4)


def _squares(build: Builder, side: int = 2) -> None:
    """Works at a fraction of the size: a square sees its neighbours, and what is in them."""
    features = conv(build, build.op("SpaceToDepth", "x", blocksize=side), 12 * side**2, inputs=3 * side**2)
    build.op("DepthToSpace", features, name="y", blocksize=2 * side, mode="CRD")


def _strides(build: Builder) -> None:
    """Half the size by a convolution, a quarter by a pooling, with a shortcut."""
    half = conv(build, "x", 8, strides=[2, 2])
    quarter = build.op("MaxPool", half, kernel_shape=[2, 2], strides=[2, 2])
    back = build.op("DepthToSpace", conv(build, quarter, 32, inputs=8), blocksize=2, mode="CRD")
    build.op("DepthToSpace", conv(build, build.op("Add", half, back), 48, inputs=8), name="y", blocksize=4)


def _padded_on_one_side(build: Builder) -> None:
    edges = build.constant([0, 0, 6, 0, 0, 0, 0, 6])
    conv(build, build.op("Pad", "x", edges, mode="edge"), 3, size=7, name="y", pads=[0] * 4)


RADII = {
    "pointwise": (lambda b: b.op("Relu", "x", name="y"), 0),
    "1x1": (lambda b: conv(b, "x", 3, size=1, name="y"), 0),
    "3x3": (shuffled, 1),
    "3x3, x4": (lambda b: shuffled(b, 4), 1),
    "4x4": (lambda b: conv(b, "x", 3, size=4, pads=[1, 1, 2, 2], name="y"), 2),
    "dilated": (lambda b: conv(b, "x", 3, size=5, dilations=[2, 2], name="y"), 4),
    "window": (lambda b: b.op("MaxPool", "x", name="y", kernel_shape=[5, 5], pads=[2] * 4), 2),
    "branches": (_branches, 3),
    "after shuffle": (_after_shuffle, 3),
    "constant node": (_constant_node, 2),
    "pad": (_padded, 3),
    "squares": (_squares, 3),
    "squares of 3": (lambda b: _squares(b, 3), 5),
    "strides": (_strides, 10),
}
LOPSIDED = {
    "up": (lambda b: conv(b, "x", 3, size=5, pads=[4, 4, 0, 0], name="y"), 4),
    "down": (lambda b: conv(b, "x", 3, size=5, pads=[0, 0, 4, 4], name="y"), 4),
    "pad": (_padded_on_one_side, 6),
}


def _measured_radius(model: Model) -> int:
    """How far a changed pixel is seen, wherever it lies in what the model takes together."""
    plain = np.ones((1, 3, 48, 48), np.float32)
    reference, distances = run(model.proto, plain), []
    for place in range(24, 24 + model.multiple):
        dotted = plain.copy()
        dotted[:, :, place, place] = 2
        seen = np.argwhere((run(model.proto, dotted) != reference).any(axis=(0, 1)))
        distances.append(int(abs(seen // model.scale - place).max()))
    return max(distances)


@pytest.mark.parametrize(("network", "radius"), RADII.values(), ids=RADII)
def test_radius(tmp_path: Path, network: Network, radius: int) -> None:
    model = models.load(str(write(tmp_path / "model.onnx", network)))
    assert model.radius == _measured_radius(model) == radius


@pytest.mark.parametrize(("network", "radius"), LOPSIDED.values(), ids=LOPSIDED)
def test_radius_of_what_looks_to_one_side(tmp_path: Path, network: Network, radius: int) -> None:
    model = models.load(str(write(tmp_path / "model.onnx", network)))
    assert model.radius == _measured_radius(model) == radius


@pytest.mark.parametrize(
    ("network", "multiple"),
    [
        (shuffled, 1),
        (_branches, 1),
        (resized(2, 2), 1),
        (_squares, 2),
        (lambda b: _squares(b, 3), 3),
        (lambda b: _squares(b, 4), 4),
        (_strides, 4),
    ],
)
def test_multiple(tmp_path: Path, network: Network, multiple: int) -> None:
    """The sizes that come out exactly enlarged are its multiples, and no others."""
    model = models.load(str(write(tmp_path / "model.onnx", network)))
    assert model.multiple == multiple

    def enlarged(size: int) -> bool:
        try:
            shape = run(model.proto, np.ones((1, 3, size, size), np.float32)).shape
        except Exception:  # ONNX Runtime's own exceptions have nothing in common
            return False
        return shape == (1, 3, model.scale * size, model.scale * size)

    sizes = range(16, 49)
    assert [size for size in sizes if enlarged(size)] == [size for size in sizes if size % multiple == 0]


def _pooled(build: Builder) -> None:
    build.op("Mul", "x", build.op("GlobalAveragePool", "x"), name="y")


def _mean(build: Builder) -> None:
    build.op("Sub", "x", build.op("ReduceMean", "x", axes=[2, 3]), name="y")


def _attention(build: Builder) -> None:
    build.op("Softmax", "x", name="y", axis=3)


def _circular(build: Builder) -> None:
    edges = build.constant([0, 0, 1, 1, 0, 0, 1, 1])
    conv(build, build.op("Pad", "x", edges, mode="wrap"), 3, name="y", pads=[0] * 4)


@pytest.mark.parametrize(
    ("network", "opset"),
    [
        (_pooled, 17),
        (_mean, 17),
        (_attention, 17),
        (_circular, 19),
    ],
)
def test_no_radius_where_the_whole_picture_matters(tmp_path: Path, network: Network, opset: int) -> None:
    assert models.load(str(write(tmp_path / "model.onnx", network, opset=opset))).radius is None


def test_radius_of_span() -> None:
    """3x3 convolutions in a row: one in front, three a block, one in the middle, one at the end."""
    model = models.load(str(SPAN))
    assert model.radius == 1 + 6 * 3 + 1 + 1 == int(model.metadata["radius"])


def test_activation_bytes(tmp_path: Path) -> None:
    """Tensors that are alive together, in bytes an input pixel; the length of the network does not matter."""

    def chain(length: int, skip: bool) -> Network:
        def network(build: Builder) -> None:
            value = first = conv(build, "x", 16)
            for _ in range(length):
                value = conv(build, value, 16, inputs=16)
            if skip:
                value = build.op("Add", value, first)
            conv(build, value, 3, inputs=16, name="y")

        return network

    found = {
        (length, skip): models.load(str(write(tmp_path / "model.onnx", chain(length, skip)))).activation_bytes
        for length in (3, 9)
        for skip in (False, True)
    }
    features = 4 * 16
    assert found[3, False] == found[9, False] == 2 * features
    assert found[3, True] == found[9, True] == 3 * features
    # SPAN joins four features of 48 channels.
    assert 8 * 48 * 4 <= models.load(str(SPAN)).activation_bytes <= 12 * 48 * 4


# A model as people download them


def _converted(proto: onnx.ModelProto) -> onnx.ModelProto:
    """All in half precision, ends as well."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    constants = (attribute.t for node in copy.graph.node if node.op_type == "Constant" for attribute in node.attribute)
    for tensor in (*copy.graph.initializer, *constants):
        if tensor.data_type == FLOAT:
            half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for value in (*copy.graph.input, *copy.graph.output, *copy.graph.value_info):
        if value.type.tensor_type.elem_type == FLOAT:
            value.type.tensor_type.elem_type = FLOAT16
    return copy


def _upscaled(model: Model, backend: str, image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """RGB planes through an engine in FP32: uint8 [3, H, W] -> int64 [3, scale*H, scale*W]."""
    try:
        library = backends.load(backend)
    except BackendError as error:
        pytest.skip(str(error))
    _, height, width = image.shape
    source = FrameLayout(family="rgb", bits=8, height=height, width=width)
    target = FrameLayout(family="rgb", bits=8, height=height * model.scale, width=width * model.scale)
    engine = library.open(model, source, target, library.settle(EngineOptions(precision="fp32")))
    (slot,) = engine.slots(1)
    tags = ColorTags(matrix=RGB, full_range=True)
    slot.convert(conversion(tags, tags, source_bits=8, target_bits=8))
    for plane, channel in zip(slot.input, image[[1, 2, 0]], strict=True):
        np.copyto(plane, channel)
    engine.submit(slot)
    engine.wait(slot)
    green, blue, red = (plane.astype(np.int64) for plane in slot.output)
    engine.close()
    return np.stack([red, green, blue])


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_downloaded_model(shared: Path, tmp_path: Path, backend: str) -> None:
    """Gives in an engine what it gives bare, and almost the same in half precision."""
    model = models.load(str(shared / "weights" / DOWNLOADED))
    assert (model.scale, model.radius) == (2, 21)
    rows, columns = np.mgrid[0:18, 0:23]
    image = np.stack([rows * 14, columns * 11, (rows + columns) * 6]).astype(np.uint8)
    bare = run(onnx.load(shared / "weights" / DOWNLOADED), image[None].astype(np.float32) / 255)[0]
    found = _upscaled(model, backend, image)
    assert abs(found - np.clip(np.rint(bare * 255), 0, 255)).max() <= 1

    onnx.save(_converted(onnx.load(shared / "weights" / DOWNLOADED)), tmp_path / "half.onnx")
    half = models.load(str(tmp_path / "half.onnx"))
    assert (half.scale, half.radius) == (2, 21)
    assert abs(_upscaled(half, backend, image) - found).max() <= 2
