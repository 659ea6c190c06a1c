"""A session without a video, and the plainest of clients."""

from __future__ import annotations

import http.client
import queue
from collections.abc import Mapping
from threading import Event
from typing import Any
from urllib.parse import urlsplit

from vidsr.errors import InputError
from vidsr.preview.session import Outbox, Which
from vidsr.preview.wire import Command

PATIENCE_SECONDS = 20
"""For what comes at once on an idle machine."""


class FakeSession:
    """Notes everything that it hears, in order."""

    def __init__(self) -> None:
        self.heard: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.outbox: Outbox | None = None
        self.failure: str | None = None
        self.parting: str | None = None
        self.ended = Event()
        self.raises: dict[str, Exception] = {}

    def attach(self, outbox: Outbox) -> None:
        self.outbox = outbox
        outbox.tell({"tell": "source", "name": "fake"})
        self._hear("attach", outbox)

    def detach(self) -> None:
        self.outbox = None
        self._hear("detach", None)

    def take(self, command: Command) -> None:
        self._hear("take", command)

    def snapshot(self, which: Which) -> tuple[str, bytes]:
        self._hear("snapshot", which)
        if which == "original":
            raise InputError("nothing was shown yet")
        return 'fälm"\r\n.png', b"PNG of " + which.encode()

    def close(self) -> None:
        self._hear("close", None)

    def _hear(self, what: str, about: Any) -> None:
        self.heard.put((what, about))
        if what in self.raises:
            raise self.raises[what]

    def next(self) -> tuple[str, Any]:
        return self.heard.get(timeout=PATIENCE_SECONDS)

    def expect(self, *whats: str) -> None:
        assert [self.next()[0] for _ in whats] == list(whats)


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = response.status, response.headers, response.read()


def ask(
    address: str, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> Answer:
    """One request, sent as it is."""
    where = urlsplit(address)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=PATIENCE_SECONDS)
    try:
        connection.request(method, path, body, dict(headers or {}))
        return Answer(connection.getresponse())
    finally:
        connection.close()


def enter(address: str) -> dict[str, str]:
    """The headers of somebody who came in by the printed address, from the page there."""
    where = urlsplit(address)
    answer = ask(address, "GET", f"/?{where.query}")
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    return {"Cookie": answer.headers["Set-Cookie"].partition(";")[0], "Origin": f"http://{where.netloc}"}
