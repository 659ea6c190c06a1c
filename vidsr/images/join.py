"""Numbered pictures to a video."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from threading import Event as Signal

from vidsr import job
from vidsr.errors import OutputError, UsageError, VidsrError
from vidsr.events import Event, Observer, Report, Start, Warned
from vidsr.images.batch import is_sequence, sequence
from vidsr.images.read import is_turned
from vidsr.job.settings import Settings
from vidsr.media.container import CONTAINERS
from vidsr.media.sequence import HOLDS, gather

__all__ = ["Joining", "resolve_joined", "run_joined"]

_RATE = Fraction(25)


@dataclass(frozen=True, slots=True, kw_only=True)
class Joining:
    """Numbered pictures that become a video. files: of `source`, a pattern, by their numbers. warnings: what the user
    should know before it starts."""

    settings: Settings
    source: Path
    target: Path
    files: tuple[Path, ...]
    warnings: tuple[str, ...]


def resolve_joined(source: Path, target: Path, settings: Settings) -> Joining | None:
    """Checks all that a video of the first picture alone tells; None where no such thing is wanted. Raises a
    VidsrError."""
    if not (is_sequence(source) and target.suffix.lower() in CONTAINERS):
        if settings.rate is not None:
            raise UsageError("--rate is for numbered pictures (frames/%05d.png) that become a video")
        return None
    if settings.rate is not None and settings.rate <= 0:
        raise UsageError(f"--rate {float(settings.rate):g}: must be more than 0")
    numbers, files = zip(*sequence(source), strict=True)
    if source.suffix.lower() not in HOLDS:
        raise UsageError(f"{source}: no video can be made of these, but of {', '.join(HOLDS)}: convert them first")
    job.check_paths(files[0], target, settings)
    warnings = []
    if gaps := numbers[-1] - numbers[0] + 1 - len(numbers):
        warnings.append(f"{source}: {gaps} numbers without a picture; the others are shown without a gap")
    if is_turned(files[0]):
        turned = f"{source}: EXIF turns these pictures, and the video will not be turned"
        if settings.strict:
            raise OutputError(f"--strict: {turned}: enlarge them to pictures first, which turns them")
        warnings.append(turned)
    joining = Joining(settings=settings, source=source, target=target, files=files, warnings=tuple(warnings))
    with _gathered(joining, files[:1], None) as gathered:  # too short for a start or end
        job.resolve(gathered, target, replace(settings, rate=None, start=None, end=None))
    return joining


def run_joined(joining: Joining, *, observer: Observer, stop: Signal, cancel: Signal) -> Report:
    """Gathers the pictures in a file beside the target, which then goes the way of every video. Raises a VidsrError."""
    source, target = joining.source, joining.target
    for warning in joining.warnings:
        observer(Warned(message=warning))

    with _gathered(joining, joining.files, target.parent, (stop, cancel)) as gathered:

        def named(text: str) -> str:
            return text.replace(str(gathered), str(source))

        def watch(event: Event) -> None:
            if isinstance(event, Start):
                event = replace(event, source=named(event.source))
            elif isinstance(event, Warned):
                event = replace(event, message=named(event.message))
            elif isinstance(event, Report):
                event = replace(event, warnings=tuple(map(named, event.warnings)))
            observer(event)

        resolved = job.resolve(gathered, target, replace(joining.settings, rate=None))
        report = job.run(resolved, observer=watch, stop=stop, cancel=cancel)
        return replace(report, warnings=(*joining.warnings, *map(named, report.warnings)))


@contextmanager
def _gathered(
    joining: Joining, files: Sequence[Path], beside: Path | None, endings: Sequence[Signal] = ()
) -> Iterator[Path]:
    """A file of these pictures for a while, in a folder of its own, whose name no error tells."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=f"{joining.target.name}.", dir=beside)
    except OSError as error:
        where = beside or "the folder for temporary files"
        raise OutputError(f"{where} cannot be written: {error.strerror or error}") from error
    with folder:
        path = Path(folder.name, f"{joining.source.name}.mov")
        try:
            gather(files, path, joining.settings.rate or _RATE, endings)
            yield path
        except VidsrError as error:
            error.args = (str(error).replace(str(path), str(joining.source)),)
            raise
