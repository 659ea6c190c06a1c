"""Nothing moves: the picture lies where it lay, whatever the factor, in luma and in chroma.

A pattern of slow waves goes through the whole pipeline. What comes out is fitted with the pattern and its slopes, which
says how far it moved, whatever a model does to its contrast.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import vidsr
from vidsr.backends import load
from vidsr.errors import BackendError
from vidsr.frame import FrameLayout, Siting
from vidsr.graph import Builder
from vidsr.media.pixel import planes_of
from vidsr.media.resize import Resizer

Array = NDArray[np.float64]

WIDTH, HEIGHT = 96, 80
CHROMA = {"yuv420p10le": (2, 2), "yuv422p10le": (1, 2), "yuv444p10le": (1, 1)}
TURNS = list(itertools.product((False, True), repeat=2))
LIMIT = 0.05
"""Pixels of the output."""
CHROMA_BY_4 = 2 * LIMIT
"""What `span-x4` does itself (docs/design.md): it moves slow waves of chroma by 0.065, and in a chain by 0.096."""
_EDGE = 12
"""Source pixels at the border that are not looked at: there the waves end and edges repeat."""


def waves(plane: int, rows: Array, columns: Array, turned: tuple[bool, bool]) -> tuple[Array, Array, Array]:
    """(value, slope down, slope right) in 0..1 at places in source pixels, the corner being (0, 0).

    turned: whether top and bottom, left and right are exchanged.
    """
    rng = np.random.default_rng(plane)
    rows, columns = (HEIGHT - rows if turned[0] else rows), (WIDTH - columns if turned[1] else columns)
    value, down, right = (np.zeros((len(rows), len(columns))) for _ in range(3))
    for _ in range(6):
        angle, phase, length = (float(rng.uniform(*ends)) for ends in ((0, 2 * np.pi), (0, 2 * np.pi), (6, 14)))
        along, across = (2 * np.pi / length * part for part in (np.sin(angle), np.cos(angle)))
        place = along * rows[:, None] + across * columns[None, :] + phase
        value += np.sin(place) / 14
        down += along * np.cos(place) / 14
        right += across * np.cos(place) / 14
    return value + 0.5, (-down if turned[0] else down), (-right if turned[1] else right)


def samples(
    shape: tuple[int, int], chroma: tuple[int, int], siting: Siting, scale: tuple[float, float]
) -> tuple[Array, Array]:
    """Centres of a plane's samples, (rows, columns) in source pixels.

    chroma: pixels to a sample, (1, 1) for luma. scale: (down, right) that the picture was enlarged by.
    """
    down = 0.0 if siting == "topleft" else (chroma[0] - 1) / 2
    right = (chroma[1] - 1) / 2 if siting == "center" else 0.0
    rows = (np.arange(shape[0]) * chroma[0] + down + 0.5) / scale[0]
    columns = (np.arange(shape[1]) * chroma[1] + right + 0.5) / scale[1]
    return rows, columns


def shift(
    found: Array, plane: int, rows: Array, columns: Array, turned: tuple[bool, bool], scale: tuple[float, float]
) -> tuple[float, float]:
    """(down, right) that a plane lies beside the waves, in pixels of the output."""
    inner = np.ix_((rows > _EDGE) & (rows < HEIGHT - _EDGE), (columns > _EDGE) & (columns < WIDTH - _EDGE))
    # A model mixes colours a little: what it takes from the other planes is fitted with theirs.
    order = (plane, *{0, 1, 2} - {plane})
    parts = [part[inner].ravel() for other in order for part in waves(other, rows, columns, turned)]
    basis = np.stack([np.ones_like(parts[0]), *parts], axis=1)
    (_, contrast, down, right, *_), *_ = np.linalg.lstsq(basis, found[inner].ravel(), rcond=None)
    assert contrast > 0
    return -down / contrast * scale[0], -right / contrast * scale[1]


def codes(plane: int, rows: Array, columns: Array, turned: tuple[bool, bool]) -> NDArray[np.uint16]:
    """10-bit samples of the waves; chroma of so little contrast that no colour leaves the range."""
    value = waves(plane, rows, columns, turned)[0]
    return np.round(512 + (value - 0.5) * (600 if plane == 0 else 250)).astype(np.uint16)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The waves in all turns by pixel format, without loss; chroma lies left, as in every file that does not say."""
    folder, found = tmp_path_factory.mktemp("waves"), {}
    for name, chroma in CHROMA.items():
        found[name] = folder / f"{name}.mkv"
        with av.open(str(found[name]), "w") as output:
            stream = output.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, name
            for index, turned in enumerate(TURNS):
                frame = av.VideoFrame(WIDTH, HEIGHT, name)
                frame.pts, frame.time_base = index, Fraction(1, 25)
                for plane, target in enumerate(planes_of(frame)):
                    lie = samples(target.shape, chroma if plane else (1, 1), "left", (1, 1))
                    np.copyto(target, codes(plane, *lie, turned))
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    return found


