"""What the user wants of pictures: which file becomes which. Everything that names alone tell is checked here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidsr import models
from vidsr.errors import InputError, OutputError, UsageError
from vidsr.images.library import vips
from vidsr.images.read import READABLE
from vidsr.images.size import check_wish
from vidsr.images.write import FORMATS, Format
from vidsr.job.settings import Settings
from vidsr.media.container import CONTAINERS

__all__ = ["Batch", "Task", "is_sequence", "members", "numbered", "resolve", "sequence"]

_NUMBER = re.compile(r"%(?:0(\d+))?d")
_NAME = "%s"
_OF_VIDEO = ("rate", "encoder", "crf", "preset", "encoder_options", "pix_fmt", "tracks", "keep_partial")
_OF_FRAMES = ("start", "end", "deinterlace", "hwaccel")
"""Settings without meaning for pictures; of those, the ones with a meaning for the frames of a video."""
_LISTED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One file to one file."""

    source: Path
    target: Path
    format: Format


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Pictures to pictures, with everything decided that can be before they are read.

    source, target: as the user gave them. skipped: pictures that were done before. video: whether `source` is one;
    then `tasks` is empty, and `target` names its frames.
    """

    settings: Settings
    source: Path
    target: Path
    tasks: tuple[Task, ...] = ()
    skipped: int = 0
    video: bool = False
    warnings: tuple[str, ...] = ()


def resolve(source: Path, target: Path, settings: Settings) -> Batch | None:
    """What is to be done; None where it is a video's business. Raises a VidsrError with one clear line."""
    if not _concerns(source, target):
        if settings.quality is not None:
            raise UsageError("--quality is for pictures; a video's is --crf")
        return None
    video = _is_video(source, target)
    _check_settings(settings, _OF_VIDEO if video else (*_OF_VIDEO, *_OF_FRAMES))
    check_wish(settings)
    vips()
    models.load(settings.model)
    if video:
        _check_frames(source, target, settings)
        return Batch(settings=settings, source=source, target=target, video=True)
    sources, others = _sources(source)
    tasks = [_task(path, _target_of(path, number, source, target)) for number, path in sources]
    _check_targets(tasks)
    wanted = tasks
    if settings.resume and not settings.overwrite:
        wanted = [task for task in tasks if not os.path.exists(task.target)]
    elif not settings.overwrite:
        _check_absent((task.target for task in tasks), resumable=True)
    if settings.quality is not None and all(task.format.quality is None for task in tasks):
        raise UsageError(f"--quality: nothing is lost in {tasks[0].format.name}, so there is none to choose")
    return Batch(
        settings=settings,
        source=source,
        target=target,
        tasks=tuple(wanted),
        skipped=len(tasks) - len(wanted),
        warnings=(f"{source} holds other things, which are left alone: {_listed(others)}",) if others else (),
    )


def numbered(path: Path, number: int) -> Path:
    """The file of that number in a sequence such as `frames/%05d.png`."""
    return path.with_name(_NUMBER.sub(lambda match: f"{number:0{match[1] or 1}d}", path.name))


def _concerns(source: Path, target: Path) -> bool:
    if target.suffix.lower() in CONTAINERS and not (os.path.isdir(target) and _is_picture(source)):
        return False
    return os.path.isdir(source) or is_sequence(source) or _is_picture(source) or _is_picture(target)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in {*READABLE, *FORMATS}


def is_sequence(path: Path) -> bool:
    """Whether it names numbered files, such as `frames/%05d.png`."""
    return bool(_NUMBER.search(path.name)) and not os.path.exists(path)


def _is_video(source: Path, target: Path) -> bool:
    """Whether the frames of `source` are wanted: of a video, or of an animation of which many pictures are made."""
    if os.path.isdir(source) or is_sequence(source):
        return False
    return not _is_picture(source) or (source.suffix.lower() == ".gif" and bool(_NUMBER.search(target.name)))


def _check_settings(settings: Settings, names: Sequence[str]) -> None:
    usual = Settings()
    for name in names:
        if getattr(settings, name) != getattr(usual, name):
            option = "-e" if name == "encoder_options" else f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} is for video; of pictures only --quality can be chosen")
    if settings.quality is not None and not 1 <= settings.quality <= 100:
        raise UsageError(f"--quality {settings.quality}: give a number from 1 to 100")


def _check_frames(source: Path, target: Path, settings: Settings) -> None:
    if not os.path.exists(source):
        raise InputError(f"{source}: no such file")
    _format_of(target)
    if not _NUMBER.search(target.name):
        raise OutputError(f"{target} is one picture, and {source} a video: name its frames, e.g. frames/%05d.png")
    if settings.resume:
        raise UsageError("--resume: a video that is taken apart begins anew; add -y to replace its frames")
    if not settings.overwrite:
        _check_absent((path for _, path in members(target)), resumable=False)


