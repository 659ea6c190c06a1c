"""Measures a model on pairs of small and large pictures, by the field's convention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidsr.errors import InputError
from vidsr.evaluate.metrics import WINDOW, psnr, ssim, y_of
from vidsr.media.picture import SUFFIXES, read_rgb
from vidsr.resample import bicubic

__all__ = ["Score", "evaluate", "pairs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Of one picture or the mean of many. psnr_y in dB and ssim_y, and the same for bicubic interpolation."""

    psnr_y: float
    ssim_y: float
    bicubic_psnr_y: float
    bicubic_ssim_y: float


def pairs(small: Path, large: Path) -> list[tuple[Path, Path]]:
    """Pictures of both folders that belong together: the large one's name begins the small one's. Raises InputError."""
    for folder in (small, large):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
    larges = {path.stem: path for path in sorted(large.iterdir()) if path.suffix.lower() in SUFFIXES}
    found = []
    for path in sorted(small.iterdir()):
        if path.suffix.lower() not in SUFFIXES:
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
        if min(height, width) < WINDOW + 2 * scale:
            raise InputError(
                f"{large_path} is too small to measure: without its border, {WINDOW}x{WINDOW} must be left"
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
