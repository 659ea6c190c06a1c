"""Backends: libraries that make a model runnable. One file each, loaded only when asked for.

To add one: a module `<library>_engine.py` with a `BACKEND` that fulfils `Backend`, and its row in `MODULES`.
The contract tests in `tests/contract/test_engine.py` then cover it.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

from vidsr.backends.base import Backend, Engine, EngineOptions, Slot, Watch
from vidsr.errors import BackendError, UsageError
from vidsr.models import Model
from vidsr.nvidia import card_count

__all__ = [
    "MODULES",
    "PREFERENCE",
    "Backend",
    "Engine",
    "EngineOptions",
    "Slot",
    "Watch",
    "choose",
    "idle_card",
    "load",
]

MODULES = {
    "tensorrt": "vidsr.backends.tensorrt_engine",
    "openvino": "vidsr.backends.openvino_engine",
    "torch": "vidsr.backends.torch_engine",
    "onnxruntime": "vidsr.backends.onnxruntime_engine",
}
PREFERENCE = (
    ("tensorrt", "cuda"),
    ("torch", "cuda"),
    ("openvino", "auto"),
    ("onnxruntime", "auto"),
    ("torch", "auto"),
)
"""(backend, device) in the order in which `auto` looks for something usable: cards before processors."""


def load(name: str, device: str = "auto") -> Backend:
    """The backend of that name. Raises UsageError for an unknown one, BackendError where it cannot be used here."""
    if name not in MODULES:
        raise UsageError(f"--backend {name}: there is none of that name; known are auto, {', '.join(MODULES)}")
    backend: Backend = import_module(MODULES[name]).BACKEND
    lack = backend.lack(device)
    if lack:
        raise BackendError(f"--backend {name} cannot be used here: {lack}")
    return backend


def choose(
    name: str, options: EngineOptions, model: Model, *, many_sizes: bool = False
) -> tuple[Backend, EngineOptions]:
    """The backend of that name, or for "auto" the first of `PREFERENCE` that has the wanted device and precision and
    runs the model, with its settled options. Raises UsageError, BackendError.

    many_sizes: a backend that compiles minutes for each size is not taken by itself.
    """
    if name != "auto":
        backend = load(name)
        if unfit := backend.unfit(model):
            raise BackendError(unfit)
        return backend, backend.settle(options)
    refusals: list[str] = []
    lacks: list[str] = []
    for candidate, device in PREFERENCE:
        if "auto" not in (device, options.device) and not options.device.lower().startswith(device):
            continue
        if many_sizes and candidate == "tensorrt":
            continue
        wanted = replace(options, device=device) if options.device == "auto" else options
        try:
            backend = load(candidate, device)
        except BackendError as error:
            lacks.append(str(error))
            continue
        if unfit := backend.unfit(model):
            lacks.append(unfit)
            continue
        try:
            return backend, backend.settle(wanted)
        except BackendError as error:
            refusals.append(str(error))
    if options.device.lower().startswith("cuda") and lacks:
        raise BackendError(f"--device {options.device}: {'; '.join(lacks)}")
    raise BackendError(refusals[0] if refusals else "no backend can be used here: " + "; ".join(lacks))


def idle_card() -> str | None:
    """Why `auto` takes no NVIDIA card although there is one, as far as something is missing; None where nothing is."""
    if not card_count():
        return None
    reasons = [
        lack
        for candidate, device in PREFERENCE
        if device == "cuda" and (lack := import_module(MODULES[candidate]).BACKEND.lack(device))
    ]
    return "; ".join(reasons) or None
