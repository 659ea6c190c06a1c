"""`vidsr preview` as people call it: what it says, how it ends."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.conftest import make_clip, write_sound
from tests.preview.fake import PATIENCE_SECONDS, FakeSession, ask, enter
from vidsr.cli import main
from vidsr.cli.preview import serve
from vidsr.preview.broken import BrokenSession
from vidsr.preview.server import Server

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60
"""For a process to load its libraries on a busy machine."""


def environment(**more: str) -> dict[str, str]:
    """Ours, on a machine with neither screen nor tunnel."""
    screens = ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION")
    return {**{key: value for key, value in os.environ.items() if key not in screens}, "PYTHONPATH": str(ROOT), **more}


@contextmanager
def running(*arguments: object, code: str = "", **more: str) -> Iterator[subprocess.Popen[str]]:
    """The command, or a piece of code."""
    what = ["-c", code] if code else ["-m", "vidsr", "preview", *map(str, arguments)]
    process = subprocess.Popen(
        [sys.executable, *what], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**more)
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def address_in(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    word, address = process.stdout.readline().split()
    assert word == "open"
    return address


def rest_of(process: subprocess.Popen[str]) -> tuple[str, str]:
    assert process.stdout is not None and process.stderr is not None
    return process.stdout.read(), process.stderr.read()


async def hear(address: str, until: str) -> list[str]:
    """What a page is told, up to the first message of that kind."""
    tells: list[str] = []
    origin = address.partition("/?")[0]
    async with (
        asyncio.timeout(START_SECONDS),
        aiohttp.ClientSession(headers=enter(address), cookie_jar=aiohttp.DummyCookieJar()) as client,
        client.ws_connect(f"{origin}/ws", max_msg_size=0) as viewer,
    ):
        while until not in tells:
            message = await viewer.receive()
            assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), tells
            tells.append(str(message.json()["tell"]) if message.type is aiohttp.WSMsgType.TEXT else "picture")
    return tells


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_with_a_viewer_there(tmp_path: Path, number: signal.Signals) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=100)
    with running(clip, "--no-browser") as process:
        address = address_in(process)

        async def watch() -> None:
            origin = address.partition("/?")[0]
            async with (
                aiohttp.ClientSession(headers=enter(address), cookie_jar=aiohttp.DummyCookieJar()) as client,
                client.ws_connect(f"{origin}/ws", max_msg_size=0) as viewer,
            ):
                assert (await viewer.receive_json())["tell"] == "source"
                await viewer.send_str('{"do":"play"}')
                async with asyncio.timeout(START_SECONDS):
                    while (await viewer.receive()).type is not aiohttp.WSMsgType.BINARY:
                        pass
                process.send_signal(number)
                with suppress(ConnectionError):  # met by an answer that is too late
                    while (await viewer.receive()).type not in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED):
                        pass

        asyncio.run(watch())
        assert process.wait(PATIENCE_SECONDS) == 0
        out, err = rest_of(process)
        port = urlsplit(address).port
        assert f"ssh -N -L {port}:127.0.0.1:{port} " in out and out.count("\n") == 1
        assert err == ""


def test_what_does_not_end_is_left() -> None:
    """As an engine that is being made, which takes minutes on some machines."""
    code = """
from threading import Event
from tests.preview.fake import FakeSession
from vidsr.cli.preview import serve
from vidsr.preview.server import Server

class Stuck(FakeSession):
    def close(self):
        Event().wait()

