"""Networks of others, known by the package `spandrel`: from weights to a model that is shown to compute the same.

The graph is made by torch's TorchScript exporter. It needs no further package, follows more of these networks than
the newer one (which stops at shifted windows), and what it gets wrong, sizes that it takes for constants, shows when
the graph is run at other sizes than it was made at.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from vidsr import models
from vidsr.backends.openvino_engine import open_raw
from vidsr.errors import BackendError, ModelError, first_line
from vidsr.graph.builder import OPSET
from vidsr.networks import State

__all__ = ["Foreign", "recognised"]

_MADE_AT = (67, 83)
"""No multiple of any window, or networks would leave out the padding when their graph is made."""
_SIZES = ((96, 64), (61, 75))
"""Of the pictures that model and network are compared on: whole windows, and none."""
_TOLERANCE = 1e-3
"""Of the largest value, white or more: a fourth of a code value of 8 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """A network with its weights. descriptor: spandrel's, which holds the torch module."""

    descriptor: Any

    @property
    def architecture(self) -> str:
        return str(self.descriptor.architecture.name)

    def exported(self, name: str) -> onnx.ModelProto:
        """As a model's graph with its metadata, compared with the network. Raises ModelError."""
        self._refuse_others()
        proto, notes = self._graph(), self._notes()
        onnx.helper.set_model_props(proto, notes)
        try:
            with tempfile.TemporaryDirectory(prefix="vidsr-") as folder:
                path = Path(folder, f"{name}.onnx")
                onnx.save(proto, path)
                model = models.load(str(path))
        except ModelError as error:
            raise ModelError(f"the graph of {self.architecture} {str(error).removeprefix(f'{path}: ')}") from error
        if model.scale != self._scale:
            raise ModelError(f"the graph of {self.architecture} enlarges {model.scale} times, not {self._scale} times")
        try:
            difference = self._difference(model)
        except BackendError as error:
            raise ModelError(f"the graph of {self.architecture} does not run ({error})") from error
        onnx.helper.set_model_props(proto, notes | {"exact": f"within {difference:.1g} of torch"})
        return proto

    @property
    def _scale(self) -> int:
        return int(self.descriptor.scale)

    def _refuse_others(self) -> None:
        told = self.descriptor
        purpose, takes, gives = told.purpose, told.input_channels, told.output_channels
        if purpose not in ("SR", "Restoration"):
            kind = {"FaceSR": "restores faces", "Inpainting": "fills holes"}.get(purpose, f"is for {purpose}")
            raise ModelError(f"holds {self.architecture}, which {kind}; vidsr needs a network from picture to picture")
        if (takes, gives) != (3, 3):
            raise ModelError(
                f"holds {self.architecture} for {takes} channels in and {gives} out; vidsr needs RGB, 3 and 3"
            )

    def _notes(self) -> dict[str, str]:
        parameters = sum(value.numel() for value in self.descriptor.model.parameters())
        return {
            "network": f"spandrel {self.descriptor.architecture.id}",
            "architecture": self.architecture,
            "tags": " ".join(self.descriptor.tags),
            "parameters": str(parameters),
            "scale": str(self._scale),
        }

    def _graph(self) -> onnx.ModelProto:
        """RGB float32 [1, 3, h, w] in, [1, 3, scale*h, scale*w] out, nothing clipped."""
        image = torch.rand(1, 3, *_MADE_AT)
        try:
            with _quiet(), torch.no_grad(), tempfile.TemporaryDirectory(prefix="vidsr-") as folder:
                path = Path(folder, "graph.onnx")
                torch.onnx.export(
                    _Whole(self.descriptor), (image,), path, dynamo=False,
                    input_names=["input"], output_names=["output"], opset_version=OPSET,
                    dynamic_axes={"input": {2: "h", 3: "w"}, "output": {2: "h_out", 3: "w_out"}},
                )  # fmt: skip
                proto = onnx.load(path)
        except Exception as error:  # of the network as well as of the exporter
            reason = first_line(error, 160).split(". Please")[0].rstrip(".")
            raise ModelError(f"holds {self.architecture}, which cannot be made an ONNX graph ({reason})") from error
        _merge(proto.graph)
        return proto

    def _difference(self, model: models.Model) -> float:
        """Largest difference between model and network, a share of the largest value where that is above white.

        Raises ModelError where they do not agree, BackendError where the model does not run.
        """
        run, whole, worst = open_raw(model), _Whole(self.descriptor), 0.0
        for height, width in _SIZES:
            image = _picture(height, width)
            with _quiet(), torch.no_grad():
                # Two copies: some networks change what they are given.
                expected, clipped = (take(torch.tensor(image)).numpy() for take in (whole, self.descriptor))
            made = run(image)
            if made.shape != expected.shape:
                gives = f"{made.shape[3]}x{made.shape[2]}"
                raise ModelError(f"the graph of {self.architecture} makes {gives} of {width}x{height}")
            largest = max(1.0, float(abs(expected).max()))
            found = max(float(abs(made - expected).max()) / largest, float(abs(made.clip(0, 1) - clipped).max()))
            if not found <= _TOLERANCE:  # nor for NaN
                raise ModelError(
                    f"the graph of {self.architecture} differs from the network by {found:.2g} at {width}x{height}: "
                    "it cannot be exported for all sizes"
                )
            worst = max(worst, found)
        return worst


