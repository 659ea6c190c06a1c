"""Segments keep times and pictures, and their join is one valid file in every container."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.conftest import HDR
from vidsr.color import ColorTags, HdrMetadata
from vidsr.errors import EncoderError, OutputError
from vidsr.frame import Frame, FrameLayout, Plane, VideoTrack
from vidsr.media.encoder import EncoderSettings, configure, settings
from vidsr.media.hdr import static_hdr
from vidsr.media.pixel import layout_of, pixel_format, planes_of
from vidsr.media.schedule import as_scheduled
from vidsr.media.segment import JoinedSegments, SegmentInfo, SegmentWriter, segment_format

COLOR = ColorTags(primaries=9, transfer=16, matrix=9, full_range=False)
TIME_BASE = Fraction(1, 90000)
UNEVEN = [0, 3003, 6100, 9009, 9010, 15015, 90000, 93003, 96006, 98000, 99000, 102003]


def track(
    pix_fmt: str, *, time_base: Fraction = TIME_BASE, size: tuple[int, int] = (64, 48), **more: Any
) -> VideoTrack:
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


@pytest.mark.parametrize("encoder", ["libx264", "ffv1", "ffvhuff"])
def test_no_frame_gets_the_next_ones_samples(tmp_path: Path, encoder: str) -> None:
    """Lossless. The threads of the last one read a picture after it was handed over."""
    video = track("yuv420p", size=(640, 480))
    frames = frames_of(video, UNEVEN)
    lossless = {"qp": "0"} if encoder == "libx264" else {}
    path = tmp_path / "segment"
    write(path, video, settings(encoder, crf=None, preset=None, extra={"threads": "4", **lossless}), frames)
    for got, frame in zip(decoded(path)[1], frames, strict=True):
        assert all(np.array_equal(mine, its) for mine, its in zip(got, frame.planes, strict=True))


def alone(video: VideoTrack, encoder: EncoderSettings, frames: Sequence[Frame], container: str) -> list[list[Plane]]:
    """What an ordinary file of these frames decodes to."""
    content = io.BytesIO()
    with av.open(content, "w", format=container) as output, as_scheduled():
        stream: Any = output.add_stream(encoder.name)
        configure(stream.codec_context, video, encoder)
        for frame in frames:
            taken = av.VideoFrame(video.layout.width, video.layout.height, pixel_format(video.layout))
            for target, plane in zip(planes_of(taken), frame.planes, strict=True):
                target[:] = plane
            taken.pts, taken.time_base = frame.pts - frames[0].pts, video.time_base
            taken.duration = frame.duration
            output.mux(ordered(stream.encode(taken)))
        output.mux(ordered(stream.encode(None)))
    content.seek(0)
    return decoded(content)[1]


def ordered(packets: list[Any]) -> list[Any]:
    """x265 leaves the decode time undefined when it gets fewer frames than it reorders."""
    for packet in packets:
        if not -1_000_000 < packet.dts <= packet.pts:
            packet.dts = packet.pts
    return packets


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
    ("mjpeg", "yuv420p", "mov"), ("utvideo", "yuv420p", "nut"), ("utvideo", "gbrp", "nut"),
    ("cfhd", "yuv422p10le", "mov"),
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


@pytest.mark.parametrize("container", ["mp4", "mov", "nut", "mpegts", "matroska", "webm"])
def test_a_join_has_exact_times_in_every_container(tmp_path: Path, container: str) -> None:
    video = track("yuv420p")
    encoder = chosen("libvpx-vp9") if container == "webm" else chosen("libx264", bf="3")
    segments = segments_of(tmp_path, video, encoder, frames_of(video, UNEVEN), (7, 5))
    target = tmp_path / "joined"
    packets = join(target, container, JoinedSegments(tmp_path, segments, video))
    times, _ = decoded(target)
    decode = [dts for _, dts in packets]
    assert all(after > before for before, after in pairwise(decode))
    assert all(dts <= pts for pts, dts in packets)
    if container in ("matroska", "webm"):
        assert times == [round(pts * TIME_BASE * 1000) / Fraction(1000) for pts in UNEVEN]
    else:
        # Transport streams and NUT hold no negative decode times, so all moves by as much.
        moved = times[0] if container in ("nut", "mpegts") else 0
        assert [(time - moved) / TIME_BASE for time in times] == UNEVEN


def test_avi_gets_frames_by_number(tmp_path: Path) -> None:
    video = track("yuv420p", time_base=Fraction(1001, 30000))
    frames = [replace(frame, time_base=TIME_BASE) for frame in frames_of(video, [n * 3003 + n % 2 for n in range(12)])]
    segments = segments_of(tmp_path, video, chosen("libx264", bf="0"), frames, (5, 7))
    target = tmp_path / "joined.avi"
    packets = join(target, "avi", JoinedSegments(tmp_path, segments, video))
    assert packets == [(number, number) for number in range(12)]
    assert len(decoded(target)[1]) == 12


def test_frames_that_fall_on_one_number_at_a_boundary_follow_each_other(tmp_path: Path) -> None:
    video = track("yuv420p", time_base=Fraction(1, 10))
    frames = [replace(frame, time_base=TIME_BASE) for frame in frames_of(video, [0, 9000, 10000, 18000, 27000])]
    segments = segments_of(tmp_path, video, chosen("libx264", bf="0"), frames, (2, 3))
    times = [pts for pts, _ in join(tmp_path / "joined.nut", "nut", JoinedSegments(tmp_path, segments, video))]
    assert times == [0, 1, 2, 3, 4]


def test_times_can_be_moved_and_the_track_keeps_its_description(tmp_path: Path) -> None:
    matrix = (0, 65536, 0, -65536, 0, 0, 48 << 16, 0, 1 << 30)
    video = track("yuv420p", sample_aspect_ratio=Fraction(4, 3), display_matrix=matrix)
    times = [pts + 900_001 for pts in UNEVEN]
    segments = segments_of(tmp_path, video, chosen("libx265"), frames_of(video, times), (5, 7))
    assert (segments[0].first_pts, segments[1].end_pts) == (900_001, times[-1] + 3003)
    target = tmp_path / "joined.mp4"
    join(target, "mp4", JoinedSegments(tmp_path, segments, video, shift_pts=900_001))
    assert [time / TIME_BASE for time in decoded(target)[0]] == UNEVEN
    with av.open(str(target)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert context.codec_tag == "hvc1"
        assert stream.sample_aspect_ratio == Fraction(4, 3)
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (9, 16, 9, 1)
        assert next(container.decode(stream)).rotation in (90, -90)


def test_transparency_of_vp9_survives(tmp_path: Path) -> None:
    layout = replace(track("yuv420p").layout, alpha=True)
    video = replace(track("yuv420p"), layout=layout, time_base=Fraction(1, 1000))
    encoder = settings("libvpx-vp9", crf=0, preset=None, extra={}, alpha=True)
    frames = frames_of(video, [0, 40, 81, 121, 160])
    segments = segments_of(tmp_path, video, encoder, frames, (2, 3))
    assert segment_format(encoder, video) == "matroska"
    target = tmp_path / "joined.webm"
    join(target, "webm", JoinedSegments(tmp_path, segments, video))
    times, pictures = decoded(target, "libvpx-vp9")
    assert [time * 1000 for time in times] == [0, 40, 81, 121, 160]
    for made, frame in zip(pictures, frames, strict=True):
        assert np.abs(made[3].astype(int) - frame.planes[3]).mean() < 2


@pytest.mark.parametrize("hdr", [HDR, HdrMetadata(max_cll=997, max_fall=200)], ids=["whole", "light level only"])
@pytest.mark.parametrize(
    ("name", "container"),
    [
        ("libx264", "mp4"), ("libx264", "mpegts"), ("libx265", "mp4"), ("libx265", "matroska"), ("libsvtav1", "mp4"),
        ("libvpx-vp9", "mp4"), ("libvpx-vp9", "webm"), ("ffv1", "matroska"), ("prores_ks", "mov"),
    ],
)  # fmt: skip
def test_hdr_metadata_reach_the_file(tmp_path: Path, name: str, container: str, hdr: HdrMetadata) -> None:
    formats = {"libvpx-vp9": "yuv420p", "prores_ks": "yuv422p10le"}
    video = track(formats.get(name, "yuv420p10le"), hdr=hdr)
    segments = segments_of(tmp_path, video, chosen(name), frames_of(video, UNEVEN[:5]), (2, 3))
    target = tmp_path / "joined"
    join(target, container, JoinedSegments(tmp_path, segments, video))
    content = target.read_bytes()
    boxes, elements = (b"mdcv", b"clli"), (b"\x55\xd0", b"\x55\xbc")
    marks = {"mp4": boxes, "mov": boxes, "matroska": elements, "webm": elements}.get(container, ())
    for mark in marks[0 if hdr.primaries else 1 :]:
        assert mark in content
    with av.open(str(target)) as opened:
        found = static_hdr({entry.type.name: bytes(entry) for entry in next(opened.decode(video=0)).side_data})
    assert found is not None
    assert (found.max_cll, found.max_fall) == (997, 200)
    if hdr.primaries is not None:
        assert found.primaries is not None and found.luminance is not None
        stated = [*(value for point in found.primaries for value in point), *found.luminance]
        given = [*(value for point in HDR.primaries or () for value in point), *(HDR.luminance or ())]
        # AV1 has fractions of a power of two.
        assert stated == pytest.approx(given, abs=1e-4)


@pytest.mark.parametrize("part", ["primaries", "luminance"])
@pytest.mark.parametrize("name", ["libx264", "libx265"])
def test_half_of_the_mastering_display_stays_half(tmp_path: Path, name: str, part: str) -> None:
    video = track("yuv420p10le", hdr=replace(HDR, **{part: None}))
    segments = segments_of(tmp_path, video, chosen(name), frames_of(video, UNEVEN), (12,))
    join(tmp_path / "joined.mp4", "mp4", JoinedSegments(tmp_path, segments, video))
    with av.open(str(tmp_path / "joined.mp4")) as opened:
        found = static_hdr({entry.type.name: bytes(entry) for entry in next(opened.decode(video=0)).side_data})
    assert found == video.hdr


def test_a_segment_is_described_by_what_json_holds(tmp_path: Path) -> None:
    video = track("yuv420p")
    info = write(tmp_path / "a", video, chosen("libx264", bf="3"), frames_of(video, UNEVEN))
    assert SegmentInfo(**json.loads(json.dumps(asdict(info)))) == info
    content = (tmp_path / "a").read_bytes()
    assert (info.name, info.frames, info.bytes) == ("a", 12, len(content))
    assert info.sha256 == hashlib.sha256(content).hexdigest()
    assert info.reorder > 0


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("name", ["libx264", "libx265", "libsvtav1", "libvpx-vp9"])
def test_short_segments(tmp_path: Path, name: str, frames: int) -> None:
    video = track("yuv420p")
    all_frames = [replace(frame, duration=0) for frame in frames_of(video, UNEVEN[: frames * 2])]
    segments = segments_of(tmp_path, video, chosen(name), all_frames, (frames, frames))
    target = tmp_path / "joined.mp4"
    join(target, "mp4", JoinedSegments(tmp_path, segments, video))
    assert [time / TIME_BASE for time in decoded(target)[0]] == UNEVEN[: frames * 2]


def test_the_same_frames_give_the_same_bytes_whatever_lay_in_memory(tmp_path: Path) -> None:
    code = """
