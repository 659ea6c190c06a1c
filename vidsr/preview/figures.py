"""How it goes, in figures for the viewer."""

from __future__ import annotations

import time
from typing import Any

from vidsr.preview.lane import Lane
from vidsr.preview.quality import Quality

__all__ = ["Figures"]

_RATE_SECONDS = 2.0
_LEAST_SECONDS = 0.5
_AT_LIMIT = 0.95


class Figures:
    """Counts what is sent. For one thread."""

    def __init__(self, quality: Quality) -> None:
        self._quality = quality
        self._begun = time.monotonic()
        self._sent: list[float] = []
        self._latency, self._dropped = 0.0, 0

    @property
    def seconds(self) -> float:
        """Since the last beginning."""
        return time.monotonic() - self._begun

    def begin(self) -> None:
        """Something else is shown from now on."""
        self._begun = time.monotonic()
        self._sent.clear()

    def sent(self, complete: bool, latency_seconds: float) -> None:
        """A picture to play, so long after it was read; complete: the link left none out."""
        self._quality.sent(complete)
        self._latency = latency_seconds
        self._dropped += not complete
        if complete:
            self._sent.append(time.monotonic())

    def stats(self, live: Lane, still: Lane | None) -> dict[str, Any]:
        """The message about what `live` plays; by what `still` makes of whole frames the job is foretold."""
        now = time.monotonic()
        self._sent = [at for at in self._sent if now - at < _RATE_SECONDS]
        busy = live.busy()
        busiest = max(busy, key=lambda stage: busy[stage])
        limit = busiest if busy[busiest] > _AT_LIMIT or not live.pace.keeps_up else None
        job_fps = 1 / still.pace.cost if still is not None and still.pace.cost else None
        frames = still.stream.total if still is not None else None
        return {
            "tell": "stats",
            "source_fps": round(1 / live.pace.frame_seconds, 3),
            "made_fps": round(len(self._sent) / min(_RATE_SECONDS, max(_LEAST_SECONDS, self.seconds)), 2),
            "dropped": live.reader.dropped,
            "dropped_link": self._dropped,
            "latency_ms": round(self._latency * 1000),
            "limit": "link" if self._quality.held_back else limit,
            "busy": busy,
            "engine": live.engine,
            "job_fps": job_fps and round(job_fps, 2),
            "job_seconds": job_fps and frames and round(frames / job_fps, 1),
        }
