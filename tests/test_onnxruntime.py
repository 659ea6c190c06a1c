"""ONNX Runtime: it sends nothing, and a broken one is a line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vidsr.backends import onnxruntime_engine

RUN = """
from pathlib import Path
from vidsr import models
from vidsr.backends.base import EngineOptions
from vidsr.backends.onnxruntime_engine import BACKEND
from vidsr.frame import FrameLayout

{asked}
options = BACKEND.settle(EngineOptions())
model = models.load(models.DEFAULT)
source, target = (FrameLayout(family="yuv", bits=8, height=48 * s, width=64 * s, chroma=(2, 2)) for s in (1, 2))
engine = BACKEND.open(model, source, target, options)
(slot,) = engine.slots(1)
engine.submit(slot)
engine.wait(slot)
engine.close()
"""


@pytest.mark.parametrize("asked", ["assert BACKEND.lack() is None", ""])
def test_no_telemetry(tmp_path: Path, asked: str) -> None:
    """It would keep the identity of the device and a database of events in the cache folder, and send them."""
    pytest.importorskip("onnxruntime", reason="runs it")
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", RUN.format(asked=asked)], env=environment, check=True)
    assert [path for path in tmp_path.rglob("*") if path.name == "Microsoft"] == []


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('no such symbol\\nmore')", "no such symbol"),
        ("import vidsr_has_no_such_module", "No module named 'vidsr_has_no_such_module'"),
        ("", "module 'onnxruntime' has no attribute 'InferenceSession'"),
    ],
)
def test_a_broken_one_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, reason: str) -> None:
    (tmp_path / "onnxruntime.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "onnxruntime"]:
        monkeypatch.delitem(sys.modules, name)
    lack = onnxruntime_engine.BACKEND.lack()
    sys.modules.pop("onnxruntime", None)
    assert lack == f"ONNX Runtime cannot be loaded ({reason}): pip install --force-reinstall onnxruntime"
