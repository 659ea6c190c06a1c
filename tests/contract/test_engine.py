"""Every backend does the same: one suite over all of `MODULES`, measured against the torch engine in FP32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from vidsr import backends, models
from vidsr.backends import Backend, Engine, EngineOptions, Slot
from vidsr.backends.base import PlainBackend
from vidsr.backends.tiled import TiledEngine, tile_size
from vidsr.color import BT601, BT709, RGB, ColorTags, conversion
from vidsr.errors import BackendError, MemoryBudgetError
from vidsr.frame import FrameLayout, Plane
from vidsr.graph import HEAD, TAIL, Builder, export_model
from vidsr.job import EnginePlan
from vidsr.models import Model

SPAN = Path(__file__).resolve().parents[2] / "engines" / "span.onnx"
LIMITED = ColorTags(matrix=BT709, full_range=False)
FULL = ColorTags(matrix=BT601, full_range=True)
RGB_FULL = ColorTags(matrix=RGB, full_range=True)
FORMATS: dict[str, dict[str, Any]] = {
    "yuv420p": {"family": "yuv", "bits": 8, "chroma": (2, 2)},
    "yuv420p10": {"family": "yuv", "bits": 10, "chroma": (2, 2), "siting": "topleft"},
    "yuv422p": {"family": "yuv", "bits": 8, "chroma": (1, 2), "siting": "center"},
    "yuv444p": {"family": "yuv", "bits": 8},
    "yuv411p": {"family": "yuv", "bits": 8, "chroma": (1, 4)},
    "gray": {"family": "gray", "bits": 8},
    "gbrp": {"family": "rgb", "bits": 8},
    "gbrp16": {"family": "rgb", "bits": 16},
}
EVEN, ODD = (24, 32), (17, 21)


def layout(name: str, height: int, width: int) -> FrameLayout:
    return FrameLayout(height=height, width=width, **FORMATS[name])


def enlarged(source: FrameLayout, scale: int = 2) -> FrameLayout:
    return replace(source, height=source.height * scale, width=source.width * scale)


def picture(source: FrameLayout, seed: int = 0) -> list[Plane]:
    """Noise with the spectrum of photographs, 1/f, over the limited range."""
    rng, planes = np.random.default_rng(seed), []
    for height, width in source.shapes:
        frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
        frequency[0, 0] = 1
        plane = np.fft.ifft2(np.fft.fft2(rng.standard_normal((height, width))) / frequency**1.2).real
        share = (plane - plane.min()) / max(np.ptp(plane), 1e-9)
        planes.append(np.rint((16 + 219 * share) * 2 ** (source.bits - 8)).astype(source.dtype))
    return planes


def fill(engine: Engine, slot: Slot, planes: Sequence[Plane], tags: ColorTags = LIMITED) -> None:
    source, target = engine.source, engine.target
    inward, outward = (RGB_FULL if side.family == "rgb" else tags for side in (source, target))
    gray = source.family == "gray"
    slot.convert(conversion(inward, outward, source_bits=source.bits, target_bits=target.bits, gray_source=gray))
    for place, plane in zip(slot.input, planes, strict=True):
        np.copyto(place, plane)


def result(engine: Engine, planes: Sequence[Plane], slot: Slot | None = None, tags: ColorTags = LIMITED) -> list[Plane]:
    """A copy of what the engine makes of one frame."""
    slot = slot or engine.slots(1)[0]
    fill(engine, slot, planes, tags)
    engine.submit(slot)
    engine.wait(slot)
    return [plane.copy() for plane in slot.output]


def opened(
    backend: Backend, model: Model, source: FrameLayout, target: FrameLayout | None = None, **options: Any
) -> Engine:
    settled = backend.settle(EngineOptions(**{"precision": "fp32", **options}))
    return backend.open(model, source, target or enlarged(source, model.scale), settled)


def difference(first: Sequence[Plane], second: Sequence[Plane]) -> NDArray[np.int64]:
    """Absolute differences of all planes in code values, in one row."""
    assert [plane.shape for plane in first] == [plane.shape for plane in second]
    return np.concatenate([abs(a.astype(np.int64) - b).ravel() for a, b in zip(first, second, strict=True)])


def same(first: Sequence[Plane], second: Sequence[Plane]) -> bool:
    return not difference(first, second).any()


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


def usable(name: str) -> Backend:
    try:
        return backends.load(name)
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=backends.MODULES)
def backend(request: pytest.FixtureRequest) -> Backend:
    return usable(request.param)


@pytest.fixture(scope="module")
def span() -> Model:
    return models.load(str(SPAN))


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """SPAN with two blocks of 16 channels on squares of two by two pixels, with weights by chance."""
    networks = pytest.importorskip("vidsr.networks.span", reason="needs torch", exc_type=ImportError)
    config = networks.SpanConfig(
        channels=16, scale=2, blocks=2, unshuffle=2, base="nearest", img_range=1.0, rgb_mean=(0.5, 0.5, 0.5)
    )
    rng, state = np.random.default_rng(5), {}
    for key, tensor in networks.Span(config).state_dict().items():
        spread = 0.1 if key.startswith("upsampler") else 1.5
        state[key] = rng.normal(0, spread / max(1, np.prod(tensor.shape[1:])) ** 0.5, tensor.shape).astype(np.float32)
    return written(tmp_path_factory.mktemp("models") / "squares.onnx", config, state)


def written(path: Path, config: Any, state: dict[str, NDArray[np.float32]]) -> Model:
    """SPAN as a model; base and normalisation are those of the tests."""
    from vidsr.networks import span

    metadata = {"network": "span", "base": "nearest", "img_range": "1.0", "rgb_mean": "0.5,0.5,0.5"}
    onnx.save(export_model(lambda b, x: span.export(b, x, state, config), name="small", metadata=metadata), path)
    return models.load(str(path))


@pytest.fixture(scope="module", params=["span", "squares"])
def model(request: pytest.FixtureRequest) -> Model:
    """One that works at full size, and one for which odd sizes have to be extended."""
    found: Model = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def engine(backend: Backend, model: Model) -> Iterator[Engine]:
    """For 4:2:0 frames of even size, shared by the tests that need no other."""
    engine = opened(backend, model, layout("yuv420p", *EVEN))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def references(model: Model) -> dict[FrameLayout, list[Plane]]:
    """What the torch engine makes of `picture`, by the layout of the source; filled as it is asked for."""
    torch = usable("torch")

    class References(dict[FrameLayout, list[Plane]]):
        def __missing__(self, source: FrameLayout) -> list[Plane]:
            engine = opened(torch, model, source, device="cpu")
            self[source] = result(engine, picture(source))
            engine.close()
            return self[source]

    return References()


# The seam


@pytest.mark.parametrize("size", [EVEN, ODD], ids=["even", "odd"])
@pytest.mark.parametrize("name", FORMATS)
def test_result_is_that_of_torch(
    backend: Backend, model: Model, references: dict[FrameLayout, list[Plane]], name: str, size: tuple[int, int]
) -> None:
    source = layout(name, *size)
    engine = opened(backend, model, source)
    assert (engine.source, engine.target) == (source, enlarged(source))
    found = difference(result(engine, picture(source)), references[source])
    engine.close()
    # A 16-bit code value is about what FP32 convolutions can differ by.
    assert found.max() <= (1 if source.bits < 16 else 4)
    assert np.mean(found > 0) < 0.02


@pytest.mark.parametrize(
    ("source", "target"), [("gbrp", "yuv420p"), ("yuv444p", "yuv420p10"), ("yuv420p", "gray"), ("gray", "yuv422p")]
)
def test_target_of_another_kind(backend: Backend, model: Model, source: str, target: str) -> None:
    ends = layout(source, *ODD), enlarged(layout(target, *ODD))
    engine, reference = opened(backend, model, *ends), opened(usable("torch"), model, *ends, device="cpu")
    found = difference(result(engine, picture(ends[0])), result(reference, picture(ends[0])))
    engine.close()
    reference.close()
    assert found.max() <= 1


@pytest.mark.parametrize("size", [ODD, (24, 21), (1, 1)])
def test_size_that_the_model_does_not_take(backend: Backend, squares: Model, size: tuple[int, int]) -> None:
    """As if the frame had its last row and column twice, and the result were cropped."""
    source = layout("gbrp", *size)
    assert squares.multiple == 2
    engine = opened(backend, squares, source)
    found = result(engine, picture(source))
    engine.close()
    height, width = (length + length % 2 for length in size)
    whole = opened(backend, squares, layout("gbrp", height, width))
    edges = ((0, height - size[0]), (0, width - size[1]))
    wanted = result(whole, [np.pad(plane, edges, mode="edge") for plane in picture(source)])
    whole.close()
    assert difference(found, [plane[: 2 * size[0], : 2 * size[1]] for plane in wanted]).max() <= 1


def test_slots(engine: Engine) -> None:
    """Planes as the layouts say, in memory of their own."""
    slots = [*engine.slots(2), *engine.slots(1)]
    assert len(slots) == 3
    for slot in slots:
        for planes, side in ((slot.input, engine.source), (slot.output, engine.target)):
            assert [plane.shape for plane in planes] == list(side.shapes)
            assert {plane.dtype for plane in planes} == {side.dtype}
        assert {matrix.shape for matrix in (slot.rgb_from_codes, slot.codes_from_rgb)} == {(3, 4)}
    arrays = [
        array for slot in slots for array in (*slot.input, *slot.output, slot.rgb_from_codes, slot.codes_from_rgb)
    ]
    starts = sorted((array.ctypes.data, array.nbytes) for array in arrays)
    for (start, length), (following, _) in pairwise(starts):
        assert start + length <= following


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_frames_in_flight(engine: Engine, order: tuple[int, ...]) -> None:
    """Several submitted before the first wait: each slot gets its own frame's result, by its own colours."""
    frames = [(picture(engine.source, seed), tags) for seed, tags in enumerate((LIMITED, FULL, LIMITED))]
    alone = [result(engine, planes, tags=tags) for planes, tags in frames]
    assert not same(alone[0], alone[2])
    slots = engine.slots(len(frames))
    for slot, (planes, tags) in zip(slots, frames, strict=True):
        fill(engine, slot, planes, tags)
        engine.submit(slot)
    for index in order:
        engine.wait(slots[index])
        assert same(slots[index].output, alone[index])
    for slot, expected in zip(slots, alone, strict=True):
        assert same(slot.output, expected)


