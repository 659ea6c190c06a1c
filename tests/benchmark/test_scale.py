"""Other machines on paper, and whether a long run is flat."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import pytest

from benchmarks.paper import Card, Constants, constants_from, fitted, on_card, on_cores
from benchmarks.soak import Sample, drift_of, judged, repeated
from tests.conftest import make_clip

PIXELS = [640 * 360, 1280 * 720, 2560 * 1440, 3840 * 2160, 7680 * 4320]
KNOWN = Constants(infer_ns=100.0, decode_ns=1.0, encode_ns=9.0, frame_ms=0.5, efficiency=0.95)
SIZE_4K = 3840 * 2160


def test_constants_are_found_again() -> None:
    """From times made of them, each off by up to 2 %."""
    draw = random.Random(1)

    def times(frame_ms: float, pixel_ns: float) -> list[float]:
        return [(frame_ms + 1e-6 * pixel_ns * size) * draw.uniform(0.98, 1.02) for size in PIXELS]

    engine, decode, encode = times(0.6, 80.0), times(0.1, 1.0), times(0.3, 9.0)
    whole = [sum(parts) / 0.93 for parts in zip(engine, decode, encode, strict=True)]
    found = constants_from(PIXELS, engine=engine, decode=decode, encode=encode, whole=whole)
    assert found.infer_ns == pytest.approx(80, rel=0.03)
    assert found.decode_ns == pytest.approx(1, rel=0.03)
    assert found.encode_ns == pytest.approx(9, rel=0.03)
    assert found.frame_ms == pytest.approx(1.0, rel=0.5)
    assert found.efficiency == pytest.approx(0.93)


def test_no_constant_is_below_nothing() -> None:
    assert fitted([1e6, 2e6, 4e6], [1.0, 2.2, 5.0])[0] == 0
    assert fitted([1e6, 2e6, 4e6], [5.0, 4.0, 3.0])[1] == 0


def test_small_sizes_count_as_much_as_large_ones() -> None:
    """A fit that only saw milliseconds would leave the time of a frame to chance."""
    times = [1.0 + 1e-5 * size for size in PIXELS]
    times[-1] *= 1.1
    assert fitted(PIXELS, times)[0] == pytest.approx(1.0, rel=0.2)


def test_cores_share_the_work_until_one_part_cannot_be_shared() -> None:
    guesses = [on_cores(KNOWN, cores, SIZE_4K) for cores in (1, 2, 8)]
    assert all(guess.limit == "cores" for guess in guesses)
    assert guesses[1].fps == pytest.approx(2 * guesses[0].fps)
    assert guesses[2].fps == pytest.approx(8 * guesses[0].fps)
    assert on_cores(KNOWN, 64, 320 * 180).limit == "one thread"
    slow = Constants(infer_ns=10.0, decode_ns=1.0, encode_ns=90.0, frame_ms=0.0, efficiency=1.0)
    assert on_cores(slow, 64, SIZE_4K).limit == "encoder"


def test_the_slowest_stage_of_a_card_decides() -> None:
    def limit(teraflops: float, encoders: int, cores: int = 8) -> str:
        card = Card(name="it", teraflops=teraflops, encoders=encoders)
        return on_card(KNOWN, card, cores, SIZE_4K, pairs=1e5).limit

    assert limit(30, 2) == "inference"
    assert limit(1e4, 1) == "NVENC"
    assert limit(1e4, 0) == "cores"
    assert limit(1e4, 100, cores=1000) == "bus"


def test_inference_on_a_card_is_worked_out() -> None:
    """30 TFLOPS at 60 %, 2e5 operations a pixel, 8.3 million pixels."""
    guess = on_card(KNOWN, Card(name="it", teraflops=30, encoders=2), 8, SIZE_4K, pairs=1e5)
    assert guess.fps == pytest.approx(0.6 * 30e12 / (2e5 * SIZE_4K))


# Long runs


def noisy(slope: float, *, noise: float = 0.03, count: int = 1800, seed: int = 2) -> tuple[list[float], list[float]]:
    """(seconds, values around 100 that change by `slope` over all of it)."""
    draw = random.Random(seed)
    places = [index / (count - 1) for index in range(count)]
    return [600 * place for place in places], [100 * (1 + slope * place + draw.gauss(0, noise)) for place in places]


@pytest.mark.parametrize(
    ("slope", "verdict"), [(0.0, "flat"), (0.004, "flat"), (0.1, "rises"), (-0.1, "falls"), (0.04, "rises")]
)
def test_drift_is_told_from_noise(slope: float, verdict: str) -> None:
    found = drift_of(*noisy(slope), 0.02)
    assert found.verdict == verdict
    assert found.low < slope < found.high


def test_too_much_noise_is_no_verdict() -> None:
    assert drift_of(*noisy(0.0, noise=1.0), 0.02).verdict == "not sure"


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    inside = 0
    for seed in range(300):
        found = drift_of(*noisy(0.03, seed=seed, count=200), 0.02)
        inside += found.low < 0.03 < found.high
    assert 0.91 < inside / 300 < 0.985


def test_waves_are_not_taken_for_certainty() -> None:
    """Noise that lasts for some seconds widens the interval: neighbours are not independent."""
    draw = random.Random(4)
    value, waves = 0.0, []
    for _ in range(600):
        value = 0.9 * value + draw.gauss(0, 1)
        waves.append(100 + value)
    seconds = [float(second) for second in range(600)]
    shuffled = waves.copy()
    draw.shuffle(shuffled)
    wide, narrow = drift_of(seconds, waves, 0.02), drift_of(seconds, shuffled, 0.02)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_warming_up_does_not_count() -> None:
    cold, warm = [(10.0, 50.0)] * 20, [(100.0, 90.0)] * 280
    samples = [
        Sample(seconds=second, frames=100 * second, fps=fps, rss_mb=rss)
        for second, (fps, rss) in enumerate([*cold, *warm])
    ]
    assert {name: drift.verdict for name, drift in judged(samples).items()} == {"fps": "flat", "rss_mb": "flat"}


def test_a_leak_is_found() -> None:
    """One frame of 192x108 kept every hundred."""
    samples = [
        Sample(seconds=second, frames=100 * second, fps=100.0, rss_mb=250 + 0.03 * second) for second in range(600)
    ]
    assert judged(samples)["rss_mb"].verdict == "rises"


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        drift_of([0.0, 1.0, 2.0], [1.0, 1.0, 1.0], 0.02)


def test_a_repeated_clip_goes_on_evenly(tmp_path: Path) -> None:
    """Every frame decodes, and times rise by one frame, also where it begins anew."""
    clip = make_clip(tmp_path / "clip.mp4", frames=25, audio=False)
    with av.open(str(repeated(clip, tmp_path / "long.mkv", 3.5))) as container:
        stream = container.streams.video[0]
        times = [frame.pts * stream.time_base for frame in container.decode(stream)]
    assert len(times) == 100
    gaps = {round(float(after - before), 3) for before, after in pairwise(times)}
    assert gaps == {round(float(Fraction(1, 25)), 3)}
