"""A sink that only counts: for measuring everything but the encoder."""

from __future__ import annotations

from typing import Literal

from vidsr.frame import Frame, VideoTrack
from vidsr.sinks import Outcome

__all__ = ["NullSink"]


class NullSink:
    """Counts frames and forgets them."""

    overrun: Literal["wait", "drop"] = "wait"

    def __init__(self) -> None:
        self.frames = 0

    def open(self, video: VideoTrack) -> None:
        self.frames = 0

    def write(self, frame: Frame) -> None:
        self.frames += 1

    def close(self, outcome: Outcome) -> None:
        pass
