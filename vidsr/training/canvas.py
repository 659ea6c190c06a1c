"""A canvas that draws the same layout at any number of pixels a unit, and the fonts for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vidsr.errors import InputError

__all__ = ["FAMILIES", "Canvas", "Color", "Point", "Style", "advance", "faces"]

Color = tuple[int, int, int]
Point = tuple[float, float]
"""(x, y) in layout units, from the top left."""
Style = tuple[Path, int]
"""A font file and its size in layout units."""

FAMILIES = {
    "sans": ("arimo", "open_sans", "pt_sans", "pt_sans_narrow"),
    "serif": ("pt_serif", "crimson_text", "zilla_slab"),
    "mono": ("ibm_plex_mono", "jetbrains_mono"),
    "odd": ("press_start_2p", "kalam"),
}
"""Open Font License, each from the package `fontpkg-NAME`, so that everyone draws with the same files."""
_FINE = 4
"""How many samples a pixel, each way, make smooth edges."""


@cache
def faces(kind: str) -> tuple[Path, ...]:
    """The font files of a row of `FAMILIES`. Raises InputError if they are not installed."""
    found: list[Path] = []
    for family in FAMILIES[kind]:
        package = find_spec(f"fontpkg_{family}")
        if package is None or not package.submodule_search_locations:
            name = family.replace("_", "-")
            raise InputError(f"drawing screens needs the font package fontpkg-{name}; pip install 'vidsr[train]'")
        files = Path(package.submodule_search_locations[0]) / "files"
        # The thinnest and the boldest weights are for headlines; the thin ones vanish at the sizes of text.
        found += sorted(
            path for path in files.glob("*.ttf") if not any(thin in path.name for thin in ("Thin", "Extra"))
        )
    return tuple(found)


@cache
def _font(path: Path, size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def advance(style: Style, letter: str, *, snap: bool) -> float:
    """Layout units to the next letter; whole ones with `snap`, as systems place text that hint it."""
    path, size = style
    return max(round(_font(path, size).getlength(letter)), 1) if snap else _font(path, 16 * size).getlength(letter) / 16


class Canvas:
    """RGB, `width` x `height` layout units of `density` x `density` pixels.

    aliased: letters and lines without smooth edges. subpixel: letters three times as sharp across in coloured stripes,
    as for LCD panels.
    """

    def __init__(
        self, width: int, height: int, density: int, ground: Color, *, aliased: bool = False, subpixel: bool = False
    ) -> None:
        self.image = Image.new("RGB", (width * density, height * density), ground)
        self.density, self.aliased, self.subpixel = density, aliased, subpixel

    def rectangle(self, left: int, top: int, width: int, height: int, color: Color) -> None:
        unit = self.density
        self.image.paste(color, (left * unit, top * unit, (left + width) * unit, (top + height) * unit))

    def gradient(self, left: int, top: int, width: int, height: int, ends: tuple[Color, Color], *, down: bool) -> None:
        ramp = Image.linear_gradient("L")
        ramp = (ramp if down else ramp.rotate(90)).resize((width * self.density, height * self.density))
        low, high = (Image.new("RGB", ramp.size, color) for color in ends)
        self.image.paste(Image.composite(high, low, ramp), (left * self.density, top * self.density))

    def tile(self, left: int, top: int, cells: NDArray[np.uint8]) -> None:
        """uint8 [H, W, 3]: one colour for each unit."""
        grown = cells.repeat(self.density, axis=0).repeat(self.density, axis=1)
        self.image.paste(Image.fromarray(grown), (left * self.density, top * self.density))

    def text(self, at: Point, words: str, style: Style, color: Color, *, snap: bool) -> float:
        """Letters from the base line's beginning `at`; returns where the next one would stand."""
        path, size = style
        font = _font(path, size * self.density)
        places, x = [], at[0]
        for letter in words:
            places.append(x)
            x += advance(style, letter, snap=snap)
        left, top = int(at[0] - size), int(at[1] - 1.5 * size)
        box = (left, top, int(x + size) + 1, int(at[1] + size) + 1)
        thirds = (1 / 3, 0, -1 / 3) if self.subpixel and not self.aliased else (0,)
        masks = [Image.new("L", self._extent(box)) for _ in thirds]
        for mask, third in zip(masks, thirds, strict=True):
            draw = ImageDraw.Draw(mask)
            draw.fontmode = "1" if self.aliased else "L"
            y = (at[1] - top) * self.density
            for place, letter in zip(places, words, strict=True):
                if letter != " ":
                    draw.text(((place - left) * self.density + third, y), letter, 255, font, anchor="ls")
        self._blend(box, masks, color)
        return x

    def line(self, points: Sequence[Point], color: Color, width: float) -> None:
        """Through the points, with round joints; a line of width 1 through (x + .5, y) fills a column of units."""
        self._shape(points, color, width, filled=False)

    def polygon(self, points: Sequence[Point], color: Color) -> None:
        self._shape(points, color, 0, filled=True)

    def _shape(self, points: Sequence[Point], color: Color, width: float, *, filled: bool) -> None:
        xs, ys = zip(*points, strict=True)
        edge = int(width) + 2
        box = (int(min(xs)) - edge, int(min(ys)) - edge, int(max(xs)) + edge + 1, int(max(ys)) + edge + 1)
        fine = 1 if self.aliased else _FINE
        unit = fine * self.density
        mask = Image.new("L", (self._extent(box)[0] * fine, self._extent(box)[1] * fine))
        # Pillow's coordinates name pixels, not the corners between them.
        spots = [((x - box[0]) * unit - 0.5, (y - box[1]) * unit - 0.5) for x, y in points]
        if filled:
            ImageDraw.Draw(mask).polygon(spots, 255)
        else:
            ImageDraw.Draw(mask).line(spots, 255, max(round(width * unit), 1), joint="curve")
        self._blend(box, [mask.reduce(fine)], color)

    def _extent(self, box: tuple[int, int, int, int]) -> tuple[int, int]:
        return (box[2] - box[0]) * self.density, (box[3] - box[1]) * self.density

    def _blend(self, box: tuple[int, int, int, int], masks: Sequence[Image.Image], color: Color) -> None:
        """Lays `color` over the box through one mask, or one for each channel."""
        corner = (box[0] * self.density, box[1] * self.density)
        if len(masks) == 1:
            self.image.paste(color, (*corner, corner[0] + masks[0].width, corner[1] + masks[0].height), masks[0])
            return
        under = self.image.crop((*corner, corner[0] + masks[0].width, corner[1] + masks[0].height)).split()
        for band, level, mask in zip(under, color, masks, strict=True):
            band.paste(level, (0, 0, *mask.size), mask)
        self.image.paste(Image.merge("RGB", under), corner)
