"""The place of the one viewer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vidsr.errors import VidsrError
from vidsr.preview.mailbox import Mailbox
from vidsr.preview.session import Session
from vidsr.preview.wire import Command

__all__ = ["Seat"]


class Seat:
    """Who comes takes it from whoever has it. The session hears of each viewer's coming and going once, in order.

    Called in the server's thread. visited: called when a viewer has been told what there is. failed: called with what a
    session raises; the viewer is told that it is broken.
    """

    def __init__(self, session: Session, *, visited: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        self._session, self._visited, self._failed = session, visited, failed
        self._mailbox: Mailbox | None = None

    def come(self, mailbox: Mailbox) -> None:
        if self._mailbox is not None:
            self._mailbox.tell({"tell": "taken"})
            self.leave(self._mailbox)
        self._mailbox = mailbox
        self._guarded(mailbox, self._session.attach, mailbox)
        self._visited()

    def leave(self, mailbox: Mailbox) -> None:
        """The viewer of that mailbox is gone, or has to go; nothing happens where it has gone before."""
        if mailbox is self._mailbox:
            self._mailbox = None
            self._guarded(mailbox, self._session.detach)
        mailbox.close()

    def order(self, mailbox: Mailbox, command: Command) -> None:
        if mailbox is self._mailbox:
            self._guarded(mailbox, self._session.take, command)

    def clear(self) -> None:
        if self._mailbox is not None:
            self.leave(self._mailbox)

    def _guarded(self, mailbox: Mailbox, call: Callable[..., None], *given: Any) -> None:
        try:
            call(*given)
        except Exception as error:
            told = str(error) if isinstance(error, VidsrError) else f"internal error: {type(error).__name__}: {error}"
            mailbox.tell({"tell": "broken", "text": told})
            self._failed(error)
