"""Who may come in: only those that know the token, and only from a page of ours.

A page can start a job, which writes files. So every request needs the token, and what a foreign page could make a
browser send is refused: names that are not ours in `Host` (a foreign name that was bound to this address), and another
or no `Origin` where something could be changed.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web

__all__ = ["Gate", "refusal"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "vidsr",
    "X-Content-Type-Options": "nosniff",
}
_AGAIN = '<!doctype html><meta http-equiv="refresh" content="0;url=/"><title>vidsr</title>'


class Gate:
    """For one server. host: what it listens on, as asked for. port: the one it has.

    `pass_on` is the middleware that lets in, `dress` the signal that puts the headers on every answer.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host.lower(), port
        self._token = secrets.token_urlsafe(24)
        self._tickets: set[str] = set()
        self._cookie = f"vidsr-{port}"

    @property
    def token(self) -> str:
        return self._token

    def ticket(self) -> str:
        """A token for one use: other users of the machine can read what a browser is called with."""
        ticket = secrets.token_urlsafe(24)
        self._tickets.add(ticket)
        return ticket

    async def dress(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(_HEADERS)

    @web.middleware
    async def pass_on(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not self._is_ours(request):
            return refusal(403, "not the address of this preview")
        if request.path == "/" and request.method == "GET" and self._is_known(request.query.get("token", "")):
            answer = web.Response(status=303, headers={"Location": "/"})
            answer.set_cookie(self._cookie, self._token, httponly=True, samesite="Strict", path="/")
            return answer
        if not _same(request.cookies.get(self._cookie, ""), self._token):
            return self._stranger(request)
        if (request.method not in ("GET", "HEAD") or "Upgrade" in request.headers) and not _from_own_page(request):
            return refusal(403, "not from this preview's page")
        return await handler(request)

    def _stranger(self, request: web.Request) -> web.Response:
        # Who clicks the link in a page (a terminal in a browser) comes from a foreign place, so a strict cookie stays
        # behind, even after our own redirect. From here on it is our page that asks.
        if request.path == "/" and request.headers.get("Sec-Fetch-Site") == "cross-site":
            return web.Response(status=403, text=_AGAIN, content_type="text/html")
        return refusal(403, "open the address that vidsr printed, with its token")

    def _is_known(self, token: str) -> bool:
        if _same(token, self._token):
            return True
        used = [ticket for ticket in self._tickets if _same(token, ticket)]
        self._tickets.difference_update(used)
        return bool(used)

    def _is_ours(self, request: web.Request) -> bool:
        """Whether Host names this server. Loopback's own names may carry any port, as a tunnel's end has its own."""
        try:
            (host,) = request.headers.getall("Host")
            split = urlsplit(f"//{host}")
            name, port = split.hostname or "", split.port or 80
        except (KeyError, ValueError):
            return False
        if split.netloc != host or "@" in host or not host.isascii():
            return False
        address = _address(name)
        if name == "localhost" or (address is not None and address.is_loopback):
            return True
        if port != self._port:
            return False
        if address is not None:
            return address == self._reached(request)
        anywhere = _address(self._host)
        everywhere = anywhere is not None and anywhere.is_unspecified
        return name == self._host or (everywhere and name == socket.gethostname().lower())

    @staticmethod
    def _reached(request: web.Request) -> _Address | None:
        """The machine's address by which the request came."""
        found = request.transport.get_extra_info("sockname") if request.transport else None
        return _address(str(found[0])) if found else None


def refusal(status: int, line: str) -> web.Response:
    return web.Response(status=status, text=f"{line}\n")


def _from_own_page(request: web.Request) -> bool:
    origins = request.headers.getall("Origin", [])
    host = request.headers["Host"].lower()
    return len(origins) == 1 and origins[0].lower() in (f"http://{host}", f"https://{host}")


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(errors="backslashreplace"), wanted.encode())


def _address(name: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped if address.version == 6 else None) or address
