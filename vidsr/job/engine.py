"""Which engine runs a job, decided by what the machine has; colour conversions for its frames."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path

import platformdirs

from vidsr import backends, tuning
from vidsr.backends import Backend, Engine, EngineOptions, Watch
from vidsr.backends.alpha import AlphaEngine, alpha_parts
from vidsr.backends.reuse import ReusingEngine
from vidsr.backends.staged import Staged, stages_of
from vidsr.backends.tiled import TiledEngine, frame_bytes, halo_of, smaller_tile, tile_layouts, tile_size
from vidsr.color import ColorTags, Conversion, conversion
from vidsr.errors import DeviceMemoryError, MemoryBudgetError, UsageError
from vidsr.frame import FrameLayout
from vidsr.graph.cost import multiply_adds
from vidsr.job.settings import Settings
from vidsr.models import Model
from vidsr.notes import Notes
from vidsr.stability import needs_guard
from vidsr.tuning import TuningKey

__all__ = [
    "Conversions",
    "EnginePlan",
    "available_memory",
    "cache_folder",
    "guard_note",
    "idle_note",
    "plan_engine",
    "plan_notes",
    "tile_note",
    "tuning_key",
    "usual_streams",
]

_MEMORY_SHARE = 0.4
_DEVICE_SHARE = 0.8
"""The rest is for what else there is on a card: decoder, encoder, the library's own."""
_LEAST_SLOTS, _MOST_SLOTS = 2, 16
_SPARE_SLOTS = 3
"""One is decoded, one waits for the model, one is encoded."""
_HEAVY_PAIRS = 1.5e5
"""Multiplications and additions a pixel, from which on an encoder takes so little beside the model that frames computed
one after the other are sooner done (SPAN-48, 40 frames at 360p: 1.06 times as fast as two at once)."""
_SLOT_BYTES = 192 * 2**20
"""For all slots together, where nothing is said: 4K to 8K gets three, 1080p to 4K all that it has use for."""
_REUSE_SHARE = 0.2
"""Of the free memory, for what frames have in common."""
_TILES_AT_ONCE = 2
_FALLBACK_MEMORY = 4 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan:
    """An engine that is decided but not made yet. tile: (height, width) where frames must be cut, else None.

    reuse_bytes: memory for what frames have in common; 0 where they are not compared. tuned: streams and slots are
    those that `vidsr tune` found.
    prepared: what `prepare` gave, by the layouts it was for. on_tile: see `TiledEngine`. notes: what the user should
    know of the engines that were made.
    """

    model: Model
    backend: Backend
    options: EngineOptions
    source: FrameLayout
    target: FrameLayout
    tile: tuple[int, int] | None
    reuse_bytes: int = 0
    tuned: bool = False
    prepared: dict[tuple[FrameLayout, FrameLayout], object] = field(default_factory=dict, compare=False)
    on_tile: Callable[[int, int], None] = field(default=lambda done, count: None, compare=False)
    notes: Notes = field(default_factory=Notes, compare=False)

    @property
    def guard(self) -> str:
        """on or off; of a chain for each model."""
        return "+".join("on" if member.guarded else "off" for member in self.model.members)

    def prepare(self, watch: Watch) -> None:
        """Does what `open` would take minutes for. Raises BackendError, Cancelled."""
        for ends in self._parts():
            if self.tile is not None:
                ends = tile_layouts(*ends, self.tile)
            self.prepared[ends] = self.backend.prepare(self.model, *ends, self.options, watch)

    def open(self) -> Engine:
        """Makes it, in the calling thread."""
        if self.source.alpha:
            return AlphaEngine(self._cut, self.source, self.target)
        return self._cut(self.source, self.target)

    def exact(self) -> EnginePlan:
        """The same in FP32. Instead of a card the processor does it: frames that need it are few, and not worth minutes
        of compiling and memory of the card."""
        if self.options.device.startswith("cuda"):
            return _planned(Settings(device="cpu", precision="fp32", reuse="off"), self.model, self.source, self.target)
        return replace(self, options=replace(self.options, precision="fp32", streams=1), reuse_bytes=0)

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
                engine = self._sized(source, target, tile)
            except DeviceMemoryError as error:
                tile = smaller_tile(self.model, source, target, tile)
                if tile is None:
                    raise DeviceMemoryError(
                        f"{error}; not even small tiles fit: free memory on the card, or choose another --device"
                    ) from error
            else:
                if tile != self.tile and (note := tile_note(replace(self, tile=tile))):
                    self.notes.add(note)
                return engine

    def _sized(self, source: FrameLayout, target: FrameLayout, tile: tuple[int, int] | None) -> Engine:
        def inner(source: FrameLayout, target: FrameLayout) -> Engine:
            prepared = self.prepared.get((source, target))
            return self.backend.open(self.model, source, target, self.options, prepared)

        if tile is None:
            return self._reusing(inner(source, target), whole=True)
        halo = halo_of(self.model, source, target)
        assert halo is not None
        multiple = self.model.tile_step
        tiled = TiledEngine(inner, source, target, tile=tile, halo=halo, multiple=multiple, on_tile=self.on_tile)
        return self._reusing(tiled, whole=False)

    def _reusing(self, engine: Engine, *, whole: bool) -> Engine:
        """With what frames have in common computed once. Tiles and cards have it for whole frames alone: what passes
        parts of a model would take the memory that tiles save, and a card would compile each part for minutes."""
        if not self.reuse_bytes:
            return engine
        if not whole:
            return ReusingEngine(engine)

        def parts() -> Staged | None:
            # Tiles are too small for more than one core each.
            options = self.backend.settle(replace(self.options, streams=0))
            ends = (self.backend, self.model, engine.source, engine.target, options)
            stages = stages_of(*ends, budget_bytes=self.reuse_bytes)
            return None if stages is None else Staged(*ends, stages)

        return ReusingEngine(engine, parts)

    def __str__(self) -> str:
        tiles = f", tiles of {self.tile[1]}x{self.tile[0]}" if self.tile else ""
        tuned = ", tuned" if self.tuned else ""
        guard = ", guard on" if "on" in self.guard else ""
        return f"{self.backend.name} {self.options.device} {self.options.precision}{tiles}{tuned}{guard}"


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


