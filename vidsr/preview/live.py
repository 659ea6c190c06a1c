"""Reads what the viewer wants to see: a frame alone, or frames at the clock's pace with some left out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from vidsr.frame import Frame, FrameLayout, Plane
from vidsr.preview.desk import Desk, Wish
from vidsr.preview.footage import Footage, Held

__all__ = ["LEAD_SECONDS", "Box", "LiveReader", "Pace", "Ticket"]

LEAD_SECONDS = 0.6
"""How far ahead of the viewer's clock frames are made: what the link and the machine may stutter."""
_LAG_SECONDS = 2.0
"""Where decoding is further behind than that, it begins again at the clock."""
_SMOOTHING = 0.2
_LEAST_MARGIN, _MOST_MARGIN = 0.03, LEAD_SECONDS - 0.1
"""Seconds that frames come before their time, so that they are there in time."""
_LATE_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A part of the source's picture, in its pixels."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What is known of a frame on its way through the engine. original: of the whole picture, as the viewer gets it;
    planes: the same, of frames that are wanted exactly. begun: when it went off, of `time.perf_counter`."""

    wish: Wish
    held: Held
    box: Box
    original: bytes
    planes: tuple[Plane, ...] | None
    begun: float = field(default_factory=time.perf_counter)


class Pace:
    """Which frames to make, so that they are in time and evenly spread. Told of in several threads.

    cost: seconds that the slowest stage takes for a frame; 0 until it is known.
    """

    def __init__(self, frame_seconds: float) -> None:
        self.frame_seconds = frame_seconds
        self.cost = 0.0
        self._due, self._margin, self._heard = 0.0, _LEAST_MARGIN, (0, 0)

    @property
    def keeps_up(self) -> bool:
        return self.cost <= self.frame_seconds

    def begin(self, seconds: float) -> None:
        """A frame was taken, with none before it."""
        self._due = seconds + self._step()

    def due(self, clock: float, waiting: int) -> float:
        """When the next frame worth making is on screen. waiting: frames under way."""
        in_time = clock + (waiting + 1) * self.cost + self._margin
        if self.keeps_up:
            return in_time
        self._due = max(self._due, in_time)
        return self._due

    def taken(self) -> None:
        """The frame that was due is on its way."""
        self._due += self._step()

    def learn(self, cost: float) -> None:
        self.cost += (cost - self.cost) * (_SMOOTHING if self.cost else 1.0)

    def heard(self, shown: int, late: int) -> None:
        """Counts of the viewer's pictures so far: of the link, and of what comes between, nothing else tells."""
        (shown_before, late_before), self._heard = self._heard, (shown, late)
        if not 0 <= late_before <= late or shown <= shown_before:  # another viewer, or nothing new
            return
        if (late - late_before) > _LATE_SHARE * (shown - shown_before):
            self._margin = min(_MOST_MARGIN, self._margin * 1.5)
        else:
            self._margin = max(_LEAST_MARGIN, self._margin * 0.97)

    def _step(self) -> float:
        # A little less often than is just possible, or frames would pile up.
        return self.cost * 1.03


