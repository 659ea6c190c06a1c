"""Measures a model on pairs of small and large pictures, by the field's convention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidsr.errors import InputError
from vidsr.filters import upsample_taps
from vidsr.media.picture import read_rgb

__all__ = ["Score", "bicubic", "evaluate", "pairs", "psnr", "ssim", "y_of"]

_WINDOW = 11
_SUFFIXES = {".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Of one picture or the mean of many. psnr_y in dB and ssim_y, and the same for bicubic interpolation."""

    psnr_y: float
    ssim_y: float
    bicubic_psnr_y: float
    bicubic_ssim_y: float


def y_of(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """BT.601 limited-range luma, not rounded: uint8 [H, W, 3] -> float64 [H, W] in 16..235, as MATLAB's rgb2ycbcr."""
    weights = np.array([65.481, 128.553, 24.966]) / 255.0
    luma: NDArray[np.float64] = 16.0 + rgb.astype(np.float64) @ weights
    return luma


def psnr(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """dB against a peak of 255; infinite for equal planes."""
    error = float(np.mean((first - second) ** 2))
    return float("inf") if error == 0 else 10.0 * float(np.log10(255.0**2 / error))


def ssim(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Structural similarity (Wang et al., 2004): 11x11 Gaussian window, sigma 1.5, valid area; planes of 0..255."""
    weights = np.exp(-(np.arange(-(_WINDOW // 2), _WINDOW // 2 + 1) ** 2) / (2 * 1.5**2))
    weights /= weights.sum()

    def blur(plane: NDArray[np.float64]) -> NDArray[np.float64]:
        for axis in (0, 1):
            windows = np.lib.stride_tricks.sliding_window_view(plane, _WINDOW, axis=axis)
            plane = windows @ weights
        return plane

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean1, mean2 = blur(first), blur(second)
    var1, var2 = blur(first**2) - mean1**2, blur(second**2) - mean2**2
    covariance = blur(first * second) - mean1 * mean2
    quality = ((2 * mean1 * mean2 + c1) * (2 * covariance + c2)) / ((mean1**2 + mean2**2 + c1) * (var1 + var2 + c2))
    return float(quality.mean())


def bicubic(image: NDArray[Any], scale: int) -> NDArray[Any]:
    """Keys cubic interpolation (a = -0.5): uint8 [H, W, 3] -> uint8 [scale*H, scale*W, 3]."""
    taps, first = upsample_taps(scale, (scale - 1) / 2)
    value = image.astype(np.float64)
    for axis in (0, 1):
        length = value.shape[axis]
        result = np.zeros(())
        for index in range(taps.shape[1]):
            source = np.clip(np.arange(length) + first + index, 0, length - 1)
            phase = taps[:, index].reshape((1, scale, 1, 1) if axis == 0 else (1, 1, scale, 1))
            result = result + np.expand_dims(np.take(value, source, axis=axis), axis + 1) * phase
        shape = list(value.shape)
        shape[axis] *= scale
        value = result.reshape(shape)
    return np.clip(np.rint(value), 0, 255).astype(np.uint8)


def pairs(small: Path, large: Path) -> list[tuple[Path, Path]]:
    """Pictures of both folders that belong together: the large one's name begins the small one's. Raises InputError."""
    for folder in (small, large):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
    larges = {path.stem: path for path in sorted(large.iterdir()) if path.suffix.lower() in _SUFFIXES}
    found = []
    for path in sorted(small.iterdir()):
        if path.suffix.lower() not in _SUFFIXES:
            continue
        # "baby.png" and "babyx2.png" are both usual for the small picture.
        names = [stem for stem in larges if path.stem == stem or path.stem.startswith((f"{stem}x", f"{stem}_"))]
        if not names:
            raise InputError(f"{path}: no picture of that name in {large}")
        found.append((path, larges[max(names, key=len)]))
    if not found:
        raise InputError(f"{small}: no pictures in it")
    return found


def evaluate(
    upscale: Callable[[NDArray[Any]], NDArray[Any]],
    scale: int,
    small: Path,
    large: Path,
    *,
    on_picture: Callable[[str, Score], None] = lambda name, score: None,
) -> Score:
    """Mean scores over all pairs; `upscale` takes uint8 [H, W, 3] to `scale` times the size.

    The large picture is cut at the bottom and right to the size of the enlarged one; a border of `scale` pixels is
    left out. Raises InputError for pictures whose sizes do not belong together.
    """
    scores = []
    for small_path, large_path in pairs(small, large):
        image, truth = read_rgb(small_path), read_rgb(large_path)
        height, width = image.shape[0] * scale, image.shape[1] * scale
        if not (height <= truth.shape[0] < height + scale and width <= truth.shape[1] < width + scale):
            raise InputError(
                f"{small_path} is {image.shape[1]}x{image.shape[0]}, which x{scale} does not make "
                f"{large_path}'s {truth.shape[1]}x{truth.shape[0]}"
            )
        if min(height, width) < _WINDOW + 2 * scale:
            raise InputError(
                f"{large_path} is too small to measure: without its border, {_WINDOW}x{_WINDOW} must be left"
            )
        planes = [
            y_of(picture[:height, :width])[scale:-scale, scale:-scale]
            for picture in (truth, upscale(image), bicubic(image, scale))
        ]
        score = Score(
            psnr_y=psnr(planes[0], planes[1]),
            ssim_y=ssim(planes[0], planes[1]),
            bicubic_psnr_y=psnr(planes[0], planes[2]),
            bicubic_ssim_y=ssim(planes[0], planes[2]),
        )
        on_picture(small_path.stem, score)
        scores.append(score)
    return Score(**{field: float(np.mean([getattr(s, field) for s in scores])) for field in Score.__slots__})
