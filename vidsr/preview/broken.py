"""What is shown where nothing can be shown."""

from __future__ import annotations

from threading import Event

from vidsr.errors import InputError
from vidsr.preview.session import Outbox, Which
from vidsr.preview.wire import Command

__all__ = ["BrokenSession"]


class BrokenSession:
    """A session that has ended before it began, and says why."""

    def __init__(self, failure: str) -> None:
        self.failure: str | None = failure
        self._told = failure
        self.parting = None
        self.ended = Event()
        self.ended.set()

    def attach(self, outbox: Outbox) -> None:
        outbox.tell({"tell": "broken", "text": self._told})

    def detach(self) -> None:
        pass

    def take(self, command: Command) -> None:
        pass

    def snapshot(self, which: Which) -> tuple[str, bytes]:
        raise InputError(self._told)

    def close(self) -> None:
        pass
