"""The pipeline with fakes around it: order, the bound on memory, errors, stopping, and that no thread is left behind.

Nothing here sleeps or looks at a clock. Fakes wait for events with a limit, and a test that starts threads runs in a
daemon thread of its own (`guarded`): the threads it starts inherit that, so one that hangs fails its test and cannot
keep the process alive.
"""

from __future__ import annotations

import functools
import itertools
import random
import subprocess
import sys
import threading
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from threading import Barrier, Event, Lock, Thread, current_thread
from types import SimpleNamespace
from typing import Any, Literal, get_args

import av
import numpy as np
import pytest

import vidsr
from tests.conftest import make_clip
from vidsr.backends.base import Engine, Slot
from vidsr.color import BT601, BT709, ColorTags, Conversion
from vidsr.errors import Cancelled, OutputError
from vidsr.events import Progress
from vidsr.frame import Frame, FrameLayout, Plane, VideoTrack
from vidsr.media import encoder
from vidsr.pipeline import Pipeline, PipelineSpec, Reader, Totals, transfer
from vidsr.pipeline.channel import Aborted, Channel, Closed
from vidsr.pipeline.meter import Meter
from vidsr.sinks import Outcome, Sink
from vidsr.sinks.null import NullSink
from vidsr.sinks.segments import SegmentSink, segment_frames
from vidsr.sinks.workspace import Workspace

LIMIT_SECONDS = 20.0
ENDLESS = 1_000_000
SOURCE = FrameLayout(family="yuv", bits=8, height=16, width=16, chroma=(2, 2))
TARGET = FrameLayout(family="yuv", bits=8, height=32, width=32, chroma=(2, 2))
TIME_BASE = Fraction(1, 90000)
VIDEO = VideoTrack(layout=TARGET, color=ColorTags(), time_base=TIME_BASE, rate=Fraction(25))
TAGS = (ColorTags(matrix=BT709), ColorTags(matrix=BT601), ColorTags(matrix=BT709, full_range=True))
GAPS = (3600, 3003, 1, 7200, 3600)
"""Frames come unevenly, so that a time that is computed anew instead of carried along shows."""


# ---- guards


def ours() -> set[Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("vidsr-")}


def stacks() -> str:
    """Where all threads are, to see why something hangs."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames().items()
    return "\n".join(f"{names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}" for ident, frame in frames)


def guarded(test: Callable[..., None]) -> Callable[..., None]:
    """Fails a test that does not end, or that leaves a thread of vidsr's."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        before, errors = ours(), list[BaseException]()

        def body() -> None:
            try:
                test(*args, **kwargs)
            except BaseException as error:
                errors.append(error)

        thread = Thread(target=body, name="guarded", daemon=True)
        thread.start()
        thread.join(LIMIT_SECONDS)
        if thread.is_alive():
            pytest.fail(f"does not end:\n{stacks()}")
        if errors:
            raise errors[0]
        assert ours() <= before, f"threads are left:\n{stacks()}"

    return run


def reached(event: Event) -> None:
    assert event.wait(LIMIT_SECONDS / 2), "what was waited for did not happen"


# ---- fakes


class BrokenError(Exception):
    """What fakes raise."""


@dataclass(frozen=True)
class Fault:
    """Raise `error` at the call with number `at` of some point, and at every later one if `stays`."""

    error: BaseException
    at: int = 0
    stays: bool = False


def time_of(number: int) -> int:
    return sum(itertools.islice(itertools.cycle(GAPS), number))


def value_of(number: int) -> int:
    return 20 + number * 23 % 200


