"""ONNX Runtime: its CPU provider, and CUDA, DirectML or CoreML where the installed build has them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np

from vidsr.backends.base import Engine, EngineOptions, PlainBackend, Slot
from vidsr.backends.library import trouble
from vidsr.errors import BackendError
from vidsr.frame import FrameLayout
from vidsr.graph import CODES_FROM_RGB, RGB_FROM_CODES, compose, plane_names
from vidsr.models import Model
from vidsr.quantise import written

__all__ = ["BACKEND", "load_library"]

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}


def load_library() -> Any:
    """ONNX Runtime, without its telemetry: it would send usage data from its first import on, and keep a database."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


class OnnxRuntimeEngine:
    """Runs inside `wait`: the session has its own thread pool and nothing to gain from a second frame."""

    def __init__(self, model: Model, source: FrameLayout, target: FrameLayout, options: EngineOptions) -> None:
        onnxruntime = load_library()
        provider, precision = options.device, options.precision
        self.in_flight = 2
        self.source, self.target, self._name = source, target, model.name
        self.description = f"ONNX Runtime {provider.removesuffix('ExecutionProvider')}, {precision.upper()}"
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        # Provider libraries raise exceptions of many unrelated classes; each means that it cannot run the graph.
        try:
            self._session = onnxruntime.InferenceSession(
                compose(
                    written(model, precision), source, target, multiple=model.multiple, guard=model.guarded
                ).SerializeToString(),
                settings,
                providers=[provider],
            )
        except Exception as error:
            raise BackendError(f"ONNX Runtime cannot run {model.name}: {str(error).strip().splitlines()[0]}") from error
        if provider not in self._session.get_providers():
            raise BackendError(f"ONNX Runtime could not start {provider}; its driver or libraries are missing")

    def slots(self, count: int) -> Sequence[Slot]:
        return [Slot.allocate(self.source, self.target) for _ in range(count)]

    def submit(self, slot: Slot) -> None:
        feed: dict[str, np.ndarray] = dict(zip(plane_names("in", self.source), slot.input, strict=True))
        feed[RGB_FROM_CODES], feed[CODES_FROM_RGB] = slot.rgb_from_codes, slot.codes_from_rgb
        slot.handle = feed

    def wait(self, slot: Slot) -> None:
        # It checks shapes only here, and raises exceptions of many unrelated classes.
        try:
            results = self._session.run(None, slot.handle)
        except Exception as error:
            size = f"{self.source.width}x{self.source.height}"
            reason = str(error).strip().splitlines()[0]
            raise BackendError(f"ONNX Runtime cannot run {self._name} on {size} frames: {reason}") from error
        for plane, result in zip(slot.output, results, strict=True):
            np.copyto(plane, result)

    def close(self) -> None:
        self._session = None


class OnnxRuntimeBackend(PlainBackend):
    name = "onnxruntime"
    memory_overhead = 2.8
    fuses_attention = False

    def lack(self, device: str = "auto") -> str | None:
        if find_spec("onnxruntime") is None:
            return "ONNX Runtime is not installed (pip install onnxruntime)"
        # What half an installation leaves is an empty package, which can be imported.
        return trouble("ONNX Runtime", "onnxruntime", lambda: load_library().InferenceSession)

    def settle(self, options: EngineOptions) -> EngineOptions:
        if options.precision not in ("auto", "fp32", "int8"):
            raise BackendError(f"--precision {options.precision}: onnxruntime runs fp32 and int8; leave it at auto")
        name = "cpu" if options.device == "auto" else options.device
        provider = _PROVIDERS.get(name.lower(), name)
        available = load_library().get_available_providers()
        if provider not in available:
            known = {value: key for key, value in _PROVIDERS.items()}
            names = ", ".join(known.get(entry, entry) for entry in available)
            raise BackendError(f"--device {options.device}: this ONNX Runtime has only {names}")
        if options.precision == "int8" and provider != _PROVIDERS["cpu"]:
            raise BackendError(f"--precision int8: onnxruntime runs it on cpu only, not {options.device}")
        return replace(options, device=provider, precision="int8" if options.precision == "int8" else "fp32", streams=1)

    def open(
        self,
        model: Model,
        source: FrameLayout,
        target: FrameLayout,
        options: EngineOptions,
        prepared: object = None,
    ) -> Engine:
        return OnnxRuntimeEngine(model, source, target, options)


BACKEND = OnnxRuntimeBackend()
