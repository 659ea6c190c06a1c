"""Makes the clips of this folder out of nothing but numpy and PyAV: `python samples/make_samples.py [FOLDER]`.

The clips show a harbour that is drawn here: shapes as signed distances with soft edges, textures from seeded noise,
letters from strokes. It is drawn four times as fine as it is shown and then averaged in linear light, as a lens and a
sensor would do it, so that the clips are short of detail in the way that real videos are.

Everything is seeded and encoded with one thread: two runs on one machine give the same files.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Point = tuple[float, float]
Color = tuple[float, float, float]
Paint = Color | Callable[[Array, Array], Array]
"""A colour, sRGB-like 0..1, or a function that gives float32 [H, W, 3] for positions x, y in shown pixels."""

FINE = 4
"""Drawn pixels to a shown one, along each side."""
WIDTH, HEIGHT, PAN = 320, 180, 56
QUAY_TOP, QUAY_FOOT, KEEL = 120.0, 131.0, 157.0
"""Where houses stand, where the harbour's water begins, and where the boat's begins; in shown pixels from the top."""
TABLE: Array = np.random.default_rng(2024).random((256, 256)).astype(np.float32)
WHITE, INK = (0.95, 0.93, 0.88), (0.10, 0.11, 0.14)

STROKES = {
    "A": "06-02-20-42-46 04-44", "C": "41-30-10-01-05-16-36-45", "D": "00-06-26-44-42-20-00", "E": "40-00-06-46 03-33",
    "F": "40-00-06 03-33", "H": "00-06 40-46 03-43", "I": "20-26", "L": "00-06-46", "N": "06-00-46-40",
    "O": "10-01-05-16-36-45-41-30-10", "R": "06-00-30-41-42-33-03 23-46", "S": "41-30-10-01-02-13-33-44-45-36-16-05",
    "T": "00-40 20-26", "V": "00-26-40",
}  # fmt: skip
"""Letters on a grid of 5 by 7 points: lines of points "xy", y downward."""


# ---- noise and textures


def cells(column: Array, row: Array) -> Array:
    """A random value 0..1 for each cell of an endless grid."""
    return TABLE[np.floor(row).astype(int) & 255, np.floor(column).astype(int) & 255]


def noise(x: Array, y: Array) -> Array:
    """Smooth noise 0..1 with features of size 1."""
    fx, fy = x - np.floor(x), y - np.floor(y)
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    upper = cells(x, y) * (1 - fx) + cells(x + 1, y) * fx
    lower = cells(x, y + 1) * (1 - fx) + cells(x + 1, y + 1) * fx
    return upper * (1 - fy) + lower * fy


def clouds(x: Array, y: Array, octaves: int = 5) -> Array:
    """Noise with features of size 1, 1/2, 1/4, ...; about 0..1."""
    total = sum(noise(x * 2**k + 17 * k, y * 2**k + 31 * k) * 0.5 ** (k + 1) for k in range(octaves))
    return np.asarray(total, np.float32)


def tinted(color: Color, light: Array) -> Array:
    return np.asarray(color, np.float32) * light[..., None]


def plaster(color: Color) -> Paint:
    """A painted wall, a little stained."""
    return lambda x, y: tinted(color, 0.90 + 0.12 * clouds(x / 9, y / 14) + 0.06 * clouds(x * 1.3, y * 1.3, 2))


def bricks(color: Color, mortar: Color, length: float = 4.2, height: float = 2.0, joint: float = 0.42) -> Paint:
    """A wall in running bond, every brick in a shade of its own."""

    def paint(x: Array, y: Array) -> Array:
        row = np.floor(y / height)
        along = x / length + 0.5 * (row % 2)
        light = 0.74 + 0.42 * cells(np.floor(along), row) + 0.10 * clouds(x / 12, y / 12, 3)
        to_joint = np.minimum((along % 1) * length, (y / height % 1) * height)
        soft = np.clip((to_joint - joint + 0.12) / 0.24, 0, 1)[..., None]
        return tinted(color, light) * soft + np.asarray(mortar, np.float32) * (1 - soft)

    return paint


def planks(color: Color, width: float = 2.6) -> Paint:
    """Upright boards with dark gaps and grain."""

    def paint(x: Array, y: Array) -> Array:
        grain = 0.80 + 0.22 * cells(np.floor(x / width), 0 * x + 3) + 0.12 * clouds(x * 3, y / 5, 3)
        gap = np.clip((x % width) / 0.3, 0.45, 1)
        return tinted(color, grain * gap)

    return paint


def tiles(color: Color) -> Paint:
    """Rows of round roof tiles."""

    def paint(x: Array, y: Array) -> Array:
        row = np.floor(y / 2.2)
        across = (x / 2.4 + 0.5 * (row % 2)) % 1
        round_ = 0.72 + 0.40 * np.sin(np.pi * across)
        edge = np.clip((y / 2.2 % 1) * 2.5, 0.55, 1)
        light = round_ * edge * (0.82 + 0.3 * cells(np.floor(x / 2.4 + 0.5 * (row % 2)), row))
        return tinted(color, light.astype(np.float32))

    return paint


def striped(first: Color, second: Color, size: float, *, upright: bool = False) -> Paint:
    def paint(x: Array, y: Array) -> Array:
        odd = (np.floor((x if upright else y) / size) % 2)[..., None]
        return np.asarray(first, np.float32) * (1 - odd) + np.asarray(second, np.float32) * odd

    return paint


# ---- shapes and layers


@dataclass(frozen=True, slots=True)
class Shape:
    """box: (left, top, right, bottom) in shown pixels. distance: to the edge at x, y, negative inside."""

    box: tuple[float, float, float, float]
    distance: Callable[[Array, Array], Array]


def convex(*corners: Point) -> Shape:
    """A convex polygon."""
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    edges = list(zip(corners, corners[1:] + corners[:1], strict=True))
    turn = np.sign(sum(ax * by - bx * ay for (ax, ay), (bx, by) in edges))

    def distance(x: Array, y: Array) -> Array:
        sides = [
            turn * ((by - ay) * (x - ax) - (bx - ax) * (y - ay)) / np.hypot(bx - ax, by - ay)
            for (ax, ay), (bx, by) in edges
        ]
        return np.max(sides, axis=0)

    return Shape((min(xs), min(ys), max(xs), max(ys)), distance)


def box(left: float, top: float, width: float, height: float) -> Shape:
    return convex((left, top), (left + width, top), (left + width, top + height), (left, top + height))


def line(begin: Point, end: Point, width: float) -> Shape:
    """A straight line with round ends."""
    (ax, ay), (bx, by), radius = begin, end, width / 2
    length = max((bx - ax) ** 2 + (by - ay) ** 2, 1e-6)

    def distance(x: Array, y: Array) -> Array:
        along = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length, 0, 1)
        return np.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay)) - radius

    return Shape((min(ax, bx) - radius, min(ay, by) - radius, max(ax, bx) + radius, max(ay, by) + radius), distance)


def ellipse(x: float, y: float, across: float, down: float, angle: float = 0.0) -> Shape:
    """across, down: half axes. angle: in radians."""
    cos, sin, reach = np.cos(angle), np.sin(angle), max(across, down)

    def distance(px: Array, py: Array) -> Array:
        u, v = (px - x) * cos + (py - y) * sin, (py - y) * cos - (px - x) * sin
        return (np.hypot(u / across, v / down) - 1) * min(across, down)

    return Shape((x - reach, y - reach, x + reach, y + reach), distance)


class Layer:
    """A picture with transparency; `pixels` is float32 [H, W, 4], colours multiplied by alpha."""

    def __init__(self, width: float, height: float = HEIGHT) -> None:
        self.pixels: Array = np.zeros((round(height * FINE), round(width * FINE), 4), np.float32)

    def draw(self, shape: Shape, paint: Paint, alpha: float = 1.0) -> None:
        left, top, right, bottom = shape.box
        rows = slice(max(0, int(top * FINE) - 1), max(0, int(bottom * FINE) + 2))
        columns = slice(max(0, int(left * FINE) - 1), max(0, int(right * FINE) + 2))
        region = self.pixels[rows, columns]
        y, x = np.indices(region.shape[:2], np.float32)
        x, y = (x + columns.start + 0.5) / FINE, (y + rows.start + 0.5) / FINE
        cover = (np.clip(0.5 - shape.distance(x, y) * FINE, 0, 1) * alpha)[..., None]
        color = paint(x, y) if callable(paint) else np.asarray(paint, np.float32)
        region *= 1 - cover
        region[..., :3] += cover * color
        region[..., 3:] += cover

    def path(self, points: Sequence[Point], width: float, paint: Paint) -> None:
        for begin, end in pairwise(points):
            self.draw(line(begin, end, width), paint)

    def rope(self, begin: Point, end: Point, sag: float, width: float, paint: Paint) -> list[Point]:
        """A rope that hangs between two points; returns points along it."""
        (ax, ay), (bx, by) = begin, end
        steps = [k / 14 for k in range(15)]
        points = [(ax + (bx - ax) * t, ay + (by - ay) * t + sag * 4 * t * (1 - t)) for t in steps]
        self.path(points, width, paint)
        return points

    def text(self, text: str, x: float, y: float, height: float, paint: Paint, weight: float = 0.16) -> None:
        """Letters whose top left corner is at x, y."""
        unit = height / 6
        for index, letter in enumerate(text):
            left = x + index * unit * 5.9
            for stroke in STROKES.get(letter, "").split():
                points = [(left + int(p[0]) * unit, y + int(p[1]) * unit) for p in stroke.split("-")]
                self.path(points, height * weight, paint)


def over(below: Array, layer: Array, row: int = 0, column: int = 0) -> None:
    """Lays [H, W, 4] on [H, W, 3 or 4] in place, its top left corner at (row, column), which may be outside."""
    top, left = max(0, row), max(0, column)
    bottom, right = min(below.shape[0], row + layer.shape[0]), min(below.shape[1], column + layer.shape[1])
    if bottom <= top or right <= left:
        return
    part = layer[top - row : bottom - row, left - column : right - column]
    region = below[top:bottom, left:right]
    region *= 1 - part[..., 3:]
    region += part[..., : below.shape[2]]


# ---- the harbour


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """One house of the row.

    eaves: where its roof begins. gable: "steps", "point", "bell" or "roof" (seen broadside).
    """

    left: float
    width: float
    eaves: float
    wall: Paint
    gable: str
    floors: int
    columns: int
    trim: Color = WHITE
    roof: Color = (0.62, 0.29, 0.20)
    door: Color = (0.20, 0.33, 0.30)
    shutters: Color | None = None


BRICK, OLD_BRICK, MORTAR = (0.66, 0.30, 0.22), (0.50, 0.27, 0.23), (0.78, 0.72, 0.64)
CREAM = (0.93, 0.89, 0.80)
HOUSES = (
    House(left=-14, width=42, eaves=66, wall=bricks(BRICK, MORTAR), gable="steps", floors=3, columns=3),
    House(left=28, width=36, eaves=72, wall=plaster((0.90, 0.70, 0.34)), gable="roof", floors=3, columns=3,
          shutters=(0.23, 0.42, 0.36)),
    House(left=64, width=30, eaves=62, wall=planks((0.34, 0.50, 0.62)), gable="point", floors=3, columns=2),
    House(left=94, width=66, eaves=70, wall=plaster(CREAM), gable="point", floors=3, columns=5,
          trim=(0.35, 0.24, 0.18), door=(0.55, 0.20, 0.16)),
    House(left=160, width=34, eaves=64, wall=bricks(OLD_BRICK, MORTAR), gable="steps", floors=3, columns=3,
          door=(0.16, 0.25, 0.38)),
    House(left=194, width=38, eaves=74, wall=plaster((0.80, 0.48, 0.38)), gable="roof", floors=2, columns=3,
          shutters=(0.30, 0.24, 0.30), roof=(0.36, 0.34, 0.38)),
    House(left=232, width=30, eaves=68, wall=plaster((0.55, 0.66, 0.48)), gable="bell", floors=3, columns=2),
    House(left=262, width=34, eaves=78, wall=planks((0.62, 0.26, 0.20)), gable="point", floors=2, columns=3),
)  # fmt: skip


def draw_gable(layer: Layer, house: House) -> None:
    left, right, eaves, middle = house.left, house.left + house.width, house.eaves, house.left + house.width / 2
    if house.gable == "roof":
        ridge = eaves - 15
        layer.draw(
            convex((left - 1, eaves), (left + 3, ridge), (right - 3, ridge), (right + 1, eaves)), tiles(house.roof)
        )
        for x in (middle - house.width / 4, middle + house.width / 4):
            layer.draw(box(x - 4, eaves - 9, 8, 7), house.wall)
            layer.draw(convex((x - 4, eaves - 9), (x, eaves - 13), (x + 4, eaves - 9)), house.wall)
            draw_window(layer, x - 2.2, eaves - 8.4, 4.4, 5.6, house)
            layer.path([(x - 5, eaves - 8.2), (x, eaves - 13.4), (x + 5, eaves - 8.2)], 0.9, house.trim)
    elif house.gable == "point":
        top = eaves - min(house.width * 0.55, 17.5)
        layer.draw(convex((left, eaves), (middle, top), (right, eaves)), house.wall)
        layer.path([(left - 1.5, eaves + 1), (middle, top - 0.6), (right + 1.5, eaves + 1)], 1.7, house.trim)
        layer.draw(ellipse(middle, eaves - 6, 2.8, 2.8), house.trim)
        layer.draw(ellipse(middle, eaves - 6, 2.0, 2.0), (0.16, 0.20, 0.26))
        layer.path([(middle - 2.4, eaves - 6), (middle + 2.4, eaves - 6)], 0.4, house.trim)
    elif house.gable == "steps":
        steps = 5
        for k in range(steps):
            inset, height = house.width / 2 * k / steps, 4.0
            layer.draw(box(left + inset, eaves - height * (k + 1), house.width - 2 * inset, height + 0.2), house.wall)
            for x in (left + inset, right - inset - house.width / 2 / steps):
                layer.draw(box(x - 0.4, eaves - height * (k + 1) - 0.9, house.width / 2 / steps + 0.8, 1.1), house.trim)
    else:
        layer.draw(box(left + house.width * 0.16, eaves - 11, house.width * 0.68, 11.3), house.wall)
        layer.draw(ellipse(middle, eaves - 11, house.width * 0.26, 8), house.wall)
        layer.draw(box(left + house.width * 0.12, eaves - 11.8, house.width * 0.76, 1.4), house.trim)
        for side in (-1, 1):
            layer.draw(ellipse(middle + side * house.width * 0.40, eaves - 3.4, house.width * 0.085, 3.4), house.trim)


def draw_window(layer: Layer, x: float, y: float, width: float, height: float, house: House) -> None:
    def glass(px: Array, py: Array) -> Array:
        sky = np.clip((py - y) / height * 1.3 + 0.35 * clouds(px / 3, py / 3, 2) - 0.25, 0, 1)[..., None]
        return np.asarray((0.60, 0.69, 0.76), np.float32) * (1 - sky) + np.asarray((0.13, 0.17, 0.22), np.float32) * sky

    lit = TABLE[int(y * 1.7) & 255, int(x * 3.3) & 255] > 0.80
    if house.shutters:
        for side in (x - width * 0.52, x + width * 1.06):
            layer.draw(box(side, y, width * 0.46, height), striped(house.shutters, (0.13, 0.22, 0.20), 0.55))
    layer.draw(box(x - 0.5, y - 0.5, width + 1, height + 1), house.trim)
    layer.draw(box(x, y, width, height), (0.98, 0.80, 0.45) if lit else glass)
    layer.draw(box(x + width / 2 - 0.22, y, 0.44, height), house.trim)
    for k in (1, 2):
        layer.draw(box(x, y + height * k / 3 - 0.18, width, 0.36), house.trim)
    layer.draw(box(x - 0.9, y + height + 0.4, width + 1.8, 0.8), house.trim)
    layer.draw(box(x - 0.9, y + height + 1.2, width + 1.8, 0.5), INK, 0.35)


def draw_house(layer: Layer, house: House) -> None:
    draw_gable(layer, house)
    layer.draw(box(house.left, house.eaves, house.width, QUAY_TOP - house.eaves), house.wall)
    layer.draw(box(house.left, house.eaves - 0.5, house.width, 1.4), house.trim)
    layer.draw(box(house.left, house.eaves + 0.9, house.width, 0.9), INK, 0.30)
    layer.draw(box(house.left, QUAY_TOP - 3.2, house.width, 3.2), plaster((0.42, 0.40, 0.40)))
    storey = (QUAY_TOP - house.eaves - 1) / house.floors
    pitch = house.width / house.columns
    for floor in range(house.floors):
        for column in range(house.columns):
            width, height = min(5.6, pitch * 0.46), storey * 0.56
            x, y = house.left + pitch * (column + 0.5) - width / 2, house.eaves + storey * floor + storey * 0.26
            if floor == house.floors - 1 and column == house.columns // 2:
                layer.draw(box(x - 1.1, y - 0.8, width + 2.2, QUAY_TOP - y + 0.8), house.trim)
                layer.draw(box(x - 0.3, y + 2.0, width + 0.6, QUAY_TOP - y - 2.0), planks(house.door, 1.5))
                layer.draw(box(x - 0.3, y, width + 0.6, 1.5), (0.55, 0.66, 0.72))
            else:
                draw_window(layer, x, y, width, height, house)
    # The sun stands low on the right: each house shades the left edge of its neighbour's wall.
    layer.draw(box(house.left + house.width - 1.6, house.eaves, 1.6, QUAY_TOP - house.eaves), INK, 0.22)


def draw_signs(layer: Layer) -> None:
    """What is to be read: the warehouse's name and two shop signs."""
    layer.draw(box(96, 72.4, 62, 16), plaster(CREAM))
    layer.draw(box(98, 74.2, 58, 12.6), (0.16, 0.27, 0.36))
    layer.draw(box(98.8, 75.0, 56.4, 11.0), (0.93, 0.86, 0.70))
    layer.draw(box(99.4, 75.6, 55.2, 9.8), (0.16, 0.27, 0.36))
    layer.text("VIDSR", 111, 77.1, 6.9, (0.98, 0.93, 0.80), 0.19)
    for x in (103.6, 150.4):
        layer.draw(ellipse(x, 80.5, 1.9, 1.9), (0.93, 0.62, 0.30))
    layer.draw(box(31, 99.6, 30, 7.6), (0.50, 0.16, 0.15))
    layer.text("CAFE", 37.6, 101.1, 4.6, WHITE, 0.17)
    layer.draw(box(196, 97.6, 34, 7.6), (0.18, 0.25, 0.33))
    layer.text("HOTEL", 202.2, 99.1, 4.6, (0.98, 0.84, 0.52), 0.17)
    for k in range(10):
        awning = (0.86, 0.30, 0.24) if k % 2 else WHITE
        x = 31 + 3 * k
        layer.draw(convex((x, 107.4), (x + 3, 107.4), (x + 3, 111), (x + 1.5, 112), (x, 111)), awning)


