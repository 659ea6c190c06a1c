"""What makers of pages draw with: chance, words, colours, shapes. Everything is in layout units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vidsr.training.canvas import Canvas, Color, Point, Style, faces

__all__ = ["SIGNS", "Drawing", "Pen"]

Drawing = Callable[[Canvas], object]

_SYLLABLES = "ka lo mi ter ver ing ra son de pli qu est or um fa chi bo gne ly wh ax zen ij py ed th ill oo rr"
SIGNS = "(){}[]<>=+-*/.,:;!?#&|%_\"'@$^~"


@dataclass(frozen=True, slots=True)
class Pen:
    """Gathers the drawings of a page of `width` x `height` units.

    ground, ink: the page's two colours. snap: letters stand on whole units (`Canvas.text`).
    """

    rng: np.random.Generator
    width: int
    height: int
    ground: Color
    ink: Color
    snap: bool
    drawings: list[Drawing]

    def whole(self, low: int, high: int) -> int:
        """`low` to `high`, both included."""
        return int(self.rng.integers(low, max(high, low) + 1))

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def color(self) -> Color:
        """Any, three times in ten a strong one."""
        levels = self.rng.choice([0, 255], 3) if self.chance(0.3) else self.rng.integers(0, 256, 3)
        return int(levels[0]), int(levels[1]), int(levels[2])

    def point(self) -> Point:
        return float(self.rng.uniform(0, self.width)), float(self.rng.uniform(0, self.height))

    def style(self, *kinds: str, sizes: tuple[int, int] = (7, 40)) -> Style:
        """Small sizes far more often than large ones, as on screens."""
        files = faces(str(self.rng.choice(kinds)))
        size = sizes[0] + (sizes[1] - sizes[0]) * self.rng.random() ** 3
        return files[self.whole(0, len(files) - 1)], round(float(size))

    def word(self) -> str:
        if self.chance(0.12):
            return str(self.rng.integers(0, 10 ** self.whole(1, 6)))
        word = "".join(self.rng.choice(_SYLLABLES.split(), self.whole(1, 4)))
        word = word.capitalize() if self.chance(0.15) else word.upper() if self.chance(0.05) else word
        return word + (str(self.rng.choice(list(SIGNS))) if self.chance(0.12) else "")

    def words(self, count: int) -> str:
        return " ".join(self.word() for _ in range(count))

    def add(self, drawing: Drawing) -> None:
        self.drawings.append(drawing)

    def text(self, x: float, y: float, words: str, style: Style, color: Color) -> None:
        snap = self.snap
        self.add(lambda canvas: canvas.text((x, y), words, style, color, snap=snap))

    def rectangle(self, left: int, top: int, width: int, height: int, color: Color) -> None:
        self.add(lambda canvas: canvas.rectangle(left, top, width, height, color))

    def frame(self, left: int, top: int, width: int, height: int, color: Color) -> None:
        """One unit wide."""
        for box in ((left, top, width, 1), (left, top + height - 1, width, 1)):
            self.rectangle(*box, color)
        for box in ((left, top, 1, height), (left + width - 1, top, 1, height)):
            self.rectangle(*box, color)

    def line(self, points: list[Point], color: Color, width: float) -> None:
        self.add(lambda canvas: canvas.line(points, color, width))

    def polygon(self, points: list[Point], color: Color) -> None:
        self.add(lambda canvas: canvas.polygon(points, color))

    def gradient(self, left: int, top: int, width: int, height: int) -> None:
        ends, down = (self.color(), self.color()), self.chance(0.5)
        self.add(lambda canvas: canvas.gradient(left, top, width, height, ends, down=down))

    def curve(self) -> list[Point]:
        """A Bezier curve of third degree."""
        ends = np.array([self.point() for _ in range(4)])
        t = np.linspace(0, 1, 24)[:, None]
        weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
        return [(float(x), float(y)) for x, y in weights @ ends]

    def blob(self, around: Point, radius: float) -> list[Point]:
        """A round shape without corners."""
        angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        waves = [self.rng.uniform(0, 0.3 / n) * np.cos(n * angles + self.rng.uniform(0, 6.3)) for n in (2, 3, 4)]
        reach = radius * (1 + sum(waves))
        ys = around[1] + reach * np.sin(angles)
        return list(zip((around[0] + reach * np.cos(angles)).tolist(), ys.tolist(), strict=True))
