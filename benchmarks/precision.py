"""What FP16 costs in quality, measured on the processor with ONNX Runtime: one JSON object on the standard output.

    python -m benchmarks.precision MODEL... [--pictures FOLDER]... [--clips VIDEO]... [--count 20] > precision.json

in the checkout's root. MODEL: an .onnx file or a checkpoint. For each, lowered by `vidsr.half` with and without its
last convolution, against itself in FP32:

    natural   PSNR in dB of RGB 0..1 (clipped, not rounded) over the first COUNT pictures of each folder and COUNT
              frames spread over each clip; share and size of differences after rounding to 8 bits
    largest   the largest absolute value of every FP16 tensor, over the natural pictures and over extremes (binary
              noise, checkerboards, stripes); FP16 ends at 65504
    ramp      a smooth grey ramp through the whole composed graph, by bit depth: code values of the FP32 result that do
              not occur, steps down where the ramp goes up, differences in code values. 16 bits: the brightest 16th

ONNX Runtime has no FP16 convolution on x86: it computes in FP32, and of the model as it is only the weights would be
FP16. So every FP16 tensor is rounded by casts written into the model (`tests/rounding.py`). Sums within a convolution
are FP32; kernels that add up in FP16 lose more.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnx
from numpy.typing import NDArray

from tests.rounding import LARGEST, rounded
from vidsr import models
from vidsr.backends.onnxruntime_engine import load_library
from vidsr.checkpoint import import_checkpoint
from vidsr.color import BT709, ColorTags, conversion
from vidsr.frame import FrameLayout
from vidsr.graph import CODES_FROM_RGB, RGB_FROM_CODES, compose
from vidsr.half import half
from vidsr.media.picture import read_rgb

Image = NDArray[Any]
Run = Callable[[dict[str, Image]], dict[str, Image]]
RAMPS = {8: (768, 1), 10: (2048, 1), 12: (8192, 1), 16: (8192, 16)}
"""By bits: width in samples, and the part of the range, from its bright end, that the ramp covers."""
EDGE = 50
"""Output samples at either end of a ramp that do not count: there it meets the border and is not smooth."""


def runner(model: onnx.ModelProto) -> Run:
    onnxruntime = load_library()
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feed: dict(zip(names, session.run(None, feed), strict=True))


def loaded(path: Path) -> models.Model:
    if path.suffix == ".onnx":
        return models.load(str(path))
    with tempfile.TemporaryDirectory() as folder:
        return models.load(str(import_checkpoint(path, "measured", folder=Path(folder))))


def tensor(image: Image) -> Image:
    """float32 [1, 3, H, W] in 0..1 from uint8 [H, W, 3]."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None].astype(np.float32) / 255)


def pictures(folder: Path, count: int) -> Iterator[Image]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    for path in files[:count]:
        yield read_rgb(path)