def draw_street(layer: Layer, rng: np.random.Generator) -> None:
    """Quay, lamps, a string of pennants, a tree and people."""
    end = 318.0
    stones = bricks((0.55, 0.52, 0.49), (0.24, 0.24, 0.25), 8.5, 3.4)
    layer.draw(box(-10, QUAY_TOP, end + 10, QUAY_FOOT - QUAY_TOP), stones)
    layer.draw(box(-10, QUAY_TOP - 0.6, end + 11, 2.2), plaster((0.78, 0.74, 0.68)))
    layer.draw(box(-10, QUAY_FOOT - 2.2, end + 10, 2.2), (0.12, 0.20, 0.14), 0.6)
    for x in (12.0, 79.0, 157.0, 231.0, 301.0):
        layer.path([(x, QUAY_TOP), (x, 95)], 0.9, INK)
        layer.path([(x - 2.6, 96.2), (x + 2.6, 96.2)], 0.5, INK)
        layer.draw(convex((x - 1.5, 94.6), (x - 2.0, 90.4), (x + 2.0, 90.4), (x + 1.5, 94.6)), (1.0, 0.92, 0.66))
        layer.path([(x - 2.3, 90.2), (x, 88.2), (x + 2.3, 90.2)], 0.7, INK)
    flags = ((0.85, 0.25, 0.22), (0.96, 0.78, 0.28), (0.24, 0.46, 0.66), WHITE, (0.30, 0.55, 0.38))
    for begin, finish in ((12.0, 79.0), (157.0, 231.0), (231.0, 301.0)):
        for k, (x, y) in enumerate(layer.rope((begin, 91), (finish, 91), 5, 0.35, INK)[1:-1]):
            layer.draw(convex((x - 1.5, y), (x + 1.5, y), (x, y + 3.6)), flags[k % 5])
    for x in (20.0, 68.0, 124.0, 186.0, 258.0, 309.0):
        layer.draw(box(x, QUAY_TOP - 3.4, 2.2, 3.4), (0.20, 0.20, 0.22))
        layer.draw(ellipse(x + 1.1, QUAY_TOP - 3.6, 1.8, 0.9), (0.28, 0.28, 0.30))
    draw_tree(layer, 286, 92, rng)
    coats = ((0.75, 0.22, 0.20), (0.20, 0.30, 0.50), (0.85, 0.70, 0.35), (0.25, 0.40, 0.32))
    for k, x in enumerate((47.0, 51.5, 139.0, 171.0, 213.0, 217.6, 276.0)):
        layer.draw(line((x - 0.8, QUAY_TOP - 0.6), (x, QUAY_TOP - 4.4), 1.0), INK)
        layer.draw(line((x + 0.9, QUAY_TOP - 0.6), (x, QUAY_TOP - 4.4), 1.0), INK)
        layer.draw(line((x, QUAY_TOP - 4.6), (x, QUAY_TOP - 7.6), 2.2), coats[k % 4])
        layer.draw(ellipse(x, QUAY_TOP - 9.8, 1.15, 1.3), (0.86, 0.66, 0.52))


