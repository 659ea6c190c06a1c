"""Decode times for packets that a container left without."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import av

__all__ = ["with_decode_times"]

_MOST_HELD = 32
"""Codecs reorder at most 16 frames."""


def with_decode_times(packets: Iterable[Any]) -> Iterator[Any]:
    """Packets of any tracks; those of a video track without a decode time get one before the next that has one.

    Matroska states none, and FFmpeg finds it for all but the first few of a track whose frames are reordered. Only
    those first few are held, a track at a time.
    """
    held: dict[int, list[Any]] = {}
    for packet in packets:
        cover = packet.stream.disposition & av.stream.Disposition.attached_pic
        if packet.stream.type != "video" or not packet.size or cover:
            yield packet
            continue
        waiting = held.setdefault(packet.stream_index, [])
        if packet.dts is None and len(waiting) < _MOST_HELD:
            waiting.append(packet)
            continue
        yield from _timed(waiting, packet.dts)
        waiting.clear()
        yield packet
    for waiting in held.values():
        yield from _timed(waiting, None)


def _timed(waiting: Sequence[Any], following: int | None) -> Iterator[Any]:
    """A step apart, the last of them a step before `following`, and none behind its presentation."""
    step = max(1, waiting[0].duration or 1) if waiting else 1
    limits = [packet.pts - number * step for number, packet in enumerate(waiting) if packet.pts is not None]
    if following is not None:
        limits.append(following - len(waiting) * step)
    for number, packet in enumerate(waiting):
        packet.dts = min(limits, default=0) + number * step
        yield packet