def test_slots_are_used_again(engine: Engine) -> None:
    (slot,) = engine.slots(1)
    first, second = picture(engine.source, 1), picture(engine.source, 2)
    frames = [(first, LIMITED), (second, FULL), (first, LIMITED)]
    results = [result(engine, planes, slot, tags) for planes, tags in frames]
    assert same(results[0], results[2])
    assert not same(results[0], results[1])
    engine.submit(slot)
    engine.wait(slot)
    assert same(slot.output, results[0])


def test_planes_stay_where_they_are(engine: Engine) -> None:
    """The result lies in the slot's own arrays, and the input is left as it was."""
    (slot,) = engine.slots(1)
    planes = picture(engine.source)
    arrays = [*slot.input, *slot.output]
    addresses = [array.ctypes.data for array in arrays]
    for plane in slot.output:
        plane.fill(77)
    made = result(engine, planes, slot)
    assert all(before is after for before, after in zip(arrays, (*slot.input, *slot.output), strict=True))
    assert [array.ctypes.data for array in (*slot.input, *slot.output)] == addresses
    assert same(slot.input, planes)
    assert all(np.ptp(plane) for plane in made)


@pytest.mark.parametrize("in_flight", [0, 2])
def test_close(backend: Backend, squares: Model, in_flight: int) -> None:
    """Twice is harmless, also with frames nobody waited for."""
    engine = opened(backend, squares, layout("yuv420p", *EVEN))
    for slot in engine.slots(in_flight):
        fill(engine, slot, picture(engine.source))
        engine.submit(slot)
    engine.close()
    engine.close()


