"""What a pixel costs from 320x180 to 8K, and what memory that takes.

    python -m benchmarks.scale cost [--model span] [--cores 1,2] [--json FILE] [--plot FILE.svg|png]
    python -m benchmarks.scale paper FILE.json
    python -m benchmarks.scale memory [IN] [--json FILE]

cost: for each size and number of cores the engine alone and the whole, decoder and encoder included, each round in a
process of its own that is bound to those cores; then, from what was measured, other machines on paper. paper: that
alone. memory: the most that whole runs of 4K to 8K take, encoder by encoder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.paper import CARDS, Constants, Guess, constants_from, on_card, on_cores

SIZES = "320x180,640x360,1280x720,1920x1080,3840x2160"
FLAT = 1.15
"""How many times as much as at the cheapest size a pixel may cost."""
HOST_CORES = 8
"""Beside a card."""
_LEAST_FRAMES, _MOST_FRAMES = 4, 400
_FEW, _MANY = 16, 28
"""Frames of the whole, at least: the fewer are more than the encoder looks ahead, so that both runs end alike."""
_MEMORY = (
    ("as it is", ()),
    ("--memory 300M", ("--memory", "300M")),
    ("x264, small", ("--memory", "300M",
                     "-e", "x264-params=rc-lookahead=2:sync-lookahead=0:sliced-threads=1:bframes=1")),
    ("x265, small", ("--memory", "300M", "--encoder", "libx265",
                     "-e", "x265-params=rc-lookahead=3:frame-threads=1:bframes=1:ref=1")),
    ("SVT-AV1, small", ("--memory", "300M", "--encoder", "libsvtav1", "-e", "svtav1-params=lp=1:pred-struct=1")),
)  # fmt: skip
"""Ways to run 4K to 8K."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One size on so many cores.

    engine_ms: wall time of a frame in the engine alone. decode_ms, encode_ms: processor time of a frame. ms: wall time
    of one frame more in the whole. memory_mb: the most that the process held. pixels: of the output.
    """

    width: int
    height: int
    cores: int
    pixels: int
    engine_ms: float
    decode_ms: float
    encode_ms: float
    ms: float
    memory_mb: float
    tile: str

    @property
    def engine_ns(self) -> float:
        """Core time in the engine, an output pixel."""
        return 1e6 * self.cores * self.engine_ms / self.pixels

    @property
    def whole_ns(self) -> float:
        return 1e6 * self.cores * self.ms / self.pixels


def spread(costs: Sequence[float]) -> float:
    """How many times as much the dearest costs as the cheapest."""
    return max(costs) / min(costs)


def _counted(cores: int) -> str:
    return f"{cores} core" if cores == 1 else f"{cores} cores"


# In a process of its own


def measured(clip: Path, cores: Sequence[int], frames: int, chosen: Mapping[str, Any]) -> Point:
    """One round, in this process, which is bound to these cores from now on."""
    os.sched_setaffinity(0, cores)
    from vidsr.benchmark import stage
    from vidsr.benchmark.whole import job_in, once
    from vidsr.job import Settings

    with job_in(clip, Settings(**chosen)) as job:
        kept = stage.enlarged_of(job, _LEAST_FRAMES)
        engine_ms = stage.inference(job, kept.source).ms
        decode_ms = stage.decode(job).cpu_ms
        encode_ms = stage.encode(job, kept.enlarged).cpu_ms
        del kept
        # What a run takes at its begin and end, when some cores have nothing to do, is in both.
        few, many = (once(job, "file", count) for count in (max(_FEW, frames // 4), max(_MANY, frames)))
        layout, plan = job.source.video.layout, job.engine
        return Point(
            width=layout.width,
            height=layout.height,
            cores=len(cores),
            pixels=plan.target.width * plan.target.height,
            engine_ms=engine_ms,
            decode_ms=decode_ms,
            encode_ms=encode_ms,
            ms=1000 * (many.seconds - few.seconds) / (many.frames - few.frames),
            memory_mb=_peak_mb(),
            tile=f"{plan.tile[1]}x{plan.tile[0]}" if plan.tile else "",
        )


def _peak_mb() -> float:
    """The most that this process held; what `getrusage` says begins with what its parent held."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _child(clip: Path, cores: Sequence[int], frames: int, chosen: Mapping[str, Any]) -> Point:
    command = [sys.executable, "-m", "benchmarks.scale", "one", str(clip), json.dumps([list(cores), frames, chosen])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Point(**json.loads(done.stdout))


# Cost


def cost(options: argparse.Namespace) -> list[Point]:
    """Medians of the rounds; each measures every size on every number of cores once."""
    from vidsr.benchmark.clip import RATE, generate

    allowed = sorted(os.sched_getaffinity(0))
    counts = [int(count) for count in options.cores.split(",")]
    if max(counts) > len(allowed):
        raise SystemExit(f"--cores {options.cores}: this machine lends {len(allowed)}")
    chosen = {"model": options.model, "preset": options.preset, "encoder": options.encoder}
    rounds: dict[tuple[str, int], list[Point]] = {}
    with tempfile.TemporaryDirectory(prefix="vidsr-scale-") as folder:
        clips = {}
        for size in options.sizes.split(","):
            width, height = map(int, size.split("x"))
            frames = max(_LEAST_FRAMES, min(_MOST_FRAMES, round(options.pixels / (width * height))))
            clips[size] = (generate(Path(folder), width, height, (max(frames, _MANY) + 1) / RATE), frames)
        for number in range(options.rounds):
            for size, (clip, frames) in clips.items():
                for count in counts:
                    print(f"round {number + 1} of {options.rounds}: {size}, {_counted(count)}", file=sys.stderr)
                    rounds.setdefault((size, count), []).append(_child(clip, allowed[:count], frames, chosen))
    return [_median(points) for points in rounds.values()]


def _median(points: Sequence[Point]) -> Point:
    fields = [asdict(point) for point in points]
    kept = ("width", "height", "cores", "pixels", "tile")
    return Point(**{
        name: fields[0][name] if name in kept else statistics.median(each[name] for each in fields)
        for name in fields[0]
    })  # fmt: skip


def table(points: Sequence[Point]) -> str:
    """For people. ns: core time an output pixel."""
    lines = ["| in | cores | engine ns | whole ns | decode ns | encode ns | frames/s | memory | tiles |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for point in points:
        decode, encode = (1e6 * ms / point.pixels for ms in (point.decode_ms, point.encode_ms))
        lines.append(
            f"| {point.width}x{point.height} | {point.cores} | {point.engine_ns:.0f} | {point.whole_ns:.0f} "
            f"| {decode:.1f} | {encode:.1f} | {1000 / point.ms:.3g} | {point.memory_mb:.0f} MB | {point.tile} |"
        )
    for cores in sorted({point.cores for point in points}):
        here = [point for point in points if point.cores == cores]
        for name, costs in (("engine", [p.engine_ns for p in here]), ("whole", [p.whole_ns for p in here])):
            found = spread(costs)
            verdict = "flat" if found <= FLAT else "not flat"
            lines.append(f"\n{_counted(cores)}, {name}: the dearest size costs {found:.2f} times the least: {verdict}")
    return "\n".join(lines)


def figure(points: Sequence[Point], about: str) -> Any:
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(9, 5), layout="constrained", dpi=150)
    axes = drawn.subplots()
    counts = sorted({point.cores for point in points})
    for cores, color in zip(counts, itertools.cycle(("#1b4f8a", "#d1495b", "#2e7d32", "0.4")), strict=False):
        here = sorted((point for point in points if point.cores == cores), key=lambda point: point.pixels)
        sizes = [point.pixels for point in here]
        axes.plot(sizes, [p.whole_ns for p in here], "o-", color=color, label=f"end to end, {_counted(cores)}")
        axes.plot(sizes, [p.engine_ns for p in here], "s--", color=color, label=f"engine alone, {_counted(cores)}")
    middle = statistics.median(point.whole_ns for point in points)
    axes.axhspan(middle / math.sqrt(FLAT), middle * math.sqrt(FLAT), color="0.93", label="a band of 15 %")
    axes.set_xscale("log")
    ticks = {point.pixels: f"{point.width}x{point.height}" for point in points}
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.set_ylim(0, 1.15 * max(max(point.whole_ns, point.engine_ns) for point in points))
    axes.set_xlabel("size of the input; the output has twice the width and height")
    axes.set_ylabel("nanoseconds of a core for a pixel of the output")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=2, loc="lower right")
    drawn.suptitle(about, fontsize=11)
    return drawn


