"""The libraries that read and write pictures, loaded when one is there."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

from vidsr.errors import UsageError

__all__ = ["first_line", "heif", "vips"]


def vips() -> Any:
    """pyvips. Raises UsageError where it is not installed."""
    library = _load("pyvips")
    # Without a handler Python prints what libvips remarks, hundreds of lines for a damaged file.
    logger = logging.getLogger("pyvips")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return library


def heif() -> Any:
    """pillow_heif. Raises UsageError where it is not installed."""
    return _load("pillow_heif")


def _load(name: str) -> Any:
    try:
        return import_module(name)
    except (ImportError, OSError) as error:  # OSError: its binary part
        raise UsageError(f"pictures need {name}: pip install 'vidsr[images]' ({error})") from error


def first_line(error: Exception) -> str:
    """libvips heaps up lines; the first one behind the name of the call says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("unable to")]
    return (told or lines or ["unknown error"])[0][:200]
