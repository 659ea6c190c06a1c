"""The real Python bindings of TensorRT, where neither TensorRT nor a GPU is.

The wheel `tensorrt_cu13_bindings` holds the classes, enums and signatures and asks the TensorRT libraries for nine C
functions. Here these are compiled on the spot and return null, so that the bindings can be imported: everything that
can be asked without building or running an engine is the real answer. The wheel is NVIDIA's: installed into pytest's
cache when the tests run, never part of this project, and neither is what is generated from it.

Two versions cannot live in one process, nor can one be taken out again: `run` gives each question a process of its own.
"""

from __future__ import annotations

import ast
import ctypes
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

VERSIONS = ("10.16.1.11", "11.4.0.106")
FOLDERS = "VIDSR_TENSORRT_BINDINGS"
"""Environment variable: a folder that holds one folder per version, as `pip install --target` leaves it."""

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser")
FUNCTIONS = (
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL", "getBuilderPluginRegistry",
    "getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins",
)  # fmt: skip


class Unavailable(Exception):
    """The bindings cannot be had here; the message says why."""


def unpack(version: str, cache: Path) -> Path:
    """The folder of one version's bindings, installed into `cache` where it is not there yet."""
    if sys.platform != "linux" or not shutil.which("cc"):
        raise Unavailable("TensorRT's bindings are checked on Linux with a C compiler")
    if given := os.environ.get(FOLDERS):
        if not (folder := Path(given) / version).is_dir():
            raise FileNotFoundError(f"{FOLDERS}={given} holds no {version}")
        return folder
    return install(f"tensorrt_cu13_bindings=={version}", cache)


def install(requirement: str, cache: Path) -> Path:
    """The folder in `cache` into which pip has installed a package, without its dependencies."""
    folder = cache / f"{requirement}-{sysconfig.get_config_var('SOABI')}"
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        unfinished = Path(temporary) / "site"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(unfinished), requirement]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            raise Unavailable(f"pip cannot install {requirement}: {lines[-1] if lines else done.returncode}")
        with suppress(OSError):  # another run was faster
            unfinished.rename(folder)
    return folder


def load(folder: Path) -> ModuleType:
    """Imports the bindings in `folder` into this process, also under the name `tensorrt`."""
    library = (folder / "tensorrt_bindings" / "tensorrt.so").read_bytes()
    major = re.search(rb"libnvinfer\.so\.(\d+)", library)
    if major is None:
        raise Unavailable(f"{folder} does not ask for libnvinfer")
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary, "null.c")
        source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS))
        for name in LIBRARIES:
            soname = f"{name}.so.{major[1].decode()}"
            target = source.with_name(soname)
            flags = ["-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", str(target)]
            subprocess.run(["cc", *flags, str(source)], check=True)
            ctypes.CDLL(str(target), ctypes.RTLD_GLOBAL)
    sys.path.insert(0, str(folder))
    module = importlib.import_module("tensorrt_bindings")
    sys.modules["tensorrt"] = module
    return module


