"""What is kept, converted, refused and said, from one end to the other."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import vidsr
from tests.conftest import make_clip
from vidsr.errors import InputError, OutputError
from vidsr.media.pixel import planes_of
from vidsr.media.source import VideoReader, probe

SAMPLES = Path(__file__).resolve().parents[1] / "samples"


@pytest.fixture
def options(nearest: Path) -> dict[str, Any]:
    return {"model": str(nearest), "backend": "onnxruntime"}


def transparent_clip(path: Path, codec: str, pix_fmt: str) -> Path:
    """A disc that is opaque on a ground that is not."""
    rows, columns = np.mgrid[0:48, 0:64]
    disc = (rows - 24) ** 2 + (columns - 32) ** 2 < 200
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        for index in range(5):
            rgba = np.dstack([np.full_like(rows, 200), columns * 3, rows * 4, 255 * disc]).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format=pix_fmt)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "target"),
    [("in.mkv", "ffv1", "bgra", "out.mkv"), ("in.mov", "prores_ks", "yuva444p10le", "out.mov")],
)
def test_transparency_is_enlarged(
    tmp_path: Path, options: dict[str, Any], name: str, codec: str, pix_fmt: str, target: str
) -> None:
    clip = transparent_clip(tmp_path / name, codec, pix_fmt)
    report = vidsr.upscale(clip, tmp_path / target, **options)
    assert report.verified, report.faults
    info = probe(tmp_path / target)
    assert info.video.layout.alpha
    reader = VideoReader(info)
    planes = info.video.layout.allocate()
    assert reader.read(planes) is not None
    reader.close()
    peak = 2**info.video.layout.bits - 1
    assert planes[-1].shape == (96, 128)
    assert planes[-1][48, 64] >= 0.98 * peak
    assert planes[-1][4, 4] <= 0.02 * peak


def test_transparency_that_cannot_stay_is_said_and_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    clip = transparent_clip(tmp_path / "in.mkv", "ffv1", "bgra")
    report = vidsr.upscale(clip, tmp_path / "out.mp4", **options)
    assert any("transparency is left out" in warning for warning in report.warnings)
    assert report.verified, report.faults
    with pytest.raises(OutputError, match=r"--strict: .*transparency"):
        vidsr.upscale(clip, tmp_path / "strict.mp4", strict=True, **options)
    assert not (tmp_path / "strict.mp4").exists()


def interlaced_clip(path: Path) -> Path:
    """A bar that moves from field to field, top field first."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg2video", rate=25, options={"flags": "+ildct+ilme", "top": "1", "qscale": "2"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for index in range(30):
            fields = []
            for part in range(2):
                picture = np.full((240, 320), 40, np.uint8)
                begin = 20 + 8 * (2 * index + part) % 240
                picture[:, begin : begin + 40] = 200
                fields.append(picture)
            woven = fields[0].copy()
            woven[1::2] = fields[1][1::2]
            frame = av.VideoFrame(320, 240, "yuv420p")
            for plane, values in zip(planes_of(frame), (woven, None, None), strict=True):
                plane[:] = 128 if values is None else values
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def combing(path: Path) -> float:
    """How much more neighbouring lines differ than lines of one field do; 1 or less without combs."""
    with av.open(str(path)) as opened:
        lumas = [np.asarray(planes_of(frame)[0], np.float64) for frame in opened.decode(video=0)][3:-3]
    between = np.mean([np.abs(np.diff(luma, axis=0)).mean() for luma in lumas])
    within = np.mean([np.abs(luma[2:] - luma[:-2]).mean() for luma in lumas])
    return float(between / max(within, 0.1))


@pytest.mark.parametrize(("deinterlace", "frames"), [("frame", 30), ("field", 60)])
def test_fields_become_frames(tmp_path: Path, options: dict[str, Any], deinterlace: Any, frames: int) -> None:
    clip = interlaced_clip(tmp_path / "in.mkv")
    report = vidsr.upscale(clip, tmp_path / "out.mkv", deinterlace=deinterlace, **options)
    assert report.frames == frames
    assert report.verified, report.faults
    assert combing(clip) > 2
    assert combing(tmp_path / "out.mkv") < 1.2


def test_tracks_are_chosen(tmp_path: Path, options: dict[str, Any]) -> None:
    source = SAMPLES / "subtitled.mkv"
    kinds = {track.kind for track in probe(source).tracks}
    assert {"audio", "subtitle"} <= kinds
    report = vidsr.upscale(source, tmp_path / "out.mkv", tracks="audio", strict=True, **options)
    assert report.verified, report.faults
    assert {track.kind for track in probe(tmp_path / "out.mkv").tracks} == {"video", "audio"}
    assert not any("left out" in warning for warning in report.warnings)


def test_strict_ends_at_damage(tmp_path: Path, options: dict[str, Any]) -> None:
    clip = make_clip(tmp_path / "in.mkv", frames=50)
    data = bytearray(clip.read_bytes())
    for place in range(len(data) // 2, len(data) // 2 + 2000, 7):
        data[place] ^= 0xFF
    clip.write_bytes(data)
    with pytest.raises((InputError, OutputError)):
        vidsr.upscale(clip, tmp_path / "strict.mkv", strict=True, **options)
    assert not (tmp_path / "strict.mkv").exists()
    assert vidsr.upscale(clip, tmp_path / "out.mkv", **options).warnings


def test_hdr_metadata_stay(shared: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    source = shared / "clips" / "hdr10_hevc_10bit_vfr_1080p.mp4"
    report = vidsr.upscale(source, tmp_path / "out.mkv", end=0.1, preset="ultrafast", **options)
    assert report.verified, report.faults
    before, after = probe(source).video, probe(tmp_path / "out.mkv").video
    assert before.hdr is not None
    assert after.hdr == before.hdr
    assert after.color == before.color
    assert after.layout.siting == before.layout.siting


def test_verification_can_be_left_out(tmp_path: Path, options: dict[str, Any]) -> None:
    shutil.copy(SAMPLES / "clip.mp4", tmp_path / "in.mp4")
    report = vidsr.upscale(tmp_path / "in.mp4", tmp_path / "out.mp4", end=0.2, verify=False, **options)
    assert report.verified is None
