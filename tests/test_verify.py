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
from vidsr.color import ColorTags
from vidsr.frame import FrameLayout
from vidsr.verify import Verification, expectation_from, verify
from vidsr.verify.cells import Reducer, grid_of, misreadings
from vidsr.verify.pairing import best_offset, paired
from vidsr.verify.picture import PictureJudge, Shown

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


def encode(
    path: Path,
    pictures: Iterator[tuple[int, np.ndarray]],
    *,
    pix_fmt: str = "yuv420p",
    crf: int = 18,
    codec: str = "libx264",
) -> Path:
    """Writes RGB pictures at the given ticks of 1/12800."""
    with av.open(str(path), "w") as output:
        track: Any = None
        for pts, rgb in pictures:
            if track is None:
                options = {"crf": str(crf), "preset": "veryfast"} if codec == "libx264" else {}
                track = output.add_stream(codec, rate=25, options=options)
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
        faults = check(source, output).faults
        assert any(fault.startswith("shape: the picture is shown 0.875 times as wide") for fault in faults)

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
        ("pix_fmt", "codec"),
        [("yuv420p10le", "libx264"), ("yuv444p", "libx264"), ("gray", "ffv1"), ("gbrp", "libx265")],
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
        assert any("it is missing" in fault for fault in check(source, output).faults)
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
    chapters: Callable[[Any], Any] = lambda chapters: chapters,
    change: Callable[[Any, Any], None] = lambda output, track: None,
) -> Path:
    """Copies a file. packet: may change each packet, False leaves it out. change: may change the output's tags and each
    of its tracks."""
    with av.open(str(source)) as opened, av.open(str(target), "w") as output:
        output.metadata.update({key: value for key, value in opened.metadata.items() if key.lower() != "encoder"})
        output.set_chapters(chapters(opened.chapters()))
        tracks = {}
        for stream in filter(keep, opened.streams):
            if stream.disposition & av.stream.Disposition.attached_pic:
                output.add_attachment(stream.metadata["filename"], stream.metadata["mimetype"], cover_of(source))
                continue
            copy = output.add_stream_from_template(stream, opaque=True)
            copy.metadata.update(stream.metadata)
            copy.disposition = stream.disposition
            change(output, copy)
            if stream.type != "attachment":
                tracks[stream.index] = copy
        for one in opened.demux([opened.streams[index] for index in tracks]):
            if one.size and packet(one):
                one.stream = tracks[one.stream_index]
                output.mux(one)
    return target


def cover_of(path: Path) -> bytes:
    with av.open(str(path)) as opened:
        (stream,) = (one for one in opened.streams if one.disposition & av.stream.Disposition.attached_pic)
        return next(bytes(packet) for packet in opened.demux(stream) if packet.size)


