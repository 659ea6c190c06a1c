"""Draws training batches from a store that `prepare` wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidsr.errors import InputError

__all__ = ["Store"]

_KEPT_BACK = 32

Pair = tuple[NDArray[Any], NDArray[Any]]
"""Small and large pixels, uint8."""


class Store:
    """Some shots, spread over all kinds, are kept back for validation. Raises InputError for a folder without a store.

    Where there are more shots than pictures, others of the same pictures are trained on: validation shows that a run
    learns, and not how well its model does on pictures it has never seen.
    scale: how many times larger the large pictures are.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._small = np.load(folder / "small.npy", mmap_mode="r")
            self._large = np.load(folder / "large.npy", mmap_mode="r")
            (folder / "kinds.json").stat()
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{folder}: not a set of training data ({error}); remove it to have it made") from None
        self.scale: int = self._large.shape[2] // self._small.shape[2]
        count = len(self._small)
        # Shots lie in the order of their kinds.
        self._held = np.unique(np.linspace(0, count - 1, min(_KEPT_BACK, -(-count // 10))).astype(int))
        self._trained = np.setdiff1d(np.arange(count), self._held)
        if not len(self._trained):
            raise InputError(f"{folder}: holds {count} shots, and one of them is kept back; at least 2 are needed")

    def batch(self, rng: np.random.Generator, shots: int, patch_px: int, frames: int) -> Pair:
        """Crops of random shots, turned and mirrored at random, the frames of a shot alike.

        frames: 1 or 2 a shot, one after the other. [shots * frames, 3, patch_px, patch_px] and `scale` times that.
        """
        pairs = []
        for index in rng.choice(self._trained, shots):
            top, left = (int(rng.integers(length - patch_px + 1)) for length in self._small.shape[2:4])
            first = int(rng.integers(3 - frames))
            turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
            pair = []
            for source, factor in ((self._small, 1), (self._large, self.scale)):
                rows, columns = (slice(factor * start, factor * (start + patch_px)) for start in (top, left))
                crop = np.rot90(source[index, first : first + frames, rows, columns], turns, (1, 2))
                pair.append(crop[:, :, ::-1] if mirrored else crop)
            pairs.append(pair)
        small, large = (np.concatenate(crops).transpose(0, 3, 1, 2) for crops in zip(*pairs, strict=True))
        return small, large

    def validation(self) -> Iterator[Pair]:
        """First frames of the shots kept back, whole: [h, w, 3] and [s*h, s*w, 3]."""
        for index in self._held:
            yield self._small[index, 0], self._large[index, 0]
