"""Published checkpoints become models that compute the same, or are refused with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vidsr import checkpoint, models, networks
from vidsr.checkpoint import import_checkpoint, read_checkpoint
from vidsr.errors import ModelError, OutputError, UsageError
from vidsr.models import Model

torch = pytest.importorskip("torch", reason="importing checkpoints needs torch")
safetensors_torch = pytest.importorskip("safetensors.torch")
functional = torch.nn.functional

MEAN, RANGE = (0.4488, 0.4371, 0.4040), 255.0

State = dict[str, Any]


def training_state(*, channels: int = 8, blocks: int = 2, scale: int = 2, unshuffle: int = 1, seed: int = 0) -> State:
    """Random weights under the published keys of SPAN's training form: `sk` beside `conv.0..2`."""
    source = torch.Generator().manual_seed(seed)

    def weights(outputs: int, inputs: int, size: int) -> Any:
        return torch.randn(outputs, inputs, size, size, generator=source) * (inputs * size * size) ** -0.5

    state: State = {}
    stems = {"conv_1": 3 * unshuffle**2, "conv_2": channels}
    stems |= {f"block_{block}.c{part}_r": channels for block in range(1, blocks + 1) for part in (1, 2, 3)}
    for stem, inputs in stems.items():
        sizes = {"sk": (channels, inputs, 1), "conv.0": (2 * inputs, inputs, 1)}
        sizes |= {"conv.1": (2 * channels, 2 * inputs, 3), "conv.2": (channels, 2 * channels, 1)}
        for part, size in sizes.items():
            state[f"{stem}.{part}.weight"] = weights(*size)
            state[f"{stem}.{part}.bias"] = torch.randn(size[0], generator=source) / 4
        # What trainers leave behind from the last time somebody evaluated.
        state[f"{stem}.eval_conv.weight"] = weights(channels, inputs, 3)
        state[f"{stem}.eval_conv.bias"] = torch.zeros(channels)
    outputs = 3 * (scale * unshuffle) ** 2
    for name, size in {"conv_cat": (channels, 4 * channels, 1), "upsampler.0": (outputs, channels, 3)}.items():
        state[f"{name}.weight"], state[f"{name}.bias"] = weights(*size), torch.randn(size[0], generator=source) / 4
    return state


def unfused(
    state: State,
    image: NDArray[np.float32],
    *,
    mean: tuple[float, ...] = MEAN,
    img_range: float = RANGE,
    base: bool = False,
    unshuffle: int = 1,
) -> NDArray[np.float32]:
    """What the training form computes, written down from the paper in float64."""
    state = {key: value.double() for key, value in state.items()}

    def plain(name: str, value: Any, padding: int = 0) -> Any:
        return functional.conv2d(value, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)

    def conv(stem: str, value: Any) -> Any:
        wide = plain(f"{stem}.conv.0", functional.pad(value, (1, 1, 1, 1)))
        return plain(f"{stem}.conv.2", plain(f"{stem}.conv.1", wide)) + plain(f"{stem}.sk", value)

    x = torch.from_numpy(image).double()
    centred = (x - torch.tensor(mean).double().view(1, 3, 1, 1)) * img_range
    # Channel by channel, row by row, each phase of it.
    phases = [
        centred[:, channel : channel + 1, row::unshuffle, column::unshuffle]
        for channel in range(3)
        for row in range(unshuffle)
        for column in range(unshuffle)
    ]
    value = feature = conv("conv_1", torch.cat(phases, dim=1))
    outputs = []
    for block in range(1, len({key.split(".")[0] for key in state if key.startswith("block_")}) + 1):
        first = functional.silu(conv(f"block_{block}.c1_r", value))
        third = conv(f"block_{block}.c3_r", functional.silu(conv(f"block_{block}.c2_r", first)))
        value = (third + value) * (torch.sigmoid(third) - 0.5)
        outputs.append(value)
    joined = torch.cat([feature, conv("conv_2", value), outputs[0], first], dim=1)
    last = plain("upsampler.0", plain("conv_cat", joined), padding=1)
    shuffle = round((last.shape[1] / 3) ** 0.5)
    upscaled = functional.pixel_shuffle(last, shuffle)
    if base:
        upscaled = upscaled + functional.interpolate(x, scale_factor=shuffle / unshuffle, mode="nearest")
    return np.asarray(upscaled.float().numpy())