# On paper


def paper(points: Sequence[Point], work: float) -> str:
    """Tables for machines that were not there. work: multiplications and additions in pairs, an output pixel."""
    most = max(point.cores for point in points)
    here = [point for point in points if point.cores == most]
    known = constants_from(
        [point.pixels for point in here],
        engine=[most * point.engine_ms for point in here],
        decode=[point.decode_ms for point in here],
        encode=[point.encode_ms for point in here],
        whole=[most * point.ms for point in here],
    )
    sizes = {"720p": 1280 * 720, "1080p": 1920 * 1080, "4K": 3840 * 2160, "8K": 7680 * 4320}
    lines = [_spelled(known), "", f"| output | {' | '.join(sizes)} |", f"| --- |{' --- |' * len(sizes)}"]
    for cores in (1, 2, 8, 64):
        lines.append(_row(_counted(cores), [on_cores(known, cores, pixels) for pixels in sizes.values()]))
    for card in CARDS:
        guesses = [on_card(known, card, HOST_CORES, pixels, pairs=work) for pixels in sizes.values()]
        lines.append(_row(f"{card.name}, {HOST_CORES} cores", guesses))
    return "\n".join(lines)


def _spelled(known: Constants) -> str:
    return (
        f"measured, of one core: inference {known.infer_ns:.1f} ns, decoding {known.decode_ns:.2f} ns, encoding "
        f"{known.encode_ns:.2f} ns an output pixel; {known.frame_ms:.2f} ms a frame; the pipeline reaches "
        f"{100 * known.efficiency:.0f} % of what these allow"
    )