def test_description(engine: Engine, backend: Backend) -> None:
    assert backend.name in engine.description.lower().replace(" ", "")
    assert engine.description.endswith("FP32")


def test_settled_options(backend: Backend, tmp_path: Path) -> None:
    """Nothing is left open, the rest is kept, and settling again changes nothing."""
    options = backend.settle(EngineOptions(cache=tmp_path))
    assert "auto" not in (options.device, options.precision)
    assert options.cache == tmp_path
    assert backend.settle(options) == options


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "cpu.7"])
def test_unknown_device(backend: Backend, span: Model, device: str) -> None:
    with pytest.raises(BackendError) as error:
        opened(backend, span, layout("yuv420p", *EVEN), device=device)
    assert device in one_line(error).lower()


@pytest.mark.parametrize("precision", ["fp16", "nonsense"])
def test_precision_that_is_not_there(backend: Backend, precision: Any) -> None:
    """No processor here has FP16 convolutions; the others are no precisions of vidsr."""
    if precision == "fp16" and _has("FP16"):
        pytest.skip("this processor has FP16")
    with pytest.raises(BackendError) as error:
        backend.settle(EngineOptions(device="cpu", precision=precision))
    assert f"--precision {precision}" in one_line(error)


def test_cache(backend: Backend, model: Model, tmp_path: Path) -> None:
    """What comes out of the cache computes the same, also where another precision was put in."""
    source = layout("yuv420p", *EVEN)
    precisions = ["fp32", "auto", "fp32", "auto"]
    made = []
    for precision in precisions:
        engine = opened(backend, model, source, cache=tmp_path / "new", precision=precision)
        made.append(result(engine, picture(source)))
        engine.close()
    assert same(made[0], made[2])
    assert same(made[1], made[3])


