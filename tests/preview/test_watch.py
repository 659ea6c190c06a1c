"""`--watch`: a job under way in a page, which costs nothing while nobody looks. Nothing here sleeps."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from threading import Event, Thread
from typing import Any

import aiohttp
import av
import numpy as np
import pytest

from tests.conftest import make_clip
from vidsr import job
from vidsr.cli import main
from vidsr.errors import InputError
from vidsr.frame import Frame
from vidsr.job import Settings
from vidsr.preview import wire
from vidsr.preview.server import Server
from vidsr.preview.watch import WatchSession

LIMIT_SECONDS = 60.0


@dataclass
class Box:
    """An outbox that keeps everything."""

    told: list[Mapping[str, Any]] = field(default_factory=list)
    sent: list[tuple[Mapping[str, Any], Sequence[bytes]]] = field(default_factory=list)

    def tell(self, message: Mapping[str, Any]) -> None:
        self.told.append(message)

    def send(self, header: Mapping[str, Any], parts: Sequence[bytes]) -> bool:
        self.sent.append((header, list(parts)))
        return True

    def jobs(self) -> list[Mapping[str, Any]]:
        return [message for message in self.told if message["tell"] == "job"]


@dataclass
class Watched:
    """A job with its session. at_frame: called in the encoder's thread, before the session gets the frame. seconds: of
    its clock, on which frames are so far apart, and making a pair to look at takes nothing."""

    resolved: job.Job
    stop: Event = field(default_factory=Event)
    at_frame: Callable[[int], None] = lambda number: None
    frames: int = 0
    apart: float = 1.0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.session = WatchSession(self.resolved, self.stop, lambda: self.seconds)

    def tap(self, frame: Frame) -> None:
        self.seconds += self.apart
        self.at_frame(self.frames)
        self.frames += 1
        self.session.frame(frame)

    def run(self) -> Any:
        observer = self.session.event
        return job.run(self.resolved, observer=observer, stop=self.stop, cancel=Event(), tap=self.tap)


@pytest.fixture
def watched(clip: Path, nearest: Path) -> Watched:
    return Watched(job.resolve(clip, clip.with_name("out.mp4"), Settings(model=str(nearest))))


def counted(monkeypatch: pytest.MonkeyPatch, watched: Watched, takes: float = 0.0) -> list[float]:
    """The times of frames of which pairs to look at were made; each takes so long."""
    from vidsr.preview import watch

    made, jpegs = [], watch._Painter.jpegs

    def counting(self: Any, pair: Any) -> Any:
        made.append(pair.seconds)
        watched.seconds += takes
        return jpegs(self, pair)

    monkeypatch.setattr(watch._Painter, "jpegs", counting)
    return made


def pixels(body: bytes, kind: str = "mjpeg") -> Any:
    decoder: Any = av.CodecContext.create(kind, "r")
    frames = [*decoder.decode(av.Packet(body)), *decoder.decode(None)]
    return frames[0].to_ndarray(format="rgb24")


def test_nothing_is_made_while_nobody_looks(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    made, box = counted(monkeypatch, watched), Box()

    def come_and_go(number: int) -> None:
        if number == 4:
            watched.session.attach(box)
        elif number == 8:
            watched.session.detach()

    watched.at_frame = come_and_go
    assert watched.run().verified
    assert made == pytest.approx([0.16, 0.2, 0.24, 0.28])
    assert [header["seconds"] for header, _ in box.sent] == made


@pytest.mark.parametrize(
    ("takes", "frames"),
    [(0.0, [0, 4, 8]), (0.015, [0, 7])],  # every fourth frame begins a second; a hundredth of the time is 1.5 s
    ids=["a second apart", "a hundredth of the time"],
)
def test_pairs_are_made_now_and_then(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, takes: float, frames: list[int]
) -> None:
    made = counted(monkeypatch, watched, takes)
    watched.apart = 0.25
    watched.session.attach(Box())
    watched.run()
    assert made == pytest.approx([number / 25 for number in frames])


def test_the_pair_is_that_of_the_frame(watched: Watched) -> None:
    box = Box()
    watched.session.attach(box)
    watched.run()
    header, parts = box.sent[0]
    assert (header["kind"], header["types"], header["box"]) == ("picture", ["image/jpeg"] * 2, [0, 0, 64, 48])
    assert Fraction(header["pts"]) == 0 and header["seconds"] == 0
    original, enlarged = map(pixels, parts)
    assert (original.shape, enlarged.shape) == ((48, 64, 3), (96, 128, 3))
    with av.open(str(watched.resolved.source.path)) as opened:
        source = next(opened.decode(video=0)).to_ndarray(format="rgb24")
    assert abs(original.astype(int) - source).mean() < 3
    repeated = source.repeat(2, 0).repeat(2, 1)
    assert abs(enlarged.astype(int) - repeated).mean() < 4
    source_message, state = box.told[:2]
    assert (source_message["tell"], source_message["mode"], source_message["sound"]) == ("source", "watch", False)
    assert (state["tell"], state["size"], state["playing"]) == ("state", [128, 96], False)


def test_events_become_messages(watched: Watched) -> None:
    box = Box()
    watched.session.attach(box)
    watched.run()
    first, *_, last = box.jobs()
    assert first["state"] == "running"
    assert (last["state"], last["verified"], last["frames"]) == ("done", True, 12)
    assert {message["phase"] for message in box.jobs()} >= {"joining", "verifying"}
    later = Box()
    watched.session.attach(later)
    assert later.jobs() == [last]
    assert later.sent == box.sent[-1:]


def test_snapshots_are_of_the_last_pair(watched: Watched) -> None:
    with pytest.raises(InputError, match="nothing was shown"):
        watched.session.snapshot("pair")
    watched.apart = 0.0
    watched.session.attach(Box())
    watched.run()
    name, body = watched.session.snapshot("pair")
    assert name == "clip-0h00m00.000s-pair.png"
    assert pixels(body, "png").shape == (96, 256, 3)
    shown = pixels(watched.session.snapshot("enlarged")[1], "png")
    with av.open(str(watched.resolved.path)) as opened:
        written = next(opened.decode(video=0)).to_ndarray(format="rgb24")
    assert abs(shown.astype(int) - written).mean() < 3  # which the encoder changed a little
    np.testing.assert_array_equal(pixels(body, "png")[:, 128:], shown)


def test_a_picture_that_fails_does_the_run_no_harm(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object) -> None:
        raise ValueError("no such colour")

    monkeypatch.setattr("vidsr.preview.watch._Painter.jpegs", broken)
    box = Box()
    watched.session.attach(box)
    assert watched.run().verified
    assert [message["text"] for message in box.told if message["tell"] == "notice"] == ["no pictures: no such colour"]


def test_the_viewer_may_stop_the_run(nearest: Path, tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", frames=600, width=32, height=32)
    watched = Watched(job.resolve(source, tmp_path / "out.mp4", Settings(model=str(nearest))))
    box = Box()
    watched.session.attach(box)

    def stop(number: int) -> None:
        if number == 300:
            watched.session.take(wire.StopJob())

    watched.at_frame = stop
    assert not watched.run().complete
    states = [message["state"] for message in box.jobs()]
    assert "stopping" in states
    assert states[-1] == "idle"
    assert "--resume" in box.jobs()[-1]["text"]


def test_the_output_is_the_same_with_and_without_a_viewer(watched: Watched, clip: Path) -> None:
    box = Box()
    watched.session.attach(box)
    watched.run()
    assert len(box.sent) == 12
    alone = replace(watched.resolved, path=clip.with_name("alone.mp4"))
    job.run(alone, observer=lambda event: None, stop=Event(), cancel=Event())
    assert alone.path.read_bytes() == watched.resolved.path.read_bytes()


# ---- with the server


class Page:
    """A viewer with a WebSocket, in a thread of its own, until the server ends."""

    def __init__(self, address: str) -> None:
        self.told: list[dict[str, Any]] = []
        self.pictures: list[dict[str, Any]] = []
        self.snapshot = b""
        self.seen = Event()
        self._address = address
        self._thread = Thread(target=lambda: asyncio.run(self._look()))
        self._thread.start()

    def join(self) -> None:
        self._thread.join(LIMIT_SECONDS)
        assert not self._thread.is_alive()

    async def _look(self) -> None:
        jar = aiohttp.CookieJar(unsafe=True)
        origin = self._address.split("/?")[0]
        async with aiohttp.ClientSession(cookie_jar=jar) as session:
            async with session.get(self._address) as answer:
                assert answer.status == 200
            async with session.ws_connect(f"{origin}/ws", headers={"Origin": origin}) as socket:
                async for message in socket:
                    if message.type == aiohttp.WSMsgType.TEXT:
                        self.told.append(json.loads(message.data))
                    elif message.type == aiohttp.WSMsgType.BINARY:
                        (length,) = struct.unpack("<I", message.data[:4])
                        self.pictures.append(json.loads(message.data[4 : 4 + length]))
                        if not self.seen.is_set():
                            async with session.get(f"{origin}/snapshot.png?of=pair") as answer:
                                self.snapshot = await answer.read()
                            self.seen.set()


@pytest.fixture
def pages() -> Iterator[list[Page]]:
    made: list[Page] = []
    yield made
    for page in made:
        page.join()


def test_a_page_shows_the_run_and_its_end(watched: Watched, pages: list[Page], monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(watched.session) as server:
        pages.append(page := Page(server.start()))
        came, attach = Event(), watched.session.attach

        def attaching(outbox: Any) -> None:
            attach(outbox)
            came.set()

        monkeypatch.setattr(watched.session, "attach", attaching)
        waits = {3: came, 6: page.seen}  # so that the viewer sees something of so short a run

        def wait(number: int) -> None:
            assert number not in waits or waits[number].wait(LIMIT_SECONDS)

        watched.at_frame = wait
        assert watched.run().verified
    page.join()
    assert page.pictures[0]["parts"][0] > 0
    assert pixels(page.snapshot, "png").shape == (96, 256, 3)
    assert page.told[0]["mode"] == "watch"
    last = [message for message in page.told if message["tell"] == "job"][-1]
    assert (last["state"], last["verified"]) == ("done", True)
    for thread in threading.enumerate():
        if thread.name.startswith("vidsr-snapshot"):  # told to end, and not waited for
            thread.join(LIMIT_SECONDS)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vidsr-")]


# ---- the command


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exit_info:
        main([str(argument) for argument in arguments])
    return int(exit_info.value.code or 0)


def test_the_command_says_where_to_look(clip: Path, nearest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = clip.with_name("out.mp4")
    assert run(clip, target, "--model", nearest, "--watch", "--json") == 0
    said = capsys.readouterr()
    assert said.err.startswith("watch it at http://127.0.0.1:") and said.err.count("\n") == 1
    assert json.loads(said.out.splitlines()[-1])["verified"] is True
    assert "token" not in said.out


def test_the_page_of_the_command_is_there_while_it_runs(
    clip: Path, nearest: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, pages: list[Page]
) -> None:
    came, attach, event, frame = Event(), WatchSession.attach, WatchSession.event, WatchSession.frame

    def attaching(self: WatchSession, outbox: Any) -> None:
        attach(self, outbox)
        came.set()

    def opening(self: WatchSession, told: Any) -> None:
        event(self, told)
        if not pages:
            pages.append(Page(capsys.readouterr().err.split()[-1]))

    def waiting(self: WatchSession, shown: Frame) -> None:
        assert came.wait(LIMIT_SECONDS)
        frame(self, shown)

    monkeypatch.setattr(WatchSession, "attach", attaching)
    monkeypatch.setattr(WatchSession, "event", opening)
    monkeypatch.setattr(WatchSession, "frame", waiting)
    assert run(clip, clip.with_name("out.mp4"), "--model", nearest, "--watch", "--quiet") == 0
    pages[0].join()
    assert [message for message in pages[0].told if message["tell"] == "job"][-1]["state"] == "done"
    assert pages[0].pictures


@pytest.mark.parametrize(
    ("target", "says"),
    [("out.png", "leave it out for pictures"), ("frames/%05d.png", "leave it out for pictures"), ("-", "streams")],
)
def test_only_videos_can_be_watched(
    clip: Path, nearest: Path, capsys: pytest.CaptureFixture[str], target: str, says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(clip.parent)
    Path("frames").mkdir()
    source: Path = clip
    if target == "out.png":
        source = Path("in.png")
        with av.open(str(clip)) as opened:
            next(opened.decode(video=0)).to_image().save(source)
    assert run(source, target, "--model", nearest, "--watch") == 2
    said = capsys.readouterr()
    assert says in said.err and said.err.count("\n") == 1


def test_a_port_that_is_taken(clip: Path, nearest: Path, capsys: pytest.CaptureFixture[str], watched: Watched) -> None:
    with Server(watched.session) as server:
        server.start()
        assert run(clip, clip.with_name("out.mp4"), "--model", nearest, "--watch-port", server.port) == 1
    assert f"--watch-port {server.port} is taken" in capsys.readouterr().err.splitlines()[-1]