def frames(clip: Path, count: int) -> Iterator[Image]:
    """Every 25th frame, cropped to its middle of at most 320x180: what is measured does not depend on size."""
    with av.open(str(clip)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index == 25 * count:
                break
            if index % 25 == 0:
                image = frame.to_ndarray(format="rgb24")
                top, left = max(0, (image.shape[0] - 180) // 2), max(0, (image.shape[1] - 320) // 2)
                yield image[top : top + 180, left : left + 320]


def extremes() -> Iterator[tuple[str, Image]]:
    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[:96, :96]
    planes = {
        "checkerboard": (rows + columns) % 2,
        "checkerboard of 2": (rows // 2 + columns // 2) % 2,
        "stripes": columns % 2,
        "stripes of 2": columns // 2 % 2,
        "binary noise, grey": rng.integers(0, 2, (96, 96)),
        "black": np.zeros((96, 96), int),
        "white": np.ones((96, 96), int),
    }
    for name, plane in planes.items():
        yield name, np.repeat(plane[:, :, None] * 255, 3, axis=2).astype(np.uint8)
    yield "binary noise", (rng.integers(0, 2, (96, 96, 3)) * 255).astype(np.uint8)


def natural(exact: Run, lowered: dict[str, Run], images: Iterator[Image]) -> tuple[dict[str, Any], dict[str, float]]:
    """By kind of lowering, PSNR and differences over all images; and the largest values that a run tells of."""
    scores: dict[str, list[float]] = {kind: [] for kind in lowered}
    over: dict[str, list[float]] = {kind: [] for kind in lowered}
    worst = dict.fromkeys(lowered, 0)
    peaks: dict[str, float] = {}
    count = 0
    for image in images:
        count += 1
        wanted = np.clip(next(iter(exact({"input": tensor(image)}).values())), 0, 1)
        for kind, run in lowered.items():
            outputs = run({"input": tensor(image)})
            peaks = largest(outputs, peaks)
            found = np.clip(next(iter(outputs.values())), 0, 1)
            error = float(np.mean((found.astype(np.float64) - wanted) ** 2))
            scores[kind].append(-10 * np.log10(max(error, 1e-20)))
            codes = abs(np.rint(found * 255) - np.rint(wanted * 255))
            over[kind].append(float(np.mean(codes > 1)))
            worst[kind] = max(worst[kind], int(codes.max()))
    report = {
        kind: {
            "psnr_db_mean": round(float(np.mean(scores[kind])), 2),
            "psnr_db_min": round(float(min(scores[kind])), 2),
            "share_off_by_more_than_1_of_255": float(np.mean(over[kind])),
            "most_off_of_255": worst[kind],
        }
        for kind in lowered
    }
    return {"pictures": count, **report}, peaks


def largest(outputs: dict[str, Image], before: dict[str, float]) -> dict[str, float]:
    """By tensor, with what was found before."""
    values = {name.removeprefix(LARGEST): float(out) for name, out in outputs.items() if name.startswith(LARGEST)}
    return before | {name: max(round(value, 3), before.get(name, 0.0)) for name, value in values.items()}


def ramp(model: onnx.ModelProto, bits: int, scale: int) -> Image:
    """The luma of a ramp, 4:2:0 in limited range: the middle row without its ends."""
    width, part = RAMPS[bits]
    source = FrameLayout(family="yuv", bits=bits, height=16, width=width, chroma=(2, 2))
    target = FrameLayout(family="yuv", bits=bits, height=16 * scale, width=width * scale, chroma=(2, 2))
    step = 2 ** (bits - 8)
    planes = [np.full(shape, 128 * step, source.dtype) for shape in source.shapes]
    planes[0][:] = np.rint(np.linspace((235 - 219 / part) * step, 235 * step, width))
    tags = ColorTags(matrix=BT709, full_range=False)
    maps = conversion(tags, tags, source_bits=bits, target_bits=bits)
    feed = {f"in{index}": plane for index, plane in enumerate(planes)}
    feed |= {RGB_FROM_CODES: maps.rgb_from_codes, CODES_FROM_RGB: maps.codes_from_rgb}
    luma = runner(compose(model, source, target))(feed)["out0"]
    return luma[luma.shape[0] // 2, EDGE:-EDGE].astype(np.int64)


def ramps(exact: onnx.ModelProto, lowered: dict[str, onnx.ModelProto], scale: int) -> dict[str, Any]:
    report: dict[str, Any] = {}
    for bits in RAMPS:
        wanted = ramp(exact, bits, scale)
        report[str(bits)] = {"codes": len(set(wanted)), "fp32": {"steps_down": int((np.diff(wanted) < 0).sum())}}
        for kind, model in lowered.items():
            found = ramp(model, bits, scale)
            report[str(bits)][kind] = {
                "missing": len(set(wanted) - set(found)),
                "steps_down": int((np.diff(found) < 0).sum()),
                "difference_mean": round(float(abs(found - wanted).mean()), 4),
                "difference_max": int(abs(found - wanted).max()),
            }
    return report


def measured(path: Path, folders: list[Path], clips: list[Path], count: int) -> dict[str, Any]:
    model = loaded(path)
    proto = model.proto
    lowered = {"half": half(proto), "half, last in fp32": half(proto, keep_last=True)}
    emulated = {kind: rounded(value, largest=kind == "half") for kind, value in lowered.items()}
    exact, runs = renamed(runner(proto), proto), {kind: renamed(runner(m), proto) for kind, m in emulated.items()}
    sets = {folder.as_posix(): lambda folder=folder: pictures(folder, count) for folder in folders}
    sets |= {clip.name: lambda clip=clip: frames(clip, count) for clip in clips}
    report: dict[str, Any] = {"scale": model.scale, "natural": {}, "largest": {}}
    for name, images in sets.items():
        report["natural"][name], report["largest"][name] = natural(exact, runs, images())
    report["largest"] |= {name: largest(runs["half"]({"input": tensor(image)}), {}) for name, image in extremes()}
    report["largest_of_all"] = {name: max(values.values()) for name, values in report["largest"].items()}
    report["ramp"] = ramps(proto, {kind: rounded(value) for kind, value in lowered.items()}, model.scale)
    return report


def renamed(run: Run, model: onnx.ModelProto) -> Run:
    """Whatever the model calls its input, it may be fed as `input`."""
    filled = {tensor.name for tensor in model.graph.initializer}
    name = next(value.name for value in model.graph.input if value.name not in filled)
    return lambda feed: run({name: feed["input"]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--pictures", type=Path, action="append", default=[])
    parser.add_argument("--clips", type=Path, action="append", default=[])
    parser.add_argument("--count", type=int, default=20, help="pictures of a folder, frames of a clip (default 20)")
    chosen = parser.parse_args()
    report = {
        path.as_posix(): measured(path, chosen.pictures, chosen.clips, chosen.count) for path in chosen.models
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
