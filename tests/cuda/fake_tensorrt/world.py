"""What surrounds the fake: the stand-in's card, what shall go wrong, and what a test can look at afterwards."""

from __future__ import annotations

import gc
import hashlib
import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.cuda.fake_tensorrt.bindings import Enum, ILogger, called_back


class Aborted(BaseException):
    """What the real TensorRT ends the process with. No `except Exception` holds it."""


class Card(Protocol):
    """What TensorRT asks of the CUDA driver."""

    def current(self) -> int | None:
        """The device whose context is current in this thread."""

    def lost(self) -> bool:
        """Whether the card answers no more; then nothing can be given back and nobody has to."""

    def name(self, device: int) -> str: ...

    def capability(self, device: int) -> tuple[int, int]: ...

    def allocate(self, size: int) -> int | None:
        """An address in the current context, None when memory has run out."""

    def free(self, address: int) -> None: ...

    def stream(self, handle: int) -> str | None:
        """ "idle" or "capturing"; None where there is no such stream in the current context."""

    def call(self, stream: int, work: Callable[[], None], memory: Mapping[int, int]) -> bool:
        """Queues or captures `work`, which uses `memory` (size by address); False where CUDA refuses."""

    def read(self, address: int, size: int) -> bytes:
        """From inside of queued work."""

    def write(self, address: int, data: bytes) -> None:
        """From inside of queued work."""


@dataclass(slots=True, kw_only=True)
class Faults:
    """What shall go wrong. The numbers count calls from 1 on, since the fake was installed."""

    no_builder: bool = False
    no_runtime: bool = False
    parser_errors: tuple[str, ...] = ()
    refuses_bytes: bool = False
    """Graphs with uint8 tensors at the border do not parse."""
    build_error: str | None = None
    deserialize_error: str | None = None
    context_error_at: int | None = None
    """Out of device memory for that execution context."""
    enqueue_error_at: int | None = None
    during_enqueue: Callable[[], None] | None = None
    """Called in the middle of `execute_async_v3`."""


@dataclass(slots=True, kw_only=True)
class Build:
    """What a build was asked for. timed: kernels that the timing cache did not know."""

    strongly_typed: bool
    tf32: bool
    level: int
    workspace_bytes: int | None
    aux_streams: int | None
    profile: dict[str, tuple[tuple[int, ...], ...]]
    timed: int = 0


@dataclass(slots=True, kw_only=True)
class Record:
    """What happened, counted."""

    builds: list[Build] = field(default_factory=list)
    deserialized: int = 0
    contexts: int = 0
    enqueued: int = 0
    captured: int = 0
    executed: int = 0
    violations: list[str] = field(default_factory=list)
    """What TensorRT would have answered with undefined behaviour; a test that ends with one has failed."""


class World:
    """One fake TensorRT: its version and everything that belongs to no object of it.

    card_name, capability: another card than the driver's, for plans that move.
    """

    def __init__(self, card: Card, version: str) -> None:
        self.card, self.version = card, version
        self.card_name: str | None = None
        self.capability: tuple[int, int] | None = None
        self.faults, self.record = Faults(), Record()
        self.sessions: dict[bytes, Any] = {}
        self._logger: weakref.ref[ILogger] | None = None
        self._lock = threading.Lock()

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])

    def check(self) -> None:
        """Fails where something happened that TensorRT does not forgive."""
        gc.collect()
        assert not self.record.violations, "TensorRT was misused:\n" + "\n".join(self.record.violations)

    def violated(self, what: str) -> None:
        with self._lock:
            self.record.violations.append(what)

    def abort(self, what: str) -> Aborted:
        """To be raised; counted as well, for it may be lost in a thread."""
        self.violated(f"the process was aborted: {what}")
        return Aborted(what)

    def count(self, name: str) -> int:
        """One more of `Record`'s; how many that makes."""
        with self._lock:
            number: int = getattr(self.record, name) + 1
            setattr(self.record, name, number)
        return number

    def log(self, logger: ILogger, severity: Enum, text: str) -> None:
        called_back(logger.log, severity, text)

    def error(self, logger: ILogger, text: str, code: str = "3: API Usage Error") -> None:
        self.log(logger, ILogger.Severity.ERROR, f"{code} ({text})")

    def register(self, logger: ILogger) -> None:
        """TensorRT keeps the first living logger for what no object belongs to."""
        first = self._logger() if self._logger is not None else None
        if first is None:
            self._logger = weakref.ref(logger)
        elif first is not logger:
            self.log(logger, ILogger.Severity.WARNING, "The logger differs from the one already registered.")

    def identity(self) -> tuple[str, tuple[int, int]] | None:
        """(name, compute capability) of the current card."""
        device = self.card.current()
        if device is None:
            return None
        return (
            self.card_name or self.card.name(device),
            self.capability or self.card.capability(device),
        )

    def session(self, model: bytes) -> Any:
        """What executes an ONNX model. One thread: the other cores belong to the tests beside this one."""
        import onnxruntime

        key = hashlib.sha256(model).digest()
        if key not in self.sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            options.log_severity_level = 4
            self.sessions[key] = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return self.sessions[key]


class Allocation:
    """Device memory of one of TensorRT's objects. Given back with it, for which a context must be current."""

    def __init__(self, world: World, size: int, owner: str) -> None:
        self.world, self.size, self.owner = world, size, owner
        self.address = world.card.allocate(size)

    def __del__(self) -> None:
        if getattr(self, "address", None) is None:
            return
        if self.world.card.lost():
            return
        if self.world.card.current() is None:
            self.world.violated(f"{self.owner} was destroyed while no CUDA context was current")
            return
        with suppress(Exception):
            self.world.card.free(self.address)
