"""The job that a page starts: the same as on the command line, in a thread of its own."""

from __future__ import annotations

import itertools
import os
import shlex
from collections.abc import Iterator
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path
from threading import Event, Lock, Thread

from vidsr import api
from vidsr.errors import Cancelled, VidsrError, first_line
from vidsr.job.settings import Settings
from vidsr.media.container import CONTAINERS
from vidsr.preview import wire
from vidsr.preview.told import JobTold, Tell

__all__ = ["Work", "command_line", "default_target"]

_CLOSE_SECONDS = 1.0
_LONGEST_STEM_BYTES = 200
"""What leaves room for a suffix, a number, and the folder of the work within a file system's 255."""
_OVERWRITE = "add -y (overwrite=True) to replace it"
"""What the command says, and the page says otherwise."""


class Work:
    """At most one job at a time, and what the page is told of it."""

    def __init__(self) -> None:
        self._job = JobTold(resume=lambda: self._resume)
        self._resume = ""
        self._stop, self._cancel = Event(), Event()
        self._thread: Thread | None = None
        self._closed = False
        self._lock = Lock()
        self.parting: str | None = None
        """Of a job that `close` has ended: what became of it."""

    @property
    def running(self) -> bool:
        return self._job.told.message["state"] not in JobTold.ENDED

    def look(self, tell: Tell | None) -> None:
        """Who gets the "job" messages: the last one at once, then each; None where nobody is there."""
        self._job.told.look(tell)

    def start(self, source: Path, settings: Settings, command: wire.Job) -> None:
        """Starts the job that `command` makes of these settings; nothing while another one runs. An unfinished run
        towards the same target is taken up again, unless it is to be overwritten. What refuses it is told."""
        settings = replace(
            settings,
            crf=command.crf,
            preset=command.preset,
            encoder=command.encoder,
            overwrite=command.overwrite,
            resume=not command.overwrite,
        )
        target = Path(os.path.expanduser(command.target))
        line = command_line(source, target, replace(settings, resume=False))
        with self._lock:
            if self._closed or not self._job.told.begin(
                JobTold.ENDED, "running", text="starting", target=command.target, command=line
            ):
                return
            if self._thread is not None:  # it has said that it is over
                self._thread.join()
            self._resume = command_line(source, target, replace(settings, resume=True))
            self._stop, self._cancel = Event(), Event()
            self._thread = Thread(target=self._run, args=(source, target, settings), name="vidsr-job")
            self._thread.start()

    def stop(self) -> None:
        """As the first Ctrl-C: what is done is kept."""
        with self._lock:
            self._stop.set()
        self._job.stopping()

    def close(self, seconds: float = _CLOSE_SECONDS) -> None:
        """Ends the job, at once where it takes longer than `seconds`, and waits until it is over."""
        with self._lock:
            self._closed = True
        cut_off = self.running
        self.stop()
        if self._thread is not None:
            self._thread.join(seconds)
            self._cancel.set()
            self._thread.join()
        if cut_off:
            self.parting = f"the job towards {self._job.told.message['target']}: {self._job.told.message['text']}"

    def _run(self, source: Path, target: Path, settings: Settings) -> None:
        try:
            run = api.resolve(source, target, settings)
            if self._stop.is_set():
                raise Cancelled("stopped before the first frame")
            run(observer=self._job, stop=self._stop, cancel=self._cancel)
        except Cancelled as error:
            self._job.stopped(str(error))
        except VidsrError as error:
            self._job.failed(" ".join(str(error).split()).replace(_OVERWRITE, "tick that it is to be replaced"))
        except Exception as error:
            self._job.failed(f"internal error: {type(error).__name__}: {first_line(error)}")


def default_target(source: Path, scale: Fraction | int) -> Path:
    """A name that is free, beside the input: `in-2x.mp4`; Matroska for what cannot be written."""
    suffix = source.suffix if source.suffix.lower() in CONTAINERS else ".mkv"
    stem = source.stem
    while len(os.fsencode(stem)) > _LONGEST_STEM_BYTES:
        stem = stem[:-1]
    first = source.with_name(f"{stem}-{float(scale):g}x{suffix}")
    numbered = (first.with_stem(f"{first.stem}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([first], numbered) if not os.path.exists(path))


_FLAGS = {"overwrite": "-y", "verify": "--no-verify"}
_NAMES = {"memory_bytes": "--memory"}


def command_line(source: Path, target: Path, settings: Settings) -> str:
    """What to type for this job."""
    return shlex.join(["vidsr", _path(source), _path(target), *_options(settings)])


def _path(path: Path) -> str:
    return f"./{path}" if str(path).startswith("-") else str(path)


def _options(settings: Settings) -> Iterator[str]:
    """Those that are not as usual."""
    usual = Settings()
    for name in (field.name for field in fields(Settings)):
        value = getattr(settings, name)
        option = _NAMES.get(name, f"--{name.replace('_', '-')}")
        if value == getattr(usual, name):
            continue
        if name == "encoder_options":
            for key, text in value.items():
                yield from ("-e", f"{key}={text}")
        elif isinstance(value, bool):
            yield _FLAGS.get(name, option)
        elif name in ("start", "end"):  # times are written with decimals
            yield from (option, f"{float(value):.6f}".rstrip("0").rstrip("."))
        elif isinstance(value, float | Fraction):
            short = f"{float(value):g}"
            yield from (option, short if Fraction(short) == value else str(value))
        else:
            yield from (option, str(value))
