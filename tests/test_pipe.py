"""The video as a stream: into a pipe and into a player, read while it is made."""

from __future__ import annotations

import io
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from threading import Event, Thread
from typing import Any

import av
import numpy as np
import pytest

import vidsr
from tests.conftest import make_clip
from vidsr import job
from vidsr.cli import main
from vidsr.errors import Cancelled, OutputError
from vidsr.media.shape import with_shape

ROOT = Path(__file__).resolve().parents[1]
LOSSLESS = ["--encoder", "libx264", "--preset", "ultrafast", "-e", "qp=0"]


def started(folder: Path, *arguments: object, **kwargs: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "vidsr", *map(str, arguments)]
    kwargs = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **kwargs}
    return subprocess.Popen(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, **kwargs)


def finished(folder: Path, *arguments: object) -> tuple[int, bytes, str]:
    """Exit code, standard output and standard error of the command."""
    process = started(folder, *arguments)
    out, said = process.communicate()
    return process.returncode, out, said.decode()


def streamed(source: Path, model: Path, *, format: str = "matroska", **choices: Any) -> bytes:
    """What a job writes into a pipe, in this process."""
    resolved = job.resolve_pipe(source, job.Settings(model=str(model), **choices), format=format)
    reading, writing = os.pipe()
    content = io.BytesIO()

    def read() -> None:
        with open(reading, "rb") as pipe:
            content.write(pipe.read())

    thread = Thread(target=read)
    thread.start()
    try:
        report = job.run_pipe(resolved, writing, observer=lambda event: None, stop=Event(), cancel=Event())
    finally:
        os.close(writing)
        thread.join()
    assert report.complete
    assert report.written_bytes == len(content.getvalue())
    return content.getvalue()


def pictures(source: Any) -> tuple[list[tuple[Fraction, bytes]], tuple[Any, ...]]:
    """Time and planes of every frame, and what the track says of itself."""
    with av.open(source) as container:
        video = container.streams.video[0]
        frames = []
        for frame in container.decode(video):
            planes = [np.frombuffer(p, np.uint8).reshape(p.height, -1)[:, : p.width] for p in frame.planes]
            frames.append((frame.pts * frame.time_base, b"".join(plane.tobytes() for plane in planes)))
        context = video.codec_context
        colour = (context.color_primaries, context.color_trc, context.colorspace, context.color_range)
        return frames, (video.average_rate, context.format.name, *colour)


def sound(source: Any) -> list[tuple[Fraction, bytes]]:
    with av.open(source) as container:
        packets = container.demux(container.streams.audio[0])
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in packets if packet.size]


@pytest.mark.parametrize("format", ["matroska", "nut"])
def test_a_stream_holds_what_the_file_holds(clip: Path, nearest: Path, format: str) -> None:
    code, content, said = finished(clip.parent, clip, "-", "--model", nearest, "--format", format)
    assert code == 0, said
    file = clip.parent / {"matroska": "out.mkv", "nut": "out.nut"}[format]
    assert finished(clip.parent, clip, file, "--model", nearest, "--no-verify", *LOSSLESS)[0] == 0
    frames, about = pictures(io.BytesIO(content))
    assert len(frames) == 12
    assert (frames, about) == pictures(str(file))
    assert sound(io.BytesIO(content)) == sound(str(file))


@pytest.mark.parametrize("format", ["matroska", "nut"])
def test_a_stream_can_be_read_from_the_pipe_itself(clip: Path, nearest: Path, format: str) -> None:
    with started(clip.parent, clip, "-", "--model", nearest, "--format", format, "--quiet") as process:
        with av.open(process.stdout) as container:
            kinds = [stream.type for stream in container.streams]
            times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
        assert process.stderr is not None
        said = process.stderr.read()
    assert (process.returncode, said) == (0, b"")
    assert kinds == ["video", "audio"]
    assert [time - times[0] for time in times] == [Fraction(index, 25) for index in range(12)]


@pytest.mark.parametrize(("start", "end"), [("0.2", None), ("0.12", "0.3")])
def test_a_span_is_cut_as_in_a_file(clip: Path, nearest: Path, start: str | None, end: str | None) -> None:
    span = {name: Fraction(value) for name, value in (("start", start), ("end", end)) if value}
    content = streamed(clip, nearest, **span)
    chosen = {"encoder": "libx264", "preset": "ultrafast", "encoder_options": {"qp": "0"}}
    settings = job.Settings(model=str(nearest), verify=False, **span, **chosen)
    file = clip.parent / "out.mkv"
    job.run(job.resolve(clip, file, settings), observer=lambda event: None, stop=Event(), cancel=Event())
    assert pictures(io.BytesIO(content)) == pictures(str(file))
    assert sound(io.BytesIO(content)) == sound(str(file))


