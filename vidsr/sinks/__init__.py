"""Sinks: where finished frames go."""

from __future__ import annotations

from typing import Literal, Protocol

from vidsr.frame import Frame, VideoTrack

__all__ = ["Outcome", "Sink"]

Outcome = Literal["complete", "stopped", "failed"]


class Sink(Protocol):
    """Takes finished frames. Passive; belongs to one thread.

    overrun: what the pipeline does when the sink is slower than the model: a file waits, a live view drops.
    """

    overrun: Literal["wait", "drop"]

    def open(self, video: VideoTrack) -> None:
        """Called once, before the first frame."""

    def write(self, frame: Frame) -> None:
        """Takes one frame; its planes are the caller's again when this returns."""

    def close(self, outcome: Outcome) -> None:
        """Called once, also when `open` was not or failed; frees everything even when it raises.

        complete: every frame came; the result gets its name. stopped: what came is finished and kept, recognisable
        as a part. failed: nothing half done is left behind.
        """
