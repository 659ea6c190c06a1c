"""The Python interface: the same code that the command runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from threading import Event, Lock
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vidsr import images, job, models
from vidsr.backends.base import Precision
from vidsr.errors import UsageError
from vidsr.events import Observer, Report
from vidsr.frame import Frame, FrameLayout
from vidsr.job.settings import Guarding, Settings
from vidsr.media.info import Accel

__all__ = ["Upscaler", "frames", "resolve", "upscale"]

_PathLike = str | os.PathLike[str]
_Seconds = int | float | Fraction | None


def upscale(
    src: _PathLike,
    dst: _PathLike,
    *,
    scale: int | float | Fraction | None = None,
    size: str | None = None,
    model: str = models.DEFAULT,
    deinterlace: Literal["auto", "off", "field", "frame"] = "auto",
    start: _Seconds = None,
    end: _Seconds = None,
    tracks: str = "all",
    strict: bool = False,
    encoder: str | None = None,
    crf: float | None = None,
    preset: str | None = None,
    encoder_options: Mapping[str, str] | None = None,
    pix_fmt: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    keep_partial: bool = False,
    verify: bool = True,
    backend: str = "auto",
    precision: Precision = "auto",
    device: str = "auto",
    hwaccel: Accel = "auto",
    memory_bytes: int | None = None,
    slots: int | None = None,
    streams: int | None = None,
    reuse: Literal["auto", "off"] = "auto",
    guard: Guarding = "auto",
    quality: int | None = None,
    rate: int | float | Fraction | None = None,
    observer: Observer | None = None,
    stop: Event | None = None,
    cancel: Event | None = None,
) -> Report:
    """Enlarges the video in `src` and writes `dst`, everything else in the file copied; or pictures: one file to
    another, a folder to a folder, a numbered sequence (`frames/%05d.png`) to another.

    scale, size: at most one; a factor up to 16, or "WIDTHxHEIGHT", a name such as "1080p", or "150%"; neither takes the
    model's factor, others the model or models that fit (`vidsr.models.choose`).
    start, end: seconds from the beginning of the file. tracks: as `--tracks`. strict: raise rather than lose anything
    or pass over damage. hwaccel, guard, streams, reuse: as `--hwaccel` and so on. resume: go on with an unfinished run
    in `DST.vidsr`. verify: read `dst` again and compare; what differs is in the report's `faults`. observer: called in
    this thread with the events of `vidsr.events`. stop: set it from anywhere to end early; what is done by then can be
    resumed, and with keep_partial it is playable as well, as `NAME.partial.SUFFIX`. cancel: the same at once, raising
    `Cancelled`; of pictures those that are done are whole, and both raise it. quality, rate: as `--quality` and
    `--rate`.

    Raises a `VidsrError` that says in one line what to do; nothing is left under `dst` then.
    """
    settings = job.Settings(
        scale=_fraction(scale),
        size=size,
        model=model,
        deinterlace=deinterlace,
        tracks=tracks,
        strict=strict,
        resume=resume,
        keep_partial=keep_partial,
        verify=verify,
        backend=backend,
        precision=precision,
        device=device,
        hwaccel=hwaccel,
        memory_bytes=memory_bytes,
        slots=slots,
        streams=streams,
        reuse=reuse,
        guard=guard,
        start=_fraction(start),
        end=_fraction(end),
        encoder=encoder,
        crf=crf,
        preset=preset,
        encoder_options=dict(encoder_options or {}),
        pix_fmt=pix_fmt,
        overwrite=overwrite,
        quality=quality,
        rate=_fraction(rate),
    )
    run = resolve(Path(src), Path(dst), settings)
    return run(observer=observer or (lambda event: None), stop=stop or Event(), cancel=cancel or Event())


def resolve(source: Path, target: Path, settings: Settings) -> partial[Report]:
    """Checks and decides everything that can be before the run, which is what it gives: of pictures or of a video, to
    be called with `observer`, `stop` and `cancel`; of a `Job`, see `job.run`, also with `tap`. Raises a VidsrError."""
    batch = images.resolve(source, target, settings)
    if batch is not None:
        return partial(images.run, batch)
    joining = images.resolve_joined(source, target, settings)
    if joining is not None:
        return partial(images.run_joined, joining)
    return partial(job.run, job.resolve(source, target, settings))


def frames(
    src: _PathLike,
    *,
    scale: int | float | Fraction | None = None,
    size: str | None = None,
    model: str = models.DEFAULT,
    deinterlace: Literal["auto", "off", "field", "frame"] = "auto",
    strict: bool = False,
    backend: str = "auto",
    precision: Precision = "auto",
    device: str = "auto",
    hwaccel: Accel = "auto",
    memory_bytes: int | None = None,
    slots: int | None = None,
    streams: int | None = None,
    reuse: Literal["auto", "off"] = "auto",
    guard: Guarding = "auto",
    start: _Seconds = None,
    end: _Seconds = None,
    pix_fmt: str | None = None,
) -> Iterator[Frame]:
    """The enlarged frames of `src` in order, with their times.

    Planes are uint8|uint16 [H, W] in the source's own format, or in `pix_fmt` ("gbrp" for planar RGB). They are the
    caller's to keep. Closing the iterator ends all work. Raises a `VidsrError`, at the latest with the first frame.
    """
    settings = job.Settings(
        scale=_fraction(scale),
        size=size,
        model=model,
        deinterlace=deinterlace,
        strict=strict,
        backend=backend,
        precision=precision,
        device=device,
        hwaccel=hwaccel,
        memory_bytes=memory_bytes,
        slots=slots,
        streams=streams,
        reuse=reuse,
        guard=guard,
        start=_fraction(start),
        end=_fraction(end),
        pix_fmt=pix_fmt,
    )
    return job.stream(Path(src), settings)


def _fraction(number: _Seconds) -> Fraction | None:
    if number is None:
        return None
    try:
        return Fraction(number).limit_denominator(1_000_000)
    except (ValueError, OverflowError, TypeError) as error:
        raise UsageError(f"{number!r} is not a number") from error


class Upscaler:
    """A model for pictures in memory.

    Keeps an engine for each of the last few picture sizes; backend "auto" therefore takes none that compiles minutes
    for each. Calls from several threads wait for each other.
    """

    def __init__(
        self,
        model: str = models.DEFAULT,
        *,
        backend: str = "auto",
        precision: Precision = "auto",
        device: str = "auto",
        memory_bytes: int | None = None,
        guard: Guarding = "auto",
    ) -> None:
        self._model = models.load(model)
        self._settings = job.Settings(
            model=model,
            backend=backend,
            precision=precision,
            device=device,
            memory_bytes=memory_bytes,
            guard=guard,
        )
        self._engines = images.Engines(self._settings)
        self._lock = Lock()

    @property
    def scale(self) -> int:
        return self._model.scale

    def __call__(self, image: NDArray[Any]) -> NDArray[Any]:
        """RGB uint8|uint16 [H, W, 3], full range -> the same dtype, [scale*H, scale*W, 3].

        Raises ValueError for another shape or dtype.
        """
        image = np.asarray(image)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"expected uint8 or uint16 [H, W, 3], got {image.dtype} {list(image.shape)}")
        bits = 8 if image.dtype == np.uint8 else 16
        layout = FrameLayout(family="rgb", bits=bits, height=image.shape[0], width=image.shape[1])
        with self._lock:
            enlarger = self._engines.get(self._model, layout, bits=bits)
            green, blue, red = enlarger([image[:, :, channel] for channel in (1, 2, 0)])
            return np.stack([red, green, blue], axis=2)

    def close(self) -> None:
        """Frees the engines; the next call makes new ones."""
        self._engines.close()

    def __enter__(self) -> Upscaler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