def test_everything_else_is_in_matroska(shared: Path, tmp_path: Path, nearest: Path) -> None:
    source = shared / "clips" / "kitchen_sink.mkv"
    content = streamed(source, nearest, end=Fraction(1, 2), size="50%")
    file = tmp_path / "out.mkv"
    settings = job.Settings(model=str(nearest), verify=False, end=Fraction(1, 2), size="50%")
    job.run(job.resolve(source, file, settings), observer=lambda event: None, stop=Event(), cancel=Event())

    def described(opened: Any) -> tuple[Any, ...]:
        with av.open(opened) as container:
            tracks = [
                (track.type, track.name, track.metadata.get("language"), track.metadata.get("title"), track.disposition)
                for track in container.streams
            ]
            chapters = [chapter["metadata"] for chapter in container.chapters()]
            return tracks, chapters, {key: tag for key, tag in container.metadata.items() if key != "ENCODER"}

    assert described(io.BytesIO(content)) == described(str(file))


def test_the_stream_comes_as_it_is_made(shared: Path, nearest: Path) -> None:
    """A slow reader slows the run down, and subtitles, which say something only now and then, hold nothing back."""
    source = shared / "clips" / "kitchen_sink.mkv"
    settings = job.Settings(model=str(nearest), end=Fraction(1), size="50%", encoder="rawvideo")
    resolved = job.resolve_pipe(source, settings)
    assert {plan.track.kind for plan in resolved.tracks if plan.how == "copy"} >= {"audio", "subtitle"}
    reading, writing = os.pipe()
    tapped: list[int] = []
    early: list[int] = []

    def read() -> None:
        with open(reading, "rb") as pipe:
            pipe.read(1_000_000)  # six frames
            early.append(len(tapped))
            pipe.read()

    thread = Thread(target=read)
    thread.start()
    try:
        job.run_pipe(
            resolved,
            writing,
            observer=lambda event: None,
            stop=Event(),
            cancel=Event(),
            tap=lambda frame: tapped.append(frame.pts),
        )
    finally:
        os.close(writing)
        thread.join()
    assert len(tapped) == 24
    assert early[0] < 16


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """A picture whose pixels are wider than high."""
    with av.open(str(tmp_path / "wide.mp4"), "w") as output:
        video: Any = output.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.sample_aspect_ratio = Fraction(16, 11)
        output.mux(video.encode(av.VideoFrame(64, 48, "yuv420p")))
        output.mux(video.encode(None))
    return tmp_path / "wide.mp4"


@pytest.mark.parametrize("encoder", [None, "rawvideo"])
def test_the_shape_of_pixels_is_told(wide: Path, nearest: Path, encoder: str | None) -> None:
    content = streamed(wide, nearest, encoder=encoder)
    with av.open(io.BytesIO(content)) as container:
        track = container.streams.video[0]
        assert (track.width, track.height) == (128, 96)
        assert track.sample_aspect_ratio == pytest.approx(Fraction(16, 11), abs=1 / 128)
    # DisplayWidth, which is all that some players look at.
    assert b"\x54\xb0\x82" + (186).to_bytes(2, "big") in content[:4096]


@pytest.mark.parametrize("name", ["ffv1.mkv", "libx264.mkv", "libvpx-vp9.webm"])
def test_a_file_tells_it_too(wide: Path, nearest: Path, tmp_path: Path, name: str) -> None:
    """In its head, whatever the video itself says."""
    made = tmp_path / name
    report = vidsr.upscale(wide, made, model=str(nearest), encoder=made.stem)
    assert [fault for fault in report.faults if "shape" in fault] == []
    assert b"\x54\xb0\x82" + (186).to_bytes(2, "big") in made.read_bytes()[:4096]


def test_y4m_tells_the_shape_of_pixels(wide: Path, nearest: Path) -> None:
    assert b"A16:11" in streamed(wide, nearest, format="y4m").split(b"\n")[0].split()
    warnings = job.resolve_pipe(wide, job.Settings(model=str(nearest)), format="raw").warnings
    assert any("the shape of its pixels (16/11)" in line for line in warnings)


