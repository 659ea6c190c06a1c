"""The measures on pictures whose values are known, and published figures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from vidsr import backends
from vidsr.api import Upscaler
from vidsr.checkpoint import import_checkpoint
from vidsr.errors import BackendError, InputError
from vidsr.evaluate import Score, bicubic, evaluate, pairs, psnr, ssim, y_of

Picture = NDArray[Any]
"""uint8 [H, W, 3]"""


def save(path: Path, picture: Picture) -> Path:
    """Writes a PNG file."""
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    context: Any = av.CodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt, context.time_base = frame.width, frame.height, "rgb24", 1
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(bytes(packet) for part in (frame, None) for packet in context.encode(part)))
    return path


def noise(height: int, width: int, seed: int = 0) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def plane(height: int, width: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(0, 255, (height, width))


# Measures


@pytest.mark.parametrize(
    ("colour", "luma"),
    [
        ((0, 0, 0), 16.0),
        ((255, 255, 255), 235.0),
        ((255, 0, 0), 81.481),
        ((0, 255, 0), 144.553),
        ((0, 0, 255), 40.966),
        ((128, 128, 128), 16 + 219 * 128 / 255),
    ],
)
def test_luma(colour: tuple[int, int, int], luma: float) -> None:
    """MATLAB's rgb2ycbcr, before it rounds."""
    found = y_of(np.full((2, 3, 3), colour, np.uint8))
    assert found.shape == (2, 3)
    np.testing.assert_allclose(found, luma, atol=1e-9)


@pytest.mark.parametrize("offset", [1, -5, 255])
def test_psnr_of_an_offset(offset: float) -> None:
    first = plane(12, 13)
    assert psnr(first, first + offset) == pytest.approx(20 * math.log10(255 / abs(offset)))


def test_equal_planes() -> None:
    assert psnr(plane(12, 13), plane(12, 13)) == math.inf
    assert ssim(plane(12, 13), plane(12, 13)) == pytest.approx(1)


@pytest.mark.parametrize(("first", "second"), [(100, 110), (0, 255), (30, 30)])
def test_ssim_of_flat_planes(first: float, second: float) -> None:
    """Only the means differ."""
    c1 = (0.01 * 255) ** 2
    expected = (2 * first * second + c1) / (first**2 + second**2 + c1)
    assert ssim(np.full((11, 14), float(first)), np.full((11, 14), float(second))) == pytest.approx(expected)


def test_ssim_by_definition() -> None:
    """Window by window, as the paper has it."""
    first, second = plane(14, 12), plane(14, 12, seed=1) / 2 + plane(14, 12) / 2
    distance = np.hypot(*np.mgrid[-5:6, -5:6])
    weights = np.exp(-(distance**2) / (2 * 1.5**2))
    weights /= weights.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = []
    for top in range(4):
        for left in range(2):
            a, b = (side[top : top + 11, left : left + 11] for side in (first, second))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            both = (weights * (a - mean_a) * (b - mean_b)).sum()
            structure = (2 * both + c2) / (var_a + var_b + c2)
            found.append((2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1) * structure)
    assert ssim(first, second) == pytest.approx(np.mean(found))


# Bicubic


def keys(x: float) -> float:
    x = abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return near if x < 1 else far if x < 2 else 0.0


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_bicubic_by_definition(scale: int) -> None:
    """Sample by sample: both pictures' corners meet, and the edges repeat."""
    small = noise(5, 7)

    def matrix(length: int) -> NDArray[np.float64]:
        rows = np.zeros((length * scale, length))
        for row in range(length * scale):
            centre = (row + 0.5) / scale - 0.5
            for sample in range(math.floor(centre) - 2, math.floor(centre) + 4):
                rows[row, min(max(sample, 0), length - 1)] += keys(sample - centre)
        return rows

    exact = np.einsum("ay,bx,yxc->abc", matrix(5), matrix(7), small.astype(np.float64))
    found = bicubic(small, scale)
    assert (found.dtype, found.shape) == (np.uint8, (5 * scale, 7 * scale, 3))
    assert abs(found - np.clip(exact, 0, 255)).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_of_a_ramp(scale: int) -> None:
    """A slope stays one, but for the two samples at the edge."""
    ramp = np.broadcast_to(np.arange(20, dtype=np.uint8)[None, :, None] * 12, (4, 20, 3))
    expected = np.rint(((np.arange(20 * scale) + 0.5) / scale - 0.5) * 12)
    found = bicubic(ramp, scale).astype(int)[:, 2 * scale : -2 * scale]
    assert abs(found - expected[None, 2 * scale : -2 * scale, None]).max() <= (
        1 if scale == 4 else 0
    )  # halves round to even


# Pairs of pictures


