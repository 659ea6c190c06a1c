"""`vidsr tune`: what it takes, keeps and says. Speeds are made up, so that every case can be had."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import make_clip
from tests.test_cli import run
from vidsr import machine, tuning
from vidsr.benchmark import stage, whole
from vidsr.benchmark import tune as tune_module
from vidsr.benchmark.tune import lines, tune
from vidsr.benchmark.whole import Round
from vidsr.errors import UsageError
from vidsr.frame import FrameLayout
from vidsr.job import EnginePlan, Job, Settings, plan_engine
from vidsr.job.engine import cache_folder, default_cache, tuning_key
from vidsr.models import load
from vidsr.tuning import Tuning, TuningKey

KEY = TuningKey(
    processor="A processor", cores=2, backend="openvino", version="1.0", device="CPU", precision="bf16", model="0f",
    size=0, encoder="libx264 fast", vidsr="0.1.0",
)  # fmt: skip
TUNING = Tuning(streams=4, slots=7, gain=1.25, model="span", frames="640x360")
ENCODER = "libx264 fast"
Speed = Callable[[Job, int], float]
"""Frames a second of a round, by the job and the number of the round."""


@pytest.fixture
def settings(nearest: Path) -> Settings:
    return Settings(model=str(nearest), backend="openvino", guard="off", precision="fp32")


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Speed], None]:
    """Says how fast whole runs are, on a machine of four cores."""
    monkeypatch.setattr(machine, "cores", lambda: 4)

    def choose(speed: Speed) -> None:
        numbers = count()

        def once(job: Job, sink: whole.SinkName = "file", frames: int | None = None) -> Round:
            frames = frames or 1
            seconds = frames / speed(job, next(numbers))
            return Round(frames=frames, seconds=seconds, busy={}, engine="")

        monkeypatch.setattr(tune_module, "once", once)

    return choose


def by_streams(*fastest: int) -> Speed:
    return lambda job, number: 120.0 if job.engine.options.streams in fastest else 100.0


def plan(settings: Settings, height: int = 48, width: int = 64, **more: Any) -> EnginePlan:
    layout = FrameLayout(family="yuv", bits=8, height=height, width=width, chroma=(2, 2))
    target = replace(layout, height=2 * height, width=2 * width)
    return plan_engine(settings, load(settings.model), layout, target, **{"encoder": ENCODER} | more)


def keep(settings: Settings, found: Tuning = TUNING, **size: int) -> Path:
    """For frames of that size."""
    cache = default_cache()
    assert cache is not None
    return tuning.keep(cache, tuning_key(plan(settings, **size), ENCODER), found)


# What is kept


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    path = tuning.keep(tmp_path, KEY, TUNING)
    assert tuning.find(tmp_path, KEY) == TUNING
    (entry,) = tuning.kept(tmp_path)
    assert (entry.key, entry.tuning, entry.path) == (KEY, TUNING, path)
    assert [other.name for other in path.parent.iterdir()] == [path.name]
    tuning.keep(tmp_path, KEY, replace(TUNING, streams=None))
    assert tuning.find(tmp_path, KEY) == replace(TUNING, streams=None)


@pytest.mark.parametrize("name", sorted(asdict(KEY)))
def test_nothing_else_finds_it(tmp_path: Path, name: str) -> None:
    tuning.keep(tmp_path, KEY, TUNING)
    old = getattr(KEY, name)
    assert tuning.find(tmp_path, replace(KEY, **{name: old + 1 if isinstance(old, int) else old + "x"})) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda told: "",
        lambda told: "[" * 100_000,
        lambda told: "[]",
        lambda told: json.dumps(told)[:-20],
        lambda told: json.dumps(told | {"vidsr_tuning": 2}),
        lambda told: json.dumps(told | {"made": "today"}),
        lambda told: json.dumps(told | {"key": told["key"] | {"cores": 8}}),
        lambda told: json.dumps(told | {"key": told["key"] | {"more": 1}}),
        lambda told: json.dumps(told | {"tuning": None}),
        *(
            lambda told, value=value: json.dumps(told | {"tuning": told["tuning"] | {"streams": value}})
            for value in (0, 17, -1, 2.5, True, "2", [2])
        ),
    ],
)
def test_what_is_damaged_is_nothing(tmp_path: Path, change: Callable[[Any], str]) -> None:
    path = tuning.keep(tmp_path, KEY, TUNING)
    path.write_text(change(json.loads(path.read_text())))
    assert tuning.find(tmp_path, KEY) is None


def test_nothing_is_kept_without_a_cache(tmp_path: Path) -> None:
    assert tuning.find(None, KEY) is tuning.find(tmp_path, KEY) is None
    assert list(tuning.kept(tmp_path)) == []


def test_a_size_stands_for_those_near_it() -> None:
    def size(width: int, height: int) -> int:
        known = {"backend": "", "version": "", "device": "", "precision": "", "model": "", "encoder": ""}
        return TuningKey.here(**known, height=height, width=width).size  # type: ignore[arg-type]

    assert size(640, 360) == size(640, 480) == size(640, 272) == 0
    assert size(1280, 720) == 2
    assert size(1920, 1080) == size(1920, 800) == 3
    assert size(16, 16) < size(320, 180) < 0


# What runs take of it


def test_runs_take_what_is_kept(settings: Settings) -> None:
    usual = plan(settings)
    assert "tuned" not in str(usual)
    keep(settings)
    tuned = plan(settings)
    assert (tuned.options.streams, tuned.options.slots) == (4, 7)
    assert str(tuned) == f"{usual}, tuned"
    assert replace(tuned, options=usual.options, tuned=False) == replace(usual, reuse_bytes=tuned.reuse_bytes)


@pytest.mark.parametrize("said", [{"streams": 1}, {"slots": 5}, {"memory_bytes": 2**30}])
def test_what_the_user_says_counts(settings: Settings, said: dict[str, int]) -> None:
    before = plan(replace(settings, **said))
    keep(settings)
    after = plan(replace(settings, **said))
    assert (after.options, after.tuned) == (before.options, False)


def test_other_frames_models_and_pictures_run_as_usual(settings: Settings) -> None:
    keep(settings)
    assert plan(settings, height=50).tuned
    assert not plan(settings, height=480, width=640).tuned
    assert not plan(replace(settings, model="span-fast")).tuned
    assert not plan(settings, many_sizes=True).tuned
    assert not plan(settings, encoder="libx265 slow").tuned


def test_another_machine_runs_as_usual(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(settings)
    monkeypatch.setattr(machine, "cores", lambda: 512)
    assert not plan(settings).tuned


def test_the_usual_that_was_found_best_is_no_tuning(settings: Settings) -> None:
    usual = plan(settings)
    keep(settings, replace(TUNING, streams=None, slots=None))
    assert plan(settings).options == usual.options
    assert not plan(settings).tuned


def test_short_memory_comes_first(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """More frames at once than fit whole are not worth tiles."""
    settings = replace(settings, model="span-fast", reuse="off")
    keep(settings, replace(TUNING, streams=16), height=480, width=640)
    assert plan(settings, height=480, width=640).tuned
    monkeypatch.setattr("vidsr.job.engine.available_memory", lambda: 1_000_000_000)
    short = plan(settings, height=480, width=640)
    assert not short.tuned
    assert short.tile is None


# What is found


def test_what_is_faster_is_taken(clip: Path, settings: Settings, speed: Callable[[Speed], None]) -> None:
    speed(by_streams(4))
    found = tune(clip, settings)
    assert found.final is not None
    assert found.final.name == "streams 4"
    assert found.chosen == Tuning(streams=4, slots=7, gain=pytest.approx(1.2), model="nearest", frames="64x48")
    assert found.why.startswith("streams 4 from now on: streams 4 was 1.20x")
    assert found.key == tuning_key(plan(settings), ENCODER)
    page = "\n".join(lines(found))
    assert all(row.name in page for row in found.rows)
    assert {row.name for row in found.rows} == {
        "the usual", "streams 1", "streams 4", "slots 3", "slots 10",
    }  # fmt: skip


def test_what_is_kept_does_not_count_as_the_usual(
    clip: Path, settings: Settings, speed: Callable[[Speed], None]
) -> None:
    speed(by_streams(4))
    usual = tune(clip, settings).rows[0]
    keep(settings)
    again = tune(clip, settings)
    assert again.rows[0].options == usual.options == {"streams": 2, "slots": 5}
    assert again.rows[0].fps == pytest.approx(100)
    assert again.chosen.streams == 4
    assert "tuned" not in again.about["engine"]


def test_heavy_models_have_a_usual_of_their_own(
    clip: Path, settings: Settings, speed: Callable[[Speed], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidsr.job.engine._HEAVY_PAIRS", -1)
    running = set()
    speed(lambda job, number: float(running.add(job.engine.options.streams) or 100))
    assert plan(settings).options.streams == 1
    usual, *others = tune(clip, settings).rows
    assert usual.options == {"streams": 1, "slots": 4}
    assert running == {1, 2, 4}
    assert {row.name for row in others} == {"streams 2", "streams 4", "slots 2", "slots 8"}


def test_the_usual_stays_where_it_is_the_fastest(
    clip: Path, settings: Settings, speed: Callable[[Speed], None]
) -> None:
    speed(by_streams(2))
    found = tune(clip, settings)
    assert found.final is None
    assert (found.chosen.streams, found.chosen.slots) == (None, None)
    assert found.why.startswith("the usual stays")


def test_luck_in_the_heats_is_not_enough(clip: Path, settings: Settings, speed: Callable[[Speed], None]) -> None:
    """Noise of a tenth: one of the heats seems faster, the final does not show it."""
    noise = np.random.default_rng(4)
    speed(lambda job, number: 100 + 10 * noise.standard_normal())
    founds = [tune(clip, settings) for _ in range(8)]
    finals = [found for found in founds if found.final is not None]
    assert finals
    taken = [found for found in finals if found.chosen.streams is not None]
    assert len(taken) <= 1
    assert all("no difference that is sure" in found.why for found in finals if found not in taken)


def test_too_few_rounds_say_so(
    clip: Path, settings: Settings, speed: Callable[[Speed], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count()
    monkeypatch.setattr("vidsr.benchmark.tune.time.monotonic", lambda: float(next(clock)))
    speed(by_streams(4))
    found = tune(clip, settings, seconds=1)
    assert found.final is not None
    assert len(found.final.rounds) < 5
    assert found.chosen.streams is None
    assert "--seconds" in found.why


def test_what_changes_the_picture_is_never_taken(
    clip: Path, settings: Settings, speed: Callable[[Speed], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stage.enlarged_of

    def other(job: Job, most: int) -> stage.Frames:
        frames = made(job, most)
        if job.engine.options.streams == 4:
            frames.enlarged[-1].planes[2][-1, -1] ^= 1
        return frames

    monkeypatch.setattr(stage, "enlarged_of", other)
    speed(by_streams(4))
    found = tune(clip, settings)
    assert found.chosen.streams is None
    assert "changes the picture" in found.why


def test_precisions_are_only_told(clip: Path, settings: Settings, speed: Callable[[Speed], None]) -> None:
    keep(settings)  # for FP32, and no part of what is compared here
    streams = set()

    def fps(job: Job, number: int) -> float:
        if job.engine.options.precision != "fp32":
            return 100.0
        streams.add(job.engine.options.streams)
        return 500.0

    speed(fps)
    precision = plan(replace(settings, precision="auto")).options.precision
    if precision == "fp32":
        pytest.skip("this processor has no other precision to compare with")
    found = tune(clip, replace(settings, precision="auto"))
    (row,) = [row for row in found.others if row.name == "--precision fp32"]
    assert row.ratio.middle == pytest.approx(5)
    assert streams == {2}
    assert found.final is None
    assert found.key.precision == precision
    assert "--precision fp32" in "\n".join(lines(found))


def test_frames_that_are_cut_are_not_tuned(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_clip(tmp_path / "large.mp4", frames=1, width=320, height=240, audio=False)
    monkeypatch.setattr("vidsr.job.engine.available_memory", lambda: 60_000_000)
    with pytest.raises(UsageError, match="--size"):
        tune(clip, replace(settings, model="span-fast"))


# The command


@pytest.fixture
def command(settings: Settings, speed: Callable[[Speed], None]) -> Callable[..., int]:
    speed(by_streams(4))
    options = ("--model", settings.model, "--backend", "openvino", "--precision", "fp32")
    return lambda *more: run("tune", *options, *more)


def test_command_keeps_shows_and_forgets(
    clip: Path, settings: Settings, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(clip) == 0
    said = capsys.readouterr().out
    assert "clip.mp4: 64x48 -> 128x96" in said
    assert "streams 4 from now on" in said.replace("\n", " ")
    assert plan(replace(settings, guard="auto")).tuned

    assert run("tune", "--show") == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split()[0] == "model"
    assert row.split()[:4] == ["nearest", "about", "64x48", "openvino"]
    assert "1.20" in row

    assert run("tune", "--forget") == 0
    assert capsys.readouterr().out == "removed 1 tuning\n"
    assert not plan(settings).tuned
    assert run("tune", "--show") == 0
    assert capsys.readouterr().out.startswith("nothing is kept")


def test_command_as_json(clip: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(clip, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["chosen"]["streams"] == 4
    assert math.isclose(told["final"]["ratio"]["middle"], 1.2)
    assert Path(told["kept"]).is_relative_to(cache_folder())
    assert run("tune", "--show", "--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["tuning"] == told["chosen"]
    assert entry["key"] == told["key"]


def test_run_says_that_it_is_tuned(
    clip: Path, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(settings)
    options = ("--model", settings.model, "--backend", "openvino", "--precision", "fp32")
    assert run(clip, tmp_path / "out.mkv", *options) == 0
    assert "openvino CPU fp32, tuned" in capsys.readouterr().err


def test_cache_clear_forgets_as_well(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    path = keep(settings)
    path.with_name("letter.json").touch()
    assert run("cache", "list") == 0
    assert "tuning of span 640x360 fp32" in capsys.readouterr().out
    assert run("cache", "clear") == 0
    assert capsys.readouterr().out == "removed 1 tuning\n"
    assert [left.name for left in path.parent.iterdir()] == ["letter.json"]
    assert run("cache", "clear") == 0
    assert capsys.readouterr().out == "nothing was kept\n"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--show", "--forget"), "one at a time"),
        (("--show", "--model", "span-fast"), "--model says nothing"),
        (("--forget", "IN"), "nothing is measured then"),
        (("IN", "--size", "64x64"), "--size 64x64"),
        (("--size", "x"), "--size x"),
        (("--seconds", "nan"), "nan"),
        (("--seconds", "0.5"), "--seconds 0.5: give 1 to 3600"),
    ],
)
def test_command_refuses(clip: Path, options: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("tune", *(str(clip) if option == "IN" else option for option in options)) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert said.count("\n") == 1


def test_nowhere_to_keep_is_said_first(clip: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                       capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    assert run("tune", clip) == 1
    assert "cannot be written" in capsys.readouterr().err
