"""TensorRT on NVIDIA cards, in FP16."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from vidsr.backends.base import Engine, EngineOptions, PlainBackend, Precision, Watch
from vidsr.backends.cuda.cards import card_device, card_numbers
from vidsr.backends.cuda.pycuda_device import PycudaDevice, count
from vidsr.backends.cuda.pycuda_device import lack as pycuda_lack
from vidsr.backends.cuda.slots import CudaEngine
from vidsr.backends.dealt import open_each
from vidsr.backends.library import trouble
from vidsr.errors import BackendError
from vidsr.frame import FrameLayout
from vidsr.models import Model
from vidsr.nvidia import driver_version

if TYPE_CHECKING:
    from vidsr.backends.trt.make import Recipe

__all__ = ["BACKEND"]

_OLDEST = (10, 8)
_LEAST_CAPABILITY = (7, 5)
"""Of a card, for TensorRT 10.8 and later (its support matrix)."""


class TensorRtBackend(PlainBackend):
    name = "tensorrt"
    memory_overhead = 1.1

    def lack(self, device: str = "auto") -> str | None:
        if find_spec("tensorrt") is None:
            return "TensorRT is not installed (pip install tensorrt pycuda cuda-bindings)"
        return (
            _too_old()
            or pycuda_lack()
            or _too_new()
            or trouble("TensorRT", "tensorrt", lambda: import_module("tensorrt"))
        )

    def settle(self, options: EngineOptions) -> EngineOptions:
        device = card_device("cuda" if options.device == "auto" else options.device, count())
        for card in _cards(device):
            if card.capability < _LEAST_CAPABILITY:
                raise BackendError(
                    f"--device {options.device}: TensorRT needs a card of compute capability 7.5, and {card.name} has "
                    f"{card.capability[0]}.{card.capability[1]}: use --backend torch"
                )
        known: tuple[Precision, ...] = ("fp16", "fp32")
        precision = "fp16" if options.precision == "auto" else options.precision
        if precision not in known:
            raise BackendError(f"--precision {precision}: tensorrt runs fp16 and fp32; leave it at auto")
        return replace(options, device=device, precision=precision, streams=1)

    def machine(self, options: EngineOptions) -> str:
        return ", ".join(sorted({card.name for card in _cards(options.device)}))

    def memory(self, options: EngineOptions) -> int | None:
        return min(card.free_bytes for card in _cards(options.device))

    def prepare(
        self, model: Model, source: FrameLayout, target: FrameLayout, options: EngineOptions, watch: Watch
    ) -> dict[int, Recipe]:
        return {
            number: _recipe(number, model, source, target, options, watch) for number in card_numbers(options.device)
        }

    def open(
        self,
        model: Model,
        source: FrameLayout,
        target: FrameLayout,
        options: EngineOptions,
        prepared: object = None,
    ) -> Engine:
        recipes = prepared if isinstance(prepared, dict) else {}

        def engine(number: int) -> Engine:
            recipe = recipes.get(number) or _recipe(number, model, source, target, options, Watch())
            device = PycudaDevice(number)
            try:
                with device.current():
                    program = recipe()
            except BaseException:
                device.close()
                raise
            return CudaEngine(device, program, source, target)

        return open_each(card_numbers(options.device), engine)


def _recipe(
    number: int, model: Model, source: FrameLayout, target: FrameLayout, options: EngineOptions, watch: Watch
) -> Recipe:
    from vidsr.backends.trt.make import make_recipe

    device = PycudaDevice(number)
    try:
        with device.current():
            return make_recipe(model, source, target, options, device, watch)
    finally:
        device.close()


class _Card:
    """What a card is and has free now."""

    def __init__(self, number: int) -> None:
        device = PycudaDevice(number)
        try:
            with device.current():
                self.name, self.capability, self.free_bytes = device.name, device.capability, device.free_bytes()
        finally:
            device.close()


def _cards(device: str) -> list[_Card]:
    return [_Card(number) for number in card_numbers(device)]


def _too_old() -> str | None:
    """Why the installed TensorRT cannot be used. Its version is read without loading it, which takes a second."""
    try:
        found = version("tensorrt")
    except PackageNotFoundError:  # not from a wheel; then the build says what is missing
        return None
    numbers = re.match(r"(\d+)\.(\d+)", str(found))
    if numbers and (int(numbers[1]), int(numbers[2])) < _OLDEST:
        return f"TensorRT {found} is older than 10.8 (pip install --upgrade tensorrt)"
    return None


def _too_new() -> str | None:
    """Why the driver cannot run the installed TensorRT: its wheels are made for one major version of CUDA."""
    driver = driver_version()
    for major in (12, 13, 14):
        try:
            version(f"tensorrt-cu{major}")
        except PackageNotFoundError:
            continue
        if driver is not None and driver[0] < major:
            have = ".".join(map(str, driver))
            return (
                f"TensorRT is made for CUDA {major} and the driver has {have}: update it, or pip install tensorrt-cu12"
            )
    return None


BACKEND = TensorRtBackend()
