"""Training data: shrinking, encodes, shots, and the store made of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("PIL", reason="training needs pillow (pip install 'vidsr[train]')")

from vidsr.errors import InputError, OutputError, UsageError
from vidsr.evaluate import pairs
from vidsr.media.picture import read_rgb
from vidsr.media.picture import write_png as write_picture
from vidsr.resample import KERNELS, resize_matrix
from vidsr.training.degrade import CLEAN, Degradation, degrade, draw, interlaced
from vidsr.training.kinds import shots_of
from vidsr.training.prepare import DataRecipe, prepare
from vidsr.training.reels import CODECS, Encode, codes_from_clip, draw_encode, through
from vidsr.training.scenes import check, shot

Picture = NDArray[np.uint8]


def dots(height: int = 128, width: int = 128, seed: int = 0) -> Picture:
    """Soft coloured dots, whose place can be measured to a hundredth of a pixel."""
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[:height, :width]
    picture = np.full((height, width, 3), 128.0)
    for _ in range(height * width // 400):
        y, x, size = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(4, 9)
        spot = np.exp(-((ys - y) ** 2 + (xs - x) ** 2) / (2 * size**2))
        picture += spot[..., None] * rng.uniform(-90, 90, 3)
    return np.clip(picture, 20, 235).astype(np.uint8)


def shift(before: NDArray, after: NDArray) -> NDArray:
    """How many pixels (y, x) `after` lies from `before`, planes [H, W]: least squares on the slopes."""
    inner = (slice(8, -8), slice(8, -8))
    slopes = np.stack([slope[inner].ravel() for slope in np.gradient(before.astype(np.float64))], axis=1)
    difference = (after.astype(np.float64) - before)[inner].ravel()
    return -np.linalg.lstsq(slopes, difference - difference.mean(), rcond=None)[0]


def write_png(path: Path, picture: Picture) -> Path:
    write_picture(path, picture)
    return path


def write_clip(path: Path, picture: Picture, frames: int, step: int, **options: str) -> Path:
    """The picture, wandering to the left by `step` pixels a frame."""
    side = picture.shape[1] - step * frames
    with av.open(str(path), "w") as output:
        track = output.add_stream("mpeg2video", rate=25, options={"qmin": "1", "qmax": "1", **options})
        track.height, track.width, track.pix_fmt = picture.shape[0], side, "yuv420p"
        for index in range(frames):
            view = np.ascontiguousarray(picture[:, step * index : step * index + side])
            for packet in track.encode(av.VideoFrame.from_ndarray(view, format="rgb24")):
                output.mux(packet)
        for packet in track.encode(None):
            output.mux(packet)
    return path


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("name", ["Set5", "Set14"])
def test_clean_is_how_the_test_sets_were_made(shared: Path, name: str, scale: int) -> None:
    folder = shared / "testsets" / name
    for small_path, large_path in pairs(folder / f"LRbicx{scale}", folder / "HR"):
        small, large = read_rgb(small_path), read_rgb(large_path)
        large = large[: small.shape[0] * scale, : small.shape[1] * scale]
        made = degrade(large[None], scale, CLEAN, np.random.default_rng(0))[0]
        difference = np.abs(made.astype(int) - small)
        assert difference.max() <= 1, small_path
        assert (difference > 0).mean() < 0.01, small_path


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_keep_flat_areas_and_places(kernel: str) -> None:
    matrix = resize_matrix(64, 32, kernel)
    assert np.allclose(matrix.sum(axis=1), 1)
    ramp = matrix @ np.arange(64)
    assert np.allclose(ramp[8:-8], 2 * np.arange(32)[8:-8] + 0.5)


def test_each_degradation_does_what_it_says() -> None:
    clip = np.broadcast_to(dots(128, 128), (4, 128, 128, 3))
    rng = np.random.default_rng(0)
    plain = degrade(clip, 2, CLEAN, rng).astype(float)

    def steepness(**how: float) -> float:
        small = degrade(clip, 2, Degradation(**how), rng).astype(float)
        assert abs(small.mean() - plain.mean()) < 0.5
        return float(np.abs(np.diff(small, axis=2)).mean())

    assert steepness(soft_sigma=2.0) < 0.97 * steepness()
    assert steepness(sharpen=0.8, sharpen_sigma=1.4) > 1.02 * steepness()
    noisy = degrade(clip, 2, Degradation(noise=3.0), rng).astype(float)
    assert np.std(noisy - plain) == pytest.approx(3.0, rel=0.05)
    assert np.std(noisy[1] - noisy[0]) == pytest.approx(3.0 * 2**0.5, rel=0.05)
    gray = degrade(clip, 2, Degradation(noise=3.0, gray_noise=True), rng).astype(float) - plain
    assert np.abs(gray[..., 0] - gray[..., 1]).max() <= 2
    bright = degrade(np.full((4, 128, 128, 3), 200, np.uint8), 2, Degradation(shot_noise=0.1), rng)
    assert np.std(bright) == pytest.approx((0.1 * 200) ** 0.5, rel=0.05)


def test_drawn_degradations_vary() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw(rng) for _ in range(300)]
    assert {how.kernel for how in drawn} == set(KERNELS)
    assert all(any(getattr(how, name) for how in drawn) for name in ("soft_sigma", "sharpen", "noise", "shot_noise"))
    assert sum(how.noise == 0 and how.shot_noise == 0 for how in drawn) > 150


def test_interlace_remains() -> None:
    first, second = np.full((2, 8, 8, 3), 10, np.uint8), np.full((2, 8, 8, 3), 250, np.uint8)
    combed = interlaced(first, second, blended=False)
    assert (combed[:, 0::2] == 10).all() and (combed[:, 1::2] == 250).all()
    assert (interlaced(first, second, blended=True) == 130).all()


def worst_shift(before: Picture, after: Picture) -> float:
    """Of luma and the colour differences, the mean over all frames: chance in one encode is no shift."""
    found = []
    for one, other in zip(before.astype(float), after.astype(float), strict=True):
        assert np.abs((other - one).mean(axis=(0, 1))).max() < 1.5
        weights = np.array([[1, 1, 1], [1, -1, 0], [0, -1, 1]]) / 3
        found.append([shift(one @ weight, other @ weight) for weight in weights])
    return float(np.abs(np.mean(found, axis=0)).max())


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p", "yuv444p"])
@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("matrix", [1, 6])
def test_colours_return_in_place(pixels: str, soft: bool, matrix: int) -> None:
    reel = np.stack([dots(seed=seed) for seed in range(3)])
    how = Encode(encoder=None, format=pixels, matrix=matrix, soft_chroma=soft)
    after = through(reel, how, range(len(reel)))
    assert worst_shift(reel, after) < 0.02
    assert np.abs(after.astype(int) - reel).mean() < 1


@pytest.mark.parametrize("soft", [True, False])
def test_chroma_is_sampled_where_players_expect_it(soft: bool) -> None:
    """Of 4:2:0 on every other pixel of a line, and halfway between two lines."""
    reel = np.zeros((2, 64, 64, 3), np.uint8)
    reel[0, ..., 2] = 3 * np.arange(64)
    reel[1, ..., 2] = 3 * np.arange(64)[:, None]
    blue = codes_from_clip(reel, Encode(encoder=None, soft_chroma=soft))[1].astype(float)
    full = codes_from_clip(reel, Encode(encoder=None, format="yuv444p"))[1].astype(float)
    assert abs((blue[0, 4:-4, 4:-4] - full[0, ::2, ::2][4:-4, 4:-4]).mean()) < 0.2
    between = (full[1, ::2] + full[1, 1::2]) / 2
    assert abs((blue[1, 4:-4, 4:-4] - between[4:-4, ::2][:, 4:-4]).mean()) < 0.2


@pytest.mark.parametrize("codec", CODECS)
def test_colours_return_in_place_from_encodes(codec: str) -> None:
    reel = np.concatenate([np.broadcast_to(dots(seed=seed), (3, 128, 128, 3)) for seed in range(8)])
    drawn = draw_encode(codec, np.random.default_rng(0))
    how = replace(drawn, options={**drawn.options, **({"crf": "16"} if "crf" in drawn.options else {})})
    wanted = range(1, len(reel), 3)
    assert worst_shift(reel[wanted], through(reel, how, wanted)) < 0.05


def test_a_wrong_siting_would_be_noticed() -> None:
    """Guards the measure above: chroma moved by a quarter of its sample, half a pixel, is far over its limit."""
    picture = dots().astype(float)
    moved = (picture + np.roll(picture, 1, axis=1)) / 2
    assert shift(picture[..., 0], moved[..., 0]) == pytest.approx([0, 0.5], abs=0.05)


@pytest.mark.parametrize("codec", CODECS)
def test_encodes_lose_something_and_repeat_exactly(codec: str) -> None:
    rng = np.random.default_rng(0)
    reel = np.concatenate([shot_of(dots(seed=seed), rng) for seed in range(3)])
    how = draw_encode(codec, rng)
    wanted = [0, 4, 9]
    first = through(reel, how, wanted)
    assert first.shape == (3, 128, 128, 3) and first.dtype == np.uint8
    error = np.mean((first.astype(float) - reel[wanted]) ** 2)
    assert 0.2 < error < 400
    assert np.array_equal(first, through(reel, how, wanted))
    assert np.array_equal(first, through(reel, how, range(len(reel)))[wanted])


def shot_of(picture: Picture, rng: np.random.Generator) -> Picture:
    noise = rng.normal(0, 6, (4, *picture.shape))
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def test_settings_vary_and_h264_lies_where_files_do() -> None:
    rng = np.random.default_rng(0)
    rates = np.array([float(draw_encode("h264", rng).options["crf"]) for _ in range(500)])
    assert rates.min() >= 12 and rates.max() <= 32
    assert ((rates >= 18) & (rates <= 28)).mean() > 0.75
    assert {draw_encode("h264", rng).format for _ in range(300)} == {"yuv420p", "yuv422p", "yuv444p"}


def test_still_shots_and_pans_are_exact(tmp_path: Path) -> None:
    """Of many shots some are cut out of the picture as it is; all differ little from it."""
    picture = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    path = write_png(tmp_path / "a.png", picture)
    windows = {
        view.tobytes() for view in np.lib.stride_tricks.sliding_window_view(picture, (64, 64, 3)).reshape(-1, 64, 64, 3)
    }
    rng = np.random.default_rng(0)
    exact, moving = 0, 0
    for _ in range(40):
        clip = shot(path, 6, 64, rng)
        assert clip.shape == (6, 64, 64, 3)
        exact += all(frame.tobytes() in windows for frame in clip)
        moving += not np.array_equal(clip[0], clip[5])
    assert 10 < exact < 35
    assert 20 < moving < 39


def test_motion_neither_blurs_nor_leaves_the_picture(tmp_path: Path) -> None:
    """A picture without black stays without it, however small, and fine detail keeps nine tenths of its contrast."""
    ys, xs = np.mgrid[:74, :74]
    waves = 128 + 60 * np.sin(xs * np.pi / 2.5) * np.ones_like(ys)
    path = write_png(tmp_path / "a.png", np.repeat(waves[..., None], 3, axis=2).astype(np.uint8))
    rng = np.random.default_rng(0)
    for _ in range(60):
        clip = shot(path, 10, 72, rng, moving=True)
        assert clip.min() > 40
        assert clip[..., 0].std(axis=(1, 2)).min() > 0.85 * waves.std()


def test_clips_give_their_own_motion(tmp_path: Path) -> None:
    """Wherever one of them begins: this one has a single key frame, and its format no index."""
    path = write_clip(tmp_path / "a.mpg", dots(96, 192), 12, 4)
    for seed in range(10):
        clip = shot(path, 3, 64, np.random.default_rng(seed)).astype(float)
        steps = [np.abs(clip[1, :, :-move] - clip[0, :, move:]).mean() for move in range(1, 8)]
        assert int(np.argmin(steps)) + 1 == 4


def test_clips_that_change_their_size_are_refused(tmp_path: Path) -> None:
    """Where frames of both sizes are met, and where those of the other size alone."""
    path = write_clip(tmp_path / "a.mpg", dots(96, 192), 12, 4)
    path.write_bytes(path.read_bytes() + write_clip(tmp_path / "b.mpg", dots(80, 160), 12, 4).read_bytes())
    refused = []
    for seed in range(20):
        try:
            assert shot(path, 3, 64, np.random.default_rng(seed)).shape == (3, 64, 64, 3)
        except InputError as error:
            refused.append(str(error))
    assert len(refused) > 2
    assert all("a.mpg changes its size midway" in message for message in refused)


def test_clips_of_fields_are_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mpg", dots(96, 128), 4, 1, flags="+ildct+ilme")
    with pytest.raises(InputError, match=r"a\.mpg is interlaced"):
        shot(path, 2, 64, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: write_png(path, dots(64, 200)), r"a\.png is 200x64; .* 128x128 at least"),
        (lambda path: path.write_bytes(b"no picture"), r"a\.png: not a readable picture"),
        (lambda path: None, r"a\.png: no such file"),
    ],
)
def test_unusable_pictures_are_one_line(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    path = tmp_path / "a.png"
    make(path)
    with pytest.raises(InputError, match=message) as caught:
        check(path, 128)
    assert "\n" not in str(caught.value)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "pictures"
    folder.mkdir()
    return [write_png(folder / f"{seed}.png", dots(160, 160, seed)) for seed in range(3)]


def stored(folder: Path) -> tuple[Picture, Picture, list[str]]:
    kinds = json.loads((folder / "kinds.json").read_text())
    return np.load(folder / "small.npy"), np.load(folder / "large.npy"), [kinds["kinds"][i] for i in kinds["kind"]]


def test_store_of_all_kinds_twice_the_same(tmp_path: Path, pictures: list[Path]) -> None:
    kinds = ["clean", "subsampled", *CODECS, "interlaced"]
    data = DataRecipe(patch_px=128, samples=3 * len(kinds), share=dict.fromkeys(kinds, 0.1))
    stores = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        told: list[float] = []
        prepare(data, pictures, tmp_path / name, scale=2, seed=seed, on_progress=told.append)
        assert told == sorted(told) and told[-1] == 1.0
        stores.append(stored(tmp_path / name))
    small, large, kind = stores[0]
    assert small.shape == (len(kind), 2, 64, 64, 3) and large.shape == (len(kind), 2, 128, 128, 3)
    assert kind == [name for name in kinds for _ in range(3)]
    assert all(np.array_equal(one, other) for one, other in zip(stores[0][:2], stores[1][:2], strict=True))
    assert not np.array_equal(small, stores[2][0])
    for index, name in enumerate(kind):
        shrunk = degrade(large[index], 2, CLEAN, np.random.default_rng(0)).astype(float)
        error = np.abs(small[index].astype(float) - shrunk).mean()
        assert error == 0 if name == "clean" else 0 < error < 12, (index, name, error)


def test_the_truth_of_interlaced_shots_lies_between_their_fields(pictures: list[Path]) -> None:
    small, large = shots_of("interlaced", pictures * 6, 128, 2, np.random.default_rng(0))
    moved = []
    for pair, truth in zip(small, large, strict=True):
        shrunk = degrade(truth, 2, CLEAN, np.random.default_rng(0)).astype(float).mean(axis=3)
        moved.append(np.abs(shift(shrunk[0], pair[0].astype(float).mean(axis=2))).max())
    # What the encodes add is small; one step of the motion is not.
    assert np.median(moved) < 0.4


def test_shares_become_counts() -> None:
    assert DataRecipe(samples=12, share={"h264": 3, "clean": 1}).counts()["h264"] == 9
    counts = DataRecipe(samples=7, share={"h264": 1, "clean": 1, "av1": 1}).counts()
    assert sum(counts.values()) == 7 and counts["vp9"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": {"mpeg7": 1}}, "no kind 'mpeg7'; there are clean, "),
        ({"share": {"h264": -1}}, "data.share.h264 is -1"),
        ({"share": {"h264": float("nan")}}, "data.share.h264 is nan"),
        ({"share": {"h264": "much"}}, "data.share.h264 is 'much'"),
        ({"share": 3}, "data.share is 3"),
        ({"share": {}}, "one share more than 0"),
        ({"samples": 0}, "samples must be at least 1"),
        ({"patch_px": 130}, "data.patch_px is 130"),
        ({"patch_px": 32}, "data.patch_px is 32"),
    ],
)
def test_recipes_that_cannot_be(tmp_path: Path, pictures: list[Path], change: dict, message: str) -> None:
    data = DataRecipe(**{"patch_px": 128, "samples": 4, "share": {"clean": 1}, **change})
    with pytest.raises(UsageError, match=message):
        prepare(data, pictures, tmp_path / "store", scale=2, seed=0, on_progress=lambda part: None)
    assert not (tmp_path / "store").exists()


def test_no_pictures_and_no_room(tmp_path: Path, pictures: list[Path]) -> None:
    data = DataRecipe(patch_px=128, samples=4, share={"clean": 1})
    with pytest.raises(InputError, match="no pictures to train on"):
        prepare(data, [], tmp_path / "store", scale=2, seed=0, on_progress=lambda part: None)
    huge = DataRecipe(patch_px=128, samples=10**10, share={"clean": 1})
    with pytest.raises(OutputError, match=r"the training data need \d+\.\d GB"):
        prepare(huge, pictures, tmp_path / "store", scale=2, seed=0, on_progress=lambda part: None)


def test_a_damaged_picture_ends_it_with_its_name(tmp_path: Path, pictures: list[Path]) -> None:
    """Its head is well, so that it is found out only in a worker; no store is left that looks whole."""
    whole = pictures[1].read_bytes()
    pictures[1].write_bytes(whole[:60] + bytes(200))
    data = DataRecipe(patch_px=128, samples=6, share={"clean": 1})
    with pytest.raises(InputError, match=r"1\.png"):
        prepare(data, pictures, tmp_path / "store", scale=2, seed=0, on_progress=lambda part: None)
    assert not (tmp_path / "store" / "kinds.json").exists()
