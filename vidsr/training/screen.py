"""Shots of made-up screens: a page that scrolls, a cursor over it, something that appears."""

from __future__ import annotations

import numpy as np

from vidsr.training.canvas import Canvas
from vidsr.training.degrade import Clip
from vidsr.training.pages import draw_page

__all__ = ["screen_shot"]

_ARROW = ((0, 0), (0, 14), (3.2, 11), (5.5, 16), (8, 15), (5.7, 10), (10, 10))


def screen_shot(
    frames: int, side: int, densities: tuple[int, ...], rng: np.random.Generator, *, page: str | None = None
) -> list[Clip]:
    """The same shot of `side` x `side` layout units at each density: uint8 [frames, side * density, ...] each.

    It scrolls by whole units, or stands still with a cursor moving or one thing appearing. page: a name in `PAGES`.
    """
    speed = np.zeros(2, int)
    if rng.random() < 0.4:
        speed[int(rng.random() < 0.2)] = rng.integers(-8, 9)
    travel = np.abs(speed) * (frames - 1)
    corners = np.outer(np.arange(frames), speed) + np.where(speed < 0, travel, 0)
    height, width = (int(side + extra) for extra in travel)
    drawn = draw_page(width, height, rng, page)
    other = draw_page(side // 2, side // 2, rng)
    appears = int(rng.integers(1, frames)) if rng.random() < 0.25 else frames
    where = rng.integers(0, side // 2, 2)
    pointer = rng.uniform(0, side, 2) + np.outer(np.arange(frames), rng.normal(0, 4, 2))
    pointed = rng.random() < 0.35
    clips = []
    for density in densities:
        sheet = drawn.canvas(width, height, density)
        popup = other.canvas(side // 2, side // 2, density)
        views = []
        for index, (top, left) in enumerate(corners):
            view = Canvas(side, side, density, (0, 0, 0))
            view.image.paste(sheet.image, (-int(left) * density, -int(top) * density))
            if index >= appears:
                view.image.paste(popup.image, (int(where[1]) * density, int(where[0]) * density))
            if pointed:
                _point(view, round(pointer[index][1]), round(pointer[index][0]))
            views.append(np.asarray(view.image))
        clips.append(np.stack(views))
    return clips


def _point(view: Canvas, x: int, y: int) -> None:
    outline = [(x + dx, y + dy) for dx, dy in _ARROW]
    view.polygon(outline, (255, 255, 255))
    view.line([*outline, outline[0]], (0, 0, 0), 1)