def draw_leaves(layer: Layer, spots: Iterable[Point], size: float, rng: np.random.Generator) -> None:
    """Leaves in many greens, those drawn later lighter: they lie nearer to the sun."""
    listed = list(spots)
    for k, (x, y) in enumerate(listed):
        light = 0.45 + 0.55 * k / len(listed) + 0.25 * rng.random()
        hue = rng.random()
        color = (light * (0.36 + 0.22 * hue), light * (0.52 + 0.06 * hue), light * 0.20)
        layer.draw(ellipse(x, y, size * (0.8 + 0.5 * rng.random()), size * 0.46, rng.random() * np.pi), color)


def draw_tree(layer: Layer, x: float, y: float, rng: np.random.Generator) -> None:
    for dx, dy, width in ((0.0, 8.0, 2.2), (-6, -4, 1.0), (6, -6, 1.0), (2, -12, 0.8)):
        layer.path([(x, QUAY_TOP), (x + dx * 0.3, y + 8), (x + dx, y + dy)], width, (0.26, 0.19, 0.15))
    spread = rng.normal(size=(620, 2)) * (5.6, 5.2)
    layered = spread[np.argsort(-spread[:, 1] - 0.6 * spread[:, 0] + rng.normal(size=620) * 4)]
    draw_leaves(layer, [(x + dx, y - 6 + dy) for dx, dy in layered], 1.35, rng)


