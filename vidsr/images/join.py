"""Numbered pictures to a video."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from threading import Event as Signal

from vidsr import job
from vidsr.errors import OutputError, UsageError
from vidsr.events import Event, Observer, Report, Start, Warned
from vidsr.images.batch import is_sequence, members
from vidsr.job.settings import Settings
from vidsr.media.container import CONTAINERS
from vidsr.media.sequence import HOLDS, gather

__all__ = ["joins", "run_joined"]

_RATE = Fraction(25)


def joins(source: Path, target: Path, settings: Settings) -> bool:
    """Whether numbered pictures are to become a video. Raises UsageError for a rate that has no meaning."""
    wanted = is_sequence(source) and target.suffix.lower() in CONTAINERS
    if not wanted and settings.rate is not None:
        raise UsageError("--rate is for numbered pictures (frames/%05d.png) that become a video")
    return wanted


def run_joined(
    source: Path, target: Path, settings: Settings, *, observer: Observer, stop: Signal, cancel: Signal
) -> Report:
    """Gathers the pictures in a file beside the target, which then goes the way of every video. Raises a VidsrError."""
    numbers, files = zip(*members(source), strict=True)
    if source.suffix.lower() not in HOLDS:
        raise UsageError(f"{source}: no video can be made of these, but of {', '.join(HOLDS)}: convert them first")
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    if missing:
        observer(Warned(message=f"{source}: {missing} numbers are missing; the pictures are shown without a gap"))

    def named(event: Event) -> None:
        observer(replace(event, source=str(source)) if isinstance(event, Start) else event)

    try:
        with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=target.parent) as folder:
            gathered = Path(folder, f"{source.name}.mov")
            gather(files, gathered, settings.rate or _RATE)
            resolved = job.resolve(gathered, target, replace(settings, rate=None))
            return job.run(resolved, observer=named, stop=stop, cancel=cancel)
    except OSError as error:
        raise OutputError(f"{target.parent} cannot be written: {error.strerror or error}") from error
