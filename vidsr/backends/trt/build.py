"""From an ONNX graph to a plan. Types are the graph's: the network is strongly typed, and no precision flag is set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Lock

import tensorrt as trt

from vidsr.backends.trt.log import log
from vidsr.errors import BackendError, Cancelled

__all__ = ["BuildSpec", "Profile", "build"]

Profile = dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
"""(smallest, largest) shape of every input with free dimensions, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSpec:
    """level: TensorRT's optimisation level, 0 to 5. timing: of earlier builds, checked, or empty."""

    graph: bytes
    profile: Profile
    level: int
    workspace_bytes: int
    timing: bytes


def build(
    spec: BuildSpec, *, on_progress: Callable[[float], None], stop: Event, keep_timing: Callable[[bytes], None]
) -> bytes:
    """The plan for the device whose context is current. Takes minutes.

    keep_timing: gets TensorRT's measurements, also of a build that failed. Raises BackendError with TensorRT's reason,
    Cancelled when `stop` was set.
    """
    log().clear()
    try:
        builder = trt.Builder(log())
    except TypeError as error:  # what the bindings raise when the library gives nothing back
        raise BackendError(f"TensorRT cannot make a builder here ({log().reason()})") from error
    network = parser = config = cache = plan = None
    try:
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log())
        if not parser.parse(spec.graph):
            first = parser.get_error(0).desc() if parser.num_errors else log().reason()
            raise BackendError(f"TensorRT does not take the graph: {' '.join(first.split())[:300]}")
        config = builder.create_builder_config()
        _configure(config, spec, on_progress, stop)
        if spec.profile:
            _add_profile(builder, config, spec.profile)
        plan = builder.build_serialized_network(network, config)
        cache = config.get_timing_cache()
        if cache is not None:
            keep_timing(bytes(memoryview(cache.serialize())))
        if plan is None and stop.is_set():
            raise Cancelled("stopped while the TensorRT plan was built")
        if plan is None:
            raise BackendError(f"TensorRT could not build the plan: {log().reason()}")
        return bytes(memoryview(plan))
    finally:
        # An exception keeps this frame alive, and they have to go while the device is current, children first.
        del plan, cache, config, parser, network, builder


def _configure(config: trt.IBuilderConfig, spec: BuildSpec, on_progress: Callable[[float], None], stop: Event) -> None:
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, spec.workspace_bytes)
    config.builder_optimization_level = spec.level
    config.max_aux_streams = 0  # the network is a chain, and one stream is simple to capture
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # On by default, it would round the FP32 colour maths to 10 bits of mantissa.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.progress_monitor = _Progress(on_progress, stop)
    if not config.set_timing_cache(config.create_timing_cache(spec.timing), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _add_profile(builder: trt.Builder, config: trt.IBuilderConfig, shapes: Profile) -> None:
    try:
        profile = builder.create_optimization_profile()
        for name, (smallest, largest) in shapes.items():
            profile.set_shape(name, smallest, largest, largest)  # made fastest for the largest
        if config.add_optimization_profile(profile) < 0:
            raise BackendError(f"TensorRT does not take these sizes: {log().reason()}")
    finally:
        del builder, config  # as in `build`


class _Progress(trt.IProgressMonitor):  # type: ignore[misc]
    """Adds TensorRT's nested phases up to one share, which never falls; TensorRT calls it from threads of its own."""

    def __init__(self, on_progress: Callable[[float], None], stop: Event) -> None:
        trt.IProgressMonitor.__init__(self)
        self._on_progress, self._stop = on_progress, stop
        self._phases: dict[str, _Phase] = {}
        self._reached = 0.0
        self._lock = Lock()

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        with self._lock:
            self._phases[phase_name] = _Phase(parent_phase, max(num_steps, 1))

    def step_complete(self, phase_name: str, step: int) -> bool:
        """False gives the build up."""
        with self._lock:
            if phase_name in self._phases:
                self._phases[phase_name].done = step + 1
            self._tell()
        return not self._stop.is_set()

    def phase_finish(self, phase_name: str) -> None:
        with self._lock:
            self._phases.pop(phase_name, None)

    def _tell(self) -> None:
        phases = list(self._phases.items())
        top = next((name for name, phase in phases if phase.parent not in self._phases), None)
        self._reached = max(self._reached, min(1.0, self._share(top, phases)) if top else 0.0)
        self._on_progress(self._reached)

    def _share(self, name: str, phases: list[tuple[str, _Phase]]) -> float:
        phase = self._phases[name]
        inner = next((child for child, other in phases if other.parent == name), None)
        return (phase.done + (self._share(inner, phases) if inner else 0.0)) / phase.steps


@dataclass(slots=True)
class _Phase:
    parent: str | None
    steps: int
    done: int = 0