def measured(clip: Path, chroma: tuple[int, int], **choices: Any) -> Array:
    """float64 [3, 2]: how far each plane moved (down, right), the mean of all turns: what is the pattern's and not the
    model's turns with it."""
    found = []
    for frame, turned in zip(vidsr.frames(clip, **choices), TURNS, strict=True):
        scale = frame.planes[0].shape[0] / HEIGHT, frame.planes[0].shape[1] / WIDTH
        for index, plane in enumerate(frame.planes):
            lie = samples(plane.shape, chroma if index else (1, 1), "left", scale)
            found.append(shift(plane.astype(np.float64), index, *lie, turned, scale))
    return np.reshape(found, (len(TURNS), 3, 2)).mean(axis=0)


@pytest.fixture(scope="module")
def cubic(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that interpolates and moves nothing: what moves is ours."""
    build = Builder()
    factors = build.constant(np.array([1, 1, 2, 2], np.float32))
    build.op("Resize", "x", "", factors, name="y", mode="cubic", cubic_coeff_a=-0.5)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, None, None]) for name in "xy"]
    path = tmp_path_factory.mktemp("models") / "cubic.onnx"
    onnx.save(build.model(ends[:1], ends[1:], name="cubic"), path)
    return str(path)


@pytest.fixture(scope="module")
def exact() -> dict[str, str]:
    try:
        load("openvino")
    except BackendError as error:
        pytest.skip(str(error))
    return {"backend": "openvino", "precision": "fp32", "guard": "off"}


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        *(("yuv420p10le", scale) for scale in ("0.5", "1.5", "2", "2.3", "3", "4", "8")),
        *(("yuv444p10le", scale) for scale in ("0.5", "1.5", "3")),
        ("yuv422p10le", "1.5"),
    ],
)
def test_we_move_nothing(clips: dict[str, Path], exact: dict[str, str], cubic: str, name: str, scale: str) -> None:
    found = measured(clips[name], CHROMA[name], scale=Fraction(scale), model=cubic, **exact)
    assert np.abs(found).max() < LIMIT / 5, found


@pytest.mark.parametrize(
    ("model", "scale"),
    [("span", s) for s in ("1.5", "2", "3", "4", "8")] + [("span-clean", s) for s in ("4", "8")],
)
@pytest.mark.parametrize("name", ["yuv420p10le", "yuv444p10le"])
def test_our_models_move_nothing(
    clips: dict[str, Path], exact: dict[str, str], name: str, model: str, scale: str
) -> None:
    found = measured(clips[name], CHROMA[name], scale=Fraction(scale), model=model, **exact)
    chroma = CHROMA_BY_4 if model == "span" and Fraction(scale) >= 4 else LIMIT
    assert (np.abs(found).max(axis=1) < [LIMIT, chroma, chroma]).all(), found


@pytest.mark.parametrize(
    ("chroma", "siting"),
    [
        ((2, 2), "left"),
        ((2, 2), "center"),
        ((2, 2), "topleft"),
        ((1, 1), "left"),
        ((1, 2), "left"),
        ((1, 2), "center"),
        ((2, 1), "left"),
    ],
)
@pytest.mark.parametrize("size", [(40, 48), (110, 150), (131, 97)])
def test_resizing_moves_nothing(siting: Siting, chroma: tuple[int, int], size: tuple[int, int]) -> None:
    height, width = (-(-length // step) * step for length, step in zip(size, chroma, strict=True))
    source = FrameLayout(family="yuv", bits=10, height=HEIGHT, width=WIDTH, chroma=chroma, siting=siting)
    target = replace(source, height=height, width=width)
    scale = height / HEIGHT, width / WIDTH
    still = (False, False)
    given = [
        codes(index, *samples(shape, chroma if index else (1, 1), siting, (1, 1)), still)
        for index, shape in enumerate(source.shapes)
    ]
    for index, plane in enumerate(Resizer(source, target)(given)):
        if min(plane.shape) < 24:
            continue  # too few samples for the waves
        lie = samples(plane.shape, chroma if index else (1, 1), siting, scale)
        moved = shift(plane.astype(np.float64), index, *lie, still, scale)
        assert np.abs(moved).max() < LIMIT / 2, (index, moved)
