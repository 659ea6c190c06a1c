"""How many frames at once are fastest on this machine: heats among all that can be had, then the fastest against the
usual in turn. What only a final shows is taken, since the best of several noisy heats is always too good."""

from __future__ import annotations

import statistics
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from vidsr import machine
from vidsr.backends.base import Precision
from vidsr.benchmark import stage
from vidsr.benchmark.comparison import ratio_of, times
from vidsr.benchmark.interval import Interval
from vidsr.benchmark.whole import job_in, once
from vidsr.errors import UsageError, VidsrError
from vidsr.job import Job, Settings
from vidsr.job.engine import tuning_key, usual_streams
from vidsr.tuning import Tuning, TuningKey

__all__ = ["Row", "Tuned", "lines", "tune"]

_MOST_SLOTS = 16
_ROUND_SECONDS = 1.2
_WARM_FRAMES, _LEAST_FRAMES, _MOST_FRAMES = 4, 12, 200
_HEATS, _HEAT_SHARE = 3, 0.45
"""Rounds of the heats at most, and their share of the time."""
_SURE_ROUNDS, _MOST_ROUNDS = 6, 10
"""Of the final: so many can show a difference, and more are made where there is time."""
_WORTH = 1.02
"""How many times as fast as the usual is worth to be kept."""
_PROVEN_FRAMES = 4
_BUSY = 0.25
_WIDTH = 98


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What was measured of a way. options: by name, what it says that the usual does not. rounds: frames a second, once
    for each. ratio: how many times as fast as the usual, round by round."""

    name: str
    options: Mapping[str, Any]
    rounds: tuple[float, ...]
    ratio: Interval

    @property
    def fps(self) -> float:
        return statistics.median(self.rounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What came out. about: what was measured, and where. rows: of the heats, the usual first. final: the fastest of
    them against the usual, None where none was worth one. others: what would change the picture, which nobody takes
    without being asked. why: the choice in a sentence."""

    key: TuningKey
    about: Mapping[str, Any]
    rows: tuple[Row, ...]
    final: Row | None
    others: tuple[Row, ...]
    chosen: Tuning
    why: str


def tune(
    source: Path,
    settings: Settings,
    *,
    name: str | None = None,
    load: float | None = None,
    seconds: float = 50.0,
    tell: Callable[[str], None] = lambda doing: None,
) -> Tuned:
    """Measures for about so many seconds. name: what the result calls the source. load: see `Limits`. tell: gets what
    is being done, for people. Keeps nothing. Raises a VidsrError."""
    begin = time.monotonic()
    with ExitStack() as leaving:
        tell("loading the model")
        usual = _usual(source, settings, leaving)
        tried = [usual, *_had(source, _ways(usual), usual, leaving, tell)]
        _in_turn(tried, usual.frames, _HEATS, begin + _HEAT_SHARE * seconds, tell)
        rows = [way.row(usual) for way in tried]
        precisions = list(_had(source, _precisions(usual), usual, leaving, tell))
        for way in precisions:
            way.round(_LEAST_FRAMES)
        others = [replace(way.row(usual), ratio=_single(way.fps[0] / rows[0].fps)) for way in precisions]
        best, row = max(zip(tried, rows, strict=True), key=lambda pair: pair[1].ratio.middle)
        final = _final(usual, best, begin + seconds, tell) if row.ratio.middle >= _WORTH else None
        faster = final is not None and final.ratio.enough and final.ratio.low > 1 and final.ratio.middle >= _WORTH
        same = not faster or _same_pictures(usual.job, best.job)
        chosen = _chosen(best.job if faster and same else None, usual.job, final)
        return Tuned(
            key=tuning_key(usual.job.engine, str(usual.job.encoder)),
            about=_about(usual.job, name or source.name, load),
            rows=tuple(rows),
            final=final,
            others=tuple(others),
            chosen=chosen,
            why=_why(rows, final, faster=faster, same=same),
        )


