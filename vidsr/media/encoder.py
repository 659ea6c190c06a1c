"""Video encoders: sensible defaults, and every option proved before the run."""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass
from typing import Any

import av

from vidsr.color import HdrMetadata
from vidsr.errors import EncoderError, UsageError
from vidsr.frame import FrameLayout, VideoTrack
from vidsr.media.container import Container
from vidsr.media.hardware import advice
from vidsr.media.log import listening
from vidsr.media.pixel import pixel_format
from vidsr.media.preset import ALIASES, PRESETS, EncoderPreset
from vidsr.media.schedule import as_scheduled
from vidsr.nvidia import driver_present

__all__ = [
    "ALIASES",
    "PRESETS",
    "EncoderPreset",
    "EncoderSettings",
    "alpha_encoder",
    "carries_hdr",
    "coded_format",
    "configure",
    "describe",
    "formats",
    "kept_hdr",
    "on_card",
    "prove",
    "ready",
    "settings",
]


_RATES = {"b", "bitrate"}
_REFUSED = re.compile(r"error parsing|unknown option|unrecognized|invalid value|not found\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSettings:
    """An encoder and the options it is opened with."""

    name: str
    options: dict[str, str]

    def __str__(self) -> str:
        known = PRESETS.get(self.name, EncoderPreset()).preset
        preset = self.options.get(known[0]) if known else None
        return f"{self.name} {preset}" if preset else self.name

    @property
    def rated(self) -> bool:
        """Whether it aims at a bit rate, which takes time to settle, instead of a quality."""
        rates = [value for key, value in self.options.items() if key in _RATES]
        return any(value != "0" for value in rates) or any("bitrate=" in value for value in self.options.values())


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
    names = [entry.name for entry in codec.video_formats or ()]
    packed = PRESETS.get(name, EncoderPreset()).packed
    if packed:
        # What is deeper than 10 bits it takes as well, but writes 10 of them.
        plain = [entry for entry in names if entry in ("yuv420p", "yuv444p", "gbrp")]
        return plain + [ours for ours, its in packed.items() if its in names]
    return names


def ready() -> list[str]:
    """Encoders we have settings for that FFmpeg has here, but for those of cards, which may be missing."""
    return [name for name in PRESETS if name in av.codecs_available and not on_card(name)]


def on_card(name: str) -> bool:
    """Whether an encoder is one of an NVIDIA card."""
    return PRESETS.get(name, EncoderPreset()).twin is not None


def coded_format(name: str, layout: FrameLayout) -> str:
    """The pixel format in which an encoder gets frames of a layout."""
    given = pixel_format(layout)
    return PRESETS.get(name, EncoderPreset()).packed.get(given, given)


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
        if known.twin and "qp" in extra and "rc" not in extra:
            options["rc"] = "constqp"
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
    return bool(known and known.hdr) or container.hdr


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
    context.pix_fmt = coded_format(chosen.name, track.layout)
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
    # Where nothing is said, readers take the left for granted, but not in raw video.
    if track.layout.chroma == (2, 2) and (track.layout.siting != "left" or chosen.name == "rawvideo"):
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
    with listening() as log, as_scheduled():
        try:
            context.open()
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise EncoderError(_refusal(track, chosen, log, error)) from error
    refused = [text.strip() for _, _, text in log if _REFUSED.search(text)]
    if refused:
        raise EncoderError(f"{chosen.name} does not accept an option: {refused[0]}")
    ignored = sorted(context.options)
    if ignored:
        raise EncoderError(f"{chosen.name} has no option {ignored[0]!r}")


def _refusal(track: VideoTrack, chosen: EncoderSettings, log: list[tuple[int, str, str]], error: Exception) -> str:
    """Why an encoder does not open."""
    twin = PRESETS.get(chosen.name, EncoderPreset()).twin
    if twin and not driver_present():
        return (
            f"--encoder {chosen.name}: needs an NVIDIA card with its driver, and this machine has none "
            f"(leave --encoder away, or take {twin})"
        )
    said = [text.strip() for _, _, text in log if text.strip()] or [str(error)]
    # A card says what it lacks first, and then only that there is none.
    last = "; ".join(dict.fromkeys(said)) if twin else said[-1]
    shape = f"{track.layout.width}x{track.layout.height} {pixel_format(track.layout)}"
    options = ", ".join(f"{key}={value}" for key, value in chosen.options.items()) or "its defaults"
    return f"{chosen.name} cannot encode {shape} with {options}: {last}{advice(last)}"
