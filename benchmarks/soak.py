"""A long stream: does it stay as fast, and as small, as it was?

    python -m benchmarks.soak [--minutes 30] [--wall] [--csv FILE] [--json FILE] [--plot FILE.svg|png]
    python -m benchmarks.soak --allocations [--python] [--size 640x360]

Frames a second and resident memory, second by second, while `vidsr` enlarges a clip of so many minutes of video, which
is made by repeating a short one; with --wall for so many minutes by the clock. Exits with 1 where either is not flat.

--allocations: what is allocated while frames go by, once the run is warm: pages of memory touched for the first time,
and what the C library handed out and did not get back; with --python, Python's blocks of the size of frames by where
they are made, also those that are gone at once.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import json
import math
import os
import resource
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal

import av

BLOCKS = 20
_STUDENT = 2.101
"""Of a slope over so many blocks, 18 degrees of freedom, 19 chances in 20."""
_WARM_SHARE = 0.1
"""Of a run, which does not count: buffers fill, the encoder looks ahead."""
FLAT = {"fps": 0.02, "rss_mb": 0.02}
"""How much of its mean each may drift over the whole run."""
_CLIP_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """seconds: since the first frame. frames: so far. fps: since the sample before."""

    seconds: float
    frames: int
    fps: float
    rss_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Of a value over a run, as a share of its mean. low, high: what encloses the true one with 19 chances in 20."""

    mean: float
    drift: float
    low: float
    high: float
    verdict: Literal["flat", "rises", "falls", "not sure"]


def drift_of(seconds: Sequence[float], values: Sequence[float], allowed: float) -> Drift:
    """The straight line through the means of `BLOCKS` equal times, from first to last.

    Values one second apart are not independent, means of blocks nearly are. flat: the interval lies within `allowed`
    on both sides of 0. rises, falls: it does not, and all of it is on one side of 0.
    """
    begin, end = seconds[0], seconds[-1]
    blocks: list[list[float]] = [[] for _ in range(BLOCKS)]
    for second, value in zip(seconds, values, strict=True):
        blocks[min(BLOCKS - 1, int(BLOCKS * (second - begin) / max(end - begin, 1e-9)))].append(value)
    if not all(blocks):
        raise ValueError(f"{len(values)} values are too few for a judgement")
    means = [statistics.fmean(block) for block in blocks]
    places = [(index + 0.5) / BLOCKS for index in range(BLOCKS)]
    line = statistics.linear_regression(places, means)
    rest = sum((y - line.intercept - line.slope * x) ** 2 for x, y in zip(places, means, strict=True))
    around = sum((x - 0.5) ** 2 for x in places)
    error = _STUDENT * math.sqrt(rest / (BLOCKS - 2) / around)
    mean = statistics.fmean(means)
    drift, low, high = (value / mean for value in (line.slope, line.slope - error, line.slope + error))
    return Drift(mean=mean, drift=drift, low=low, high=high, verdict=_verdict(low, high, allowed))


def _verdict(low: float, high: float, allowed: float) -> Literal["flat", "rises", "falls", "not sure"]:
    if -allowed <= low and high <= allowed:
        return "flat"
    if low > 0:
        return "rises"
    return "falls" if high < 0 else "not sure"


def judged(samples: Sequence[Sample]) -> dict[str, Drift]:
    """fps and rss_mb, behind the warming up. Raises ValueError where there are too few."""
    last = samples[-1].seconds
    kept = [sample for sample in samples if sample.seconds >= _WARM_SHARE * last]
    seconds = [sample.seconds for sample in kept]
    return {name: drift_of(seconds, [getattr(sample, name) for sample in kept], FLAT[name]) for name in FLAT}


# The stream


def repeated(clip: Path, path: Path, seconds: float) -> Path:
    """The packets of a clip over and over, each round behind the one before, until it is so long."""
    with av.open(str(clip)) as given, av.open(str(path), "w", format="matroska") as made:
        track = given.streams.video[0]
        copied = made.add_stream_from_template(track)
        packets = [
            (bytes(packet), packet.pts, packet.dts, packet.duration, packet.is_keyframe)
            for packet in given.demux(track)
            if packet.size
        ]
        length = sum(duration for *_, duration, _ in packets)
        for number in range(math.ceil(seconds / float(length * track.time_base))):
            for data, pts, dts, duration, key in packets:
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = copied, track.time_base, key
                packet.pts, packet.dts, packet.duration = pts + number * length, dts + number * length, duration
                made.mux(packet)
    return path


