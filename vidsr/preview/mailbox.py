"""Messages on their way to one viewer, bounded however slow the link is."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from vidsr.preview.wire import packed, text_from_json

__all__ = ["Mailbox", "Message"]

_SOUND_BYTES = 1 << 20
"""5 s of stereo at 48 kHz."""
_WINDOW_BYTES = (1 << 16, 1 << 20, 1 << 23)
"""Of pictures under way: at least, to begin with, and at most."""
_QUICK_SECONDS, _SLOW_SECONDS = 0.2, 0.4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Message:
    """kind: "text", "picture" or "sound". number: of a picture or a sound once it is under way, from 1 on."""

    kind: str
    body: bytes
    number: int = 0
    since: float = 0.0


class Mailbox:
    """The Outbox of one viewer: a session's threads put in, the server takes out and says what has arrived.

    Buffers between here and the viewer, a tunnel's among them, hide how slow a link is; only an answer of the viewer
    tells. So pictures are under way from when they are sent until they are answered, and their bytes are bounded by a
    window that halves where an answer takes long and grows where it does not. Behind a full window one picture waits;
    the next takes its place, so the newest one always arrives. Sound is refused where too much is on its way. Texts
    are neither.

    wake: called from any thread when there is something to take. now: gives seconds that only grow.
    """

    def __init__(self, wake: Callable[[], None], now: Callable[[], float] = time.monotonic) -> None:
        self._wake, self._now = wake, now
        self._lock = Lock()
        self._waiting: deque[Message] = deque()
        self._under_way: deque[Message] = deque()
        self._window_bytes = _WINDOW_BYTES[1]
        self._number = 0
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def tell(self, message: Mapping[str, Any]) -> None:
        body = text_from_json(message).encode()
        with self._lock:
            if not self._closed:
                self._waiting.append(Message(kind="text", body=body))
        self._wake()

    def send(self, header: Mapping[str, Any], parts: Sequence[bytes]) -> bool:
        message = Message(kind=header["kind"], body=packed(header, parts))
        with self._lock:
            if self._closed:
                return False
            if message.kind == "sound" and self._bytes("sound", self._waiting, self._under_way) > _SOUND_BYTES:
                return False
            behind = [other for other in self._waiting if other.kind == message.kind == "picture"]
            full = bool(behind) and self._bytes("picture", self._waiting, self._under_way) >= self._window_bytes
            if full:
                self._waiting.remove(behind[-1])
            self._waiting.append(message)
        self._wake()
        return not full

    def take(self) -> Message | None:
        """What may go out now; from then on it is under way. None where nothing may."""
        with self._lock:
            room = self._bytes("picture", self._under_way) < self._window_bytes
            for message in self._waiting:
                if message.kind != "picture" or room:
                    self._waiting.remove(message)
                    return message if message.kind == "text" else self._sent(message)
        return None

    def _sent(self, message: Message) -> Message:
        self._number += 1
        sent = Message(kind=message.kind, body=message.body, number=self._number, since=self._now())
        self._under_way.append(sent)
        return sent

    def arrived(self, number: int) -> None:
        """The viewer has the message of that number and all before it."""
        least, _, most = _WINDOW_BYTES
        with self._lock:
            while self._under_way and self._under_way[0].number <= number:
                message = self._under_way.popleft()
                taken = self._now() - message.since
                if message.kind == "picture" and taken > _SLOW_SECONDS:
                    self._window_bytes = max(least, self._window_bytes // 2)
                elif message.kind == "picture" and taken < _QUICK_SECONDS:
                    self._window_bytes = min(most, self._window_bytes * 5 // 4)
        self._wake()

    def close(self) -> None:
        """Nothing more is taken in, and of what waits only the texts go out."""
        with self._lock:
            self._closed = True
            self._waiting = deque(message for message in self._waiting if message.kind == "text")
        self._wake()

    @staticmethod
    def _bytes(kind: str, *queues: deque[Message]) -> int:
        return sum(len(message.body) for queue in queues for message in queue if message.kind == kind)
