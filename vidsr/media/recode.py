"""Short runs of pictures through a real video encoder and back, in memory."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vidsr.color import RGB, ColorTags
from vidsr.errors import EncoderError
from vidsr.frame import FrameLayout
from vidsr.media.convert import Converter

__all__ = ["CODECS", "Codec", "recoded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """encoder: FFmpeg's name. usual, best, smallest: the quality as numbers of its own. options: for a quality."""

    encoder: str
    usual: float
    best: float
    smallest: float
    options: Callable[[float], dict[str, str]]


def _crf(**others: str) -> Callable[[float], dict[str, str]]:
    return lambda quality: {"crf": f"{quality:g}", "threads": "1", **others}


def _quantizer(quality: float) -> dict[str, str]:
    """MPEG-2 has no CRF: its quantizer is held, and the rate set so high that nothing else moves it."""
    return {"qmin": f"{quality:.0f}", "qmax": f"{quality:.0f}", "b": "1G", "g": "15", "bf": "2", "threads": "1"}


CODECS = {
    "h264": Codec(
        encoder="libx264", usual=23, best=0, smallest=51,
        options=_crf(preset="medium", **{"x264-params": "cpu-independent=1"}),
    ),
    "hevc": Codec(
        encoder="libx265", usual=28, best=0, smallest=51,
        options=_crf(preset="medium", **{"x265-params": "log-level=error:pools=none"}),
    ),
    "vp9": Codec(
        encoder="libvpx-vp9", usual=33, best=0, smallest=63, options=_crf(b="0", deadline="good", **{"cpu-used": "2"})
    ),
    "av1": Codec(
        encoder="libsvtav1", usual=35, best=1, smallest=63, options=_crf(preset="8", **{"svtav1-params": "lp=1"})
    ),
    "mpeg2": Codec(encoder="mpeg2video", usual=5, best=1, smallest=31, options=_quantizer),
}  # fmt: skip
"""A new codec is one row here."""

_RATE = 25


def recoded(pictures: NDArray[Any], codec: str, quality: float) -> tuple[NDArray[Any], int]:
    """The pictures as they come back from an encoder, and how many bytes it made of them.

    pictures: uint8 [T, H, W, 3], H and W even, full-range RGB; consecutive frames of a video. They are encoded as 4:2:0
    with 8 bits, limited range, 25 a second. Raises EncoderError if this FFmpeg lacks the encoder or it refuses.
    """
    row = CODECS[codec]
    try:
        av.Codec(row.encoder, "w")
    except ValueError:
        raise EncoderError(f"--codec {codec}: this FFmpeg has no {row.encoder}") from None
    height, width = pictures.shape[1:3]
    tags = ColorTags().resolved(height=height, width=width, rgb=False)
    memory = io.BytesIO()
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 writes to standard error by itself; 1 is errors only
    try:
        count = _encode(pictures, row, quality, tags, memory)
        memory.seek(0)
        found = _decode(memory, FrameLayout(family="rgb", bits=8, height=height, width=width), tags)
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise EncoderError(f"--codec {codec}: {row.encoder} does not encode {width}x{height} ({error})") from error
    if len(found) != len(pictures):
        raise EncoderError(f"--codec {codec}: {row.encoder} made {len(found)} frames of {len(pictures)}")
    return found, count


def _encode(pictures: NDArray[Any], row: Codec, quality: float, tags: ColorTags, memory: io.BytesIO) -> int:
    height, width = pictures.shape[1:3]
    convert = Converter(
        FrameLayout(family="yuv", bits=8, height=height, width=width, chroma=(2, 2)), tags, interlaced=False
    )
    count = 0
    with av.open(memory, "w", format="matroska") as output:
        track: Any = output.add_stream(row.encoder, rate=_RATE, options=row.options(quality))
        track.width, track.height, track.pix_fmt = width, height, "yuv420p"
        track.codec_context.colorspace, track.codec_context.color_range = tags.matrix, 1
        for index in range(len(pictures) + 1):
            frame = None
            if index < len(pictures):
                given = av.VideoFrame.from_ndarray(np.ascontiguousarray(pictures[index]), format="rgb24")
                frame, _ = convert(given, ColorTags(matrix=RGB, full_range=True))
                frame.pts, frame.time_base = index, Fraction(1, _RATE)
            for packet in track.encode(frame):
                count += packet.size
                output.mux(packet)
    return count


def _decode(memory: io.BytesIO, layout: FrameLayout, tags: ColorTags) -> NDArray[Any]:
    convert = Converter(layout, tags, interlaced=False)
    with av.open(memory, "r") as opened:
        frames = [convert(frame, tags)[0].to_ndarray(format="rgb24") for frame in opened.decode(video=0)]
    return np.stack(frames) if frames else np.empty((0, layout.height, layout.width, 3), np.uint8)
