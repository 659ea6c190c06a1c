"""Shows a run to a person: a live bar on a terminal, plain lines elsewhere, JSON lines for programs."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from vidsr.errors import OutputError
from vidsr.events import Event, Phase, Progress, Report, Start, Warned

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

__all__ = ["Display", "JsonLines", "human_bytes", "human_seconds"]

_LIMITS = {"decode": "decoding", "model": "the model", "encode": "the encoder"}
_PLAIN_EVERY_SECONDS = 10.0


def human_bytes(count: float) -> str:
    """1234567 -> "1.2 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_seconds(seconds: float) -> str:
    """3725 -> "1:02:05"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _eta(progress: Progress) -> str:
    if not progress.total or progress.fps <= 0:
        return "?"
    return human_seconds(max(0, progress.total - progress.frames) / progress.fps)


def _rounded(value: Any) -> Any:
    """Floats to the thousandth: more would be noise."""
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    return round(value, 3) if isinstance(value, float) else value


class JsonLines:
    """One JSON object a line: the event's fields and its name under "event"."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def __call__(self, event: Event) -> None:
        names = {Start: "start", Progress: "progress", Phase: "phase", Warned: "warning", Report: "done"}
        self.write({"event": names[type(event)], **asdict(event)})

    def write(self, fields: dict[str, Any]) -> None:
        try:
            print(json.dumps(_rounded(fields)), file=self._out, flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"standard output cannot be written ({error.strerror})") from error

    def line(self, text: str) -> None:
        """For people, who do not read this."""

    def close(self) -> None:
        pass


class Display:
    """For people, on standard error, so that nothing mixes with what goes to standard output.

    bar: whether there may be one on a terminal; players have a line of their own there.
    """

    def __init__(self, out: TextIO | None = None, *, bar: bool = True) -> None:
        # Standard error can be closed (2>&-); the run goes on, unseen.
        self._out = out or sys.stderr or io.StringIO()
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._shown_at = float("-inf")
        self._live = bar and self._out.isatty()
        self._preparing = False
        self._unit, self._rate, self._done = "frame", "fps", 0
        self._tenths, self._began = 0, 0.0

    def __call__(self, event: Event) -> None:
        handlers: dict[type, Callable[[Any], None]] = {
            Start: self._start,
            Progress: self._progress,
            Phase: self._phase,
            Warned: self._warned,
            Report: self._report,
        }
        handlers[type(event)](event)

    def line(self, text: str) -> None:
        """Prints a line above the bar, if there is one."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self._out, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _start(self, start: Start) -> None:
        if start.unit != "frame":
            self._unit, self._rate = start.unit, f"{start.unit}s/s"
        self._done, self._began = start.resumed, time.monotonic()
        sizes = [f" ({size[0]}x{size[1]})" if size else "" for size in (start.source_size, start.target_size)]
        self.line(f"{start.source}{sizes[0]} -> {start.target}{sizes[1]}")
        self.line(f"model {start.model} on {start.engine}, encoder {start.encoder}")
        if start.resumed:
            self.line(f"going on behind {start.unit} {start.resumed}, where an earlier run ended")
        if self._live:
            self._begin_bar(start)

    def _begin_bar(self, start: Start) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.percentage:>3.0f}%"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}", markup=False),
            console=Console(file=self._out),
            transient=True,
        )
        self._task = self._bar.add_task("", total=start.frames, text="loading the model")
        self._bar.start()

    def _progress(self, progress: Progress) -> None:
        self._done = progress.frames
        of = f"/{progress.total}" if progress.total else ""
        if not progress.frames:
            return
        parts = [f"{progress.frames}{of} {self._unit}s"]
        if progress.total and progress.frames >= progress.total:
            parts.append("finishing")
        else:
            parts += [f"{progress.fps:.2f} {self._rate}", f"{_eta(progress)} left"]
        if progress.written_bytes > 100_000:  # before, it is the container's head and looks like a fault
            parts.append(human_bytes(progress.written_bytes))
        if progress.limit:
            parts.append(f"limited by {_LIMITS[progress.limit]}")
        text = ", ".join(parts)
        if self._bar is not None and self._task is not None:
            total = max(progress.total, progress.frames) if progress.total else None
            self._bar.update(self._task, completed=progress.frames, total=total, text=text)
        elif self._unit == "picture" and progress.total == progress.frames:
            return  # the report says it all
        elif progress.seconds - self._shown_at >= _PLAIN_EVERY_SECONDS:
            self._shown_at = progress.seconds
            percent = f"{min(100, 100 * progress.frames // progress.total)}%: " if progress.total else ""
            self.line(percent + text)

    def _warned(self, warning: Warned) -> None:
        self.line(f"warning: {warning.message}")

    def _phase(self, phase: Phase) -> None:
        if phase.name == "preparing":
            self._prepare(phase)
        elif phase.name == "enlarging":
            self._enlarge(phase.done)
        elif self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=phase.done, total=1, text=f"{phase.name} {phase.done:.0%}")

    def _prepare(self, phase: Phase) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, text=f"compiling the model for this size of picture {phase.done:.0%}")
        elif not self._preparing:
            self.line("compiling the model for this size of picture: minutes, but only the first time")
        self._preparing = True

    def _enlarge(self, share: float) -> None:
        """Of the picture at hand."""
        if self._bar is not None and self._task is not None:
            left = f", {human_seconds((time.monotonic() - self._began) * (1 / share - 1))} left" if share else ""
            text = f"{self._done} {self._unit}s done, the next {share:.0%}" if self._done else f"{share:.0%}{left}"
            self._bar.update(self._task, completed=self._done + share, text=text)
        elif not self._done and int(10 * share) > self._tenths:
            self._tenths = int(10 * share)
            self.line(f"{share:.0%}")

    def _report(self, report: Report) -> None:
        self.close()
        frames = f"{report.frames} {self._unit}{'' if report.frames == 1 else 's'}"
        if report.resumed:
            frames += f" ({report.resumed} of them by earlier runs)"
        busy = ", ".join(f"{stage} {share:.0%}" for stage, share in report.busy.items())
        verified = ", verified" if report.verified else ""
        fps = f"{report.fps:.2f} {self._rate}"
        speed = f" in {human_seconds(report.seconds)} ({fps}; busy: {busy})" if report.fps and report.frames else ""
        self.line(
            f"{report.target or report.kept or 'nothing kept'}: {frames}{speed}, "
            f"{human_bytes(report.written_bytes)}{verified}"
        )
        for fault in report.faults:
            self.line(f"fault: {fault}")
