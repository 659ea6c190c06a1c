"""Runs a job: frames into segments, segments into the file, the file read again and compared."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from threading import Event
from typing import Any, Literal

import vidsr
from vidsr.backends.base import Watch
from vidsr.errors import OutputError, VidsrError
from vidsr.events import Observer, Phase, Report, Start, Warned
from vidsr.frame import Frame
from vidsr.job.engine import EnginePlan, tile_note
from vidsr.job.fingerprint import Unchanged
from vidsr.job.settings import Job
from vidsr.job.stream import Stream
from vidsr.media.pixel import pixel_format
from vidsr.media.segment import SegmentInfo
from vidsr.pipeline import Totals, aside, transfer
from vidsr.sinks.join import join
from vidsr.sinks.segments import SegmentSink
from vidsr.sinks.workspace import Workspace
from vidsr.verify import Expectation, Verification, verify

__all__ = ["Tap", "run", "start_of", "stream_of", "ticking"]

Tap = Callable[[Frame], None]
"""Sees each frame of a run, in the encoder's thread, which waits for it."""

_Mode = Literal["new", "resume", "replace"]
_TICK_SECONDS = 0.25


def run(job: Job, *, observer: Observer, stop: Event, cancel: Event, tap: Tap | None = None) -> Report:
    """Runs a job to its end; `stop` ends it early, `cancel` at once. What is done by then can be resumed.

    Raises a VidsrError, which says how to go on where something was kept.
    """
    settings = job.settings
    # Both together go on where possible and replace what lies under the output's name.
    replacing: _Mode = "replace" if settings.overwrite else "new"
    mode: _Mode = "resume" if settings.resume else replacing
    unchanged = Unchanged(job.source.path)
    workspace = Workspace(job.path, _identity(job, unchanged), _plan(job), mode)
    try:
        return _Run(job, workspace, unchanged, observer, stop, cancel, tap).report()
    except VidsrError as error:
        if workspace.segments and not workspace.named and workspace.folder.exists():
            kept = f"{workspace.frames} frames are kept in {workspace.folder}"
            error.args = (f"{error}; {kept}: once that is mended, the same command with --resume goes on there",)
        raise
    finally:
        if workspace.segments and not workspace.named:
            workspace.release()
        else:
            workspace.remove()


