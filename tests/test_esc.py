"""ESC in torch, ONNX Runtime and OpenVINO: equal to the reference's outputs, to each other, and useful for videos."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from tests.comparison import compare
from tests.conftest import make_clip
from vidsr import models
from vidsr.api import upscale
from vidsr.backends.tiled import halo_of, tile_size
from vidsr.checkpoint import import_checkpoint
from vidsr.cli import main
from vidsr.color import RGB, ColorTags
from vidsr.errors import BackendError, DeviceMemoryError, MemoryBudgetError, ModelError, OutputError
from vidsr.events import Start
from vidsr.frame import Frame, FrameLayout
from vidsr.graph import export_model
from vidsr.half import half
from vidsr.job import Conversions
from vidsr.job.engine import plan_engine, tile_note
from vidsr.job.settings import Settings
from vidsr.models import Model
from vidsr.sinks.segments import SegmentSink

torch = pytest.importorskip("torch", reason="ESC's reference needs torch")
safetensors_torch = pytest.importorskip("safetensors.torch")
openvino = pytest.importorskip("openvino")
onnxruntime = pytest.importorskip("onnxruntime")

from vidsr.networks import esc, span  # noqa: E402 - they need torch
from vidsr.networks.esc_config import EscConfig  # noqa: E402
from vidsr.networks.esc_module import Attention  # noqa: E402

GOLDEN = ["esc_x4_small", "esc_light_x2", "esc_fp_x3_small", "esc_real_x4_small"]
Array = NDArray[np.float32]
State = Mapping[str, Array]

TINY = EscConfig(
    form="esc", channels=8, scale=2, blocks=2, layers=2, heads=2, window=8, far=4, kernel=5, wide=12, hidden=10,
    squeeze=3,
)  # fmt: skip
FORMS = {
    "esc": TINY,
    "normed": dataclasses.replace(TINY, normed=True, scale=3, blocks=1),
    "flashbias": dataclasses.replace(TINY, rank=3, window=4),
    "fp": dataclasses.replace(TINY, form="esc-fp", normed=True, scale=4),
    "real": dataclasses.replace(TINY, form="esc-real", normed=True, scale=4, convolutions=(1, 4, 6, 8)),
    "real of three": dataclasses.replace(TINY, form="esc-real", scale=4, convolutions=(1, 4, 6)),
}


def random_state(config: EscConfig, seed: int = 0) -> dict[str, Array]:
    """Weights under the published keys that keep values near 1, with biases and kernels that matter."""
    random = np.random.default_rng(seed)
    state = {}
    for key, tensor in esc.Esc(config).state_dict().items():
        shape = tuple(tensor.shape)
        spread = max(np.prod(shape[1:]), 1) ** -0.5 if len(shape) == 4 else 0.5
        state[key] = (random.standard_normal(shape) * spread + ("ln" in key and "weight" in key)).astype(np.float32)
    return esc.fuse(state)


def exported(state: State) -> onnx.ModelProto:
    config = esc.deduce(state, {})
    return export_model(lambda build, image: esc.export(build, image, state, config), name="esc", metadata={})


def run_torch(state: State, picture: Array) -> Array:
    with torch.inference_mode():
        return np.asarray(esc.build(state, {})(torch.from_numpy(picture)).numpy())


def run_onnxruntime(proto: onnx.ModelProto, picture: Array) -> Array:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input": picture})[0])


def compiled(proto: onnx.ModelProto) -> Any:
    core = openvino.Core()
    return core.compile_model(
        core.read_model(proto.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1"}
    )


def assert_close(found: Array, expected: Array, bound: float) -> None:
    assert found.shape == expected.shape
    assert abs(found - expected).max() < bound


def random_picture(*shape: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).random(shape, np.float32)


def saved(state: State, path: Path) -> Path:
    safetensors_torch.save_file({key: torch.from_numpy(value) for key, value in state.items()}, path)
    return path


def imported(state: State, folder: Path, name: str = "esc") -> Model:
    path = import_checkpoint(saved(state, folder / f"{name}.safetensors"), name, folder=folder / "models")
    return models.load(str(path))


# Equal to the reference


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(shared: Path, name: str) -> None:
    """Outputs of the reference implementation, and torch for another size."""
    golden = np.load(shared / "golden" / f"{name}.npz")
    state, _ = esc_state(shared, name)
    assert_close(run_torch(state, golden["x"]), golden["y"], 1e-4)
    proto = exported(state)
    fused = compiled(proto)
    odd = random_picture(1, 3, 37, 53)
    for picture, expected in ((golden["x"], golden["y"]), (odd, run_torch(state, odd))):
        assert_close(run_onnxruntime(proto, picture), expected, 1e-3)
        assert_close(np.asarray(fused(picture)[0]), expected, 1e-3)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_matters(shared: Path, name: str) -> None:
    """What the goldens show of: kernels of a layer's own, and biases of attention, are not zero in them."""
    with np.load(shared / "golden" / f"{name}.npz") as golden:
        picture = golden["x"]
    state, _ = esc_state(shared, name)
    whole = run_torch(state, picture)
    for part in (".plk.", "relative_position_bias"):
        without = {key: value * 0 if part in key else value for key, value in state.items()}
        assert abs(run_torch(without, picture) - whole).max() > 1e-3 * abs(whole).max()


