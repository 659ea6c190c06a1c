"""The two ways to a viewer: a WebSocket, and long polling where one cannot be had."""

from __future__ import annotations

import asyncio
import re
import struct
from contextlib import suppress

from aiohttp import WSCloseCode, WSMsgType, web

from vidsr.preview.gate import refusal
from vidsr.preview.mailbox import Mailbox
from vidsr.preview.seat import Seat
from vidsr.preview.wire import LONGEST_BYTES, BadMessage, Command, command_from_json, json_from_text

__all__ = ["Bell", "Polls", "converse"]

_HEARTBEAT_SECONDS = 30
"""Half of it is what a large picture may take on its way, for nothing comes back meanwhile."""
_POLL_SECONDS = 10
_GONE_SECONDS = 20
_FAREWELL_SECONDS = 0.3


class Bell:
    """Rings in the loop that made it, from any thread."""

    def __init__(self) -> None:
        self._event, self._loop = asyncio.Event(), asyncio.get_running_loop()

    def ring(self) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._event.set)

    async def heard(self) -> None:
        """Waits until it has rung since the last time."""
        await self._event.wait()
        self._event.clear()


async def converse(request: web.Request, seat: Seat) -> web.StreamResponse:
    """One viewer, over a WebSocket, until either side ends it."""
    bell = Bell()
    mailbox = Mailbox(bell.ring)
    socket = web.WebSocketResponse(
        max_msg_size=LONGEST_BYTES + 1, heartbeat=_HEARTBEAT_SECONDS, autoping=False, compress=False,
        timeout=_FAREWELL_SECONDS,
    )  # fmt: skip
    await socket.prepare(request)
    seat.come(mailbox)
    sending = asyncio.create_task(_send(socket, mailbox, bell))
    try:
        await _listen(socket, mailbox, seat)
    finally:
        seat.leave(mailbox)
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await sending
    return socket


async def _listen(socket: web.WebSocketResponse, mailbox: Mailbox, seat: Seat) -> None:
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            try:
                seat.order(mailbox, command_from_json(json_from_text(message.data)))
            except BadMessage as error:
                await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=str(error).encode())
        elif message.type is WSMsgType.PING:
            await socket.pong(message.data)
        elif message.type is WSMsgType.PONG:
            if re.fullmatch(rb"[1-9]\d{0,15}", message.data):
                mailbox.arrived(int(message.data))
        elif message.type is WSMsgType.BINARY:
            await socket.close(code=WSCloseCode.UNSUPPORTED_DATA, message=b"commands are text")


async def _send(socket: web.WebSocketResponse, mailbox: Mailbox, bell: Bell) -> None:
    """Everything the mailbox gives. A browser answers a ping by itself, which tells that what went before is there."""
    with suppress(ConnectionError):
        while True:
            closed = mailbox.closed  # asked first: what was told before it is then still taken
            message = mailbox.take()
            if message is None and closed:
                await socket.close(code=WSCloseCode.GOING_AWAY)
                return
            if message is None:
                await bell.heard()
            elif message.kind == "text":
                await socket.send_str(message.body.decode())
            else:
                await socket.send_bytes(message.body)
                await socket.ping(str(message.number).encode())


class _Polling:
    """A viewer that polls: under way is what the last answer had, arrived once it asks again."""

    def __init__(self) -> None:
        self.bell = Bell()
        self.mailbox = Mailbox(self.bell.ring)
        self.turn = 0
        self.gone: asyncio.TimerHandle | None = None
        self._last = 0

    async def answer(self) -> bytes:
        """Messages, one behind the other: kind (0 text, 1 binary), length (4 bytes, little endian), body. None come
        where a later poll takes over, or nothing happens for long."""
        self.turn += 1
        turn = self.turn
        self.mailbox.arrived(self._last)  # rings: an earlier poll ends with that
        with suppress(TimeoutError):
            async with asyncio.timeout(_POLL_SECONDS):
                while turn == self.turn:
                    if found := self._taken():
                        return found
                    if self.mailbox.closed:
                        break
                    await self.bell.heard()
        return b""

    def _taken(self) -> bytes:
        found = []
        while message := self.mailbox.take():
            self._last = message.number or self._last
            found += [struct.pack("<BI", message.kind != "text", len(message.body)), message.body]
        return b"".join(found)


class Polls:
    """All viewers that poll, by the name that their page has given itself."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._viewers: dict[str, _Polling] = {}

    async def serve(self, request: web.Request) -> web.Response:
        try:
            name, commands = _asked(await request.read())
        except BadMessage as error:
            return refusal(400, str(error))
        viewer = self._viewers.get(name)
        if viewer is None:
            viewer = self._viewers[name] = _Polling()
            self._seat.come(viewer.mailbox)
        if viewer.gone is not None:
            viewer.gone.cancel()
        viewer.gone = asyncio.get_running_loop().call_later(_GONE_SECONDS, self._forget, name, viewer)
        for command in commands:
            self._seat.order(viewer.mailbox, command)
        body = await viewer.answer()
        if viewer.mailbox.closed:
            self._forget(name, viewer)
        return web.Response(body=body, content_type="application/octet-stream")

    def _forget(self, name: str, viewer: _Polling) -> None:
        if self._viewers.get(name) is viewer:
            del self._viewers[name]
        if viewer.gone is not None:
            viewer.gone.cancel()
        self._seat.leave(viewer.mailbox)


def _asked(body: bytes) -> tuple[str, list[Command]]:
    message = json_from_text(body)
    if not isinstance(message, dict) or message.keys() != {"id", "do"}:
        raise BadMessage("not a poll")
    name, commands = message["id"], message["do"]
    if not isinstance(name, str) or not re.fullmatch(r"[0-9a-f]{8,64}", name):
        raise BadMessage("bad id")
    if not isinstance(commands, list):
        raise BadMessage("bad do")
    return name, [command_from_json(command) for command in commands]
