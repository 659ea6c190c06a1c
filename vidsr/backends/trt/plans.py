"""Plans kept between runs, by everything they depend on.

A plan is executable content: it is only read from a folder and a file that belong to the user and that nobody else can
write, and after its hash matched the one beside it. Every file gets its name when it is whole and synced; the
description comes last, so that a plan without one was never finished.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event

from filelock import FileLock, Timeout

from vidsr.backends.trt.key import PlanKey
from vidsr.durable import write_whole
from vidsr.errors import Cancelled

__all__ = ["Cleared", "Entry", "Found", "PlanCache", "remove"]

_TIMING_MAGIC = b"vidsr timing cache 1\n"
_POLL_SECONDS = 0.2
_PLANS = re.compile(r"[\w.-]+-\d+x\d+(-\d+x\d+)?-\w+-[0-9a-f]{16}\.plan")
_FILES = re.compile(r"([\w.-]+-\d+x\d+(-\d+x\d+)?-\w+-[0-9a-f]{16}\.(plan|json)|[0-9a-f]{16}\.timing)(\.\d+\.part)?")
"""Names of what is kept here, and of what a process that ended too early left. The locks stay: they are empty, and
without its file one that is held would keep nobody out."""
_LATEST_SECONDS = 2.0**34
"""A time or duration beyond was never written here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A kept plan. built: seconds since the epoch; took: seconds it was built for. key: None where the description
    cannot be read."""

    path: Path
    bytes: int
    key: PlanKey | None
    built: float
    took: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What there is for a key: a plan, nothing, or a reason why what is there cannot be used. spoiled: nothing makes
    that one good again."""

    plan: bytes | None = None
    reason: str | None = None
    spoiled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """removed: how many compiled models are gone. obstacles: what is still there and why, a line each."""

    removed: int = 0
    obstacles: tuple[str, ...] = ()

    def __add__(self, other: Cleared) -> Cleared:
        return Cleared(removed=self.removed + other.removed, obstacles=(*self.obstacles, *other.obstacles))


