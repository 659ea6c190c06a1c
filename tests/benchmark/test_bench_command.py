"""`vidsr bench`: what it prints and keeps, and what it refuses."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vidsr import cli
from vidsr.benchmark import limits, peak, stage
from vidsr.benchmark.result import Advice, Limits, Result, Share, read, text, write
from vidsr.benchmark.table import lines
from vidsr.errors import InputError, OutputError

Run = Callable[..., tuple[int, str, str]]

RESULT = Result(
    made="2026-01-02T03:04:05+00:00",
    settings={
        "source": "a.mp4", "size": "640x360", "output": "1280x720", "frames": 100, "model": "span",
        "backend": "openvino", "device": "CPU", "precision": "bf16", "slots": 4, "streams": 1, "encoder": "libx264",
    },
    machine=Limits(
        processor="A processor", cores=2, device="CPU", matrix_gflops={"fp32": 500.0, "bf16": 1000.0}, memory_gbps=40.0
    ),
    versions={"vidsr": "0.1.0"},
    stages=(
        Share(name="decode", ms=0.5, cpu_ms=1.0),
        Share(name="copy in", ms=0.02, cpu_ms=0.02, bound="memory", bound_ms=0.01),
        Share(name="inference", ms=200.0, cpu_ms=400.0, bound="matrix bf16", bound_ms=180.0),
        Share(name="copy out", ms=0.08, cpu_ms=0.08, bound="memory", bound_ms=0.04),
        Share(name="encode", ms=22.0, cpu_ms=39.0),
    ),
    rounds=(4.4, 4.3, 4.5),
    fps=4.4,
    bound_fps=4.545,
    busy={"decode": 0.1, "model": 0.98, "encode": 0.2},
    advice=Advice(limit="inference", change="--model span-fast", gain=7.0, text="model-bound: so it is"),
    reused=0.25,
)  # fmt: skip


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """(exit code, standard output, standard error)"""
    monkeypatch.setattr(stage, "_SECONDS", 0.02)
    monkeypatch.setattr(stage, "_UNCACHED_BYTES", 2**20)
    monkeypatch.setattr(peak, "_SECONDS", 0.0)
    monkeypatch.setattr(peak, "_PROCESSOR", (peak._Load(kernel=3, channels=64, layers=2, side=32),))
    monkeypatch.setattr(limits, "_COPIED_BYTES", 2**20)

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["bench", *map(str, arguments)])
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


def test_a_result_comes_back_from_its_file(tmp_path: Path) -> None:
    write(tmp_path / "a.json", RESULT)
    assert read(tmp_path / "a.json") == RESULT
    assert json.loads(text(RESULT))["efficiency"] == pytest.approx(4.4 / 4.545, abs=1e-5)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"vidsr_bench": 1}', '{"vidsr_bench": 99}', "not json", '{"vidsr_bench": 1, "made": 2']
)
def test_what_is_no_result_is_refused_in_one_line(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(InputError, match="was not made by") as refused:
        read(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("wrong", [{"stages": [1]}, {"machine": None}, {"rounds": ["x"]}, {"advice": {}}])
def test_a_result_with_wrong_parts_is_refused(wrong: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**json.loads(text(RESULT)), **wrong}))
    with pytest.raises(InputError, match="was not made by"):
        read(path)


def test_files_that_are_not_there_or_cannot_be_written_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "none.json")
    with pytest.raises(OutputError, match="cannot be written"):
        write(tmp_path / "none" / "a.json", RESULT)


def test_the_table_has_every_stage_the_whole_and_the_sentence() -> None:
    rows = [*lines(RESULT)]
    page = "\n".join(rows)
    assert "a.mp4: 640x360 -> 1280x720, 100 frames" in rows
    inference = next(row for row in rows if row.startswith("inference"))
    assert "90 % of matrix bf16" in inference
    assert inference.count("#") > 18
    assert "(in decode)" in next(row for row in rows if row.startswith("copy in"))
    assert "4.40 frames a second (3 runs: 4.30 to 4.50)" in page
    assert "97% are reached" in page
    assert rows[-1] == RESULT.advice.text
    assert all(len(row) <= 100 for row in rows)
    assert "warning" not in page


def test_the_table_warns_of_other_work_and_of_what_is_lost() -> None:
    busy = replace(RESULT, machine=replace(RESULT.machine, load=3.5), fps=2.0)
    page = "\n".join(lines(busy))
    assert "warning: the machine was busy with other work before this began (load 3.5)" in page
    assert "44% are reached" in page
    assert "vidsr tune" in page


def test_json_goes_to_standard_output_and_is_a_result(run: Run, nearest: Path, tmp_path: Path) -> None:
    options = ["--model", nearest, "--device", "cpu", "--size", "64x64", "--seconds", 0.4, "--frames", 4]
    code, out, _ = run(*options, "--rounds", 1, "--preset", "ultrafast", "--json")
    assert code == 0
    (tmp_path / "out.json").write_text(out)
    found = read(tmp_path / "out.json")
    assert found.settings["source"] == "generated clip (live)"
    assert (found.settings["size"], found.settings["output"]) == ("64x64", "128x128")
    assert found.settings["frames"] == 4
    assert found.advice.text


def test_a_file_gets_the_json_and_people_the_table(run: Run, nearest: Path, clip: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    code, out, _ = run(
        clip, "--model", nearest, "--device", "cpu", "--frames", 4, "--rounds", 2, "--sink", "null", "--size", "50%",
        "--json", kept,
    )  # fmt: skip
    assert code == 0
    found = read(kept)
    assert len(found.rounds) == 2
    assert "encode" not in [share.name for share in found.stages]
    assert f"{clip.name}: 64x48 -> 32x24, 4 frames" in out
    assert "no encoder" in out
    assert found.advice.text.split(":")[0] in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.mkv"], "none.mkv"),
        (["--size", "641x360"], "even numbers"),
        (["--size", "large"], "--size large"),
        (["--size", "0x0"], "even numbers"),
        (["--against", "--help", "--size", "64x64"], "--against '--help'"),
        (["--json", "clip.mp4"], "ends in .json"),
        (["--kind", "live", "clip.mp4"], "where no IN is given"),
        (["--model", "none", "--size", "64x64", "--seconds", "0.2"], "none"),
        (["--encoder", "none", "--size", "64x64", "--seconds", "0.2"], "no such encoder"),
        (["--plot", "a.txt"], ".svg"),
        (["--compare", "a.json", "b.json"], "a.json"),
        (["--sweep", "colour", "--size", "64x64", "--seconds", "0.2"], "colour"),
        (["--compare", "a.json", "b.json", "clip.mp4"], "measures nothing, so IN says"),
        (["--compare", "a.json", "b.json", "--plot", "a.svg"], "measures nothing, so --plot"),
        (["--compare", "a.json", "b.json", "--rounds", "7"], "measures nothing, so --rounds"),
        (["--json", "none/a.json"], "there is no folder none"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(run: Run, arguments: list[str], said: str) -> None:
    code, _, err = run(*arguments)
    assert code in (1, 2)
    assert said in err
    assert err.startswith("vidsr: ")
    assert err.count("\n") == 1


_KILLED = """
import os, sys, tempfile
from pathlib import Path
from vidsr import cli
from vidsr.benchmark import measure

