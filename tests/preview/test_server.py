"""Who comes in, who stays out, and what happens to those who misbehave."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from threading import Thread
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.preview.fake import PATIENCE_SECONDS, FakeSession, ask, enter
from vidsr.errors import OutputError, UsageError
from vidsr.preview.server import Server

SOURCE = {"tell": "source", "name": "fake"}


class Served:
    """A fake session on a server of its own."""

    def __init__(self, session: FakeSession, server: Server, address: str) -> None:
        self.session, self.server, self.address = session, server, address
        self.netloc = urlsplit(address).netloc
        self.token = urlsplit(address).query.partition("=")[2]

    def status(self, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> int:
        return ask(self.address, method, path, headers, body).status

    def works(self) -> bool:
        return self.status("GET", "/snapshot.png", enter(self.address)) == 200

    @asynccontextmanager
    async def look(self, **more: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A viewer's WebSocket."""
        headers = {**enter(self.address), **more}
        async with (
            aiohttp.ClientSession(headers=headers, cookie_jar=aiohttp.DummyCookieJar()) as client,
            client.ws_connect(f"http://{self.netloc}/ws", max_msg_size=0) as viewer,
        ):
            yield viewer


@pytest.fixture
def served() -> Iterator[Served]:
    session = FakeSession()
    with Server(session) as server:
        yield Served(session, server, server.start())


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await work()

    asyncio.run(limited())


def ended(message: aiohttp.WSMessage, viewer: aiohttp.ClientWebSocketResponse) -> int | None:
    assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED), message
    return viewer.close_code


def test_the_address_lets_in_and_the_cookie_keeps_in(served: Served) -> None:
    answer = ask(served.address, "GET", f"/?token={served.token}")
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(f"vidsr-{served.server.port}=")
    assert all(part in cookie for part in ("HttpOnly", "SameSite=Strict", "Path=/"))
    assert served.status("GET", "/snapshot.png", {"Cookie": cookie.partition(";")[0]}) == 200


def test_an_address_for_one_use_works_once(served: Served) -> None:
    query = urlsplit(served.server.once()).query
    assert served.token not in query
    assert [served.status("GET", f"/?{query}", {}) for _ in range(2)] == [303, 403]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "OPTIONS", "DELETE"])
@pytest.mark.parametrize(
    "path", ["/", "/page/style.css", "/ws", "/poll", "/snapshot.png", "/nothing", "/?token=", "/?token=%C3%A9%ED%A0%80"]
)
def test_nothing_without_the_token(served: Served, method: str, path: str) -> None:
    wrong = f"vidsr-{served.server.port}"
    for headers in (
        {}, {"Cookie": f"{wrong}="}, {"Cookie": f"{wrong}={served.token}x"}, {"Cookie": f"{wrong}=\xe9\xff"},
        {"Cookie": f"vidsr={served.token}"}, {"Authorization": f"Bearer {served.token}"},
    ):  # fmt: skip
        answer = ask(served.address, method, path, {"Origin": f"http://{served.netloc}", **headers})
        assert answer.status == 403
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert len(answer.body.splitlines()) == (method != "HEAD")
    assert served.session.heard.empty()


def test_every_answer_has_the_headers(served: Served) -> None:
    inside = enter(served.address)
    for path, headers in (("/", inside), ("/nothing", inside), ("/snapshot.png", inside), ("/", {}), ("/ws", inside)):
        found = ask(served.address, "GET", path, headers).headers
        assert "default-src 'none'" in found["Content-Security-Policy"]
        assert "unsafe" not in found["Content-Security-Policy"]
        assert (found["Referrer-Policy"], found["Cache-Control"]) == ("no-referrer", "no-store")
        assert found["Cross-Origin-Opener-Policy"] == "same-origin"
        assert "Python" not in found["Server"]


