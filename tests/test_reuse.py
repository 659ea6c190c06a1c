"""Exact reuse: what a frame has in common with the one before is not computed again, and nobody can tell."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.contract.test_engine import FORMATS, enlarged, fill, layout, picture
from vidsr import models
from vidsr.backends import Engine, EngineOptions, Slot, reuse, staged
from vidsr.backends.change import TileSize, changed, cover, dilated, scrolled, unchanged_share
from vidsr.backends.openvino_engine import BACKEND
from vidsr.backends.reuse import ReusingEngine
from vidsr.backends.staged import CELL, Staged, stages_of
from vidsr.benchmark.whole import job_in, once
from vidsr.errors import BackendError, UsageError
from vidsr.frame import FrameLayout, Plane
from vidsr.graph import Builder, export_model
from vidsr.job import Settings, plan_engine, resolve_stream
from vidsr.models import Model

FP32 = EngineOptions(device="CPU", precision="fp32", streams=2)
RADIUS = 12


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [(24, 32), (17, 21), (40, 61), (3, 5), (1, 1)])
def test_every_changed_sample_marks_its_cell(name: str, size: tuple[int, int]) -> None:
    source = layout(name, *size)
    before = picture(source)
    rng = np.random.default_rng(1)
    for index, plane in enumerate(before):
        down, right = source.chroma if 0 < index < 3 else (1, 1)
        for _ in range(8):
            y, x = (int(rng.integers(length)) for length in plane.shape)
            now = [other.copy() for other in before]
            now[index][y, x] ^= 1
            mask = changed(source, before, now, CELL)
            assert mask.shape == (-(-size[0] // CELL), -(-size[1] // CELL))
            assert [tuple(cell) for cell in np.argwhere(mask)] == [(y * down // CELL, x * right // CELL)]


def test_frames_of_padded_rows_are_compared_as_well() -> None:
    source = layout("gray", 8, 16)
    wide = np.zeros((8, 19), np.uint8)
    now = wide.copy()
    now[5, 15] = 1
    now[5, 17] = 1  # beyond the picture
    mask = changed(source, [wide[:, :16]], [now[:, :16]], CELL)
    assert np.argwhere(mask).tolist() == [[1, 3]]
    wider = [np.hstack([plane, plane[:, :1]])[:, :16] for plane in (wide, now)]  # rows of twenty bytes
    assert np.argwhere(changed(source, wider[:1], wider[1:], CELL)).tolist() == [[1, 3]]


@pytest.mark.parametrize("reach", [0, 1, 3, 50])
def test_dilation(reach: int) -> None:
    mask = np.random.default_rng(reach).random((20, 30)) > 0.98
    wanted = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        wanted[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1] = True
    assert np.array_equal(dilated(mask, reach), wanted)


@pytest.mark.parametrize("seed", range(12))
def test_tiles_cover_all_that_is_marked(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (CELL * int(rng.integers(20, 60)) for _ in range(2))
    reach = int(rng.choice([0, 4, 6, 10]))
    shapes = {(min(side, height), min(side, width)) for side in (32, 64)} | {(height, width)}
    sizes = [TileSize(height=tall, width=wide, cost=tall * wide) for tall, wide in shapes]
    mask = rng.random((height // CELL, width // CELL)) > rng.choice([0.2, 0.9, 0.999])
    covered = cover(mask, sizes, (height, width), cell=CELL, reach=reach, limit=math.inf)
    assert covered is not None
    tiles, cost = covered
    assert cost == sum(tile.size.cost for tile in tiles)
    seen = np.zeros((height, width), bool)
    for tile in tiles:
        top, bottom, left, right = tile.inside
        assert 0 <= tile.top <= height - tile.size.height and 0 <= tile.left <= width - tile.size.width
        assert tile.top % 2 == 0 and tile.left % 2 == 0
        for edge, begin in ((top, tile.top), (left, tile.left)):
            assert edge == begin == 0 or edge - begin >= reach
        assert bottom == height or tile.top + tile.size.height - bottom >= reach
        assert right == width or tile.left + tile.size.width - right >= reach
        seen[top:bottom, left:right] = True
    assert seen[np.kron(mask, np.ones((CELL, CELL), bool))].all()


def test_a_cover_that_costs_too_much_is_given_up() -> None:
    sizes = [TileSize(height=16, width=16, cost=0.5)]
    mask = np.eye(16, dtype=bool)
    assert cover(mask, sizes, (64, 64), cell=CELL, reach=4, limit=1.0) is None


def test_share_of_what_stands_still() -> None:
    rows = np.zeros((4, 80), np.uint8)
    now = rows.copy()
    assert unchanged_share(rows, now) == 1
    now[0, :40] = 1
    assert unchanged_share(rows, now) == pytest.approx(1 - 5 / 40)
    assert unchanged_share(rows[:, :3], now[:, :3]) == 0  # too narrow for runs


def moving_model(folder: Path, corner: tuple[int, int]) -> Model:
    """x2: moves the picture by `RADIUS` towards a corner, a pixel each convolution, so that an output depends on the
    very rim of what it may depend on."""
    kernel, spread = np.zeros((3, 3, 3, 3), np.float32), np.zeros((12, 3, 1, 1), np.float32)
    for channel in range(3):
        kernel[channel, channel, corner[0], corner[1]] = 1
        spread[4 * channel : 4 * channel + 4, channel] = 1

    def network(build: Builder, tensor: str) -> str:
        for index in range(RADIUS):
            weights = build.constant(kernel, f"step_{index}")
            tensor = build.op("Conv", tensor, weights, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        tensor = build.op("Conv", tensor, build.constant(spread, "spread"), kernel_shape=[1, 1])
        return build.op("DepthToSpace", tensor, blocksize=2, mode="CRD")

    path = folder / f"moving{corner[0]}{corner[1]}.onnx"
    proto = export_model(network, name="moving", metadata={"network": "test", "guard": "off"})
    path.write_bytes(proto.SerializeToString())
    return models.load(str(path))


@pytest.fixture
def many_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small models are cut as large ones are, into small tiles, at once, and whatever it costs."""
    monkeypatch.setattr(staged, "_STAGE_PAIRS", 1)
    monkeypatch.setattr(staged, "_SIDES", (48, 64))
    monkeypatch.setattr(reuse, "_PROMISES", 1)
    monkeypatch.setattr(reuse, "_WORTH", 1e9)
    monkeypatch.setattr(staged, "_TILE_PAIRS", 0)