def draw_lighthouse(layer: Layer) -> None:
    x, foot = 352.0, 128.0
    for k in range(26):
        stone = 0.34 + 0.22 * float(TABLE[9, k])
        rock = ellipse(326 + k * 2.6, foot + 2.5 - 2.2 * np.sin(k * 0.9) ** 2, 3.4, 2.8)
        layer.draw(rock, (stone, stone * 0.97, stone * 0.94))
    tower = convex((x - 6, foot), (x - 3.8, 74), (x + 3.8, 74), (x + 6, foot))
    layer.draw(tower, striped(WHITE, (0.78, 0.20, 0.18), 9))
    layer.draw(convex((x + 2, foot), (x + 1.2, 74), (x + 3.8, 74), (x + 6, foot)), INK, 0.18)
    layer.draw(box(x - 5.4, 72.4, 10.8, 1.8), INK)
    for k in range(6):
        layer.path([(x - 5 + 2 * k, 72.4), (x - 5 + 2 * k, 69.4)], 0.35, INK)
    layer.path([(x - 5.2, 69.4), (x + 5.2, 69.4)], 0.4, INK)
    layer.draw(box(x - 2.8, 65, 5.6, 7.4), (1.0, 0.93, 0.66))
    layer.path([(x, 65), (x, 72)], 0.5, INK)
    layer.draw(convex((x - 3.8, 65.2), (x, 59.8), (x + 3.8, 65.2)), (0.70, 0.18, 0.16))
    layer.path([(x, 60), (x, 56.4)], 0.5, INK)


def draw_boat() -> Layer:
    """A sloop; its water line is at KEEL, its stern at 6."""
    layer = Layer(112)
    rail = KEEL - 10.5
    mast, top = 52.0, 62.0
    for x, hold in ((8.0, top + 1), (104.0, top + 1), (34.0, 84.0), (70.0, 84.0)):
        layer.path([(x, rail - 1), (mast, hold)], 0.35, (0.16, 0.15, 0.15))
    layer.draw(box(mast - 0.8, top, 1.6, rail - top), (0.62, 0.42, 0.25))
    layer.draw(box(mast + 0.3, top, 0.5, rail - top), (0.40, 0.25, 0.15))
    for y in (84.0, 104.0):
        layer.path([(mast - 7, y), (mast + 7, y)], 0.6, (0.40, 0.25, 0.15))
    layer.path([(mast, 137), (12, 133.6)], 1.2, (0.55, 0.36, 0.22))
    for k in range(13):
        layer.draw(
            ellipse(15 + 2.8 * k, 132.2 + 0.25 * k, 2.2, 1.5), (0.93, 0.90, 0.80) if k % 2 else (0.82, 0.79, 0.70)
        )
    layer.draw(convex((mast + 3, 132), (mast + 3, 84), (97, 140)), sail)
    layer.draw(convex((mast, top), (mast, top + 4.4), (mast - 8.5, top + 2.2)), (0.84, 0.22, 0.20))
    draw_hull(layer, rail)
    return layer


