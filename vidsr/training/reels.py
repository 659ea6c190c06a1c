"""Real encodes. A reel is many short shots one after the other, encoded in one go and decoded again.

So the shots share an encoder's start, and its inter frames, B frames and rate control act as in any file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vidsr.color import BT601, BT709, ColorTags, conversion
from vidsr.filters import chroma_offsets, downsample_taps, upsample_taps
from vidsr.frame import FrameLayout
from vidsr.media import recode
from vidsr.media.pixel import layout_of, planes_of
from vidsr.training.degrade import Clip, clip_from_planar, planar_from_clip

__all__ = ["CODECS", "Encode", "clip_from_codes", "codes_from_clip", "draw_encode", "through"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Encode:
    """One setting for a whole reel.

    encoder: FFmpeg's name, None for no encoding at all: only the chroma planes are made smaller.
    matrix: H.273 code. soft_chroma: chroma made smaller by a triangle, as most programs do, or by a sharper cubic.
    """

    encoder: str | None
    decoder: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    format: str = "yuv420p"
    matrix: int = BT601
    soft_chroma: bool = True
    frames_per_second: int = 30


Options = Mapping[str, str]


def _h264(rng: np.random.Generator) -> Options:
    # Most of what people have lies about the default of 23.
    crf = rng.triangular(16, 23, 30) if rng.random() < 0.8 else rng.uniform(12, 32)
    preset = rng.choice(["veryfast", "faster", "fast", "medium"])
    tune = {"tune": str(rng.choice(["film", "animation"]))} if rng.random() < 0.2 else {}
    same = {"x264-params": "cpu-independent=1"}  # the same bytes on every processor
    return {"crf": f"{crf:.1f}", "preset": str(preset), **tune, **same}


def _hevc(rng: np.random.Generator) -> Options:
    preset = rng.choice(["superfast", "veryfast", "faster", "fast"])
    silent = "log-level=none:pools=none:frame-threads=1:wpp=0:info=0"
    return {"crf": f"{rng.triangular(18, 26, 34):.1f}", "preset": str(preset), "x265-params": silent}


def _vp9(rng: np.random.Generator) -> Options:
    speed = str(rng.integers(4, 7))
    return {"crf": str(rng.integers(16, 45)), "b": "0", "deadline": "good", "cpu-used": speed, "row-mt": "0"}


def _av1(rng: np.random.Generator) -> Options:
    return {"crf": str(rng.integers(22, 47)), "preset": str(rng.integers(8, 11)), "svtav1-params": "lp=1"}


def _mpeg2(rng: np.random.Generator) -> Options:
    quality = int(rng.integers(2, 11)) * 118  # FF_QP2LAMBDA
    return {"flags": "+qscale", "global_quality": str(quality), "g": str(rng.choice([12, 15])), "bf": "2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Habit:
    """How files in a codec of `recode.CODECS` are usually made."""

    options: Callable[[np.random.Generator], Options]
    fine: tuple[str, ...] = ()
    """Formats with more chroma than 4:2:0 that files in this codec come in."""


CODECS = {
    "h264": _Habit(options=_h264, fine=("yuv422p", "yuv444p")),
    "hevc": _Habit(options=_hevc, fine=("yuv422p", "yuv444p")),
    "vp9": _Habit(options=_vp9, fine=("yuv444p",)),
    "av1": _Habit(options=_av1),
    "mpeg2": _Habit(options=_mpeg2, fine=("yuv422p",)),
}
"""A new codec is one row here, and one in `recode`."""


def draw_encode(codec: str | None, rng: np.random.Generator) -> Encode:
    """A setting as files in `codec` (a key of `CODECS`) have; None for 4:2:0 in 8 bits without an encode."""
    common: dict[str, Any] = {
        "matrix": int(rng.choice([BT601, BT709])),
        "soft_chroma": bool(rng.random() < 0.7),
        "frames_per_second": int(rng.choice([24, 25, 30, 60])),
    }
    if codec is None:
        return Encode(encoder=None, **common)
    row, habit = recode.CODECS[codec], CODECS[codec]
    name = str(rng.choice(habit.fine)) if habit.fine and rng.random() < 0.06 else "yuv420p"
    return Encode(encoder=row.encoder, decoder=row.decoder, options=habit.options(rng), format=name, **common)


@cache
def _chroma_line(length: int, factor: int, offset: float, way: str) -> NDArray[np.float32]:
    """`length` samples as `factor` times fewer ("soft", "sharp") or more ("up"): float32 [target, length].

    offset: where chroma sample 0 lies, in luma samples. Edge samples are repeated.
    """
    if way == "up":
        taps, first = upsample_taps(factor, offset)
    elif way == "sharp":
        taps, first = downsample_taps(factor, offset)
    else:  # the samples a triangle over one chroma sample covers: two around it, or three with it in the middle
        taps, first = (np.array([[0.5, 0.5]]), 0) if offset else (np.array([[0.25, 0.5, 0.25]]), -1)
    phases = len(taps)
    target, stride = (length * factor, 1) if way == "up" else (length // factor, factor)
    matrix = np.zeros((target, length), np.float32)
    for row in range(target):
        places = row // phases * stride + first + np.arange(taps.shape[1])
        np.add.at(matrix[row], np.clip(places, 0, length - 1), taps[row % phases])
    return matrix


def _resampled(chroma: NDArray[np.float32], layout: FrameLayout, way: str) -> NDArray[np.float32]:
    """[F, 2, H, W] to the layout's chroma size, or "up" from there."""
    offsets = chroma_offsets(layout.chroma, layout.siting)
    for axis, factor, offset in zip((2, 3), layout.chroma, offsets, strict=True):
        if factor > 1:
            line = _chroma_line(chroma.shape[axis], factor, offset, way)
            chroma = line @ chroma if axis == 2 else chroma @ line.T
    return chroma