class PlanCache:
    """A folder of plans, made when the first one is put in. With no folder nothing is kept and nothing is found."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def entries(self) -> Iterator[Entry]:
        """All plans, in the order of their names."""
        for path in [] if self.folder is None else sorted(self.folder.glob("*.plan")):
            if not _PLANS.fullmatch(path.name):
                continue
            try:
                told = _described(path.with_suffix(".json"))
            except OSError:
                told = None
            key, built, took = (told.key, told.built, told.took) if told else (None, 0.0, 0.0)
            with suppress(OSError):  # another process may have cleared it
                yield Entry(path=path, bytes=path.stat().st_size, key=key, built=built, took=took)

    def get(self, key: PlanKey) -> Found:
        """The plan, or why there is none."""
        if self.folder is None:
            return Found()
        plan, description = self._paths(self.folder, key)
        if not plan.exists() and not description.exists():
            return Found()
        if reason := _untrusted(self.folder) or _untrusted(plan) or _untrusted(description):
            return Found(reason=reason)
        try:
            told, data = _described(description), plan.read_bytes()
        except FileNotFoundError:
            told, data = None, b""
        except OSError as error:
            return Found(reason=f"{plan}: {error.strerror or error}")
        if told is None:
            return Found(reason="it was never finished, or its description is damaged", spoiled=True)
        if told.key != key:
            return Found(reason=f"it was made for something else ({key.differences(told.key)})", spoiled=True)
        if hashlib.sha256(data).hexdigest() != told.sha256:
            return Found(reason="it is damaged (its hash is not the one it was written with)", spoiled=True)
        return Found(plan=data)

    def put(self, key: PlanKey, plan: bytes, took: float) -> None:
        """Keeps a plan that was built for `took` seconds. Raises OSError."""
        if self.folder is None:
            return
        path, description = self._paths(self.folder, key)
        description.unlink(missing_ok=True)
        write_whole(path, plan)
        sha256 = hashlib.sha256(plan).hexdigest()
        told = {"sha256": sha256, "built": time.time(), "took": took, "key": asdict(key)}
        write_whole(description, json.dumps(told, indent=1).encode())

    def drop(self, key: PlanKey) -> None:
        for path in self._paths(self.folder, key) if self.folder is not None else ():
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def clear(self) -> Cleared:
        """Removes what this class made, but for the locks."""
        if self.folder is None:
            return Cleared()
        if reason := _untrusted(self.folder):
            return Cleared(obstacles=(reason,))
        return remove(self.folder, _FILES, counted=".plan")

    def timing(self, key: PlanKey) -> bytes:
        """TensorRT's measurements of earlier builds, empty where there are none or they are damaged: TensorRT ends the
        process when it is given a flipped byte."""
        if self.folder is None or _untrusted(self.folder):
            return b""
        path = self.folder / f"{key.machine}.timing"
        try:
            content = b"" if _untrusted(path) else path.read_bytes()
        except OSError:
            return b""
        length = len(_TIMING_MAGIC) + 32
        head, data = content[:length], content[length:]
        return data if head == _TIMING_MAGIC + hashlib.sha256(data).digest() else b""

    def put_timing(self, key: PlanKey, data: bytes) -> None:
        """A convenience: where it cannot be kept, the next build takes longer."""
        if self.folder is not None:
            with suppress(OSError):
                path = self.folder / f"{key.machine}.timing"
                write_whole(path, _TIMING_MAGIC + hashlib.sha256(data).digest() + data)

    @contextmanager
    def building(self, key: PlanKey, stop: Event) -> Iterator[str | None]:
        """Held by one process at a time for one key; the others wait. Gives why nothing can be kept, if so. Raises
        Cancelled."""
        if self.folder is None:
            yield None
            return
        lock = FileLock(self.folder / f"{key.stem}.lock")
        obstacle = self._locked(lock, stop)
        try:
            yield obstacle
        finally:
            lock.release()

    def _locked(self, lock: FileLock, stop: Event) -> str | None:
        """Acquires it, or says why that cannot be done."""
        assert self.folder is not None
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            reason = _untrusted(self.folder)
            while reason is None:
                try:
                    lock.acquire(timeout=_POLL_SECONDS)
                    return None
                except Timeout:
                    if stop.is_set():
                        raise Cancelled("stopped while another process builds the same TensorRT plan") from None
        except OSError as error:
            reason = f"{self.folder}: {error.strerror or error}"
        return reason

    @staticmethod
    def _paths(folder: Path, key: PlanKey) -> tuple[Path, Path]:
        return folder / f"{key.stem}.plan", folder / f"{key.stem}.json"


def remove(folder: Path, names: re.Pattern[str], *, counted: str) -> Cleared:
    """Removes the files of such names from a folder, which may be missing. counted: the suffix of a compiled model."""
    removed, obstacles = 0, []
    try:
        paths = sorted(path for path in folder.iterdir() if names.fullmatch(path.name))
    except FileNotFoundError:
        return Cleared()
    except OSError as error:
        return Cleared(obstacles=(f"{folder}: {error.strerror or error}",))
    for path in paths:
        try:
            path.unlink()
            removed += path.suffix == counted
        except FileNotFoundError:  # by another process
            continue
        except OSError as error:
            obstacles.append(f"{path}: {error.strerror or error}")
    return Cleared(removed=removed, obstacles=tuple(obstacles))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Description:
    key: PlanKey
    sha256: str
    built: float
    took: float


def _described(path: Path) -> _Description | None:
    """What a description says; None where it says something that `PlanCache` never wrote. Raises OSError."""
    data = path.read_bytes()
    try:
        told = json.loads(data)
        key, built, took = PlanKey.read(told["key"]), float(told["built"]), float(told["took"])
        if not (0 <= built < _LATEST_SECONDS and 0 <= took < _LATEST_SECONDS):  # nor NaN
            return None
        return _Description(key=key, sha256=str(told["sha256"]), built=built, took=took)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def _untrusted(path: Path) -> str | None:
    """Why somebody else could have put something there; None where only the user could, or nothing is there."""
    if not hasattr(os, "getuid"):  # Windows: the cache lies in the user's own profile
        return None
    try:
        status = path.stat() if path.is_dir() else path.lstat()
    except OSError:
        return None
    if stat.S_ISLNK(status.st_mode):
        return f"{path} is a link"
    if status.st_uid != os.getuid():
        return f"{path} belongs to somebody else"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to {path} (chmod go-w mends that)"
    return None