class Scene:
    """Everything a run consists of, and what happened in it.

    faults, on: by point, such as "reader.read"; `on` is called with the number of the call, before a fault strikes.
    """

    def __init__(
        self,
        *,
        frames: int = 7,
        slots: int = 3,
        faults: Mapping[str, Fault] | None = None,
        on: Mapping[str, Callable[[int], None]] | None = None,
    ) -> None:
        self.frames, self.slots, self.faults, self.on = frames, slots, dict(faults or {}), dict(on or {})
        self.calls: Counter[str] = Counter()
        self.made: Counter[str] = Counter()
        self.journal: list[tuple[str, int]] = []
        self.threads: defaultdict[str, set[Thread]] = defaultdict(set)
        self.written: list[Frame] = []
        self.outcomes: list[Outcome] = []
        self.progress: list[Progress] = []
        self.wrong: list[str] = []
        self.in_flight = self.most_in_flight = 0
        self.stop, self.cancel = Event(), Event()
        self._lock = Lock()

    def at(self, point: str) -> int:
        owner = point.split(".")[0]
        with self._lock:
            number = self.calls[point]
            self.calls[point] += 1
            self.journal.append((point, number))
            self.threads[owner].add(current_thread())
        if point in self.on:
            self.on[point](number)
        fault = self.faults.get(point)
        if fault and (number == fault.at or (fault.stays and number > fault.at)):
            raise fault.error
        return number

    def flies(self, change: int) -> None:
        with self._lock:
            self.in_flight += change
            self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def expect(self, condition: bool, otherwise: str) -> None:
        if not condition:
            self.wrong.append(otherwise)

    @property
    def spec(self) -> PipelineSpec:
        return PipelineSpec(
            open_reader=lambda: FakeReader(self),
            open_engine=lambda: FakeEngine(self),
            convert=self.convert,
            slots=self.slots,
        )

    def convert(self, tags: ColorTags) -> Conversion:
        self.at("convert")
        mark = np.full((3, 4), TAGS.index(tags), np.float32)
        return Conversion(mark, mark + 10)

    def transfer(self, sink: Sink | None = None, on_progress: Callable[[Progress], None] | None = None) -> Totals:
        return transfer(
            self.spec,
            FakeSink(self) if sink is None else sink,
            VIDEO,
            stop=self.stop,
            cancel=self.cancel,
            total=self.frames,
            on_progress=on_progress or self.progress.append,
            written_bytes=lambda: 4321,
        )

    def check_closed(self) -> None:
        """Whatever was made is closed, once, in the thread that made it, and no thread is left."""
        assert not ours()
        assert not self.wrong
        for owner in ("reader", "engine"):
            assert self.calls[f"{owner}.close"] == self.made[owner], owner
            assert len(self.threads[owner]) <= 1, owner

    def check_sink(self, *outcomes: Outcome) -> None:
        assert self.outcomes == list(outcomes)
        assert len(self.threads["sink"]) == 1

    def check_written(self, count: int) -> None:
        """The first `count` frames came, in order, with their own time, colour and picture."""
        assert [frame.pts for frame in self.written] == [time_of(number) for number in range(count)]
        for number, frame in enumerate(self.written):
            check_frame(frame, number)


def check_frame(frame: Frame, number: int) -> None:
    assert (frame.pts, frame.duration, frame.time_base) == (time_of(number), GAPS[number % 5], TIME_BASE)
    assert frame.color == TAGS[number % 3]
    assert [plane.shape for plane in frame.planes] == list(TARGET.shapes)
    luma = frame.planes[0]
    assert (luma[1:] == value_of(number)).all()
    assert luma[0, 0] == number % 3, "converted with another frame's colours"