import sys; from pathlib import Path
from tests.test_segment import chosen, frames_of, track, write
video = track("yuv420p", size=(322, 178))
frames = frames_of(video, [number * 3003 for number in range(40)])
for name in ("libx264", "libx265", "libsvtav1", "libvpx-vp9"):
    for _ in range(2):
        print(write(Path(sys.argv[1]), video, chosen(name), frames).sha256)
"""
    runs = [
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "segment")],
            env=os.environ | {"MALLOC_PERTURB_": filling},
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for filling in ("85", "170")
    ]
    assert runs[0] == runs[1]
    assert runs[0][::2] == runs[0][1::2]


def damaged(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    else:
        path.write_bytes(b"")


@pytest.mark.parametrize("how", ["missing", "cut", "empty"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_damaged_segment_is_named(tmp_path: Path, how: str, which: int) -> None:
    video = track("yuv420p")
    segments = segments_of(tmp_path, video, chosen("libx264"), frames_of(video, UNEVEN), (5, 7))
    damaged(tmp_path / segments[which].name, how)
    with pytest.raises(OutputError, match=rf"{segments[which].name} is missing or damaged"):
        join(tmp_path / "joined.mp4", "mp4", JoinedSegments(tmp_path, segments, video))


def test_a_segment_with_another_number_of_frames_is_damaged(tmp_path: Path) -> None:
    video = track("yuv420p")
    (segment,) = segments_of(tmp_path, video, chosen("libx264"), frames_of(video, UNEVEN), (12,))
    with pytest.raises(OutputError, match="12 of 13 frames"):
        join(tmp_path / "joined.mp4", "mp4", JoinedSegments(tmp_path, [replace(segment, frames=13)], video))


def test_segments_of_different_encodings_are_refused(tmp_path: Path) -> None:
    video = track("yuv420p")
    first = write(tmp_path / "a", video, chosen("libx264"), frames_of(video, UNEVEN[:5]))
    second = write(tmp_path / "b", video, chosen("libx264", refs="1"), frames_of(video, UNEVEN[5:], begin=5))
    with pytest.raises(OutputError, match="b was encoded with other settings"):
        JoinedSegments(tmp_path, [first, second], video)


def test_an_abandoned_segment_leaves_nothing(tmp_path: Path) -> None:
    video = track("yuv420p")
    writer = SegmentWriter(tmp_path / "a", video, chosen("libx264", tune="zerolatency"))
    for frame in frames_of(video, UNEVEN):
        writer.write(frame)
    assert writer.written_bytes > 0
    writer.abandon()
    assert not list(tmp_path.iterdir())
    SegmentWriter(tmp_path / "b", video, chosen("libx264")).abandon()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_an_output_error(tmp_path: Path) -> None:
    video = track("yuv420p")
    writer = SegmentWriter(tmp_path / "none" / "a", video, chosen("libx264", tune="zerolatency"))
    writer.write(frames_of(video, [0])[0])
    with pytest.raises(OutputError, match="writing failed"):
        writer.close()
    writer.abandon()


def test_a_picture_the_encoder_refuses_is_an_encoder_error(tmp_path: Path) -> None:
    video = track("yuv420p", size=(63, 47))
    writer = SegmentWriter(tmp_path / "a", video, chosen("libx264"))
    with pytest.raises(EncoderError, match="libx264 failed"):
        writer.write(frames_of(video, [0])[0])
    writer.abandon()
