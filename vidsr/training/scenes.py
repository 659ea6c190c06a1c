"""Short shots that move, cut from pictures and clips: the pristine large side of the training data."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidsr.errors import InputError
from vidsr.media.picture import read_rgb
from vidsr.media.source import open_input
from vidsr.training.degrade import CLEAN, Clip, degrade

__all__ = ["check", "shot"]

_Path = NDArray[np.float64]
"""(y, x) in pixels, a row for each frame."""
_MAX_STEP_PX = 4
"""How far a pan goes from frame to frame."""


def check(path: Path, patch_px: int) -> None:
    """Raises InputError for what is no picture or clip, or has not `patch_px` pixels both ways."""
    with open_input(path) as container:
        if not container.streams.video:
            raise InputError(f"{path}: no picture or video in it; take it out of the training folder")
        video = container.streams.video[0]
        if not video.width:
            raise InputError(f"{path}: not a readable picture; take it out of the training folder")
        if min(video.width, video.height) < patch_px:
            raise InputError(
                f"{path} is {video.width}x{video.height}; pictures for training must be {patch_px}x{patch_px} at least"
            )


def shot(path: Path, frames: int, patch_px: int, rng: np.random.Generator, *, moving: bool = False) -> Clip:
    """uint8 [frames, patch_px, patch_px, 3] of a picture, set in motion, or of a clip. Raises InputError.

    moving: never a still shot, where a picture leaves room to move in.
    """
    with open_input(path) as container:
        still = container.format.name == "image2" or container.format.name.endswith("_pipe")
        if not still:
            return _from_clip(path, container, frames, patch_px, rng)
    return _from_picture(read_rgb(path), frames, patch_px, rng, moving)


def _from_clip(
    path: Path, container: av.container.InputContainer, frames: int, patch_px: int, rng: np.random.Generator
) -> Clip:
    """Frames as they follow each other from some point on; halved where large enough, which hides their own encode."""
    stream = container.streams.video[0]
    height, width = stream.height, stream.width
    shrink = 2 if min(height, width) >= 2 * patch_px else 1
    side = patch_px * shrink
    top = int(rng.integers(height - side + 1))
    left = int(rng.integers(width - side + 1))
    position = (container.start_time or 0) + int(rng.uniform(0, 0.9) * (container.duration or 0))
    whole = list(_frames(path, container, frames, position if container.duration else None))
    if not whole:  # without an index, a seek may land behind the last key frame
        with open_input(path) as again:
            whole = list(_frames(path, again, frames))
    if not whole:
        raise InputError(f"{path}: no frame of it can be read; take it out of the training folder")
    if any(picture.shape[:2] != (height, width) for picture in whole):
        raise InputError(f"{path} changes its size midway; take it out of the training folder")
    # Near the end of a clip its last frame stands still.
    whole += whole[-1:] * (frames - len(whole))
    clip = np.stack([picture[top : top + side, left : left + side] for picture in whole])
    return clip if shrink == 1 else degrade(clip, shrink, CLEAN, rng)


def _frames(
    path: Path, container: av.container.InputContainer, count: int, position: int | None = None
) -> Iterator[NDArray[Any]]:
    """RGB pictures from a position in microseconds on, or from the first."""
    try:
        if position is not None:
            container.seek(position)
        for frame in islice(container.decode(video=0), count):
            if frame.interlaced_frame:
                raise InputError(f"{path} is interlaced; training needs whole pictures: deinterlace it first")
            yield frame.to_ndarray(format="rgb24", interpolation="BICUBIC")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _from_picture(picture: Clip, frames: int, patch_px: int, rng: np.random.Generator, moving: bool) -> Clip:
    """Still, panned by whole pixels (both exact), or panned, zoomed and turned by parts of pixels."""
    height, width = picture.shape[:2]
    room = np.array([height - patch_px, width - patch_px])
    way = rng.choice(["still", "pan", "glide"], p=[0, 0.4, 0.6] if moving else [0.2, 0.35, 0.45])
    if way == "still" or not room.any():
        top, left = (int(value) for value in rng.integers(room + 1))
        patch = picture[top : top + patch_px, left : left + patch_px]
        return np.broadcast_to(patch, (frames, *patch.shape))
    steps = np.arange(frames)[:, None]
    furthest = np.minimum(room / max(frames - 1, 1), _MAX_STEP_PX)
    if way == "pan":
        speed = np.rint(rng.uniform(-1, 1, 2) * furthest)
        path = _placed(speed * steps, room, rng)
        corners = np.rint(path).astype(int)
        return np.stack([picture[top : top + patch_px, left : left + patch_px] for top, left in corners])
    path = _placed(rng.uniform(-1, 1, 2) * furthest * steps + rng.normal(0, 0.15, (frames, 2)), room, rng)
    grows = rng.uniform(-0.008, 0.008) * steps[:, 0] if rng.random() < 0.4 else np.zeros(frames)
    turns = rng.uniform(-0.006, 0.006) * steps[:, 0] if rng.random() < 0.3 else np.zeros(frames)
    # Only ever closer: what lies between two pixels of the picture is known, what lies beyond is not.
    sizes = 1 / (1 + grows - grows.min())
    image = Image.fromarray(picture)
    return np.stack([_seen(image, patch_px, *view) for view in zip(path, sizes, turns, strict=True)])


def _placed(path: _Path, room: NDArray[Any], rng: np.random.Generator) -> _Path:
    """A path of corners, shifted to somewhere inside the room there is, and cut to it."""
    low, high = path.min(axis=0), path.max(axis=0)
    start = np.floor(rng.uniform(0, 1, 2) * np.maximum(room - (high - low), 0) + 0.5)
    placed: _Path = np.clip(path - np.floor(low) + start, 0, room)
    return placed


def _seen(image: Image.Image, side: int, corner: _Path, size: float, turn: float) -> Clip:
    """The patch at a corner (y, x), its extent times `size`, turned by radians about its middle.

    Pillow's bicubic over four taps (a = -1): at half the highest frequency between +6 % and 0.
    """
    spread = abs(np.cos(turn)) + abs(np.sin(turn))
    # The turned patch, too, lies within the picture: beyond it all is black.
    size = min(size, min(image.size) / (side * spread))
    reach = side / 2 * size * spread
    x, y = (float(np.clip(corner[axis] + side / 2, reach, image.size[1 - axis] - reach)) for axis in (1, 0))
    cosine, sine = size * np.cos(turn), size * np.sin(turn)
    left, top = x - (cosine - sine) * side / 2, y - (sine + cosine) * side / 2
    view = (cosine, -sine, left, sine, cosine, top)
    turned = image.transform((side, side), Image.Transform.AFFINE, view, Image.Resampling.BICUBIC)
    return np.asarray(turned)
