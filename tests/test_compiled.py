"""`vidsr build` and `vidsr cache`: models compiled ahead of a run, and what is kept of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from tests.test_cli import run
from tests.test_plans import KEY, PLAN
from vidsr import compiled
from vidsr.backends.trt.plans import PlanCache
from vidsr.errors import Cancelled, MemoryBudgetError
from vidsr.job import EnginePlan, Settings
from vidsr.job.engine import cache_folder


@pytest.fixture
def build(nearest: Path) -> Callable[..., compiled.Built]:
    settings = Settings(model=str(nearest), backend="openvino")
    return lambda size=(32, 32), **more: compiled.build(size, settings=settings, **more)


@pytest.fixture
def plans() -> PlanCache:
    """The cache of TensorRT's plans, with one in it."""
    cache = PlanCache(cache_folder() / "tensorrt")
    with cache.building(KEY, Event()):
        cache.put(KEY, PLAN, 1.0)
    return cache


def planned(monkeypatch: pytest.MonkeyPatch, change: Callable[[EnginePlan], EnginePlan]) -> None:
    plan_engine = compiled.plan_engine
    monkeypatch.setattr(compiled, "plan_engine", lambda *given, **more: change(plan_engine(*given, **more)))


# Building


@pytest.mark.parametrize("size", ["0x0", "0x1", "32x0", "0x0..0x0", "32x32..0x0", "32x32..16x64"])
def test_impossible_size(nearest: Path, capsys: pytest.CaptureFixture[str], size: str) -> None:
    assert run("build", "--model", nearest, "--size", size) == 2
    said = capsys.readouterr().err
    assert said.startswith("vidsr: --size: ")
    assert said.count("\n") == 1


def test_range_of_one_size_is_that_size(build: Callable[..., compiled.Built], monkeypatch: pytest.MonkeyPatch) -> None:
    """Which every backend can compile; a plan for a range would be taken by no run."""
    sizes: list[Any] = []

    def note(plan: EnginePlan) -> EnginePlan:
        sizes.append(plan.options.sizes)
        return plan

    planned(monkeypatch, note)
    assert build((32, 48), largest=(32, 48)).slots
    assert sizes == [None]


def test_what_a_run_of_another_factor_would_take(nearest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models and their guards are those of the run to come."""
    plans: list[EnginePlan] = []

    def kept(plan: EnginePlan) -> EnginePlan:
        plans.append(plan)
        return plan

    planned(monkeypatch, kept)
    options = ["--size", "32x32", "--backend", "openvino", "--scale", "4", "--guard", "on"]
    assert run("build", "--model", nearest, *options) == 0
    assert (plans[0].model.name, plans[0].target.width, plans[0].guard) == ("nearest+nearest", 128, "on+on")
    assert run("build", "--model", nearest, *options, "--scale", "100") == 2


def test_range_that_would_need_tiles(build: Callable[..., compiled.Built], monkeypatch: pytest.MonkeyPatch) -> None:
    class Tensorrt:
        name = "tensorrt"

        def prepare(self, *given: Any) -> None:
            raise AssertionError("nothing may be built")

    planned(monkeypatch, lambda plan: replace(plan, backend=Tensorrt(), tile=(32, 32)))  # type: ignore[arg-type]
    with pytest.raises(MemoryBudgetError, match=r"--size: frames of 64x48 do not fit .* smaller largest size"):
        build((32, 32), largest=(48, 64))


@pytest.mark.parametrize("step", ["prepare", "open"])
def test_stopped(build: Callable[..., compiled.Built], monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """At the next step, even where the backend did not look."""
    stop, done = Event(), list[str]()

    def watched(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            if name == step:
                stop.set()
            done.append(name)
            return method(*given)

        return call

    for name in ("prepare", "open"):
        monkeypatch.setattr(EnginePlan, name, watched(name, getattr(EnginePlan, name)))
    with pytest.raises(Cancelled):
        build(stop=stop)
    assert done[-1] == step


def test_interrupted(nearest: Path) -> None:
    """By a signal while the engine is made: one line, and 130."""
    code = (
        "import os, signal, sys\n"
        "from vidsr.cli import main\n"
        "from vidsr.job import EnginePlan\n"
        "made = EnginePlan.open\n"
        "EnginePlan.open = lambda plan: (os.kill(os.getpid(), signal.SIGINT), made(plan))[1]\n"
        "main(['build', '--model', sys.argv[1], '--size', '32x32', '--backend', 'openvino'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(nearest)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (130, "", 1)


def test_idle_card_is_named(build: Callable[..., compiled.Built], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "idle_note", lambda settings, plan: "the NVIDIA card is not used: so")
    said: list[str] = []
    build(on_warning=said.append)
    assert said == ["the NVIDIA card is not used: so"]


# The cache


def test_list(plans: PlanCache, build: Callable[..., compiled.Built], capsys: pytest.CaptureFixture[str]) -> None:
    build()
    assert run("cache", "list") == 0
    heading, plan, graph = capsys.readouterr().out.splitlines()
    assert heading.split()[0] == "what"
    assert "span 640x360 fp16" in plan
    assert "NVIDIA GeForce RTX 4090" in plan
    assert graph.startswith("compiled graph ")
    assert "OpenVINO" in graph


def test_list_holds_nothing_that_a_terminal_obeys(plans: PlanCache, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = plans.folder.glob("*.json") if plans.folder else ()
    told = json.loads(path.read_text())
    told["key"] |= {"device": "\x1b]0;title\x07", "model": "two\nlines"}
    path.write_text(json.dumps(told))
    assert run("cache", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("content", ['{"built": 1e300}', "[" * 100_000])
def test_list_with_a_damaged_description(plans: PlanCache, capsys: pytest.CaptureFixture[str], content: str) -> None:
    (path,) = plans.folder.glob("*.json") if plans.folder else ()
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | json.loads(content)) if content.endswith("}") else content)
    assert run("cache", "list") == 0
    assert "damaged TensorRT plan" in capsys.readouterr().out


def test_clear(plans: PlanCache, build: Callable[..., compiled.Built], capsys: pytest.CaptureFixture[str]) -> None:
    build()
    assert run("cache", "clear") == 0
    assert capsys.readouterr().out == "removed 2 compiled models\n"
    assert not list(compiled.kept())
    assert run("cache", "clear") == 0
    assert capsys.readouterr().out == "nothing was kept\n"


def test_clear_through_a_link(
    build: Callable[..., compiled.Built], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only what is ours goes, wherever the folder lies."""
    build()
    folder = cache_folder() / "openvino"
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "letter.blob").touch()
    assert run("cache", "clear") == 0
    assert capsys.readouterr().out == "removed 1 compiled model\n"
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["letter.blob"]


def test_clear_says_what_it_could_not(capsys: pytest.CaptureFixture[str]) -> None:
    stubborn = cache_folder() / "openvino" / "123.blob"
    stubborn.mkdir(parents=True)
    assert run("cache", "clear") == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert str(stubborn) in said.err
    assert said.err.count("\n") == 1