@pytest.mark.parametrize("name", ["yuv420p", "gbrp"])
def test_guarded_model(backend: Backend, small_span: Model, name: str) -> None:
    """Noise makes random weights wild; every engine then gives what the guarded torch engine gives."""
    source = layout(name, *ODD)
    planes = [np.random.default_rng(4).choice([16, 235], shape).astype(source.dtype) for shape in source.shapes]
    made = []
    for library, guarded in ((backend, True), (backend, False), (usable("torch"), True)):
        engine = opened(
            library, replace(small_span, guarded=guarded), source, device="auto" if library is backend else "cpu"
        )
        made.append(result(engine, planes))
        engine.close()
    assert np.mean(difference(made[0], made[1]) > 8) > 0.1
    assert difference(made[0], made[2]).max() <= 1


def test_frame_that_the_model_cannot_take(backend: Backend, tmp_path: Path) -> None:
    """A frame has to be larger than what a network mirrors at its edges."""
    model = other_model(tmp_path, "mirrored")
    with pytest.raises(BackendError) as error:
        result(opened(backend, model, layout("gbrp", *ODD)), picture(layout("gbrp", *ODD)))
    assert model.name in one_line(error)


# Tiles


class Repeater(PlainBackend):
    """A backend and its engine, which repeats every sample, chroma as well: what is cut and pasted shows exactly."""

    name = description = "repeater"
    memory_overhead, in_flight = 1.0, 2
    source: FrameLayout
    target: FrameLayout

    def lack(self, device: str = "auto") -> None:
        return None

    def settle(self, options: EngineOptions) -> EngineOptions:
        return options

    def open(
        self,
        model: Model,
        source: FrameLayout,
        target: FrameLayout,
        options: EngineOptions,
        prepared: object = None,
    ) -> Engine:
        engine = Repeater()
        engine.source, engine.target = source, target
        return engine

    def slots(self, count: int) -> list[Slot]:
        return [Slot.allocate(self.source, self.target) for _ in range(count)]

    def submit(self, slot: Slot) -> None:
        scale = self.target.height // self.source.height
        for small, large in zip(slot.input, slot.output, strict=True):
            height, width = large.shape
            large[:] = small.repeat(scale, axis=0).repeat(scale, axis=1)[:height, :width]

    def wait(self, slot: Slot) -> None:
        pass

    def close(self) -> None:
        pass


