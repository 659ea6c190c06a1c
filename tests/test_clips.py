"""Real clips through the whole tool, compared with their sources. A model that repeats pixels stands in for SPAN:
what is tested is everything around it, and its result is known."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest

import vidsr
from tests.comparison import compare
from tests.conftest import make_clip

MILLISECOND_GRID = Fraction(1, 1000)

CASES = [
    # clip, name of the output, frames at most (seconds), largest error of a time
    ("bbb_480p_5s.mp4", "out.mp4", None, 0),
    ("live_action_short.mp4", "out.mp4", None, 0),
    ("anime_640x480.mp4", "out.mp4", None, 0),
    ("kitchen_sink.mkv", "out.mkv", None, 0),
    ("sample_with_srt.mkv", "out.mkv", None, 0),
    ("hevc.ts", "out.mp4", 1, 0),
    ("screen_recording_vp8_or_vp9.webm", "out.webm", 2, 0),
    ("odd_dimensions_161x121_vp9.webm", "out.webm", None, 0),
    ("bt601.mov", "out.mov", None, 0),
    ("vfr_cursed.mp4", "out.mp4", 3, 0),
    ("rotated_90.mp4", "out.mp4", 0.2, 0),
    ("yuv444p_editlist_bframes.mp4", "out.mp4", None, 0),
]


@pytest.mark.parametrize(("name", "target", "end", "tolerance"), CASES, ids=[case[0] for case in CASES])
def test_clip(
    shared: Path, nearest: Path, tmp_path: Path, name: str, target: str, end: float | None, tolerance: Fraction
) -> None:
    output = tmp_path / target
    # CRF 12 and the fastest presets: the encoder is not what is tested.
    preset = "12" if output.suffix == ".webm" else "ultrafast"
    report = vidsr.upscale(
        shared / "clips" / name, output, model=str(nearest), crf=12, preset=preset, end=end, observer=None
    )
    found = compare(shared / "clips" / name, output, last=None if end is None else report.frames)
    assert found.frames[1] == report.frames
    assert found.frames[0] == found.frames[1]
    assert found.worst_time <= tolerance
    assert found.colour[0] == found.colour[1]
    assert found.ratio[0] == found.ratio[1]
    assert found.rotation[0] == found.rotation[1]
    assert min(found.psnr) >= 36
    assert max(found.shift) < 0.5
    if end is None:
        assert not found.differing
        assert all(late <= tolerance for _, _, late in found.packets.values())
    assert not list(tmp_path.glob("*.part"))


def test_every_track_of_kitchen_sink(shared: Path, nearest: Path, tmp_path: Path) -> None:
    source, output = shared / "clips/kitchen_sink.mkv", tmp_path / "out.mkv"
    report = vidsr.upscale(source, output, model=str(nearest), preset="ultrafast")
    assert [warning for warning in report.warnings if "colour matrix" not in warning] == []
    with av.open(str(source)) as first, av.open(str(output)) as second:
        assert [stream.type for stream in first.streams] == [stream.type for stream in second.streams]
        for mine, other in zip(first.streams, second.streams, strict=True):
            for tag in ("language", "title", "filename", "mimetype"):
                assert mine.metadata.get(tag) == other.metadata.get(tag)
            assert mine.disposition == other.disposition
        assert first.metadata["title"] == second.metadata["title"]
        chapters = [
            [(c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]) for c in opened.chapters()]
            for opened in (first, second)
        ]
        assert chapters[0] == chapters[1]
        fonts = [next(s for s in opened.streams if s.type == "attachment") for opened in (first, second)]
        assert fonts[0].data == fonts[1].data
        covers = [
            next(bytes(packet) for packet in opened.demux(opened.streams[5]) if packet.size)
            for opened in (first, second)
        ]
        assert covers[0] == covers[1]


def test_anamorphic_shape_is_kept(shared: Path, nearest: Path, tmp_path: Path) -> None:
    source, output = shared / "clips/sar_2x1.mp4", tmp_path / "out.mkv"
    vidsr.upscale(source, output, model=str(nearest), preset="ultrafast", end=0.2)
    assert compare(source, output, last=6).ratio == (2, 2)


def test_what_mp4_cannot_hold_is_said_first(shared: Path, nearest: Path, tmp_path: Path) -> None:
    """Every loss is announced before the first frame."""
    seen: list[object] = []
    vidsr.upscale(
        shared / "clips/kitchen_sink.mkv", tmp_path / "out.mp4", model=str(nearest), end=0.2, observer=seen.append
    )
    kinds = [type(event).__name__ for event in seen]
    warnings = [str(event) for event in seen if type(event).__name__ == "Warned"]
    assert kinds.index("Start") >= len(warnings)
    assert any("attachment" in warning for warning in warnings)
    assert any("subtitle" in warning for warning in warnings)


def test_matroska_moves_what_begins_before_zero_and_says_so(tmp_path: Path, nearest: Path) -> None:
    """AAC in MP4 begins with priming samples before zero; Matroska holds no such times."""
    source = make_clip(tmp_path / "in.mp4")
    report = vidsr.upscale(source, tmp_path / "out.mkv", model=str(nearest))
    assert any("0.021 s later" in warning for warning in report.warnings)
    moved = [after - before for before, after in compare(source, tmp_path / "out.mkv").times]
    assert max(moved) - min(moved) <= MILLISECOND_GRID
    assert abs(moved[0] - Fraction(1024, 48000)) <= MILLISECOND_GRID
    assert not any(
        "later" in warning for warning in vidsr.upscale(source, tmp_path / "o.mp4", model=str(nearest)).warnings
    )


TIMES = [0, 1001, 1002, 4000, 9009, 9010, 20000, 20500, 40000, 41111]


@pytest.mark.parametrize(
    ("suffix", "exact"), [(".mp4", True), (".mov", True), (".mkv", False), (".webm", False)], ids=str
)
def test_variable_frame_rate(tmp_path: Path, nearest: Path, suffix: str, exact: bool) -> None:
    source = make_clip(tmp_path / "in.mp4", times=TIMES, time_base=Fraction(1, 90000), audio=False)
    output = tmp_path / f"out{suffix}"
    vidsr.upscale(source, output, model=str(nearest), preset="12" if suffix == ".webm" else "ultrafast")
    found = compare(source, output)
    assert found.frames == (10, 10)
    assert found.worst_time <= (0 if exact else MILLISECOND_GRID / 2)
    if exact:
        assert found.durations[-1][0] == found.durations[-1][1]


def test_span_is_trimmed_with_its_sound(tmp_path: Path, nearest: Path) -> None:
    source, output = make_clip(tmp_path / "in.mp4", frames=50), tmp_path / "out.mp4"
    report = vidsr.upscale(source, output, model=str(nearest), start=0.5, end=1.5)
    assert report.frames == 25
    with av.open(str(output)) as opened:
        frames = list(opened.decode(video=0))
        assert frames[0].pts == 0
        assert frames[-1].pts * opened.streams.video[0].time_base == Fraction(24, 25)
    with av.open(str(output)) as opened:
        sound = [packet.pts * packet.time_base for packet in opened.demux(audio=0) if packet.size]
    assert 0 <= sound[0] < Fraction(22, 1000)
    assert Fraction(97, 100) < sound[-1] < 1
    # frame 13 (0.52 s) is the first one at or after 0.5 s
    distances = [abs(_corner(source, index, 8) - _corner(output, 0, 16)) for index in (12, 13, 14)]
    assert min(distances) == distances[1]


def _corner(path: Path, index: int, size: int) -> float:
    with av.open(str(path)) as opened:
        for number, frame in enumerate(opened.decode(video=0)):
            if number == index:
                return float(frame.to_ndarray(format="gray")[:size, :size].mean())
    raise AssertionError("too few frames")


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "target", "expected"),
    [
        ("libx264", "yuv420p10le", "out.mp4", ("hevc", "yuv420p10le")),
        ("libx264", "yuv444p", "out.mkv", ("h264", "yuv444p")),
        ("libx264", "yuv422p", "out.webm", ("vp9", "yuv422p")),
        ("libx265", "gbrp", "out.mkv", ("h264", "yuv444p")),
        ("libx265", "gray12le", "out.mp4", ("hevc", "gray12le")),
        ("ffv1", "yuv411p", "out.mkv", ("h264", "yuv422p")),
    ],
)
def test_depth_and_subsampling_are_kept(
    tmp_path: Path, nearest: Path, codec: str, pix_fmt: str, target: str, expected: tuple[str, str]
) -> None:
    source = make_clip(tmp_path / "in.mkv", codec=codec, pix_fmt=pix_fmt, frames=3, audio=False)
    vidsr.upscale(source, tmp_path / target, model=str(nearest))
    with av.open(str(tmp_path / target)) as opened:
        context = opened.streams.video[0].codec_context
        assert (context.codec.canonical_name, context.pix_fmt) == expected
        assert len(list(opened.decode(video=0))) == 3
