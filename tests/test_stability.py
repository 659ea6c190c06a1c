"""The stability measure, the guard, and what they decide for a job."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from tests.conftest import make_clip, nearest_model
from vidsr import job, models, stability
from vidsr.backends.openvino_engine import open_raw
from vidsr.cli.evaluate import evaluate_model
from vidsr.cli.stability import report
from vidsr.color import BT709, ColorTags, conversion
from vidsr.errors import UsageError
from vidsr.frame import FrameLayout
from vidsr.graph import Builder, compose, export_model
from vidsr.graph.border import FixedSize
from vidsr.graph.guard import BEGIN, GUARD_REACH, REACH, guarded
from vidsr.job.engine import default_cache, guard_note
from vidsr.models import Model
from vidsr.stability import examine, extremes, needs_guard


def exploding(path: Path, *, spoil: str = "huge", metadata: dict[str, str] | None = None) -> Model:
    """Repeats pixels, and leaves all reason where a pixel differs from its neighbours by nearly all there is.

    spoil: what comes out there: "huge" values up to hundreds, or "nan".
    """

    def network(build: Builder, image: str) -> str:
        taps = np.zeros((3, 3, 3, 3), np.float32)
        for channel in range(3):
            taps[channel, channel] = [[0, -0.25, 0], [-0.25, 1, -0.25], [0, -0.25, 0]]
        contrast = build.op("Abs", build.op("Conv", image, build.constant(taps), pads=[1, 1, 1, 1]))
        over = build.op("Sub", contrast, build.constant(np.float32(0.7)))
        if spoil == "nan":
            root = build.op("Sqrt", build.op("Neg", over))
            wild = build.op("Mul", root, build.constant(np.float32(0)))
        else:
            wild = build.op("Mul", build.op("Relu", over), build.constant(np.float32(1000)))
        phases = build.op("Add", image, wild)
        repeat = build.constant([channel for channel in range(3) for _ in range(4)])
        return build.op("DepthToSpace", build.op("Gather", phases, repeat, axis=1), blocksize=2, mode="CRD")

    onnx.save(export_model(network, name="exploding", metadata=metadata or {}), path)
    return models.load(str(path))


@pytest.fixture
def wild(tmp_path: Path) -> Model:
    return exploding(tmp_path / "wild.onnx")


@pytest.fixture
def tame(tmp_path: Path) -> Model:
    return models.load(str(nearest_model(tmp_path / "tame.onnx")))


def gentle(height: int = 48, width: int = 64) -> np.ndarray:
    """float32 [1, 3, H, W], a smooth picture."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / (5 + c)) * np.cos(columns / (7 - c)) for c in range(3)]
    return (0.5 + 0.4 * np.stack(waves))[None].astype(np.float32)


def bilinear(picture: np.ndarray) -> np.ndarray:
    """float32 [1, 3, H, W] to twice the size."""
    for axis in (2, 3):
        ends = [(0, 0)] * 4
        ends[axis] = (1, 1)
        long = np.pad(picture, ends, mode="edge")
        before, middle, after = (np.take(long, np.arange(picture.shape[axis]) + step, axis=axis) for step in range(3))
        pair = [0.25 * before + 0.75 * middle, 0.75 * middle + 0.25 * after]
        picture = np.stack(pair, axis + 1).reshape([2 * n if i == axis else n for i, n in enumerate(picture.shape)])
    return picture


def limited(picture: np.ndarray, result: np.ndarray) -> np.ndarray:
    """What the guard makes of a model's result, in OpenVINO."""
    build = Builder("guard/")
    output = guarded(build, "x", "y", result.shape[2] // picture.shape[2], picture.shape[2:], FixedSize())
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)
        for name, array in (("x", picture), ("y", result), (output, result))
    ]
    core = openvino.Core()
    graph = core.read_model(build.model(infos[:2], infos[2:], name="guard").SerializeToString())
    compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    made = compiled({"x": picture, "y": result.astype(np.float32)})
    return np.asarray(made[0])


