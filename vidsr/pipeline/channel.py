"""How stages hand items to each other."""

from __future__ import annotations

from collections import deque
from threading import Condition
from typing import Generic, TypeVar

__all__ = ["Aborted", "Channel", "Closed"]

T = TypeVar("T")


class Closed(Exception):
    """The other side is done and nothing is left."""


class Aborted(Exception):
    """The run was given up; what was on its way is void."""


class Channel(Generic[T]):
    """A queue between two threads that can be closed (the rest is still delivered) or aborted (nothing is).

    It has no bound of its own: what travels are slots, and their number is fixed.
    """

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._changed = Condition()
        self._closed = False
        self._aborted = False

    def put(self, item: T) -> None:
        """Raises Aborted."""
        with self._changed:
            if self._aborted:
                raise Aborted
            self._items.append(item)
            self._changed.notify()

    def get(self) -> T:
        """The next item, when there is one. Raises Closed or Aborted."""
        with self._changed:
            while not self._items and not self._closed and not self._aborted:
                self._changed.wait()
            return self._take()

    def get_now(self) -> T | None:
        """The next item if there is one now. Raises Closed or Aborted."""
        with self._changed:
            if not self._items and not self._closed and not self._aborted:
                return None
            return self._take()

    def close(self) -> None:
        """No more items will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Wakes everyone; from now on every call raises Aborted."""
        with self._changed:
            self._aborted = True
            self._items.clear()
            self._changed.notify_all()

    def _take(self) -> T:
        if self._aborted:
            raise Aborted
        if not self._items:
            raise Closed
        return self._items.popleft()
