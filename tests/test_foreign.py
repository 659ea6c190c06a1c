"""Networks that spandrel knows become models that compute the same, or are refused with a reason."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

import vidsr
from tests.conftest import make_clip
from vidsr import checkpoint, models
from vidsr.backends.openvino_engine import open_raw
from vidsr.checkpoint import import_checkpoint
from vidsr.cli.commands import import_model
from vidsr.errors import BackendError, ModelError

torch = pytest.importorskip("torch", reason="importing checkpoints needs torch")
safetensors_torch = pytest.importorskip("safetensors.torch")
pytestmark = [  # of networks that the tests build
    pytest.mark.filterwarnings("ignore:torch.meshgrid"),
    pytest.mark.filterwarnings("ignore:Initializing zero-element tensors"),
]

NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Compact": ("Compact", "Compact", {"num_feat": 12, "num_conv": 3, "upscale": 4}),
    "ESRGAN": ("ESRGAN", "ESRGAN", {"num_filters": 8, "num_blocks": 1, "scale": 4}),
    "ESRGAN unshuffled": (
        "ESRGAN", "ESRGAN", {"in_nc": 12, "num_filters": 8, "num_blocks": 1, "scale": 4, "shuffle_factor": 2},
    ),
    "PLKSR": ("PLKSR", "PLKSR", {"dim": 16, "n_blocks": 1, "upscaling_factor": 2}),
    "RealPLKSR": ("PLKSR", "RealPLKSR", {"dim": 16, "n_blocks": 1, "upscaling_factor": 4}),
    "RCAN": ("RCAN", "RCAN", {"scale": 2, "n_resgroups": 1, "n_resblocks": 1, "n_feats": 16, "reduction": 4}),
    "DnCNN": ("DnCNN", "DnCNN", {"in_nc": 3, "out_nc": 3, "nc": 12, "nb": 4}),
    "OmniSR": ("OmniSR", "OmniSR", {"num_feat": 16, "res_num": 1, "up_scale": 2}),
    "SwinIR": (
        "SwinIR",
        "SwinIR",
        {
            "img_size": 64, "embed_dim": 16, "depths": [2], "num_heads": [2], "window_size": 8, "mlp_ratio": 2,
            "upscale": 2, "upsampler": "pixelshuffledirect", "resi_connection": "1conv",
        },
    ),
    "DAT": (
        "DAT",
        "DAT",
        {
            "img_size": 64, "embed_dim": 32, "depth": [2], "num_heads": [2], "split_size": [8, 8],
            "expansion_factor": 2, "upscale": 2,
        },
    ),
    "HAT": (
        "HAT",
        "HAT",
        {
            "img_size": 64, "embed_dim": 24, "depths": (2,), "num_heads": (2,), "window_size": 8, "upscale": 4,
            "upsampler": "pixelshuffle", "resi_connection": "1conv", "compress_ratio": 3, "squeeze_factor": 8,
        },
    ),
}  # fmt: skip
"""Folder and class in spandrel, and its arguments, as small as they go."""
CONVOLUTIONAL = ("Compact", "ESRGAN", "DnCNN")

State = dict[str, Any]


@pytest.fixture(scope="module")
def spandrel() -> Iterator[Any]:
    """The package; three names that it takes from torchvision, for networks that vidsr refuses, are stood in for.

    torchvision has no build for processors alone where torch has one, and one for CUDA cannot be imported then.
    """
    if find_spec("spandrel") is None:
        pytest.skip("needs spandrel (pip install 'vidsr[spandrel]')")
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            module = ModuleType(name)
            module.__spec__ = ModuleSpec(name, None)
            patch.setitem(sys.modules, name, module)
        given = {"InterpolationMode": SimpleNamespace(BILINEAR=0), "rotate": None, "normalize": None}
        vars(sys.modules[names[-1]]).update(given)
        import spandrel
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small networks: more threads only wait for each other
    yield spandrel
    torch.set_num_threads(threads)


def built(spandrel: Any, label: str, **changes: Any) -> Any:
    """The torch module with random weights."""
    import importlib

    folder, name, arguments = NETWORKS[label]
    torch.manual_seed(0)
    package = importlib.import_module(f"{spandrel.__name__}.architectures.{folder}")
    return getattr(package, name)(**{**arguments, **changes}).eval()


def saved(network: Any, path: Path) -> Path:
    """.safetensors or .pth, as trainers write them."""
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    if path.suffix == ".safetensors":
        safetensors_torch.save_file(state, path, {"license": "CC0-1.0"})
    else:
        torch.save({"params_ema": state}, path)
    return path


def imported(path: Path, folder: Path, **options: Any) -> models.Model:
    return models.load(str(import_checkpoint(path, "model", folder=folder / "models", **options)))


def refused(path: Path, folder: Path, says: str, error: type[Exception] = ModelError) -> None:
    """One line, and nothing installed."""
    with pytest.raises(error, match=says) as found:
        imported(path, folder)
    assert "\n" not in str(found.value)
    assert not list(folder.glob("models/*"))


def picture(height: int, width: int) -> NDArray[np.float32]:
    """float32 [1, 3, H, W] in 0..1: a frame of a clip that lies with the project."""
    with av.open(str(Path(__file__).parents[1] / "samples" / "clip.mp4")) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    cut = np.ascontiguousarray(frame[20 : 20 + height, 30 : 30 + width].transpose(2, 0, 1))
    return cut[None].astype(np.float32) / np.float32(255)


@pytest.mark.parametrize("label", NETWORKS)
def test_computes_the_same(tmp_path: Path, spandrel: Any, label: str) -> None:
    """As spandrel does with the weights, at sizes of any kind; the ones here are not those of the check at import."""
    network = built(spandrel, label)
    suffix = ".safetensors" if label in CONVOLUTIONAL else ".pth"
    path = saved(network, tmp_path / f"weights{suffix}")
    model = imported(path, tmp_path)
    told = spandrel.ModelLoader().load_from_state_dict(network.state_dict())
    run = open_raw(model)
    for height, width in ((48, 64), (37, 53), (16, 99), (5, 3)):
        image = picture(height, width)
        height, width = (-(-length // model.multiple) * model.multiple for length in (height, width))
        image = np.pad(image, [(0, 0), (0, 0), (0, height - image.shape[2]), (0, width - image.shape[3])], mode="edge")
        expected = told(torch.tensor(image)).numpy()  # a copy: some change what they are given
        assert abs(run(image).clip(0, 1) - expected).max() < 1e-3
        assert ((expected > 0) & (expected < 1)).mean() > 0.1, "clipped away: nothing is compared"
    assert model.scale == told.scale
    assert model.metadata["network"] == f"spandrel {told.architecture.id}"
    assert model.metadata["architecture"] == told.architecture.name
    assert model.metadata["parameters"] == str(sum(value.numel() for value in network.parameters()))
    assert model.metadata["source_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.metadata["exact"].endswith("of torch")
    assert model.metadata["guard"] in ("on", "off")
    assert json.loads(model.metadata["stability"])
    assert model.metadata.get("license", "") == ("CC0-1.0" if suffix == ".safetensors" else "")
    assert (model.radius is not None) == (label in CONVOLUTIONAL)


@pytest.mark.parametrize("label", ["Compact", "ESRGAN"])
def test_reach(tmp_path: Path, spandrel: Any, label: str) -> None:
    """What tiles rest on: what lies further away than the radius that is read from the graph changes nothing."""
    model = imported(saved(built(spandrel, label), tmp_path / "weights.pth"), tmp_path)
    radius, run = model.radius, open_raw(model)
    assert radius is not None and radius < 40
    image = picture(100, 100)
    changed = image.copy()
    changed[..., 50, 50] = 1 - changed[..., 50, 50]
    rows, columns = np.nonzero(abs(run(changed) - run(image)).max(axis=(0, 1)) > 1e-7)
    assert rows.size
    near = (50 - radius) * model.scale, (51 + radius) * model.scale
    assert min(rows.min(), columns.min()) >= near[0] and max(rows.max(), columns.max()) < near[1]


@pytest.mark.parametrize("label", ["ESRGAN", "SwinIR"])
def test_video(tmp_path: Path, spandrel: Any, label: str) -> None:
    """Through the whole pipeline: every frame, at its time."""
    path = import_checkpoint(saved(built(spandrel, label), tmp_path / "weights.pth"), "other")
    clip = make_clip(tmp_path / "in.mp4", frames=3, width=38, height=26)
    vidsr.upscale(clip, tmp_path / "out.mp4", model="other", backend="openvino", precision="fp32")
    with av.open(str(clip)) as before, av.open(str(tmp_path / "out.mp4")) as after:
        given, made = (list(opened.decode(video=0)) for opened in (before, after))
    scale = models.load(str(path)).scale
    assert [(frame.width, frame.height, frame.time) for frame in made] == [
        (38 * scale, 26 * scale, frame.time) for frame in given
    ]


def test_picture(tmp_path: Path, spandrel: Any) -> None:
    network = built(spandrel, "Compact")
    import_checkpoint(saved(network, tmp_path / "weights.pth"), "other")
    image = picture(30, 41)
    given = np.ascontiguousarray(np.rint(255 * image[0].transpose(1, 2, 0))).astype(np.uint8)
    made = vidsr.Upscaler("other", backend="openvino", precision="fp32")(given)
    told = spandrel.ModelLoader().load_from_state_dict(network.state_dict())
    expected = 255 * told(torch.from_numpy(image)).numpy()[0].transpose(1, 2, 0)
    assert abs(made - expected).max() < 0.51


def test_says_what_it_found(tmp_path: Path, spandrel: Any) -> None:
    path = saved(built(spandrel, "Compact"), tmp_path / "weights.pth")
    said = CliRunner().invoke(import_model, [str(path), "--name", "other"], catch_exceptions=False).output.splitlines()
    assert said[0].startswith("network: RealESRGAN Compact, x4, ") and said[0].endswith(" parameters, 12nf 3nc")
    assert said[1] == "licence of the weights: not stated"
    assert said[2].startswith("speed: about ") and "times span's (an estimate" in said[2]
    assert said[3].startswith("checked: within ")
    said = CliRunner().invoke(import_model, [str(path), "--name", "again", "--license", "MIT"]).output.splitlines()
    assert said[1] == "licence of the weights: MIT"


# Refusals


def test_not_in_colour(tmp_path: Path, spandrel: Any) -> None:
    path = saved(built(spandrel, "Compact", num_in_ch=1, num_out_ch=1), tmp_path / "weights.pth")
    refused(path, tmp_path, "holds RealESRGAN Compact for 1 channels in and 1 out; vidsr needs RGB")


@pytest.mark.parametrize(("purpose", "says"), [("FaceSR", "restores faces"), ("Inpainting", "fills holes")])
def test_other_purposes(spandrel: Any, purpose: str, says: str) -> None:
    from vidsr.foreign import Foreign

    told = SimpleNamespace(
        purpose=purpose, architecture=SimpleNamespace(name="Some"), input_channels=3, output_channels=3
    )
    with pytest.raises(ModelError, match=f"holds Some, which {says}"):
        Foreign(descriptor=told).exported("model")


def test_export_fixed_to_a_size(tmp_path: Path, spandrel: Any) -> None:
    """DySample counts its pixels in Python, which a traced graph takes for constants."""
    path = saved(built(spandrel, "RealPLKSR", dysample=True), tmp_path / "weights.pth")
    refused(path, tmp_path, "graph of PLKSR differs from the network by .* cannot be exported for all sizes")


def test_export_that_is_wrong(tmp_path: Path, spandrel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One weight of many is another."""
    export: Callable[..., Any] = torch.onnx.export

    def spoiled(module: Any, *arguments: Any, **options: Any) -> Any:
        parameter = next(iter(module.parameters()))
        with torch.no_grad():
            parameter.view(-1)[0] += 0.05
            result = export(module, *arguments, **options)
            parameter.view(-1)[0] -= 0.05
        return result

    monkeypatch.setattr(torch.onnx, "export", spoiled)
    refused(saved(built(spandrel, "Compact"), tmp_path / "weights.pth"), tmp_path, "differs from the network by")


