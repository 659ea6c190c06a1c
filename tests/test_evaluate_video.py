"""`vidsr eval` on clips: what is measured, on videos whose figures are known, and what it says when it cannot."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import make_clip, nearest_model, write_sound
from vidsr.cli import main
from vidsr.errors import EncoderError, InputError
from vidsr.evaluate import bicubic, flicker, footage_of, measure, psnr, shrink, small_of, y_of
from vidsr.evaluate.video import Footage
from vidsr.media.picture import read_rgb
from vidsr.media.recode import CODECS, recoded

Video = NDArray[Any]
"""uint8 [T, H, W, 3]"""


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exit_info:
        main([str(argument) for argument in arguments])
    return int(exit_info.value.code or 0)


def smooth(frames: int, height: int = 96, width: int = 128) -> Video:
    """Slow waves that drift: nothing that shrinking by two would lose."""
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [
        [128 + 90 * np.sin(rows / 17 + columns / 23 + index / 5 + colour) for colour in range(3)]
        for index in range(frames)
    ]
    return np.moveaxis(np.rint(planes), 1, 3).astype(np.uint8)


def write(path: Path, video: Video, *, matrix: int = 6, full: bool = False) -> Path:
    """Without loss but for the conversion to 4:4:4, with the tags that say so."""
    names = {1: "ITU709", 6: "ITU601"}
    with av.open(str(path), "w") as output:
        track: Any = output.add_stream("libx264", rate=25, options={"qp": "0", "preset": "ultrafast"})
        track.height, track.width, track.pix_fmt = *video.shape[1:3], "yuv444p"
        track.codec_context.colorspace, track.codec_context.color_range = matrix, 2 if full else 1
        for picture in video:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            output.mux(
                track.encode(
                    frame.reformat(
                        format="yuv444p", dst_colorspace=names[matrix], dst_color_range="JPEG" if full else "MPEG"
                    )
                )
            )
        output.mux(track.encode(None))
    return path


@pytest.fixture(scope="module")
def drift(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("clips") / "drift.mkv", smooth(60))


# What frames are taken


def test_runs_are_spread_evenly(drift: Path) -> None:
    """Three runs of eight out of sixty frames, each around the middle of its third."""
    footage = footage_of(drift, frames=24)
    assert [len(run) for run in footage.runs] == [8, 8, 8]
    truth = smooth(60).astype(int)
    for third, run in enumerate(footage.runs):
        found = [int(abs(truth - picture).mean(axis=(1, 2, 3)).argmin()) for picture in run]
        assert found == list(range(found[0], found[0] + 8))
        assert abs(found[0] + 4 - (third * 20 + 10)) <= 1


def test_short_clip_is_one_run(drift: Path) -> None:
    assert [len(run) for run in footage_of(drift, frames=31).runs] == [31]
    assert [len(run) for run in footage_of(drift, frames=500).runs] == [60]


def test_frames_from_a_time_on(drift: Path) -> None:
    (run,) = footage_of(drift, frames=3, start=Fraction(2)).runs
    assert abs(run.astype(int) - smooth(60)[50:53]).max() <= 3
    with pytest.raises(InputError, match=r"drift\.mkv: no frames at 9 s"):
        footage_of(drift, frames=3, start=Fraction(9))


def test_the_middle_is_taken(drift: Path) -> None:
    (run,) = footage_of(drift, frames=60, largest=(50, 1000), multiple=8).runs
    assert run.shape == (60, 48, 128, 3)
    assert abs(run.astype(int) - smooth(60)[:, 24:72]).max() <= 3
    with pytest.raises(InputError, match="128x96, are too small"):
        footage_of(drift, frames=1, multiple=200)


@pytest.mark.parametrize("matrix", [1, 6])
@pytest.mark.parametrize("full", [False, True])
def test_matrix_and_range_of_the_file_are_honoured(tmp_path: Path, matrix: int, full: bool) -> None:
    video = smooth(4)
    (run,) = footage_of(write(tmp_path / "clip.mkv", video, matrix=matrix, full=full), frames=4).runs
    assert abs(run.astype(int) - video).max() <= 3


# Shrinking and encoding


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_shrink_by_definition(scale: int) -> None:
    """Keys' cubic stretched by the factor, edges repeated; rows first, rounded before the columns."""
    image = np.random.default_rng(0).integers(0, 256, (8 * scale, 6 * scale, 3), np.uint8)

    def kernel(x: float) -> float:
        x = abs(x)
        near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        return near if x < 1 else far if x < 2 else 0.0

    def matrix(length: int) -> NDArray[np.float64]:
        rows = np.zeros((length // scale, length))
        for row in range(length // scale):
            centre = (row + 0.5) * scale - 0.5
            for sample in range(-2 * scale, length + 2 * scale):
                rows[row, min(max(sample, 0), length - 1)] += kernel((sample - centre) / scale)
        return rows / rows.sum(axis=1, keepdims=True)

    lines = np.clip(np.rint(np.einsum("ay,yxc->axc", matrix(8 * scale), image)), 0, 255)
    exact = np.einsum("bx,axc->abc", matrix(6 * scale), lines)
    assert abs(shrink(image, scale) - np.clip(exact, 0, 255)).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("scale", [2, 4])
def test_shrink_is_matlabs(shared: Path, scale: int) -> None:
    folder = shared / "testsets" / "Set5"
    for path in sorted((folder / "HR").glob("*.png")):
        (small,) = (folder / f"LRbicx{scale}").glob(f"{path.stem}*")
        theirs, large = read_rgb(small), read_rgb(path)
        ours = shrink(large[: theirs.shape[0] * scale, : theirs.shape[1] * scale], scale)
        apart = abs(ours.astype(int) - theirs)
        assert apart.max() <= 1
        assert apart.mean() < 0.01


def encoders() -> list[Any]:
    def missing(name: str) -> bool:
        try:
            av.Codec(name, "w")
        except ValueError:
            return True
        return False

    return [
        pytest.param(
            name, marks=pytest.mark.skipif(missing(row.encoder), reason=f"this FFmpeg has no {row.encoder}"), id=name
        )
        for name, row in CODECS.items()
    ]


@pytest.mark.parametrize("codec", encoders())
def test_every_codec(codec: str) -> None:
    """Pictures come back in their order, in their colours and where they were; worse quality takes fewer bytes."""
    row = CODECS[codec]
    video = smooth(9)
    good, large = recoded(video, codec, row.best + 1)
    bad, small = recoded(video, codec, row.smallest)
    assert (good.dtype, good.shape) == (np.uint8, video.shape)
    assert all(psnr(*map(y_of, pair)) > 38 for pair in zip(video, good, strict=True))
    assert abs(good.astype(int) - video).mean() < 3
    assert small < large
    assert psnr(y_of(video), y_of(bad)) < psnr(y_of(video), y_of(good))
    assert recoded(video, codec, row.smallest)[1] == small


def test_frames_are_encoded_as_a_video() -> None:
    """A frame that was there before costs next to nothing."""
    once = smooth(1)
    noisy = np.random.default_rng(0).integers(0, 256, once.shape, np.uint8)
    assert recoded(np.repeat(noisy, 8, axis=0), "h264", 23)[1] < 1.5 * recoded(noisy, "h264", 23)[1]


@pytest.mark.parametrize("codec", CODECS)
def test_fraction_of_a_quality_counts(codec: str) -> None:
    """Or is refused, where the encoder would round it."""
    row = CODECS[codec]
    grain = np.random.default_rng(0).normal(0, 12, (4, 96, 128, 3))
    noisy = np.clip(smooth(4) + grain, 0, 255).astype(np.uint8)
    sizes = {recoded(noisy, codec, quality)[1] for quality in (row.usual, row.usual + 0.4)}
    assert len(sizes) == (1 if row.whole else 2)


def test_missing_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CODECS, "av1", replace(CODECS["av1"], encoder="libnothing"))
    with pytest.raises(EncoderError, match="--codec av1: this FFmpeg has no libnothing"):
        recoded(smooth(1), "av1", 30)


# Measures


def test_flicker() -> None:
    """An error that stays costs nothing; one that comes and goes costs what it changes by."""
    true = np.random.default_rng(0).uniform(16, 235, (5, 8, 9))
    error = np.random.default_rng(1).uniform(-9, 9, (8, 9))
    assert flicker(true, true) == 0
    assert flicker(true, true + error) == pytest.approx(0)
    blinking = true + np.array([0, 3, 0, 3, 0])[:, None, None]
    assert flicker(true, blinking) == pytest.approx(3)


def test_measure_of_a_known_error() -> None:
    """The second run is off by 51 of 255 in RGB; the border may be anything; equal frames count 100 dB."""
    video = np.full((2, 40, 48, 3), 100, np.uint8)
    footage = Footage(runs=(video, video), rate=Fraction(25))
    results = iter([100, 100, 151, 151])

    def upscale(image: NDArray[Any]) -> NDArray[Any]:
        result = np.full((40, 48, 3), next(results), np.uint8)
        result[:2] = result[:, :2] = result[-2:] = result[:, -2:] = 7
        return result

    score = measure(footage, small_of(footage, 2, None), upscale)
    assert score.psnr_y == pytest.approx((100 + 20 * np.log10(255 / (51 * 219 / 255))) / 2)
    assert 0.5 < score.ssim_y < 1
    assert score.flicker == 0


def test_no_flicker_of_single_frames(drift: Path) -> None:
    footage = footage_of(drift, frames=1)
    assert measure(footage, small_of(footage, 2, None), lambda image: bicubic(image, 2)).flicker is None


@pytest.mark.parametrize("codec", [None, "h264", "mpeg2"])
@pytest.mark.parametrize("scale", [2, 4])
def test_nothing_is_moved(drift: Path, codec: str | None, scale: int) -> None:
    """Neither by shrinking nor by encoding: one pixel of the large picture would be seen."""
    footage = footage_of(drift, frames=16)
    small = small_of(footage, scale, codec, 2)
    assert measure(footage, small, lambda image: bicubic(image, scale)).psnr_y > 46
    assert measure(footage, small, lambda image: np.roll(bicubic(image, scale), 1, axis=1)).psnr_y < 43


# The command


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_json(drift: Path, nearest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("eval", drift, "--model", nearest, "--crf", "18,40", "--frames", 16, "--crop", "99x64", "--json") == 0
    found = told(capsys)
    assert (found["width"], found["height"], found["runs"]) == (96, 64, [8, 8])
    rows = found["rows"]
    assert [(row["crf"], row["model"]) for row in rows] == [
        (18, str(nearest)), (18, "bicubic"), (40, str(nearest)), (40, "bicubic"),
    ]  # fmt: skip
    assert all(row["codec"] == "h264" and row["scale"] == 2 for row in rows)
    assert rows[0]["psnr_y"] < rows[1]["psnr_y"]
    assert rows[1]["psnr_y"] > rows[3]["psnr_y"]
    assert rows[0]["kilobits_per_second"] == rows[1]["kilobits_per_second"] > rows[2]["kilobits_per_second"] > 0


def test_models_of_two_scales(drift: Path, nearest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each at its own, beside bicubic at both, on the same pictures."""
    four = nearest_model(tmp_path / "four.onnx", 4)
    assert run("eval", drift, "--model", f"{nearest},{four}", "--codec", "none", "--frames", 2, "--json") == 0
    rows = told(capsys)["rows"]
    assert [(row["model"], row["scale"]) for row in rows] == [
        (str(nearest), 2), ("bicubic", 2), (str(four), 4), ("bicubic", 4),
    ]  # fmt: skip
    assert rows[0]["psnr_y"] > rows[2]["psnr_y"]
    assert rows[0]["crf"] is rows[0]["kilobits_per_second"] is None


def test_still_picture_flickers_in_no_way(tmp_path: Path, nearest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = write(tmp_path / "still.mkv", np.repeat(smooth(1), 10, axis=0))
    assert run("eval", clip, "--model", nearest, "--codec", "none", "--json") == 0
    assert [row["flicker"] for row in told(capsys)["rows"]] == [0, 0]


def test_black_clip_is_json(tmp_path: Path, nearest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = write(tmp_path / "black.mkv", np.zeros((4, 64, 64, 3), np.uint8))
    assert run("eval", clip, "--model", nearest, "--json") == 0
    assert [row["psnr_y"] for row in told(capsys)["rows"]] == [100, 100]


def test_table(drift: Path, nearest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("eval", drift, "--model", nearest, "--codec", "vp9", "--frames", 8) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{drift}: 128x96 of the middle, 8 consecutive frames"
    assert lines[1].split() == ["encoded", "kbit/s", "scale", "model", "PSNR-Y", "SSIM-Y", "flicker"]
    assert [line.split()[:2] for line in lines[2:]] == [["vp9", "33"]] * 2


MISTAKES = {
    "nothing": ([], "give a clip, or a folder"),
    "one folder": (["."], "give a clip, or a folder"),
    "three": (["a", "b", "c"], "give a clip, or a folder"),
    "missing": (["missing.mp4"], "missing.mp4: no such file"),
    "text": (["text.mp4"], "not a video file"),
    "sound only": (["sound.m4a"], "no video track"),
    "too small": (["clip.mp4", "--crop", "12x12"], "too small to measure"),
    "unknown codec": (["clip.mp4", "--codec", "theora"], "--codec theora: choose among h264, hevc"),
    "crf too large": (["clip.mp4", "--crf", "18,52"], "--crf 52: h264 takes 0 (best) to 51"),
    "crf of av1": (["clip.mp4", "--codec", "av1", "--crf", "0"], "av1 takes 1 (best) to 63"),
    "crf of vp9": (["clip.mp4", "--codec", "vp9", "--crf", "33,33.5"], "--crf 33.5: vp9 takes whole numbers"),
    "crf no number": (["clip.mp4", "--crf", "good"], "--crf good: write a number"),
    "crf nan": (["clip.mp4", "--crf", "nan"], "--crf nan: h264 takes"),
    "crf without codec": (["clip.mp4", "--codec", "none", "--crf", "3"], "nothing is encoded"),
    "crop no size": (["clip.mp4", "--crop", "12"], "write it as WxH"),
    "no frames": (["clip.mp4", "--frames", "0"], "not in the range"),
    "no model": (["clip.mp4", "--model", ","], "--model: name one"),
    "unknown model": (["clip.mp4", "--model", "bicubic,nope"], "no model is called 'nope'"),
    "clip option with folders": ([".", ".", "--crf", "3"], "--crf means nothing with LR_DIR HR_DIR"),
    "clip option with stability": (["--stability", "--codec", "vp9"], "--codec means nothing with --stability"),
    "guard with stability": (["--stability", "--guard", "on"], "--guard means nothing with --stability"),
    "two clips with stability": (["--stability", "a", "b"], "one clip at most"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(
    mistake: str, tmp_path: Path, clip: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "vidsr.cli.stability", _stability([]))
    Path("text.mp4").write_text("not a video\n" * 100)
    write_sound(Path("sound.m4a"))
    arguments, says = MISTAKES[mistake]
    defaults = [] if "--model" in arguments or "--stability" in arguments else ["--model", str(nearest)]
    assert run("eval", *arguments, *defaults) in (1, 2)
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def _stability(calls: list[Any]) -> ModuleType:
    module: Any = ModuleType("vidsr.cli.stability")

    def report(*arguments: Any) -> int:
        calls.append(arguments)
        return 3

    module.report = report
    return module


def test_stability_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setitem(sys.modules, "vidsr.cli.stability", _stability(calls))
    assert run("eval", "--stability") == 3
    assert run("eval", "--stability", "clip.mp4", "--model", "other", "--json") == 3
    assert calls == [("span", None, False), ("other", Path("clip.mp4"), True)]


def test_nothing_is_left_behind(
    drift: Path, nearest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither after a failure nor after Ctrl-C, here or in the folder for temporary files."""
    temporary, here = tmp_path / "temporary", tmp_path / "here"
    temporary.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))

    def interrupted(*given: Any, **named: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setitem(CODECS, "av1", replace(CODECS["av1"], encoder="libnothing"))
    assert run("eval", drift, "--model", nearest, "--codec", "av1") == 1
    monkeypatch.setattr("vidsr.evaluate.measure", interrupted)
    assert run("eval", drift, "--model", nearest) == 130
    assert "interrupted" in capsys.readouterr().err
    assert [*temporary.iterdir(), *here.iterdir()] == []


def test_clip_as_people_have_it(tmp_path: Path, nearest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Odd sizes, with sound, in other formats."""
    clip = make_clip(tmp_path / "odd.mkv", width=67, height=51, pix_fmt="yuv444p")
    assert run("eval", clip, "--model", nearest, "--json") == 0
    found = told(capsys)
    assert (found["width"], found["height"], found["runs"]) == (64, 48, [12])
