"""The fake's builder: checks what it is asked for, tells a progress monitor, and wraps the ONNX as the plan."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

import onnx
from onnx import TensorProto

from tests.cuda.fake_tensorrt.bindings import (
    Bound,
    Buffer,
    Enum,
    IHostMemory,
    ILogger,
    IProgressMonitor,
    bound,
    enum,
    make,
)  # fmt: skip
from tests.cuda.fake_tensorrt.network import INetworkDefinition, IOptimizationProfile, shape_of
from tests.cuda.fake_tensorrt.plan import Plan, plan_bytes, read_timing, timing_bytes
from tests.cuda.fake_tensorrt.progress import play
from tests.cuda.fake_tensorrt.world import Allocation, Build, World

BuilderFlag = enum("BuilderFlag", ordered=True, TF32=6)
MemoryPoolType = enum("MemoryPoolType", WORKSPACE=0)
ProfilingVerbosity = enum("ProfilingVerbosity", LAYER_NAMES_ONLY=0, NONE=1, DETAILED=2)
HardwareCompatibilityLevel = enum("HardwareCompatibilityLevel", NONE=0, AMPERE_PLUS=1, SAME_COMPUTE_CAPABILITY=2)
BUILDER_BYTES = 2**20
"""What a builder holds on the card."""


class ITimingCache(metaclass=Bound):
    __slots__ = ("_card", "_known", "_made", "_version")

    @bound
    def serialize(self) -> IHostMemory:
        return IHostMemory._of(timing_bytes(self._version, self._card, self._known))


class IBuilderConfig(metaclass=Bound):
    __slots__ = ("_builder", "_cache", "_flags", "_made", "_pools", "_profiles", "_values")

    @bound
    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        if pool_size < 0:
            raise TypeError("set_memory_pool_limit(): incompatible function arguments")
        self._pools[pool] = pool_size

    @bound
    def set_flag(self, flag: BuilderFlag) -> None:
        self._flags.add(flag)

    @bound
    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.discard(flag)

    @bound
    def get_flag(self, flag: BuilderFlag) -> bool:
        return flag in self._flags

    @bound
    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        if not profile:
            self._builder._error("the optimization profile is not valid")
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    @bound
    def create_timing_cache(self, serialized_timing_cache: Buffer) -> ITimingCache:
        world: World = self._builder._world
        if not serialized_timing_cache:
            return make(ITimingCache, _version=world.version, _card=self._builder._card, _known=set())
        version, card, known = read_timing(serialized_timing_cache, world)
        return make(ITimingCache, _version=version, _card=card, _known=known)

    @bound
    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        builder = self._builder
        if cache._version != builder._world.version or (cache._card != builder._card and not ignore_mismatch):
            builder._error("the timing cache was made by another TensorRT or on another card")
            return False
        self._cache = cache
        return True

    @bound
    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache

    def _get(self, name: str) -> Any:
        return self._values.get(name)

    @bound
    def _set_number(self, name: str, value: int, largest: int) -> None:
        if not 0 <= value <= largest:
            self._builder._error(f"{name} must be from 0 to {largest}, not {value}")
        else:
            self._values[name] = value

    @property
    def builder_optimization_level(self) -> int:
        return int(self._values.get("builder_optimization_level", 3))

    @builder_optimization_level.setter
    def builder_optimization_level(self, level: int) -> None:
        self._set_number("builder_optimization_level", level, 5)

    @property
    def max_aux_streams(self) -> int:
        return int(self._values.get("max_aux_streams", -1))

    @max_aux_streams.setter
    def max_aux_streams(self, count: int) -> None:
        self._set_number("max_aux_streams", count, 2**31 - 1)

    @property
    def profiling_verbosity(self) -> Enum:
        verbosity: Enum = self._values.get("profiling_verbosity", ProfilingVerbosity.__members__["LAYER_NAMES_ONLY"])
        return verbosity

    @profiling_verbosity.setter
    def profiling_verbosity(self, verbosity: Enum) -> None:
        self._values["profiling_verbosity"] = _of(verbosity, ProfilingVerbosity)

    @property
    def hardware_compatibility_level(self) -> Enum:
        level: Enum = self._values.get("compatible", HardwareCompatibilityLevel.__members__["NONE"])
        return level

    @hardware_compatibility_level.setter
    def hardware_compatibility_level(self, level: Enum) -> None:
        self._values["compatible"] = _of(level, HardwareCompatibilityLevel)

    @property
    def progress_monitor(self) -> IProgressMonitor | None:
        monitor: IProgressMonitor | None = self._values.get("monitor")
        return monitor

    @progress_monitor.setter
    def progress_monitor(self, monitor: IProgressMonitor | None) -> None:
        self._values["monitor"] = None if monitor is None else _of(monitor, IProgressMonitor)


def _of(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"(): incompatible function arguments ({value!r} is no {kind.__name__})")
    return value


class Builder(metaclass=Bound):
    """Belongs to one thread. TensorRT talks to the card from the first moment, so a context must be current."""

    __slots__ = ("__weakref__", "_card", "_logger", "_made", "_memory", "_thread")
    _constructible = True
    _world: ClassVar[World]

    @bound
    def __init__(self, logger: ILogger) -> None:
        self._logger, self._thread = logger, threading.get_ident()
        world = self._world
        world.register(logger)
        identity = world.identity()
        if identity is None or world.faults.no_builder:
            world.error(logger, "CUDA initialization failure with error: 201", "6: API Usage Error")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._card = identity[0]
        self._memory = Allocation(world, BUILDER_BYTES, "a Builder")
        if self._memory.address is None:
            world.error(logger, "out of memory", "1: OutOfMemory")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._made = True

    @bound
    def create_network(self, flags: int = 0) -> INetworkDefinition | None:
        if not self._mine("create_network"):
            return None
        known = _creation_flags(self._world)
        if flags & ~sum(1 << bit for bit in known.values()):
            self._error(f"unknown network flags {flags:#b}")
            return None
        strongly_typed = self._world.major > 10 or bool(flags & 1 << known["STRONGLY_TYPED"])
        return make(INetworkDefinition, _builder=self, _model=None, _parsed=False, _strongly_typed=strongly_typed)

    @bound
    def create_builder_config(self) -> IBuilderConfig | None:
        if not self._mine("create_builder_config"):
            return None
        fresh: dict[str, Any] = {"_pools": {}, "_profiles": [], "_values": {}, "_cache": None}
        return make(IBuilderConfig, _builder=self, _flags=set(BuilderFlag.__members__.values()), **fresh)

    @bound
    def create_optimization_profile(self) -> IOptimizationProfile:
        return make(IOptimizationProfile, _builder=self, _shapes={})

    @bound
    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        if not self._mine("build_serialized_network"):
            return None
        reason = self._objection(network, config)
        if reason is not None:
            self._error(reason)
            return None
        world, profile = self._world, config._profiles[0]._shapes if config._profiles else {}
        build = Build(
            strongly_typed=network._strongly_typed,
            tf32=config.get_flag(BuilderFlag.__members__["TF32"]),
            level=config.builder_optimization_level,
            workspace_bytes=config._pools.get(MemoryPoolType.__members__["WORKSPACE"]),
            aux_streams=config._values.get("max_aux_streams"),
            profile=profile,
        )
        world.record.builds.append(build)
        kernels = [f"{node.op_type} {node.name or node.output[0]}" for node in network._model.graph.node]
        known = config._cache._known if config._cache is not None else set()
        if not play(config.progress_monitor, kernels, known, build):
            self._error("the build was cancelled", "10: Cancelled")
            return None
        if world.faults.build_error is not None:
            self._error(world.faults.build_error, "10: Internal Error")
            return None
        model = network._model.SerializeToString()
        try:
            world.session(model)
        except Exception as error:  # onnxruntime raises classes of its own
            self._error(f"Could not find any implementation: {error}", "10: Internal Error")
            return None
        identity = world.identity()
        assert identity is not None
        plan = Plan(
            version=world.version,
            card=identity[0],
            capability=identity[1],
            compatible=config.hardware_compatibility_level.name,
            detailed=config.profiling_verbosity == ProfilingVerbosity.__members__["DETAILED"],
            tf32=build.tf32,
            profile=profile,
            model=model,
        )
        return IHostMemory._of(plan_bytes(plan))

    def _objection(self, network: INetworkDefinition, config: IBuilderConfig) -> str | None:
        """Why nothing can be built of this."""
        if network._builder is not self or config._builder is not self:
            return "network and config must come from this builder"
        if self._world.card.current() is None:
            return "no CUDA context is current"
        if not network._parsed:
            return "the network is empty, or was not parsed"
        graph = network._model.graph
        if not network._strongly_typed and _has_halves(graph):
            return "FP16 tensors in a network that is not strongly typed, without the flag for them"
        profile = config._profiles[0]._shapes if config._profiles else {}
        for value in graph.input:
            free, shapes = shape_of(value), profile.get(value.name)
            if shapes is None and -1 in free:
                return f"{value.name}: dynamic, but no optimization profile has been defined"
            for shape in shapes or ():
                if len(shape) != len(free) or any(size not in (-1, at) for size, at in zip(free, shape, strict=True)):
                    return f"{value.name}: the profile's {shape} does not fit {free}"
        strangers = set(profile) - {value.name for value in graph.input}
        return f"the profile names {min(strangers)}, which is no input" if strangers else None

    def _mine(self, what: str) -> bool:
        if threading.get_ident() == self._thread:
            return True
        self._world.violated(f"Builder.{what} was called from another thread than the builder's")
        self._error(f"{what}: the builder belongs to another thread")
        return False

    def _error(self, text: str, code: str = "3: API Usage Error") -> None:
        self._world.error(self._logger, text, code)


def _creation_flags(world: World) -> dict[str, int]:
    """NetworkDefinitionCreationFlag's members, which have moved between the versions."""
    if world.major > 10:
        return {"STRONGLY_TYPED": 0}
    return {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}


def _has_halves(graph: onnx.GraphProto) -> bool:
    types = [value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)]
    types += [tensor.data_type for tensor in graph.initializer]
    return TensorProto.FLOAT16 in types
