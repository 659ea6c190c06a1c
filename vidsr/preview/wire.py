"""What page and server say to each other."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = [
    "Choose",
    "Clock",
    "Command",
    "Job",
    "Look",
    "Pause",
    "Play",
    "Predict",
    "Seek",
    "Smooth",
    "Step",
    "StopJob",
    "packed",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """Go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """seconds: time of the picture on screen."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Seek:
    """Show the frame that is on screen at that time."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The next frame of the source (1) or the one before (-1)."""

    by: Literal[1, -1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choose:
    """Another model or scale; None for the model's own."""

    model: str | None
    scale: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Smooth:
    """What to do where the machine cannot keep up: auto takes a faster model, then a part of the picture."""

    how: Literal["auto", "drop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The middle of what the viewer looks at, as shares of the picture, 0..1."""

    x: float
    y: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Where the viewer's clock stands, and how it goes there: pictures shown and late since the page was loaded, and
    how far picture and sound are apart."""

    seconds: float
    shown: int
    late: int
    offset_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Predict:
    """Measure how long the whole job would take, and how large its output would be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Start the job."""

    target: str
    overwrite: bool
    crf: float | None
    preset: str | None
    encoder: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StopJob:
    """End it; what is done is kept."""


Command = Play | Pause | Seek | Step | Choose | Smooth | Look | Clock | Predict | Job | StopJob


def packed(header: Mapping[str, Any], parts: Sequence[bytes]) -> bytes:
    """A binary message: length of the header (4 bytes, little endian), the header as JSON, the parts."""
    text = json.dumps({**header, "parts": [len(part) for part in parts]}).encode()
    return b"".join([struct.pack("<I", len(text)), text, *parts])
