"""The job that a page starts, and what it is told would come of one. Nothing here sleeps."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields
from fractions import Fraction
from pathlib import Path
from queue import Empty, Queue
from threading import Event
from typing import Any

import av
import numpy as np
import pytest

from tests.conftest import make_clip
from vidsr import job
from vidsr.cli.upscale import upscale
from vidsr.errors import Cancelled, InputError
from vidsr.job import Settings
from vidsr.media.source import probe
from vidsr.preview import predict as prediction
from vidsr.preview import wire
from vidsr.preview.predict import Predictor, predict
from vidsr.preview.told import Told
from vidsr.preview.work import Work, command_line, default_target

LIMIT_SECONDS = 60.0
ENDED = ("idle", "done", "failed")


class Viewer:
    """Hears what is told."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self._queue: Queue[dict[str, Any]] = Queue()

    def tell(self, message: Mapping[str, Any]) -> None:
        self.heard.append(dict(message))
        self._queue.put(dict(message))

    def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        try:
            while True:
                message = self._queue.get(timeout=LIMIT_SECONDS)
                if holds(message):
                    return message
        except Empty:
            raise AssertionError(f"nothing more was told than {self.heard[-1:]}") from None

    def end(self) -> dict[str, Any]:
        """The message that something has ended with; the first one tells what there was before."""
        return self.until(lambda message: message["state"] in ENDED and message is not self.heard[0])


@pytest.fixture
def viewer() -> Viewer:
    return Viewer()


@pytest.fixture
def work(viewer: Viewer) -> Iterator[Work]:
    work = Work()
    work.look(viewer.tell)
    assert viewer.until(lambda message: True)["state"] == "idle"
    yield work
    work.close()
    assert names() == set()


def names() -> set[str]:
    """Of the threads that are ours."""
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("vidsr-")}


def wanted(target: Path | str, **given: Any) -> wire.Job:
    return wire.Job(**{"target": str(target), "overwrite": False, "crf": None, "preset": None, "encoder": None} | given)


def frames_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as opened:
        return [frame.to_ndarray().tobytes() for frame in opened.decode(video=0)]


def long_clip(folder: Path) -> Path:
    """Of more than one segment, so that something can be kept."""
    return make_clip(folder / "long.mp4", frames=900, width=32, height=32, options={"preset": "ultrafast"})


# ---- the job


def test_a_job_finishes_and_is_verified(work: Work, viewer: Viewer, clip: Path, nearest: Path, tmp_path: Path) -> None:
    target = tmp_path / "out of it.mp4"
    work.start(clip, Settings(model=str(nearest)), wanted(target, crf=30.0, preset="ultrafast", encoder="libx265"))
    done = viewer.end()
    assert (done["state"], done["verified"], done["faults"], done["frames"]) == ("done", True, [], 12)
    assert done["target"] == str(target)
    assert "12 frames" in done["text"] and "verified" in done["text"]
    assert done["written_bytes"] == target.stat().st_size
    assert [message["state"] for message in viewer.heard[1:-1]] == ["running"] * (len(viewer.heard) - 2)
    with av.open(str(target)) as opened:
        assert opened.streams.video[0].codec_context.name == "hevc"
    assert not work.running


def test_the_command_that_is_told_does_the_same(
    work: Work, viewer: Viewer, clip: Path, nearest: Path, tmp_path: Path
) -> None:
    work.start(clip, Settings(model=str(nearest)), wanted(tmp_path / "a.mp4", crf=35.0))
    command = viewer.end()["command"]
    _, source, target, *options = shlex.split(command)
    Path(target).rename(tmp_path / "b.mp4")
    with pytest.raises(SystemExit):
        upscale.main([source, target, *options, "--quiet"])
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


REFUSED = {
    "exists": ({"target": "clip2.mp4"}, "exists already"),
    "unknown container": ({"target": "out.xyz"}, "must end in one of"),
    "no name": ({"target": ""}, "folder"),
    "no folder": ({"target": "nowhere/out.mp4"}, "no such folder"),
    "no encoder": ({"encoder": "nope"}, "no such encoder"),
    "no such quality": ({"crf": 99.0}, "0 (best) to 51"),
    "the input": ({"target": "clip.mp4", "overwrite": True}, "is the input itself"),
}


