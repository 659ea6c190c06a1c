"""A look at one thing in a process of its own, so that a crash or a hang there ends nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread, current_thread, main_thread
from typing import Any, Literal

__all__ = ["Child", "Heard", "Kind", "listen", "private_output"]

Kind = Literal["failed", "crashed", "hung"]
Heard = SimpleQueue[tuple["Child", bytes | None]]
"""Lines and whose they are; None for the end of what it says."""


class Child:
    """One `python -m vidsr.doctor TOPIC ...`, from its start to its end. Belongs to one thread, see `listen`.

    It says what it finds as JSON objects, one a line; each adds to `found`. Of these keys, `doing` is what it is about
    to do and `patience_seconds` how long it may be silent from then on.

    fault: how it ended where that was not as planned; kind: in what class that is. deadline: when it has been silent
    for too long, on the monotonic clock.
    """

    def __init__(self, *arguments: str, patience_seconds: float = 60.0) -> None:
        self.found: dict[str, Any] = {}
        self.fault: str | None = None
        self.kind: Kind | None = None
        self.deadline = 0.0
        self.arguments, self._patience = arguments, patience_seconds
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """For people."""
        topic, *rest = self.arguments
        return rest[0].rpartition(".")[2].removesuffix("_engine") if topic == "backend" else topic

    @property
    def runs(self) -> bool:
        return self._process is not None

    def start(self, heard: Heard) -> None:
        """heard: where what it says goes, for `hear`."""
        package = str(Path(__file__).resolve().parents[2])
        places = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        with _interrupts_wait():  # one amid the start would leave a process that nobody knows
            self._process = subprocess.Popen(
                [sys.executable, "-m", "vidsr.doctor", *self.arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(places)},
            )
        self._be_patient()
        # Nobody waits for it: what the process has started may keep its output open for longer than it lives.
        Thread(target=self._read, args=(self._process, heard), daemon=True).start()

    def hear(self, line: bytes | None) -> None:
        """Takes what it said; None for the end."""
        if self._process is None:  # its last words, after it was killed
            return
        if line is None:
            self._end(*self._ending(self._process.wait()))
            return
        with suppress(ValueError):  # cut short by a crash
            self.found |= json.loads(line)
        self._be_patient()

    def give_up(self) -> None:
        """Ends it where it is silent beyond its deadline."""
        if self._process is not None and time.monotonic() >= self.deadline:
            self._process.kill()
            self._end(f"hung (silent for {self._silence():.0f} s){self._where()}", "hung")

    def go_on(self) -> None:
        """Lets it go on where it waits for a word."""
        self._be_patient()
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):  # it has ended, as will be heard
                self._process.stdin.write(b"\n")
                self._process.stdin.flush()

    def close(self) -> None:
        """Ends it at once, where it still runs."""
        if self._process is not None:
            self._process.kill()
            self._end(None, None)

    def _read(self, process: subprocess.Popen[bytes], heard: Heard) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                heard.put((self, line))
        heard.put((self, None))

    def _silence(self) -> float:
        return float(self.found.get("patience_seconds", self._patience))

    def _be_patient(self) -> None:
        self.deadline = time.monotonic() + self._silence()

    def _end(self, fault: str | None, kind: Kind | None) -> None:
        assert self._process is not None
        self._process.wait()
        for pipe in (self._process.stdin, self._said):
            with suppress(OSError):  # a word that nobody waited for
                pipe.close()  # type: ignore[union-attr]
        self._process, self.fault, self.kind = None, fault, kind

    def _ending(self, code: int) -> tuple[str | None, Kind | None]:
        if "error" in self.found:
            return f"{self.found['error']}{self._where()}", "failed"
        if code == 0:
            return None, None
        if code < 0:
            return f"crashed (signal {-code}){self._where()}", "crashed"
        if code >= 0xC0000000:  # how Windows says it
            return f"crashed (code 0x{code:08X}){self._where()}", "crashed"
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return f"ended with code {code}{self._where()}" + (f": {lines[-1][:200]}" if lines else ""), "crashed"

    def _where(self) -> str:
        return f" while {self.found['doing']}" if "doing" in self.found else ""


def listen(
    children: Sequence[Child],
    heard: Heard,
    *,
    until: str | None = None,
    at_a_time: int = 1,
    observer: Callable[[str], None] = lambda name: None,
) -> None:
    """Hears each until it has said `until`, or ended; starts those that do not run, in this order.

    One thread starts, hears and ends them all, so that it can stop anywhere and knows what is left to close.
    """
    waiting, running = deque(children), list[Child]()
    while waiting or running:
        while waiting and len(running) < at_a_time:
            child = waiting.popleft()
            if not child.runs:
                observer(child.name)
                child.start(heard)
            running.append(child)
        patience = min(child.deadline for child in running) - time.monotonic()
        try:
            speaker, line = heard.get(timeout=max(0.0, patience))
        except Empty:
            for child in running:
                child.give_up()
        else:
            speaker.hear(line)
        running = [child for child in running if child.runs and (until is None or until not in child.found)]


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Ctrl-C within takes effect at the end."""
    before = signal.getsignal(signal.SIGINT)
    if current_thread() is not main_thread() or not callable(before):
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        before(signal.SIGINT, None)


def private_output() -> Callable[[dict[str, Any]], None]:
    """Writes an object as a line to what was standard output; what libraries print there goes to standard error."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(found: dict[str, Any]) -> None:
        out.write(json.dumps(found) + "\n")
        out.flush()

    return say
