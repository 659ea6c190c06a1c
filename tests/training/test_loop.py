"""The training loop on tiny networks and pictures made here."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vidsr.errors import InputError, ModelError, OutputError, UsageError

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("PIL", reason="Pillow is not installed")

import torch

from tests.training.running import trained
from vidsr import models
from vidsr.checkpoint import read_checkpoint
from vidsr.training.loop import Row, _loss, network_from, train
from vidsr.training.machine import Machine
from vidsr.training.muon import orthogonalised
from vidsr.training.recipe import ModelRecipe, Recipe, TrainRecipe, find_recipe, read_recipe
from vidsr.training.run import Order, run
from vidsr.training.store import Store
from vidsr.training.weights import read_start, write_weights

TINY = ModelRecipe(channels=16, blocks=2)
PLAN = TrainRecipe(steps=12, batch=2, patch_px=16, warmup=4)


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

    def test_one_shot_is_too_few(self, tmp_path: Path) -> None:
        np.save(tmp_path / "small.npy", np.zeros((1, 2, 8, 8, 3), np.uint8))
        np.save(tmp_path / "large.npy", np.zeros((1, 2, 16, 16, 3), np.uint8))
        (tmp_path / "kinds.json").write_text("{}")
        with pytest.raises(InputError, match="at least 2 are needed"):
            Store(tmp_path)

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
        assert rows[-1].loss < rows[0].loss - 6
        # The repeated input, which it begins with, has 12 dB.
        assert rows[-1].psnr_y is not None and rows[-1].psnr_y > 20

    def test_each_crop_counts_in_decibels(self) -> None:
        large = torch.full((2, 3, 8, 8), 0.5)
        near, far, gray = 0.01 * torch.ones(3, 8, 8), 0.1 * torch.ones(3, 8, 8), torch.tensor([0.299, 0.587, 0.114])
        assert float(_loss(large + torch.stack([near, far]), large, 0)) == pytest.approx((-40 - 20) / 2, abs=0.3)
        assert float(_loss(large + 1000, large, 0)) == pytest.approx(60, abs=0.01)
        assert float(_loss(large, large, 0)) == pytest.approx(-50)
        colour = torch.tensor([0.1, 0.0, 0.0]) - 0.1 * gray[0]  # as bright as before
        assert float(colour @ gray) == pytest.approx(0, abs=1e-7)
        assert float(_loss(large + colour[:, None, None], large, 0)) == pytest.approx(-31.5, abs=0.3)
        steady = torch.stack([far, far])  # wrong, but alike in both frames of a shot
        assert float(_loss(large + steady, large, 1.0)) == pytest.approx(-20 - 50, abs=0.1)

    def test_x4_begins_from_x2(self) -> None:
        start = {key: value.numpy() for key, value in network_from(Recipe(name="x2", model=TINY)).state_dict().items()}
        larger = Recipe(name="x4", model=ModelRecipe(channels=16, blocks=2, scale=4), train=TrainRecipe(seed=9))
        state = network_from(larger, start).state_dict()
        assert np.array_equal(state["block_1.c1_r.eval_conv.weight"].numpy(), start["block_1.c1_r.eval_conv.weight"])
        assert state["upsampler.0.weight"].shape[0] == 48
        with pytest.raises(InputError, match="is of another shape"):
            network_from(Recipe(name="wide", model=ModelRecipe(channels=32)), start)

    def test_only_new_weights_are_settled(self, store: Store, tmp_path: Path) -> None:
        """Begun from another scale: the last convolution's output varies as one that began with random weights."""
        x4 = Recipe(name="x4", model=ModelRecipe(channels=16, blocks=2, scale=4), train=PLAN)
        start = {key: value.numpy() for key, value in network_from(x4).state_dict().items()}
        begun = train(
            replace(x4, model=TINY, train=replace(PLAN, steps=1, rate=1e-12)), store, tmp_path,
            machine=Machine("cpu"), start=start, on_row=lambda row: None,
        )  # fmt: skip
        assert begun is not None
        seen: list[torch.Tensor] = []
        begun.upsampler[0].register_forward_hook(lambda module, given, output: seen.append(output))
        with torch.no_grad():
            begun(Machine("cpu").tensor(store.batch(np.random.default_rng(0), 2, 16, 1)[0]))
        assert float(seen[0].std()) == pytest.approx(0.05, rel=0.3)
        kept = begun.state_dict()["conv_2.eval_conv.weight"].numpy()
        assert np.allclose(kept, start["conv_2.eval_conv.weight"], atol=1e-6)

    def test_a_start_with_more_blocks_is_refused(self) -> None:
        deep = network_from(Recipe(name="deep", model=ModelRecipe(channels=16, blocks=3)))
        with pytest.raises(InputError, match=r"--init: has block_3\..* only 2 blocks"):
            network_from(Recipe(name="tiny", model=TINY), {k: v.numpy() for k, v in deep.state_dict().items()})

    @pytest.mark.parametrize("stop_after", [None, 5])
    def test_a_loss_without_end_is_said_and_not_kept(
        self, store: Store, tmp_path: Path, stop_after: int | None
    ) -> None:
        recipe = Recipe(name="tiny", model=TINY, train=replace(PLAN, rate=1e30))
        with pytest.raises(UsageError, match=r"the loss is not finite at step \d+: lower \[train\] rate"):
            trained(recipe, store, tmp_path / "run", stop_after)
        assert not (tmp_path / "run/last.pt").exists()

    def test_a_damaged_state(self, store: Store, tmp_path: Path) -> None:
        recipe = Recipe(name="tiny", model=TINY, train=PLAN)
        trained(recipe, store, tmp_path, stop_after=1)
        path = tmp_path / "last.pt"
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(InputError, match=r"last\.pt: not the state of this run, or damaged; remove it"):
            trained(recipe, store, tmp_path)

    def test_a_full_disk(self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(path: Path, data: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("vidsr.training.loop.write_whole", full)
        with pytest.raises(OutputError, match=r"last\.pt: cannot be written \(No space left on device\)"):
            trained(Recipe(name="tiny", model=TINY, train=PLAN), store, tmp_path, stop_after=1)


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
            ("[train]\nrate = inf", "and finite"),
            ("[train]\nrate = nan", "and finite"),
            ("[train]\nseed = -1", "seed must be 0 to"),
            ("[data]\nsamples = 1", "samples must be at least 2"),
            ("[data]\npatch_px = 130", "data.patch_px is 130; at x2"),
            ("name = 'a b'", "mine.toml: name a b: use letters"),
            ("name = 'a.onnx'", "mine.toml: name a.onnx: that is the name of a file"),
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
        assert "<svg" in (tmp_path / "out/log.svg").read_text(encoding="utf-8")

    def test_another_run_is_refused(self, recipe: Path, pictures: Path, tmp_path: Path) -> None:
        order = Order(recipe=str(recipe), folders=(pictures,), out=tmp_path / "out")
        run(order, Silent())
        with pytest.raises(InputError, match="run with another recipe"):
            run(Order(recipe=str(recipe), folders=(pictures,), out=tmp_path / "out", steps=9), Silent())
        (pictures / "3.png").unlink()
        with pytest.raises(InputError, match="run with another pictures"):
            run(order, Silent())

    def test_weights_without_their_data_are_not_anothers(self, recipe: Path, pictures: Path, tmp_path: Path) -> None:
        order = Order(recipe=str(recipe), folders=(pictures,), out=tmp_path / "out")
        first = run(order, Silent())
        assert first is not None
        made = first.read_bytes()
        shutil.rmtree(tmp_path / "out/data")
        with pytest.raises(InputError, match="run with another recipe"):
            run(replace(order, seed=7), Silent())
        run(order, Silent())
        assert first.read_bytes() == made

    def test_what_was_refused_can_be_put_right(self, recipe: Path, pictures: Path, tmp_path: Path) -> None:
        from PIL import Image

        order = Order(recipe=str(recipe), folders=(pictures,), out=tmp_path / "out")
        Image.new("RGB", (20, 20)).save(pictures / "4.png")
        with pytest.raises(InputError, match="is 20x20"):
            run(order, Silent())
        (pictures / "4.png").unlink()
        assert run(replace(order, seed=3), Silent(), lambda: True) is None
        assert not (tmp_path / "out/data/kinds.json").exists()

    def test_a_folder_that_cannot_be_used(self, recipe: Path, pictures: Path, tmp_path: Path) -> None:
        order = Order(recipe=str(recipe), folders=(pictures,), out=tmp_path / "out")
        order.out.write_text("")
        with pytest.raises(OutputError, match=r"out: cannot be used for a run \(File exists\)"):
            run(order, Silent())
        order.out.unlink()
        (order.out / "data").mkdir(parents=True)
        (order.out / "data/kinds.json").write_text("{}")
        with pytest.raises(InputError, match=r"out: data or weights, but no run\.json"):
            run(order, Silent())
        for text in ("[]", "{"):
            (order.out / "run.json").write_text(text)
            with pytest.raises(InputError, match=r"run\.json: damaged"):
                run(order, Silent())

    def test_a_teacher_of_another_scale(self, recipe: Path, pictures: Path, tmp_path: Path) -> None:
        teacher = tmp_path / "teacher.safetensors"
        write_weights(teacher, network_from(Recipe(name="x4", model=replace(TINY, scale=4))), {})
        recipe.write_text(f"{recipe.read_text()}\nteach = 0.5\n")
        order = Order(recipe=str(recipe), folders=(pictures,), out=tmp_path / "out", teacher=teacher)
        with pytest.raises(InputError, match="enlarges 4 times, and the recipe 2 times"):
            run(order, Silent())
        assert not order.out.exists()

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
            begun, file = read_start(str(path))
            assert file == path
            start = network_from(read_recipe(recipe), begun)
            assert all(np.array_equal(start.state_dict()[key].numpy(), value) for key, value in state.items())
        order = Order(recipe=str(recipe), folders=(pictures,), out=tmp_path / "second", init=str(weights), steps=1)
        second = run(order, Silent())
        assert models.load(str(second)).metadata["init"] == f"sha256 {hashlib.sha256(weights.read_bytes()).hexdigest()}"

    def test_cannot_begin_from_every_model(self, shared: Path) -> None:
        with pytest.raises(InputError, match="cannot be begun from"):
            read_start(str(shared / "weights/spanx2_ch48.safetensors"))

    def test_begins_from_a_model_by_name(self, recipe: Path, pictures: Path, tmp_path: Path) -> None:
        like = recipe.read_text().replace("channels = 16\nblocks = 2", "channels = 32\nblocks = 4\nunshuffle = 2")
        recipe.write_text(like.replace("steps = 4", "steps = 1\nrate = 1e-12"))
        order = Order(recipe=str(recipe), folders=(pictures,), out=tmp_path / "out", init="span-fast")
        path = run(order, Silent())
        assert path is not None and "--init span-fast" in order.command()
        made, shipped = (models.load(name).state() for name in (str(path), "span-fast"))
        assert all(np.allclose(made[key], shipped[key], atol=1e-6) for key in shipped)
        for wrong in ("spam", ""):
            with pytest.raises(ModelError, match=f"no model is called '{wrong}'"):
                run(replace(order, init=wrong), Silent())

    def test_teacher_must_be_wanted(self, recipe: Path, pictures: Path, tmp_path: Path) -> None:
        order = Order(recipe=str(recipe), folders=(pictures,), out=tmp_path / "out", teacher=tmp_path / "t.safetensors")
        with pytest.raises(UsageError, match="--teacher: the recipe mine has none"):
            run(order, Silent())


SCRIPT = """
import multiprocessing, sys
from pathlib import Path

class Told:
    def preparing(self, done):
        if done and (children := multiprocessing.active_children()):
            print(children[0].pid, flush=True)

if __name__ == "__main__":  # workers load this file as well, and need none of it
    from vidsr.cli.shape import interruptible
    from vidsr.errors import VidsrError
    from vidsr.training.run import Order, run
    recipe, pictures, out = sys.argv[1:]
    with interruptible() as (stop, _):
        try:
            print(run(Order(recipe=recipe, folders=(Path(pictures),), out=Path(out)), Told(), stop.is_set))
        except VidsrError as error:
            print("refused:", error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="groups of processes get signals on POSIX systems alone")
class TestPreparing:
    @pytest.fixture
    def busy(self, recipe: Path, pictures: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
        """A run in a process group of its own that makes training data, and one of its workers."""
        recipe.write_text(recipe.read_text().replace("samples = 8", "samples = 100000"))
        (tmp_path / "script.py").write_text(SCRIPT)
        with subprocess.Popen(
            [sys.executable, tmp_path / "script.py", recipe, pictures, tmp_path / "out"], start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        ) as process:  # fmt: skip
            assert process.stdout is not None
            try:
                yield process, int(process.stdout.readline())
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_stops(self, busy: tuple[subprocess.Popen[str], int], tmp_path: Path, number: int) -> None:
        process, _ = busy
        os.killpg(process.pid, number)
        said, errors = process.communicate(timeout=120)
        assert said.splitlines()[-1] == "None" and not errors
        assert not (tmp_path / "out/data/kinds.json").exists()

    def test_a_worker_that_is_killed(self, busy: tuple[subprocess.Popen[str], int]) -> None:
        process, worker = busy
        os.kill(worker, signal.SIGKILL)
        said, errors = process.communicate(timeout=120)
        assert "refused: making training data: a worker process was killed" in said.splitlines()[-1] and not errors