def test_pairs(tmp_path: Path) -> None:
    """By name, with the endings that test sets use; the longest name wins, other files do not matter."""
    names = {
        "baby": "baby.png",
        "bird": "birdx2.png",
        "img_1": "img_1_LR.PNG",
        "img_10": "img_10.bmp",
        "img": "imgx4.png",
    }
    for folder, files in (("large", [f"{name}.png" for name in names]), ("small", names.values())):
        for name in (*files, "notes.txt", ".hidden"):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / name).touch()
    (tmp_path / "large" / "more.png").touch()
    found = pairs(tmp_path / "small", tmp_path / "large")
    assert {large.stem: small.name for small, large in found} == names
    assert found == sorted(found)


def test_pairs_that_lack_something(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    for says in ("small: no such folder", "large: no such folder"):
        with pytest.raises(InputError, match=says):
            pairs(small, large)
        (small if "small" in says else large).mkdir()
    with pytest.raises(InputError, match="small: no pictures"):
        pairs(small, large)
    (small / "img_1.png").touch()
    (large / "img_10.png").touch()
    with pytest.raises(InputError, match=r"img_1\.png: no picture of that name in .*large"):
        pairs(small, large)


# The whole measurement


def test_evaluate(tmp_path: Path) -> None:
    """Means over all pictures, on luma, without a border; what the model gives against what bicubic gives."""
    kept = {}
    for index, (height, width) in enumerate([(18, 20), (16, 30)]):
        small = noise(height, width, index)
        # One line and one column more than the small picture makes, and a border that is all wrong.
        large = np.pad(bicubic(small, 2), ((0, 1), (0, 1), (0, 0)))
        large[:2] = large[:, :2] = large[2 * height - 2 :] = large[:, 2 * width - 2 :] = 0
        kept[small.shape] = np.clip(large[: 2 * height, : 2 * width].astype(int) + index + 1, 0, 255).astype(np.uint8)
        save(tmp_path / "small" / f"img{index}x2.png", small)
        save(tmp_path / "large" / f"img{index}.png", large)
    seen: dict[str, Score] = {}

    def upscale(image: Picture) -> Picture:
        return kept[image.shape]

    mean = evaluate(upscale, 2, tmp_path / "small", tmp_path / "large", on_picture=seen.__setitem__)
    assert list(seen) == ["img0x2", "img1x2"]
    assert mean.bicubic_psnr_y == math.inf
    assert mean.bicubic_ssim_y == pytest.approx(1)
    scores = list(seen.values())
    assert scores[0].psnr_y > scores[1].psnr_y
    # The models' errors are offsets of 1 and 2 in RGB, save where 255 stops them.
    for score, offset in zip(scores, (1, 2), strict=True):
        assert score.psnr_y == pytest.approx(20 * math.log10(255 / (offset * 219 / 255)), abs=0.3)
    for field in Score.__slots__:
        assert getattr(mean, field) == pytest.approx(np.mean([getattr(score, field) for score in scores]))


@pytest.mark.parametrize("size", [(39, 60), (40, 59), (42, 60), (40, 62), (20, 30)])
def test_sizes_that_do_not_belong_together(tmp_path: Path, size: tuple[int, int]) -> None:
    save(tmp_path / "small" / "a.png", noise(20, 30))
    save(tmp_path / "large" / "a.png", noise(*size))
    with pytest.raises(InputError, match=rf"30x20.* x2 .*{size[1]}x{size[0]}") as error:
        evaluate(lambda image: bicubic(image, 2), 2, tmp_path / "small", tmp_path / "large")
    assert "\n" not in str(error.value)


def test_picture_that_is_none(tmp_path: Path) -> None:
    for folder in ("small", "large"):
        save(tmp_path / folder / "a.png", noise(20, 30)).write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"a\.png"):
        evaluate(lambda image: image, 1, tmp_path / "small", tmp_path / "large")


def test_picture_too_small_to_measure(tmp_path: Path) -> None:
    save(tmp_path / "small" / "a.png", noise(6, 8))
    save(tmp_path / "large" / "a.png", noise(12, 16))
    with pytest.raises(InputError, match=r"a\.png"):
        evaluate(lambda image: bicubic(image, 2), 2, tmp_path / "small", tmp_path / "large")


# Published figures


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_set5(shared: Path, tmp_path: Path, backend: str) -> None:
    """The official model reaches what its authors state, in FP32; bicubic what everybody states."""
    try:
        backends.load(backend)
    except BackendError as error:
        pytest.skip(str(error))
    path = import_checkpoint(shared / "weights" / "spanx2_ch48.safetensors", "official", folder=tmp_path)
    folder = shared / "testsets" / "Set5"
    with Upscaler(str(path), backend=backend, precision="fp32") as upscaler:
        score = evaluate(upscaler, 2, folder / "LRbicx2", folder / "HR")
    assert score.psnr_y >= 38.05
    assert score.ssim_y == pytest.approx(0.961, abs=0.001)
    assert score.bicubic_psnr_y == pytest.approx(33.67, abs=0.05)
    assert score.bicubic_ssim_y == pytest.approx(0.930, abs=0.001)
