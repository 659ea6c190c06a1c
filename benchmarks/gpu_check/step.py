"""What the steps share. They say figures as they go, so that a crash loses none; `doing` tells what comes next."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import_name = {"cuda-bindings": "cuda.bindings", "tensorrt": "tensorrt"}

Say = Callable[[dict[str, Any]], None]


class Skipped(Exception):
    """The step cannot be done here."""


class Failed(Exception):
    """The step was done and is not as it should be."""


def need(*packages: str) -> None:
    """Skips the step where one of these is not installed."""
    if find_spec("platformdirs") is None:  # vidsr asks it only where its folders are
        stand_in: Any = ModuleType("platformdirs")
        stand_in.user_cache_dir = stand_in.user_data_dir = lambda *names, **options: tempfile.gettempdir()
        sys.modules["platformdirs"] = stand_in
    for package in packages:
        name = import_name.get(package, package)
        try:
            there = name in sys.modules or find_spec(name) is not None
        except ModuleNotFoundError:  # the package around it
            there = False
        if not there:
            raise Skipped(f"{package} is not installed")


def need_torch_on_a_card() -> Any:
    """torch. Skips the step where it is missing or knows no card."""
    need("torch")
    torch = import_module("torch")
    if not torch.cuda.is_available():
        raise Skipped(f"torch {torch.__version__} does not see a card")
    return torch


def devices(say: Say) -> dict[str, Callable[[], Any]]:
    """What can drive the card, by the name of its library. Skips the step where there is nothing."""
    need("numpy", "onnx")
    found: dict[str, Callable[[], Any]] = {}
    lacks = []
    from vidsr.backends.cuda import pycuda_device

    lack = pycuda_device.lack()
    if lack is None:
        found["pycuda"] = lambda: pycuda_device.PycudaDevice(0)
    else:
        lacks.append(lack)
    try:
        need_torch_on_a_card()
        from vidsr.backends.cuda.torch_device import TorchDevice

        found["torch"] = lambda: TorchDevice(0)
    except Skipped as skipped:
        lacks.append(str(skipped))
    if lacks:
        say({"without": lacks})
    if not found:
        raise Skipped("; ".join(lacks))
    return found


@contextmanager
def opened(make: Callable[[], Any]) -> Iterator[Any]:
    """A device, current, and closed at the end."""
    device = make()
    try:
        with device.current():
            yield device
    finally:
        device.close()


def require(true: bool, otherwise: str) -> None:
    if not true:
        raise Failed(otherwise)


def seconds(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
