"""How much a device computes at most, through the library that runs models on it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vidsr import models
from vidsr.backends import Backend, EngineOptions, Watch
from vidsr.backends.base import Precision
from vidsr.color import BT709, ColorTags, conversion
from vidsr.errors import VidsrError
from vidsr.frame import FrameLayout
from vidsr.graph.cost import multiply_adds
from vidsr.models import Model
from vidsr.quantise import KEY, text_from_ranges

__all__ = ["PRECISIONS", "matrix_gflops"]

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16", "int8")
_TORCH_TYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_SECONDS, _LEAST_RUNS = 0.4, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Load:
    """Convolutions in a row, nothing between. kernel 1 makes them products of large matrices; 3 is what models have,
    which libraries may compute with fewer multiplications (Winograd)."""

    kernel: int
    channels: int
    layers: int
    side: int


_PROCESSOR = (
    _Load(kernel=1, channels=1024, layers=4, side=64),
    _Load(kernel=3, channels=256, layers=4, side=64),
)
_CARD = (
    _Load(kernel=1, channels=4096, layers=4, side=128),
    _Load(kernel=3, channels=512, layers=8, side=256),
)
"""Large enough that what stands around them takes no time, for the fastest of either."""


def matrix_gflops(
    backend: Backend, options: EngineOptions, precisions: Sequence[Precision] = PRECISIONS
) -> dict[str, float]:
    """Thousand million multiplications and additions a second by precision, of those that the device has: the best of
    several runs. options: settled; of several cards the first is measured. Takes some seconds."""
    card = options.device.startswith("cuda")
    cache = options.cache if card else None  # nobody will run these again, but on a card they take minutes
    one = replace(options, device=options.device.split(",")[0], slots=1, streams=1, cache=cache)
    # torch runs only networks that it has as modules; and TensorRT would compile for minutes.
    by_torch = backend.name == "torch" or (card and find_spec("torch") is not None)
    found: dict[str, float] = {}
    for precision in precisions:
        try:
            settled = backend.settle(replace(one, precision=precision))
            if not by_torch:
                loads = _CARD if card else _PROCESSOR
                found[precision] = max(_gflops(backend, settled, load) for load in loads)
            elif precision in _TORCH_TYPES:
                found[precision] = _torch_gflops(settled.device, precision)
        except VidsrError:
            continue
    return found


def _torch_gflops(device: str, precision: Precision) -> float:
    import torch

    place = torch.device(device)
    side = 2048 if place.type == "cpu" else 8192
    left, right = (torch.rand(side, side, device=place).to(getattr(torch, _TORCH_TYPES[precision])) for _ in "lr")

    def run() -> None:
        torch.mm(left, right)
        if place.type != "cpu":
            torch.cuda.synchronize(place)

    run()
    return 2e-9 * side**3 / _best_seconds(run)


def _best_seconds(run: Callable[[], None]) -> float:
    times: list[float] = []
    while sum(times) < _SECONDS or len(times) < _LEAST_RUNS:
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times)


def _gflops(backend: Backend, options: EngineOptions, load: _Load) -> float:
    layout = FrameLayout(family="yuv", bits=8, height=load.side, width=load.side, chroma=(2, 2))
    target = replace(layout, height=2 * load.side, width=2 * load.side)
    tags = ColorTags(matrix=BT709, full_range=False)
    with tempfile.TemporaryDirectory(prefix="vidsr-bench-") as folder:
        model = _model(Path(folder, "peak.onnx"), load)
        work = 2e-9 * multiply_adds(model.proto) * load.side**2
        prepared = backend.prepare(model, layout, target, options, Watch())
        with closing(backend.open(model, layout, target, options, prepared)) as engine:
            (slot,) = engine.slots(1)
            slot.convert(conversion(tags, tags, source_bits=8, target_bits=8))
            for plane in slot.input:
                plane[:] = np.random.default_rng(0).integers(16, 236, plane.shape)

            def run() -> None:
                engine.submit(slot)
                engine.wait(slot)

            run()
            return work / _best_seconds(run)


def _model(path: Path, load: _Load) -> Model:
    """RGB to RGB of twice the size; between them the load."""
    random = np.random.default_rng(0)
    widths = [3, *[load.channels] * (load.layers + 1), 12]
    nodes, weights, value, ranges = [], [], "x", {}
    for index, (taken, given) in enumerate(pairwise(widths)):
        # Sums stay as large as what is summed: numbers that overflow or vanish can take another time.
        weight = random.standard_normal((given, taken, load.kernel, load.kernel), np.float32)
        weight /= np.float32(np.sqrt(taken * load.kernel**2))
        weights.append(numpy_helper.from_array(weight, f"weight{index}"))
        pads = [load.kernel // 2] * 4
        nodes.append(
            helper.make_node("Conv", [value, f"weight{index}"], [f"value{index}"], name=f"conv{index}", pads=pads)
        )
        value, ranges[f"conv{index}"] = f"value{index}", (-4.0, 4.0)
    nodes.append(helper.make_node("DepthToSpace", [value], ["y"], blocksize=2, mode="CRD"))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, *sizes])
        for name, sizes in (("x", ["h", "w"]), ("y", ["H", "W"]))
    ]
    graph = helper.make_graph(nodes, "peak", ends[:1], ends[1:], weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(proto, {KEY: text_from_ranges(ranges)})
    onnx.save(proto, path)
    return models.load(str(path))