class _Run:
    """One run of a job in a workspace that is held."""

    def __init__(
        self,
        job: Job,
        workspace: Workspace,
        unchanged: Unchanged,
        observer: Observer,
        stop: Event,
        cancel: Event,
        tap: Tap | None,
    ) -> None:
        self._job, self._workspace, self._unchanged, self._observer = job, workspace, unchanged, observer
        self._stop, self._cancel, self._tap = stop, cancel, tap
        self._resumed = 0
        self._warnings: list[str] = []
        tile, threads = workspace.plan["tile"], workspace.plan["threads"]
        if job.settings.memory_bytes is None or job.engine.model.radius is None:
            self._plan = replace(job.engine, tile=tuple(tile) if tile else None)
        else:  # the user's word; tiles of this model change no frame
            self._plan = job.engine
        self._encoder = replace(job.encoder, options=job.encoder.options | threads)

    def report(self) -> Report:
        for warning in filter(None, (*self._job.warnings, tile_note(self._plan))):
            self._warn(warning)
        if self._workspace.named:
            self._announce()
            return self._named_before()
        if self._job.path.exists() and not self._job.settings.overwrite:
            raise OutputError(f"{self._job.path} exists already: add -y (overwrite=True) to replace it")
        self._announce()
        if self._workspace.damaged_frames:
            self._warn(f"{self._workspace.damaged_frames} frames of an earlier run were damaged and are made again")
        sink = SegmentSink(
            self._workspace,
            self._encoder,
            keep_rest=self._job.settings.keep_partial,
            before_adding=self._unchanged.check,
        )
        telling = Watch(progress=ticking(self._observer, "preparing"), warn=self._warn, stop=self._stop)
        aside(self._plan.prepare, telling)
        totals = self._transfer(sink)
        target: Path | None = None
        verification: Verification | None = None
        frames = self._workspace.frames
        if totals.reached_end:
            verification = self._finish()
            target = self._job.path
        elif self._job.settings.keep_partial:
            target = self._finish_part(sink.rest)
            frames += sink.rest.frames if sink.rest else 0
        written = target.stat().st_size if target else sink.written_bytes
        return self._done(totals, target, frames, written, verification)

    def _done(
        self, totals: Totals, target: Path | None, frames: int, written: int, verification: Verification | None
    ) -> Report:
        kept = not totals.reached_end and bool(self._workspace.segments)
        done = Report(
            target=str(target) if target else None,
            frames=frames,
            resumed=self._resumed,
            seconds=totals.seconds,
            fps=totals.frames / totals.seconds if totals.seconds else 0.0,
            written_bytes=written,
            busy=totals.busy,
            engine=totals.engine,
            warnings=tuple(self._warnings),
            complete=totals.reached_end,
            kept=str(self._workspace.folder) if kept else None,
            verified=None if verification is None else verification.ok,
            faults=() if verification is None else verification.faults,
        )
        self._observer(done)
        return done

    def _announce(self) -> None:
        self._observer(start_of(self._job, self._plan, resumed=self._workspace.frames))

    def _warn(self, text: str) -> None:
        self._warnings.append(text)
        self._observer(Warned(message=text))

    def _transfer(self, sink: SegmentSink) -> Totals:
        job = self._job
        self._resumed = self._workspace.frames
        stream = stream_of(job, self._plan, skip=self._resumed)
        totals = transfer(
            stream.spec(),
            sink,
            job.video,
            stop=self._stop,
            cancel=self._cancel,
            total=job.frames,
            on_progress=self._observer,
            written_bytes=lambda: sink.written_bytes,
            earlier=self._resumed,
            tap=self._tap,
        )
        for line in stream.mended(reached_end=totals.reached_end):
            self._warn(line)
        return totals

    def _finish(self) -> Verification | None:
        """Joins all segments, compares the file with its source, and gives it its name."""
        workspace = self._workspace
        if not workspace.segments:
            raise OutputError(f"{self._job.path}: no frame to write: the chosen part of the input holds none")
        self._join(workspace.joined, workspace.segments, complete=True)
        self._unchanged.check()
        verification = self._verify(workspace.joined)
        try:
            workspace.name(overwrite=self._job.settings.overwrite)
        except FileExistsError:
            raise OutputError(
                f"{self._job.path} was made by someone else meanwhile: move it away, or add -y (overwrite=True)"
            ) from None
        except OSError as error:
            raise OutputError(f"{self._job.path}: cannot be named ({error.strerror or error})") from error
        return verification

    def _finish_part(self, rest: SegmentInfo | None) -> Path | None:
        """A playable file of what is done; None if that is nothing."""
        segments = [*self._workspace.segments, *([rest] if rest else [])]
        if not segments:
            return None
        joined, target = self._workspace.joined, _free_partial(self._job.path)
        self._join(joined, segments, complete=False)
        try:
            joined.replace(target)
        except OSError as error:
            raise OutputError(f"{target}: cannot be named ({error.strerror or error})") from error
        return target

    def _join(self, target: Path, segments: list[SegmentInfo], *, complete: bool) -> None:
        job = self._job
        notes = join(
            target,
            self._workspace.folder,
            segments,
            job.video,
            job.source,
            job.container,
            job.container_options,
            job.tracks,
            start=job.settings.start,
            end=job.settings.end,
            complete=complete,
            cancel=self._cancel,
            on_progress=ticking(self._observer, "joining"),
        )
        for line in notes.lines():
            self._warn(line)

    def _verify(self, target: Path) -> Verification | None:
        """Reads the output again; None where that is not wanted, or given up."""
        if not self._job.settings.verify:
            return None
        job = self._job
        expected = Expectation(
            source=job.source,
            container=job.container,
            tracks=job.tracks,
            start=job.settings.start,
            end=job.settings.end,
            deinterlace=job.deinterlace,
            video=job.video,
        )
        found = verify(target, expected, on_progress=ticking(self._observer, "verifying"), stop=self._stop)
        if self._stop.is_set():
            self._warn(f"stopped before everything was compared: see `vidsr verify {job.source.path} {job.path}`")
            return None
        return found

    def _named_before(self) -> Report:
        """Of a run that ended between naming its output and cleaning up."""
        target, self._resumed = self._job.path, self._workspace.frames
        verification = self._verify(target)
        nothing = Totals(frames=0, seconds=0.0, busy={}, engine=str(self._plan), reached_end=True)
        return self._done(nothing, target, self._resumed, target.stat().st_size, verification)


