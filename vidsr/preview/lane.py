"""An engine for what is shown, with the threads that feed it and take its frames."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache, partial
from threading import Event, Thread
from typing import Any

from numpy.typing import NDArray

from vidsr.backends.base import Engine
from vidsr.frame import Frame
from vidsr.job.stream import Stream
from vidsr.media.picture import png_bytes
from vidsr.media.reader import VideoReader
from vidsr.media.shown import Shown
from vidsr.pipeline import Pipeline
from vidsr.preview.desk import Desk, Wish
from vidsr.preview.footage import Footage
from vidsr.preview.live import LiveReader, Pace, Ticket

__all__ = ["Lane", "Listener", "Shot"]

_SLOTS = 3
"""Enough to keep an engine busy; each more is one more frame of delay where the engine is the slowest."""
_COLORS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """A frame for the viewer, as files of that type: the whole picture as it was, and enlarged what `ticket.box` says.

    pixels: both as uint8 [H, W, 3], where they are without loss.
    """

    lane: Lane
    ticket: Ticket
    type: str
    original: bytes
    enlarged: bytes
    pixels: tuple[NDArray[Any], NDArray[Any]] | None = None

    def header(self) -> dict[str, Any]:
        """Of the message to the viewer."""
        held, box, source = self.ticket.held, self.ticket.box, self.lane.stream
        return {
            "kind": "picture",
            "serial": self.ticket.wish.serial,
            "seconds": float(held.seconds),
            "pts": str(held.frame.pts * held.frame.time_base),
            "key": held.frame.key,
            "exact": self.pixels is not None,
            "types": [self.type, self.type],
            "box": [box.left, box.top, box.width, box.height],
            "model": source.settings.model,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Who is told of what a lane does; called in the lane's threads.

    failed: what ended the lane, told once. ended: there is no frame any more for this wish.
    """

    shot: Callable[[Shot], None]
    failed: Callable[[Lane, BaseException], None]
    ended: Callable[[Wish], None]


class Lane:
    """One stream's engine at work on a desk's wishes, from `start` to `close`.

    name: by which wishes go to it. size: (height, width) of the part that is enlarged, None for all. quality: of JPEG,
    asked for each frame. ready: set when the engine is there, or will never be; then `failure` says why.
    """

    def __init__(
        self,
        name: str,
        stream: Stream,
        desk: Desk,
        *,
        size: tuple[int, int] | None,
        quality: Callable[[], int],
        listener: Listener,
    ) -> None:
        self.name, self.stream, self.size, self.ready = name, stream, size, Event()
        self.failure: BaseException | None = None
        self._desk, self._quality, self._listener = desk, quality, listener
        layout = stream.source.video.layout
        rate = stream.source.video.rate or Fraction(25)
        self.pace = Pace(float(1 / (2 * rate if stream.deinterlace == "field" else rate)))
        # Of the source's frames one for the reader's thread and one for ours: they belong to one each.
        self._original, self._exact = (lru_cache(_COLORS)(partial(Shown, layout)) for _ in range(2))
        self._enlarged = Shown.enlarged(stream.layout, stream.color, layout)
        self._spec = stream.spec()
        self.reader = LiveReader(
            name, desk, self._footage, layout, self.pace,
            size=size, picture=self._picture, ended=listener.ended, end=float(stream.source.duration_seconds or 0),
        )  # fmt: skip
        self._pipeline = Pipeline(
            replace(self._spec, open_reader=lambda: self.reader, open_engine=self._open_engine, slots=_SLOTS)
        )
        self._shots = 0
        self._asked = (time.perf_counter(), 0.0)
        self._thread = Thread(target=self._run, name=f"vidsr-show-{name}")

    @property
    def engine(self) -> str:
        """What really runs, once it does."""
        return self._pipeline.engine_description

    def busy(self) -> dict[str, float]:
        """Share of the time that each stage was at work lately, 0..1; "show" makes what the viewer gets."""
        now, at_work = time.perf_counter(), self.reader.busy_seconds
        (then, before), self._asked = self._asked, (now, at_work)
        _, shares = self._pipeline.meter.recent(self._shots)
        decode = min(1.0, max(0.0, at_work - before) / max(now - then, 1e-9))
        return {"decode": round(decode, 3), "model": shares["model"], "show": shares["encode"]}

    def start(self) -> None:
        self._pipeline.__enter__()
        self._thread.start()

    def close(self) -> None:
        """Ends all threads; a frame in the engine is finished first."""
        self._desk.leave(self.name)
        self._pipeline.abort()
        self._thread.join()
        self._pipeline.__exit__(None, None, None)

    def _footage(self, given_up: Callable[[], bool]) -> Footage:
        def reader(start: Fraction | None) -> VideoReader:
            return self.stream.reader(start, given_up=given_up)

        return Footage(self.stream.source, reader, given_up)

    def _open_engine(self) -> Engine:
        engine = self._spec.open_engine()
        self.ready.set()
        return engine

    def _picture(self, frame: Frame) -> bytes:
        return self._original(frame.color).jpeg(frame.planes, self._quality())

    def _run(self) -> None:
        try:
            for frame in self._pipeline.frames():
                ticket = self.reader.tickets.popleft()
                if self._desk.holds(ticket.wish):
                    self._show(ticket, frame)
                self._shots += 1
                self._learn()
        except BaseException as error:
            self.failure = error
            if self.ready.is_set():
                self._listener.failed(self, error)
            self.ready.set()

    def _show(self, ticket: Ticket, frame: Frame) -> None:
        with self._pipeline.meter.at("encode"):
            enlarged = self._enlarged.jpeg(frame.planes, self._quality())
        shot = Shot(lane=self, ticket=ticket, type="image/jpeg", original=ticket.original, enlarged=enlarged)
        self._listener.shot(shot)
        if ticket.planes is not None and self._desk.holds(ticket.wish):
            pixels = (self._exact(frame.color).rgb(ticket.planes), self._enlarged.rgb(frame.planes))
            original, enlarged = (png_bytes(image, fast=True) for image in pixels)
            self._listener.shot(replace(shot, type="image/png", original=original, enlarged=enlarged, pixels=pixels))

    def _learn(self) -> None:
        fps, shares = self._pipeline.meter.recent(self._shots)
        if fps:
            self.pace.learn(max(shares["model"], shares["encode"]) / fps)
