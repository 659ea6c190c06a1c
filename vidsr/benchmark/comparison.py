"""Two kept results side by side, with their noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vidsr.benchmark.interval import Interval, median_interval, ratio_interval
from vidsr.benchmark.result import Result
from vidsr.errors import InputError

__all__ = ["Change", "Comparison", "compare", "lines", "ratio_of", "times", "verdict"]

_WORK = ("source", "size", "output", "sink")
"""Settings that say what was enlarged: where they differ, frames a second mean something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One stage alone in both, milliseconds a frame; None where one of them has no such stage."""

    name: str
    before_ms: float | None
    after_ms: float | None

    @property
    def ratio(self) -> float | None:
        """How many times as fast."""
        return self.before_ms / self.after_ms if self.before_ms and self.after_ms else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """names: of the first and the second. fps: medians. ratio: how many times as fast the second is. differences: what
    was not the same, of settings, versions and machine."""

    names: tuple[str, str]
    fps: tuple[float, float]
    ratio: Interval
    rounds: int
    differences: tuple[str, ...]
    stages: tuple[Change, ...]


def compare(first: Result, second: Result, names: tuple[str, str]) -> Comparison:
    """Raises InputError where they measured other work."""
    unlike = list(_differences(*({key: each.settings.get(key) for key in _WORK} for each in (first, second))))
    if unlike:
        raise InputError(f"{names[0]} and {names[1]} measured other work, which no ratio compares: {'; '.join(unlike)}")
    before, after = ({stage.name: stage.ms for stage in each.stages} for each in (first, second))
    return Comparison(
        names=names,
        fps=(first.fps, second.fps),
        ratio=ratio_interval(first.rounds, second.rounds),
        rounds=min(len(first.rounds), len(second.rounds)),
        differences=tuple(_differences(*(_circumstances(each) for each in (first, second)))),
        stages=tuple(
            Change(name=name, before_ms=before.get(name), after_ms=after.get(name))
            for name in dict.fromkeys([*before, *after])
        ),
    )


def ratio_of(first: Sequence[float], second: Sequence[float]) -> Interval:
    """How many times as large the second ones are, round by round, of rounds made in turn."""
    return median_interval([after / before for before, after in zip(first, second, strict=True)])


def verdict(first: str, second: str, ratio: Interval, rounds: int) -> str:
    """What so many rounds of each show, in a sentence."""
    slower = ratio.middle < 1
    by = f"{'slower' if slower else 'faster'} than {first} by {times(ratio.turned if slower else ratio)}"
    if rounds > 1 and ratio.low <= 1 <= ratio.high:
        return f"no difference that {rounds} rounds can show: {second} is {times(ratio)} as fast as {first}"
    if not ratio.enough:
        return f"{second} is perhaps {by}: {rounds} round{'s are' if rounds > 1 else ' is'} too few to tell, make 5"
    return f"{second} is {by}"


def times(ratio: Interval) -> str:
    """With the interval, where there is one."""
    if not ratio.sure:
        return f"{ratio.middle:.2f}x"
    digits = 3 if max(abs(ratio.low - 1), abs(ratio.high - 1)) < 0.1 else 2
    return f"{ratio.middle:.{digits}f}x ({ratio.low:.{digits}f} to {ratio.high:.{digits}f})"


def lines(found: Comparison) -> list[str]:
    """For people."""
    first, second = found.names
    width = max(len(name) for name in (*found.names, *(stage.name for stage in found.stages)))
    rows = [f"{name:{width}}  {fps:8.2f} frames/s" for name, fps in zip(found.names, found.fps, strict=True)]
    rows += [f"differs: {difference}" for difference in found.differences] or ["nothing differs but the time"]
    if found.stages:
        rows += ["", f"{'alone, ms a frame':{width}} {'before':>9} {'after':>9}  faster"]
        rows += [_row(stage, width) for stage in found.stages]
    return [
        *rows,
        "",
        "these were not measured in turn: what else the machine did meanwhile may be all of the difference "
        "(`vidsr bench --against OPTIONS` measures two in turn)",
        "",
        f"in these runs, {verdict(first, second, found.ratio, found.rounds)}",
    ]


def _row(stage: Change, width: int) -> str:
    before, after = (f"{'-' if ms is None else format(ms, '.3f'):>9}" for ms in (stage.before_ms, stage.after_ms))
    ratio = "" if stage.ratio is None else f"{stage.ratio:8.2f}x"
    return f"{stage.name:{width}} {before} {after} {ratio}".rstrip()


def _circumstances(result: Result) -> dict[str, Any]:
    machine = {key: value for key, value in asdict(result.machine).items() if key in ("processor", "cores", "device")}
    return {**result.settings, **machine, **result.versions}


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    for key in dict.fromkeys([*first, *second]):
        before, after = first.get(key), second.get(key)
        if before != after:
            yield f"{key} {'none' if before is None else before}, then {'none' if after is None else after}"
