"""Runs that end too early, and what goes on from there."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import av
import pytest

import vidsr
from tests.conftest import make_clip
from vidsr.errors import Cancelled, InputError, OutputError, VidsrError
from vidsr.events import Event as RunEvent
from vidsr.events import Progress, Start
from vidsr.frame import Frame
from vidsr.sinks.segments import SegmentSink

FRAMES = 620


class PowerCut(VidsrError):
    """What ends a run in these tests."""


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three segments: 250, 250 and 120 frames."""
    path = tmp_path_factory.mktemp("long") / "in.mp4"
    keys = {"g": "250", "keyint_min": "250", "sc_threshold": "0"}
    return make_clip(path, frames=FRAMES, width=32, height=32, options=keys)


@pytest.fixture(scope="module")
def options(nearest: Path) -> dict[str, Any]:
    return {"model": str(nearest), "backend": "onnxruntime", "preset": "ultrafast"}


@pytest.fixture(scope="module")
def whole(long_clip: Path, options: dict[str, Any]) -> bytes:
    """What an uninterrupted run makes."""
    target = long_clip.with_name("whole.mp4")
    report = vidsr.upscale(long_clip, target, **options)
    assert report.frames == FRAMES
    assert report.verified
    return target.read_bytes()


def cut_at(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> None:
    """Does something in place of writing the frame of that number."""
    write = SegmentSink.write
    count = 0

    def counting(self: SegmentSink, frame: Frame) -> None:
        nonlocal count
        if count == number:
            act()
        count += 1
        write(self, frame)

    monkeypatch.setattr(SegmentSink, "write", counting)


def power_cut() -> None:
    raise PowerCut("the power is gone")


def interrupt(monkeypatch: pytest.MonkeyPatch, number: int, source: Path, target: Path, **choices: Any) -> None:
    """A run whose power is gone before it writes the frame of that number."""
    with monkeypatch.context() as patch:
        cut_at(patch, number, power_cut)
        with pytest.raises(PowerCut):
            vidsr.upscale(source, target, **choices)


@pytest.mark.parametrize("number", [251, 400, 501, 619])
def test_a_resumed_run_makes_the_same_file(
    long_clip: Path, options: dict[str, Any], whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    target = tmp_path / "out.mp4"
    done = 250 * ((number - 1) // 250)
    with monkeypatch.context() as patch:
        cut_at(patch, number, power_cut)
        with pytest.raises(PowerCut, match=rf"{done} frames are kept in .*out\.mp4\.vidsr.*--resume"):
            vidsr.upscale(long_clip, target, **options)
    assert not target.exists()
    report = vidsr.upscale(long_clip, target, resume=True, **options)
    assert (report.frames, report.resumed, report.verified) == (FRAMES, done, True)
    assert target.read_bytes() == whole
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_a_run_can_be_cut_again_and_again(
    long_clip: Path, options: dict[str, Any], whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.mp4"
    for number in (300, 10, 270):
        with monkeypatch.context() as patch:
            cut_at(patch, number, power_cut)
            with pytest.raises(PowerCut):
                vidsr.upscale(long_clip, target, resume=True, **options)
    assert vidsr.upscale(long_clip, target, resume=True, **options).resumed == 500
    assert target.read_bytes() == whole


def test_trimmed_and_shifted(
    long_clip: Path, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = {**options, "start": 2.0, "end": 20.0}
    vidsr.upscale(long_clip, tmp_path / "whole.mp4", **choices)
    interrupt(monkeypatch, 300, long_clip, tmp_path / "out.mp4", **choices)
    vidsr.upscale(long_clip, tmp_path / "out.mp4", resume=True, **choices)
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_without_a_whole_segment_nothing_is_left(
    long_clip: Path, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_at(monkeypatch, 200, power_cut)
    with pytest.raises(PowerCut) as error:
        vidsr.upscale(long_clip, tmp_path / "out.mp4", **options)
    assert "--resume" not in str(error.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [({"crf": 30}, "encoder"), ({"scale": 1}, "size"), ({"end": 20.0}, "--end"), ({"precision": "fp32"}, None)],
)
def test_other_settings_are_refused(
    long_clip: Path,
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    said: str | None,
) -> None:
    target = tmp_path / "out.mp4"
    interrupt(monkeypatch, 300, long_clip, target, **options)
    if said is None:  # ONNX Runtime works in FP32 anyhow
        assert vidsr.upscale(long_clip, target, resume=True, **{**options, **change}).resumed == 250
        return
    with pytest.raises(OutputError, match=f"cannot be resumed: .*{said}.* was .* now"):
        vidsr.upscale(long_clip, target, resume=True, **{**options, **change})
    assert vidsr.upscale(long_clip, target, resume=True, **options).resumed == 250


def test_another_input_is_refused(
    long_clip: Path, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    shutil.copy(long_clip, source)
    interrupt(monkeypatch, 300, source, target, **options)
    content = bytearray(source.read_bytes())
    content[len(content) // 2] ^= 1
    source.write_bytes(content)
    with pytest.raises(OutputError, match="the input was"):
        vidsr.upscale(source, target, resume=True, **options)
    shutil.copy(long_clip, source)
    assert vidsr.upscale(source, target, resume=True, **options).resumed == 250


def test_an_unfinished_run_is_not_thrown_away_unasked(
    long_clip: Path, options: dict[str, Any], whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.mp4"
    interrupt(monkeypatch, 300, long_clip, target, **options)
    with pytest.raises(OutputError, match="unfinished run, 250 frames"):
        vidsr.upscale(long_clip, target, **options)
    assert vidsr.upscale(long_clip, target, overwrite=True, **options).resumed == 0
    assert target.read_bytes() == whole


def test_input_truncated_under_the_reader(
    long_clip: Path, options: dict[str, Any], whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    shutil.copy(long_clip, source)
    with monkeypatch.context() as patch:
        cut_at(patch, 300, lambda: os.truncate(source, source.stat().st_size // 2))
        with pytest.raises(InputError, match=r"was changed while it was read.*250 frames are kept.*--resume"):
            vidsr.upscale(source, target, **options)
    assert not target.exists()
    shutil.copy(long_clip, source)
    assert vidsr.upscale(source, target, resume=True, **options).resumed == 250
    assert target.read_bytes() == whole


def test_output_folder_vanishes(
    long_clip: Path, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    cut_at(monkeypatch, 100, lambda: shutil.rmtree(folder))
    with pytest.raises(OutputError, match="gone"):
        vidsr.upscale(long_clip, folder / "out.mp4", **options)


def test_two_runs_on_one_output(long_clip: Path, options: dict[str, Any], tmp_path: Path) -> None:
    target, refusals = tmp_path / "out.mp4", []

    def second(event: RunEvent) -> None:
        if isinstance(event, Start):
            for more in ({}, {"overwrite": True}, {"resume": True}):
                with pytest.raises(OutputError, match="another run is writing it") as refusal:
                    vidsr.upscale(long_clip, target, **options, **more)
                refusals.append(refusal)

    assert vidsr.upscale(long_clip, target, observer=second, **options).verified
    assert len(refusals) == 3


def test_a_stopped_run_keeps_what_is_whole_and_a_playable_part(
    long_clip: Path, options: dict[str, Any], whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, stop = tmp_path / "out.mp4", Event()
    with monkeypatch.context() as patch:
        cut_at(patch, 300, stop.set)
        report = vidsr.upscale(long_clip, target, stop=stop, keep_partial=True, **options)
    assert not report.complete
    assert report.kept == str(target) + ".vidsr"
    assert report.target == str(tmp_path / "out.partial.mp4")
    with av.open(report.target) as part:
        assert sum(1 for _ in part.decode(video=0)) == report.frames > 300
    assert vidsr.upscale(long_clip, target, resume=True, **options).resumed == 250
    assert target.read_bytes() == whole


def test_cancelled_at_once(
    long_clip: Path, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, cancel = tmp_path / "out.mp4", Event()
    cut_at(monkeypatch, 300, cancel.set)
    with pytest.raises(Cancelled, match="--resume"):
        vidsr.upscale(long_clip, target, cancel=cancel, **options)
    assert not target.exists()


def test_no_room_left(long_clip: Path, nearest: Path, whole: bytes, tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk: it hits the joined file, larger than any segment."""
    target = tmp_path / "out.mp4"
    command = [
        sys.executable, "-m", "vidsr", str(long_clip), str(target), "--model", str(nearest), "--backend",
        "onnxruntime", "--preset", "ultrafast",
    ]  # fmt: skip
    limit = len(whole) * 3 // 4

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    full = subprocess.run(command, capture_output=True, text=True, preexec_fn=limited)
    assert full.returncode == 1
    assert "Traceback" not in full.stderr
    assert "--resume" in full.stderr.splitlines()[-1]
    assert not target.exists()
    again = subprocess.run([*command, "--resume", "--json"], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout.splitlines()[-1])["resumed"] == FRAMES
    assert target.read_bytes() == whole


def test_progress_counts_earlier_frames(
    long_clip: Path, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, seen = tmp_path / "out.mp4", []
    interrupt(monkeypatch, 520, long_clip, target, **options)
    vidsr.upscale(long_clip, target, resume=True, observer=seen.append, **options)
    assert all(event.frames >= 500 for event in seen if isinstance(event, Progress))
    assert [event.resumed for event in seen if isinstance(event, Start)] == [500]


def test_strictness_and_memory_may_change(
    long_clip: Path, options: dict[str, Any], whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither changes a frame, and a run that ended for one of them must be able to go on."""
    target = tmp_path / "out.mp4"
    interrupt(monkeypatch, 300, long_clip, target, strict=True, **options)
    report = vidsr.upscale(long_clip, target, resume=True, memory_bytes=2_000_000_000, **options)
    assert report.resumed == 250
    assert target.read_bytes() == whole


def test_what_is_damaged_of_an_earlier_run_is_said(
    long_clip: Path, options: dict[str, Any], whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.mp4"
    interrupt(monkeypatch, 510, long_clip, target, **options)
    (tmp_path / "out.mp4.vidsr" / "000001.segment").write_bytes(b"rot")
    report = vidsr.upscale(long_clip, target, resume=True, **options)
    assert report.resumed == 250
    assert "250 frames of an earlier run were damaged and are made again" in report.warnings
    assert target.read_bytes() == whole


def test_a_stopped_run_reports_what_is_kept(
    long_clip: Path, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Event()
    cut_at(monkeypatch, 300, stop.set)
    report = vidsr.upscale(long_clip, tmp_path / "out.mp4", stop=stop, **options)
    assert (report.frames, report.target) == (250, None)


def test_the_display_cannot_cancel_later_runs(
    long_clip: Path, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancel, shown = Event(), Event()
    cut_at(monkeypatch, 10, lambda: None if shown.wait(20) else pytest.fail("nothing is shown"))

    def broken(event: RunEvent) -> None:
        if isinstance(event, Progress):
            shown.set()
            raise PowerCut("the display is gone")

    with pytest.raises(PowerCut):
        vidsr.upscale(long_clip, tmp_path / "out.mp4", observer=broken, cancel=cancel, **options)
    assert not cancel.is_set()
