"""What a plan depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from vidsr.graph import Planes

__all__ = ["PlanKey", "Size", "printable"]

Size = tuple[int, int]
"""(height, width) of the engine's input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanKey:
    """Everything a plan depends on.

    graph: SHA-256 of the ONNX given to TensorRT, which holds model, layouts and precision; `model`, `model_sha256`,
    `layout` and `precision` say so for people. smallest, largest: (height, width) of the profile, the same for
    a fixed shape. driver, memory_bytes: TensorRT chooses kernels by them. builder: version of the code that builds.
    """

    model: str
    model_sha256: str
    graph: str
    layout: str
    precision: str
    planes: Planes
    smallest: Size
    largest: Size
    tensorrt: str
    device: str
    capability: str
    multiprocessors: int
    memory_bytes: int
    driver: str
    platform: str
    builder: int
    level: int
    workspace_bytes: int

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def stem(self) -> str:
        """Of the file names: for people first, then unique."""
        sizes = [f"{width}x{height}" for height, width in dict.fromkeys((self.smallest, self.largest))]
        name = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in self.model)
        return f"{name}-{'-'.join(sizes)}-{self.precision}-{self.digest[:16]}"

    @property
    def machine(self) -> str:
        """Of the timing cache, which is TensorRT's for one card and version."""
        names = ("tensorrt", "device", "capability", "multiprocessors", "memory_bytes", "driver", "workspace_bytes")
        values = json.dumps([getattr(self, name) for name in names])
        return hashlib.sha256(values.encode()).hexdigest()[:16]

    def covers(self, height: int, width: int) -> bool:
        """Whether frames of that size are within the profile."""
        return self.smallest[0] <= height <= self.largest[0] and self.smallest[1] <= width <= self.largest[1]

    def differences(self, other: PlanKey) -> str:
        """What is another in `other`, in words."""
        names = [field.name for field in fields(self) if getattr(self, field.name) != getattr(other, field.name)]
        return printable(", ".join(f"{name} was {getattr(other, name)}, is {getattr(self, name)}" for name in names))

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> PlanKey:
        """Of what `asdict` gave to JSON. Raises TypeError, KeyError or ValueError for anything else."""
        read: dict[str, Any] = {}
        for field in fields(cls):
            value: Any = values[field.name]
            if field.type == "Size":
                height, width = value
                fits, value = type(height) is type(width) is int, (height, width)
            else:
                fits = isinstance(value, int if field.type == "int" else str)
            if not fits:
                raise ValueError(f"{field.name} cannot be {value!r}")
            read[field.name] = value
        return cls(**read)


def printable(text: str) -> str:
    """For a terminal: what a file says may hold anything."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