# The measure


def test_extremes_are_what_they_are_called() -> None:
    pictures = extremes()
    assert {"checkerboard", "binary noise", "uniform noise", "text", "edges", "ramp"} <= pictures.keys()
    for picture in pictures.values():
        assert (picture.shape, picture.dtype) == ((3, 96, 96), np.float32)
        assert (picture.min(), picture.max()) == (0, 1)
        np.testing.assert_allclose(255 * picture, np.rint(255 * picture), atol=1e-4)
    np.testing.assert_array_equal(pictures["text"], extremes()["text"])
    assert 0.2 < pictures["text"][:, :48].mean() < 0.9


def test_measure_of_a_tame_model(tame: Model) -> None:
    """Repeating pixels stays within what is there, and is about as restless as bicubic."""
    found = examine(tame)
    assert found.safe
    assert found.verdict == "safe"
    for finding in found.extremes:
        assert (finding.low, finding.high) == (0, 1)
        assert finding.flicker is not None
        assert 0.8 < finding.flicker < 1.6
    ramp = next(finding for finding in found.extremes if finding.name == "ramp")
    assert ramp.wild == 0


def test_measure_of_a_wild_model(wild: Model) -> None:
    found = examine(wild)
    assert not found.safe
    board = next(finding for finding in found.extremes if finding.name == "checkerboard")
    assert board.high == pytest.approx(301, abs=1)
    assert board.wild > 0.9
    assert found.verdict.startswith("needs the guard: ")
    assert found.faults[0].split(" gives ")[0] in {"checkerboard", "binary noise", "coloured binary noise"}


def test_nan_is_not_safe(tmp_path: Path) -> None:
    found = examine(exploding(tmp_path / "nan.onnx", spoil="nan"))
    assert not found.safe
    assert any(math.isnan(finding.low) and finding.wild > 0 for finding in found.extremes)
    assert "NaN" not in json.dumps(found.metadata)


def test_clip(wild: Model, tame: Model) -> None:
    """Nothing moves but by a code value here and there; half of it is a checkerboard."""
    picture = np.full((40, 50, 3), 128, np.uint8)
    picture[:, :25] = 255 * (np.indices((40, 25)).sum(axis=0) % 2)[..., None]
    restless = np.clip(picture + np.random.default_rng(0).integers(-1, 2, picture.shape), 0, 255).astype(np.uint8)
    runs = [np.stack([picture, restless])]
    calm, mad = (examine(model, "a clip", runs).clip for model in (tame, wild))
    assert calm is not None
    assert mad is not None
    assert calm.flicker is not None
    assert mad.flicker is not None
    assert (calm.low, calm.high) == (0, 1)
    assert mad.high > 100
    assert mad.wild > 0.4
    assert mad.flicker > 10 * calm.flicker
    assert 0.8 < calm.flicker < 1.6
    assert "of a clip is wild" in examine(wild, "a clip", runs).faults[-1]


def test_clip_that_moves_everywhere(tame: Model) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    found = examine(tame, "noise", [noise]).clip
    assert found is not None
    assert found.flicker is None


def test_bare_result_is_not_clipped(wild: Model) -> None:
    assert open_raw(wild)(extremes()["checkerboard"][None]).max() > 100


# The guard


def test_what_is_reasonable_stays() -> None:
    """Bit for bit, up to the limit."""
    picture = gentle()
    result = bilinear(picture) + np.random.default_rng(0).uniform(-0.99 * BEGIN, 0.99 * BEGIN, (1, 3, 96, 128))
    result = result.astype(np.float32)
    np.testing.assert_array_equal(limited(picture, result), result)


