"""Several settings measured in turn, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import vidsr
from vidsr import backends
from vidsr.benchmark.comparison import ratio_of, times, verdict
from vidsr.benchmark.interval import Interval, median_interval
from vidsr.benchmark.whole import Round, SinkName, job_in, once
from vidsr.errors import UsageError, VidsrError
from vidsr.job import Job, Settings
from vidsr.machine import cores, processor

__all__ = ["DIMENSIONS", "Row", "Sweep", "Way", "fastest", "lines", "measure", "verdicts", "ways_of"]

_LEAST_FRAMES = 8
_MOST_SECONDS = 4.0
"""Of one round: the slowest of many ways must not take all the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """name: for people, such as "openvino bf16". options: by name, what it says that others say otherwise."""

    name: str
    options: Mapping[str, Any]
    settings: Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What was measured of a way. frames: of a round. rounds: frames a second, once for each. engine: what ran. fps:
    their median. ratio: how many times as fast as the sweep's base, round by round."""

    name: str
    options: Mapping[str, Any]
    engine: str
    frames: int
    rounds: tuple[float, ...]
    fps: Interval
    ratio: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """about: where and when it was measured, and with what. rows: the fastest first. base: the name of the one that the
    others are related to. refused: what cannot be had here, or is the same as something else, and why."""

    about: Mapping[str, Any]
    base: str
    rows: tuple[Row, ...]
    refused: Mapping[str, str]


def _counts(most: int) -> list[int]:
    """1, 2, 4, ... and the most itself."""
    return sorted({*(2**power for power in range(most.bit_length()) if 2**power <= most), most})


DIMENSIONS: Mapping[str, Callable[[], Sequence[Any]]] = {
    "backend": lambda: tuple(backends.MODULES),
    "precision": lambda: ("fp32", "bf16", "fp16", "int8"),
    "slots": lambda: (1, 2, 4, 8),
    "streams": lambda: _counts(min(cores(), 16)),
}
"""What may be swept, by the names of the settings, and the values that are tried."""


def ways_of(dimensions: Sequence[str], base: Settings) -> list[Way]:
    """Every combination of their values. Raises UsageError for what cannot be swept."""
    unknown = [name for name in dimensions if name not in DIMENSIONS]
    if unknown or not dimensions:
        raise UsageError(f"--sweep {','.join(dimensions)}: name some of {', '.join(DIMENSIONS)}, with commas between")
    names = list(dict.fromkeys(dimensions))
    return [
        Way(name=_named(chosen), options=chosen, settings=replace(base, **chosen))
        for values in itertools.product(*(DIMENSIONS[name]() for name in names))
        for chosen in [dict(zip(names, values, strict=True))]
    ]


def measure(
    source: Path,
    ways: Sequence[Way],
    *,
    base: str | None = None,
    name: str | None = None,
    sink: SinkName = "file",
    frames: int | None = None,
    rounds: int = 5,
    tell: Callable[[str], None] = lambda doing: None,
) -> Sweep:
    """Measures all that can be had, every second round in reverse order so that a drift falls on all alike.

    base: the name of a way that must be had; None for the fastest. name: what the source is called. frames: of the
    source in one round; None for as many as take some seconds, which are the same for all that are held against a base.
    tell: gets what is being done, for people. Raises a VidsrError where the base cannot be had, or nothing can.
    """
    with ExitStack() as leaving:
        trials, refusals = _warmed(source, ways, base, sink, frames, tell, leaving)
        if base is not None:
            least = min(trial.frames for trial in trials)
            for trial in trials:
                trial.frames = least
        for number in range(rounds):
            for trial in reversed(trials) if number % 2 else trials:
                tell(f"{trial.way.name}, round {number + 1} of {rounds}")
                trial.round()
    trials.sort(key=lambda trial: -statistics.median(trial.fps))
    first = next((trial for trial in trials if trial.way.name == base), trials[0])
    chosen = first.job
    layout = chosen.source.video.layout
    return Sweep(
        about={
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "source": name or source.name,
            "size": f"{layout.width}x{layout.height}",
            "sink": sink,
            "model": chosen.engine.model.name,
            "encoder": str(chosen.encoder) if sink == "file" else None,
            "processor": processor()["name"],
            "cores": cores(),
            "vidsr": vidsr.__version__,
        },
        base=first.way.name,
        rows=tuple(trial.row(first) for trial in trials),
        refused=_grouped(ways, refusals),
    )


