"""PyAV and FFmpeg: what is compiled in, and what of it really opens here."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from vidsr.errors import first_line

__all__ = ["look"]

_DECODERS = ("h264", "hevc", "libdav1d", "libvpx-vp9")
_ON_THE_CARD = ("h264", "hevc", "av1", "vp9")
"""Decoders that FFmpeg can run on an NVIDIA card."""


def look(say: Callable[[dict[str, Any]], None]) -> None:
    """Says pyav, ffmpeg, encoders and decoders."""
    say({"doing": "loading PyAV"})
    import av

    say({"pyav": av.__version__, "ffmpeg": getattr(av, "ffmpeg_version_info", None)})
    from vidsr.color import ColorTags
    from vidsr.frame import FrameLayout, VideoTrack
    from vidsr.media.encoder import PRESETS

    layout = FrameLayout(family="yuv", bits=8, height=256, width=256, chroma=(2, 2))
    track = VideoTrack(layout=layout, color=ColorTags(), time_base=Fraction(1, 25), rate=Fraction(25))
    encoders = []
    for name in PRESETS:
        say({"doing": f"opening {name}"})
        encoders.append(_encoder(name, track))
    say({"encoders": encoders})
    decoders = [_entry(name, None if name in av.codec.codecs_available else "not compiled in") for name in _DECODERS]
    for name in _ON_THE_CARD:
        say({"doing": f"opening {name} on the card"})
        decoders.append(_decoder_on_the_card(name))
    say({"decoders": decoders, "doing": "closing PyAV"})


def _entry(name: str, reason: str | None) -> dict[str, Any]:
    return {"name": name, "compiled": reason != "not compiled in", "usable": reason is None, "reason": reason}


def _encoder(name: str, track: Any) -> dict[str, Any]:
    import av

    from vidsr.errors import VidsrError
    from vidsr.media.encoder import prove, settings

    if name not in av.codec.codecs_available:
        return _entry(name, "not compiled in")
    try:
        prove(track, settings(name, crf=None, preset=None, extra={}), "matroska")
    except VidsrError as error:
        return _entry(name, re.sub(r" \([^()]*\)$", "", str(error).rpartition(": ")[2]))
    return _entry(name, None)


def _decoder_on_the_card(name: str) -> dict[str, Any]:
    import av
    from av.codec.hwaccel import HWAccel, hwdevices_available

    from vidsr.nvidia import driver_present

    label = f"{name} (NVDEC)"
    if "cuda" not in hwdevices_available():
        return _entry(label, "not compiled in")
    if not driver_present():
        return _entry(label, "needs an NVIDIA card with its driver")
    # PyAV raises what FFmpeg says as one of many classes, and its own refusals as RuntimeError.
    try:
        HWAccel("cuda", allow_software_fallback=False).create(av.Codec(name, "r"))
    except Exception as error:
        return _entry(label, first_line(error))
    return _entry(label, None)
