"""Numbered pictures as one file that is read like any video."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from threading import Event

import av

from vidsr.errors import Cancelled, InputError, OutputError
from vidsr.media.demux import file_url, open_input

__all__ = ["HOLDS", "gather"]

HOLDS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
"""Pictures that QuickTime holds as they are, by file name suffix."""


def gather(files: Sequence[Path], target: Path, rate: Fraction, endings: Sequence[Event] = ()) -> None:
    """Puts the content of picture files, all of one kind, as frames into a QuickTime file, `rate` a second.

    Nothing is decoded, and the same pictures give the same file. Raises InputError, OutputError, and Cancelled
    at any of the `endings`.
    """
    try:
        with (
            open_input(files[0]) as first,
            av.open(file_url(target), "w", format="mov", options={"fflags": "+bitexact"}) as out,
        ):
            track = out.add_stream_from_template(first.streams.video[0])
            track.time_base = 1 / rate
            for number, path in enumerate(files):
                if any(ending.is_set() for ending in endings):
                    raise Cancelled(f"stopped: {number} of {len(files)} pictures were put together")
                packet = av.Packet(_content(path))
                packet.stream, packet.time_base, packet.is_keyframe = track, 1 / rate, True
                packet.pts = packet.dts = number
                packet.duration = 1
                out.mux(packet)
    except (av.error.FFmpegError, OSError, ValueError, IndexError) as error:
        raise OutputError(f"{target}: the pictures cannot be put together ({error})") from error


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not content:
        raise InputError(f"{path}: is empty; take it out, or put the picture there again")
    return content
