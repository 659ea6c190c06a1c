"""Several ways measured in turn. Speeds are not looked at, only that each was measured, when, and what is said."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.benchmark.test_comparison import result
from vidsr.benchmark import sweep
from vidsr.benchmark.comparison import ratio_of
from vidsr.benchmark.interval import median_interval
from vidsr.benchmark.result import write
from vidsr.benchmark.sweep import Row, Sweep, Way, fastest, lines, measure, verdicts, ways_of
from vidsr.cli import main
from vidsr.errors import ModelError, UsageError
from vidsr.job import Settings


@pytest.fixture
def base(nearest: Path) -> Settings:
    return Settings(model=str(nearest), guard="off", precision="fp32")


def named(name: str, settings: Settings) -> Way:
    return Way(name=name, options={"name": name}, settings=settings)


def row(name: str, rounds: list[float], base: list[float]) -> Row:
    return Row(
        name=name,
        options={},
        engine="",
        frames=8,
        rounds=tuple(rounds),
        fps=median_interval(rounds),
        ratio=ratio_of(base, rounds),
    )


# Ways


def test_ways_are_all_combinations() -> None:
    ways = ways_of(["precision", "slots"], Settings(model="span-fast"))

    pairs = {(way.settings.precision, way.settings.slots) for way in ways}
    assert len(pairs) == len(ways) == 4 * len(sweep.DIMENSIONS["slots"]())
    assert {way.settings.model for way in ways} == {"span-fast"}
    assert "bf16, slots 4" in {way.name for way in ways}
    assert len({way.name for way in ways}) == len(ways)


@pytest.mark.parametrize("dimensions", [["backend", "speed"], []])
def test_what_cannot_be_swept_is_refused(dimensions: list[str]) -> None:
    with pytest.raises(UsageError, match=r"^--sweep .*backend, precision, slots, streams"):
        ways_of(dimensions, Settings())


# Measuring


def test_rounds_are_made_in_turn(clip: Path, base: Settings) -> None:
    told: list[str] = []
    ways = [named("two", replace(base, slots=2)), named("four", replace(base, slots=4))]

    found = measure(clip, ways, base="two", sink="null", frames=4, rounds=3, tell=told.append)

    turns = [line.split(", round ") for line in told if "round" in line]
    assert [name for name, _ in turns] == ["two", "four", "four", "two", "two", "four"]
    rows = {one.name: one for one in found.rows}
    assert {one.frames for one in found.rows} == {4}
    assert rows["two"].ratio.middle == 1
    assert rows["four"].ratio == ratio_of(rows["two"].rounds, rows["four"].rounds)
    assert [one.fps.middle for one in found.rows] == sorted((one.fps.middle for one in found.rows), reverse=True)
    assert found.base == "two"
    assert found.about["source"] == clip.name
    assert found.about["size"] == "64x48"


def test_what_cannot_be_had_is_named_once(clip: Path, base: Settings) -> None:
    """The model has no INT8 form, whatever the slots are."""
    ways = ways_of(["precision", "slots"], base)

    found = measure(clip, ways, sink="null", frames=2, rounds=1)

    assert "fp32, slots 2" in {one.name for one in found.rows}
    assert "--precision int8" in found.refused["int8"]
    assert len(found.rows) + 4 * len(found.refused) == len(ways)
    assert found.base == found.rows[0].name


def test_equal_ways_are_measured_once(clip: Path, base: Settings) -> None:
    ways = [named("fp32", base), named("openvino", replace(base, backend="openvino"))]

    found = measure(clip, ways, sink="null", frames=2, rounds=1)

    assert [one.name for one in found.rows] == ["fp32"]
    assert found.refused == {"openvino": "the same as fp32"}


def test_a_base_may_be_measured_against_itself(clip: Path, base: Settings) -> None:
    found = measure(clip, [named("a", base), named("b", base)], base="a", sink="null", frames=2, rounds=1)

    assert {one.name for one in found.rows} == {"a", "b"}
    assert not found.refused


def test_a_base_that_cannot_be_had_is_an_error(clip: Path, base: Settings) -> None:
    with pytest.raises(ModelError):
        measure(clip, [named("a", replace(base, model="none.onnx")), named("b", base)], base="a", rounds=1)


def test_nothing_to_measure_is_an_error(clip: Path, base: Settings) -> None:
    with pytest.raises(UsageError, match=r"^nothing of this can be measured here: .*none\.onnx"):
        measure(clip, [named("a", replace(base, model="none.onnx"))], rounds=1)


# What is said


def made(**rounds: list[float]) -> Sweep:
    base = next(iter(rounds.values()))
    rows = tuple(row(name, values, base) for name, values in rounds.items())
    return Sweep(about={}, base=rows[0].name, rows=rows, refused={"tensorrt": "no card"})


def test_table_and_conclusion() -> None:
    found = made(best=[50.0, 51, 52, 53, 54], near=[49.5, 51.5, 51, 52, 54.5], far=[10.0, 10.2, 10.4, 10.6, 10.8])

    rows: list[Any] = [line.split() for line in lines(found)]
    assert rows[1] == ["best", "52.00", "(50.00", "to", "54.00)"]
    assert rows[3] == ["far", "10.40", "(10.00", "to", "10.80)", "0.20x", "(0.20", "to", "0.20)"]
    assert lines(found)[-1] == "not measured: tensorrt: no card"
    assert fastest(found) == "fastest: best; 5 rounds cannot tell from it: near"
    assert verdicts(found)[1] == "far is slower than best by 5.00x (5.00 to 5.00)"


def test_few_rounds_cannot_tell_anything() -> None:
    found = made(best=[50.0, 51], far=[10.0, 11])

    assert fastest(found) == "fastest: best, perhaps: 2 rounds are too few to be sure, make 5"


# The command


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs `vidsr bench` with these arguments: (exit code, lines of standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[Any, list[str], str]:
        with pytest.raises(SystemExit) as left:
            main(["bench", *map(str, arguments)])
        out, err = capsys.readouterr()
        return left.value.code, out.splitlines(), err

    return run


def test_against_says_what_an_option_changes(run: Any, clip: Path, nearest: Path, tmp_path: Path) -> None:
    code, lines, err = run(
        clip, "--model", nearest, "--sink", "null", "--frames", 4, "--precision", "fp32", "-e", "tune=film",
        "--against", "--slots 2 -e bf=0", "--against", "--streams 1", "--json", "kept.json",
    )  # fmt: skip

    assert (code, err) == (0, "")
    kept = json.loads((tmp_path / "kept.json").read_text())
    rows = {row["name"]: row for row in kept["rows"]}
    assert set(rows) == {"without it", "--slots 2 -e bf=0", "--streams 1"}
    assert rows["--slots 2 -e bf=0"]["options"] == {"slots": 2, "encoder_options": {"tune": "film", "bf": "0"}}
    assert {len(row["rounds"]) for row in rows.values()} == {5}
    assert kept["about"]["source"] == clip.name
    assert [line for line in lines if line.startswith(("--slots 2 -e bf=0 is", "no difference")) and "without" in line]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--against", "--sink null"], "--against '--sink null': name options of `vidsr IN OUT`"),
        (["--against", "--model 'x"], "--against \"--model 'x\": No closing quotation"),
        (["--against", "--speed 3"], "--against '--speed 3': No such option"),
        (["--against", "other.mkv"], "--against 'other.mkv': name options"),
        (["--against", ""], "--against '': name options"),
        (["--against", "--slots 2", "--sweep", "slots"], "ask one at a time"),
        (["--compare", "a.json", "b.json", "--plot", "c.svg"], "--compare measures nothing, so --size"),
        (["--sweep", "speed"], "--sweep speed: name some of backend, precision, slots, streams"),
        (["--plot", "c.pdf"], "--plot c.pdf: name a file that ends in .svg or .png"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(run: Any, arguments: list[str], expected: str) -> None:
    code, lines, err = run("--size", "64x64", *arguments)

    assert (code, lines) == (2, [])
    assert expected in err and err.count("\n") == 1


def test_plot_without_matplotlib_says_what_to_install(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("vidsr.cli.bench.find_spec", lambda name: None)

    code, _, err = run("--sweep", "slots", "--plot", "a.svg")

    assert code == 2
    assert "pip install 'vidsr[bench]'" in err


def test_compare_reads_what_was_kept(run: Any, tmp_path: Path) -> None:
    for name, fps in (("a.json", 20.0), ("b.json", 30.0)):
        write(tmp_path / name, result([fps * share for share in (0.97, 0.98, 0.99, 1.0, 1.01)]))

    code, lines, err = run("--compare", "a.json", "b.json")

    assert (code, err) == (0, "")
    assert lines[-1].startswith("in these runs, b.json is faster than a.json by 1.5")
    code, lines, _ = run("--compare", "a.json", "b.json", "--json")
    assert json.loads(lines[0])["ratio"]["middle"] == pytest.approx(1.5, abs=0.01)
    assert run("--compare", "a.json", "c.json")[0] == 1