def run(model: Model, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The model in ONNX Runtime, its colours untouched: float32 [1, 3, H, W]."""
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input": image})[0])


def run_torch(model: Model, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The torch network from the weights in the model's file."""
    network = networks.load(model.metadata["network"]).build(model.state(), model.metadata)
    with torch.inference_mode():
        return np.asarray(network(torch.from_numpy(image)).numpy())


def imported(path: Path, folder: Path, **options: Any) -> Model:
    return models.load(str(import_checkpoint(path, "model", folder=folder / "models", **options)))


def assert_close(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """To a share of the largest value: attention makes steps of small differences."""
    assert found.shape == expected.shape
    assert abs(found - expected).max() < 2e-4 * abs(expected).max()


def refused(path: Path, folder: Path, says: str, **options: Any) -> None:
    """One line that begins with the file, and nothing left in the folder."""
    with pytest.raises(ModelError, match=says) as error:
        imported(path, folder, **options)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert not list((folder / "models").glob("*"))


@pytest.fixture
def image() -> NDArray[np.float32]:
    """float32 [1, 3, 9, 11] in 0..1."""
    return np.random.default_rng(0).random((1, 3, 9, 11), np.float32)


def _safetensors(state: State, path: Path) -> Path:
    path = path.with_suffix(".safetensors")
    safetensors_torch.save_file(state, path)
    return path


def _pickled(wrap: Callable[[State], Any], suffix: str = ".pth") -> Callable[[State, Path], Path]:
    def save(state: State, path: Path) -> Path:
        torch.save(wrap(state), path.with_suffix(suffix))
        return path.with_suffix(suffix)

    return save


def _legacy(state: State, path: Path) -> Path:
    """As torch wrote files until 1.6."""
    torch.save({"params": state}, path.with_suffix(".pth"), _use_new_zipfile_serialization=False)
    return path.with_suffix(".pth")


SAVED: dict[str, Callable[[State, Path], Path]] = {
    "safetensors": _safetensors,
    "params_ema": _pickled(
        lambda state: {"params": {key: value + 1 for key, value in state.items()}, "params_ema": state}
    ),
    "params": _pickled(lambda state: {"params": state, "params_ema": None}),
    "bare": _pickled(lambda state: state, ".pt"),
    "parallel": _pickled(
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}, ".ckpt"
    ),
    "legacy": _legacy,
}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without spandrel: what it knows is in `test_foreign`."""
    monkeypatch.setattr(checkpoint, "find_spec", lambda name: None)


# Round trips


@pytest.mark.parametrize("blocks", [2, 3, 6])
@pytest.mark.parametrize("save", SAVED.values(), ids=SAVED)
def test_round_trip(
    tmp_path: Path, image: NDArray[np.float32], save: Callable[[State, Path], Path], blocks: int
) -> None:
    """The fused model, in ONNX and in torch, computes what the training form does."""
    state = training_state(blocks=blocks)
    model = imported(save(state, tmp_path / "weights"), tmp_path)
    expected = unfused(state, image)
    assert_close(run(model, image), expected)
    assert_close(run_torch(model, image), expected)
    assert not any("sk." in key or "conv.0" in key for key in model.state())


@pytest.mark.parametrize(("scale", "unshuffle"), [(1, 2), (2, 2), (4, 2), (2, 3), (3, 4)])
@pytest.mark.parametrize("base", ["none", "nearest"])
def test_unshuffled(tmp_path: Path, scale: int, unshuffle: int, base: str) -> None:
    """A network at a fraction of the size, found by its shapes; sizes that it does not take are extended."""
    state = training_state(scale=scale, unshuffle=unshuffle)
    metadata = {"base": base, "img_range": "1", "rgb_mean": "0.1,0.2,0.3"}
    model = imported(_safetensors(state, tmp_path / "weights"), tmp_path, metadata=metadata)
    assert (model.scale, model.multiple, model.radius) == (scale, unshuffle, 10 * unshuffle - 1)
    assert model.metadata["radius"] == str(model.radius)
    assert (model.metadata["scale"], model.metadata["unshuffle"]) == (str(scale), str(unshuffle))
    image = np.random.default_rng(0).random((1, 3, 4 * unshuffle - 1, 5 * unshuffle - unshuffle // 2), np.float32)
    height, width = image.shape[2:]
    whole = np.pad(image, [(0, 0), (0, 0), (0, -height % unshuffle), (0, -width % unshuffle)], mode="edge")
    expected = unfused(state, whole, mean=(0.1, 0.2, 0.3), img_range=1, base=base == "nearest", unshuffle=unshuffle)
    assert_close(run(model, whole), expected)
    assert_close(run_torch(model, image), expected[:, :, : scale * height, : scale * width])


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [4, 26])
def test_metadata(tmp_path: Path, channels: int, scale: int) -> None:
    path = _safetensors(training_state(channels=channels, blocks=4, scale=scale), tmp_path / "weights")
    model = imported(path, tmp_path, license="CC0-1.0", metadata={"training": "none", "scale": "77", "guard": "no"})
    found = {key: model.metadata.pop(key) for key in ("guard", "stability")}
    assert found["guard"] in ("on", "off")
    assert "checkerboard" in [finding["name"] for finding in json.loads(found["stability"])]
    assert model.metadata == {
        "network": "span",
        "scale": str(scale),
        "channels": str(channels),
        "blocks": "4",
        "unshuffle": "1",
        "radius": "15",
        "base": "none",
        "img_range": "255.0",
        "rgb_mean": "0.4488,0.4371,0.404",
        "license": "CC0-1.0",
        "training": "none",
    }
    assert (model.scale, model.radius) == (scale, 15)


def test_base_and_normalisation(tmp_path: Path, image: NDArray[np.float32]) -> None:
    """As the checkpoint itself says."""
    state, mean = training_state(), (0.1, 0.2, 0.3)
    metadata = {"base": "nearest", "img_range": "2", "rgb_mean": "0.1,0.2,0.3", "license": "ours"}
    safetensors_torch.save_file(state, tmp_path / "weights.safetensors", metadata)
    model = imported(tmp_path / "weights.safetensors", tmp_path)
    assert model.metadata | metadata == model.metadata | {"img_range": "2"}
    expected = unfused(state, image, mean=mean, img_range=2.0, base=True)
    assert_close(run(model, image), expected)
    assert_close(run_torch(model, image), expected)


def test_no_norm(tmp_path: Path, image: NDArray[np.float32]) -> None:
    """Community trainers leave the normalisation out, and a key that says so."""
    state = training_state()
    model = imported(_pickled(lambda s: s | {"no_norm": torch.ones(1)})(state, tmp_path / "weights"), tmp_path)
    expected = unfused(state, image, mean=(0.0, 0.0, 0.0), img_range=1.0)
    assert_close(run(model, image), expected)
    assert_close(run_torch(model, image), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(tmp_path: Path, image: NDArray[np.float32], dtype: Any) -> None:
    state = {key: value.to(dtype) for key, value in training_state().items()}
    for path in (_safetensors(state, tmp_path / "weights"), _pickled(lambda s: s)(state, tmp_path / "weights")):
        assert_close(run(imported(path, tmp_path, overwrite=True), image), unfused(state, image))


def test_parameters(tmp_path: Path, image: NDArray[np.float32]) -> None:
    """`dict(network.named_parameters())` is saved by some instead of `state_dict()`."""
    state = training_state()
    save = _pickled(lambda s: {"params": {key: torch.nn.Parameter(value) for key, value in s.items()}})
    assert_close(run(imported(save(state, tmp_path / "weights"), tmp_path), image), unfused(state, image))


# Names and folders


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/tmp/a", "..\\a", "-o", ".hidden", "a b", "ä", "a\n"])
def test_unusable_name(tmp_path: Path, name: str) -> None:
    path = _safetensors(training_state(), tmp_path / "weights")
    with pytest.raises(UsageError, match="--name") as error:
        import_checkpoint(path, name, folder=tmp_path / "models")
    assert "letters, digits" in str(error.value)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a", "My_2x-Model.v1.5"])
def test_import_for_the_user(tmp_path: Path, name: str) -> None:
    """Lies where models are looked up by name."""
    path = import_checkpoint(_safetensors(training_state(), tmp_path / "weights"), name)
    assert path.parent == models.user_folder()
    assert models.load(name).path == path


@pytest.mark.parametrize("name", ["a.onnx", "a.pth"])
def test_name_that_is_taken_for_a_file(tmp_path: Path, name: str) -> None:
    """Refused, or of use afterwards."""
    path = _safetensors(training_state(), tmp_path / "weights")
    try:
        import_checkpoint(path, name)
    except UsageError:
        return
    assert models.load(name).scale == 2


def test_existing_name(tmp_path: Path) -> None:
    paths = [_safetensors(training_state(scale=scale), tmp_path / f"x{scale}") for scale in (2, 3)]
    before = imported(paths[0], tmp_path)
    with pytest.raises(OutputError, match="-y") as error:
        imported(paths[1], tmp_path)
    assert str(before.path) in str(error.value)
    assert models.load(str(before.path)).sha256 == before.sha256
    assert imported(paths[1], tmp_path, overwrite=True).scale == 3
    assert [path.name for path in before.path.parent.iterdir()] == ["model.onnx"]


# Refusals


@pytest.mark.parametrize(
    "key",
    [
        "conv_1.sk.bias",
        "conv_1.conv.0.weight",
        "block_1.c2_r.conv.1.weight",
        "block_2.c3_r.conv.2.bias",
        "conv_cat.bias",
        "upsampler.0.bias",
    ],
)
def test_missing_key(tmp_path: Path, key: str) -> None:
    state = training_state()
    del state[key]
    refused(_safetensors(state, tmp_path / "weights"), tmp_path, f"lacks {key}")


@pytest.mark.parametrize("key", ["conv_1.sk.weight", "block_2.c1_r.sk.weight", "conv_2.sk.weight"])
def test_missing_shortcut(tmp_path: Path, key: str) -> None:
    state = training_state()
    del state[key]
    refused(_safetensors(state, tmp_path / "weights"), tmp_path, f"lacks {key}")


def test_missing_first_convolution(tmp_path: Path) -> None:
    """A fused checkpoint, but for one key."""
    state = {key: value for key, value in training_state().items() if ".sk." not in key and ".conv." not in key}
    del state["conv_1.eval_conv.weight"]
    refused(_safetensors(state, tmp_path / "weights"), tmp_path, "lacks conv_1.eval_conv.weight")


@pytest.mark.parametrize(
    ("key", "shape", "says"),
    [
        ("upsampler.0.bias", (9,), "upsampler.0"),
        ("conv_cat.weight", (8, 32, 3, 3), "conv_cat"),
        ("block_1.c1_r.sk.weight", (9, 8, 1, 1), "block_1.c1_r"),
    ],
)
def test_misshapen_weights(tmp_path: Path, key: str, shape: tuple[int, ...], says: str) -> None:
    state = training_state() | {key: torch.zeros(shape)}
    refused(_safetensors(state, tmp_path / "weights"), tmp_path, says)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"upsampler.0.weight": torch.zeros(13, 8, 3, 3)}, "13 output channels are not 3 x scale x scale"),
        ({"upsampler.0.weight": torch.zeros(0, 8, 3, 3)}, "0 output channels"),
        (training_state(unshuffle=2) | {"upsampler.0.weight": torch.zeros(27, 8, 3, 3)}, r"27 .* \(scale x 2\)"),
        (
            {"conv_1.sk.weight": torch.zeros(8, 6, 1, 1), "conv_1.conv.0.weight": torch.zeros(6, 6, 1, 1)},
            "6 input channels are not 3 x unshuffle x unshuffle",
        ),
        ({"conv_cat.weight": torch.zeros(8, 24, 1, 1)}, "conv_cat"),
        ({"block_9.c1_r.eval_conv.weight": torch.zeros(8, 8, 3, 3)}, r"numbered \[1, 2, 9\]"),
    ],
    ids=["scale", "nothing", "scale and squares", "inputs", "features", "blocks"],
)
def test_shapes_that_contradict(tmp_path: Path, changes: State, says: str) -> None:
    refused(_safetensors(training_state() | changes, tmp_path / "weights"), tmp_path, says)


@pytest.mark.parametrize(
    "metadata",
    [
        {"base": "bicubic"},
        {"img_range": "wide"},
        {"rgb_mean": "0.5,0.5"},
    ],
    ids=str,
)
def test_metadata_that_means_nothing(tmp_path: Path, metadata: Mapping[str, str]) -> None:
    path = _safetensors(training_state(), tmp_path / "weights")
    refused(path, tmp_path, next(iter(metadata)), metadata=metadata)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "holds no weights"),
        ([1, 2], "holds a list"),
        (torch.zeros(3), "holds a Tensor"),
        ({"params": {"step": 7}}, "holds no weights"),
        ({"RDB1.conv1.weight": torch.zeros(3)}, r"holds RRDB \(ESRGAN\), which vidsr cannot import; it knows span"),
        ({"something": torch.zeros(3)}, "holds an unknown network"),
    ],
    ids=["empty", "list", "tensor", "no tensors", "esrgan", "unknown"],
)
def test_other_contents(tmp_path: Path, content: Any, says: str) -> None:
    torch.save(content, tmp_path / "weights.pth")
    refused(tmp_path / "weights.pth", tmp_path, says)


class _Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_is_not_run(tmp_path: Path, legacy: bool) -> None:
    path, sprung = tmp_path / "weights.pth", tmp_path / "sprung"
    content = {"params": training_state(), "trap": _Trap(sprung)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    refused(path, tmp_path, "wants to run code when loaded, or is damaged; refused")
    assert not sprung.exists()
    torch.load(path, weights_only=False)
    assert sprung.exists()  # it would have


@pytest.mark.parametrize("share", [0, 0.0002, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("save", [_safetensors, _pickled(lambda state: state)], ids=["safetensors", "pth"])
def test_truncated(tmp_path: Path, save: Callable[[State, Path], Path], share: float) -> None:
    path = save(training_state(), tmp_path / "weights")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refused(path, tmp_path, "not a readable")


@pytest.mark.parametrize("length", [0, 30000, 60000])
def test_truncated_legacy(tmp_path: Path, length: int) -> None:
    path = _legacy(training_state(), tmp_path / "weights")
    path.write_bytes(path.read_bytes()[:length])
    refused(path, tmp_path, "not a readable|damaged")


@pytest.mark.parametrize("length", [28, 49, 77])
def test_truncated_legacy_header(tmp_path: Path, length: int) -> None:
    test_truncated_legacy(tmp_path, length)


@pytest.mark.parametrize(
    "content", [b"hello\n" * 9, b"<!DOCTYPE html>\n", b"version https://git-lfs.github.com/spec/v1\n"]
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".ckpt"])
def test_text(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    refused(path, tmp_path, "not a readable|damaged")


@pytest.mark.parametrize(("name", "says"), [("missing.pth", "no such checkpoint"), ("notes.txt", "not a checkpoint")])
def test_no_checkpoint(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    refused(tmp_path / name, tmp_path, says)


# Weights as published


def test_golden(shared: Path, tmp_path: Path) -> None:
    """A training checkpoint with stale fused weights in it, and what the reference implementation computes."""
    golden = np.load(shared / "golden" / "span_x2_ch26_unfused.npz")
    path = shared / "golden" / "span_x2_ch26_unfused.pth"
    model = imported(path, tmp_path)
    assert (model.scale, model.radius, model.metadata["channels"]) == (2, 21, "26")
    assert_close(run(model, golden["x"]), golden["y"])
    assert_close(run_torch(model, golden["x"]), golden["y"])
    # The stored eval_conv would give another picture: the test can tell.
    stored, _ = read_checkpoint(path)
    with torch.inference_mode():
        stale = networks.load("span").build(stored, {})(torch.from_numpy(golden["x"])).numpy()
    assert abs(stale - golden["y"]).max() > 0.1 * abs(golden["y"]).max()


@pytest.mark.parametrize(
    ("name", "scale", "channels"),
    [
        ("spanx2_ch48.safetensors", 2, 48),
        ("spanx2_ch52.safetensors", 2, 52),
        ("spanx4_ch48.safetensors", 4, 48),
        ("spanx4_ch52.safetensors", 4, 52),
        ("team38_span_ch28_slim.pth", 4, 28),
        ("team39_spantiny_ch26_slim.pth", 4, 26),
        ("own/span_x2_ch48.safetensors", 2, 48),
    ],
)
def test_official_weights(shared: Path, tmp_path: Path, name: str, scale: int, channels: int) -> None:
    """Size as published, and an enlarged picture that is the small one when shrunk again."""
    model = imported(shared / "weights" / name, tmp_path)
    assert (model.scale, int(model.metadata["channels"])) == (scale, channels)
    assert model.metadata["base"] == ("nearest" if name.startswith("own/") else "none")
    rows, columns = np.mgrid[0:24, 0:32]
    image = np.stack([rows / 40, columns / 50, (rows + columns) / 80])[None].astype(np.float32) + 0.2
    large = run(model, image)
    assert_close(run_torch(model, image), large)
    shrunk = large.reshape(1, 3, 24, scale, 32, scale).mean(axis=(3, 5))
    assert abs(shrunk - image)[..., 2:-2, 2:-2].max() < 0.02


def test_span_f_is_refused_by_name(shared: Path, tmp_path: Path) -> None:
    refused(shared / "weights" / "team24_spanf.pth", tmp_path, "holds SPAN-F.*cannot import")
