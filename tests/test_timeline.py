"""Times that step back are mended; those that do not are left alone."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import pytest

import vidsr
from tests.conftest import make_clip
from vidsr.errors import OutputError
from vidsr.events import Event, Warned
from vidsr.media.timeline import Timeline

CASES: dict[str, tuple[list[int | None], bool, list[int]]] = {
    "as they are": ([0, 40, 41, 1000], True, [0, 40, 41, 1000]),
    "equal, for an encoder": ([0, 40, 40, 80], True, [0, 40, 41, 80]),
    "equal, copied": ([0, 40, 40, 80], False, [0, 40, 40, 80]),
    "a little back": ([0, 40, 30, 80], False, [0, 40, 40, 80]),
    "the clock begins anew": ([0, 1000, 2000, 0, 1000], True, [0, 1000, 2000, 2040, 3040]),
    "without times": ([None, None, 100, None], True, [0, 40, 100, 140]),
    "without a time, after the clock began anew": ([0, 2000, 0, None], True, [0, 2000, 2040, 2080]),
    "begins before zero": ([-80, -40, 0], True, [-80, -40, 0]),
    "begins late": ([9_000_000_000, 9_000_000_040], True, [9_000_000_000, 9_000_000_040]),
    "a gap": ([0, 40, 3_600_000, 3_600_040], True, [0, 40, 3_600_000, 3_600_040]),
    "a little back, twice": ([0, 40, 30, 35, 80], True, [0, 40, 41, 42, 80]),
    "and again": ([5000, 0, 5000, 0], True, [5000, 5040, 10040, 10080]),
}


@pytest.mark.parametrize(("times", "strict", "expected"), CASES.values(), ids=CASES.keys())
def test_timeline(times: list[int | None], strict: bool, expected: list[int]) -> None:
    timeline = Timeline(Fraction(1, 1000), strict=strict)
    assert [timeline.place(time, 40) for time in times] == expected


def test_a_first_item_without_a_time_is_at_the_beginning() -> None:
    timeline = Timeline(Fraction(1, 1000), strict=True, begin=4_200_000)
    assert [timeline.place(time, 40) for time in (None, None, 4_200_080)] == [4_200_000, 4_200_040, 4_200_080]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_joined_transport_streams(tmp_path: Path, nearest: Path, suffix: str) -> None:
    """What capture cards write: the clock begins anew in the middle. Both halves play, in step, one after the other."""
    half = make_clip(tmp_path / "half.ts", frames=50).read_bytes()
    (tmp_path / "joined.ts").write_bytes(half * 2)
    report = vidsr.upscale(tmp_path / "joined.ts", tmp_path / f"out{suffix}", model=str(nearest))
    assert report.frames == 100
    assert any("moved" in warning for warning in report.warnings)
    with av.open(str(tmp_path / f"out{suffix}")) as opened:
        times = [float(frame.time) for frame in opened.decode(video=0)]
    steps = [after - before for before, after in pairwise(times)]
    assert len(times) == 100
    assert min(steps) > 0.03
    assert max(steps) < 0.06


def test_a_cut_off_file_is_reported(tmp_path: Path, nearest: Path) -> None:
    whole = make_clip(tmp_path / "whole.mkv", frames=300, audio=False).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    report = vidsr.upscale(tmp_path / "cut.mkv", tmp_path / "out.mp4", model=str(nearest))
    assert 0 < report.frames < 300
    assert any("12.00 s" in warning for warning in report.warnings)


def test_an_input_among_the_work_is_safe(tmp_path: Path, nearest: Path) -> None:
    """It would be cleared away with what an earlier run left."""
    (tmp_path / "out.mp4.vidsr").mkdir()
    clip = make_clip(tmp_path / "clip.mp4").rename(tmp_path / "out.mp4.vidsr" / "joined.mp4")
    before = clip.read_bytes()
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="another name"):
            vidsr.upscale(clip, tmp_path / "out.mp4", model=str(nearest), overwrite=overwrite)
        assert clip.read_bytes() == before


def test_what_appears_during_the_run_is_not_replaced(tmp_path: Path, nearest: Path) -> None:
    clip, target = make_clip(tmp_path / "clip.mp4"), tmp_path / "out.mp4"

    def appear(event: Event) -> None:
        if not isinstance(event, Warned):
            target.touch()

    with pytest.raises(OutputError, match="made by someone else meanwhile"):
        vidsr.upscale(clip, target, model=str(nearest), observer=appear)
    assert target.read_bytes() == b""
    target.unlink()
    assert vidsr.upscale(clip, target, model=str(nearest), resume=True).resumed == 12
