"""What the viewer wants, and where the viewer's clock stands: what the threads of a player look at."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from threading import Condition

__all__ = ["Desk", "Wish"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be shown.

    serial: its number; whatever was made for an earlier one is void. lane: who makes it, by name. seconds: where.
    playing: from there on, else that frame alone. by: so many frames further, back where it is below 0.
    """

    serial: int
    lane: str
    seconds: Fraction
    playing: bool
    by: int = 0


class Desk:
    """The wish of the moment and the clock, shared by all threads.

    now: gives seconds that only grow, for tests to take the time's place.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._changed = Condition()
        self._now = now
        self._wish = Wish(serial=0, lane="", seconds=Fraction(0), playing=False)
        self._seconds, self._set_at, self._running = 0.0, 0.0, False
        self._left: set[str] = set()
        self.look = (0.5, 0.5)
        """The middle of what the viewer looks at, shares of width and height."""

    @property
    def wish(self) -> Wish:
        return self._wish

    @property
    def seconds(self) -> float:
        """Where the viewer's clock stands: as told last, and run on since."""
        with self._changed:
            return self._position()

    def put(self, *, lane: str, seconds: Fraction, playing: bool, by: int = 0) -> Wish:
        """A new wish, with the clock at its beginning. The clock stands until the viewer says that it runs."""
        with self._changed:
            self._wish = Wish(serial=self._wish.serial + 1, lane=lane, seconds=seconds, playing=playing, by=by)
            self._set(float(seconds), running=False)
            return self._wish

    def told(self, seconds: float) -> None:
        """The viewer's clock, while it runs."""
        with self._changed:
            if self._wish.playing:
                self._set(seconds, running=True)

    def next(self, lane: str, done: int, *, every: bool = False) -> Wish | None:
        """Waits for a wish for that lane, or every wish, with a higher number than `done`. None when the lane is to
        end."""
        with self._changed:
            while lane not in self._left and not (self._wish.serial > done and (every or self._wish.lane == lane)):
                self._changed.wait()
            return None if lane in self._left else self._wish

    def holds(self, wish: Wish) -> bool:
        """Whether that is still what is wanted."""
        return self._wish is wish and wish.lane not in self._left

    def wait_until(self, seconds: float, wish: Wish) -> bool:
        """Waits until the clock has got that far; False where the wish is another one before that."""
        with self._changed:
            while self.holds(wish):
                left = seconds - self._position()
                if left <= 0:
                    return True
                # A clock that stands will be set, which wakes us.
                self._changed.wait(left if self._running else None)
            return False

    def leave(self, lane: str) -> None:
        """Nobody waits for wishes for that lane any more."""
        with self._changed:
            self._left.add(lane)
            self._changed.notify_all()

    def _position(self) -> float:
        return self._seconds + (self._now() - self._set_at if self._running else 0.0)

    def _set(self, seconds: float, *, running: bool) -> None:
        self._seconds, self._set_at, self._running = seconds, self._now(), running
        self._changed.notify_all()
