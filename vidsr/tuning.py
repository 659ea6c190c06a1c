"""How many frames at once are fastest on this machine, as `vidsr tune` found it and later runs take it."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import vidsr
from vidsr import machine
from vidsr.durable import write_whole

__all__ = ["FILES", "FOLDER", "KeptTuning", "Tuning", "TuningKey", "find", "keep", "kept"]

FOLDER = "tuning"
"""In the cache."""
FILES = re.compile(r"[0-9a-f]{16}\.json(\.\d+\.part)?")
"""Names of what is kept there, and of what a process that ended too early left."""
_VERSION = 1
_USUAL_PIXELS = 640 * 360
_MOST = 16
"""Of streams, and of slots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningKey:
    """What a tuning holds for, and nothing else.

    version: of the backend's library. device: see `Backend.machine`. model: hash of its file. size: the class of
    frames, each of twice as many pixels. encoder: with its preset, which shares the cores; "" where there is none.
    """

    processor: str
    cores: int
    backend: str
    version: str
    device: str
    precision: str
    model: str
    size: int
    encoder: str
    vidsr: str

    @classmethod
    def here(
        cls,
        *,
        backend: str,
        version: str,
        device: str,
        precision: str,
        model: str,
        height: int,
        width: int,
        encoder: str,
    ) -> TuningKey:
        """For this machine. height, width: of the frames."""
        found = machine.processor()
        return cls(
            processor=f"{found['name'] or ''} {found['architecture']}".strip(),
            cores=machine.cores(),
            backend=backend,
            version=version,
            device=device,
            precision=precision,
            model=model,
            size=round(math.log2(height * width / _USUAL_PIXELS)),
            encoder=encoder,
            vidsr=vidsr.__version__,
        )

    @property
    def library(self) -> str:
        """For people."""
        return f"{self.backend} {self.version.split('-')[0]}"

    @property
    def machine(self) -> str:
        """For people."""
        return f"{self.processor}, {self.cores} cores"

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """streams, slots: as in `EngineOptions`; None where the usual is best. gain: how many times as fast as the usual
    they were. model, frames: name and size that it was measured with, for people."""

    streams: int | None
    slots: int | None
    gain: float = 1.0
    model: str = ""
    frames: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptTuning:
    """made: seconds since the epoch."""

    path: Path
    bytes: int
    key: TuningKey
    tuning: Tuning
    made: float


_Kind = TypeVar("_Kind", TuningKey, Tuning)


def find(cache: Path | None, key: TuningKey) -> Tuning | None:
    """What is kept in that cache for the key; None where nothing is, or nothing that makes sense."""
    found = None if cache is None else _read(cache / FOLDER / f"{key.digest}.json")
    return found.tuning if found and found.key == key else None


def keep(cache: Path, key: TuningKey, tuning: Tuning) -> Path:
    """Instead of what was kept for the key; where. Raises OSError."""
    path = cache / FOLDER / f"{key.digest}.json"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    told = {"vidsr_tuning": _VERSION, "made": time.time(), "key": asdict(key), "tuning": asdict(tuning)}
    write_whole(path, json.dumps(told, indent=1).encode())
    return path


def kept(cache: Path) -> Iterator[KeptTuning]:
    """All that is kept there and can be read, in the order of file names."""
    for path in sorted((cache / FOLDER).glob("*.json")):
        if FILES.fullmatch(path.name) and (found := _read(path)) is not None:
            yield found


def _read(path: Path) -> KeptTuning | None:
    """None for anything that `keep` never wrote: a user can do without."""
    with suppress(OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        data = path.read_bytes()
        told = json.loads(data)
        key, tuning = _made_of(TuningKey, told["key"]), _made_of(Tuning, told["tuning"])
        counts = [count for count in (tuning.streams, tuning.slots) if count is not None]
        if told["vidsr_tuning"] == _VERSION and all(1 <= count <= _MOST for count in counts):
            return KeptTuning(path=path, bytes=len(data), key=key, tuning=tuning, made=float(told["made"]))
    return None


def _made_of(kind: type[_Kind], values: dict[str, Any]) -> _Kind:
    """Raises TypeError, KeyError or ValueError for what is no such thing."""
    kinds: dict[str, Any] = {"str": str, "int": int, "float": float, "int | None": int | None}
    for field in fields(kind):
        value = values[field.name]
        if isinstance(value, bool) or not isinstance(value, kinds[str(field.type)]):
            raise ValueError(field.name)
    return kind(**values)
