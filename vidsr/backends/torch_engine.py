"""torch: on a processor the definition of correct, on an NVIDIA card the way that needs nothing but torch.

The reference has colour maths of its own, neither the ONNX graph's nor the card's (`torch_program`); it is slow.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from vidsr import networks
from vidsr.backends.base import Engine, EngineOptions, PlainBackend, Precision, Slot
from vidsr.backends.cuda.cards import card_device, card_numbers
from vidsr.backends.dealt import open_each
from vidsr.backends.library import trouble
from vidsr.errors import BackendError
from vidsr.filters import chroma_offsets, keys_cubic
from vidsr.frame import FrameLayout
from vidsr.models import Model
from vidsr.nvidia import driver_version

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

        self.source, self.target, self.in_flight, self._torch = source, target, 2, torch
        self.description = f"torch {device}, FP32"
        self._device = torch.device(device)
        network = networks.load(model.metadata["network"]).build(model.state(), model.metadata)
        if model.guarded:
            from vidsr.backends.torch_guard import Guarded

            network = Guarded(network, model.scale)
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


class TorchBackend(PlainBackend):
    name = "torch"
    memory_overhead = 2.4

    def lack(self, device: str = "auto") -> str | None:
        if not find_spec("torch"):
            return "torch is not installed (pip install torch safetensors)"
        if device.lower().startswith("cuda"):
            return _card_lack()
        return trouble("torch", "torch", lambda: import_module("torch"))

    def unfit(self, model: Model) -> str | None:
        if model.metadata.get("network") in networks.MODULES:
            return None
        return (
            f"--backend torch runs only networks vidsr has in torch ({', '.join(networks.MODULES)}); {model.name} is "
            f"not one of them: use --backend openvino or onnxruntime"
        )

    def settle(self, options: EngineOptions) -> EngineOptions:
        device = options.device.lower()
        if device == "auto":
            device = "cpu" if _card_lack() or _unsupported(0) else "cuda"
        if device.startswith("cuda"):
            return _settled_cards(options, device)
        if options.precision not in ("auto", "fp32"):
            raise BackendError(
                f"--precision {options.precision}: torch without an NVIDIA card is the FP32 reference; leave it at auto"
            )
        import torch

        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise BackendError(
                f"--device {options.device}: torch cannot use it ({str(error).splitlines()[0]})"
            ) from error
        return replace(options, device=device, precision="fp32", streams=1)

    def machine(self, options: EngineOptions) -> str:
        if not options.device.startswith("cuda"):
            return options.device
        import torch

        names = {torch.cuda.get_device_name(number) for number in card_numbers(options.device)}
        return ", ".join(sorted(names))

    def memory(self, options: EngineOptions) -> int | None:
        if not options.device.startswith("cuda"):
            return None
        from vidsr.backends.cuda.torch_device import TorchDevice

        return min(TorchDevice(number).free_bytes() for number in card_numbers(options.device))

    def open(
        self,
        model: Model,
        source: FrameLayout,
        target: FrameLayout,
        options: EngineOptions,
        prepared: object = None,
    ) -> Engine:
        if unfit := self.unfit(model):
            raise BackendError(unfit)
        if not options.device.startswith("cuda"):
            return TorchEngine(model, source, target, options.device)
        return open_each(
            card_numbers(options.device),
            lambda number: _card_engine(number, model, source, target, options.precision),
        )


def _card_engine(index: int, model: Model, source: FrameLayout, target: FrameLayout, precision: Precision) -> Engine:
    from vidsr.backends.cuda.slots import CudaEngine
    from vidsr.backends.cuda.torch_device import TorchDevice
    from vidsr.backends.torch_program import TorchProgram

    device = TorchDevice(index)
    try:
        with device.current():
            program = TorchProgram(model, source, target, device=f"cuda:{index}", precision=precision)
    except BaseException:
        device.close()
        raise
    return CudaEngine(device, program, source, target)


def _card_lack() -> str | None:
    """Why torch has no NVIDIA card here. Without a driver it is not even loaded, which takes a second."""
    if driver_version() is None:
        return "there is no NVIDIA driver here: install the one for the card"
    if broken := trouble("torch", "torch", lambda: import_module("torch")):
        return broken
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA (see pytorch.org for one that has it)"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    reason = str(said[-1].message).splitlines()[0] if said else "see whether nvidia-smi works"
    return None if usable else f"torch finds no NVIDIA card ({reason})"


def _settled_cards(options: EngineOptions, device: str) -> EngineOptions:
    """For devices that begin with "cuda"."""
    numbers = card_numbers(device)
    if lack := _card_lack():
        raise BackendError(f"--device {options.device}: {lack}")
    import torch

    settled = card_device(device, torch.cuda.device_count())
    if refusals := [refusal for number in numbers if (refusal := _unsupported(number))]:
        raise BackendError(f"--device {options.device}: {refusals[0]}")
    precision = options.precision
    if precision == "auto":
        fast = all(torch.cuda.get_device_capability(number) >= (7, 0) for number in numbers)
        precision = "fp16" if fast else "fp32"
    if precision not in ("fp16", "fp32"):
        raise BackendError(f"--precision {precision}: torch runs fp16 and fp32 on a card; leave it at auto")
    return replace(options, device=settled, precision=precision, streams=1)


def _unsupported(index: int) -> str | None:
    """Why this torch has no code for a card: its makers leave out old ones, and cannot know newer ones."""
    import torch

    major, minor = torch.cuda.get_device_capability(index)
    for name in torch.cuda.get_arch_list():
        if found := re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", name):
            known = (int(found[2]), int(found[3]))
            # Code runs on later cards of its generation; what is compiled when loaded, on all later ones.
            if known <= (major, minor) and (found[1] == "compute" or known[0] == major):
                return None
    return (
        f"torch {torch.__version__} has no code for {torch.cuda.get_device_name(index)} "
        f"(compute capability {major}.{minor}): install one that has it"
    )


BACKEND = TorchBackend()
