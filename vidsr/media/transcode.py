"""Sound that a container cannot hold as it is: decoded, put in order, and encoded for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import numpy as np

from vidsr.notes import Notes

__all__ = ["AudioConverter", "AudioTarget", "Span", "audio_targets"]

_TOLERANCE_SECONDS = Fraction(1, 100)
"""Times that are off by less are the container's rounding, or its clock; more is a gap or an overlap."""
_FILLED_SECONDS = 3600
"""A longer gap is a time that cannot be meant; what follows keeps it."""
_MOST_PLANES = 8
_OTHER_LAYOUTS = ("3.0", "quad")
"""What Opus has where FFmpeg's usual layout is another; used only where the places of channels are unknown."""
_LOSSLESS = {
    "alac", "ape", "flac", "mlp", "mp4als", "ralf", "shorten", "tak", "truehd", "tta", "wavpack", "wmalossless",
}  # fmt: skip


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Encoder:
    """formats: FFmpeg's sample formats by what a sample is (`_depth`), for encoders without loss.

    bits_per_channel: bits a second for each channel, for those with loss. rate: the only one it is used with.
    """

    name: str
    formats: dict[str, str] = field(default_factory=dict)
    bits_per_channel: int = 0
    rate: int = 0


_ENCODERS = {
    "flac": _Encoder(name="flac", formats={"8": "s16", "16": "s16", "24": "s32"}),
    "alac": _Encoder(name="alac", formats={"8": "s16p", "16": "s16p", "24": "s32p"}),
    "pcm_s16le": _Encoder(name="pcm_s16le", formats={"8": "s16", "16": "s16"}),
    "pcm_s24le": _Encoder(name="pcm_s24le", formats={"24": "s32"}),
    "pcm_s32le": _Encoder(name="pcm_s32le", formats={"32": "s32"}),
    "pcm_f32le": _Encoder(name="pcm_f32le", formats={"float": "flt"}),
    "pcm_f64le": _Encoder(name="pcm_f64le", formats={"double": "dbl"}),
    "aac": _Encoder(name="aac", bits_per_channel=128_000),
    "opus": _Encoder(name="libopus", bits_per_channel=96_000, rate=48_000),
}
"""By codec. Encoders of the same codec that FFmpeg has besides are worse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioTarget:
    """What a sound track is encoded as. rate: samples a second. format, layout: FFmpeg's names. bit_rate: zero
    without loss. from_zero: silence is written before a late beginning, for containers that keep no times.
    """

    codec: str
    encoder: str
    rate: int
    format: str
    layout: str
    bit_rate: int = 0
    lossless: bool = False
    from_zero: bool = False
    source_rate: int = 0
    source_layout: str = ""

    def __str__(self) -> str:
        if self.lossless:
            return f"{self.codec}, without loss"
        parts = [self.codec if not self.bit_rate else f"{self.codec}, {self.bit_rate // 1000} kbit/s"]
        if self.rate != self.source_rate:
            parts.append(f"{self.rate} Hz")
        if self.layout != self.source_layout and self.source_layout.split("(")[0] != self.layout:
            parts.append(f"mixed to {self.layout}")
        return ", ".join(parts)


def audio_targets(
    frames: Sequence[Any], codec: str, *, lossless: Sequence[str], lossy: Sequence[str], from_zero: bool
) -> Iterator[AudioTarget]:
    """What the sound of these decoded frames can become, best first.

    lossless, lossy: codecs that the container holds. What has lost something already goes to one with loss as well,
    where there is one.
    """
    first, depth = frames[0], _depth(frames, codec)
    exact = codec in _LOSSLESS or codec.startswith("pcm_") or (not lossy and depth not in ("float", "double"))
    for name in lossless if exact else ():
        if depth in _ENCODERS[name].formats:
            yield from _targets(name, first, _ENCODERS[name].formats[depth], lossless=True, from_zero=from_zero)
    for name in lossy or lossless[:1]:
        yield from _targets(name, first, None, lossless=False, from_zero=from_zero)


def _targets(name: str, frame: Any, sample: str | None, *, lossless: bool, from_zero: bool) -> Iterator[AudioTarget]:
    """One codec with the sound's own channels, or the closest that the encoder may take."""
    encoder = _ENCODERS[name]
    codec = av.Codec(encoder.name, "w")
    given, channels = frame.layout.name, frame.layout.nb_channels
    usual = [f"{channels}c", *(other for other in _OTHER_LAYOUTS if av.AudioLayout(other).nb_channels == channels)]
    layouts = usual if _unplaced(given) else [given, f"{channels}c"]
    layouts += [] if lossless else ["5.1", "stereo"]
    rates = [encoder.rate] if encoder.rate else sorted(codec.audio_rates or [frame.sample_rate])
    rate = next((rate for rate in rates if rate >= frame.sample_rate), rates[-1])
    offered = [offer.name for offer in codec.audio_formats or ()]
    if sample is None:
        sample = next((offer for offer in offered if offer.startswith("flt")), offered[0])
    for layout in dict.fromkeys(av.AudioLayout(layout).name for layout in layouts):
        count = av.AudioLayout(layout).nb_channels
        if count <= channels:
            yield AudioTarget(
                codec=name,
                encoder=encoder.name,
                rate=rate,
                format=sample,
                layout=layout,
                bit_rate=encoder.bits_per_channel * count,
                lossless=lossless and rate == frame.sample_rate,
                from_zero=from_zero,
                source_rate=frame.sample_rate,
                source_layout=layout if _unplaced(given) and count == channels else given,
            )


