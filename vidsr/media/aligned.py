"""Sound decoded and put in order: without gaps, each sample at its time, in one form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np

from vidsr.notes import Notes

__all__ = ["AlignedSound", "Span", "packed"]

_TOLERANCE_SECONDS = Fraction(1, 100)
"""Times that are off by less are the container's rounding, or its clock; more is a gap or an overlap."""
_FILLED_SECONDS = 3600
"""A longer gap is a time that cannot be meant; what follows keeps it."""
_MOST_PLANES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Which part of the file is written. All in seconds of the container's own time.

    begin: where the file begins. start, end: packets and samples in [start, end) are kept; None is without limit.
    shift: subtracted from every time that is written.
    """

    begin: Fraction = Fraction(0)
    start: Fraction | None = None
    end: Fraction | None = None
    shift: Fraction = Fraction(0)


class AlignedSound:
    """Decodes a track into frames of one format, layout and rate, whose times count from `span.shift` on.

    stream: of the open input; its decoder is used. span: the samples that are given, to the exact one. silence_from:
    where silence begins, should the sound begin later; None leaves it out. notes: what had to be mended, and when.
    Belongs to one thread.
    """

    def __init__(
        self,
        stream: Any,
        *,
        format: str,
        layout: str,
        rate: int,
        span: Span,
        notes: Notes,
        silence_from: Fraction | None = None,
    ) -> None:
        self._source, self._span, self._notes = stream, span, notes
        self._format, self._layout, self._rate = format, layout, rate
        self._time_base: Fraction = stream.time_base
        self._tolerance = max(_TOLERANCE_SECONDS, 2 * self._time_base)
        self._silence_from = silence_from
        self._end: Fraction | None = None
        self._exactly = silence_from is not None
        self._resampler: av.AudioResampler | None = None
        self._shape: tuple[str, str, int] | None = None
        self._origin, self._count = Fraction(0), 0

    def frames(self, packet: Any) -> Iterator[Any]:
        """What a packet makes ready; those that cannot be decoded are passed over and noted."""
        try:
            frames = self._source.codec_context.decode(packet)
        except av.error.FFmpegError:
            time = packet.pts if packet.pts is not None else packet.dts
            self._note("damaged sound was passed over", None if time is None else time * self._time_base)
            self._exactly = True
            return
        for frame in frames:
            yield from self._place(packed(frame))

    def finish(self) -> Iterator[Any]:
        """What the decoder still holds."""
        try:
            frames = self._source.codec_context.decode(None)
        except av.error.FFmpegError:
            frames = []
        for frame in frames:
            yield from self._place(packed(frame))
        yield from self._flush_resampler()

    def _note(self, what: str, seconds: Fraction | None) -> None:
        self._notes.add(what, None if seconds is None else seconds - self._span.begin)

    def _place(self, frame: Any) -> Iterator[Any]:
        """Puts a frame behind what came before: a gap is filled with silence, an overlap is left out."""
        time = frame.pts * self._time_base if frame.pts is not None else self._end
        if time is None:
            time = self._span.begin
        if self._end is None:
            self._end = time if self._silence_from is None else min(time, self._silence_from)
        off = time - self._end
        skip = 0
        if abs(off) > self._tolerance or (self._exactly and off > 0):
            if off > _FILLED_SECONDS:
                self._end = time
                self._origin, self._count = time - self._span.shift, 0
            elif off > 0:
                self._note("gaps in converted sound were filled with silence", self._end)
                yield from self._silence(frame, off)
            else:
                skip = round(-off * frame.sample_rate)
                self._note("converted sound that overlapped with what was before it was left out", time)
        self._exactly = False
        yield from self._cut(frame, skip)

    def _silence(self, like: Any, seconds: Fraction) -> Iterator[Any]:
        left = round(seconds * like.sample_rate)
        while left > 0:
            size = min(left, like.sample_rate)
            sample = like.to_ndarray()
            width = size if like.format.is_planar else size * like.layout.nb_channels
            quiet = np.full((sample.shape[0], width), 128 if sample.dtype == np.uint8 else 0, sample.dtype)
            yield from self._cut(_frame(quiet, like), 0)
            left -= size

    def _cut(self, frame: Any, skip: int) -> Iterator[Any]:
        """What of a frame is behind `skip` samples and in the span; the frame begins where the last ended."""
        rate, samples = frame.sample_rate, frame.samples
        assert self._end is not None
        begin = self._end - Fraction(skip, rate)
        self._end = max(self._end, begin + Fraction(samples, rate))
        first, last = skip, samples
        if self._span.start is not None:
            first = max(first, math.ceil((self._span.start - begin) * rate))
        if self._span.end is not None:
            last = min(last, math.ceil((self._span.end - begin) * rate))
        if first >= last:
            return
        if (first, last) != (0, samples):
            width = 1 if frame.format.is_planar else frame.layout.nb_channels
            frame = _frame(np.ascontiguousarray(frame.to_ndarray()[:, first * width : last * width]), frame)
        yield from self._resampled(frame, begin + Fraction(first, rate))

    def _resampled(self, frame: Any, time: Fraction) -> Iterator[Any]:
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        if shape != self._shape:
            yield from self._flush_resampler()
            if self._shape is not None:
                self._note("sound that changed its form midway was converted to how it began", time)
            self._resampler = av.AudioResampler(format=self._format, layout=self._layout, rate=self._rate)
            self._shape, self._count = shape, 0
        if self._count == 0:
            self._origin = time - self._span.shift
        frame.time_base = Fraction(1, frame.sample_rate)
        frame.pts = round(self._origin * frame.sample_rate) + self._count
        self._count += frame.samples
        assert self._resampler is not None
        yield from self._resampler.resample(frame)

    def _flush_resampler(self) -> Iterator[Any]:
        if self._resampler is not None:
            # A resampler without work passes its end on as well.
            yield from (frame for frame in self._resampler.resample(None) if frame is not None)
            self._resampler = None


def _frame(samples: np.ndarray, like: Any) -> Any:
    """A frame of these samples [planes, samples], otherwise like another."""
    frame = av.AudioFrame.from_ndarray(samples, format=like.format.name, layout=like.layout.name)
    frame.sample_rate = like.sample_rate
    return frame


def packed(frame: Any) -> Any:
    """The same frame with its channels interleaved: PyAV 18 cannot reach the samples of eight planes and more."""
    if not frame.format.is_planar or frame.layout.nb_channels < _MOST_PLANES:
        return frame
    (packed,) = av.AudioResampler(format=frame.format.packed.name, layout=frame.layout).resample(frame)
    packed.pts = frame.pts  # the resampler counts in samples
    return packed
