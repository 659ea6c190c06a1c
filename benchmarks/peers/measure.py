"""Rounds: everybody in turn on the same frames, the output of every run checked."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from benchmarks.peers.check import Findings, Span, check
from benchmarks.peers.environment import python_of
from benchmarks.peers.peer import Peer
from vidsr.benchmark.interval import Interval, median_interval

__all__ = ["VIDSR", "Contestant", "Failed", "Run", "Tally", "in_turn", "peer_command", "play", "ratio", "vidsr_command"]

VIDSR = "vidsr"
_HERE = Path(__file__).resolve().parent
_TIMEOUT_SECONDS = 3600


class Failed(Exception):
    """A run that came to nothing, in one line for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """command: what to run, given where the output goes. span: what it enlarges."""

    name: str
    command: Callable[[Path], list[str]]
    span: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """fps: from the first frame read to the last one written, as it says itself. other_seconds: what the process took
    beside that, loading mostly."""

    fps: float
    other_seconds: float
    findings: Findings


@dataclass(slots=True)
class Tally:
    """Runs of one contestant by round. failed: why there are no more."""

    runs: dict[int, Run] = field(default_factory=dict)
    failed: str = ""

    @property
    def findings(self) -> Findings:
        """Of all runs, each once."""
        every = [run.findings for run in self.runs.values()]
        return Findings(
            wrong=tuple(dict.fromkeys(fault for one in every for fault in one.wrong)),
            lost=tuple(dict.fromkeys(fault for one in every for fault in one.lost)),
        )


def in_turn(names: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """(round, name): each once a round, another one first each time, so that none always follows the same."""
    for number in range(rounds):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            yield number, name


def play(contestant: Contestant, folder: Path, scale: int) -> Run:
    """One run, measured and checked. Raises Failed."""
    output = folder / f"{contestant.name}.mp4"
    output.unlink(missing_ok=True)
    begin = time.perf_counter()
    try:
        done = subprocess.run(
            contestant.command(output),
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(_HERE.parents[1])},
            timeout=_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"it did not end within {_TIMEOUT_SECONDS} seconds") from None
    seconds = time.perf_counter() - begin
    try:
        if done.returncode:
            raise ValueError
        report = json.loads(done.stdout.splitlines()[-1])
        fps, other = report["frames"] / report["seconds"], seconds - report["seconds"]
    except (IndexError, KeyError, TypeError, ValueError, ZeroDivisionError):
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise Failed(lines[-1] if lines else f"it ended with {done.returncode} and without a word") from None
    if not output.exists():
        raise Failed("it made no output")
    return Run(fps=fps, other_seconds=other, findings=check(output, contestant.span, scale))


def ratio(first: Tally, second: Tally) -> Interval | None:
    """How many times as fast the first is, of the rounds that both played."""
    both = sorted(first.runs.keys() & second.runs.keys())
    return median_interval([first.runs[each].fps / second.runs[each].fps for each in both]) if both else None


def vidsr_command(span: Span, model: Path, asked: argparse.Namespace) -> Callable[[Path], list[str]]:
    """vidsr as a user runs it, without the verification that no peer has either."""
    options = ["--model", str(model), "--encoder", "libx264", "--preset", asked.preset, "--crf", asked.crf]
    options += ["--pix-fmt", "yuv420p", "--deinterlace", "off", "--no-verify", "-y", "--json"]
    options += ["--end", _decimal(span.end)] if span.end is not None else []
    return lambda output: [sys.executable, "-m", "vidsr", *options, str(span.clip), str(output)]


def peer_command(peer: Peer, span: Span, model: Path, asked: argparse.Namespace) -> Callable[[Path], list[str]]:
    """A peer's script in its own environment, which is made now if it is not there yet. Raises Missing."""
    python, script = python_of(peer.environment, peer.python), _HERE / "scripts" / peer.script
    # A span without an end gets a time behind that of every clip.
    end = _decimal(span.end) if span.end is not None else "1e6"
    tail = [str(span.frames), end, asked.preset, asked.crf, *([peer.how] if peer.how else [])]
    return lambda output: [str(python), str(script), str(model), str(span.clip), str(output), *tail]


def _decimal(seconds: Fraction) -> str:
    return f"{float(seconds):.6f}"
