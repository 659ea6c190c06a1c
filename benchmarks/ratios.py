"""Ratios that must not fall, in half a minute: `python -m benchmarks.ratios`; --record keeps what was found.

Times mean nothing on another machine, or on this one an hour later. A ratio of two runs made in turn does: what the
pipeline gets of its bound, what it gains over a plain loop, what BF16, exact reuse and tiles cost or save. Those of
each kind of processor are kept in ratios.json beside this file; another kind is told, not judged. The command fails
where a ratio has fallen by a quarter and stays there: it is measured again for two minutes, which another's work on the
same machine seldom outlasts, and passes with the first median of three that is as it should be.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from vidsr.backends.tiled import smaller_tile
from vidsr.benchmark import clip, stage
from vidsr.benchmark.peak import matrix_gflops
from vidsr.benchmark.whole import SinkName, job_in, once
from vidsr.graph.builder import Builder
from vidsr.job import Job, Settings
from vidsr.job.run import stream_of
from vidsr.machine import cores, processor
from vidsr.media.segment import SegmentWriter

KEPT = Path(__file__).with_name("ratios.json")
ALLOWED = 0.75
"""Of what was kept: so much noise no quiet machine makes in a ratio, and hardly a busy one."""
BUDGET_SECONDS = 25.0
MOST_ROUNDS = 5
PATIENCE_SECONDS = 120.0
_ROUNDS_AGAIN = 3
_SECONDS = 0.6
"""Of a stage alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """measure: gives it, more is better; each call is one round."""

    name: str
    measure: Callable[[], float]


def fallen(found: Mapping[str, float], kept: Mapping[str, float]) -> list[str]:
    """The names of those that are less than `ALLOWED` of what they were, or not there any more; what was not kept
    cannot fall."""
    return [name for name, value in kept.items() if found.get(name, 0.0) < ALLOWED * value]


def kind() -> str:
    """What ratios depend on: the best matrix unit, and how many cores share the work."""
    features = processor()["features"]
    unit = next((name for name in ("AMX", "BF16", "AVX-512", "AVX2", "NEON") if features.get(name)), "plain")
    return f"{platform.machine()} {unit}, {cores()} cores"


def medians(ratios: Sequence[Ratio], rounds: int, seconds: float) -> dict[str, float]:
    """Of as many rounds as the time allows, at least one. Every round measures all: noise falls on all alike."""
    values: dict[str, list[float]] = {ratio.name: [] for ratio in ratios}
    begin = time.monotonic()
    for done in range(1, rounds + 1):
        for ratio in ratios:
            values[ratio.name].append(ratio.measure())
        if (time.monotonic() - begin) * (done + 1) / done > seconds:
            break
    return {name: statistics.median(each) for name, each in values.items()}


def insisting(
    ratios: Sequence[Ratio], found: dict[str, float], kept: Mapping[str, float], seconds: float
) -> dict[str, float]:
    """What was found, with medians measured anew of what has fallen, until none has or the time is over."""
    until = time.monotonic() + seconds
    while (again := [ratio for ratio in ratios if ratio.name in fallen(found, kept)]) and time.monotonic() < until:
        found = found | medians(again, _ROUNDS_AGAIN, seconds)
    return found


def ratios_in(folder: Path, leaving: ExitStack) -> Iterator[Ratio]:
    """All that can be had here."""

    def job(source: Path, **chosen: Any) -> Job:
        made = leaving.enter_context(job_in(source, Settings(preset="veryfast", **chosen)))
        once(made, "file", 2)
        return made

    def over(first: Job, second: Job, frames: int, sink: SinkName = "null") -> Callable[[], float]:
        return lambda: once(first, sink, frames).fps / once(second, sink, frames).fps

    small = clip.generate(folder, 320, 180, 2)
    fast = job(small, model="span-fast")
    cubic = job(small, model=str(cubic_model(folder / "cubic.onnx")))
    for name, whole in (("span-fast", fast), ("cubic", cubic)):
        yield Ratio(name=f"{name} of its bound", measure=of_bound(whole))
    yield Ratio(name="span-fast of matrix peak", measure=of_peak(fast))
    # One frame at a time has all cores to itself.
    single = job(small, model="span-fast", streams=1)
    yield Ratio(name="pipeline over a plain loop", measure=lambda: once(fast, "file", 25).fps / plain_loop(single, 25))
    plan = fast.engine
    tile = smaller_tile(plan.model, plan.source, plan.target, None)
    yield Ratio(name="tiles over whole frames", measure=over(replace(fast, engine=replace(plan, tile=tile)), fast, 20))
    for content in ("screen", "drawn"):
        source = clip.generate(folder, 320, 180, 2, content)
        ways = [job(source, model="span", reuse=way) for way in ("auto", "off")]
        yield Ratio(name=f"reuse over none, {content}", measure=over(ways[0], ways[1], 40))
    tiny = clip.generate(folder, 192, 108, 1)
    usual, full = (job(tiny, model="span", precision=precision) for precision in ("auto", "fp32"))
    if usual.engine.options.precision != "fp32":
        name = usual.engine.options.precision.upper()
        yield Ratio(name=f"{name} over FP32, span", measure=over(usual, full, 8))


