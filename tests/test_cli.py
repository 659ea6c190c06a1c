"""The command as people type it: what it says, how it exits, what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest

from tests.conftest import make_clip, write_sound
from vidsr.cli import main

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments: object) -> int:
    """Runs the command in this process and gives its exit code."""
    with pytest.raises(SystemExit) as exit_info:
        main([str(argument) for argument in arguments])
    return int(exit_info.value.code or 0)


@pytest.fixture
def folder(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with `clip.mp4` and things that are no videos."""
    monkeypatch.chdir(tmp_path)
    Path("text.mp4").write_text("not a video\n" * 100)
    Path("empty.mp4").touch()
    Path("exists.mp4").write_text("precious")
    Path("folder.mp4").mkdir()
    write_sound(Path("sound.m4a"))
    return tmp_path


MISTAKES = {
    "missing input": (["missing.mp4", "out.mp4"], "no such file"),
    "text as input": (["text.mp4", "out.mp4"], "not a video file"),
    "empty input": (["empty.mp4", "out.mp4"], "not a video file"),
    "folder as input": (["folder.mp4", "out.mp4"], "is a folder"),
    "sound only": (["sound.m4a", "out.mp4"], "no video track"),
    "unknown model": (["clip.mp4", "out.mp4", "--model", "nope"], "no model is called 'nope'"),
    "missing model file": (["clip.mp4", "out.mp4", "--model", "nope.onnx"], "no such model file"),
    "no scale": (["clip.mp4", "out.mp4", "--scale", "0"], "not a number above 0"),
    "scale and size": (["clip.mp4", "out.mp4", "--scale", "2", "--size", "4k"], "give one of them"),
    "not a size for people": (["clip.mp4", "out.mp4", "--size", "huge"], "1080p"),
    "no such track": (["clip.mp4", "out.mp4", "--tracks", "7"], "--tracks 7"),
    "output exists": (["clip.mp4", "exists.mp4"], "-y"),
    "output is a folder": (["clip.mp4", "folder.mp4"], "is a folder"),
    "output is the input": (["clip.mp4", "clip.mp4", "-y"], "is the input itself"),
    "no such folder": (["clip.mp4", "nowhere/out.mp4"], "no such folder"),
    # Where not even root may write.
    "unwritable folder": (["clip.mp4", "/proc/out.mp4"], "cannot be written"),
    "name too long": (["clip.mp4", "x" * 300 + ".mp4"], "cannot be written"),
    "unknown container": (["clip.mp4", "out.xyz"], ".mkv"),
    "no such encoder": (["clip.mp4", "out.mp4", "--encoder", "nope"], "no such encoder"),
    "encoder of sound": (["clip.mp4", "out.mp4", "--encoder", "aac"], "not video"),
    "encoder the container refuses": (["clip.mp4", "out.webm", "--encoder", "libx264"], "webm cannot hold"),
    "crf too high": (["clip.mp4", "out.mp4", "--crf", "52"], "0 (best) to 51"),
    "crf too low": (["clip.mp4", "out.webm", "--crf", "-1"], "(best) to 63"),
    "crf without meaning": (["clip.mp4", "out.mkv", "--encoder", "ffv1", "--crf", "5"], "no such setting"),
    "unknown preset": (["clip.mp4", "out.mp4", "--preset", "warp"], "veryfast"),
    "unknown encoder option": (["clip.mp4", "out.mp4", "-e", "warp=9"], "no option 'warp'"),
    "unknown x264 parameter": (["clip.mp4", "out.mp4", "-e", "x264-params=warp=9"], "warp"),
    "bad x265 parameter": (["clip.mp4", "out.mp4", "--encoder", "libx265", "-e", "x265-params=keyint=x"], "keyint"),
    "option without value": (["clip.mp4", "out.mp4", "-e", "warp"], "key=value"),
    "pixel format unknown": (["clip.mp4", "out.mp4", "--pix-fmt", "warp"], "yuv420p"),
    "pixel format refused": (["clip.mp4", "out.mp4", "--pix-fmt", "yuv420p12le", "--encoder", "libx264"], "takes"),
    "start past the end": (["clip.mp4", "out.mp4", "--start", "100"], "only 0.4"),
    "end before start": (["clip.mp4", "out.mp4", "--start", "0.3", "--end", "0.2"], "not after"),
    "not a time": (["clip.mp4", "out.mp4", "--start", "soon"], "H:MM:SS"),
    "unknown backend": (["clip.mp4", "out.mp4", "--backend", "warp"], "openvino"),
    "unknown device": (["clip.mp4", "out.mp4", "--backend", "openvino", "--device", "warp"], "finds only"),
    "too little memory": (["clip.mp4", "out.mp4", "--memory", "1K"], "too little"),
    "not a size": (["clip.mp4", "out.mp4", "--memory", "much"], "2G"),
    "no output": (["clip.mp4"], "OUT"),
    "unknown option": (["clip.mp4", "out.mp4", "--warp"], "--warp"),
}


