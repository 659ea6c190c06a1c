"""Encodes frames in closed segments, each its own file, so that what is done stays done whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from vidsr.frame import Frame, VideoTrack
from vidsr.media.encoder import EncoderSettings
from vidsr.media.segment import SegmentInfo, SegmentWriter
from vidsr.sinks import Outcome
from vidsr.sinks.workspace import Workspace

__all__ = ["SegmentSink", "segment_frames"]

_FRAMES, _RATED_FRAMES = 250, 1000


def segment_frames(encoder: EncoderSettings) -> int:
    """How many frames make a segment: x264's own distance between key frames, so that none is added.

    Measured, segments of 100 frames cost 2 to 8 % of size, those of 250 nothing. An encoder that aims at a bit rate
    begins anew each time and needs more.
    """
    return _RATED_FRAMES if encoder.rated else _FRAMES


class SegmentSink:
    """Writes segments into a workspace.

    A segment ends before a key frame of the source, which is where scenes change, once it is long enough, and
    anyhow at twice that length. These places depend on the source alone: a run that is taken up again cuts as the
    uninterrupted one would.

    before_adding: called before a segment is vouched for; what it raises keeps that from happening.
    rest: after a run that was stopped with `keep_rest`, the closed but not whole segment at its end, in no journal.
    """

    overrun: Literal["wait", "drop"] = "wait"

    def __init__(
        self,
        workspace: Workspace,
        encoder: EncoderSettings,
        *,
        before_adding: Callable[[], None],
        keep_rest: bool = False,
    ) -> None:
        self.rest: SegmentInfo | None = None
        self._workspace, self._encoder = workspace, encoder
        self._before_adding, self._keep_rest = before_adding, keep_rest
        self._written = sum(segment.bytes for segment in workspace.segments)
        self._video: VideoTrack | None = None
        self._current: SegmentWriter | None = None
        self._frames = 0

    @property
    def written_bytes(self) -> int:
        """Of encoded video so far, earlier runs included."""
        current = self._current
        return self._written + (current.written_bytes if current is not None else 0)

    def open(self, video: VideoTrack) -> None:
        self._video = video

    def write(self, frame: Frame) -> None:
        assert self._video is not None
        enough = segment_frames(self._encoder)
        if self._frames >= 2 * enough or (self._frames >= enough and frame.key):
            self._close_segment()
        if self._current is None:
            self._current = SegmentWriter(self._workspace.next_segment(), self._video, self._encoder)
        self._current.write(frame)
        self._frames += 1

    def close(self, outcome: Outcome) -> None:
        try:
            if self._current is not None and outcome == "complete":
                self._close_segment()
            elif self._current is not None and outcome == "stopped" and self._keep_rest:
                self.rest = self._current.close()
                self._current = None
        finally:
            if self._current is not None:
                self._current.abandon()
                self._current = None

    def _close_segment(self) -> None:
        assert self._current is not None
        segment = self._current.close()
        self._before_adding()
        self._workspace.add(segment)
        self._current, self._frames = None, 0
        self._written += segment.bytes
