"""`benchmarks/gpu_check.sh`: without a card, and with steps that go wrong."""

from __future__ import annotations

import ctypes
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_check import __main__ as check
from tests.cuda import standin

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu_check.sh"
KEYS = {"step", "name", "ok", "seconds"}

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the script is for a POSIX shell")


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(SCRIPT), *map(str, arguments)],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHON": sys.executable} | environment,
    )  # fmt: skip


def lines(monkeypatch: pytest.MonkeyPatch, *codes: str, minutes: float = 5, limit: int = 60) -> list[dict[str, Any]]:
    """What is written for steps that are these pieces of Python."""
    monkeypatch.setattr(check, "STEPS", {index: (f"planted {index}", "", limit) for index in range(len(codes))})
    monkeypatch.setattr(check, "command", lambda number: [sys.executable, "-c", codes[number]])
    file = io.StringIO()
    check.run_all(list(range(len(codes))), time.monotonic() + 60 * minutes, file)
    return [json.loads(line) for line in file.getvalue().splitlines()]


def test_without_a_card(tmp_path: Path) -> None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        pass
    else:
        pytest.skip("an NVIDIA driver, or its stand-in, is here")
    output = tmp_path / "lines.jsonl"
    done = run("-o", output)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "gpu_check: no NVIDIA card can be used here: no NVIDIA driver is installed (libcuda.so.1 is not there)"
    ]
    assert not output.exists()


def test_an_unknown_step() -> None:
    done = run("--only", "1,99")
    assert done.returncode == 2
    assert "there is no step 99" in done.stderr


def test_what_a_step_says_stays_when_it_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = lines(
        monkeypatch,
        """if True:
            import ctypes, json
            print(json.dumps({"speed": 5, "doing": "reading nothing", "name": "mine"}), flush=True)
            print('{"cut sho', flush=True)
            ctypes.string_at(0)
        """,
        "print('{\"ok\": true}')",
    )
    assert set(first) == KEYS | {"why", "speed"}
    assert (first["step"], first["name"], first["ok"], first["speed"]) == (0, "planted 0", False, 5)
    assert first["why"] == "crashed (signal 11) while reading nothing"
    assert set(second) == KEYS
    assert second["ok"] is True


def test_a_step_that_hangs_is_ended_with_what_it_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = tmp_path / "grandchild"
    code = f"""if True:
        import pathlib, subprocess, sys, threading
        child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
        pathlib.Path({str(name)!r}).write_text(str(child.pid))
        print('{{"doing": "waiting", "figure": 1}}', flush=True)
        threading.Event().wait()
    """
    (found,) = lines(monkeypatch, code, limit=3)
    assert found["ok"] is False
    assert found["why"] == "stopped after 3 s while waiting"
    assert found["figure"] == 1
    assert not Path(f"/proc/{name.read_text()}/cmdline").exists() or not Path(
        f"/proc/{name.read_text()}/cmdline"
    ).read_bytes()  # gone, or a zombie that nobody has collected


def test_a_step_that_ends_badly(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = lines(monkeypatch, "raise SystemExit('no such thing')")
    assert found["ok"] is False
    assert found["why"] == "ended with code 1: no such thing"


def test_no_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = lines(monkeypatch, "print('{\"ok\": true}')", minutes=0)
    assert found["ok"] is None
    assert found["why"] == "skipped: no time is left"


@pytest.mark.parametrize(
    ("body", "ok", "why"),
    [
        ("say({'speed': 3}); print('noise')", True, None),
        ("raise step.Skipped('it is cold')", None, "skipped: it is cold"),
        ("raise step.Failed('3 is not 4')", False, "3 is not 4"),
        ("raise KeyError('a\\nb')", False, "KeyError: 'a\\nb'"),
        ("step.need('no_such_package')", None, "skipped: no_such_package is not installed"),
        ("step.need('no_such_package.inner')", None, "skipped: no_such_package.inner is not installed"),
    ],
)
def test_verdicts(monkeypatch: pytest.MonkeyPatch, body: str, ok: bool | None, why: str | None) -> None:
    code = f"""if True:
        import sys
        from types import SimpleNamespace
        sys.path.insert(0, {str(ROOT)!r})
        from benchmarks.gpu_check import __main__ as check, step
        def planted(say, few):
            {body}
        check.STEPS = {{1: ("planted", "planted:planted", 9)}}
        sys.modules["benchmarks.gpu_check.planted"] = SimpleNamespace(planted=planted)
        check.run_here(1, few=False)
    """
    (found,) = lines(monkeypatch, code)
    assert (found["ok"], found.get("why")) == (ok, why)
    assert found.get("speed") == (3 if ok else None)


def test_every_step_exists() -> None:
    from importlib import import_module

    assert list(check.STEPS) == list(range(1, 14))
    for _, place, _ in check.STEPS.values():
        module, _, function = place.partition(":")
        assert callable(getattr(import_module(f"benchmarks.gpu_check.{module}"), function))


def test_with_the_stand_in(tmp_path: Path) -> None:
    """All of the way, on a driver that is none: steps that need no torch on a card."""
    if reason := standin.why_not():
        pytest.skip(reason)
    output = tmp_path / "lines.jsonl"
    done = run("-o", output, "--only", "1,2,4", LD_LIBRARY_PATH=str(standin.build().parent))
    assert done.stderr.splitlines() == [f"gpu_check: {output}"]
    assert done.returncode == 0
    assert done.stdout == output.read_text(encoding="utf-8")
    env, pycuda, streams = (json.loads(line) for line in done.stdout.splitlines())
    assert env["ok"] is True
    assert env["cards"][0]["capability"] == "9.0"
    assert pycuda["ok"] is True
    assert (streams["ok"], streams["why"].partition(":")[0]) == (None, "skipped")


