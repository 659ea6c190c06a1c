"""What a page is told of work under way: always the state of the moment, whoever comes when."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from vidsr.events import Event, Phase, Progress, Report, Start, Warned
from vidsr.progress import human_bytes

__all__ = ["JobTold", "Tell", "Told"]

Tell = Callable[[Mapping[str, Any]], None]
"""Takes a message for the viewer; from any thread, and never waits."""


class Told:
    """A message that changes. Who looks gets it as it is, once it has a state, and again whenever it changes. From any
    thread."""

    def __init__(self, **fields: Any) -> None:
        self._first = self._message = fields
        self._tell: Tell | None = None
        self._lock = Lock()

    @property
    def message(self) -> Mapping[str, Any]:
        return self._message

    def look(self, tell: Tell | None) -> None:
        """From now on the changes go there; None where nobody looks."""
        with self._lock:
            self._tell = tell
            if tell is not None and self._message["state"] is not None:
                tell(self._message)

    def change(self, **fields: Any) -> None:
        with self._lock:
            self._set({**self._message, **fields})

    def turn(self, before: Collection[str], state: str, **fields: Any) -> bool:
        """From one of these states to another; False, and nothing changes, where it is in none of them."""
        with self._lock:
            if self._message["state"] not in before:
                return False
            self._set({**self._message, "state": state, **fields})
            return True

    def begin(self, ended: Collection[str], state: str, **fields: Any) -> bool:
        """The same, with everything else as it was at first."""
        return self.turn(ended, **{**self._first, **fields, "state": state})

    def _set(self, message: dict[str, Any]) -> None:
        self._message = message
        if self._tell is not None:
            self._tell(message)


class JobTold:
    """The state of a job for a page, of the events of its run: an observer.

    told: the message. resume: gives the command line that goes on after a stop.
    """

    ENDED = frozenset({"idle", "done", "failed"})

    def __init__(self, resume: Callable[[], str], state: str = "idle") -> None:
        self._resume = resume
        self.told = Told(
            tell="job",
            state=state,
            text="",
            command="",
            target="",
            frames=0,
            total=None,
            fps=0.0,
            left_seconds=None,
            written_bytes=0,
            phase=None,
            done=None,
            limit=None,
            verified=None,
            faults=[],
            warnings=[],
        )

    def __call__(self, event: Event) -> None:
        if isinstance(event, Start):
            text = f"{event.model} on {event.engine}, encoder {event.encoder}"
            self.told.change(text=text, target=event.target, frames=event.resumed, total=event.frames)
        elif isinstance(event, Progress):
            self.told.change(phase=None, **_standing(event))
        elif isinstance(event, Phase):
            self.told.change(phase=event.name, done=event.done, left_seconds=None)
        elif isinstance(event, Warned):
            self.told.change(warnings=[*self.told.message["warnings"], event.message])
        else:
            self._ended(event)

    def stopping(self) -> None:
        self.told.turn({"running"}, "stopping", text="stopping: what is done can be resumed")

    def failed(self, text: str) -> None:
        self.told.change(state="failed", text=text, phase=None, left_seconds=None)

    def stopped(self, text: str) -> None:
        self.told.change(state="idle", text=text, phase=None, left_seconds=None)

    def _ended(self, report: Report) -> None:
        if not report.complete:
            kept = f"{report.frames} frames are kept in {report.kept}; to go on: {self._resume()}"
            self.stopped(f"stopped: {kept}" if report.kept else "stopped; no segment was whole, so nothing was kept")
            return
        size, name = human_bytes(report.written_bytes), Path(report.target or "").name
        text = f"{name}: {report.frames} frames, {size}{', verified' if report.verified else ''}"
        if report.faults:
            text = f"{name} differs from its input: {report.faults[0]}"
        self.told.change(
            state="done",
            text=text,
            target=report.target,
            frames=report.frames,
            fps=report.fps,
            left_seconds=0.0,
            written_bytes=report.written_bytes,
            phase=None,
            done=1.0,
            verified=report.verified,
            faults=list(report.faults),
            warnings=list(report.warnings),
        )


def _standing(progress: Progress) -> dict[str, Any]:
    total, frames = progress.total, progress.frames
    left = max(0, total - frames) if total else None
    return {
        "frames": frames,
        "total": total,
        "fps": progress.fps,
        "left_seconds": left / progress.fps if left is not None and progress.fps > 0 else None,
        "written_bytes": progress.written_bytes,
        "done": min(1.0, frames / total) if total else None,
        "limit": progress.limit,
    }