class LiveReader:
    """Fills the planes of a lane's engine with what the desk's wishes for it ask for; ends when the lane is left.

    footage: made with what it asks whether to go on. size: (height, width) of the part that is enlarged, None for all.
    picture: makes of a frame what the viewer gets. ended: told of a wish for which there is no frame any more, when the
    clock is there. end: of the file in seconds, as far as it is known. dropped: frames left out so far. busy_seconds:
    at work so far, without waiting. tickets: of the frames that are under way, in order.
    """

    def __init__(
        self,
        lane: str,
        desk: Desk,
        footage: Callable[[Callable[[], bool]], Footage],
        layout: FrameLayout,
        pace: Pace,
        *,
        size: tuple[int, int] | None,
        picture: Callable[[Frame], bytes],
        ended: Callable[[Wish], None],
        end: float,
    ) -> None:
        self._lane, self._desk, self._layout, self._pace = lane, desk, layout, pace
        self._footage = footage(self._given_up)
        self._size, self._picture, self._ended = size, picture, ended
        self._done = 0
        self._wish: Wish | None = None
        self._end = end
        self.tickets: deque[Ticket] = deque()
        self.dropped = 0
        self.busy_seconds = 0.0

    def read(self, planes: Sequence[Plane], /) -> Frame | None:
        """The next frame that is wanted; None when the lane is left."""
        begin = time.perf_counter()
        try:
            return self._next(planes)
        finally:
            self.busy_seconds += time.perf_counter() - begin

    def _next(self, planes: Sequence[Plane]) -> Frame | None:
        while True:
            held = self._following()
            if held is None:
                with self._idle():
                    wish = self._wish = self._desk.next(self._lane, self._done)
                if wish is None:
                    return None
                self._done = wish.serial
                held = self._first(wish)
                if held is None or not self._desk.holds(wish):
                    self._wish = None
                    self._ended(wish)
                    continue
            assert self._wish is not None
            return self._given(self._wish, held, planes)

    def close(self) -> None:
        self._footage.close()

    def _first(self, wish: Wish) -> Held | None:
        held = self._footage.beside(wish.seconds, wish.by) if wish.by else self._footage.at(wish.seconds)
        if held is not None:
            self._pace.begin(float(held.seconds))
        return held

    def _following(self) -> Held | None:
        """The next frame of a wish to play; None where there is none, or it is no more wanted."""
        wish = self._wish
        if wish is None or not wish.playing:
            return None
        while self._desk.holds(wish):
            clock, before = self._desk.seconds, self._footage.passed
            due = self._pace.due(clock, len(self.tickets))
            held = self._footage.next(Fraction(due))
            self.dropped += self._footage.passed - before
            if held is not None and float(held.seconds) < clock - _LAG_SECONDS:
                held = self._footage.at(Fraction(clock))
            if held is None:
                with self._idle():
                    over = self._desk.wait_until(self._end, wish)
                if over:
                    self._ended(wish)
                break
            self._end = max(self._end, float(held.seconds + held.frame.duration * held.frame.time_base))
            with self._idle():
                in_time = self._desk.wait_until(float(held.seconds) - LEAD_SECONDS, wish)
            if not in_time:
                break
            self._pace.taken()
            return held
        self._wish = None
        return None

    def _given_up(self) -> bool:
        return self._wish is not None and not self._desk.holds(self._wish)

    @contextmanager
    def _idle(self) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.busy_seconds -= time.perf_counter() - begin

    def _given(self, wish: Wish, held: Held, planes: Sequence[Plane]) -> Frame:
        box = self._box()
        for index, (own, plane) in enumerate(zip(planes, held.frame.planes, strict=True)):
            down, right = self._layout.chroma if self._layout.family == "yuv" and index in (1, 2) else (1, 1)
            top, left = box.top // down, box.left // right
            np.copyto(own, plane[top : top + own.shape[0], left : left + own.shape[1]])
        kept = None if wish.playing else tuple(plane.copy() for plane in held.frame.planes)
        original = self._picture(held.frame)
        self.tickets.append(Ticket(wish=wish, held=held, box=box, original=original, planes=kept))
        return replace(held.frame, planes=planes)

    def _box(self) -> Box:
        """Where the enlarged part lies: around what the viewer looks at."""
        layout = self._layout
        if self._size is None:
            return Box(left=0, top=0, width=layout.width, height=layout.height)
        height, width = self._size
        x, y = self._desk.look
        down, right = layout.chroma
        top = min(max(0, round(y * layout.height - height / 2)), layout.height - height) // down * down
        left = min(max(0, round(x * layout.width - width / 2)), layout.width - width) // right * right
        return Box(left=left, top=top, width=width, height=height)
