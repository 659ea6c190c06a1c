"""Short runs of pictures through a real video encoder and back, in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
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
from vidsr.media.schedule import as_scheduled

__all__ = ["CODECS", "Codec", "coded", "recoded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """encoder, decoder: FFmpeg's names. usual, best, smallest: the quality as numbers of its own.

    options: the encoder's for a quality. whole: it would round a fraction.
    """

    encoder: str
    decoder: str
    usual: float
    best: float
    smallest: float
    options: Callable[[float], dict[str, str]]
    whole: bool = False


def _crf(**others: str) -> Callable[[float], dict[str, str]]:
    return lambda quality: {"crf": f"{quality:g}", **others}


def _quantizer(quality: float) -> dict[str, str]:
    """MPEG-2 has no CRF: its quantizer is held, and the rate set so high that nothing else moves it."""
    return {"qmin": f"{quality:.0f}", "qmax": f"{quality:.0f}", "b": "1G", "g": "15", "bf": "2"}


CODECS = {
    "h264": Codec(
        encoder="libx264", decoder="h264", usual=23, best=0, smallest=51,
        options=_crf(preset="medium", **{"x264-params": "cpu-independent=1"}),
    ),
    "hevc": Codec(
        encoder="libx265", decoder="hevc", usual=28, best=0, smallest=51,
        options=_crf(preset="medium", **{"x265-params": "log-level=error:pools=none:frame-threads=1"}),
    ),
    "vp9": Codec(
        encoder="libvpx-vp9", decoder="vp9", usual=33, best=0, smallest=63, whole=True,
        options=_crf(b="0", deadline="good", **{"cpu-used": "2"}),
    ),
    "av1": Codec(
        encoder="libsvtav1", decoder="libdav1d", usual=35, best=1, smallest=63, whole=True,
        options=_crf(preset="8", **{"svtav1-params": "lp=1"}),
    ),
    "mpeg2": Codec(
        encoder="mpeg2video", decoder="mpeg2video", usual=5, best=1, smallest=31, whole=True, options=_quantizer
    ),
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
    layout = FrameLayout(family="yuv", bits=8, height=height, width=width, chroma=(2, 2))
    inward = Converter(layout, tags, interlaced=False)
    outward = Converter(FrameLayout(family="rgb", bits=8, height=height, width=width), tags, interlaced=False)
    given = (av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24") for picture in pictures)
    found, size = coded(
        (inward(picture, ColorTags(matrix=RGB, full_range=True))[0] for picture in given),
        encoder=row.encoder, decoder=row.decoder, options=row.options(quality), rate=Fraction(_RATE),
    )  # fmt: skip
    return np.stack([outward(picture, tags)[0].to_ndarray(format="rgb24") for picture in found]), size


def coded(
    pictures: Iterable[av.VideoFrame], *, encoder: str, decoder: str, options: Mapping[str, str], rate: Fraction
) -> tuple[list[av.VideoFrame], int]:
    """The pictures, alike in size and format, after encoder and decoder, and how many bytes lay between.

    The same pictures give the same bytes: both run in one thread. Raises EncoderError where either refuses, FFmpeg
    lacks it, or the number of pictures changes.
    """
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 writes to standard error by itself; 1 is errors only
    found: list[av.VideoFrame] = []
    given = size = 0
    try:
        reader: Any = av.CodecContext.create(decoder, "r")
        reader.thread_count = 1
        writer: Any = None
        for index, picture in enumerate(pictures):
            writer = writer or _writer(encoder, picture, options, rate)
            picture.pts, picture.time_base = index, writer.time_base
            given += 1
            for packet in writer.encode(picture):
                size += packet.size
                found += reader.decode(packet)
        for packet in writer.encode(None):
            size += packet.size
            found += reader.decode(packet)
        found += reader.decode(None)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise EncoderError(f"{encoder} does not encode such pictures with {dict(options)} ({error})") from error
    if len(found) != given:
        raise EncoderError(f"{encoder} made {len(found)} frames of {given} with {dict(options)}")
    return found, size


def _writer(encoder: str, like: av.VideoFrame, options: Mapping[str, str], rate: Fraction) -> Any:
    context: Any = av.CodecContext.create(encoder, "w")
    context.width, context.height, context.pix_fmt = like.width, like.height, like.format.name
    context.time_base, context.framerate, context.thread_count = 1 / rate, rate, 1
    context.colorspace, context.color_range = like.colorspace, like.color_range
    context.options = dict(options)
    with as_scheduled():
        context.open()
    return context
