"""Networks: architectures vidsr knows as torch modules. Loading one needs torch.

To add one: a module with `NAME`, `recognise`, `fuse`, `deduce`, `notes`, `build`, `export`, and its row in `MODULES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidsr.errors import BackendError

__all__ = ["MODULES", "State", "load", "need_torch"]

State = Mapping[str, NDArray[np.float32]]
"""Weights by state-dict key."""

MODULES = {"span": "vidsr.networks.span", "esc": "vidsr.networks.esc"}


def need_torch() -> None:
    """Raises BackendError where torch is missing, with what to install."""
    if not find_spec("torch"):
        raise BackendError("this needs torch, which is not installed (pip install torch safetensors)")


def load(name: str) -> Any:
    """The module of a network by name. Raises BackendError without torch."""
    need_torch()
    return import_module(MODULES[name])
