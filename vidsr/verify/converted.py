"""Tracks that were converted: what is heard and read, and when."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vidsr.media.source import SourceInfo, open_input
from vidsr.verify.packets import demuxed
from vidsr.verify.result import Finding, clock
from vidsr.verify.span import Span

__all__ = ["compare_cues", "compare_sound"]

_STYLE = re.compile(r"\{[^}]*\}")
_TEXT_FIELD = 8
_EDGE = Fraction(3, 1000)
"""How far inside its time a subtitle is looked for: containers round its ends."""
_WINDOW_SECONDS = Fraction(1, 200)
_MOST_WINDOWS = 40
_LATE_SECONDS = Fraction(1, 100)
_HEARD = 1e-3
_SAME_SOUND, _BETTER = 0.8, 0.02


@dataclass(frozen=True, slots=True)
class _Cue:
    start: Fraction
    end: Fraction | None
    lines: tuple[str, ...]


def compare_cues(finding: Finding, source: SourceInfo, index: int, output: Path, other: int, span: Span) -> str:
    """Compares subtitles by what is to be read when each of them begins and before it ends. Gives the text for when
    nothing differs. index, other: the track in the source and in the output."""
    mine = [cue for cue in _cues(source.path, index, Fraction(0)) if _cut(cue, span)]
    theirs = list(_cues(output, other, span.offset))
    for cue in mine:
        start = cue.start if span.start is None else max(cue.start, span.start)
        times = [start + _EDGE]
        if cue.end is not None and cue.end - start > 4 * _EDGE:
            times.append(cue.end - _EDGE)
        for time in times:
            lines = [line for shown in theirs if _shown(shown, time) for line in shown.lines]
            if missing := [line for line in cue.lines if line not in lines]:
                finding.add(f"at {clock(time - span.begin)} {missing[0]!r} is missing")
                break
    for cue in theirs:
        lines = [line for shown in mine if _shown(shown, cue.start + _EDGE) for line in shown.lines]
        if extra := [line for line in cue.lines if line not in lines]:
            finding.add(f"{extra[0]!r} at {clock(cue.start - span.begin)} is not in the source then")
    return f"{len(mine)} subtitles, read the same"


def _shown(cue: _Cue, time: Fraction) -> bool:
    return cue.start <= time and (cue.end is None or time < cue.end)


def _cut(cue: _Cue, span: Span) -> bool:
    ended = span.start is not None and cue.end is not None and cue.end <= span.start
    return not ended and (span.end is None or cue.start < span.end)


def _cues(path: Path, index: int, offset: Fraction) -> Iterator[_Cue]:
    """Subtitles with their times, `offset` taken off, as plain lines of text. An end that is not stated is None."""
    with open_input(path) as opened:
        stream: Any = opened.streams[index]
        stream.codec_context.open(strict=False)
        for packet in opened.demux(stream):
            if not packet.size or packet.pts is None:
                continue
            try:
                cue = stream.codec_context.decode2(packet)
            except av.error.FFmpegError:
                continue
            lines = tuple(line for rect in cue or () for line in _lines(rect.ass))
            if lines:
                start = packet.pts * packet.time_base - offset
                yield _Cue(start, start + packet.duration * packet.time_base if packet.duration else None, lines)


def _lines(event: bytes) -> list[str]:
    """The plain text of an ASS event."""
    text = event.decode("utf-8", "replace").split(",", _TEXT_FIELD)[-1]
    parts = re.split(r"\\N|\\n|\n", _STYLE.sub("", text))
    return [" ".join(part.replace("\\h", " ").split()) for part in parts if part.strip()]


def compare_sound(
    finding: Finding, source: SourceInfo, index: int, output: Path, other: int, span: Span, *, lossless: bool
) -> str:
    """Compares decoded sound: every sample where nothing may be lost, else its loudness from moment to moment. Gives
    the text for when nothing differs. index, other: the track in the source and in the output."""
    if lossless and not span.cut and _same_samples(source.path, index, output, other):
        begun = [_beginning(path, track) for path, track in ((source.path, index), (output, other))]
        if abs(late := begun[1] - span.offset - begun[0]) >= _LATE_SECONDS:
            finding.add(f"it is {clock(abs(late))} {'late' if late > 0 else 'early'}")
        return "every sample the same"
    mine, theirs = _envelope(source.path, index, Fraction(0)), _envelope(output, other, span.offset)
    first = span.start if span.start is not None else -(10**9)
    last = span.end if span.end is not None else 10**9
    keys = sorted(key for key in mine if first <= key * _WINDOW_SECONDS < last - _WINDOW_SECONDS)
    if not keys:
        return "no sound in this part"
    low, high = keys[0], keys[-1] + 1
    wanted = np.array([mine.get(key, 0.0) for key in range(low, high)])
    found = np.array([theirs.get(key, 0.0) for key in range(low - _MOST_WINDOWS, high + _MOST_WINDOWS)])
    if wanted.max() < _HEARD:
        return "silent, as in the source"
    likeness = [_likeness(wanted, found[lag : lag + len(wanted)]) for lag in range(2 * _MOST_WINDOWS + 1)]
    best = int(np.argmax(likeness))
    late = (best - _MOST_WINDOWS) * _WINDOW_SECONDS
    if likeness[best] < _SAME_SOUND:
        finding.add(f"it sounds different (likeness {likeness[best]:.2f})")
    elif abs(late) >= _LATE_SECONDS and likeness[best] > likeness[_MOST_WINDOWS] + _BETTER:
        finding.add(f"it is {clock(abs(late))} {'late' if late > 0 else 'early'}")
    heard = np.flatnonzero(found > _HEARD)
    ended = int(np.flatnonzero(wanted > _HEARD)[-1]) - (int(heard[-1]) - _MOST_WINDOWS if heard.size else 0)
    if ended > _MOST_WINDOWS:
        finding.add(f"it ends {clock(ended * _WINDOW_SECONDS)} early")
    return "sounds the same, in step"


def _likeness(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Correlation of two courses of loudness; how equal they are where both hardly change."""
    first, second = one - one.mean(), other - other.mean()
    size = float(np.sqrt((first @ first) * (second @ second)))
    level = float(np.abs(one - other).mean() / max(one.mean(), 1e-9))
    return float(first @ second) / size if size > 1e-3 * one.size * one.mean() ** 2 else 1 - level


