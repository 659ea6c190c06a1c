"""Shows a run to a person: a live bar on a terminal, plain lines elsewhere, JSON lines for programs."""

from __future__ import annotations

import io
import json
import sys
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
    """For people, on standard error, so that nothing mixes with what goes to standard output."""

    def __init__(self, out: TextIO | None = None) -> None:
        # Standard error can be closed (2>&-); the run goes on, unseen.
        self._out = out or sys.stderr or io.StringIO()
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._shown_at = float("-inf")
        self._live = self._out.isatty()
        self._preparing = False

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
        sizes = [f"{width}x{height}" for width, height in (start.source_size, start.target_size)]
        self.line(f"{start.source} ({sizes[0]}) -> {start.target} ({sizes[1]})")
        self.line(f"model {start.model} on {start.engine}, encoder {start.encoder}")
        if start.resumed:
            self.line(f"going on behind frame {start.resumed}, where an earlier run ended")
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
        of = f"/{progress.total}" if progress.total else ""
        if not progress.frames:
            return
        parts = [f"{progress.frames}{of} frames"]
        if progress.total and progress.frames >= progress.total:
            parts.append("finishing")
        else:
            parts += [f"{progress.fps:.2f} fps", f"{_eta(progress)} left"]
        if progress.written_bytes > 100_000:  # before, it is the container's head and looks like a fault
            parts.append(human_bytes(progress.written_bytes))
        if progress.limit:
            parts.append(f"limited by {_LIMITS[progress.limit]}")
        text = ", ".join(parts)
        if self._bar is not None and self._task is not None:
            total = max(progress.total, progress.frames) if progress.total else None
            self._bar.update(self._task, completed=progress.frames, total=total, text=text)
        elif progress.seconds - self._shown_at >= _PLAIN_EVERY_SECONDS:
            self._shown_at = progress.seconds
            percent = f"{min(100, 100 * progress.frames // progress.total)}%: " if progress.total else ""
            self.line(percent + text)

    def _warned(self, warning: Warned) -> None:
        self.line(f"warning: {warning.message}")

    def _phase(self, phase: Phase) -> None:
        if phase.name == "preparing":
            self._prepare(phase)
        elif self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=phase.done, total=1, text=f"{phase.name} {phase.done:.0%}")

    def _prepare(self, phase: Phase) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, text=f"compiling the model for this size of picture {phase.done:.0%}")
        elif not self._preparing:
            self.line("compiling the model for this size of picture: minutes, but only the first time")
        self._preparing = True

    def _report(self, report: Report) -> None:
        self.close()
        frames = "1 frame" if report.frames == 1 else f"{report.frames} frames"
        if report.resumed:
            frames += f" ({report.resumed} of them by earlier runs)"
        busy = ", ".join(f"{stage} {share:.0%}" for stage, share in report.busy.items())
        verified = ", verified" if report.verified else ""
        speed = f" in {human_seconds(report.seconds)} ({report.fps:.2f} fps; busy: {busy})" if report.fps else ""
        self.line(
            f"{report.target or report.kept or 'nothing kept'}: {frames}{speed}, "
            f"{human_bytes(report.written_bytes)}{verified}"
        )
        for fault in report.faults:
            self.line(f"fault: {fault}")
