"""Training for INT8, what comes out of it, and that engines compute what training simulated."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="torch is not installed")

import torch

from tests.training.running import trained
from vidsr import backends, models
from vidsr.backends import EngineOptions
from vidsr.checkpoint import import_checkpoint, read_checkpoint
from vidsr.color import ColorTags, conversion
from vidsr.errors import BackendError, ModelError
from vidsr.frame import FrameLayout
from vidsr.networks.span import Span, SpanConfig
from vidsr.quantise import KEY, learned_ranges, quantised
from vidsr.training.quantise import FULL, RoundedConv, calibrate, ranges_of, round_convolutions
from vidsr.training.recipe import ModelRecipe, Recipe, TrainRecipe, find_recipe, read_recipe
from vidsr.training.store import Store
from vidsr.training.weights import read_start, write_weights

SIDE = 48
REACH = "conv_2.eval_conv.reach"
LAYOUT = FrameLayout(family="rgb", bits=8, height=SIDE, width=SIDE)
RECIPE = Recipe(
    name="tiny",
    model=ModelRecipe(channels=16, blocks=2),
    train=TrainRecipe(steps=10, batch=2, patch_px=16, warmup=2, bits=8),
)


def picture() -> NDArray[np.uint8]:
    """Noise with slopes in it, [H, W, 3]."""
    rng = np.random.default_rng(3)
    slope = np.linspace(0, 200, SIDE)[None, :, None]
    return (slope + rng.integers(0, 56, (SIDE, SIDE, 3))).astype(np.uint8)


def as_input(pixels: NDArray[np.uint8]) -> torch.Tensor:
    return torch.tensor(pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255)


@pytest.fixture(scope="module", params=[1, 2], ids=["whole", "squares"])
def network(request: pytest.FixtureRequest) -> Span:
    """With weights so large that each block matters."""
    torch.manual_seed(5)
    config = SpanConfig(channels=16, scale=2, blocks=2, unshuffle=request.param, base="nearest", img_range=1.0)
    made = Span(config)
    with torch.no_grad():
        for name, value in made.named_parameters():
            if name.startswith(("conv_1", "block")):
                value.mul_(4.0 if name.startswith("conv_1") else 2.5)
    round_convolutions(made)
    calibrate(made, [as_input(picture())])
    return made.eval()


@pytest.fixture(scope="module")
def model(network: Span, tmp_path_factory: pytest.TempPathFactory) -> models.Model:
    folder = tmp_path_factory.mktemp("model")
    write_weights(folder / "tiny.safetensors", network, {})
    return models.load(str(import_checkpoint(folder / "tiny.safetensors", "tiny", folder=folder)))


def psnr(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    return float(-10 * np.log10(np.mean((found - wanted) ** 2) + 1e-30))


def upscaled(backend_name: str, model: models.Model, precision: str) -> NDArray[np.float64]:
    """`picture` through an engine, [3, 2H, 2W], 0..1."""
    backend, options = backends.choose(backend_name, EngineOptions(device="cpu", precision=precision), model)  # type: ignore[arg-type]
    target = replace(LAYOUT, height=2 * SIDE, width=2 * SIDE, bits=12)
    engine = backend.open(model, LAYOUT, target, options)
    assert "INT8" in engine.description or precision != "int8"
    (slot,) = engine.slots(1)
    tags = ColorTags().resolved(height=SIDE, width=SIDE, rgb=True)
    slot.convert(conversion(tags, tags, source_bits=8, target_bits=12, gray_source=False))
    order = [1, 2, 0]  # planes are G, B, R
    for plane, index in zip(slot.input, order, strict=True):
        np.copyto(plane, picture()[:, :, index])
    engine.submit(slot)
    engine.wait(slot)
    result = np.empty((3, 2 * SIDE, 2 * SIDE))
    for plane, index in zip(slot.output, order, strict=True):
        result[index] = plane / 4095.0
    engine.close()
    return result


def outputs(network: Span) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the network makes of `picture`, rounded and not."""
    made = []
    for rounding in (False, True):
        for module in network.modules():
            if isinstance(module, RoundedConv):
                module.rounding = rounding
        with torch.no_grad():
            made.append(network(as_input(picture()))[0].clamp(0, 1).double().numpy())
    return made[1], made[0]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_engines_compute_what_training_simulates(
    backend: str, network: Span, model: models.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    simulated, exact = outputs(network)
    assert psnr(upscaled(backend, model, "int8"), simulated) > 45
    # Beside BF16 a value is often rounded to the next code: the codes themselves show where the rest is FP32.
    monkeypatch.setattr("vidsr.backends.openvino_engine._hint", lambda *given: "f32")
    found = upscaled(backend, model, "int8")
    assert psnr(found, simulated) > 65
    assert psnr(found, simulated) > psnr(found, exact) + 6, "not rounded as simulated"
    assert psnr(upscaled(backend, model, "fp32"), exact) > 70, "FP32 must be without any rounding"


def test_form(model: models.Model) -> None:
    """Every convolution between the ends has its pairs; FP32 weights that nobody uses are gone."""
    before = model.proto.SerializeToString()
    form = quantised(model.proto, learned_ranges(model))
    assert model.proto.SerializeToString() == before
    onnx.checker.check_model(form, full_check=True)
    made = {node.output[0]: node.op_type for node in form.graph.node}
    rounded = {
        node.name
        for node in form.graph.node
        if node.op_type == "Conv" and [made.get(name) for name in node.input[:2]] == ["DequantizeLinear"] * 2
    }
    assert rounded == {node.name for node in model.proto.graph.node if node.op_type == "Conv"} - set(FULL)
    assert rounded == learned_ranges(model).keys()
    used = {name for node in form.graph.node for name in node.input}
    assert {tensor.name for tensor in form.graph.initializer} <= used


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86 only has two ways to add 8-bit products")
@pytest.mark.parametrize("instructions", ["AVX2", "DEFAULT"])
def test_processors_without_vnni(instructions: str) -> None:
    """Largest codes throughout: no sum is cut off."""
    pytest.importorskip("openvino", reason="openvino is not installed")
    code = """
import numpy as np, openvino
from onnx import helper
from vidsr.graph import Builder
from vidsr.quantise import quantised
build, shape = Builder(), (1, 32, 32, 32)
build.op("Conv", "x", build.constant(np.ones((32, 32, 3, 3), np.float32)), name="y", pads=[1] * 4)
x, y = (helper.make_tensor_value_info(name, 1, shape) for name in "xy")
form = quantised(build.model([x], [y], name="sums"), {"y": (0.0, 1.0)})
core = openvino.Core()
compiled = core.compile_model(core.read_model(form.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
print(compiled(np.ones(shape, np.float32))[0][0, 0, 16, 16])
"""
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"ONEDNN_MAX_CPU_ISA": instructions},
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert float(run.stdout) == pytest.approx(32 * 9, rel=1e-4)


