"""A model in torch as a program for a card: planes to planes in one module, which allocates nothing that lasts.

Apart from the reference in `torch_engine`, which is to find the mistakes in here. Colours are FP32 and made of sums and
products only: no setting that lets torch round a convolution or a matrix product can touch them.

Chroma is resampled by adding shifted planes. As products with dense matrices, as in the reference, a frame of 1080p
made 4K would cost 110 GFLOP in FP32 beside the 1800 GFLOP in FP16 of SPAN with 48 channels, which a card does at ten
times that rate; the shifted sums read and write less than a tenth of what the network does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vidsr import networks
from vidsr.backends.base import Precision
from vidsr.backends.cuda.device import Stream
from vidsr.backends.cuda.torch_device import reported
from vidsr.filters import chroma_offsets, downsample_taps, upsample_taps
from vidsr.frame import FrameLayout
from vidsr.graph import CODES_FROM_RGB, RGB_FROM_CODES, Planes, plane_names
from vidsr.models import Model

__all__ = ["PlaneModule", "TorchProgram", "TorchRun"]


class PlaneModule(nn.Module):
    """Planes uint8|uint16 [H, W] of `source` to planes of `target`, through a network.

    network: float32 [1, 3, H, W] in and out, RGB in 0..1.
    """

    def __init__(self, network: nn.Module, source: FrameLayout, target: FrameLayout) -> None:
        super().__init__()
        self.network, self._source, self._target = network, source, target

    def forward(self, given: Sequence[Tensor], inward: Tensor, outward: Tensor, made: Sequence[Tensor]) -> None:
        """Fills `made`. inward, outward: float32 [3, 4], see `vidsr.color.Conversion`."""
        rgb = self.network(self._rgb(given, inward)[None])[0]
        peak = 2**self._target.bits - 1
        for plane, codes in zip(made, self._codes(rgb, outward), strict=True):
            plane.copy_(codes.round_().clamp_(0, peak))

    def _rgb(self, planes: Sequence[Tensor], matrix: Tensor) -> Tensor:
        """float32 [3, H, W]"""
        columns = [matrix[:, index, None, None] for index in range(4)]
        rgb = torch.addcmul(columns[3], columns[0], planes[0].float())
        if len(planes) > 1:
            chroma = torch.stack([planes[1].float(), planes[2].float()])
            if self._source.chroma != (1, 1):
                chroma = _upsampled(chroma, self._source)
            rgb.addcmul_(columns[1], chroma[0]).addcmul_(columns[2], chroma[1])
        return rgb

    def _codes(self, rgb: Tensor, matrix: Tensor) -> list[Tensor]:
        """float32 [H', W'] of each plane, neither rounded nor clipped."""
        codes = [*_converted(rgb, matrix[:1])]
        if len(self._target.shapes) > 1:
            chroma = _converted(rgb, matrix[1:])
            if self._target.chroma != (1, 1):
                chroma = _downsampled(chroma, self._target)
            codes += [*chroma]
        return codes


def _converted(rgb: Tensor, rows: Tensor) -> Tensor:
    """float32 [N, H, W] by N rows of a matrix."""
    weights = [rows[:, index, None, None] for index in range(4)]
    return torch.addcmul(weights[3], weights[0], rgb[0]).addcmul_(weights[1], rgb[1]).addcmul_(weights[2], rgb[2])


def _upsampled(chroma: Tensor, layout: FrameLayout) -> Tensor:
    """Chroma planes float32 [2, h, w] at luma size [2, H, W]; edges repeat."""
    offsets = chroma_offsets(layout.chroma, layout.siting)
    for axis, factor, offset, size in zip((1, 2), layout.chroma, offsets, layout.shapes[0], strict=True):
        if factor == 1:
            continue
        taps, first = upsample_taps(factor, offset)
        length = chroma.shape[axis]
        extended = _extended(chroma, axis, first, length - 1 + first + taps.shape[1])
        phases = [_weighted(extended, axis, weights, length, 1) for weights in taps]
        chroma = torch.stack(phases, axis + 1).flatten(axis, axis + 1).narrow(axis, 0, size)
    return chroma


def _downsampled(chroma: Tensor, layout: FrameLayout) -> Tensor:
    """Chroma planes float32 [2, H, W] filtered to chroma size [2, h, w]; edges repeat."""
    offsets = chroma_offsets(layout.chroma, layout.siting)
    for axis, factor, offset, length in zip((1, 2), layout.chroma, offsets, layout.shapes[1], strict=True):
        if factor == 1:
            continue
        taps, first = downsample_taps(factor, offset)
        extended = _extended(chroma, axis, first, factor * (length - 1) + first + taps.shape[1])
        chroma = _weighted(extended, axis, taps[0], length, factor)
    return chroma


def _extended(planes: Tensor, axis: int, first: int, last: int) -> Tensor:
    """Samples `first` to `last` (exclusive) along an axis of [N, H, W]; those outside repeat the edge."""
    before, behind = -first, last - planes.shape[axis]
    padding = (0, 0, before, behind) if axis == 1 else (before, behind, 0, 0)
    return functional.pad(planes[None], padding, mode="replicate")[0]


def _weighted(planes: Tensor, axis: int, weights: NDArray[np.float64], length: int, step: int) -> Tensor:
    """Sums of `length` windows along an axis, `step` samples from one to the next."""
    total: Tensor | None = None
    for first, weight in enumerate(weights.tolist()):
        if abs(weight) > 1e-12:
            place: list[slice] = [slice(None)] * 3
            place[axis] = slice(first, first + step * (length - 1) + 1, step)
            shifted = planes[tuple(place)]
            total = shifted * weight if total is None else total.add_(shifted, alpha=weight)
    assert total is not None
    return total


class TorchProgram:
    """Made and used where the device is current.

    device: "cuda:0", or "cpu" for tests. channels_last, compiled: how the network is run; for measuring, the defaults
        are what is known to work. A graph of a run may be captured by `TorchDevice` only: torch must know of it.
    """

    planes: Planes = "native"

    def __init__(
        self,
        model: Model,
        source: FrameLayout,
        target: FrameLayout,
        *,
        device: str,
        precision: Precision,
        channels_last: bool | None = None,
        compiled: bool = False,
    ) -> None:
        self._source, self._target, self._device = source, target, torch.device(device)
        on_card = self._device.type == "cuda"
        with reported(device):
            self._label = f"{device} ({torch.cuda.get_device_name(self._device)})" if on_card else device
            self.description = f"torch {self._label}, {precision.upper()}"
            network = networks.load(model.metadata["network"]).build(model.state(), model.metadata)
            if precision == "fp16":
                network.halve()
            elif on_card:
                # For the whole process: torch has no other switch, and rounds FP32 convolutions to 10 bits without.
                torch.backends.cudnn.allow_tf32 = False
            # Tensor cores want channels last; converting other tensors to and fro costs more than the convolution.
            if channels_last if channels_last is not None else precision == "fp16":
                network.to(memory_format=torch.channels_last)
            module = PlaneModule(network, source, target).to(self._device)
            self._work: Any = torch.compile(module, fullgraph=True, dynamic=False) if compiled else module
            if on_card:
                # Streams of other slots do not wait for this one by themselves.
                torch.cuda.current_stream(self._device).synchronize()

    def bind(self, stream: Stream, addresses: Mapping[str, int]) -> TorchRun:
        def planes(kind: str, layout: FrameLayout) -> list[Tensor]:
            names = plane_names(kind, layout)
            return [
                self._tensor(addresses[name], shape, layout.dtype)
                for name, shape in zip(names, layout.shapes, strict=True)
            ]

        with reported(self._label):
            matrices = (
                self._tensor(addresses[name], (3, 4), np.dtype(np.float32)) for name in (RGB_FROM_CODES, CODES_FROM_RGB)
            )
            tensors = (planes("in", self._source), *matrices, planes("out", self._target))
            place: Any = nullcontext()
            if self._device.type == "cuda":
                queue = torch.cuda.ExternalStream(stream.handle, self._device)  # type: ignore[no-untyped-call]
                place = torch.cuda.stream(queue)
        return TorchRun(self._work, tensors, place, self._label)

    def close(self) -> None:
        self._work = None

    def _tensor(self, address: int, shape: tuple[int, int], dtype: np.dtype[Any]) -> Tensor:
        """A tensor where it lies, not a copy."""
        size = shape[0] * shape[1] * dtype.itemsize
        if self._device.type == "cuda":
            flat = torch.as_tensor(_DeviceBytes(address, size), device=self._device)
        else:
            flat = torch.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype=torch.uint8)
        assert flat.data_ptr() == address
        return flat.view(_TYPES[dtype.name]).view(shape)


_TYPES = {"uint8": torch.uint8, "uint16": torch.uint16, "float32": torch.float32}


@dataclass(frozen=True, slots=True)
class _DeviceBytes:
    """Memory of a device as other libraries may see it (CUDA Array Interface, version 2)."""

    address: int
    size: int

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": (self.size,), "typestr": "|u1", "data": (self.address, False), "version": 2}


class TorchRun:
    """The module, bound to the tensors of one slot."""

    def __init__(self, work: Any, tensors: tuple[Any, ...], place: AbstractContextManager[Any], label: str) -> None:
        self._work, self._tensors, self._place, self._label = work, tensors, place, label

    def enqueue(self) -> None:
        with reported(self._label), torch.inference_mode(), self._place:
            self._work(*self._tensors)

    def close(self) -> None:
        self._work, self._tensors = None, ()