def _warmed(
    source: Path,
    ways: Sequence[Way],
    base: str | None,
    sink: SinkName,
    frames: int | None,
    tell: Callable[[str], None],
    leaving: ExitStack,
) -> tuple[list[_Trial], dict[str, str]]:
    """What has run once, and why the rest has not, by name."""
    trials: list[_Trial] = []
    refusals: dict[str, str] = {}
    for way in ways:
        tell(f"{way.name}, to warm up")
        try:
            trial = _Trial(way, leaving.enter_context(job_in(source, way.settings)), sink)
            twins = [other.way.name for other in trials if base is None and other.settled == trial.settled]
            if twins:
                refusals[way.name] = f"the same as {twins[0]}"
                continue
            trial.warm(frames)
            trials.append(trial)
        except VidsrError as error:
            if way.name == base:
                raise
            refusals[way.name] = str(error)
    if not trials:
        raise UsageError(f"nothing of this can be measured here: {'; '.join(dict.fromkeys(refusals.values()))}")
    return trials, refusals


class _Trial:
    """A way that can be had, and its rounds so far."""

    def __init__(self, way: Way, job: Job, sink: SinkName) -> None:
        self.way, self.job, self._sink = way, job, sink
        self.frames = _LEAST_FRAMES
        self.rounds: list[Round] = []

    @property
    def settled(self) -> Settings:
        """The settings with what was decided of them."""
        plan = self.job.engine
        decided = {name: getattr(plan.options, name) for name in ("device", "precision", "slots", "streams")}
        return replace(self.way.settings, backend=plan.backend.name, **decided)

    def warm(self, frames: int | None) -> None:
        """Runs it for the first time, and decides for how many frames later."""
        fps = once(self.job, self._sink, min(frames or _LEAST_FRAMES, _LEAST_FRAMES)).fps
        self.frames = frames or max(_LEAST_FRAMES, round(fps * _MOST_SECONDS))

    def round(self) -> None:
        self.rounds.append(once(self.job, self._sink, self.frames))

    @property
    def fps(self) -> tuple[float, ...]:
        return tuple(one.fps for one in self.rounds)

    def row(self, base: _Trial) -> Row:
        return Row(
            name=self.way.name,
            options=self.way.options,
            engine=self.rounds[0].engine,
            frames=self.rounds[0].frames,
            rounds=self.fps,
            fps=median_interval(self.fps),
            ratio=ratio_of(base.fps, self.fps),
        )


def _grouped(ways: Sequence[Way], reasons: Mapping[str, str]) -> dict[str, str]:
    """The reasons under the fewest names: what all ways of an option share is said once, of that option."""
    grouped: dict[str, str] = {}
    for reason in dict.fromkeys(reasons.values()):
        refused = [way for way in ways if reasons.get(way.name) == reason]
        first = refused[0].options.items()
        common = {name: value for name, value in first if all(way.options[name] == value for way in refused)}
        sharing = [way for way in ways if common.items() <= way.options.items()]
        names = [_named(common)] if common and len(sharing) == len(refused) else [way.name for way in refused]
        grouped |= dict.fromkeys(names, reason)
    return grouped


def _named(options: Mapping[str, Any]) -> str:
    """Names of libraries and precisions speak for themselves, numbers do not."""
    return ", ".join(value if isinstance(value, str) else f"{name} {value}" for name, value in options.items())


def lines(found: Sweep) -> list[str]:
    """For people: a table, the fastest first."""
    width = max(len(row.name) for row in found.rows)
    rounds = len(found.rows[0].rounds)
    sure = f"{100 * found.rows[0].fps.sure:.0f} % interval" if rounds > 1 else ""
    rows = [f"{'':{width}}  {'frames/s':>8}  {sure:22}  times {found.base}"]
    for row in found.rows:
        spread = f"({row.fps.low:.2f} to {row.fps.high:.2f})" if rounds > 1 else ""
        ratio = "" if row.name == found.base else times(row.ratio)
        rows.append(f"{row.name:{width}}  {row.fps.middle:8.2f}  {spread:22}  {ratio}".rstrip())
    return [*rows, *(f"not measured: {name}: {reason}" for name, reason in found.refused.items())]


def fastest(found: Sweep) -> str:
    """Which way to take, in a sentence."""
    best, *others = found.rows
    rounds = len(best.rounds)
    if others and not best.fps.enough:
        return f"fastest: {best.name}, perhaps: {rounds} rounds are too few to be sure, make 5"
    equal = [row.name for row in others if row.ratio.high >= 1]
    also = f"; {rounds} rounds cannot tell from it: {' | '.join(equal)}" if equal else ""
    return f"fastest: {best.name}{also}"


def verdicts(found: Sweep) -> list[str]:
    """Every way beside the base, in a sentence each."""
    return [verdict(found.base, row.name, row.ratio, len(row.rounds)) for row in found.rows if row.name != found.base]