def plan_engine(
    settings: Settings,
    model: Model,
    source: FrameLayout,
    target: FrameLayout,
    *,
    sizes: tuple[tuple[int, int], tuple[int, int]] | None = None,
    many_sizes: bool = False,
    encoder: str = "",
) -> EnginePlan:
    """Chooses backend, precision, tiles, and fewer slots where a card's memory asks for it.

    sizes: see `EngineOptions`. many_sizes: see `backends.choose`. encoder: what shares the cores with it. Raises
    UsageError, BackendError, MemoryBudgetError.
    """
    model = _guarded(settings, model, default_cache())
    plan = _planned(settings, model, source, target, sizes=sizes, many_sizes=many_sizes)
    return plan if many_sizes or sizes else _tuned(settings, plan, encoder)


def usual_streams(plan: EnginePlan) -> int:
    """What it would take had nobody said or found anything."""
    return plan.backend.settle(replace(plan.options, streams=_streams(plan.model))).streams


def _streams(model: Model) -> int:
    """For `EngineOptions`: see `_HEAVY_PAIRS`."""
    return 1 if multiply_adds(model.proto) > _HEAVY_PAIRS else 0


def tuning_key(plan: EnginePlan, encoder: str) -> TuningKey:
    """What is found out about the speed of this plan beside that encoder holds for."""
    return TuningKey.here(
        backend=plan.backend.name,
        version=str(import_module(plan.backend.name).__version__),
        device=plan.backend.machine(plan.options),
        precision=plan.options.precision,
        model=plan.model.sha256,
        height=plan.source.height,
        width=plan.source.width,
        encoder=encoder,
    )


def _tuned(settings: Settings, plan: EnginePlan, encoder: str) -> EnginePlan:
    """With what `vidsr tune` found, where the user says nothing of it and memory holds whole frames that way."""
    said = (settings.streams, settings.slots, settings.memory_bytes) != (None, None, None)
    cache = plan.options.cache
    if said or plan.tile is not None or cache is None or not (cache / tuning.FOLDER).is_dir():
        return plan
    found = tuning.find(cache, tuning_key(plan, encoder))
    if found is None or found.streams is found.slots is None:
        return plan
    settings = replace(settings, streams=found.streams, slots=found.slots)
    tuned = _planned(settings, plan.model, plan.source, plan.target)
    return plan if tuned.tile is not None else replace(tuned, tuned=True)


