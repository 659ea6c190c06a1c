"""Which engine runs a job, decided by what the machine has; colour conversions for its frames."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import platformdirs

from vidsr import backends
from vidsr.backends import Backend, Engine, EngineOptions
from vidsr.backends.alpha import AlphaEngine
from vidsr.backends.tiled import TiledEngine, halo_of, tile_size
from vidsr.color import ColorTags, Conversion, conversion
from vidsr.frame import FrameLayout
from vidsr.job.settings import Settings
from vidsr.models import Model

__all__ = ["Conversions", "EnginePlan", "available_memory", "plan_engine"]

_MEMORY_SHARE = 0.4
_FALLBACK_MEMORY = 4 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan:
    """An engine that is decided but not made yet. tile: (height, width) where frames must be cut, else None."""

    model: Model
    backend: Backend
    options: EngineOptions
    source: FrameLayout
    target: FrameLayout
    tile: tuple[int, int] | None

    def open(self) -> Engine:
        """Makes it, in the calling thread."""
        if self.source.alpha:
            return AlphaEngine(self._cut, self.source, self.target)
        return self._cut(self.source, self.target)

    def exact(self) -> EnginePlan:
        """The same in FP32."""
        return replace(self, options=replace(self.options, precision="fp32"))

    def _cut(self, source: FrameLayout, target: FrameLayout) -> Engine:
        """For layouts without alpha."""

        def inner(source: FrameLayout, target: FrameLayout) -> Engine:
            return self.backend.open(self.model, source, target, self.options)

        if self.tile is None:
            return inner(source, target)
        halo = halo_of(self.model, source, target)
        assert halo is not None
        return TiledEngine(inner, source, target, tile=self.tile, halo=halo)

    def __str__(self) -> str:
        tiles = f", tiles of {self.tile[1]}x{self.tile[0]}" if self.tile else ""
        return f"{self.backend.name} {self.options.device} {self.options.precision}{tiles}"


class Conversions:
    """Colour conversions by the tags of a frame, for one pair of layouts."""

    def __init__(self, source: FrameLayout, target: FrameLayout, target_tags: ColorTags) -> None:
        @lru_cache(maxsize=16)
        def lookup(tags: ColorTags) -> Conversion:
            inward = tags.resolved(height=source.height, width=source.width, rgb=source.family == "rgb")
            outward = target_tags.resolved(height=source.height, width=source.width, rgb=target.family == "rgb")
            return conversion(
                inward,
                outward,
                source_bits=source.bits,
                target_bits=target.bits,
                gray_source=source.family == "gray",
            )

        self._lookup: Callable[[ColorTags], Conversion] = lookup

    def __call__(self, tags: ColorTags) -> Conversion:
        return self._lookup(tags)


def available_memory() -> int:
    """Bytes of memory free for use on this machine, within a container's limit; a guess where it cannot be read."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return _FALLBACK_MEMORY
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
        stat = dict(
            line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text(encoding="ascii").splitlines()
        )
        return max(0, min(free, limit - used + int(stat["inactive_file"]) + int(stat["active_file"])))
    except (OSError, ValueError, KeyError):  # no control group, or "max": no limit
        return free


def default_cache() -> Path | None:
    """Where compiled models are kept between runs; None where nothing can be kept."""
    folder = Path(platformdirs.user_cache_dir("vidsr", appauthor=False)) / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def plan_engine(settings: Settings, model: Model, source: FrameLayout, target: FrameLayout) -> EnginePlan:
    """Chooses backend, precision and tiles. Raises UsageError, BackendError, MemoryBudgetError."""
    backend = backends.choose(settings.backend)
    options = backend.settle(EngineOptions(device=settings.device, precision=settings.precision, cache=default_cache()))
    budget = int(available_memory() * _MEMORY_SHARE) if settings.memory_bytes is None else settings.memory_bytes
    item = 4 if options.precision == "fp32" else 2
    tile = tile_size(model, source, target, item_bytes=item, overhead=backend.memory_overhead, budget_bytes=budget)
    return EnginePlan(model=model, backend=backend, options=options, source=source, target=target, tile=tile)
