"""Still pictures as arrays."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vidsr.errors import InputError, OutputError
from vidsr.media.source import open_input

__all__ = ["SUFFIXES", "png_bytes", "read_rgb", "write_png"]

SUFFIXES = {".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff", ".webp"}
"""Of the files in a folder that are taken for pictures."""


def read_rgb(path: Path) -> NDArray[Any]:
    """uint8 [H, W, 3], full range. Raises InputError."""
    with open_input(path) as container:
        try:
            frame = next(container.decode(video=0), None) if container.streams.video else None
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise InputError(f"{path}: not a readable picture ({error})") from error
        if frame is None:
            raise InputError(f"{path}: not a readable picture")
        return np.ascontiguousarray(frame.to_ndarray(format="rgb24"))


def png_bytes(image: NDArray[Any], *, fast: bool = False) -> bytes:
    """uint8 [H, W, 3] as a PNG file. fast: in half the time, a little larger."""
    encoder: Any = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = image.shape[:2]
    encoder.pix_fmt, encoder.time_base = "rgb24", Fraction(1, 25)
    if fast:
        encoder.options = {"compression_level": "1", "pred": "up"}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    return b"".join(bytes(packet) for part in (frame, None) for packet in encoder.encode(part))


def write_png(path: Path, image: NDArray[Any]) -> None:
    """Writes uint8 [H, W, 3] under that name, whole or not at all. Raises OutputError."""
    data = png_bytes(image)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
