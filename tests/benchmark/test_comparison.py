"""Two results side by side: what few noisy rounds can show, and what they cannot."""

from __future__ import annotations

import itertools
import random
import statistics
from dataclasses import replace
from typing import Any

import pytest

from vidsr.benchmark.comparison import compare, lines, verdict
from vidsr.benchmark.interval import median_interval, ratio_interval
from vidsr.benchmark.result import Advice, Limits, Result, Share
from vidsr.errors import InputError

MACHINE = Limits(processor="a processor", cores=2, device="CPU", matrix_gflops={"fp32": 100.0}, memory_gbps=10.0)
NAMES = ("a.json", "b.json")


def result(rounds: list[float], **settings: Any) -> Result:
    return Result(
        made="2026-01-01",
        settings={"source": "live", "size": "640x360", "sink": "file", "model": "span", **settings},
        machine=MACHINE,
        versions={"vidsr": "0.1.0"},
        stages=(Share(name="decode", ms=2.0, cpu_ms=2.0), Share(name="inference", ms=20.0, cpu_ms=40.0)),
        rounds=tuple(rounds),
        fps=statistics.median(rounds),
        bound_fps=50.0,
        busy={},
        advice=Advice(limit="inference", change="", gain=1.0, text=""),
    )


# Intervals


@pytest.mark.parametrize(
    ("count", "lowest", "sure"),
    [(1, 1, 0), (2, 1, 0.5), (3, 1, 0.75), (4, 1, 0.875), (5, 1, 0.9375), (8, 2, 0.9297), (11, 3, 0.9346)],
)
def test_interval_of_a_median_is_that_of_the_tables(count: int, lowest: int, sure: float) -> None:
    found = median_interval(random.Random(1).sample(range(1, count + 1), count))

    assert (found.low, found.high) == (lowest, count + 1 - lowest)
    assert found.middle == (count + 1) / 2
    assert found.sure == pytest.approx(sure, abs=1e-4)
    assert found.enough == (count >= 5)


@pytest.mark.parametrize(("first", "second"), [(3, 3), (2, 5), (4, 3)])
def test_interval_of_a_ratio_is_as_sure_as_it_says(first: int, second: int) -> None:
    """Every order that two samples of the same kind can have is as likely: in how many does it enclose 1?"""
    orders = list(itertools.combinations(range(first + second), first))
    hits = 0
    for order in orders:
        samples = [[1.1**place for place in range(first + second) if (place in order) == own] for own in (True, False)]
        found = ratio_interval(*samples)
        hits += found.low <= 1 <= found.high

    assert found.sure == pytest.approx(hits / len(orders))


def test_intervals_enclose_what_they_should_that_often() -> None:
    draw = random.Random(2)
    samples = [[draw.expovariate(1) for _ in range(8)] for _ in range(3000)]
    found = [median_interval(sample) for sample in samples]

    hits = sum(one.low <= 0.6931 <= one.high for one in found)

    assert hits / len(samples) == pytest.approx(found[0].sure, abs=0.02)


# What is said


def test_rounds_of_two_sessions_are_no_pairs() -> None:
    """The machine slows down by half meanwhile: the third rounds have nothing in common but their number."""
    slowing = [1.0, 0.9, 0.8, 0.6, 0.5]
    first = result([50 * share for share in slowing])
    second = result([56 * share for share in slowing], model="span-fast")

    found = compare(first, second, NAMES)

    assert found.ratio.low < 1 < found.ratio.high
    assert lines(found)[-1].startswith("in these runs, no difference that 5 rounds can show: b.json is 1.12x (0.")
    assert any(line.startswith("these were not measured in turn") for line in lines(found))
    assert "differs: model span, then span-fast" in lines(found)
    assert "nothing differs but the time" in lines(compare(first, first, NAMES))


def test_nothing_is_sure_of_two_sessions() -> None:
    """Each may have had another clock, or another load, all the time."""
    found = compare(result([50.0] * 9), result([56.0] * 9), NAMES)

    assert lines(found)[-1] == "in these runs, b.json is faster than a.json by 1.12x (1.12 to 1.12)"


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([1.08, 1.12, 1.15, 1.1, 1.13], "B is faster than A by 1.12x (1.08 to 1.15)"),
        ([0.5, 0.4, 0.45, 0.48, 0.41], "B is slower than A by 2.22x (2.00 to 2.50)"),
        (
            [0.97, 1.01, 1.03, 1.0, 1.02],
            "no difference that 5 rounds can show: B is 1.010x (0.970 to 1.030) as fast as A",
        ),
        ([2.0, 2.1, 2.2], "B is perhaps faster than A by 2.10x (2.00 to 2.20): 3 rounds are too few to tell, make 5"),
        ([0.5], "B is perhaps slower than A by 2.00x: 1 round is too few to tell, make 5"),
    ],
)
def test_verdict(ratios: list[float], expected: str) -> None:
    assert verdict("A", "B", median_interval(ratios), len(ratios)) == expected


@pytest.mark.parametrize(("name", "value"), [("source", "other.mkv"), ("size", "1920x1080"), ("sink", "null")])
def test_other_work_is_refused(name: str, value: str) -> None:
    with pytest.raises(InputError, match=rf"^a\.json and b\.json measured other work.*{name} .*, then {value}$"):
        compare(result([1, 2]), result([1, 2], **{name: value}), NAMES)


def test_other_machines_and_versions_are_named() -> None:
    second = replace(
        result([10.0] * 5), machine=replace(MACHINE, processor="another", cores=8), versions={"vidsr": "0.2.0"}
    )

    found = compare(result([5.0] * 5), second, NAMES)

    assert found.differences == (
        "processor a processor, then another",
        "cores 2, then 8",
        "vidsr 0.1.0, then 0.2.0",
    )


def test_stages_are_compared_row_by_row() -> None:
    second = replace(
        result([10.0] * 5),
        stages=(Share(name="inference", ms=8.0, cpu_ms=16.0), Share(name="encode", ms=3.0, cpu_ms=3.0)),
    )

    found = compare(result([5.0] * 5), second, NAMES)

    assert [(stage.name, stage.before_ms, stage.after_ms, stage.ratio) for stage in found.stages] == [
        ("decode", 2.0, None, None),
        ("inference", 20.0, 8.0, 2.5),
        ("encode", None, 3.0, None),
    ]
    rows = [line.split() for line in lines(found)]
    assert ["inference", "20.000", "8.000", "2.50x"] in rows
    assert ["encode", "-", "3.000"] in rows
