"""The training loop on tiny networks and pictures made here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vidsr.errors import InputError, UsageError

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("PIL", reason="Pillow is not installed")

import torch

from vidsr.checkpoint import read_checkpoint
from vidsr.training.loop import Row, network_from, train
from vidsr.training.machine import Machine
from vidsr.training.muon import orthogonalised
from vidsr.training.recipe import ModelRecipe, Recipe, TrainRecipe, find_recipe, read_recipe
from vidsr.training.run import Order, run
from vidsr.training.store import Store
from vidsr.training.weights import read_start

TINY = ModelRecipe(channels=16, blocks=2)
PLAN = TrainRecipe(steps=12, batch=2, patch_px=16, warmup=4)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Small pictures whose pixels are the first ones of the large picture's 2x2 squares."""
    folder = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(1)
    large = rng.integers(0, 256, (20, 2, 48, 48, 3), np.uint8)
    np.save(folder / "large.npy", large)
    np.save(folder / "small.npy", large[:, :, ::2, ::2])
    (folder / "kinds.json").write_text(json.dumps({"kinds": ["clean"], "kind": [0] * 20}))
    return Store(folder)


def trained(recipe: Recipe, store: Store, folder: Path, stop_after: int | None = None) -> tuple[list[Row], object]:
    """The rows and the network; stop_after: rows until it is stopped."""
    folder.mkdir(exist_ok=True)
    rows: list[Row] = []
    calls = iter(range(10**6))
    network = train(
        recipe, store, folder, machine=Machine("cpu"), on_row=rows.append,
        stopped=lambda: stop_after is not None and next(calls) >= stop_after,
    )  # fmt: skip
    return rows, network


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, two) for one, two in pairs)


class TestStore:
    @pytest.mark.parametrize("frames", [1, 2])
    def test_crops_belong_together(self, store: Store, frames: int) -> None:
        """However turned and mirrored: each small pixel is still among those of its 2x2 square."""
        small, large = store.batch(np.random.default_rng(3), 40, 12, frames)
        assert small.shape == (40 * frames, 3, 12, 12) and large.shape == (40 * frames, 3, 24, 24)
        squares = large.reshape(*small.shape[:2], 12, 2, 12, 2)
        corners = [squares[:, :, :, row, :, column] for row in (0, 1) for column in (0, 1)]
        matches = np.stack([(corner == small).all(axis=(1, 2, 3)) for corner in corners])
        assert matches.any(axis=0).all()
        assert len(np.unique(matches.argmax(axis=0))) == 4, "no crop is turned"

    def test_frames_follow_each_other(self, store: Store) -> None:
        small, _ = store.batch(np.random.default_rng(3), 1, 24, 2)
        assert not np.array_equal(small[0], small[1])

    def test_validation_is_kept_back(self, store: Store) -> None:
        held = {small.tobytes() for small, _ in store.validation()}
        assert len(held) == 2
        rng = np.random.default_rng(5)
        drawn = {np.sort(store.batch(rng, 1, 24, 1)[0], axis=None).tobytes() for _ in range(200)}
        for small, large in store.validation():
            assert large.shape[0] == 2 * small.shape[0]
            whole = np.sort(small, axis=None).tobytes()
            assert whole not in drawn

    def test_no_store(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="not a set of training data"):
            Store(tmp_path)


class TestLoop:
    @pytest.mark.parametrize("calm", [0.0, 0.5])
    def test_the_same_twice_and_after_a_stop(self, store: Store, tmp_path: Path, calm: float) -> None:
        plan = TrainRecipe(steps=12, batch=2, patch_px=16, warmup=4, calm=calm)
        recipe = Recipe(name="tiny", model=TINY, train=plan)
        rows, whole = trained(recipe, store, tmp_path / "whole")
        assert [row.step for row in rows] == [12] and rows[0].psnr_y is not None
        again = trained(recipe, store, tmp_path / "again")[1]
        assert same(whole, again)
        stopped = trained(recipe, store, tmp_path / "parts", stop_after=5)[1]
        assert stopped is None
        assert torch.load(tmp_path / "parts/last.pt", weights_only=True)["step"] == 5
        assert same(whole, trained(recipe, store, tmp_path / "parts")[1])

    def test_another_seed_is_another_network(self, store: Store, tmp_path: Path) -> None:
        first = trained(Recipe(name="tiny", model=TINY, train=PLAN), store, tmp_path / "a")[1]
        other = TrainRecipe(steps=12, batch=2, patch_px=16, warmup=4, seed=1)
        assert not same(first, trained(Recipe(name="tiny", model=TINY, train=other), store, tmp_path / "b")[1])

    def test_learns(self, tmp_path: Path) -> None:
        """What is to be learned here is exact: the large picture is one colour in each square, and darker."""
        rng = np.random.default_rng(2)
        small = rng.integers(0, 256, (20, 2, 32, 32, 3), np.uint8)
        large = (small // 2).repeat(2, axis=2).repeat(2, axis=3)
        np.save(tmp_path / "small.npy", small)
        np.save(tmp_path / "large.npy", large)
        (tmp_path / "kinds.json").write_text(json.dumps({"kinds": ["clean"], "kind": [0] * 20}))
        recipe = Recipe(name="tiny", model=TINY, train=TrainRecipe(steps=150, batch=2, patch_px=16, warmup=4, ema=0.9))
        rows = trained(recipe, Store(tmp_path), tmp_path / "run")[0]
        assert rows[-1].loss < 0.6 * rows[0].loss
        # The repeated input, which it begins with, has 12 dB.
        assert rows[-1].psnr_y is not None and rows[-1].psnr_y > 20

    def test_x4_begins_from_x2(self) -> None:
        start = {key: value.numpy() for key, value in network_from(Recipe(name="x2", model=TINY)).state_dict().items()}
        larger = Recipe(name="x4", model=ModelRecipe(channels=16, blocks=2, scale=4), train=TrainRecipe(seed=9))
        state = network_from(larger, start).state_dict()
        assert np.array_equal(state["block_1.c1_r.eval_conv.weight"].numpy(), start["block_1.c1_r.eval_conv.weight"])
        assert state["upsampler.0.weight"].shape[0] == 48
        with pytest.raises(InputError, match="is of another shape"):
            network_from(Recipe(name="wide", model=ModelRecipe(channels=32)), start)


def test_orthogonalised() -> None:
    matrix = torch.randn(16, 144, generator=torch.Generator().manual_seed(0))
    for value in (matrix, matrix.T, 1e-6 * matrix):
        sizes = torch.linalg.svdvals(orthogonalised(value))
        assert sizes.min() > 0.6 and sizes.max() < 1.3


class TestRecipe:
    @pytest.mark.parametrize("name", ["span", "span-clean", "span-fast", "span-x4", "span-clean-x4"])
    def test_shipped(self, name: str) -> None:
        recipe = read_recipe(find_recipe(name))
        assert recipe.name == name and recipe.note

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("[model]\nchanels = 3", "there is no 'chanels'"),
            ("[train]\nsteps = 1.5", "a int is needed"),
            ("[train]\nbatch = true", "a int is needed"),
            ("[train]\nrate = 0", "more than 0"),
            ("[train]\npatch_px = 200", "must be 8 to 128"),
            ("[data]\nshare = {h265 = 1}", "there is no kind 'h265'"),
            ("model = 3", "must be a table"),
            ("steps = 3", "there is no 'steps'"),
            ("[train", "not a readable recipe"),
        ],
    )
    def test_refused(self, tmp_path: Path, text: str, said: str) -> None:
        path = tmp_path / "mine.toml"
        path.write_text(text)
        with pytest.raises(UsageError, match=said):
            read_recipe(path)

    def test_unknown_name(self) -> None:
        with pytest.raises(UsageError, match=r"no recipe is called 'spam': there are .*span-fast"):
            find_recipe("spam")


