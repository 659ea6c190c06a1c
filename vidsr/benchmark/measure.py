"""The benchmark: limits, stages, wholes in turn, and what follows."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import vidsr
from vidsr.benchmark import stage
from vidsr.benchmark.advice import advise, bound_ms, weights
from vidsr.benchmark.limits import higher, limits
from vidsr.benchmark.result import Result, StageName
from vidsr.benchmark.trial import try_all
from vidsr.benchmark.whole import Round, SinkName, Whole, job_in, once, warm
from vidsr.job import Job, Settings
from vidsr.job.engine import idle_note
from vidsr.media.encoder import PRESETS, EncoderPreset

__all__ = ["measure"]

_ROUND_SECONDS, _LEAST_FRAMES = 7.0, 24


def measure(
    source: Path,
    settings: Settings,
    *,
    name: str | None = None,
    sink: SinkName = "file",
    frames: int | None = None,
    rounds: int = 3,
    load: float | None = None,
    tell: Callable[[str], None] = lambda doing: None,
) -> Result:
    """Measures the machine, then stages and whole in turn, then what might help.

    name: what the result calls the source. frames: of one whole; None for as many as take some seconds. load: see
    `Limits`. tell: gets what is being done, for people. Raises a VidsrError.
    """
    tell("loading the model")
    with job_in(source, settings) as job:
        card = job.engine.options.device.startswith("cuda")
        tell("what this machine can do at most")
        machine = limits(job.engine, load)
        tell("some frames")
        kept = stage.enlarged_of(job)
        costs = [stage.measure(job, kept, sink, tell)]
        least = bound_ms(stage.shares(costs, job, machine), machine.cores, card=card)
        frames = frames or max(_LEAST_FRAMES, round(1000 * _ROUND_SECONDS / least))
        warm(job, sink, frames)
        done: list[Round] = []
        for number in range(rounds):
            if number:
                costs.append(stage.measure(job, kept, sink, tell))
            tell(f"round {number + 1} of {rounds}")
            done.append(once(job, sink, frames))
            machine = higher(machine, job.engine)
        reused = statistics.median(one.reused for one in done)
        stages = stage.shares(costs, job, machine, reused)
        parts = weights(stages, machine.cores, card=card)
        trials = try_all(source, job, kept, stages, parts, tell)
        idle = idle_note(settings, job.engine)
        advice = advise(stages, trials, machine.cores, card=card, doing=_doing(job), idle=idle)
    whole = Whole(rounds=tuple(done))
    return Result(
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        settings=_settings(job, name or source.name, sink, done[0].frames),
        reused=reused,
        machine=machine,
        versions=_versions(job),
        stages=stages,
        rounds=tuple(one.fps for one in done),
        fps=whole.fps,
        bound_fps=1000 / bound_ms(stages, machine.cores, card=card),
        busy=whole.busy,
        advice=advice,
    )


def _settings(job: Job, name: str, sink: SinkName, frames: int) -> dict[str, Any]:
    plan, source, target = job.engine, job.source.video.layout, job.video.layout
    options, known = dict(job.encoder.options), PRESETS.get(job.encoder.name, EncoderPreset())
    encoding = {
        "encoder": job.encoder.name,
        "preset": options.pop(known.preset[0], None) if known.preset else None,
        "crf": options.pop(known.quality[0], None) if known.quality else None,
        "encoder options": " ".join(f"{key}={value}" for key, value in options.items()),
    }
    return {
        "source": name,
        "size": f"{source.width}x{source.height}",
        "output": f"{target.width}x{target.height}",
        "frames": frames,
        "model": plan.model.name,
        "backend": plan.backend.name,
        "device": plan.options.device,
        "precision": plan.options.precision,
        "slots": plan.options.slots,
        "streams": plan.options.streams,
        "reuse": job.settings.reuse,
        "tile": f"{plan.tile[1]}x{plan.tile[0]}" if plan.tile else None,
        "memory": job.settings.memory_bytes,
        "decoder": "card" if job.hardware else "processor",
        "tuned": plan.tuned,
        "guard": plan.guard,
        "sink": sink,
        **(encoding if sink == "file" else {}),
    }


def _versions(job: Job) -> dict[str, str]:
    libraries = ("av", "numpy", job.engine.backend.name)
    found = {library: str(import_module(library).__version__) for library in libraries}
    return {"vidsr": vidsr.__version__, "python": platform.python_version(), "system": platform.platform()} | found


def _doing(job: Job) -> dict[StageName, str]:
    """What works in each stage, for people."""
    layout = job.source.video.layout
    return {
        "decode": f"{job.source.video.codec} of {layout.width}x{layout.height}",
        "copy in": "copying frames to the card",
        "inference": job.engine.model.name,
        "copy out": "copying frames from the card",
        "encode": str(job.encoder),
    }
