"""The size of the output and the shape of its pixels."""

from __future__ import annotations

import re
from fractions import Fraction

from vidsr.errors import UsageError
from vidsr.media.info import VideoInfo
from vidsr.models import MOST_FACTOR

__all__ = ["NAMED_SIZES", "target_geometry", "wanted_factor"]

NAMED_SIZES = {
    "480p": (854, 480), "576p": (1024, 576), "720p": (1280, 720), "1080p": (1920, 1080), "1440p": (2560, 1440),
    "2160p": (3840, 2160), "4k": (3840, 2160), "4320p": (7680, 4320), "8k": (7680, 4320),
}  # fmt: skip
"""Boxes (width, height) that the picture as it is shown fits into; turned for upright pictures."""

_SAME_SHAPE = Fraction(1, 100)
_PERCENT = re.compile(r"(\d{1,5}(?:\.\d{1,6})?)\s*%")


def wanted_factor(video: VideoInfo, *, scale: Fraction | None, size: str | None) -> Fraction | None:
    """How many times as large the picture is to become, the larger of both ways; None for the model's own factor.

    scale, size: as for `target_geometry`. Raises UsageError, also for more than models are chained for.
    """
    if scale is None and size is None:
        return None
    height, width = _wanted(video, scale, size)
    factor = max(height / video.layout.height, width / video.layout.width)
    if factor > MOST_FACTOR:
        option = f"--scale {float(scale):g}" if scale is not None else f"--size {size}"
        raise UsageError(
            f"{option}: that is {float(factor):g} times as large as the input; the most is {MOST_FACTOR} times"
        )
    return factor


def target_geometry(
    video: VideoInfo, *, scale: Fraction | None, size: str | None, model_scale: int, even: tuple[int, int]
) -> tuple[int, int, Fraction | None]:
    """(height, width, sample aspect ratio) of the output, which is shown in the shape of the input.

    scale, size: as the user gave them, at most one; neither means the model's own. even: what height and width must
    be multiples of, the output's chroma subsampling. Raises UsageError.
    """
    layout, ratio = video.layout, video.sample_aspect_ratio
    own = Fraction(model_scale) if scale is None and size is None else scale
    height, width = _wanted(video, own, size)
    if height == layout.height * model_scale and width == layout.width * model_scale:
        return int(height), int(width), ratio
    rounded = _rounded(height, even[0]), _rounded(width, even[1])
    if size is not None and "x" in size.lower() and rounded != (int(height), int(width)):
        raise UsageError(
            f"--size {size}: the colour of this picture needs whole multiples of {even[1]}x{even[0]}, "
            f"{rounded[1]}x{rounded[0]} for example"
        )
    return *rounded, _kept_shape(layout.height, layout.width, *rounded, ratio)


def _wanted(video: VideoInfo, scale: Fraction | None, size: str | None) -> tuple[Fraction, Fraction]:
    """(height, width), not rounded."""
    if scale is not None and size is not None:
        raise UsageError("--scale and --size: give one of them")
    if scale is not None:
        if scale <= 0:
            raise UsageError(f"--scale {float(scale):g}: must be more than 0")
        return video.layout.height * scale, video.layout.width * scale
    assert size is not None
    return _from_size(size, video)


def _from_size(size: str, video: VideoInfo) -> tuple[Fraction, Fraction]:
    layout = video.layout
    if share := _PERCENT.fullmatch(size.strip()):
        factor = Fraction(share[1]) / 100
        if factor == 0:
            raise UsageError(f"--size {size}: must be more than 0 %; 100 % is the size of the input")
        return layout.height * factor, layout.width * factor
    exact = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", size.strip().lower())
    if exact:
        return Fraction(exact[2]), Fraction(exact[1])
    try:
        box_width, box_height = NAMED_SIZES[size.strip().lower()]
    except KeyError:
        raise UsageError(
            f"--size {size}: write WIDTHxHEIGHT, a share of the input such as 150%, or one of {', '.join(NAMED_SIZES)}"
        ) from None
    shown_width = layout.width * (video.sample_aspect_ratio or Fraction(1))
    if _upright(video):
        box_width, box_height = box_height, box_width
    factor = min(box_width / shown_width, Fraction(box_height, layout.height))
    return layout.height * factor, layout.width * factor


def _upright(video: VideoInfo) -> bool:
    """Whether the picture is higher than wide, before any turning: sizes are about the picture as it is stored."""
    return video.layout.height > video.layout.width * (video.sample_aspect_ratio or Fraction(1))


def _rounded(length: Fraction | int, step: int) -> int:
    return max(step, round(Fraction(length) / step) * step)


def _kept_shape(height: int, width: int, new_height: int, new_width: int, ratio: Fraction | None) -> Fraction | None:
    """The sample aspect ratio that keeps the picture's shape; the same where only rounding moved it."""
    change = Fraction(width, height) / Fraction(new_width, new_height)
    if abs(change - 1) <= _SAME_SHAPE:
        return ratio
    return (ratio or Fraction(1)) * change