def _envelope(path: Path, index: int, offset: Fraction) -> dict[int, float]:
    """Loudness (root mean square, 0..1) by window of 5 ms since zero, `offset` taken off."""
    energy: dict[int, float] = {}
    counts: dict[int, int] = {}
    for seconds, rate, samples in _sound(path, index):
        if seconds is None or not samples.size:
            continue
        places = (np.arange(len(samples)) + float((seconds - offset) * rate)) / float(_WINDOW_SECONDS * rate)
        keys, begins = np.unique(np.floor(places).astype(np.int64), return_index=True)
        sums = np.add.reduceat((samples * samples).mean(axis=1), begins)
        sizes = np.diff([*begins, len(samples)])
        for key, amount, size in zip(keys.tolist(), sums.tolist(), sizes.tolist(), strict=True):
            energy[key] = energy.get(key, 0.0) + amount
            counts[key] = counts.get(key, 0) + size
    return {key: float(np.sqrt(value / counts[key])) for key, value in energy.items()}


def _same_samples(source: Path, index: int, output: Path, other: int) -> bool:
    """Whether both decode to the same numbers, however they are cut into frames."""
    ours, theirs = _blocks(source, index), _blocks(output, other)
    mine, found = next(ours, None), next(theirs, None)
    while mine is not None and found is not None:
        size = min(len(mine), len(found))
        if mine.shape[1] != found.shape[1] or not np.array_equal(mine[:size], found[:size]):
            return False
        mine = mine[size:] if size < len(mine) else next(ours, None)
        found = found[size:] if size < len(found) else next(theirs, None)
    return mine is None and found is None


def _beginning(path: Path, index: int) -> Fraction:
    """When the first sample is heard, in seconds."""
    return next((seconds for seconds, _, _ in _sound(path, index) if seconds is not None), Fraction(0))


def _blocks(path: Path, index: int) -> Iterator[NDArray[np.float64]]:
    for _, _, samples in _sound(path, index):
        if len(samples):
            yield samples


def _sound(path: Path, index: int) -> Iterator[tuple[Fraction | None, int, NDArray[np.float64]]]:
    """Decoded sound: (seconds, samples a second, float64 [samples, channels] in -1..1); damage is passed over."""
    with open_input(path) as opened:
        stream: Any = opened.streams[index]
        for packet in chain(demuxed(opened, [stream]), (None,)):
            frames: Sequence[Any] = ()
            with suppress(av.error.FFmpegError):
                frames = stream.codec_context.decode(packet)
            for frame in frames:
                seconds = None if frame.pts is None else frame.pts * stream.time_base
                yield seconds, frame.sample_rate, _samples(frame)


def _samples(frame: Any) -> NDArray[np.float64]:
    values: NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    if values.dtype == np.uint8:
        return (values.T.astype(np.float64) - 128) / 128
    peak = float(np.iinfo(values.dtype).max) + 1 if np.issubdtype(values.dtype, np.integer) else 1.0
    return np.asarray(values.T.astype(np.float64) / peak, np.float64)
