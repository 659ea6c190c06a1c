"""Steps 10 and 13: TensorRT."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack, closing
from importlib import import_module
from pathlib import Path
from threading import Event
from typing import Any

from benchmarks.gpu_check.frames import fill, frames_per_second, pictures, subject
from benchmarks.gpu_check.step import Failed, Say, Skipped, devices, need, opened, require, seconds

SMALLEST_PSNR = 55.0
"""dB between planes in FP16 and in FP32."""


def _driver(say: Say) -> Any:
    """Makes the device that TensorRT is used with: pycuda's, or torch's where that is all there is."""
    found = devices(say)
    return found.get("pycuda") or found["torch"]


def runtime(say: Say, few: bool) -> None:
    """Plans that are none: refused with a reason and without a crash."""
    need("tensorrt", "numpy", "onnx")
    with opened(_driver(say)):
        from vidsr.backends.trt.run import PlanError, TensorRtProgram

        say({"tensorrt": import_module("tensorrt").__version__, "doing": "building a small plan"})
        plan = _small_plan(say)
        candidates = {"garbage": bytes(range(256)) * 64, "short": b"\0" * 8}
        if plan is not None:
            middle = len(plan) // 2
            candidates |= {
                "half": plan[:middle],
                "without_last_byte": plan[:-1],
                "changed_header": bytes([plan[0] ^ 255]) + plan[1:],
            }
        accepted = []
        for name, data in candidates.items():
            say({"doing": f"reading a plan that is {name}"})
            try:
                TensorRtProgram(data, [], [], planes="bytes", description="").close()
                accepted.append(name)
            except PlanError as error:
                say({name: str(error)})
        require(not accepted, f"TensorRT took what is no plan: {', '.join(accepted)}")


def _small_plan(say: Say) -> bytes | None:
    """Of a model that does next to nothing; None with a runtime that cannot build."""
    onnx = import_module("onnx")
    trt = import_module("tensorrt")
    if not hasattr(trt, "Builder"):
        say({"builder": False})
        return None
    from vidsr.backends.trt.build import BuildSpec, build

    sides = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 8, 8]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "small", sides[:1], sides[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    spec = BuildSpec(graph=model.SerializeToString(), profile={}, level=0, workspace_bytes=2**28, timing=b"")
    plan = build(spec, on_progress=lambda done: None, stop=Event(), keep_timing=lambda timing: None)
    say({"builder": True, "small_plan_bytes": len(plan)})
    return plan


def tensorrt(say: Say, few: bool) -> None:
    """Parse, build, run, compare, capture, keep; frames a second at 720p and 1080p."""
    need("tensorrt", "pycuda", "av", "numpy", "onnx")
    from vidsr.backends.cuda import pycuda_device

    if lack := pycuda_device.lack():
        raise Skipped(lack)
    say({"tensorrt": import_module("tensorrt").__version__})
    faults = []
    for planes in ("bytes", "half"):
        say({"doing": f"building with {planes} planes"})
        try:
            _compare(say, planes)
        except Exception as error:  # one kind of border may fail: the other is its replacement
            faults.append(f"{planes} planes: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
            say({f"{planes}_fault": faults[-1]})
    with tempfile.TemporaryDirectory(prefix="vidsr-") as folder:
        for height, width in ((720, 1280), (1080, 1920)):
            _timed(say, Path(folder), height, width)
    if faults:
        raise Failed("; ".join(faults))


def _compare(say: Say, planes: Any) -> None:
    """One kind of border, at 256x144: types, difference from FP32, capture."""
    from vidsr.backends.cuda.pycuda_device import PycudaDevice
    from vidsr.backends.cuda.slots import CudaEngine, border_tensors
    from vidsr.backends.trt.build import BuildSpec, build
    from vidsr.backends.trt.run import TensorRtProgram
    from vidsr.graph import compose
    from vidsr.half import half

    model, source, target, colours = subject(144, 256)
    graph = compose(half(model.proto), source, target, planes=planes).SerializeToString()
    spec = BuildSpec(graph=graph, profile={}, level=3, workspace_bytes=2**30, timing=b"")
    device = PycudaDevice(0)
    figures: dict[str, Any] = {}
    with device.current():
        made: list[bytes] = []
        figures["build_seconds"] = round(
            seconds(
                lambda: made.append(
                    build(spec, on_progress=lambda done: None, stop=Event(), keep_timing=lambda timing: None)
                )
            ),
            1,
        )
        borders = border_tensors(source, target, planes)
        program = TensorRtProgram(made[0], *borders, planes=planes, description="TensorRT")
        figures |= {"plan_bytes": len(made[0]), "half_tensors": _half_share(program)}
    with closing(CudaEngine(device, program, source, target)) as engine:
        (slot,) = engine.slots(1)
        figures["captured"] = getattr(slot.handle, "_graph", None) is not None
        (given,) = pictures(source, 1)
        fill(slot, given, colours)
        engine.submit(slot)
        engine.wait(slot)
        figures |= _against_exact(model, source, target, given, colours, slot.output)
    say({planes: figures})
    require(figures["psnr_db"] >= SMALLEST_PSNR, f"{figures['psnr_db']} dB from FP32")


def _half_share(program: Any) -> float | None:
    """Share of the plan's layer outputs that are FP16, by TensorRT's own account: 0 means that it runs in FP32."""
    trt = import_module("tensorrt")
    text = program.engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    layers = [layer for layer in json.loads(text).get("Layers", []) if isinstance(layer, dict)]
    outputs = [str(output) for layer in layers for output in layer.get("Outputs", [])]
    return round(sum("Half" in output or "FP16" in output for output in outputs) / len(outputs), 2) if outputs else None


def _against_exact(model: Any, source: Any, target: Any, given: Any, colours: Any, made: Any) -> dict[str, Any]:
    """PSNR and largest difference from FP32: torch on the processor, or onnx's own evaluator without it."""
    numpy = import_module("numpy")
    try:
        need("torch")
    except Skipped:
        from onnx.reference import ReferenceEvaluator

        from vidsr.graph import CODES_FROM_RGB, RGB_FROM_CODES, compose, plane_names

        feed = dict(zip(plane_names("in", source), given, strict=True))
        feed |= {RGB_FROM_CODES: colours.rgb_from_codes, CODES_FROM_RGB: colours.codes_from_rgb}
        exact: Any = ReferenceEvaluator(compose(model.proto, source, target)).run(None, feed)
        reference = "onnx"
    else:
        from vidsr.backends.torch_engine import TorchEngine

        with closing(TorchEngine(model, source, target, "cpu")) as engine:
            (slot,) = engine.slots(1)
            fill(slot, given, colours)
            engine.submit(slot)
            engine.wait(slot)
            exact, reference = slot.output, "torch"
    off = numpy.concatenate(
        [(one.astype(numpy.float64) - two).ravel() for one, two in zip(made, exact, strict=True)]
    )
    psnr = 10 * numpy.log10(255**2 / max(float((off**2).mean()), 1e-10))
    return {"psnr_db": round(float(psnr), 2), "largest": int(numpy.abs(off).max()), "reference": reference}


