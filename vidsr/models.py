"""Models: RGB super-resolution networks as ONNX files, found by name or path and checked before use."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import platformdirs
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper, shape_inference, version_converter

from vidsr.errors import ModelError

__all__ = ["CHECKPOINT_SUFFIXES", "DEFAULT", "Model", "folders", "installed", "load", "usable", "user_folder"]

DEFAULT = "span"
CHECKPOINT_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")
_FLOATS = {TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2, TensorProto.DOUBLE: 8, TensorProto.BFLOAT16: 2}
_WINDOWED = {"Conv", "MaxPool", "AveragePool", "Pad"}
_GROWING = {"DepthToSpace": "blocksize"}
_POINTWISE = {
    "Abs", "Add", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Div", "Elu", "Erf", "Exp", "Gather",
    "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Max", "Min", "Mish", "Mul", "Neg", "Pow",
    "PRelu", "Relu", "Sigmoid", "Softplus", "Split", "Sqrt", "Sub", "Sum", "Tanh",
}  # fmt: skip


@dataclass(frozen=True)
class Model:
    """A checked model, ready to be composed into an engine's graph.

    proto: one input, one output, float32 or float16 [N, 3, H, W] with free N, H and W, opset 13 or newer.
    scale: output size over input size. metadata: the file's own (network, license, training, ...), may be empty.
    """

    name: str
    path: Path
    proto: onnx.ModelProto
    scale: int
    metadata: dict[str, str]

    @cached_property
    def sha256(self) -> str:
        """Hash of the file's bytes, hexadecimal."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @cached_property
    def radius(self) -> int | None:
        """How far an output depends on the input, in input pixels; None where the whole picture may matter."""
        return _receptive_radius(self.proto)

    @cached_property
    def activation_bytes(self) -> float:
        """Largest sum of tensors alive at once, in FP32 bytes an input pixel."""
        return _peak_bytes(self.proto)

    def state(self) -> dict[str, NDArray[np.float32]]:
        """The initializers by name: for our own models the state-dict keys of the network."""
        return {
            tensor.name: numpy_helper.to_array(tensor).astype(np.float32)
            for tensor in self.proto.graph.initializer
            if tensor.data_type in _FLOATS
        }


def user_folder() -> Path:
    """Where `vidsr import` puts models."""
    return Path(platformdirs.user_data_dir("vidsr", appauthor=False)) / "models"


def folders() -> list[Path]:
    """Where names are looked up, in order: the user's own, then those shipped (in a wheel or beside the package)."""
    package = Path(__file__).resolve().parent
    return [user_folder(), package / "engines", package.parent / "engines"]


def installed() -> Iterator[Path]:
    """The files of all models that have a name, each name once, in the order of the alphabet."""
    found: dict[str, Path] = {}
    for folder in reversed(folders()):
        found.update({path.stem: path for path in folder.glob("*.onnx")})
    return iter([found[name] for name in sorted(found)])


def usable() -> Iterator[Model]:
    """All installed models that can be loaded."""
    for path in installed():
        try:
            yield load(str(path))
        except ModelError:
            continue


def load(name: str) -> Model:
    """A model by name (`vidsr models`) or by the path of an .onnx file. Raises ModelError, with the reason."""
    path = Path(name)
    if path.suffix.lower() != ".onnx":
        if path.suffix.lower() in CHECKPOINT_SUFFIXES:
            raise ModelError(
                f"{name} is a checkpoint, not a model: turn it into one with `vidsr import {name} --name NAME`"
            )
        known = {path.stem: path for path in installed()}
        if name not in known:
            raise ModelError(
                f"no model is called {name!r}: installed are {', '.join(known) or 'none'} (or give an .onnx file)"
            )
        path = known[name]
    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    try:
        proto = onnx.load(path)
        onnx.checker.check_model(proto)
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError) as error:
        raise ModelError(f"{path}: not a readable ONNX model ({_first_line(error)})") from error
    try:
        proto = _modern(proto)
        _free_size(proto)
        scale = _scale(proto)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error.__cause__
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    return Model(name=path.stem, path=path, proto=proto, scale=scale, metadata=metadata)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _modern(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model at opset 13 or newer: what the graph around it is written in."""
    foreign = sorted({node.domain for node in proto.graph.node} - {"", "ai.onnx"})
    if foreign:
        raise ModelError(f"uses operators outside standard ONNX ({foreign[0]}), which no backend here knows")
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset >= 13:
        return proto
    try:
        return version_converter.convert_version(proto, 13)
    except Exception as error:  # the converter raises RuntimeError and its own C++ errors alike
        raise ModelError(f"is ONNX opset {opset} and cannot be converted to 13 ({_first_line(error)})") from error


def _free_size(proto: onnx.ModelProto) -> None:
    """Checks the one RGB input and output, and frees N, H and W in place."""
    filled = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in filled]
    if len(inputs) != 1 or len(proto.graph.output) != 1:
        raise ModelError(
            f"has {len(inputs)} inputs and {len(proto.graph.output)} outputs; vidsr needs one picture in, one out"
        )
    for value, role in ((inputs[0], "takes"), (proto.graph.output[0], "gives")):
        tensor = value.type.tensor_type
        if tensor.elem_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
            raise ModelError(
                f"{role} {TensorProto.DataType.Name(tensor.elem_type).lower()}; vidsr needs float32 or float16"
            )
        dims = tensor.shape.dim
        if role == "takes" and (len(dims) != 4 or dims[1].dim_value != 3):
            shape = ", ".join(str(dim.dim_value or dim.dim_param or "?") for dim in dims)
            raise ModelError(f"{role} [{shape}]; vidsr needs an RGB picture, [N, 3, H, W]")
    del proto.graph.value_info[:]
    for value, names in ((inputs[0], ("n", None, "h", "w")), (proto.graph.output[0], (None, None, None, None))):
        for dim, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
            if name:
                dim.dim_param = name
            elif value is not inputs[0]:
                dim.Clear()


def _inferred(proto: onnx.ModelProto, height: int, width: int) -> onnx.ModelProto:
    """A copy with all tensor shapes known for one input size."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    filled = {tensor.name for tensor in copy.graph.initializer}
    shape = next(value for value in copy.graph.input if value.name not in filled).type.tensor_type.shape
    for dim, size in zip(shape.dim, (1, 3, height, width), strict=True):
        dim.dim_value = size
    return shape_inference.infer_shapes(copy, strict_mode=True, data_prop=True)


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)