def sail(x: Array, y: Array) -> Array:
    seam = np.clip(np.abs((x * 0.55 + y) % 7 - 3.5) / 0.35, 0.80, 1)
    fold = 0.92 + 0.08 * np.sin(x * 0.35 + y * 0.12)
    return tinted((0.97, 0.93, 0.82), (seam * fold).astype(np.float32))


def draw_hull(layer: Layer, rail: float) -> None:
    layer.draw(convex((30, rail), (33, rail - 5), (64, rail - 5), (68, rail)), (0.92, 0.89, 0.82))
    layer.draw(convex((32, rail - 4.6), (33, rail - 6), (64, rail - 6), (65, rail - 4.6)), (0.50, 0.31, 0.19))
    for x in (38.0, 45.0, 55.0, 60.5):
        layer.draw(ellipse(x, rail - 2.5, 1.5, 1.2), (0.70, 0.55, 0.25))
        layer.draw(ellipse(x, rail - 2.5, 1.1, 0.8), (0.10, 0.14, 0.18))
    hull = [(6.0, rail - 1), (106.0, rail - 4), (94.0, KEEL), (14.0, KEEL)]
    layer.draw(convex(*hull), planks_along((0.13, 0.30, 0.38)))
    layer.draw(convex((6, rail - 1), (106, rail - 4), (104.4, rail - 2.4), (6.4, rail + 0.9)), (0.95, 0.92, 0.85))
    layer.draw(convex((12.4, KEEL - 2.2), (96.5, KEEL - 2.2), (94, KEEL), (14, KEEL)), (0.66, 0.20, 0.17))
    layer.text("NORA", 76, rail + 1.2, 4.2, (0.96, 0.90, 0.76), 0.17)
    for x in (24.0, 44.0, 64.0):
        layer.path([(x, rail - 1.4), (x, rail + 1)], 0.4, INK)
        layer.draw(ellipse(x, rail + 3.4, 1.5, 2.5), (0.93, 0.93, 0.90))
        layer.draw(box(x - 1.5, rail + 2.9, 3, 0.9), (0.30, 0.36, 0.55))
    for x in (88.0, 94.0, 100.0):
        layer.path([(x, rail - 3), (x, rail - 7.4)], 0.35, (0.75, 0.75, 0.76))
    layer.path([(86, rail - 6.8), (101, rail - 7.4)], 0.35, (0.75, 0.75, 0.76))
    layer.draw(line((22, rail - 1.5), (22, rail - 5), 2.6), (0.90, 0.72, 0.22))
    layer.draw(ellipse(22, rail - 7.6, 1.3, 1.5), (0.84, 0.63, 0.50))


def planks_along(color: Color) -> Paint:
    def paint(x: Array, y: Array) -> Array:
        seam = np.clip(np.abs((y + 0.03 * x) % 2.3 - 1.15) / 0.25, 0.72, 1)
        return tinted(color, (seam * (0.90 + 0.25 * clouds(x / 7, y, 3))).astype(np.float32))

    return paint


def draw_balloon() -> Layer:
    """A hot-air balloon, 36 by 56."""
    layer = Layer(36, 56)
    colors = np.array([(0.86, 0.24, 0.20), (0.97, 0.80, 0.34), (0.93, 0.90, 0.82), (0.20, 0.42, 0.56)], np.float32)

    def gores(x: Array, y: Array) -> Array:
        half = 15.2 * np.sqrt(np.clip(1 - ((y - 17) / 17) ** 2, 0.02, 1))
        across = np.arcsin(np.clip((x - 18) / half, -1, 1)) / np.pi + 0.5
        band = np.where((y > 15) & (y < 21), 2, 0)
        zigzag = np.where(np.abs(y - 18 + 2 * np.abs((across * 14) % 2 - 1) - 1) < 0.8, 1, 0)
        index = (np.floor(across * 12).astype(int) + band + zigzag) % 4
        light = 0.66 + 0.46 * np.clip((x - 18) / 30 - (y - 14) / 60 + 0.45, 0, 1)
        return colors[index] * light[..., None]

    layer.draw(ellipse(18, 17, 15, 16.5), gores)
    layer.draw(convex((5.2, 25), (30.8, 25), (21.4, 42), (14.6, 42)), gores)
    for x in (15.0, 17.0, 19.0, 21.0):
        layer.path([(x, 42), (16 + (x - 15) * 0.66, 48)], 0.3, INK)
    layer.draw(box(15.4, 47.6, 5.2, 4.8), bricks((0.55, 0.36, 0.20), (0.30, 0.19, 0.10), 1.4, 1.0, 0.2))
    layer.draw(ellipse(17.2, 46.6, 0.7, 0.9), (0.30, 0.20, 0.15))
    return layer


def draw_sky(width: float) -> Array:
    """float32 [H, W, 3]: evening light that comes from the right, with clouds and two rows of hills."""
    layer = Layer(width)

    def air(x: Array, y: Array) -> Array:
        down = np.clip(y / 112, 0, 1)[..., None]
        glow = np.exp(-(((x - 330) / 190) ** 2) - ((y - 112) / 60) ** 2)[..., None]
        base = np.array((0.30, 0.52, 0.74), np.float32) * (1 - down) + np.array((0.93, 0.80, 0.68), np.float32) * down
        warm = base + glow * (np.array((1.0, 0.76, 0.46), np.float32) - base) * 0.8
        drift = x / 62 + y / 40
        bank = clouds(drift + 2.6, y / 21 + 1.7, 6)
        thick = np.clip((bank - 0.47) * 3.6, 0, 1)[..., None] * (1 - 0.55 * down)
        lit = clouds(drift + 2.8, y / 21 + 1.45, 6)
        shade = np.clip(0.80 + 1.2 * (bank - lit), 0.62, 1.0)[..., None]
        return warm * (1 - thick) + np.array((1.0, 0.93, 0.85), np.float32) * shade * thick

    layer.draw(box(-4, -4, width + 8, HEIGHT + 8), air)
    for height, rough, color in ((88.0, 30.0, (0.62, 0.66, 0.72)), (101.0, 17.0, (0.40, 0.50, 0.50))):

        def ridge(x: Array, y: Array, height: float = height, rough: float = rough) -> Array:
            return height + 22 * (0.5 - clouds(x / (rough * 3), 0 * x + rough, 6)) - y

        def wood(x: Array, y: Array, color: Color = color) -> Array:
            return tinted(color, 0.88 + 0.28 * clouds(x / 3, y / 2, 3))

        layer.draw(Shape((0, 60, width, HEIGHT), ridge), wood)
    return np.ascontiguousarray(layer.pixels[..., :3])