class FakeReader:
    """Flat pictures, each with a value, a time and colours of its own."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        scene.at("reader.open")
        scene.made["reader"] += 1

    def read(self, planes: Sequence[Plane]) -> Frame | None:
        scene = self._scene
        scene.flies(+1)
        number = scene.at("reader.read")
        scene.expect(number <= scene.frames, "read on behind the end")
        if number >= scene.frames:
            return None
        for plane in planes:
            plane[...] = value_of(number)
        color, duration = TAGS[number % 3], GAPS[number % 5]
        return Frame(planes=planes, pts=time_of(number), duration=duration, time_base=TIME_BASE, color=color)

    def close(self) -> None:
        self._scene.at("reader.close")


class FakeEngine:
    """Repeats every sample; works only when waited for, and leaves its mark on the first sample."""

    source, target, description, in_flight = SOURCE, TARGET, "a fake", 2

    def __init__(self, scene: Scene) -> None:
        self._scene, self._running, self._failed = scene, list[Slot](), list[Slot]()
        scene.at("engine.open")
        scene.made["engine"] += 1

    def slots(self, count: int) -> Sequence[Slot]:
        self._scene.at("engine.slots")
        return [Slot.allocate(SOURCE, TARGET) for _ in range(count)]

    def submit(self, slot: Slot) -> None:
        self._scene.expect(slot not in self._running, "a slot was submitted twice")
        self._scene.at("engine.submit")
        self._running.append(slot)

    def wait(self, slot: Slot) -> None:
        self._scene.expect(slot in self._running or slot in self._failed, "waited for a slot that was not submitted")
        self._running = [other for other in self._running if other is not slot]
        self._failed.append(slot)
        self._scene.at("engine.wait")
        self._failed.remove(slot)
        for small, large in zip(slot.input, slot.output, strict=True):
            large[...] = small.repeat(2, axis=0).repeat(2, axis=1)
            small[...] = 255
        slot.output[0][0, 0] = slot.rgb_from_codes[0, 0]

    def close(self) -> None:
        self._scene.expect(not self._running, "closed with slots under way")
        self._scene.at("engine.close")


class FakeSink:
    overrun: Literal["wait", "drop"] = "wait"

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def open(self, video: VideoTrack) -> None:
        self._scene.at("sink.open")
        self._scene.expect(video is VIDEO, "another track was announced")

    def write(self, frame: Frame) -> None:
        self._scene.at("sink.write")
        planes = tuple(plane.copy() for plane in frame.planes)
        self._scene.written.append(Frame(**{**fields_of(frame), "planes": planes}))
        self._scene.flies(-1)

    def close(self, outcome: Outcome) -> None:
        self._scene.outcomes.append(outcome)
        self._scene.at("sink.close")


def fields_of(frame: Frame) -> dict[str, Any]:
    return {name: getattr(frame, name) for name in ("planes", "pts", "duration", "time_base", "color")}


def test_fakes_fit_the_seams() -> None:
    """For the type checker more than for the run."""
    scene = Scene()
    reader: Reader = FakeReader(scene)
    engine: Engine = FakeEngine(scene)
    sink: Sink = FakeSink(scene)
    assert reader and engine and sink


# ---- channel


def test_channel_delivers_what_came_before_its_close() -> None:
    channel: Channel[int] = Channel()
    for item in range(3):
        channel.put(item)
    channel.close()
    assert [channel.get(), channel.get_now(), channel.get()] == [0, 1, 2]
    with pytest.raises(Closed):
        channel.get()
    with pytest.raises(Closed):
        channel.get_now()


def test_channel_without_items_does_not_keep_get_now_waiting() -> None:
    assert Channel[int]().get_now() is None


def test_channel_forgets_everything_when_aborted() -> None:
    channel: Channel[int] = Channel()
    channel.put(1)
    channel.close()
    channel.abort()
    channel.abort()
    for call in (channel.get, channel.get_now, lambda: channel.put(2)):
        with pytest.raises(Aborted):
            call()


@pytest.mark.parametrize(("end", "raised"), [(Channel.close, Closed), (Channel.abort, Aborted)])
@guarded
def test_channel_wakes_all_who_wait(end: Callable[[Channel[int]], None], raised: type[Exception]) -> None:
    channel: Channel[int] = Channel()
    seen: list[type[BaseException]] = []
    ready = Barrier(4)

    def wait() -> None:
        ready.wait(LIMIT_SECONDS)
        try:
            channel.get()
        except Exception as error:
            seen.append(type(error))

    threads = [Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    ready.wait(LIMIT_SECONDS)
    end(channel)
    for thread in threads:
        thread.join(LIMIT_SECONDS)
    assert seen == [raised] * 3


@guarded
def test_channel_gives_each_item_to_one_of_many() -> None:
    channel: Channel[int] = Channel()
    taken: list[list[int]] = [[] for _ in range(3)]

    def take(own: list[int]) -> None:
        with suppress(Closed):
            while True:
                own.append(channel.get())

    takers = [Thread(target=take, args=(own,)) for own in taken]
    givers = [Thread(target=lambda k=k: [channel.put(k * 1000 + i) for i in range(200)]) for k in range(3)]
    for thread in takers + givers:
        thread.start()
    for thread in givers:
        thread.join(LIMIT_SECONDS)
    channel.close()
    for thread in takers:
        thread.join(LIMIT_SECONDS)
    assert sorted(itertools.chain(*taken)) == [k * 1000 + i for k in range(3) for i in range(200)]
    for own in taken:
        for k in range(3):
            mine = [item for item in own if item // 1000 == k]
            assert mine == sorted(mine), "items of one giver changed their order"


# ---- meter


class Clock:
    """Stands still until it is moved."""

    now = 1000.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("vidsr.pipeline.meter.time", SimpleNamespace(perf_counter=clock.perf_counter))
    return clock


def test_meter_counts_shares_of_the_time_since_start(clock: Clock) -> None:
    meter = Meter()
    with meter.at("decode"):
        clock.now += 100  # loading
    meter.start()
    with meter.at("decode"):
        clock.now += 1
    begin = clock.now
    clock.now += 3
    meter.add("model", begin)
    assert meter.seconds == 4
    assert meter.shares() == {"decode": 0.25, "model": 0.75, "encode": 0.0}


def test_meter_counts_work_that_fails(clock: Clock) -> None:
    meter = Meter()

    def work() -> None:
        with meter.at("encode"):
            clock.now += 2
            raise BrokenError

    with pytest.raises(BrokenError):
        work()
    assert meter.shares()["encode"] == 1


def test_meter_knows_the_last_seconds(clock: Clock) -> None:
    meter = Meter()
    meter.start()
    for frames in range(0, 100, 10):  # 10 frames a second, the encoder at work half the time
        meter.recent(frames)
        with meter.at("encode"):
            clock.now += 0.5
        clock.now += 0.5
    for frames in range(100, 130, 2):  # then 2 a second, the decoder at work all the time
        fps, shares = meter.recent(frames)
        with meter.at("decode"):
            clock.now += 1
    assert fps == pytest.approx(2)
    assert shares == {"decode": 1.0, "model": 0.0, "encode": 0.0}


def test_meter_asked_at_once_divides_by_no_zero(clock: Clock) -> None:
    assert Meter().recent(0) == (0.0, {"decode": 0.0, "model": 0.0, "encode": 0.0})


def test_meter_forgets_the_loading_time(clock: Clock) -> None:
    """While an engine loads, progress is asked for as well."""
    meter = Meter()
    for _ in range(80):
        clock.now += 0.25
        meter.recent(0)
    meter.start()
    for frames in range(1, 301):
        with meter.at("model"):
            clock.now += 0.03
        clock.now += 0.07
        fps, shares = meter.recent(frames)
        assert fps == pytest.approx(10)
        assert shares["model"] == pytest.approx(0.3)


# ---- the pipeline by itself


@pytest.mark.parametrize("slots", [1, 2, 3, 8])
@pytest.mark.parametrize("frames", [0, 1, 2, 7])
@guarded
def test_frames_come_in_order_with_their_times(frames: int, slots: int) -> None:
    scene = Scene(frames=frames, slots=slots)
    count = 0
    with Pipeline(scene.spec) as pipeline:
        for frame in pipeline.frames():
            check_frame(frame, count)
            count += 1
        assert pipeline.engine_description == "a fake"
        assert pipeline.reached_end
    assert count == frames
    scene.check_closed()


@guarded
def test_frames_after_the_end_are_none() -> None:
    scene = Scene(frames=2)
    with Pipeline(scene.spec) as pipeline:
        assert len(list(pipeline.frames())) == 2
        assert list(pipeline.frames()) == []
    scene.check_closed()


@guarded
def test_objects_belong_to_one_thread_each() -> None:
    scene = Scene()
    scene.transfer()
    owners = {owner: next(iter(threads)).name for owner, threads in scene.threads.items() if owner != "convert"}
    assert owners == {"reader": "vidsr-decode", "engine": "vidsr-infer", "sink": "vidsr-encode"}
    assert all(len(threads) == 1 for threads in scene.threads.values())
    scene.check_closed()


@guarded
def test_two_frames_are_with_the_engine_when_both_are_there() -> None:
    """So that a device has work while the host collects a result."""
    second_is_ready = Event()

    def on_read(number: int) -> None:
        if number == 2:
            second_is_ready.set()

    def on_submit(number: int) -> None:
        if number == 0:
            reached(second_is_ready)

    scene = Scene(frames=4, slots=3, on={"reader.read": on_read, "engine.submit": on_submit})
    scene.transfer()
    engine = [entry for entry in scene.journal if entry[0] in ("engine.submit", "engine.wait")]
    assert engine[:3] == [("engine.submit", 0), ("engine.submit", 1), ("engine.wait", 0)]


def leave_by_break(frames: Iterator[Frame]) -> None:
    for _ in frames:
        break


def leave_by_error(frames: Iterator[Frame]) -> None:
    for _ in frames:
        raise KeyError("the consumer's own")


def leave_by_close(frames: Any) -> None:
    next(frames)
    next(frames)
    frames.close()
    assert next(frames, None) is None


def leave_unused(frames: Iterator[Frame]) -> None:
    pass


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("leave", [leave_by_break, leave_by_error, leave_by_close, leave_unused])
@guarded
def test_consumer_that_leaves_strands_nobody(leave: Callable[[Iterator[Frame]], None], slots: int) -> None:
    scene = Scene(frames=ENDLESS, slots=slots)
    with suppress(KeyError), Pipeline(scene.spec) as pipeline:
        leave(pipeline.frames())
    assert not pipeline.reached_end
    assert scene.calls["reader.read"] < 3 + 2 * slots
    scene.check_closed()


@guarded
def test_consumer_gets_its_own_error_first() -> None:
    """The reader fails while the consumer holds a frame, which then fails by itself."""
    held, failed = Event(), list[Thread]()
    scene = Scene(faults={"reader.read": Fault(BrokenError("nobody asked"), at=1)})

    def on_read(number: int) -> None:
        failed[:] = [current_thread()]
        if number == 1:
            reached(held)

    def consume() -> None:
        with Pipeline(scene.spec) as pipeline:
            for _ in pipeline.frames():
                held.set()
                failed[0].join(LIMIT_SECONDS / 2)
                raise KeyError("mine")

    scene.on["reader.read"] = on_read
    with pytest.raises(KeyError, match="mine"):
        consume()
    scene.check_closed()


STAGE_FAULTS = [
    ("reader.open", 0), ("reader.read", 0), ("reader.read", 3), ("reader.read", 7), ("reader.close", 0),
    ("convert", 0), ("convert", 2), ("engine.open", 0), ("engine.slots", 0), ("engine.submit", 0),
    ("engine.submit", 3), ("engine.wait", 0), ("engine.wait", 6), ("engine.close", 0),
]  # fmt: skip


@pytest.mark.parametrize(("point", "at"), STAGE_FAULTS)
@guarded
def test_error_of_a_stage_comes_out_of_frames(point: str, at: int) -> None:
    error = BrokenError(point)
    scene = Scene(slots=2, faults={point: Fault(error, at)})

    def consume() -> None:
        with Pipeline(scene.spec) as pipeline:
            for number, frame in enumerate(pipeline.frames()):
                check_frame(frame, number)

    with pytest.raises(BrokenError) as caught:
        consume()
    assert caught.value is error
    scene.check_closed()


@guarded
def test_error_keeps_its_cause() -> None:
    error = BrokenError("unreadable")
    error.__cause__ = OSError("why")
    scene = Scene(faults={"reader.read": Fault(error)})
    with pytest.raises(BrokenError) as caught, Pipeline(scene.spec) as pipeline:
        list(pipeline.frames())
    assert isinstance(caught.value.__cause__, OSError)


def one_after_the_other(scene: Scene, first: str, at: int, second: str) -> None:
    """Call `at` of `first` waits for call 0 of `second`, which goes on when the thread of `first` has ended."""
    begun, threads = Event(), list[Thread]()

    def on_first(number: int) -> None:
        if number == at:
            reached(begun)
        threads[:] = [current_thread()]

    def on_second(number: int) -> None:
        if number == 0:
            begun.set()
            threads[0].join(LIMIT_SECONDS / 2)
            scene.expect(not threads[0].is_alive(), f"{first} did not end its thread")

    scene.on[first], scene.on[second] = on_first, on_second


@guarded
def test_later_error_is_a_note_on_the_first() -> None:
    """The engine holds a frame until the reader has failed, and then fails as well."""
    first, second = BrokenError("first"), BrokenError("second")
    scene = Scene(faults={"reader.read": Fault(first, at=2), "engine.wait": Fault(second)})
    one_after_the_other(scene, "reader.read", 2, "engine.wait")
    with pytest.raises(BrokenError) as caught, Pipeline(scene.spec) as pipeline:
        list(pipeline.frames())
    assert caught.value is first
    assert any("second" in note for note in first.__notes__)
    scene.check_closed()


@pytest.mark.parametrize("point", ["reader.read", "engine.submit", "engine.wait"])
@guarded
def test_error_while_closing_hides_no_earlier_one(point: str) -> None:
    error = BrokenError("first")
    scene = Scene(faults={point: Fault(error, at=2)})
    scene.faults[f"{point.split('.')[0]}.close"] = Fault(BrokenError("while closing"))
    with pytest.raises(BrokenError) as caught:
        scene.transfer()
    assert caught.value is error
    scene.check_closed()


@pytest.mark.parametrize("at", [0, 1, 4])
@guarded
def test_engine_that_stays_broken_is_closed(at: int) -> None:
    """As a CUDA context is after its first error."""
    error = BrokenError("for good")
    scene = Scene(faults={"engine.wait": Fault(error, at, stays=True)})
    with pytest.raises(BrokenError) as caught:
        scene.transfer()
    assert caught.value is error
    scene.check_closed()
    scene.check_sink("failed")


@guarded
def test_thread_that_cannot_be_started_strands_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Thread.start

    def refuse(thread: Thread) -> None:
        if thread.name == "vidsr-infer":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(Thread, "start", refuse)
    pipeline = Pipeline(Scene().spec)
    try:
        with pytest.raises(RuntimeError, match="can't start"), pipeline:
            pass
        left = ours()
    finally:
        pipeline.abort()
        for thread in ours():
            thread.join(LIMIT_SECONDS)
    assert not left


# ---- into a sink


@pytest.mark.parametrize("frames", [0, 1, 7, 40])
@guarded
def test_transfer_moves_everything(frames: int) -> None:
    scene = Scene(frames=frames)
    totals = scene.transfer()
    assert (totals.frames, totals.engine, totals.reached_end) == (frames, "a fake", True)
    assert set(totals.busy) == {"decode", "model", "encode"}
    scene.check_written(frames)
    scene.check_sink("complete")
    scene.check_closed()
    sink = [point for point, _ in scene.journal if point.startswith("sink.")]
    assert sink == ["sink.open", *["sink.write"] * frames, "sink.close"]


@pytest.mark.parametrize("slots", [1, 2, 3, 6])
@guarded
def test_reader_runs_ahead_by_the_slots_and_no_further(slots: int) -> None:
    """The sink holds every frame until the reader has gone as far as the slots let it."""
    frames = 12
    begun = [Event() for _ in range(frames + 1)]
    scene = Scene(
        frames=frames,
        slots=slots,
        on={
            "reader.read": lambda number: begun[number].set(),
            "sink.write": lambda number: reached(begun[min(number + slots - 1, frames)]),
        },
    )
    scene.transfer()
    assert scene.most_in_flight == slots
    scene.check_written(frames)
    scene.check_closed()


SINK_FAULTS = [("sink.open", 0), ("sink.write", 0), ("sink.write", 3), ("sink.write", 6)]


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize(("point", "at"), STAGE_FAULTS + SINK_FAULTS)
@guarded
def test_error_anywhere_ends_a_transfer(point: str, at: int, slots: int) -> None:
    error = BrokenError(point)
    scene = Scene(slots=slots, faults={point: Fault(error, at)})
    with pytest.raises(BrokenError) as caught:
        scene.transfer()
    assert caught.value is error
    scene.check_sink("failed")
    scene.check_closed()
    scene.check_written(len(scene.written))


@guarded
def test_error_of_the_sinks_close_is_raised() -> None:
    error = BrokenError("disk full")
    scene = Scene(faults={"sink.close": Fault(error)})
    with pytest.raises(BrokenError) as caught:
        scene.transfer()
    assert caught.value is error
    scene.check_sink("complete")
    scene.check_closed()


@pytest.mark.parametrize("point", ["sink.open", "sink.write", "reader.read", "engine.open"])
@guarded
def test_error_of_the_sinks_close_hides_no_earlier_one(point: str) -> None:
    error = BrokenError("first")
    scene = Scene(faults={point: Fault(error), "sink.close": Fault(BrokenError("once more"))})
    with pytest.raises(BrokenError) as caught:
        scene.transfer()
    assert caught.value is error
    scene.check_sink("failed")
    scene.check_closed()


@guarded
def test_error_of_the_sink_hides_no_earlier_one() -> None:
    """The sink holds a frame until the reader has failed, and then fails as well."""
    first = BrokenError("first")
    scene = Scene(faults={"reader.read": Fault(first, at=2), "sink.write": Fault(BrokenError("second"))})
    one_after_the_other(scene, "reader.read", 2, "sink.write")
    with pytest.raises(BrokenError) as caught:
        scene.transfer()
    assert caught.value is first
    scene.check_sink("failed")
    scene.check_closed()


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("point", ["reader.read", "engine.submit", "sink.write"])
@guarded
def test_errors_of_every_kind_are_carried_out(point: str, error: BaseException) -> None:
    scene = Scene(faults={point: Fault(error, at=1)})
    with pytest.raises(type(error)) as caught:
        scene.transfer()
    assert caught.value is error
    scene.check_sink("failed")
    scene.check_closed()


# ---- stopping and cancelling


@pytest.mark.parametrize("slots", [1, 3])
@guarded
def test_stop_finishes_what_was_read(slots: int) -> None:
    scene = Scene(frames=ENDLESS, slots=slots)
    scene.on["sink.write"] = lambda number: scene.stop.set() if number == 4 else None
    totals = scene.transfer()
    read = scene.calls["reader.read"]
    assert 5 <= read <= 5 + slots
    assert (totals.frames, totals.reached_end) == (read, False)
    scene.check_written(read)
    scene.check_sink("stopped")
    scene.check_closed()


@guarded
def test_stop_from_the_beginning_reads_nothing() -> None:
    scene = Scene()
    scene.stop.set()
    totals = scene.transfer()
    assert (totals.frames, totals.reached_end) == (0, False)
    assert scene.calls["reader.read"] == 0
    scene.check_sink("stopped")
    scene.check_closed()


@guarded
def test_stop_behind_the_last_frame_changes_nothing() -> None:
    ended = Event()
    scene = Scene(frames=3, slots=4)
    scene.on["reader.read"] = lambda number: ended.set() if number == 3 else None

    def on_write(number: int) -> None:
        reached(ended)
        scene.stop.set()

    scene.on["sink.write"] = on_write
    assert scene.transfer().reached_end
    scene.check_written(3)
    scene.check_sink("complete")


class AskedEvent(Event):
    """Tells how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = [Event() for _ in range(50)]
        self._count = itertools.count()

    def is_set(self) -> bool:
        answer = super().is_set()
        self.asked[next(self._count)].set()
        return answer


