"""What our code and the tests' fake take for TensorRT, held to the real bindings of both versions.

It shows that we call what exists, with the right names and types, and that the fake is no wider than the real thing.
It shows nothing about what TensorRT does with it: there is no TensorRT here, only its Python bindings.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest

from tests import real_tensorrt
from tests.cuda import fake_tensorrt
from tests.real_tensorrt import ROOT

SOURCES = sorted(
    path for path in (ROOT / "vidsr").rglob("*.py") if re.search(r"(import|from) tensorrt\b", path.read_text("utf-8"))
)
MUST_BE_CHECKED = {
    "add_optimization_profile", "execute_async_v3", "infer_shapes", "parse", "set_input_shape",
    "set_optimization_profile_async", "set_tensor_address",
}  # fmt: skip
"""Methods whose result is the only sign that something failed."""
MAY_BE_NONE = {"build_serialized_network", "create_execution_context", "deserialize_cuda_engine", "get_timing_cache"}
"""Methods that say so by returning None, which the bindings' signatures do not tell."""
FALSE_ALARMS = [
    f'expression has type "None", variable has type "{kind}"'
    for kind in ("Runtime", "ICudaEngine", "IExecutionContext")
]
"""Closing lets go of these by setting an attribute to None; nobody looks at it afterwards."""

STATEMENTS = """
import numpy as np
S = trt.ILogger.Severity
class Logger(trt.ILogger):
    def log(self, severity, msg): pass
class Careless(trt.ILogger):
    def __init__(self): pass
    def log(self, severity, msg): pass
class Raising(trt.IProgressMonitor):
    def phase_start(self, phase_name, parent_phase, num_steps): raise ValueError
    def step_complete(self, phase_name, step): raise KeyboardInterrupt
    def phase_finish(self, phase_name): raise SystemExit
"""
EXPRESSIONS = """
S.ERROR <= S.WARNING
S.ERROR < S.WARNING
S.ERROR > S.WARNING
S.ERROR <= 2
S.ERROR == 1
S.ERROR == S.ERROR
S.ERROR != S.WARNING
S.ERROR in (S.WARNING, S.ERROR)
S(1) == S.ERROR
S(77)
S(1.5)
S("ERROR")
int(S.ERROR)
S.ERROR.name
S.ERROR.value
str(S.ERROR)
S.ERROR
f"{S.ERROR}"
isinstance(S.ERROR, int)
list(S.__members__)
{S.ERROR: 1}[trt.ILogger.ERROR]
1 << S.ERROR
1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
S.ERROR | S.WARNING
bool(trt.DataType.FLOAT)
trt.DataType.HALF == 1
trt.DataType.HALF == trt.BuilderFlag.TF32
trt.DataType.HALF < trt.DataType.INT8
trt.DataType.HALF != None
trt.BuilderFlag.TF32 < trt.BuilderFlag.TF32
trt.MemoryPoolType.WORKSPACE < trt.MemoryPoolType.WORKSPACE
trt.TensorIOMode.INPUT
trt.DataType.NOPE
trt.DataType.FLOAT.bits
setattr(trt.DataType.FLOAT, "bits", 1)
trt.Dims((1, 2))
trt.Dims([1, 2])
trt.Dims()
trt.Dims((1.0, 2))
trt.Dims((np.int64(1), 2))
trt.Dims((1,) * 9)
trt.Dims("ab")
trt.Dims(3)
str(trt.Dims((1, 2)))
len(trt.Dims((1, 2)))
tuple(trt.Dims((1, 2)))
list(trt.Dims((1, 2)))
trt.Dims((1, 2))[1]
trt.Dims((1, 2))[-1]
trt.Dims((1, 2))[2]
trt.Dims((1, 2))[0:1]
trt.Dims((1, 2)) == (1, 2)
(1, 2) == trt.Dims((1, 2))
trt.Dims((1, 2)) == [1, 2]
trt.Dims((1, 2)) != (1, 2)
trt.Dims((1, 2)) == trt.Dims((1, 2))
trt.Dims((1, 2)) == None
-1 in trt.Dims((-1, 2))
hash(trt.Dims((1, 2)))
isinstance(trt.Dims((1, 2)), tuple)
trt.Dims((1, 2)).volume
isinstance(Logger(), trt.ILogger)
Careless()
setattr(trt.ILogger(), "name", 1)
setattr(Logger(), "name", 1)
setattr(trt.IProgressMonitor(), "name", 1)
trt.Builder(None)
trt.Builder(3)
trt.Builder()
trt.Builder(Logger())
trt.Runtime(None)
trt.Runtime(Logger())
trt.OnnxParser(None, Logger())
trt.OnnxParser(3, Logger())
trt.IExecutionContext()
trt.INetworkDefinition()
trt.IBuilderConfig()
trt.IOptimizationProfile()
trt.ITimingCache()
trt.IHostMemory()
trt.ICudaEngine()
trt.ITensor()
trt.EngineInspector()
trt.ParserError()
""".strip().splitlines()
"""With a builder or runtime that cannot start, as in a process without a card."""