def test_who_comes_by_a_foreign_page_is_sent_on_by_ours(served: Served) -> None:
    """A strict cookie stays behind when the link was clicked in a page; only the page itself is asked for again."""
    answer = ask(served.address, "GET", "/", {"Sec-Fetch-Site": "cross-site"})
    assert (answer.status, b"url=/" in answer.body) == (403, True)
    answer = ask(served.address, "GET", "/", {"Sec-Fetch-Site": "same-origin"})
    assert (answer.status, b"url=/" in answer.body) == (403, False)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:9000", 200), ("127.0.0.1:9000", 200), ("[::1]:9000", 200),  # a tunnel's end
        ("evil.example", 403), ("evil.example:{port}", 403), ("localhost.evil.example:{port}", 403),
        ("127.0.0.1.evil.example", 403), ("192.0.2.1:{port}", 403), ("0.0.0.0:{port}", 403), ("", 403),
        ("localhost:port", 403), ("localhost@evil.example", 403), ("evil.example@localhost", 403),
        ("localhost/evil.example", 403), ("localhost evil.example", 403), ("[::1", 403), ("l\xf6calhost", 403),
        ("vidsr-{port}", 403), ("127.1", 403), ("2130706433", 403),
    ],
)  # fmt: skip
def test_a_name_that_is_not_ours_stays_out(served: Served, host: str, status: int) -> None:
    """With the right cookie, as a foreign name bound to this address (DNS rebinding) would not even have."""
    headers = {**enter(served.address), "Host": host.format(port=served.server.port)}
    assert served.status("GET", "/snapshot.png", headers) == status


def test_one_host_and_no_more(served: Served) -> None:
    cookie = enter(served.address)["Cookie"]
    for hosts in (b"", b"Host: localhost\r\nHost: evil.example\r\n"):
        rest = f"Connection: close\r\nCookie: {cookie}\r\n\r\n".encode()
        answer = raw(served, b"GET /snapshot.png HTTP/1.1\r\n" + hosts + rest)
        assert answer.split()[1] in (b"400", b"403"), answer


def test_all_addresses_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Our-Machine")
    with Server(FakeSession(), host="0.0.0.0") as server:
        address = server.start()
        assert urlsplit(address).hostname != "0.0.0.0"
        served = Served(FakeSession(), server, f"http://127.0.0.1:{server.port}/?{urlsplit(address).query}")
        cookie = enter(served.address)
        hosts = ["our-machine:{}", "our-machine:1", "their-machine:{}", "192.0.2.1:{}"]
        status = [
            served.status("GET", "/snapshot.png", {**cookie, "Host": host.format(server.port)}) for host in hosts
        ]
        assert status == [200, 403, 403, 403]


