"""What the fake asks of the CUDA stand-in's driver, through its C functions, as the real TensorRT would."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping

from tests.cuda.standin import Standin

_NO_ERROR = 0
_COMPUTE_CAPABILITY = (75, 76)


class StandInCard:
    """`world.Card` on the stand-in. All of it for the calling thread and its current context."""

    def __init__(self, standin: Standin) -> None:
        self._standin = standin
        self._cuda = standin.library

    def current(self) -> int | None:
        context, device = ctypes.c_void_p(), ctypes.c_int()
        if self._cuda.cuCtxGetCurrent(ctypes.byref(context)) != _NO_ERROR or not context:
            return None
        return device.value if self._cuda.cuCtxGetDevice(ctypes.byref(device)) == _NO_ERROR else None

    def lost(self) -> bool:
        context = ctypes.c_void_p()
        return bool(self._cuda.cuCtxGetCurrent(ctypes.byref(context)) != _NO_ERROR)

    def name(self, device: int) -> str:
        name = ctypes.create_string_buffer(256)
        self._cuda.cuDeviceGetName(name, len(name), device)
        return name.value.decode()

    def capability(self, device: int) -> tuple[int, int]:
        major, minor = ctypes.c_int(), ctypes.c_int()
        for value, attribute in zip((major, minor), _COMPUTE_CAPABILITY, strict=True):
            self._cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        return major.value, minor.value

    def allocate(self, size: int) -> int | None:
        address = ctypes.c_void_p()
        code = self._cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size))
        return address.value if code == _NO_ERROR else None

    def free(self, address: int) -> None:
        self._cuda.cuMemFree_v2(ctypes.c_void_p(address))

    def stream(self, handle: int) -> str | None:
        """ "idle" or "capturing"; None where there is no such stream in the current context."""
        status = ctypes.c_int()
        code = self._cuda.cuStreamIsCapturing(ctypes.c_void_p(handle), ctypes.byref(status))
        if code != _NO_ERROR:
            return None
        return "capturing" if status.value else "idle"

    def call(self, stream: int, work: Callable[[], None], memory: Mapping[int, int]) -> bool:
        """Queues or captures `work`, which uses `memory` (size by address); False where CUDA refuses."""
        return self._standin.call(stream, work, list(memory.items())) == _NO_ERROR

    def read(self, address: int, size: int) -> bytes:
        """From inside of queued work."""
        return ctypes.string_at(address, size)

    def write(self, address: int, data: bytes) -> None:
        """From inside of queued work."""
        ctypes.memmove(address, data, len(data))
