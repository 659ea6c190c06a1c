"""Models: RGB super-resolution networks as ONNX files, found by name or path and checked before use."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import platformdirs
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper, version_converter

from vidsr.errors import ModelError, UsageError, first_line
from vidsr.graph import CHAIN_REACH, GUARD_REACH, Link, chained, free_inputs, measure, opset_of

__all__ = [
    "CHECKPOINT_SUFFIXES",
    "DEFAULT",
    "MOST_FACTOR",
    "Model",
    "chain",
    "choose",
    "family",
    "folders",
    "installed",
    "load",
    "scales_for",
    "usable",
    "user_folder",
]

DEFAULT = "span"
CHECKPOINT_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")
MOST_FACTOR = 16
"""Of one model, of a chain, and of what may be asked for."""
_DETAIL_ENDS = 4
"""From this factor on another model finds next to nothing more in a picture."""
_FLOATS = {TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2, TensorProto.DOUBLE: 8, TensorProto.BFLOAT16: 2}


@dataclass(frozen=True)
class Model:
    """A checked model, ready to be composed into an engine's graph; or several that follow each other.

    proto: one input, one output, float32 or float16 [N, 3, H, W] with free N, H and W, opset 13 or newer.
    scale: output size over input size. metadata: the file's own (network, license, training, ...), may be empty.
    guarded: engines are to keep its wild results out of the picture (`vidsr.graph.guard`). parts: of a chain, in
    order; their guards are in its `proto`, and it has no metadata and is not `guarded` itself.
    """

    name: str
    path: Path
    proto: onnx.ModelProto
    scale: int
    metadata: dict[str, str]
    guarded: bool = False
    parts: tuple[Model, ...] = ()

    @property
    def members(self) -> tuple[Model, ...]:
        """The models it consists of: itself, or the parts of a chain."""
        return self.parts or (self,)

    @cached_property
    def sha256(self) -> str:
        """Hash of the file's bytes, hexadecimal; of a chain that of its parts' hashes, one a line."""
        if self.parts:
            return hashlib.sha256("\n".join(part.sha256 for part in self.parts).encode()).hexdigest()
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @cached_property
    def radius(self) -> int | None:
        """How far an output depends on the input, in input pixels; None where the whole picture may matter."""
        if self.parts:
            return self._joined([part.radius for part in self.parts])
        reach = measure.radius(self.proto)
        return reach if reach is None or not self.guarded else reach + GUARD_REACH

    @cached_property
    def overlap(self) -> int | None:
        """How much is computed around a tile and thrown away, in input pixels: the radius; where the whole picture may
        matter, what the metadata state, and tiles are not exact; None for a model that cannot be cut."""
        if self.parts:
            return self._joined([part.overlap for part in self.parts])
        return self.radius if self.radius is not None else self._stated("tile_overlap")

    @cached_property
    def tile_step(self) -> int:
        """What tiles begin on multiples of: `multiple`, and where the metadata state the model's own windows."""
        if self.parts:
            return self._common([part.tile_step for part in self.parts])
        return math.lcm(self.multiple, self._stated("tile_step") or 1)

    @cached_property
    def multiple(self) -> int:
        """What height and width have to be multiples of, for an output of exactly `scale` times the size."""
        if self.parts:
            return self._common([part.multiple for part in self.parts])
        return measure.multiple(self.proto, self.scale)

    @cached_property
    def activation_bytes(self) -> float:
        """Largest sum of tensors alive at once, in FP32 bytes an input pixel."""
        if self.parts:
            pairs = zip(self.parts, self._scales, strict=True)
            return max(scale**2 * part.activation_bytes for part, scale in pairs)
        return measure.peak_bytes(self.proto)

    @cached_property
    def score_bytes(self) -> float:
        """What attention takes beside these in a backend that does not fuse it."""
        if self.parts:
            return max(scale**2 * part.score_bytes for part, scale in zip(self.parts, self._scales, strict=True))
        return measure.score_bytes(self.proto)

    @property
    def _scales(self) -> list[int]:
        """How much larger the picture is that each part gets."""
        return [math.prod(part.scale for part in self.parts[:index]) for index in range(len(self.parts))]

    def _joined(self, reaches: list[int | None]) -> int | None:
        """Of a chain whose parts see so far: how far it does; None where one of them sees everything."""
        # A pixel that is `reach` away from another lies at most so many, rounded up, of the larger ones away.
        pairs = zip(reaches, self._scales, strict=True)
        far = [None if reach is None else -(-max(reach, CHAIN_REACH) // scale) for reach, scale in pairs]
        return None if None in far else sum(reach or 0 for reach in far)

    def _common(self, steps: list[int]) -> int:
        """Of a chain whose parts need multiples of these: what it needs them of."""
        return math.lcm(*(step // math.gcd(step, scale) for step, scale in zip(steps, self._scales, strict=True)))

    def _stated(self, key: str) -> int | None:
        """A whole number above 0 in the metadata, which anybody may have written."""
        value = self.metadata.get(key, "")
        return int(value) if re.fullmatch(r"[1-9][0-9]{0,3}", value) else None

    def lowered(self, lower: Callable[[Model], onnx.ModelProto]) -> onnx.ModelProto:
        """The graph with each network in the form that `lower` gives it; what is between them stays FP32."""
        if not self.parts:
            return lower(self)
        return chained([Link(proto=lower(part), scale=part.scale, guard=part.guarded) for part in self.parts])

    def guards(self, wanted: Callable[[Model], bool]) -> Model:
        """The model with the guard where it is wanted, which a chain is asked for each of its parts."""
        if self.parts:
            return chain([part.guards(wanted) for part in self.parts])
        return self if wanted(self) == self.guarded else replace(self, guarded=not self.guarded)

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
        raise ModelError(f"{path}: not a readable ONNX model ({first_line(error)})") from error
    try:
        proto = _modern(proto)
        _free_size(proto)
        scale = _scale(proto)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error.__cause__
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    return Model(name=path.stem, path=path, proto=proto, scale=scale, metadata=metadata)


def chain(parts: Sequence[Model]) -> Model:
    """Models that follow each other as one; of one that itself. Raises ModelError where they cannot be joined."""
    if len(parts) == 1:
        return parts[0]
    names = "+".join(part.name for part in parts)
    try:
        proto = chained([Link(proto=part.proto, scale=part.scale, guard=part.guarded) for part in parts])
    except ValueError as error:
        raise ModelError(f"{names}: {error}") from error
    scale = math.prod(part.scale for part in parts)
    return Model(name=names, path=parts[0].path, proto=proto, scale=scale, metadata={}, parts=tuple(parts))


def family(name: str) -> list[Model]:
    """The model `load` gives, and those that do the same by another factor: NAME-x4 beside NAME. Raises ModelError.

    A file has no others, nor has a name whose suffix says the factor.
    """
    found = {(first := load(name)).scale: first}
    if Path(name).suffix.lower() != ".onnx":
        for path in installed():
            suffix = re.fullmatch(re.escape(name) + r"-x(\d+)", path.stem)
            if suffix and (other := load(str(path))).scale == int(suffix[1]):
                found.setdefault(other.scale, other)
    return list(found.values())


def choose(name: str, factor: Fraction | float | None = None) -> Model:
    """What of a model's `family` to enlarge `factor` times with; the rest, either way, is resampling's.

    name: as for `load`. factor: the larger one, where height and width differ; None for the model's own. One model or
    a chain of them, the largest first: the least that reaches the factor, or comes so near that resampling loses
    nothing by it; where none does, the most there is. Raises ModelError, UsageError.
    """
    if factor is None:
        return load(name)
    members = {model.scale: model for model in family(name)}
    return chain([members[scale] for scale in scales_for(members, factor)])


def scales_for(members: Iterable[int], factor: Fraction | float) -> tuple[int, ...]:
    """The part of `choose` that needs no files: which of a family's scales, in order. Raises UsageError."""
    if not 0 < factor <= MOST_FACTOR:
        raise UsageError(f"{float(factor):g} times as large: it must be more than 0 and {MOST_FACTOR} at most")
    counts, largest = range(1, MOST_FACTOR.bit_length()), sorted(members, reverse=True)
    chains = [scales for count in counts for scales in itertools.combinations_with_replacement(largest, count)]
    chains = [scales for scales in chains if math.prod(scales) <= MOST_FACTOR and (len(scales) == 1 or scales[-1] > 1)]
    enough = [scales for scales in chains if _reach(math.prod(scales)) >= factor]
    best = min(enough, key=lambda scales: (math.prod(scales), len(scales)), default=None)
    return best or max(chains, key=lambda scales: (math.prod(scales), -len(scales)))


def _reach(scale: int) -> Fraction:
    """The largest factor for which resampling behind models of this one is as good as more models.

    Measured (PSNR-Y, docs/design.md): of two models that enlarge 2 and 4 times the first is better at 2, the second
    from 2.1 on; at 4.4 and at 8 a third changes 0.03 dB, and costs three to thirteen times as much.
    """
    return scale * (Fraction(21, 20) if scale < _DETAIL_ENDS else Fraction(5, 4))


def _modern(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model at opset 13 or newer: what the graph around it is written in."""
    foreign = sorted({node.domain for node in proto.graph.node} - {"", "ai.onnx"})
    if foreign:
        raise ModelError(f"uses operators outside standard ONNX ({foreign[0]}), which no backend here knows")
    opset = opset_of(proto)
    if opset >= 13:
        return proto
    try:
        return version_converter.convert_version(proto, 13)
    except Exception as error:  # the converter raises RuntimeError and its own C++ errors alike
        raise ModelError(f"is ONNX opset {opset} and cannot be converted to 13 ({first_line(error)})") from error


def _free_size(proto: onnx.ModelProto) -> None:
    """Checks the one RGB input and output, and frees N, H and W in place."""
    inputs = free_inputs(proto.graph)
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
            raise ModelError(f"works on one picture size only, or is inconsistent ({first_line(error)})") from error
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