@pytest.mark.parametrize(("arguments", "says"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_get_one_clear_line(
    folder: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    before = sorted(os.listdir(folder))
    assert run(*arguments) in (1, 2)
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    assert said.err.startswith("vidsr: ")
    assert says in said.err
    assert sorted(os.listdir(folder)) == before
    assert Path("exists.mp4").read_text() == "precious"


def test_json_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("missing.mp4", "out.mp4", "--json") == 1
    said = capsys.readouterr()
    error = json.loads(said.out)
    assert (error["event"], error["code"]) == ("error", 1)
    assert "missing.mp4" in error["message"]


def test_debug_shows_the_traceback(folder: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "vidsr", "missing.mp4", "out.mp4", "--debug"],
        capture_output=True, text=True, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert result.returncode != 0
    assert "Traceback" in result.stderr


def test_json_run(folder: Path, nearest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("clip.mp4", "out.mp4", "--model", nearest, "--scale", 2, "--json") == 0
    said = capsys.readouterr()
    events = [json.loads(line) for line in said.out.splitlines()]
    assert said.err == ""
    assert events[0]["event"] == "start"
    assert events[0]["target_size"] == [128, 96]
    done = events[-1]
    assert (done["event"], done["frames"], done["complete"], done["warnings"]) == ("done", 12, True, [])
    assert done["fps"] == pytest.approx(done["frames"] / done["seconds"], rel=0.05)
    assert set(done["busy"]) == {"decode", "model", "encode"}
    assert all(0 <= share <= 1 for share in done["busy"].values())
    assert done["written_bytes"] == Path("out.mp4").stat().st_size


def test_plain_run(folder: Path, nearest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("clip.mp4", "out.mp4", "--model", nearest) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "64x48" in said.err
    assert "out.mp4: 12 frames" in said.err
    assert "\x1b" not in said.err


def test_quiet_run_says_nothing(folder: Path, nearest: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("clip.mp4", "out.mkv", "--model", nearest, "--quiet", "-y") == 0
    assert capfd.readouterr() == ("", "")


def test_overwrite(folder: Path, nearest: Path) -> None:
    assert run("clip.mp4", "exists.mp4", "--model", nearest, "--quiet", "-y") == 0
    with av.open("exists.mp4") as opened:
        assert len(list(opened.decode(video=0))) == 12


def test_encoder_is_as_asked(folder: Path, nearest: Path) -> None:
    asked = ["--encoder", "libx265", "--crf", "30", "--preset", "ultrafast", "--pix-fmt", "yuv420p10le"]
    assert run("clip.mp4", "out.mov", "--model", nearest, "--quiet", *asked, "-e", "x265-params=keyint=5") == 0
    with av.open("out.mov") as opened:
        context = opened.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.codec_tag) == ("hevc", "yuv420p10le", "hvc1")
        keys = [frame.key_frame for frame in opened.decode(video=0)]
    assert keys == [index % 5 == 0 for index in range(12)]


def interrupted(
    folder: Path, when: Callable[[dict[str, Any]], bool], *signals: int, more: tuple[str, ...] = ()
) -> tuple[int, list[str], str]:
    """Runs SPAN on a long clip and sends `signals` at the first event that `when` holds for.

    Returns the exit code, the lines of standard output from then on, and standard error.
    """
    clip = make_clip(folder / "long.mp4", frames=400, width=256, height=192)
    with subprocess.Popen(
        [sys.executable, "-m", "vidsr", str(clip), str(folder / "out.mp4"), "--json", *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if when(json.loads(line)):
                for number in signals:
                    process.send_signal(number)
                break
        rest, said = process.communicate(timeout=120)
    return process.returncode, rest.splitlines(), said


def under_way(event: dict[str, Any]) -> bool:
    return bool(event["event"] == "progress" and event["frames"] >= 2)


def test_interrupt_before_a_segment_is_whole_leaves_nothing(tmp_path: Path) -> None:
    code, rest, said = interrupted(tmp_path, under_way, signal.SIGINT)
    assert code == 130
    assert said == "vidsr: stopped; no segment was whole, so nothing was kept\n"
    assert json.loads(rest[-1])["complete"] is False
    assert list(tmp_path.glob("out*")) == []


def test_first_interrupt_keeps_a_playable_part(tmp_path: Path) -> None:
    (tmp_path / "out.partial.mp4").write_text("an earlier run's")
    code, rest, said = interrupted(tmp_path, under_way, signal.SIGINT, more=("--keep-partial",))
    assert code == 130, said
    assert "out.partial-2.mp4" in said
    assert "Traceback" not in said
    done = json.loads(rest[-1])
    assert done["complete"] is False
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.partial-2.mp4", "out.partial.mp4"]
    assert (tmp_path / "out.partial.mp4").read_text() == "an earlier run's"
    with av.open(str(tmp_path / "out.partial-2.mp4")) as opened:
        assert len(list(opened.decode(video=0))) == done["frames"] < 400


def test_second_interrupt_leaves_nothing(tmp_path: Path) -> None:
    # Both signals come before the first frame can be through: the model is still being loaded.
    code, _, said = interrupted(tmp_path, lambda event: event["event"] == "start", signal.SIGINT, signal.SIGTERM)
    assert code == 130, said
    assert list(tmp_path.glob("out*")) == []


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("models") == 0
    table = capsys.readouterr().out
    assert "span" in table
    assert "x2" in table
    assert "Apache-2.0" in table
    assert run("models", "--json") == 0
    (span,) = [row for row in json.loads(capsys.readouterr().out) if row["name"] == "span"]
    assert (span["scale"], span["network"]) == (2, "span")
    assert "Set5" in span["quality"]


def test_installed_models_are_found_from_anywhere(tmp_path: Path) -> None:
    """The installed package, wheel or editable, brings its models along; this checkout is not on the path."""
    code = "from vidsr import models; print([path.stem for path in models.installed()])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    if "No module named 'vidsr'" in result.stderr:
        pytest.skip("vidsr is not installed here, only checked out")
    assert result.stdout.strip() == "['span', 'span-clean', 'span-clean-x4', 'span-fast', 'span-x4']"


def test_help_is_light_and_whole() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run([sys.executable, "-m", "vidsr", "--help"], capture_output=True, text=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0
    assert (
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3.0
    )  # 0.05 s; a guard, not a measurement
    from vidsr.backends import MODULES

    for name in (*MODULES, "vidsr models", "vidsr import", "vidsr eval", "--start", "--crf"):
        assert name in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 100


@pytest.mark.parametrize("name", ["models", "import", "eval"])
def test_other_commands_have_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, "--help") == 0
    assert re.search(r"Usage: vidsr " + name, capsys.readouterr().out)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert re.fullmatch(r"vidsr \S+\n", capsys.readouterr().out)


@pytest.mark.parametrize("name", ["12:30.mp4", "with space.mp4", "größe.mp4", "100%d.mp4", "models"])
def test_any_file_name(folder: Path, nearest: Path, name: str) -> None:
    source = Path("clip.mp4").rename(name)
    argument = f"./{name}" if name == "models" else name
    assert run(argument, f"x{name}.mp4", "--model", nearest, "--quiet") == 0
    assert Path(f"x{name}.mp4").stat().st_size > 1000
    assert source.exists()


def test_home_that_cannot_be_written(folder: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, "/proc/nowhere")
    assert run("clip.mp4", "out.mp4", "--model", nearest, "--quiet") == 0


def test_nothing_is_left_in_the_home_but_the_cache(folder: Path, nearest: Path) -> None:
    """OpenVINO's telemetry would keep a client id there."""
    subprocess.run(
        [sys.executable, "-m", "vidsr", "clip.mp4", "out.mp4", "--model", str(nearest)],
        check=True, capture_output=True, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert [path.name for path in Path(os.environ["HOME"]).iterdir()] == ["vidsr"]


def test_a_name_for_an_encoder_means_ours(folder: Path, nearest: Path) -> None:
    for alias, expected in (("hevc", "hevc"), ("h264", "h264"), ("av1", "av1")):
        assert run("clip.mp4", "out.mkv", "--model", nearest, "--encoder", alias, "--crf", 30, "--quiet", "-y") == 0
        with av.open("out.mkv") as opened:
            assert opened.streams.video[0].codec_context.codec.canonical_name == expected


def test_two_frames_of_hevc(folder: Path, nearest: Path) -> None:
    """x265 gives no usable decode times for fewer frames than it reorders."""
    arguments = ["--encoder", "libx265", "--end", "0.08", "--quiet"]
    assert run("clip.mp4", "out.mp4", "--model", nearest, *arguments) == 0
    with av.open("out.mp4") as opened:
        assert len(list(opened.decode(video=0))) == 2


def test_a_full_standard_output(folder: Path, nearest: Path) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "vidsr", "clip.mp4", "out.mp4", "--model", str(nearest), "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr == "vidsr: standard output cannot be written (No space left on device)\n"
    assert not Path("out.mp4").exists()


@pytest.mark.parametrize("arguments", [["models"], ["models", "--json"], ["cache", "path"], ["--help"]])
def test_a_full_standard_output_of_other_commands(tmp_path: Path, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "vidsr", *arguments],
            stdout=full, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr == "vidsr: standard output cannot be written (No space left on device)\n"


def test_another_system_error_is_not_taken_for_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vidsr.models.installed", fail)
    assert run("models") == 70
    assert "internal error" in capsys.readouterr().err


def test_group_without_a_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cache") == 2
    said = capsys.readouterr().err
    assert said.startswith("Usage: vidsr cache")
    assert re.search(r"^  clear  ", said, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["a", "b", "--warp"], "vidsr"),
        (["build", "--warp"], "vidsr build"),
        (["cache", "warp"], "vidsr cache"),
        (["cache", "list", "--warp"], "vidsr cache list"),
    ],
)
def test_mistakes_point_to_the_help_of_their_command(
    arguments: list[str], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert capsys.readouterr().err.endswith(f"(see `{command} --help`)\n")