@pytest.mark.parametrize("value", [1e30, -5.0, math.inf, -math.inf, math.nan])
def test_explosion_is_contained(value: float) -> None:
    """One wild sample: its surroundings become bilinear, what is farther off stays, and nothing of it spreads."""
    picture = gentle()
    plain = bilinear(picture)
    result = plain + np.float32(0.1)
    result[0, 1, 40, 60] = value
    made = limited(picture, result)
    assert np.isfinite(made).all()
    near = 2 * REACH
    around = (slice(None), slice(None), slice(40 - near, 41 + near), slice(60 - near, 61 + near))
    np.testing.assert_allclose(made[around], plain[around], atol=1e-5)
    far = np.ones((96, 128), bool)
    far[
        40 - 2 * (GUARD_REACH + 1) : 42 + 2 * (GUARD_REACH + 1), 60 - 2 * (GUARD_REACH + 1) : 62 + 2 * (GUARD_REACH + 1)
    ] = False
    np.testing.assert_array_equal(made[:, :, far], result[:, :, far])


def test_torch_does_the_same() -> None:
    torch = pytest.importorskip("torch")
    from vidsr.backends.torch_guard import Guarded

    picture = gentle()
    rng = np.random.default_rng(3)
    result = (bilinear(picture) + rng.normal(0, 0.15, (1, 3, 96, 128))).astype(np.float32)
    result[0, 0, 10, 10], result[0, 2, 60, 100], result[0, 1, 80, 20] = 90, math.nan, math.inf
    result[0, :, 30, 70] += 0.8

    class Network(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return torch.from_numpy(result)

    made = Guarded(Network(), 2)(torch.from_numpy(picture)).numpy()
    np.testing.assert_allclose(made, limited(picture, result), atol=2e-6)


def test_off_is_the_graph_without(tame: Model) -> None:
    source = FrameLayout(family="yuv", bits=8, height=32, width=48, chroma=(2, 2))
    target = replace(source, height=64, width=96)
    off, on = (
        compose(tame.proto, source, target, guard=guard).SerializeToString(deterministic=True)
        for guard in (False, True)
    )
    assert off == compose(tame.proto, source, target).SerializeToString(deterministic=True)
    assert off != on


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("spoil", ["huge", "nan"])
def test_no_speckle_reaches_the_picture(tmp_path: Path, backend: str, precision: Any, spoil: str) -> None:
    """Half of a picture is a checkerboard, where the model explodes; the other half is left as it was."""
    if backend == "onnxruntime":
        pytest.importorskip("onnxruntime")
        if precision == "bf16":
            pytest.skip("ONNX Runtime runs FP32")
    model = exploding(tmp_path / "wild.onnx", spoil=spoil)
    source = FrameLayout(family="rgb", bits=8, height=48, width=96)
    target = replace(source, height=96, width=192)
    picture = np.rint(255 * gentle(48, 96)[0]).astype(np.uint8)
    picture[:, :, 48:] = 255 * (np.indices((48, 48)).sum(axis=0) % 2)
    made = {}
    for guard in ("on", "off"):
        settings = job.Settings(backend=backend, precision=precision, guard=guard)
        try:
            engine = job.plan_engine(settings, model, source, target).open()
        except Exception as error:
            if precision == "bf16" and "does not have it" in str(error):
                pytest.skip("this processor has no BF16")
            raise
        slot = engine.slots(1)[0]
        tags = ColorTags(matrix=BT709, full_range=True)
        slot.convert(conversion(replace(tags, matrix=0), replace(tags, matrix=0), source_bits=8, target_bits=8))
        for plane, given in zip(slot.input, picture, strict=True):
            np.copyto(plane, given)
        engine.submit(slot)
        engine.wait(slot)
        made[guard] = np.stack([plane.astype(np.int64) for plane in slot.output])
        engine.close()
    calm = np.s_[:, :, : 96 - 2 * (GUARD_REACH + 2)]
    assert np.abs(made["on"] - made["off"])[calm].max() <= (0 if precision == "fp32" else 1)
    plain = bilinear(picture[None].astype(np.float32))[0]
    board = np.s_[:, 8:-8, 104:-8]
    assert np.abs(made["on"] - plain)[board].max() <= 2
    assert np.abs(made["off"] - plain)[board].max() > 60


@pytest.mark.parametrize("opset", [17, 18, 21])
def test_every_opset_has_the_guard(tmp_path: Path, opset: int) -> None:
    model = exploding(tmp_path / "wild.onnx")
    proto = onnx.version_converter.convert_version(model.proto, opset)
    source = FrameLayout(family="yuv", bits=8, height=32, width=48, chroma=(2, 2))
    onnx.checker.check_model(compose(proto, source, replace(source, height=64, width=96), guard=True), full_check=True)


def test_what_extends_the_picture_counts_nothing(tmp_path: Path) -> None:
    """31 rows become 32 for a model that wants an even number, and only the last is wild."""
    spoilt = np.zeros((1, 1, 64, 1), np.float32)
    spoilt[:, :, 62:] = 9

    def network(build: Builder, image: str) -> str:
        repeat = build.constant([channel for channel in range(3) for _ in range(4)])
        large = build.op("DepthToSpace", build.op("Gather", image, repeat, axis=1), blocksize=2, mode="CRD")
        return build.op("Add", large, build.constant(spoilt))

    source = FrameLayout(family="rgb", bits=8, height=31, width=48)
    target = replace(source, height=62, width=96)
    model = export_model(network, name="spoilt", metadata={})
    picture = np.random.default_rng(0).integers(90, 160, (3, 31, 48), np.uint8)
    tags = replace(ColorTags(matrix=BT709, full_range=True), matrix=0)
    rows = conversion(tags, tags, source_bits=8, target_bits=8)
    made = []
    for guard in (False, True):
        composed = compose(model, source, target, multiple=2, guard=guard)
        compiled = openvino.Core().compile_model(
            openvino.Core().read_model(composed.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        given = {f"in{index}": plane for index, plane in enumerate(picture)}
        given |= {"rgb_from_codes": rows.rgb_from_codes, "codes_from_rgb": rows.codes_from_rgb}
        made.append(np.stack([compiled(given)[f"out{index}"] for index in range(3)]))
    np.testing.assert_array_equal(made[0], picture.repeat(2, axis=1).repeat(2, axis=2))
    np.testing.assert_array_equal(made[1], made[0])


# What is decided


def test_metadata_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stability, "examine", lambda model: pytest.fail("metadata says it"))
    for stated in ("on", "off"):
        model = exploding(tmp_path / f"{stated}.onnx", metadata={"guard": stated})
        assert needs_guard(model, None) == (stated == "on")


def test_verdict_is_kept(wild: Model, tame: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    assert (needs_guard(wild, cache), needs_guard(tame, cache)) == (True, False)
    monkeypatch.setattr(stability, "examine", lambda model: pytest.fail("the verdict is kept"))
    assert (needs_guard(wild, cache), needs_guard(tame, cache)) == (True, False)


def test_verdict_of_another_rule_is_not_taken(wild: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert needs_guard(wild, tmp_path)
    (kept,) = (tmp_path / "stability").iterdir()
    kept.write_text('{"guard": "off"}')
    assert not needs_guard(wild, tmp_path)
    monkeypatch.setattr(stability, "_RULE", 0)
    assert needs_guard(wild, tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"guard": 1}', "null"])
def test_spoiled_verdict_is_found_again(wild: Model, tmp_path: Path, text: str) -> None:
    assert needs_guard(wild, tmp_path)
    (kept,) = (tmp_path / "stability").iterdir()
    kept.write_text(text)
    assert needs_guard(wild, tmp_path)


def test_choice(wild: Model, tame: Model) -> None:
    source = FrameLayout(family="gray", bits=8, height=32, width=32)
    target = replace(source, height=64, width=64)

    def plan(model: Model, guard: Any) -> job.EnginePlan:
        return job.plan_engine(job.Settings(guard=guard), model, source, target)

    assert [plan(wild, guard).guard for guard in ("auto", "on", "off")] == ["on", "on", "off"]
    assert [plan(tame, guard).guard for guard in ("auto", "on", "off")] == ["off", "on", "off"]
    assert "guard on" in str(plan(tame, "on"))
    assert "guard" not in str(plan(tame, "auto"))
    note = guard_note(job.Settings(), plan(wild, "auto"))
    assert note is not None
    assert note.startswith("guard on: wild leaves all reason")
    assert guard_note(job.Settings(guard="on"), plan(wild, "on")) is None
    stated = replace(wild, metadata={"guard": "on"})
    assert plan(stated, "auto").guard == "on"
    assert guard_note(job.Settings(), plan(stated, "auto")) is None
    assert plan(wild, "auto").exact().guard == "on"
    assert plan(wild, "off").exact().guard == "off"
    with pytest.raises(UsageError, match="--guard maybe"):
        plan(tame, "maybe")


def test_reach_grows(wild: Model) -> None:
    assert wild.radius is not None
    assert replace(wild, guarded=True).radius == wild.radius + GUARD_REACH


def test_job_says_so(wild: Model, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=2)
    resolved = job.resolve(clip, tmp_path / "out.mp4", job.Settings(model=str(wild.path)))
    assert any(line.startswith("guard on: wild") for line in resolved.warnings)
    off = job.resolve(clip, tmp_path / "out.mp4", job.Settings(model=str(wild.path), guard="off"))
    assert not any("guard" in line for line in off.warnings)


def test_resume_with_another_guard_is_refused(wild: Model, tmp_path: Path) -> None:
    from vidsr.job.fingerprint import Unchanged
    from vidsr.job.run import _identity

    clip = make_clip(tmp_path / "clip.mp4", frames=2)
    facts = []
    for guard in ("on", "off"):
        resolved = job.resolve(clip, tmp_path / "out.mp4", job.Settings(model=str(wild.path), guard=guard))
        facts.append(_identity(resolved, Unchanged(clip)))
    assert {key for key in facts[0] if facts[0][key] != facts[1][key]} == {"--guard"}


def test_cache_folder_is_there() -> None:
    assert default_cache() is not None


# The command


def test_table(wild: Model, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(str(wild.path), None, False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["lowest", "highest", "wild", "flicker"]
    assert any(line.startswith("checkerboard") for line in lines)
    assert lines[-1].startswith("wild: needs the guard: ")


def test_json_with_a_clip(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=3)
    model = exploding(tmp_path / "nan.onnx", spoil="nan")
    done = CliRunner().invoke(
        evaluate_model, [str(clip), "--stability", "--model", str(model.path), "--json"], standalone_mode=False
    )
    assert done.exception is None, done.output
    found = json.loads(done.output, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found["safe"] is False
    assert found["clip"]["name"] == "clip.mp4"
    assert any(row["low"] is None for row in found["extremes"])


# Official weights


@pytest.mark.parametrize("name", ["screen_recording_tscc.avi", "screen_recording_vp8_or_vp9.webm"])
def test_screen_recording_without_speckles(shared: Path, tmp_path: Path, name: str) -> None:
    from vidsr.checkpoint import import_checkpoint
    from vidsr.evaluate import bicubic, footage_of

    path = import_checkpoint(shared / "weights" / "spanx2_ch48.safetensors", "official", folder=tmp_path)
    assert models.load(str(path)).metadata["guard"] == "on"
    given = footage_of(shared / "clips" / name, frames=1, largest=(400, 640)).runs[0][0]
    from vidsr.api import Upscaler

    wild = {}
    for guard in ("on", "off"):
        with Upscaler(str(path), precision="fp32", guard=guard) as upscaler:
            off = np.abs(upscaler(given).astype(np.int64) - bicubic(given, 2)).max(axis=2)
            wild[guard] = np.mean(off > 128)
    assert wild["on"] < 0.002
    assert wild["off"] > 0.01
