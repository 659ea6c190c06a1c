"""Which engine runs a job, decided by what the machine has; colour conversions for its frames."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import platformdirs

from vidsr import backends
from vidsr.backends import Backend, Engine, EngineOptions, Watch
from vidsr.backends.alpha import AlphaEngine, alpha_parts
from vidsr.backends.tiled import TiledEngine, halo_of, smaller_tile, tile_layouts, tile_size
from vidsr.color import ColorTags, Conversion, conversion
from vidsr.errors import DeviceMemoryError, MemoryBudgetError
from vidsr.frame import FrameLayout
from vidsr.job.settings import Settings
from vidsr.models import Model

__all__ = ["Conversions", "EnginePlan", "available_memory", "plan_engine"]

_MEMORY_SHARE = 0.4
_DEVICE_SHARE = 0.8
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

    def prepare(self, watch: Watch) -> None:
        """Does what `open` would take minutes for. Raises BackendError, Cancelled."""
        for source, target in self._parts():
            if self.tile is not None:
                source, target = tile_layouts(source, target, self.tile)
            self.backend.prepare(self.model, source, target, self.options, watch)

    def open(self) -> Engine:
        """Makes it, in the calling thread."""
        if self.source.alpha:
            return AlphaEngine(self._cut, self.source, self.target)
        return self._cut(self.source, self.target)

    def exact(self) -> EnginePlan:
        """The same in FP32."""
        return replace(self, options=replace(self.options, precision="fp32"))

    def _parts(self) -> list[tuple[FrameLayout, FrameLayout]]:
        """(source, target) of the engines that `open` makes, but for tiles."""
        ends = (self.source, self.target)
        return alpha_parts(*ends) if self.source.alpha else [ends]

    def _cut(self, source: FrameLayout, target: FrameLayout) -> Engine:
        """For layouts without alpha. Where the device's memory turns out too small, frames are cut into tiles, then
        smaller ones."""
        tile = self.tile
        while True:
            try:
                return self._sized(source, target, tile)
            except DeviceMemoryError as error:
                tile = smaller_tile(self.model, source, target, tile)
                if tile is None:
                    raise DeviceMemoryError(
                        f"{error}; not even small tiles fit: free memory on the card, or choose another --device"
                    ) from error

    def _sized(self, source: FrameLayout, target: FrameLayout, tile: tuple[int, int] | None) -> Engine:
        def inner(source: FrameLayout, target: FrameLayout) -> Engine:
            return self.backend.open(self.model, source, target, self.options)

        if tile is None:
            return inner(source, target)
        halo = halo_of(self.model, source, target)
        assert halo is not None
        return TiledEngine(inner, source, target, tile=tile, halo=halo)

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


def cache_folder() -> Path:
    """Where compiled models belong, whether it is there or not."""
    return Path(platformdirs.user_cache_dir("vidsr", appauthor=False))


def default_cache() -> Path | None:
    """Where compiled models are kept between runs; None where nothing can be kept."""
    folder = cache_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _budget(backend: Backend, options: EngineOptions) -> int:
    """Bytes that one inference may take. Every slot of a card has work space of its own; a processor's share one."""
    own = backend.memory(options)
    return int(available_memory() * _MEMORY_SHARE) if own is None else int(own * _DEVICE_SHARE / options.slots)


def plan_engine(
    settings: Settings,
    model: Model,
    source: FrameLayout,
    target: FrameLayout,
    sizes: tuple[tuple[int, int], tuple[int, int]] | None = None,
) -> EnginePlan:
    """Chooses backend, precision and tiles. sizes: see `EngineOptions`. Raises UsageError, BackendError,
    MemoryBudgetError."""
    wanted = EngineOptions(
        device=settings.device,
        precision=settings.precision,
        cache=default_cache(),
        slots=settings.slots,
        sizes=sizes,
    )
    backend, options = backends.choose(settings.backend, wanted)
    budget = settings.memory_bytes or _budget(backend, options)
    item = 4 if options.precision == "fp32" else 2
    try:
        tile = tile_size(model, source, target, item_bytes=item, overhead=backend.memory_overhead, budget_bytes=budget)
    except MemoryBudgetError as error:
        if settings.memory_bytes is not None or backend.memory(options) is None:
            raise
        raise MemoryBudgetError(
            f"{options.device} has too little free memory for {options.slots} frames in flight ({error}): "
            f"close other programs that use it, or give fewer --slots"
        ) from error
    return EnginePlan(model=model, backend=backend, options=options, source=source, target=target, tile=tile)