def draw_branch() -> Layer:
    """Leaves that hang into the picture at the top left, near the camera."""
    layer, rng = Layer(140, 90), np.random.default_rng(5)
    spots: list[Point] = []
    bows = (((-4, 2), (46, 10), (92, 20)), ((-4, 14), (24, 26), (44, 44)), ((30, -4), (62, 4), (112, 6)))
    for bow in bows:
        t = np.linspace(0, 1, 12)
        weights = np.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], axis=1)
        points = [(float(x), float(y)) for x, y in weights @ np.array(bow)]
        layer.path(points, 1.1, (0.20, 0.15, 0.12))
        for k, (x, y) in enumerate(points):
            count, spread = 15 - k // 2, 6.5 - 0.25 * k
            spots += [(x + dx, y + dy) for dx, dy in rng.normal(size=(count, 2)) * spread * (0.8, 0.55)]
    draw_leaves(layer, spots, 2.5, rng)
    return layer


class Harbour:
    """The whole scene; `picture` looks at it at a moment."""

    def __init__(self) -> None:
        rng = np.random.default_rng(11)
        width = WIDTH + PAN + 8
        self.sky = draw_sky(width)
        town = Layer(width)
        draw_lighthouse(town)
        for house in HOUSES:
            draw_house(town, house)
        draw_signs(town)
        draw_street(town, rng)
        self.town = town.pixels
        self.boat, self.balloon, self.branch = draw_boat().pixels, draw_balloon().pixels, draw_branch().pixels

    def picture(self, seconds: float, pan: float) -> Array:
        """float32 [FINE * HEIGHT, FINE * WIDTH, 3]; pan: shown pixels the camera has moved."""
        right, wide = round(pan * FINE), WIDTH * FINE
        far = round(pan * 0.3 * FINE)
        picture = self.sky[:, far : far + wide].copy()
        lift = round((18 - 4.5 * seconds) * FINE)
        over(picture, self.balloon, lift, round((262 - pan * 0.45 - 3.0 * seconds) * FINE))
        self._birds(picture, seconds, pan)
        over(picture, self.town[:, right : right + wide])
        boat_column = round((114 + 15 * seconds - pan) * FINE)
        bob = round(0.9 * np.sin(seconds * 2.4) * FINE)
        self._water(picture, seconds, pan, boat_column, bob)
        hull = self.boat[: round(KEEL * FINE)]
        over(picture, hull, bob, boat_column)
        sway = round(0.8 * np.sin(seconds * 1.9) * FINE)
        over(picture, self.branch, sway - FINE, round((-6 - pan * 1.5) * FINE))
        return np.clip(picture, 0, 1)

    def _birds(self, picture: Array, seconds: float, pan: float) -> None:
        layer = Layer(WIDTH, 70)
        for k in range(4):
            x, y = 168 + 13 * k + 9 * seconds - pan * 0.4, 30 + 6 * ((k * 7) % 4) - 2 * seconds
            wing = 1.8 * np.sin(seconds * 9 + k * 1.7)
            for side in (-1, 1):
                layer.path([(x, y), (x + side * 1.4, y - 0.9), (x + side * 3.6, y - wing)], 0.45, INK)
        over(picture, layer.pixels)

    def _water(self, picture: Array, seconds: float, pan: float, boat_column: int, bob: int) -> None:
        """Fills what lies below the quay with a moving mirror of what stands above."""
        foot = round(QUAY_FOOT * FINE)
        rows, columns = np.indices((picture.shape[0] - foot, picture.shape[1]), np.float32)
        depth, x = rows / FINE, columns / FINE + pan
        # Waves look longer and farther apart toward the viewer.
        near = 1 + depth / 11
        u, v = x / near, 9 * np.log(near)
        swell = np.sin(u * 0.55 + v * 2.1 - seconds * 2.6) + np.sin(u * -0.38 + v * 3.3 - seconds * 3.1)
        ripple = clouds(u / 6 + seconds * 0.35, v * 1.4 - seconds * 0.8, 3) - 0.44
        slope = 0.35 * swell + 5.0 * ripple
        shift = (slope * (0.4 + 0.22 * depth) * FINE).astype(int)
        aside = (1.2 * swell * FINE * 0.3).astype(int)
        columns = np.clip(columns.astype(int) + aside, 0, picture.shape[1] - 1)
        mirror = picture[np.clip(foot - 1 - rows.astype(int) - shift, 0, foot - 1), columns]
        boat = np.zeros((*picture.shape[:2], 4), np.float32)
        keel = round(KEEL * FINE)
        over(boat, self.boat[:keel], bob, boat_column)
        above = 2 * (keel + bob) - foot - rows.astype(int) - shift
        mirrored = boat[np.clip(above, 0, keel + bob - 1), columns] * (above < keel + bob)[..., None]
        mirror = mirror * (1 - mirrored[..., 3:]) + mirrored[..., :3]
        clear = np.clip(0.80 - 0.008 * depth - 0.09 * np.abs(slope), 0.25, 0.85)[..., None]
        water = mirror * clear + np.asarray((0.09, 0.24, 0.27), np.float32) * (1 - clear)
        glitter = np.clip(slope - 1.0, 0, 1)[..., None] * np.clip((x - 120) / 260, 0.1, 0.9)[..., None]
        picture[foot:] = water + glitter * np.asarray((0.75, 0.60, 0.42), np.float32)


def shown(fine: Array) -> Array:
    """Drawn to shown pixels: averages of blocks, in linear light."""
    height, width = fine.shape[0] // FINE, fine.shape[1] // FINE
    linear = np.clip(fine, 0, 1) ** 2.2
    return linear.reshape(height, FINE, width, FINE, 3).mean(axis=(1, 3)) ** (1 / 2.2)


# ---- sound


