"""Video encoders: sensible defaults, and every option proved before the run."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import av

from vidsr.color import HdrMetadata
from vidsr.errors import EncoderError, UsageError
from vidsr.frame import FrameLayout, VideoTrack
from vidsr.media.container import Container
from vidsr.media.mastering import svtav1_parameters, x264_parameters, x265_parameters
from vidsr.media.pixel import pixel_format

__all__ = [
    "ALIASES",
    "PRESETS",
    "EncoderPreset",
    "EncoderSettings",
    "alpha_encoder",
    "carries_hdr",
    "configure",
    "describe",
    "formats",
    "kept_hdr",
    "prove",
    "settings",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderPreset:
    """How vidsr drives one encoder.

    quality: (option, default, lowest, highest) that `--crf` sets, None where it has no such thing.
    preset: (option, default, allowed values) that `--preset` sets.
    parameters: option whose value is a list of further settings.
    alpha: further options where the picture has transparency; rated: where a bit rate is asked for.
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
    hdr: Callable[[HdrMetadata], str] | None = None
    threads: Callable[[int], int] | None = None


_X26X = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")
_NVENC = ("p1", "p2", "p3", "p4", "p5", "p6", "p7")


def _numbers(first: int, last: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(first, last + 1))


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
    "h264_nvenc": EncoderPreset(
        quality=("cq", 19, 1, 51), preset=("preset", "p5", _NVENC), options={"rc": "vbr", "b": "0"}
    ),
    "hevc_nvenc": EncoderPreset(
        quality=("cq", 21, 1, 51), preset=("preset", "p5", _NVENC), options={"rc": "vbr", "b": "0"}
    ),
    "av1_nvenc": EncoderPreset(
        quality=("cq", 25, 1, 63), preset=("preset", "p5", _NVENC), options={"rc": "vbr", "b": "0"}
    ),
}
"""A new encoder preset is one row here; encoders without a row run with their own defaults."""

