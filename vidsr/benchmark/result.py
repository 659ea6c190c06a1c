"""What a benchmark found, and the file it is kept in."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from vidsr.durable import write_whole
from vidsr.errors import InputError, OutputError

__all__ = ["Advice", "Limits", "Result", "Share", "StageName", "read", "text", "write"]

_KEY, _VERSION = "vidsr_bench", 1
StageName = Literal["decode", "copy in", "inference", "copy out", "encode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What this machine can do at most, measured. None where there is no such thing here.

    matrix_gflops: by precision ("fp32", "bf16", "int8", "fp16"), of the device that infers. memory_gbps: bytes read and
    written. bus_gbps: to the card and back, page-locked. load: work of others that waited for cores before anything was
    made or measured, None where nobody looked.
    """

    processor: str
    cores: int
    device: str
    matrix_gflops: dict[str, float]
    memory_gbps: float
    bus_gbps: float | None = None
    load: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One stage alone, for one frame.

    ms: wall time. cpu_ms: of all threads. bound: what it cannot be faster than ("matrix bf16", "memory", "bus"); None
    where nothing is known, as for codecs. bound_ms: the time that would take.
    """

    name: StageName
    ms: float
    cpu_ms: float
    bound: str | None = None
    bound_ms: float | None = None

    @property
    def efficiency(self) -> float | None:
        """How near to its bound, 0..1."""
        return None if self.bound_ms is None else self.bound_ms / max(self.ms, 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """limit: what limits the whole ("encode", "inference", ...). change: options that would help, "" where nothing
    would. gain: how many times as fast it would be with them, predicted. text: the sentence for people."""

    limit: str
    change: str
    gain: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """rounds: frames a second of the whole, once for each run. fps: their median. bound_fps: what the stages allow,
    1 / (inference + (decode + encode CPU) / cores) on a processor, that of the slowest stage on a card. settings: what
    was measured, by the names of the options; `source` and `size` say what was enlarged. busy: share of the time that
    each thread of the pipeline worked. reused: how much of the model's work was not done again, which its stage is told
    without."""

    made: str
    settings: dict[str, Any]
    machine: Limits
    versions: dict[str, str]
    stages: tuple[Share, ...]
    rounds: tuple[float, ...]
    fps: float
    bound_fps: float
    busy: dict[str, float]
    advice: Advice
    reused: float = 0.0

    @property
    def efficiency(self) -> float:
        return self.fps / max(self.bound_fps, 1e-9)


def text(result: Result) -> str:
    """As JSON, with what follows from it."""
    fields = asdict(result) | {"efficiency": result.efficiency}
    for stage, share in zip(fields["stages"], result.stages, strict=True):
        stage["efficiency"] = share.efficiency
    return json.dumps({_KEY: _VERSION, **_rounded(fields)}, indent=1)


def write(path: Path, result: Result) -> None:
    """Raises OutputError."""
    try:
        write_whole(path, f"{text(result)}\n".encode())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error


def read(path: Path) -> Result:
    """Raises InputError for what is no result."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
        if not isinstance(found, dict) or found.get(_KEY) != _VERSION:
            raise ValueError
        return Result(**_fields(Result, found) | {
            "machine": Limits(**_fields(Limits, found["machine"])),
            "stages": tuple(map(_share, found["stages"])),
            "settings": dict(found["settings"]),
            "versions": dict(found["versions"]),
            "rounds": _positive(found["rounds"]),
            "fps": _positive([found["fps"]])[0],
            "bound_fps": _positive([found["bound_fps"]])[0],
            "advice": Advice(**_fields(Advice, found["advice"])),
        })  # fmt: skip
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise InputError(f"{path}: was not made by `vidsr bench --json` of this version") from None


def _no_number(text: str) -> float:
    """What JSON has no letters for, and Python reads all the same."""
    raise ValueError(text)


def _share(found: dict[str, Any]) -> Share:
    """Raises ValueError, TypeError, KeyError."""
    share = Share(**_fields(Share, found))
    if share.name not in get_args(StageName):
        raise ValueError(share.name)
    return replace(share, ms=_positive([share.ms])[0])


def _positive(values: Sequence[Any]) -> tuple[float, ...]:
    """At least one. Raises ValueError, TypeError."""
    numbers = tuple(map(float, values))
    if not numbers or not all(0 < number < math.inf for number in numbers):
        raise ValueError
    return numbers


def _fields(kind: type, found: dict[str, Any]) -> dict[str, Any]:
    """Those that the dataclass has, and no more."""
    return {field.name: found[field.name] for field in fields(kind)}


def _rounded(value: Any) -> Any:
    """Floats to six digits: more would be noise."""
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    return float(f"{value:.13g}" if value > 1e9 else f"{value:.6g}") if isinstance(value, float) else value
