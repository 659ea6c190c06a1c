"""Segments keep times and pictures, and their join is one valid file in every container."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vidsr.color import ColorTags, HdrMetadata
from vidsr.errors import EncoderError, OutputError
from vidsr.frame import Frame, FrameLayout, Plane, VideoTrack
from vidsr.media.encoder import EncoderSettings, configure, settings
from vidsr.media.pixel import layout_of, pixel_format, planes_of
from vidsr.media.segment import JoinedSegments, SegmentInfo, SegmentWriter, segment_format

COLOR = ColorTags(primaries=9, transfer=16, matrix=9, full_range=False)
TIME_BASE = Fraction(1, 90000)
UNEVEN = [0, 3003, 6100, 9009, 9010, 15015, 90000, 93003, 96006, 98000, 99000, 102003]


def track(pix_fmt: str, *, time_base: Fraction = TIME_BASE, size: tuple[int, int] = (64, 48), **more: Any) -> VideoTrack:
    layout = layout_of(pix_fmt, height=size[1], width=size[0], siting="left")
    color = replace(COLOR, matrix=0, full_range=True) if layout.family == "rgb" else COLOR
    return VideoTrack(layout=layout, color=color, time_base=time_base, rate=Fraction(30000, 1001), **more)


def picture(layout: FrameLayout, number: int) -> tuple[Plane, ...]:
    """A slanted ramp that moves, another in each plane."""
    planes = layout.allocate()
    for index, plane in enumerate(planes):
        rows, columns = np.mgrid[: plane.shape[0], : plane.shape[1]]
        plane[:] = ((rows * 2 + columns * 3 + number * 5 + index * 40) % 200 + 20) << (layout.bits - 8)
    return planes


def frames_of(video: VideoTrack, times: Sequence[int], *, begin: int = 0) -> list[Frame]:
    ends = [*times[1:], times[-1] + 3003]
    return [
        Frame(
            planes=picture(video.layout, begin + number),
            pts=pts,
            duration=end - pts,
            time_base=video.time_base,
            color=video.color,
        )
        for number, (pts, end) in enumerate(zip(times, ends, strict=True))
    ]


def write(path: Path, video: VideoTrack, encoder: EncoderSettings, frames: Sequence[Frame]) -> SegmentInfo:
    writer = SegmentWriter(path, video, encoder)
    for frame in frames:
        writer.write(frame)
    return writer.close()


def segments_of(
    folder: Path, video: VideoTrack, encoder: EncoderSettings, frames: Sequence[Frame], lengths: Sequence[int]
) -> list[SegmentInfo]:
    segments, begin = [], 0
    for number, length in enumerate(lengths):
        path = folder / f"{number:06}.segment"
        segments.append(write(path, video, encoder, frames[begin : begin + length]))
        begin += length
    assert begin == len(frames)
    return segments


def join(target: Path, container: str, joined: JoinedSegments) -> list[tuple[int, int]]:
    """Writes the file; gives (pts, dts) of the packets."""
    times = []
    options = {"movie_timescale": "90000"} if container in ("mp4", "mov") else {}
    with av.open(str(target), "w", format=container, container_options=options) as output:
        joined.add_stream(output)
        for packet in joined.packets():
            times.append((packet.pts, packet.dts))
            output.mux(packet)
    return times


def decoded(path: Any, codec: str | None = None) -> tuple[list[Fraction], list[list[Plane]]]:
    """Times in seconds and planes."""
    times, pictures = [], []
    with av.open(str(path) if isinstance(path, Path) else path) as container:
        stream = container.streams.video[0]
        decoder = av.CodecContext.create(codec, "r") if codec else stream.codec_context
        for packet in container.demux(stream):
            for frame in decoder.decode(packet if packet.size else None):
                times.append(frame.pts * stream.time_base)
                pictures.append([plane.copy() for plane in planes_of(frame)])
    return times, pictures


def alone(video: VideoTrack, encoder: EncoderSettings, frames: Sequence[Frame], container: str) -> list[list[Plane]]:
    """What an ordinary file of these frames decodes to."""
    content = io.BytesIO()
    with av.open(content, "w", format=container) as output:
        stream: Any = output.add_stream(encoder.name)
        configure(stream.codec_context, video, encoder)
        for number, frame in enumerate(frames):
            taken = av.VideoFrame(video.layout.width, video.layout.height, pixel_format(video.layout))
            for target, plane in zip(planes_of(taken), frame.planes, strict=True):
                target[:] = plane
            taken.pts, taken.time_base = frame.pts - frames[0].pts, video.time_base
            taken.duration = frame.duration
            output.mux(stream.encode(taken))
        output.mux(stream.encode(None))
    content.seek(0)
    return decoded(content)[1]


def chosen(name: str, **extra: str) -> EncoderSettings:
    return settings(name, crf=None, preset=None, extra=extra)


ENCODERS = [
    ("libx264", "yuv420p", "mp4"), ("libx264", "yuv420p10le", "mp4"), ("libx264", "yuv422p", "mov"),
    ("libx264", "yuv444p", "mp4"), ("libx264", "gray", "mp4"),
    ("libx265", "yuv420p", "mp4"), ("libx265", "yuv420p10le", "mp4"), ("libx265", "yuv422p12le", "mov"),
    ("libx265", "gbrp", "mp4"),
    ("libsvtav1", "yuv420p", "mp4"), ("libsvtav1", "yuv420p10le", "mp4"),
    ("libvpx-vp9", "yuv420p", "mp4"), ("libvpx-vp9", "yuv422p", "mp4"), ("libvpx-vp9", "yuv444p", "mp4"),
    ("libvpx", "yuv420p", "nut"),
    ("ffv1", "yuv420p", "mp4"), ("ffv1", "gbrp10le", "mp4"), ("ffv1", "gbrap10le", "nut"),
    ("ffv1", "yuva444p10le", "nut"), ("ffv1", "gbrp16le", "mp4"),
    ("prores_ks", "yuv422p10le", "mov"), ("prores_ks", "yuva444p10le", "mov"),
    ("mjpeg", "yuv420p", "mov"), ("utvideo", "yuv420p", "nut"), ("utvideo", "gbrp", "nut"), ("cfhd", "yuv422p10le", "mov"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "pix_fmt", "container"), ENCODERS, ids=lambda value: str(value))
def test_every_encoder_s_segments_keep_times_and_pictures(
    tmp_path: Path, name: str, pix_fmt: str, container: str
) -> None:
    video = track(pix_fmt)
    if name == "mjpeg":
        video = replace(video, color=replace(video.color, full_range=True))
    encoder = chosen(name)
    frames = frames_of(video, UNEVEN)
    segments = segments_of(tmp_path, video, encoder, frames, (5, 1, 6))
    target = tmp_path / f"joined.{container}"
    packets = join(target, container, JoinedSegments(tmp_path, segments, video))
    times, pictures = decoded(target)
    assert [time / TIME_BASE for time in times] == UNEVEN
    expected = [
        planes
        for begin, end in ((0, 5), (5, 6), (6, 12))
        for planes in alone(video, encoder, frames[begin:end], segment_format(encoder, video))
    ]
    for made, wanted in zip(pictures, expected, strict=True):
        for plane, same in zip(made, wanted, strict=True):
            np.testing.assert_array_equal(plane, same)
    assert sorted(pts for pts, _ in packets) == UNEVEN
    assert all(dts <= pts for pts, dts in packets)


@pytest.mark.parametrize(
    ("container", "step"),
    [("mp4", None), ("mov", None), ("nut", None), ("mpegts", None), ("matroska", 1000), ("webm", 1000)],
)
def test_a_join_has_exact_times_in_every_container(tmp_path: Path, container: str, step: int | None) -> None:
    video = track("yuv420p")
    encoder = chosen("libvpx-vp9" if container == "webm" else "libx264", bf="3")
    if container == "webm":
        encoder = chosen("libvpx-vp9")
    segments = segments_of(tmp_path, video, encoder, frames_of(video, UNEVEN), (7, 5))
    target = tmp_path / "joined"
    packets = join(target, container, JoinedSegments(tmp_path, segments, video))
    times, _ = decoded(target)
    assert packets[0][0] == UNEVEN[0]
    decode = [dts for _, dts in packets]
    assert all(after > before for before, after in zip(decode, decode[1:], strict=False))
    if step:
        assert times == [round(pts * TIME_BASE * step) / Fraction(step) for pts in UNEVEN]
    else:
        # Transport streams and NUT hold no negative decode times, so all moves by as much.
        moved = times[0] if container in ("nut", "mpegts") else 0
        assert [(time - moved) / TIME_BASE for time in times] == UNEVEN
