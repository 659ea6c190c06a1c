"""Compiled models: made ahead of the first run, and what lies in the cache."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

from vidsr import models
from vidsr.backends import Watch
from vidsr.backends.trt.plans import PlanCache
from vidsr.errors import UsageError
from vidsr.job import Settings
from vidsr.job.engine import cache_folder, plan_engine
from vidsr.media.pixel import layout_of, native
from vidsr.pipeline import aside

__all__ = ["Built", "Kept", "build", "clear", "kept"]

_MIN_SIDE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An engine that was made and has run. seconds: until it was ready; frame_seconds: of one frame alone, the second
    that it ran."""

    engine: str
    seconds: float
    slots: int
    frame_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Something in the cache. built: seconds since the epoch, 0 if unknown."""

    path: Path
    bytes: int
    what: str
    made_for: str
    built: float


def build(
    size: tuple[int, int],
    *,
    largest: tuple[int, int] | None = None,
    pix_fmt: str = "yuv420p",
    settings: Settings,
    on_progress: Callable[[float], None] = lambda done: None,
    on_warning: Callable[[str], None] = lambda text: None,
    stop: Event | None = None,
) -> Built:
    """Compiles the model for frames of `size` (height, width), keeps it in the cache, and runs it twice.

    largest: one that serves all sizes from `size` to this, which only TensorRT can. settings: `model`, `backend`,
    `device`, `precision` and `slots` count. Raises UsageError, BackendError, Cancelled.
    """
    if not native(pix_fmt):
        raise UsageError(f"--pix-fmt {pix_fmt}: choose a planar format such as yuv420p, yuv444p10le, gray, gbrp")
    model = models.load(settings.model)
    height, width = largest or size
    if min(*size, height, width) < _MIN_SIDE or height < size[0] or width < size[1]:
        raise UsageError(f"--size: give WIDTHxHEIGHT of at least {_MIN_SIDE}x{_MIN_SIDE}, or SMALLEST..LARGEST")
    source = layout_of(pix_fmt, height=height, width=width, siting="left")
    target = replace(source, height=height * model.scale, width=width * model.scale)
    if largest and any(
        length % step for end in (size, largest) for length, step in zip(end, source.chroma, strict=True)
    ):
        raise UsageError(f"--size: a range of {pix_fmt} needs even sizes at both ends")
    plan = plan_engine(settings, model, source, target, sizes=(size, largest) if largest else None)
    if largest and plan.backend.name != "tensorrt":
        raise UsageError(f"--size: only tensorrt compiles for a range, and this is {plan.backend.name}: give one size")
    begin = time.perf_counter()
    aside(plan.prepare, Watch(progress=on_progress, warn=on_warning, stop=stop or Event()))
    engine = plan.open()
    seconds = time.perf_counter() - begin
    try:
        slots = engine.slots(plan.options.slots)
        for _ in range(2):
            begin = time.perf_counter()
            engine.submit(slots[0])
            engine.wait(slots[0])
        return Built(
            engine=engine.description,
            seconds=seconds,
            slots=len(slots),
            frame_seconds=time.perf_counter() - begin,
        )
    finally:
        engine.close()


def kept() -> Iterator[Kept]:
    """What lies in the cache, TensorRT's plans first."""
    folder = cache_folder()
    for entry in PlanCache(folder / "tensorrt").entries():
        key = entry.key
        if key is None:
            what, made_for = "damaged TensorRT plan", "nothing any more"
        else:
            sizes = [f"{width}x{height}" for height, width in dict.fromkeys((key.smallest, key.largest))]
            what = f"{key.model} {' to '.join(sizes)} {key.precision}"
            made_for = f"TensorRT {key.tensorrt}, {key.device}, driver {key.driver}"
        yield Kept(path=entry.path, bytes=entry.bytes, what=what, made_for=made_for, built=entry.built)
    for path in sorted((folder / "openvino").glob("*.blob")):
        with suppress(OSError):
            status = path.stat()
            yield Kept(path=path, bytes=status.st_size, what="graph", made_for="OpenVINO", built=status.st_mtime)


def clear() -> int:
    """Empties the cache; how many plans and graphs that were."""
    folder = cache_folder()
    count = len(list(kept()))
    PlanCache(folder / "tensorrt").clear()
    shutil.rmtree(folder / "openvino", ignore_errors=True)
    return count