class Silent:
    def preparing(self, done: float) -> None: ...

    def training(self, row: Row, steps: int) -> None: ...


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(4):
        small = rng.integers(0, 256, (12, 12, 3), np.uint8)
        Image.fromarray(small).resize((96, 96), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(
        "note = 'a try'\n[model]\nchannels = 16\nblocks = 2\n[data]\nsamples = 8\npatch_px = 64\n"
        "[train]\nsteps = 4\nbatch = 2\npatch_px = 16"
    )
    return path


class TestRun:
    def test_leaves_a_model(self, recipe: Path, pictures: Path, tmp_path: Path) -> None:
        from vidsr import models

        order = Order(recipe=str(recipe), folders=(pictures,), out=tmp_path / "out", license="CC0-1.0")
        path = run(order, Silent())
        assert path == tmp_path / "out/mine.onnx"
        model = models.load(str(path))
        assert model.scale == 2
        said = model.metadata
        assert (said["license"], said["for"], said["data"]) == ("CC0-1.0", "a try", "4 pictures and clips")
        assert said["command"] == order.command()
        state, stated = read_checkpoint(tmp_path / "out/mine.safetensors")
        assert said["int8"] == stated["int8"] and "block_2.c3_r" in said["int8"]
        assert stated["base"] == "nearest" and set(state) <= set(model.state())
        assert (tmp_path / "out/log.csv").read_text().startswith("step,loss,rate")
        assert "<svg" in (tmp_path / "out/log.svg").read_text()

    def test_another_run_is_refused(self, recipe: Path, pictures: Path, tmp_path: Path) -> None:
        order = Order(recipe=str(recipe), folders=(pictures,), out=tmp_path / "out")
        run(order, Silent())
        with pytest.raises(InputError, match="run with another recipe"):
            run(Order(recipe=str(recipe), folders=(pictures,), out=tmp_path / "out", steps=9), Silent())
        (pictures / "3.png").unlink()
        with pytest.raises(InputError, match="run with another pictures"):
            run(order, Silent())

    def test_no_pictures(self, recipe: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such folder"):
            run(Order(recipe=str(recipe), folders=(tmp_path / "none",), out=tmp_path / "out"), Silent())
        assert not (tmp_path / "out").exists()

    def test_begins_where_another_ended(self, recipe: Path, pictures: Path, tmp_path: Path) -> None:
        """The start's input may be 0..255, as that of published weights: the network computes the same."""
        run(Order(recipe=str(recipe), folders=(pictures,), out=tmp_path / "first"), Silent())
        weights = tmp_path / "first/mine.safetensors"
        state, _ = read_checkpoint(weights)
        for path in (weights, weights.with_suffix(".onnx")):
            start = network_from(read_recipe(recipe), read_start(path))
            assert all(np.array_equal(start.state_dict()[key].numpy(), value) for key, value in state.items())

    def test_cannot_begin_from_every_model(self, shared: Path) -> None:
        with pytest.raises(InputError, match="cannot be begun from"):
            read_start(shared / "weights/spanx2_ch48.safetensors")

    def test_teacher_must_be_wanted(self, recipe: Path, pictures: Path, tmp_path: Path) -> None:
        order = Order(recipe=str(recipe), folders=(pictures,), out=tmp_path / "out", teacher=tmp_path / "t.safetensors")
        with pytest.raises(UsageError, match="--teacher: the recipe mine has none"):
            run(order, Silent())
