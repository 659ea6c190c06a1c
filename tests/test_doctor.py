"""`vidsr doctor`: it tells what works, and nothing that is broken ends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

import vidsr
from tests.test_cli import run
from vidsr import backends, machine
from vidsr.doctor import Check, Report, examine
from vidsr.doctor.child import Child, Heard, listen
from vidsr.doctor.report import State, advice, auto, without_home

FAKE = '''
import ctypes, os, threading
from vidsr.backends import onnxruntime_engine as real

class Engine(real.OnnxRuntimeEngine):
    def wait(self, slot):
        super().wait(slot)
        {wait}

class Backend(type(real.BACKEND)):
    name = "{name}"
    def lack(self, device="auto"):
        {lack}
    def open(self, model, source, target, options):
        {open}
        return Engine(model, source, target, options)

BACKEND = Backend()
'''
FAKES = {
    "good": {},
    "chatty": {"lack": "os.write(1, b'{\"error\": 1}\\n')"},
    "absent": {"lack": "return 'absent is not installed (pip install absent)'"},
    "dying": {"lack": "ctypes.string_at(0)"},
    "collapsing": {"open": "ctypes.string_at(0)"},
    "leaving": {"open": "os._exit(3)"},
    "lying": {"wait": "slot.output[0][:] = 255 - slot.output[0]"},
    "spotted": {"wait": "slot.output[0][5, 5] ^= 16"},
    "refusing": {"open": "raise real.BackendError('refusing cannot do this')"},
    "raising": {"lack": "raise RuntimeError('no such symbol')"},
    "faulty": {"open": "raise KeyError('a bug')"},
}


def write_fakes(folder: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Makes these fake backends the only ones, for this process and its children; `auto` prefers them in this order."""
    for name in names:
        parts = {"lack": "pass", "open": "pass", "wait": "pass"} | FAKES[name]
        (folder / f"fake_{name}.py").write_text(FAKE.format(name=name, **parts))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(backends, "MODULES", {name: f"fake_{name}" for name in names})
    monkeypatch.setattr(backends, "PREFERENCE", tuple((name, "auto") for name in names))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A look at all fakes at once, of which `auto` prefers the first."""
    pytest.importorskip("onnxruntime", reason="the fakes are made of it")
    folder = tmp_path_factory.mktemp("fakes")
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
            monkeypatch.setenv(name, str(folder))
        write_fakes(folder, monkeypatch, *("absent", "dying", *(FAKES.keys() - {"absent", "dying"})))
        return examine()


@pytest.fixture
def checks(report: Report) -> dict[str, Check]:
    return {check.backend: check for check in report.backends}


STATES: dict[str, tuple[State, str]] = {
    "absent": ("missing", "absent is not installed (pip install absent)"),
    "dying": ("crashed", "crashed (signal 11) while looking whether dying is there"),
    "collapsing": ("crashed", "crashed (signal 11) while making the engine"),
    "leaving": ("crashed", "ended with code 3 while making the engine"),
    "refusing": ("refused", "refusing cannot do this while making the engine"),
    "faulty": ("failed", "KeyError: 'a bug' while making the engine"),
}


@pytest.mark.parametrize("name", STATES)
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_what_is_broken_is_a_line(checks: dict[str, Check], name: str) -> None:
    assert (checks[name].state, checks[name].reason) == STATES[name]


def test_what_works_is_measured(checks: dict[str, Check]) -> None:
    for name in ("good", "chatty"):
        assert checks[name].state == "works"
        assert checks[name].reason is None
        assert checks[name].precision == "fp32"
        assert checks[name].difference is not None
        assert checks[name].difference <= 1
        assert checks[name].rate
        assert checks[name].frame == (96, 128)


@pytest.mark.parametrize("name", ["lying", "spotted"])
def test_a_wrong_result_is_found(checks: dict[str, Check], name: str) -> None:
    assert checks[name].state == "wrong"
    assert checks[name].difference is not None
    assert checks[name].difference > 10
    assert "code values" in (checks[name].reason or "")


def test_auto_and_advice(report: Report) -> None:
    assert report.auto["backend"] == "dying"
    assert report.auto["state"] == "crashed"
    assert [entry["backend"] for entry in report.auto["passed_over"]] == ["absent"]
    first, *rest = report.advice
    assert "dying, which does not work here" in first["problem"]
    assert first["command"] in ("vidsr IN OUT --backend good", "vidsr IN OUT --backend chatty")
    problems = {entry["problem"] for entry in rest}
    for name in ("dying", "collapsing", "faulty", "lying"):
        assert any(problem.startswith(f"{name} does not work here: ") for problem in problems)
    assert "pip install absent" not in [entry["command"] for entry in rest]  # others work
    assert not report.ok


KEYS = {
    None: {
        "vidsr", "python", "platform", "seconds", "ok", "processor", "environment", "installation", "video", "nvidia",
        "backends", "auto", "advice",
    },
    "processor": {"name", "architecture", "cores", "cores_present", "cores_allowed", "load", "features"},
    "installation": {"memory_bytes", "memory_free_bytes", "models", "cache", "fault"},
    "video": {"pyav", "ffmpeg", "encoders", "decoders", "fault"},
    "nvidia": {"present", "driver", "found_by", "cuda", "cards", "reason", "libraries", "fault"},
    "auto": {"backend", "device", "precision", "state", "passed_over"},
}  # fmt: skip


def test_on_this_machine(capsys: pytest.CaptureFixture[str], own_home: None) -> None:
    assert run("doctor", "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    for section, keys in KEYS.items():
        assert set(found if section is None else found[section]) == keys
    checks = {(check["backend"], check["asked"]): check for check in found["backends"]}
    assert set(checks) == {*((name, "auto") for name in backends.MODULES), *backends.PREFERENCE}
    assert all(set(check) == set(Check.__slots__) for check in checks.values())
    openvino = checks["openvino", "auto"]
    assert openvino["state"] == "works"
    assert openvino["version"]
    assert {"CPU"} <= {device["name"] for device in openvino["devices"]}
    assert {"x264", "span"} <= {
        *(entry["name"].removeprefix("lib") for entry in found["video"]["encoders"] if entry["usable"]),
        *(model["name"] for model in found["installation"]["models"]),
    }
    assert found["installation"]["cache"]["folder"].startswith("~")
    assert all(found[section]["fault"] is None for section in ("installation", "video", "nvidia"))


def test_for_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime", reason="the fakes are made of it")
    write_fakes(tmp_path, monkeypatch, "absent", "good", "lying")
    assert run("doctor") == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "missing     absent: absent is not installed (pip install absent)" in lines
    assert any(line.startswith("works       good on CPUExecutionProvider, fp32, at most") for line in lines)
    assert any(line.startswith("wrong       lying on CPUExecutionProvider, fp32: is off by up to") for line in lines)
    assert "auto takes  good, CPUExecutionProvider, fp32" in lines
    assert "      pip install absent" not in lines
    assert lines[-1].startswith("vidsr works here")


def test_no_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime", reason="the fakes are made of it")
    write_fakes(tmp_path, monkeypatch, "absent", "lying")
    assert run("doctor") == 1
    lines = capsys.readouterr().out.splitlines()
    assert "      pip install absent" in lines
    assert lines[-1].startswith("vidsr does not work here")
    assert run("doctor", "--no-smoke") == 0  # what lies looks well
    lines = capsys.readouterr().out.splitlines()
    assert "unchecked   lying on CPUExecutionProvider, fp32" in lines
    assert lines[-1].startswith("looks usable; nothing was run")


@pytest.mark.parametrize("options", [[], ["--no-smoke"]])
def test_what_auto_takes_must_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    pytest.importorskip("onnxruntime", reason="the fakes are made of it")
    write_fakes(tmp_path, monkeypatch, "raising", "good")
    assert run("doctor", *options) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("vidsr does not work here without --backend: it takes raising")
    assert "      vidsr IN OUT --backend good" in lines
    assert any(line.startswith("  raising does not work here: RuntimeError: no such symbol") for line in lines)


def test_what_is_missing_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_fakes(tmp_path, monkeypatch, "absent")
    monkeypatch.setattr(backends, "PREFERENCE", (("absent", "cuda"), ("absent", "auto")))
    assert run("doctor") == 1
    assert capsys.readouterr().out.count("absent is not installed") == 2  # and once more as advice


INTERRUPTED = """
import os, signal, subprocess, sys
from vidsr.cli import doctor, main

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a script starts with &

