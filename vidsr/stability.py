"""Whether a model stays within reason on pictures its training never saw: its own result, not clipped, in FP32."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidsr.backends.openvino_engine import open_raw
from vidsr.durable import write_whole
from vidsr.errors import BackendError
from vidsr.models import Model
from vidsr.resample import resize_matrix

__all__ = ["Finding", "Stability", "examine", "extremes", "needs_guard"]

_Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]

_LOW, _HIGH = -1.0, 2.0
"""Further outside than white is from black, a value has nothing to do with the picture any more."""
_WILD, _WILD_SHARE = 0.25, 0.01
_RULE = 2
"""Counts up with every change of what makes a model safe or not, so that no verdict of another rule is taken."""
_SIDE = 96
"""Of the extremes: a multiple of all that models want multiples of."""
_STATIC = 2 / 255
_LEAST_STATIC = 0.001
_GLYPHS = (0x7E11111E7E, 0x7F49494936, 0x3E41414122, 0x7F41413E00, 0x7F08143E41, 0x3E4141413E, 0x4649494931)
"""Letters of 7 rows and 5 columns, a byte a column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a model made of one picture or clip.

    low, high: of its values, white being 1; NaN where there was one. wild: share of pixels of which a channel is more
    than 0.25 from bicubic interpolation. flicker: change of the result over that of bicubic, where the input hardly
    changes: in an extreme by a code value here and there, in a clip by at most two from one frame to the next. None
    for a clip that does not stand still anywhere.
    """

    name: str
    low: float
    high: float
    wild: float
    flicker: float | None

    @property
    def bounded(self) -> bool:
        return self.low >= _LOW and self.high <= _HIGH  # false for NaN


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """clip: None where none was looked at."""

    extremes: tuple[Finding, ...]
    clip: Finding | None = None

    @property
    def faults(self) -> tuple[str, ...]:
        """Why the model needs the guard, in words, the worst first; empty for a safe one."""
        wild = sorted(
            (finding for finding in self.extremes if not finding.bounded),
            key=lambda finding: _nan_first(min(finding.low, -finding.high)),
        )
        found = [f"{finding.name} gives {finding.low:.1f} to {finding.high:.1f}" for finding in wild]
        if self.clip is not None and not self.clip.wild < _WILD_SHARE:
            found.append(f"{100 * self.clip.wild:.2f} % of {self.clip.name} is wild")
        return tuple(found)

    @property
    def safe(self) -> bool:
        return not self.faults

    @property
    def verdict(self) -> str:
        if self.safe:
            return "safe"
        more = f", and {len(self.faults) - 1} more" if len(self.faults) > 1 else ""
        return f"needs the guard: {self.faults[0]}{more}"

    @property
    def metadata(self) -> dict[str, str]:
        """For a model's file: `guard`, and the figures of the extremes."""
        figures = [{key: _rounded(value) for key, value in asdict(finding).items()} for finding in self.extremes]
        return {"guard": "off" if self.safe else "on", "stability": json.dumps(figures)}


def _rounded(value: Any) -> Any:
    """For JSON, which has no NaN."""
    if not isinstance(value, float):
        return value
    return round(value, 4) if math.isfinite(value) else None


