"""The seam between the server and what is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from vidsr.preview.wire import Command

__all__ = ["Outbox", "Session", "Which"]

Which = Literal["pair", "original", "enlarged"]


class Outbox(Protocol):
    """Takes messages for the one viewer; from any thread, and never waits."""

    def tell(self, message: Mapping[str, Any]) -> None:
        """Something to know, as JSON; always arrives while the viewer is there."""

    def send(self, header: Mapping[str, Any], parts: Sequence[bytes]) -> bool:
        """A picture or sound; False where the link is so slow that something was left out: this sound, or the picture
        that still waited. The newest picture always arrives."""


class Session(Protocol):
    """What a page shows: a preview, or a job under way. Methods are called in the server's thread and return at once,
    but for `snapshot` and `close`, which have threads of their own."""

    def attach(self, outbox: Outbox) -> None:
        """A viewer has come: tells it everything it must know, and works from now on."""

    def detach(self) -> None:
        """The viewer is gone: all work that only it would see ends."""

    def take(self, command: Command) -> None:
        """What the viewer wants."""

    def snapshot(self, which: Which) -> tuple[str, bytes]:
        """(file name, PNG) of what was shown last, lossless. Raises InputError where nothing was."""

    def close(self) -> None:
        """Ends all work, and waits for it."""
