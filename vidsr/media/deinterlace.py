"""Two fields to whole pictures, by FFmpeg's bwdif."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import av
import numpy as np

from vidsr.color import ColorTags
from vidsr.errors import InputError
from vidsr.media.info import Scan
from vidsr.media.pixel import layout_of, pixel_format, planes_of

__all__ = ["Deinterlacer", "Timed", "deinterlaced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A picture on its way through the reader. pts, duration: in units of the time base it has there.

    color: of the picture. key: a key frame. corrupt: decoded from damaged data.
    """

    picture: av.VideoFrame
    pts: int
    duration: int
    color: ColorTags
    key: bool
    corrupt: bool


class Deinterlacer:
    """Pictures of one size and format in, whole ones out, one frame late.

    Times are kept beside the filter, not in it: it makes its own from the neighbours of a frame, which is wrong where
    the distances differ. scan: "progressive" lets each frame's own flag say which field is the earlier.

    usual_duration: of a last frame without one, in units of the source's time base.
    """

    def __init__(self, mode: Literal["field", "frame"], scan: Scan, usual_duration: int) -> None:
        self._fields = mode == "field"
        parity = "auto" if scan == "progressive" else scan
        self._options = f"mode=send_{mode}:parity={parity}:deint=all"
        self._usual = usual_duration
        self._graph: av.filter.Graph | None = None
        self._shape = (0, 0, "")
        self._waiting: deque[Timed] = deque()
        self._ready: list[av.VideoFrame] = []
        self._count = 0

    def push(self, timed: Timed) -> Iterator[Timed]:
        """Takes one frame, gives what is finished. Raises InputError for one that is too small to have fields."""
        carried = _carried(timed.picture)
        shape = (carried.width, carried.height, carried.format.name)
        if shape != self._shape:
            yield from self.flush()
            self._graph, self._shape = self._build(carried), shape
        assert self._graph is not None
        self._waiting.append(timed)
        carried.pts, self._count = self._count, self._count + 1
        self._graph.push(carried)
        yield from self._finished(self._graph)

    def flush(self) -> Iterator[Timed]:
        """What is still under way."""
        if self._graph is not None:
            self._graph.push(None)
            yield from self._finished(self._graph)
            self._graph = None

    def _build(self, picture: av.VideoFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        graph.threads = 1
        entry = graph.add_buffer(
            width=picture.width, height=picture.height, format=picture.format, time_base=Fraction(1, 1000)
        )
        try:
            graph.link_nodes(entry, graph.add("bwdif", self._options), graph.add("buffersink")).configure()
        except (av.error.FFmpegError, ValueError) as error:
            size = f"{picture.width}x{picture.height}"
            raise InputError(f"{size} {picture.format.name} frames cannot be deinterlaced") from error
        return graph

    def _finished(self, graph: av.filter.Graph) -> Iterator[Timed]:
        """What the filter is done with: one picture for each frame, with `field` two."""
        while True:
            try:
                while len(self._ready) < 1 + self._fields:
                    self._ready.append(graph.vpull())
            except (BlockingIOError, av.error.EOFError):
                return
            pictures, self._ready = self._ready, []
            timed = self._waiting.popleft()
            if not self._fields:
                yield replace(timed, picture=_uncarried(pictures[0], timed.picture))
                continue
            span = self._span(timed, self._waiting[0] if self._waiting else None)
            for half, picture in enumerate(pictures):
                yield replace(
                    timed,
                    picture=_uncarried(picture, timed.picture),
                    pts=2 * timed.pts + half * span,
                    duration=span,
                    key=timed.key and not half,
                    corrupt=timed.corrupt and not half,
                )

    def _span(self, timed: Timed, following: Timed | None) -> int:
        """How long each of a frame's fields lasts, in halves of the time base.

        Half of the way to the next frame, unless that is far off: then half of what the frame says itself.
        """
        distance = following.pts - timed.pts if following is not None else None
        if distance is None or (timed.duration and 2 * timed.duration <= distance):
            return timed.duration or self._usual
        return distance


def deinterlaced(frames: Iterator[Timed], deinterlacer: Deinterlacer) -> Iterator[Timed]:
    """All frames through a deinterlacer: as many come out, or twice as many."""
    for timed in frames:
        yield from deinterlacer.push(timed)
    yield from deinterlacer.flush()


def _carrier(name: str) -> str | None:
    """A deeper format in which bwdif takes the code values of one that it does not know; None where it does."""
    layout = layout_of(name, height=1, width=1, siting="left")
    unknown = (
        (layout.family == "gray" and 8 < layout.bits < 16)
        or (layout.family == "rgb" and layout.alpha and 8 < layout.bits < 16)
        or (layout.family == "yuv" and layout.alpha and layout.bits == 12)
    )
    return pixel_format(replace(layout, bits=16)) if unknown else None


def _carried(picture: av.VideoFrame) -> av.VideoFrame:
    name = _carrier(picture.format.name)
    return picture if name is None else _copied(picture, name, 2**16 - 1)


def _uncarried(picture: av.VideoFrame, original: av.VideoFrame) -> av.VideoFrame:
    name = original.format.name
    if picture.format.name == name:
        return picture
    if picture.format.name == _carrier(name):
        return _copied(picture, name, 2 ** original.format.components[0].bits - 1)
    raise InputError(f"{name} frames cannot be deinterlaced")


def _copied(picture: av.VideoFrame, name: str, largest: int) -> av.VideoFrame:
    """The same code values in another format; interpolation can have gone beyond the `largest`."""
    copy = av.VideoFrame(picture.width, picture.height, name)
    for target, plane in zip(planes_of(copy), planes_of(picture), strict=True):
        np.minimum(plane, largest, out=target)
    return copy
