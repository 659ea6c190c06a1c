"""A job under way, for a page to look at."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from threading import Event
from typing import Any

from vidsr.color import ColorTags
from vidsr.errors import InputError, first_line
from vidsr.events import Event as RunEvent
from vidsr.frame import Frame, Plane
from vidsr.job import Job
from vidsr.media.picture import png_bytes
from vidsr.media.shown import Shown, orientation_of
from vidsr.preview import wire
from vidsr.preview.session import Outbox, Which
from vidsr.preview.show import about, picture_name, upright
from vidsr.preview.told import JobTold
from vidsr.preview.work import command_line

__all__ = ["WatchSession"]

_QUALITY = 90
_EVERY_SECONDS = 1.0
_REST = 100
"""Making a pair to look at takes at most one part in so many of the encoder's thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """Copies of a frame's planes. seconds: from the beginning of the file."""

    original: Sequence[Plane]
    enlarged: Sequence[Plane]
    color: ColorTags
    seconds: float


class _Painter:
    """Pictures of both, by one thread. color: of the source's frames."""

    def __init__(self, job: Job, color: ColorTags) -> None:
        self.color = color
        source = job.source.video.layout
        self._original = Shown(source, color)
        self._enlarged = Shown.enlarged(job.video.layout, job.video.color, source)

    def jpegs(self, pair: _Pair) -> list[bytes]:
        return [self._original.jpeg(pair.original, _QUALITY), self._enlarged.jpeg(pair.enlarged, _QUALITY)]

    def pixels(self, pair: _Pair) -> tuple[Any, Any]:
        """(original, enlarged), uint8 [H, W, 3]."""
        return self._original.rgb(pair.original), self._enlarged.rgb(pair.enlarged)


class WatchSession:
    """The session of `--watch`, see `Session`. The run gives it its frames and its events, and all that costs anything
    is done while a viewer is there.

    stop: of the run, which the viewer may end early, too. now: gives seconds that only grow, for tests to take the
    time's place.
    """

    def __init__(self, job: Job, stop: Event, now: Callable[[], float] = time.monotonic) -> None:
        self._job, self._stop, self._now = job, stop, now
        settings, source, target = job.settings, job.source.path, job.path
        again = command_line(source, target, replace(settings, resume=True))
        self._told = JobTold(resume=lambda: again, state="running")
        self._told.told.change(text="starting", target=str(target), command=command_line(source, target, settings))
        self._outbox: Outbox | None = None
        self._painter: _Painter | None = None
        self._pair: _Pair | None = None
        self._sent: tuple[dict[str, Any], list[bytes]] | None = None
        self._due = -inf

    def event(self, event: RunEvent) -> None:
        """Of the run."""
        self._told(event)
        if self._stop.is_set():
            self._told.stopping()

    def frame(self, frame: Frame) -> None:
        """Of the run, in the encoder's thread; see `vidsr.job.Tap`. No picture that fails does the run any harm."""
        outbox = self._outbox
        if outbox is None:
            return
        begin = self._now()
        if begin < self._due:
            return
        try:
            self._send(frame, outbox)
        except Exception as error:
            outbox.tell({"tell": "notice", "text": f"no pictures: {first_line(error)}", "level": "warning"})
            self._due = inf
            return
        done = self._now()
        self._due = max(begin + _EVERY_SECONDS, done + _REST * (done - begin))

    def failed(self, text: str) -> None:
        """The run has ended with this error."""
        self._told.failed(text)

    def attach(self, outbox: Outbox) -> None:
        outbox.tell(self._source())
        outbox.tell(self._state())
        self._told.told.look(outbox.tell)
        if self._sent is not None:
            outbox.send(*self._sent)
        self._due = -inf
        self._outbox = outbox

    def detach(self) -> None:
        self._outbox = None
        self._told.told.look(None)

    def take(self, command: wire.Command) -> None:
        if isinstance(command, wire.StopJob):
            self._stop.set()
            self._told.stopping()

    def snapshot(self, which: Which) -> tuple[str, bytes]:
        pair, job = self._pair, self._job
        if pair is None:
            raise InputError("nothing was shown yet that could be kept")
        pixels = _Painter(job, pair.color).pixels(pair)
        image = upright(pixels, orientation_of(job.source.video.display_matrix), which)
        return picture_name(job.source.path, pair.seconds, which), png_bytes(image)

    def close(self) -> None:
        self.detach()

    def _send(self, frame: Frame, outbox: Outbox) -> None:
        job = self._job
        when = frame.pts * frame.time_base
        copies = [tuple(plane.copy() for plane in planes) for planes in (frame.source, frame.planes)]
        seconds = float(when - job.source.start_seconds)
        self._pair = pair = _Pair(original=copies[0], enlarged=copies[1], color=frame.color, seconds=seconds)
        if self._painter is None or self._painter.color != frame.color:
            self._painter = _Painter(job, frame.color)
        layout = job.source.video.layout
        header = {
            "kind": "picture",
            "serial": 0,
            "seconds": seconds,
            "pts": str(when),
            "key": frame.key,
            "exact": False,
            "types": ["image/jpeg"] * 2,
            "box": [0, 0, layout.width, layout.height],
        }
        self._sent = header, self._painter.jpegs(pair)
        outbox.send(*self._sent)

    def _source(self) -> dict[str, Any]:
        return about(self._job.source) | {
            "mode": "watch",
            "sound": False,
            "models": [],
            "target": str(self._job.path),
            "encoders": [],
        }

    def _state(self) -> dict[str, Any]:
        layout = self._job.video.layout
        return {
            "tell": "state",
            "playing": False,
            "serial": 0,
            "seconds": 0.0,
            "model": self._job.engine.model.name,
            "scale": f"{layout.width / self._job.source.video.layout.width:g}",
            "size": [layout.width, layout.height],
            "smooth": "auto",
            "crop": None,
            "loading": None,
            "ended": False,
        }
