"""A look at one thing in a process of its own, so that a crash or a hang there ends nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Literal

__all__ = ["Child", "Kind"]

Kind = Literal["failed", "crashed", "hung"]


class Child:
    """One `python -m vidsr.doctor TOPIC ...`, from its start to its end.

    It says what it finds as JSON objects, one a line; each adds to `found`. Of these keys, `doing` is what it is about
    to do and `patience_seconds` how long it may be silent from then on.

    fault: how it ended where that was not as planned; kind: in what class that is.
    """

    def __init__(self, *arguments: str, patience_seconds: float = 60.0) -> None:
        self.found: dict[str, Any] = {}
        self.fault: str | None = None
        self.kind: Kind | None = None
        self.arguments, self._patience = arguments, patience_seconds
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """For people."""
        topic, *rest = self.arguments
        return rest[0].rpartition(".")[2].removesuffix("_engine") if topic == "backend" else topic

    def start(self) -> None:
        package = str(Path(__file__).resolve().parents[2])
        places = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vidsr.doctor", *self.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(places)},
        )
        self._reader = Thread(target=self._read, args=(self._process,))
        self._reader.start()

    def listen(self, until: str | None = None) -> dict[str, Any]:
        """All that is found when it has said `until`, or ended."""
        while self._process is not None:
            patience = float(self.found.get("patience_seconds", self._patience))
            try:
                line = self._lines.get(timeout=patience)
            except Empty:
                self._process.kill()
                self._end(f"hung (silent for {patience:.0f} s){self._where()}", "hung")
                break
            if line is None:
                self._end(*self._ending(self._process.wait()))
                break
            try:
                said: dict[str, Any] = json.loads(line)
            except ValueError:  # cut short by a crash
                continue
            self.found |= said
            if until is not None and until in said:
                break
        return self.found

    def go_on(self) -> None:
        """Lets it go on where it waits for a word."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):  # it has ended, as `listen` will tell
                self._process.stdin.write(b"\n")
                self._process.stdin.flush()

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._end(None, None)

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _end(self, fault: str | None, kind: Kind | None) -> None:
        assert self._process is not None
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout, self._said):
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
