"""Models that follow each other give what one after the other gives; a name stands for those that fit a factor."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import vidsr
from tests.conftest import make_clip, nearest_model
from vidsr import backends, job, models
from vidsr.backends import EngineOptions
from vidsr.backends.openvino_engine import open_raw
from vidsr.color import RGB, ColorTags, conversion
from vidsr.errors import BackendError, ModelError, UsageError
from vidsr.frame import FrameLayout
from vidsr.graph import GUARD_REACH, Builder, Link, chained
from vidsr.models import Model

Array = NDArray[np.float32]


def tiny(path: Path, scale: int, *, side: int = 1, gain: float = 1.0, opset: int = 17, half: bool = False) -> Path:
    """A network by chance: two convolutions on squares of `side`, beside the repeated input."""
    rng, build = np.random.default_rng(scale + side), Builder(opset=opset)
    dtype = np.dtype(np.float16 if half else np.float32)
    spread = 0.1 * gain
    first = rng.normal(0, 0.3, (8, 3 * side**2, 3, 3)).astype(dtype)
    last = rng.normal(0, spread, (3 * (scale * side) ** 2, 8, 3, 3)).astype(dtype)
    image = build.op("SpaceToDepth", "x", blocksize=side) if side > 1 else "x"
    feature = build.op("Relu", build.op("Conv", image, build.constant(first), pads=[1] * 4))
    phases = build.op("Conv", feature, build.constant(last), pads=[1] * 4)
    pixels = np.arange(3 * side**2).reshape(side, side, 3)
    repeated = pixels.repeat(scale, axis=0).repeat(scale, axis=1).transpose(2, 0, 1).ravel()
    base = build.op("Gather", image, build.constant(repeated), axis=1)
    build.op("DepthToSpace", build.op("Add", phases, base), name="y", blocksize=scale * side, mode="CRD")
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(name, kind, [1, 3, None, None]) for name in "xy"]
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(build.model(ends[:1], ends[1:], name="tiny", metadata={"guard": "off"}), path)
    return path


def picture(height: int, width: int, seed: int = 3) -> Array:
    """float32 [1, 3, H, W] of 8-bit code values, a fifth of them black or white."""
    codes = np.random.default_rng(seed).integers(-40, 296, (1, 3, height, width)).clip(0, 255)
    return (codes / 255).astype(np.float32)


def in_onnxruntime(proto: onnx.ModelProto, image: Array) -> Array:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = np.float16 if "float16" in session.get_inputs()[0].type else np.float32
    (result,) = session.run(None, {session.get_inputs()[0].name: image.astype(wanted)})
    return np.asarray(result, np.float32)


def in_openvino(proto: onnx.ModelProto, image: Array) -> Array:
    pytest.importorskip("openvino")
    return open_raw(Model(name="m", path=Path(), proto=proto, scale=1, metadata={}))(image)


RUNS = {"openvino": in_openvino, "onnxruntime": in_onnxruntime}


def turned(image: Array) -> Array:
    return np.ascontiguousarray(image[:, :, ::-1, ::-1])


def extended(image: Array, multiple: int) -> Array:
    height, width = image.shape[2:]
    return np.pad(image, ((0, 0), (0, 0), (0, -height % multiple), (0, -width % multiple)), mode="edge")


def one_after_the_other(run: Any, parts: list[Model], image: Array) -> Array:
    """What the chain is by definition, of pictures within 0..1."""
    for index, part in enumerate(parts):
        image = turned(run(part.proto, turned(image))) if index == 0 else run(part.proto, image)
        if index < len(parts) - 1:
            image = image.clip(0, 1)
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def plain(folder: Path) -> Model:
    return models.load(str(tiny(folder / "plain.onnx", 2)))


@pytest.fixture(scope="module")
def squares(folder: Path) -> Model:
    """Works at half the size, as span-fast does."""
    return models.load(str(tiny(folder / "squares.onnx", 2, side=2)))


@pytest.fixture(scope="module")
def triple(folder: Path) -> Model:
    return models.load(str(tiny(folder / "triple.onnx", 3)))


CHAINS = ["plain plain", "plain squares", "squares squares", "triple squares", "squares plain triple"]


@pytest.fixture(scope="module", params=CHAINS)
def parts(request: pytest.FixtureRequest) -> list[Model]:
    return [request.getfixturevalue(name) for name in request.param.split()]


# What a chain gives


@pytest.mark.parametrize("library", RUNS)
def test_one_after_the_other(parts: list[Model], library: str) -> None:
    chain, run = models.chain(parts), RUNS[library]
    for size in ((16, 24), (17, 23)):
        image = extended(picture(*size), chain.multiple)
        found, wanted = run(chain.proto, image), one_after_the_other(run, parts, image)
        assert found.shape == (1, 3, *(chain.scale * length for length in image.shape[2:]))
        assert np.abs(found - wanted).max() < 1e-5
        assert np.ptp(wanted) > 0.8  # a picture still


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_in_an_engine(parts: list[Model], backend: str) -> None:
    """Odd sizes as well: extended by the last row and column, and cut again."""
    try:
        library = backends.load(backend)
    except BackendError as error:
        pytest.skip(str(error))
    model, image = models.chain(parts), picture(13, 19)
    source = FrameLayout(family="rgb", bits=8, height=13, width=19)
    target = replace(source, height=13 * model.scale, width=19 * model.scale)
    engine = library.open(model, source, target, library.settle(EngineOptions(precision="fp32")))
    (slot,) = engine.slots(1)
    tags = ColorTags(matrix=RGB, full_range=True)
    slot.convert(conversion(tags, tags, source_bits=8, target_bits=8))
    for plane, channel in zip(slot.input, (1, 2, 0), strict=True):
        np.copyto(plane, np.rint(image[0, channel] * 255).astype(np.uint8))
    engine.submit(slot)
    engine.wait(slot)
    green, blue, red = (plane.astype(np.int64) for plane in slot.output)
    engine.close()
    wanted = one_after_the_other(in_onnxruntime, parts, extended(image, model.multiple))
    wanted = np.rint(wanted * 255).clip(0, 255)[0, :, : target.height, : target.width]
    assert np.abs(np.stack([red, green, blue]) - wanted).max() <= 1


def test_what_is_known_of_it(plain: Model, squares: Model, triple: Model) -> None:
    both = models.chain([plain, squares])
    assert (both.name, both.scale, both.parts) == ("plain+squares", 4, (plain, squares))
    assert both.multiple == 1, "twice as large is always even"
    assert models.chain([squares, plain]).multiple == 2
    assert models.chain([triple, squares]).multiple == 2
    assert (plain.radius, squares.radius) == (2, 5)
    assert both.radius == 2 + 3, "5 of the larger pixels lie up to 3 away"
    assert both.activation_bytes == 4 * squares.activation_bytes > plain.activation_bytes
    assert both.sha256 != models.chain([squares, plain]).sha256
    assert both.sha256 == models.chain([plain, squares]).sha256


def test_radius_is_far_enough(parts: list[Model]) -> None:
    model = models.chain(parts)
    assert model.radius is not None
    image = picture(36, 36) * 0.5 + 0.25
    before = in_onnxruntime(model.proto, image)
    for place in range(17, 17 + model.multiple):
        dotted = image.copy()
        dotted[:, :, place, place] = 1 - dotted[:, :, place, place]
        seen = np.argwhere((in_onnxruntime(model.proto, dotted) != before).any(axis=(0, 1))) // model.scale
        assert np.abs(seen - place).max() <= model.radius


def test_ends_of_half_precision_and_older_opsets(folder: Path, plain: Model) -> None:
    half = models.load(str(tiny(folder / "half.onnx", 2, half=True)))
    older = models.load(str(tiny(folder / "older.onnx", 2, opset=13)))
    image = picture(12, 14)
    for parts in ([half, plain], [plain, half], [older, plain]):
        found = in_onnxruntime(models.chain(parts).proto, image)
        wanted = one_after_the_other(in_onnxruntime, parts, image)
        assert np.abs(found - wanted).max() < 0.01


def test_beyond_black_and_white(plain: Model) -> None:
    """Between two models nothing goes beyond them, but for what the source has there."""
    build = Builder()
    build.op("Sub", build.op("Mul", "x", build.constant(np.float32(3))), build.constant(np.float32(1)), name="y")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, None, None]) for name in "xy"]
    harder = build.model(ends[:1], ends[1:], name="harder")
    same = Builder()
    same.op("Identity", "x", name="y")
    chain = chained([Link(proto=harder, scale=1), Link(proto=same.model(ends[:1], ends[1:], name="same"), scale=1)])
    image = np.full((1, 3, 6, 12), 0.5, np.float32)
    image[..., :3] = 0.1
    image[..., 9:] = 0.9
    image[0, 0, :, 11] = 1.2
    found = in_onnxruntime(chain, image)
    assert (found[0, 1, :, 0].max(), found[0, 1, :, 6].max(), found[0, 1, :, 11].max()) == (0, 0.5, 1)
    np.testing.assert_allclose(found[0, 0, :, 10:], 1.2)
    np.testing.assert_allclose(found[0, 0, :, 9], 1)


def test_each_model_has_its_own_guard(folder: Path, plain: Model) -> None:
    wild = models.load(str(tiny(folder / "wild.onnx", 2, gain=100)))
    image = picture(20, 20)
    loose, kept = models.chain([wild, plain]), models.chain([wild, plain]).guards(lambda part: part.name == "wild")
    assert [part.guarded for part in kept.parts] == [True, False]
    assert not kept.guarded
    assert kept.radius == (wild.radius or 0) + GUARD_REACH + 1
    loosely = image.repeat(4, axis=2).repeat(4, axis=3)
    far, farther = (float(np.abs(in_onnxruntime(model.proto, image) - loosely).mean()) for model in (kept, loose))
    assert far < farther / 1.3
    last = models.chain([plain, wild]).guards(lambda part: True)
    assert np.abs(in_onnxruntime(last.proto, image) - loosely).max() < 3
    assert np.abs(in_onnxruntime(models.chain([plain, wild]).proto, image)).max() > 6


# What is chosen


@pytest.fixture
def installed() -> Path:
    """Models of a family of three, and others of similar names."""
    folder = models.user_folder()
    for name, scale in {"a": 2, "a-x4": 4, "a-x3": 3, "a-x8": 2, "ab-x4": 4, "b": 3, "same": 1, "plain": 2}.items():
        tiny(folder / f"{name}.onnx", scale)
    return folder


@pytest.mark.parametrize(
    ("name", "factor", "chosen"),
    [
        ("a", None, "a"),
        ("a", 0.5, "a"),
        ("a", 1, "a"),
        ("a", 2, "a"),
        ("a", Fraction("2.1"), "a"),
        ("a", 2.11, "a-x3"),
        ("a", 3, "a-x3"),
        ("a", 3.5, "a-x4"),
        ("a", 4, "a-x4"),
        ("a", 5, "a-x4"),
        ("a", 6, "a-x3+a"),
        ("a", 8, "a-x4+a"),
        ("a", 12, "a-x4+a-x3"),
        ("a", 16, "a-x4+a-x4"),
        ("plain", 2.2, "plain+plain"),
        ("plain", 8, "plain+plain+plain"),
        ("plain", 16, "plain+plain+plain+plain"),
        ("a-x4", 2, "a-x4"),
        ("a-x4", 8, "a-x4+a-x4"),
        ("b", 16, "b+b"),
        ("same", 4, "same"),
    ],
)
@pytest.mark.usefixtures("installed")
def test_chosen_for_a_factor(name: str, factor: Fraction | float | None, chosen: str) -> None:
    assert models.choose(name, factor).name == chosen


def test_a_file_is_chained_with_itself_alone(installed: Path) -> None:
    file = str(installed / "a.onnx")
    assert [model.name for model in models.family(file)] == ["a"]
    assert models.choose(file, 4).name == "a+a"
    assert {model.name for model in models.family("a")} == {"a", "a-x3", "a-x4"}
    assert [model.name for model in models.family("a-x4")] == ["a-x4"]


@pytest.mark.parametrize("factor", [0, -1, 16.01, 100, float("nan"), float("inf")])
def test_factors_that_make_no_sense(factor: float) -> None:
    with pytest.raises(UsageError, match="16 at most"):
        models.choose(models.DEFAULT, factor)


def test_one_of_the_family_is_damaged(installed: Path) -> None:
    (installed / "a-x4.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"a-x4\.onnx: not a readable"):
        models.choose("a", 4)
    assert models.choose("a").name == "a"


# In a run


def test_a_run(tmp_path: Path) -> None:
    models.user_folder().mkdir(parents=True)
    nearest_model(models.user_folder() / "small.onnx")
    nearest_model(models.user_folder() / "small-x4.onnx", scale=4)
    clip = make_clip(tmp_path / "clip.mp4", frames=3, width=32, height=24)
    for scale, size, name, shape in (
        (3, None, "small-x4", (72, 96)),
        (8, None, "small-x4+small", (192, 256)),
        (None, "250%", "small-x4", (60, 80)),
        (None, "64x48", "small", (48, 64)),
    ):
        said: list[Any] = []
        made = vidsr.upscale(
            clip, tmp_path / "out.mkv", scale=scale, size=size, model="small", overwrite=True, guard="off",
            observer=said.append,
        )  # fmt: skip
        assert made.verified
        assert next(event.model for event in said if hasattr(event, "model")) == name
        first = next(iter(vidsr.frames(clip, scale=scale, size=size, model="small", guard="off")))
        assert first.planes[0].shape == shape


def test_tiles_of_a_chain_are_exact(parts: list[Model]) -> None:
    """One engine for the whole frame, and one in tiles."""
    pytest.importorskip("onnxruntime")
    model = models.chain(parts)
    source = FrameLayout(family="yuv", bits=8, height=130, width=150, chroma=(2, 2))
    target = replace(source, height=source.height * model.scale, width=source.width * model.scale)
    results = []
    for memory in (None, 2**20 * model.scale**2):
        settings = job.Settings(backend="onnxruntime", guard="off", memory_bytes=memory)
        plan = job.plan_engine(settings, model, source, target)
        assert (plan.tile is None) == (memory is None)
        engine = plan.open()
        (slot,) = engine.slots(1)
        tags = ColorTags()
        slot.convert(job.Conversions(source, target, tags)(tags))
        for index, plane in enumerate(slot.input):
            plane[:] = np.random.default_rng(index).integers(16, 235, plane.shape)
        engine.submit(slot)
        engine.wait(slot)
        results.append([plane.copy() for plane in slot.output])
        engine.close()
    for whole, tiled in zip(*results, strict=True):
        assert np.abs(whole.astype(int) - tiled).max() <= 1
        assert np.mean(whole != tiled) < 1e-3


def test_torch_says_that_it_runs_none(plain: Model) -> None:
    with pytest.raises(BackendError, match=r"plain\+plain"):
        backends.choose("torch", EngineOptions(device="cpu"), models.chain([plain, plain]))


def test_factor_as_a_fraction(plain: Model) -> None:
    assert models.choose(str(plain.path), Fraction(4)).scale == 4
