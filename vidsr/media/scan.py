"""Whether frames were taken at once or as two fields: by what the file says and what its pictures show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av

from vidsr.media.demux import Decoder
from vidsr.media.info import Scan

__all__ = ["judge_scan"]

_PIXELS = 50_000_000
"""How much to look at: 24 frames of 1080p, which take a third of a second to decode."""
_FRAMES = (9, 48)
_PACKETS = 1000
_MIN_SIDE = 16
# idet's own threshold, 1.04, takes some progressive animation for interlaced.
_IDET = "intl_thres=1.4:prog_thres=1.5"
_STATED: dict[int, Literal["tff", "bff"]] = {2: "tff", 3: "bff", 4: "bff", 5: "tff"}
"""By AVFieldOrder: which field is shown first."""


def judge_scan(path: Path, index: int, first: av.VideoFrame, span: tuple[Fraction, Fraction | None]) -> Scan:
    """The scan of a video track, whose first frame is `first` and which lies in `span`: (begin, length) in seconds.

    The pictures decide where they show it clearly. Where they do not, the flags do: nothing moves in them, or too
    little. A file without flags is interlaced only if its pictures leave no doubt.
    """
    if min(first.width, first.height) < _MIN_SIDE:
        return "progressive"
    decoder = Decoder(path, index, threads=False)
    try:
        looked = _look(decoder, max(_FRAMES[0], min(_FRAMES[1], _PIXELS // (first.width * first.height))), span)
        order = _STATED.get(int(decoder.stream.codec_context.field_order))
    finally:
        decoder.close()
    return _verdict(looked, order)


def _verdict(looked: Counter[str], order: Literal["tff", "bff"] | None) -> Scan:
    later, earlier = sorted(("tff", "bff"), key=lambda name: looked[name])
    interlaced = looked["tff"] + looked["bff"]
    seen: Literal["tff", "bff"] = "tff" if earlier == "tff" else "bff"
    clear = looked[earlier] >= 6 and looked[earlier] > 8 * looked[later]
    if 4 * looked["flagged"] >= looked["frames"] > 0:
        if looked["progressive"] >= 6 and looked["progressive"] > 8 * interlaced:
            return "progressive"
        return seen if clear or order is None else order
    return seen if clear and interlaced > 2 * looked["progressive"] else "progressive"


def _look(decoder: Decoder, frames: int, span: tuple[Fraction, Fraction | None]) -> Counter[str]:
    """How many frames are what, by idet's names, and how many there were and were flagged.

    At the beginning, which may be titles on black, and at a third and two thirds of the length.
    """
    looked: Counter[str] = Counter()
    begin, length = span
    base = decoder.stream.time_base
    places = [] if not length or not base else [int((begin + length * third / 3) / base) for third in (1, 2)]
    _look_here(decoder, frames - len(places) * (frames // 3), looked)
    for place in places:
        if looked["frames"] < frames // 3 or not decoder.seek(place):
            break
        _look_here(decoder, frames // 3, looked)
    return looked


def _look_here(decoder: Decoder, frames: int, looked: Counter[str]) -> None:
    graph = None
    shape = (0, 0, "")
    for decoded, _ in zip(decoder.first_frames(_PACKETS), range(frames), strict=False):
        picture = decoded.picture
        if graph is None:
            shape = (picture.width, picture.height, picture.format.name)
            graph = _idet(picture)
        elif shape != (picture.width, picture.height, picture.format.name):
            break
        looked["frames"] += 1
        looked["flagged"] += picture.interlaced_frame
        graph.push(picture)
        looked.update(_found(graph))
    if graph is not None:
        graph.push(None)
        looked.update(_found(graph))


def _idet(picture: av.VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.threads = 1
    entry = graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format, time_base=Fraction(1, 1000)
    )
    graph.link_nodes(entry, graph.add("idet", _IDET), graph.add("buffersink")).configure()
    return graph


def _found(graph: av.filter.Graph) -> Iterator[str]:
    """What idet says of the frames it is done with: tff, bff, progressive or undetermined."""
    while True:
        try:
            picture = graph.vpull()
        except (BlockingIOError, av.error.EOFError):
            return
        yield picture.metadata["lavfi.idet.single.current_frame"]
