"""How vidsr drives each encoder that it knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vidsr.color import HdrMetadata
from vidsr.media.mastering import svtav1_parameters, x264_parameters, x265_parameters

__all__ = ["ALIASES", "PRESETS", "EncoderPreset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderPreset:
    """How vidsr drives one encoder.

    quality: (option, default, lowest, highest) that `--crf` sets, None where it has no such thing.
    preset: (option, default, allowed values) that `--preset` sets.
    parameters: option whose value is a list of further settings.
    alpha: further options where the picture has transparency; rated: where a bit rate is asked for.
    packed: pixel formats of frames by what the encoder calls those that hold the same in other places; of the rest it
    takes only those of 8 bits. twin: the encoder that does on the processor what this one does on a card.
    hdr: spells HDR10 metadata as an entry of `parameters`.
    threads: from the number of processor cores; where the number of threads changes what is written, it has to be
    among the settings. FFmpeg's own choice serves all others.
    """

    quality: tuple[str, int, int, int] | None = None
    preset: tuple[str, str, tuple[str, ...]] | None = None
    options: dict[str, str] = field(default_factory=dict)
    parameters: str | None = None
    alpha: dict[str, str] = field(default_factory=dict)
    rated: dict[str, str] = field(default_factory=dict)
    packed: dict[str, str] = field(default_factory=dict)
    twin: str | None = None
    hdr: Callable[[HdrMetadata], str] | None = None
    threads: Callable[[int], int] | None = None


_X26X = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")
_NVENC = ("p1", "p2", "p3", "p4", "p5", "p6", "p7")

_PACKED = {
    "yuv422p": "nv16",
    "yuv420p10le": "p010le",
    "yuv422p10le": "p210le",
    "yuv444p10le": "yuv444p10msble",
    "gbrp10le": "gbrp10msble",
}


def _numbers(first: int, last: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(first, last + 1))


def _nvenc(quality: tuple[str, int, int, int], twin: str) -> EncoderPreset:
    """NVIDIA's encoders: quality instead of a rate, and bits where the eye sees them."""
    return EncoderPreset(
        quality=quality,
        preset=("preset", "p5", _NVENC),
        options={"rc": "vbr", "b": "0", "tune": "hq", "spatial-aq": "1", "g": "250"},
        packed=_PACKED,
        twin=twin,
    )


PRESETS = {
    "libx264": EncoderPreset(
        quality=("crf", 18, 0, 51),
        preset=("preset", "fast", _X26X),
        # Its AVX-512 code reads memory that nobody wrote; the plain code is as fast and gives the same bytes each time.
        options={"x264-params": "cpu-independent=1"},
        parameters="x264-params",
        hdr=x264_parameters,
        threads=lambda cores: min(16, max(1, cores * 3 // 2)),
    ),
    "libx265": EncoderPreset(
        quality=("crf", 20, 0, 51),
        preset=("preset", "fast", _X26X),
        options={"x265-params": "log-level=error"},
        parameters="x265-params",
        hdr=x265_parameters,
        threads=lambda cores: min(6, max(2, cores // 4)),
    ),
    "libsvtav1": EncoderPreset(
        quality=("crf", 24, 1, 63),
        preset=("preset", "8", _numbers(-1, 13)),
        parameters="svtav1-params",
        # With more threads than one its rate control depends on which of them is first.
        rated={"svtav1-params": "lp=1"},
        hdr=svtav1_parameters,
    ),
    "libvpx-vp9": EncoderPreset(
        quality=("crf", 22, 0, 63),
        preset=("cpu-used", "4", _numbers(-8, 8)),
        options={"b": "0", "deadline": "good", "row-mt": "1", "auto-alt-ref": "1"},
        alpha={"auto-alt-ref": "0"},
    ),
    "h264_nvenc": _nvenc(("cq", 19, 1, 51), "libx264"),
    "hevc_nvenc": _nvenc(("cq", 21, 1, 51), "libx265"),
    "av1_nvenc": _nvenc(("cq", 25, 1, 63), "libsvtav1"),
}
"""A new encoder preset is one row here; encoders without a row run with their own defaults."""

ALIASES = {
    "h264": "libx264", "x264": "libx264", "avc": "libx264",
    "hevc": "libx265", "h265": "libx265", "x265": "libx265",
    "av1": "libsvtav1", "svtav1": "libsvtav1", "vp9": "libvpx-vp9", "prores": "prores_ks",
}  # fmt: skip
"""What people call encoders. FFmpeg takes some of these names too, and then picks one without our settings."""