def _scale(proto: onnx.ModelProto) -> int:
    scales = []
    for height, width in ((48, 64), (64, 96)):
        try:
            output = _shape(_inferred(proto, height, width).graph.output[0])
        except Exception as error:  # shape inference raises its own InferenceError and plain RuntimeError
            raise ModelError(f"works on one picture size only, or is inconsistent ({_first_line(error)})") from error
        if len(output) != 4 or not all(output):
            raise ModelError("does not say the size of its output")
        if output[1] != 3:
            raise ModelError(f"gives {output[1]} channels; vidsr needs RGB")
        scales.append((output[2] / height, output[3] / width))
    if scales[0] != scales[1]:
        raise ModelError("is fixed to one picture size: export it again with free height and width")
    down, right = scales[0]
    if down != right or down != int(down) or not 1 <= down <= 16:
        raise ModelError(f"enlarges {right:g} x {down:g} times; vidsr needs one whole number for both")
    return int(down)


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default


def _receptive_radius(proto: onnx.ModelProto) -> int | None:
    """Walks the graph with (pixels seen before, after, step) per tensor; None at the first unknown operator."""
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    reach: dict[str, tuple[float, float, float]] = {
        value.name: (0.0, 0.0, 1.0) for value in proto.graph.input if value.name not in tensors
    }
    for node in proto.graph.node:
        if node.op_type == "Constant":
            tensors[node.output[0]] = _attribute(node, "value", TensorProto())
            continue
        sources = [reach[name] for name in node.input if name in reach]
        if not sources:
            continue
        before, after = (max(source[side] for source in sources) for side in (0, 1))
        step = sources[0][2]
        if node.op_type in _WINDOWED:
            window = _padding(node, tensors) if node.op_type == "Pad" else _window(node, tensors)
            if window is None:
                return None
            before += step * max(first for first, _ in window)
            after += step * max(last for _, last in window)
        elif node.op_type in _GROWING:
            step /= _attribute(node, _GROWING[node.op_type], 1)
        elif node.op_type not in _POINTWISE:
            return None
        for output in node.output:
            reach[output] = (before, after, step)
    return math.ceil(max(0, *reach[proto.graph.output[0].name][:2]))


def _window(node: onnx.NodeProto, tensors: dict[str, TensorProto]) -> list[tuple[int, int]] | None:
    """(samples before, samples after) that an output sees along each axis.

    None where that is not the same for all: with strides, tiles would have to begin on a multiple of them.
    """
    if max(_attribute(node, "strides", None) or [1]) > 1:
        return None
    kernel = _attribute(node, "kernel_shape", None) or (
        list(tensors[node.input[1]].dims)[2:] if node.input[1] in tensors else None
    )
    if not kernel:
        return None
    dilations = _attribute(node, "dilations", None) or [1] * len(kernel)
    seen = [(size - 1) * dilation for size, dilation in zip(kernel, dilations, strict=True)]
    if _attribute(node, "auto_pad", b"NOTSET") in (b"SAME_UPPER", b"SAME_LOWER"):
        return [(-(-extent // 2), -(-extent // 2)) for extent in seen]
    pads = _attribute(node, "pads", None) or [0] * len(kernel)
    return [(first, extent - first) for first, extent in zip(pads, seen, strict=False)]


def _padding(node: onnx.NodeProto, tensors: dict[str, TensorProto]) -> list[tuple[int, int]] | None:
    """`_window` of a Pad: it shifts the picture. None where it is not constant or brings the other side in."""
    if any(node.input[3:]) or node.input[1] not in tensors:
        return None
    if _attribute(node, "mode", b"constant") == b"wrap":
        return None
    pads = numpy_helper.to_array(tensors[node.input[1]]).tolist()
    return [(first, -first) for first in pads[2 : len(pads) // 2]]


def _peak_bytes(proto: onnx.ModelProto) -> float:
    height = width = 64
    inferred = _inferred(proto, height, width)
    sizes = {
        value.name: 4.0 * math.prod(_shape(value)) / (height * width)
        for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    }
    last_use = {name: index for index, node in enumerate(proto.graph.node) for name in node.input}
    alive: dict[str, float] = {}
    peak = 0.0
    for index, node in enumerate(proto.graph.node):
        alive.update({name: sizes.get(name, 0.0) for name in node.output if node.op_type != "Constant"})
        peak = max(peak, sum(alive.values()))
        alive = {name: size for name, size in alive.items() if last_use.get(name, -1) > index}
    return peak
