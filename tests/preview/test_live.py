"""What plays: the clock, the choice of frames, single frames, and a player's life, without a page."""

from __future__ import annotations

import io
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from tests.conftest import make_clip, nearest_model
from vidsr import models
from vidsr.backends.base import Engine
from vidsr.errors import BackendError
from vidsr.frame import FrameLayout, Plane
from vidsr.job import Settings, resolve_stream
from vidsr.job.engine import EnginePlan
from vidsr.media.reader import VideoReader
from vidsr.media.source import probe
from vidsr.preview.desk import Desk
from vidsr.preview.footage import Footage, Held
from vidsr.preview.live import Pace
from vidsr.preview.player import Player
from vidsr.preview.quality import Quality
from vidsr.preview.remedy import Remedy, remedy

PATIENCE = 60
"""Seconds until a test gives up; nothing waits for it where all is well."""


class Time:
    """Seconds as a test wants them."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_the_clock_stands_until_the_viewer_says_that_it_runs() -> None:
    time = Time()
    desk = Desk(time)
    desk.put(lane="a", seconds=Fraction(3), playing=True)
    time.seconds += 5
    assert desk.seconds == 3
    desk.told(3.25)
    time.seconds += 2
    assert desk.seconds == 5.25
    desk.put(lane="a", seconds=Fraction(1), playing=False)
    desk.told(9.0)  # on its way when the viewer paused
    time.seconds += 2
    assert desk.seconds == 1


def test_a_wait_ends_with_the_wish() -> None:
    desk = Desk()
    wish = desk.put(lane="a", seconds=Fraction(0), playing=True)
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(desk.wait_until(1e6, wish)))
    thread.start()
    desk.put(lane="a", seconds=Fraction(1), playing=True)
    thread.join(PATIENCE)
    assert answers == [False]


def test_a_lane_that_is_left_gets_no_wish() -> None:
    desk = Desk()
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(desk.next("a", 0)))
    thread.start()
    desk.put(lane="b", seconds=Fraction(0), playing=True)
    desk.leave("a")
    thread.join(PATIENCE)
    assert answers == [None]
    assert desk.next("b", 0) is desk.wish


@pytest.mark.parametrize("times_too_slow", [1.3, 1.5, 2.0, 3.7, 10.0])
def test_frames_are_left_out_evenly(times_too_slow: float) -> None:
    """Of a machine that takes so long for each frame, in real time: gaps differ by one frame at most, and it is busy
    all the time but for a little."""
    rate = 25.0
    pace = Pace(1 / rate)
    cost = times_too_slow / rate
    pace.learn(cost)
    pace.begin(0.0)
    now, shown = 0.0, [0]
    while len(shown) < 60:
        now += cost  # the one before is made
        index = max(shown[-1] + 1, int(pace.due(now, 0) * rate + 1e-9))
        pace.taken()
        shown.append(index)
    gaps = np.diff(shown[5:])
    assert gaps.max() - gaps.min() <= 1
    assert gaps.mean() == pytest.approx(times_too_slow, rel=0.06)
    assert shown[-1] / rate >= now, "in time"


def test_a_machine_that_keeps_up_leaves_out_nothing_but_what_is_late() -> None:
    pace = Pace(1 / 25)
    pace.learn(0.03)
    pace.begin(0.0)
    assert pace.keeps_up
    at_first = pace.due(clock=1.0, waiting=2)
    assert 1.09 <= at_first < 1.15
    pace.heard(shown=10, late=8)
    more = pace.due(clock=1.0, waiting=2)
    assert more > at_first
    for shown in range(20, 1000, 10):
        pace.heard(shown=shown, late=8)
    assert pace.due(clock=1.0, waiting=2) == pytest.approx(at_first)


def test_quality_follows_the_link() -> None:
    time = Time()
    quality = Quality(time)
    best = quality()
    quality.sent(False)
    less = quality()
    quality.sent(False)
    assert best > less == quality()
    assert quality.held_back
    time.seconds += 2
    quality.sent(False)
    assert quality() < less
    for _ in range(3):
        time.seconds += 11
        quality.sent(True)
    assert quality() == best
    assert not quality.held_back


TIMES = [0, 512, 1024, 2048, 2100, 4096, 4608, 9000, 9512, 10024]
"""Of frames, in 1/12800 s: at no even pace."""


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("uneven") / "uneven.mp4", times=TIMES, options={"g": "4", "bf": "2"})


@pytest.fixture
def footage(uneven: Path, nearest: Path) -> Footage:
    stream = resolve_stream(uneven, Settings(model=str(nearest)))
    return Footage(stream.source, stream.reader)


def index_of(held: Held | None) -> int | None:
    return None if held is None else TIMES.index(round(held.seconds * 12800))


def planes_of(held: Held | None) -> list[Plane]:
    assert held is not None
    return [plane.copy() for plane in held.frame.planes]


def same(one: Sequence[Plane], other: Sequence[Plane]) -> bool:
    return all(np.array_equal(first, second) for first, second in zip(one, other, strict=True))


def test_the_frame_on_screen_at_any_time(footage: Footage) -> None:
    frames = [planes_of(footage.at(Fraction(0)))]
    while (held := footage.next()) is not None:
        frames.append(planes_of(held))
    assert len(frames) == len(TIMES)
    for ticks in (10024, 0, 511, 512, 2047, 2048, 2099, 2100, 8999, 9000, 50_000, 3000):
        expected = max(index for index, time in enumerate(TIMES) if time <= ticks)
        held = footage.at(Fraction(ticks, 12800))
        assert index_of(held) == expected
        assert same(planes_of(held), frames[expected])
        following = footage.next()
        assert index_of(following) == (expected + 1 if expected + 1 < len(TIMES) else None)
        if following is not None:
            assert same(planes_of(following), frames[expected + 1])
    footage.close()


def test_steps_are_exact_both_ways(footage: Footage) -> None:
    here = footage.at(Fraction(3000, 12800))
    steps = [(1, 5), (1, 6), (-1, 5), (-1, 4), (2, 6), (-3, 3), (1, 4), (5, 9), (1, 9), (-1, 8), (-20, 0), (-1, 0)]
    for by, expected in steps:
        assert here is not None
        here = footage.beside(here.seconds, by)
        assert index_of(here) == expected
    footage.close()


def test_frames_that_are_over_are_passed(footage: Footage) -> None:
    footage.at(Fraction(0))
    assert index_of(footage.next(Fraction(2060, 12800))) == 3
    assert footage.passed == 2
    assert index_of(footage.next(Fraction(2061, 12800))) == 4
    assert index_of(footage.next(Fraction(9100, 12800))) == 7
    assert index_of(footage.next(Fraction(9100, 12800))) == 8, "never one twice"
    footage.close()


def test_a_search_ends_when_nobody_wants_it(uneven: Path, nearest: Path) -> None:
    stream = resolve_stream(uneven, Settings(model=str(nearest)))
    asked: list[None] = []

    def given_up() -> bool:
        asked.append(None)
        return len(asked) > 4

    footage = Footage(stream.source, lambda start: stream.reader(start, given_up=given_up), given_up)
    footage.at(Fraction(1000))
    assert len(asked) < 10, "of a file that would be read six times"
    asked.clear()
    assert index_of(footage.at(Fraction(0))) == 0, "and the next is not the worse for it"
    footage.close()


def test_behind_the_end_lies_the_last_frame_and_only_once_it_is_searched_for(uneven: Path, nearest: Path) -> None:
    stream = resolve_stream(uneven, Settings(model=str(nearest)))
    opened: list[Fraction | None] = []

    def reader(start: Fraction | None) -> VideoReader:
        opened.append(start)
        return stream.reader(start)

    footage = Footage(stream.source, reader)
    assert index_of(footage.at(Fraction(3))) == len(TIMES) - 1
    opened.clear()
    assert index_of(footage.at(Fraction(5000))) == len(TIMES) - 1
    assert len(opened) == 1
    footage.close()


class Viewer:
    """Keeps what a player sends, and waits for it."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.pictures: list[tuple[dict[str, Any], list[bytes]]] = []
        self._changed = threading.Condition()

    def tell(self, message: Mapping[str, Any]) -> None:
        with self._changed:
            self.messages.append(dict(message))
            self._changed.notify_all()

    def send(self, header: Mapping[str, Any], parts: Sequence[bytes]) -> bool:
        with self._changed:
            if header["kind"] == "picture":
                self.pictures.append((dict(header), list(parts)))
            self._changed.notify_all()
        return True

    def picture(self, wanted: Callable[[dict[str, Any]], bool]) -> tuple[dict[str, Any], list[bytes]]:
        """The last picture of that kind, as soon as there is one."""
        with self._changed:
            assert self._changed.wait_for(lambda: any(wanted(header) for header, _ in self.pictures), PATIENCE)
            return next(picture for picture in reversed(self.pictures) if wanted(picture[0]))

    def message(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        with self._changed:
            assert self._changed.wait_for(lambda: any(map(wanted, self.messages)), PATIENCE)
            return next(message for message in reversed(self.messages) if wanted(message))

    def exact(self, seconds: float) -> list[bytes]:
        return self.picture(lambda header: header["exact"] and abs(header["seconds"] - seconds) < 1e-4)[1]


def rgb(data: bytes) -> np.ndarray[Any, Any]:
    with av.open(io.BytesIO(data)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


@pytest.fixture
def long_clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "long.mp4", frames=250, options={"g": "50"})


class Stage:
    """A player with its clip, closed in the end."""

    def __init__(self, clip: Path, model: Path) -> None:
        self.failed: list[str] = []
        self.player = Player(probe(clip), Settings(model=str(model)), self.failed.append)
        self.player.start()


@pytest.fixture
def stage(long_clip: Path, nearest: Path) -> Any:
    made = Stage(long_clip, nearest)
    yield made
    made.player.close()
    assert [thread for thread in threading.enumerate() if thread.name.startswith("vidsr")] == []


def test_plays_ahead_of_the_clock_and_waits_there(stage: Stage) -> None:
    viewer = Viewer()
    stage.player.attach(viewer)
    viewer.picture(lambda header: header["seconds"] >= 0.52)
    assert max(header["seconds"] for header, _ in viewer.pictures) <= 0.6 + 1e-6
    stage.player.clock(1.0, 14, 0)
    viewer.picture(lambda header: header["seconds"] >= 1.5)
    seconds = [header["seconds"] for header, _ in viewer.pictures]
    assert seconds == sorted(seconds)
    assert not viewer.pictures[0][0]["exact"]
    assert viewer.pictures[0][0]["box"] == [0, 0, 64, 48]


def test_single_frames_are_exact(stage: Stage, long_clip: Path) -> None:
    with av.open(str(long_clip)) as container:
        frames = list(container.decode(video=0))
    viewer = Viewer()
    stage.player.attach(viewer)
    viewer.picture(lambda header: True)
    stage.player.pause(2.0)
    viewer.exact(2.0)
    stage.player.step(1)
    viewer.exact(2.04)
    stage.player.step(-1)
    stage.player.step(-1)  # before the other is there
    original, enlarged = map(rgb, viewer.exact(1.96))
    far = [np.abs(original.astype(int) - frame.to_ndarray(format="rgb24")).mean() for frame in frames]
    assert np.argmin(far) == 49
    assert enlarged.shape == (96, 128, 3)
    stage.player.seek(4.0)
    assert not np.array_equal(rgb(viewer.exact(4.0)[0]), original)


def test_the_last_frame_ends_it_and_playing_again_begins_anew(stage: Stage) -> None:
    viewer = Viewer()
    stage.player.attach(viewer)
    stage.player.seek(9.8)
    viewer.picture(lambda header: header["seconds"] > 9.95)
    stage.player.clock(9.9, 5, 0)
    ended = viewer.message(lambda message: message["tell"] == "state" and message["ended"])
    assert not ended["playing"]
    stage.player.play()
    viewer.picture(lambda header: header["seconds"] == 0 and header["serial"] > ended["serial"])
    assert stage.failed == []


def test_another_model_goes_on_where_it_was(stage: Stage, tmp_path: Path) -> None:
    viewer = Viewer()
    stage.player.attach(viewer)
    stage.player.pause(3.0)
    viewer.exact(3.0)
    three = nearest_model(tmp_path / "three.onnx", scale=3)
    stage.player.choose(str(three), None)
    state = viewer.message(lambda message: message["tell"] == "state" and message["size"] == [192, 144])
    assert state["loading"] is None
    _, (_, enlarged) = viewer.picture(lambda header: header["exact"] and header["model"] == str(three))
    assert rgb(enlarged).shape == (144, 192, 3)
    stage.player.choose("nothing-of-that-name", None)
    viewer.message(lambda message: message["tell"] == "notice" and "nothing-of-that-name" in message["text"])
    back = viewer.message(lambda message: message["tell"] == "state" and message["loading"] is None)
    assert back["model"] == str(three)


def test_without_a_viewer_nothing_runs_and_the_next_goes_on(stage: Stage) -> None:
    first = Viewer()
    stage.player.attach(first)
    stage.player.pause(5.0)
    first.exact(5.0)
    stage.player.detach()
    lanes = [thread for thread in threading.enumerate() if thread.name.startswith(("vidsr-show", "vidsr-infer"))]
    for thread in lanes:
        thread.join(PATIENCE)
    assert len(lanes) == 2
    second = Viewer()
    stage.player.attach(second)
    second.exact(5.0)
    assert second.messages[0]["tell"] == "state"


def test_what_cannot_be_shown_any_more_is_said(stage: Stage, long_clip: Path) -> None:
    viewer = Viewer()
    stage.player.attach(viewer)
    stage.player.pause(1.0)
    viewer.exact(1.0)
    long_clip.unlink()
    stage.player.seek(8.0)
    assert "no such file" in viewer.message(lambda message: message["tell"] == "broken")["text"]
    assert len(stage.failed) == 1


def test_a_step_beyond_the_end_stays_at_the_end(stage: Stage) -> None:
    viewer = Viewer()
    stage.player.attach(viewer)
    stage.player.pause(9.96)
    viewer.exact(9.96)
    stage.player.step(1)
    shot = stage.player.exact(PATIENCE)
    assert shot is not None
    assert float(shot.ticket.held.seconds) == pytest.approx(9.96)


def test_after_the_end_the_place_is_the_end(stage: Stage) -> None:
    viewer = Viewer()
    stage.player.attach(viewer)
    stage.player.seek(9.8)
    viewer.picture(lambda header: header["seconds"] > 9.95)
    stage.player.clock(9.5, 1, 0)
    assert not any(message.get("ended") for message in viewer.messages), "there is still something to see"
    stage.player.clock(500.0, 5, 0)
    viewer.message(lambda message: message["tell"] == "state" and message["ended"])
    stage.player.step(-1)
    assert viewer.exact(9.92)


def test_an_engine_that_cannot_be_made_leaves_the_one_before(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = Viewer()
    stage.player.attach(viewer)
    stage.player.pause(3.0)
    viewer.exact(3.0)
    usual = EnginePlan.open

    def broken(plan: EnginePlan) -> Engine:
        if plan.model.scale == 3:
            raise BackendError("no memory for that")
        return usual(plan)

    monkeypatch.setattr(EnginePlan, "open", broken)
    stage.player.choose(str(nearest_model(tmp_path / "three.onnx", scale=3)), None)
    viewer.message(lambda message: message["tell"] == "notice" and message["text"] == "no memory for that")
    stage.player.step(1)
    viewer.exact(3.04)
    assert stage.failed == []


def test_an_engine_that_cannot_be_made_at_first_is_said(
    long_clip: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(plan: EnginePlan) -> Engine:
        raise BackendError("no engine today")

    monkeypatch.setattr(EnginePlan, "open", broken)
    stage = Stage(long_clip, nearest)
    viewer = Viewer()
    stage.player.attach(viewer)
    assert viewer.message(lambda message: message["tell"] == "broken")["text"] == "no engine today"
    stage.player.close()
    assert stage.failed == ["no engine today"]


def test_choices_are_made_one_after_the_other_and_only_the_last(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = Viewer()
    stage.player.attach(viewer)
    viewer.picture(lambda header: True)
    usual, going, open_ = EnginePlan.open, threading.Event(), threading.Event()
    made: list[int] = []

    def slow(plan: EnginePlan) -> Engine:
        made.append(plan.model.scale)
        going.set()
        assert open_.wait(PATIENCE)
        return usual(plan)

    monkeypatch.setattr(EnginePlan, "open", slow)
    paths = [nearest_model(tmp_path / f"{scale}.onnx", scale=scale) for scale in (3, 4, 5)]
    stage.player.choose(str(paths[0]), None)
    assert going.wait(PATIENCE)
    stage.player.choose(str(paths[1]), None)
    stage.player.choose(str(paths[2]), None)
    viewer.message(lambda message: message["tell"] == "state" and message["model"] == str(paths[2]))
    open_.set()
    viewer.message(lambda message: message["tell"] == "state" and message["size"] == [320, 240])
    assert made == [3, 5]


def test_a_bad_choice_before_there_is_anything_leaves_what_was_to_come(long_clip: Path, nearest: Path) -> None:
    stage = Stage(long_clip, nearest)
    stage.player.choose("nothing-of-that-name", None)
    viewer = Viewer()
    stage.player.attach(viewer)
    viewer.message(lambda message: message["tell"] == "notice" and "nothing-of-that-name" in message["text"])
    assert viewer.picture(lambda header: True)[0]["model"] == str(nearest)
    stage.player.close()
    assert stage.failed == []


def test_a_job_gets_what_was_chosen_before_it(stage: Stage) -> None:
    got: queue.Queue[Settings] = queue.Queue()
    stage.player.choose("span-fast", Fraction(3))
    stage.player.chosen(got.put)
    settings = got.get(timeout=PATIENCE)
    assert (settings.model, settings.scale) == ("span-fast", 3)


def test_our_own_mistake_ends_it_with_a_word(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    viewer = Viewer()
    stage.player.attach(viewer)
    viewer.picture(lambda header: True)
    monkeypatch.setattr(stage.player, "_seek", lambda seconds: 1 / 0)
    stage.player.seek(1.0)
    assert "ZeroDivisionError" in viewer.message(lambda message: message["tell"] == "broken")["text"]


def test_a_snapshot_pauses_and_is_what_is_there(stage: Stage) -> None:
    viewer = Viewer()
    stage.player.attach(viewer)
    viewer.picture(lambda header: header["seconds"] >= 0.4)
    stage.player.clock(0.41, 10, 0)
    shot = stage.player.exact(PATIENCE)
    assert shot is not None
    assert shot.pixels is not None
    assert Fraction(2, 5) <= shot.ticket.held.seconds < 2
    assert shot.pixels[1].shape == (96, 128, 3)


def slow_lane(*, times_too_slow: float, model: str = models.DEFAULT, size: tuple[int, int] | None = None) -> Any:
    """What `remedy` looks at."""
    pace = Pace(1 / 25)
    pace.learn(times_too_slow / 25)
    video = SimpleNamespace(layout=FrameLayout(family="yuv", bits=8, height=360, width=640, chroma=(2, 2)))
    stream = SimpleNamespace(settings=Settings(model=model), source=SimpleNamespace(video=video))
    return SimpleNamespace(pace=pace, stream=stream, size=size)


def test_what_keeps_up_needs_no_remedy() -> None:
    assert remedy(slow_lane(times_too_slow=1.05), chosen=False) is None


def test_the_usual_model_gives_way_to_the_fast_one_but_a_chosen_one_to_a_part() -> None:
    usual = remedy(slow_lane(times_too_slow=3), chosen=False)
    assert usual is not None
    assert usual.settings is not None
    assert (usual.settings.model, usual.size) == ("span-fast", None)
    assert "span-fast plays instead" in (usual.text or "")
    for chosen, model in ((True, models.DEFAULT), (False, "span-fast")):
        part = remedy(slow_lane(times_too_slow=3, model=model), chosen=chosen)
        assert part is not None
        assert part.settings is not None
        assert part.settings.model == model
        assert part.size is not None
        assert 0.15 < part.size[0] * part.size[1] / (360 * 640) <= 1 / 3


def test_a_part_shrinks_until_only_leaving_out_frames_is_left() -> None:
    again = remedy(slow_lane(times_too_slow=2, size=(192, 320)), chosen=True)
    assert again is not None
    assert again.size is not None
    assert again.size[0] < 192
    assert again.text is None, "said once"
    last = remedy(slow_lane(times_too_slow=2, size=(80, 96)), chosen=True)
    assert last is not None
    assert last.settings is None
    assert "frames are left out" in (last.text or "")


def test_a_part_lies_where_the_viewer_looks_and_is_enlarged_exactly(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([(24, 32)])

    def once(lane: Any, *, chosen: bool) -> Remedy | None:
        size = next(answers, None)
        return None if size is None else Remedy(settings=lane.stream.settings, size=size, text="a part")

    monkeypatch.setattr("vidsr.preview.player.remedy", once)
    monkeypatch.setattr("vidsr.preview.player._SETTLE_SECONDS", 0)
    viewer = Viewer()
    stage.player.look(1.0, 0.0)
    stage.player.attach(viewer)
    viewer.message(lambda message: message["tell"] == "state" and message["crop"] == [32, 24])
    header, (original, enlarged) = viewer.picture(lambda header: header["box"] == [32, 0, 32, 24])
    assert rgb(enlarged).shape == (48, 64, 3)
    part = rgb(original)[:24, 32:].repeat(2, axis=0).repeat(2, axis=1)
    assert np.abs(part.astype(int) - rgb(enlarged)).mean() < 3
    stage.player.look(0.0, 1.0)
    stage.player.clock(header["seconds"] + 1, 10, 0)
    viewer.picture(lambda header: header["box"] == [0, 24, 32, 24])
    stage.player.pause(3.0)
    assert rgb(viewer.exact(3.0)[1]).shape == (96, 128, 3), "paused, all of it"
