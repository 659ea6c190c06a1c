"""What to do where a machine cannot keep up with a video."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from vidsr import models
from vidsr.errors import VidsrError
from vidsr.job import Settings
from vidsr.preview.lane import Lane

__all__ = ["Remedy", "remedy"]

_FAST = "span-fast"
_TOO_SLOW = 1.1
_USE = 0.85
"""Of the time there is, what a part of the picture may take."""
_LEAST, _STEP = 64, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """What to play instead, and what to say of it. settings: None where nothing is left but leaving out frames.

    size: (height, width) of the part that is enlarged, None for all.
    """

    settings: Settings | None
    size: tuple[int, int] | None
    text: str | None


def remedy(lane: Lane, *, chosen: bool) -> Remedy | None:
    """First a faster model, unless this one was chosen; then a part of the picture that can be done in time, and in the
    end only some of the frames. None for a lane that keeps up."""
    pace, settings = lane.pace, lane.stream.settings
    need = pace.cost / pace.frame_seconds
    if need < _TOO_SLOW:
        return None
    slow = f"{settings.model} is too slow here for {1 / pace.frame_seconds:.3g} fps"
    if not chosen and lane.size is None and settings.model != _FAST and _fits(settings):
        return Remedy(
            settings=replace(settings, model=_FAST),
            size=None,
            text=f"{slow}: {_FAST} plays instead; paused, you see {settings.model}",
        )
    layout, side = lane.stream.source.video.layout, math.sqrt(_USE / need)
    height, width = (int(length * side) // _STEP * _STEP for length in lane.size or (layout.height, layout.width))
    if min(height, width) < _LEAST:
        return Remedy(settings=None, size=None, text=f"{slow}: frames are left out")
    again = lane.size is not None
    text = f"{slow}: only a part is enlarged while it plays; paused, all of it is"
    return Remedy(settings=settings, size=(height, width), text=None if again else text)


def _fits(settings: Settings) -> bool:
    """Whether the faster model enlarges as much."""
    try:
        models.choose(_FAST, settings.scale)
    except VidsrError:
        return False
    return settings.size is None