def tiles(model: Model, source: FrameLayout, target: FrameLayout, count: int) -> list[tuple[int, int]]:
    """Up to `count` tile sizes, as smaller and smaller memory budgets give them."""
    found: dict[tuple[int, int], None] = {}
    budget = 2.0**40
    while True:
        budget *= 0.97
        try:
            tile = tile_size(model, source, target, item_bytes=4, overhead=1.0, budget_bytes=int(budget))
        except MemoryBudgetError:
            break
        if tile:
            found[tile] = None
    return list(found)[:: max(1, len(found) // count)][-count:]


@pytest.fixture(scope="module", params=[1, 2], ids=["pixels", "squares"])
def small_span(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """SPAN with two blocks of four channels, which every backend runs, fast; also on squares of pixels.

    Half of the channels look only up and left, the others only down and right, so that each result depends on the
    outermost of the 9 pixels around it.
    """
    networks = pytest.importorskip("vidsr.networks.span", reason="needs torch", exc_type=ImportError)
    config = networks.SpanConfig(
        channels=4, scale=2, blocks=2, unshuffle=request.param, base="nearest", img_range=1.0, rgb_mean=(0.5, 0.5, 0.5)
    )
    rng, state = np.random.default_rng(5), {}
    for key, tensor in networks.Span(config).state_dict().items():
        state[key] = rng.normal(0, 0.5, tensor.shape).astype(np.float32)
        if tensor.shape[2:] == (3, 3):
            taps = np.zeros(tensor.shape, np.float32)
            for side, half in ((0, slice(0, 2)), (2, slice(2, 4))):
                if key.startswith("upsampler"):
                    taps[:, half, side, side] = 0.4
                else:
                    taps[half, half if tensor.shape[1] == 4 else slice(None), side, side] = 3
            state[key] *= taps
    return written(tmp_path_factory.mktemp("models") / "small.onnx", config, state)


def tiled(backend: Backend, model: Model, source: FrameLayout, target: FrameLayout, tile: tuple[int, int]) -> Engine:
    options = backend.settle(EngineOptions(precision="fp32"))
    plan = EnginePlan(model=model, backend=backend, options=options, source=source, target=target, tile=tile)
    engine = plan.open()
    assert isinstance(engine, TiledEngine)
    return engine


def check_tiles(backend: Backend, model: Model, source: FrameLayout, target: FrameLayout, count: int) -> None:
    """`count` tile sizes give the picture that the whole frame gives."""
    sizes = tiles(model, source, target, count)
    assert len(sizes) == count
    planes = picture(source)
    whole = result(opened(backend, model, source, target), planes)
    for tile in sizes:
        engine = tiled(backend, model, source, target, tile)
        found = difference(result(engine, planes), whole)
        engine.close()
        assert found.max() <= 1, tile
        assert np.mean(found > 0) < 0.001, tile


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("yuv420p", (72, 96)),
        ("yuv420p10", (73, 99)),
        ("yuv411p", (51, 131)),
        ("gray", (61, 101)),
        ("gbrp", (101, 83)),
    ],
)
def test_tiles_make_the_whole_frame(backend: Backend, small_span: Model, name: str, size: tuple[int, int]) -> None:
    source = layout(name, *size)
    check_tiles(backend, small_span, source, enlarged(source), 4)


def test_tiles_of_the_shipped_model(backend: Backend, span: Model) -> None:
    source = layout("yuv420p", 85, 101)
    check_tiles(backend, span, source, enlarged(source), 2)


def test_tiled_engine_is_an_engine(backend: Backend, small_span: Model) -> None:
    """Frames in flight, a slot used again, the planes' place, and the description."""
    source = layout("yuv420p", 67, 79)
    engine = tiled(backend, small_span, source, enlarged(source), (65, 71))
    frames = [picture(source, seed) for seed in range(2)]
    alone = [result(engine, planes) for planes in frames]
    slots = engine.slots(2)
    outputs = [slot.output for slot in slots]
    for slot, planes in zip(slots, frames, strict=True):
        fill(engine, slot, planes)
        engine.submit(slot)
    for slot, expected, output, planes in zip(slots, alone, outputs, frames, strict=True):
        engine.wait(slot)
        assert slot.output is output
        assert same(slot.output, expected)
        assert same(slot.input, planes)
    assert same(result(engine, frames[1], slots[0]), alone[1])
    assert "tiles of 71x65" in engine.description
    engine.close()
    engine.close()


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["yuv420p", "yuv422p", "yuv444p", "yuv411p", "gray", "gbrp16"])
def test_tiles_meet(small_span: Model, name: str, scale: int) -> None:
    """No gap, no overlap, no shift: for every tile size that there is, at even and odd sizes."""
    for size in ((64, 96), (65, 97), (111, 62), (30, 131)):
        source = layout(name, *size)
        target = enlarged(source, scale)
        planes = picture(source)
        whole = result(opened(Repeater(), small_span, source, target), planes)
        for tile in tiles(small_span, source, target, 12):
            assert same(result(tiled(Repeater(), small_span, source, target, tile), planes), whole), (size, tile)


