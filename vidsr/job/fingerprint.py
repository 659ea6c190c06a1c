"""Whether a file is still the same."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vidsr.errors import InputError

__all__ = ["Unchanged", "fingerprint"]

_BLOCK_BYTES, _BLOCKS = 1 << 18, 256


def fingerprint(path: Path) -> str:
    """Size and SHA-256 of a file, up to 64 MiB the whole of it, else that much in blocks spread evenly from the first
    byte to the last. Raises InputError.
    """
    digest = hashlib.sha256()
    try:
        size = path.stat().st_size
        reach = max(_BLOCK_BYTES * (_BLOCKS - 1), size - _BLOCK_BYTES)
        with path.open("rb") as content:
            for index in range(_BLOCKS):
                content.seek(reach * index // (_BLOCKS - 1))
                digest.update(content.read(_BLOCK_BYTES))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    return f"{size} bytes, SHA-256 {digest.hexdigest()[:16]}"


class Unchanged:
    """Finds out whether a file was changed since this was made; cheap as long as nobody touched it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._marks = self._look()
        self.fingerprint = fingerprint(path)

    def check(self) -> None:
        """Raises InputError if the content is another one."""
        marks = self._look()
        if marks == self._marks:
            return
        if fingerprint(self._path) != self.fingerprint:
            raise InputError(f"{self._path} was changed while it was read")
        self._marks = marks

    def _look(self) -> tuple[int, int, int]:
        try:
            status = self._path.stat()
        except OSError as error:
            raise InputError(f"{self._path}: cannot be read any more ({error.strerror or error})") from error
        return status.st_ino, status.st_size, status.st_mtime_ns
