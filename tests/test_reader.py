"""Reading: what a file holds is found, and every frame arrives as it was, at its time."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import make_clip
from vidsr.color import BT709, RGB, ColorTags
from vidsr.errors import InputError
from vidsr.filters import chroma_offsets
from vidsr.frame import Frame, Siting
from vidsr.media import demux
from vidsr.media.convert import Converter
from vidsr.media.demux import open_input
from vidsr.media.pixel import closest, layout_of, pixel_format, planes_of
from vidsr.media.source import SourceInfo, VideoReader, probe

Taken = tuple[Frame, list[NDArray[Any]]]
HD = {"height": 48, "width": 64, "siting": "left"}


def taken(source: Path | SourceInfo, **options: Any) -> tuple[list[Taken], VideoReader]:
    """All frames with copies of their planes."""
    info = probe(source) if isinstance(source, Path) else source
    reader = VideoReader(info, **options)
    frames = []
    try:
        while True:
            planes = info.video.layout.allocate()
            frame = reader.read(planes)
            if frame is None:
                return frames, reader
            frames.append((frame, list(planes)))
    finally:
        reader.close()


def same(first: Sequence[Taken], second: Sequence[Taken]) -> bool:
    """Bit for bit, times and tags included."""
    return len(first) == len(second) and all(
        (a.pts, a.duration, a.time_base, a.color, a.key) == (b.pts, b.duration, b.time_base, b.color, b.key)
        and all(np.array_equal(x, y) for x, y in zip(mine, others, strict=True))
        for (a, mine), (b, others) in zip(first, second, strict=True)
    )


def write(
    path: Path,
    pictures: Iterable[Sequence[NDArray[Any]]],
    fmt: str,
    *,
    codec: str = "ffv1",
    options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    size: tuple[int, int] = (48, 64),
) -> Path:
    """Planes as they are into a file; packed formats as bytes that are repeated over the plane."""
    height, width = size
    with av.open(str(path), "w") as output:
        track: Any = output.add_stream(codec, rate=25, options=options or {})
        track.width, track.height, track.pix_fmt, track.time_base = width, height, fmt, time_base
        track.codec_context.time_base = time_base
        for index, planes in enumerate(pictures):
            frame = av.VideoFrame(width, height, fmt)
            for place, plane in zip(frame.planes, planes, strict=True):
                whole: Any = np.frombuffer(place, np.uint8)
                given = np.ascontiguousarray(plane).view(np.uint8)
                if given.ndim == 1:
                    whole[:] = np.resize(given, whole.shape)
                else:
                    whole.reshape(-1, place.line_size)[:, : given.shape[1]] = given
            frame.pts, frame.time_base = times[index] if times else index, time_base
            output.mux(track.encode(frame))
        output.mux(track.encode(None))
    return path


# Interlaced video

_TEXTURE = np.kron(np.random.default_rng(1).integers(40, 220, (12, 40)), np.ones((8, 8))).astype(np.uint8)


def instant(moment: int) -> list[NDArray[np.uint8]]:
    """yuv420p planes, 48 x 64, of a texture that moves to the right: 3 pixels from one field to the next."""
    x = 3 * moment % 200
    gray = np.full((24, 32), 128, np.uint8)
    return [_TEXTURE[:48, x : x + 64], gray, gray]


def woven(first: int, second: int) -> list[NDArray[np.uint8]]:
    """The even lines of one moment, the odd ones of another."""
    top, bottom = instant(first), instant(second)
    top[0] = top[0].copy()
    top[0][1::2] = bottom[0][1::2]
    return top


def footage(path: Path, kind: str, *, frames: int = 30, flags: str = "", **options: Any) -> Path:
    """kind: tff, bff or progressive, as the pictures are. flags: what the file says."""
    weave: dict[str, Callable[[int], list[NDArray[np.uint8]]]] = {
        "tff": lambda i: woven(2 * i, 2 * i + 1),
        "bff": lambda i: woven(2 * i + 1, 2 * i),
        "progressive": lambda i: instant(2 * i),
    }
    parameters = {"qp": "0", **({"x264-params": f"{flags}=1"} if flags else {})}
    return write(
        path, (weave[kind](i) for i in range(frames)), "yuv420p", codec="libx264", options=parameters, **options
    )


@pytest.mark.parametrize(
    ("kind", "flags", "expected"),
    [
        ("tff", "tff", "tff"),
        ("bff", "bff", "bff"),
        ("tff", "", "tff"),
        ("bff", "", "bff"),
        ("tff", "bff", "tff"),  # the flag is wrong, and the pictures leave no doubt
        ("progressive", "", "progressive"),
        ("progressive", "tff", "progressive"),
    ],
)
def test_scan_is_judged(tmp_path: Path, kind: str, flags: str, expected: str) -> None:
    assert probe(footage(tmp_path / "in.mkv", kind, flags=flags)).video.scan == expected


def test_still_pictures_are_what_their_flags_say(tmp_path: Path) -> None:
    for flags, expected in (("tff", "tff"), ("bff", "bff"), ("", "progressive")):
        options = {"x264-params": f"{flags}=1"} if flags else {}
        path = write(tmp_path / "in.mkv", [instant(0)] * 10, "yuv420p", codec="libx264", options=options)
        assert probe(path).video.scan == expected


def test_one_tiny_frame_is_progressive(tmp_path: Path) -> None:
    small = [np.zeros((8, 8), np.uint8)]
    assert probe(write(tmp_path / "in.mkv", [small], "gray", size=(8, 8))).video.scan == "progressive"


def test_scan_of_real_clips(shared: Path) -> None:
    interlaced = {
        "interlaced_h264_bff.mkv": "bff",
        "interlaced_mpeg2_1080i.ts": "tff",
        "interlaced_mpeg2_field.mp4": "bff",
    }
    names = [*interlaced, "sar_2x1.mp4", "edit_list_edts.mp4", "odd_dimensions_161x121_vp9.webm", "vfr_cursed.mp4"]
    found = {name: probe(shared / "clips" / name).video.scan for name in names}
    assert found == {name: interlaced.get(name, "progressive") for name in names}


@pytest.mark.parametrize("kind", ["tff", "bff"])
def test_deinterlaced_pictures(tmp_path: Path, kind: str) -> None:
    """Nearer to the moment itself than the woven frame is; both fields of a frame, in their order."""
    path = footage(tmp_path / "in.mkv", kind, flags=kind)
    frames, fields = taken(path, deinterlace="frame")[0], taken(path, deinterlace="field")[0]
    assert (len(frames), len(fields)) == (30, 60)

    def error(entry: Taken, moment: int) -> float:
        return float(np.abs(entry[1][0].astype(int) - instant(moment)[0]).mean())

    for moment in range(4, 56):
        nearest = min(range(moment - 2, moment + 3), key=lambda other: error(fields[moment], other))
        assert nearest == moment
    combed = taken(path)[0]
    assert sum(error(frames[i], 2 * i) for i in range(3, 27)) < 0.6 * sum(error(combed[i], 2 * i) for i in range(3, 27))


IRREGULAR = [0, 40, 80, 130, 131, 200, 5000, 5040]


@pytest.mark.parametrize("first", [0, 7, 900_000_000])
def test_times_of_deinterlaced_frames(tmp_path: Path, first: int) -> None:
    times = [first + time for time in IRREGULAR]
    path = footage(tmp_path / "in.mkv", "tff", frames=8, flags="tff", times=times, time_base=Fraction(1, 1000))
    info = probe(path)
    plain = [(frame.pts, frame.duration) for frame, _ in taken(info)[0]]
    assert [pts for pts, _ in plain] == times
    frames, reader = taken(info, deinterlace="frame")
    assert [(frame.pts, frame.duration) for frame, _ in frames] == plain
    assert reader.time_base == info.video.time_base_for("frame") == info.video.time_base
    fields, reader = taken(info, deinterlace="field")
    assert {frame.time_base for frame, _ in fields} == {info.video.time_base / 2} == {reader.time_base}
    assert [frame.pts for frame, _ in fields[::2]] == [2 * time for time in times]
    halves = [frame.pts - 2 * time for (frame, _), time in zip(fields[1::2], times, strict=True)]
    assert halves[:5] == [40, 40, 50, 1, 69]
    assert 0 < halves[5] <= 80  # the next frame is far away, and this one says how long it lasts
    assert all(
        first.duration == second.duration > 0 for (first, _), (second, _) in zip(fields[::2], fields[1::2], strict=True)
    )
    assert [frame.key for frame, _ in fields[:4]] == [True, False, False, False]


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_no_frame_is_lost_by_deinterlacing(tmp_path: Path, frames: int) -> None:
    path = footage(tmp_path / "in.mkv", "tff", frames=frames, flags="tff")
    assert len(taken(path, deinterlace="frame")[0]) == frames
    assert len(taken(path, deinterlace="field")[0]) == 2 * frames


@pytest.mark.parametrize(
    "fmt",
    ["yuv411p", "yuv422p10le", "yuv440p12le", "gray10le", "gbrp", "gbrp12le", "gbrap10le", "yuva444p12le", "bgra"],
)
def test_flat_colours_survive_deinterlacing(tmp_path: Path, fmt: str) -> None:
    """Formats that the filter does not take as they are included."""
    codec = "rawvideo" if fmt in ("bgra", "gbrp", "yuv440p12le") else "ffv1"
    planes = [np.array([40, 80, 120, 160], np.uint8)]
    if fmt != "bgra":
        layout = layout_of(fmt, **HD)
        values = [60 * (index + 1) << layout.bits - 8 for index in range(len(layout.shapes))]
        planes = [np.full(shape, value, layout.dtype) for shape, value in zip(layout.shapes, values, strict=True)]
    path = write(tmp_path / "in.nut", [planes] * 4, fmt, codec=codec)
    plain, deinterlaced = taken(path)[0], taken(path, deinterlace="frame")[0]
    assert same(plain, deinterlaced)


@pytest.mark.parametrize("deinterlace", ["off", "frame", "field"])
@pytest.mark.parametrize("span", [{}, {"start": Fraction(1, 2), "end": Fraction(1)}])
def test_skipped_frames_change_nothing_behind_them(tmp_path: Path, deinterlace: str, span: dict[str, Any]) -> None:
    path = footage(tmp_path / "in.mkv", "tff", flags="tff")
    whole, reader = taken(path, deinterlace=deinterlace, **span)
    again, other = taken(path, deinterlace=deinterlace, skip=5, **span)
    assert same(whole[5:], again)
    assert reader.end_seconds == other.end_seconds
    assert same(whole, taken(path, deinterlace=deinterlace, **span)[0])


@pytest.mark.parametrize(("deinterlace", "count"), [("off", 10), ("frame", 10), ("field", 20)])
def test_span(tmp_path: Path, deinterlace: str, count: int) -> None:
    """A span holds the same pictures as the whole has there."""
    path = footage(tmp_path / "in.mkv", "tff", flags="tff")
    whole, _ = taken(path, deinterlace=deinterlace)
    part, _ = taken(path, deinterlace=deinterlace, start=Fraction(2, 5), end=Fraction(4, 5))
    assert len(part) == count
    assert same(
        [entry for entry in whole if Fraction(2, 5) <= entry[0].pts * entry[0].time_base < Fraction(4, 5)], part
    )


# Formats


def words(*values: int) -> NDArray[np.uint16]:
    return np.array(values, "<u2")


def octets(*values: int) -> NDArray[np.uint8]:
    return np.array(values, np.uint8)


PACKED: list[tuple[str, list[NDArray[Any]], str, list[int]]] = [
    ("nv12", [octets(200), octets(100, 60)], "yuv420p", [200, 100, 60]),
    ("yuyv422", [octets(200, 100, 200, 60)], "yuv422p", [200, 100, 60]),
    ("y210le", [words(800 << 6, 400 << 6, 800 << 6, 240 << 6)], "yuv422p10le", [800, 400, 240]),
    ("vuya", [octets(60, 100, 200, 77)], "yuva444p", [200, 100, 60, 77]),
    ("rgb24", [octets(10, 20, 30)], "gbrp", [20, 30, 10]),
    ("bgr0", [octets(10, 20, 30, 0)], "gbrp", [20, 10, 30]),
    ("bgra", [octets(10, 20, 30, 40)], "gbrap", [20, 10, 30, 40]),
    ("rgba64le", [words(2560, 5120, 7680, 10000)], "gbrap16le", [5120, 7680, 2560, 10000]),
    ("rgb48le", [words(2560, 5120, 7680)], "gbrp16le", [5120, 7680, 2560]),
    ("rgb555le", [words(31 << 10 | 31)], "gbrp", [0, 248, 248]),
    ("ya8", [octets(200, 50)], "gbrap", [200, 200, 200, 50]),
    ("pal8", [octets(1), octets(1, 2, 3, 4, 10, 20, 30, 128)], "gbrap", [20, 10, 30, 128]),
    ("pal8", [octets(1), octets(1, 2, 3, 4, 10, 20, 30, 0)], "gbrp", [20, 10, 30]),
    ("monow", [octets(0)], "gray", [255]),
    ("bayer_rggb8", [octets(100)], "gbrp", [100, 100, 100]),
    ("yuv420p10be", [octets(3, 32), octets(1, 144), octets(0, 240)], "yuv420p10le", [800, 400, 240]),
]


@pytest.mark.parametrize(("fmt", "planes", "expected", "values"), PACKED, ids=[f"{row[0]}-{row[2]}" for row in PACKED])
def test_formats_that_ffmpeg_converts(
    tmp_path: Path, fmt: str, planes: list[NDArray[Any]], expected: str, values: list[int]
) -> None:
    path = write(tmp_path / "in.nut", [planes] * 2, fmt, codec="rawvideo")
    video = probe(path).video
    assert (video.pixel_format, pixel_format(video.layout)) == (fmt, expected)
    assert video.conversion == f"{fmt} is converted to {expected} by FFmpeg"
    frames, reader = taken(path)
    assert not reader.notes
    for plane, value in zip(frames[0][1], values, strict=True):
        # FFmpeg fills up the low bits of 5-bit colours in either way.
        assert np.abs(plane.astype(int) - value).max() <= (7 if fmt == "rgb555le" else 0)


def test_native_formats_pass_as_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for fmt in ("yuv444p16le", "yuva422p10le", "gbrap12le", "gray10le", "yuv410p"):
        layout = layout_of(fmt, **HD)
        planes = [rng.integers(0, 2**layout.bits, shape).astype(layout.dtype) for shape in layout.shapes]
        video = probe(write(tmp_path / "in.nut", [planes], fmt)).video
        assert (video.conversion, pixel_format(video.layout)) == (None, fmt)
        for plane, given in zip(taken(tmp_path / "in.nut")[0][0][1], planes, strict=True):
            assert np.array_equal(plane, given)


def test_upside_down_pictures(tmp_path: Path) -> None:
    """Windows bitmaps in AVI lie bottom up, which FFmpeg tells by negative line sizes."""
    path = write(
        tmp_path / "in.avi", [[np.arange(48, dtype=np.uint8)[:, None].repeat(192, 1)]], "bgr24", codec="rawvideo"
    )
    (_, planes), *_ = taken(path)[0]
    assert np.array_equal(planes[0][:, 5], np.arange(48))


def test_full_range_by_name(tmp_path: Path) -> None:
    gray = np.full((24, 32), 60, np.uint8)
    path = write(tmp_path / "in.mov", [[np.full((48, 64), 250, np.uint8), gray, gray]], "yuvj420p", codec="mjpeg")
    video = probe(path).video
    (frame, planes), *_ = taken(path)[0]
    assert (video.color.full_range, frame.color.full_range, video.layout.siting) == (True, True, "center")
    assert abs(int(planes[0][20, 20]) - 250) <= 1


def test_alpha_is_the_last_thing_to_lose() -> None:
    rgba, plain = layout_of("gbrap", **HD), layout_of("yuv420p", **HD)
    assert pixel_format(closest(rgba, ["gbrp", "yuva420p"]) or rgba) == "yuva420p"
    assert pixel_format(closest(rgba, ["gbrp", "yuv444p"]) or rgba) == "gbrp"
    assert pixel_format(closest(plain, ["yuva420p", "yuv444p"]) or plain) == "yuv444p"
    assert closest(plain, ["yuva420p"]) is None


ALPHA = [
    ("libvpx-vp9", "yuva420p", "in.webm", "yuva420p"),
    ("libvpx", "yuva420p", "in.webm", "yuva420p"),
    ("prores_ks", "yuva444p10le", "in.mov", "yuva444p12le"),
    ("ffv1", "bgra", "in.mkv", "gbrap"),
    ("qtrle", "argb", "in.mov", "gbrap"),
    ("png", "rgba64be", "in.mov", "gbrap16le"),
    ("png", "ya8", "in.mov", "gbrap"),
]


@pytest.mark.parametrize(("codec", "fmt", "name", "expected"), ALPHA, ids=[f"{row[0]}-{row[1]}" for row in ALPHA])
def test_alpha(tmp_path: Path, codec: str, fmt: str, name: str, expected: str) -> None:
    """A ramp of alpha from left to right arrives."""
    ramp = np.linspace(0, 255, 64).astype(np.uint8)[None].repeat(48, 0)
    colour = np.full((48, 64), 100, np.uint8)
    source = [colour, colour, colour, ramp]
    frame = av.VideoFrame(64, 48, "gbrap")
    for place, plane in zip(planes_of(frame), source, strict=True):
        place[:] = plane
    with av.open(str(tmp_path / name), "w") as output:
        track: Any = output.add_stream(codec, rate=25)
        track.width, track.height, track.pix_fmt = 64, 48, fmt
        if codec.startswith("libvpx"):
            track.codec_context.options = {"auto-alt-ref": "0", "crf": "4", "b": "2M"}
            track.metadata["alpha_mode"] = "1"
        for index in range(5):
            picture = frame.reformat(format=fmt)
            picture.pts, picture.time_base = index, Fraction(1, 25)
            output.mux(track.encode(picture))
        output.mux(track.encode(None))
    info = probe(tmp_path / name)
    assert info.video.layout.alpha
    assert pixel_format(info.video.layout) == expected
    frames, _ = taken(info)
    assert len(frames) == 5
    alpha = frames[-1][1][-1] / (2**info.video.layout.bits - 1) * 255
    assert np.abs(alpha - ramp).mean() < 3
    planes = frames[0][1][:3]
    reader = VideoReader(info)  # one who has no place for alpha does without
    kept = [np.empty_like(plane) for plane in planes]
    reader.read(kept)
    reader.close()
    assert all(np.array_equal(mine, given) for mine, given in zip(kept, planes, strict=True))


def test_alpha_of_a_real_clip(shared: Path) -> None:
    info = probe(shared / "clips/alpha_vp9.webm")
    assert (info.video.decoder, info.video.layout.alpha) == ("libvpx-vp9", True)
    frames, _ = taken(info, end=Fraction(1, 10))
    later, _ = taken(info, start=Fraction(5), end=Fraction(51, 10))
    assert frames[0][0].key
    assert [frame.pts for frame, _ in frames] == [0, 17, 33, 50, 67, 83]
    assert len(later) == 6
    assert {0, 255} <= set(np.unique(frames[0][1][-1]))


# What changes on the way


def joined(path: Path, *parts: bytes) -> Path:
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("fmt", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize("deinterlace", ["off", "frame"])
def test_another_size(tmp_path: Path, fmt: str, deinterlace: str) -> None:
    """Later frames are brought to the first one's size, and the report says when it began."""
    parts = [
        make_clip(
            tmp_path / f"{width}.ts", frames=30, width=width, height=height, pix_fmt=fmt, audio=False
        ).read_bytes()
        for width, height in ((64, 48), (128, 96))
    ]
    frames, reader = taken(joined(tmp_path / "in.ts", *parts), deinterlace=deinterlace)
    assert len(frames) == 60
    assert reader.notes["frames of another size than 64x48 were scaled to it"] == 30
    assert any("were scaled to it at 1.200" in line for line in reader.notes.lines())
    # the pattern is made in pixels, so at double size its steps are half as steep
    step = np.diff(frames[32][1][0][20, 2:12].astype(int)).mean()
    assert abs(step - 2 * np.diff(frames[2][1][0][20, 2:12].astype(int)).mean()) < 2 << (2 if "10" in fmt else 0)


