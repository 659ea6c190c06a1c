"""Each stage of a job alone, over frames of its own input that lie in memory."""

from __future__ import annotations

import itertools
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

import numpy as np

from vidsr.backends import Slot
from vidsr.benchmark.limits import card_of, copy_seconds
from vidsr.benchmark.result import Limits, Share, StageName
from vidsr.benchmark.whole import SinkName
from vidsr.errors import InputError
from vidsr.frame import Frame, FrameLayout, Plane
from vidsr.graph.cost import multiply_adds
from vidsr.job import Conversions, Job
from vidsr.job.run import stream_of
from vidsr.media.segment import SegmentWriter

__all__ = ["Cost", "Frames", "alone", "decode", "encode", "enlarged_of", "inference", "measure", "shares", "work_gflop"]

_KEPT_BYTES, _LEAST_KEPT, _MOST_KEPT = 384 * 2**20, 4, 48
_UNCACHED_BYTES = 96 * 2**20
_SECONDS = 1.2
"""How long a stage is measured each time, if some frames do not take longer."""
_LEAST, _MOST = 6, 250
_LEAST_ENCODED = 20
"""The first frames of a video cost a slow encoder less than half: there is little yet to predict them from."""
_PILOT = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one frame in one stage. ms: wall time; cpu_ms: of all threads."""

    ms: float
    cpu_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """source: as the reader gives them. enlarged: as the engine gives them, planes of `EnginePlan.target`."""

    source: tuple[Frame, ...]
    enlarged: tuple[Frame, ...]


def enlarged_of(job: Job, most: int = _MOST_KEPT) -> Frames:
    """The first frames of the input and what the engine makes of them, as many as memory holds well. Raises a
    VidsrError."""
    plan = job.engine
    size = sum(_bytes(layout) for layout in (plan.source, plan.target))
    source: list[Frame] = []
    enlarged: list[Frame] = []
    reader = stream_of(job, plan).reader(job.settings.start, job.settings.end)
    try:
        for _ in range(max(_LEAST_KEPT, min(most, _KEPT_BYTES // size))):
            planes = plan.source.allocate()
            frame = reader.read(planes)
            if frame is None:
                break
            source.append(frame)
    finally:
        reader.close()
    if not source:
        raise InputError(f"{job.source.path}: there is no frame to measure with")

    def keep(frame: Frame, planes: Sequence[Plane]) -> None:
        enlarged.append(replace(frame, planes=tuple(plane.copy() for plane in planes)))

    with _running(job) as run:
        run(source, keep)
    return Frames(source=tuple(source), enlarged=tuple(enlarged))


def measure(
    job: Job, frames: Frames, sink: SinkName, tell: Callable[[str], None] = lambda doing: None
) -> dict[StageName, Cost]:
    """Each stage once. The copies are parts of others: on a processor of decode and encode, on a card of inference.
    tell: gets what is being done, for people."""
    copies = _copies(job)
    if sink == "null" and not job.engine.options.device.startswith("cuda"):
        del copies["copy out"]
    names: tuple[StageName, ...] = ("decode", "copy in", "inference", "copy out", "encode")
    found = {}
    for name in names:
        if name in copies:
            found[name] = copies[name]
        elif name in ("decode", "inference") or (name, sink) == ("encode", "file"):
            tell(f"{name} alone")
            found[name] = alone(job, frames, name)
    return found


def alone(job: Job, frames: Frames, name: StageName) -> Cost:
    """decode, inference or encode."""
    if name == "decode":
        return decode(job, _SECONDS)
    if name == "inference":
        return inference(job, frames.source, _SECONDS)
    return encode(job, frames.enlarged, _SECONDS)


def decode(job: Job, seconds: float = _SECONDS) -> Cost:
    """The job's reader, which copies what it decodes into planes of a slot."""
    planes = job.engine.source.allocate()
    reader = stream_of(job, job.engine).reader(job.settings.start, job.settings.end)
    try:
        first = reader.read(planes)
        if first is None:
            raise InputError(f"{job.source.path}: there is no frame to measure with")
        count, begin = 0, time.perf_counter()
        with _Counting() as counted:
            while count < _MOST and (count < _LEAST or time.perf_counter() - begin < seconds):
                if reader.read(planes) is None:
                    break
                count += 1
    finally:
        reader.close()
    return counted.cost(max(1, count))


def inference(job: Job, source: Sequence[Frame], seconds: float = _SECONDS) -> Cost:
    """The engine as the job composes it, with as many frames under way as it likes, from slot to slot."""
    with _running(job) as run:
        pilot = run(source[:_LEAST_KEPT], _ignore)
        return run(itertools.islice(_there_and_back(source), _count(pilot, seconds, _LEAST)), _ignore)


def encode(job: Job, enlarged: Sequence[Frame], seconds: float = _SECONDS) -> Cost:
    """The job's encoder, to the end of its file: what is copied into its pictures, and resized before, included."""
    pilot = _encode(job, enlarged[:_PILOT])
    return _encode(job, itertools.islice(_there_and_back(enlarged), _count(pilot, seconds, _LEAST_ENCODED)))


