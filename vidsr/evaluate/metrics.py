"""How near one picture or video is to another. All on luma in code values, float64 [H, W]."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PSNR_OF_EQUALS", "WINDOW", "flicker", "psnr", "ssim", "y_of"]

WINDOW = 11
"""Height and width of what SSIM looks at; no smaller plane can be measured."""
PSNR_OF_EQUALS = 100.0
"""What an equal frame counts in a mean, in dB: black ones would make it infinite for every model."""


def y_of(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """BT.601 limited-range luma, not rounded: uint8 [..., 3] -> float64 [...] in 16..235, as MATLAB's rgb2ycbcr."""
    weights = np.array([65.481, 128.553, 24.966]) / 255.0
    luma: NDArray[np.float64] = 16.0 + rgb.astype(np.float64) @ weights
    return luma


def psnr(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """dB against a peak of 255; infinite for equal planes."""
    error = float(np.mean((first - second) ** 2))
    return float("inf") if error == 0 else 10.0 * float(np.log10(255.0**2 / error))


def ssim(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Structural similarity (Wang et al., 2004): 11x11 Gaussian window, sigma 1.5, valid area; planes of 0..255."""
    weights = np.exp(-(np.arange(-(WINDOW // 2), WINDOW // 2 + 1) ** 2) / (2 * 1.5**2))
    weights /= weights.sum()

    def blur(plane: NDArray[np.float64]) -> NDArray[np.float64]:
        height, width = (length - WINDOW + 1 for length in plane.shape)
        rows = sum(weight * plane[index : index + height] for index, weight in enumerate(weights))
        return np.asarray(sum(weight * rows[:, index : index + width] for index, weight in enumerate(weights)))

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean1, mean2 = blur(first), blur(second)
    var1, var2 = blur(first**2) - mean1**2, blur(second**2) - mean2**2
    covariance = blur(first * second) - mean1 * mean2
    quality = ((2 * mean1 * mean2 + c1) * (2 * covariance + c2)) / ((mean1**2 + mean2**2 + c1) * (var1 + var2 + c2))
    return float(quality.mean())


def flicker(true: NDArray[np.float64], shown: NDArray[np.float64]) -> float:
    """How much more or less than the truth a video changes from one frame to the next, in code values.

    float64 [T, H, W] with T > 1 -> mean |(shown[t+1] - shown[t]) - (true[t+1] - true[t])|. An error that stays where
    it is costs nothing, one that comes and goes does.
    """
    return float(np.mean(np.abs(np.diff(shown - true, axis=0))))
