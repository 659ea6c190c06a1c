"""A model in torch as a program for a card: planes to planes in one module, which allocates nothing that lasts.

Apart from the reference in `torch_engine`, which is to find the mistakes in here. Colours are FP32 and made of sums and
products only: no setting that lets torch round a convolution or a matrix product can touch them.

Chroma is resampled by adding shifted planes. As products with dense matrices, as in the reference, a frame of 1080p
made 4K would cost 110 GFLOP in FP32 beside the 1700 GFLOP in FP16 of SPAN with 48 channels, which a card does at ten
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
from vidsr.backends.torch_guard import Guarded
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
        self.network, self._peak = network, 2**target.bits - 1
        self._source, self._target = source, target
        self._up = [_taps(*upsample_taps(*axis)) for axis in _axes(source)]
        self._down = [_taps(*downsample_taps(*axis)) for axis in _axes(target)]

    def forward(self, given: Sequence[Tensor], inward: Tensor, outward: Tensor, made: Sequence[Tensor]) -> None:
        """Fills `made`. inward, outward: float32 [3, 4], see `vidsr.color.Conversion`."""
        rgb = self.network(self._rgb(given, inward)[None])[0]
        for plane, codes in zip(made, self._codes(rgb, outward), strict=True):
            plane.copy_(codes.round_().clamp_(0, self._peak))

    def _rgb(self, planes: Sequence[Tensor], matrix: Tensor) -> Tensor:
        """float32 [3, H, W]"""
        columns = [matrix[:, index, None, None] for index in range(4)]
        rgb = torch.addcmul(columns[3], columns[0], planes[0].float())
        if len(planes) > 1:
            chroma = torch.stack([planes[1].float(), planes[2].float()])
            for axis, taps, size in zip((1, 2), self._up, self._source.shapes[0], strict=True):
                chroma = _upsampled(chroma, axis, taps, size)
            rgb.addcmul_(columns[1], chroma[0]).addcmul_(columns[2], chroma[1])
        return rgb

    def _codes(self, rgb: Tensor, matrix: Tensor) -> list[Tensor]:
        """float32 [H', W'] of each plane, neither rounded nor clipped."""
        codes = [*_converted(rgb, matrix[:1])]
        if len(self._target.shapes) > 1:
            chroma = _converted(rgb, matrix[1:])
            factors = zip((1, 2), self._down, self._target.chroma, self._target.shapes[1], strict=True)
            for axis, taps, factor, size in factors:
                chroma = _downsampled(chroma, axis, taps, factor, size)
            codes += [*chroma]
        return codes


def _converted(rgb: Tensor, rows: Tensor) -> Tensor:
    """float32 [N, H, W] by N rows of a matrix."""
    weights = [rows[:, index, None, None] for index in range(4)]
    return torch.addcmul(weights[3], weights[0], rgb[0]).addcmul_(weights[1], rgb[1]).addcmul_(weights[2], rgb[2])


@dataclass(frozen=True, slots=True)
class _Taps:
    """Weights of each phase for the samples from `first` on."""

    first: int
    phases: tuple[tuple[float, ...], ...]

    @property
    def length(self) -> int:
        return len(self.phases[0])


def _taps(taps: NDArray[np.float64], first: int) -> _Taps:
    return _Taps(first, tuple(tuple(float(weight) for weight in phase) for phase in taps))


def _axes(layout: FrameLayout) -> list[tuple[int, float]]:
    """(factor, offset) of chroma, down and right."""
    return [*zip(layout.chroma, chroma_offsets(layout.chroma, layout.siting), strict=True)]


def _upsampled(planes: Tensor, axis: int, taps: _Taps, size: int) -> Tensor:
    """float32 [N, H, W] interpolated to `size` samples along an axis, one for each phase; edges repeat."""
    if len(taps.phases) == 1:
        return planes
    length = planes.shape[axis]
    extended = _extended(planes, axis, taps.first, length - 1 + taps.first + taps.length)
    phases = [_weighted(extended, axis, weights, length, 1) for weights in taps.phases]
    return torch.stack(phases, axis + 1).flatten(axis, axis + 1).narrow(axis, 0, size)


def _downsampled(planes: Tensor, axis: int, taps: _Taps, factor: int, size: int) -> Tensor:
    """float32 [N, H, W] filtered to `size` samples along an axis, one in `factor`; edges repeat."""
    if factor == 1:
        return planes
    extended = _extended(planes, axis, taps.first, factor * (size - 1) + taps.first + taps.length)
    return _weighted(extended, axis, taps.phases[0], size, factor)


def _extended(planes: Tensor, axis: int, first: int, last: int) -> Tensor:
    """Samples `first` to `last` (exclusive) along an axis of [N, H, W]; those outside repeat the edge."""
    before, behind = -first, last - planes.shape[axis]
    padding = (0, 0, before, behind) if axis == 1 else (before, behind, 0, 0)
    return functional.pad(planes[None], padding, mode="replicate")[0]


def _weighted(planes: Tensor, axis: int, weights: Sequence[float], length: int, step: int) -> Tensor:
    """Sums of `length` windows along an axis, `step` samples from one to the next."""
    total: Tensor | None = None
    for first, weight in enumerate(weights):
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
            if model.guarded:
                network = Guarded(network, model.scale)
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
