"""The ratios that CI watches: what counts as fallen, and that each can be measured. Their size is not tested."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest

from benchmarks import ratios
from benchmarks.ratios import KEPT, Ratio, fallen, kind, medians
from vidsr.benchmark.whole import job_in
from vidsr.job import Settings

USUAL = {"span-fast of its bound": 0.95, "reuse over none, screen": 2.0, "pipeline over a plain loop": 1.3}


@pytest.mark.parametrize("name", USUAL)
def test_a_slowdown_is_caught(name: str) -> None:
    """Something makes one thing take a third longer than it did."""
    assert fallen(USUAL | {name: USUAL[name] / 1.35}, USUAL) == [name]


def test_noise_is_no_slowdown() -> None:
    draw = random.Random(3)
    for _ in range(1000):
        found = {name: value * draw.uniform(0.9, 1.1) for name, value in USUAL.items()}
        kept = {name: value * draw.uniform(0.95, 1.05) for name, value in USUAL.items()}
        assert fallen(found, kept) == []


def test_what_cannot_be_measured_any_more_has_fallen() -> None:
    first, *others = USUAL
    assert fallen({name: USUAL[name] for name in others}, USUAL) == [first]


def test_gains_and_what_is_not_known_are_no_slowdown() -> None:
    assert fallen(USUAL | {"pipeline over a plain loop": 9.0, "something new": 0.01}, USUAL) == []


def measured(values: list[float]) -> Ratio:
    rest = itertools.cycle(values)
    return Ratio(name="it", measure=lambda: next(rest))


def test_the_median_of_rounds_counts() -> None:
    assert medians([measured([1.0, 9.0, 1.2])], 3, seconds=60) == {"it": 1.2}


def test_there_is_a_round_even_without_time() -> None:
    assert medians([measured([1.0, 9.0, 9.0])], 3, seconds=-1) == {"it": 1.0}


def test_what_has_fallen_is_measured_until_it_is_as_it_was() -> None:
    kept = {"it": 2.0, "other": 1.0}
    other = Ratio(name="other", measure=pytest.fail)
    ratio = measured([1.0, 1.2, 2.0, 1.4, 1.3, 2.1, 1.9, 1.0, 2.0])
    assert ratios.insisting([ratio, other], {"it": 1.0, "other": 1.0}, kept, 60) == {"it": 1.9, "other": 1.0}


def test_what_stays_fallen_is_given_up() -> None:
    assert ratios.insisting([measured([1.0])], {"it": 0.9}, {"it": 2.0}, 0.1) == {"it": 1.0}
    assert ratios.insisting([measured([1.0])], {"it": 0.9}, {"it": 2.0}, 0) == {"it": 0.9}


# The command


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Ratios of a processor that is known; what is measured is that of the test."""
    path = tmp_path / "ratios.json"
    path.write_text(json.dumps({kind(): {"it": 2.0}, "another": {"it": 50.0}}))
    monkeypatch.setattr(ratios, "KEPT", path)
    monkeypatch.setattr(ratios, "PATIENCE_SECONDS", 0.1)
    return path


def command(monkeypatch: pytest.MonkeyPatch, values: list[float], *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["ratios", *arguments])
    monkeypatch.setattr(ratios, "ratios_in", lambda folder, leaving: [measured(values)])
    return ratios.main()


@pytest.mark.parametrize(
    ("values", "code"),
    [([2.0], 0), ([1.8], 0), ([1.6], 0), ([1.0], 1), ([*[1.0] * ratios.MOST_ROUNDS, 2.0, 2.0, 1.0], 0)],
    ids=["as it was", "a tenth less", "a fifth less", "half", "half, but not when measured again"],
)
def test_it_fails_where_a_ratio_fell(
    staged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], values: list[float], code: int
) -> None:
    before = staged.read_text()

    assert command(monkeypatch, values) == code
    assert ("fallen" in capsys.readouterr().out) == bool(code)
    assert staged.read_text() == before


def test_recording_keeps_other_kinds(staged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(monkeypatch, [1.0], "--record") == 0

    assert json.loads(staged.read_text()) == {kind(): {"it": 1.0}, "another": {"it": 50.0}}


def test_an_unknown_kind_is_told_and_not_judged(
    staged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    staged.write_text(json.dumps({"another": {"it": 50.0}}))

    assert command(monkeypatch, [1.0]) == 0
    assert "nothing of this kind of processor" in capsys.readouterr().out


def test_what_is_committed_can_be_read() -> None:
    for values in json.loads(KEPT.read_text(encoding="utf-8")).values():
        assert all(value > 0 for value in values.values())
        # One that does no good any more has fallen.
        reuse = {name: 1.0 for name in values if name.startswith("reuse")}
        assert reuse
        assert fallen(values | reuse, values) == list(reuse)


def test_what_is_measured_can_be(tmp_path: Path, clip: Path) -> None:
    """On next to nothing; CI measures all of it."""
    model = ratios.cubic_model(tmp_path / "cubic.onnx")
    with job_in(clip, Settings(model=str(model), guard="off", precision="fp32")) as job:
        assert ratios.plain_loop(job, 4) > 0
        assert ratios.of_bound(job)() > 0
        assert ratios.of_peak(job)() == 0  # it multiplies nothing