class TestTracks:
    """Faults planted by copying a good output of `kitchen_sink.mkv`, which has everything."""

    @pytest.fixture(scope="class")
    @classmethod
    def good(cls, shared: Path, nearest: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
        source, output = shared / "clips/kitchen_sink.mkv", tmp_path_factory.mktemp("good") / "good.mkv"
        run(source, output, nearest)
        return source, output

    def test_good_output_passes(self, good: tuple[Path, Path]) -> None:
        found = check(*good)
        assert found.ok, found.rows()
        assert not [one for one in found.checks if one.status != "ok"], found.rows()

    def test_a_plain_copy_passes(self, good: tuple[Path, Path], tmp_path: Path) -> None:
        assert check(good[0], remux(good[1], tmp_path / "out.mkv")).ok

    def faults(self, good: tuple[Path, Path], path: Path, **changes: Any) -> tuple[str, ...]:
        return check(good[0], remux(good[1], path, **changes)).faults

    def test_sound_late(self, good: tuple[Path, Path], tmp_path: Path) -> None:
        def late(packet: Any) -> bool:
            if packet.stream_index == 1:
                packet.pts, packet.dts = packet.pts + 20, packet.dts + 20
            return True

        (fault,) = self.faults(good, tmp_path / "out.mkv", packet=late)
        assert fault.startswith("audio track 1 (aac)") and "the packet at 0.000 s is 0.020 s late" in fault, fault

    def test_a_packet_missing(self, good: tuple[Path, Path], tmp_path: Path) -> None:
        (fault,) = self.faults(
            good, tmp_path / "out.mkv", packet=lambda one: not (one.stream_index == 2 and 1000 <= one.pts < 1020)
        )
        assert fault.startswith("audio track 2 (opus") and "packet at 1." in fault and "is missing" in fault, fault

    def test_a_packet_changed(self, good: tuple[Path, Path], tmp_path: Path) -> None:
        seen = []

        def damage(packet: Any) -> bool:
            if packet.stream_index == 1:
                seen.append(packet.pts)
                if len(seen) == 50:
                    packet.update(bytes(packet)[:-1] + bytes([bytes(packet)[-1] ^ 1]))
            return True

        (fault,) = self.faults(good, tmp_path / "out.mkv", packet=damage)
        assert "has another content" in fault and f"{seen[49] / 1000:.3f} s" in fault, fault

    def test_a_subtitle_missing(self, good: tuple[Path, Path], tmp_path: Path) -> None:
        seen = []

        def drop(packet: Any) -> bool:
            if packet.stream.type == "subtitle":
                seen.append(packet.pts)
            return len(seen) != 1 or packet.stream.type != "subtitle"

        (fault,) = self.faults(good, tmp_path / "out.mkv", packet=drop)
        assert fault.startswith("subtitle track") and f"the packet at {seen[0] / 1000:.3f} s is missing" in fault, fault

    def test_a_track_missing(self, good: tuple[Path, Path], tmp_path: Path) -> None:
        (fault,) = self.faults(good, tmp_path / "out.mkv", keep=lambda stream: stream.index != 3)
        assert fault.startswith("subtitle track 3 (subrip") and fault.endswith("it is missing")

    def test_a_chapter_missing(self, good: tuple[Path, Path], tmp_path: Path) -> None:
        (fault,) = self.faults(good, tmp_path / "out.mkv", chapters=lambda chapters: chapters[1:])
        assert fault.startswith("chapters: the one at 0.000 s (") and fault.endswith("is missing")

    def test_a_chapter_renamed(self, good: tuple[Path, Path], tmp_path: Path) -> None:
        def rename(chapters: Any) -> Any:
            return [{**chapters[0], "metadata": {"title": "other"}}, *chapters[1:]]

        (fault,) = self.faults(good, tmp_path / "out.mkv", chapters=rename)
        assert "is called other instead of" in fault

    @pytest.mark.parametrize(
        ("key", "value", "words"),
        [("language", "swe", "its language is swe instead of fre"), ("title", "other", "its title is other instead")],
    )
    def test_a_tag_of_a_track_changed(
        self, good: tuple[Path, Path], tmp_path: Path, key: str, value: str, words: str
    ) -> None:
        def change(output: Any, track: Any) -> None:
            if track.index == 2:
                track.metadata[key] = value

        (fault,) = self.faults(good, tmp_path / "out.mkv", change=change)
        assert fault.startswith("audio track 2") and words in fault, fault

    def test_a_tag_of_the_file_changed(self, good: tuple[Path, Path], tmp_path: Path) -> None:
        def change(output: Any, track: Any) -> None:
            output.metadata["title"] = "other"

        (fault,) = self.faults(good, tmp_path / "out.mkv", change=change)
        assert fault.startswith("tags: title is 'other' instead of ")

    def test_a_mark_lost(self, good: tuple[Path, Path], tmp_path: Path) -> None:
        def change(output: Any, track: Any) -> None:
            track.disposition = av.stream.Disposition.default

        assert any("is no longer marked" in fault for fault in self.faults(good, tmp_path / "out.mkv", change=change))

    def test_what_mp4_cannot_hold_is_expected(self, shared: Path, nearest: Path, tmp_path: Path) -> None:
        """And what is converted for it is read and heard the same."""
        source, output = shared / "clips/kitchen_sink.mkv", tmp_path / "out.mp4"
        run(source, output, nearest)
        found = check(source, output)
        assert found.ok, found.rows()
        left_out = [one.name for one in found.checks if one.status == "expected" and one.text.startswith("left out")]
        assert any(name.startswith("attachment") for name in left_out)
        read = [one.text for one in found.checks if one.name.startswith("subtitle")]
        assert any("read the same" in text for text in read), found.rows()


class TestConverted:
    """Tracks that the container cannot hold as they are: found to be the same, and late, silent or missing where so."""

    @pytest.fixture(scope="class")
    @classmethod
    def spoken(cls, nearest: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
        """A tone that comes and goes, as FLAC in Matroska, and its output in MOV, which gets ALAC."""
        folder = tmp_path_factory.mktemp("spoken")
        silent = make_clip(folder / "silent.mkv", frames=50, audio=False)
        samples = np.sin(np.arange(96000) * 0.06) * (np.sin(np.arange(96000) / 2500) > 0) * 20000
        with av.open(str(silent)) as opened, av.open(str(folder / "in.mkv"), "w") as output:
            picture_track = output.add_stream_from_template(opened.streams.video[0], opaque=True)
            track = output.add_stream("flac", rate=48000, layout="mono")
            for packet in opened.demux(video=0):
                if packet.size:
                    packet.stream = picture_track
                    output.mux(packet)
            frame = av.AudioFrame.from_ndarray(samples.astype(np.int16)[None, :], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
            output.mux(track.encode(frame))
            output.mux(track.encode(None))
        run(folder / "in.mkv", folder / "out.mov", nearest)
        return folder / "in.mkv", folder / "out.mov"

    def of_sound(self, found: Verification) -> Any:
        return next(one for one in found.checks if one.name.startswith("audio"))

    def test_without_loss(self, spoken: tuple[Path, Path]) -> None:
        found = check(*spoken)
        assert found.ok, found.rows()
        assert self.of_sound(found).text == "every sample the same"

    def test_with_loss(self, spoken: tuple[Path, Path], nearest: Path, tmp_path: Path) -> None:
        output = tmp_path / "out.webm"
        run(spoken[0], output, nearest)
        found = check(spoken[0], output)
        assert found.ok, found.rows()
        assert self.of_sound(found).text == "sounds the same, in step"

    def test_late(self, spoken: tuple[Path, Path], tmp_path: Path) -> None:
        def late(packet: Any) -> bool:
            if packet.stream.type == "audio":
                moved = round(Fraction(1, 50) / packet.time_base)
                packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
            return True

        found = check(spoken[0], remux(spoken[1], tmp_path / "out.mov", packet=late))
        assert self.of_sound(found).text == "it is 0.020 s late", found.rows()

    def test_cut_off(self, spoken: tuple[Path, Path], tmp_path: Path) -> None:
        def first_second(packet: Any) -> bool:
            return packet.stream.type != "audio" or packet.pts * packet.time_base < 1

        found = check(spoken[0], remux(spoken[1], tmp_path / "out.mov", packet=first_second))
        assert self.of_sound(found).status == "fault", found.rows()

    def test_a_subtitle_missing(self, shared: Path, nearest: Path, tmp_path: Path) -> None:
        source, output, damaged = shared / "clips/sample_with_srt.mkv", tmp_path / "out.mp4", tmp_path / "damaged.mp4"
        run(source, output, nearest)
        assert not [fault for fault in check(source, output).faults if fault.startswith("subtitle")]
        shown: list[int] = []

        def drop(packet: Any) -> bool:
            if packet.stream.type == "subtitle" and bytes(packet)[:2] != b"\0\0":
                shown.append(packet.pts)
                return len(shown) != 1
            return True

        remux(output, damaged, packet=drop)
        assert any(fault.startswith("subtitle") and "is missing" in fault for fault in check(source, damaged).faults)


class TestDescription:
    """Faults in what the video says about itself, planted by encoding once more."""

    def test_colour_tags(self, tmp_path: Path) -> None:
        source, output = tmp_path / "in.mp4", tmp_path / "out.mp4"
        tagged(source, 1, matrix=1)
        tagged(output, 2, matrix=6)
        assert any(fault == "colour tags: matrix is 6 instead of 1" for fault in check(source, output).faults)

    def test_sample_aspect_ratio(self, tmp_path: Path) -> None:
        source, output = tmp_path / "in.mp4", tmp_path / "out.mp4"
        tagged(source, 1, ratio=Fraction(4, 3))
        tagged(output, 2)
        assert any(fault.startswith("shape: the picture is shown 0.75") for fault in check(source, output).faults)
        tagged(output, 2, ratio=Fraction(4, 3))
        assert check(source, output).ok

    def test_display_matrix(self, tmp_path: Path) -> None:
        source, output = tmp_path / "in.mp4", tmp_path / "out.mp4"
        tagged(source, 1, rotation=90)
        tagged(output, 2)
        assert check(source, output).faults == ("shape: it is turned or mirrored in another way",)

    def test_range(self, tmp_path: Path) -> None:
        source, output = tmp_path / "in.mp4", tmp_path / "out.mp4"
        tagged(source, 1)
        tagged(output, 2, full_range=True)
        faults = check(source, output).faults
        assert any("full range is True instead of" in fault for fault in faults)
        assert any("as if the range was taken for the other one" in fault for fault in faults), faults


def tagged(
    path: Path,
    scale: int,
    *,
    matrix: int = 2,
    ratio: Fraction | None = None,
    rotation: int = 0,
    full_range: bool = False,
) -> None:
    """Four pictures with these tags."""
    with av.open(str(path), "w") as output:
        track: Any = output.add_stream("libx264", rate=25)
        track.width, track.height, track.pix_fmt = 320 * scale, 180 * scale, "yuv420p"
        track.codec_context.colorspace = matrix
        track.codec_context.color_range = 2 if full_range else 1
        if ratio is not None:
            track.codec_context.sample_aspect_ratio = ratio
        if rotation:
            track.set_display_rotation(rotation)
        for index in range(4):
            rgb = picture(index).repeat(scale, axis=0).repeat(scale, axis=1)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.pict_type = index, 0
            output.mux(track.encode(frame))
        output.mux(track.encode(None))


class TestParts:
    def test_cells_of_a_picture_do_not_depend_on_its_size(self) -> None:
        """Odd sizes and a ratio that is no whole number; what is averaged is the scene, not the samples."""
        small = FrameLayout(family="gray", bits=8, height=121, width=161)
        large = FrameLayout(family="gray", bits=10, height=300, width=411)
        grid = grid_of(small, large)
        tags = ColorTags(full_range=True)
        cells = []
        for layout in (small, large):
            rows = (np.arange(layout.height) + 0.5) / layout.height
            columns = (np.arange(layout.width) + 0.5) / layout.width
            scene = (rows[:, None] + columns) / 2 * (2**layout.bits - 1)
            cells.append(Reducer(layout, grid, (121, 161))([np.round(scene).astype(layout.dtype)], tags))
        assert np.abs(cells[0] - cells[1]).max() < 0.5

    @pytest.mark.parametrize("chroma", [(2, 2), (1, 2), (1, 1), (4, 4)])
    def test_cells_do_not_depend_on_the_format(self, chroma: tuple[int, int]) -> None:
        layout = FrameLayout(family="yuv", bits=8, height=97, width=131, chroma=chroma)
        planes = [np.full(shape, code, np.uint8) for shape, code in zip(layout.shapes, (120, 100, 160), strict=True)]
        deep = FrameLayout(family="yuv", bits=10, height=97, width=131)
        others = [np.full((97, 131), code * 4, np.uint16) for code in (120, 100, 160)]
        grid, tags = grid_of(layout, deep), ColorTags(matrix=1, full_range=False)
        first, second = (Reducer(one, grid, (97, 131)) for one in (layout, deep))
        assert np.abs(first(planes, tags) - second(others, tags)).max() < 0.01
        assert abs(float(first(planes, tags)[0].mean()) - (120 - 16) * 255 / 219) < 0.01

    def test_pairs_by_time(self) -> None:
        def frames(*times: int) -> Iterator[Shown]:
            empty = np.zeros((3, 1, 1), np.float32)
            return iter([Shown(Fraction(time), Fraction(0), empty) for time in times])

        def pairs(source: tuple[int, ...], output: tuple[int, ...]) -> list[tuple[int | None, int | None]]:
            found = paired(frames(*source), frames(*output), Fraction(0))
            return [tuple(one and int(one.seconds) for one in pair) for pair in found]

        regular = (10, 20, 30, 40)
        assert pairs(regular, (11, 19, 30, 41)) == [(10, 11), (20, 19), (30, 30), (40, 41)]
        assert pairs(regular, (10, 30, 40)) == [(10, 10), (20, None), (30, 30), (40, 40)]
        assert pairs(regular, (20, 30, 40)) == [(10, None), (20, 20), (30, 30), (40, 40)]
        assert pairs(regular, (10, 20, 30)) == [(10, 10), (20, 20), (30, 30), (40, None)]
        assert pairs(regular, (10, 12, 20, 30, 40, 50)) == [
            (10, 10), (None, 12), (20, 20), (30, 30), (40, 40), (None, 50)
        ]  # fmt: skip
        assert pairs((), (10,)) == [(None, 10)]

    def test_offset_is_found_with_a_frame_missing(self) -> None:
        source = [Fraction(time) for time in (0, 7, 9, 20, 31)]
        output = [Fraction(time + 5) for time in (7, 9, 20, 31)]
        assert best_offset(source, output, Fraction(0), Fraction(1, 100)) == 5
        assert best_offset(source, source, Fraction(0), Fraction(0)) == 0
        assert best_offset([], output, Fraction(3), Fraction(0)) == 3

    @pytest.mark.parametrize("seed", range(3))
    def test_sharpening_softening_and_noise_are_no_faults(self, seed: int) -> None:
        noise = np.random.default_rng(seed)
        luma = picture(seed)[::2, ::2].astype(np.float32).transpose(2, 0, 1) - 128
        blurred = (np.roll(luma, 1, 1) + np.roll(luma, -1, 1) + np.roll(luma, 1, 2) + np.roll(luma, -1, 2)) / 4
        shown = Shown(Fraction(0), Fraction(0), luma)
        other = Shown(Fraction(1), Fraction(0), picture(seed + 1)[::2, ::2].astype(np.float32).transpose(2, 0, 1) - 128)
        judge = PictureJudge((4.0, 4.0), (2.0, 2.0), {}, Fraction(0))
        for changed in (2 * luma - blurred, blurred, luma + noise.normal(0, 4, luma.shape).astype(np.float32)):
            assert judge.look(shown, changed, [other]) is None
        assert judge.look(shown, other.cells, [other]) == "shows the picture of 1.000 s"

    def test_pictures_that_do_not_change_are_no_faults(self) -> None:
        still = picture(0)[::2, ::2].astype(np.float32).transpose(2, 0, 1)
        judge = PictureJudge((4.0, 4.0), (2.0, 2.0), {}, Fraction(0))
        frames = [Shown(Fraction(index), Fraction(0), still + index * 0.1) for index in range(4)]
        assert judge.look(frames[0], still, frames[1:]) is None

    def test_misreadings_are_told_apart(self) -> None:
        layout = FrameLayout(family="yuv", bits=8, height=90, width=160)
        tags = ColorTags(matrix=1, full_range=False)
        cells = picture(0)[::2, ::2].astype(np.float32).transpose(2, 0, 1) - 100
        names = misreadings(layout, tags)
        for name, affine in names.items():
            judge = PictureJudge((4.0, 4.0), (2.0, 2.0), names, Fraction(0))
            values = np.concatenate([cells.reshape(3, -1), np.ones((1, cells[0].size))])
            misread = (affine @ values).reshape(cells.shape).astype(np.float32)
            judge.look(Shown(Fraction(0), Fraction(0), cells), misread, [])
            assert name in (judge.colours() or ""), name


@pytest.mark.parametrize(
    ("pix_fmt", "suffix", "options"),
    [("gray", ".mp4", {}), ("gray", ".mkv", {}), ("gbrp10le", ".mp4", {}), ("gbrp10le", ".mkv", {"encoder": "ffv1"})],
)
def test_formats_that_encoders_state_in_their_own_way(
    tmp_path: Path, nearest: Path, pix_fmt: str, suffix: str, options: dict[str, str]
) -> None:
    """Colourless H.264 is decoded as 4:2:0, and RGB is RGB whether a stream says so or not."""
    pictures = ((512 * index, picture(index)) for index in range(8))
    source = encode(tmp_path / "in.mkv", pictures, pix_fmt=pix_fmt, codec="ffv1")
    report = vidsr.upscale(source, tmp_path / f"out{suffix}", model=str(nearest), **options)
    assert (report.verified, report.faults) == (True, ())


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_gray_picture_that_is_tagged_as_rgb(tmp_path: Path, nearest: Path, suffix: str) -> None:
    source = encode(tmp_path / "in.png", [(0, picture(0))], pix_fmt="gray", codec="png")
    report = vidsr.upscale(source, tmp_path / f"out{suffix}", model=str(nearest))
    assert (report.verified, report.faults) == (True, ())