def _tags(how: Encode) -> ColorTags:
    return ColorTags(matrix=how.matrix, full_range=False)


def _rounded(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def codes_from_clip(clip: Clip, how: Encode) -> Sequence[NDArray[np.uint8]]:
    """Y, U, V of all frames, limited range: uint8 [F, H, W] and twice [F, H/down, W/right]."""
    layout = layout_of(how.format, height=clip.shape[1], width=clip.shape[2], siting="left")
    rgb = ColorTags(matrix=0, full_range=True)
    matrix = conversion(rgb, _tags(how), source_bits=8, target_bits=8).codes_from_rgb
    flat = planar_from_clip(clip).reshape(len(clip), 3, -1)
    codes = ((matrix[:, :3] / 255) @ flat + matrix[:, 3:]).astype(np.float32).reshape(len(clip), 3, *clip.shape[1:3])
    chroma = _resampled(codes[:, 1:], layout, "soft" if how.soft_chroma else "sharp")
    return [_rounded(codes[:, 0]), _rounded(chroma[:, 0]), _rounded(chroma[:, 1])]


def clip_from_codes(planes: Sequence[NDArray[np.uint8]], how: Encode) -> Clip:
    """The other way, with the chroma filter that vidsr's engines use."""
    frames, height, width = planes[0].shape
    layout = layout_of(how.format, height=height, width=width, siting="left")
    rgb = ColorTags(matrix=0, full_range=True)
    matrix = conversion(_tags(how), rgb, source_bits=8, target_bits=8).rgb_from_codes
    chroma = _resampled(np.stack(planes[1:], axis=1).astype(np.float32), layout, "up")
    codes = np.concatenate([planes[0][:, None].astype(np.float32), chroma], axis=1).reshape(frames, 3, -1)
    values = (255 * (matrix[:, :3] @ codes + matrix[:, 3:])).astype(np.float32)
    return clip_from_planar(values.reshape(frames, 3, height, width))


def through(reel: Clip, how: Encode, wanted: Sequence[int]) -> Clip:
    """Frames `wanted` of the reel as a viewer gets them: uint8 [len(wanted), H, W, 3]. Raises EncoderError.

    The same input gives the same bytes: every encoder runs in one thread.
    """
    planes = codes_from_clip(reel, how)
    if how.encoder is not None:
        rate = Fraction(how.frames_per_second)
        pictures, _ = recode.coded(
            _pictures(planes, how), encoder=how.encoder, decoder=how.decoder, options=how.options, rate=rate
        )
        decoded = [planes_of(picture) for picture in pictures]
        return clip_from_codes([np.stack([decoded[index][part] for index in wanted]) for part in range(3)], how)
    return clip_from_codes([plane[list(wanted)] for plane in planes], how)


def _pictures(planes: Sequence[NDArray[np.uint8]], how: Encode) -> Iterator[av.VideoFrame]:
    frames, height, width = planes[0].shape
    for index in range(frames):
        picture = av.VideoFrame(width, height, how.format)
        picture.colorspace, picture.color_range = how.matrix, 1  # limited
        for target, plane in zip(planes_of(picture), planes, strict=True):
            np.copyto(target, plane[index])
        yield picture
