"""Whether a card decodes a file: tried on it, and compared with the processor before it is trusted."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import islice

import av
import numpy as np

from vidsr.color import ColorTags
from vidsr.errors import UsageError
from vidsr.media.convert import plain_name
from vidsr.media.demux import Decoded, Decoder, tags_of
from vidsr.media.hardware import Hardware, HardwareError, advice
from vidsr.media.info import Accel, Deinterlace, SourceInfo, VideoInfo
from vidsr.media.interleave import holds, unpack
from vidsr.media.log import listening
from vidsr.media.pixel import native, planar_equivalent, planes_of
from vidsr.nvidia import driver_present

__all__ = ["card_of", "choose", "prove"]

_EXACT = ("h264", "hevc", "vp9", "av1")
"""Codecs that define every sample of a frame, so that a card gives the processor's frames, or is wrong."""
_NO_CARD = "CUDA_ERROR_NO_DEVICE"
_FRAMES = 6
"""How many are compared: a key frame and some of each kind that are made from others."""


def choose(
    source: SourceInfo,
    wish: Accel,
    *,
    device: str = "auto",
    deinterlace: Deinterlace = "off",
    strict: bool = False,
) -> tuple[Hardware | None, str | None]:
    """The card's decoder for a file, None where the processor decodes, and what the user should know about that.

    device: as given for the engine, which runs on the same card. strict: the first damage has to be found, and a card
    finds none. Raises UsageError where `wish` is "cuda" and that is impossible.
    """
    if wish not in ("auto", "cuda", "none"):
        raise UsageError(f"--hwaccel {wish}: choose auto, cuda or none")
    elsewhere = device != "auto" and not device.lower().startswith("cuda")
    if wish == "none" or (wish == "auto" and (strict or elsewhere or not driver_present())):
        return None, None
    try:
        if strict:
            raise HardwareError("--strict ends at damage in the input, which only the processor finds")
        if not driver_present():
            raise HardwareError("this machine has no NVIDIA driver")
        return prove(source, card_of(device), deinterlace), None
    except HardwareError as error:
        if wish == "cuda":
            raise UsageError(f"--hwaccel cuda: {error}; leave it away and the processor decodes") from error
        if _NO_CARD in str(error):
            return None, None
        return None, f"the card does not decode this video, so the processor does: {error}"


def card_of(device: str) -> int:
    """The number of the card that a `--device` means, the first one of several; 0 where it says nothing of that."""
    match = re.search(r"cuda:(\d+)", device.lower())
    return int(match[1]) if match else 0


def prove(source: SourceInfo, card: int, deinterlace: Deinterlace = "off") -> Hardware:
    """Decodes the first frames on the card and on the processor. Raises HardwareError unless all is the same."""
    video = source.video
    if video.codec not in _EXACT:
        raise HardwareError(f"{video.codec} is not among {', '.join(_EXACT)}")
    if video.decoder is not None:
        raise HardwareError("it has no decoder for transparency")
    expected, _ = _first_frames(source, None)
    hardware, found = _tried(source, Hardware(codec=video.codec, card=card))
    name = found[0][0].picture.format.name
    equal = plain_name(planar_equivalent(name)) == plain_name(video.pixel_format)
    if not (native(name) and equal) and not holds(name, video.layout):
        raise HardwareError(f"it makes {name} of {video.pixel_format}")
    if deinterlace != "off" and not equal:
        raise HardwareError(f"its {name} frames cannot be deinterlaced")
    if len(found) != len(expected) or not all(
        _same(mine, other, video) for mine, other in zip(found, expected, strict=True)
    ):
        raise HardwareError("its frames are not those of the processor")
    picture = found[0][0].picture
    return replace(hardware, shape=(picture.height, picture.width, name))


_Taken = tuple[Decoded, ColorTags]
"""A frame and its colour tags."""


def _tried(source: SourceInfo, hardware: Hardware) -> tuple[Hardware, list[_Taken]]:
    with listening(av.logging.ERROR) as log:
        try:
            found, left = _first_frames(source, hardware)
        except HardwareError as error:
            left, found = str(error), []
        said = next((text.strip() for _, _, text in log if text.strip()), left)
    if left is not None or not found:
        raise HardwareError(f"{said or 'it gives no frame'}{advice(str(said))}")
    return hardware, found


def _first_frames(source: SourceInfo, hardware: Hardware | None) -> tuple[list[_Taken], str | None]:
    """The file's first frames, and why the card was left before it gave them, None where it was not."""
    left: list[str] = []
    decoder = Decoder(source.path, source.video.index, threads=False, hardware=hardware, on_leaving=left.append)
    try:
        taken = [(decoded, tags_of(decoder.stream, decoded.picture)) for decoded in islice(decoder.frames(), _FRAMES)]
    finally:
        decoder.close()
    return taken, left[0] if left else None


def _same(mine: _Taken, other: _Taken, video: VideoInfo) -> bool:
    """Bit for bit, and in everything that is asked of a frame later; `other` is the processor's."""
    (found, tags), (expected, stated) = mine, other
    picture, reference = found.picture, expected.picture
    if (found.key, found.time, tags) != (expected.key, expected.time, stated):
        return False
    if (picture.height, picture.width) != (video.layout.height, video.layout.width):
        return False
    if (picture.height, picture.width) != (reference.height, reference.width):
        return False
    if (picture.duration, picture.interlaced_frame) != (reference.duration, reference.interlaced_frame):
        return False
    planes = video.layout.allocate()
    unpack(planes, picture, video.layout.bits)
    return all(np.array_equal(plane, given) for plane, given in zip(planes, planes_of(reference), strict=True))
