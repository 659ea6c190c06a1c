"""TensorRT on a CPU, stricter than TensorRT: it refuses whatever TensorRT does not promise to bear.

It behaves as the bindings do (`bindings.py`), runs a plan's ONNX with onnxruntime on the CUDA stand-in, late, as a
card would, and keeps a list of what would have been undefined behaviour. What it cannot show is whether TensorRT
takes a graph, how fast it is and what its kernels round.

    fake = install(monkeypatch, standin.load())
    ...                                         # import and use what imports tensorrt
    fake.check()                                # fails after a misuse that nobody noticed
"""

from __future__ import annotations

import pkgutil
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from tests.cuda.fake_tensorrt import bindings, build, context, network, runtime
from tests.cuda.fake_tensorrt.card import StandInCard
from tests.cuda.fake_tensorrt.world import Aborted, Build, Card, Faults, Record, World
from tests.cuda.standin import Standin

__all__ = ["VERSION", "Aborted", "Build", "Card", "Faults", "Record", "World", "install", "module"]

VERSION = "10.16.1.11"
CLASSES = (
    bindings.Dims, bindings.IHostMemory, bindings.ILogger, bindings.IProgressMonitor,
    build.BuilderFlag, build.HardwareCompatibilityLevel, build.IBuilderConfig, build.ITimingCache,
    build.MemoryPoolType, build.ProfilingVerbosity, context.IExecutionContext,
    network.DataType, network.INetworkDefinition, network.IOptimizationProfile, network.ITensor, network.OnnxParser,
    network.ParserError, runtime.EngineInspector, runtime.ICudaEngine, runtime.LayerInformationFormat,
    runtime.TensorIOMode,
)  # fmt: skip


def module(world: World) -> ModuleType:
    """The fake as a module."""
    made = ModuleType("tensorrt")
    made.__version__, made.__spec__ = world.version, ModuleSpec("tensorrt", None)
    for kind in CLASSES:
        setattr(made, kind.__name__, kind)
    for kind in (build.Builder, runtime.Runtime):
        setattr(made, kind.__name__, type(kind)(kind.__name__, (kind,), {"__slots__": (), "_world": world}))
    made.NetworkDefinitionCreationFlag = bindings.enum(
        "NetworkDefinitionCreationFlag", ordered=True, **build._creation_flags(world)
    )
    return made


def install(monkeypatch: pytest.MonkeyPatch, standin: Standin, *, version: str = VERSION) -> World:
    """Makes `import tensorrt` give the fake, on the card of `standin`, until `monkeypatch` is undone.

    What has imported tensorrt at its top is forgotten, before and after.
    """
    world = World(StandInCard(standin), version)
    monkeypatch.setitem(sys.modules, "tensorrt", module(world))
    for name in _importers():
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
        del sys.modules[name]
    return world


def _importers() -> list[str]:
    """Our modules that are made for one `tensorrt`."""
    package = Path(__file__).resolve().parents[3] / "vidsr" / "backends" / "trt"
    inside = [f"vidsr.backends.trt.{found.name}" for found in pkgutil.iter_modules([str(package)])]
    return ["vidsr.backends.trt", *inside, "vidsr.backends.tensorrt_engine"]