@pytest.fixture(scope="module")
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip puts what only these tests need; kept for the next time where pytest keeps anything."""
    cache = getattr(request.config, "cache", None)
    return Path(cache.mkdir("tensorrt")) if cache else tmp_path_factory.mktemp("tensorrt")


@pytest.fixture(scope="module", params=real_tensorrt.VERSIONS)
def folder(request: pytest.FixtureRequest, installed: Path) -> Path:
    """The real bindings of one version."""
    try:
        return real_tensorrt.unpack(request.param, installed)
    except real_tensorrt.Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def real(folder: Path) -> dict[str, Any]:
    """What the real bindings have, see `real_tensorrt.description`."""
    return real_tensorrt.describe(folder)


@pytest.fixture(scope="module")
def stubs(folder: Path, installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package `tensorrt` for mypy."""
    pytest.importorskip("mypy", reason="needs mypy")
    try:
        generator = real_tensorrt.install("pybind11-stubgen", installed)
    except real_tensorrt.Unavailable as error:
        pytest.skip(str(error))
    target = tmp_path_factory.mktemp("stubs")
    real_tensorrt.write_stubs(folder, generator, target)
    return target


class NoCard:
    """Of a process in which nobody has made a context."""

    def current(self) -> None:
        return None


def fake(version: str) -> ModuleType:
    return fake_tensorrt.module(fake_tensorrt.World(cast(fake_tensorrt.Card, NoCard()), version))


# Our code


def missing(source: str, names: dict[str, Any]) -> list[str]:
    """Every `trt.…` of a source file that the real module does not have."""
    found = {
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("trt.")
    }
    return sorted(path for path in found if not _exists(path.split(".")[1:], names))


def _exists(path: list[str], names: dict[str, Any]) -> bool:
    if path == ["__version__"]:
        return True
    if not path or path[0].startswith("__"):
        return True
    if path[0] not in names:
        return False
    entry = names[path[0]]
    if entry["kind"] == "enum":
        return len(path) == 1 or path[1] in entry["values"] or path[1].startswith("__")
    return _exists(path[1:], entry.get("members", {}))


def other_imports(source: str) -> list[str]:
    """Imports of TensorRT in another form than `import tensorrt as trt`, which the other checks would not see."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = {(name.name, name.asname) for name in node.names if name.name.startswith("tensorrt")}
            found += [name for name, _ in names - {("tensorrt", "trt")}]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tensorrt"):
            found.append(node.module or "")
    return found


def unlike(source: str, names: dict[str, Any]) -> list[str]:
    """Subclasses of TensorRT's classes whose methods are not those that TensorRT calls."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef):
            continue
        methods = {child.name: child for child in node.body if isinstance(child, ast.FunctionDef)}
        for base in (ast.unparse(base) for base in node.bases):
            if not base.startswith("trt."):
                continue
            for name, entry in names[base.removeprefix("trt.")]["members"].items():
                if entry["kind"] != "method" or name == "__init__":
                    continue
                if name not in methods:
                    found.append(f"{node.name} has no {name}")
                elif (own := [argument.arg for argument in methods[name].args.args[1:]]) not in entry["overloads"]:
                    found.append(f"{node.name}.{name}{own} is called as {entry['overloads']}")
    return found


