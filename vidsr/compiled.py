"""Compiled models: made ahead of the first run, and what lies in the cache beside tunings."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

from vidsr import models, tuning
from vidsr.backends import Watch
from vidsr.backends.trt.key import printable
from vidsr.backends.trt.plans import Cleared, PlanCache, remove
from vidsr.errors import Cancelled, MemoryBudgetError, UsageError
from vidsr.job import Settings
from vidsr.job.engine import cache_folder, idle_note, plan_engine
from vidsr.media.pixel import layout_of, native
from vidsr.pipeline import aside

__all__ = ["Built", "Kept", "build", "clear", "forget", "kept"]

_MIN_SIDE = 16
_GRAPHS = re.compile(r"\d+\.(blob|cl_cache)")
"""What OpenVINO calls its files."""


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

    largest: one that serves all sizes from `size` to this, which only TensorRT can. settings: `model`, `scale`,
    `guard`, `backend`, `device`, `precision` and `slots` count. Raises UsageError, BackendError, Cancelled.
    """
    stop = stop or Event()
    if largest == size:
        largest = None
    if not native(pix_fmt):
        raise UsageError(f"--pix-fmt {pix_fmt}: choose a planar format such as yuv420p, yuv444p10le, gray, gbrp")
    model = models.choose(settings.model, settings.scale)
    height, width = largest or size
    if min(*size, height, width) < _MIN_SIDE or height < size[0] or width < size[1]:
        raise UsageError(f"--size: give WIDTHxHEIGHT of at least {_MIN_SIDE}x{_MIN_SIDE}, or SMALLEST..LARGEST")
    source = layout_of(pix_fmt, height=height, width=width, siting="left")
    target = replace(source, height=height * model.scale, width=width * model.scale)
    down, right = (math.lcm(factor, model.multiple) for factor in source.chroma)
    if largest and any(height % down or width % right for height, width in (size, largest)):
        raise UsageError(
            f"--size: {model.name} and {pix_fmt} need a width that is a multiple of {right} and a height of {down} at "
            "both ends of a range"
        )
    plan = plan_engine(settings, model, source, target, sizes=(size, largest) if largest else None)
    if largest and plan.backend.name != "tensorrt":
        raise UsageError(f"--size: only tensorrt compiles for a range, and this is {plan.backend.name}: give one size")
    if largest and plan.tile is not None:
        raise MemoryBudgetError(
            f"--size: frames of {width}x{height} do not fit the memory of {plan.options.device} whole, and a range "
            "serves whole frames only: give a smaller largest size, or one size"
        )
    if idle := idle_note(settings, plan):
        on_warning(idle)
    begin = time.perf_counter()
    aside(plan.prepare, Watch(progress=on_progress, warn=on_warning, stop=stop))
    _go_on(stop)
    engine = plan.open()
    seconds = time.perf_counter() - begin
    try:
        slots = engine.slots(plan.options.slots)
        for _ in range(2):
            _go_on(stop)
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


def _go_on(stop: Event) -> None:
    if stop.is_set():
        raise Cancelled("stopped before the compiled model was tried; what was compiled is kept")


def kept() -> Iterator[Kept]:
    """What lies in the cache: TensorRT's plans, OpenVINO's graphs, tunings."""
    folder = cache_folder()
    for entry in PlanCache(folder / "tensorrt").entries():
        key = entry.key
        if key is None:
            what, made_for = "damaged TensorRT plan", "nothing any more"
        else:
            sizes = [f"{width}x{height}" for height, width in dict.fromkeys((key.smallest, key.largest))]
            what = f"{key.model} {' to '.join(sizes)} {key.precision}"
            made_for = f"TensorRT {key.tensorrt}, {key.device}, driver {key.driver}"
        what, made_for = printable(what), printable(made_for)
        yield Kept(path=entry.path, bytes=entry.bytes, what=what, made_for=made_for, built=entry.built)
    for path in sorted((folder / "openvino").glob("*.blob")):
        if not _GRAPHS.fullmatch(path.name):
            continue
        with suppress(OSError):
            status = path.stat()
            yield Kept(
                path=path, bytes=status.st_size, what="compiled graph", made_for="OpenVINO", built=status.st_mtime
            )
    for found in tuning.kept(folder):
        here = found.key
        what = printable(f"tuning of {found.tuning.model} {found.tuning.frames} {here.precision}")
        made_for = printable(f"{here.library}, {here.machine}")
        yield Kept(path=found.path, bytes=found.bytes, what=what, made_for=made_for, built=found.made)


def clear() -> Cleared:
    """Removes all compiled models, and no file that vidsr and OpenVINO do not make."""
    folder = cache_folder()
    return PlanCache(folder / "tensorrt").clear() + remove(folder / "openvino", _GRAPHS, counted=".blob")


def forget() -> Cleared:
    """Removes all tunings."""
    return remove(cache_folder() / tuning.FOLDER, tuning.FILES, counted=".json")
