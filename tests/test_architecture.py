"""Imports go downward or sideways, and the command starts without anything heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "vidsr"

LAYERS = [
    {"frame", "color", "filters", "errors", "events", "notes", "durable", "machine", "nvidia", "resample"},
    {"media", "graph", "half", "models", "quantise", "tuning"},
    {"backends", "sinks", "networks", "verify"},
    {"pipeline"},
    {"job", "checkpoint", "foreign", "stability"},
    {"api", "benchmark", "compiled", "doctor", "evaluate", "images", "preview", "progress", "training"},
    {"cli", "__main__"},
]
HOMES = {
    "av": {"media", "sinks", "verify", "doctor", "training"},
    "onnx": {"benchmark", "graph", "half", "models", "quantise", "checkpoint", "doctor", "foreign"},
    "torch": {"benchmark", "networks", "backends", "checkpoint", "foreign", "training"},
    "spandrel": {"foreign"},
    "openvino": {"backends"},
    "onnxruntime": {"backends"},
    "PIL": {"training"},
    "matplotlib": {"benchmark", "training"},
    "pyvips": {"images"},
    "pillow_heif": {"images"},
    "aiohttp": {"preview"},
    "click": {"cli"},
    "rich": {"progress", "cli"},
}


def part(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def imports(path: Path) -> list[str]:
    """Full names of the modules a file imports, also inside functions; not those for type checkers only."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body.clear()
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "vidsr":
            names += [f"vidsr.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    return names


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    level = next(index for index, layer in enumerate(LAYERS) if part(path) in layer)
    for name in imports(path):
        pieces = name.split(".")
        if pieces[0] == "vidsr" and len(pieces) > 1 and pieces[1] != part(path):
            other = next(index for index, layer in enumerate(LAYERS) if pieces[1] in layer)
            assert other < level or pieces[1] in LAYERS[level], f"{path} imports {name}, which lies above it"
        elif pieces[0] in HOMES:
            assert part(path) in HOMES[pieces[0]], f"{path} imports {name}"


@pytest.mark.parametrize("module", ["vidsr", "vidsr.cli", "vidsr.cli.upscale"])
def test_starts_light(module: str) -> None:
    heavy = ("torch", "tensorrt", "openvino", "onnxruntime", "onnx", "av", "ray", "numpy", "rich", "aiohttp")
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_everything_exported_exists() -> None:
    import vidsr

    assert set(vidsr.__all__) <= set(dir(vidsr))
    for name in vidsr.__all__:
        assert getattr(vidsr, name) is not None
