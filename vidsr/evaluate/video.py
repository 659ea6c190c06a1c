"""Measures a model on a clip: shrunk, encoded as videos are, decoded, enlarged, compared with what it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidsr.errors import InputError
from vidsr.evaluate.metrics import PSNR_OF_EQUALS, WINDOW, flicker, psnr, ssim, y_of
from vidsr.frame import FrameLayout
from vidsr.media.recode import recoded
from vidsr.media.source import SourceInfo, VideoReader, probe
from vidsr.resample import shrink

__all__ = ["RUN_FRAMES", "Footage", "Small", "VideoScore", "footage_of", "measure", "small_of"]

RUN_FRAMES = 8
"""Consecutive frames that are taken, and encoded, together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Footage:
    """runs: uint8 [T, H, W, 3] each, consecutive frames in full-range RGB. rate: frames a second."""

    runs: tuple[NDArray[Any], ...]
    rate: Fraction

    @property
    def frames(self) -> int:
        return sum(len(run) for run in self.runs)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        height, width = self.runs[0].shape[1:3]
        return height, width


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    """What a model gets of some footage. runs: as there, `scale` times smaller.

    kilobits_per_second: at the footage's own rate; None unencoded.
    """

    runs: tuple[NDArray[Any], ...]
    scale: int
    kilobits_per_second: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoScore:
    """Means over all frames. psnr_y in dB, of a frame at most 100; flicker in code values, None without two frames."""

    psnr_y: float
    ssim_y: float
    flicker: float | None


def footage_of(
    path: Path, *, frames: int, largest: tuple[int, int] | None = None, multiple: int = 1, start: Fraction | None = None
) -> Footage:
    """Runs of frames spread evenly over a clip, or one run from `start` seconds on; interlaced ones as whole pictures.

    largest: (height, width) that is kept of the middle at most, None for all; sides are cut to whole `multiple`s.
    Clips that are not twice as long, or do not say how long they are, give one run from their beginning. Raises
    InputError.
    """
    info = probe(path)
    layout = info.video.layout
    height, width = (
        min(length, most) // multiple * multiple
        for length, most in zip((layout.height, layout.width), largest or (layout.height, layout.width), strict=True)
    )
    if not height or not width:
        raise InputError(f"{path}: its pictures, {layout.width}x{layout.height}, are too small for that")
    top, left = (layout.height - height) // 2, (layout.width - width) // 2
    rate = info.video.rate or Fraction(25)
    spans = [(start, frames)] if start is not None else _spans(info, rate, frames)
    runs = [_read(info, begin, count) for begin, count in spans]
    if start is None and not any(len(run) for run in runs):
        # Matroska counts from 0, and recordings of long running programs do not begin there.
        runs = [_read(info, Fraction(0), frames)]
    runs = [run[:, top : top + height, left : left + width] for run in runs if len(run)]
    if not runs:
        raise InputError(f"{path}: no frames at {float(start or 0):g} s")
    return Footage(runs=tuple(runs), rate=rate)


def _spans(info: SourceInfo, rate: Fraction, frames: int) -> list[tuple[Fraction, int]]:
    """(start in seconds, number of frames) of each run."""
    seconds = info.video.duration_seconds or info.duration_seconds or Fraction(0)
    if seconds * rate < 2 * frames:
        return [(Fraction(0), frames)]
    count = -(-frames // RUN_FRAMES)
    lengths = [min(RUN_FRAMES, frames - RUN_FRAMES * index) for index in range(count)]
    return [
        (seconds * (2 * index + 1) / (2 * count) - length / rate / 2, length) for index, length in enumerate(lengths)
    ]


def _read(info: SourceInfo, start: Fraction, count: int) -> NDArray[Any]:
    """uint8 [T, H, W, 3]: up to `count` frames. FFmpeg makes RGB of them, by their own matrix and range."""
    given = info.video.layout
    layout = FrameLayout(family="rgb", bits=8, height=given.height, width=given.width, siting=given.siting)
    rgb = replace(info, video=replace(info.video, layout=layout))
    reader = VideoReader(rgb, start=start, deinterlace=info.video.deinterlace_for("auto"))
    pictures = np.empty((count, given.height, given.width, 3), np.uint8)
    try:
        for index in range(count):
            # The planes of RGB lie as green, blue, red.
            if reader.read([pictures[index, :, :, channel] for channel in (1, 2, 0)]) is None:
                return pictures[:index]
    finally:
        reader.close()
    return pictures


def small_of(footage: Footage, scale: int, codec: str | None, quality: float = 0) -> Small:
    """Shrinks by a cubic filter, in RGB, and encodes each run by itself; codec None only shrinks.

    The footage's sides are whole multiples of 2 * scale. Raises EncoderError.
    """
    runs = tuple(np.stack([shrink(picture, scale) for picture in run]) for run in footage.runs)
    if codec is None:
        return Small(runs=runs, scale=scale, kilobits_per_second=None)
    both = [recoded(run, codec, quality) for run in runs]
    bits = 8 * sum(count for _, count in both)
    rate = float(bits * footage.rate / footage.frames / 1000)
    return Small(runs=tuple(run for run, _ in both), scale=scale, kilobits_per_second=rate)


def measure(footage: Footage, small: Small, upscale: Callable[[NDArray[Any]], NDArray[Any]]) -> VideoScore:
    """Scores of the enlarged runs on luma (BT.601), a border of `scale` pixels left out.

    upscale: uint8 [H, W, 3] to `small.scale` times the size. Raises InputError if the pictures are too small.
    """
    border = small.scale
    if min(footage.size) < WINDOW + 2 * border:
        raise InputError(f"the pictures are too small to measure: without the border, {WINDOW}x{WINDOW} must be left")
    psnrs, ssims, flickers = [], [], []
    for run, little in zip(footage.runs, small.runs, strict=True):
        true = y_of(run)[:, border:-border, border:-border]
        shown = y_of(np.stack([upscale(picture) for picture in little]))[:, border:-border, border:-border]
        psnrs += [min(PSNR_OF_EQUALS, psnr(*pair)) for pair in zip(true, shown, strict=True)]
        ssims += [ssim(*pair) for pair in zip(true, shown, strict=True)]
        if len(run) > 1:
            flickers += [flicker(true, shown)] * (len(run) - 1)
    return VideoScore(
        psnr_y=float(np.mean(psnrs)),
        ssim_y=float(np.mean(ssims)),
        flicker=float(np.mean(flickers)) if flickers else None,
    )