def test_export_that_fails(
    tmp_path: Path, spandrel: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*arguments: Any, **options: Any) -> None:
        print("a graph of a thousand lines")
        raise RuntimeError("no such operator\nand much more")

    monkeypatch.setattr(torch.onnx, "export", failing)
    says = r"holds RealESRGAN Compact, which cannot be made an ONNX graph \(no such operator\)"
    refused(saved(built(spandrel, "Compact"), tmp_path / "weights.pth"), tmp_path, says)
    assert not capsys.readouterr().out


def test_export_that_does_not_run(tmp_path: Path, spandrel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vidsr import foreign

    def failing(model: models.Model) -> None:
        raise BackendError("OpenVINO cannot run it")

    monkeypatch.setattr(foreign, "open_raw", failing)
    path = saved(built(spandrel, "Compact"), tmp_path / "weights.pth")
    refused(path, tmp_path, "the graph of RealESRGAN Compact does not run .OpenVINO cannot run it.")


def test_weights_that_do_not_fit(tmp_path: Path, spandrel: Any) -> None:
    network = built(spandrel, "Compact")
    state = network.state_dict() | {"body.2.weight": torch.zeros(5, 5, 3, 3)}
    torch.save(state, tmp_path / "weights.pth")
    refused(tmp_path / "weights.pth", tmp_path, "spandrel cannot build the network that it takes these weights for")


def test_unknown_to_all(tmp_path: Path, spandrel: Any) -> None:
    torch.save({"something": torch.zeros(3)}, tmp_path / "weights.pth")
    refused(tmp_path / "weights.pth", tmp_path, "holds an unknown network, .* cannot import; .* what spandrel knows")


class _Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_is_not_run(tmp_path: Path, spandrel: Any) -> None:
    """Also beside weights that spandrel would take."""
    path, sprung = tmp_path / "weights.pth", tmp_path / "sprung"
    torch.save({"params": built(spandrel, "Compact").state_dict(), "trap": _Trap(sprung)}, path)
    refused(path, tmp_path, "wants to run code when loaded, or is damaged; refused")
    assert not sprung.exists()
    torch.load(path, weights_only=False)
    assert sprung.exists()  # it would have


# Without spandrel


def test_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "find_spec", lambda name: None)
    torch.save({"RDB1.conv1.weight": torch.zeros(3)}, tmp_path / "weights.pth")
    says = r"holds RRDB \(ESRGAN\), .* \(more with pip install 'vidsr\[spandrel\]'\)"
    refused(tmp_path / "weights.pth", tmp_path, says)


def test_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is where torchvision was built for another torch."""
    monkeypatch.setattr(checkpoint, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setitem(sys.modules, "spandrel", None)
    torch.save({"RDB1.conv1.weight": torch.zeros(3)}, tmp_path / "weights.pth")
    says = "spandrel is installed but cannot be imported .* torchvision from the same place"
    refused(tmp_path / "weights.pth", tmp_path, says, BackendError)
