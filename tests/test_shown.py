"""Pictures to look at have the colours of the frame, whatever layout it comes in."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vidsr.color import BT601, BT709, LUMA_WEIGHTS, RGB, ColorTags
from vidsr.filters import chroma_offsets
from vidsr.frame import FrameLayout, Plane, Siting
from vidsr.media.pixel import planes_of
from vidsr.media.shown import Orientation, Shown, orientation_of
from vidsr.media.source import probe

HEIGHT, WIDTH = 96, 160
INNER = (slice(8, -8), slice(8, -8))


def smooth(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """float64 [H, W, 3]: RGB in 0..1, each channel with a slope of its own."""
    down, right = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1)
    return 0.02 + 0.96 * np.stack([right, down, (1 + right - down) / 2], -1)


def codes_of(rgb: np.ndarray, matrix: int, full: bool, bits: int) -> np.ndarray:
    """float64 [H, W, 3]: code values by the formulas of H.273, RGB as G, B, R."""
    low, luma, chroma = (0, 2**bits - 1, 2**bits - 1) if full else (np.array([16, 219, 224]) << bits - 8)
    red, green, blue = np.moveaxis(rgb, -1, 0)
    if matrix == RGB:
        return low + luma * np.stack([green, blue, red], -1)
    kr, kb = LUMA_WEIGHTS[matrix]
    y = kr * red + (1 - kr - kb) * green + kb * blue
    middle = 1 << bits - 1
    return np.stack(
        [low + luma * y, middle + chroma * (blue - y) / (2 - 2 * kb), middle + chroma * (red - y) / (2 - 2 * kr)], -1
    )


def rgb_of(codes: np.ndarray, matrix: int, full: bool, bits: int) -> np.ndarray:
    """The way back, by what the formulas make of black and of each channel alone."""
    columns = codes_of(np.eye(4, 3)[None], matrix, full, bits)[0]
    black = columns[3]
    return (codes - black) @ np.linalg.inv(columns[:3] - black)


def planes_in(layout: FrameLayout, codes: np.ndarray) -> list[Plane]:
    """The codes as planes, chroma averaged over the block it covers."""
    planes = []
    for index, (height, width) in enumerate(layout.shapes[: 1 if layout.family == "gray" else 3]):
        down, right = layout.chroma if index else (1, 1)
        edge = ((0, height * down - codes.shape[0]), (0, width * right - codes.shape[1]))
        whole = np.pad(codes[..., index], edge, mode="edge")
        blocks = whole.reshape(height, down, width, right).mean((1, 3))
        planes.append(np.rint(blocks).astype(layout.dtype))
    return planes


def tags(matrix: int, full: bool) -> ColorTags:
    return ColorTags(matrix=matrix, full_range=full)


def decoded(jpeg: bytes) -> av.VideoFrame:
    with av.open(io.BytesIO(jpeg), format="jpeg_pipe") as opened:
        return next(opened.decode(video=0))


def png_image(png: bytes) -> np.ndarray:
    with av.open(io.BytesIO(png), format="png_pipe") as opened:
        return next(opened.decode(video=0)).to_ndarray()


def error(jpeg: bytes, rgb: np.ndarray) -> float:
    """How far the samples are from those that JPEG's own formulas make of the picture, in code values."""
    frame = decoded(jpeg)
    wanted = codes_of(rgb, BT601, True, 8)
    worst = 0.0
    for index, plane in enumerate(planes_of(frame)):
        across = 1 if not index or plane.shape[1] == rgb.shape[1] else 2
        downward = 1 if not index or plane.shape[0] == rgb.shape[0] else 2
        blocks = wanted[: plane.shape[0] * downward, : plane.shape[1] * across, index]
        blocks = blocks.reshape(plane.shape[0], downward, plane.shape[1], across).mean((1, 3))
        worst = max(worst, np.abs(plane.astype(np.float64) - blocks)[INNER].max())
    return worst


MATRICES = [(matrix, full, bits) for matrix in (BT601, BT709, 9) for full in (False, True) for bits in (8, 10)]


@pytest.mark.parametrize(("matrix", "full", "bits"), [*MATRICES, (9, False, 16), *((RGB, *rest) for rest in
    ((True, 8), (False, 8), (True, 10), (False, 16)))])  # fmt: skip