def test_a_named_host(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(FakeSession(), host="localhost") as server:
        assert urlsplit(server.start()).hostname == "localhost"


ORIGINS = {
    "none": None,
    "foreign": "http://evil.example",
    "opaque": "null",
    "another port": "http://{host}:1",
    "longer": "http://{netloc}.evil.example",
    "with a user": "http://{netloc}@evil.example",
    "scheme": "chrome-extension://{netloc}",
    "bare": "{netloc}",
    "empty": "",
}


@pytest.mark.parametrize("origin", ORIGINS.values(), ids=ORIGINS.keys())
def test_what_a_foreign_page_sends_is_refused(served: Served, origin: str | None) -> None:
    inside = enter(served.address)
    del inside["Origin"]
    if origin is not None:
        inside["Origin"] = origin.format(netloc=served.netloc, host=served.netloc.partition(":")[0])
    poll = json.dumps({"id": "0123456789abcdef", "do": [{"do": "play"}]}).encode()
    assert served.status("POST", "/poll", inside, poll) == 403
    upgrade = {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
    }  # fmt: skip
    assert served.status("GET", "/ws", {**inside, **upgrade}) == 403
    assert served.session.heard.empty()


def test_a_tunnel_has_its_own_port(served: Served) -> None:
    async def through() -> None:
        async with served.look(Host="localhost:9000", Origin="http://localhost:9000") as viewer:
            assert await viewer.receive_json() == SOURCE

    run(through)


@pytest.mark.parametrize(
    "path",
    [
        "/page/../server.py", "/page/..%2fserver.py", "/page/%2e%2e/server.py", "/page/%2e%2e%2fserver.py",
        "/page/%252e%252e%252fserver.py", "/page/..%5cserver.py", "/page//etc/passwd", "/page/%2fetc%2fpasswd",
        "//etc/passwd", "/../../../../etc/passwd", "/page/", "/page", "/page/.", "/page/..", "/page/index.html%00.png",
        "/page/\xe9", "/page/%ff%fe", "/page/%", "/page/a%0d%0aX: y", "/page/C:%5cWindows", "/server.py",
        "/page/__init__.py", "http://evil.example/page/../../etc/passwd", "/page/" + "a" * 5000,
    ],
)  # fmt: skip
def test_no_way_to_other_files(served: Served, path: str) -> None:
    headers = f"Host: localhost\r\nConnection: close\r\nCookie: {enter(served.address)['Cookie']}"
    answer = raw(served, f"GET {path} HTTP/1.1\r\n{headers}\r\n\r\n".encode("latin-1"))
    assert answer.split()[1] in (b"400", b"403", b"404"), answer
    assert b"root:" not in answer and b"import" not in answer


def test_the_page_is_served(served: Served) -> None:
    inside = enter(served.address)
    page = ask(served.address, "GET", "/", inside)
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    script = ask(served.address, "GET", "/page/main.js", inside)
    assert (script.status, script.headers["Content-Type"]) == (200, "text/javascript; charset=utf-8")


def test_snapshots(served: Served) -> None:
    inside = enter(served.address)
    answer = ask(served.address, "GET", "/snapshot.png?of=enlarged", inside)
    assert (answer.body, answer.headers["Content-Type"]) == (b"PNG of enlarged", "image/png")
    named = answer.headers["Content-Disposition"]
    assert named == "attachment; filename=\"f_lm___.png\"; filename*=UTF-8''f%C3%A4lm%22%0D%0A.png"
    assert served.status("GET", "/snapshot.png?of=all", inside) == 400
    nothing = ask(served.address, "GET", "/snapshot.png?of=original", inside)
    assert (nothing.status, nothing.body) == (404, b"nothing was shown yet\n")


def test_a_viewer_says_and_hears(served: Served) -> None:
    async def talk() -> None:
        async with served.look() as viewer:
            assert await viewer.receive_json() == SOURCE
            what, outbox = await asyncio.to_thread(served.session.next)
            assert what == "attach"
            await viewer.send_str('{"do":"step","by":1}')
            assert (await asyncio.to_thread(served.session.next))[0] == "take"
            assert outbox.send({"kind": "picture", "serial": 1}, [b"original", b"enlarged"])
            assert (await viewer.receive_bytes()).endswith(b"originalenlarged")
        assert (await asyncio.to_thread(served.session.next))[0] == "detach"

    run(talk)
    assert served.session.heard.empty()


MALFORMED = {
    "no JSON": ("play", 1008),
    "unknown command": ('{"do":"format-disk"}', 1008),
    "bad value": ('{"do":"seek","seconds":"1"}', 1008),
    "largest": ("x" * 4096, 1008),
    "too large": ("x" * 4097, 1009),
    "far too large": ("x" * 5_000_000, 1009),
    "binary": (b"\x00\x01", 1003),
    "far too large, binary": (bytes(5_000_000), 1009),
}


@pytest.mark.parametrize(("message", "code"), MALFORMED.values(), ids=MALFORMED.keys())
def test_who_sends_no_command_is_put_out(served: Served, message: str | bytes, code: int) -> None:
    async def misbehave() -> None:
        async with served.look() as viewer:
            assert await viewer.receive_json() == SOURCE
            with suppress(ConnectionError):  # the rest of what is too large is not read
                await (viewer.send_str(message) if isinstance(message, str) else viewer.send_bytes(message))
            if len(message) < 1_000_000:
                assert ended(await viewer.receive(), viewer) == code

    run(misbehave)
    served.session.expect("attach", "detach")
    assert served.works()


def test_text_that_is_none(served: Served) -> None:
    async def misbehave() -> None:
        async with served.look() as viewer:
            await viewer.receive()
            await viewer._writer.send_frame(b"\xff\xfe", aiohttp.WSMsgType.TEXT)
            assert ended(await viewer.receive(), viewer) == 1007

    run(misbehave)
    served.session.expect("attach", "detach")


def test_the_newer_viewer_takes_over(served: Served) -> None:
    async def two() -> None:
        async with served.look() as first:
            assert await first.receive_json() == SOURCE
            async with served.look() as second:
                assert await second.receive_json() == SOURCE
                assert await first.receive_json() == {"tell": "taken"}
                ended(await first.receive(), first)
                await second.send_str('{"do":"play"}')
                await asyncio.to_thread(served.session.expect, "attach", "detach", "attach", "take")

    run(two)
    served.session.expect("detach")
    assert served.session.heard.empty()


def test_the_older_outbox_is_shut(served: Served) -> None:
    async def two() -> None:
        async with served.look() as first:
            await first.receive()
            _, older = await asyncio.to_thread(served.session.next)
            async with served.look() as second:
                await second.receive()
                assert not older.send({"kind": "picture"}, [b""])
                older.tell({"tell": "state"})
                assert await first.receive_json() == {"tell": "taken"}
                ended(await first.receive(), first)

    run(two)


def messages(body: bytes) -> list[object]:
    found: list[object] = []
    while body:
        kind, length = body[0], int.from_bytes(body[1:5], "little")
        found.append(json.loads(body[5 : 5 + length]) if kind == 0 else body[5 : 5 + length])
        body = body[5 + length :]
    return found


def serial(message: bytes) -> int:
    length = int.from_bytes(message[:4], "little")
    return int(json.loads(message[4 : 4 + length])["serial"])


class Poller:
    def __init__(self, served: Served, name: str) -> None:
        self._served, self._name, self._inside = served, name, enter(served.address)

    def __call__(self, *commands: object) -> list[object]:
        body = json.dumps({"id": self._name, "do": commands}).encode()
        answer = ask(self._served.address, "POST", "/poll", self._inside, body)
        assert answer.status == 200
        return messages(answer.body)


def test_polling_gives_the_same(served: Served) -> None:
    poll = Poller(served, "00112233aabbccdd")
    assert poll() == [SOURCE]
    _, outbox = served.session.next()
    outbox.tell({"tell": "state"})
    assert outbox.send({"kind": "picture"}, [b"one"])
    text, picture = poll({"do": "play"}, {"do": "step", "by": -1})
    assert text == {"tell": "state"}
    assert isinstance(picture, bytes) and picture.endswith(b"one")
    served.session.expect("take", "take")
    newer = Poller(served, "ffffffffffffffff")
    assert newer() == [SOURCE]
    served.session.expect("detach", "attach")
    assert poll({"do": "play"}) == [{"tell": "taken"}]
    assert poll() == [SOURCE]  # asked for again, it is the newest
    served.session.expect("detach", "attach")


def test_a_later_poll_carries_commands_past_one_that_waits(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidsr.preview.transport._POLL_SECONDS", 10 * PATIENCE_SECONDS)
    poll = Poller(served, "00112233aabbccdd")
    assert poll() == [SOURCE]
    _, outbox = served.session.next()
    answers: list[list[object]] = []
    waiting = Thread(target=lambda: answers.append(poll({"do": "predict"})))
    waiting.start()
    served.session.expect("take")  # it is there, and waits
    later = Thread(target=lambda: answers.append(poll({"do": "play"})))
    later.start()
    served.session.expect("take")
    waiting.join(PATIENCE_SECONDS)
    ended_first = not waiting.is_alive()
    outbox.tell({"tell": "state"})
    later.join(PATIENCE_SECONDS)
    assert ended_first
    assert answers == [[], [{"tell": "state"}]]


def test_who_does_not_poll_any_more_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidsr.preview.transport._GONE_SECONDS", 0.05)
    session = FakeSession()
    with Server(session) as server:
        assert Poller(Served(session, server, server.start()), "00112233aabbccdd")() == [SOURCE]
        session.expect("attach", "detach")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b"\xff", b'{"id":"xyz","do":[]}', b'{"id":"00112233","do":{}}', b'{"id":1,"do":[]}',
        b'{"id":"00112233","do":[{"do":"play"},{"do":"format-disk"}]}', b'{"id":"00112233","do":[],"more":1}',
        b"[" * 60_000,
    ],
)  # fmt: skip
def test_malformed_polls(served: Served, body: bytes) -> None:
    assert served.status("POST", "/poll", enter(served.address), body) == 400
    assert served.session.heard.empty()


