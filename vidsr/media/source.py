"""Reading: what a file holds. `VideoReader` gives its video frames."""

from __future__ import annotations

import re
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from vidsr.errors import InputError
from vidsr.media.demux import Decoder, file_url, open_input, tags_of
from vidsr.media.hdr import dynamic_hdr, static_hdr
from vidsr.media.info import Deinterlace, Scan, SourceInfo, TrackInfo, VideoInfo
from vidsr.media.pixel import layout_of, native, planar_equivalent, siting_of
from vidsr.media.reader import VideoReader
from vidsr.media.scan import judge_scan
from vidsr.media.stated import stated_by

__all__ = [
    "Deinterlace",
    "Scan",
    "SourceInfo",
    "TrackInfo",
    "VideoInfo",
    "VideoReader",
    "file_url",
    "open_input",
    "probe",
]

MAX_PIXELS = 16384 * 16384
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""VP8 and VP9 keep alpha beside the picture, where FFmpeg's own decoders do not look."""


def probe(path: Path) -> SourceInfo:
    """Opens the file, decodes a few frames, closes it. Raises InputError."""
    with open_input(path) as container:
        tracks = tuple(_track(stream) for stream in container.streams)
        index = _main_video(container, path).index
        start = Fraction(container.start_time or 0, av.time_base)
        duration = Fraction(container.duration, av.time_base) if container.duration else None
        name = container.format.name
    return SourceInfo(
        path=path,
        format=name,
        video=_video(path, index, start, duration),
        tracks=tracks,
        start_seconds=start,
        duration_seconds=duration,
    )


def _track(stream: Any) -> TrackInfo:
    context = stream.codec_context
    metadata = stream.metadata
    names = ["title", "name", *(["filename"] if stream.type == "attachment" else [])]  # "name": MP4's, when it is read
    return TrackInfo(
        index=stream.index,
        kind=stream.type or "unknown",
        codec=context.codec.canonical_name if context is not None else metadata.get("mimetype", ""),
        language=metadata.get("language", ""),
        title=next((metadata[name] for name in names if metadata.get(name)), ""),
        cover=bool(stream.disposition & av.stream.Disposition.attached_pic),
    )


def _main_video(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """The default video track, else the first; cover pictures are not video."""
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        others = sorted({stream.type for stream in container.streams})
        raise InputError(f"{path} has no video track (it has: {', '.join(others) or 'nothing'})")
    default = [stream for stream in streams if stream.disposition & av.stream.Disposition.default]
    return (default or streams)[0]


def _first_frame(decoder: Decoder, path: Path) -> av.VideoFrame:
    first = next(decoder.frames(), None)
    if first is None:
        raise InputError(f"{path}: not one frame of its video ({decoder.stream.codec_context.name}) can be decoded")
    frame = first.picture
    if frame.width * frame.height > MAX_PIXELS:
        raise InputError(f"{path}: its frames are {frame.width}x{frame.height}, larger than FFmpeg handles")
    return frame


def _alpha_decoder(path: Path, index: int, stream: av.VideoStream) -> tuple[str, str] | None:
    """(decoder, pixel format) for a track whose alpha only another decoder than the usual one gives.

    The first frame tells; files may leave out the tag that should.
    """
    name = _ALPHA_DECODERS.get(stream.codec_context.codec.canonical_name)
    if name is None or name not in av.codecs_available:
        return None
    decoder = Decoder(path, index, decoder=name, threads=False)
    try:
        first = next(decoder.frames(), None)
    finally:
        decoder.close()
    if first is None or not any(part.is_alpha for part in first.picture.format.components):
        return None
    return name, first.picture.format.name


def _transparent_palette(frame: av.VideoFrame) -> bool:
    """Whether a palette's colours that occur differ in their alpha; many palettes leave it at zero throughout."""
    if not frame.format.has_palette:
        return False
    indices: Any = frame.planes[0]
    palette: Any = frame.planes[1]
    used = np.unique(np.frombuffer(indices, np.uint8).reshape(-1, abs(indices.line_size))[:, : frame.width])
    alpha = np.frombuffer(palette, np.uint8)[3::4][used]
    return bool(alpha.min() < 255 and alpha.any())


def _video(path: Path, index: int, start: Fraction, duration: Fraction | None) -> VideoInfo:
    decoder = Decoder(path, index, threads=False)
    try:
        stream = decoder.stream
        stated = stated_by(stream)
        frame = _first_frame(decoder, path)
        alpha = _alpha_decoder(path, index, stream)
        pixel_format = alpha[1] if alpha else frame.format.name
        color = tags_of(stream, frame)
        codec = stream.codec_context.codec.canonical_name
        planar = "gbrap" if _transparent_palette(frame) else planar_equivalent(pixel_format)
        layout = layout_of(
            planar,
            height=frame.height,
            width=frame.width,
            siting=siting_of(color, codec, stated.siting),
        )
        rates = (stream.average_rate, stream.guessed_rate, stream.base_rate)
        rate = next((r for r in rates if r and 1 <= r <= 480), None)
        side_data = {} if codec in _PICTURES else _side_data(frame)
        matrix = side_data.get("DISPLAYMATRIX")
        ratio = stream.sample_aspect_ratio
        return VideoInfo(
            index=index,
            codec=codec,
            decoder=alpha[0] if alpha else None,
            pixel_format=pixel_format,
            conversion=None if native(pixel_format) else f"{pixel_format} is converted to {planar} by FFmpeg",
            layout=layout,
            siting_stated=stated.siting if layout.chroma != (1, 1) else None,
            color=color,
            time_base=stream.time_base or Fraction(1, 90000),
            rate=rate,
            frames=stream.frames or (round(duration * rate) if duration and rate else None),
            duration_seconds=_own_duration(stream),
            sample_aspect_ratio=ratio if ratio else None,
            display_matrix=struct.unpack("=9i", matrix[:36]) if matrix else None,
            scan=judge_scan(path, index, frame, (start, duration)),
            hdr=static_hdr(side_data),
            dynamic_hdr=dynamic_hdr([*side_data, *(["dovi_conf"] if stated.dolby_vision else [])]),
        )
    finally:
        decoder.close()


_PICTURES = ("png", "apng")
"""With a profile PyAV 18.1 crashes when garbage is collected after their side data was looked at."""


def _side_data(frame: av.VideoFrame) -> dict[str, bytes]:
    """By FFmpeg's names; none where one is of a kind that PyAV does not know, such as EXIF in a picture."""
    try:
        entries: Any = frame.side_data
        return {entry.type.name: bytes(entry) for entry in entries}
    except ValueError:
        return {}


def _own_duration(stream: av.VideoStream) -> Fraction | None:
    """The track's length; Matroska has it as a tag, H:MM:SS with nanoseconds."""
    if stream.duration and stream.time_base:
        return stream.duration * stream.time_base
    match = re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", stream.metadata.get("DURATION", ""))
    return int(match[1]) * 3600 + int(match[2]) * 60 + Fraction(match[3]) if match else None
