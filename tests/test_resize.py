"""Resizing keeps every sample where it belongs."""

from __future__ import annotations

import numpy as np
import pytest

from vidsr.frame import FrameLayout, Siting
from vidsr.media.resize import Resizer

SITINGS: list[Siting] = ["left", "center", "topleft"]


@pytest.mark.parametrize("siting", SITINGS)
@pytest.mark.parametrize("size", [(96, 128), (72, 96), (48, 64), (100, 132)])
def test_nothing_moves(siting: Siting, size: tuple[int, int]) -> None:
    source = FrameLayout(family="yuv", bits=10, height=64, width=96, chroma=(2, 2), siting=siting)
    target = FrameLayout(family="yuv", bits=10, height=size[0], width=size[1], chroma=(2, 2), siting=siting)
    across, down = source.width / target.width, source.height / target.height

    def place(layout: FrameLayout, plane: int) -> np.ndarray:
        """The value that belongs to each sample, from its centre in source luma samples."""
        vertical, horizontal = (1.0, 1.0) if layout is source else (down, across)
        rows, columns = (np.arange(n, dtype=np.float64) for n in layout.shapes[plane])
        if plane:
            rows = 2 * rows + (0.0 if siting == "topleft" else 0.5)
            columns = 2 * columns + (0.5 if siting == "center" else 0.0)
        return 100 + 2 * ((rows + 0.5) * vertical)[:, None] + 4 * ((columns + 0.5) * horizontal)[None, :]

    planes = [np.round(place(source, index)).astype(np.uint16) for index in range(3)]
    made = Resizer(source, target)(planes)
    for index, plane in enumerate(made):
        inner = (slice(8, -8), slice(8, -8))
        error = plane.astype(np.float64)[inner] - place(target, index)[inner]
        assert plane.shape == target.shapes[index]
        assert abs(error.mean()) < 0.15, (index, error.mean())
        assert abs(error).max() < 2.0


def test_same_format_and_flat_values() -> None:
    source = FrameLayout(family="rgb", bits=8, height=40, width=30)
    target = FrameLayout(family="rgb", bits=8, height=27, width=20)
    resizer = Resizer(source, target)
    for values in ((0, 255, 7), (255, 0, 128)):
        planes = [np.full(shape, value, np.uint8) for shape, value in zip(source.shapes, values, strict=True)]
        for plane, value, shape in zip(resizer(planes), values, target.shapes, strict=True):
            assert plane.dtype == np.uint8
            assert plane.shape == shape
            assert (plane == value).all()
