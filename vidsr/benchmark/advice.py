"""What limits a machine, and what would help: from times that were measured, by the formula of the bound."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from vidsr.benchmark.result import Advice, Share, StageName
from vidsr.benchmark.stage import Cost

__all__ = ["Trial", "advise", "bound_ms", "weights"]

_WORTH = 1.05
"""Gains below are noise."""
_NEARLY = 0.93
"""Of the best gain: who has nearly as much for a smaller price is taken."""
_NAMES: Mapping[StageName, str] = {
    "decode": "decoder-bound",
    "copy in": "bus-bound",
    "inference": "model-bound",
    "copy out": "bus-bound",
    "encode": "encoder-bound",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A change that was tried.

    change: as options. price: what it costs beside time, "" where nothing. costs: of the stages that it changes, as
    measured with it. card: whether the model then runs on a card.
    """

    change: str
    price: str
    costs: Mapping[StageName, Cost]
    card: bool


def bound_ms(stages: Sequence[Share], cores: int, *, card: bool) -> float:
    """The least time for a frame: a processor's cores are shared by inference, which takes all of them, decoder and
    encoder; a card infers beside them. No stage is faster than alone."""
    by_name = {stage.name: stage for stage in stages}
    coding = sum(by_name[name].cpu_ms for name in _CODING if name in by_name) / cores
    inference = by_name["inference"].ms
    return max(max(inference, coding) if card else inference + coding, *(stage.ms for stage in stages))


def weights(stages: Sequence[Share], cores: int, *, card: bool) -> dict[StageName, float]:
    """What part of the least time each stage is the reason for, 0..1: its part of all cores' time, or of the time of
    the one that all others wait for."""
    least = bound_ms(stages, cores, card=card)
    found: dict[StageName, float] = {}
    for stage in stages:
        if stage.ms >= 0.999 * least:
            found[stage.name] = 1.0
        elif stage.name in _CODING:
            found[stage.name] = stage.cpu_ms / cores / least
        else:  # the copies of a processor are parts of the coding
            found[stage.name] = stage.ms / least if card or stage.name == "inference" else 0.0
    return found


def advise(
    stages: Sequence[Share],
    trials: Sequence[Trial],
    cores: int,
    *,
    card: bool,
    doing: Mapping[StageName, str],
    idle: str | None = None,
) -> Advice:
    """trials: those with the smallest price first. doing: what works in each stage, for people. idle: a sentence
    about a card that is there and not used."""
    least = bound_ms(stages, cores, card=card)
    parts = weights(stages, cores, card=card)
    limit = max(parts, key=parts.__getitem__)
    gains = [(least / bound_ms(_changed(stages, trial.costs), cores, card=trial.card), trial) for trial in trials]
    (limiting,) = (stage for stage in stages if stage.name == limit)
    text = f"{_NAMES[limit]}: {doing[limit]} takes {_percent(parts[limit])} of the time"
    if limit == "inference" and limiting.efficiency is not None:
        text += f", at {_percent(limiting.efficiency)} of what the device computes"
    best = max((gain for gain, _ in gains), default=1.0)
    if best < _WORTH:
        tried = "; of what was tried, nothing would help" if trials else "; there is nothing to try against that"
        text += tried + (
            f" ({', '.join(f'`{trial.change}` {_times(gain)}' for gain, trial in gains)})" if trials else ""
        )
        chosen, gain = "", 1.0
    else:
        gain, trial = next(entry for entry in gains if entry[0] >= _NEARLY * best)
        chosen = trial.change
        text += f"; `{chosen}` would give {_times(gain)}{_priced(trial)}"
        other = max(_milder(gains, trial), key=lambda entry: entry[0], default=None)
        text += f", `{other[1].change}` {_times(other[0])}{_priced(other[1])}" if other else ""
    text += f"; {idle}" if idle else ""
    return Advice(limit=limit, change=chosen, gain=round(gain, 3), text=text)


_CODING: tuple[StageName, ...] = ("decode", "encode")


def _changed(stages: Sequence[Share], costs: Mapping[StageName, Cost]) -> list[Share]:
    """The stages with other costs."""
    return [
        replace(stage, ms=costs[stage.name].ms, cpu_ms=costs[stage.name].cpu_ms) if stage.name in costs else stage
        for stage in stages
    ]


def _milder(gains: Sequence[tuple[float, Trial]], taken: Trial) -> list[tuple[float, Trial]]:
    """What helps as well and has a smaller price."""
    before = itertools.takewhile(lambda entry: entry[1].price != taken.price, gains)
    return [entry for entry in before if entry[0] >= _WORTH]


def _priced(trial: Trial) -> str:
    return f" ({trial.price})" if trial.price else ""


def _times(gain: float) -> str:
    return f"{gain:.2f}x" if gain < 1.2 else f"{gain:.1f}x"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
