"""How fast machines would be that are not at hand, from what was measured on one that is.

A model, not a measurement. On a processor every part of the work costs core time a pixel, and cores share it; no part
alone is faster than the cores that can work at it. On a card, stages run beside each other, and the slowest decides.
Memory is left out: SPAN's convolutions move about 4 kB an input pixel, 40 GB/s on 64 cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["CARDS", "Card", "Constants", "Guess", "constants_from", "fitted", "on_card", "on_cores"]

ENCODER_THREADS = 16
"""More frames at once vidsr does not let x264 work at (`vidsr.media.preset`)."""
PEAK_SHARE = 0.6
"""Of the peak of a card's matrix units that the model is taken to reach."""
NVENC_PIXELS = 7680 * 4320 * 60 / 2
"""A second, of one of its encoders. NVIDIA's "Video Encoding at 8K60 with Split-Frame Encoding and NVIDIA Ada Lovelace
Architecture" (developer.nvidia.com/blog): 8K at 60 frames a second by the two of an RTX 4090, with fast presets."""
BUS_BYTES = 20e9
"""A second, of PCIe 4.0 x16 in one direction, as copies reach it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """Core time of one output pixel, and of a frame whatever its size. efficiency: the whole, of what these allow."""

    infer_ns: float
    decode_ns: float
    encode_ns: float
    frame_ms: float
    efficiency: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """teraflops: FP16 products, FP32 sums, without sparsity, by the vendor's data sheet. encoders: how many it has."""

    name: str
    teraflops: float
    encoders: int


CARDS = (
    Card(name="RTX 4060", teraflops=30.2, encoders=1),
    Card(name="L4", teraflops=121.0, encoders=2),
    Card(name="RTX 4090", teraflops=165.2, encoders=2),
    Card(name="H100 SXM", teraflops=989.0, encoders=0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """limit: what keeps it from being faster."""

    fps: float
    limit: str


def fitted(pixels: Sequence[float], ms: Sequence[float]) -> tuple[float, float]:
    """(ms a frame, ns a pixel), neither below 0, with the least relative errors."""
    sizes, times = np.asarray(pixels, float), np.asarray(ms, float)
    rows = np.stack([np.ones_like(sizes), 1e-6 * sizes], axis=1) / times[:, None]
    (frame, pixel), *_ = np.linalg.lstsq(rows, np.ones_like(times), rcond=None)
    if frame < 0:
        frame, pixel = 0.0, float(rows[:, 1].sum() / (rows[:, 1] ** 2).sum())
    elif pixel < 0:
        frame, pixel = float(rows[:, 0].sum() / (rows[:, 0] ** 2).sum()), 0.0
    return float(frame), float(pixel)


def constants_from(
    pixels: Sequence[float],
    *,
    engine: Sequence[float],
    decode: Sequence[float],
    encode: Sequence[float],
    whole: Sequence[float],
) -> Constants:
    """From core milliseconds of frames of so many output pixels."""
    frames, costs = zip(*(fitted(pixels, ms) for ms in (engine, decode, encode)), strict=True)
    bounds = [sum(parts) for parts in zip(engine, decode, encode, strict=True)]
    shares = sorted(bound / ms for bound, ms in zip(bounds, whole, strict=True))
    return Constants(
        infer_ns=costs[0],
        decode_ns=costs[1],
        encode_ns=costs[2],
        frame_ms=sum(frames),
        efficiency=min(1.0, shares[len(shares) // 2]),
    )


def on_cores(known: Constants, cores: int, pixels: float) -> Guess:
    """Frames a second with an output of so many pixels."""
    costs = known.infer_ns + known.decode_ns + known.encode_ns
    all_ms = known.frame_ms + 1e-6 * costs * pixels
    return _slowest(
        {
            "cores": known.efficiency * 1000 * cores / all_ms,
            "encoder": 1000 * min(cores, ENCODER_THREADS) / max(1e-6 * known.encode_ns * pixels, 1e-9),
            "one thread": 1000 / max(known.frame_ms, 1e-9),
        }
    )


def on_card(known: Constants, card: Card, cores: int, pixels: float, *, pairs: float) -> Guess:
    """The same with a card. cores: beside it, which decode, and encode where it cannot. pairs: multiplications and
    additions, an output pixel."""
    decode_ms = known.frame_ms + 1e-6 * known.decode_ns * pixels
    encode_ms = 0.0 if card.encoders else 1e-6 * known.encode_ns * pixels
    limits = {
        "inference": PEAK_SHARE * 1e12 * card.teraflops / (2 * pairs * pixels),
        # 8 bits, 4:2:0
        "bus": BUS_BYTES / (1.5 * pixels),
        "cores": 1000 * cores / (decode_ms + encode_ms),
        "one thread": 1000 / max(known.frame_ms, 1e-9),
    }
    if card.encoders:
        limits["NVENC"] = card.encoders * NVENC_PIXELS / pixels
    return _slowest(limits)


def _slowest(limits: dict[str, float]) -> Guess:
    limit = min(limits, key=limits.__getitem__)
    return Guess(fps=limits[limit], limit=limit)
