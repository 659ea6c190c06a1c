"""Verification: outputs as they should be pass, and each planted fault is found and named with its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any

import av
import numpy as np
import pytest

import vidsr
from tests.conftest import make_clip
from vidsr.verify import Verification, expectation_from, verify

STEP = 512
"""Ticks from frame to frame: 25 a second at 1/12800."""


def check(source: Path, output: Path, **options: Any) -> Verification:
    expected = expectation_from(source, output, **options)
    return verify(output, expected, on_progress=lambda done: None, stop=None)


@cache
def picture(index: int, height: int = 180, width: int = 320) -> np.ndarray:
    """RGB uint8: textures that move, like nothing else at any other time."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float64)
    x, y = columns + 3 * index, rows + index
    waves = [np.sin(x / 9) + np.sin(y / 7), np.sin((x + y) / 13) + np.sin(x / 23), np.sin((x - y) / 11)]
    blob = np.hypot(columns - 40 - 6 * index, rows - 90) < 25
    channels = [110 + 40 * wave + 60 * blob for wave in waves]
    return np.clip(np.stack(channels, axis=2), 0, 255).astype(np.uint8)


def encode(path: Path, pictures: Iterator[tuple[int, np.ndarray]], *, pix_fmt: str = "yuv420p", crf: int = 18) -> Path:
    """Writes RGB pictures at the given ticks of 1/12800."""
    with av.open(str(path), "w") as output:
        track: Any = None
        for pts, rgb in pictures:
            if track is None:
                track = output.add_stream("libx264", rate=25, options={"crf": str(crf), "preset": "veryfast"})
                track.width, track.height, track.pix_fmt = rgb.shape[1], rgb.shape[0], pix_fmt
                track.time_base = track.codec_context.time_base = Fraction(1, 12800)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base, frame.pict_type = pts, Fraction(1, 12800), 0
            output.mux(track.encode(frame))
        output.mux(track.encode(None))
    return path


def enlarged(rgb: np.ndarray) -> np.ndarray:
    return rgb.repeat(2, axis=0).repeat(2, axis=1)


def blank(rgb: np.ndarray, part: tuple[slice, slice], colour: tuple[int, int, int]) -> np.ndarray:
    changed = rgb.copy()
    changed[part] = colour
    return changed


WHOLE = (slice(None), slice(None))
TILE = (slice(90, 180), slice(320, 480))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verify") / "in.mp4"
    return encode(path, ((index * STEP, picture(index)) for index in range(24)))