def test_oversize_polls(served: Served) -> None:
    assert served.status("POST", "/poll", enter(served.address), b" " * 100_000) == 413


def test_a_slow_viewer_costs_pictures_and_no_memory(served: Served) -> None:
    async def sleepy() -> None:
        async with served.look() as viewer:
            assert await viewer.receive_json() == SOURCE
            _, outbox = await asyncio.to_thread(served.session.next)
            sent = [outbox.send({"kind": "picture", "serial": number}, [bytes(500_000)]) for number in range(100)]
            # From here on the viewer answers, by the receiving alone, as a browser does.
            last, got = -1, 0
            while last < 99:
                last, got = serial(await viewer.receive_bytes()), got + 1
            assert got == sum(sent) < 10
            for number in range(100, 110):
                outbox.send({"kind": "picture", "serial": number}, [bytes(500_000)])
                assert serial(await viewer.receive_bytes()) == number

    run(sleepy)


def test_close_ends_with_viewers_there() -> None:
    session = FakeSession()
    server = Server(session)
    served = Served(session, server, server.start())

    async def watch() -> None:
        async with served.look() as viewer:
            assert await viewer.receive_json() == SOURCE
            _, outbox = await asyncio.to_thread(session.next)
            outbox.tell({"tell": "broken", "text": "the end"})
            closing = asyncio.create_task(asyncio.to_thread(server.close))
            assert await viewer.receive_json() == {"tell": "broken", "text": "the end"}
            assert ended(await viewer.receive(), viewer) == 1001
            await closing

    run(watch)
    session.expect("detach")
    assert session.heard.empty()
    server.close()