def _row(name: str, guesses: Sequence[Guess]) -> str:
    return f"| {name} | {' | '.join(f'{guess.fps:.3g} ({guess.limit})' for guess in guesses)} |"


# Memory


def memory(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The peak of whole runs of `vidsr`, each a process of its own; every byte it holds counts."""
    from vidsr.benchmark.clip import RATE, generate

    found = []
    with tempfile.TemporaryDirectory(prefix="vidsr-scale-") as folder:
        source = options.source or generate(Path(folder), 3840, 2160, options.frames / RATE)
        for name, more in _MEMORY:
            command = [sys.executable, "-m", "vidsr", str(source), str(Path(folder, "out.mkv"))]
            command += ["--model", options.model, "--overwrite", *more]
            # The peak of all children is the largest one's: each needs a parent of its own.
            script = (
                "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], capture_output=True, text=True);"
                "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, done.returncode, done.stderr[-300:])"
            )
            said = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, check=True)
            peak, code, rest = said.stdout.split(" ", 2)
            if code != "0":
                raise SystemExit(f"{' '.join(command)}\n{rest}")
            found.append({"name": name, "options": " ".join(more), "memory_mb": int(peak) / 1024})
            print(f"{name:16} {int(peak) / 1024:6.0f} MiB  {' '.join(more)}", flush=True)
    return found


# The command


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    costs = commands.add_parser("cost")
    costs.add_argument("--model", default="span")
    costs.add_argument("--sizes", default=SIZES)
    costs.add_argument("--cores", default="1,2")
    costs.add_argument("--rounds", type=int, default=3)
    costs.add_argument("--pixels", type=float, default=12e6, help="input pixels of one measurement, about")
    costs.add_argument("--encoder", default="libx264")
    costs.add_argument("--preset", default="veryfast")
    costs.add_argument("--plot", type=Path, action="append", default=[], help="FILE.svg or FILE.png, may be repeated")
    memories = commands.add_parser("memory")
    memories.add_argument("source", nargs="?", type=Path, metavar="IN")
    memories.add_argument("--model", default="span-fast")
    memories.add_argument("--frames", type=int, default=48, help="an encoder's lookahead is full only behind 40")
    for command in (costs, memories):
        command.add_argument("--json", type=Path)
    papers = commands.add_parser("paper")
    papers.add_argument("found", type=Path, metavar="FILE.json")
    one = commands.add_parser("one")
    one.add_argument("clip", type=Path)
    one.add_argument("what", type=json.loads)
    options = parser.parse_args()
    if options.command == "one":
        print(json.dumps(asdict(measured(options.clip, *options.what))))
        return 0
    if options.command == "memory":
        rows = memory(options)
        _keep(options.json, {"memory": rows})
        return 0
    if options.command == "paper":
        kept = json.loads(options.found.read_text(encoding="utf-8"))
        points, model = [Point(**point) for point in kept["points"]], kept["model"]
    else:
        from vidsr.benchmark.plot import save
        from vidsr.machine import processor

        points, model = cost(options), options.model
        about = f"{model}, {options.encoder} {options.preset}, {processor()['name']}"
        _keep(options.json, {"model": model, "about": about, "points": [asdict(point) for point in points]})
        print(table(points), "\n")
        for path in options.plot:
            save(figure(points, about), path)
    print(paper(points, _pairs(model)))
    return 0


def _pairs(name: str) -> float:
    """Multiplications and additions in pairs, an output pixel."""
    from vidsr import models
    from vidsr.graph.cost import multiply_adds

    model = models.load(name)
    return multiply_adds(model.proto) / model.scale**2


def _keep(path: Path | None, found: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
