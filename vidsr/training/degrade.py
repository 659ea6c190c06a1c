"""What happens to pictures before they are encoded: shrinking, softening, sharpening, noise, interlacing. numpy only.

Clips are uint8 [F, H, W, 3] RGB; sizes are in pixels, strengths in code values of 0..255.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vidsr.resample import KERNELS, Matrix, resize_matrix

__all__ = [
    "CLEAN",
    "Clip",
    "Degradation",
    "Planar",
    "clip_from_planar",
    "degrade",
    "draw",
    "interlaced",
    "planar_from_clip",
    "softened",
]

Clip = NDArray[np.uint8]
"""[F, H, W, 3]"""
Planar = NDArray[np.float32]
"""[F, 3, H, W], not rounded."""


@cache
def _gaussian_matrix(length: int, sigma: float) -> Matrix:
    """Rows sum to 1: blurs a line of pixels."""
    places = np.arange(length)
    matrix = np.exp(-0.5 * ((places[:, None] - places) / sigma) ** 2)
    result: Matrix = matrix / matrix.sum(axis=1, keepdims=True)
    return result


def planar_from_clip(clip: Clip) -> Planar:
    """A copy."""
    return np.ascontiguousarray(clip.transpose(0, 3, 1, 2), np.float32)


def clip_from_planar(planar: Planar) -> Clip:
    """Rounded and clipped to 8 bits."""
    return np.ascontiguousarray(_codes(planar).astype(np.uint8).transpose(0, 2, 3, 1))


def _codes(planar: Planar) -> Planar:
    """What 8 bits keep of it."""
    rounded: Planar = np.clip(np.floor(planar + np.float32(0.5)), 0, 255)
    return rounded


def _rows(matrix: Matrix, planar: Planar) -> Planar:
    result: Planar = matrix.astype(np.float32) @ planar
    return result


def _columns(matrix: Matrix, planar: Planar) -> Planar:
    result: Planar = planar @ matrix.T.astype(np.float32)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Degradation:
    """One way to a small picture. Sigmas are in pixels of the small picture, 0 for none.

    noise: standard deviation everywhere. shot_noise: variance per code value of brightness, as light itself has.
    gray_noise: the same for all three channels, as after a camera's colour noise filter.
    """

    kernel: str = "bicubic"
    soft_sigma: float = 0.0
    sharpen: float = 0.0
    sharpen_sigma: float = 1.0
    noise: float = 0.0
    shot_noise: float = 0.0
    gray_noise: bool = False


CLEAN = Degradation()
"""MATLAB's bicubic and nothing else, as the standard test sets are made."""


def draw(rng: np.random.Generator) -> Degradation:
    """As files on people's disks come about: mostly a common kernel, some of them soft, sharpened or noisy."""
    soft, sharp, noisy, shot = rng.random(4) < (0.25, 0.15, 0.2, 0.15)
    return Degradation(
        kernel=str(rng.choice(list(KERNELS), p=[0.35, 0.2, 0.15, 0.1, 0.2])),
        # In steps, so that few matrices are ever made.
        soft_sigma=float(rng.choice([0.25, 0.35, 0.45, 0.55])) if soft else 0.0,
        sharpen=float(rng.uniform(0.2, 0.8)) if sharp else 0.0,
        sharpen_sigma=float(rng.choice([0.7, 1.0, 1.4])),
        noise=float(rng.uniform(0.5, 4.0)) if noisy else 0.0,
        shot_noise=float(rng.uniform(0.01, 0.1)) if shot else 0.0,
        gray_noise=bool(rng.random() < 0.5),
    )


def degrade(clip: Clip, scale: int, how: Degradation, rng: np.random.Generator) -> Clip:
    """uint8 [F, H, W, 3] -> uint8 [F, H/scale, W/scale, 3]; noise differs from frame to frame."""
    lines = []
    for length in clip.shape[1:3]:
        line = resize_matrix(length, length // scale, how.kernel)
        lines.append(line @ _gaussian_matrix(length, how.soft_sigma * scale) if how.soft_sigma else line)
    # A still shot is one picture seen many times (`np.broadcast_to`): it is shrunk once.
    still = clip.strides[0] == 0
    # MATLAB's imresize, which the test sets come from, rounds to 8 bits between the directions.
    small = _columns(lines[1], _codes(_rows(lines[0], planar_from_clip(clip[:1] if still else clip))))
    if how.sharpen:
        rows, columns = (_gaussian_matrix(length, how.sharpen_sigma) for length in small.shape[2:])
        small = small + np.float32(how.sharpen) * (small - _columns(columns, _rows(rows, small)))
    if how.noise or how.shot_noise:
        channels = 1 if how.gray_noise else 3
        grain = rng.standard_normal((len(clip), channels, *small.shape[2:]), np.float32)
        deviation: Planar = np.sqrt(how.noise**2 + how.shot_noise * np.maximum(small, 0), dtype=np.float32)
        small = small + deviation * grain
    rounded = clip_from_planar(small)
    return np.broadcast_to(rounded, (len(clip), *rounded.shape[1:]))


def softened(clip: Clip, rng: np.random.Generator) -> Clip:
    """A third of the clips lose detail, as much footage has less of it than its size promises: it was enlarged before,
    or out of focus. A model that never saw such truth draws edges where there are none."""
    if rng.random() > 1 / 3:
        return clip
    sigma = float(rng.choice([0.7, 0.9, 1.2, 1.6, 2.2]))
    rows, columns = (_gaussian_matrix(length, sigma) for length in clip.shape[1:3])
    still = clip.strides[0] == 0
    soft = clip_from_planar(_columns(columns, _rows(rows, planar_from_clip(clip[:1] if still else clip))))
    return np.broadcast_to(soft, clip.shape)


def interlaced(first: Clip, second: Clip, *, blended: bool) -> Clip:
    """What is left of two fields in a progressive file: their lines in turn, or both mixed as bad deinterlacers do."""
    if blended:
        return ((first.astype(np.uint16) + second + 1) // 2).astype(np.uint8)
    woven = np.array(first)
    woven[:, 1::2] = second[:, 1::2]
    return woven
