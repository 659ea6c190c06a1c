"""The fake TensorRT runs a graph late, and refuses everything that it is there to refuse."""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.cuda.fake_tensorrt import Aborted, World, install
from tests.cuda.standin import Standin

SHAPE = (1, 3, 4, 6)
FREE = ("n", 3, "h", "w")


def model(kind: int = TensorProto.FLOAT, *, shape: tuple[Any, ...] = SHAPE, factor: float = 2.0) -> bytes:
    """y = x * factor."""
    constant = numpy_helper.from_array(np.array(factor, helper.tensor_dtype_to_np_dtype(kind)), "factor")
    nodes = [helper.make_node("Mul", ["x", "factor"], ["y"], "mul")]
    return proto(nodes, kind, kind, shape, [constant])


def proto(nodes: list[Any], given: int, made: int, shape: tuple[Any, ...] = SHAPE, constants: Any = ()) -> bytes:
    tensors = [helper.make_tensor_value_info("x", given, shape), helper.make_tensor_value_info("y", made, shape)]
    graph = helper.make_graph(nodes, "test", tensors[:1], tensors[1:], list(constants))
    made_model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made_model.SerializeToString())


class Bench:
    """The stand-in's card and the fake, by hand."""

    def __init__(self, standin: Standin, world: World) -> None:
        self.standin, self.cuda, self.world = standin, standin.library, world
        self.trt: ModuleType = sys.modules["tensorrt"]
        self.said: list[tuple[str, str]] = []
        bench = self

        class Logger(self.trt.ILogger):  # type: ignore[misc,name-defined]
            def log(self, severity: Any, msg: str) -> None:
                bench.said.append((severity.name, msg))

        self.logger = Logger()

    def errors(self) -> str:
        return "\n".join(text for severity, text in self.said if severity == "ERROR")

    def demand(self, code: int) -> None:
        assert code == 0, f"CUDA error {code}"

    @contextmanager
    def current(self, device: int = 0) -> Iterator[None]:
        context = ctypes.c_void_p()
        self.demand(self.cuda.cuInit(0))
        self.demand(self.cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
        self.demand(self.cuda.cuCtxPushCurrent_v2(context))
        try:
            yield
        finally:
            gc.collect()
            self.demand(self.cuda.cuCtxPopCurrent_v2(None))
            self.demand(self.cuda.cuDevicePrimaryCtxRelease_v2(device))

    @contextmanager
    def stream(self) -> Iterator[int]:
        handle = ctypes.c_void_p()
        self.demand(self.cuda.cuStreamCreate(ctypes.byref(handle), 1))
        yield int(handle.value or 0)
        self.cuda.cuStreamDestroy_v2(handle)

    @contextmanager
    def memory(self, values: np.ndarray) -> Iterator[int]:
        """Device memory that holds `values`."""
        address = ctypes.c_void_p()
        self.demand(self.cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(values.nbytes)))
        ctypes.memmove(address.value, values.ctypes.data, values.nbytes)
        yield int(address.value or 0)
        self.cuda.cuMemFree_v2(address)

    def wait(self, stream: int) -> None:
        self.demand(self.cuda.cuStreamSynchronize(ctypes.c_void_p(stream)))

    def parsed(self, graph: bytes, *, strongly_typed: bool = True) -> tuple[Any, Any, Any, bool]:
        """(builder, network, parser, whether it was parsed)."""
        builder = self.trt.Builder(self.logger)
        flag = 1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(flag if strongly_typed else 0)
        parser = self.trt.OnnxParser(network, self.logger)
        return builder, network, parser, parser.parse(graph)

    def plan(self, graph: bytes, *, change: Callable[[Any, Any], None] = lambda _builder, _config: None) -> Any:
        builder, network, _, parsed = self.parsed(graph)
        assert parsed, self.errors()
        config = builder.create_builder_config()
        change(builder, config)
        memory = builder.build_serialized_network(network, config)
        return None if memory is None else bytes(memoryview(memory))

    def engine(self, graph: bytes, **options: Any) -> Any:
        return self.trt.Runtime(self.logger).deserialize_cuda_engine(self.plan(graph, **options))