class _Way:
    """A job that can be had, and its rounds so far. lost_seconds: for what comes before the first frame of a round."""

    def __init__(self, name: str, options: Mapping[str, Any], job: Job) -> None:
        self.name, self.options, self.job = name, options, job
        self.fps: list[float] = []
        self.lost_seconds = 0.0
        self.frames = max(_LEAST_FRAMES, min(_MOST_FRAMES, round(_ROUND_SECONDS * self._once(_WARM_FRAMES))))

    def round(self, frames: int) -> None:
        self.fps.append(self._once(frames))

    def row(self, usual: _Way) -> Row:
        count = min(len(self.fps), len(usual.fps))
        ratio = ratio_of(usual.fps[:count], self.fps[:count])
        return Row(name=self.name, options=self.options, rounds=tuple(self.fps), ratio=ratio)

    def _once(self, frames: int) -> float:
        begin = time.monotonic()
        done = once(self.job, frames=frames)
        self.lost_seconds = max(0.0, time.monotonic() - begin - done.seconds)
        return done.fps


_Choice = tuple[str, Mapping[str, Any]]
"""Name and options of a way."""


def _usual(source: Path, settings: Settings, leaving: ExitStack) -> _Way:
    """What would run if nothing was ever tuned. Raises a VidsrError."""
    job = leaving.enter_context(job_in(source, replace(settings, streams=None, slots=None)))
    engine = job.engine
    if engine.tile is not None:
        layout = engine.source
        raise UsageError(
            f"frames of {layout.width}x{layout.height} do not fit the memory whole with {engine.model.name}, and those "
            "that are cut are not tuned: give a smaller --size"
        )
    streams = usual_streams(engine)
    if engine.tuned:
        job = leaving.enter_context(job_in(source, replace(settings, streams=streams, slots=None)))
    return _Way("the usual", {"streams": streams, "slots": job.engine.options.slots}, job)


def _ways(usual: _Way) -> Iterator[_Choice]:
    """Powers of two of streams up to one a core, and fewer and more slots."""
    most = min(machine.cores(), _MOST_SLOTS)
    streams, slots = usual.options["streams"], usual.options["slots"]
    for count in sorted({most, *(2**power for power in range(most.bit_length()))} - {streams}):
        yield f"streams {count}", {"streams": count}
    for count in sorted({streams + 1, min(2 * slots, _MOST_SLOTS)} - {slots}):
        yield f"slots {count}", {"slots": count}


def _precisions(usual: _Way) -> Iterator[_Choice]:
    """Others, but for a card: that would compile each for minutes."""
    options = usual.job.engine.options
    if not options.device.startswith("cuda"):
        for precision in get_args(Precision):
            if precision not in ("auto", options.precision):
                yield f"--precision {precision}", {"precision": precision}


def _had(
    source: Path, choices: Iterator[_Choice], usual: _Way, leaving: ExitStack, tell: Callable[[str], None]
) -> Iterator[_Way]:
    """Those that this machine has, warmed up."""
    for name, options in choices:
        tell(f"{name}, to warm up")
        settings: Settings = replace(usual.job.settings, **{"streams": usual.options["streams"], **options})
        try:
            job = leaving.enter_context(job_in(source, settings))
            if job.engine.tile is None:
                yield _Way(name, options, job)
        except VidsrError:
            continue


def _in_turn(ways: Sequence[_Way], frames: int, most: int, until: float, tell: Callable[[str], None]) -> None:
    """Rounds of all, every second in reverse order so that a drift falls on all alike: at least one, and as many as end
    in time."""
    for number in range(most):
        begin = time.monotonic()
        for way in reversed(ways) if number % 2 else ways:
            tell(f"{way.name}, round {number + 1}")
            way.round(frames)
        now = time.monotonic()
        if now + (now - begin) > until:
            break