@pytest.mark.parametrize(
    "head", [b"", b"\x1a", b"\x1a\x45\xdf\xa3\x81\x00", b"\x18\x53\x80\x67\xff\x16\x54\xae\x6b\x88"]
)
def test_a_head_that_tells_nothing_stays(head: bytes) -> None:
    assert with_shape(head, "matroska", width=64, height=48, ratio=Fraction(2)) == head


def test_y4m(clip: Path, nearest: Path) -> None:
    content = streamed(clip, nearest, format="y4m")
    head = content.split(b"\n")[0].split()
    assert head[:4] == [b"YUV4MPEG2", b"W128", b"H96", b"F25:1"]
    assert b"C420mpeg2" in head
    assert len(content) == content.index(b"\n") + 1 + 12 * (len(b"FRAME\n") + 128 * 96 * 3 // 2)


@pytest.mark.parametrize(
    ("given", "made"), [("yuv444p10le", b"C444p10"), ("gbrp10le", b"C444p10"), ("yuv440p", b"C444")]
)
def test_y4m_of_other_pictures(tmp_path: Path, nearest: Path, given: str, made: bytes) -> None:
    source = make_clip(tmp_path / "clip.mkv", frames=2, codec="ffv1", pix_fmt=given, audio=False)
    assert made in streamed(source, nearest, format="y4m").split(b"\n")[0].split()


@pytest.mark.parametrize(("given", "bytes_each"), [("yuv420p", 128 * 96 * 3 // 2), ("yuv422p10le", 128 * 96 * 4)])
def test_raw(tmp_path: Path, nearest: Path, given: str, bytes_each: int) -> None:
    source = make_clip(tmp_path / "clip.mkv", frames=3, codec="ffv1", pix_fmt=given, audio=False)
    assert len(streamed(source, nearest, format="raw")) == 3 * bytes_each


@pytest.mark.parametrize("format", ["matroska", "nut"])
def test_an_encoder_on_request(clip: Path, nearest: Path, format: str) -> None:
    content = streamed(clip, nearest, format=format, crf=35.0)
    with av.open(io.BytesIO(content)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
    file = clip.parent / {"matroska": "out.mkv", "nut": "out.nut"}[format]
    settings = job.Settings(model=str(nearest), crf=35.0, verify=False)
    job.run(job.resolve(clip, file, settings), observer=lambda event: None, stop=Event(), cancel=Event())
    (frames, about), (expected, about_file) = pictures(io.BytesIO(content)), pictures(str(file))
    assert about == about_file
    assert [picture for _, picture in frames] == [picture for _, picture in expected]
    # Frames are reordered, and who begins below zero moves all tracks.
    sounds = sound(io.BytesIO(content))
    assert [packet for _, packet in sounds] == [packet for _, packet in sound(str(file))]
    begin, begin_file = frames[0][0], expected[0][0]
    assert [time - begin for time, _ in frames] == [time - begin_file for time, _ in expected]
    assert [time - begin for time, _ in sounds] == [time - begin_file for time, _ in sound(str(file))]
    assert len(content) < len(streamed(clip, nearest, format=format)) / 2


def test_what_is_lost_is_told(clip: Path, nearest: Path) -> None:
    for name in ("y4m", "raw"):
        warnings = job.resolve_pipe(clip, job.Settings(model=str(nearest)), format=name).warnings
        assert any("audio track 1" in line and name in line for line in warnings), warnings
    with pytest.raises(OutputError, match="--strict: the stream would lose"):
        job.resolve_pipe(clip, job.Settings(model=str(nearest), strict=True), format="y4m")


def test_colour_is_told_or_said_to_be_lost(shared: Path, nearest: Path) -> None:
    source = shared / "clips" / "hdr10_hevc_10bit_vfr_1080p.mp4"
    settings = job.Settings(model=str(nearest), end=Fraction(1, 10))
    assert any("colour" in line for line in job.resolve_pipe(source, settings, format="nut").warnings)
    assert not any("colour is" in line for line in job.resolve_pipe(source, settings).warnings)
    with av.open(io.BytesIO(streamed(source, nearest, end=Fraction(1, 20), size="10%"))) as container:
        frame = next(container.decode(video=0))
        assert (frame.color_primaries, frame.color_trc, frame.colorspace) == (9, 16, 9)
        assert "MASTERING_DISPLAY_METADATA" in {entry.type.name for entry in frame.side_data}


@pytest.mark.parametrize("taken", [0, 1000])
def test_a_closed_pipe_ends_the_run(clip: Path, nearest: Path, taken: int) -> None:
    process = started(clip.parent, clip, "-", "--model", nearest, "--format", "raw", "--quiet")
    assert process.stdout is not None and process.stderr is not None
    assert len(process.stdout.read(taken)) == taken
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 141
    assert said == "vidsr: whoever read the stream has closed it\n"


def test_ctrl_c_ends_a_run_that_waits_for_its_reader(clip: Path, nearest: Path) -> None:
    process = started(clip.parent, clip, "-", "--model", nearest, "--format", "raw", "--quiet")
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.read(1)  # it runs, and a pipe does not hold all of it
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert process.stderr.read() == b"vidsr: stopped\n"
    process.stdout.close()
    process.stderr.close()


def test_cancelling_ends_a_run_that_waits_for_its_reader(clip: Path, nearest: Path) -> None:
    reading, writing = os.pipe()
    cancel = Event()
    resolved = job.resolve_pipe(clip, job.Settings(model=str(nearest)), format="raw")
    try:
        with pytest.raises(Cancelled):
            job.run_pipe(
                resolved,
                writing,
                observer=lambda event: cancel.set() if getattr(event, "written_bytes", 0) else None,
                stop=Event(),
                cancel=cancel,
            )
    finally:
        os.close(reading)
        os.close(writing)


def test_an_observer_that_fails_ends_a_run_that_waits_for_its_reader(clip: Path, nearest: Path) -> None:
    reading, writing = os.pipe()
    resolved = job.resolve_pipe(clip, job.Settings(model=str(nearest)), format="raw")

    def fail(event: Any) -> None:
        if getattr(event, "written_bytes", 0):
            raise ValueError("no more")

    try:
        with pytest.raises(ValueError, match="no more"):
            job.run_pipe(resolved, writing, observer=fail, stop=Event(), cancel=Event())
    finally:
        os.close(reading)
        os.close(writing)


def test_a_full_disk_is_one_line(clip: Path, nearest: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with open("/dev/full", "wb") as full:
        process = started(clip.parent, clip, "-", "--model", nearest, "--quiet", stdout=full)
        said = process.communicate()[1].decode()
    assert (process.returncode, said) == (1, "vidsr: the stream cannot be written (No space left on device)\n")


def test_a_closed_standard_output_is_one_line(clip: Path, nearest: Path) -> None:
    process = started(
        clip.parent, clip, "-", "--model", nearest, "--quiet", stdout=None, preexec_fn=lambda: os.close(1)
    )
    said = process.communicate()[1].decode()
    assert (process.returncode, said.count("\n")) == (1, 1)
    assert said.startswith("vidsr: standard output is closed")


def test_a_terminal_is_refused(clip: Path, nearest: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        process = started(clip.parent, clip, "-", "--model", nearest, stdout=theirs)
        said = process.communicate()[1].decode()
    finally:
        os.close(theirs)
        os.close(ours)
    assert process.returncode == 2
    assert said.startswith("vidsr: standard output is a terminal: pipe") and said.count("\n") == 1


def test_nothing_else_reaches_standard_output(clip: Path, nearest: Path) -> None:
    """Whatever a library prints, to Python's or to the system's standard output."""
    code = (
        "import os, sys, vidsr.job\n"
        "from vidsr.cli import main\n"
        "run = vidsr.job.run_pipe\n"
        "def noisy(*args, **kwargs):\n"
        "    os.write(1, b'noise'); print('noise')\n"
        "    return run(*args, **kwargs)\n"
        "vidsr.job.run_pipe = noisy\n"
        "main(sys.argv[1:])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(clip), "-", "--model", str(nearest), "--format", "raw"],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout) == 12 * 128 * 96 * 3 // 2
    assert result.stderr.count(b"noise") == 2


REFUSED = {
    "-y": (["-", "-y"], "-y has no meaning"),
    "--resume": (["-", "--resume"], "--resume has no meaning"),
    "--keep-partial": (["--player", "true", "--keep-partial"], "--keep-partial has no meaning"),
    "--quality": (["-", "--quality", "90"], "--quality has no meaning"),
    "--rate": (["-", "--rate", "25"], "--rate has no meaning"),
    "--json": (["-", "--json"], "--json writes to standard output"),
    "an encoder in y4m": (["-", "--format", "y4m", "--crf", "20"], "--crf: y4m holds nothing but raw video"),
    "an encoder in raw": (["-", "--format", "raw", "-e", "g=1"], "-e: raw holds nothing but raw video"),
    "an unknown format": (["-", "--format", "mp4"], "mp4"),
    "a format for a file": (["out.mkv", "--format", "nut"], "out.mkv says what to write"),
    "a player and a file": (["out.mkv", "--player", "true"], "instead of writing out.mkv"),
    "a missing player": (["--player", "no-such-player --fs"], "no such command"),
    "half a player": (["--player", "true 'x"], "No closing quotation"),
    "no player": (["--player", " "], "no such command"),
    "an encoder for nowhere": (["-", "--encoder", "nope"], "no such encoder"),
}


@pytest.mark.parametrize(("arguments", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(clip: Path, nearest: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(clip), "--model", str(nearest), *arguments])
    said = capfd.readouterr()
    assert ended.value.code == 2
    assert says in said.err and said.err.count("\n") == 1
    assert "--json" in arguments or said.out == ""


def test_standard_input_is_no_source(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["-", "-"])
    assert ended.value.code == 1
    assert "standard input" in capfd.readouterr().err


PLAYER = """
import sys, av
assert sys.argv[2:] == ["-"]
with av.open(sys.stdin.buffer) as container:
    count = sum(1 for frame in container.decode(video=0))
open(sys.argv[1], "w").write(str(count))
print("played")
"""


def player(folder: Path, program: str, *arguments: object) -> str:
    """A command line that runs a program in place of a player."""
    script = folder / "player.py"
    script.write_text(program)
    return shlex.join([sys.executable, str(script), *map(str, arguments)])


def test_a_player_gets_every_frame(
    clip: Path, nearest: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = player(tmp_path, PLAYER, tmp_path / "count")
    with pytest.raises(SystemExit) as ended:
        main([str(clip), "--player", command, "--model", str(nearest), "--json"])
    said = capfd.readouterr()
    assert ended.value.code == 0, said.err
    events = [json.loads(line) for line in said.out.splitlines()]
    assert events[-1]["event"] == "done" and events[-1]["frames"] == 12
    assert (tmp_path / "count").read_text() == "12"
    assert said.err == "played\n"


CLOSED = {
    "at once": ("", 0, ""),
    "while it plays": ("import sys; sys.stdin.buffer.read(1000)", 0, ""),
    "by a signal of the user": ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 0, ""),
    "with an error": ("raise SystemExit(3)", 1, "ended with exit code 3"),
    "by a crash": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 1, "ended with signal 9"),
    "only its input": ("import os, signal; os.close(0); signal.pause()", 0, ""),
}


@pytest.mark.parametrize(("program", "expected", "says"), CLOSED.values(), ids=CLOSED.keys())
def test_a_player_that_ends(
    clip: Path,
    nearest: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    program: str,
    expected: int,
    says: str,
) -> None:
    command = player(tmp_path, program)
    with pytest.raises(SystemExit) as ended:
        main([str(clip), "--player", command, "--format", "raw", "--model", str(nearest), "--quiet"])
    said = capfd.readouterr()
    assert (ended.value.code, said.out) == (expected, ""), said.err
    assert says in said.err and said.err.count("\n") == (1 if says else 0)


@pytest.mark.parametrize("frames", [12, 1])
def test_ctrl_c_ends_the_player_too(nearest: Path, tmp_path: Path, frames: int) -> None:
    """While the player takes nothing, and when it has everything and still plays."""
    clip = make_clip(tmp_path / "clip.mp4", frames=frames, audio=False)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    program = "import os, sys, signal; sys.stdin.buffer.read(100); open(sys.argv[1], 'w').write(str(os.getpid())); "
    command = player(tmp_path, program + "signal.pause()", fifo)
    process = started(tmp_path, clip, "--player", command, "--format", "raw", "--model", nearest, "--quiet")
    playing = int(fifo.read_text())
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1].decode()
    assert (process.returncode, said) == (130, "vidsr: stopped\n")
    with pytest.raises(ProcessLookupError):
        os.kill(playing, 0)