@guarded
def test_stop_while_the_reader_waits_for_a_slot_reads_nothing_more() -> None:
    stop = AskedEvent()
    scene = Scene(frames=ENDLESS, slots=1)
    scene.stop = stop

    def on_write(number: int) -> None:
        reached(stop.asked[1])  # the reader has gone on, to wait for the only slot
        stop.set()

    scene.on["sink.write"] = on_write
    scene.transfer()
    assert scene.calls["reader.read"] == 1
    scene.check_sink("stopped")


@guarded
def test_cancel_gives_everything_up() -> None:
    scene = Scene(frames=ENDLESS)
    scene.on["sink.write"] = lambda number: scene.cancel.set() if number == 4 else None
    with pytest.raises(Cancelled):
        scene.transfer()
    scene.check_sink("failed")
    scene.check_closed()


@guarded
def test_cancel_while_all_wait_for_the_sink() -> None:
    """The reader waits for a slot, the engine for a frame; they end although the sink comes back only later."""
    given_up = Event()
    scene = Scene(frames=ENDLESS, slots=2)

    def on_write(number: int) -> None:
        scene.cancel.set()
        reached(given_up)
        for thread in scene.threads["reader"] | scene.threads["engine"]:
            thread.join(LIMIT_SECONDS / 2)
            scene.expect(not thread.is_alive(), f"{thread.name} waits on")

    def on_progress(progress: Progress) -> None:
        if scene.cancel.is_set():
            given_up.set()

    scene.on["sink.write"] = on_write
    with pytest.raises(Cancelled):
        scene.transfer(on_progress=on_progress)
    assert len(scene.written) == 1
    scene.check_sink("failed")
    scene.check_closed()


