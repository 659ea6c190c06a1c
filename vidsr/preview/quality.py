"""How much the pictures are compressed, by what the link carries."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Quality"]

_STEPS = (92, 85, 75, 60, 45)
_PATIENCE_SECONDS, _TRUST_SECONDS = 1.0, 10.0


class Quality:
    """JPEG's number, lower while pictures do not get through. now: seconds that only grow."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._step = 0
        self._changed = self._refused = now() - _TRUST_SECONDS

    def __call__(self) -> int:
        return _STEPS[self._step]

    @property
    def held_back(self) -> bool:
        """Whether the link is what limits."""
        return self._step > 0 and self._now() - self._refused < _TRUST_SECONDS

    def sent(self, arrived: bool) -> None:
        """Whether the link took the last picture."""
        now = self._now()
        if not arrived:
            self._refused = now
            if now - self._changed >= _PATIENCE_SECONDS and self._step + 1 < len(_STEPS):
                self._step, self._changed = self._step + 1, now
        elif self._step and now - max(self._refused, self._changed) >= _TRUST_SECONDS:
            self._step, self._changed = self._step - 1, now
