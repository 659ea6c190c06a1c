"""Whole runs: the ordinary pipeline from a file into a real encoder, or into nothing."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Literal

from vidsr.backends.base import Engine, Watch
from vidsr.backends.reuse import ReusingEngine
from vidsr.errors import InputError
from vidsr.events import Stage
from vidsr.frame import Frame, Plane
from vidsr.job import Job, Settings, resolve
from vidsr.job.run import stream_of
from vidsr.pipeline import Reader, aside, transfer
from vidsr.sinks.null import NullSink
from vidsr.sinks.segments import SegmentSink
from vidsr.sinks.workspace import Workspace

__all__ = ["Few", "Round", "SinkName", "Whole", "job_in", "once", "run", "warm"]

SinkName = Literal["file", "null"]
_WARM_FRAMES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One run. seconds: from the moment the model is loaded to the end of the encoder, as `vidsr` reports it. busy:
    share of the time that each thread of the pipeline worked. reused: how much of the model's work was not done again,
    0..1."""

    frames: int
    seconds: float
    busy: dict[Stage, float]
    engine: str
    reused: float = 0.0

    @property
    def fps(self) -> float:
        return self.frames / max(self.seconds, 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """Several runs of the same."""

    rounds: tuple[Round, ...]

    @property
    def fps(self) -> float:
        """The median."""
        return statistics.median(one.fps for one in self.rounds)

    @property
    def busy(self) -> dict[str, float]:
        """Medians."""
        return {stage: statistics.median(one.busy[stage] for one in self.rounds) for stage in self.rounds[0].busy}


def run(
    source: Path,
    settings: Settings,
    sink: SinkName = "file",
    frames: int | None = None,
    rounds: int = 3,
    on_round: Callable[[Round], None] = lambda done: None,
) -> Whole:
    """Measures `rounds` runs over the first `frames` frames, all where that is None, behind a short one that warms up.

    Who compares several settings does so in turns: `job_in` for each, then `once` round by round. Raises a VidsrError.
    """
    with job_in(source, settings) as job:
        warm(job, sink, frames)
        done = []
        for _ in range(rounds):
            done.append(once(job, sink, frames))
            on_round(done[-1])
    return Whole(rounds=tuple(done))


@contextmanager
def job_in(source: Path, settings: Settings) -> Iterator[Job]:
    """The job of a run with these settings, with its engine prepared; its output lies in a folder that vanishes behind
    the block. Raises a VidsrError."""
    with tempfile.TemporaryDirectory(prefix="vidsr-bench-") as folder:
        job = resolve(source, Path(folder, "out.mkv"), replace(settings, tracks="none", overwrite=True))
        aside(job.engine.prepare, Watch())
        yield job


def warm(job: Job, sink: SinkName = "file", frames: int | None = None) -> None:
    """A short run, after which others take as long as they will; no longer than `frames`. Raises a VidsrError."""
    once(job, sink, _WARM_FRAMES if frames is None else min(frames, _WARM_FRAMES))


def once(job: Job, sink: SinkName = "file", frames: int | None = None) -> Round:
    """One run over the first `frames` frames, all where that is None. Nothing is joined or verified, and nothing
    stays. Raises a VidsrError."""
    workspace = Workspace(job.path, {}, {}, "replace") if sink == "file" else None
    segments = SegmentSink(workspace, job.encoder, before_adding=lambda: None) if workspace else NullSink()
    engines: list[Engine] = []

    def open_engine() -> Engine:
        engines.append(spec.open_engine())
        return engines[-1]

    try:
        spec = stream_of(job, job.engine).spec()
        reader = spec.open_reader if frames is None else lambda: Few(spec.open_reader(), frames)
        totals = transfer(
            replace(spec, open_engine=open_engine, open_reader=reader),
            segments,
            job.video,
            stop=Event(),
            cancel=Event(),
            total=frames,
            on_progress=lambda progress: None,
            written_bytes=lambda: 0,
        )
    finally:
        if workspace is not None:
            workspace.remove()
    if not totals.frames:
        raise InputError(f"{job.source.path}: there is no frame to measure with")
    return Round(
        frames=totals.frames,
        seconds=totals.seconds,
        busy=totals.busy,
        engine=totals.engine,
        reused=max((engine.saved.share for engine in engines if isinstance(engine, ReusingEngine)), default=0.0),
    )


class Few:
    """The first `count` frames of a reader."""

    def __init__(self, reader: Reader, count: int) -> None:
        self._reader, self._left = reader, count

    def read(self, planes: Sequence[Plane]) -> Frame | None:
        self._left -= 1
        return self._reader.read(planes) if self._left >= 0 else None

    def close(self) -> None:
        self._reader.close()
