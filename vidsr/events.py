"""What a run tells whoever watches it. numpy-free, print-free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Event", "Observer", "Phase", "Progress", "Report", "Stage", "Start", "Warned"]

Stage = Literal["decode", "model", "encode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The job is resolved and about to run; everything in words for people.

    source_size, target_size: (width, height), None for pictures of several sizes. frames: expected, None if unknown;
    `resumed` of them are done already. unit: what is counted as frames.
    """

    source: str
    target: str
    source_size: tuple[int, int] | None
    target_size: tuple[int, int] | None
    model: str
    engine: str
    encoder: str
    frames: int | None
    resumed: int = 0
    unit: Literal["frame", "picture"] = "frame"


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
class Phase:
    """What comes before the first frame, "preparing" the engine where that takes long, and behind the last: "joining"
    the segments, then "verifying" the file; or "enlarging" one picture in tiles. done: share, 0..1.
    """

    name: Literal["preparing", "enlarging", "joining", "verifying"]
    done: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Something the user should know of; the run goes on."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The run is over.

    target: the output; after a run that was stopped, the playable part that was asked for, or None.
    frames: in the output, or kept, of which `resumed` were done by earlier runs. seconds, fps: of this run, from the
    first frame's decoding to the last one encoded, without loading the model. busy: see `Progress`, over the whole run.
    complete: False when it was stopped early on request; the work then lies in `kept` and can be resumed (None if
    there was nothing worth keeping). verified: whether the output was read again and found right; None where that was
    not asked for or was stopped. faults: the first differences.
    """

    target: str | None
    frames: int
    resumed: int
    seconds: float
    fps: float
    written_bytes: int
    busy: dict[Stage, float]
    engine: str
    warnings: tuple[str, ...]
    complete: bool = True
    kept: str | None = None
    verified: bool | None = None
    faults: tuple[str, ...] = ()


Event = Start | Progress | Phase | Warned | Report
Observer = Callable[[Event], None]
