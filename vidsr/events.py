"""What a run tells whoever watches it. numpy-free, print-free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Event", "Observer", "Progress", "Report", "Stage", "Start", "Warned"]

Stage = Literal["decode", "model", "encode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The job is resolved and about to run; everything in words for people."""

    source: str
    target: str
    source_size: tuple[int, int]
    target_size: tuple[int, int]
    model: str
    engine: str
    encoder: str
    frames: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run stands.

    frames: written so far, of `total` if known. fps: over the last seconds. written_bytes: output so far.
    busy: share of the last seconds each stage was at work (0..1). limit: the busiest, None before there is one.
    """

    frames: int
    total: int | None
    seconds: float
    fps: float
    written_bytes: int
    busy: dict[Stage, float]
    limit: Stage | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Something the user should know of; the run goes on."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The run is over and the output has its name.

    seconds: from the first frame's decoding to the finished file, without loading the model. busy: see `Progress`,
    over the whole run. complete: False when it was stopped early on request.
    """

    target: str
    frames: int
    seconds: float
    fps: float
    written_bytes: int
    busy: dict[Stage, float]
    engine: str
    warnings: tuple[str, ...]
    complete: bool = True


Event = Start | Progress | Warned | Report
Observer = Callable[[Event], None]