def unchecked(source: str) -> list[str]:
    """Calls that may fail without a sound and whose result nobody looks at."""
    found = []
    for node in ast.walk(tree := ast.parse(source)):
        if isinstance(node, ast.Expr) and _method(node.value) in MUST_BE_CHECKED:
            found.append(ast.unparse(node))
    kept = {id(node.value): ast.unparse(node.targets[0]) for node in ast.walk(tree) if isinstance(node, ast.Assign)}
    compared = {
        ast.unparse(node.left)
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare) and ast.unparse(node.comparators[0]) == "None"
    }
    calls = [node for node in ast.walk(tree) if _method(node) in MAY_BE_NONE]
    return found + [ast.unparse(call) for call in calls if kept.get(id(call)) not in compared]


def _method(node: ast.AST) -> str | None:
    return node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else None


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_we_use_what_exists(path: Path, real: dict[str, Any]) -> None:
    source = path.read_text(encoding="utf-8")
    assert missing(source, real["names"]) == []
    assert unlike(source, real["names"]) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_we_look_at_results(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert other_imports(source) == []
    assert unchecked(source) == []


def test_our_code_is_found() -> None:
    assert {"build.py", "run.py"} <= {path.name for path in SOURCES}


def test_the_checks_of_our_code_can_fail(real: dict[str, Any]) -> None:
    names, old = real["names"], real["version"].startswith("10.")
    gone = ["trt.BuilderFlag.FP16", "trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH", "trt.TacticSource.CUDNN"]
    assert missing("\n".join(gone), names) == ([] if old else sorted(gone))
    assert missing("f(trt.BuilderFlag.TF32, trt.NoSuch, trt.ILogger.Severity.LOUD, trt.__version__)", names) == [
        "trt.ILogger.Severity.LOUD", "trt.NoSuch",
    ]  # fmt: skip
    logger = "class Log(trt.ILogger):\n def log(self, severity, {}): ..."
    assert unlike(logger.format("msg"), names) == []
    wrong = "Log.log['severity', 'message'] is called as [['severity', 'msg']]"
    assert unlike(logger.format("message"), names) == [wrong]
    assert unlike("class Log(trt.ILogger): ...", names) == ["Log has no log"]
    assert len(unlike("class Progress(trt.IProgressMonitor): ...", names)) == 3
    call = "context.execute_async_v3(0)"
    assert unchecked(f"{call}\nassert {call}\nanswer = {call}") == [call]
    call = "engine.create_execution_context()"
    assert unchecked(f"{call}.infer_shapes\nold = {call}\nnew = {call}\nassert new is not None") == [call, call]
    assert other_imports("import tensorrt\nimport tensorrt as trt\nfrom tensorrt import Dims") == ["tensorrt"] * 2


def check_types(stubs: Path, files: list[str]) -> list[str]:
    """mypy's errors in our files, with what it knows of the real bindings."""
    settings = stubs / "mypy.ini"
    settings.write_text(
        "[mypy]\nstrict = True\nignore_missing_imports = True\nfollow_imports = silent\n"
        # Where TensorRT is unknown, its classes are Any, and a subclass of Any needs an ignore that is none here.
        "warn_unused_ignores = False\n"
        # The generated file itself is full of what mypy does not like.
        "[mypy-tensorrt.*]\nignore_errors = True\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(settings), "--cache-dir", str(stubs / "cache"),
         "--no-error-summary", "--no-pretty", *files],
        cwd=ROOT, env={**os.environ, "MYPYPATH": str(stubs)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stdout + done.stderr
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    return [error for error in errors if not any(alarm in error for alarm in FALSE_ALARMS)]


def test_our_types_are_theirs(stubs: Path) -> None:
    assert "\n".join(check_types(stubs, [str(path.relative_to(ROOT)) for path in SOURCES])) == ""


def test_the_check_of_types_can_fail(stubs: Path, real: dict[str, Any], tmp_path: Path) -> None:
    lines = {
        "context.execute_async_v4(1)": 'has no attribute "execute_async_v4"',
        "context.execute_async_v3(1.5)": 'incompatible type "float"',
        "context.set_input_shape(shape=(1, 2))": "set_input_shape",
        "text: str = context.set_tensor_address('a', 256)": "Incompatible types in assignment",
        "config.builder_optimisation_level = 3": "builder_optimisation_level",
        "first: str = tuple(context.get_tensor_shape('a'))[0]": "Incompatible types in assignment",
    }
    gone = {"trt.BuilderFlag.FP16": '"FP16"', "engine.device_memory_size": '"device_memory_size"'}
    right = [
        "context.set_input_shape('a', (1, 2))",
        "profile.set_shape('a', (1, 2), (1, 2), (1, 2))",
        "bytes(memoryview(memory))",
        "config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 2**30)",
    ]
    kinds = {
        "context": "IExecutionContext", "engine": "ICudaEngine", "config": "IBuilderConfig",
        "profile": "IOptimizationProfile", "memory": "IHostMemory",
    }  # fmt: skip
    parameters = [f"{name}: trt.{kind}" for name, kind in kinds.items()]
    body = "".join(f"    {line}\n" for line in (*lines, *gone, *right))
    path = tmp_path / "planted.py"
    path.write_text(f"import tensorrt as trt\ndef planted({', '.join(parameters)}) -> None:\n{body}")
    errors = check_types(stubs, [str(path)])
    expected = [*lines.values(), *(() if real["version"].startswith("10.") else gone.values())]
    assert [text for text in expected if not any(text in error for error in errors)] == []
    assert len(errors) == len(expected), errors


def test_our_classes_are_called_by_the_real_ones(folder: Path) -> None:
    """Through the C++ side of the bindings, as TensorRT would call them."""
    code = """
import json
from threading import Event
from vidsr.backends.trt.log import Log
from vidsr.backends.trt.build import _Progress
log, told, stop = Log(), [], Event()
trt.ILogger.log(log, trt.ILogger.WARNING, "a warning")
trt.ILogger.log(log, trt.ILogger.VERBOSE, "chatter")
trt.ILogger.log(log, trt.ILogger.ERROR, "the  cause\\n")
trt.ILogger.log(log, trt.ILogger.ERROR, "what follows")
progress, monitor = _Progress(told.append, stop), trt.IProgressMonitor
monitor.phase_start(progress, "outer", None, 2)
monitor.phase_start(progress, "inner", "outer", 2)
going = [monitor.step_complete(progress, "inner", 0)]
monitor.phase_finish(progress, "inner")
going.append(monitor.step_complete(progress, "outer", 0))
stop.set()
going.append(monitor.step_complete(progress, "outer", 1))
monitor.phase_finish(progress, "outer")
print(json.dumps([log.reason(), told, going]))
"""
    assert json.loads(real_tensorrt.run(folder, code)) == ["the cause", [0.25, 0.5, 1.0], [True, True, False]]


def test_a_tensorrt_that_cannot_start_is_one_clear_error(folder: Path) -> None:
    code = """
from threading import Event
from vidsr.backends.trt.build import BuildSpec, build
from vidsr.backends.trt.run import TensorRtProgram
from vidsr.errors import BackendError
spec = BuildSpec(graph=b"", profile={}, level=3, workspace_bytes=2**30, timing=b"")
for work in (
    lambda: build(spec, on_progress=print, stop=Event(), keep_timing=print),
    lambda: TensorRtProgram(b"", (), (), planes="bytes", description=""),
):
    try:
        work()
    except BackendError as error:
        print(error)
"""
    lines = real_tensorrt.run(folder, code).splitlines()
    assert len(lines) == 2
    assert all("TensorRT cannot" in line and "nullptr" not in line for line in lines)


# The fake


def wider(fake_class: type, entry: dict[str, Any]) -> list[str]:
    """What a class of the fake has and the real one has not, or otherwise."""
    name, found = fake_class.__name__, []
    if entry["kind"] == "enum":
        members = {key: int(value) for key, value in fake_class.__members__.items()}
        return [f"{name}.{key} = {value}" for key, value in members.items() if entry["values"].get(key) != value]
    members = {
        key: value
        for base in reversed(fake_class.__mro__[:-1])
        if base.__module__.startswith("tests.")
        for key, value in vars(base).items()
        if not key.startswith("_") or (key == "__init__" and getattr(fake_class, "_constructible", False))
    }
    for key, value in members.items():
        other = entry["members"].get(key)
        if other is None:
            if key != "__init__":
                found.append(f"{name}.{key} does not exist")
        elif isinstance(value, type):
            found += wider(value, other)
        elif isinstance(value, property):
            if other["kind"] != "property":
                found.append(f"{name}.{key} is a {other['kind']}")
            elif value.fset and not other["writable"]:
                found.append(f"{name}.{key} is read-only")
        elif callable(value):
            if other["kind"] != "method":
                found.append(f"{name}.{key} is a {other['kind']}")
            elif not _fits(value, other["overloads"]):
                found.append(f"{name}.{key}{list(inspect.signature(value).parameters)[1:]} is {other['overloads']}")
        elif other["kind"] not in ("constant", "property"):
            found.append(f"{name}.{key} is a {other['kind']}")
    return found


def _fits(function: Any, overloads: list[list[str]]) -> bool:
    """Whether every call that a method takes is taken by an overload as well."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    required = sum(parameter.default is inspect.Parameter.empty for parameter in parameters)
    names = [parameter.name for parameter in parameters]
    return all(
        any(
            names[:count] == [name.rstrip("?") for name in overload[:count]]
            and all(name.endswith("?") for name in overload[count:])
            for overload in overloads
        )
        for count in range(required, len(names) + 1)
    )


def test_the_fake_has_no_more_than_the_real_one(real: dict[str, Any]) -> None:
    module = fake(real["version"])
    found = []
    for name, value in vars(module).items():
        if isinstance(value, type):
            found += wider(value, real["names"][name]) if name in real["names"] else [f"{name} does not exist"]
    assert found == []


def test_the_fake_has_all_that_we_use() -> None:
    """So that what our code does beyond it is a decision."""
    names = {name: real_tensorrt._member(name, value) for name, value in _public(fake("10.16.1.11")).items()}
    assert {path.name: missing(path.read_text(encoding="utf-8"), names) for path in SOURCES} == {
        path.name: [] for path in SOURCES
    }


def _public(module: ModuleType) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if not name.startswith("_")}


def test_the_check_of_the_fake_can_fail(real: dict[str, Any]) -> None:
    class IExecutionContext:
        def execute_async_v2(self, bindings: Any, stream_handle: int) -> None: ...
        def set_tensor_address(self, name: str, address: int) -> None: ...
        def infer_shapes(self) -> None: ...
        def name(self) -> None: ...

    class ICudaEngine:
        device_memory_size = property(lambda self: 0)
        num_io_tensors = property(lambda self: 0, lambda self, value: None)
        get_tensor_name = property(lambda self: "")

    class ITensor:
        dtype = property(lambda self: 0, lambda self, value: None)

    flags = fake_tensorrt.bindings.enum("BuilderFlag", TF32=6, EDITABLE_TIMING_CACHE=27)
    names, old = real["names"], real["version"].startswith("10.")
    assert wider(IExecutionContext, names["IExecutionContext"]) == [
        "IExecutionContext.execute_async_v2 does not exist",
        "IExecutionContext.set_tensor_address['name', 'address'] is [['name', 'memory']]",
        "IExecutionContext.name is a property",
    ]
    assert wider(ICudaEngine, names["ICudaEngine"]) == [
        *([] if old else ["ICudaEngine.device_memory_size does not exist"]),
        "ICudaEngine.num_io_tensors is read-only",
        "ICudaEngine.get_tensor_name is a method",
    ]
    assert wider(ITensor, names["ITensor"]) == ([] if old else ["ITensor.dtype is read-only"])
    assert wider(flags, names["BuilderFlag"]) == ([] if old else ["BuilderFlag.EDITABLE_TIMING_CACHE = 27"])


def answers(trt: ModuleType, expressions: list[str]) -> list[str]:
    """What each expression gives: its value as Python writes it, or the class of the exception."""
    names: dict[str, Any] = {"trt": trt}
    exec(STATEMENTS, names)
    found = []
    for expression in expressions:
        try:
            found.append(repr(eval(expression, names)))
        except Exception as error:
            found.append(type(error).__name__)
    return found


def test_the_fake_answers_as_the_real_one(folder: Path, real: dict[str, Any]) -> None:
    code = (
        "import json; from tests.test_tensorrt_conformance import EXPRESSIONS, answers\n"
        "print(json.dumps(answers(trt, EXPRESSIONS)))"
    )
    theirs, ours = json.loads(real_tensorrt.run(folder, code)), answers(fake(real["version"]), EXPRESSIONS)
    differences = [
        f"{expression}: {own}, really {other}"
        for expression, own, other in zip(EXPRESSIONS, ours, theirs, strict=True)
        if own != other
    ]
    assert differences == []