_HDR_CONTAINERS = ("mp4", "mov", "matroska", "webm")
_RATES = {"b", "bitrate"}
_REFUSED = re.compile(r"error parsing|unknown option|unrecognized|invalid value|not found\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSettings:
    """An encoder and the options it is opened with."""

    name: str
    options: dict[str, str]

    @property
    def rated(self) -> bool:
        """Whether it aims at a bit rate, which takes time to settle, instead of a quality."""
        rates = [value for key, value in self.options.items() if key in _RATES]
        return any(value != "0" for value in rates) or any("bitrate=" in value for value in self.options.values())


ALIASES = {
    "h264": "libx264", "x264": "libx264", "avc": "libx264",
    "hevc": "libx265", "h265": "libx265", "x265": "libx265",
    "av1": "libsvtav1", "svtav1": "libsvtav1", "vp9": "libvpx-vp9", "prores": "prores_ks",
}  # fmt: skip
"""What people call encoders. FFmpeg takes some of these names too, and then picks one without our settings."""


def formats(name: str) -> list[str]:
    """The pixel formats an encoder takes. Raises UsageError if there is no such video encoder."""
    try:
        codec = av.Codec(name, "w")
    except ValueError:
        raise UsageError(
            f"--encoder {name}: this FFmpeg has no such encoder; common ones are {', '.join(PRESETS)}"
        ) from None
    if codec.type != "video":
        raise UsageError(f"--encoder {name} encodes {codec.type}, not video")
    return [entry.name for entry in codec.video_formats or ()]


def settings(
    name: str, *, crf: float | None, preset: str | None, extra: dict[str, str], alpha: bool = False
) -> EncoderSettings:
    """The options for an encoder from what the user chose. Raises UsageError where it has no such choice.

    alpha: the picture has transparency that the encoder is to keep.
    """
    known = PRESETS.get(name, EncoderPreset())
    options = known.options | (known.alpha if alpha else {}) | (known.rated if _RATES & extra.keys() else {})
    if known.threads:
        options["threads"] = str(known.threads(_cores()))
    if known.quality:
        option, default, lowest, highest = known.quality
        if crf is not None and not lowest <= crf <= highest:
            raise UsageError(f"--crf {crf:g}: {name} takes {lowest} (best) to {highest} (smallest)")
        options[option] = f"{default if crf is None else crf:g}"
    elif crf is not None:
        raise UsageError(f"--crf: {name} has no such setting; give its own with -e key=value")
    if known.preset:
        if preset is not None and preset not in known.preset[2]:
            raise UsageError(f"--preset {preset}: {name} has {', '.join(known.preset[2])}")
        options[known.preset[0]] = preset or known.preset[1]
    elif preset is not None:
        raise UsageError(f"--preset: {name} has no such setting; give its own with -e key=value")
    for key, value in extra.items():
        joined = key == known.parameters and key in options
        options[key] = f"{options[key]}:{value}" if joined else value
    if known.quality and {"qp", *_RATES} & extra.keys() and crf is None:
        options.pop(known.quality[0])
    return EncoderSettings(name=name, options=options)


def _cores() -> int:
    """Processor cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not every system has such a thing
        return os.cpu_count() or 1


def carries_hdr(name: str, container: Container) -> bool:
    """Whether HDR10 metadata reaches a file: within the encoded video, or beside it in the container."""
    known = PRESETS.get(name)
    return bool(known and known.hdr) or container.format in _HDR_CONTAINERS


def kept_hdr(name: str, container: Container, hdr: HdrMetadata | None) -> HdrMetadata | None:
    """What of HDR10 metadata reaches a file."""
    if hdr is None or not carries_hdr(name, container):
        return None
    if name == "libsvtav1" and (hdr.primaries is None or hdr.luminance is None):
        # It takes the whole mastering display or nothing of it.
        return HdrMetadata(max_cll=hdr.max_cll, max_fall=hdr.max_fall)
    return hdr


def alpha_encoder(container: Container, layout: FrameLayout) -> str | None:
    """The encoder that keeps the transparency of such a picture in this container; None where none does."""
    if not layout.alpha:
        return None
    if container.format == "webm":
        return "libvpx-vp9"
    if container.format == "matroska":
        plain = layout.family == "yuv" and layout.bits == 8 and layout.chroma == (2, 2)
        return "libvpx-vp9" if plain else "ffv1"
    return {"mov": "prores_ks", "nut": "ffv1"}.get(container.format)


def configure(context: av.VideoCodecContext, track: VideoTrack, chosen: EncoderSettings) -> None:
    """Sets an encoder that is not open yet: picture, time, colour, threads, options."""
    if chosen.name == "libsvtav1":
        # SVT-AV1 talks on standard error, past FFmpeg's log, unless this asks it to keep to errors.
        os.environ.setdefault("SVT_LOG", "1")
    context.width, context.height = track.layout.width, track.layout.height
    context.pix_fmt = pixel_format(track.layout)
    context.time_base = track.time_base
    describe(context, track)
    # PyAV's default, slice threads, cuts every H.264 frame into slices and costs size.
    context.thread_type = "FRAME"
    context.flags |= 1 << 8  # AV_CODEC_FLAG_FRAME_DURATION: the last frame's duration reaches the container
    context.options = _options(track, chosen)


def describe(context: Any, track: VideoTrack) -> None:
    """Sets what people must know of a track to show it: rate, shape and colour."""
    if track.rate is not None:
        context.framerate = track.rate
    if track.sample_aspect_ratio is not None:
        context.sample_aspect_ratio = track.sample_aspect_ratio
    context.color_primaries = track.color.primaries
    context.color_trc = track.color.transfer
    context.colorspace = track.color.matrix
    context.color_range = {None: 0, False: 1, True: 2}[track.color.full_range]


def _options(track: VideoTrack, chosen: EncoderSettings) -> dict[str, str]:
    """The chosen options and what the picture adds to them; the user's own come last and therefore win."""
    known = PRESETS.get(chosen.name, EncoderPreset())
    options = dict(chosen.options)
    if track.hdr is not None and known.hdr and known.parameters:
        parts = [part for part in (known.hdr(track.hdr), options.get(known.parameters)) if part]
        options |= {known.parameters: ":".join(parts)} if parts else {}
    if track.layout.chroma == (2, 2) and track.layout.siting != "left":
        options.setdefault("chroma_sample_location", track.layout.siting)
    return options


def prove(track: VideoTrack, chosen: EncoderSettings, container: str) -> None:
    """Opens the encoder once for real and closes it. Raises EncoderError with what it or the container refuses."""
    with av.open(io.BytesIO(), "w", format=container) as trial:
        try:
            stream: Any = trial.add_stream(chosen.name)
        except ValueError as error:
            raise EncoderError(f"--encoder {chosen.name}: {container} cannot hold its video") from error
        configure(stream.codec_context, track, chosen)
        _open(stream.codec_context, track, chosen)


def _open(context: av.VideoCodecContext, track: VideoTrack, chosen: EncoderSettings) -> None:
    """Opens the context; FFmpeg and the encoders only log what they ignore, so the log is read as well."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.WARNING)
    try:
        with av.logging.Capture() as log:
            context.open()
    except (av.error.FFmpegError, OSError, ValueError) as error:
        said = next((text.strip() for _, _, text in reversed(log) if text.strip()), str(error))
        shape = f"{track.layout.width}x{track.layout.height} {pixel_format(track.layout)}"
        options = ", ".join(f"{key}={value}" for key, value in chosen.options.items()) or "its defaults"
        raise EncoderError(f"{chosen.name} cannot encode {shape} with {options}: {said}") from error
    finally:
        av.logging.set_level(level)
    refused = [text.strip() for _, _, text in log if _REFUSED.search(text)]
    if refused:
        raise EncoderError(f"{chosen.name} does not accept an option: {refused[0]}")
    ignored = sorted(context.options)
    if ignored:
        raise EncoderError(f"{chosen.name} has no option {ignored[0]!r}")