def plucked(notes: Sequence[tuple[float, float]], seconds: float, rate: int) -> Array:
    """float32 [samples]: strings plucked at (seconds, hertz), over the wash of waves."""
    time = np.arange(round(seconds * rate)) / rate
    sound = np.zeros_like(time)
    for begin, pitch in notes:
        since = np.clip(time - begin, 0, None)
        for overtone in (1, 2, 3, 4):
            fading = np.exp(-since * (2.2 + 1.6 * overtone)) * np.minimum(since * 300, 1)
            sound += fading * np.sin(2 * np.pi * pitch * overtone * since) / overtone**1.6 * 0.16
    hiss = np.random.default_rng(3).normal(size=len(time))
    surf = np.convolve(hiss, np.hanning(24), mode="same") * (0.55 + 0.45 * np.sin(2 * np.pi * 0.45 * time))
    return np.clip(sound + 0.006 * surf, -0.95, 0.95).astype(np.float32)


def melody(seconds: float) -> list[tuple[float, float]]:
    scale = (0, 4, 7, 11, 12, 11, 7, 4, 2, 5, 9, 12)
    return [(0.2 * k, 261.63 * 2 ** (scale[k % 12] / 12)) for k in range(int(seconds / 0.2))]


# ---- files


X264 = {"preset": "slow", "mbtree": "0"}
"""With macroblock-tree rate control on, x264 gives another file on every run, even with one thread."""


def planes_from_rgb(rgb: Array, bits: int = 8) -> list[NDArray[Any]]:
    """Y, U, V planes, BT.709, limited range, 4:2:0 with chroma on the left luma column; odd sizes are rounded up."""
    peak = 2 ** (bits - 8)
    luma = rgb @ np.array((0.2126, 0.7152, 0.0722), np.float32)
    blue, red = (rgb[..., 2] - luma) / 1.8556, (rgb[..., 0] - luma) / 1.5748
    planes = [16 + 219 * luma]
    for chroma in (blue, red):
        odd_rows, odd_columns = chroma.shape[0] % 2, chroma.shape[1] % 2
        wide = np.pad(chroma, ((0, odd_rows), (1, 1 + odd_columns)), mode="edge")
        halved = (wide[::2] + wide[1::2]) / 2
        planes.append(128 + 224 * (halved[:, :-2:2] + 2 * halved[:, 1:-1:2] + halved[:, 2::2]) / 4)
    dtype = np.uint8 if bits == 8 else np.uint16
    return [np.clip(np.rint(plane * peak), 0, 256 * peak - 1).astype(dtype) for plane in planes]


def frame_from_planes(planes: Sequence[NDArray[Any]], pixel_format: str) -> av.VideoFrame:
    frame = av.VideoFrame(planes[0].shape[1], planes[0].shape[0], pixel_format)
    for target, plane in zip(frame.planes, planes, strict=True):
        stride = target.line_size // plane.itemsize
        rows = np.frombuffer(target, plane.dtype).reshape(-1, stride)
        rows[: plane.shape[0], : plane.shape[1]] = plane
    return frame


def open_output(path: Path) -> Any:
    """bitexact keeps dates, versions and random numbers out of the file."""
    return av.open(str(path), "w", options={"fflags": "+bitexact"})


def add_video(
    output: Any, codec: str, size: tuple[int, int], time_base: Fraction, options: dict[str, str], *, bits: int = 8
) -> Any:
    """A track with BT.709 tags that is encoded alike on every machine: with one thread."""
    stream = output.add_stream(codec, options=options)
    context = stream.codec_context
    context.width, context.height = size
    context.pix_fmt = "yuv420p" if bits == 8 else f"yuv420p{bits}le"
    context.time_base = stream.time_base = time_base
    context.framerate = Fraction(24)
    context.color_primaries = context.color_trc = context.colorspace = context.color_range = 1
    context.thread_count = 1
    context.flags |= 1 << 8 | 1 << 23  # AV_CODEC_FLAG_FRAME_DURATION, AV_CODEC_FLAG_BITEXACT
    return stream


def add_sound(output: Any, codec: str, rate: int, bit_rate: int, layout: str = "mono") -> Any:
    stream = output.add_stream(codec, rate=rate, layout=layout)
    stream.codec_context.flags |= 1 << 23
    if bit_rate:
        stream.codec_context.bit_rate = bit_rate
    return stream


def encode_video(output: Any, stream: Any, frames: Iterable[tuple[int, int, list[NDArray[Any]]]]) -> None:
    """frames: (pts, duration, planes)."""
    for pts, duration, planes in frames:
        frame = frame_from_planes(planes, stream.codec_context.pix_fmt)
        frame.pts, frame.duration, frame.time_base = pts, duration, stream.codec_context.time_base
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def encode_sound(output: Any, stream: Any, samples: Array) -> None:
    """samples: float32 [channels, samples] at the track's rate."""
    rate = stream.codec_context.sample_rate
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", stream.codec_context.layout.name)
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    resampler = av.AudioResampler(stream.codec_context.format, stream.codec_context.layout, rate)
    for part in (*resampler.resample(frame), *resampler.resample(None)):
        output.mux(stream.encode(part))
    output.mux(stream.encode(None))


def views(harbour: Harbour, count: int, rate: int) -> Iterator[tuple[float, Array]]:
    """(seconds, picture) of a walk along the quay that starts and ends softly."""
    for index in range(count):
        way = index / (count - 1)
        yield index / rate, harbour.picture(index / rate, PAN * way * way * (3 - 2 * way))


def make_clip(path: Path, harbour: Harbour) -> None:
    """H.264 and AAC: the walk along the quay."""
    count, rate = 60, 24
    with open_output(path) as output:
        video = add_video(output, "libx264", (WIDTH, HEIGHT), Fraction(1, 12288), {"crf": "24", **X264, "g": "48"})
        sound = add_sound(output, "aac", 48000, 96000, "stereo")
        step = 12288 // rate
        encode_video(
            output, video,
            ((step * k, step, planes_from_rgb(shown(fine))) for k, (_, fine) in enumerate(views(harbour, count, rate))),
        )  # fmt: skip
        left = plucked(melody(count / rate), count / rate, 48000)
        right = np.roll(left, 480) * 0.9
        encode_sound(output, sound, np.stack([left, right]))


