"""Where a training run computes, and in what precision."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vidsr.errors import BackendError, first_line

__all__ = ["Machine", "prepare_process"]

_M = TypeVar("_M", bound=nn.Module)
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


class Machine:
    """device: "auto" (a CUDA card if there is one), "cpu" or "cuda". Raises BackendError for a card that is not there.

    BF16 where the device multiplies it fast, FP32 elsewhere; weights, sums over pixels and the loss are always FP32.
    """

    def __init__(self, device: str = "auto") -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise BackendError(f"--device {device}: torch finds no CUDA card here; leave it out to use the processor")
        try:
            self.device = torch.device(device)
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise BackendError(f"--device {device}: torch cannot use it ({first_line(error)})") from error
        if self.device.type == "cuda":
            self.bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            capabilities = torch.cpu.get_capabilities()
            self.bf16 = bool(
                capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16")
            )

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Around a network's forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def placed(self, network: _M) -> _M:
        """The network on the device, its weights channels last: convolutions run twice as fast so on a processor."""
        return network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def tensor(self, pixels: NDArray[Any]) -> Tensor:
        """uint8 [N, 3, H, W] as float32, 0..1."""
        value = torch.tensor(pixels, device=self.device, dtype=torch.float32).div_(255)
        return value.contiguous(memory_format=torch.channels_last)


def prepare_process() -> None:
    """For a process that does nothing but train, before its first `Machine`; it stays so until it ends.

    glibc keeps freed memory: a step's activations would come back as page faults otherwise, 1.5 times slower. CUDA
    takes algorithms that give the same twice, where it has them.
    """
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic = True
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None)
            libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
            libc.mallopt(_MMAP_MAX, 0)