def extremes() -> dict[str, NDArray[np.float32]]:
    """Pictures by name, float32 [3, 96, 96] of whole 8-bit code values in 0..1; the same every time."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:_SIDE, :_SIDE]
    gray = {
        "checkerboard": (rows + columns) % 2,
        "stripes across": rows % 2,
        "stripes down": columns % 2,
        "binary noise": rng.integers(0, 2, (_SIDE, _SIDE)),
        "text": _text(),
        "edges": (rows // 24 + columns // 16) % 2,
        "ramp": columns / (_SIDE - 1),
    }
    pictures = {name: np.broadcast_to(picture, (3, _SIDE, _SIDE)) for name, picture in gray.items()}
    pictures["coloured binary noise"] = rng.integers(0, 2, (3, _SIDE, _SIDE))
    pictures["uniform noise"] = rng.random((3, _SIDE, _SIDE))
    return {name: (np.rint(255 * picture) / 255).astype(np.float32) for name, picture in pictures.items()}


def _text() -> NDArray[np.int64]:
    """[96, 96] of 0 and 1: lines of letters, black on white above, white on black below."""
    page = np.zeros((_SIDE, _SIDE), np.int64)
    for line, top in enumerate(range(2, _SIDE - 8, 9)):
        for place, left in enumerate(range(2, _SIDE - 6, 6)):
            bits = _GLYPHS[(3 * line + place) % len(_GLYPHS)]
            page[top : top + 7, left : left + 5] = [
                [bits >> (8 * column + row) & 1 for column in range(5)] for row in range(7)
            ]
    page[: _SIDE // 2] = 1 - page[: _SIDE // 2]
    return page


def examine(model: Model, clip: str = "", runs: Sequence[NDArray[Any]] = ()) -> Stability:
    """Runs a model on the extremes, and on a clip of that name.

    runs: uint8 [T, H, W, 3] each, consecutive frames in full-range RGB. Raises BackendError.
    """
    run = open_raw(model)
    found = tuple(_extreme(model, run, name, picture) for name, picture in extremes().items())
    return Stability(extremes=found, clip=_footage(model, run, clip, runs) if runs else None)


def _extreme(model: Model, run: _Run, name: str, picture: NDArray[np.float32]) -> Finding:
    step = np.random.default_rng(2).integers(-1, 2, picture.shape) / 255
    both = np.stack([picture, np.clip(picture + step, 0, 1)]).astype(np.float32)
    made = np.concatenate([run(each[None]) for each in both])  # networks of others may hold one picture at a time
    plain = _bicubic(both, model.scale)
    with np.errstate(invalid="ignore"):
        flicker = float(np.abs(made[1] - made[0]).mean() / np.abs(plain[1] - plain[0]).mean())
    return Finding(
        name=name,
        low=float(made[0].min()),
        high=float(made[0].max()),
        wild=float(_wild(made[0], plain[0]).mean()),
        flicker=flicker,
    )


def _footage(model: Model, run: _Run, name: str, runs: Sequence[NDArray[Any]]) -> Finding:
    lows, highs, wilds = [], [], []
    moved = {"made": 0.0, "plain": 0.0, "pixels": 0, "all": 0}
    for frames in runs:
        before: tuple[Any, Any, Any] | None = None
        for given, made, plain in _frames(model, run, frames):
            lows.append(made.min())
            highs.append(made.max())
            wilds.append(_wild(made, plain).mean())
            if before is not None:
                static = _still(before[0], given).repeat(model.scale, 0).repeat(model.scale, 1)
                moved["made"] += float(np.abs(made - before[1]).mean(axis=0)[static].sum())
                moved["plain"] += float(np.abs(plain - before[2]).mean(axis=0)[static].sum())
                moved["pixels"] += int(static.sum())
                moved["all"] += static.size
            before = (given, made, plain)
    still = moved["pixels"] > _LEAST_STATIC * moved["all"] and moved["plain"] > 0
    return Finding(
        name=name,
        low=float(min(lows, key=_nan_first)),
        high=float(max(highs, key=lambda value: -_nan_first(-value))),
        wild=float(np.mean(wilds)),
        flicker=moved["made"] / moved["plain"] if still else None,
    )


def _nan_first(value: Any) -> float:
    return -math.inf if math.isnan(value) else float(value)


def _frames(model: Model, run: _Run, frames: NDArray[Any]) -> Iterator[tuple[Any, Any, Any]]:
    """(frame, what the model makes of it, bicubic), each float32 [3, H, W], one after the other."""
    for frame in frames:
        given = np.ascontiguousarray(frame.transpose(2, 0, 1), np.float32)[None] / np.float32(255)
        height, width = given.shape[2:]
        ends = ((0, 0), (0, 0), (0, -height % model.multiple), (0, -width % model.multiple))
        made = run(np.pad(given, ends, mode="edge"))[0, :, : height * model.scale, : width * model.scale]
        yield given[0], made, _bicubic(given, model.scale)[0]


def _still(before: NDArray[np.float32], now: NDArray[np.float32]) -> NDArray[np.bool_]:
    """bool [H, W]: no channel of the pixel or its eight neighbours changes by more than two code values of 255."""
    same = (np.abs(now - before) <= _STATIC + 1e-6).all(axis=0)
    padded = np.pad(same, 1, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    return np.asarray(windows.all(axis=(2, 3)))


def _wild(made: NDArray[np.float32], plain: NDArray[np.float32]) -> NDArray[np.bool_]:
    """bool [H, W] from float32 [3, H, W] each; NaN is wild."""
    tame: NDArray[np.bool_] = np.all(np.abs(made - plain) <= _WILD, axis=0)
    return ~tame


def _bicubic(pictures: NDArray[np.float32], scale: int) -> NDArray[np.float32]:
    """float32 [N, 3, H, W] to [N, 3, scale*H, scale*W], not clipped."""
    rows, columns = (resize_matrix(length, scale * length, "bicubic") for length in pictures.shape[2:])
    result: NDArray[np.float32] = rows.astype(np.float32) @ pictures @ columns.T.astype(np.float32)
    return result


def needs_guard(model: Model, cache: Path | None) -> bool:
    """Whether the model is safe only with the guard: by its metadata, else by the extremes.

    Those take a moment, so the verdict is kept in `cache` under the model's hash and the rule's number. A model that
    cannot be examined gets the guard.
    """
    if (stated := model.metadata.get("guard")) in ("on", "off"):
        return stated == "on"
    kept = None if cache is None else cache / "stability" / f"{model.sha256}-{_RULE}.json"
    try:
        if kept is not None:
            return {"on": True, "off": False}[json.loads(kept.read_text(encoding="utf-8"))["guard"]]
    except (OSError, ValueError, KeyError, TypeError):  # nothing kept, or nothing of ours
        pass
    try:
        metadata = examine(model).metadata
    except BackendError:
        return True
    if kept is not None:
        with suppress(OSError):  # the cache is a convenience, so a full disk is nobody's concern
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_whole(kept, json.dumps(metadata).encode())
    return metadata["guard"] == "on"