def start_of(job: Job, plan: EnginePlan, *, resumed: int = 0) -> Start:
    """What is told first of all."""
    layout = job.source.video.layout
    return Start(
        source=str(job.source.path),
        target=str(job.path),
        source_size=(layout.width, layout.height),
        target_size=(job.video.layout.width, job.video.layout.height),
        model=job.engine.model.name,
        engine=str(plan),
        encoder=f"{job.encoder.name} {pixel_format(job.video.layout)}",
        frames=job.frames,
        resumed=resumed,
    )


def stream_of(job: Job, plan: EnginePlan, *, skip: int = 0) -> Stream:
    """The way of a job's frames, without the first `skip`."""
    return Stream(
        settings=job.settings,
        source=job.source,
        plan=plan,
        layout=job.video.layout,
        color=job.video.color,
        deinterlace=job.deinterlace,
        hardware=job.hardware,
        skip=skip,
    )


def ticking(
    observer: Observer, name: Literal["preparing", "enlarging", "joining", "verifying"]
) -> Callable[[float], None]:
    """Passes progress on a few times a second."""
    last = float("-inf")

    def tick(done: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _TICK_SECONDS:
            last = now
            observer(Phase(name=name, done=done))

    return tick


def _free_partial(path: Path) -> Path:
    """A name for the part of a run that was stopped: what earlier ones left stays."""
    first = path.with_name(f"{path.stem}.partial{path.suffix}")
    names = (first.with_stem(f"{first.stem}-{number}") for number in itertools.count(2))
    return first if not first.exists() else next(name for name in names if not name.exists())


def _plan(job: Job) -> dict[str, Any]:
    """What depends on the machine and its free memory, and is kept when a run is taken up again."""
    options = job.encoder.options
    return {"tile": job.engine.tile, "threads": {key: options[key] for key in ("threads",) if key in options}}


def _identity(job: Job, source: Unchanged) -> dict[str, str]:
    """Everything that the frames of the output depend on, by names for people."""
    settings, options = job.settings, job.engine.options
    threads = [] if "threads" in settings.encoder_options else ["threads"]
    encoding = {key: value for key, value in job.encoder.options.items() if key not in threads}
    video = job.video
    return {
        "the input": source.fingerprint,
        "--start": str(settings.start),
        "--end": str(settings.end),
        "--deinterlace": job.deinterlace,
        "--model": f"{job.engine.model.name} ({job.engine.model.sha256[:16]})",
        "the engine": f"{job.engine.backend.name} {job.engine.backend.machine(options)} {options.precision}",
        "--guard": job.engine.guard,
        "the size of the output": f"{video.layout.width}x{video.layout.height}",
        "the pixel format": f"{pixel_format(video.layout)} {video.layout.siting}",
        "the colour": f"{video.color} {video.hdr}",
        "the encoder": " ".join([job.encoder.name, *sorted(f"{key}={value}" for key, value in encoding.items())]),
        "vidsr": vidsr.__version__,
        **{library: import_module(library).__version__ for library in ("av", job.engine.backend.name)},
    }
