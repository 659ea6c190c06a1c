"""Runs a batch: the next picture is read and the last one written while the model works."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Literal

from vidsr.backends.base import Watch
from vidsr.errors import Cancelled, InputError, MemoryBudgetError, OutputError, UsageError, VidsrError
from vidsr.events import Observer, Progress, Report, Stage, Start, Warned
from vidsr.frame import FrameLayout, Plane
from vidsr.images.batch import Batch, Task
from vidsr.images.engines import Engines, Enlarger, ModelChooser, OnTile
from vidsr.images.picture import Picture
from vidsr.images.read import read
from vidsr.images.size import factor_of, resized, target_size
from vidsr.images.split import run_split
from vidsr.images.write import check_size, losses_of, write
from vidsr.job.run import ticking
from vidsr.pipeline.meter import Meter

__all__ = ["run"]

_OWN_FAULTS = (InputError, OutputError, MemoryBudgetError)
"""What is wrong with one picture and not with all."""


def run(batch: Batch, *, observer: Observer, stop: Event, cancel: Event) -> Report:
    """Enlarges the pictures of a batch; those that cannot be done are left out and named in the error at the end.

    stop, cancel: either ends it, between two tiles of a picture; what is done by then is whole. Raises Cancelled then,
    or another VidsrError.
    """
    if batch.video:
        return run_split(batch, observer=observer, stop=stop, cancel=cancel)
    return _Run(batch, observer, (stop, cancel)).report()


class _Run:
    """What is done and told so far. Only `_write` and `read` run in other threads."""

    def __init__(self, batch: Batch, observer: Observer, endings: tuple[Event, ...]) -> None:
        self._batch, self._observer, self._endings = batch, observer, endings
        self._model = ModelChooser(batch.settings.model)
        self._meter = Meter()
        self._description = ""
        self._warnings: list[str] = []
        self._failures: list[VidsrError] = []
        self._done, self._written_bytes = 0, 0

    def report(self) -> Report:
        for warning in self._batch.warnings:
            self._warn(warning)
        self._make_folders()
        self._meter.start()
        try:
            self._all()
        except Cancelled:
            count = len(self._batch.tasks)
            raise Cancelled(
                f"stopped: {self._done} of {count} pictures are done; --resume goes on with the others"
            ) from None
        seconds = self._meter.seconds
        report = Report(
            target=str(self._batch.target),
            frames=self._done + self._batch.skipped,
            resumed=self._batch.skipped,
            seconds=seconds,
            fps=self._done / seconds if seconds else 0.0,
            written_bytes=self._written_bytes,
            busy=self._meter.shares(),
            engine=self._description,
            warnings=tuple(self._warnings),
        )
        if self._done or not self._failures:
            self._observer(report)
        self._raise_failures()
        return report

    def _make_folders(self) -> None:
        for folder in {task.target.parent for task in self._batch.tasks}:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"{folder} cannot be made: {error.strerror or error}") from error

    def _all(self) -> None:
        last = self._batch.tasks[-1:]
        watch = Watch(progress=self._telling("preparing"), warn=self._warn, stop=self._endings[0])
        with (
            ThreadPoolExecutor(1, "vidsr-read") as reading,
            ThreadPoolExecutor(1, "vidsr-write") as writing,
            Engines(self._batch.settings, watch) as engines,
        ):
            pending: Future[int] | None = None
            try:
                for task, picture in self._pictures(reading):
                    made = self._enlarged(engines, task, picture)
                    self._finish(pending)
                    pending = None
                    if made is None:
                        continue
                    planes, layout, size = made
                    # The engine needs its planes again, unless nothing follows: a large picture alone is not copied.
                    kept = planes if task in last else tuple(plane.copy() for plane in planes)
                    pending = writing.submit(self._write, task, picture, kept, layout, size)
            finally:
                self._finish(pending)

    def _pictures(self, reading: ThreadPoolExecutor) -> Iterator[tuple[Task, Picture]]:
        """The pictures that can be read, each while the one before is worked on."""
        tasks = self._batch.tasks
        ahead = [reading.submit(self._read, task) for task in tasks[:1]]
        for index, task in enumerate(tasks):
            self._check()
            reached = ahead.pop()
            ahead = [reading.submit(self._read, following) for following in tasks[index + 1 : index + 2]]
            try:
                picture = reached.result()
                self._weigh(task, picture)
            except _OWN_FAULTS as error:
                self._fail(error)
                continue
            yield task, picture

    def _read(self, task: Task) -> Picture:
        with self._meter.at("decode"):
            return read(task.source)

    def _weigh(self, task: Task, picture: Picture) -> None:
        """Tells what gets lost. Raises OutputError where that is not wanted."""
        losses = [*picture.losses, *losses_of(task.format, picture)]
        if losses and self._batch.settings.strict:
            raise OutputError(f"--strict: {task.source} would lose something: {'; '.join(losses)}")
        for loss in losses:
            self._warn(f"{task.source}: {loss}")

    def _enlarged(
        self, engines: Engines, task: Task, picture: Picture
    ) -> tuple[Sequence[Plane], FrameLayout, tuple[int, int]] | None:
        """The model's planes and their layout, and the (height, width) wanted; None where it fails on this one."""
        source, settings = picture.layout, self._batch.settings
        try:
            model = self._model(factor_of(source, settings))
            height, width, stretched = target_size(source, settings, model.scale)
        except (OutputError, UsageError) as error:
            self._fail(type(error)(f"{task.source}: {error}"))
            return None
        try:
            check_size(task.target, height, width, task.format)
            enlarger = engines.get(model, source, bits=8 if task.format.bits == 8 else source.bits)
        except OutputError as error:
            self._fail(error)
            return None
        except MemoryBudgetError as error:
            self._fail(MemoryBudgetError(f"{task.source}: {error}"))
            return None
        if stretched:
            self._warn(f"{task.source}: {width}x{height} has another shape, so the picture is stretched")
        for note in engines.notes:
            if note not in self._warnings:
                self._warn(note)
        self._announce(task, picture, enlarger, (height, width))
        with self._meter.at("model"):
            planes = enlarger(picture.planes, self._ticking(parts=2 if source.alpha else 1))
        if enlarger.mended:
            self._warn(f"{task.source}: collapsed in the chosen precision and was computed again in FP32")
        return planes, enlarger.target, (height, width)

    def _announce(self, task: Task, picture: Picture, enlarger: Enlarger, size: tuple[int, int]) -> None:
        """Says once what happens to what."""
        if self._description:
            return
        self._description = enlarger.description
        batch, layout = self._batch, picture.layout
        alone = len(batch.tasks) == 1
        self._observer(
            Start(
                source=str(batch.source),
                target=str(task.target if alone else batch.target),
                source_size=(layout.width, layout.height) if alone else None,
                target_size=(size[1], size[0]) if alone else None,
                model=enlarger.model,
                engine=enlarger.description,
                encoder=", ".join(dict.fromkeys(task.format.name for task in batch.tasks)),
                frames=len(batch.tasks) + batch.skipped,
                resumed=batch.skipped,
                unit="picture",
            )
        )

    def _ticking(self, parts: int) -> OnTile:
        """What tells of the tiles of one picture, the alpha plane's behind the colours'."""
        tell, passes = self._telling("enlarging"), 0

        def tick(done: int, count: int) -> None:
            nonlocal passes
            # Beyond 1 where all is computed again in FP32.
            tell(min(1.0, (passes * count + done) / (parts * count)))
            passes += done == count

        return tick

    def _telling(self, name: Literal["preparing", "enlarging"]) -> Callable[[float], None]:
        """What passes on a share that is done, a few times a second. Raises Cancelled when that is wanted."""
        tick = ticking(self._observer, name)

        def tell(done: float) -> None:
            self._check()
            tick(done)

        return tell

    def _write(
        self, task: Task, picture: Picture, planes: Sequence[Plane], made: FrameLayout, size: tuple[int, int]
    ) -> int:
        with self._meter.at("encode"):
            planes, layout = resized(planes, made, *size)
            return write(
                task.target,
                planes,
                layout,
                task.format,
                quality=self._batch.settings.quality,
                depth=picture.depth,
                extras=picture.extras,
                overwrite=self._batch.settings.overwrite,
            )

    def _finish(self, pending: Future[int] | None) -> None:
        """Waits until a picture is written."""
        if pending is None:
            return
        try:
            self._written_bytes += pending.result()
        except _OWN_FAULTS as error:
            self._fail(error)
            return
        self._done += 1
        done = self._done + self._batch.skipped
        fps, busy = self._meter.recent(self._done)
        limit: Stage = max(busy, key=busy.__getitem__)
        self._observer(
            Progress(
                frames=done,
                total=len(self._batch.tasks) + self._batch.skipped,
                seconds=self._meter.seconds,
                fps=fps,
                written_bytes=self._written_bytes,
                busy=busy,
                limit=limit,
            )
        )

    def _check(self) -> None:
        if any(ending.is_set() for ending in self._endings):
            raise Cancelled("stopped")

    def _warn(self, text: str) -> None:
        self._warnings.append(text)
        self._observer(Warned(message=text))

    def _fail(self, error: VidsrError) -> None:
        self._failures.append(error)
        if len(self._batch.tasks) > 1:
            self._warn(f"not done: {error}")

    def _raise_failures(self) -> None:
        count = len(self._batch.tasks)
        if self._failures and count == 1:
            raise self._failures[0]
        if self._failures:
            first, more = self._failures[0], len(self._failures) - 1
            others = f", and {more} more" if more else ""
            raise type(first)(f"{len(self._failures)} of {count} pictures could not be done: {first}{others}")
