"""What FFmpeg says while something is tried."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av

__all__ = ["listening"]


@contextmanager
def listening(level: int = av.logging.WARNING) -> Iterator[list[tuple[int, str, str]]]:
    """Gathers this thread's messages of `level` and worse, as (level, speaker, text), and keeps them off the screen."""
    before = av.logging.get_level()
    av.logging.set_level(level)
    try:
        with av.logging.Capture() as log:
            messages: Any = log
            yield messages
    finally:
        av.logging.set_level(before)