@pytest.mark.parametrize("frames", [0, 3, ENDLESS])
@guarded
def test_cancel_from_the_beginning(frames: int) -> None:
    scene = Scene(frames=frames)
    scene.cancel.set()
    with pytest.raises(Cancelled):
        scene.transfer()
    scene.check_sink("failed")
    scene.check_closed()


@guarded
def test_cancel_after_stop_wins() -> None:
    scene = Scene(frames=ENDLESS)

    def on_write(number: int) -> None:
        (scene.cancel if scene.stop.is_set() else scene.stop).set()

    scene.on["sink.write"] = on_write
    with pytest.raises(Cancelled):
        scene.transfer()
    scene.check_sink("failed")
    scene.check_closed()


@guarded
def test_cancel_that_comes_too_late_changes_nothing() -> None:
    scene = Scene()
    scene.on["sink.close"] = lambda number: scene.cancel.set()
    assert scene.transfer().reached_end
    scene.check_written(7)
    scene.check_sink("complete")
    scene.check_closed()


# ---- progress


@guarded
def test_progress_comes_in_the_calling_thread() -> None:
    seen, callers = Event(), set[Thread]()
    scene = Scene(on={"sink.write": lambda number: reached(seen)})

    def on_progress(progress: Progress) -> None:
        callers.add(current_thread())
        scene.progress.append(progress)
        seen.set()

    scene.transfer(on_progress=on_progress)
    assert callers == {current_thread()}
    first = scene.progress[0]
    assert (first.frames, first.total, first.written_bytes, first.limit) == (0, 7, 4321, None)
    assert [p.frames for p in scene.progress] == sorted(p.frames for p in scene.progress)