def _final(usual: _Way, best: _Way, until: float, tell: Callable[[str], None]) -> Row:
    """Fresh rounds of two, with fewer frames where there are else too few rounds to be sure."""
    pair = [usual, best]
    seconds = (until - time.monotonic()) / (2 * _SURE_ROUNDS) - usual.lost_seconds
    fps = statistics.median(usual.fps)
    for way in pair:
        way.fps = []
    _in_turn(pair, max(_LEAST_FRAMES // 2, min(usual.frames, int(fps * seconds))), _MOST_ROUNDS, until, tell)
    return best.row(usual)


def _same_pictures(usual: Job, best: Job) -> bool:
    """Whether the first frames are the same, bit for bit."""
    made = [stage.enlarged_of(job, _PROVEN_FRAMES).enlarged for job in (usual, best)]
    planes = [[plane for frame in frames for plane in frame.planes] for frames in made]
    return all(np.array_equal(*pair) for pair in zip(*planes, strict=True))


def _chosen(best: Job | None, usual: Job, final: Row | None) -> Tuning:
    """best: what is taken; None for the usual."""
    layout = usual.engine.source
    model, frames = usual.engine.model.name, f"{layout.width}x{layout.height}"
    if best is None or final is None:
        return Tuning(streams=None, slots=None, model=model, frames=frames)
    options, gain = best.engine.options, final.ratio.middle
    return Tuning(streams=options.streams, slots=options.slots, gain=gain, model=model, frames=frames)


def _why(rows: Sequence[Row], final: Row | None, *, faster: bool, same: bool) -> str:
    if final is None:
        rounds = len(rows[0].rounds)
        return f"the usual stays: nothing else was faster in {rounds} round{'s' if rounds > 1 else ''} of each"
    rounds = len(final.rounds)
    found = f"{final.name} was {times(final.ratio)} as fast as the usual in {rounds} rounds in turn"
    if faster:
        if not same:
            return f"the usual stays: {found}, but it changes the picture, which nothing may that nobody asked for"
        return f"{final.name} from now on: {found}, and its pictures are the same, bit for bit"
    if not final.ratio.enough:
        return f"the usual stays: {found}, and so few tell nothing: give --seconds more"
    return f"the usual stays: {found}, which is no difference that is sure, or worth it"


def _single(ratio: float) -> Interval:
    return Interval(middle=ratio, low=ratio, high=ratio, sure=0.0)


def _about(job: Job, name: str, load: float | None) -> dict[str, Any]:
    source, target = job.source.video.layout, job.video.layout
    return {
        "source": name,
        "size": f"{source.width}x{source.height}",
        "output": f"{target.width}x{target.height}",
        "model": job.engine.model.name,
        "engine": str(replace(job.engine, tuned=False)),
        "encoder": str(job.encoder),
        "load": load,
    }


def lines(found: Tuned) -> Iterator[str]:
    """For people: what was tried, what came out, what was chosen and why."""
    about, key, usual = found.about, found.key, found.rows[0]
    yield f"{about['source']}: {about['size']} -> {about['output']}"
    yield f"{about['model']} on {about['engine']}, {about['encoder']}"
    yield key.machine
    if about["load"] is not None and about["load"] > _BUSY * key.cores:
        yield f"warning: the machine was busy with other work before this began (load {about['load']:g})"
    yield ""
    width = max(len(row.name) for row in (*found.rows, *found.others))
    yield f"{'':{width}}  {'frames/s':>8}  times the usual"
    counts = ", ".join(f"{name} {count}" for name, count in usual.options.items())
    yield f"{usual.name:{width}}  {usual.fps:8.2f}  ({counts})"
    for row in found.rows[1:]:
        yield f"{row.name:{width}}  {row.fps:8.2f}  {row.ratio.middle:.2f}"
    if found.others:
        yield "changes the picture, so it is never taken unless you say it:"
        for row in found.others:
            yield f"{row.name:{width}}  {row.fps:8.2f}  about {row.ratio.middle:.1f}"
    yield ""
    yield from textwrap.wrap(found.why, _WIDTH)
