"""Changes that might help, each tried for a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vidsr import models
from vidsr.benchmark import stage
from vidsr.benchmark.advice import Trial
from vidsr.benchmark.result import Share, StageName
from vidsr.benchmark.stage import Cost, Frames
from vidsr.benchmark.whole import job_in
from vidsr.errors import VidsrError
from vidsr.graph.cost import multiply_adds
from vidsr.job import Job, Settings
from vidsr.media.encoder import PRESETS, EncoderPreset, on_card
from vidsr.nvidia import card_count
from vidsr.quantise import KEY

__all__ = ["try_all"]

_MATTERS = 0.15
"""Stages with less of the time cannot gain what is worth a try."""
_PRESETS = 3
_CHEAPER = 0.6
"""Of the multiplications of the model at hand."""
_LARGER, _FORMAT = "larger files", "another format, larger files"
_COARSER, _LESS = "coarser arithmetic", "less detail"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """See `Trial`; settings: with it."""

    change: str
    price: str
    stage: StageName
    settings: Settings


def try_all(
    source: Path,
    job: Job,
    frames: Frames,
    stages: Sequence[Share],
    parts: Mapping[StageName, float],
    tell: Callable[[str], None],
) -> list[Trial]:
    """Those that can be had here, the smallest price first. stages: as measured. parts: of the time, by stage
    (`weights`)."""
    usual = {share.name: share for share in stages}
    found = []
    for change in _changes(job, parts):
        tell(f"trying {change.change}")
        try:
            with job_in(source, change.settings) as other:
                if other.engine.target != job.engine.target:
                    continue  # pictures of another kind: what was kept does not fit
                # The old way once more beside the new one, so that what else the machine does falls on both.
                before, after = (stage.alone(each, frames, change.stage) for each in (job, other))
                card = other.engine.options.device.startswith("cuda")
        except VidsrError:
            continue
        share = usual[change.stage]
        cost = Cost(ms=share.ms * after.ms / before.ms, cpu_ms=share.cpu_ms * after.cpu_ms / max(before.cpu_ms, 1e-6))
        found.append(Trial(change=change.change, price=change.price, costs={change.stage: cost}, card=card))
    return found


def _changes(job: Job, parts: Mapping[StageName, float]) -> Iterator[_Change]:
    def matters(name: StageName) -> bool:
        return parts.get(name, 0.0) >= _MATTERS

    if matters("inference"):
        yield from _free(job)
    if matters("decode") and job.hardware is None and card_count():
        yield _changed(job, "--hwaccel cuda", "", "decode", hwaccel="cuda")
    if matters("encode"):
        yield from _presets(job)
    ranges = all(KEY in part.metadata for part in job.engine.model.members)
    if matters("inference") and ranges and job.engine.options.precision != "int8":
        yield _changed(job, "--precision int8", _COARSER, "inference", precision="int8")
    if matters("encode"):
        yield from _encoders(job)
    if matters("inference"):
        yield from _models(job)


def _changed(job: Job, change: str, price: str, stage: StageName, **settings: Any) -> _Change:
    return _Change(change=change, price=price, stage=stage, settings=replace(job.settings, **settings))


def _free(job: Job) -> Iterator[_Change]:
    """To leave to vidsr what it was told otherwise, and a card that is not used."""
    settings = job.settings
    said = {name: "auto" for name in ("backend", "precision") if getattr(settings, name) != "auto"}
    if said and settings.precision != "int8":
        change = " ".join(f"--{name} auto" for name in said)
        yield _changed(job, change, _COARSER if "precision" in said else "", "inference", **said)
    if card_count() and not job.engine.options.device.startswith("cuda"):
        yield _changed(job, "--device cuda", "", "inference", backend="auto", device="cuda", precision="auto")


def _presets(job: Job) -> Iterator[_Change]:
    """Faster ones of the encoder, the nearest first."""
    known = PRESETS.get(job.encoder.name, EncoderPreset()).preset
    if known is None:
        return
    option, _, values = known
    # Names go from the fastest to the slowest, numbers the other way round.
    ordered = values if not values[-1].isdecimal() else values[::-1]
    faster = (
        ordered[: ordered.index(job.encoder.options[option])][::-1] if job.encoder.options[option] in ordered else ()
    )
    step = max(1, -(-len(faster) // _PRESETS))
    others = {key: value for key, value in job.settings.encoder_options.items() if key != option}
    for value in faster[step - 1 :: step]:
        yield _changed(job, f"--preset {value}", _LARGER, "encode", preset=value, encoder_options=others)


def _encoders(job: Job) -> Iterator[_Change]:
    """On a card that is there, and the fastest one on the processor."""
    name = job.encoder.name
    if on_card(name):
        return
    others = [(twin, _LARGER) for twin, preset in PRESETS.items() if card_count() and preset.twin == name]
    others += [("libx264", _FORMAT)] if name != "libx264" else []
    for other, price in others:
        own: dict[str, Any] = {"preset": None, "crf": None, "encoder_options": {}}
        yield _changed(job, f"--encoder {other}", price, "encode", encoder=other, **own)


def _models(job: Job) -> Iterator[_Change]:
    """The cheapest that enlarges as much."""
    mine = job.engine.model.members[0]
    own = multiply_adds(mine.proto)
    costs = {model.name: multiply_adds(model.proto) for model in models.usable() if model.scale == mine.scale}
    cheapest = min(costs, key=costs.__getitem__, default=mine.name)
    if costs.get(cheapest, own) < _CHEAPER * own:
        yield _changed(job, f"--model {cheapest}", _LESS, "inference", model=cheapest)
