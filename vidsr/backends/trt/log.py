"""What TensorRT says. It keeps the first logger it is given for the whole process, so there is only one."""

from __future__ import annotations

from collections import deque
from functools import cache

import tensorrt as trt

__all__ = ["Log", "log"]

_KEPT_LINES = 30


class Log(trt.ILogger):  # type: ignore[misc]
    """Keeps the last errors and warnings; TensorRT calls it from threads of its own."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self._lines: deque[tuple[bool, str]] = deque(maxlen=_KEPT_LINES)

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        serious = severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)
        if serious or severity == trt.ILogger.Severity.WARNING:
            self._lines.append((serious, " ".join(msg.split())))

    def clear(self) -> None:
        self._lines.clear()

    def reason(self) -> str:
        """The first error since `clear`, which is the cause of those behind it."""
        lines = list(self._lines)
        errors = [text for serious, text in lines if serious] or [text for _, text in lines]
        return errors[0][:300] if errors else "it gives no reason"


@cache
def log() -> Log:
    """The one of this process."""
    return Log()