def reusing(model: Model, source: FrameLayout, options: EngineOptions = FP32) -> ReusingEngine:
    target = enlarged(source, model.scale)
    stages = stages_of(BACKEND, model, source, target, options, budget_bytes=2**30)
    assert stages is not None and len(stages) > 1
    ends = (BACKEND, model, source, target, options)
    return ReusingEngine(BACKEND.open(*ends[1:]), lambda: Staged(*ends, stages))


def outputs(engine: Engine, frames: Sequence[Sequence[Plane]]) -> Iterator[list[Plane]]:
    """A copy of what the engine makes of each frame, with as many under way as it wants, as in a pipeline."""
    free, busy = deque(engine.slots(engine.in_flight)), deque[Slot]()
    for planes in [*frames, *[None] * engine.in_flight]:
        if planes is not None:
            slot = free.popleft()
            for plane in slot.output:
                plane.fill(7)  # whatever is not written shows
            fill(engine, slot, planes)
            engine.submit(slot)
            busy.append(slot)
        if busy and (planes is None or not free):
            engine.wait(busy[0])
            yield [plane.copy() for plane in busy[0].output]
            free.append(busy.popleft())


def same(first: Sequence[Plane], second: Sequence[Plane]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("corner", [(0, 0), (0, 2), (2, 0), (2, 2)])
@pytest.mark.parametrize("name", ["gbrp", "yuv420p"])
@pytest.mark.usefixtures("many_stages")
def test_a_change_of_one_is_followed_to_the_rim(tmp_path: Path, corner: tuple[int, int], name: str) -> None:
    model = moving_model(tmp_path, corner)
    assert model.radius == RADIUS
    source = layout(name, 96, 128)
    still = picture(source)
    frames = [still, still, still]
    rng = np.random.default_rng(5)
    for _ in range(24):
        now = [plane.copy() for plane in frames[-1]]
        now[0][int(rng.integers(96)), int(rng.integers(128))] ^= 1
        frames.append(now)
    engine, plain = reusing(model, source), BACKEND.open(model, source, enlarged(source), FP32)
    made, wanted = list(outputs(engine, frames)), list(outputs(plain, frames))
    assert [same(one, other) for one, other in zip(made, wanted, strict=True)] == [True] * len(frames)
    assert engine.saved.partial >= 20
    # The changes do show, and as far away as they can.
    moved = [(edge - 1) * -RADIUS for edge in corner]
    far = 0
    for before, now, small, large in zip(wanted, wanted[1:], frames, frames[1:], strict=False):
        for y, x in np.argwhere(small[0] != large[0]):
            place = (2 * (y + moved[0]), 2 * (x + moved[1]))
            if all(0 <= at < size for at, size in zip(place, (192, 256), strict=True)):
                far += before[0][place] != now[0][place]
    assert far > 10
    engine.close()
    plain.close()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["span", "span-fast", "span-x4"])
