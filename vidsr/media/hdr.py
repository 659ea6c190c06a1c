"""HDR metadata in the side data of frames and packets."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from fractions import Fraction

from vidsr.color import HdrMetadata

__all__ = ["dynamic_hdr", "static_hdr"]

_DYNAMIC = {
    "DYNAMIC_HDR_PLUS": "HDR10+",
    "DOVI_RPU_BUFFER": "Dolby Vision",
    "DOVI_METADATA": "Dolby Vision",
    "DYNAMIC_HDR_VIVID": "HDR Vivid",
    "dynamic_hdr10_plus": "HDR10+",
    "dovi_conf": "Dolby Vision",
}
"""By PyAV's name for the side data of frames (upper case) and packets."""


def static_hdr(side_data: Mapping[str, bytes]) -> HdrMetadata | None:
    """What a frame's side data, by PyAV's names, say of the mastering display and the light levels."""
    primaries, luminance = _mastering(side_data.get("MASTERING_DISPLAY_METADATA"))
    light = side_data.get("CONTENT_LIGHT_LEVEL")
    # Zero stands for unknown (CTA-861.3).
    max_cll, max_fall = (value or None for value in struct.unpack("=2I", light[:8])) if light else (None, None)
    found = HdrMetadata(primaries=primaries, luminance=luminance, max_cll=max_cll, max_fall=max_fall)
    return None if found == HdrMetadata() else found


def _mastering(
    data: bytes | None,
) -> tuple[tuple[tuple[Fraction, Fraction], ...] | None, tuple[Fraction, Fraction] | None]:
    """AVMasteringDisplayMetadata: x and y of red, green, blue and white, lowest and highest luminance, two flags."""
    if data is None:
        return None, None
    *numbers, has_primaries, has_luminance = struct.unpack("=22i", data[:88])
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    if any(not below for _, below in pairs):
        return None, None
    values = [Fraction(*pair) for pair in pairs]
    primaries = tuple(zip(values[:8:2], values[1:8:2], strict=True)) if has_primaries else None
    return primaries, (values[8], values[9]) if has_luminance else None


def dynamic_hdr(names: Iterable[str]) -> tuple[str, ...]:
    """Which metadata change from frame to frame, by names people know, from the names of side data."""
    return tuple(dict.fromkeys(_DYNAMIC[name] for name in names if name in _DYNAMIC))
