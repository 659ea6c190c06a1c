"""The page, served to one viewer at a time."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import resources
from pathlib import PurePath
from threading import Event, Thread
from types import TracebackType
from typing import Any, get_args
from urllib.parse import quote

from vidsr.errors import InputError, OutputError, UsageError, first_line
from vidsr.preview.session import Session, Which

try:
    from aiohttp import web
except ImportError as error:
    raise UsageError(f"the page needs aiohttp: pip install 'vidsr[preview]' ({error})") from error

from vidsr.preview.gate import Gate, Handler, refusal
from vidsr.preview.seat import Seat
from vidsr.preview.transport import Bell, Polls, converse

__all__ = ["Server"]

_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
_LARGEST_BODY_BYTES = 1 << 16
_SHUTDOWN_SECONDS = 0.5


class Server:
    """Serves a session, which stays its owner's to close, in a thread of its own.

    host: a name or address of this machine. port: 0 for any that is free. visited: set once a viewer has come. failed:
    set once `failure` holds what the session raised and should not have.
    """

    def __init__(self, session: Session, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._session, self._host, self._port = session, host, port
        self._thread: Thread | None = None
        self.visited, self.failed = Event(), Event()
        self.failure: Exception | None = None

    def start(self) -> str:
        """The address to open, with its token. Raises UsageError for a host that is not this machine's, OutputError for
        a port that cannot be had."""
        listener = _listener(self._host, self._port)
        self._port = listener.getsockname()[1]
        self._gate = Gate(self._host, self._port)
        started: Future[None] = Future()
        self._thread = Thread(target=self._run, args=(listener, started), name="vidsr-page")
        self._thread.start()
        try:
            started.result()
        except Exception:
            self._thread.join()
            self._thread = None
            raise
        return self._address(self._gate.token)

    @property
    def host(self) -> str:
        return self._host

    @property
    def port(self) -> int:
        return self._port

    def once(self) -> str:
        """The address with a token that works once: what a program may be called with, which everybody can see."""
        return self._address(self._gate.ticket())

    def close(self) -> None:
        """Tells the viewer what it was still to be told, and ends within a second."""
        if self._thread is not None:
            self._ending.ring()
            self._thread.join()
            self._thread = None

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _address(self, token: str) -> str:
        return f"http://{_reachable(self._host)}:{self._port}/?token={token}"

    def _run(self, listener: socket.socket, started: Future[None]) -> None:
        try:
            with listener, asyncio.Runner() as runner:
                runner.run(self._serve(listener, started))
        except Exception as error:
            started.set_exception(error)

    async def _serve(self, listener: socket.socket, started: Future[None]) -> None:
        self._ending = Bell()
        silent = logging.Logger("vidsr.preview")  # of nobody's tree: remarks on a request quote it, token and all
        silent.addHandler(logging.NullHandler())
        runner = web.AppRunner(
            self._application(), access_log=None, logger=silent, handle_signals=False,
            shutdown_timeout=_SHUTDOWN_SECONDS, keepalive_timeout=75, lingering_time=1,
        )  # fmt: skip
        try:
            await runner.setup()
            site = web.SockSite(runner, listener)
            await site.start()
            started.set_result(None)
            await self._ending.heard()
            await site.stop()
        finally:
            there = [one.transport for one in runner.server.connections] if runner.server else []
            await runner.cleanup()
            for transport in there:
                if transport is not None:
                    transport.abort()  # one that hears nothing would stay open with what it was still to be told

    def _application(self) -> web.Application:
        seat = Seat(self._session, visited=self.visited.set, failed=self._fail)
        polls, files = Polls(seat), _files()
        painter = ThreadPoolExecutor(1, thread_name_prefix="vidsr-snapshot")

        async def page(request: web.Request) -> web.Response:
            found = files.get(request.match_info.get("name", "index.html"))
            if found is None:
                raise web.HTTPNotFound
            return web.Response(body=found[0], content_type=found[1], charset="utf-8" if "text" in found[1] else None)

        async def talk(request: web.Request) -> web.StreamResponse:
            return await converse(request, seat)

        async def snapshot(request: web.Request) -> web.Response:
            which: Any = request.query.get("of", "pair")
            if which not in get_args(Which):
                return refusal(400, "of: pair, original or enlarged")
            try:
                name, body = await asyncio.get_running_loop().run_in_executor(painter, self._session.snapshot, which)
            except InputError as error:
                return refusal(404, str(error))
            return web.Response(body=body, content_type="image/png", headers={"Content-Disposition": _attachment(name)})

        async def end(app: web.Application) -> None:
            seat.clear()
            painter.shutdown(wait=False, cancel_futures=True)

        app = web.Application(middlewares=[self._gate.pass_on, self._caught], client_max_size=_LARGEST_BODY_BYTES)
        app.on_response_prepare.append(self._gate.dress)
        app.on_shutdown.append(end)
        app.router.add_get("/", page)
        app.router.add_get("/page/{name}", page)
        app.router.add_get("/ws", talk, allow_head=False)
        app.router.add_get("/snapshot.png", snapshot, allow_head=False)
        app.router.add_post("/poll", polls.serve)
        return app

    @web.middleware
    async def _caught(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except (web.HTTPException, OSError):  # an answer, and a viewer that is gone
            raise
        except Exception as error:
            self._fail(error)
            return refusal(500, "internal error")

    def _fail(self, error: Exception) -> None:
        self.failure = self.failure or error
        self.failed.set()


def _listener(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        both = family == socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(address[:2], family=family, dualstack_ipv6=both)
    except (socket.gaierror, ValueError) as error:
        raise UsageError(f"--host {host}: no such address ({first_line(error)})") from error
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(f"--host {host}: is not an address of this machine; 0.0.0.0 takes all it has") from error
        if error.errno == errno.EADDRINUSE:
            raise OutputError(f"--port {port} is taken: name another, or 0 for any that is free") from error
        raise OutputError(f"--host {host} --port {port}: cannot be had ({error.strerror or error})") from error


def _reachable(host: str) -> str:
    """What to write into an address for it; for all addresses the machine has, the one that leads outside."""
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1", 9))  # an address for documents: nothing is sent
                host = probe.getsockname()[0]
            except OSError:
                pass
    return f"[{host}]" if ":" in host else host


def _files() -> dict[str, tuple[bytes, str]]:
    """Everything that is ever served, by name, with its type."""
    found = {}
    for file in resources.files("vidsr.preview").joinpath("page").iterdir():
        kind = _TYPES.get(PurePath(file.name).suffix)
        if kind is not None:
            found[file.name] = (file.read_bytes(), kind)
    return found


def _attachment(name: str) -> str:
    plain = "".join(
        letter if letter.isascii() and letter.isprintable() and letter not in '"\\' else "_" for letter in name
    )
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='', errors='replace')}"