def shares(costs: Sequence[dict[StageName, Cost]], job: Job, limits: Limits, reused: float = 0.0) -> tuple[Share, ...]:
    """The medians of several measurements, each beside its limit. reused: how much of the model's work is not done
    again in whole runs, 0..1."""
    plan = job.engine
    found = []
    for name in costs[0]:
        ms, cpu_ms = (statistics.median(getattr(each[name], kind) for each in costs) for kind in ("ms", "cpu_ms"))
        if name == "inference":
            ms, cpu_ms = (1 - reused) * ms, (1 - reused) * cpu_ms
        bound: str | None = None
        bound_ms: float | None = None
        if name == "inference" and (peak := limits.matrix_gflops.get(plan.options.precision)):
            bound, bound_ms = f"matrix {plan.options.precision}", (1 - reused) * 1000 * work_gflop(job) / peak
        elif name in ("copy in", "copy out"):
            size = _bytes(plan.source if name == "copy in" else plan.target) * 1e-6
            # Memory is read and written, the bus passed once.
            bus = limits.bus_gbps
            bound, bound_ms = ("memory", 2 * size / limits.memory_gbps) if bus is None else ("bus", size / bus)
        found.append(Share(name=name, ms=ms, cpu_ms=cpu_ms, bound=bound, bound_ms=bound_ms))
    return tuple(found)


def work_gflop(job: Job) -> float:
    """Thousand million multiplications and additions that the model needs for one frame, without tiles' overlap."""
    layout = job.engine.source
    return 2e-9 * multiply_adds(job.engine.model.proto) * layout.height * layout.width


class _Counting:
    """Wall time and processor time of a block."""

    def __enter__(self) -> _Counting:
        self._begin, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *raised: object) -> None:
        self._seconds, self._cpu = time.perf_counter() - self._begin, time.process_time() - self._cpu

    def cost(self, count: int) -> Cost:
        return Cost(ms=1000 * self._seconds / count, cpu_ms=1000 * self._cpu / count)


def _count(pilot: Cost, seconds: float, least: int) -> int:
    """How many frames to measure with, after some have shown what they cost."""
    return max(least, min(_MOST, round(1000 * seconds / max(pilot.ms, 1e-3))))


_Made = Callable[[Frame, Sequence[Plane]], None]


@contextmanager
def _running(job: Job) -> Iterator[Callable[[Iterable[Frame], _Made], Cost]]:
    """The job's engine. What is given runs frames through it and tells of each result, whose planes are the engine's.

    Raises a VidsrError.
    """
    plan = replace(job.engine, reuse_bytes=0)  # what frames share is no speed of the model
    convert = Conversions(plan.source, plan.target, job.video.color)
    with closing(plan.open()) as engine:
        free = deque(engine.slots(plan.options.slots))
        depth = min(engine.in_flight, len(free))
        pending: deque[tuple[Slot, Frame]] = deque()

        def finish(made: _Made) -> None:
            slot, frame = pending.popleft()
            engine.wait(slot)
            made(frame, slot.output)
            free.append(slot)

        def run(frames: Iterable[Frame], made: _Made) -> Cost:
            count = 0
            with _Counting() as counted:
                for frame in frames:
                    if len(pending) == depth:
                        finish(made)
                    slot = free.popleft()
                    for target, plane in zip(slot.input, frame.planes, strict=True):
                        np.copyto(target, plane)
                    slot.convert(convert(frame.color))
                    engine.submit(slot)
                    pending.append((slot, frame))
                    count += 1
                while pending:
                    finish(made)
            return counted.cost(count)

        yield run


def _encode(job: Job, frames: Iterable[Frame]) -> Cost:
    finish = stream_of(job, job.engine).spec().finish
    path = job.path.with_name("stage.segment")
    base = job.video.time_base
    gap = max(1, round(1 / ((job.video.rate or 25) * base)))
    count = 0
    with _Counting() as counted:
        writer = SegmentWriter(path, job.video, job.encoder)
        try:
            for frame in frames:
                planes = frame.planes if finish is None else finish(frame.planes)
                writer.write(replace(frame, planes=planes, pts=count * gap, duration=gap, time_base=base))
                count += 1
            writer.close()
        finally:
            writer.abandon()
    return counted.cost(count)


def _copies(job: Job) -> dict[StageName, Cost]:
    plan = job.engine
    with card_of(plan) as card:
        if card is not None:
            inward, outward = (
                copy_seconds(card, _bytes(layout))[way] for way, layout in enumerate((plan.source, plan.target))
            )
            return {
                "copy in": Cost(ms=1000 * inward, cpu_ms=0.0),
                "copy out": Cost(ms=1000 * outward, cpu_ms=0.0),
            }
    return {"copy in": _copied(plan.source), "copy out": _copied(plan.target)}


def _copied(layout: FrameLayout) -> Cost:
    """By one thread, from and to memory that no cache holds any more."""
    pairs = [(layout.allocate(), layout.allocate()) for _ in range(max(2, _UNCACHED_BYTES // _bytes(layout)))]
    for plane in itertools.chain(*itertools.chain(*pairs)):
        plane.fill(1)
    with _Counting() as counted:
        for target, source in pairs:
            for plane, given in zip(target, source, strict=True):
                np.copyto(plane, given)
    return counted.cost(len(pairs))


def _there_and_back(frames: Sequence[Frame]) -> Iterator[Frame]:
    """Without end, and without a cut that is not theirs; no frame follows itself, if there are several."""
    return itertools.cycle([*frames, *frames[-2:0:-1]])


def _ignore(frame: Frame, planes: Sequence[Plane]) -> None:
    pass


def _bytes(layout: FrameLayout) -> int:
    return sum(height * width for height, width in layout.shapes) * layout.dtype.itemsize
