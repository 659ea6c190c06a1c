"""OpenVINO: Intel and AMD processors, Intel graphics and NPUs. The default without an NVIDIA card."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from vidsr.backends.base import Engine, EngineOptions, Part, PlainBackend, Precision, Slot
from vidsr.backends.library import trouble
from vidsr.errors import BackendError
from vidsr.frame import FrameLayout
from vidsr.graph import CODES_FROM_RGB, HEAD, RGB_FROM_CODES, TAIL, ModelProto, compose, plane_names
from vidsr.models import Model
from vidsr.quantise import written

__all__ = ["BACKEND", "open_raw"]

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


def _openvino() -> Any:
    """The library, without its telemetry: it would send usage data when imported, which nobody here asked for."""
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


class OpenVinoEngine:
    """One inference request a slot, `options.streams` of them at once, each on its share of the cores."""

    def __init__(self, model: Model, source: FrameLayout, target: FrameLayout, options: EngineOptions) -> None:
        self.source, self.target = source, target
        self.in_flight = options.streams + 1
        self.description = f"OpenVINO {options.device}, {options.precision.upper()}"
        try:
            self._compiled = _compiled(_composed(model, source, target, options), options)
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot run {model.name} on {options.device}: {_reason(error)}") from error
        self._slots: list[Slot] = []

    def slots(self, count: int) -> Sequence[Slot]:
        tensor = _openvino().Tensor
        made = []
        for _ in range(count):
            slot = Slot.allocate(self.source, self.target)
            request = self._compiled.create_infer_request()
            named = [*zip(plane_names("in", self.source), slot.input, strict=True)]
            named += [*zip(plane_names("out", self.target), slot.output, strict=True)]
            named += [(RGB_FROM_CODES, slot.rgb_from_codes), (CODES_FROM_RGB, slot.codes_from_rgb)]
            for name, array in named:
                request.set_tensor(name, tensor(array, shared_memory=True))
            slot.handle = request
            made.append(slot)
        self._slots += made
        return made

    def submit(self, slot: Slot) -> None:
        slot.handle.start_async()

    def wait(self, slot: Slot) -> None:
        slot.handle.wait()

    def close(self) -> None:
        for slot in self._slots:
            slot.handle = None
        self._slots.clear()
        self._compiled = None


class OpenVinoPart:
    """One inference request of a part. names: of its inputs and outputs; OpenVINO may have others for them as well."""

    def __init__(self, request: Any, names: frozenset[str]) -> None:
        self._request = request
        self.given = {_name(port, names): request.get_tensor(port).data for port in request.model_inputs}
        self.made = {_name(port, names): request.get_tensor(port).data for port in request.model_outputs}

    def submit(self) -> None:
        try:
            self._request.start_async()
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot run a part of the model: {_reason(error)}") from error

    def wait(self) -> None:
        try:
            self._request.wait()
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot run a part of the model: {_reason(error)}") from error


class OpenVinoBackend(PlainBackend):
    name = "openvino"
    memory_overhead = 1.1

    def lack(self, device: str = "auto") -> str | None:
        if find_spec("openvino") is None:
            return "OpenVINO is not installed (pip install openvino)"
        return trouble("OpenVINO", "openvino", _openvino)

    def settle(self, options: EngineOptions) -> EngineOptions:
        core = _openvino().Core()
        device = "CPU" if options.device == "auto" else options.device.upper()
        known = core.available_devices
        # "AUTO:GPU,CPU" and the like choose among devices; "GPU.1" is one of several.
        combined = device.split(":")[0] in ("AUTO", "HETERO", "MULTI")
        if not combined and device.split(".")[0] not in {name.split(".")[0] for name in known}:
            raise BackendError(f"--device {options.device}: OpenVINO finds only {', '.join(known)} here")
        try:
            abilities = ["FP32"] if combined else core.get_property(device, "OPTIMIZATION_CAPABILITIES")
        except RuntimeError as error:  # "CPU.7" and the like
            raise BackendError(f"--device {options.device}: OpenVINO cannot use it ({_reason(error)})") from error
        precision = _precision(options.precision, device, abilities)
        return replace(options, device=device, precision=precision, streams=options.streams or _streams(device))

    def open(
        self,
        model: Model,
        source: FrameLayout,
        target: FrameLayout,
        options: EngineOptions,
        prepared: object = None,
    ) -> Engine:
        return OpenVinoEngine(model, source, target, options)

    def graph(
        self, model: Model, source: FrameLayout, target: FrameLayout, options: EngineOptions
    ) -> ModelProto | None:
        return _composed(model, source, target, options) if options.device == "CPU" else None

    def open_part(self, proto: ModelProto, exact: Set[str], options: EngineOptions, count: int) -> Sequence[Part]:
        try:
            names = frozenset(value.name for value in (*proto.graph.input, *proto.graph.output))
            compiled = _compiled(proto, options, exact)
            return [OpenVinoPart(compiled.create_infer_request(), names) for _ in range(count)]
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot run a part of the model: {_reason(error)}") from error


def open_raw(model: Model) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The bare model on the processor in FP32, without guard, colours, or anything clipped.

    What is given takes float32 [N, 3, H, W] to float32 [N, 3, scale*H, scale*W]; sizes are multiples of
    `model.multiple`. Both raise BackendError where OpenVINO cannot run the model.
    """
    openvino = _openvino()
    try:
        core = openvino.Core()
        graph = core.read_model(model.proto.SerializeToString())
        compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        raise BackendError(f"OpenVINO cannot run {model.name}: {_reason(error)}") from error

    def run(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        wanted = np.float16 if "f16" in compiled.input(0).element_type.get_type_name() else np.float32
        try:
            result: NDArray[Any] = compiled(pictures.astype(wanted))[0]
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot run {model.name}: {_reason(error)}") from error
        return result.astype(np.float32)

    return run


def _composed(model: Model, source: FrameLayout, target: FrameLayout, options: EngineOptions) -> ModelProto:
    lowered = written(model, options.precision)
    return compose(lowered, source, target, multiple=model.multiple, guard=model.guarded)


def _compiled(proto: ModelProto, options: EngineOptions, exact: Set[str] | None = None) -> Any:
    """A compiled graph. exact: of a part, see `OpenVinoBackend.open_part`. Raises RuntimeError."""
    openvino = _openvino()
    core = openvino.Core()
    hint = _hint(core, options.device, options.precision)
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    if options.streams > 1:
        settings["NUM_STREAMS"] = str(options.streams)
    if options.cache is not None:
        settings["CACHE_DIR"] = str(options.cache / "openvino")
    graph = core.read_model(proto.SerializeToString())
    if hint != "f32":
        graph = _keep_colour_exact(core, graph)
    if exact is not None:
        # Streams of several compiled graphs would be pinned to the same cores.
        settings["ENABLE_CPU_PINNING"] = False
        graph = _passing(graph, hint, exact)
    try:
        return core.compile_model(graph, options.device, settings)
    except RuntimeError:
        # The cache is a convenience: a full or read-only disk must not keep the model from running.
        if settings.pop("CACHE_DIR", None) is None:
            raise
        return core.compile_model(graph, options.device, settings)


def _name(port: Any, names: frozenset[str]) -> str:
    (name,) = names.intersection(port.names)
    return name


def _passing(graph: Any, hint: str, exact: Set[str]) -> Any:
    """The graph of a part that takes and gives what is not `exact` as its convolutions store it."""
    openvino = _openvino()
    if hint == "f32":
        return graph
    border = openvino.preprocess.PrePostProcessor(graph)
    lowered = getattr(openvino.Type, hint)
    ports = [*zip(graph.inputs, map(border.input, range(len(graph.inputs))), strict=True)]
    ports += zip(graph.outputs, map(border.output, range(len(graph.outputs))), strict=True)
    for port, processed in ports:
        if exact.isdisjoint(port.names) and port.element_type == openvino.Type.f32:
            processed.tensor().set_element_type(lowered)
    return border.build()


def _hint(core: Any, device: str, precision: Precision) -> str:
    """What is not INT8 is the fastest that the device has. Without BF16 instructions that hint is emulated."""
    if precision == "int8":
        precision = "bf16" if "BF16" in core.get_property(device, "OPTIMIZATION_CAPABILITIES") else "fp32"
    return _HINTS[precision]


def _streams(device: str) -> int:
    """Two frames at once, each on half of the cores, wait less for each other's threads, and for those of an encoder
    beside them, than one on all."""
    return min(2, len(os.sched_getaffinity(0))) if device == "CPU" else 1


def _precision(wanted: Precision, device: str, abilities: Sequence[str]) -> Precision:
    """The fastest that the device has, or the wanted one if it has that."""
    if wanted == "auto":
        # Without BF16 instructions the hint is emulated: 3.2 times slower than FP32 for SPAN-48.
        if device == "CPU":
            return "bf16" if "BF16" in abilities else "fp32"
        return "fp16" if "FP16" in abilities else "fp32"
    known = {"FP32", "BF16", "FP16"} | ({"INT8"} if device == "CPU" else set())
    has = sorted({"FP32", *abilities} & known)
    if wanted.upper() not in has:
        raise BackendError(
            f"--precision {wanted}: {device} does not have it (it has {', '.join(has)}); leave it at auto"
        )
    return wanted


def _reason(error: RuntimeError) -> str:
    """OpenVINO's messages are stacks of source positions; the last line says what happened."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "unknown error")[:300]


def _keep_colour_exact(core: Any, graph: Any) -> Any:
    """Marks head and tail so that a lower precision leaves them in FP32.

    The mark (`DisablePrecisionConversion`) has no Python setter; it is written into the serialised graph.
    """
    openvino = _openvino()
    with tempfile.TemporaryDirectory(prefix="vidsr-") as folder:
        xml, weights = Path(folder, "graph.xml"), Path(folder, "graph.bin")
        openvino.serialize(graph, xml, weights)
        tree = ElementTree.parse(xml)
        for layer in tree.iter("layer"):
            if not layer.get("name", "").startswith((HEAD, TAIL)) or layer.get("type") == "Const":
                continue
            info = layer.find("rt_info")
            if info is None:
                info = ElementTree.SubElement(layer, "rt_info")
            ElementTree.SubElement(
                info, "attribute", name="DisablePrecisionConversion", version="0", value="dynamic:f16,bf16"
            )
        return core.read_model(ElementTree.tostring(tree.getroot()), weights.read_bytes())


BACKEND = OpenVinoBackend()
