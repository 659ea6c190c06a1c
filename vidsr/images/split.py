"""A video to numbered pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

from vidsr import job
from vidsr.backends.base import Watch
from vidsr.errors import Cancelled, OutputError
from vidsr.events import Observer, Progress, Report, Start, Warned
from vidsr.frame import Frame, FrameLayout, Plane
from vidsr.images.batch import Batch, members, numbered
from vidsr.images.picture import Extras
from vidsr.images.write import FORMATS, Format, write
from vidsr.job.run import ticking
from vidsr.media.info import VideoInfo
from vidsr.media.source import probe
from vidsr.pipeline.meter import Meter

__all__ = ["run_split"]

_SRGB = (1, 2, 5, 6)
"""Primaries, by H.273, which a picture that says nothing of them is taken to have, near enough."""
_HDR = (16, 18)
_NUMBER_FROM = 1


def run_split(batch: Batch, *, observer: Observer, stop: Event, cancel: Event) -> Report:
    """Writes the enlarged frames of a video as pictures, numbered from 1 on. Raises Cancelled at either event."""
    return _Split(batch, observer, stop, cancel).report()


class _Split:
    def __init__(self, batch: Batch, observer: Observer, stop: Event, cancel: Event) -> None:
        self._batch, self._observer, self._stop, self._cancel = batch, observer, stop, cancel
        self._format = FORMATS[batch.target.suffix.lower()]
        self._video = probe(batch.source).video
        wanted = replace(batch.settings, pix_fmt=_pixel_format(self._video.layout, self._format))
        self._stream = job.resolve_stream(batch.source, wanted)
        self._meter = Meter()
        self._warnings: list[str] = []
        self._frames, self._written_bytes = 0, 0

    def report(self) -> Report:
        self._weigh()
        for warning in self._stream.warnings:
            self._warn(warning)
        try:
            self._batch.target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self._batch.target.parent} cannot be made: {error.strerror or error}") from error
        self._announce()
        self._meter.start()
        self._all()
        later = sum(number >= _NUMBER_FROM + self._frames for number, _ in members(self._batch.target))
        if later:
            self._warn(f"{later} pictures of an earlier run lie behind the last one of this")
        seconds = self._meter.seconds
        report = Report(
            target=str(self._batch.target),
            frames=self._frames,
            resumed=0,
            seconds=seconds,
            fps=self._frames / seconds if seconds else 0.0,
            written_bytes=self._written_bytes,
            busy={"encode": self._meter.shares()["encode"]},
            engine=str(self._stream.plan),
            warnings=tuple(self._warnings),
        )
        self._observer(report)
        return report

    def _weigh(self) -> None:
        losses = list(_losses(self._video, self._format))
        if losses and self._batch.settings.strict:
            raise OutputError(f"--strict: {self._batch.source} would lose something: {'; '.join(losses)}")
        for loss in losses:
            self._warn(loss)

    def _all(self) -> None:
        frames = self._stream.frames(
            Watch(progress=ticking(self._observer, "preparing"), warn=self._warn, stop=self._stop)
        )
        with ThreadPoolExecutor(1, "vidsr-write") as writing:
            pending: Future[int] | None = None
            try:
                for number, frame in enumerate(frames, _NUMBER_FROM):
                    self._finish(pending)
                    pending = None
                    self._check()
                    pending = writing.submit(self._write, numbered(self._batch.target, number), frame)
                self._finish(pending)
            finally:
                frames.close()

    def _check(self) -> None:
        """Raises Cancelled where the run is to end."""
        if self._stop.is_set() or self._cancel.is_set():
            last = numbered(self._batch.target, _NUMBER_FROM + self._frames - 1)
            raise Cancelled(f"stopped behind {last}" if self._frames else "stopped before the first picture")

    def _announce(self) -> None:
        given, made = self._video.layout, self._stream.layout
        self._observer(
            Start(
                source=str(self._batch.source),
                target=str(self._batch.target),
                source_size=(given.width, given.height),
                target_size=(made.width, made.height),
                model=self._stream.plan.model.name,
                engine=str(self._stream.plan),
                encoder=self._format.name,
                frames=self._stream.total,
            )
        )

    def _write(self, path: Path, frame: Frame) -> int:
        with self._meter.at("encode"):
            planes = _upright(frame.planes, self._video.display_matrix)
            height, width = planes[0].shape
            layout = FrameLayout(
                family="gray" if len(planes) == 1 else "rgb",
                bits=8 * planes[0].dtype.itemsize,
                height=height,
                width=width,
                alpha=len(planes) == 4,
            )
            settings = self._batch.settings
            return write(
                path,
                planes,
                layout,
                self._format,
                quality=settings.quality,
                depth=self._video.layout.bits,
                extras=Extras(),
                overwrite=settings.overwrite,
            )

    def _finish(self, pending: Future[int] | None) -> None:
        """Waits until a frame is written."""
        if pending is None:
            return
        self._written_bytes += pending.result()
        self._frames += 1
        fps, busy = self._meter.recent(self._frames)
        self._observer(
            Progress(
                frames=self._frames,
                total=self._stream.total,
                seconds=self._meter.seconds,
                fps=fps,
                written_bytes=self._written_bytes,
                busy={"encode": busy["encode"]},
                limit=None,
            )
        )

    def _warn(self, text: str) -> None:
        self._warnings.append(text)
        self._observer(Warned(message=text))


def _pixel_format(layout: FrameLayout, format: Format) -> str:
    """What the engine gives: RGB or gray, with the samples that the pictures hold."""
    deep = "" if layout.bits == 8 or format.bits == 8 else "16le"
    if layout.family == "gray":
        return f"gray{deep}"
    return f"gbr{'a' if layout.alpha else ''}p{deep}"


def _losses(video: VideoInfo, format: Format) -> Iterator[str]:
    if video.layout.bits > format.bits:
        yield f"{format.name} holds {format.bits} bits a sample of {video.layout.bits}"
    if video.layout.alpha and not format.alpha:
        yield f"{format.name} holds no transparency: it is laid on white"
    if video.color.transfer in _HDR or video.color.primaries not in _SRGB:
        yield f"the colours are not those of sRGB, and the {format.name} files do not say so"
    if video.sample_aspect_ratio not in (None, 1):
        yield f"pixels are {video.sample_aspect_ratio} as wide as high, and the {format.name} files do not say so"


def _upright(planes: Sequence[Plane], matrix: Sequence[int] | None) -> Sequence[Plane]:
    """The planes as a player shows them; by right angles and mirrored, which is what there is."""
    if matrix is None:
        return planes
    along, across, back, down = matrix[0], matrix[1], matrix[3], matrix[4]
    if along == 0:
        planes, along, down = [plane.T for plane in planes], back, across
    return [plane[:: -1 if down < 0 else 1, :: -1 if along < 0 else 1] for plane in planes]