def test_close_ends_with_a_poll_under_way(served: Served) -> None:
    poll = Poller(served, "00112233aabbccdd")
    assert poll() == [SOURCE]
    waiting = Thread(target=poll, args=({"do": "play"},))
    waiting.start()
    served.session.expect("attach", "take")
    served.server.close()
    waiting.join(PATIENCE_SECONDS)
    assert not waiting.is_alive()
    served.session.expect("detach")


def test_close_ends_with_a_viewer_that_hears_nothing(served: Served) -> None:
    upgrade = [
        "GET /ws HTTP/1.1", f"Host: {served.netloc}", "Connection: Upgrade", "Upgrade: websocket",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        *(f"{name}: {value}" for name, value in enter(served.address).items()),
    ]  # fmt: skip
    with socket.create_connection(("127.0.0.1", served.server.port)) as deaf:
        deaf.sendall("\r\n".join([*upgrade, "", ""]).encode())
        assert deaf.recv(12) == b"HTTP/1.1 101"
        _, outbox = served.session.next()
        outbox.send({"kind": "picture"}, [bytes(50_000_000)])
        served.server.close()
        gc.collect()  # a connection left open is told of here, as an error
    served.session.expect("detach")


@pytest.mark.parametrize("call", ["attach", "take", "detach"])
def test_what_a_session_raises_is_told_and_kept(served: Served, call: str) -> None:
    served.session.raises[call] = RuntimeError("a mistake of ours")

    async def watch() -> None:
        async with served.look() as viewer:
            assert await viewer.receive_json() == SOURCE
            if call == "take":
                await viewer.send_str('{"do":"play"}')
            if call != "detach":
                told = await viewer.receive_json()
                assert told == {"tell": "broken", "text": "internal error: RuntimeError: a mistake of ours"}

    run(watch)
    assert served.server.failed.wait(PATIENCE_SECONDS)
    assert served.server.failure is served.session.raises[call]
    assert served.works()