def killed(source, *arguments, **more):
    assert source.is_relative_to(tempfile.tempdir)
    os.kill(os.getpid(), int(sys.argv[1]))
    for _ in range(10**6):
        pass
    raise AssertionError("nothing ended it")

tempfile.tempdir, measure.measure = sys.argv[2], killed
cli.main(["bench", "--size", "64x64", "--seconds", "0.2"])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_ends_it_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _KILLED, str(int(number)), str(tmp_path)]
    # Whoever started this may have told it to take no notice of a Ctrl-C.
    heeding = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    finally:
        signal.signal(signal.SIGINT, heeding)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "vidsr: interrupted")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    "change",
    [
        lambda told: "[" * 100_000,
        *(
            lambda told, name=name, value=value: json.dumps(told | {name: value})
            for name, value in (
                ("fps", "x"), ("fps", 10**400), ("rounds", []), ("rounds", [0]), ("bound_fps", math.nan),
                ("settings", [1]), ("stages", [1]), ("machine", None), ("versions", 3),
            )
        ),
        *(
            lambda told, name=name, value=value: json.dumps(told | {"stages": [told["stages"][0] | {name: value}]})
            for name, value in (("name", []), ("name", "sleep"), ("ms", "x"), ("ms", math.inf), ("ms", None), ("ms", 0))
        ),
    ],
)  # fmt: skip
def test_a_damaged_result_is_none(tmp_path: Path, change: Callable[[Any], str]) -> None:
    path = tmp_path / "a.json"
    write(path, RESULT)
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(InputError, match=r"^\S*a\.json: was not made by `vidsr bench --json` of this version$"):
        read(path)


def test_more_than_can_be_is_said() -> None:
    page = " ".join(lines(replace(RESULT, bound_fps=4.1)))
    assert "107% are reached" in page
    assert "measure again" in page
    assert "measure again" not in " ".join(lines(replace(RESULT, bound_fps=4.4)))
    assert "reused      25% of the model's work" in page


def test_json_never_overwrites_a_video(run: Run, clip: Path) -> None:
    before = clip.read_bytes()
    assert run("--json", clip)[0] == 2
    assert clip.read_bytes() == before
