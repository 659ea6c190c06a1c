"""Every error vidsr raises on purpose.

VidsrError                  one line: what is wrong, where, what to do
├── UsageError              an option or argument that cannot be used (exit code 2)
├── InputError              the source cannot be read, or has no video
├── OutputError             the target cannot be written
├── ModelError              a model is unknown, unreadable or does not fit
├── BackendError            a backend is missing or cannot run this model
│   ├── DeviceMemoryError   the device has not enough memory
│   └── DeviceLostError     the device cannot be used any more in this process
├── EncoderError            the encoder is missing or refuses its options
├── MemoryBudgetError       not even the smallest tile fits the memory budget
├── ReaderGone              whoever took the stream closed it (exit code 141, as of a program that SIGPIPE ends)
└── Cancelled               the run was stopped on request (exit code 130)
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "Cancelled",
    "DeviceLostError",
    "DeviceMemoryError",
    "EncoderError",
    "InputError",
    "MemoryBudgetError",
    "ModelError",
    "OutputError",
    "ReaderGone",
    "UsageError",
    "VidsrError",
    "first_line",
]


def first_line(error: BaseException, most: int = 200) -> str:
    """What another library's error says, in one line of `most` characters; its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:most]


class VidsrError(Exception):
    """Base of all deliberate errors. `str(error)` is one line for a person."""

    exit_code = 1


class UsageError(VidsrError):
    """An option or argument that cannot be used as given."""

    exit_code = 2


class InputError(VidsrError):
    """The source cannot be read, or holds no usable video."""


class OutputError(VidsrError):
    """The target cannot be written."""


class ModelError(VidsrError):
    """A model is unknown, unreadable, or does not fit the request."""


class BackendError(VidsrError):
    """A backend is not installed or cannot run this model on this device."""


class DeviceMemoryError(BackendError):
    """The device has not enough memory for what was asked of it."""


class DeviceLostError(BackendError):
    """The device failed or was taken away; nothing on it can be used any more in this process."""


class EncoderError(VidsrError):
    """The video encoder is missing, or refuses its options or the picture."""


class MemoryBudgetError(VidsrError):
    """Not even the smallest useful tile fits into the memory budget."""


class ReaderGone(VidsrError):
    """Whoever took the stream closed it before its end."""

    exit_code = 141


class Cancelled(VidsrError):
    """The run was stopped on request before its end."""

    exit_code = 130