def test_ranges_come_back(network: Span, model: models.Model, tmp_path: Path) -> None:
    wanted, found = ranges_of(network), learned_ranges(model)
    assert found.keys() == wanted.keys()
    for name, span in wanted.items():
        assert found[name] == pytest.approx(span, rel=1e-5)
    write_weights(tmp_path / "again.safetensors", network, {})
    state, stated = read_checkpoint(tmp_path / "again.safetensors")
    assert not [key for key in state if "reach" in key] and KEY in stated
    assert read_start(str(tmp_path / "again.safetensors"))[0].keys() == state.keys()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "--precision int8: tiny has no ranges for it"),
        ("{", "hold no ranges"),
        ("[1]", "hold no ranges"),
        ('{"conv_2.eval_conv":[1,2]}', "wrong range for 'conv_2.eval_conv'"),
        ('{"conv_2.eval_conv":[-1,NaN]}', "wrong range for 'conv_2.eval_conv'"),
        ('{"conv_9":[-1,2]}', "wrong range for 'conv_9'"),
    ],
)
def test_models_without_ranges_are_refused(model: models.Model, text: str | None, said: str) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    metadata = {key: value for key, value in model.metadata.items() if key != KEY}
    other = replace(model, metadata=metadata | ({KEY: text} if text is not None else {}))
    with pytest.raises(ModelError, match=said) as caught:
        backends.choose("onnxruntime", EngineOptions(precision="int8"), other)
    assert "\n" not in str(caught.value)


def test_torch_refuses(model: models.Model) -> None:
    with pytest.raises(BackendError, match="--precision int8: torch"):
        backends.choose("torch", EngineOptions(device="cpu", precision="int8"), model)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_auto_never_takes_it(name: str, model: models.Model) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed")
    assert backends.choose(name, EngineOptions(), model)[1].precision != "int8"


def test_gradients() -> None:
    """Of codes times step, against the definition: what the range loses outside, and the rounding error inside."""
    conv = torch.nn.Conv2d(1, 1, 1, bias=False)
    torch.nn.init.constant_(conv.weight, 1.0)
    rounded = RoundedConv(conv)
    with torch.no_grad():
        rounded.reach.copy_(torch.tensor([0.5, 2.0]).log())
    x = torch.tensor([-3.0, -0.2, 0.0, 1.0, 1.99, 5.0]).view(1, 1, 1, -1).requires_grad_()
    rounded(x).sum().backward()
    assert x.grad is not None and torch.allclose(x.grad.flatten(), torch.tensor([0.0, 1, 1, 1, 1, 0]), atol=1e-5)
    # Moving an end of the range moves what it cuts off along with it; d/d(log end) = end.
    assert rounded.reach.grad is not None
    assert torch.allclose(rounded.reach.grad, torch.tensor([-0.5, 2.0]), atol=0.02)


@pytest.mark.parametrize("stop_after", [0, 4])
def test_the_same_after_a_stop(store: Store, tmp_path: Path, stop_after: int) -> None:
    whole = trained(RECIPE, store, tmp_path / "whole")[1]
    assert whole is not None
    assert trained(RECIPE, store, tmp_path / "parts", stop_after)[1] is None
    saved = torch.load(tmp_path / "parts/last.pt", weights_only=True)
    assert saved["step"] == stop_after and REACH in saved["network"]
    parts = trained(RECIPE, store, tmp_path / "parts")[1]
    assert parts is not None
    for key, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[key]), key
    ends = torch.cat([value for key, value in whole.state_dict().items() if "reach" in key])
    assert ends.abs().min() > 0, "a range was never set"
    after = torch.load(tmp_path / "parts/last.pt", weights_only=True)
    if stop_after:
        assert not torch.equal(after["network"][REACH], saved["network"][REACH]), "ranges do not learn"


def test_shipped_recipe() -> None:
    """It differs from span-fast in how it trains alone: one model serves all precisions."""
    before, after = (read_recipe(find_recipe(name)) for name in ("span-fast", "span-fast-int8"))
    assert (before.name, before.model, before.data) == (after.name, after.model, after.data)
    assert (before.train.bits, after.train.bits) == (0, 8)
