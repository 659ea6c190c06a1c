"""A video to numbered pictures."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import cast

from vidsr import job
from vidsr.errors import Cancelled, OutputError
from vidsr.events import Observer, Progress, Report, Start, Warned
from vidsr.frame import Frame, FrameLayout, Plane
from vidsr.images.batch import Batch, members, numbered
from vidsr.images.picture import Extras
from vidsr.images.write import FORMATS, Format, write
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
    return _Split(batch, observer, (stop, cancel)).report()


class _Split:
    def __init__(self, batch: Batch, observer: Observer, endings: tuple[Event, ...]) -> None:
        self._batch, self._observer, self._endings = batch, observer, endings
        self._format = FORMATS[batch.target.suffix.lower()]
        self._video = probe(batch.source).video
        self._meter = Meter()
        self._warnings: list[str] = []
        self._frames, self._written_bytes = 0, 0

    def report(self) -> Report:
        self._weigh()
        try:
            self._batch.target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self._batch.target.parent} cannot be made: {error.strerror or error}") from error
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
            engine=self._batch.settings.backend,
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
        settings = replace(self._batch.settings, pix_fmt=_pixel_format(self._video.layout, self._format))
        frames = cast(Generator[Frame], job.stream(self._batch.source, settings))
        with ThreadPoolExecutor(1, "vidsr-write") as writing:
            pending: Future[int] | None = None
            try:
                for number, frame in enumerate(frames, _NUMBER_FROM):
                    if any(ending.is_set() for ending in self._endings):
                        raise Cancelled(f"stopped behind {numbered(self._batch.target, self._frames)}")
                    if number == _NUMBER_FROM:
                        self._announce(frame)
                    self._finish(pending)
                    pending = writing.submit(self._write, numbered(self._batch.target, number), frame)
                self._finish(pending)
            finally:
                frames.close()

    def _announce(self, frame: Frame) -> None:
        given = self._video.layout
        height, width = frame.planes[0].shape
        self._observer(
            Start(
                source=str(self._batch.source),
                target=str(self._batch.target),
                source_size=(given.width, given.height),
                target_size=(width, height),
                model=self._batch.settings.model,
                engine=self._batch.settings.backend,
                encoder=self._format.name,
                frames=self._total,
            )
        )

    @property
    def _total(self) -> int | None:
        settings = self._batch.settings
        return self._video.frames if settings.start is None and settings.end is None else None

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
            quality, depth = self._batch.settings.quality, self._video.layout.bits
            return write(path, planes, layout, self._format, quality=quality, depth=depth, extras=Extras())

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
                total=self._total,
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