@pytest.fixture(params=["10.16.1.11", "11.4.0.106"])
def bench(request: pytest.FixtureRequest, standin: Standin, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    world = install(monkeypatch, standin, version=request.param)
    made = Bench(standin, world)
    yield made
    made.world.check()


def misused(bench: Bench, text: str) -> None:
    """One misuse was seen, on purpose."""
    assert [text in violation for violation in bench.world.record.violations] == [True]
    with pytest.raises(AssertionError, match=text):
        bench.world.check()
    bench.world.record.violations.clear()


PICTURE = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


@dataclass
class Run:
    """context: set to None, it goes. result: the memory of the output."""

    context: Any
    stream: int
    result: np.ndarray

    def enqueue(self) -> bool:
        return bool(self.context.execute_async_v3(self.stream))


@contextmanager
def running(bench: Bench) -> Iterator[Run]:
    """A context that lacks nothing, on a current card."""
    with bench.current(), bench.stream() as stream, bench.memory(PICTURE) as given, bench.memory(0 * PICTURE) as made:
        view = (ctypes.c_float * PICTURE.size).from_address(made)
        run = Run(bench.engine(model()).create_execution_context(), stream, np.frombuffer(view, "f4").reshape(SHAPE))
        assert run.context.set_optimization_profile_async(0, stream)
        assert run.context.set_input_shape("x", SHAPE)
        assert run.context.set_tensor_address("x", given)
        assert run.context.set_tensor_address("y", made)
        yield run
        run.context = None


# It runs


def test_runs_late_and_right(bench: Bench) -> None:
    with running(bench) as run:
        assert run.enqueue()
        assert not run.result.any()
        bench.wait(run.stream)
        assert np.array_equal(run.result, PICTURE * 2)


def test_runs_a_half_precision_graph_with_bytes_at_its_border(bench: Bench) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["half", "factor"], ["scaled"]),
        helper.make_node("Cast", ["scaled"], ["y"], to=TensorProto.UINT8),
    ]
    factor = numpy_helper.from_array(np.array(1.5, np.float16), "factor")
    graph = proto(nodes, TensorProto.UINT8, TensorProto.UINT8, SHAPE, [factor])
    codes = np.arange(np.prod(SHAPE), dtype=np.uint8).reshape(SHAPE)
    with bench.current(), bench.stream() as stream, bench.memory(codes) as given, bench.memory(0 * codes) as made:
        engine = bench.engine(graph)
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        assert names == ["x", "y"]
        assert [engine.get_tensor_mode(name).name for name in names] == ["INPUT", "OUTPUT"]
        assert engine.get_tensor_dtype("x") == bench.trt.DataType.UINT8
        assert engine.get_tensor_shape("y") == SHAPE
        context = engine.create_execution_context()
        assert context.set_tensor_address("x", given) and context.set_tensor_address("y", made)
        assert context.execute_async_v3(stream)
        bench.wait(stream)
        assert ctypes.string_at(made, codes.nbytes) == (codes * 1.5).astype(np.uint8).tobytes()
        del context, engine


def test_a_captured_run_runs_at_every_launch(bench: Bench) -> None:
    cuda = bench.cuda
    with running(bench) as run:
        assert run.enqueue()
        bench.wait(run.stream)
        handle, graph, executable = ctypes.c_void_p(run.stream), ctypes.c_void_p(), ctypes.c_void_p()
        bench.demand(cuda.cuStreamBeginCapture_v2(handle, 1))
        assert run.enqueue()
        bench.demand(cuda.cuStreamEndCapture(handle, ctypes.byref(graph)))
        bench.demand(cuda.cuGraphInstantiateWithFlags(ctypes.byref(executable), graph, ctypes.c_ulonglong(0)))
        for _ in range(2):
            run.result[:] = 0
            bench.demand(cuda.cuGraphLaunch(executable, handle))
            assert not run.result.any()
            bench.wait(run.stream)
            assert np.array_equal(run.result, PICTURE * 2)
        cuda.cuGraphExecDestroy(executable)
        cuda.cuGraphDestroy(graph)
    assert (bench.world.record.captured, bench.world.record.executed) == (1, 3)


