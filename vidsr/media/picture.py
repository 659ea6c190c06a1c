"""Still pictures as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vidsr.errors import InputError
from vidsr.media.source import open_input

__all__ = ["read_rgb"]


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