def interrupt(waiting, name):
    if name == sys.argv[1]:
        signal.raise_signal(signal.SIGINT)

class Process(subprocess.Popen):
    def __init__(self, command, *rest, **settings):
        super().__init__(command, *rest, **settings)
        if f"starting {command[-1]}" == sys.argv[1]:
            signal.raise_signal(signal.SIGINT)

doctor.Waiting.__call__ = interrupt
subprocess.Popen = Process
try:
    main(["doctor"])
finally:
    try:
        print("left:", os.waitpid(-1, os.WNOHANG))
    except ChildProcessError:
        print("nothing left")
"""


@pytest.mark.skipif(os.name != "posix", reason="waits for any child, which only POSIX can")
@pytest.mark.parametrize("moment", ["installation", "starting installation", "starting nvidia", "video", "openvino"])
def test_an_interrupt_ends_it(moment: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, moment], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr.strip(), ended.stdout) == (130, "vidsr: interrupted", "nothing left\n")


def test_when_vidsr_itself_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(vidsr, "backends")
    monkeypatch.setitem(sys.modules, "vidsr.backends", None)
    report = examine(smoke=False)
    assert not report.ok
    assert report.backends == []
    assert report.advice[0]["problem"].startswith("vidsr cannot be loaded")
    assert report.video["pyav"]


def test_a_hang_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fake_hanging.py").write_text("import threading\nthreading.Event().wait()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    child = Child("backend", "fake_hanging", "auto", "no", "", patience_seconds=2)
    listen([child], SimpleQueue())
    assert not child.runs
    assert child.kind == "hung"
    assert (child.fault or "").startswith("hung (silent for 2 s)")


def test_a_child_that_is_not_needed_any_more_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fake_hanging.py").write_text("import threading\nthreading.Event().wait()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    child = Child("backend", "fake_hanging", "auto", "no", "")
    heard: Heard = SimpleQueue()
    listen([child], heard, until="doing")
    assert child.found["doing"] == "loading vidsr"
    assert child.runs
    child.close()
    child.close()
    assert not child.runs
    child.hear(b'{"error": "too late"}')
    assert "error" not in child.found
    assert child.fault is None


def test_looking_loads_nothing() -> None:
    """Whatever library is broken, the doctor itself starts."""
    code = "import sys, vidsr.doctor; print([name for name in ('numpy', 'onnx', 'av', 'torch') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor", "--help") == 0
    text = capsys.readouterr().out
    assert "--no-smoke" in text
    assert "--json" in text


def test_the_home_folder_is_not_told() -> None:
    found = {"a": ["/home/jo/.cache", "no file '/home/jo'"], "b": "/home/joan/x", "c": 1}
    assert without_home(found, "/home/jo") == {"a": ["~/.cache", "no file '~'"], "b": "/home/joan/x", "c": 1}
    assert without_home("/root/x", "/") == "/root/x"


@pytest.mark.parametrize(
    ("state", "settled", "taken"),
    [
        ("missing", False, "second"),
        ("refused", False, "second"),
        ("refused", True, "first"),
        ("crashed", False, "first"),
        ("failed", False, "first"),
        ("works", True, "first"),
    ],
)
def test_auto_is_what_vidsr_would_take(state: State, settled: bool, taken: str) -> None:
    """It passes over what says that it cannot be used; what fails later, or takes the process along, it has taken."""
    first = Check(backend="first", asked="auto", state=state, precision="fp32" if settled else None)
    second = Check(backend="second", asked="auto", state="works", precision="fp32")
    assert auto([second, first], (("first", "auto"), ("second", "auto")))["backend"] == taken


def test_tensorrt_is_advised_to_who_has_a_card() -> None:
    lacks = Check(backend="tensorrt", asked="auto", state="missing", reason="not there", command="pip install tensorrt")
    chosen = {"backend": "openvino", "state": "works"}
    assert advice([lacks], chosen, {"cards": []}, {}) == []
    assert [entry["command"] for entry in advice([lacks], chosen, {"cards": [{}]}, {})] == ["pip install tensorrt"]
    (given,) = advice([lacks], chosen, {"cards": [], "present": True, "reason": "no driver"}, {})
    assert given["problem"] == "an NVIDIA card cannot be used: no driver"


def test_advice_for_what_is_broken() -> None:
    """What does not load is to be installed again, also where something else works; what is not there is left alone."""
    again = "pip install --force-reinstall onnxruntime"
    broken = Check(backend="onnxruntime", asked="auto", state="missing", reason="x", command=again, version="1.31")
    absent = Check(backend="torch", asked="auto", state="missing", reason="not there", command="pip install torch")
    failed = Check(backend="torch", asked="auto", state="failed", reason="a bug")
    works = Check(backend="openvino", asked="auto", state="works", precision="fp32")
    chosen = {"backend": "openvino", "state": "works"}
    assert [entry["command"] for entry in advice([works, broken, absent], chosen, {}, {})] == [again]
    assert advice([works, failed], chosen, {}, {}) == [{"problem": "torch does not work here: a bug", "command": None}]
    alone = advice([broken, absent], {"backend": None, "state": "missing"}, {}, {})
    assert [entry["command"] for entry in alone] == [again, "pip install torch"]


CPUINFO = """processor : 0
model name : Some CPU @ 2 GHz
flags : fpu avx2 avx512f avx512_bf16 amx_tile
"""


@pytest.mark.parametrize(
    ("files", "allowed"),
    [
        ({"/sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"/sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        (
            {
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            4.0,
        ),
        ({"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_processor(monkeypatch: pytest.MonkeyPatch, files: dict[str, str], allowed: float | None) -> None:
    contents = {"/proc/cpuinfo": CPUINFO} | files
    monkeypatch.setattr(machine, "_text", lambda path: contents.get(path, ""))
    monkeypatch.setattr(machine.sys, "platform", "linux")
    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")
    found = machine.processor()
    assert found["name"] == "Some CPU @ 2 GHz"
    assert found["cores_allowed"] == allowed
    assert found["features"] == {"AVX2": True, "AVX-512": True, "VNNI": False, "BF16": True, "AMX": True}