def raw(served: Served, data: bytes, patience_seconds: float = PATIENCE_SECONDS) -> bytes:
    """What comes back for these bytes until the server closes, or lets us wait for longer than that."""
    with socket.create_connection(("127.0.0.1", served.server.port), patience_seconds) as connection:
        answer = b""
        with suppress(ConnectionError, TimeoutError):
            connection.sendall(data)
            while part := connection.recv(65536):
                answer += part
        return answer


def made_up(chance: random.Random, served: Served, inside: dict[str, str]) -> bytes:
    """A request as nobody would send it, sometimes with everything that lets in."""
    if chance.random() < 0.15:
        return chance.randbytes(chance.randrange(1, 3000))
    method = chance.choice(["GET", "POST", "HEAD", "PUT", "CONNECT", "TRACE", "OPTIONS", "get", "G\x00T", "X" * 50])
    path = chance.choice(["/", "/ws", "/poll", "/snapshot.png", "/page/main.js", "*", "", "localhost:80", "http://x/poll"])
    path += chance.choice(["", "", "?of=pair", "?token=%ff", "?" + "a=%&" * 50, "/" * 200, "%", "#x", "%00", ";a=b"])
    headers = dict(inside) if chance.random() < 0.6 else {}
    headers |= {"Host": chance.choice([served.netloc, served.netloc, "evil.example", ""]), "Connection": "close"}
    odd = [
        ("Content-Length", "-1"), ("Content-Length", "10"), ("Content-Length", "9" * 30), ("Expect", "more"),
        ("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "x"), ("Expect", "100-continue"),
        ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "x"), ("Range", "bytes=5-1"),
        ("Sec-WebSocket-Version", "8"), ("Sec-WebSocket-Extensions", ";;="), ("If-None-Match", "*"),
        ("Content-Encoding", "deflate"), ("Content-Type", "multipart/form-data; boundary="),
        ("Cookie", "=;=; \x01"), ("X", "y" * 9000), ("Accept-Encoding", "gzip;q=x"),
    ]  # fmt: skip
    for name, value in chance.sample(odd, chance.randrange(0, 5)):
        headers[name] = value
    bodies = [b"", b"{}", b"5\r\nhello\r\n0\r\n\r\n", chance.randbytes(200), b'{"id":"00112233","do":[{"do":1}]}']
    lines = [f"{method} {path} HTTP/{chance.choice(['1.1', '1.1', '1.0', '2', '9.9'])}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + chance.choice(bodies)


def test_a_hundred_made_up_requests(served: Served) -> None:
    chance = random.Random(7)
    inside = enter(served.address)
    answered = 0
    for number in range(100):
        request = made_up(chance, served, inside)
        answer = raw(served, request, 0.5)  # for more, where the request promises it
        if answer:
            answered += 1
            assert answer.startswith(b"HTTP/1."), (number, request, answer)
            assert int(answer.split()[1]) < 500, (number, request, answer)
            assert served.token.encode() not in answer
    assert answered > 30
    assert served.server.failure is None
    assert served.works()


def test_hosts_and_ports_that_cannot_be_had() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OutputError, match=f"--port {port}"):
            Server(FakeSession(), port=port).start()
    for host in ("192.0.2.1", "nowhere.invalid", "", "x" * 300, "a..b"):
        with pytest.raises((UsageError, OutputError), match="--host"):
            Server(FakeSession(), host=host).start()


def test_nothing_says_the_token(
    served: Served, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    enter(served.address)
    raw(served, f"GET /?token={served.token} HTTP/2\r\nHost: x\r\nbad\r\n\r\n".encode())
    served.server.close()
    assert served.token not in caplog.text + "".join(capfd.readouterr())
