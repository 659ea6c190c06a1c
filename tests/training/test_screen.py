"""Made-up screens: drawn at two densities they are the same picture, and they move as screens do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL", reason="training needs pillow (pip install 'vidsr[train]')")
pytest.importorskip("fontpkg_arimo", reason="drawing screens needs font packages (pip install 'vidsr[train]')")

from tests.training.test_data import dots, shift, write_png
from vidsr.errors import InputError
from vidsr.training import canvas as drawing
from vidsr.training.canvas import FAMILIES, Canvas, faces
from vidsr.training.degrade import CLEAN, degrade
from vidsr.training.pages import PAGES, draw_page
from vidsr.training.prepare import DataRecipe, prepare
from vidsr.training.screen import screen_shot


@pytest.mark.parametrize("page", PAGES)
def test_small_and_large_are_one_picture(page: str) -> None:
    """The large drawing, shrunk, lies where the small one is."""
    shifts, differences = [], []
    for seed in range(6):
        small, large = screen_shot(3, 64, (1, 2), np.random.default_rng([seed, 5]), page=page)
        assert small.shape == (3, 64, 64, 3) and large.shape == (3, 128, 128, 3)
        shrunk = degrade(large, 2, CLEAN, np.random.default_rng(0)).astype(float)
        differences.append(np.abs(shrunk - small).mean())
        shifts.append(shift(shrunk[1].mean(axis=2), small[1].astype(float).mean(axis=2)))
    # At one unit's width a pattern is far beyond what shrinking keeps.
    assert np.median(differences) < (60 if page == "patterns" else 12)
    if page != "patterns":
        assert np.abs(np.median(shifts, axis=0)).max() < 0.15


def test_shapes_lie_where_they_are_said_to() -> None:
    """Rectangles, lines and tiles fill exactly their units at every density."""
    drawn = []
    for density in (1, 2, 4):
        canvas = Canvas(32, 32, density, (0, 0, 0))
        canvas.rectangle(3, 5, 7, 2, (255, 0, 0))
        canvas.line([(20.5, 4), (20.5, 28)], (0, 255, 0), 1)
        canvas.tile(4, 16, np.array([[[0, 0, 255], [0, 0, 0]], [[0, 0, 0], [0, 0, 255]]], np.uint8))
        drawn.append(np.asarray(canvas.image))
    for density, picture in zip((2, 4), drawn[1:], strict=True):
        blocks = picture.reshape(32, density, 32, density, 3).transpose(0, 2, 1, 3, 4).reshape(32, 32, -1, 3)
        middle = np.ptp(blocks[8:26], axis=2)
        assert middle.max() <= 1, density
        assert np.abs(blocks[8:26, :, 0].astype(int) - drawn[0][8:26]).max() <= 1
    assert (drawn[0][5:7, 3:10] == (255, 0, 0)).all() and drawn[0][..., 0].sum() == 255 * 14
    assert (drawn[0][8:26, 20] == (0, 255, 0)).all() and not drawn[0][8:26, [19, 21], 1].any()


@pytest.mark.parametrize("kind", FAMILIES)
def test_letters_grow_with_the_density(kind: str) -> None:
    """The same share of the canvas is ink."""
    for face in faces(kind):
        ink = []
        for density in (1, 2, 4):
            canvas = Canvas(160, 40, density, (0, 0, 0))
            end = canvas.text((8, 28), "Hamburg 35", (face, 18), (255, 255, 255), snap=False)
            assert end > 60
            ink.append(float(np.asarray(canvas.image).mean()))
        assert ink[:2] == pytest.approx([ink[2]] * 2, rel=0.12), face


def test_native_text_is_sharper_than_shrunk_text() -> None:
    steeper = []
    for seed in range(8):
        small, large = screen_shot(2, 96, (1, 2), np.random.default_rng([seed, 1]), page="code")
        shrunk = degrade(large, 2, CLEAN, np.random.default_rng(0))
        slopes = [np.abs(np.diff(clip.astype(float), axis=1)) ** 2 for clip in (small, shrunk)]
        steeper.append(slopes[0].mean() / max(slopes[1].mean(), 1e-9))
    assert np.median(steeper) > 1.05


@pytest.mark.parametrize("side", [16, 32, 40])
def test_small_screens_can_be_drawn(side: int) -> None:
    """What appears on one is a page of half its side."""
    for seed in range(60):
        for page in PAGES:
            assert draw_page(side // 2, side // 2, np.random.default_rng(seed), page).canvas(side // 2, side // 2, 1)


def test_one_unit_checks_are_there() -> None:
    """Somewhere among the patterns every pixel differs fully from its neighbours."""
    found = False
    for seed in range(30):
        view = screen_shot(2, 64, (1,), np.random.default_rng(seed), page="patterns")[0][0].astype(int)
        across, down = (np.abs(np.diff(view, axis=axis)).max(axis=2)[:63, :63] > 200 for axis in (1, 0))
        patches = np.lib.stride_tricks.sliding_window_view(across & down, (12, 12))
        found = found or bool(patches.all(axis=(2, 3)).any())
    assert found


def test_screens_move_as_screens_do() -> None:
    """Some scroll by whole pixels, some stand, some change in a part only."""
    still, part, scroll = 0, 0, 0
    for seed in range(60):
        clip = screen_shot(4, 64, (1,), np.random.default_rng(seed), page="document")[0]
        assert clip.any()
        changed = (clip[1] != clip[0]).any(axis=2).mean()
        still += changed == 0
        part += 0 < changed < 0.1
        scroll += any(
            np.array_equal(clip[1][:-move], clip[0][move:]) or np.array_equal(clip[1][move:], clip[0][:-move])
            for move in range(1, 9)
            if changed
        )
    assert still > 5 and part > 5 and scroll > 5


def test_pages_are_decided_by_the_seed_alone() -> None:
    for page in PAGES:
        one, two, other = (
            np.asarray(draw_page(80, 60, np.random.default_rng(seed), page).canvas(80, 60, 2).image)
            for seed in (3, 3, 4)
        )
        assert one.shape == (120, 160, 3)
        assert np.array_equal(one, two)
        assert not np.array_equal(one, other)


def test_there_are_many_faces() -> None:
    names = {path.parent.parent.name for kind in FAMILIES for path in faces(kind)}
    assert len(names) == sum(len(row) for row in FAMILIES.values()) >= 8


def test_missing_fonts_are_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faces.cache_clear()
    monkeypatch.setattr(drawing, "find_spec", lambda name: None)
    path = write_png(tmp_path / "a.png", dots(128, 128))
    data = DataRecipe(patch_px=128, samples=2, share={"screen": 1})
    with pytest.raises(InputError, match=r"font package fontpkg-arimo; pip install 'vidsr\[train\]'"):
        prepare(data, [path], tmp_path / "store", scale=2, seed=0, on_progress=lambda part: None)
    assert not (tmp_path / "store").exists()
    faces.cache_clear()


@pytest.mark.parametrize("scale", [2, 4])
def test_store_of_screens(tmp_path: Path, scale: int) -> None:
    path = write_png(tmp_path / "a.png", dots(128 * scale // 2, 128 * scale // 2))
    data = DataRecipe(patch_px=64 * scale, samples=8, share={"screen": 1, "screen-native": 1})
    stores = []
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        prepare(data, [path], tmp_path / name, scale=scale, seed=seed, on_progress=lambda part: None)
        stores.append([np.load(tmp_path / name / f"{size}.npy") for size in ("small", "large")])
    small, large = stores[0]
    assert small.shape == (8, 2, 64, 64, 3) and large.shape == (8, 2, 64 * scale, 64 * scale, 3)
    assert all(np.array_equal(one, other) for one, other in zip(*stores[:2], strict=True))
    assert not np.array_equal(small, stores[2][0])
    assert json.loads((tmp_path / "a" / "kinds.json").read_text())["kinds"] == ["screen", "screen-native"]
    shrunk = np.stack([degrade(truth, scale, CLEAN, np.random.default_rng(0)).astype(float) for truth in large])
    apart = np.abs(small[:, None] - shrunk[None]).mean(axis=(2, 3, 4, 5))
    assert apart.argmin(axis=1).tolist() == [*range(8)]
    assert np.median(np.diag(apart)) < 12