def test_rgb_is_what_the_codes_mean(matrix: int, full: bool, bits: int) -> None:
    family: Any = "rgb" if matrix == RGB else "yuv"
    layout = FrameLayout(family=family, bits=bits, height=HEIGHT, width=WIDTH)
    planes = planes_in(layout, codes_of(smooth(), matrix, full, bits))
    wanted = 255 * rgb_of(np.stack(planes, -1).astype(np.float64), matrix, full, bits)
    shown = Shown(layout, tags(matrix, full))
    image = shown.rgb(planes)
    assert (image.shape, image.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    assert np.abs(image - np.clip(wanted, 0, 255)).max() <= 0.51
    assert np.array_equal(png_image(shown.png(planes)), image)


@pytest.mark.parametrize(("matrix", "full", "bits"), MATRICES)
@pytest.mark.parametrize("chroma", [(2, 2), (1, 2), (1, 1)])
def test_jpeg_has_the_same_colours(matrix: int, full: bool, bits: int, chroma: tuple[int, int]) -> None:
    layout = FrameLayout(family="yuv", bits=bits, height=HEIGHT, width=WIDTH, chroma=chroma)
    planes = planes_in(layout, codes_of(smooth(), matrix, full, bits))
    jpeg = Shown(layout, tags(matrix, full)).jpeg(planes, 100)
    frame = decoded(jpeg)
    assert (frame.format.name, frame.height, frame.width) == (f"yuvj{name_of(chroma)}p", HEIGHT, WIDTH)
    assert error(jpeg, smooth()) < 3


def name_of(chroma: tuple[int, int]) -> str:
    return {(2, 2): "420", (1, 2): "422", (1, 1): "444"}[chroma]


@pytest.mark.parametrize("bits", [8, 10, 16])
@pytest.mark.parametrize("full", [True, False])
def test_gray_and_rgb(bits: int, full: bool) -> None:
    gray = np.repeat(smooth()[..., :1], 3, -1)
    families: list[tuple[Any, int, np.ndarray]] = [("gray", BT709, gray), ("rgb", RGB, smooth())]
    for family, matrix, rgb in families:
        layout = FrameLayout(family=family, bits=bits, height=HEIGHT, width=WIDTH)
        planes = planes_in(layout, codes_of(rgb, matrix, full, bits))
        shown = Shown(layout, tags(matrix, full))
        assert np.abs(shown.rgb(planes) - 255 * rgb).max() < 1.1
        assert error(shown.jpeg(planes, 100), rgb) < 3


@pytest.mark.parametrize("chroma", [(2, 1), (1, 4), (4, 4)])
def test_other_subsamplings_become_whole(chroma: tuple[int, int]) -> None:
    layout = FrameLayout(family="yuv", bits=8, height=HEIGHT, width=WIDTH, chroma=chroma)
    planes = planes_in(layout, codes_of(smooth(), BT709, False, 8))
    jpeg = Shown(layout, tags(BT709, False)).jpeg(planes, 100)
    assert decoded(jpeg).format.name == "yuvj444p"
    assert error(jpeg, smooth()) < 6


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (121, 161), (17, 64)])
@pytest.mark.parametrize("bits", [8, 10])
def test_any_size(size: tuple[int, int], bits: int) -> None:
    layout = FrameLayout(family="yuv", bits=bits, height=size[0], width=size[1], chroma=(2, 2))
    color = np.broadcast_to([0.8, 0.4, 0.2], (*size, 3))
    planes = planes_in(layout, codes_of(color, BT709, False, bits))
    shown = Shown(layout, tags(BT709, False))
    assert np.abs(shown.rgb(planes) - 255 * color).max() < 2.5
    frame = decoded(shown.jpeg(planes, 100))
    assert (frame.height, frame.width) == size
    for plane, wanted in zip(planes_of(frame), codes_of(color, BT601, True, 8)[0, 0], strict=True):
        assert np.abs(plane - wanted).max() < 2


