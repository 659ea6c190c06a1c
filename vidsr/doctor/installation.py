"""Memory, models and the cache, as vidsr itself finds them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["look"]


def look(say: Callable[[dict[str, Any]], None]) -> None:
    """Says memory_bytes, memory_free_bytes, models and cache."""
    say({"doing": "loading vidsr"})
    from vidsr import models
    from vidsr.errors import ModelError
    from vidsr.job.engine import available_memory, cache_folder, default_cache

    say({"memory_bytes": _memory(), "memory_free_bytes": available_memory()})
    found: list[dict[str, Any]] = []
    for path in models.installed():
        entry: dict[str, Any] = {"name": path.stem, "scale": None, "bytes": path.stat().st_size, "error": None}
        try:
            entry["scale"] = models.load(str(path)).scale
        except ModelError as error:
            entry["error"] = str(error)
        found.append(entry)
    folder = cache_folder()
    writable = default_cache() is not None
    say({"models": found, "cache": {"folder": str(folder), "bytes": _size(folder), "writable": writable}})


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