@pytest.mark.parametrize("error", [BrokenError("the display"), KeyboardInterrupt()])
@guarded
def test_error_of_the_display_ends_a_transfer(error: BaseException) -> None:
    seen = Event()
    scene = Scene(frames=ENDLESS, on={"sink.write": lambda number: reached(seen)})

    def on_progress(progress: Progress) -> None:
        seen.set()
        raise error

    with pytest.raises(type(error)) as caught:
        scene.transfer(on_progress=on_progress)
    assert caught.value is error
    scene.check_sink("failed")
    scene.check_closed()


# ---- by chance


POINTS = sorted({point for point, _ in STAGE_FAULTS + SINK_FAULTS} | {"sink.close"})


def chance(seed: int) -> Scene:
    """A scene with up to two faults, perhaps stopped, perhaps cancelled."""
    dice = random.Random(seed)
    scene = Scene(frames=dice.choice([0, 1, 2, 5, 12]), slots=dice.randint(1, 4))
    for point in dice.sample(POINTS, dice.choice([0, 1, 1, 2])):
        at = 0 if point.endswith(("open", "close", "slots")) else dice.randrange(6)
        scene.faults[point] = Fault(BrokenError(point), at)
    for event in (scene.stop, scene.cancel):
        if dice.random() < 0.25:
            point, when = dice.choice(POINTS), dice.randrange(5)
            scene.on[point] = lambda number, when=when, event=event: event.set() if number == when else None
    return scene


