"""What is to be seen on screens, made up: text, code, tables, windows, plots, line art, drawings, patterns.

Each page is decided once and can then be drawn at any density (`Canvas`). Sizes are in layout units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from vidsr.training.canvas import Canvas, Color, Point
from vidsr.training.pen import SIGNS, Drawing, Pen

__all__ = ["PAGES", "Page", "draw_page"]

_KEYWORDS = "def class return if else for while import from const let var fn match int void public static"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Drawings over a ground, in order."""

    ground: Color
    drawings: tuple[Drawing, ...]
    aliased: bool
    subpixel: bool

    def canvas(self, width: int, height: int, density: int) -> Canvas:
        """The page's upper left part, drawn."""
        canvas = Canvas(width, height, density, self.ground, aliased=self.aliased, subpixel=self.subpixel)
        for drawing in self.drawings:
            drawing(canvas)
        return canvas


def _document(pen: Pen) -> None:
    y, left = 4, pen.whole(2, 16)
    while y < pen.height:
        style = pen.style("sans", "sans", "serif", "odd")
        color = pen.ink if pen.chance(0.8) else pen.color()
        for _ in range(pen.whole(1, 6)):
            y += round(style[1] * 1.3)
            pen.text(left, y, pen.words(pen.whole(2, 4 + pen.width // (3 * style[1]))), style, color)
        y += pen.whole(0, style[1])


def _code(pen: Pen) -> None:
    style = pen.style("mono", sizes=(8, 20))
    colors = [pen.color() for _ in range(4)] + [pen.ink] * 3
    numbers = pen.chance(0.5)
    for index, y in enumerate(range(style[1] + 2, pen.height + style[1], round(style[1] * 1.35))):
        x = 3.0
        if numbers:
            pen.text(x, y, f"{index + 1:3d}", style, colors[0])
            x += 4 * style[1] * 0.6
        x += pen.whole(0, 3) * 4 * round(style[1] * 0.6)
        for _ in range(pen.whole(0, 7)):
            token = pen.word()
            if pen.chance(0.3):
                token = str(pen.rng.choice(_KEYWORDS.split()))
            elif pen.chance(0.3):
                token = "".join(pen.rng.choice(list(SIGNS), pen.whole(1, 3)))
            pen.text(round(x), y, token, style, colors[pen.whole(0, len(colors) - 1)])
            x += (len(token) + pen.whole(0, 1)) * max(round(style[1] * 0.6), 1)


def _table(pen: Pen) -> None:
    style = pen.style("sans", "mono", "serif", sizes=(7, 18))
    row, column = style[1] + pen.whole(3, 9), pen.whole(4, 9) * style[1]
    rule = pen.color()
    striped, ruled = pen.chance(0.4), pen.chance(0.8)
    band = pen.color()
    for number, y in enumerate(range(0, pen.height, row)):
        if striped and number % 2:
            pen.rectangle(0, y, pen.width, row, band)
        if ruled:
            pen.rectangle(0, y, pen.width, 1, rule)
        for x in range(0, pen.width, column):
            pen.text(x + 3, y + row - 4, pen.word()[: 2 * column // style[1] - 1], style, pen.ink)
    if ruled:
        for x in range(0, pen.width, column):
            pen.rectangle(x, 0, 1, pen.height, rule)


def _desktop(pen: Pen) -> None:
    pen.gradient(0, 0, pen.width, pen.height)
    for _ in range(pen.whole(1, 3)):
        width, height = pen.whole(60, pen.width), pen.whole(50, pen.height)
        left, top = pen.whole(-10, pen.width - 50), pen.whole(0, pen.height - 40)
        title = pen.style("sans", sizes=(9, 16))
        bar = title[1] + pen.whole(5, 10)
        body, ink = (pen.ground, pen.ink) if pen.chance(0.7) else (pen.ink, pen.ground)
        pen.rectangle(left, top, width, height, body)
        pen.rectangle(left, top, width, bar, pen.color())
        pen.frame(left, top, width, height, pen.color())
        pen.text(left + 6, top + bar - 5, pen.words(2), title, pen.color())
        for place in range(pen.whole(0, 3)):
            middle = (left + width - 9.0 - 14 * place, top + bar / 2)
            _icon(pen, middle, 4.5)
        style = pen.style("sans", "sans", "mono", sizes=(8, 16))
        for y in range(top + bar + style[1] + 3, top + height - 4, style[1] + pen.whole(3, 10)):
            if pen.chance(0.3):
                _icon(pen, (left + 10.0, y - style[1] / 2 + 1), style[1] / 2)
            letters = max((width - 30) // style[1], 1)
            pen.text(left + 20, y, pen.words(4)[:letters], style, ink if pen.chance(0.8) else pen.color())


def _icon(pen: Pen, middle: Point, radius: float) -> None:
    x, y = middle
    corners = pen.whole(3, 8)
    angles = np.arange(corners) * 2 * np.pi / corners + pen.rng.uniform(0, 6.3)
    around = [(x + radius * float(np.cos(a)), y + radius * float(np.sin(a))) for a in angles]
    pen.polygon(around, pen.color())
    if pen.chance(0.5):
        pen.line([(x - radius / 2, y - radius / 2), (x + radius / 2, y + radius / 2)], pen.color(), 1)
        pen.line([(x - radius / 2, y + radius / 2), (x + radius / 2, y - radius / 2)], pen.color(), 1)


def _line_art(pen: Pen) -> None:
    for _ in range(pen.whole(10, 40)):
        color = pen.ink if pen.chance(0.6) else pen.color()
        width = float(pen.rng.choice([0.5, 1, 1, 1, 1.5, 2, 3, 6]))
        if pen.chance(0.4):
            pen.line(pen.curve(), color, width)
        elif pen.chance(0.3):
            pen.polygon([pen.point() for _ in range(pen.whole(3, 5))], pen.color())
        else:
            pen.line([pen.point(), pen.point()], color, width)


def _plot(pen: Pen) -> None:
    style = pen.style("sans", "serif", sizes=(8, 14))
    left, bottom = min(4 * style[1], pen.width // 2), max(pen.height - 3 * style[1], pen.height // 2)
    grid = pen.color()
    if pen.chance(0.6):
        for step in range(0, max(pen.width, pen.height), pen.whole(12, 40)):
            pen.rectangle(left + step, 0, 1, bottom, grid)
            pen.rectangle(left, bottom - step, pen.width - left, 1, grid)
    xs = np.arange(0, pen.width - left, 3)
    for _ in range(pen.whole(1, 4)):
        color = pen.color()
        if pen.chance(0.3):
            for x in range(left + 4, pen.width, pen.whole(6, 20)):
                high = pen.whole(2, bottom)
                pen.rectangle(x, bottom - high, pen.whole(2, 8), high, color)
            continue
        shape = (
            np.cumsum(pen.rng.normal(0, 4, len(xs))) if pen.chance(0.5) else 40 * np.sin(xs / pen.rng.uniform(4, 40))
        )
        ys = np.clip(shape + pen.whole(0, bottom), 0, bottom)
        pen.line([(float(left + x), float(y)) for x, y in zip(xs, ys, strict=True)], color, pen.whole(1, 3))
    pen.frame(left, 0, pen.width - left, bottom, pen.ink)
    for step in range(0, pen.height, 3 * style[1]):
        pen.text(2, bottom - step, f"{pen.rng.uniform(0, 99):.1f}", style, pen.ink)
        pen.text(left + 2 * step, bottom + 2 * style[1], str(step), style, pen.ink)
    pen.text(left + 10, style[1] + 4, pen.words(3), style, pen.ink)


def _cartoon(pen: Pen) -> None:
    """Flat areas within dark outlines, as in drawn films."""
    pen.gradient(0, 0, pen.width, pen.height)
    outline = (pen.whole(0, 50), pen.whole(0, 40), pen.whole(0, 50))
    width = float(pen.rng.uniform(1, 3.5))
    for _ in range(pen.whole(4, 14)):
        least, most = sorted((8.0, pen.width / 3))
        shape = pen.blob(pen.point(), float(pen.rng.uniform(least, most)))
        pen.polygon(shape, pen.color())
        if pen.chance(0.85):
            pen.line([*shape, shape[0]], outline, width)
    for _ in range(pen.whole(2, 10)):
        pen.line(pen.curve(), outline, width)


def _patterns(pen: Pen) -> None:
    """Checks, stripes, grids, dither and coloured noise down to one unit, beside each other."""
    side = pen.whole(24, 90)
    for top in range(0, pen.height, side):
        for left in range(0, pen.width, side):
            pen.add(_pattern(pen, left, top, side))


def _pattern(pen: Pen, left: int, top: int, side: int) -> Drawing:
    ys, xs = np.mgrid[:side, :side]
    period = int(pen.rng.choice([1, 1, 1, 2, 3, 4, 8]))
    cells = [
        (ys // period + xs // period) % 2,
        ys // period % 2,
        xs // period % 2,
        ((ys % (4 * period) == 0) | (xs % (4 * period) == 0)).astype(int),
        (pen.rng.random((side, side)) < xs / side).astype(int),
        (ys + xs) // period % 2,
    ]
    colors = (pen.ground, pen.ink) if pen.chance(0.6) else (pen.color(), pen.color())
    kind = pen.whole(0, len(cells))
    if kind < len(cells):
        tile = np.array(colors, np.uint8)[cells[kind]]
    else:
        tile = pen.rng.integers(0, 256, (side, side, 3), np.uint8)
        if pen.chance(0.5):
            tile = tile // 128 * np.uint8(255)

    def drawing(canvas: Canvas) -> None:
        canvas.tile(left, top, tile)

    return drawing


PAGES: Mapping[str, tuple[Callable[[Pen], None], float]] = {
    "document": (_document, 0.22),
    "code": (_code, 0.2),
    "table": (_table, 0.1),
    "desktop": (_desktop, 0.15),
    "line_art": (_line_art, 0.08),
    "plot": (_plot, 0.08),
    "cartoon": (_cartoon, 0.1),
    "patterns": (_patterns, 0.07),
}
"""By name: what makes a page, and how often. A new kind of page is one function and one row."""

_COLORS: tuple[tuple[Color, Color], ...] = (
    ((255, 255, 255), (0, 0, 0)),
    ((0, 0, 0), (255, 255, 255)),
    ((30, 30, 30), (212, 212, 212)),
    ((248, 248, 242), (40, 42, 54)),
    ((240, 240, 240), (150, 150, 150)),
    ((40, 44, 52), (92, 99, 112)),
    ((0, 43, 54), (131, 148, 150)),
)
"""Ground and ink; every other page is black on white or white on black, of the others any."""


def draw_page(width: int, height: int, rng: np.random.Generator, name: str | None = None) -> Page:
    """A page of `width` x `height` units of any kind, or of the one named."""
    names = list(PAGES)
    name = name or str(rng.choice(names, p=[share for _, share in PAGES.values()]))
    ground, ink = _COLORS[int(rng.integers(2 if rng.random() < 0.5 else len(_COLORS)))]
    pen = Pen(rng, width, height, ground, ink, bool(rng.random() < 0.7), [])
    if rng.random() < 0.12:
        ground, ink = pen.color(), pen.color()
        pen = Pen(rng, width, height, ground, ink, pen.snap, [])
    PAGES[name][0](pen)
    return Page(
        ground=ground,
        drawings=tuple(pen.drawings),
        aliased=bool(rng.random() < 0.08),
        subpixel=bool(rng.random() < 0.15),
    )
