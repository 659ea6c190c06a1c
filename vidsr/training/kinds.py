"""The kinds of training data, each a way from pictures to pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from vidsr.training.degrade import CLEAN, Clip, degrade, draw, interlaced, softened
from vidsr.training.reels import CODECS, Encode, draw_encode, through
from vidsr.training.scenes import shot
from vidsr.training.screen import screen_shot

__all__ = ["KINDS", "shots_of"]

Pairs = tuple[Clip, Clip]
"""uint8 [shots, 2, h, w, 3] and [shots, 2, scale*h, scale*w, 3]."""


class Kind(Protocol):
    def __call__(self, pictures: Sequence[Path], patch_px: int, scale: int, rng: np.random.Generator) -> Pairs: ...


def shots_of(kind: str, pictures: Sequence[Path], patch_px: int, scale: int, rng: np.random.Generator) -> Pairs:
    """One pair of frames for each picture. Raises InputError."""
    return KINDS[kind](pictures, patch_px, scale, rng)


def _clean(pictures: Sequence[Path], patch_px: int, scale: int, rng: np.random.Generator) -> Pairs:
    large = np.stack([shot(path, 2, patch_px, rng) for path in pictures])
    return np.stack([degrade(clip, scale, CLEAN, rng) for clip in large]), large


def _reel(shots: Sequence[tuple[Clip, Clip]], how: Encode, rng: np.random.Generator) -> Pairs:
    """Small and large frames of each shot -> two consecutive ones of each, the small ones after the encode."""
    firsts = [int(rng.integers(len(small) - 1)) for small, _ in shots]
    starts = np.cumsum([0, *(len(small) for small, _ in shots)])[:-1]
    wanted = [int(start) + first + step for start, first in zip(starts, firsts, strict=True) for step in (0, 1)]
    reel = np.concatenate([small for small, _ in shots])
    small = through(reel, how, wanted)
    large = np.stack([clip[first : first + 2] for (_, clip), first in zip(shots, firsts, strict=True)])
    return small.reshape(len(shots), 2, *small.shape[1:]), large


def _length(codec: str | None, rng: np.random.Generator) -> int:
    """Frames of a shot: where none lean on others, the two that are kept are enough."""
    return int(rng.integers(5, 11)) if codec else 2


def _encoded(codec: str | None) -> Kind:
    def kind(pictures: Sequence[Path], patch_px: int, scale: int, rng: np.random.Generator) -> Pairs:
        shots = []
        for path in pictures:
            large = softened(shot(path, _length(codec, rng), patch_px, rng), rng)
            shots.append((degrade(large, scale, draw(rng), rng), large))
        return _reel(shots, draw_encode(codec, rng), rng)

    return kind


def _interlaced(pictures: Sequence[Path], patch_px: int, scale: int, rng: np.random.Generator) -> Pairs:
    """Each frame is made of the moments before and after the one that is its truth."""
    shots = []
    for path in pictures:
        moments = shot(path, 3 * int(rng.integers(4, 7)), patch_px, rng, moving=True)
        small = degrade(moments, scale, draw(rng), rng)
        shots.append((interlaced(small[0::3], small[2::3], blended=rng.random() < 0.5), moments[1::3]))
    codec = str(rng.choice(["h264", "mpeg2"])) if rng.random() < 0.8 else None
    return _reel(shots, draw_encode(codec, rng), rng)


def _screen_encode(rng: np.random.Generator) -> Encode:
    """Screens are recorded in all ways, and also shown as they are."""
    way = str(rng.choice(["h264", "hevc", "vp9", "av1", "subsampled", "plain"], p=[0.5, 0.1, 0.1, 0.1, 0.05, 0.15]))
    if way == "plain":
        return Encode(encoder=None, format="yuv444p")
    return draw_encode(way if way in CODECS else None, rng)


def _screen(pictures: Sequence[Path], patch_px: int, scale: int, rng: np.random.Generator) -> Pairs:
    """A recording of a screen, shrunk; half of the screens are of double density."""
    shots = []
    for _ in pictures:
        density = int(rng.integers(1, 3))
        large = screen_shot(int(rng.integers(5, 11)), patch_px // density, (density,), rng)[0]
        how = replace(draw(rng), soft_sigma=0.0, noise=0.0, shot_noise=0.0)
        shots.append((degrade(large, scale, how, rng), large))
    return _reel(shots, _screen_encode(rng), rng)


def _native_screen(pictures: Sequence[Path], patch_px: int, scale: int, rng: np.random.Generator) -> Pairs:
    """A recording of a small screen, which is far sharper than a shrunk one; the truth is the same drawn larger."""
    shots = []
    for _ in pictures:
        small, large = screen_shot(int(rng.integers(5, 11)), patch_px // scale, (1, scale), rng)
        shots.append((small, large))
    return _reel(shots, _screen_encode(rng), rng)


KINDS: Mapping[str, Kind] = {
    "clean": _clean,
    "subsampled": _encoded(None),
    **{codec: _encoded(codec) for codec in CODECS},
    "interlaced": _interlaced,
    "screen": _screen,
    "screen-native": _native_screen,
}
"""By name, in the order of the store. A new kind is one function and one row here."""