def outcome_of(scene: Scene) -> tuple[Totals | None, Exception | None]:
    try:
        return scene.transfer(), None
    except (BrokenError, Cancelled) as error:
        return None, error


@guarded
def test_whatever_happens_all_is_closed_once() -> None:
    for seed in range(250):
        scene = chance(seed)
        totals, error = outcome_of(scene)
        if totals is not None:
            assert scene.outcomes == ["complete" if totals.reached_end else "stopped"], seed
            assert totals.reached_end or scene.stop.is_set(), seed
            scene.check_written(totals.frames)
        elif isinstance(error, Cancelled):
            assert scene.cancel.is_set(), seed
            assert scene.outcomes == ["failed"], seed
        else:
            assert error in [fault.error for fault in scene.faults.values()], seed
        assert len(scene.outcomes) == 1, seed
        scene.check_written(len(scene.written))
        scene.check_closed()


# ---- real sinks


def segment_sink(folder: Path, *, keep_rest: bool = False) -> SegmentSink:
    workspace = Workspace(folder / "out.mp4", {}, {}, "new")
    settings = encoder.settings("libx264", crf=0, preset="ultrafast", extra={})
    return SegmentSink(workspace, settings, before_adding=lambda: None, keep_rest=keep_rest)


def segments_in(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "out.mp4.vidsr").glob("*.segment"))


@pytest.fixture(params=["null", "segments"])
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> Sink:
    return NullSink() if request.param == "null" else segment_sink(tmp_path)


@guarded
def test_sink_takes_a_whole_run(sink: Sink) -> None:
    assert sink.overrun in get_args(Literal["wait", "drop"])
    scene = Scene(frames=9)
    assert scene.transfer(sink).frames == 9
    scene.check_closed()


@guarded
def test_sink_leaves_nothing_of_a_segment_that_fails(sink: Sink, tmp_path: Path) -> None:
    error = BrokenError("half way")
    with pytest.raises(BrokenError):
        Scene(faults={"engine.submit": Fault(error, at=4)}).transfer(sink)
    assert segments_in(tmp_path) == []


