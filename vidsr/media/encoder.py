"""Video encoders: sensible defaults, and every option proved before the run."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

import av

from vidsr.errors import EncoderError, UsageError
from vidsr.frame import VideoTrack
from vidsr.media.pixel import pixel_format

__all__ = ["PRESETS", "EncoderPreset", "EncoderSettings", "configure", "formats", "prove", "settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderPreset:
    """How vidsr drives one encoder.

    quality: (option, default, lowest, highest) that `--crf` sets, None where it has no such thing.
    preset: (option, default) that `--preset` sets. parameters: option whose value is a list of further settings.
    """

    quality: tuple[str, int, int, int] | None = None
    preset: tuple[str, str] | None = None
    options: dict[str, str] = field(default_factory=dict)
    parameters: str | None = None


PRESETS = {
    "libx264": EncoderPreset(quality=("crf", 18, 0, 51), preset=("preset", "fast"), parameters="x264-params"),
    "libx265": EncoderPreset(
        quality=("crf", 20, 0, 51),
        preset=("preset", "fast"),
        options={"x265-params": "log-level=error"},
        parameters="x265-params",
    ),
    "libsvtav1": EncoderPreset(quality=("crf", 24, 1, 63), preset=("preset", "8"), parameters="svtav1-params"),
    "libvpx-vp9": EncoderPreset(
        quality=("crf", 22, 0, 63),
        preset=("cpu-used", "4"),
        options={"b": "0", "deadline": "good", "row-mt": "1", "auto-alt-ref": "1"},
    ),
    "h264_nvenc": EncoderPreset(quality=("cq", 19, 1, 51), preset=("preset", "p5"), options={"rc": "vbr", "b": "0"}),
    "hevc_nvenc": EncoderPreset(quality=("cq", 21, 1, 51), preset=("preset", "p5"), options={"rc": "vbr", "b": "0"}),
    "av1_nvenc": EncoderPreset(quality=("cq", 25, 1, 63), preset=("preset", "p5"), options={"rc": "vbr", "b": "0"}),
    "mpeg4": EncoderPreset(quality=("qscale", 3, 1, 31), options={"flags": "+qscale"}),
    "prores_ks": EncoderPreset(options={"profile": "3"}),
}
"""A new encoder preset is one row here; encoders without a row run with their own defaults."""

_REFUSED = re.compile(r"error parsing|unknown option|unrecognized|invalid value|not found\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSettings:
    """An encoder and the options it is opened with."""

    name: str
    options: dict[str, str]


def formats(name: str) -> list[str]:
    """The pixel formats an encoder takes. Raises UsageError if there is no such video encoder."""
    try:
        codec = av.Codec(name, "w")
    except ValueError:
        raise UsageError(f"--encoder {name}: this FFmpeg has no such encoder; common ones are {', '.join(PRESETS)}") from None
    if codec.type != "video":
        raise UsageError(f"--encoder {name} encodes {codec.type}, not video")
    return [entry.name for entry in codec.video_formats or ()]


def settings(name: str, *, crf: float | None, preset: str | None, extra: dict[str, str]) -> EncoderSettings:
    """The options for an encoder from what the user chose. Raises UsageError where it has no such choice."""
    known = PRESETS.get(name, EncoderPreset())
    options = dict(known.options)
    if known.quality:
        option, default, lowest, highest = known.quality
        if crf is not None and not lowest <= crf <= highest:
            raise UsageError(f"--crf {crf:g}: {name} takes {lowest} (best) to {highest} (smallest)")
        options[option] = f"{default if crf is None else crf:g}"
    elif crf is not None:
        raise UsageError(f"--crf: {name} has no such setting; give its own with -e key=value")
    if known.preset:
        options[known.preset[0]] = preset or known.preset[1]
    elif preset is not None:
        raise UsageError(f"--preset: {name} has no such setting; give its own with -e key=value")
    for key, value in extra.items():
        joined = key == known.parameters and key in options
        options[key] = f"{options[key]}:{value}" if joined else value
    if known.quality and {"qp", "b", "bitrate"} & extra.keys() and crf is None:
        options.pop(known.quality[0])
    return EncoderSettings(name=name, options=options)


def configure(context: av.VideoCodecContext, track: VideoTrack, chosen: EncoderSettings) -> None:
    """Sets an encoder that is not open yet: picture, time, colour, threads, options."""
    if chosen.name == "libsvtav1":
        # SVT-AV1 talks on standard error, past FFmpeg's log, unless this asks it to keep to errors.
        os.environ.setdefault("SVT_LOG", "1")
    context.width, context.height = track.layout.width, track.layout.height
    context.pix_fmt = pixel_format(track.layout)
    context.time_base = track.time_base
    if track.rate is not None:
        context.framerate = track.rate
    if track.sample_aspect_ratio is not None:
        context.sample_aspect_ratio = track.sample_aspect_ratio
    context.color_primaries = track.color.primaries
    context.color_trc = track.color.transfer
    context.colorspace = track.color.matrix
    context.color_range = {None: 0, False: 1, True: 2}[track.color.full_range]
    # PyAV's default, slice threads, cuts every H.264 frame into slices and costs size.
    context.thread_type = "FRAME"
    context.flags |= 1 << 8  # AV_CODEC_FLAG_FRAME_DURATION: the last frame's duration reaches the container
    context.options = dict(chosen.options)


def prove(track: VideoTrack, chosen: EncoderSettings, *, global_header: bool) -> None:
    """Opens the encoder once for real and closes it. Raises EncoderError with what it refuses or ignores."""
    context: av.VideoCodecContext = av.CodecContext.create(chosen.name, "w")  # type: ignore[assignment]
    configure(context, track, chosen)
    if global_header:
        context.flags |= 1 << 22
    shape = f"{track.layout.width}x{track.layout.height} {pixel_format(track.layout)}"
    level = av.logging.get_level()
    av.logging.set_level(av.logging.WARNING)
    try:
        with av.logging.Capture() as log:
            context.open()
    except (av.error.FFmpegError, OSError, ValueError) as error:
        said = next((text.strip() for _, _, text in reversed(log) if text.strip()), str(error))
        raise EncoderError(f"{chosen.name} cannot encode {shape} with {_listed(chosen.options)}: {said}") from error
    finally:
        av.logging.set_level(level)
    refused = [text.strip() for _, _, text in log if _REFUSED.search(text)]
    if refused:
        raise EncoderError(f"{chosen.name} does not accept an option: {refused[0]}")
    ignored = sorted(set(context.options) & set(chosen.options))
    if ignored:
        raise EncoderError(f"{chosen.name} has no option {ignored[0]!r}: leave it out or see `ffmpeg -h encoder={chosen.name}`")


def _listed(options: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in options.items()) or "its defaults"


