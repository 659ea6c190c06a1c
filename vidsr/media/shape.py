"""The shape of pixels in the heads of files: PyAV 18 has no way to tell most muxers."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

__all__ = ["with_shape"]

_SEGMENT, _TRACKS, _ENTRY, _VIDEO = b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\xae", b"\xe0"
_WIDTH, _HEIGHT, _UNIT, _SHOWN_WIDTH, _SHOWN_HEIGHT = b"\xb0", b"\xba", b"\x54\xb2", b"\x54\xb0", b"\x54\xba"
_CHECKSUM, _VOID = b"\xbf", b"\xec"


def with_shape(head: bytes, format: str, *, width: int, height: int, ratio: Fraction) -> bytes:
    """The beginning of a file with the sample aspect ratio stated for the track of `width` x `height` pixels.

    format: matroska (RFC 9559) or yuv4mpegpipe; in others nothing is changed. In Matroska the place of what follows
    stays: the checksum of the list of tracks, which nobody must have, makes room.
    """
    if format == "yuv4mpegpipe":
        return head.replace(b" A0:0 ", f" A{ratio.numerator}:{ratio.denominator} ".encode(), 1)
    if format != "matroska":
        return head
    shown = (round(width * ratio), height) if ratio > 1 else (width, round(height / ratio))
    return _with_tracks(head, (width, height), shown)


def _with_tracks(head: bytes, size: tuple[int, int], shown: tuple[int, int]) -> bytes:
    for kind, _, body, _ in _elements(head, 0):
        if kind != _SEGMENT:
            continue
        for inner, start, content, end in _elements(head, body):
            if inner == _TRACKS and end <= len(head):
                tracks = _mended(head[content:end], (_ENTRY, _VIDEO), size, shown)
                padding = _void(end - content - len(tracks))
                return head[:start] + _element(_TRACKS, tracks + padding, content - start) + head[end:]
    return head


def _mended(data: bytes, path: tuple[bytes, ...], size: tuple[int, int], shown: tuple[int, int]) -> bytes:
    """The content of an element, without its checksum; where `path` ends, with the size at which it is shown."""
    parts = [(kind, data[start:end], data[body:end]) for kind, start, body, end in _elements(data, 0)]
    if path:
        return b"".join(
            _element(kind, _mended(content, path[1:], size, shown)) if kind == path[0] else whole
            for kind, whole, content in parts
            if kind != _CHECKSUM
        )
    stored = {kind: int.from_bytes(content, "big") for kind, _, content in parts if kind in (_WIDTH, _HEIGHT)}
    if stored != dict(zip((_WIDTH, _HEIGHT), size, strict=True)):
        return data
    sizes = [  # one that is not stated is the stored one
        _element(kind, length.to_bytes(2, "big"))
        for kind, length, own in zip((_SHOWN_WIDTH, _SHOWN_HEIGHT), shown, size, strict=True)
        if length != own
    ]
    return b"".join([whole for kind, whole, _ in parts if kind != _UNIT] + sizes)


def _elements(data: bytes, position: int) -> Iterator[tuple[bytes, int, int, int]]:
    """(identifier, where it begins, where its content does, where that ends) of one element after the other; of one
    without a size the content goes on to the end."""
    while position < len(data) - 1:
        start = position
        length = 9 - data[position].bit_length()
        kind = data[position : position + length]
        position += length
        if position >= len(data) or not data[position]:
            return
        length = 9 - data[position].bit_length()
        mask = (1 << 7 * length) - 1
        size = int.from_bytes(data[position : position + length], "big") & mask
        body = position + length
        position = len(data) if size == mask else body + size
        yield kind, start, body, position


def _element(kind: bytes, body: bytes, head_bytes: int = 0) -> bytes:
    """head_bytes: of identifier and length, where the length need not be written as short as it can be."""
    shortest = next(count for count in range(1, 9) if len(body) < (1 << 7 * count) - 1)
    length = max(shortest, head_bytes - len(kind))
    return kind + (len(body) | 1 << 7 * length).to_bytes(length, "big") + body


def _void(count: int) -> bytes:
    """So many bytes that say nothing, where there is an element so short."""
    if count < 2:
        return b""
    length = 1 if count < 100 else 8
    return _element(_VOID, bytes(count - 1 - length), 1 + length)