def run(folder: Path, code: str, *arguments: str) -> str:
    """Runs Python code in a process of its own, where `trt` is the bindings; what it prints."""
    start = f"from pathlib import Path; from tests.real_tensorrt import load; trt = load(Path({str(folder)!r}))\n"
    done = subprocess.run(
        [sys.executable, "-c", start + code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    if done.returncode:
        raise RuntimeError(f"in the process of {folder.name} (exit code {done.returncode}):\n{done.stderr}")
    return done.stdout


def describe(folder: Path) -> dict[str, Any]:
    """The whole module, see `description`."""
    code = "import json; from tests.real_tensorrt import description; print(json.dumps(description(trt)))"
    result: dict[str, Any] = json.loads(run(folder, code))
    return result


def description(module: ModuleType) -> dict[str, Any]:
    """version, and names: what each is.

    {"kind": "class", "members": ...} | {"kind": "enum", "values": {name: int}} | {"kind": "method", "overloads":
    [[parameter, ...], ...]} | {"kind": "property", "writable": bool} | {"kind": "constant"}. A parameter that may be
    left out ends in "?".
    """
    names = {name: _member(name, getattr(module, name)) for name in dir(module) if not name.startswith("_")}
    return {"version": module.__version__, "names": names}


def _member(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, type):
        if hasattr(value, "__members__"):
            return {"kind": "enum", "values": {key: int(member) for key, member in value.__members__.items()}}
        members = {
            key: _member(key, member)
            for base in reversed(value.__mro__)
            for key, member in vars(base).items()
            if not key.startswith("_") or key == "__init__"
        }
        return {"kind": "class", "members": members}
    if isinstance(value, property):
        return {"kind": "property", "writable": value.fset is not None}
    if callable(value):
        return {"kind": "method", "overloads": overloads(name, value.__doc__ or "")}
    return {"kind": "constant"}


def overloads(name: str, document: str) -> list[list[str]]:
    """Parameter names of each signature in a docstring that pybind11 wrote, without `self`."""
    found = []
    for arguments in re.findall(rf"^(?:\d+\. )?{name}\((.*)\) -> ", document, re.MULTILINE):
        if arguments.startswith("*args"):
            continue
        parameters = [part for part in _split(arguments) if part.partition(":")[0] != "self"]
        found.append([part.partition(":")[0] + ("?" if " = " in part else "") for part in parameters])
    return found


def _split(arguments: str) -> list[str]:
    """At the commas that stand in no bracket."""
    parts, depth, current = [], 0, ""
    for character in arguments:
        depth += (character in "[(<") - (character in "])>")
        if character == "," and not depth:
            parts.append(current.strip())
            current = ""
        else:
            current += character
    return [*parts, current.strip()] if current.strip() else parts


def write_stubs(folder: Path, generator: Path, target: Path) -> None:
    """Writes what mypy needs to know of the bindings as the package `tensorrt` into the folder `target`.

    generator: folder of pybind11-stubgen.
    """
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pybind11_stubgen import main\n"
        "main(['tensorrt_bindings.tensorrt', '-o', sys.argv[2], '--ignore-all-errors'])"
    )
    with tempfile.TemporaryDirectory() as raw:
        run(folder, code, str(generator), raw)
        text = Path(raw, "tensorrt_bindings", "tensorrt.pyi").read_text(encoding="utf-8")
    package = target / "tensorrt"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.pyi").write_text(mend(text), encoding="utf-8")


def mend(text: str) -> str:
    """A stub as it should be: valid Python, and `_Mend`ed."""
    lines = text.split("\n")
    while True:
        try:
            tree = ast.parse("\n".join(lines))
            break
        except SyntaxError as error:
            # Parameters that are called `in` and the like: nothing that we call.
            number = (error.lineno or 1) - 1
            if (method := re.match(r"\s*def \w+\(", lines[number])) is None:
                raise
            lines[number] = f"{method[0]}self, *args: typing.Any, **kwargs: typing.Any) -> typing.Any:"
    # `tensorrt.bool` is a DataType, behind which mypy would not find the type of the same name.
    tree.body = [node for node in tree.body if not ast.unparse(node).startswith("bool:")]
    return f"{ast.unparse(_Mend().visit(tree))}\n__version__: str\n"


class _Mend(ast.NodeTransformer):
    """What the bindings do and the signatures that pybind11 wrote do not say.

    For an integer any `__index__` will do, but not a float; a callback gets true integers. A sequence of integers is
    converted to `Dims`, which can be iterated through `__getitem__`. `IHostMemory` is a buffer.
    """

    def __init__(self) -> None:
        self.integer = "typing.SupportsIndex"

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        if node.name in ("ILogger", "IProgressMonitor"):
            self.integer = "int"
        self.generic_visit(node)
        self.integer = "typing.SupportsIndex"
        if node.name == "Dims":
            node.body += ast.parse("def __iter__(self) -> typing.Iterator[int]: ...").body
        elif node.name == "IHostMemory":
            node.body += ast.parse("def __buffer__(self, flags: int, /) -> memoryview: ...").body
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return _expression(self.integer) if ast.unparse(node) == "typing.SupportsInt" else node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        for argument in node.args.args:
            if argument.annotation is not None and ast.unparse(argument.annotation) == "Dims":
                argument.annotation = _expression("Dims | collections.abc.Sequence[int]")
            if argument.arg == "parent_phase":
                argument.annotation = _expression("str | None")
        if node.name == "get_error":
            node.returns = _expression("ParserError")
        return node


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body