@pytest.mark.parametrize(
    ("fmts", "level"),
    [(("yuv420p", "yuv444p"), 200), (("yuv420p", "yuv420p10le"), 800), (("yuv420p10le", "yuv422p"), 200)],
    ids=["chroma", "deeper", "shallower"],
)
def test_another_format(tmp_path: Path, fmts: tuple[str, str], level: int) -> None:
    """Flat patches keep their values, and the report says when it began."""
    parts = []
    for fmt, own in zip(fmts, (level if fmts[1] != "yuv422p" else 800, level), strict=True):
        layout = layout_of(fmt, **HD)
        own = 200 << layout.bits - 8
        planes = [
            np.full(shape, own // share, layout.dtype) for shape, share in zip(layout.shapes, (1, 2, 4), strict=True)
        ]
        path = write(tmp_path / f"{fmt}.ts", [planes] * 30, fmt, codec="libx264", options={"qp": "0"})
        parts.append(path.read_bytes())
    frames, reader = taken(joined(tmp_path / "in.ts", *parts))
    assert len(frames) == 60
    assert [int(plane[9, 9]) for plane in frames[0][1]] == [int(plane[9, 9]) for plane in frames[-1][1]]
    assert any(f"another format than {fmts[0]} were converted at 1.200" in line for line in reader.notes.lines())


LIMITED, FULL = ColorTags(matrix=BT709, full_range=False), ColorTags(matrix=BT709, full_range=True)
RGB_TAGS = ColorTags(matrix=RGB, full_range=True)
KEPT: list[tuple[str, ColorTags, list[int], str, ColorTags, list[int]]] = [
    ("yuv420p", LIMITED, [200, 100, 60], "yuv444p10le", LIMITED, [800, 400, 240]),
    ("yuv420p", LIMITED, [10, 5, 250], "yuv422p", LIMITED, [10, 5, 250]),
    ("yuv420p", FULL, [200, 100, 60], "yuv444p", LIMITED, [200, 100, 60]),
    ("yuvj420p", FULL, [250, 100, 60], "yuv420p", FULL, [250, 100, 60]),
    ("yuv420p10le", LIMITED, [800, 400, 240], "yuv420p", LIMITED, [200, 100, 60]),
    ("gray", LIMITED, [200], "yuv420p", LIMITED, [200, 128, 128]),
    ("yuv420p", LIMITED, [200, 100, 60], "gray", LIMITED, [200]),
    ("yuva420p", LIMITED, [200, 100, 60, 7], "yuva444p", LIMITED, [200, 100, 60, 7]),
    ("yuv420p", LIMITED, [200, 100, 60], "yuva420p", LIMITED, [200, 100, 60, 255]),
    # white and grey mean the same in both families
    ("yuv420p", LIMITED, [235, 128, 128], "gbrp", RGB_TAGS, [255, 255, 255]),
    ("yuv420p", FULL, [100, 128, 128], "gbrp", RGB_TAGS, [100, 100, 100]),
    ("gbrp", RGB_TAGS, [255, 255, 255], "yuv420p", LIMITED, [235, 128, 128]),
    ("gbrp", RGB_TAGS, [255, 255, 255], "yuv420p", FULL, [255, 128, 128]),
    ("gbrp", RGB_TAGS, [0, 0, 255], "yuv444p", LIMITED, [63, 102, 240]),  # BT.709 red
    ("yuv444p", LIMITED, [63, 102, 240], "gbrp", RGB_TAGS, [0, 0, 255]),
]


@pytest.mark.parametrize("size", [(64, 48), (32, 96)], ids=["same size", "other size"])
@pytest.mark.parametrize(
    ("fmt", "tags", "values", "wanted", "promised", "expected"), KEPT, ids=[f"{row[0]}-{row[3]}" for row in KEPT]
)
def test_range_and_matrix_are_kept(
    fmt: str, tags: ColorTags, values: list[int], wanted: str, promised: ColorTags, expected: list[int],
    size: tuple[int, int],
) -> None:  # fmt: skip
    picture = av.VideoFrame(*size, fmt)
    for plane, value in zip(planes_of(picture), values, strict=True):
        plane[:] = value
    picture.time_base = Fraction(1, 25)
    converted, found = Converter(layout_of(wanted, **HD), promised, interlaced=False)(picture, tags)
    for plane, value in zip(planes_of(converted), expected, strict=wanted != "gray"):
        assert np.abs(plane.astype(int) - value).max() <= (1 if "gbrp" in (fmt, wanted) else 0)
    changed = (fmt == "gbrp") != (wanted == "gbrp")
    assert (found.matrix, found.full_range) == (
        (promised.matrix, promised.full_range) if changed else (tags.matrix, tags.full_range)
    )


@pytest.mark.parametrize("size", [(64, 48), (96, 72)], ids=["same size", "other size"])
@pytest.mark.parametrize("fmt", ["rgb555le", "bgr555le", "rgb565le", "rgb565be", "bgr565le"])
def test_white_of_few_bits_is_white(fmt: str, size: tuple[int, int]) -> None:
    for share in (0, 10, 31):
        picture = av.VideoFrame(*size, fmt)
        green = round(share / 31 * 63) << 5 if "565" in fmt else share << 5
        code = share << (11 if "565" in fmt else 10) | green | share
        words = np.frombuffer(picture.planes[0], ">u2" if fmt.endswith("be") else "<u2")
        words[:] = code
        picture.time_base = Fraction(1, 25)
        made, _ = Converter(layout_of("gbrp", height=48, width=64, siting="left"), RGB_TAGS, interlaced=False)(
            picture, RGB_TAGS
        )
        for plane in planes_of(made):
            assert np.abs(plane.astype(int) - share / 31 * 255).max() <= 2


@pytest.mark.parametrize("siting", ["left", "center", "topleft"])
def test_chroma_stays_in_place_when_scaled(siting: Siting) -> None:
    """A ramp of chroma lies where the same ramp of luma does, by the siting, before and after."""
    down, right = chroma_offsets((2, 2), siting)
    picture = av.VideoFrame(128, 96, "yuv420p10le")
    luma, across, along = planes_of(picture)
    luma[:] = 4 * np.arange(128)
    across[:] = 4 * (2 * np.arange(64) + right)
    along[:] = 4 * (2 * np.arange(48) + down)[:, None]
    picture.time_base = Fraction(1, 25)
    layout = layout_of("yuv420p10le", height=48, width=64, siting=siting)
    small, _ = Converter(layout, LIMITED, interlaced=False)(picture, LIMITED)
    luma, across, along = (plane[10:-10, 10:-10].astype(float) / 4 for plane in planes_of(small))
    # pixel x of the small picture lies at 2x + 0.5 of the large one
    assert np.abs(luma[0] - (2 * np.arange(10, 54) + 0.5)).max() <= 0.25
    assert np.abs(across[0] - (2 * (2 * np.arange(10, 22) + right) + 0.5)).max() <= 0.25
    assert np.abs(along[:, 0] - (2 * (2 * np.arange(10, 14) + down) + 0.5)).max() <= 0.25


def test_fields_are_scaled_each_for_itself() -> None:
    """A woven frame that is not deinterlaced keeps two different fields apart."""
    picture = av.VideoFrame(64, 96, "gray")
    planes_of(picture)[0][0::2] = 200
    planes_of(picture)[0][1::2] = 40
    picture.time_base = Fraction(1, 25)
    small, _ = Converter(layout_of("gray", **HD), FULL, interlaced=True)(picture, FULL)
    (plane,) = planes_of(small)
    assert (plane[0::2] == 200).all()
    assert (plane[1::2] == 40).all()


# Times


def test_times_and_durations_are_the_files(tmp_path: Path) -> None:
    for name, times in (("in.mp4", [-2000, 0, 100, 5000]), ("in.mkv", [0, 90, 9_000_000, 9_003_600])):
        path = make_clip(tmp_path / name, times=times, time_base=Fraction(1, 90000), audio=False)
        with av.open(str(path)) as opened:
            stated = [(frame.pts, frame.duration) for frame in opened.decode(video=0)]
        frames, reader = taken(path)
        assert [(frame.pts, frame.duration) for frame, _ in frames] == stated
        begin = probe(path).start_seconds
        assert reader.end_seconds == sum(stated[-1]) * reader.time_base - begin
        assert not reader.notes


def test_frames_without_times(tmp_path: Path) -> None:
    """A bare H.264 stream: frames follow each other at the rate it states."""
    path = make_clip(tmp_path / "in.h264", frames=10, audio=False)
    frames, reader = taken(path)
    seconds = [frame.pts * frame.time_base for frame, _ in frames]
    assert seconds == [Fraction(index, 25) for index in range(10)]
    assert reader.notes["frames without a time got one behind their predecessor"] in (0, 10)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_avi_with_reordered_frames(tmp_path: Path, codec: str) -> None:
    """AVI counts packets in the order of decoding; the frames come out in theirs, one after the other."""
    path = write(tmp_path / "in.avi", [instant(i) for i in range(20)], "yuv420p", codec=codec, options={"bf": "2"})
    frames, reader = taken(path)
    assert [frame.pts * frame.time_base for frame, _ in frames] == [Fraction(index, 25) for index in range(20)]
    assert not reader.notes


def test_key_frames(tmp_path: Path) -> None:
    path = footage(tmp_path / "in.mkv", "progressive", frames=9)
    keyed = write(
        tmp_path / "keyed.mkv", [instant(i) for i in range(9)], "yuv420p", codec="libx264", options={"g": "3"}
    )
    assert [frame.key for frame, _ in taken(path)[0]] == [True] + [False] * 8
    assert [frame.key for frame, _ in taken(keyed)[0]] == [True, False, False] * 3


# Damage


def damaged(tmp_path: Path, name: str) -> Path:
    """A hundred frames, a key frame every ten, with flipped bytes in the middle third."""
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 30, (100, 48, 64)).astype(np.uint8)
    pictures = ([instant(i)[0] + noise[i], *instant(i)[1:]] for i in range(100))
    data = bytearray(write(tmp_path / name, pictures, "yuv420p", codec="libx264", options={"g": "10"}).read_bytes())
    for place in rng.integers(len(data) // 3, 2 * len(data) // 3, 60):
        data[place] ^= 0xFF
    return joined(tmp_path / name, bytes(data))


@pytest.mark.parametrize("name", ["in.mkv", "in.ts"])
def test_damage_is_noted_with_its_time(tmp_path: Path, name: str) -> None:
    path = damaged(tmp_path, name)
    frames, reader = taken(path)
    again, _ = taken(path)
    assert same(frames, again)
    assert 40 < len(frames) <= 100
    lines = [line for line in reader.notes.lines() if "damaged" in line]
    assert lines
    assert any(" s" in line and " at " in line for line in lines)
    with pytest.raises(InputError, match=r"in\..*damaged") as error:
        taken(path, strict=True)
    assert "\n" not in str(error.value)


def test_what_lies_before_the_span_is_not_noted(tmp_path: Path) -> None:
    _, reader = taken(damaged(tmp_path, "in.mkv"), start=Fraction(18, 5), strict=True)
    assert not reader.notes


class Failing:
    """A container on a medium that fails after 20 packets."""

    def __init__(self, container: Any) -> None:
        self._container = container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def demux(self, *streams: Any) -> Iterator[Any]:
        yield from islice(self._container.demux(*streams), 20)
        raise OSError(5, "Input/output error")


def test_unreadable_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = probe(make_clip(tmp_path / "in.mp4", frames=50, audio=False))
    monkeypatch.setattr(demux, "open_input", lambda path: Failing(open_input(path)))
    frames, reader = taken(info)
    assert len(frames) == 20
    assert reader.notes["the input cannot be read to its end (Input/output error)"] == 1
    with pytest.raises(InputError, match=r"in\.mp4.*cannot be read to its end"):
        taken(info, strict=True)


# Colour metadata


@pytest.mark.parametrize(
    ("codec", "place", "stated", "siting"),
    [("libx264", 1, "center", "center"), ("libx265", 2, "topleft", "topleft"), ("libx264", 0, "left", "left")],
)
def test_stated_chroma_siting(tmp_path: Path, codec: str, place: int, stated: str, siting: str) -> None:
    options = {
        "libx264": {"x264-params": f"chromaloc={place}"},
        "libx265": {"x265-params": f"chromaloc={place}:log-level=error"},
    }
    video = probe(write(tmp_path / "in.mkv", [instant(0)], "yuv420p", codec=codec, options=options[codec])).video
    assert (video.siting_stated, video.layout.siting) == (stated, siting)


def test_unstated_chroma_siting(tmp_path: Path) -> None:
    video = probe(write(tmp_path / "in.mkv", [instant(0)], "yuv420p", codec="ffv1")).video
    assert (video.siting_stated, video.layout.siting) == (None, "left")


MASTERING = (
    "hdr10=1:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=1000,400"
)
PRIMARIES = tuple(
    (Fraction(x, 50000), Fraction(y, 50000)) for x, y in ((34000, 16000), (13250, 34500), (7500, 3000), (15635, 16450))
)


def test_hdr_metadata(tmp_path: Path) -> None:
    options = {"x265-params": f"{MASTERING}:log-level=error"}
    planes = [plane.astype(np.uint16) * 4 for plane in instant(0)]
    hdr = probe(write(tmp_path / "in.mp4", [planes] * 6, "yuv420p10le", codec="libx265", options=options)).video.hdr
    assert hdr is not None
    assert hdr.primaries == PRIMARIES
    assert hdr.luminance == (Fraction(50, 10000), Fraction(1000))
    assert (hdr.max_cll, hdr.max_fall) == (1000, 400)
    assert probe(make_clip(tmp_path / "plain.mp4")).video.hdr is None


def test_hdr_metadata_of_the_container(tmp_path: Path) -> None:
    """Matroska states it in the track's header, where the codec cannot."""
    path = write(tmp_path / "in.mkv", [[plane.astype(np.uint16) for plane in instant(0)]], "yuv420p10le")
    light = b"\x55\xbc\x82" + struct.pack(">H", 1000) + b"\x55\xbd\x82" + struct.pack(">H", 400)
    values = [0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.329, 1000.0, 0.005]
    inside = b"".join(
        bytes([0x55, 0xD1 + index, 0x88]) + struct.pack(">d", value) for index, value in enumerate(values)
    )
    colour = light + b"\x55\xd0" + bytes([0x80 | len(inside)]) + inside
    path.write_bytes(_with_colour(path.read_bytes(), colour))
    hdr = probe(path).video.hdr
    assert hdr is not None
    assert (hdr.max_cll, hdr.max_fall) == (1000, 400)
    assert hdr.primaries is not None
    assert [float(number) for pair in hdr.primaries for number in pair] == pytest.approx(values[:8], abs=1e-5)
    assert hdr.luminance is not None
    assert [float(number) for number in hdr.luminance] == pytest.approx([0.005, 1000])


def _children(data: bytes) -> list[tuple[bytes, bytes]]:
    """(id, content) of the EBML elements in `data`."""
    found, place = [], 0
    while place < len(data):
        size_at = place + 9 - data[place].bit_length()
        begin = size_at + 9 - data[size_at].bit_length()
        length = int.from_bytes(data[size_at:begin], "big") & ((1 << 7 * (begin - size_at)) - 1)
        found.append((data[place:size_at], data[begin : begin + length]))
        place = begin + length
    return found


def _element(name: bytes, content: bytes) -> bytes:
    return name + (len(content) | 1 << 56).to_bytes(8, "big") + content


def _with_colour(data: bytes, colour: bytes) -> bytes:
    """A Matroska file with other content of the Colour element in its only track."""
    parents = [b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\xae", b"\xe0"]
    places_of_clusters = {b"\x11\x4d\x9b\x74", b"\x1c\x53\xbb\x6b"}

    def rebuilt(content: bytes, level: int) -> bytes:
        parts = [entry for entry in _children(content) if entry[0] not in {*places_of_clusters, b"\x55\xb0", b"\xbf"}]
        made = b"".join(
            _element(name, rebuilt(inside, level + 1) if parents[level : level + 1] == [name] else inside)
            for name, inside in parts
        )
        return made + (_element(b"\x55\xb0", colour) if level == len(parents) else b"")

    return rebuilt(data, 0)


def test_dynamic_hdr_is_named(shared: Path) -> None:
    video = probe(shared / "clips/hdr10_hevc_10bit_vfr_1080p.mp4").video
    assert video.dynamic_hdr == ("HDR10+",)
    assert video.hdr is not None
    assert video.hdr.max_cll == 1000
