"""Files that are still there after a power cut."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

__all__ = ["give_name", "sync", "sync_folder", "write_whole"]


def sync(out: IO[Any]) -> None:
    """Brings what was written to the disk."""
    out.flush()
    os.fsync(out.fileno())


def sync_folder(folder: Path) -> None:
    """Makes names last; file systems that cannot do that have no need of it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def give_name(finished: Path, path: Path, *, overwrite: bool) -> None:
    """Makes a finished file of the same file system known as `path`, at once; its own name may or may not remain.

    Raises FileExistsError where there is another and `overwrite` is not wanted, OSError.
    """
    if overwrite:
        os.replace(finished, path)
    else:
        try:
            os.link(finished, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if path.exists():
                raise FileExistsError(path) from None
            os.replace(finished, path)
    sync_folder(path.parent)


def write_whole(path: Path, data: bytes) -> None:
    """All of `data` under that name, or what was there before. Only the user may read or write it. Raises OSError."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            sync(out)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
