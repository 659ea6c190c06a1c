"""What FFmpeg knows of a track but PyAV 18 does not tell: read from the Matroska header FFmpeg writes for it.

Nothing is written to disk: the header lies in memory, and the file is not read for it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import av

__all__ = ["Stated", "stated_by"]

_PARENTS = {
    0x18538067,  # Segment
    0x1654AE6B,  # Tracks
    0xAE,  # TrackEntry
    0xE0,  # Video
    0x55B0,  # Colour
    0x41E4,  # BlockAdditionMapping
}
_HORIZONTAL, _VERTICAL, _ADDITION_TYPE = 0x55B7, 0x55B8, 0x41E7
_SITINGS = {(1, 1): "topleft", (1, 2): "left", (2, 1): "top", (2, 2): "center"}
_DOLBY_VISION = (b"dvcC", b"dvvC", b"dvwC")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """siting: FFmpeg's name for where chroma samples lie, None where neither file nor codec says."""

    siting: str | None = None
    dolby_vision: bool = False


def stated_by(stream: av.VideoStream) -> Stated:
    """What the container and the codec's headers state; nothing for codecs that Matroska does not hold."""
    memory = io.BytesIO()
    try:
        with av.open(memory, "w", format="matroska") as trial:
            trial.add_stream_from_template(stream, opaque=True)
            trial.start_encoding()
    except (av.error.FFmpegError, OSError, ValueError):
        return Stated()
    places = {_HORIZONTAL: 0, _VERTICAL: 0}
    dolby_vision = False
    for name, content in _elements(memory.getvalue()):
        if name in places:
            places[name] = int.from_bytes(content, "big")
        dolby_vision |= name == _ADDITION_TYPE and content in _DOLBY_VISION
    return Stated(siting=_SITINGS.get((places[_HORIZONTAL], places[_VERTICAL])), dolby_vision=dolby_vision)


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(id, content) of the EBML elements in `data`, those inside parents as well, until it makes no sense any more."""
    place = 0
    while place < len(data):
        name_length = 9 - data[place].bit_length()
        size_at = place + name_length
        if name_length > 4 or size_at >= len(data):
            return
        size_length = 9 - data[size_at].bit_length()
        begin = size_at + size_length
        if size_length > 8 or begin > len(data):
            return
        name = int.from_bytes(data[place:size_at], "big")
        size = int.from_bytes(data[size_at:begin], "big") & ((1 << 7 * size_length) - 1)
        content = data[begin : begin + size]
        if name in _PARENTS:
            yield from _elements(content)
        else:
            yield name, content
        place = begin + size
