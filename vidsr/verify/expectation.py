"""What an output must be, known before anyone looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from vidsr.frame import VideoTrack
from vidsr.media.container import Container, TrackPlan, container_of, plan_tracks
from vidsr.media.source import Deinterlace, SourceInfo, probe

__all__ = ["Expectation", "expectation_from"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """Nothing in here is taken from the output.

    start, end: the span of the source in seconds from its beginning, None for all of it. video: of the output, None
    where nobody knows it any more: then size and pixel format are free, and the rest must be as in the source.
    """

    source: SourceInfo
    container: Container
    tracks: tuple[TrackPlan, ...]
    start: Fraction | None = None
    end: Fraction | None = None
    deinterlace: Deinterlace = "off"
    video: VideoTrack | None = None


def expectation_from(
    source: Path,
    output: Path,
    *,
    start: Fraction | None = None,
    end: Fraction | None = None,
    deinterlace: Literal["auto", "off", "field", "frame"] = "auto",
    keep: frozenset[int] | None = None,
) -> Expectation:
    """What a run with these options must have made of `source`; of `output` only the name counts.

    deinterlace: "auto" is what a run without the option does. keep: tracks by index, None for all. Raises InputError,
    OutputError.
    """
    info, container = probe(source), container_of(output)
    return Expectation(
        source=info,
        container=container,
        tracks=plan_tracks(info, container, keep),
        start=start,
        end=end,
        deinterlace=info.video.deinterlace_for(deinterlace),
    )