@pytest.mark.parametrize("size", [(72, 96), (1080, 1920), (40, 4000), (2160, 3841)])
@pytest.mark.parametrize("name", ["yuv420p", "yuv411p", "gray"])
def test_tiles_shrink_with_the_budget(span: Model, name: str, size: tuple[int, int]) -> None:
    """Whole frames as long as they fit, then smaller and smaller tiles, at last a refusal."""
    source = layout(name, *size)
    target, budget, found = enlarged(source), 2**40, []
    assert tile_size(span, source, target, item_bytes=4, overhead=1.0, budget_bytes=budget) is None
    with pytest.raises(MemoryBudgetError) as error:  # noqa: PT012 - which budget is refused first is not the point
        while budget := budget * 3 // 4:
            found.append((budget, tile_size(span, source, target, item_bytes=4, overhead=1.0, budget_bytes=budget)))
    assert "--memory" in one_line(error)
    cut = [(budget, tile) for budget, tile in found if tile is not None]
    assert cut
    assert cut == found[-len(cut) :]
    assert all(height <= source.height and width <= source.width for _, (height, width) in cut)
    assert all(a[0] * a[1] >= b[0] * b[1] for (_, a), (_, b) in pairwise(cut))
    for budget, (height, width) in cut:
        part = replace(source, height=height, width=width)
        assert tile_size(span, part, enlarged(part), item_bytes=4, overhead=1.0, budget_bytes=budget) is None
        half = tile_size(span, source, target, item_bytes=2, overhead=1.0, budget_bytes=budget) or size
        assert half[0] * half[1] >= height * width


def test_model_that_cannot_be_cut(tmp_path: Path) -> None:
    model = other_model(tmp_path, "averaged")
    source = layout("yuv420p", 1080, 1920)
    assert tile_size(model, source, enlarged(source), item_bytes=4, overhead=1.0, budget_bytes=2**40) is None
    with pytest.raises(MemoryBudgetError) as error:
        tile_size(model, source, enlarged(source), item_bytes=4, overhead=1.0, budget_bytes=2**20)
    text = one_line(error)
    assert "averaged" in text
    assert "--memory" in text