def esc_state(shared: Path, name: str) -> tuple[State, EscConfig]:
    raw = safetensors_torch.load_file(shared / "golden" / f"{name}.safetensors")
    state = esc.fuse({key: value.numpy() for key, value in raw.items()})
    return state, esc.deduce(state, {})


def test_golden_forms(shared: Path) -> None:
    found = {name: esc_state(shared, name)[1] for name in GOLDEN}
    assert [config.form for config in found.values()] == ["esc", "esc", "esc-fp", "esc-real"]
    assert [config.scale for config in found.values()] == [4, 2, 3, 4]
    assert {config.window for config in found.values()} == {32}
    assert [config.heads for config in found.values()] == [4, 4, 3, 4]


# Equal to each other


@pytest.mark.parametrize("form", FORMS)
def test_engines_agree(form: str) -> None:
    """At whole windows, at sizes that are none, and at sizes that a window reflects more than once."""
    state = random_state(FORMS[form])
    proto = exported(state)
    fused = compiled(proto)
    for shape in ((1, 3, 16, 8), (1, 3, 37, 53), (2, 3, 9, 20), (1, 3, 3, 2), (1, 3, 1, 1)):
        picture = random_picture(*shape)
        expected = run_torch(state, picture)
        bound = 1e-4 * max(1.0, float(abs(expected).max()))
        assert_close(run_onnxruntime(proto, picture), expected, bound)
        assert_close(np.asarray(fused(picture)[0]), expected, bound)


@pytest.mark.parametrize("form", FORMS)
def test_deduced(form: str) -> None:
    config = FORMS[form]
    assert esc.deduce(random_state(config), {}) == config


