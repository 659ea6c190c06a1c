"""The seam between the pipeline and whatever runs a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vidsr.color import Conversion
from vidsr.frame import FrameLayout, Plane
from vidsr.graph import ModelProto
from vidsr.models import Model

__all__ = ["Backend", "Engine", "EngineOptions", "Part", "PlainBackend", "Precision", "Slot", "Watch"]

Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]


@dataclass(slots=True, eq=False)
class Slot:
    """Reusable planes for one frame in flight, allocated by the engine where its device reaches them fastest.

    input, output: `uint8|uint16 [H, W]` each, as the engine's `source` and `target` layouts say.
    rgb_from_codes, codes_from_rgb: float32 [3, 4], see `vidsr.color.Conversion`.
    handle: the engine's own.
    """

    input: tuple[Plane, ...]
    output: tuple[Plane, ...]
    rgb_from_codes: NDArray[np.float32]
    codes_from_rgb: NDArray[np.float32]
    handle: Any = None

    @classmethod
    def allocate(cls, source: FrameLayout, target: FrameLayout) -> Slot:
        """A slot in ordinary memory."""
        return cls(source.allocate(), target.allocate(), np.zeros((3, 4), np.float32), np.zeros((3, 4), np.float32))

    def convert(self, conversion: Conversion) -> None:
        """Sets the colour conversion of the frame that lies in `input`."""
        np.copyto(self.rgb_from_codes, conversion.rgb_from_codes)
        np.copyto(self.codes_from_rgb, conversion.codes_from_rgb)


class Engine(Protocol):
    """A model made runnable for one frame layout: planes in, planes `scale` times larger out.

    Passive: starts no thread of its own, belongs to the thread that made it, and is closed there.
    """

    source: FrameLayout
    target: FrameLayout
    in_flight: int
    """Frames worth having submitted at once."""

    @property
    def description(self) -> str:
        """What really runs, for people: library, device, precision, and what came of it so far."""

    def slots(self, count: int) -> Sequence[Slot]:
        """`count` fresh slots, which live as long as the engine: `count` for each device where several share the work,
        fewer, but at least one, where memory is short."""

    def submit(self, slot: Slot) -> None:
        """Starts on `slot.input` and returns; the slot is the engine's until `wait` returns."""

    def wait(self, slot: Slot) -> None:
        """Returns when `slot.output` holds the result of the last `submit`. Releases the GIL while waiting."""

    def close(self) -> None:
        """Frees everything; calling it twice is harmless."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What a person may choose about an engine.

    device: the backend's own name for one, or "auto". cache: folder for compiled models, with one for each backend in
    it; None for no cache. slots: frames in flight, which share the memory of the device. streams: frames that a
    processor computes at once, each on its share of the cores; 0 for as many as the backend finds best. sizes: (height,
    width) of the smallest and the largest frames that one compiled model is to serve; None for one that serves its own
    size alone.
    """

    device: str = "auto"
    precision: Precision = "auto"
    cache: Path | None = None
    slots: int = 4
    streams: int = 0
    sizes: tuple[tuple[int, int], tuple[int, int]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Who watches something that takes minutes. progress: gets the share that is done, 0..1. warn: gets what the user
    should know. stop: set when it is to be given up."""

    progress: Callable[[float], None] = lambda done: None
    warn: Callable[[str], None] = lambda text: None
    stop: Event = field(default_factory=Event)


class Part(Protocol):
    """A part of a graph made runnable. Belongs to the thread that made it.

    given, made: arrays by the names of the part's inputs and outputs, always the same ones; between `submit` and `wait`
    they are the library's. Their dtypes are the library's own: what one part makes another takes as it is.
    """

    @property
    def given(self) -> Mapping[str, NDArray[Any]]: ...

    @property
    def made(self) -> Mapping[str, NDArray[Any]]: ...

    def submit(self) -> None:
        """Starts on `given` and returns."""

    def wait(self) -> None:
        """Returns when `made` holds the result. Releases the GIL while waiting."""


class Backend(Protocol):
    """A library that makes engines."""

    name: str
    memory_overhead: float
    """Memory it takes for an inference over that of the tensors alive at once, measured: work space, copies, pools."""
    fuses_attention: bool
    """Whether the scores of attention, one for each two pixels of a window, never lie in memory whole."""

    def lack(self, device: str = "auto") -> str | None:
        """None when usable here on that device, else what is missing and the command that installs it."""

    def unfit(self, model: Model) -> str | None:
        """None where it can run this model, else why not."""

    def settle(self, options: EngineOptions) -> EngineOptions:
        """The options with device, precision and streams decided, nothing "auto". Raises BackendError if they cannot be
        had."""

    def machine(self, options: EngineOptions) -> str:
        """What of the device the last bits of a result may depend on, in words; the same for cards of one kind."""

    def memory(self, options: EngineOptions) -> int | None:
        """Bytes free for engines on the device of settled options; None where that is the host's memory."""

    def prepare(
        self, model: Model, source: FrameLayout, target: FrameLayout, options: EngineOptions, watch: Watch
    ) -> object:
        """Does what `open` would take minutes for, keeps it in the cache, and gives what `open` needs of it. Raises
        BackendError, Cancelled."""

    def open(
        self,
        model: Model,
        source: FrameLayout,
        target: FrameLayout,
        options: EngineOptions,
        prepared: object = None,
    ) -> Engine:
        """Makes an engine from settled options; may compile for seconds. prepared: what `prepare` gave for the same.
        Raises BackendError."""

    def graph(
        self, model: Model, source: FrameLayout, target: FrameLayout, options: EngineOptions
    ) -> ModelProto | None:
        """What `open` runs for settled options, as one that can be run in parts; None where parts cannot be had."""

    def open_part(self, proto: ModelProto, exact: Set[str], options: EngineOptions, count: int) -> Sequence[Part]:
        """A part of what `graph` gave, `count` times, of which `options.streams` are computed at once. exact: names of
        inputs and outputs that stay FP32 whatever the precision. Raises BackendError."""


class PlainBackend:
    """What a backend answers that runs every model in the host's memory, fuses attention, and compiles in seconds."""

    fuses_attention = True

    def unfit(self, model: Model) -> str | None:
        return None

    def machine(self, options: EngineOptions) -> str:
        return options.device

    def memory(self, options: EngineOptions) -> int | None:
        return None

    def prepare(
        self, model: Model, source: FrameLayout, target: FrameLayout, options: EngineOptions, watch: Watch
    ) -> object:
        return None

    def graph(
        self, model: Model, source: FrameLayout, target: FrameLayout, options: EngineOptions
    ) -> ModelProto | None:
        return None

    def open_part(self, proto: ModelProto, exact: Set[str], options: EngineOptions, count: int) -> Sequence[Part]:
        raise NotImplementedError
