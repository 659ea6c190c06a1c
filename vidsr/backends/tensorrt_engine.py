"""TensorRT on NVIDIA cards, in FP16."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from vidsr.backends.base import Engine, EngineOptions, Precision, Watch
from vidsr.backends.cuda import pycuda_device
from vidsr.backends.cuda.slots import CudaEngine
from vidsr.backends.dealt import DealtEngine
from vidsr.errors import BackendError
from vidsr.frame import FrameLayout
from vidsr.models import Model

__all__ = ["BACKEND", "cards"]

_OLDEST = (10, 8)


def cards(device: str, count: int) -> tuple[int, ...]:
    """The numbers in "cuda", "cuda:1" or "cuda:0,1", of `count` cards. Raises BackendError."""
    match = re.fullmatch(r"cuda(?::(\d+(?:,\d+)*))?", device.lower())
    if match is None:
        raise BackendError(f"--device {device}: write cuda, cuda:1 or cuda:0,1 for NVIDIA cards")
    numbers = tuple(dict.fromkeys(int(number) for number in (match[1] or "0").split(",")))
    absent = [number for number in numbers if number >= count]
    if absent:
        raise BackendError(
            f"--device {device}: there is no card {absent[0]}; this machine has {count}, numbered from 0"
        )
    return numbers


class TensorRtBackend:
    name = "tensorrt"
    memory_overhead = 1.1

    def lack(self, device: str = "auto") -> str | None:
        if find_spec("tensorrt") is None:
            return "TensorRT is not installed (pip install tensorrt pycuda)"
        return _too_old() or pycuda_device.lack()

    def settle(self, options: EngineOptions) -> EngineOptions:
        numbers = cards("cuda" if options.device == "auto" else options.device, pycuda_device.count())
        known: tuple[Precision, ...] = ("fp16", "fp32")
        precision = "fp16" if options.precision == "auto" else options.precision
        if precision not in known:
            raise BackendError(f"--precision {precision}: tensorrt runs fp16 and fp32; leave it at auto")
        return replace(options, device=f"cuda:{','.join(map(str, numbers))}", precision=precision)

    def memory(self, options: EngineOptions) -> int | None:
        return min(_free_bytes(number) for number in _numbers(options))

    def prepare(
        self, model: Model, source: FrameLayout, target: FrameLayout, options: EngineOptions, watch: Watch
    ) -> None:
        from vidsr.backends.trt.make import make_program

        for number in _numbers(options):
            device = pycuda_device.PycudaDevice(number)
            try:
                with device.current():
                    make_program(model, source, target, options, device, watch).close()
            finally:
                device.close()

    def open(self, model: Model, source: FrameLayout, target: FrameLayout, options: EngineOptions) -> Engine:
        numbers = _numbers(options)
        if len(numbers) == 1:
            return _engine(numbers[0], model, source, target, options)
        with ExitStack() as undo:
            engines = []
            for number in numbers:
                engines.append(_engine(number, model, source, target, options))
                undo.callback(engines[-1].close)
            dealt = DealtEngine(engines)
            undo.pop_all()
        return dealt


def _engine(number: int, model: Model, source: FrameLayout, target: FrameLayout, options: EngineOptions) -> CudaEngine:
    from vidsr.backends.trt.make import make_program

    device = pycuda_device.PycudaDevice(number)
    try:
        with device.current():
            program = make_program(model, source, target, options, device, Watch())
    except BaseException:
        device.close()
        raise
    return CudaEngine(device, program, source, target)


def _numbers(options: EngineOptions) -> tuple[int, ...]:
    """Of settled options."""
    return tuple(int(number) for number in options.device.partition(":")[2].split(","))


def _free_bytes(number: int) -> int:
    device = pycuda_device.PycudaDevice(number)
    try:
        with device.current():
            return device.free_bytes()
    finally:
        device.close()


def _too_old() -> str | None:
    """Why the installed TensorRT cannot be used. Its version is read without loading it, which takes a second."""
    try:
        found = version("tensorrt")
    except PackageNotFoundError:  # not from a wheel; then the build says what is missing
        return None
    numbers = tuple(int(part) for part in found.split(".")[:2])
    if numbers < _OLDEST:
        return f"TensorRT {found} is older than 10.8 (pip install --upgrade tensorrt)"
    return None


BACKEND = TensorRtBackend()