def _sources(source: Path) -> tuple[Sequence[tuple[int | None, Path]], list[str]]:
    """The pictures with their numbers, if they have any, and what else lies in the folder. Raises InputError where
    there are none."""
    if os.path.isdir(source):
        try:
            entries = sorted(path for path in source.iterdir() if not path.name.startswith("."))
        except OSError as error:
            raise InputError(f"{source}: cannot be read ({error.strerror or error})") from error
        pictures = [(None, path) for path in entries if path.suffix.lower() in READABLE and path.is_file()]
        if not pictures:
            raise InputError(f"{source}: no pictures in it (known are {', '.join(READABLE)})")
        known = {path for _, path in pictures}
        return pictures, [path.name for path in entries if path not in known]
    if is_sequence(source):
        return sequence(source), []
    if not os.path.exists(source):
        raise InputError(f"{source}: no such file")
    return [(None, source)], []


def sequence(pattern: Path) -> list[tuple[int, Path]]:
    """The members of a sequence to be read. Raises InputError where there are none."""
    found = members(pattern)
    if not found:
        raise InputError(f"{pattern}: no file of that name and number")
    return found


def members(pattern: Path) -> list[tuple[int, Path]]:
    """The files of a sequence that are there, by their numbers."""
    match = _NUMBER.search(pattern.name)
    assert match is not None
    before, behind = pattern.name[: match.start()], pattern.name[match.end() :]
    wanted = re.compile(f"{re.escape(before)}([0-9]+){re.escape(behind)}")
    found = []
    for path in pattern.parent.iterdir() if pattern.parent.is_dir() else ():
        hit = wanted.fullmatch(path.name)
        if hit and numbered(pattern, int(hit[1])).name == path.name:
            found.append((int(hit[1]), path))
    return sorted(found)


def _target_of(path: Path, number: int | None, source: Path, target: Path) -> Path:
    """Where one of the pictures of `source` goes. number: its own in a sequence."""
    if os.path.isdir(target):
        return target / _kept_name(path)
    if _NAME in target.name:
        return target.with_name(target.name.replace(_NAME, path.stem))
    if _NUMBER.search(target.name):
        if number is None:
            raise OutputError(f"{target}: the pictures of {source} have no numbers; %s in its place takes their names")
        return numbered(target, number)
    if number is None and not os.path.isdir(source):
        if not os.path.isdir(target.parent):
            raise OutputError(f"{target.parent}: no such folder")
        return target
    if _is_picture(target):
        raise OutputError(f"{target} is one picture, and {source} holds many: give a folder, or e.g. out/%s.png")
    return target / _kept_name(path)


def _kept_name(path: Path) -> str:
    """The same name, but PNG for what is read only."""
    return path.name if path.suffix.lower() in FORMATS else f"{path.stem}.png"


def _task(source: Path, target: Path) -> Task:
    # Whoever gives a link wants the file behind it replaced.
    target = target.resolve() if os.path.islink(target) else target
    return Task(source=source, target=target, format=_format_of(target))


def _format_of(target: Path) -> Format:
    try:
        return FORMATS[target.suffix.lower()]
    except KeyError:
        raise OutputError(
            f"{target}: the name must end in one of {', '.join(FORMATS)} to say what kind of picture to write"
        ) from None


def _check_targets(tasks: Sequence[Task]) -> None:
    inputs = {_file_id(task.source): task.source for task in tasks if os.path.exists(task.source)}
    sources: dict[Path, Path] = {}
    for task in tasks:
        if task.target in sources:
            raise OutputError(f"{sources[task.target]} and {task.source} would both become {task.target}")
        sources[task.target] = task.source
        if os.path.isdir(task.target):
            raise OutputError(f"{task.target} is a folder: give another name for the output")
        if os.path.exists(task.target) and (held := inputs.get(_file_id(task.target))):
            which = "the input itself" if held == task.source else f"an input itself, and {task.source} would become it"
            raise OutputError(f"{task.target} is {which}: give another name for the output")


def _file_id(path: Path) -> tuple[int, int]:
    """The same for two names of one file."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _check_absent(paths: Iterable[Path], *, resumable: bool) -> None:
    there = [path for path in paths if os.path.exists(path)]
    if there:
        more = f" and {len(there) - 1} more exist" if len(there) > 1 else " exists"
        leave = ", --resume to leave what is done" if resumable else ""
        raise OutputError(
            f"{there[0]}{more} already: add -y (overwrite=True) to replace{leave}, or choose another name"
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