def soaked(source: Path, folder: Path, options: argparse.Namespace, wall: float | None) -> list[Sample]:
    """One run, sampled once a second; ended after `wall` seconds where that is given."""
    import vidsr
    from vidsr.events import Progress

    samples: list[Sample] = []
    stop = Event()
    begin: list[float] = []

    def look(event: object) -> None:
        if not isinstance(event, Progress) or not event.frames:
            return
        now = time.perf_counter()
        if not begin:
            begin.append(now)
        seconds = now - begin[0]
        before = samples[-1] if samples else Sample(seconds=-1.0, frames=0, fps=0.0, rss_mb=0.0)
        if seconds - before.seconds >= 1.0:
            fps = (event.frames - before.frames) / (seconds - before.seconds)
            samples.append(Sample(seconds=seconds, frames=event.frames, fps=fps, rss_mb=rss_mb()))
            print(f"\r{seconds:6.0f} s {event.frames:8} frames {fps:8.1f} fps {rss_mb():7.1f} MB", end="", flush=True)
        if wall is not None and seconds >= wall:
            stop.set()

    chosen = {name: getattr(options, name) for name in ("model", "preset", "slots", "reuse")}
    vidsr.upscale(source, folder / "out.mkv", verify=False, observer=look, stop=stop, **chosen)
    print()
    return samples


def rss_mb() -> float:
    """Of this process, now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def figure(samples: Sequence[Sample], found: dict[str, Drift], about: str) -> Any:
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(9, 5), layout="constrained", dpi=150)
    minutes = [sample.seconds / 60 for sample in samples]
    labels = {"fps": "frames a second", "rss_mb": "resident memory, MB"}
    colors = ("#1b4f8a", "#d1495b")
    for axes, (name, label), color in zip(drawn.subplots(2, sharex=True), labels.items(), colors, strict=True):
        axes.plot(minutes, [getattr(sample, name) for sample in samples], color=color, linewidth=0.9)
        axes.set_ylim(0, 1.25 * max(getattr(sample, name) for sample in samples))
        axes.set_ylabel(label)
        axes.set_title(_sentence(name, found[name]), fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("minutes")
    drawn.suptitle(about, fontsize=11)
    return drawn


def _sentence(name: str, found: Drift) -> str:
    unit = {"fps": "frames/s", "rss_mb": "MB"}[name]
    low, drift, high = (f"{100 * share:+.2f}" for share in (found.low, found.drift, found.high))
    return f"{found.mean:.1f} {unit}, {drift} % over the run (between {low} and {high} %): {found.verdict}"


# Allocations


class _MallInfo(ctypes.Structure):
    """struct mallinfo2 of glibc."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def handed_out() -> int | None:
    """Bytes that the C library has given to whoever asked for them; None where it does not say."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return None
    ask.restype = _MallInfo
    info = ask()
    return int(info.uordblks + info.hblkhd)


class Watcher:
    """Looks at what Python holds at many moments, and remembers the large blocks by place: also those that a line makes
    and lets go at once, as long as some looks fall into it."""

    def __init__(self, least_bytes: int) -> None:
        self.looks = 0
        self.seen: Counter[str] = Counter()
        self.sizes: dict[str, int] = {}
        self._least = least_bytes
        self._done = Event()
        self._thread = Thread(target=self._run, name="soak-watch")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Harmless where it never began."""
        self._done.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(0.002):
            places: dict[str, int] = {}
            for trace in tracemalloc.take_snapshot().traces:
                if trace.size >= self._least:
                    frame = trace.traceback[-1]
                    place = f"{frame.filename.rsplit('/vidsr/', 1)[-1]}:{frame.lineno}"
                    places[place] = places.get(place, 0) + trace.size
            self.looks += 1
            for place, size in places.items():
                self.seen[place] += 1
                self.sizes[place] = max(size, self.sizes.get(place, 0))