@pytest.mark.parametrize("siting", ["left", "center", "topleft"])
def test_chroma_lies_where_it_is_said_to(siting: Siting) -> None:
    layout = FrameLayout(family="yuv", bits=10, height=HEIGHT, width=WIDTH, chroma=(2, 2), siting=siting)
    down, right = chroma_offsets((2, 2), siting)
    rows, columns = np.mgrid[: HEIGHT // 2, : WIDTH // 2]
    red = 180 + 2 * (2 * columns + right) + 4 * (2 * rows + down)
    planes = [np.full(shape, 512, np.uint16) for shape in layout.shapes]
    planes[2] = red.astype(np.uint16)
    image = Shown(layout, tags(BT601, True)).rgb(planes).astype(np.float64)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    wanted = (512 + 1.402 * (180 + 2 * columns + 4 * rows - 512)) * 255 / 1023
    off = (image[..., 0] - wanted)[INNER]
    assert abs(off.mean()) < 0.1
    assert np.abs(off).max() < 1


def test_at_most_that_wide() -> None:
    layout = FrameLayout(family="yuv", bits=8, height=HEIGHT, width=WIDTH, chroma=(2, 2))
    planes = planes_in(layout, codes_of(smooth(), BT709, False, 8))
    shown = Shown(layout, tags(BT709, False))
    small = shown.jpeg(planes, 95, most_width=80)
    assert (decoded(small).height, decoded(small).width) == (48, 80)
    assert error(small, smooth(48, 80)) < 5
    assert (decoded(shown.jpeg(planes, 95, most_width=4096)).width, decoded(shown.jpeg(planes, 95)).width) == (160, 160)


def test_untagged_colours_are_those_of_the_whole_picture() -> None:
    """Not of the size that it is shown at."""
    layout = FrameLayout(family="yuv", bits=8, height=720, width=1280, chroma=(2, 2))
    planes = planes_in(layout, codes_of(smooth(720, 1280), BT709, False, 8))
    small = Shown(layout, ColorTags()).jpeg(planes, 100, most_width=160)
    assert error(small, smooth(90, 160)) < 5


def test_quality() -> None:
    layout = FrameLayout(family="yuv", bits=8, height=HEIGHT, width=WIDTH, chroma=(2, 2))
    noise = np.random.default_rng(1)
    planes = [noise.integers(16, 235, shape, np.uint8) for shape in layout.shapes]
    shown = Shown(layout, tags(BT709, False))
    sizes = [len(shown.jpeg(planes, quality)) for quality in (5, 25, 50, 75, 90, 100)]
    assert sizes == sorted(set(sizes))
    assert len(shown.jpeg(planes, 50)) == sizes[2]
    for quality in (0, 101):
        with pytest.raises(ValueError, match="1 to 100"):
            shown.jpeg(planes, quality)


@pytest.mark.parametrize(("family", "chroma"), [("yuv", (2, 2)), ("yuv", (1, 1)), ("rgb", (1, 1))])
@pytest.mark.parametrize("bits", [8, 10])
def test_transparency_is_laid_on_gray(family: Any, chroma: tuple[int, int], bits: int) -> None:
    layout = FrameLayout(family=family, bits=bits, height=32, width=48, chroma=chroma, alpha=True)
    matrix = RGB if family == "rgb" else BT709
    color = np.broadcast_to([0.9, 0.3, 0.1], (32, 48, 3))
    alpha = np.zeros((32, 48), layout.dtype)
    alpha[:, 16:32], alpha[:, 32:] = round(0.5 * (2**bits - 1)), 2**bits - 1
    planes = [*planes_in(layout, codes_of(color, matrix, False, bits)), alpha]
    shown = Shown(layout, tags(matrix, False))
    image = shown.rgb(planes)
    for column, wanted in ((4, [127.5] * 3), (24, [178.5, 102, 76.5]), (44, [229.5, 76.5, 25.5])):
        assert np.abs(image[16, column] - np.array(wanted)).max() < 3
    gray = decoded(shown.jpeg(planes, 100))
    assert [abs(int(plane[4, 4]) - 128) <= 1 for plane in planes_of(gray)] == [True] * 3


def test_hdr_is_shown_as_it_is() -> None:
    layout = FrameLayout(family="yuv", bits=10, height=HEIGHT, width=WIDTH, chroma=(2, 2))
    planes = planes_in(layout, codes_of(smooth(), 9, False, 10))
    plain, wide = (ColorTags(primaries=p, transfer=t, matrix=9, full_range=False) for p, t in ((1, 1), (9, 16)))
    assert Shown(layout, plain).jpeg(planes, 90) == Shown(layout, wide).jpeg(planes, 90)
    assert np.array_equal(Shown(layout, plain).rgb(planes), Shown(layout, wide).rgb(planes))


ONE = 1 << 16


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_orientation(turn: int, mirrored: bool) -> None:
    """A point of the picture, mirrored and turned, is where the matrix puts it."""
    point = (-3.0 if mirrored else 3.0, 2.0)
    for _ in range(turn // 90):
        point = (-point[1], point[0])  # clockwise, since y points down
    for a, b, c, d in ((1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0),
                       (-1, 0, 0, 1), (0, -1, -1, 0), (1, 0, 0, -1), (0, 1, 1, 0)):  # fmt: skip
        if (3 * a + 2 * c, 3 * b + 2 * d) == point:
            assert orientation_of((a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 7, 7, 1 << 30)) == Orientation(
                turn, mirrored
            )
            return
    raise AssertionError("no matrix does this")


def test_no_matrix_is_upright() -> None:
    assert orientation_of(None) == Orientation(0, False)


@pytest.mark.parametrize("name", ["rotated_90.mp4", "rotated_bbb.mp4", "phone_vfr_hevc_fullrange_rotated.mp4"])
def test_orientation_of_clips(shared: Path, name: str) -> None:
    """As FFmpeg says it, which counts the other way round."""
    path = shared / "clips" / name
    with av.open(str(path)) as opened:
        rotation = next(opened.decode(video=0)).rotation
    assert rotation
    assert orientation_of(probe(path).video.display_matrix) == Orientation(-rotation % 360, False)