class TestPictures:
    """A source of 24 frames; outputs are encoded straight from enlarged pictures with a fault in them."""

    def output(self, tmp_path: Path, change: Callable[[list[np.ndarray]], None], crf: int = 18) -> Path:
        pictures = [enlarged(picture(index)) for index in range(24)]
        change(pictures)
        return encode(tmp_path / "out.mp4", ((i * STEP, rgb) for i, rgb in enumerate(pictures)), crf=crf)

    @pytest.mark.parametrize("crf", [18, 28, 35])
    def test_good_output_passes(self, source: Path, tmp_path: Path, crf: int) -> None:
        found = check(source, self.output(tmp_path, lambda pictures: None, crf))
        assert found.ok, found.rows()
        assert found.frames == 24
        assert found.worst_time_seconds == 0
        assert 0 < found.worst_picture < 8

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda rgb: blank(rgb, WHOLE, (0, 0, 0)), "is black"),
            (lambda rgb: blank(rgb, WHOLE, (0, 135, 0)), "is green"),
            (lambda rgb: blank(rgb, WHOLE, (128, 128, 128)), "shows one colour only"),
            (lambda rgb: rgb[::-1], "shows something else"),
            (lambda rgb: blank(rgb, TILE, (0, 0, 0)), "is black in 1 of 16 parts (row 2, column 3)"),
            (lambda rgb: blank(rgb, TILE, (0, 135, 0)), "is green in 1 of 16 parts (row 2, column 3)"),
            (lambda rgb: np.roll(rgb, 2, axis=1), "is shifted by about"),
            (lambda rgb: np.roll(rgb, 2, axis=0), "is shifted by about"),
        ],
    )
    def test_one_bad_frame_is_named(
        self, source: Path, tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], words: str
    ) -> None:
        def plant(pictures: list[np.ndarray]) -> None:
            pictures[10] = change(pictures[10])

        (fault,) = check(source, self.output(tmp_path, plant)).faults
        assert fault.startswith(f"pictures: the frame at 0.400 s {words}"), fault

    def test_swapped_frames_are_named(self, source: Path, tmp_path: Path) -> None:
        def swap(pictures: list[np.ndarray]) -> None:
            pictures[10], pictures[11] = pictures[11], pictures[10]

        found = check(source, self.output(tmp_path, swap))
        (faulty,) = (one for one in found.checks if one.status == "fault")
        assert faulty.details == (
            "the frame at 0.400 s shows the picture of 0.440 s",
            "the frame at 0.440 s shows the picture of 0.400 s",
        )

    def test_colours_that_were_misread(self, source: Path, tmp_path: Path) -> None:
        def saturate(pictures: list[np.ndarray]) -> None:
            for index, rgb in enumerate(pictures):
                pictures[index] = rgb[:, :, ::-1]

        found = check(source, self.output(tmp_path, saturate))
        assert any("two colour planes were swapped" in fault for fault in found.faults), found.rows()

    def test_a_frame_dropped(self, source: Path, tmp_path: Path) -> None:
        times = (index for index in range(24) if index != 10)
        output = encode(tmp_path / "out.mp4", ((i * STEP, enlarged(picture(i))) for i in times))
        assert check(source, output).faults == ("frames: the frame at 0.400 s is missing",)

    def test_a_frame_doubled(self, source: Path, tmp_path: Path) -> None:
        times = sorted([*(index * STEP for index in range(24)), 10 * STEP + 200])
        output = encode(tmp_path / "out.mp4", ((time, enlarged(picture(time // STEP))) for time in times))
        assert check(source, output).faults == ("frames: there is a frame too many at 0.415625 s",)

    def test_a_time_changed_by_a_tick(self, source: Path, tmp_path: Path) -> None:
        times = [index * STEP + (index == 10) for index in range(24)]
        output = encode(tmp_path / "out.mp4", ((time, enlarged(picture(i))) for i, time in enumerate(times)))
        assert check(source, output).faults == ("times: the frame at 0.400 s is 0.000078 s late",)

    def test_everything_late(self, source: Path, tmp_path: Path) -> None:
        output = encode(tmp_path / "out.mp4", ((i * STEP + 256, enlarged(picture(i))) for i in range(24)))
        assert check(source, output).faults == ("times: everything is 0.020 s late, in step",)

    def test_another_shape(self, source: Path, tmp_path: Path) -> None:
        output = encode(tmp_path / "out.mp4", ((i * STEP, enlarged(picture(i))[:, :560]) for i in range(24)))
        assert any(fault.startswith("shape: the picture is shown 0.875 times as wide") for fault in check(source, output).faults)

    def test_can_be_stopped(self, source: Path, tmp_path: Path) -> None:
        output = self.output(tmp_path, lambda pictures: None)
        stop = Event()
        stop.set()
        expected = expectation_from(source, output)
        assert verify(output, expected, on_progress=lambda done: None, stop=stop).frames < 24

    def test_an_unreadable_output_is_a_fault(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "out.mp4").write_bytes(b"nothing")
        (fault,) = check(source, tmp_path / "out.mp4").faults
        assert "is not a video file" in fault


TIMES = [0, 1001, 1002, 4000, 9009, 9010, 20000, 20500, 40000, 41111]


class TestRuns:
    """What the tool makes passes, whatever the container."""

    @pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".ts", ".avi", ".nut"])
    def test_with_sound(self, tmp_path: Path, nearest: Path, suffix: str) -> None:
        source, output = make_clip(tmp_path / "in.mp4"), tmp_path / f"out{suffix}"
        run(source, output, nearest)
        found = check(source, output)
        assert found.ok, found.rows()
        assert found.frames == 12

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
    def test_variable_frame_rate(self, tmp_path: Path, nearest: Path, suffix: str) -> None:
        source = make_clip(tmp_path / "in.mp4", times=TIMES, time_base=Fraction(1, 90000), audio=False)
        run(source, tmp_path / f"out{suffix}", nearest)
        found = check(source, tmp_path / f"out{suffix}")
        assert found.ok, found.rows()
        assert found.worst_time_seconds <= (0 if suffix == ".mp4" else 0.0005)

    @pytest.mark.parametrize(
        ("pix_fmt", "codec"), [("yuv420p10le", "libx264"), ("yuv444p", "libx264"), ("gray", "ffv1"), ("gbrp", "utvideo")]
    )
    def test_depths_and_families(self, tmp_path: Path, nearest: Path, pix_fmt: str, codec: str) -> None:
        source = make_clip(tmp_path / "in.mkv", pix_fmt=pix_fmt, codec=codec, width=98, height=50)
        run(source, tmp_path / "out.mp4", nearest)
        found = check(source, tmp_path / "out.mp4")
        assert found.ok, found.rows()

    def test_a_span(self, tmp_path: Path, nearest: Path) -> None:
        source, output = make_clip(tmp_path / "in.mp4", frames=50), tmp_path / "out.mp4"
        start, end = Fraction(1, 2), Fraction(3, 2)
        run(source, output, nearest, start=start, end=end)
        found = check(source, output, start=start, end=end)
        assert found.ok, found.rows()
        assert found.frames == 25
        assert not check(source, output, start=start, end=Fraction(7, 5)).ok

    def test_tracks_that_were_not_wanted(self, tmp_path: Path, nearest: Path) -> None:
        source, output = make_clip(tmp_path / "in.mp4"), tmp_path / "out.mp4"
        remux(source, tmp_path / "silent.mp4", keep=lambda stream: stream.type == "video")
        run(tmp_path / "silent.mp4", output, nearest)
        assert any("is missing in the output" in fault for fault in check(source, output).faults)
        assert check(source, output, keep=frozenset()).ok


def run(source: Path, output: Path, model: Path, **options: Any) -> None:
    preset = "12" if output.suffix == ".webm" else "ultrafast"
    vidsr.upscale(source, output, model=str(model), preset=preset, **options)


def remux(
    source: Path,
    target: Path,
    *,
    keep: Callable[[Any], bool] = lambda stream: True,
    packet: Callable[[Any], bool] = lambda packet: True,
    change: Callable[[Any, Any], None] = lambda output, track: None,
) -> Path:
    """Copies a file. packet: may change each packet, False leaves it out. change: is shown the output and each track."""
    with av.open(str(source)) as opened, av.open(str(target), "w") as output:
        output.metadata.update({key: value for key, value in opened.metadata.items() if key.lower() != "encoder"})
        output.set_chapters(opened.chapters())
        tracks = {}
        for stream in opened.streams:
            if not keep(stream):
                continue
            if stream.type == "attachment":
                tracks[stream.index] = output.add_stream_from_template(stream, opaque=True)
            elif stream.disposition & av.stream.Disposition.attached_pic and target.suffix == ".mkv":
                (cover,) = (bytes(one) for one in av.open(str(source)).demux(stream.index) if one.size)
                output.add_attachment(stream.metadata["filename"], stream.metadata["mimetype"], cover)
                continue
            else:
                tracks[stream.index] = output.add_stream_from_template(stream, opaque=True)
            tracks[stream.index].metadata.update(stream.metadata)
            tracks[stream.index].disposition = stream.disposition
            change(output, tracks[stream.index])
        for one in opened.demux([opened.streams[index] for index in tracks if opened.streams[index].type != "attachment"]):
            if one.size and packet(one):
                one.stream = tracks[one.stream_index]
                output.mux(one)
    return target
