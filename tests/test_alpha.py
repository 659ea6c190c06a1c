"""Transparency is enlarged by the same model as the colours, and what is flat stays flat."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidsr import backends, models
from vidsr.backends import Backend, Engine, EngineOptions, Slot
from vidsr.backends.alpha import AlphaEngine
from vidsr.backends.tiled import TiledEngine
from vidsr.color import BT709, RGB, ColorTags, conversion
from vidsr.errors import BackendError
from vidsr.frame import FrameLayout, Plane
from vidsr.models import Model

SPAN = Path(__file__).resolve().parents[1] / "engines" / "span.onnx"
LIMITED = ColorTags(matrix=BT709, full_range=False)
RGB_FULL = ColorTags(matrix=RGB, full_range=True)
FORMATS: dict[str, dict[str, Any]] = {
    "yuva420p": {"family": "yuv", "bits": 8, "chroma": (2, 2)},
    "yuva444p10le": {"family": "yuv", "bits": 10},
    "gbrap": {"family": "rgb", "bits": 8},
    "gbrap16le": {"family": "rgb", "bits": 16},
}
Open = Callable[[FrameLayout, FrameLayout], Engine]


def layout(name: str, height: int = 24, width: int = 32) -> FrameLayout:
    return FrameLayout(height=height, width=width, alpha=True, **FORMATS[name])


def enlarged(source: FrameLayout) -> FrameLayout:
    return replace(source, height=2 * source.height, width=2 * source.width)


@pytest.fixture(params=["openvino", "onnxruntime"])
def backend(request: pytest.FixtureRequest) -> Backend:
    try:
        return backends.load(request.param)
    except BackendError as error:
        pytest.skip(str(error))


def opener(backend: Backend, model: Model) -> Open:
    options = backend.settle(EngineOptions(precision="fp32"))
    return lambda source, target: backend.open(model, source, target, options)


@pytest.fixture
def repeat(backend: Backend, nearest: Path) -> Open:
    return opener(backend, models.load(str(nearest)))


@pytest.fixture
def span(backend: Backend) -> Open:
    return opener(backend, models.load(str(SPAN)))


def noise(source: FrameLayout, seed: int = 0) -> list[Plane]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 2**source.bits, shape).astype(source.dtype) for shape in source.shapes]


def fill(slot: Slot, engine: Engine, planes: Sequence[Plane]) -> None:
    ends = [RGB_FULL if side.family == "rgb" else LIMITED for side in (engine.source, engine.target)]
    slot.convert(conversion(*ends, source_bits=engine.source.bits, target_bits=engine.target.bits))
    for place, plane in zip(slot.input, planes, strict=True):
        np.copyto(place, plane)


@pytest.fixture
def engines() -> Iterator[list[Engine]]:
    opened: list[Engine] = []
    yield opened
    for engine in opened:
        engine.close()
        engine.close()


def result(engine: Engine, planes: Sequence[Plane]) -> list[Plane]:
    slot = engine.slots(1)[0]
    fill(slot, engine, planes)
    engine.submit(slot)
    engine.wait(slot)
    return [plane.copy() for plane in slot.output]


@pytest.mark.parametrize("name", FORMATS)
def test_alpha_is_enlarged(repeat: Open, engines: list[Engine], name: str) -> None:
    """By a model that repeats pixels: alpha comes out repeated, colours as without alpha."""
    source = layout(name)
    engine = AlphaEngine(repeat, source, enlarged(source))
    plain = repeat(replace(source, alpha=False), replace(enlarged(source), alpha=False))
    engines += [engine, plain]
    planes = noise(source)
    found = result(engine, planes)
    assert [plane.shape for plane in found] == list(enlarged(source).shapes)
    assert np.array_equal(found[-1], planes[-1].repeat(2, 0).repeat(2, 1))
    for mine, other in zip(found[:-1], result(plain, planes[:-1]), strict=True):
        assert np.array_equal(mine, other)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", FORMATS)
def test_flat_alpha_stays_flat(span: Open, engines: list[Engine], name: str, share: float) -> None:
    source = layout(name)
    engines.append(AlphaEngine(span, source, enlarged(source)))
    planes = noise(source)
    planes[-1][:] = value = round(share * (2**source.bits - 1))
    assert (result(engines[0], planes)[-1] == value).all()


def test_edges_get_no_halo(span: Open, engines: list[Engine]) -> None:
    """Away from an edge, alpha is exactly 0 and 255, whatever the network makes of it."""
    source = layout("yuva420p")
    engines.append(AlphaEngine(span, source, enlarged(source)))
    planes = noise(source)
    planes[-1][:] = 0
    planes[-1][:, 16:] = 255
    alpha = result(engines[0], planes)[-1]
    assert (alpha[:, :30] == 0).all()
    assert (alpha[:, 34:] == 255).all()
    assert (np.diff(alpha.astype(int), axis=1)[4:-4] >= -8).all()


def test_another_depth(repeat: Open, engines: list[Engine]) -> None:
    source = layout("gbrap")
    target = enlarged(layout("gbrap16le"))
    engines.append(AlphaEngine(repeat, source, target))
    planes = noise(source)
    planes[-1][0, :2] = 0, 255
    alpha = result(engines[0], planes)[-1]
    assert alpha.dtype == np.uint16
    assert (alpha[0, 0], alpha[0, 2]) == (0, 65535)
    assert np.array_equal(alpha, planes[-1].astype(np.uint16).repeat(2, 0).repeat(2, 1) * 257)


def test_frames_in_flight(repeat: Open, engines: list[Engine]) -> None:
    """Slots do not mix, also where one of them has flat alpha."""
    source = layout("yuva420p")
    engine = AlphaEngine(repeat, source, enlarged(source))
    engines.append(engine)
    frames = [noise(source, seed) for seed in range(3)]
    frames[1][-1][:] = 7
    alone = [result(engine, planes) for planes in frames]
    slots = engine.slots(3)
    for slot, planes in zip(slots, frames, strict=True):
        fill(slot, engine, planes)
        engine.submit(slot)
    for slot, expected in zip(slots, alone, strict=True):
        engine.wait(slot)
        assert all(np.array_equal(mine, other) for mine, other in zip(slot.output, expected, strict=True))


def test_in_tiles(repeat: Open, engines: list[Engine]) -> None:
    source = layout("yuva420p", 48, 64)

    def tiles(inner: FrameLayout, target: FrameLayout) -> Engine:
        return TiledEngine(repeat, inner, target, tile=(32, 32), halo=8)

    engines += [AlphaEngine(tiles, source, enlarged(source)), AlphaEngine(repeat, source, enlarged(source))]
    planes = noise(source)
    cut, whole = (result(engine, planes) for engine in engines)
    assert all(np.array_equal(mine, other) for mine, other in zip(cut, whole, strict=True))


def test_nothing_stays_open_when_the_second_engine_fails(repeat: Open) -> None:
    """Frames can be too large for two engines at once."""
    opened: list[Engine] = []
    closed: list[Engine] = []

    class Watched:
        def __init__(self, engine: Engine) -> None:
            self.engine = engine

        def __getattr__(self, name: str) -> Any:
            return getattr(self.engine, name)

        def close(self) -> None:
            closed.append(self.engine)
            self.engine.close()

    def open_one(source: FrameLayout, target: FrameLayout) -> Any:
        if opened:
            raise BackendError("no memory left")
        opened.append(repeat(source, target))
        return Watched(opened[0])

    source = layout("yuva420p")
    with pytest.raises(BackendError, match="no memory"):
        AlphaEngine(open_one, source, enlarged(source))
    assert closed == opened


def test_both_sides_need_alpha(repeat: Open) -> None:
    source = layout("yuva420p")
    with pytest.raises(ValueError, match="alpha"):
        AlphaEngine(repeat, source, replace(enlarged(source), alpha=False))
