"""Sizes that people ask for, and the shape in which the picture is shown."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest

import vidsr
from tests.conftest import make_clip
from vidsr.errors import UsageError
from vidsr.job.geometry import target_geometry, wanted_factor
from vidsr.media.source import VideoInfo, probe


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> VideoInfo:
    return probe(make_clip(tmp_path_factory.mktemp("geometry") / "clip.mp4", frames=2)).video


def sized(video: VideoInfo, width: int, height: int, ratio: Fraction | None = None) -> VideoInfo:
    layout = replace(video.layout, width=width, height=height)
    return replace(video, layout=layout, sample_aspect_ratio=ratio)


@pytest.mark.parametrize(
    ("width", "height", "ratio", "scale", "size", "made"),
    [
        (640, 360, None, None, None, (1280, 720, None)),
        (161, 121, None, Fraction(2), None, (322, 242, None)),
        (161, 121, None, Fraction(3), None, (484, 364, None)),
        (640, 360, None, Fraction(1), None, (640, 360, None)),
        (640, 360, None, Fraction(3, 2), None, (960, 540, None)),
        (640, 360, None, None, "1080p", (1920, 1080, None)),
        (1920, 804, None, None, "4k", (3840, 1608, None)),
        (640, 480, None, None, "720p", (960, 720, None)),
        (360, 640, None, None, "720p", (720, 1280, None)),
        # Anamorphic: what is shown fits the box, 720 samples are 1024 pixels wide.
        (720, 576, Fraction(64, 45), None, "1080p", (1350, 1080, Fraction(64, 45))),
        # Another shape than the picture's: the sample aspect ratio makes up for it.
        (640, 480, None, None, "1280x720", (1280, 720, Fraction(3, 4))),
        (640, 480, None, None, "1280x958", (1280, 958, None)),
        # Shares of the input, whatever the model does.
        (640, 360, None, None, "150%", (960, 540, None)),
        (640, 360, None, None, "50 %", (320, 180, None)),
        (161, 121, None, None, "200%", (322, 242, None)),
        (640, 360, None, None, "33.3%", (214, 120, None)),
        (720, 576, Fraction(64, 45), None, "200%", (1440, 1152, Fraction(64, 45))),
    ],
)
def test_sizes(
    video: VideoInfo,
    width: int,
    height: int,
    ratio: Fraction | None,
    scale: Fraction | None,
    size: str | None,
    made: tuple[int, int, Fraction | None],
) -> None:
    given = sized(video, width, height, ratio)
    found = target_geometry(given, scale=scale, size=size, model_scale=2, even=(2, 2))
    assert (found[1], found[0], found[2]) == made


@pytest.mark.parametrize("size", ["", "12", "0x5", "axb", "1080i", "99999999x2", "0%", "-50%", "%", "x%"])
def test_sizes_that_mean_nothing(video: VideoInfo, size: str) -> None:
    with pytest.raises(UsageError, match="--size"):
        target_geometry(video, scale=None, size=size, model_scale=2, even=(2, 2))


@pytest.mark.parametrize(
    ("scale", "size", "factor"),
    [
        (None, None, None),
        (Fraction(3, 2), None, Fraction(3, 2)),
        (None, "250%", Fraction(5, 2)),
        (None, "1440p", Fraction(4)),
        (None, "1280x360", Fraction(2)),
        (None, "640x1080", Fraction(3)),
        (Fraction(16), None, Fraction(16)),
    ],
)
def test_how_much_is_asked_of_a_model(
    video: VideoInfo, scale: Fraction | None, size: str | None, factor: Fraction | None
) -> None:
    """The larger way counts."""
    assert wanted_factor(sized(video, 640, 360), scale=scale, size=size) == factor


@pytest.mark.parametrize(
    ("scale", "size", "says"),
    [
        (Fraction(100), None, "--scale 100: that is 100 times"),
        (None, "1700%", "--size 1700%: that is 17 times"),
        (None, "20000x100", "--size 20000x100: .* the most is 16 times"),
        (Fraction(0), None, "--scale 0: must be more than 0"),
        (Fraction(-1), None, "--scale -1: must be more than 0"),
        (None, "0%", "--size 0%: must be more than 0 %"),
        (None, "half", "--size half: write WIDTHxHEIGHT, a share"),
        (Fraction(2), "720p", "--scale and --size: give one"),
    ],
)
def test_asking_too_much(video: VideoInfo, scale: Fraction | None, size: str | None, says: str) -> None:
    with pytest.raises(UsageError, match=says) as error:
        wanted_factor(sized(video, 640, 360), scale=scale, size=size)
    assert "\n" not in str(error.value)


def test_a_whole_run_to_a_size(tmp_path: Path, nearest: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", width=64, height=48)
    report = vidsr.upscale(clip, tmp_path / "out.mp4", size="150x90", model=str(nearest))
    assert report.verified
    with av.open(str(tmp_path / "out.mp4")) as opened:
        stream = opened.streams.video[0]
        assert (stream.width, stream.height) == (150, 90)
        assert stream.sample_aspect_ratio == Fraction(4, 5)
    sizes = {frame.planes[0].shape for frame in vidsr.frames(clip, scale=1, model=str(nearest))}
    assert sizes == {(48, 64)}