@pytest.mark.parametrize(("given", "says"), REFUSED.values(), ids=REFUSED)
def test_refusals_are_one_clear_line(
    work: Work, viewer: Viewer, clip: Path, nearest: Path, given: dict[str, Any], says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(clip.parent)
    Path("clip2.mp4").touch()
    work.start(Path("clip.mp4"), Settings(model=str(nearest)), wanted(**{"target": "out.mp4"} | given))
    failed = viewer.end()
    assert failed["state"] == "failed"
    assert says in failed["text"] and "\n" not in failed["text"]


def test_what_is_our_fault_is_told_too(work: Work, viewer: Viewer, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object) -> None:
        raise RuntimeError("first line\nsecond")

    monkeypatch.setattr("vidsr.api.resolve", broken)
    work.start(clip, Settings(), wanted("out.mp4"))
    assert viewer.end()["text"] == "internal error: RuntimeError: first line"


def test_stopped_work_is_kept_and_taken_up_again(
    work: Work, viewer: Viewer, nearest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target, settings = long_clip(tmp_path), tmp_path / "out.mp4", Settings(model=str(nearest), verify=False)
    whole = tmp_path / "whole.mp4"
    job.run(job.resolve(source, whole, settings), observer=lambda event: None, stop=Event(), cancel=Event())
    stop_behind_a_segment(monkeypatch, work)
    work.start(source, settings, wanted(target))
    stopped = viewer.end()
    assert "stopping" in [message["state"] for message in viewer.heard]
    assert stopped["state"] == "idle"
    assert not target.exists()
    assert shlex.split(stopped["text"].partition("to go on: ")[2])[:3] == ["vidsr", str(source), str(target)]
    assert "--resume" in stopped["text"]
    monkeypatch.undo()
    work.start(source, settings, wanted(target))
    done = viewer.end()
    assert (done["state"], done["frames"]) == ("done", 900)
    resumed = [message["frames"] for message in viewer.heard if message["total"] == 900]
    assert 250 in resumed or 500 in resumed
    assert target.read_bytes() == whole.read_bytes()


def stop_behind_a_segment(monkeypatch: pytest.MonkeyPatch, work: Work) -> None:
    """Stops the job as soon as its first segment is whole."""
    from vidsr.sinks.workspace import Workspace

    add = Workspace.add

    def adding(self: Workspace, segment: Any) -> None:
        add(self, segment)
        work.stop()

    monkeypatch.setattr(Workspace, "add", adding)


def test_one_job_at_a_time(work: Work, viewer: Viewer, clip: Path, nearest: Path, tmp_path: Path, held: Held) -> None:
    work.start(clip, Settings(model=str(nearest)), wanted(tmp_path / "a.mp4"))
    held.reached.wait(LIMIT_SECONDS)
    work.start(clip, Settings(model=str(nearest)), wanted(tmp_path / "b.mp4"))
    held.go.set()
    assert viewer.end()["target"] == str(tmp_path / "a.mp4")
    assert not (tmp_path / "b.mp4").exists()


class Held:
    """Holds each run before its first frame."""

    def __init__(self) -> None:
        self.reached, self.go = Event(), Event()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    from vidsr.job.engine import EnginePlan

    held, prepare = Held(), EnginePlan.prepare

    def waiting(self: EnginePlan, watch: Any) -> Any:
        held.reached.set()
        held.go.wait(LIMIT_SECONDS)
        return prepare(self, watch)

    monkeypatch.setattr(EnginePlan, "prepare", waiting)
    yield held
    held.go.set()


def test_a_later_viewer_sees_the_state_at_once(
    work: Work, viewer: Viewer, clip: Path, nearest: Path, tmp_path: Path, held: Held
) -> None:
    work.start(clip, Settings(model=str(nearest)), wanted(tmp_path / "out.mp4"))
    held.reached.wait(LIMIT_SECONDS)
    work.look(None)
    unseen = len(viewer.heard)
    later = Viewer()
    work.look(later.tell)
    assert later.heard[0]["state"] == "running"
    held.go.set()
    assert later.end()["state"] == "done"
    assert len(viewer.heard) == unseen


def test_stopped_before_it_begins(work: Work, viewer: Viewer, clip: Path, nearest: Path, held: Held) -> None:
    work.start(clip, Settings(model=str(nearest)), wanted(clip.with_name("out.mp4")))
    held.reached.wait(LIMIT_SECONDS)
    work.stop()
    held.go.set()
    assert "nothing was kept" in viewer.end()["text"]
    work.close()
    assert work.parting is None, "it was over before"
    assert sorted(path.name for path in clip.parent.iterdir()) == ["clip.mp4"]


def test_closing_ends_all_threads_at_once(nearest: Path, tmp_path: Path) -> None:
    work, viewer = Work(), Viewer()
    work.look(viewer.tell)
    work.start(long_clip(tmp_path), Settings(model=str(nearest)), wanted(tmp_path / "out.mp4"))
    viewer.until(lambda message: message["frames"] > 0)
    work.close(seconds=0)
    assert names() == set()
    assert viewer.heard[-1]["state"] in ENDED
    work.start(tmp_path / "long.mp4", Settings(model=str(nearest)), wanted(tmp_path / "other.mp4"))
    assert names() == set()


def test_closing_cancels_what_a_stop_does_not_end(monkeypatch: pytest.MonkeyPatch, clip: Path) -> None:
    def stubborn(*, observer: object, stop: Event, cancel: Event) -> None:
        assert stop.wait(LIMIT_SECONDS) and cancel.wait(LIMIT_SECONDS)
        raise Cancelled("stopped at once")

    monkeypatch.setattr("vidsr.api.resolve", lambda *given: stubborn)
    work, viewer = Work(), Viewer()
    work.look(viewer.tell)
    work.start(clip, Settings(), wanted("out.mp4"))
    work.close(seconds=0)
    assert (viewer.heard[-1]["state"], viewer.heard[-1]["text"]) == ("idle", "stopped at once")
    assert work.parting == "the job towards out.mp4: stopped at once"


def test_a_message_turns_only_from_the_states_that_are_meant() -> None:
    told, viewer = Told(tell="job", state=None, text=""), Viewer()
    told.look(viewer.tell)
    assert viewer.heard == []  # there is nothing to tell yet
    told.change(state="running")
    assert not told.turn({"idle"}, "stopping")
    assert told.turn({"running"}, "stopping", text="soon")
    assert viewer.heard[-1] == {"tell": "job", "state": "stopping", "text": "soon"}
    assert told.begin({"stopping"}, "running")
    assert viewer.heard[-1] == {"tell": "job", "state": "running", "text": ""}


# ---- names and commands


def test_default_target(tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    assert default_target(source, 2).name == "in-2x.mp4"
    (tmp_path / "in-2x.mp4").touch()
    assert default_target(source, 2).name == "in-2x-2.mp4"
    (tmp_path / "in-2x-2.mp4").touch()
    assert default_target(source, Fraction(2)).name == "in-2x-3.mp4"
    assert default_target(source, Fraction(3, 2)).name == "in-1.5x.mp4"
    assert default_target(tmp_path / "in.WMV", 4).name == "in-4x.mkv"
    assert default_target(tmp_path / "in.MKV", 4).name == "in-4x.MKV"


OTHERWISE: dict[str, Any] = {
    "scale": Fraction(3, 2),
    "size": "1080p",
    "model": "span-fast",
    "deinterlace": "field",
    "start": Fraction(5, 2),
    "end": Fraction(3601),
    "tracks": "-subtitle",
    "strict": True,
    "encoder": "libx265",
    "crf": 20.5,
    "preset": "slow",
    "encoder_options": {"tune": "film", "x265-params": "a=b c"},
    "pix_fmt": "yuv444p",
    "overwrite": True,
    "resume": True,
    "keep_partial": True,
    "verify": False,
    "backend": "torch",
    "precision": "fp32",
    "device": "cpu",
    "hwaccel": "none",
    "memory_bytes": 123456789,
    "slots": 3,
    "streams": 2,
    "reuse": "off",
    "guard": "off",
    "quality": 50,
    "rate": Fraction(24000, 1001),
}


def test_the_command_line_says_every_setting() -> None:
    assert set(OTHERWISE) == {field.name for field in fields(Settings)}
    settings = Settings(**OTHERWISE)
    words = shlex.split(command_line(Path("-in'.mp4"), Path("out 2.mp4"), settings))
    context = upscale.make_context("vidsr", words[1:])
    parsed = dict(context.params)
    assert (parsed["source"], parsed["target"]) == (Path("./-in'.mp4"), Path("out 2.mp4"))
    parsed["encoder_options"] = dict(parsed["encoder_options"])
    assert {name: parsed[name] for name in OTHERWISE} == asdict(settings)


def test_the_usual_command_line_is_short() -> None:
    assert command_line(Path("in.mp4"), Path("out.mp4"), Settings()) == "vidsr in.mp4 out.mp4"


# ---- predictions


def scenes(path: Path, *grains: float) -> Path:
    """Scenes of two seconds: blocks that move, and so much noise on them; with noise to hear."""
    scenes, frames = len(grains), 48
    rng = np.random.default_rng(5)
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=24, options={"crf": "20", "preset": "veryfast"})
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        sound = output.add_stream("aac", rate=48000)
        sound.bit_rate = 128_000
        for scene, strength in enumerate(grains):
            ground = rng.integers(0, 256, (16, 24)).repeat(8, 0).repeat(8, 1)
            grain = rng.normal(0, strength, (6, *ground.shape))
            for index in range(frames):
                gray = np.roll(ground, index * (scene + 1), 1)[:64, :96] + grain[index % 6, :64, :96]
                picture = np.stack([gray, gray[::-1], 255 - gray], 2).clip(0, 255).astype(np.uint8)
                output.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(video.encode(None))
        noise = rng.normal(0, 0.1, (1, 48000 * scenes * frames // 24)).astype(np.float32)
        tone = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
        tone.rate = 48000
        output.mux(sound.encode(tone))
        output.mux(sound.encode(None))
    return path


UNEVEN = (4, 8, 12, 4, 8, 12)


@pytest.mark.parametrize("tracks", ["all", "none"])
def test_the_predicted_size_is_near(tmp_path: Path, nearest: Path, tracks: str) -> None:
    source, settings = scenes(tmp_path / "in.mp4", *UNEVEN), Settings(model=str(nearest), verify=False, tracks=tracks)
    found = predict(source, settings, Event())
    target = tmp_path / "out.mp4"
    job.run(job.resolve(source, target, settings), observer=lambda event: None, stop=Event(), cancel=Event())
    assert found.bytes == pytest.approx(target.stat().st_size, rel=0.25)
    assert found.seconds == pytest.approx(288 / found.fps)


def test_what_the_samples_miss_is_predicted_from_the_source(tmp_path: Path, nearest: Path) -> None:
    # Samples of 3 s lie at 2.1, 10.5 and 18.9 s.
    source = scenes(tmp_path / "in.mp4", 12, 1, 1, 12, 12, 1, 1, 12, 12, 1, 1, 12)
    settings, target = Settings(model=str(nearest), verify=False), tmp_path / "out.mp4"
    job.run(job.resolve(source, target, settings), observer=lambda event: None, stop=Event(), cancel=Event())
    assert predict(source, settings, Event()).bytes == pytest.approx(target.stat().st_size, rel=0.3)


def test_a_part_is_predicted_as_a_part(tmp_path: Path, nearest: Path) -> None:
    source = scenes(tmp_path / "in.mp4", *UNEVEN)
    whole = predict(source, Settings(model=str(nearest)), Event())
    part = predict(source, Settings(model=str(nearest), start=Fraction(3), end=Fraction(9)), Event())
    assert part.bytes == pytest.approx(whole.bytes / 2, rel=0.35)
    assert part.seconds * part.fps == pytest.approx(144, abs=1)


def test_a_slow_model_is_asked_for_less(tmp_path: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, runs = scenes(tmp_path / "in.mp4", *UNEVEN), []
    run = job.run

    def noted(part: Any, **given: Any) -> Any:
        report = run(part, **given)
        runs.append(report.frames)
        return report

    monkeypatch.setattr(job, "run", noted)
    predict(source, Settings(model=str(nearest)), Event())
    assert runs == [48, 48, 48]
    runs.clear()
    monkeypatch.setattr(prediction, "_FIRST_SECONDS", 0.0)
    monkeypatch.setattr(prediction, "_BUDGET_SECONDS", 0.0)
    predict(source, Settings(model=str(nearest)), Event())
    assert len(runs) == 1
    assert runs[0] <= 2 + job.resolve(source, tmp_path / "slots.mp4", Settings(model=str(nearest))).engine.options.slots


def test_nothing_is_left_of_samples(tmp_path: Path, nearest: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "temporary").mkdir()
    predict(clip, Settings(model=str(nearest)), Event())
    cancelled = Event()
    cancelled.set()
    with pytest.raises(Cancelled):
        predict(clip, Settings(model=str(nearest)), cancelled)
    assert list((tmp_path / "temporary").iterdir()) == []
    assert sorted(path.name for path in clip.parent.iterdir()) == ["clip.mp4", "temporary"]


def test_a_video_without_a_length_cannot_be_predicted(shared: Path, nearest: Path) -> None:
    source = shared / "clips/no_duration.webm"
    assert probe(source).duration_seconds is None
    with pytest.raises(InputError, match="does not say how long"):
        predict(source, Settings(model=str(nearest)), Event())


def test_predictions_are_told(clip: Path, nearest: Path, viewer: Viewer) -> None:
    predictor = Predictor()
    predictor.look(viewer.tell)
    predictor.start(clip, Settings(model=str(nearest)))
    done = viewer.until(lambda message: message["state"] != "measuring")
    assert done["state"] == "done"
    assert done["bytes"] > 0 and done["fps"] > 0 and done["seconds"] > 0
    predictor.start(clip, Settings(model="nope"))
    assert "no model is called 'nope'" in viewer.until(lambda message: message["state"] != "measuring")["text"]
    predictor.close()
    assert names() == set()


def test_another_prediction_takes_the_place_of_one(clip: Path, nearest: Path, viewer: Viewer, held: Held) -> None:
    predictor = Predictor()
    predictor.look(viewer.tell)
    predictor.start(clip, Settings(model=str(nearest)))
    held.reached.wait(LIMIT_SECONDS)
    predictor.start(clip, Settings(model="nope"))
    held.go.set()
    assert "nope" in viewer.until(lambda message: message["state"] != "measuring")["text"]
    predictor.close()
    assert [message["state"] for message in viewer.heard] == ["measuring", "measuring", "failed"]
    assert names() == set()


def test_given_up_predictions_say_so(clip: Path, nearest: Path, viewer: Viewer, held: Held) -> None:
    predictor = Predictor()
    predictor.look(viewer.tell)
    predictor.start(clip, Settings(model=str(nearest)))
    held.reached.wait(LIMIT_SECONDS)
    predictor.cancel()
    assert viewer.heard[-1]["text"] == "given up"
    held.go.set()
    predictor.close()
    assert viewer.heard[-1]["text"] == "given up"
    assert names() == set()


def test_a_long_name_is_cut(tmp_path: Path) -> None:
    source = tmp_path / f"{'ä' * 124}.mp4"
    source.touch()
    target = default_target(source, 2)
    target.touch()
    assert target.name.endswith("ä-2x.mp4")
    assert default_target(source, 2).name.endswith("ä-2x-2.mp4")