def test_attention_pixel_by_pixel() -> None:
    """Windows, heads, the bias by relative place, and reflection, each written down."""
    side, heads, channels, height, width = 4, 2, 6, 7, 5
    config = dataclasses.replace(TINY, window=side, heads=heads, channels=channels)
    state = random_state(config)
    weights = {key.removeprefix("blocks.0.attn."): value for key, value in state.items() if "blocks.0.attn." in key}
    attention = Attention(config)
    attention.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    picture = random_picture(1, channels, height, width)
    with torch.inference_mode():
        found = attention(torch.from_numpy(picture)).numpy()[0]

    whole = np.pad(picture[0], ((0, 0), (0, 1), (0, 3)), mode="reflect").astype(np.float64)
    qkv = np.einsum("oc,chw->ohw", weights["to_qkv.weight"][:, :, 0, 0], whole) + weights["to_qkv.bias"][:, None, None]
    query, key, value = qkv.reshape(3, heads, channels // heads, 8, 8)
    expected = np.zeros((heads, channels // heads, height, width))
    for head, row, column in np.ndindex(heads, height, width):
        top, left = row // side * side, column // side * side
        others = [(top + y, left + x) for y in range(side) for x in range(side)]
        table = weights["relative_position_bias"][head].reshape(2 * side - 1, 2 * side - 1)
        scores = [
            query[head, :, row, column] @ key[head, :, y, x] / np.sqrt(channels / heads)
            + table[y - row + side - 1, x - column + side - 1]
            for y, x in others
        ]
        shares = np.exp(scores) / np.exp(scores).sum()
        expected[head, :, row, column] = sum(
            share * value[head, :, y, x] for share, (y, x) in zip(shares, others, strict=True)
        )
    mixed = np.einsum("oc,chw->ohw", weights["to_out.weight"][:, :, 0, 0], expected.reshape(channels, height, width))
    assert_close(found, (mixed + weights["to_out.bias"][:, None, None]).astype(np.float32), 1e-5)


def test_factors_of_the_bias() -> None:
    """FlashBias holds a bias as two factors; of full rank they are the table."""
    state = random_state(dataclasses.replace(TINY, window=4))
    factored = {key: value for key, value in state.items() if "relative_position_bias" not in key}
    for block, attention in enumerate(part.attn for part in esc.build(state, {}).blocks):
        left, sizes, right = np.linalg.svd(attention.bias()[0].detach().numpy())
        factored[f"blocks.{block}.attn.flashbias_q"] = left * np.sqrt(sizes)[:, None]
        factored[f"blocks.{block}.attn.flashbias_k"] = right.transpose(0, 2, 1) * np.sqrt(sizes)[:, None]
    picture = random_picture(1, 3, 9, 6)
    assert_close(run_torch(factored, picture), run_torch(state, picture), 1e-4)


def test_large_kernel_is_symmetric() -> None:
    """As averaged over all ways to turn and mirror it; once more changes nothing."""
    kernel = np.random.default_rng(0).random((2, 2, 5, 5), np.float32)
    fused = esc.fuse({"plk_filter": kernel})["plk_filter"]
    for axis in (2, 3):
        assert_close(np.flip(fused, axis), fused, 1e-6)
    assert_close(np.rot90(fused, 1, (2, 3)), fused, 1e-6)
    assert_close(esc.fuse({"plk_filter": fused})["plk_filter"], fused, 1e-6)
    assert fused.sum() == pytest.approx(kernel.sum(), rel=1e-5)


# Lower precision


def test_half_in_torch() -> None:
    state = random_state(TINY)
    network = esc.build(state, {})
    network.halve()
    picture = random_picture(1, 3, 20, 12)
    with torch.inference_mode():
        found = network(torch.from_numpy(picture))
    assert found.dtype == torch.float32
    assert {tensor.dtype for key, tensor in network.state_dict().items() if "to_img" not in key} == {torch.float16}
    expected = run_torch(state, picture)
    assert_close(found.numpy(), expected, 0.02 * float(abs(expected).max()))


def test_half_in_onnx() -> None:
    state = random_state(TINY)
    picture = random_picture(1, 3, 20, 12)
    expected = run_torch(state, picture)
    lowered = half(exported(state))
    assert {tensor.data_type for tensor in lowered.graph.initializer} >= {onnx.TensorProto.FLOAT16}
    assert_close(run_onnxruntime(lowered, picture), expected, 0.02 * float(abs(expected).max()))


def test_no_ranges_for_int8(tmp_path: Path) -> None:
    model = imported(random_state(TINY), tmp_path)
    with pytest.raises((ModelError, BackendError), match="int8"):
        planned(model, backend="openvino", precision="int8").open()


# Attention is fused


def test_torch_makes_no_scores() -> None:
    """All tensors stay smaller than one score for each two pixels of a window, and the fused kernel runs."""
    config = dataclasses.replace(TINY, window=16, blocks=1)
    network = esc.build(random_state(config), {})
    side = 6 * config.window
    scores = config.heads * 36 * config.window**4
    seen: list[tuple[str, int]] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
            result = function(*arguments, **(options or {}))
            results = result if isinstance(result, tuple | list) else [result]
            seen.extend((str(function), value.numel()) for value in results if isinstance(value, torch.Tensor))
            return result

    with torch.inference_mode(), Watch():
        network(torch.rand(1, 3, side, side))
    assert any("scaled_dot_product" in name for name, _ in seen)
    assert max(size for _, size in seen) < scores / 4


def test_openvino_makes_no_scores() -> None:
    if "avx512f" not in _cpu_flags():
        pytest.skip("OpenVINO fuses attention in FP32 only on processors with AVX-512")
    config = dataclasses.replace(TINY, window=16)
    graph = openvino.Core().read_model(exported(random_state(config)).SerializeToString())
    graph.reshape([1, 3, 48, 48])
    ready = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    pixels = config.window**2
    made = [
        (node.get_friendly_name(), node.output(0).get_shape())
        for node in ready.get_runtime_model().get_ordered_ops()
        if node.get_rt_info()["layerType"].astype(str) not in ("Const", "Output")
    ]
    assert not [name for name, shape in made if list(shape[-2:]) == [pixels, pixels]]


def _cpu_flags() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def test_memory_of_scores(tmp_path: Path) -> None:
    """A backend that does not fuse attention needs room for its scores, two tensors of them."""
    model = imported(random_state(TINY), tmp_path)
    assert model.score_bytes == 2 * 4 * TINY.heads * TINY.window**2
    assert model.activation_bytes < 4 * 64 * TINY.channels
    budget = {"memory_bytes": 200 * 2**20, "precision": "fp32"}
    assert planned(model, 256, 640, backend="openvino", **budget).tile is None
    assert planned(model, 256, 640, backend="onnxruntime", **budget).tile is not None


# Refusals


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no table": ({"blocks.0.attn.relative_position_bias": None}, "lacks blocks.0.attn.relative_position_bias"),
    "missing inside": ({"blocks.1.convffns.0.dwc.bias": None}, "lacks blocks.1.convffns.0.dwc.bias"),
    "table of another size": ({"blocks.0.attn.relative_position_bias": (2, 224)}, "224 position biases"),
    "two tables": ({"blocks.1.attn.relative_position_bias": (2, 49)}, "is \\[2, 49\\] where \\[2, 225\\]"),
    "gray": ({"proj.weight": (8, 1, 3, 3)}, "1 colours"),
    "heads that do not divide": ({"blocks.0.attn.relative_position_bias": (3, 225)}, "8 channels for 3 heads"),
    "kernels of 5x5": ({"blocks.0.pconvs.0.plk.dwc_proj.3.bias": (100,)}, "100 values"),
    "four colours": ({"to_img.weight": (16, 8, 3, 3)}, "16 output channels"),
    "oblong kernel": ({"plk_filter": (4, 4, 5, 7)}, "no square kernel"),
    "DySample": ({"to_img.offset.weight": (32, 8, 1, 1)}, "another upsampler"),
    "another tail": ({"to_img.2.weight": (8, 8, 3, 3)}, "upsampler's convolutions"),
}


@pytest.mark.parametrize("name", WRONG)
def test_refused(tmp_path: Path, name: str) -> None:
    changes, says = WRONG[name]
    state: dict[str, Any] = random_state(TINY)
    for key, shape in changes.items():
        state[key] = None if shape is None else np.ones(shape, np.float32)
    path = saved({key: value for key, value in state.items() if value is not None}, tmp_path / "wrong.safetensors")
    with pytest.raises(ModelError, match=says) as error:
        import_checkpoint(path, "wrong", folder=tmp_path / "models")
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_recognised() -> None:
    for config in FORMS.values():
        keys = frozenset(random_state(config))
        assert esc.recognise(keys) and not span.recognise(keys)
    plain = {"conv_1.sk.weight", "block_1.c1_r.sk.weight", "conv_cat.weight", "upsampler.0.weight"}
    relative = {"feats.0.weight", "feats.1.lk.conv.weight", "blocks.0.plk.conv.weight", "plk_filter"}
    assert not esc.recognise(frozenset(plain)) and not esc.recognise(frozenset(relative))


# As a model


def test_metadata(tmp_path: Path) -> None:
    model = imported(random_state(TINY), tmp_path)
    stated = {key: model.metadata[key] for key in ("network", "form", "scale", "window", "tile_overlap", "tile_step")}
    assert stated == {
        "network": "esc", "form": "esc", "scale": "2", "window": "8", "tile_overlap": "64", "tile_step": "8",
    }  # fmt: skip
    assert (model.scale, model.multiple, model.radius, model.overlap, model.tile_step) == (2, 1, None, 64, 8)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "torch"])
