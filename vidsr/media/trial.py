"""Trials: what a container really keeps, found by writing it into memory and reading it back."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np

__all__ = ["REFUSALS", "Written", "add_silence", "written_back"]

REFUSALS = (av.error.FFmpegError, OSError, ValueError)
"""How a container says no."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A track as a reader of the new file meets it. codec: empty where no reader would know it."""

    kind: str
    codec: str
    tags: Mapping[str, str]
    disposition: int


def written_back(
    format: str, write: Callable[[Any], None], options: Mapping[str, str] | None = None
) -> tuple[dict[str, str], list[Written]]:
    """The tags and tracks of a file that `write` fills. Raises one of `REFUSALS`.

    write: called with the open output. options: the container's.
    """
    memory = io.BytesIO()
    with av.open(memory, "w", format=format, container_options=dict(options or {})) as output:
        write(output)
    memory.seek(0)
    with av.open(memory, metadata_errors="replace") as opened:
        return dict(opened.metadata), [_written(stream) for stream in opened.streams]


def _written(stream: Any) -> Written:
    context = stream.codec_context
    return Written(
        kind=stream.type or "",
        codec=context.codec.canonical_name if context is not None else "",
        tags=dict(stream.metadata),
        disposition=int(stream.disposition),
    )


def add_silence(output: Any, format: str) -> None:
    """Adds and writes a short sound track: company for what alone makes no valid file of a format."""
    track = output.add_stream("libopus" if format == "webm" else "aac", rate=48000)
    silence = av.AudioFrame.from_ndarray(np.zeros((2, 4096), np.float32), format="fltp", layout="stereo")
    silence.sample_rate, silence.pts, silence.time_base = 48000, 0, Fraction(1, 48000)
    output.mux(track.encode(silence))
    output.mux(track.encode(None))