def of_bound(job: Job) -> Callable[[], float]:
    """Frames a second of the whole over 1 / (inference + (decode + encode CPU) / cores)."""
    frames = stage.enlarged_of(job)

    def measure() -> float:
        whole = once(job, "file", 40)
        codecs = stage.decode(job, _SECONDS).cpu_ms + stage.encode(job, frames.enlarged, _SECONDS).cpu_ms
        return whole.fps * (stage.inference(job, frames.source, _SECONDS).ms + codecs / cores()) / 1000

    return measure


def of_peak(job: Job) -> Callable[[], float]:
    """The model's arithmetic over what matrix units reach at most, both in the precision used."""
    frames, options = stage.enlarged_of(job, 8), job.engine.options

    def measure() -> float:
        peak = matrix_gflops(job.engine.backend, options, [options.precision])[options.precision]
        return 1000 * stage.work_gflop(job) / stage.inference(job, frames.source, _SECONDS).ms / peak

    return measure


def plain_loop(job: Job, frames: int) -> float:
    """Frames a second of the same work, one thing after the other in one thread."""
    spec = stream_of(job, job.engine).spec()
    with closing(spec.open_reader()) as reader, closing(spec.open_engine()) as engine:
        (slot,) = engine.slots(1)
        writer = SegmentWriter(job.path.with_name("loop.segment"), job.video, job.encoder)
        begin, count = time.perf_counter(), 0
        while count < frames and (frame := reader.read(slot.input)) is not None:
            slot.convert(spec.convert(frame.color))
            engine.submit(slot)
            engine.wait(slot)
            writer.write(replace(frame, planes=slot.output))
            count += 1
        writer.close()
    return count / (time.perf_counter() - begin)


def cubic_model(path: Path) -> Path:
    """Interpolation alone: next to no work for the matrix units, so that everything around them shows."""
    build = Builder()
    factors = build.constant(np.array([1, 1, 2, 2], np.float32))
    build.op("Resize", "x", "", factors, name="y", mode="cubic", cubic_coeff_a=-0.5)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, None, None]) for name in "xy"]
    onnx.save(build.model(ends[:1], ends[1:], name="cubic"), path)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="keep what was found for this kind of processor")
    chosen = parser.parse_args()
    kinds: dict[str, dict[str, float]] = json.loads(KEPT.read_text(encoding="utf-8"))
    here = kind()
    kept = {} if chosen.record else kinds.get(here, {})
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vidsr-ratios-") as folder, ExitStack() as leaving:
        ratios = list(ratios_in(Path(folder), leaving))
        found = medians(ratios, MOST_ROUNDS, BUDGET_SECONDS - (time.monotonic() - begin))
        found = insisting(ratios, found, kept, PATIENCE_SECONDS)
    worse = fallen(found, kept)
    print(f"{here}, {time.monotonic() - begin:.0f} s\n{'':28} {'now':>8} {'kept':>8}")
    for name, value in found.items():
        was = f"{kept[name]:8.3f}" if name in kept else f"{'-':>8}"
        print(f"{name:28} {value:8.3f} {was}{'  fallen by more than a quarter' if name in worse else ''}")
    if chosen.record:
        kinds[here] = {name: round(value, 3) for name, value in found.items()}
        KEPT.write_text(json.dumps(kinds, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    elif not kept:
        print(f"{KEPT.name} has nothing of this kind of processor to compare with: --record keeps this")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
