"""Backends: libraries that make a model runnable. One file each, loaded only when asked for.

To add one: a module `<library>_engine.py` with a `BACKEND` that fulfils `Backend`, and its row in `MODULES`.
The contract tests in `tests/contract/test_engine.py` then cover it.
"""

from __future__ import annotations

from importlib import import_module

from vidsr.backends.base import Backend, Engine, EngineOptions, Slot
from vidsr.errors import BackendError, UsageError

__all__ = ["MODULES", "PREFERENCE", "Backend", "Engine", "EngineOptions", "Slot", "choose", "load"]

MODULES = {
    "openvino": "vidsr.backends.openvino_engine",
    "torch": "vidsr.backends.torch_engine",
    "onnxruntime": "vidsr.backends.onnxruntime_engine",
}
PREFERENCE = ("openvino", "onnxruntime", "torch")
"""The order in which `auto` looks for a usable one."""


def load(name: str) -> Backend:
    """The backend of that name. Raises UsageError for an unknown one, BackendError where its library is missing."""
    if name not in MODULES:
        raise UsageError(f"--backend {name}: there is none of that name; known are auto, {', '.join(MODULES)}")
    backend: Backend = import_module(MODULES[name]).BACKEND
    lack = backend.lack()
    if lack:
        raise BackendError(f"--backend {name} cannot be used here: {lack}")
    return backend


def choose(name: str) -> Backend:
    """`load(name)`, or for "auto" the first usable one of `PREFERENCE`."""
    if name != "auto":
        return load(name)
    reasons = []
    for candidate in PREFERENCE:
        try:
            return load(candidate)
        except BackendError as error:
            reasons.append(str(error))
    raise BackendError("no backend can be used here: " + "; ".join(reasons))
