"""`vidsr IN -` and `vidsr IN --player NAME`: the video as a stream."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import click

from vidsr.errors import Cancelled, OutputError, ReaderGone, UsageError

if TYPE_CHECKING:
    from vidsr.events import Report
    from vidsr.job import Job, Settings

__all__ = ["STDOUT", "resolve"]

STDOUT = Path("-")
"""OUT, where it is standard output."""
_TICK_SECONDS = 0.25
_PATIENCE_SECONDS = 2.0
_CLOSED = (0, -signal.SIGINT, -signal.SIGTERM)
"""How players end that somebody closed."""


def resolve(
    source: Path, settings: Settings, *, format: str | None, player: str | None, as_json: bool
) -> partial[Report]:
    """Checks and decides; gives what runs it, to be called as `vidsr.job.run_pipe` is. player: a command line; None
    writes to standard output."""
    if player is not None:
        command = _command(player)
    elif os.isatty(1):
        raise UsageError("standard output is a terminal: pipe the video on, as in `vidsr IN - | mpv -`, or name a file")
    elif as_json:
        raise UsageError("--json writes to standard output, where the video goes: leave it away")
    from vidsr.job import resolve_pipe

    name = "standard output" if player is None else command[0]
    job = resolve_pipe(source, settings, format=format or "matroska", name=name)
    return partial(_write, job) if player is None else partial(_play, job, command=command)


def _command(player: str) -> list[str]:
    """What starts the player, which is told to read its standard input."""
    try:
        words = shlex.split(player)
    except ValueError as error:
        raise UsageError(f"--player {player}: {error}") from None
    if not words or shutil.which(words[0]) is None:
        raise UsageError(f"--player {player}: there is no such command: install it, or give its path")
    return words if "-" in words else [*words, "-"]


def _write(job: Job, **how: Any) -> Report:
    try:
        descriptor = os.dup(1)
    except OSError:
        raise OutputError("standard output is closed: pipe the video on, or name a file") from None
    # From here on whatever a library prints goes where our messages go.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere if sys.stderr is None else sys.stderr.fileno(), 1)
    os.close(nowhere)
    try:
        return _run(job, descriptor, **how)
    finally:
        os.close(descriptor)


def _play(job: Job, *, command: list[str], stop: Event, **how: Any) -> Report:
    """Ends the command, with exit code 0, where somebody closes the player."""
    report: Report | None = None
    with suppress(ReaderGone), _started(command) as player:
        assert player.stdin is not None
        report = _run(job, player.stdin.fileno(), stop=stop, **how)
        player.stdin.close()
        _wait(player, stop)
        if stop.is_set():
            raise Cancelled("stopped")
    if player.returncode not in _CLOSED:
        ended = f"exit code {player.returncode}" if player.returncode > 0 else f"signal {-player.returncode}"
        raise OutputError(f"{command[0]} ended with {ended}")
    if report is None:
        raise click.exceptions.Exit(0)
    return report


def _run(job: Job, descriptor: int, **how: Any) -> Report:
    from vidsr.job import run_pipe

    report = run_pipe(job, descriptor, **how)
    if not report.complete:
        raise Cancelled("stopped")
    return report


@contextmanager
def _started(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A player, which has ended afterwards: by itself where it was closed, else by us."""
    said = subprocess.DEVNULL if sys.stderr is None else sys.stderr.fileno()
    try:
        player = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said)
    except OSError as error:
        raise OutputError(f"{command[0]} cannot be started ({error.strerror or error})") from error
    try:
        yield player
    except ReaderGone:
        _wait(player, Event(), _PATIENCE_SECONDS)
        raise
    finally:
        assert player.stdin is not None
        player.stdin.close()
        player.terminate()
        _wait(player, Event(), _PATIENCE_SECONDS)
        player.kill()
        player.wait()


def _wait(player: subprocess.Popen[bytes], stop: Event, seconds: float = float("inf")) -> None:
    """Until the player ends, but not beyond `stop` and `seconds`."""
    end = time.monotonic() + seconds
    while player.poll() is None and not stop.is_set() and time.monotonic() < end:
        with suppress(subprocess.TimeoutExpired):
            player.wait(_TICK_SECONDS)
