"""The NVIDIA driver's own library, asked without any other; makes no context on a card."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["NAME", "card_count", "driver_library", "driver_present", "driver_version"]

NAME = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def driver_library() -> ctypes.CDLL | None:
    """None where there is no driver; where there is one, there need not be a card."""
    try:
        return ctypes.CDLL(NAME)
    except OSError:
        return None


def driver_present() -> bool:
    """Whether the system has the driver; with a card that works or without."""
    return driver_library() is not None


def card_count() -> int:
    """How many cards the driver finds; 0 without one."""
    library, number = driver_library(), ctypes.c_int()
    if library is None or library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(number)):
        return 0
    return number.value


def driver_version() -> tuple[int, int] | None:
    """The newest CUDA (major, minor) that the driver can do; None without a driver."""
    library, version = driver_library(), ctypes.c_int()
    if library is None or library.cuDriverGetVersion(ctypes.byref(version)):
        return None
    return version.value // 1000, version.value % 1000 // 10