def other_model(folder: Path, kind: str) -> Model:
    """Networks with something in them that SPAN has not."""
    build, rng = Builder(), np.random.default_rng(3)

    def conv(value: str, outputs: int, size: int, pads: list[int], **name: str) -> str:
        weights = rng.normal(0, 0.3 / size, (outputs, 3, size, size)).astype(np.float32)
        return build.op("Conv", value, build.constant(weights), pads=pads, **name)

    if kind == "pooled":
        half = build.op("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2])
        build.op("DepthToSpace", conv(half, 12, 3, [1] * 4), name="y", blocksize=2)
    elif kind == "averaged":
        build.op("Add", conv("x", 3, 3, [1] * 4), build.op("GlobalAveragePool", "x"), name="y")
    elif kind == "lopsided":
        conv("x", 3, 17, [16, 16, 0, 0], name="y")
    elif kind == "mirrored":
        edges = build.constant([0, 0, 20, 20, 0, 0, 20, 20])
        conv(build.op("Pad", "x", edges, mode="reflect"), 3, 41, [0] * 4, name="y")
    elif kind == "padded":
        edges = build.constant([0, 0, 16, 16, 0, 0, 0, 0])
        conv(build.op("Pad", "x", edges, mode="edge"), 3, 17, [0] * 4, name="y")
    else:
        scale = int(kind[1:])
        build.op("DepthToSpace", conv("x", 3 * scale**2, 5, [2] * 4), name="y", blocksize=scale)
    inputs, outputs = ([onnx.helper.make_tensor_value_info(name, 1, [1, 3, None, None])] for name in "xy")
    path = folder / f"{kind}.onnx"
    onnx.save(build.model(inputs, outputs, name=kind), path)
    return models.load(str(path))


def conv_weights(build: Builder, rng: np.random.Generator, size: int) -> str:
    return build.constant(rng.normal(0, 0.3 / size, (3, 3, size, size)).astype(np.float32))


@pytest.mark.parametrize(
    "kind",
    [
        "x2",
        "pooled",
        "lopsided",
        "padded",
    ],
)
def test_tiles_of_other_networks(tmp_path: Path, kind: str) -> None:
    """They are cut exactly, at places that suit them."""
    model, source = other_model(tmp_path, kind), layout("gbrp", 89, 111)
    assert model.radius is not None
    check_tiles(usable("openvino"), model, source, enlarged(source, model.scale), 5)


@pytest.mark.parametrize(
    ("kind", "source", "target"),
    [
        ("x2", "gbrp", "yuv420p"),
        ("x3", "yuv420p", "gbrp"),
        ("x1", "yuv420p", "yuv420p"),
        ("x1", "gbrp", "yuv420p"),
        ("x2", "yuv444p", "yuv411p"),
        ("x3", "yuv444p", "yuv420p"),
    ],
)
def test_tiles_between_layouts(tmp_path: Path, kind: str, source: str, target: str) -> None:
    """The chroma of the target has a grid of its own."""
    model, small = other_model(tmp_path, kind), layout(source, 88, 110)
    large = enlarged(layout(target, 88, 110), model.scale)
    check_tiles(usable("openvino"), model, small, large, 5)


# BF16


def _has(ability: str) -> bool:
    openvino = pytest.importorskip("openvino")
    return ability in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture(scope="module")
def openvino() -> Backend:
    if not _has("BF16"):
        pytest.skip("needs a processor with BF16")
    return usable("openvino")


def in_both(openvino: Backend, model: Model, source: FrameLayout, planes: Sequence[Plane]) -> list[list[Plane]]:
    """Results in FP32 and in BF16."""
    return [result(opened(openvino, model, source, precision=kind), planes) for kind in ("fp32", "bf16")]


def test_bf16_is_chosen(openvino: Backend) -> None:
    assert openvino.settle(EngineOptions()).precision == "bf16"


@pytest.mark.parametrize("name", ["yuv420p", "yuv420p10"])
def test_bf16_picture(openvino: Backend, span: Model, name: str) -> None:
    source = layout(name, 72, 96)
    exact, fast = in_both(openvino, span, source, picture(source))
    found = difference(exact, fast) / 2 ** (source.bits - 8)
    assert 0 < found.mean() < 0.1


@pytest.mark.parametrize(("name", "width"), [("yuv420p", 768), ("yuv420p10", 2048)])
def test_bf16_ramp(openvino: Backend, span: Model, name: str, width: int) -> None:
    """No banding: all code values of the FP32 result occur."""
    source = layout(name, 8, width)
    step = 2 ** (source.bits - 8)
    planes = [np.full(shape, 128 * step, source.dtype) for shape in source.shapes]
    planes[0][:] = np.rint(np.linspace(16 * step, 235 * step, width))
    results = in_both(openvino, span, source, planes)
    assert difference(*results).max() <= 2 * step
    # Near its ends the ramp is not smooth: it meets the border.
    exact, fast = (set(np.unique(planes[0][:, 50:-50])) for planes in results)
    assert len(exact) > 200 * step
    assert exact <= fast


@pytest.mark.parametrize("base", ["nearest", "none"])
@pytest.mark.parametrize("size", [EVEN, ODD], ids=["even", "odd"])
def test_bf16_only_in_the_network(openvino: Backend, model: Model, base: str, size: tuple[int, int]) -> None:
    """As the compiled graph itself reports: colours and the last convolution's sums stay in FP32."""
    if base == "none":
        model = replace(model, proto=_without_base(model.proto))
    engine = opened(openvino, model, layout("yuv420p", *size), precision="bf16")
    convolutions, last = [], []
    for node in engine._compiled.get_runtime_model().get_ordered_ops():  # type: ignore[attr-defined]
        info = {key: value.astype(str) for key, value in node.get_rt_info().items()}
        names = info["originalLayersNames"].split(",")
        ours = [name.startswith((HEAD, TAIL)) for name in names]
        if any(ours) and "upsampler.0" not in names:
            assert info["runtimePrecision"] not in ("bf16", "f16"), info
        elif info["layerType"] == "Convolution":
            convolutions.append(info["runtimePrecision"])
        if "upsampler.0" in names:
            last.append(info["outputPrecisions"])
    engine.close()
    assert convolutions == ["bf16"] * sum(node.op_type == "Conv" for node in model.proto.graph.node)
    assert last == ["f32"]


def _without_base(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model as the official ones are: the last convolution goes straight into the pixel shuffle."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    nodes = copy.graph.node
    *_, last = (index for index, node in enumerate(nodes) if node.op_type == "Conv")
    shuffle = next(node for node in nodes if node.op_type == "DepthToSpace")
    shuffle.input[0] = nodes[last].output[0]
    del nodes[last + 1 : -1]
    return copy
