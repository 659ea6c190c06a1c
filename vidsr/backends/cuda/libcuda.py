"""The driver's own library, for what the bindings to it lack."""

from __future__ import annotations

import ctypes

__all__ = ["LOST", "NO_DEVICE", "OUT_OF_MEMORY", "Library"]

OUT_OF_MEMORY = 2
NO_DEVICE = 100
LOST = (4, 46, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911, 999)
"""Codes after which, as cuda.h says, the process has to be started again; and those of a card that went away."""
_PORTABLE = 1


class Library:
    """Needs no context but for `lock` and `unlock`."""

    def __init__(self, functions: ctypes.CDLL) -> None:
        self._functions = functions

    def _text(self, function: str, code: int) -> str:
        text = ctypes.c_char_p()
        known = getattr(self._functions, function)(ctypes.c_int(code), ctypes.byref(text)) == 0
        return text.value.decode(errors="replace") if known and text.value else "an error this driver does not know"

    def describe(self, code: int) -> str:
        """CUDA's name of an error, its number and its text."""
        return f"{self._text('cuGetErrorName', code)} ({code}: {self._text('cuGetErrorString', code)})"

    def code(self, error: Exception) -> int | None:
        """The number of an error of pycuda, which has only the text: "<function> failed: <text>[ - <more>]"."""
        text = str(error).partition(" failed: ")[2]
        codes = {self._text("cuGetErrorString", code): code for code in range(999, 0, -1)}
        return codes.get(text, codes.get(text.partition(" - ")[0]))

    def lock(self, address: int, size: int) -> int:
        """Page-locks memory of the process for all contexts; returns CUDA's code."""
        register = self._functions.cuMemHostRegister_v2
        return int(register(ctypes.c_void_p(address), ctypes.c_size_t(size), ctypes.c_uint(_PORTABLE)))

    def unlock(self, address: int) -> int:
        return int(self._functions.cuMemHostUnregister(ctypes.c_void_p(address)))

    def pop(self, context: int) -> None:
        """Takes a context off this thread's stack, if it is the topmost."""
        top = ctypes.c_void_p()
        if self._functions.cuCtxGetCurrent(ctypes.byref(top)) == 0 and top.value == context:
            self._functions.cuCtxPopCurrent_v2(ctypes.byref(top))