def with_profile(smallest: int, largest: int) -> Callable[[Any, Any], None]:
    def change(builder: Any, config: Any) -> None:
        profile = builder.create_optimization_profile()
        profile.set_shape("x", (1, 3, smallest, smallest), (1, 3, largest, largest), (1, 3, largest, largest))
        assert config.add_optimization_profile(profile) == 0

    return change


def test_free_sizes_need_a_profile_and_a_shape_within_it(bench: Bench) -> None:
    graph = model(shape=FREE)
    with bench.current(), bench.stream() as stream:
        assert bench.plan(graph) is None
        assert "no optimization profile" in bench.errors()
        engine = bench.engine(graph, change=with_profile(2, 8))
        first, second = engine.create_execution_context(), engine.create_execution_context()
        assert first.infer_shapes() == ["x"]
        assert first.get_tensor_shape("y") == (-1, 3, -1, -1)
        assert first.set_tensor_address("x", 256) and first.set_tensor_address("y", 256)
        assert not first.execute_async_v3(stream)
        assert "the shape of x was not set" in bench.errors()
        for wrong in ((1, 3, 1, 8), (1, 3, 8, 9), (2, 3, 8, 8), (3, 8, 8)):
            assert not first.set_input_shape("x", wrong)
        assert first.set_input_shape("x", (1, 3, 8, 2))
        assert first.infer_shapes() == []
        assert first.get_tensor_shape("y") == (1, 3, 8, 2)
        assert not second.set_input_shape("x", (1, 3, 8, 2)), "only the first context has a profile from the start"
        assert second.set_optimization_profile_async(0, stream)
        assert second.set_input_shape("x", (1, 3, 8, 2))
        with pytest.raises(RuntimeError, match="optimization profile"):
            second.set_optimization_profile_async(1, stream)
        bench.wait(stream)
        del engine, first, second


# It refuses: running


def test_a_context_that_lacks_something_does_not_run(bench: Bench) -> None:
    with bench.current(), bench.stream() as stream, bench.memory(PICTURE) as memory:
        context = bench.engine(model()).create_execution_context()
        assert not context.execute_async_v3(stream)
        assert "address of x was not set" in bench.errors()
        assert context.set_tensor_address("x", memory)
        assert context.set_tensor_address("y", 0)
        assert not context.execute_async_v3(stream)
        assert "address of y" in bench.errors()
        assert not context.set_tensor_address("y", memory + 4)
        assert not context.set_tensor_address("z", memory)
        assert not context.set_input_shape("y", SHAPE)
        assert not context.set_input_shape("x", (1, 3, 4, 5))
        for wrong in (1.5, None, "1", 2**64):
            with pytest.raises(TypeError):
                context.set_tensor_address("x", wrong)
        with pytest.raises(TypeError):
            context.set_tensor_address(name="x", address=memory)
        with pytest.raises(AttributeError):
            context.optimisation = 1
        del context


def test_the_default_stream_and_streams_that_are_none_are_refused(bench: Bench) -> None:
    with running(bench) as run:
        assert not run.context.execute_async_v3(12345)
        assert "no such stream" in bench.errors()
        assert not run.context.execute_async_v3(0)
        misused(bench, "default stream")


def test_without_a_current_context_nothing_works(bench: Bench) -> None:
    with pytest.raises(TypeError, match="nullptr"):
        bench.trt.Runtime(bench.logger)
    with pytest.raises(TypeError, match="nullptr"):
        bench.trt.Builder(bench.logger)
    with running(bench) as run:
        assert all_calls_in_a_thread(bench, run) == [None, None, False]
    assert bench.errors().count("no CUDA context is current") == 3


def all_calls_in_a_thread(bench: Bench, run: Run) -> list[Any]:
    """What they return in a thread of their own, where no context is current."""
    runtime, plan, said = bench.trt.Runtime(bench.logger), bench.plan(model()), []
    engine = runtime.deserialize_cuda_engine(plan)

    def work() -> None:
        said.append(runtime.deserialize_cuda_engine(plan))
        said.append(engine.create_execution_context())
        said.append(run.enqueue())

    in_thread(work)
    return said