session = Stuck()
serve(session, Server(session), browser=False)
"""
    with running(code=code) as process:
        address_in(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == 0


def test_closing_the_page_and_coming_back(tmp_path: Path) -> None:
    with running(make_clip(tmp_path / "clip.mp4"), "--no-browser") as process:
        address = address_in(process)
        for _ in range(2):
            assert asyncio.run(hear(address, "picture"))[0] == "source"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == 0


@pytest.mark.parametrize("name", ["sound.m4a", "text.mp4", "empty.mp4", "missing.mp4"])
def test_what_cannot_be_shown(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    write_sound(tmp_path / "sound.m4a")
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(SystemExit) as ended:
        main(["preview", str(tmp_path / name), "--no-browser"])
    said = capfd.readouterr()
    assert (ended.value.code, said.out, said.err.count("\n")) == (1, "", 1)
    assert said.err.startswith("vidsr: ") and name in said.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "nope"], "nope"), (["--host", "192.0.2.1"], "--host 192.0.2.1"), (["--port", "65536"], "--port"),
        (["--scale", "0"], "--scale"), (["--start", "soon"], "--start"), (["--memory", "much"], "--memory"),
    ],
)  # fmt: skip
def test_mistakes_get_one_clear_line(
    clip: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["preview", str(clip), "--no-browser", *arguments])
    said = capfd.readouterr()
    assert ended.value.code in (1, 2)
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert says in said.err


def test_a_browser_is_shown_why_and_keeps_its_words_to_itself(tmp_path: Path) -> None:
    """It is called with an address that works once: not with the token, which every user could read there."""
    write_sound(tmp_path / "sound.m4a")
    notes = tmp_path / "called"
    os.mkfifo(notes)
    browser = tmp_path / "browser"
    browser.write_text(f"#!/bin/sh\necho noise\necho noise >&2\necho \"$1\" > '{notes}'\n")
    browser.chmod(0o700)
    with running(tmp_path / "sound.m4a", BROWSER=str(browser)) as process:
        printed = address_in(process)
        called = notes.read_text().strip()
        assert called != printed and called.partition("=")[0] == printed.partition("=")[0]
        assert asyncio.run(hear(called, "broken")) == ["broken"]
        assert process.wait(PATIENCE_SECONDS) == 1
        out, err = rest_of(process)
        assert (out, err.count("\n")) == ("Ctrl-C ends it\n", 1)
        assert "no video track" in err


def test_an_open_network_is_warned_of(clip: Path) -> None:
    with running(clip, "--no-browser", "--host", "0.0.0.0") as process:
        assert "0.0.0.0" not in address_in(process)
        assert process.stderr is not None
        assert "0.0.0.0" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == 0


class Noted(Server):
    """Gives the address also to others."""

    def __init__(self, session: FakeSession | BrokenSession) -> None:
        super().__init__(session)
        self.addresses: queue.Queue[str] = queue.Queue()

    def start(self) -> str:
        address = super().start()
        self.addresses.put(address)
        return address


@contextmanager
def visited(server: Noted, until: str) -> Iterator[None]:
    thread = Thread(target=lambda: asyncio.run(hear(server.addresses.get(timeout=PATIENCE_SECONDS), until)))
    thread.start()
    yield
    thread.join()


def test_the_end_of_a_session_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    session = FakeSession()
    session.failure = "in.mp4: the disk is gone"
    server = Noted(session)

    def heard() -> None:
        session.expect("attach")
        session.ended.set()

    follow = Thread(target=heard)
    follow.start()
    with visited(server, "source"):
        assert serve(session, server, browser=False) == 1
    follow.join()
    assert capsys.readouterr().err == "vidsr: in.mp4: the disk is gone\n"
    session.expect("detach", "close")


def test_a_mistake_in_a_session_is_raised() -> None:
    session = FakeSession()
    session.raises["attach"] = RuntimeError("a mistake of ours")
    server = Noted(session)
    with visited(server, "broken"), pytest.raises(RuntimeError, match="of ours"):
        serve(session, server, browser=False)
    session.expect("attach", "detach", "close")


def test_a_port_that_is_taken_closes_the_session() -> None:
    from vidsr.errors import OutputError

    session = FakeSession()
    with Server(FakeSession()) as other:
        other.start()
        with pytest.raises(OutputError, match="is taken"):
            serve(session, Server(session, port=other.port), browser=False)
    session.expect("close")


def test_without_aiohttp_it_says_what_to_install(
    clip: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("server", "gate", "transport"):
        monkeypatch.delitem(sys.modules, f"vidsr.preview.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(SystemExit) as ended:
        main(["preview", str(clip)])
    said = capfd.readouterr()
    assert ended.value.code == 2
    assert "pip install 'vidsr[preview]'" in said.err and said.err.count("\n") == 1


def test_a_broken_session_still_has_its_page() -> None:
    with Server(BrokenSession("text.mp4: not a video file")) as server:
        address = server.start()
        assert ask(address, "GET", "/", enter(address)).status == 200
        assert asyncio.run(hear(address, "broken")) == ["broken"]
