"""`vidsr compare`: which parts it chooses, how the picture is laid out, what it refuses."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import make_clip, nearest_model
from tests.test_evaluate_video import run
from vidsr.errors import OutputError
from vidsr.evaluate import Box, Column, bicubic, choose, sheet
from vidsr.evaluate.lettering import HEIGHT, lettered
from vidsr.media.picture import read_rgb, write_png

Picture = NDArray[Any]


def noise(height: int, width: int, seed: int = 0) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def columns(*pictures: Picture, scale: int = 2) -> list[Column]:
    return [Column(name=str(index), image=picture, scale=scale) for index, picture in enumerate(pictures)]


# Letters


def test_letters_differ() -> None:
    known = string.ascii_letters + string.digits + "-_()+/%=?@#!.,: "
    shapes = {lettered(character).tobytes() for character in known}
    assert len(shapes) == len(known)
    assert not lettered(" ").any()
    assert np.array_equal(lettered("a?"), lettered("aß"))
    assert lettered("span").shape == (HEIGHT, 24)
    assert np.array_equal(lettered("span")[:, 6:12], lettered("p"))


def test_a_letter_stands_upright() -> None:
    rows = ["".join(".#"[int(ink)] for ink in row) for row in lettered("L")[:, :5]]
    assert rows == ["#...."] * 6 + ["#####", "....."]


# Which parts


def test_chooses_where_they_differ() -> None:
    first = noise(80, 120)
    second = first.copy()
    second[20:24, 60:66] ^= 128  # rows 10, columns 30 of the source
    second[70:72, 4:6] ^= 64
    boxes = choose(columns(first, second), count=2, height=10, width=12)
    assert all((box.height, box.width) == (10, 12) for box in boxes)
    assert boxes[0].top <= 10 and boxes[0].top + 10 >= 12 and boxes[0].left <= 30 and boxes[0].left + 12 >= 33
    assert boxes[1].top <= 35 < boxes[1].top + 10 and boxes[1].left <= 2 < boxes[1].left + 12


@pytest.mark.parametrize("scales", [(1, 2), (2, 4)])
def test_parts_never_overlap(scales: tuple[int, int]) -> None:
    small = noise(30, 40)
    ways = [Column(name=str(scale), image=bicubic(small, scale), scale=scale) for scale in scales]
    boxes = choose(ways, count=50, height=9, width=11)
    covered = np.zeros((30, 40), int)
    for box in boxes:
        covered[box.top : box.top + box.height, box.left : box.left + box.width] += 1
    assert covered.max() == 1
    assert 4 <= len(boxes) < 50
    assert covered.sum() == len(boxes) * 9 * 11


def test_part_larger_than_the_picture() -> None:
    assert choose(columns(noise(20, 30)), count=3, height=99, width=99) == [Box(top=0, left=0, height=10, width=15)]


# The picture


def test_sheet() -> None:
    """Every crop stands under its column's name, its pixels squares; a narrower one is followed by paper."""
    small = noise(20, 30)
    ways = [Column(name="source", image=small, scale=1), Column(name="bicubic", image=bicubic(small, 2), scale=2)]
    boxes = [Box(top=2, left=3, height=5, width=20), Box(top=10, left=0, height=4, width=10)]
    found = sheet(ways, boxes, zoom=4)
    label = 24
    assert found.shape == (label + 20 + 6 + 16, 80 + 6 + 80, 3)
    top = label
    for box in boxes:
        for index, way in enumerate(ways):
            cell = found[top : top + 4 * box.height, 86 * index : 86 * index + 4 * box.width]
            crop = way.image[
                box.top * way.scale : (box.top + box.height) * way.scale,
                box.left * way.scale : (box.left + box.width) * way.scale,
            ]
            assert np.array_equal(cell, crop.repeat(4 // way.scale, 0).repeat(4 // way.scale, 1))
        top += 4 * box.height + 6
    assert (found[-16:, 40:80] == 255).all()
    assert (found[:label] < 255).any()


def test_psnr_stands_below_what_can_be_measured() -> None:
    small = noise(20, 30)
    ways = [Column(name="", image=small, scale=1), Column(name="", image=bicubic(small, 2), scale=2)]
    truth = Column(name="", image=noise(40, 60), scale=2)
    box = Box(top=0, left=0, height=20, width=30)
    found = sheet(ways, [box], zoom=4, truth=truth)
    below = found[-24:]
    inked = [(below[:, start : start + 120] < 255).any() for start in (0, 126, 252)]
    assert inked == [False, True, False]


def test_png_is_whole_or_not_there(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", noise(7, 9))
    assert np.array_equal(read_rgb(tmp_path / "a.png"), noise(7, 9))
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match=r"folder\.png cannot be written"):
        write_png(tmp_path / "folder.png", noise(7, 9))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "folder.png"]


# The command


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_clip(Path("clip.mp4"), width=128, height=96, frames=20)
    return tmp_path


def test_clip(here: Path, nearest: Path) -> None:
    """The source, bicubic and the model, whose squares are the source's: it repeats pixels."""
    assert run("compare", "clip.mp4", "--models", nearest, "-o", "out.png", "--crop", "10,20,40,30") == 0
    found = read_rgb(Path("out.png"))
    assert found.shape[1] == 3 * 160 + 2 * 6
    first, second, third = (found[-120:, start : start + 160] for start in (0, 166, 332))
    assert np.array_equal(first, third)
    assert not np.array_equal(first, second)


def test_shrunk(here: Path, nearest: Path) -> None:
    """The last column is the original, untouched."""
    assert run("compare", "clip.mp4", "--models", f"{nearest},bicubic", "-o", "out.png", "--shrink", "--at", "0.4",
               "--crop", "0,0,128,96") == 0  # fmt: skip
    found = read_rgb(Path("out.png"))
    assert found.shape[1] == 4 * 256 + 3 * 6
    from vidsr.evaluate import footage_of

    true = footage_of(Path("clip.mp4"), frames=11).runs[0][10]
    assert np.array_equal(found[-24 - 192 : -24, -256:][::2, ::2], true)


def test_parts_of_what_is_shrunk_are_those_of_the_source(here: Path, nearest: Path) -> None:
    """Which is cut to a multiple of four on every side, by one pixel here."""
    large = noise(98, 130)
    write_png(Path("in.png"), large)
    crop = ["--models", nearest, "-o", "out.png", "--shrink", "--codec", "none", "--crop"]
    assert run("compare", "in.png", *crop, "9,5,40,20") == 0
    shown = read_rgb(Path("out.png"))[-24 - 40 : -24, -80:][::2, ::2]
    assert np.array_equal(shown, large[5:25, 9:49])
    assert run("compare", "in.png", *crop, "0,5,40,20", "-y") == 2


def test_beginning_is_late(here: Path, nearest: Path) -> None:
    """Matroska counts from 0, and this one's first frame comes behind its middle."""
    with av.open("clip.mp4") as given, av.open("late.mkv", "w") as late:
        track = late.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.pts is not None and packet.dts is not None:
                packet.stream, packet.pts, packet.dts = track, packet.pts + 900000, packet.dts + 900000
                late.mux(packet)
    assert run("compare", "late.mkv", "--models", nearest, "-o", "out.png", "--guard", "on") == 0


def test_picture_and_two_scales(here: Path, nearest: Path) -> None:
    write_png(Path("in.png"), noise(40, 60))
    four = nearest_model(here / "four.onnx", 4)
    assert run("compare", "in.png", "--models", f"{nearest},{four}", "-o", "out.png", "--crops", 2, "--zoom", 8) == 0
    assert read_rgb(Path("out.png")).shape[1] == 5 * 60 * 8 + 4 * 6


MISTAKES = {
    "no clip": (["missing.mp4"], "no such file"),
    "not png": (["clip.mp4", "-o", "out.jpg"], "-o out.jpg: name it .png"),
    "exists": (["clip.mp4", "-o", "there.png"], "there.png exists already: add -y"),
    "folder": (["clip.mp4", "-o", "folder.png", "-y"], "folder.png: is a folder"),
    "in no folder": (["clip.mp4", "-o", "nowhere/out.png"], "nowhere/out.png: no such folder"),
    "zoom": (["clip.mp4", "--zoom", "3"], "--zoom 3: take a multiple of 2"),
    "crop outside": (["clip.mp4", "--crop", "100,0,29,10"], "--crop 100,0,29,10 is not within the picture, 128x96"),
    "crop empty": (["clip.mp4", "--crop", "0,0,0,10"], "is not within the picture"),
    "crop no box": (["clip.mp4", "--crop", "1,2,3"], "write it as X,Y,W,H"),
    "crop and crops": (["clip.mp4", "--crop", "0,0,9,9", "--crops", "3"], "--crops means nothing with --crop"),
    "crf alone": (["clip.mp4", "--crf", "3"], "--crf means nothing without --shrink"),
    "several crf": (["clip.mp4", "--shrink", "--crf", "3,4"], "--crf one number"),
    "unknown codec": (["clip.mp4", "--shrink", "--codec", "nope"], "--codec nope: choose among"),
    "behind the end": (["clip.mp4", "--at", "60"], "no frames at 60 s"),
    "no time": (["clip.mp4", "--at", "soon"], "not a time"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake: str, here: Path, nearest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("there.png").write_text("precious")
    Path("folder.png").mkdir()
    before = sorted(here.iterdir())
    arguments, says = MISTAKES[mistake]
    target = [] if "-o" in arguments else ["-o", "out.png"]
    assert run("compare", *arguments, *target, "--models", nearest) in (1, 2)
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.count("\n") == 1
    assert sorted(here.iterdir()) == before
    assert Path("there.png").read_text() == "precious"


def test_overwrite(here: Path, nearest: Path) -> None:
    Path("out.png").write_text("old")
    assert run("compare", "clip.mp4", "--models", nearest, "-o", "out.png", "-y") == 0
    assert read_rgb(Path("out.png")).shape[2] == 3


def test_interrupted(here: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: Any, **named: Any) -> Any:
        raise KeyboardInterrupt

    before = sorted(here.iterdir())
    monkeypatch.setattr("pathlib.Path.replace", interrupted)
    assert run("compare", "clip.mp4", "--models", nearest, "-o", "out.png") == 130
    assert sorted(here.iterdir()) == before
