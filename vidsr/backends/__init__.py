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
from vidsr.quantise import learned_ranges

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
    runs the model, with its settled options. Raises UsageError, BackendError, ModelError.

    many_sizes: a backend that compiles minutes for each size is not taken by itself.
    """
    if name != "auto":
        return _usable(name, "auto", options, model)
    # What cards lack or refuse, and what others do: who asks for a card wants to hear of cards.
    reasons: dict[bool, list[str]] = {True: [], False: []}
    lacks: list[str] = []
    for candidate, device in PREFERENCE:
        card = device == "cuda"
        if card and options.device != "auto" and not options.device.lower().startswith(device):
            continue
        if many_sizes and candidate == "tensorrt":
            continue
        wanted = replace(options, device=device) if options.device == "auto" else options
        try:
            return _usable(candidate, device, wanted, model)
        except _Lack as lack:
            lacks.append(str(lack))
        except BackendError as error:
            reasons[card].append(str(error))
    if options.device.lower().startswith("cuda"):
        raise BackendError((reasons[True] or [f"--device {options.device}: {'; '.join(lacks)}"])[0])
    refusals = [*reasons[True], *reasons[False]]
    raise BackendError(refusals[0] if refusals else "no backend can be used here: " + "; ".join(lacks))


def idle_card(options: EngineOptions, model: Model) -> str | None:
    """Why `auto` takes no NVIDIA card for these options although there is one; None where there is none."""
    reasons = []
    for candidate, device in PREFERENCE if card_count() else ():
        if device == "cuda":
            try:
                _usable(candidate, device, replace(options, device=device), model)
            except BackendError as error:
                reasons.append(str(error))
    return "; ".join(reasons) or None


class _Lack(BackendError):
    """A backend that cannot be used whatever the options are."""


def _usable(name: str, device: str, options: EngineOptions, model: Model) -> tuple[Backend, EngineOptions]:
    """The backend and its settled options. Raises _Lack, BackendError for what it refuses, or ModelError for a model
    without an INT8 form where that is wanted."""
    try:
        backend = load(name, device)
    except BackendError as error:
        raise _Lack(str(error)) from error
    if unfit := backend.unfit(model):
        raise _Lack(unfit)
    settled = backend.settle(options)
    if options.streams not in (0, settled.streams):
        raise BackendError(f"--streams {options.streams}: {name} on {settled.device} computes one frame at a time")
    if settled.precision == "int8":
        for member in model.members:
            learned_ranges(member)
    return backend, settled
