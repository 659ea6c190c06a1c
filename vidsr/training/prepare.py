"""The store a training run reads: many pairs of small and large pictures, two frames of a shot each."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from vidsr.durable import write_whole
from vidsr.errors import InputError, OutputError, UsageError
from vidsr.machine import cores
from vidsr.training.canvas import FAMILIES, faces
from vidsr.training.kinds import KINDS, shots_of
from vidsr.training.scenes import check

__all__ = ["DataRecipe", "prepare"]

_SHOTS_PER_REEL = 16
_LOOK_SECONDS = 0.2
"""How often it is asked whether to stop."""
_MOST_WORKERS = 61
"""Windows waits for no more at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRecipe:
    """What the data are made of.

    patch_px: side of the large pictures. samples: how many pairs of shots. share: how much of each kind (`KINDS`);
    the numbers need not add up to 1.
    """

    patch_px: int = 256
    samples: int = 12000
    share: Mapping[str, float] = field(default_factory=lambda: {"clean": 1.0})

    def check(self, scale: int) -> None:
        """Raises UsageError for what cannot be."""
        self.counts()
        if self.patch_px < 32 * scale or self.patch_px % (2 * scale):
            raise UsageError(f"data.patch_px is {self.patch_px}; at x{scale} it must be {2 * scale} times 16 or more")

    def counts(self) -> dict[str, int]:
        """Samples of each kind, in the order of `KINDS`. Raises UsageError for what cannot be."""
        if not isinstance(self.share, Mapping):
            raise UsageError(f"data.share is {self.share!r}; it must be a table of kinds and numbers")
        for name, value in self.share.items():
            if name not in KINDS:
                raise UsageError(f"data.share: there is no kind {name!r}; there are {', '.join(KINDS)}")
            if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise UsageError(f"data.share.{name} is {value!r}; it must be a number, and not negative")
        if self.samples < 1 or not sum(self.share.values()) > 0:
            raise UsageError("data: samples must be at least 1, and one share more than 0")
        shares = np.array([self.share.get(name, 0.0) for name in KINDS], np.float64)
        ends = np.rint(np.cumsum(shares) / shares.sum() * self.samples).astype(int)
        return dict(zip(KINDS, np.diff(ends, prepend=0).tolist(), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reel:
    """Rows `first` to `first + len(pictures)` of the store, which share one encode."""

    kind: str
    first: int
    pictures: tuple[Path, ...]
    patch_px: int
    scale: int
    seed: int
    folder: Path


def prepare(
    data: DataRecipe,
    pictures: list[Path],
    folder: Path,
    *,
    scale: int,
    seed: int,
    on_progress: Callable[[float], None],
    stopped: Callable[[], bool] = lambda: False,
) -> bool:
    """Writes the store into `folder`. The same arguments give the same bytes, whatever the machine's cores.

    small.npy: uint8 [K, 2, h, w, 3], two frames of a shot as a viewer gets them. large.npy: uint8
    [K, 2, scale*h, scale*w, 3], the same two before all degradation. kinds.json, written last: {"kinds": [names],
    "kind": [K indices]}. on_progress: told the part done, up to 1.
    False if `stopped` ended it: then there is no kinds.json, and what is there is made again.
    Raises InputError for pictures that cannot be used, UsageError for a recipe that cannot, EncoderError where FFmpeg
    lacks an encoder, OutputError.
    """
    data.check(scale)
    counts = data.counts()
    if not pictures:
        raise InputError("no pictures to train on; name a folder that holds some")
    for path in pictures:
        check(path, data.patch_px)
    if any(count for name, count in counts.items() if name.startswith("screen")):
        for family in FAMILIES:
            faces(family)
    _create(folder, data, scale)
    reels = _reels(data, counts, pictures, folder, scale, seed)
    if not _made(reels, lambda rows: on_progress(rows / data.samples), stopped):
        return False
    present = [name for name, count in counts.items() if count]
    rows = [index for index, name in enumerate(present) for _ in range(counts[name])]
    try:
        write_whole(folder / "kinds.json", json.dumps({"kinds": present, "kind": rows}).encode())
    except OSError as error:
        raise OutputError(f"{folder} cannot hold the training data: {error.strerror or error}") from error
    return True


def _made(reels: Iterable[_Reel], on_rows: Callable[[int], None], stopped: Callable[[], bool]) -> bool:
    """Fills all reels' rows, a process a core; False if it was stopped. on_rows: told how many are done."""
    context = multiprocessing.get_context("spawn")
    end, lifeline = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(min(cores(), _MOST_WORKERS), context, _begin, (end,))
    rows = 0
    try:
        # The lifeline goes first, however this ends: without it workers do not finish what nobody waits for.
        with _one_thread_each(), pool, end, lifeline:
            with _sheltered():
                left = {pool.submit(_make, reel) for reel in reels}
            while left and not stopped():
                done, left = wait(left, _LOOK_SECONDS, FIRST_COMPLETED)
                rows += sum(future.result() for future in done)
                on_rows(rows)
    except BrokenProcessPool:
        time.sleep(_LOOK_SECONDS)  # what ends this process's group ends the workers as well, and may reach them first
        if not stopped():
            raise OutputError(
                "making training data: a worker process was killed; is there enough memory and disk space?"
            ) from None
        return False
    return not left


@contextmanager
def _sheltered() -> Iterator[None]:
    """Processes started here get no Ctrl-C, not even before they can ignore it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(end: Connection) -> None:
    """A worker leaves Ctrl-C to the process that started it, and lives as long as that holds the other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        end.poll(None)
        os._exit(1)

    Thread(target=follow, daemon=True).start()


def _create(folder: Path, data: DataRecipe, scale: int) -> None:
    """The store's files, empty. Raises OutputError."""
    shapes = {
        name: (data.samples, 2, side, side, 3)
        for name, side in (("small", data.patch_px // scale), ("large", data.patch_px))
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in shapes:
            (folder / f"{name}.npy").unlink(missing_ok=True)
        wanted, free = sum(map(math.prod, shapes.values())), shutil.disk_usage(folder).free
        # A full disk under a mapped file would end the process without a word.
        if wanted > free:
            raise OutputError(f"{folder}: the training data need {wanted / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
        for name, shape in shapes.items():
            np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.uint8, shape=shape).flush()
    except OSError as error:
        raise OutputError(f"{folder} cannot hold the training data: {error.strerror or error}") from error


def _reels(
    data: DataRecipe, counts: Mapping[str, int], pictures: list[Path], folder: Path, scale: int, seed: int
) -> Iterator[_Reel]:
    order = _shuffled(pictures, np.random.default_rng(seed))
    first = 0
    for kind, count in counts.items():
        for done in range(0, count, _SHOTS_PER_REEL):
            shots = min(_SHOTS_PER_REEL, count - done)
            yield _Reel(
                kind=kind,
                first=first,
                pictures=tuple(next(order) for _ in range(shots)),
                patch_px=data.patch_px,
                scale=scale,
                seed=seed,
                folder=folder,
            )
            first += shots


def _shuffled(pictures: list[Path], rng: np.random.Generator) -> Iterator[Path]:
    """All pictures in some order, then all in another, without end."""
    while True:
        for index in rng.permutation(len(pictures)):
            yield pictures[index]


def _make(reel: _Reel) -> int:
    """Fills the reel's rows; returns how many they are."""
    rng = np.random.default_rng([reel.seed, reel.first])
    rows = slice(reel.first, reel.first + len(reel.pictures))
    pairs = shots_of(reel.kind, reel.pictures, reel.patch_px, reel.scale, rng)
    for name, value in zip(("small", "large"), pairs, strict=True):
        store: Any = np.lib.format.open_memmap(reel.folder / f"{name}.npy", mode="r+")
        store[rows] = value
    return len(reel.pictures)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started here do their matrix products in one thread, as there are as many of them as cores."""
    before = dict(os.environ)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when numpy is loaded
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
