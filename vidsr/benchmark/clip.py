"""Clips to measure with where none is given: made by rule, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vidsr.color import BT601, BT709, ColorTags
from vidsr.errors import UsageError
from vidsr.frame import Frame, FrameLayout, Plane, VideoTrack
from vidsr.media.encoder import settings
from vidsr.media.segment import SegmentWriter

__all__ = ["RATE", "Kind", "generate"]

Kind = Literal["live", "screen", "drawn"]
RATE = 25
_LEAST, _MOST = 64, 8192
_SEED = 20
_Picture = NDArray[np.uint8]
_Planes = tuple[_Picture, _Picture, _Picture]


def generate(folder: Path, width: int, height: int, seconds: float, kind: Kind = "live") -> Path:
    """Writes a clip of `RATE` frames a second, H.264 in MP4, 4:2:0 with 8 bits, and gives its path.

    live: texture like nature's under several motions, with grain and cuts; no two frames are equal. screen: text that
    stands still but for a cursor, a pointer and what is typed, and scrolls now and then. drawn: figures held for two
    or three frames before backgrounds that stand or pan, between black bars. These two are lossless, so what stands is
    bit-identical. The same every time. Raises UsageError.
    """
    if width % 2 or height % 2 or not (_LEAST <= width <= _MOST and _LEAST <= height <= _MOST):
        raise UsageError(f"--size {width}x{height}: a generated clip needs even numbers from {_LEAST} to {_MOST}")
    frames = round(seconds * RATE)
    if frames < 1:
        raise UsageError(f"--seconds {seconds:g}: less than one frame")
    path = folder / f"{kind}_{width}x{height}.mp4"
    tags = BT709 if height >= 720 else BT601
    time_base = Fraction(1, 100 * RATE)
    color = ColorTags(primaries=tags, transfer=tags, matrix=tags, full_range=False)
    layout = FrameLayout(family="yuv", bits=8, height=height, width=width, chroma=(2, 2))
    video = VideoTrack(layout=layout, color=color, time_base=time_base, rate=Fraction(RATE))
    encoder = settings("libx264", crf=18 if kind == "live" else 0, preset="veryfast", extra={})
    writer = SegmentWriter(path, video, encoder)
    try:
        for index, planes in zip(range(frames), _KINDS[kind](width, height), strict=False):
            writer.write(_frame(planes, index, time_base, color))
        writer.close()
    except BaseException:
        writer.abandon()
        raise
    return path


def _frame(planes: tuple[Plane, ...], index: int, time_base: Fraction, color: ColorTags) -> Frame:
    return Frame(planes=planes, pts=100 * index, duration=100, time_base=time_base, color=color)


def _live(width: int, height: int) -> Iterator[_Planes]:
    """A landscape that the camera pans over with a growing shake, things that cross it, and grain; a cut every four
    seconds."""
    random = np.random.default_rng(_SEED)
    grain = random.normal(0, 2.5, (2 * height, 2 * width)).astype(np.int8).view(np.uint8)
    size = max(16, min(height // 4, width // 2) // 2 * 2)
    scene_frames = 4 * RATE
    for scene in count():
        land = [_texture(random, height + size, width + 4 * scene_frames, 128)]
        land += [_texture(random, (height + size) // 2, width // 2 + 2 * scene_frames, 30) for _ in range(2)]
        thing = [_texture(random, size, size, 150), *(_texture(random, size // 2, size // 2, 60) for _ in range(2))]
        pace, things = (1, 3, 2)[scene % 3], 1 + scene % 3
        for step in range(scene_frames):
            down = round(size / 4 * (1 + np.sin(step / 13) * step / scene_frames))
            across = pace * step
            planes = [
                plane[down // by : down // by + height // by, across // by : across // by + width // by].copy()
                for plane, by in zip(land, (1, 2, 2), strict=True)
            ]
            for number in range(things):
                left = (step * (5 + 2 * number) + 97 * number) % (width - size) // 2 * 2
                top = round((0.5 + 0.4 * np.sin(step / 17 + number)) * (height - size)) // 2 * 2
                for plane, part, by in zip(planes, thing, (1, 2, 2), strict=True):
                    plane[top // by : (top + size) // by, left // by : (left + size) // by] = part
            row, column = random.integers(0, height), random.integers(0, width)
            planes[0] += grain[row : row + height, column : column + width]
            yield planes[0], planes[1], planes[2]


def _screen(width: int, height: int) -> Iterator[_Planes]:
    """A window with text, a bar above it and a list at its side. It scrolls for half a second every four."""
    random = np.random.default_rng(_SEED)
    gray = np.full((height // 2, width // 2), 128, np.uint8)
    bar, side, line = 24, width // 5 // 2 * 2, 12
    page = _text(random, 8 * height, width - side - 8, line)
    frame = np.full((height, width), 226, np.uint8)
    frame[:bar] = 70
    frame[6:15, 8 : width // 2] = np.maximum(235 - _text(random, 9, width // 2 - 8, 9), 70)
    frame[bar:, :side] = np.minimum(_text(random, height - bar, side, 2 * line), 216)
    blue = gray.copy()
    blue[: bar // 2] = 150
    pointer = np.tri(14, 10, dtype=bool)
    typed, scrolled = 0, 0
    for step in count():
        phase = step % (4 * RATE)
        scrolled += 6 if phase >= 3.5 * RATE else 0
        typed = typed + 1 if phase < RATE and step % 3 == 0 else typed
        top = scrolled % (page.shape[0] - height)
        picture = frame.copy()
        picture[bar:, side + 8 :] = page[top : top + height - bar]
        # What is typed stands on a line of its own at the foot.
        foot = height - 2 * line
        picture[foot:, side + 8 :] = 235
        letters = 6 * (typed % ((width - side - 16) // 6))
        picture[foot + 2 : foot + 2 + line, side + 8 : side + 8 + letters] = page[:line, :letters]
        if step // (RATE // 2) % 2:
            picture[foot + 2 : foot + line, side + 8 + letters : side + 10 + letters] = 16
        if RATE <= phase < 2 * RATE:  # the pointer moves for one second, and rests for three
            moved = step
        else:
            moved = step // (4 * RATE) * 4 * RATE + (RATE if phase < RATE else 2 * RATE)
        x = round((0.5 + 0.4 * np.sin(moved / 19)) * (width - 10))
        y = round((0.5 + 0.4 * np.cos(moved / 23)) * (height - 14))
        picture[y : y + 14, x : x + 10][pointer] = 16
        yield picture, blue, gray


def _drawn(width: int, height: int) -> Iterator[_Planes]:
    """Two figures in flat colours with outlines, drawn anew every second or third frame; bars above and below. The
    background pans in every other scene."""
    random = np.random.default_rng(_SEED)
    bars = height // 8 // 2 * 2
    scene_frames = 4 * RATE
    for scene in count():
        pace, held = ((0, 3), (2, 2))[scene % 2]
        far = width + pace * scene_frames
        # A painted background: soft, without grain.
        back = [_texture(random, height, far, 128, 2.2)]
        back += [_texture(random, height // 2, far // 2, 40, 2.4) for _ in range(2)]
        hues = random.integers(60, 200, (2, 3))
        for step in range(scene_frames):
            across = pace * step
            planes = [
                plane[:, across // by : across // by + width // by].copy()
                for plane, by in zip(back, (1, 2, 2), strict=True)
            ]
            drawing = step // held
            for number in range(2):
                middle = (
                    height * (0.55 + 0.05 * np.sin(drawing / 2 + number)),
                    width * (0.3 + 0.4 * number + 0.04 * np.sin(drawing / 3)),
                )
                _figure(planes, middle, height * (0.2 + 0.01 * (drawing % 3)), hues[number])
            for plane, by, black in zip(planes, (1, 2, 2), (16, 128, 128), strict=True):
                plane[: bars // by] = black
                plane[-(bars // by) :] = black
            yield planes[0], planes[1], planes[2]


def _figure(planes: list[_Picture], middle: tuple[float, float], radius: float, hue: NDArray[Any]) -> None:
    """A disc with a dark outline and two eyes."""
    for plane, by, value in zip(planes, (1, 2, 2), hue, strict=True):
        rows, columns = np.ogrid[: plane.shape[0], : plane.shape[1]]
        squares = (rows * by - middle[0]) ** 2 + (columns * by - middle[1]) ** 2
        if by == 1:
            plane[squares <= (radius + 2) ** 2] = 24
        plane[squares <= radius**2] = value
        if by == 1:
            for side in (-1, 1):
                eye = (rows - middle[0] + radius / 4) ** 2 + (columns - middle[1] + side * radius / 3) ** 2
                plane[eye <= (radius / 8) ** 2] = 24


def _texture(random: np.random.Generator, height: int, width: int, spread: int, steep: float = 1.2) -> _Picture:
    """Noise whose strength falls with frequency, as in pictures of nature: uint8 [height, width] around 126, `spread`
    from its darkest to its lightest parts."""
    # Made at a size that is fast to transform, and repeated where that is less.
    side = 512
    rows, columns = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    strength = (rows**2 + columns**2 + 1 / side**2) ** (-steep / 2)
    waves = np.fft.rfft2(random.standard_normal((side, side), np.float32)) * strength
    tile = np.fft.irfft2(waves, (side, side))
    codes = np.clip(126 + spread * tile / (6 * tile.std()), 24, 228).astype(np.uint8)
    repeated: _Picture = np.tile(codes, (-(-height // side), -(-width // side)))[:height, :width]
    return repeated


def _text(random: np.random.Generator, height: int, width: int, line: int) -> _Picture:
    """Black on white: lines of words whose letters are patterns of five by seven."""
    letters = random.random((26, 7, 5)) < 0.45
    paper = np.full((height, width), 235, np.uint8)
    for top in range(1, height - 7, line):
        column = 2
        while column < width * random.uniform(0.6, 1.0) - 40:
            for letter in random.integers(0, 26, random.integers(2, 9)):
                if column + 5 <= width:
                    paper[top : top + 7, column : column + 5][letters[letter]] = 16
                column += 6
            column += 6
    return paper


_KINDS: dict[Kind, Callable[[int, int], Iterator[_Planes]]] = {"live": _live, "screen": _screen, "drawn": _drawn}
