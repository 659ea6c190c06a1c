"""How many bytes the tracks of a file take, by looking at packets of a part of it; nothing is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from vidsr.errors import InputError
from vidsr.media.demux import open_input

__all__ = ["Weight", "attached_bytes", "weigh"]

_REORDERED_SECONDS = 2
"""Packets come in the order of decoding; this much behind the end of a span none of it is left."""


@dataclass(slots=True)
class Weight:
    """Of one track in a span. first_bytes: of the first packet, which starts what follows; bytes: of all."""

    packets: int = 0
    first_bytes: int = 0
    bytes: int = 0

    @property
    def rest_bytes(self) -> int:
        """All but the first."""
        return self.bytes - self.first_bytes


def weigh(
    path: Path, video_index: int, *, begin: Fraction | None = None, end: Fraction | None = None
) -> dict[int, Weight]:
    """The tracks by index, of what is shown from `begin` up to `end`, in seconds of the container's own time; None for
    the file's beginning and end. A damaged file weighs what can be read of it. Raises InputError."""
    weights: dict[int, Weight] = {}
    with open_input(path) as opened:
        try:
            if begin is not None:
                opened.seek(int(begin * 1_000_000))
            packets: Any = opened.demux()
            for packet in packets:
                time = packet.pts if packet.pts is not None else packet.dts
                if not packet.size or time is None:
                    continue
                seconds = time * packet.time_base
                if end is not None and packet.stream_index == video_index and seconds > end + _REORDERED_SECONDS:
                    break
                if (begin is None or seconds >= begin) and (end is None or seconds < end):
                    weight = weights.setdefault(packet.stream_index, Weight())
                    weight.first_bytes = weight.first_bytes or packet.size
                    weight.packets += 1
                    weight.bytes += packet.size
        except (av.error.FFmpegError, OSError) as error:
            if not weights:
                raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    return weights


def attached_bytes(path: Path) -> dict[int, int]:
    """What lies in a file beside its packets, fonts for instance, by index. Raises InputError."""
    with open_input(path) as opened:
        streams: Any = opened.streams
        return {stream.index: len(stream.data or b"") for stream in streams if stream.type == "attachment"}
