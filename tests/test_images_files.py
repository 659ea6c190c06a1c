"""Which pictures become which files: folders, sequences, what exists already, what fails, and what is stopped."""

from __future__ import annotations

import gc
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from threading import Event
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

import vidsr
from tests.conftest import make_clip
from vidsr import models
from vidsr.backends.base import Watch
from vidsr.cli import main
from vidsr.errors import Cancelled, InputError, OutputError, UsageError, VidsrError
from vidsr.events import Phase, Progress, Start, Warned
from vidsr.images import library
from vidsr.images import size as size_module
from vidsr.images.engines import Enlarger, ModelChooser
from vidsr.job.engine import EnginePlan

pyvips = pytest.importorskip("pyvips", reason="needs pyvips (pip install 'vidsr[images]')")

run_module = import_module("vidsr.images.run")  # the package has a function of that name
Run = Callable[..., Any]


def flat(path: Path, value: int = 100, width: int = 16, height: int = 12) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyvips.Image.new_from_array(np.full((height, width, 3), value, np.uint8)).write_to_file(str(path))
    return path


def samples(path: Path) -> NDArray[Any]:
    return pyvips.Image.new_from_file(str(path), revalidate=True).numpy()


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def run(nearest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs vidsr in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    options = {"model": str(nearest), "backend": "onnxruntime", "guard": "off"}
    return lambda source, target, **more: vidsr.upscale(source, target, **{**options, **more})


def test_folder(run: Run, tmp_path: Path) -> None:
    for index, name in enumerate(("a.jpg", "b.png", "c.webp", "d.gif")):
        flat(Path("in", name), 50 * index, width=10 + index)
    Path("in/notes.txt").write_text("")
    Path("in/deeper").mkdir()
    report = run("in", "out")
    assert everything(tmp_path / "out") == ["a.jpg", "b.png", "c.webp", "d.png"]
    assert samples(Path("out/b.png")).shape == (24, 22, 3)
    assert report.frames == 4 and report.target == "out"
    assert report.warnings == ("in holds other things, which are left alone: deeper, notes.txt",)


def test_one_kind_for_all(run: Run) -> None:
    flat(Path("in/a.jpg"))
    flat(Path("in/b.webp"))
    run("in", "out/%s_large.png")
    assert everything(Path("out")) == ["a_large.png", "b_large.png"]


def test_into_a_folder(run: Run) -> None:
    flat(Path("a.jpg"))
    Path("out").mkdir()
    run("a.jpg", "out")
    assert everything(Path("out")) == ["a.jpg"]


def test_numbers_stay(run: Run) -> None:
    for number in (7, 8, 10):
        flat(Path(f"in/{number:05d}.png"), number)
    flat(Path("in/123.png"))
    flat(Path("in/x00001.png"))
    run("in/%05d.png", "out/f%03d.jpg")
    assert everything(Path("out")) == ["f007.jpg", "f008.jpg", "f010.jpg"]
    assert abs(int(samples(Path("out/f010.jpg"))[0, 0, 0]) - 10) <= 2


def test_what_exists_is_kept(run: Run, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        flat(Path("in", name))
    Path("out").mkdir()
    Path("out/b.png").write_text("precious")
    with pytest.raises(OutputError, match="-y"):
        run("in", "out")
    assert everything(Path("out")) == ["b.png"]
    report = run("in", "out", resume=True)
    assert (report.frames, report.resumed) == (2, 1)
    assert Path("out/b.png").read_text() == "precious"
    run("in", "out", overwrite=True)
    assert samples(Path("out/b.png")).shape == (24, 32, 3)


def test_what_another_made_meanwhile_is_kept(run: Run) -> None:
    for name in ("a", "b"):
        flat(Path(f"in/{name}.png"))

    def watch(event: Any) -> None:
        if isinstance(event, Start):
            flat(Path("out/b.png"), 7, 3, 3)

    with pytest.raises(VidsrError, match=r"out/b\.png was made by someone else meanwhile"):
        run("in", "out", observer=watch)
    assert samples(Path("out/b.png")).shape == (3, 3, 3)
    assert everything(Path("out")) == ["a.png", "b.png"]


def test_written_while_the_next_is_enlarged(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's planes hold the second picture already when the first is written."""
    for value, name in ((50, "a.png"), (200, "b.png")):
        flat(Path("in", name), value)
    enlarged, enlarge, write = Event(), Enlarger.__call__, run_module.write
    count = 0

    def counting(self: Enlarger, *given: Any) -> Any:
        nonlocal count
        count += 1
        made = enlarge(self, *given)
        if count == 2:
            enlarged.set()
        return made

    def waiting(*given: Any, **named: Any) -> int:
        assert enlarged.wait(60)
        return write(*given, **named)

    monkeypatch.setattr(Enlarger, "__call__", counting)
    monkeypatch.setattr(run_module, "write", waiting)
    run("in", "out")
    assert (samples(Path("out/a.png")) == 50).all() and (samples(Path("out/b.png")) == 200).all()


def test_one_bad_picture(run: Run) -> None:
    for name in ("a.png", "b.png", "c.png"):
        flat(Path("in", name))
    Path("in/b.png").write_text("no picture")
    told: list[Any] = []
    with pytest.raises(InputError, match=r"1 of 3 pictures could not be done: in/b\.png"):
        run("in", "out", observer=told.append)
    assert everything(Path("out")) == ["a.png", "c.png"]
    assert [event.message for event in told if isinstance(event, Warned) and "not done" in event.message]


def test_a_broken_target_is_one_of_many(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of the writing thread belong to their picture, too."""
    for name in ("a.png", "b.png", "c.png"):
        flat(Path("in", name))
    writing = import_module("vidsr.images.write")
    give_name = writing.give_name

    def failing(finished: Path, path: Path, *, overwrite: bool) -> None:
        if path.name == "b.png":
            raise OSError(28, "No space left on device")
        give_name(finished, path, overwrite=overwrite)

    monkeypatch.setattr(writing, "give_name", failing)
    with pytest.raises(OutputError, match=r"b\.png cannot be written: No space left"):
        run("in", "out")
    assert everything(Path("out")) == ["a.png", "c.png"]


MISTAKES: dict[str, tuple[tuple[str, str], dict[str, Any], str]] = {
    "missing": (("no.jpg", "x.png"), {}, "no such file"),
    "one picture, numbered": (("a.jpg", "x/%d.png"), {}, "have no numbers; %s in its place"),
    "unknown kind": (("a.jpg", "x.gif"), {}, "must end in one of .png"),
    "no kind": (("a.jpg", "x"), {}, "must end in one of .png"),
    "HEIC": (("a.jpg", "x.heic"), {}, "must end in one of .png"),
    "no folder": (("a.jpg", "nowhere/x.png"), {}, "no such folder"),
    "itself": (("a.jpg", "a.jpg"), {"overwrite": True}, "is the input itself"),
    "folder onto itself": (("in", "in"), {"overwrite": True}, "is the input itself"),
    "many into one": (("in", "x.png"), {}, r"out/%s\.png"),
    "no numbers": (("in", "out/%d.png"), {}, "have no numbers"),
    "two into one": (("in", "out/%s.png"), {}, "would both become"),
    "nothing there": (("empty", "out"), {}, "no pictures in it"),
    "no such number": (("in/%d.png", "out"), {}, "no file of that name and number"),
    "video": (("clip.mp4", "x.png"), {}, "name its frames"),
    "crf": (("a.jpg", "x.png"), {"crf": 5.0}, "--crf is for video"),
    "start": (("a.jpg", "x.png"), {"start": 1}, "--start is for video"),
    "quality of what loses nothing": (("a.jpg", "x.png"), {"quality": 50}, "nothing is lost in PNG"),
    "too much quality": (("a.jpg", "x.jpg"), {"quality": 101}, "from 1 to 100"),
    "quality of a video": (("clip.mp4", "x.mp4"), {"quality": 50}, "--crf"),
    "rate": (("clip.mp4", "x.mp4"), {"rate": 50}, "numbered pictures"),
    "not that rate": (("seq/%d.png", "x.mp4"), {"rate": 0}, "--rate 0: must be more than 0"),
    "scale and size": (("in", "out/%s2.png"), {"scale": 2, "size": "4k"}, "give one of them"),
    "no size": (("a.jpg", "x.png"), {"size": "huge"}, "--size huge: write WIDTHxHEIGHT"),
    "too large a scale": (("a.jpg", "x.png"), {"scale": 20}, "the most is 16 times"),
    "no pictures for a video": (("none/%05d.png", "x.mp4"), {}, "none/%05d.png: no file of that name and number"),
    "not in a video": (("seq/%d.webp", "x.mp4"), {}, "convert them first"),
    "video that exists": (("seq/%d.png", "clip.mp4"), {}, "clip.mp4 exists already"),
    "encoder of a video": (("seq/%d.png", "x.mp4"), {"encoder": "nonesuch"}, "nonesuch"),
    "model of a video": (("seq/%d.png", "x.mp4"), {"model": "nonesuch"}, "no model is called"),
    "broken picture for a video": (("seq/%05d.png", "x.mp4"), {}, "^seq/%05d.png: the pictures cannot be put together"),
    "another input": (("ph", "ph/%s2.png"), {"overwrite": True}, r"ph/a2\.png is an input itself, and ph/a\.png"),
    "memory": (("a.jpg", "x.png"), {"memory_bytes": 1000, "model": "span"}, "too little"),
}


@pytest.mark.parametrize(("paths", "options", "says"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes(run: Run, tmp_path: Path, paths: tuple[str, str], options: dict[str, Any], says: str) -> None:
    flat(Path("a.jpg"))
    flat(Path("in/b.jpg"))
    flat(Path("in/b.webp"))
    Path("empty").mkdir()
    for name in ("seq/1.png", "seq/1.webp", "ph/a.png", "ph/a2.png"):
        flat(Path(name), 100, 64, 48)
    Path("seq/00001.png").write_text("no picture")
    make_clip(Path("clip.mp4"), frames=2, audio=False)
    before = everything(tmp_path)
    with pytest.raises(VidsrError, match=says) as caught:
        run(*paths, **options)
    assert "\n" not in str(caught.value)
    assert everything(tmp_path) == before


def test_without_the_libraries(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    flat(Path("a.jpg"))

    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(library, "import_module", missing)
    with pytest.raises(UsageError, match=re.escape("pip install 'vidsr[images]'")):
        run("a.jpg", "b.png")


# Sizes


@pytest.mark.parametrize(
    ("options", "size"),
    [({"scale": 1.5}, (24, 18)), ({"scale": 3}, (48, 36)), ({"size": "20x15"}, (20, 15)), ({"size": "150%"}, (24, 18))],
)
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_any_size(run: Run, options: dict[str, Any], size: tuple[int, int], channels: int) -> None:
    given = np.full((12, 16, channels), 77, np.uint8)
    pyvips.Image.new_from_array(given).copy(interpretation="srgb" if channels > 2 else "b-w").pngsave("a.png")
    run("a.png", "b.png", **options)
    made = samples(Path("b.png"))
    assert (made.shape[1], made.shape[0]) == size
    assert (made == 77).all()


def test_one_picture_too_small_for_the_size(run: Run) -> None:
    for name, width in (("a.png", 64), ("b.png", 2), ("c.png", 64)):
        flat(Path("in", name), 100, width, width)
    with pytest.raises(UsageError, match=r"1 of 3 .* in/b\.png: --size 128x128: that is 64 times"):
        run("in", "out", size="128x128")
    assert everything(Path("out")) == ["a.png", "c.png"]


def test_too_large_to_be_resized(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told before the model works."""
    monkeypatch.setattr(size_module, "MAX_PIXELS", 767)
    monkeypatch.setattr(Enlarger, "__call__", lambda *given: pytest.fail("the model worked"))
    flat(Path("a.png"))
    with pytest.raises(OutputError, match=r"a\.png: 32x24 is more than can be resized"):
        run("a.png", "b.png", scale=1.5)


def test_a_model_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    load = models.load

    def counting(name: str) -> Any:
        loads.append(name)
        return load(name)

    monkeypatch.setattr(models, "load", counting)
    chosen = ModelChooser(models.DEFAULT)
    first = chosen(Fraction(3, 2))
    after = len(loads)
    for factor in (Fraction(7, 5), Fraction(8), Fraction(17, 2), Fraction(9)):
        assert chosen(factor).name == models.choose(models.DEFAULT, factor).name
    assert chosen(Fraction(6, 5)) is first and chosen(Fraction(8)) is chosen(Fraction(41, 5))
    assert len(loads) == 5 * after  # four of them by `models.choose`


def test_another_shape_is_told(run: Run) -> None:
    flat(Path("a.png"))
    assert run("a.png", "b.png", size="32x30").warnings == (
        "a.png: 32x30 has another shape, so the picture is stretched",
    )
    flat(Path("b/large.png"), 100, 160, 120)
    assert run("b/large.png", "c.png", size="480p").warnings == ()
    assert samples(Path("c.png")).shape == (480, 640, 3)


def tiled(run: Run, **more: Any) -> Any:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (300, 400, 4), np.uint8)
    pyvips.Image.new_from_array(picture).copy(interpretation="srgb").pngsave("large.png")
    return run("large.png", "out.png", memory_bytes=4 << 20, **more)


def test_tiles_and_progress(run: Run) -> None:
    told: list[Any] = []
    report = tiled(run, observer=told.append)
    assert "tiles of" in report.engine
    np.testing.assert_array_equal(
        samples(Path("out.png"))[..., 3], samples(Path("large.png"))[..., 3].repeat(2, 0).repeat(2, 1)
    )
    shares = [event.done for event in told if isinstance(event, Phase)]
    assert shares == sorted(shares) and 0 < shares[0] < 0.5 and shares[-1] <= 1
    kinds = [type(event) for event in told if not isinstance(event, Phase)]
    assert kinds[0] is Start and kinds[1] is Progress


def test_a_collapsed_picture_is_not_more_than_whole(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    again: list[int] = []

    def collapsing(self: Enlarger) -> bool:
        again.append(1)
        engine = replace(self._plan.exact(), on_tile=self._plan.on_tile).open()
        try:
            (slot,) = engine.slots(1)
            engine.submit(slot)
            engine.wait(slot)
        finally:
            engine.close()
        return True

    monkeypatch.setattr(Enlarger, "_mend", collapsing)
    monkeypatch.setattr(import_module("vidsr.job.run"), "_TICK_SECONDS", 0)
    told: list[Any] = []
    tiled(run, observer=told.append)
    shares = [event.done for event in told if isinstance(event, Phase)]
    assert again and max(shares) == 1 and shares.count(1) > 1


def test_preparing_is_watched(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(self: EnginePlan, watch: Watch) -> None:
        watch.warn("slow")
        watch.progress(0.5)

    monkeypatch.setattr(EnginePlan, "prepare", prepare)
    flat(Path("a.png"))
    stop, told = Event(), []

    def observe(event: Any) -> None:
        told.append(event)
        if isinstance(event, Warned):
            stop.set()

    with pytest.raises(Cancelled, match="0 of 1"):
        run("a.png", "b.png", observer=observe, stop=stop)
    run("a.png", "b.png", observer=told.append)
    assert Phase(name="preparing", done=0.5) in told


@pytest.mark.parametrize("which", ["stop", "cancel"])
def test_stopped_among_tiles(run: Run, tmp_path: Path, which: str) -> None:
    ending = Event()

    def watch(event: Any) -> None:
        if isinstance(event, Phase):
            ending.set()

    with pytest.raises(Cancelled, match="0 of 1"):
        tiled(run, observer=watch, **{which: ending})
    assert everything(tmp_path) == ["large.png"]


def test_stopped_among_pictures(run: Run, tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png", "d.png"):
        flat(Path("in", name))
    stop = Event()

    def watch(event: Any) -> None:
        if isinstance(event, Progress):
            stop.set()

    with pytest.raises(Cancelled, match="--resume"):
        run("in", "out", observer=watch, stop=stop)
    done = everything(tmp_path / "out")
    assert 0 < len(done) < 4 and all(samples(Path("out", name)).shape == (24, 32, 3) for name in done)
    assert run("in", "out", resume=True).frames == 4


# Videos


def test_video_to_pictures(run: Run, nearest: Path) -> None:
    make_clip(Path("clip.mp4"), frames=5, audio=False)
    report = run("clip.mp4", "frames/%03d.png")
    assert everything(Path("frames")) == [f"{number:03d}.png" for number in range(1, 6)]
    assert report.frames == 5
    expected = [frame.planes for frame in vidsr.frames("clip.mp4", model=str(nearest), pix_fmt="gbrp", guard="off")]
    for number, (green, blue, red) in enumerate(expected, 1):
        made = samples(Path(f"frames/{number:03d}.png")).astype(int)
        assert np.abs(made - np.stack([red, green, blue], axis=2)).max() <= 1
    with pytest.raises(OutputError, match="-y"):
        run("clip.mp4", "frames/%03d.png")


def test_deep_video_to_deep_pictures(run: Run) -> None:
    make_clip(Path("clip.mkv"), frames=2, audio=False, codec="libx265", pix_fmt="yuv420p10le")
    run("clip.mkv", "frames/%d.png")
    assert samples(Path("frames/1.png")).dtype == np.uint16
    with pytest.raises(OutputError, match="JPEG holds 8 bits a sample of 10"):
        run("clip.mkv", "frames/%d.jpg", strict=True)


def test_turned_video_gives_upright_pictures(run: Run, nearest: Path, shared: Path) -> None:
    clip = shared / "clips" / "rotated_90.mp4"
    run(clip, "frames/%d.png", end=0.02)
    (frame, *_) = vidsr.frames(clip, model=str(nearest), guard="off", end=0.02, pix_fmt="gbrp")
    made = samples(Path("frames/1.png"))[..., 1].astype(int)
    assert np.abs(made - np.rot90(frame.planes[0])).max() <= 1


@pytest.fixture
def torn(run: Run) -> Path:
    """A clip with flipped bytes in its middle and without its last third."""
    path = make_clip(Path("torn.mkv"), frames=200, audio=False, options={"g": "10"})
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 4, len(data) // 3, 97):
        data[place] ^= 0xFF
    path.write_bytes(data[: 2 * len(data) // 3])
    return path


def test_damage_of_a_video_is_told(run: Run, torn: Path) -> None:
    told: list[Any] = []
    report = run(torn, "frames/%03d.png", observer=told.append)
    assert report.frames < 200
    assert report.warnings == run(torn, "out.mkv", encoder="ffv1").warnings
    assert [event.message for event in told if isinstance(event, Warned)] == list(report.warnings)
    assert any("damaged" in line for line in report.warnings)
    assert any("but the file says 8.00 s" in line for line in report.warnings)


def test_strict_with_a_damaged_video(run: Run, torn: Path) -> None:
    with pytest.raises(InputError, match="damaged"):
        run(torn, "frames/%03d.png", strict=True)
    whole = make_clip(Path("whole.mkv"), frames=200, audio=False).read_bytes()
    Path("short.mkv").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"ends at .* but the file says 8\.00 s|damaged|truncated"):
        run("short.mkv", "short/%03d.png", strict=True)


def test_what_came_up_on_the_way_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    make_clip(Path("clip.mp4"), frames=2, audio=False)
    opened = EnginePlan.open

    def mended(self: EnginePlan) -> Any:
        self.notes.add("smaller tiles")
        return opened(self)

    monkeypatch.setattr(EnginePlan, "open", mended)
    assert run("clip.mp4", "frames/%d.png").warnings == ("smaller tiles",)


def test_what_runs_on_a_video_is_told(run: Run) -> None:
    make_clip(Path("clip.mp4"), frames=10, audio=False)
    told: list[Any] = []
    report = run("clip.mp4", "frames/%02d.png", observer=told.append, deinterlace="field", start=0.2)
    (start,) = (event for event in told if isinstance(event, Start))
    assert told[0] is start and start.model == "nearest" and start.target_size == (128, 96)
    assert start.engine == report.engine == "onnxruntime CPUExecutionProvider fp32"
    assert start.frames == report.frames == 10
    assert {event.total for event in told if isinstance(event, Progress)} == {10}


def test_video_stopped_while_the_engine_is_prepared(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    make_clip(Path("clip.mp4"), frames=2, audio=False)
    stop = Event()

    def prepare(self: EnginePlan, watch: Watch) -> None:
        watch.progress(0.5)
        if not watch.stop.wait(20):
            pytest.fail("it cannot be stopped")
        raise Cancelled("stopped")

    def watch(event: Any) -> None:
        if event == Phase(name="preparing", done=0.5):
            stop.set()

    monkeypatch.setattr(EnginePlan, "prepare", prepare)
    with pytest.raises(Cancelled):
        run("clip.mp4", "frames/%d.png", observer=watch, stop=stop)


@pytest.mark.parametrize(("done", "says"), [(0, "before the first picture"), (1, r"behind frames/0\d\.png")])
def test_video_stopped_among_pictures(run: Run, done: int, says: str) -> None:
    make_clip(Path("clip.mp4"), frames=50, audio=False)
    cancel = Event()

    def watch(event: Any) -> None:
        if isinstance(event, Progress) or not done:
            cancel.set()

    with pytest.raises(Cancelled, match=says) as error:
        run("clip.mp4", "frames/%02d.png", observer=watch, cancel=cancel)
    assert str(error.value).endswith(sorted(everything(Path("frames")))[-1] if done else "picture")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_pictures_to_video(run: Run, suffix: str) -> None:
    for number in range(3, 9):
        flat(Path(f"in/{number:04d}{suffix}"), 20 * number, 64, 48)
    report = run(f"in/%04d{suffix}", "out.mkv", rate=10)
    assert report.verified and report.frames == 6
    with av.open("out.mkv") as video:
        frames = list(video.decode(video=0))
    assert [round(frame.time, 3) for frame in frames] == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert [frame.to_ndarray(format="rgb24").mean() for frame in frames] == pytest.approx(
        [60, 80, 100, 120, 140, 160], abs=3
    )
    assert everything(Path()) == ["in", *(f"in/{number:04d}{suffix}" for number in range(3, 9)), "out.mkv"]


@pytest.mark.parametrize("which", ["stop", "cancel"])
def test_stopped_while_gathering(run: Run, tmp_path: Path, which: str) -> None:
    flat(Path("in/1.png"), 100, 64, 48)
    ending = Event()
    ending.set()
    with pytest.raises(Cancelled, match="0 of 1"):
        run("in/%d.png", "out.mkv", **{which: ending})
    assert everything(tmp_path) == ["in", "in/1.png"]


def test_errors_of_the_observer_are_its_own(run: Run) -> None:
    flat(Path("in/1.png"), 100, 64, 48)

    def broken(event: Any) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run("in/%d.png", "out.mkv", observer=broken)


def test_pictures_with_exif_are_videos_too(run: Run) -> None:
    """FFmpeg gives EXIF as a kind of side data that PyAV does not know."""
    image = pyvips.Image.new_from_file(str(flat(Path("a.png"), 100, 64, 48))).copy()
    image.set_type(pyvips.GValue.gstr_type, "exif-ifd0-Make", "Maker")
    image.jpegsave("b.jpg")
    assert run("b.jpg", "out.mp4").frames == 1


def test_pictures_with_a_profile_are_videos_too(run: Run) -> None:
    """Looking at the side data of such a PNG makes PyAV crash later, in the garbage collector."""
    image = pyvips.Image.new_from_file(str(flat(Path("a.png"), 100, 64, 48)))
    image.icc_transform("srgb", input_profile="srgb").pngsave("in_1.png")
    assert pyvips.Image.new_from_file("in_1.png").get_typeof("icc-profile-data")
    assert run("in_%d.png", "out.mkv").frames == 1
    gc.collect()


def test_an_empty_picture_among_them(run: Run, tmp_path: Path) -> None:
    flat(Path("in/1.png"), 100, 64, 48)
    Path("in/2.png").touch()
    with pytest.raises(InputError, match=r"in/2\.png: is empty"):
        run("in/%d.png", "out.mkv")
    assert everything(tmp_path) == ["in", "in/1.png", "in/2.png"]


def test_turned_pictures_to_video(run: Run) -> None:
    image = pyvips.Image.new_from_file(str(flat(Path("a.png"), 100, 64, 48))).copy()
    image.set_type(pyvips.GValue.gint_type, "orientation", 6)
    image.jpegsave("in_1.jpg")
    assert any("EXIF turns" in warning for warning in run("in_%d.jpg", "out.mkv").warnings)
    with pytest.raises(OutputError, match=r"--strict: .*EXIF turns"):
        run("in_%d.jpg", "out2.mkv", strict=True)


def test_a_rate_as_a_fraction(run: Run, nearest: Path) -> None:
    flat(Path("in/1.png"), 100, 64, 48)
    flat(Path("in/2.png"), 120, 64, 48)
    options = ["--model", nearest, "--backend", "onnxruntime", "--guard", "off", "--rate", "24000/1001"]
    assert command("in/%d.png", "out.mkv", *options) == 0
    with av.open("out.mkv") as video:
        assert video.streams.video[0].average_rate == Fraction(24000, 1001)


# The command


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exit_info:
        main([str(argument) for argument in arguments])
    return int(exit_info.value.code or 0)


def test_command(run: Run, nearest: Path, capfd: pytest.CaptureFixture[str]) -> None:
    flat(Path("in/a.png"))
    options = ["--model", nearest, "--backend", "onnxruntime", "--guard", "off"]
    assert command("in/a.png", "b.jpg", "--quality", "80", *options) == 0
    said = capfd.readouterr().err
    assert "in/a.png (16x12) -> b.jpg (32x24)" in said and "1 picture" in said
    assert command("in", "out", "--json", *options) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["start", "progress", "done"]
    Path("in/bad.png").write_text("")
    assert command("in", "out", "-y", *options) == 1
    assert "1 of 2 pictures could not be done: in/bad.png" in capfd.readouterr().err
    assert os.path.exists("out/a.png")


# Real pictures


def test_official_x4_on_set5(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From files to files the published figure comes out."""
    from vidsr.checkpoint import import_checkpoint
    from vidsr.evaluate import psnr, y_of
    from vidsr.media.picture import read_rgb

    pytest.importorskip("torch", reason="needs torch, to import a checkpoint")
    monkeypatch.chdir(tmp_path)
    folder = shared / "testsets" / "Set5"
    model = import_checkpoint(shared / "weights" / "spanx4_ch48.safetensors", "official", folder=tmp_path)
    vidsr.upscale(folder / "LRbicx4", "out", model=str(model), precision="fp32", scale=4)
    scores = []
    for path in sorted(Path("out").iterdir()):
        made = read_rgb(path)
        truth = read_rgb(folder / "HR" / path.name)[: made.shape[0], : made.shape[1]]
        scores.append(psnr(*(y_of(picture)[4:-4, 4:-4] for picture in (truth, made))))
    assert np.mean(scores) == pytest.approx(32.20, abs=0.02)