def test_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """From checkpoint to video on the command line: all frames at their times, twice the size."""
    monkeypatch.chdir(tmp_path)
    clip = make_clip(tmp_path / "clip.mp4", frames=5, width=50, height=38)
    saved(random_state(TINY), tmp_path / "esc.safetensors")
    for command in (
        ["import", "esc.safetensors", "--name", "mine"],
        [clip.name, "out.mp4", "--model", "mine", "--backend", backend],
    ):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert not ended.value.code
    made = compare(clip, tmp_path / "out.mp4")
    assert made.frames == (5, 5) and not made.worst_time
    with av.open(str(tmp_path / "out.mp4")) as opened:
        assert (opened.streams.video[0].width, opened.streams.video[0].height) == (100, 76)


# Tiles


def layouts(height: int, width: int, scale: int) -> tuple[FrameLayout, FrameLayout]:
    source = FrameLayout(family="rgb", bits=8, height=height, width=width)
    return source, dataclasses.replace(source, height=scale * height, width=scale * width)


def planned(model: Model, height: int = 16, width: int = 16, **settings: Any) -> Any:
    chosen = Settings(**{"backend": "onnxruntime", "guard": "off", **settings})
    return plan_engine(chosen, model, *layouts(height, width, model.scale))


def enlarged(plan: Any, picture: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Planes [3, H, W] of codes."""
    engine = plan.open()
    try:
        (slot,) = engine.slots(1)[:1]
        tags = ColorTags(matrix=RGB, full_range=True)
        slot.convert(Conversions(plan.source, plan.target, tags)(tags))
        for plane, part in zip(slot.input, picture, strict=True):
            plane[:] = part
        engine.submit(slot)
        engine.wait(slot)
        return np.stack(slot.output).astype(np.int64)
    finally:
        engine.close()


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Its output stays near its input, so that few codes are clipped: what the last convolution makes is small."""
    state = random_state(dataclasses.replace(TINY, window=32, blocks=1, layers=2))
    state |= {key: value * 0.4 for key, value in state.items() if key.startswith("to_img")}
    return imported(state, tmp_path_factory.mktemp("calm"))


def test_tiles(calm: Model) -> None:
    """Tiles begin where windows do, so what differs from the whole picture is small, and no larger at seams."""
    coarse = np.random.default_rng(5).integers(60, 190, (3, 23, 31))
    picture = coarse.repeat(16, 1).repeat(16, 2)[:, :353, :485].astype(np.uint8)
    picture += np.random.default_rng(6).integers(0, 20, picture.shape).astype(np.uint8)
    whole = planned(calm, 353, 485, precision="fp32", backend="openvino")
    assert whole.tile is None and tile_note(whole) is None
    tiled = planned(calm, 353, 485, precision="fp32", backend="openvino", streams=1, memory_bytes=40 * 2**20)
    assert tiled.tile is not None and tiled.tile < (353, 485)
    assert halo_of(calm, tiled.source, tiled.target) == 64
    note = tile_note(tiled)
    assert note is not None and "not give exactly the same" in note and "\n" not in note
    expected = enlarged(whole, picture)
    off = abs(expected - enlarged(tiled, picture))
    assert off.max() <= 1
    assert off.mean() < 0.02
    shifted = dataclasses.replace(calm, metadata=calm.metadata | {"tile_step": "1", "tile_overlap": "40"})
    tiled = planned(shifted, 353, 485, precision="fp32", backend="openvino", streams=1, memory_bytes=40 * 2**20)
    assert abs(expected - enlarged(tiled, picture)).max() > 3, "this picture shows nothing of windows"


def test_model_that_says_nothing_of_tiles(calm: Model) -> None:
    """It is refused, as is what is no number of pixels."""
    for stated in ({}, {"tile_overlap": "0"}, {"tile_overlap": "many"}, {"tile_overlap": "-64"}):
        kept = {key: value for key, value in calm.metadata.items() if key != "tile_overlap"}
        silent = dataclasses.replace(calm, metadata=kept | stated)
        assert silent.overlap is None
        with pytest.raises(MemoryBudgetError, match="looks at the whole picture"):
            tile_size(
                silent, *layouts(353, 485, calm.scale), item_bytes=4, overhead=1.0, budget_bytes=40 * 2**20
            )  # fmt: skip


def test_tiled_clip_warns(tmp_path: Path, calm: Model) -> None:
    """The run says that tiles are not exact, and the frames and their times are all there."""
    clip = make_clip(tmp_path / "clip.mp4", frames=2, width=640, height=360)
    report = upscale(
        clip, tmp_path / "out.mkv", model=str(calm.path), backend="openvino", memory_bytes=40 * 2**20, guard="off",
        encoder="ffv1", precision="fp32",
    )  # fmt: skip
    assert [line for line in report.warnings if re.search(r"tiles of \d+x\d+, which do not give exactly", line)]
    assert report.frames == 2


def test_tiles_stay_when_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They change frames, so a run keeps to those that it began with, whatever memory it is given later."""
    model = imported(random_state(TINY), tmp_path)
    clip, told = make_clip(tmp_path / "clip.mp4", frames=4, width=384, height=64), []
    monkeypatch.setattr("vidsr.sinks.segments._FRAMES", 1)

    def run(memory_bytes: int, **more: Any) -> Any:
        options = {"model": str(model.path), "backend": "onnxruntime", "guard": "off", "encoder": "ffv1", **more}
        return upscale(clip, tmp_path / "out.mkv", memory_bytes=memory_bytes, observer=told.append, **options)

    write = SegmentSink.write

    def ending(self: SegmentSink, frame: Frame) -> None:
        if frame.pts > 1500:  # the fourth
            raise OutputError("the power is gone")
        write(self, frame)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentSink, "write", ending)
        with pytest.raises(OutputError, match="frames are kept"):
            run(40 * 2**20)
    report = run(2**33, resume=True)
    first, second = (event.engine for event in told if isinstance(event, Start))
    assert first == second and "tiles of 264x64" in first
    assert report.resumed and "tiles of 264x64, which do not give exactly" in report.warnings[-1]


def test_tiles_for_want_of_memory_of_a_card_are_told(calm: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(calm, 353, 485)
    assert plan.tile is None
    backend, opened = type(plan.backend), type(plan.backend).open

    def small(self: Any, model: Model, source: FrameLayout, *others: Any) -> Any:
        if source == plan.source:
            raise DeviceMemoryError("the card is full")
        return opened(self, model, source, *others)

    monkeypatch.setattr(backend, "open", small)
    plan.open().close()
    (line,) = plan.notes.lines()
    assert re.search(r"tiles of \d+x\d+, which do not give exactly", line)