@pytest.mark.usefixtures("many_stages")
def test_our_models_give_the_same_bits_in_parts(name: str, precision: Any) -> None:
    model = models.load(name)
    options = BACKEND.settle(EngineOptions(precision=precision, streams=2)) if precision in _precisions() else None
    if options is None:
        pytest.skip("this processor has no BF16")
    source = layout("yuv420p", 144, 176)
    frames = [picture(source)] * 2
    rng = np.random.default_rng(3)
    for _ in range(6):
        now = [plane.copy() for plane in frames[-1]]
        top, left = 2 * int(rng.integers(60)), 2 * int(rng.integers(70))
        now[0][top : top + 6, left : left + 9] += 3
        now[1][top // 2, left // 2] ^= 4
        frames.append(now)
    engine = reusing(model, source, options)
    plain = BACKEND.open(model, source, enlarged(source, model.scale), options)
    made, wanted = list(outputs(engine, frames)), list(outputs(plain, frames))
    assert [same(one, other) for one, other in zip(made, wanted, strict=True)] == [True] * len(frames)
    assert engine.saved.partial >= 4
    engine.close()
    plain.close()


def _precisions() -> list[str]:
    import openvino

    abilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [ability.lower() for ability in abilities]


class Counting:
    """An engine that repeats pixels, and counts what it was asked for."""

    def __init__(self, source: FrameLayout) -> None:
        self.source, self.target, self.in_flight, self.description = source, enlarged(source), 2, "counting"
        self.runs = 0

    def slots(self, count: int) -> list[Slot]:
        return [Slot.allocate(self.source, self.target) for _ in range(count)]

    def submit(self, slot: Slot) -> None:
        self.runs += 1
        for small, large in zip(slot.input, slot.output, strict=True):
            large[:] = np.kron(small, np.ones((2, 2), small.dtype))

    def wait(self, slot: Slot) -> None:
        pass

    def close(self) -> None:
        pass


def test_frames_that_do_not_change_are_computed_once() -> None:
    source = layout("yuv420p", 64, 64)
    inner = Counting(source)
    drawings = [picture(source, seed) for seed in range(6)]
    frames = [drawing for drawing in drawings for _ in range(3)]
    made = list(outputs(ReusingEngine(inner), frames))
    for frame, output in zip(frames, made, strict=True):
        assert same(output, [np.kron(plane, np.ones((2, 2), plane.dtype)) for plane in frame])
    # The first drawing is not known to be held until it was seen twice.
    assert inner.runs <= len(drawings) + 2


def test_other_colours_are_another_picture() -> None:
    source = layout("yuv420p", 64, 64)
    inner = Counting(source)
    engine = ReusingEngine(inner)
    slot = engine.slots(1)[0]
    still = picture(source)
    for gain in (1, 1, 1, 2, 2, 1):
        fill(engine, slot, still)
        slot.rgb_from_codes *= gain
        engine.submit(slot)
        engine.wait(slot)
    assert inner.runs == 2 + 2


def test_what_always_changes_is_never_kept() -> None:
    source = layout("gray", 64, 64)
    engine = ReusingEngine(Counting(source))
    for _ in outputs(engine, [picture(source, seed) for seed in range(30)]):
        assert not engine._look.close
    assert engine._output is None


@pytest.mark.parametrize("fault", ["bits", "memory", "disk"])
@pytest.mark.usefixtures("many_stages")
def test_parts_that_fail_are_given_up(tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: Staged, slot: Slot, plan: staged.Plan) -> None:
        right(self, slot, plan)
        if fault == "bits":
            self.output[0][5, 5] ^= 1
        else:
            raise BackendError("no memory") if fault == "memory" else OSError("no space left")

    right = Staged.run
    monkeypatch.setattr(Staged, "run", wrong)
    model, source = moving_model(tmp_path, (0, 0)), layout("gbrp", 96, 128)
    frames = [picture(source)] * 3
    for index in range(8):
        frames.append([plane.copy() for plane in frames[-1]])
        frames[-1][0][40 + index, 40] ^= 1
    frames[5:5] = [frames[4]] * 2
    engine, plain = reusing(model, source), BACKEND.open(model, source, enlarged(source), FP32)
    assert all(map(same, outputs(engine, frames), outputs(plain, frames)))
    assert engine.saved.partial == 0 and engine.saved.whole >= 8
    engine.close()
    plain.close()


@pytest.mark.usefixtures("many_stages")
def test_parts_that_fail_late_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When nothing is computed both ways any more, and frames to come are planned already."""
    runs = []

    def failing(self: Staged, slot: Slot, plan: staged.Plan) -> None:
        runs.append(plan)
        if len(runs) == 6:
            self.output[0].fill(3)
            raise BackendError("gone")
        right(self, slot, plan)

    right = Staged.run
    monkeypatch.setattr(Staged, "run", failing)
    model, source = moving_model(tmp_path, (0, 0)), layout("gbrp", 96, 128)
    frames = [picture(source)] * 3
    for _ in range(10):
        frames.append([plane.copy() for plane in frames[-1]])
        frames[-1][0][40, 40] += 1
    engine, plain = reusing(model, source), BACKEND.open(model, source, enlarged(source), FP32)
    assert all(map(same, outputs(engine, frames), outputs(plain, frames)))
    assert engine.saved.partial == 5 and len(runs) == 6
    engine.close()
    plain.close()


@pytest.mark.parametrize("size", [(97, 128), (96, 129)])
def test_sizes_that_cannot_be_cut_are_compared_whole(size: tuple[int, int]) -> None:
    source = layout("yuv420p", *size)
    model = models.load("span-fast")
    assert stages_of(BACKEND, model, source, enlarged(source), FP32, budget_bytes=2**30) is None


def test_what_is_kept_stays_within_its_memory() -> None:
    source, model = layout("yuv420p", 96, 128), models.load("span")
    ends = (BACKEND, model, source, enlarged(source), FP32)
    counts = []
    for budget in (2**30, 2**27, 0):
        stages = stages_of(*ends, budget_bytes=budget)
        counts.append(len(stages or ()))
        kept = {tensor.name: tensor for cut in stages or () for tensor in cut.tensors}
        assert sum(4 * math.prod(tensor.shape) for tensor in kept.values()) <= budget
    assert counts[0] > counts[1] > counts[2] == 0


@pytest.mark.parametrize(
    ("clip", "start", "least"),
    [("screen_recording_tscc.avi", 0, 0.2), ("screen_recording_vp8_or_vp9.webm", 4, 0), ("anime_640x480.mp4", 0, 0)],
)
def test_a_video_is_the_same_with_and_without(shared: Path, clip: str, start: int, least: float) -> None:
    path = shared / "clips" / clip
    settings = Settings(model="span-fast", start=Fraction(start), end=Fraction(start + 1))
    with job_in(path, settings) as job:
        assert once(job, "null").reused >= least
    made = resolve_stream(path, settings).frames()
    plain = resolve_stream(path, replace(settings, reuse="off")).frames()
    count = 0
    for one, other in zip(made, plain, strict=True):
        assert same(one.planes, other.planes) and one.pts == other.pts
        count += 1
    assert count > 10


def test_a_word_that_is_none(clip: Path) -> None:
    with pytest.raises(UsageError, match="--reuse sometimes: choose auto or off"):
        resolve_stream(clip, Settings(reuse="sometimes"))  # type: ignore[arg-type]


def scrolling(source: FrameLayout, downs: Sequence[int], *, part: tuple[slice, slice]) -> list[list[Plane]]:
    """A picture with a small change, and a part of it that moves by so many pixels each frame, with something new
    coming in."""
    frames = [picture(source, 1)] * 3
    for _ in range(4):
        frames.append([plane.copy() for plane in frames[-1]])
        frames[-1][0][50, 50] ^= 1
    for index, down in enumerate(downs):
        fresh, now = picture(source, 10 + index), [plane.copy() for plane in frames[-1]]
        for number, plane in enumerate(now):
            tall, wide = source.chroma if 0 < number < 3 else (1, 1)
            rows, columns = (
                slice(each.start // by, each.stop // by) for each, by in zip(part, (tall, wide), strict=True)
            )
            shift, height = down // tall, rows.stop - rows.start
            moved = np.roll(plane[rows, columns], shift, axis=0)
            edge = slice(0, shift) if down > 0 else slice(height + shift, height)
            moved[edge] = fresh[number][rows, columns][edge]
            plane[rows, columns] = moved
        frames.append(now)
    return frames


@pytest.mark.parametrize("down", [6, -10, 24])
@pytest.mark.parametrize("part", [(slice(0, 448), slice(0, 384)), (slice(20, 428), slice(16, 364))])
@pytest.mark.parametrize("name", ["gbrp", "yuv420p"])
@pytest.mark.usefixtures("many_stages")
def test_what_scrolls_is_moved(
    tmp_path: Path, down: int, part: tuple[slice, slice], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reuse, "_WORTH", 0.9)
    model, source = moving_model(tmp_path, (0, 2)), layout(name, 448, 384)
    frames = scrolling(source, [down] * 8, part=part)
    engine, plain = reusing(model, source), BACKEND.open(model, source, enlarged(source), FP32)
    moves = []
    monkeypatch.setattr(Staged, "_move", lambda self, move: (moves.append(move.down), real(self, move)))
    made, wanted = list(outputs(engine, frames)), list(outputs(plain, frames))
    assert [same(one, other) for one, other in zip(made, wanted, strict=True)] == [True] * len(frames)
    assert moves and set(moves) == {down}
    engine.close()
    plain.close()


real = Staged._move


def test_a_scroll_is_measured_from_the_frame_whose_output_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pixel a frame cannot be moved in 4:2:0, two a frame can: the closer look must not end between the two."""
    monkeypatch.setattr(reuse, "_WORTH", 0.9)
    monkeypatch.setattr(staged, "_TILE_PAIRS", 0)
    model, source = moving_model(tmp_path, (0, 2)), layout("yuv420p", 448, 384)
    ends = (BACKEND, model, source, enlarged(source), FP32)
    stages = stages_of(*ends, budget_bytes=2**30)
    assert stages is not None and len(stages) == 1
    frames = scrolling(source, [2] * 6 + [1] * 24, part=(slice(0, 448), slice(0, 384)))
    for _, *chroma in frames:
        for plane in chroma:
            plane.fill(128)
    engine, plain = ReusingEngine(BACKEND.open(*ends[1:]), lambda: Staged(*ends, stages)), BACKEND.open(*ends[1:])
    made, wanted = list(outputs(engine, frames)), list(outputs(plain, frames))
    assert [same(one, other) for one, other in zip(made, wanted, strict=True)] == [True] * len(frames)
    assert engine.saved.partial >= 8
    engine.close()
    plain.close()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_the_same_in_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through small changes, a cut, other colours, and small changes again."""
    monkeypatch.setattr(reuse, "_WORTH", 1e9)
    source, model = layout(name, 144, 192), models.load("span-fast")
    frames = [picture(source)] * 3
    for index in range(16):
        frames.append(picture(source, 9) if index == 7 else [plane.copy() for plane in frames[-1]])
        for plane in frames[-1]:
            plane[20 + index, 30] ^= 1
    settings = Settings(model="span-fast", precision="fp32")
    made = []
    for each in (settings, replace(settings, reuse="off")):
        engine = plan_engine(each, model, source, enlarged(source)).open()
        slot = engine.slots(1)[0]
        made.append([])
        for index, planes in enumerate(frames):
            fill(engine, slot, planes)
            if 12 <= index < 15:
                slot.rgb_from_codes *= 0.875
            engine.submit(slot)
            engine.wait(slot)
            made[-1].append([plane.copy() for plane in slot.output])
        if isinstance(engine, ReusingEngine):
            assert engine.saved.partial >= 10
        engine.close()
    assert list(map(same, *made)) == [True] * len(frames)


@pytest.mark.usefixtures("many_stages")
def test_what_is_between_bars_is_computed_alone(tmp_path: Path) -> None:
    model, source = moving_model(tmp_path, (2, 2)), layout("yuv420p", 480, 256)
    frames = []
    for index in range(12):
        frames.append(picture(source, index))
        for number, plane in enumerate(frames[-1]):
            bar = 180 // (2 if number else 1)
            plane[:bar] = plane[-bar:] = 128 if number else 16
    engine, plain = reusing(model, source), BACKEND.open(model, source, enlarged(source), FP32)
    assert all(map(same, outputs(engine, frames), outputs(plain, frames)))
    assert engine.saved.partial >= 8
    assert engine.saved.cost / engine.saved.partial < 0.85
    engine.close()
    plain.close()


@pytest.mark.parametrize("size", [(64, 64), (96, 128), (128, 128), (120, 160), (64, 300)])
def test_small_frames(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reuse, "_WORTH", 1e9)
    source, model = layout("yuv420p", *size), models.load("span-fast")
    frames = [picture(source)] * 3
    for index in range(6):
        frames.append([plane.copy() for plane in frames[-1]])
        frames[-1][0][20 + index, 30] ^= 1
    settings = Settings(model="span-fast", precision="fp32")
    engine = plan_engine(settings, model, source, enlarged(source)).open()
    plain = plan_engine(replace(settings, reuse="off"), model, source, enlarged(source)).open()
    assert all(map(same, outputs(engine, frames), outputs(plain, frames)))
    assert isinstance(engine, ReusingEngine) and engine.saved.partial >= 4
    engine.close()
    plain.close()


def test_a_model_that_sees_too_far_is_compared_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_reuse.RADIUS", 150)
    source = layout("gbrp", 600, 600)
    ends = (BACKEND, moving_model(tmp_path, (0, 0)), source, enlarged(source), FP32)
    assert stages_of(*ends, budget_bytes=2**33) is None


def test_a_chain_is_compared_whole() -> None:
    source, chain = layout("yuv420p", 96, 128), models.choose("span-fast", Fraction(4))
    assert len(chain.members) == 2
    assert stages_of(BACKEND, chain, source, enlarged(source, 4), FP32, budget_bytes=2**33) is None


@pytest.mark.usefixtures("many_stages")
def test_tensors_that_a_library_calls_by_another_name(tmp_path: Path) -> None:
    """OpenVINO takes nodes away that do nothing, and gives their names to what was before them."""
    proto = moving_model(tmp_path, (0, 2)).proto
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    for node in nodes:
        proto.graph.node.append(node)
        if node.op_type == "Conv":
            name, node.output[0] = node.output[0], f"{node.output[0]}_before"
            proto.graph.node.append(helper.make_node("Identity", [node.output[0]], [name], name=f"{name}_id"))
            proto.graph.node[-2].CopyFrom(node)
    path = tmp_path / "idle.onnx"
    onnx.save(proto, path)
    source = layout("gbrp", 96, 128)
    frames = [picture(source)] * 3
    for index in range(6):
        frames.append([plane.copy() for plane in frames[-1]])
        frames[-1][0][20 + index, 30] ^= 1
    engine = reusing(models.load(str(path)), source)
    plain = BACKEND.open(models.load(str(path)), source, enlarged(source), FP32)
    assert all(map(same, outputs(engine, frames), outputs(plain, frames)))
    assert engine.saved.partial >= 4
    engine.close()
    plain.close()


def test_frames_too_narrow_for_strips_do_not_scroll() -> None:
    source = layout("gray", 64, 4)
    before, now = picture(source, 1), picture(source, 2)
    assert scrolled(source, before, now, CELL, 1, np.ones((16, 1), bool)) is None


@pytest.mark.parametrize("precision", ["auto", "int8"])
def test_streams_change_no_bit(precision: Any) -> None:
    source, model = layout("yuv420p", 96, 128), models.load("span-fast")
    engines = [
        BACKEND.open(model, source, enlarged(source), BACKEND.settle(EngineOptions(precision=precision, streams=count)))
        for count in (1, 2)
    ]
    assert [engine.in_flight for engine in engines] == [2, 3]
    frames = [picture(source, seed) for seed in range(4)]
    assert all(map(same, *(outputs(engine, frames) for engine in engines)))
    for engine in engines:
        engine.close()


def test_streams_that_cannot_be_had_are_refused(clip: Path) -> None:
    with pytest.raises(BackendError, match=r"--streams 3: onnxruntime on .* computes one frame at a time"):
        resolve_stream(clip, Settings(backend="onnxruntime", streams=3))


def test_the_report_says_how_much_was_reused(tmp_path: Path) -> None:
    source = layout("yuv420p", 64, 64)
    engine = ReusingEngine(Counting(source))
    drawing = picture(source)
    for _ in outputs(engine, [drawing] * 8):
        pass
    assert engine.description == "counting, 75% reused"
