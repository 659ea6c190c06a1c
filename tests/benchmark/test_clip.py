"""The clips to measure with are what they are said to be, and the same every time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from vidsr.benchmark.clip import RATE, generate
from vidsr.errors import UsageError
from vidsr.media.source import probe


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[np.ndarray]]:
    folder = tmp_path_factory.mktemp("clips")
    return {kind: pictures(generate(folder, 192, 128, 5, kind)) for kind in ("live", "screen", "drawn")}


@pytest.mark.parametrize("kind", ["live", "screen", "drawn"])
def test_it_has_the_size_and_length_asked_for(kind: str, tmp_path: Path) -> None:
    path = generate(tmp_path, 128, 96, 0.6, kind)
    video = probe(path).video
    assert (video.layout.width, video.layout.height, video.rate) == (128, 96, RATE)
    assert len(pictures(path)) == 15


def test_it_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        generate(tmp_path / name, 128, 96, 0.4)
    first, second = (pictures(next((tmp_path / name).iterdir())) for name in ("first", "second"))
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def moved(frames: list[np.ndarray]) -> list[float]:
    """Share of samples that differ from the frame before."""
    return [float(np.mean(before != after)) for before, after in pairwise(frames)]


def test_live_action_never_stands_still_and_is_cut(clips: dict[str, list[np.ndarray]]) -> None:
    shares = moved(clips["live"])
    assert min(shares) > 0.3
    jumps = [float(np.abs(a.astype(int) - b).mean()) for a, b in pairwise(clips["live"])]
    assert int(np.argmax(jumps)) == 4 * RATE - 1


def test_a_screen_mostly_stands_still_bit_for_bit_and_scrolls(clips: dict[str, list[np.ndarray]]) -> None:
    shares = moved(clips["screen"])
    assert sum(share == 0 for share in shares) > 0.3 * len(shares)
    assert np.median(shares) < 0.02
    before, after = (frame[50:100, 60:] for frame in clips["screen"][95:97])
    assert np.array_equal(before[6:], after[:-6]), "scrolled by six lines"


def test_drawings_are_held_before_a_background_that_stands_or_pans(clips: dict[str, list[np.ndarray]]) -> None:
    shares = np.array(moved(clips["drawn"]))
    standing, panning = shares[: 4 * RATE - 1], shares[4 * RATE :]
    new = np.arange(1, len(standing) + 1) % 3 == 0
    assert standing[new].mean() > 5 * standing[~new].mean()
    assert panning.min() > standing[~new].max()
    bars = [frame[:16] for frame in clips["drawn"]]
    assert max(int(np.ptp(bar)) for bar in bars) <= 2


@pytest.mark.parametrize("size", [(64, 64), (64, 512), (512, 64), (66, 258)])
@pytest.mark.parametrize("kind", ["live", "screen", "drawn"])
def test_shapes_that_nobody_has(kind: str, size: tuple[int, int], tmp_path: Path) -> None:
    assert probe(generate(tmp_path, *size, 0.2, kind)).video.layout.width == size[0]


@pytest.mark.parametrize(("width", "height", "seconds"), [(63, 64, 1), (640, 361, 1), (32, 32, 1), (64, 64, 0.001)])
def test_what_cannot_be_made_is_refused(width: int, height: int, seconds: float, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--size|--seconds"):
        generate(tmp_path, width, height, seconds)
