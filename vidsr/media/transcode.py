"""Sound that a container cannot hold as it is: decoded, put in order, and encoded for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import av

from vidsr.media.aligned import AlignedSound, Span, packed
from vidsr.notes import Notes

__all__ = ["AudioConverter", "AudioTarget", "Span", "audio_targets"]

_OTHER_LAYOUTS = ("3.0", "quad")
"""What Opus has where FFmpeg's usual layout is another; used only where the places of channels are unknown."""
_LOSSLESS = {
    "alac", "ape", "flac", "mlp", "mp4als", "ralf", "shorten", "tak", "truehd", "tta", "wavpack", "wmalossless",
}  # fmt: skip


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
    used = codec.startswith("pcm_s32") or any((packed(frame).to_ndarray() & 0xFF).any() for frame in frames)
    return "32" if used else "24"


class AudioConverter:
    """Encodes a track anew: without gaps, and with each sample at its time.

    stream: of the open input; its decoder is used. span: the samples that are kept, to the exact one. Belongs to the
    thread that writes.
    """

    def __init__(self, stream: Any, target: AudioTarget, span: Span, notes: Notes) -> None:
        self._target = target
        if target.from_zero:  # nor is there a time before the beginning
            span = replace(span, start=max(span.shift, span.start or span.shift))
        self._sound = AlignedSound(
            stream,
            format=target.format,
            layout=target.layout,
            rate=target.rate,
            span=span,
            notes=notes,
            silence_from=span.shift if target.from_zero else None,
        )
        self._track: Any = None
        self._begun = False

    def add(self, output: Any) -> Any:
        """Adds the track to an output and returns it."""
        target = self._target
        self._track = output.add_stream(target.encoder, rate=target.rate, bit_rate=target.bit_rate)
        self._track.codec_context.layout = target.layout
        self._track.codec_context.format = target.format
        return self._track

    def convert(self, packet: Any) -> Iterator[Any]:
        """The packets that an input packet makes ready; those that cannot be decoded are passed over and noted."""
        return self._encoded(self._sound.frames(packet))

    def finish(self) -> Iterator[Any]:
        """What decoder and encoder still hold."""
        yield from self._encoded(self._sound.finish())
        if self._begun:
            yield from self._track.encode(None)

    def _encoded(self, frames: Iterator[Any]) -> Iterator[Any]:
        for frame in frames:
            self._begun = True
            yield from self._track.encode(frame)