def recognised(state: State) -> Foreign | None:
    """What spandrel makes of the weights; None where it does not know the network.

    Raises ModelError where the weights do not fit the network they look like, BackendError where spandrel is broken.
    """
    try:
        with _quiet():
            from spandrel import ModelLoader, UnsupportedModelError
    except Exception as error:  # a torchvision that was built for another torch raises RuntimeError
        reason = first_line(error, 160)
        raise BackendError(
            f"spandrel is installed but cannot be imported ({reason}): "
            "install spandrel, torch and torchvision from the same place"
        ) from error
    tensors = {key: torch.from_numpy(np.array(value)) for key, value in state.items()}
    try:
        with _quiet():
            descriptor = ModelLoader("cpu").load_from_state_dict(tensors).eval()
    except UnsupportedModelError:
        return None
    except Exception as error:  # networks are built from what their weights seem to say
        reason = first_line(error, 160)
        raise ModelError(f"spandrel cannot build the network that it takes these weights for ({reason})") from error
    return Foreign(descriptor=descriptor)


def _merge(graph: onnx.GraphProto) -> None:
    """Leaves one of the nodes that do the same with the same: masks and places that each block computes anew."""
    outputs = {value.name for value in graph.output}
    names: dict[str, str] = {}
    kept: dict[tuple[Any, ...], onnx.NodeProto] = {}
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        does = tuple(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
        first = kept.setdefault((node.op_type, *node.input, does, outputs.intersection(node.output) == set()), node)
        names |= dict(zip(node.output, first.output, strict=True))
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept.values()]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)


class _Whole(torch.nn.Module):
    """Takes pictures of any size: extended as spandrel does it and cut back, but nothing clipped."""

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.network, self._call, self._scale = descriptor.model, descriptor._call_fn, descriptor.scale
        self._size = descriptor.size_requirements
        self.eval()

    def forward(self, image: Any) -> Any:
        if self._size.minimum <= 2 and self._size.multiple_of == 1 and not self._size.square:
            return self._call(self.network, image)
        height, width = (self._length(length) for length in image.shape[2:])
        if self._size.square:
            height = width = torch.maximum(height, width)
        extended = _extended(_extended(image, 2, height), 3, width)
        large = self._call(self.network, extended)
        return large[:, :, : image.shape[2] * self._scale, : image.shape[3] * self._scale]

    def _length(self, given: Any) -> Any:
        step = self._size.multiple_of
        enough = torch.maximum(torch.as_tensor(given), torch.as_tensor(self._size.minimum))
        return (enough + step - 1) // step * step


def _extended(image: Any, axis: int, length: Any) -> Any:
    """Behind the end back again, and then the first for ever."""
    last = image.shape[axis] - 1
    return image.index_select(axis, (last - (torch.arange(length) - last).abs()).clamp(min=0))


def _picture(height: int, width: int) -> NDArray[np.float32]:
    """float32 [1, 3, H, W] in 0..1, as natural as can be made: clouds of all sizes, edges, a little noise."""
    rng = np.random.default_rng(3)
    far = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    far[0, 0] = 1
    waves = np.fft.rfft2(rng.standard_normal((3, height, width))) / far
    clouds = np.fft.irfft2(waves, (height, width))
    clouds = 0.5 + 0.15 * (clouds - clouds.mean()) / clouds.std()
    clouds[:, height // 3 : height // 2, width // 4 : width // 2] += 0.25
    picture: NDArray[np.float32] = np.clip(clouds + rng.normal(0, 0.01, clouds.shape), 0, 1).astype(np.float32)[None]
    return picture


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporter and networks warn, and print whole graphs where they fail."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
