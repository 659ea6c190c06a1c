"""Models: RGB super-resolution networks as ONNX files, found by name or path and checked before use."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import platformdirs
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper, version_converter

from vidsr.errors import ModelError
from vidsr.graph import GUARD_REACH, measure

__all__ = ["CHECKPOINT_SUFFIXES", "DEFAULT", "Model", "folders", "installed", "load", "usable", "user_folder"]

DEFAULT = "span"
CHECKPOINT_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")
_FLOATS = {TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2, TensorProto.DOUBLE: 8, TensorProto.BFLOAT16: 2}


@dataclass(frozen=True)
class Model:
    """A checked model, ready to be composed into an engine's graph.

    proto: one input, one output, float32 or float16 [N, 3, H, W] with free N, H and W, opset 13 or newer.
    scale: output size over input size. metadata: the file's own (network, license, training, ...), may be empty.
    guarded: engines are to keep its wild results out of the picture (`vidsr.graph.guard`).
    """

    name: str
    path: Path
    proto: onnx.ModelProto
    scale: int
    metadata: dict[str, str]
    guarded: bool = False

    @cached_property
    def sha256(self) -> str:
        """Hash of the file's bytes, hexadecimal."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @cached_property
    def radius(self) -> int | None:
        """How far an output depends on the input, in input pixels; None where the whole picture may matter."""
        reach = measure.radius(self.proto)
        return reach if reach is None or not self.guarded else reach + GUARD_REACH

    @cached_property
    def multiple(self) -> int:
        """What height and width have to be multiples of, for an output of exactly `scale` times the size."""
        return measure.multiple(self.proto, self.scale)

    @cached_property
    def activation_bytes(self) -> float:
        """Largest sum of tensors alive at once, in FP32 bytes an input pixel."""
        return measure.peak_bytes(self.proto)

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


def _scale(proto: onnx.ModelProto) -> int:
    scales = []
    for height, width in ((measure.MOST, 2 * measure.MOST), (2 * measure.MOST, 3 * measure.MOST)):
        try:
            output = measure.output_shape(proto, height, width)
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