def in_thread(work: Callable[[], Any]) -> Any:
    """What `work` returns in a thread of its own."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(work()))
    thread.start()
    thread.join()
    return answers[0]


def test_what_holds_device_memory_is_given_back_inside_the_context(bench: Bench) -> None:
    before = bench.standin.live()["device_blocks"]
    with bench.current():
        engine = bench.engine(model())
        context = engine.create_execution_context()
        assert bench.standin.live()["device_blocks"] == before + 2
        kept = [engine, context]
        del engine, context
        in_thread(kept.clear)
        gc.collect()
        assert bench.standin.live()["device_blocks"] == before + 2, "nothing could be freed"
    assert len(bench.world.record.violations) == 2
    assert all("no CUDA context was current" in text for text in bench.world.record.violations)
    bench.world.record.violations.clear()
    bench.standin.allow("abandoned")


def test_a_context_in_two_threads_at_once_is_refused(bench: Bench) -> None:
    with running(bench) as run:
        answers = []
        bench.world.faults.during_enqueue = lambda: in_thread(
            lambda: answers.append(run.context.set_tensor_address("x", 256))
        )
        assert run.enqueue()
        bench.world.faults.during_enqueue = None
        assert answers == [False]
        misused(bench, "two threads")
        in_thread(lambda: answers.append(run.context.set_tensor_address("x", 256)))
        assert answers == [False, True], "one after the other they may"
        bench.wait(run.stream)


def test_a_context_runs_on_one_stream_at_a_time(bench: Bench) -> None:
    with running(bench) as run, bench.stream() as other:
        bench.wait(run.stream)
        assert run.enqueue()
        assert not run.context.execute_async_v3(other)
        assert "still runs on another stream" in bench.errors()
        bench.wait(run.stream)
        assert run.context.execute_async_v3(other)
        bench.wait(other)
        assert run.context.set_optimization_profile_async(0, run.stream)
        assert run.context.set_input_shape("x", SHAPE)
        assert not run.context.execute_async_v3(other)
        assert "profile is still being set" in bench.errors()
        bench.wait(run.stream)


def test_capture_before_an_ordinary_run_is_refused(bench: Bench) -> None:
    with running(bench) as run:
        graph = ctypes.c_void_p()
        bench.demand(bench.cuda.cuStreamBeginCapture_v2(ctypes.c_void_p(run.stream), 1))
        assert not run.enqueue()
        bench.cuda.cuStreamEndCapture(ctypes.c_void_p(run.stream), ctypes.byref(graph))
        bench.cuda.cuGraphDestroy(graph)
    assert "nothing ran since the shapes were set" in bench.errors()
    assert bench.world.record.captured == 0


def test_a_context_may_not_go_before_its_work_has_run(bench: Bench) -> None:
    with running(bench) as run:
        assert run.enqueue()
        run.context = None
        bench.wait(run.stream)
        assert not run.result.any()
    assert bench.world.record.executed == 0
    assert bench.standin.faults()["freed_in_use"] > 0
    bench.standin.allow("freed_in_use")


def test_memory_that_goes_before_the_work_on_it_is_seen(bench: Bench) -> None:
    with bench.current(), bench.stream() as stream, bench.memory(PICTURE) as made:
        context = bench.engine(model()).create_execution_context()
        with bench.memory(PICTURE) as given:
            assert context.set_tensor_address("x", given) and context.set_tensor_address("y", made)
            assert context.execute_async_v3(stream)
        bench.wait(stream)
        assert bench.standin.faults()["freed_in_use"] == 1
        assert bench.world.record.executed == 0
        del context
    bench.standin.allow("freed_in_use")


def test_an_address_that_is_no_device_memory_loses_the_card(bench: Bench) -> None:
    with bench.current(), bench.stream() as stream, bench.memory(PICTURE) as given:
        context = bench.engine(model()).create_execution_context()
        assert context.set_tensor_address("x", given) and context.set_tensor_address("y", 256)
        assert context.execute_async_v3(stream)
        assert bench.cuda.cuStreamSynchronize(ctypes.c_void_p(stream)) == 700
        del context
        bench.standin.lose(0)
    bench.standin.allow("abandoned", "live")


def test_a_missing_tensor_is_logged(bench: Bench) -> None:
    with bench.current():
        engine = bench.engine(model())
        assert engine.get_tensor_mode("z") == bench.trt.TensorIOMode.NONE
        assert engine.get_tensor_name(2) is None
        assert len(engine.get_tensor_shape("z")) == 0
        assert bench.errors().count("no tensor") == 3
        del engine


def test_an_inspector_needs_its_engine(bench: Bench) -> None:
    def detailed(_builder: Any, config: Any) -> None:
        config.profiling_verbosity = bench.trt.ProfilingVerbosity.DETAILED

    json_format = bench.trt.LayerInformationFormat.JSON
    with bench.current():
        engine = bench.engine(model(TensorProto.FLOAT16), change=detailed)
        inspector = engine.create_engine_inspector()
        told = json.loads(inspector.get_engine_information(json_format))
        assert "Half" in str(told["Layers"])
        assert ("Bindings" in told) == (bench.world.major == 10)
        del engine
        gc.collect()
        with pytest.raises(BaseException, match="engine was gone"):
            inspector.get_engine_information(json_format)


# It refuses: building


def test_wrong_graphs_do_not_parse(bench: Bench) -> None:
    cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.UINT16)
    late_cast = [
        helper.make_node("Transpose", ["x"], ["turned"], "turn"),
        helper.make_node("Cast", ["turned"], ["y"], to=TensorProto.FLOAT),
    ]
    graphs = {
        "Failed to parse": b"no protobuf",
        "UINT16": proto([cast], TensorProto.FLOAT, TensorProto.UINT16),
        "computes with bytes": proto(late_cast, TensorProto.UINT8, TensorProto.FLOAT, ("a", "a", "a", "a")),
    }
    with bench.current():
        for word, graph in graphs.items():
            builder, network, parser, parsed = bench.parsed(graph)
            assert not parsed
            assert parser.num_errors >= 1
            assert any(word in parser.get_error(index).desc() for index in range(parser.num_errors))
            assert word in bench.errors()
            assert builder.build_serialized_network(network, builder.create_builder_config()) is None
            del builder, network, parser


def test_half_precision_wants_a_strongly_typed_network(bench: Bench) -> None:
    with bench.current():
        builder, network, parser, _ = bench.parsed(model(TensorProto.FLOAT16), strongly_typed=False)
        plan = builder.build_serialized_network(network, builder.create_builder_config())
        # From version 11 on there is no other network.
        assert (plan is None) == (bench.world.major == 10)
        assert builder.create_network(1 << 7) is None
        del builder, network, parser


def test_a_network_wants_its_own_builder_and_one_thread(bench: Bench) -> None:
    with bench.current():
        builder, network, parser, _ = bench.parsed(model())
        other = bench.trt.Builder(bench.logger)
        assert builder.build_serialized_network(network, other.create_builder_config()) is None
        config = builder.create_builder_config()
        assert in_thread(partial(builder.build_serialized_network, network, config)) is None
        misused(bench, "another thread")
        empty = builder.create_network(1 << int(bench.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        assert builder.build_serialized_network(empty, config) is None
        assert not bench.trt.OnnxParser(network, bench.logger).parse(model()), "a network is filled once"
        with pytest.raises(TypeError):
            builder.build_serialized_network(network, None)
        with pytest.raises(AttributeError):
            config.builder_optimisation_level = 3
        del builder, network, parser, other, config, empty


def test_a_profile_has_to_fit(bench: Bench) -> None:
    def never(_builder: Any, _config: Any) -> None:
        profile = _builder.create_optimization_profile()
        assert _config.add_optimization_profile(profile) == -1
        with pytest.raises(ValueError, match="inconsistent"):
            profile.set_shape("x", (1, 3, 8, 8), (1, 3, 4, 4), (1, 3, 8, 8))
        profile.set_shape("z", (1,), (1,), (1,))
        _config.add_optimization_profile(profile)

    with bench.current():
        assert bench.plan(model(), change=never) is None
        assert "which is no input" in bench.errors()
        assert bench.plan(model(), change=with_profile(4, 4)) is None
        assert "does not fit" in bench.errors()


def test_what_a_build_was_asked_for_is_recorded(bench: Bench) -> None:
    trt = bench.trt

    def change(_builder: Any, config: Any) -> None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 2**30)
        config.builder_optimization_level = 9
        config.builder_optimization_level = 2
        config.max_aux_streams = 0
        config.clear_flag(trt.BuilderFlag.TF32)

    with bench.current():
        bench.plan(model())
        bench.plan(model(), change=change)
    first, second = bench.world.record.builds
    assert (first.tf32, first.level, first.workspace_bytes, first.aux_streams) == (True, 3, None, None)
    assert (second.tf32, second.level, second.workspace_bytes, second.aux_streams) == (False, 2, 2**30, 0)
    assert "builder_optimization_level must be from 0 to 5" in bench.errors()


def watched(bench: Bench, step: Callable[[], Any]) -> tuple[Any, list[tuple[Any, ...]]]:
    """(plan, what a progress monitor was told) where every step answers with `step`."""
    told: list[tuple[Any, ...]] = []

    class Monitor(bench.trt.IProgressMonitor):  # type: ignore[misc,name-defined]
        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            told.append(("start", phase_name, parent_phase, num_steps))

        def step_complete(self, phase_name: str, step_number: int) -> Any:
            told.append(("step", phase_name, step_number))
            return step()

        def phase_finish(self, phase_name: str) -> None:
            told.append(("finish", phase_name))

    def change(_builder: Any, config: Any) -> None:
        config.progress_monitor = Monitor()

    nodes = [helper.make_node("Relu", [a], [b], f"relu {b}") for a, b in zip("xab", "aby", strict=True)]
    return bench.plan(proto(nodes, TensorProto.FLOAT, TensorProto.FLOAT), change=change), told


def test_a_progress_monitor_hears_nested_phases(bench: Bench) -> None:
    with bench.current():
        plan, told = watched(bench, lambda: True)
    assert plan is not None
    open_phases: dict[str, int] = {}
    for event, name, *rest in told:
        if event == "start":
            parent, steps = rest
            assert name not in open_phases and (parent is None or parent in open_phases) and steps > 0
            open_phases[name] = steps
        elif event == "step":
            assert 0 <= rest[0] < open_phases[name]
        else:
            del open_phases[name]
    assert not open_phases
    assert len([event for event in told if event[0] == "start"]) > len({event[1] for event in told}), "a name twice"


def raises() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", [lambda: False, lambda: None, raises], ids=["false", "nothing", "interrupted"])
def test_a_progress_monitor_can_end_a_build(
    bench: Bench, step: Callable[[], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with bench.current():
        plan, told = watched(bench, step)
    assert plan is None
    assert [event[0] for event in told].count("step") == 1
    assert [event[0] for event in told].count("start") == [event[0] for event in told].count("finish")
    assert ("KeyboardInterrupt" in capsys.readouterr().err) == (step is raises)


# Plans and timing caches


def test_plans_are_for_one_version_and_one_card(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def compatible(_builder: Any, config: Any) -> None:
        config.hardware_compatibility_level = bench.trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY

    with bench.current():
        plan, movable = bench.plan(model()), bench.plan(model(), change=compatible)
        runtime = bench.trt.Runtime(bench.logger)
        assert runtime.deserialize_cuda_engine(memoryview(plan)) is not None
        bench.world.card_name = "Another Card"
        assert runtime.deserialize_cuda_engine(plan) is None
        assert "Another Card" in bench.errors()
        assert runtime.deserialize_cuda_engine(movable) is not None
        bench.world.capability = (7, 5)
        assert runtime.deserialize_cuda_engine(movable) is None
        newer = install(monkeypatch, bench.standin, version="12.0.0.1")
        assert sys.modules["tensorrt"].Runtime(bench.logger).deserialize_cuda_engine(plan) is None
        assert f"from version {bench.world.version}, this is 12.0.0.1" in bench.errors()
        newer.check()


def test_broken_plans_are_refused_or_end_the_process(bench: Bench) -> None:
    with bench.current():
        plan, runtime = bench.plan(model()), bench.trt.Runtime(bench.logger)
        for wrong in (b"", b"garbage", plan[:-1], plan + b"x", b"x" + plan):
            assert runtime.deserialize_cuda_engine(wrong) is None
        assert bench.errors().count("Serialization Error") == 5
        flipped = bytearray(plan)
        flipped[-1] ^= 1
        with pytest.raises(Aborted):
            runtime.deserialize_cuda_engine(flipped)
        misused(bench, "aborted")
        with pytest.raises(TypeError):
            runtime.deserialize_cuda_engine("a path")


def test_a_timing_cache_spares_timing_and_does_not_bear_damage(bench: Bench) -> None:
    kept: list[bytes] = []

    def cached(_builder: Any, config: Any) -> None:
        assert config.get_timing_cache() is None
        assert config.set_timing_cache(config.create_timing_cache(kept[-1] if kept else b""), False)
        configs.append(config)

    configs: list[Any] = []
    with bench.current():
        for _ in range(2):
            assert bench.plan(model(), change=cached) is not None
            kept.append(bytes(memoryview(configs.pop().get_timing_cache().serialize())))
        assert [build.timed for build in bench.world.record.builds] == [1, 0]
        bench.world.card_name = "Another Card"
        config = bench.trt.Builder(bench.logger).create_builder_config()
        assert not config.set_timing_cache(config.create_timing_cache(kept[0]), False)
        assert config.set_timing_cache(config.create_timing_cache(kept[0]), True)
        for damaged in (b"garbage", kept[0][:-1], kept[0][:-1] + bytes([kept[0][-1] ^ 1])):
            with pytest.raises(Aborted):
                config.create_timing_cache(damaged)
            misused(bench, "aborted")
        del config


# What can be made to go wrong


def test_faults_on_demand(bench: Bench) -> None:
    faults = bench.world.faults
    with running(bench) as run:
        plan, runtime = bench.plan(model()), bench.trt.Runtime(bench.logger)
        faults.enqueue_error_at = 2
        assert [run.enqueue() for _ in range(3)] == [True, False, True]
        bench.wait(run.stream)
        faults.context_error_at = 3
        engine = runtime.deserialize_cuda_engine(plan)
        assert [engine.create_execution_context() is None for _ in range(3)] == [False, True, False]
        faults.deserialize_error = "no reason"
        assert runtime.deserialize_cuda_engine(plan) is None
        faults.build_error = "insufficient workspace"
        assert bench.plan(model()) is None
        faults.parser_errors = ("first", "second")
        builder, network, parser, parsed = bench.parsed(model())
        assert not parsed
        assert [parser.get_error(index).desc() for index in range(parser.num_errors)] == ["first", "second"]
        faults.parser_errors, faults.refuses_bytes = (), True
        copy = proto([helper.make_node("Cast", ["x"], ["y"], to=1)], TensorProto.UINT8, TensorProto.FLOAT)
        assert not bench.parsed(copy)[3]
        faults.no_builder = faults.no_runtime = True
        for kind in (bench.trt.Builder, bench.trt.Runtime):
            with pytest.raises(TypeError, match="nullptr"):
                kind(bench.logger)
        del builder, network, parser, engine, runtime
    assert all(word in bench.errors() for word in ("no reason", "insufficient workspace", "out of device memory"))


def test_contexts_take_device_memory(bench: Bench) -> None:
    with bench.current():
        engine = bench.engine(model())
        total, free = ctypes.c_size_t(), ctypes.c_size_t()
        bench.cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        used = total.value - free.value
        bench.standin.limit(used + engine.device_memory_size_v2 + 100)
        first = engine.create_execution_context()
        assert first is not None
        assert engine.create_execution_context() is None
        assert "out of device memory" in bench.errors()
        del first
        assert engine.create_execution_context() is not None
        del engine


def test_our_modules_see_the_fake_and_forget_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from vidsr.backends.trt import log

    assert isinstance(log.Log(), bench.trt.ILogger)
    with pytest.MonkeyPatch.context() as inner:
        install(inner, bench.standin, version="11.4.0.106")
        assert "vidsr.backends.trt.log" not in sys.modules
    assert sys.modules["vidsr.backends.trt.log"] is log
    assert sys.modules["tensorrt"] is bench.trt


def test_a_second_logger_is_warned_of(bench: Bench) -> None:
    with bench.current():
        kept = [bench.trt.Runtime(bench.logger)]
        other = type(bench.logger)()
        bench.said.clear()
        kept.append(bench.trt.Runtime(other))
        assert [severity for severity, _ in bench.said] == ["WARNING"]


def test_the_models_are_as_meant() -> None:
    onnx.checker.check_model(onnx.load_model_from_string(model(TensorProto.FLOAT16)))