NIGHT = np.array((0.30, 0.38, 0.62), np.float32)
SUBTITLES = ((100, 600, "The lamps are lit."), (800, 600, "Good night, harbour."))
GERMAN = (
    (100, 600, r"0,0,Default,,0,0,0,,{\i1}Die Lampen brennen.{\i0}"),
    (800, 600, r"1,0,Default,,0,0,0,,{\b1}Gute Nacht,{\b0} Hafen."),
)
ASS_HEADER = """[Script Info]
ScriptType: v4.00+
PlayResX: 160
PlayResY: 120

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Sans,9,&H00FFFFFF,&H000000FF,&H00402010,&H80000000,0,0,0,0,100,100,0,0,1,1,0,2,6,6,4,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def at_night(fine: Array) -> Array:
    """The same view after dark: what is yellow and bright by day is taken for a lamp."""
    red, blue = fine[..., 0], fine[..., 2]
    lamp = (np.clip((red - blue - 0.30) * 6, 0, 1) * np.clip((red - 0.88) * 16, 0, 1))[..., None]
    return fine**1.5 * NIGHT * (1 - lamp) + fine * lamp


def draw_stars(harbour: Harbour) -> None:
    rng, layer = np.random.default_rng(8), Layer(harbour.sky.shape[1] / FINE)
    for x, y, size in rng.random((170, 3)) * (WIDTH + PAN, 92, 1):
        layer.draw(ellipse(x, y, 0.16 + 0.34 * size**4, 0.16 + 0.34 * size**4), (1.0, 0.98, 0.60))
    over(harbour.sky, layer.pixels)


def uneven_times(seconds: float) -> list[int]:
    """Milliseconds of frames that come as they like, as a telephone records them."""
    times, steps = [0], (33, 34, 33, 50, 33, 17, 67, 33, 34, 100)
    while times[-1] + steps[len(times) % 10] < seconds * 1000:
        times.append(times[-1] + steps[len(times) % 10])
    return times


def add_subtitles(output: Any, codec: str, language: str, title: str) -> Any:
    stream = output.add_stream(codec)
    stream.codec_context.subtitle_header = ASS_HEADER.encode()
    stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
    stream.metadata.update(language=language, title=title)
    return stream


def mux_subtitles(output: Any, stream: Any, lines: Iterable[tuple[int, int, str]]) -> None:
    """lines: (begin, duration, what the track holds), times in milliseconds."""
    for begin, duration, text in lines:
        packet = av.Packet(text.encode())
        packet.pts = packet.dts = begin
        packet.duration, packet.time_base, packet.stream = duration, Fraction(1, 1000), stream
        output.mux(packet)


def make_subtitled(path: Path, harbour: Harbour) -> None:
    """H.264 with uneven times, two sound tracks, two kinds of subtitles, chapters and an attached file."""
    seconds, milli = 1.5, Fraction(1, 1000)
    times = uneven_times(seconds)
    with open_output(path) as output:
        output.metadata["title"] = "The harbour at night"
        video = add_video(output, "libx264", (160, 120), milli, {"crf": "25", **X264})
        music, voice = add_sound(output, "aac", 44100, 48000), add_sound(output, "flac", 16000, 0)
        music.metadata.update(language="eng", title="Music")
        voice.metadata.update(language="deu", title="Glocken")
        english = add_subtitles(output, "subrip", "eng", "English")
        german = add_subtitles(output, "ass", "deu", "Deutsch")
        about = b"Drawn by samples/make_samples.py of vidsr. Do with it what you like.\n"
        output.add_attachment("about.txt", "text/plain", about)
        output.set_chapters(
            [
                {"id": 1, "start": 0, "end": 700, "time_base": milli, "metadata": {"title": "Lamps"}},
                {"id": 2, "start": 700, "end": 1500, "time_base": milli, "metadata": {"title": "Stars"}},
            ]
        )
        frames = []
        for time, following in zip(times, [*times[1:], round(seconds * 1000)], strict=True):
            fine = harbour.picture(time / 1000, PAN - 12)[120:600, 600:1240]
            frames.append((time, following - time, planes_from_rgb(shown(at_night(fine)))))
        output.start_encoding()
        mux_subtitles(output, english, SUBTITLES)
        mux_subtitles(output, german, GERMAN)
        encode_video(output, video, frames)
        encode_sound(output, music, plucked(melody(seconds), seconds, 44100)[None])
        encode_sound(output, voice, plucked([(0.0, 880.0), (0.75, 660.0)], seconds, 16000)[None])


def make_gradient(path: Path) -> None:
    """HEVC, 10 bits: a night sky that brightens out of black, over a ramp in which every code value has one column."""
    width, height, count, rate = 256, 144, 24, 24
    x, y = np.meshgrid(np.linspace(0, 1, width, dtype=np.float32), np.linspace(0, 1, height, dtype=np.float32))

    def planes(index: int) -> list[NDArray[Any]]:
        way = index / (count - 1)
        glow = np.exp(-(((x - 0.25 - 0.5 * way) / 0.5) ** 2) - ((y - 0.8) / 0.45) ** 2) * 0.30 * way
        sky = glow[..., None] * np.array((1.0, 0.62, 0.50), np.float32) + ((1 - y) * 0.10 * way)[..., None] * NIGHT
        luma, blue, red = planes_from_rgb(sky, bits=10)
        luma[-36:] = 64 + np.arange(width)
        blue[-18:] = red[-18:] = 512
        return [luma, blue, red]

    options = {"crf": "10", "preset": "medium", "x265-params": "log-level=error:pools=none:frame-threads=1:info=0"}
    with open_output(path) as output:
        video = add_video(output, "libx265", (width, height), Fraction(1, 12288), options, bits=10)
        video.codec_context.codec_tag = "hvc1"
        encode_video(output, video, ((512 * k, 12288 // rate, planes(k)) for k in range(count)))


def make_odd(path: Path, harbour: Harbour) -> None:
    """VP9 and Opus: the balloon in 97x65, a size that 4:2:0 does not divide."""
    with open_output(path) as output:
        options = {"crf": "32", "b": "0", "deadline": "good", "cpu-used": "2"}
        video = add_video(output, "libvpx-vp9", (97, 65), Fraction(1, 1000), options)
        sound = add_sound(output, "libopus", 48000, 32000)
        times = [round(1000 * k / 24) for k in range(25)]
        frames = (
            (time, following - time, planes_from_rgb(shown(harbour.picture(time / 1000, 0)[28:288, 880:1268])))
            for time, following in pairwise(times)
        )
        encode_video(output, video, frames)
        encode_sound(output, sound, plucked([(0.0, 523.25), (0.25, 659.26), (0.5, 783.99)], 1.0, 48000)[None])


def main(folder: Path) -> None:
    harbour = Harbour()
    make_clip(folder / "clip.mp4", harbour)
    make_odd(folder / "odd.webm", harbour)
    make_gradient(folder / "gradient_10bit.mp4")
    draw_stars(harbour)
    make_subtitled(folder / "subtitled.mkv", harbour)
    for name in ("clip.mp4", "subtitled.mkv", "gradient_10bit.mp4", "odd.webm"):
        print(f"{name}: {(folder / name).stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
