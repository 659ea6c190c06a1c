"""Every stage alone, the wholes, and the sentence in situations that are staged with real clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from tests.conftest import make_clip, nearest_model
from vidsr import models
from vidsr.benchmark import limits, measure, peak, stage, trial
from vidsr.benchmark.clip import generate
from vidsr.benchmark.result import Limits, Result
from vidsr.benchmark.whole import Few, job_in, once, run
from vidsr.errors import InputError
from vidsr.graph.cost import multiply_adds
from vidsr.job import Settings


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_SECONDS", 0.1)
    monkeypatch.setattr(stage, "_UNCACHED_BYTES", 2**20)
    monkeypatch.setattr(peak, "_SECONDS", 0.0)
    monkeypatch.setattr(peak, "_PROCESSOR", (peak._Load(kernel=3, channels=64, layers=2, side=32),))
    monkeypatch.setattr(limits, "_COPIED_BYTES", 2**20)


@pytest.fixture
def quick(nearest: Path) -> Settings:
    return Settings(model=str(nearest), device="cpu", preset="ultrafast")


MACHINE = Limits(
    processor="p", cores=2, device="CPU", matrix_gflops={"fp32": 100.0, "bf16": 200.0}, memory_gbps=10.0
)


def test_every_stage_takes_time_and_copies_are_held_against_memory(clip: Path, quick: Settings) -> None:
    with job_in(clip, quick) as job:
        kept = stage.enlarged_of(job)
        costs = stage.measure(job, kept, "file")
        found = {share.name: share for share in stage.shares([costs, costs], job, MACHINE)}
        assert not [path for path in job.path.parent.iterdir() if "segment" in path.name]
    assert [*found] == ["decode", "copy in", "inference", "copy out", "encode"]
    assert all(share.ms > 0 for share in found.values())
    assert found["copy in"].bound_ms == pytest.approx(2 * 1.5 * 64 * 48 / 10e9 * 1e3)
    assert found["copy out"].bound_ms == pytest.approx(4 * found["copy in"].bound_ms)
    assert found["decode"].efficiency is None


def test_what_is_encoded_is_what_the_engine_makes(clip: Path, quick: Settings) -> None:
    with job_in(clip, quick) as job:
        kept = stage.enlarged_of(job)
    assert len(kept.source) == len(kept.enlarged) == 12
    for source, enlarged in zip(kept.source, kept.enlarged, strict=True):
        assert np.abs(enlarged.planes[0][::2, ::2].astype(int) - source.planes[0]).max() <= 1


def test_nothing_is_encoded_into_nothing(clip: Path, quick: Settings) -> None:
    with job_in(clip, quick) as job:
        assert [*stage.measure(job, stage.enlarged_of(job), "null")] == ["decode", "copy in", "inference"]


def test_inference_is_held_against_the_peak_of_its_precision(clip: Path) -> None:
    with job_in(clip, Settings(model="span-fast", device="cpu", precision="fp32")) as job:
        cost = stage.Cost(ms=10, cpu_ms=20)
        (share,) = stage.shares([{"inference": cost}], job, MACHINE)
        work = 2 * multiply_adds(models.load("span-fast").proto) * 64 * 48
    assert share.bound == "matrix fp32"
    assert share.bound_ms == pytest.approx(work / 100e9 * 1e3)


def test_what_is_reused_is_no_work_of_the_model(tmp_path: Path, quick: Settings) -> None:
    source = generate(tmp_path, 128, 96, 0.8, "drawn")
    result = measure.measure(source, quick, frames=20, rounds=1)
    assert 0.3 < result.reused < 1
    with job_in(source, quick) as job:
        cost = stage.Cost(ms=10, cpu_ms=20)
        usual, rest = (stage.shares([{"inference": cost}], job, MACHINE, reused)[0] for reused in (0, 0.75))
        assert once(replace(job, engine=replace(job.engine, reuse_bytes=0))).reused == 0
    assert (rest.ms, rest.cpu_ms) == (usual.ms / 4, usual.cpu_ms / 4)


def test_medians_of_the_rounds_count(clip: Path, quick: Settings) -> None:
    with job_in(clip, quick) as job:
        costs = [{"decode": stage.Cost(ms=ms, cpu_ms=2 * ms)} for ms in (1, 50, 2)]
        (share,) = stage.shares(costs, job, MACHINE)
    assert (share.ms, share.cpu_ms) == (2, 4)


def test_a_whole_run_counts_its_frames_and_leaves_nothing(clip: Path, quick: Settings) -> None:
    with job_in(clip, quick) as job:
        for sink in ("file", "null"):
            done = once(job, sink, 7)
            assert done.frames == 7
            assert done.fps > 0
            assert set(done.busy) == {"decode", "model", "encode"}
            assert [*job.path.parent.iterdir()] == []
    assert len(run(clip, quick, "null", 5, 2).rounds) == 2


def test_a_whole_run_over_everything(clip: Path, quick: Settings) -> None:
    with job_in(clip, quick) as job:
        assert once(job).frames == 12


def test_frames_beyond_the_end_are_none() -> None:
    class Reader:
        def read(self, planes: object) -> str:
            return "frame"

        def close(self) -> None:
            pass

    few = Few(Reader(), 2)
    assert [few.read([]) for _ in range(4)] == ["frame", "frame", None, None]


def test_a_span_without_frames_is_said(clip: Path, quick: Settings) -> None:
    with job_in(clip, replace(quick, end=None)) as job, pytest.raises(InputError, match="no frame to measure"):
        once(job, "null", 0)


def found(source: Path, settings: Settings) -> Result:
    return measure.measure(source, settings, frames=8, rounds=1)


def test_a_slow_encoder_is_found_and_a_faster_preset_helps(clip: Path, quick: Settings) -> None:
    result = found(clip, replace(quick, encoder="libx265", preset="veryslow"))
    assert result.advice.limit == "encode"
    assert result.advice.change.startswith(("--preset", "--encoder"))
    assert result.advice.gain > 1.5
    assert result.advice.text.startswith("encoder-bound: libx265 veryslow takes")


def test_a_slow_decoder_is_found_and_nothing_helps(tmp_path: Path) -> None:
    """Much noise without loss, for a model that does nothing and a small output."""
    path, random = tmp_path / "noise.mkv", np.random.default_rng(0)
    with av.open(str(path), "w") as output:
        track = output.add_stream("libx264", rate=25, options={"preset": "medium", "crf": "0"})
        track.width, track.height, track.pix_fmt = 960, 540, "yuv420p"
        for _ in range(9):
            noise = random.integers(60, 90, (810, 960), np.uint8)
            output.mux(track.encode(av.VideoFrame.from_ndarray(noise, format="yuv420p")))
        output.mux(track.encode(None))
    same = nearest_model(tmp_path / "same.onnx", 1)
    result = found(path, Settings(model=str(same), device="cpu", size="25%", preset="ultrafast"))
    assert result.advice.limit == "decode"
    assert result.advice.text.startswith("decoder-bound: h264 of 960x540 takes")
    assert result.advice.change == ""


def test_a_slow_model_is_found_and_a_smaller_one_helps(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "clip.mp4", width=64, height=64, audio=False)
    result = found(source, Settings(model="span", device="cpu", precision="fp32", preset="ultrafast", reuse="off"))
    assert result.advice.limit == "inference"
    assert result.advice.change == "--model span-fast"
    assert result.advice.gain > 2
    assert "of what the device computes" in result.advice.text
    assert result.settings["size"] == "64x64"
    assert result.efficiency == pytest.approx(result.fps / result.bound_fps)


def test_presets_are_tried_from_the_nearest_to_the_fastest(clip: Path, quick: Settings) -> None:
    for encoder, preset, nearest_first in (
        ("libx264", "fast", ["veryfast", "ultrafast"]),
        ("libsvtav1", "8", ["10", "12"]),
        ("libx264", "ultrafast", []),
    ):
        with job_in(clip, replace(quick, encoder=encoder, preset=preset)) as job:
            assert [change.settings.preset for change in trial._presets(job)] == nearest_first