def allocations(source: Path, options: argparse.Namespace) -> None:
    """Runs the pipeline into an encoder, and tells of the frames behind the first third."""
    from vidsr.benchmark import whole
    from vidsr.job import Settings

    settings = Settings(model=options.model, preset=options.preset, slots=options.slots, reuse=options.reuse)
    with whole.job_in(source, settings) as job:
        total = job.frames or 250
        first, last = total // 3, total - 5
        layout = job.engine.source
        least = sum(height * width for height, width in layout.shapes) // 16
        count, faults, held, live = 0, [0, 0], [0, 0], []
        watcher = Watcher(least)

        def tap() -> None:
            nonlocal count
            count += 1
            if count == first and options.python:
                tracemalloc.start(8)
                watcher.start()
            if count in (first + 1, last):
                side = int(count == last)
                faults[side] = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                held[side] = handed_out() or 0
                if options.python:
                    live.append(tracemalloc.take_snapshot())
            if count == last and options.python:
                watcher.stop()
                tracemalloc.stop()

        try:
            _tapped(job, tap)
        finally:
            watcher.stop()
    frames = last - first - 1
    page = os.sysconf("SC_PAGE_SIZE")
    print(f"{layout.width}x{layout.height}, {job.encoder.name}, frames {first + 1} to {last}")
    if not options.python:  # what watches touches memory, too
        print(f"fresh memory a frame: {(faults[1] - faults[0]) * page / frames / 1024:.1f} KiB (pages touched first)")
        print(f"kept by the C library's callers, a frame: {(held[1] - held[0]) / frames / 1024:+.2f} KiB")
        return
    mine = (tracemalloc.Filter(False, tracemalloc.__file__), tracemalloc.Filter(False, __file__))
    grown = live[1].filter_traces(mine).compare_to(live[0].filter_traces(mine), "filename")
    print("kept by Python over these frames, the most by file:")
    for entry in sorted(grown, key=lambda entry: -entry.size_diff)[:8]:
        print(f"  {entry.size_diff / 1024:+9.1f} KiB  {entry.traceback[0].filename}")
    print(f"blocks of {least / 1024:.0f} KiB and more, in {watcher.looks} looks, by the line that made them:")
    for place, seen in watcher.seen.most_common(20):
        share, size = 100 * seen / max(1, watcher.looks), watcher.sizes[place] / 1024
        print(f"  {share:5.1f} % of looks, {size:8.0f} KiB  {place}")


def _tapped(job: Any, tap: Any) -> None:
    """As `whole.once` does, with `tap` called for each frame."""
    from vidsr.job.run import stream_of
    from vidsr.pipeline import transfer
    from vidsr.sinks.segments import SegmentSink
    from vidsr.sinks.workspace import Workspace

    workspace = Workspace(job.path, {}, {}, "replace")
    try:
        transfer(
            stream_of(job, job.engine).spec(),
            SegmentSink(workspace, job.encoder, before_adding=lambda: None),
            job.video,
            stop=Event(),
            cancel=Event(),
            total=None,
            on_progress=lambda progress: None,
            written_bytes=lambda: 0,
            tap=lambda frame: tap(),
        )
    finally:
        workspace.remove()


# The command


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--wall", action="store_true", help="minutes by the clock instead of minutes of video")
    parser.add_argument("--size", default="192x108")
    parser.add_argument("--model", default="span-fast")
    parser.add_argument("--preset", default="veryfast")
    parser.add_argument("--slots", type=int)
    parser.add_argument("--reuse", default="auto")
    parser.add_argument("--kind", default="live", choices=("live", "screen", "drawn"))
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, action="append", default=[], help="FILE.svg or FILE.png, may be repeated")
    parser.add_argument("--allocations", action="store_true")
    parser.add_argument("--python", action="store_true", help="with --allocations: Python's own, which slows it down")
    options = parser.parse_args()
    from vidsr.benchmark import whole
    from vidsr.benchmark.clip import RATE, generate
    from vidsr.job import Settings

    width, height = map(int, options.size.split("x"))
    with tempfile.TemporaryDirectory(prefix="vidsr-soak-") as name:
        folder = Path(name)
        clip = generate(folder, width, height, _CLIP_SECONDS, options.kind)
        if options.allocations:
            allocations(clip, options)
            return 0
        seconds = 60 * options.minutes
        length = seconds
        if options.wall:  # more than enough frames
            settings = Settings(model=options.model, preset=options.preset)
            length *= 1.5 * whole.run(clip, settings, frames=100, rounds=1).fps / RATE
        video = repeated(clip, folder / "long.mkv", length)
        samples = soaked(video, folder, options, seconds if options.wall else None)
    try:
        found = judged(samples)
    except ValueError as error:
        raise SystemExit(f"{error}: give more --minutes") from None
    for value, drift in found.items():
        print(_sentence(value, drift))
    about = f"{samples[-1].frames} frames of {options.size}, {options.model}, {samples[-1].seconds / 60:.1f} minutes"
    if options.csv:
        with options.csv.open("w", encoding="utf-8", newline="") as table:
            rows = csv.DictWriter(table, list(asdict(samples[0])))
            rows.writeheader()
            rows.writerows(asdict(sample) for sample in samples)
    if options.json:
        kept = {"about": about, "drift": {key: asdict(drift) for key, drift in found.items()}}
        kept["samples"] = [asdict(sample) for sample in samples]
        options.json.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    for path in options.plot:
        from vidsr.benchmark.plot import save

        save(figure(samples, found, about), path)
    return 0 if all(drift.verdict == "flat" for drift in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
