"""HDR10 static metadata in the output: as encoders take it in parameters, and as boxes in MP4 files."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from vidsr.color import HdrMetadata

__all__ = ["add_boxes", "svtav1_parameters", "x264_parameters", "x265_parameters"]

_CHROMATICITY = 50_000
_LUMINANCE = 10_000
_UNKNOWN = ((Fraction(0), Fraction(0)),) * 4
_TO_SAMPLE_ENTRY = (b"trak", b"mdia", b"minf", b"stbl", b"stsd", None)
_CHILDREN_BEGIN = {b"stsd": 16}
_VIDEO_FIELDS_END = 86


def x264_parameters(hdr: HdrMetadata) -> str:
    """For `x264-params`; empty where nothing is known."""
    return _parameters(hdr, mastering="mastering-display", light="cll", exact=True)


def x265_parameters(hdr: HdrMetadata) -> str:
    """For `x265-params`; empty where nothing is known."""
    return _parameters(hdr, mastering="master-display", light="max-cll", exact=True)


def svtav1_parameters(hdr: HdrMetadata) -> str:
    """For `svtav1-params`; empty where nothing is whole enough to be stated: SVT-AV1 knows no zeros for unknown."""
    return _parameters(hdr, mastering="mastering-display", light="content-light", exact=False)


def add_boxes(path: Path, hdr: HdrMetadata) -> None:
    """States the metadata in an MP4 or MOV file with one track whose index comes last; FFmpeg copies it on.

    PyAV 18 has no way to give it to a muxer. The boxes are those of ISO/IEC 14496-12: `mdcv` and `clli`. Raises
    ValueError for a file without an index.
    """
    boxes = _boxes(hdr)
    with path.open("rb+") as file:
        start, size = _index_of(file)
        file.seek(start)
        index, rest = file.read(size), file.read()
        file.seek(start)
        file.write(_inserted(index, _TO_SAMPLE_ENTRY, boxes) + rest)


def _index_of(file: BinaryIO) -> tuple[int, int]:
    """Where the `moov` box begins, and its size."""
    position = 0
    while True:
        file.seek(position)
        header = file.read(16)
        size, kind = int.from_bytes(header[:4], "big"), header[4:8]
        size = int.from_bytes(header[8:], "big") if size == 1 else size
        if kind == b"moov":
            return position, size
        if size < 8:
            raise ValueError(f"{file.name} has no index")
        position += size


def _mastering(hdr: HdrMetadata) -> tuple[Sequence[tuple[Fraction, Fraction]], Fraction, Fraction] | None:
    """(green, blue, red and white, highest, lowest luminance), the order of all bitstreams; None where both are.

    Zeros stand for what is not stated: there is no other way to state one without the other.
    """
    if hdr.primaries is None and hdr.luminance is None:
        return None
    red, green, blue, white = hdr.primaries or _UNKNOWN
    lowest, highest = hdr.luminance or _UNKNOWN[0]
    return (green, blue, red, white), highest, lowest


def _whole(hdr: HdrMetadata) -> bool:
    return hdr.primaries is not None and hdr.luminance is not None


def _light(hdr: HdrMetadata) -> tuple[int, int] | None:
    """(brightest pixel, brightest average), zero for unknown as in CTA-861.3; None where both are."""
    if hdr.max_cll is None and hdr.max_fall is None:
        return None
    return hdr.max_cll or 0, hdr.max_fall or 0


def _parameters(hdr: HdrMetadata, *, mastering: str, light: str, exact: bool) -> str:
    """exact: integers in the units of the bitstream and zeros for unknown, else decimals in those of the physics."""

    def spelt(value: Fraction, unit: int) -> str:
        return str(round(value * unit)) if exact else f"{float(value):.5f}"

    stated = []
    shown = _mastering(hdr) if exact or _whole(hdr) else None
    if shown is not None:
        points, highest, lowest = shown
        parts = [
            f"{name}({spelt(x, _CHROMATICITY)},{spelt(y, _CHROMATICITY)})"
            for name, (x, y) in zip(("G", "B", "R", "WP"), points, strict=True)
        ]
        stated.append(f"{mastering}={''.join(parts)}L({spelt(highest, _LUMINANCE)},{spelt(lowest, _LUMINANCE)})")
    if (levels := _light(hdr)) is not None:
        stated.append(f"{light}={levels[0]},{levels[1]}")
    return ":".join(stated)


def _boxes(hdr: HdrMetadata) -> bytes:
    boxes = b""
    # FFmpeg takes zeros in a box for stated; the encoded video then says alone what is known.
    if _whole(hdr) and (shown := _mastering(hdr)) is not None:
        points, highest, lowest = shown
        body = b"".join(_fixed(value, _CHROMATICITY, 2) for point in points for value in point)
        boxes += _box(b"mdcv", body + _fixed(highest, _LUMINANCE, 4) + _fixed(lowest, _LUMINANCE, 4))
    if (levels := _light(hdr)) is not None:
        boxes += _box(b"clli", b"".join(_fixed(Fraction(level), 1, 2) for level in levels))
    return boxes


def _fixed(value: Fraction, unit: int, size: int) -> bytes:
    number: int = min(max(0, round(value * unit)), (1 << 8 * size) - 1)
    return number.to_bytes(size, "big")


def _box(kind: bytes, body: bytes) -> bytes:
    return (8 + len(body)).to_bytes(4, "big") + kind + body


def _inserted(box: bytes, path: Sequence[bytes | None], boxes: bytes) -> bytes:
    """The box with `boxes` in the sample entry that `path` leads to; None in it stands for any kind."""
    kind = box[4:8]
    if not path:
        return _box(kind, box[8:_VIDEO_FIELDS_END] + boxes + box[_VIDEO_FIELDS_END:])
    position = _CHILDREN_BEGIN.get(kind, 8)
    body = box[8:position]
    while position < len(box):
        size = int.from_bytes(box[position : position + 4], "big")
        child = box[position : position + size]
        body += _inserted(child, path[1:], boxes) if path[0] in (None, child[4:8]) else child
        position += size
    return _box(kind, body)