def _planned(
    settings: Settings,
    model: Model,
    source: FrameLayout,
    target: FrameLayout,
    *,
    sizes: tuple[tuple[int, int], tuple[int, int]] | None = None,
    many_sizes: bool = False,
) -> EnginePlan:
    """`plan_engine` for a model whose guard is decided."""
    for name, count in (("slots", settings.slots), ("streams", settings.streams)):
        if count is not None and (not isinstance(count, int) or not 1 <= count <= _MOST_SLOTS):
            raise UsageError(f"--{name} {count}: give a number from 1 to {_MOST_SLOTS}")
    if not isinstance(settings.device, str) or not settings.device:
        raise UsageError(f"--device {settings.device!r}: give a name, such as cuda:0")
    wanted = EngineOptions(
        device=settings.device,
        precision=settings.precision,
        cache=default_cache(),
        streams=settings.streams or (1 if many_sizes else _streams(model)),
        sizes=sizes,
    )
    backend, options = backends.choose(settings.backend, wanted, model, many_sizes=many_sizes)
    slot_bytes = sum(math.prod(shape) * layout.dtype.itemsize for layout in (source, target) for shape in layout.shapes)
    few = max(_LEAST_SLOTS, _SLOT_BYTES // slot_bytes)
    options = replace(options, slots=settings.slots or min(options.streams + _SPARE_SLOTS, few))

    item_bytes = 2 if options.precision in ("bf16", "fp16") else 4
    overhead = backend.memory_overhead * options.streams

    def tile(budget: float) -> tuple[int, int] | None:
        return tile_size(
            model,
            source,
            target,
            item_bytes=item_bytes,
            overhead=overhead,
            budget_bytes=int(budget),
            fuses_attention=backend.fuses_attention,
        )

    free = backend.memory(options)
    size = None
    if settings.memory_bytes is not None:
        size = tile(settings.memory_bytes)
    elif free is None:
        size = tile(available_memory() * _MEMORY_SHARE)
    else:
        # Every slot of a card has work space of its own, and transparency takes a second engine.
        share = free * _DEVICE_SHARE / (2 if source.alpha else 1)
        counts = range(options.slots, min(options.slots, _LEAST_SLOTS) - 1, -1)
        whole = next((count for count in counts if _fits(tile, share / count)), None)
        options = replace(options, slots=whole or min(options.slots, _LEAST_SLOTS))
        if whole is None:
            try:
                size = tile(share / _TILES_AT_ONCE)
            except MemoryBudgetError as error:
                how = "which cannot work in tiles" if halo_of(model, source, target) is None else "even in tiles"
                raise MemoryBudgetError(
                    f"{options.device} has {free / 2**20:.0f} MiB free, too little for {source.width}x{source.height} "
                    f"frames with {model.name}, {how}: close what else uses it, or choose another --device"
                ) from error
    if settings.reuse not in ("auto", "off"):
        raise UsageError(f"--reuse {settings.reuse}: choose auto or off")
    reuse_bytes = 0
    if settings.reuse == "auto" and not many_sizes:
        whole_bytes = overhead * frame_bytes(model, source, target, item_bytes)
        reuse_bytes = _reuse_bytes(settings, source, whole_bytes)
    return EnginePlan(
        model=model,
        backend=backend,
        options=options,
        source=source,
        target=target,
        tile=size,
        reuse_bytes=reuse_bytes,
    )


def _reuse_bytes(settings: Settings, source: FrameLayout, whole_bytes: float) -> int:
    """For each engine, at least one byte: transparency takes a second one. whole_bytes: what the engine itself takes of
    --memory."""
    share = available_memory() * _REUSE_SHARE / (2 if source.alpha else 1)
    left = math.inf if settings.memory_bytes is None else settings.memory_bytes - whole_bytes
    return max(1, int(min(share, left)))


def plan_notes(settings: Settings, plan: EnginePlan) -> list[str]:
    """All that follows, where there is something to say."""
    notes = (idle_note(settings, plan), guard_note(settings, plan), tile_note(plan))
    return [note for note in notes if note]


def idle_note(settings: Settings, plan: EnginePlan) -> str | None:
    """What to say where `auto` chose the processor beside a card."""
    if (settings.backend, settings.device) != ("auto", "auto") or plan.options.device.startswith("cuda"):
        return None
    reason = backends.idle_card(EngineOptions(precision=settings.precision), plan.model)
    return f"the NVIDIA card is not used: {reason}" if reason else None


def guard_note(settings: Settings, plan: EnginePlan) -> str | None:
    """What to say where the guard was found necessary just now; models that state it themselves were imported so."""
    members = (member for member in plan.model.members if member.guarded and "guard" not in member.metadata)
    names = dict.fromkeys(member.name for member in members)
    if settings.guard != "auto" or not names:
        return None
    return f"guard on: {' and '.join(names)} leaves all reason on hard patterns (see `vidsr eval --stability`)"


def tile_note(plan: EnginePlan) -> str | None:
    """What to say where frames are cut into tiles that are not exact."""
    if plan.tile is None or plan.model.radius is not None:
        return None
    return (
        f"{plan.model.name} looks at the whole picture, for which memory is too short: it works in tiles of "
        f"{plan.tile[1]}x{plan.tile[0]}, which do not give exactly the same (see --memory)"
    )


def _guarded(settings: Settings, model: Model, cache: Path | None) -> Model:
    """The model as engines are to run it. Raises UsageError."""
    if settings.guard not in ("auto", "on", "off"):
        raise UsageError(f"--guard {settings.guard}: choose auto, on or off")
    if settings.guard == "auto":
        return model.guards(lambda member: needs_guard(member, cache))
    return model.guards(lambda member: settings.guard == "on")


def _fits(tile: Callable[[float], tuple[int, int] | None], budget: float) -> bool:
    """Whether whole frames do."""
    try:
        return tile(budget) is None
    except MemoryBudgetError:
        return False