def test_sink_can_be_closed_without_being_opened(sink: Sink, tmp_path: Path) -> None:
    sink.close("failed")
    assert segments_in(tmp_path) == []


@guarded
def test_sink_can_be_stopped_before_the_first_frame(sink: Sink, tmp_path: Path) -> None:
    scene = Scene()
    scene.stop.set()
    assert scene.transfer(sink).frames == 0
    assert segments_in(tmp_path) == []


@guarded
def test_segments_hold_every_frame_though_slots_are_used_again(tmp_path: Path) -> None:
    sink = segment_sink(tmp_path)
    Scene(frames=9, slots=2).transfer(sink)
    assert segments_in(tmp_path) == ["000000.segment"]
    with av.open(str(tmp_path / "out.mp4.vidsr" / "000000.segment")) as written:
        frames = list(written.decode(video=0))
    assert [frame.pts * frame.time_base for frame in frames] == [time_of(number) * TIME_BASE for number in range(9)]
    for number, frame in enumerate(frames):
        assert (frame.to_ndarray()[2:32] == value_of(number)).all()


@pytest.mark.parametrize("keep_rest", [True, False])
@guarded
def test_a_segment_that_is_stopped_is_no_whole_one(tmp_path: Path, keep_rest: bool) -> None:
    scene = Scene(frames=ENDLESS)
    sink = segment_sink(tmp_path, keep_rest=keep_rest)
    scene.on["engine.wait"] = lambda number: scene.stop.set() if number == 5 else None
    totals = scene.transfer(sink)
    assert (sink.rest.frames if sink.rest else 0) == (totals.frames if keep_rest else 0)
    with pytest.raises(OutputError, match="another run"):
        Workspace(tmp_path / "out.mp4", {}, {}, "new")


@guarded
def test_segments_end_at_key_frames_once_long_enough(tmp_path: Path) -> None:
    sink = segment_sink(tmp_path)
    enough = segment_frames(sink._encoder)
    sink.open(VIDEO)
    planes = TARGET.allocate()
    for plane in planes:
        plane[:] = 100
    keys = {0, 10, enough - 1, enough + 7, enough + 9, 4 * enough}
    for number in range(4 * enough + 20):
        sink.write(
            Frame(planes=planes, pts=number, duration=1, time_base=TIME_BASE, color=ColorTags(), key=number in keys)
        )
    sink.close("complete")
    workspace = sink._workspace
    first = enough + 7
    assert [segment.frames for segment in workspace.segments] == [first, 2 * enough, enough - 7 + 20]
    assert [segment.first_pts for segment in workspace.segments] == [0, first, first + 2 * enough]
    assert workspace.frames == 4 * enough + 20


# ---- the same from Python


CLIP_TIMES = [(index * 512, 512, Fraction(1, 12800)) for index in range(12)]


@guarded
def test_api_frames_have_exact_times_and_are_the_callers(clip: Path, nearest: Path) -> None:
    frames = list(vidsr.frames(clip, model=str(nearest)))
    assert [(frame.pts, frame.duration, frame.time_base) for frame in frames] == CLIP_TIMES
    assert {frame.planes[0].shape for frame in frames} == {(96, 128)}
    assert not any(np.shares_memory(a.planes[0], b.planes[0]) for a, b in itertools.pairwise(frames))


@pytest.mark.parametrize("leave", [leave_by_break, leave_by_error, leave_by_close, leave_unused])
@guarded
def test_api_frames_can_be_left_early(leave: Callable[[Iterator[Frame]], None], clip: Path, nearest: Path) -> None:
    frames: Any = vidsr.frames(clip, model=str(nearest))
    with suppress(KeyError):
        leave(frames)
    frames.close()
    assert not ours()


@guarded
def test_api_frames_end_when_nobody_refers_to_them(clip: Path, nearest: Path) -> None:
    frames = vidsr.frames(clip, model=str(nearest))
    assert next(frames).pts == 0
    assert ours()
    del frames
    assert not ours()


# Whoever ends a program half way


@pytest.mark.parametrize("ending", ["", "raise SystemExit(3)", "[][0]"])
def test_iterator_left_half_way(tmp_path: Path, nearest: Path, ending: str) -> None:
    """The program ends, although nobody closed the iterator."""
    clip = make_clip(tmp_path / "clip.mp4", frames=60)
    code = (
        "import sys, vidsr\n"
        "frames = vidsr.frames(sys.argv[1], model=sys.argv[2], hwaccel='none')\n"
        f"next(frames)\n{ending}\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(clip), str(nearest)], capture_output=True, timeout=120)
    assert done.returncode == {"": 0, "raise SystemExit(3)": 3, "[][0]": 1}[ending]


@pytest.mark.parametrize("wrong", [{"slots": 0}, {"slots": 17}, {"slots": 1.5}, {"slots": "4"}, {"device": 0}])
def test_options_that_are_none(clip: Path, tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(vidsr.VidsrError, match=f"--{next(iter(wrong))}"):
        vidsr.upscale(clip, tmp_path / "out.mp4", **wrong)
