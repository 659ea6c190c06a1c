"""torch: the definition of correct. Colour maths of its own, not the ONNX graph's; slow on a processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np

from vidsr import networks
from vidsr.backends.base import Engine, EngineOptions, Slot
from vidsr.errors import BackendError
from vidsr.filters import chroma_offsets, keys_cubic
from vidsr.frame import FrameLayout
from vidsr.models import Model

__all__ = ["BACKEND"]


def _interpolation(large: int, small: int, factor: int, offset: float, *, down: bool) -> np.ndarray[Any, Any]:
    """Dense resampling matrix: float32 [large, small] from chroma to luma positions, [small, large] with `down`."""
    matrix = np.zeros((small, large) if down else (large, small))
    for target in range(matrix.shape[0]):
        centre = factor * target + offset if down else (target - offset) / factor
        width = factor if down else 1
        taps = range(int(np.floor(centre)) - 2 * width, int(np.ceil(centre)) + 2 * width + 1)
        weights = [keys_cubic((tap - centre) / width) for tap in taps]
        for tap, weight in zip(taps, weights, strict=True):
            matrix[target, min(max(tap, 0), matrix.shape[1] - 1)] += weight / sum(weights)
    return matrix.astype(np.float32)


class TorchEngine:
    """Works in `wait`, in FP32; chroma is resampled by matrix products."""

    def __init__(self, model: Model, source: FrameLayout, target: FrameLayout, device: str) -> None:
        import torch

        self.source, self.target, self._torch = source, target, torch
        self.description = f"torch {device}, FP32"
        self._device = torch.device(device)
        network = networks.load(model.metadata["network"]).build(model.state(), model.metadata)
        self._network = network.to(self._device)
        self._up, self._down = self._matrices(source, False), self._matrices(target, True)

    def _matrices(self, layout: FrameLayout, down: bool) -> list[Any]:
        if layout.chroma == (1, 1):
            return []
        offsets = chroma_offsets(layout.chroma, layout.siting)
        return [
            self._torch.from_numpy(_interpolation(large, small, factor, offset, down=down)).to(self._device)
            for large, small, factor, offset in zip(
                layout.shapes[0], layout.shapes[1], layout.chroma, offsets, strict=True
            )
        ]

    def slots(self, count: int) -> Sequence[Slot]:
        return [Slot.allocate(self.source, self.target) for _ in range(count)]

    def submit(self, slot: Slot) -> None:
        slot.handle = True

    def wait(self, slot: Slot) -> None:
        torch = self._torch
        with torch.inference_mode():
            planes = [torch.from_numpy(plane.astype(np.float32)).to(self._device) for plane in slot.input]
            if self._up:
                planes[1:] = [self._up[0] @ plane @ self._up[1].T for plane in planes[1:]]
            inward = torch.from_numpy(slot.rgb_from_codes).to(self._device)
            codes = torch.stack(planes)
            rgb = torch.einsum("rc,chw->rhw", inward[:, : len(planes)], codes) + inward[:, 3, None, None]
            rgb = self._network(rgb[None])[0]
            outward = torch.from_numpy(slot.codes_from_rgb).to(self._device)
            small = self._down[0] @ rgb @ self._down[1].T if self._down else rgb
            for index, plane in enumerate(slot.output):
                values = torch.einsum("c,chw->hw", outward[index, :3], small if index else rgb) + outward[index, 3]
                values = values.round().clamp(0, 2**self.target.bits - 1)
                np.copyto(plane, values.cpu().numpy(), casting="unsafe")

    def close(self) -> None:
        self._network = None


class TorchBackend:
    name = "torch"
    memory_overhead = 2.4

    def lack(self) -> str | None:
        return None if find_spec("torch") else "torch is not installed (pip install torch safetensors)"

    def settle(self, options: EngineOptions) -> EngineOptions:
        import torch

        if options.precision not in ("auto", "fp32"):
            raise BackendError(f"--precision {options.precision}: torch is the FP32 reference; leave it at auto")
        device = "cpu" if options.device == "auto" else options.device.lower()
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise BackendError(
                f"--device {options.device}: torch cannot use it ({str(error).splitlines()[0]})"
            ) from error
        return replace(options, device=device, precision="fp32")

    def open(self, model: Model, source: FrameLayout, target: FrameLayout, options: EngineOptions) -> Engine:
        if model.metadata.get("network") not in networks.MODULES:
            raise BackendError(
                f"--backend torch runs only networks vidsr has in torch ({', '.join(networks.MODULES)}); "
                f"{model.name} is not one of them: use --backend openvino or onnxruntime"
            )
        return TorchEngine(model, source, target, options.device)


BACKEND = TorchBackend()
