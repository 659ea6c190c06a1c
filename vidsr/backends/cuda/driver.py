"""The NVIDIA driver, asked without any library."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["driver_version"]


def driver_version() -> tuple[int, int] | None:
    """The newest CUDA (major, minor) that the installed driver can do; None without a driver. Starts nothing."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        version = ctypes.c_int()
        if library.cuDriverGetVersion(ctypes.byref(version)):
            return None
    except (OSError, AttributeError):
        return None
    return version.value // 1000, version.value % 1000 // 10