def _unplaced(layout: str) -> bool:
    """Whether it says how many channels there are but not where."""
    return layout.endswith("channels")


def _depth(frames: Sequence[Any], codec: str) -> str:
    """What a sample is: its bits, "float" or "double". 32 bits hold 24 in most files, as the low ones show."""
    sample: str = frames[0].format.name.removesuffix("p")
    if sample != "s32":
        return {"u8": "8", "s16": "16", "flt": "float", "dbl": "double"}.get(sample, sample)
    used = codec.startswith("pcm_s32") or any((_packed(frame).to_ndarray() & 0xFF).any() for frame in frames)
    return "32" if used else "24"


class AudioConverter:
    """Encodes a track anew: without gaps, and with each sample at its time.

    stream: of the open input; its decoder is used. span: the samples that are kept, to the exact one. Belongs to the
    thread that writes.
    """

    def __init__(self, stream: Any, target: AudioTarget, span: Span, notes: Notes) -> None:
        self._source, self._target, self._span, self._notes = stream, target, span, notes
        self._time_base: Fraction = stream.time_base
        self._tolerance = max(_TOLERANCE_SECONDS, 2 * self._time_base)
        self._end: Fraction | None = span.shift if target.from_zero else None
        self._damaged = False
        self._resampler: av.AudioResampler | None = None
        self._shape: tuple[str, str, int] | None = None
        self._origin, self._count = Fraction(0), 0
        self._track: Any = None

    def add(self, output: Any) -> Any:
        """Adds the track to an output and returns it."""
        target = self._target
        self._track = output.add_stream(target.encoder, rate=target.rate, bit_rate=target.bit_rate)
        self._track.codec_context.layout = target.layout
        self._track.codec_context.format = target.format
        return self._track

    def convert(self, packet: Any) -> Iterator[Any]:
        """The packets that an input packet makes ready; those that cannot be decoded are passed over and noted."""
        try:
            frames = self._source.codec_context.decode(packet)
        except av.error.FFmpegError:
            time = packet.pts if packet.pts is not None else packet.dts
            self._note("damaged sound was passed over", None if time is None else time * self._time_base)
            self._damaged = True
            return
        for frame in frames:
            yield from self._place(_packed(frame))

    def finish(self) -> Iterator[Any]:
        """What decoder and encoder still hold."""
        try:
            frames = self._source.codec_context.decode(None)
        except av.error.FFmpegError:
            frames = []
        for frame in frames:
            yield from self._place(_packed(frame))
        yield from self._flush_resampler()
        if self._track.codec_context.is_open and self._count:
            yield from self._track.encode(None)

    def _note(self, what: str, seconds: Fraction | None) -> None:
        self._notes.add(what, None if seconds is None else seconds - self._span.begin)

    def _place(self, frame: Any) -> Iterator[Any]:
        """Puts a frame behind what came before: a gap is filled with silence, an overlap is left out."""
        time = frame.pts * self._time_base if frame.pts is not None else self._end
        if time is None:
            time = self._span.begin
        if self._end is None:
            self._end = time
        off = time - self._end
        skip = 0
        if abs(off) > self._tolerance or (self._damaged and off > 0):
            if off > _FILLED_SECONDS:
                self._end = time
                self._origin, self._count = time - self._span.shift, 0
            elif off > 0:
                self._note("gaps in converted sound were filled with silence", self._end)
                yield from self._silence(frame, off)
            else:
                skip = round(-off * frame.sample_rate)
                self._note("converted sound that overlapped with what was before it was left out", time)
        self._damaged = False
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
        """Encodes what of a frame is behind `skip` samples and in the span; the frame begins where the last ended."""
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
        yield from self._encode(frame, begin + Fraction(first, rate))

    def _encode(self, frame: Any, time: Fraction) -> Iterator[Any]:
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        if shape != self._shape:
            yield from self._flush_resampler()
            if self._shape is not None:
                self._note("sound that changed its form midway was converted to how it began", time)
            target = self._target
            self._resampler = av.AudioResampler(format=target.format, layout=target.layout, rate=target.rate)
            self._shape, self._count = shape, 0
        if self._count == 0:
            self._origin = time - self._span.shift
        frame.time_base = Fraction(1, frame.sample_rate)
        frame.pts = round(self._origin * frame.sample_rate) + self._count
        self._count += frame.samples
        assert self._resampler is not None
        for ready in self._resampler.resample(frame):
            yield from self._track.encode(ready)

    def _flush_resampler(self) -> Iterator[Any]:
        if self._resampler is not None:
            for frame in self._resampler.resample(None):
                if frame is not None:  # a resampler without work passes its end on as well
                    yield from self._track.encode(frame)
            self._resampler = None


def _frame(samples: np.ndarray, like: Any) -> Any:
    """A frame of these samples [planes, samples], otherwise like another."""
    frame = av.AudioFrame.from_ndarray(samples, format=like.format.name, layout=like.layout.name)
    frame.sample_rate = like.sample_rate
    return frame


def _packed(frame: Any) -> Any:
    """The same frame with its channels interleaved: PyAV 18 cannot reach the samples of eight planes and more."""
    if not frame.format.is_planar or frame.layout.nb_channels < _MOST_PLANES:
        return frame
    (packed,) = av.AudioResampler(format=frame.format.packed.name, layout=frame.layout).resample(frame)
    packed.pts = frame.pts  # the resampler counts in samples
    return packed
