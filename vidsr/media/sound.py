"""Sound for listening: a track as PCM, in one form and without gaps."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vidsr.media.aligned import AlignedSound, Span, packed
from vidsr.media.demux import open_input
from vidsr.media.fit import decoded_sound
from vidsr.media.info import SourceInfo
from vidsr.notes import Notes

__all__ = ["Sound", "SoundReader"]

_CHUNKS_PER_SECOND = 10
_LEAD_SECONDS, _SETTLED_SECONDS = Fraction(1, 2), Fraction(1, 10)
"""What decoder and resampler get ahead of the first sample wanted: frames overlap, and filters begin with nothing."""
_FORMAT, _LAYOUT = "s16", "stereo"
_ERRORS = (av.error.FFmpegError, OSError, ValueError)
"""What PyAV raises for what it cannot read, decode or resample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """A piece of sound. seconds: of its first sample, from the beginning of the file. samples: int16 [N, 2]."""

    seconds: Fraction
    samples: NDArray[np.int16]


class SoundReader:
    """Reads a file's sound as stereo, mixed by FFmpeg, `rate` samples a second. Passive; belongs to one thread.

    track: index of the stream; one that FFmpeg can decode, see `of`.

    A sample's place is its time: where the file has no sound, also before its first, there is silence. Only where
    times and the count of samples differ by less than 10 ms, as containers round, the count is believed. What is
    damaged is passed over; where nothing more can be read, the sound ends. Raises InputError where the file cannot be
    opened.
    """

    def __init__(self, info: SourceInfo, track: int, *, rate: int = 48_000) -> None:
        self.rate = rate
        self._info, self._track = info, track
        self._container: Any = open_input(info.path)
        self._pieces = self._from(Fraction(0))

    @classmethod
    def of(
        cls, info: SourceInfo, *, track: int | None = None, rate: int = 48_000
    ) -> tuple[SoundReader | None, str | None]:
        """A reader of that track, else of the default one, else of the first; and what the user should know.

        No reader where the file has no sound, and where FFmpeg cannot decode it, which the second is about.
        """
        index = _choice(info) if track is None else track
        if index is None:
            return None, None
        found = next(entry for entry in info.tracks if entry.index == index)
        try:
            first = packed(decoded_sound(info.path, found)[0])
            av.AudioResampler(format=_FORMAT, layout=_LAYOUT, rate=rate).resample(first)
        except (IndexError, *_ERRORS):
            return None, f"{found} cannot be played: FFmpeg does not decode it"
        return cls(info, index, rate=rate), None

    def read(self) -> Sound | None:
        """The next tenth of a second, less at the end; None behind it."""
        return next(self._pieces, None)

    def seek(self, seconds: Fraction) -> None:
        """What is read next begins at that time, to the nearest sample."""
        self._pieces.close()
        self._pieces = self._from(max(seconds, Fraction(0)))

    def close(self) -> None:
        self._pieces.close()
        self._container.close()

    def _from(self, seconds: Fraction) -> Generator[Sound]:
        size = self.rate // _CHUNKS_PER_SECOND
        begin, held = round(seconds * self.rate), np.empty((0, 2), np.int16)
        end: int | None = None
        for frame in self._frames(seconds):
            time, samples = round(frame.pts * frame.time_base * self.rate), frame.to_ndarray().reshape(-1, 2)
            if end is None or abs(time - end) > size:
                end = time
            if end > begin + len(held):  # a gap too long to be filled
                if len(held):
                    yield self._sound(begin, held)
                begin, held = end, held[:0]
            held = np.concatenate([held, samples[max(0, begin - end) :]])
            end += len(samples)
            while len(held) >= size:
                yield self._sound(begin, held[:size])
                begin, held = begin + size, held[size:]
        if len(held):
            yield self._sound(begin, held)

    def _sound(self, begin: int, samples: NDArray[np.int16]) -> Sound:
        return Sound(seconds=Fraction(begin, self.rate), samples=samples)

    def _frames(self, seconds: Fraction) -> Iterator[Any]:
        zero = self._info.start_seconds
        start = zero + seconds - _SETTLED_SECONDS
        packets = self._packets(start)
        sound = AlignedSound(
            self._container.streams[self._track],
            format=_FORMAT,
            layout=_LAYOUT,
            rate=self.rate,
            span=Span(begin=zero, start=start, shift=zero),
            notes=Notes(),
            silence_from=start,
        )
        try:
            for packet in packets:
                if packet.size:
                    yield from sound.frames(packet)
            yield from sound.finish()
        except _ERRORS:
            return

    def _packets(self, start: Fraction) -> Iterator[Any]:
        """From a little before that time on, or from the beginning where the file's index is missing or lies."""
        stream = self._container.streams[self._track]
        for back in (_LEAD_SECONDS, 10, 60):
            if start - back <= self._info.start_seconds:
                break
            try:
                self._container.seek(int((start - back) / stream.time_base), stream=stream)
                packets = self._container.demux(stream)
                first = next(packets)
            except (StopIteration, *_ERRORS):
                continue
            time = first.dts if first.pts is None else first.pts
            if time is not None and time * stream.time_base <= start:
                return chain([first], packets)
        self._container.close()
        self._container = open_input(self._info.path)
        return iter(self._container.demux(self._container.streams[self._track]))


def _choice(info: SourceInfo) -> int | None:
    with open_input(info.path) as container:
        streams = container.streams.audio
        default = [stream for stream in streams if stream.disposition & av.stream.Disposition.default]
        return next((stream.index for stream in (*default, *streams)), None)