def _timed(say: Say, cache: Path, height: int, width: int) -> None:
    """`vidsr build` twice, the second time from the cache; then frames a second by number of slots."""
    size = f"{width}x{height}"
    command = [sys.executable, "-m", "vidsr", "build", "--size", size, "--backend", "tensorrt", "--json"]
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    built = []
    for time in ("first", "second"):
        say({"doing": f"running vidsr build for {size} the {time} time"})
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        require(done.returncode == 0, f"vidsr build: {(done.stderr.strip().splitlines() or ['no output'])[-1][:300]}")
        built.append(json.loads(done.stdout.splitlines()[-1]))
    figures: dict[str, Any] = {
        "build_seconds": round(built[0]["seconds"], 1),
        "from_cache_seconds": round(built[1]["seconds"], 2),
        "one_frame_ms": round(1000 * built[1]["frame_seconds"], 2),
    }
    say({size: figures, "doing": f"running frames of {size}"})
    from vidsr import backends
    from vidsr.backends import EngineOptions

    model, source, target, colours = subject(height, width)
    backend = backends.load("tensorrt")
    options = backend.settle(EngineOptions(cache=cache / "vidsr"))
    with ExitStack() as undo:
        engine = undo.enter_context(closing(backend.open(model, source, target, options)))
        figures["engine"] = engine.description
        several = engine.slots(4)
        for slot, planes in zip(several, pictures(source, len(several)), strict=True):
            fill(slot, planes, colours)
        figures["frames_per_second"] = {
            count: frames_per_second(engine, several[:count], 100) for count in range(1, len(several) + 1)
        }
    say({size: figures})
    require(
        figures["from_cache_seconds"] < max(5.0, figures["build_seconds"] / 2),
        f"{size}: the plan was not kept: {figures['from_cache_seconds']} s the second time",
    )
