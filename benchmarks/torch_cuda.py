"""Checks and measures torch on an NVIDIA card: one JSON line for each result.

    python benchmarks/torch_cuda.py [--steps card,right,peak,bare,engine] [--sizes 1280x720,1920x1080] [--seconds 3]

card: what there is. right: frames of the samples, against the FP32 reference on the processor. peak: a large matrix
product in FP16. bare: the network with its colours as a CUDA graph without copies, and the switches of `TorchProgram`
one by one. engine: `CudaEngine` with 1 to 4 slots, and how much of the copies hides behind the work of other slots.

A step that fails says so in its line, and the others go on. Exit code 1 if one failed or a result is not right.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np

from vidsr import models
from vidsr.backends import Engine, EngineOptions, Slot
from vidsr.backends.torch_engine import BACKEND
from vidsr.color import BT709, ColorTags, conversion
from vidsr.errors import VidsrError
from vidsr.frame import FrameLayout, Plane
from vidsr.models import Model

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
LIMITED = ColorTags(matrix=BT709, full_range=False)
SLOTS = (1, 2, 3, 4)
# From FP16 emulated on a processor, with room: 82 dB before rounding to 8 bits, no sample off by more than 1.
PSNR, OFF_BY_MORE = 55.0, 0.01


@dataclass
class Bench:
    """What all steps share. peak: FP16 TFLOP/s once it is measured."""

    model: Model
    sizes: list[tuple[int, int]]
    seconds: float
    peak: float | None = None
    wrong: bool = False


def say(step: str, **found: Any) -> None:
    print(json.dumps({"step": step, **found}), flush=True)


def enlarged(source: FrameLayout, scale: int) -> FrameLayout:
    return FrameLayout(
        family=source.family,
        bits=source.bits,
        height=source.height * scale,
        width=source.width * scale,
        chroma=source.chroma,
        siting=source.siting,
    )


def layout_of(size: tuple[int, int]) -> FrameLayout:
    return FrameLayout(family="yuv", bits=8, height=size[0], width=size[1], chroma=(2, 2))


def fill(slot: Slot, planes: list[Plane], bits: int) -> None:
    slot.convert(conversion(LIMITED, LIMITED, source_bits=bits, target_bits=bits))
    for place, plane in zip(slot.input, planes, strict=True):
        np.copyto(place, plane)


def seconds_each(submit: Callable[[int], None], wait: Callable[[], None], least: float) -> float:
    """Of one call of `submit`, over at least `least` seconds. `wait`: until all of them are done."""
    count, spent = 4, 0.0
    for number in range(count):
        submit(number)
    wait()
    while spent < least:
        begin = time.perf_counter()
        for number in range(count):
            submit(number)
        wait()
        spent = time.perf_counter() - begin
        if spent < least:
            count = max(count + 1, int(count * min(8.0, 1.2 * least / spent)))
    return spent / count


def flops(model: Model, source: FrameLayout) -> float:
    """Of the convolutions, all of which work at the size of the source."""
    return 2.0 * source.height * source.width * sum(w.size for w in model.state().values() if w.ndim == 4)


def pictures(path: Path, count: int) -> Iterator[tuple[FrameLayout, list[Plane]]]:
    with av.open(str(path)) as container:
        for frame in islice(container.decode(video=0), 0, 12 * count, 12):
            source = FrameLayout(
                family="yuv",
                bits=frame.format.components[0].bits,
                height=frame.height,
                width=frame.width,
                chroma=(2, 2),
            )
            rows = zip(frame.planes, source.shapes, strict=True)
            yield (
                source,
                [np.frombuffer(p, source.dtype).reshape(p.height, -1)[: s[0], : s[1]].copy() for p, s in rows],
            )


def one(engine: Engine, planes: list[Plane]) -> list[Plane]:
    (slot,) = engine.slots(1)
    fill(slot, planes, engine.source.bits)
    engine.submit(slot)
    engine.wait(slot)
    return [plane.copy() for plane in slot.output]


# The steps


def card(bench: Bench) -> None:
    import torch

    from vidsr.backends.cuda.torch_device import TorchDevice

    device = TorchDevice(0)
    say(
        "card", name=device.name, capability=device.capability, multiprocessors=device.multiprocessors,
        total_bytes=device.total_bytes, driver=device.driver, torch=torch.__version__, cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),
    )  # fmt: skip


def right(bench: Bench) -> None:
    for name in ("clip.mp4", "gradient_10bit.mp4", "odd.webm"):
        for number, (source, planes) in enumerate(pictures(SAMPLES / name, 2)):
            target = enlarged(source, bench.model.scale)
            with closing(opened(bench.model, source, target, "cpu", "fp32")) as engine:
                exact = one(engine, planes)
            for precision in ("fp32", "fp16"):
                with closing(opened(bench.model, source, target, "cuda:0", precision)) as engine:
                    made = one(engine, planes)
                pairs = zip(made, exact, strict=True)
                found = np.concatenate([abs(a.astype(np.int64) - b).ravel() for a, b in pairs])
                error = float(np.mean(found.astype(np.float64) ** 2))
                psnr = 10 * float(np.log10((2**source.bits - 1) ** 2 / max(error, 1e-12)))
                more = float(np.mean(found > 2 ** (source.bits - 8)))
                good = found.max() <= 1 if precision == "fp32" else psnr >= PSNR and more <= OFF_BY_MORE
                bench.wrong |= not good
                say("right", file=name, picture=number, precision=precision, right=bool(good), psnr=round(psnr, 2),
                    largest=int(found.max()), differing=float(np.mean(found > 0)), off_by_more=more)  # fmt: skip


def peak(bench: Bench) -> None:
    import torch

    side = 8192
    a, b = (torch.randn(side, side, device="cuda:0").half() for _ in range(2))
    out = torch.empty_like(a)
    each = seconds_each(lambda number: torch.matmul(a, b, out=out), torch.cuda.synchronize, bench.seconds)
    bench.peak = 2 * side**3 / each / 1e12
    say("peak", fp16_tflops=round(bench.peak, 1))


def bare(bench: Bench) -> None:
    import torch

    variants: list[tuple[str, dict[str, Any]]] = [
        ("fp16", {"precision": "fp16"}),
        ("fp16, channels first", {"precision": "fp16", "channels_last": False}),
        ("fp16, cudnn.benchmark", {"precision": "fp16", "benchmark": True}),
        ("fp16, compiled", {"precision": "fp16", "compiled": True}),
        ("fp16, compiled, channels first", {"precision": "fp16", "compiled": True, "channels_last": False}),
        ("fp32", {"precision": "fp32"}),
        ("fp32, channels last", {"precision": "fp32", "channels_last": True}),
    ]
    for size in bench.sizes:
        source = layout_of(size)
        for name, settings in variants:
            options = dict(settings)
            torch.backends.cudnn.benchmark = options.pop("benchmark", False)
            with attempt(bench, "bare", size=size, variant=name), graph_without_copies(bench, source, options) as run:
                launch, wait, captured = run
                each = seconds_each(lambda number, launch=launch: launch(), wait, bench.seconds)
                tflops = flops(bench.model, source) / each / 1e12
                share = round(tflops / bench.peak, 3) if bench.peak else None
                say("bare", size=size, variant=name, graph=captured, fps=round(1 / each, 2), tflops=round(tflops, 2),
                    share_of_peak=share)  # fmt: skip
    torch.backends.cudnn.benchmark = False


@contextmanager
def graph_without_copies(
    bench: Bench, source: FrameLayout, options: dict[str, Any]
) -> Iterator[tuple[Callable[[], None], Callable[[], None], bool]]:
    """(launch, wait, captured): a run of the whole module without a frame's copies."""
    from vidsr.backends.cuda.torch_device import TorchDevice
    from vidsr.backends.torch_program import TorchProgram
    from vidsr.graph import CODES_FROM_RGB, RGB_FROM_CODES, plane_tensors

    allow_tf32()
    target = enlarged(source, bench.model.scale)
    sizes = {tensor.name: tensor.size_bytes for tensor in (*plane_tensors("in", source), *plane_tensors("out", target))}
    sizes |= {RGB_FROM_CODES: 48, CODES_FROM_RGB: 48}
    device = TorchDevice(0)
    with closing(device), device.current(), ExitStack() as undo:
        memory = {name: undo.enter_context(closing(device.allocate(size))) for name, size in sizes.items()}
        stream = undo.enter_context(closing(device.stream()))
        program = undo.enter_context(closing(TorchProgram(bench.model, source, target, device="cuda:0", **options)))
        addresses = {name: block.address for name, block in memory.items()}
        run = undo.enter_context(closing(program.bind(stream, addresses)))
        undo.callback(stream.wait)
        for _ in range(3):
            run.enqueue()
        stream.wait()
        graph = stream.capture(run.enqueue)
        if graph is not None:
            undo.enter_context(closing(graph))
            undo.callback(stream.wait)
        yield graph.launch if graph else run.enqueue, stream.wait, graph is not None


def engine(bench: Bench) -> None:
    for size in bench.sizes:
        source = layout_of(size)
        target = enlarged(source, bench.model.scale)
        with graph_without_copies(bench, source, {"precision": "fp16"}) as (launch, wait, _):
            alone = seconds_each(lambda number, launch=launch: launch(), wait, bench.seconds)
        copying = copies(bench, source, target)
        for count in SLOTS:
            with (
                attempt(bench, "engine", size=size, slots=count),
                closing(opened(bench.model, source, target, "cuda:0", "fp16")) as made,
            ):
                free = BACKEND.memory(EngineOptions(device="cuda:0"))
                slots = made.slots(count)
                each = through(made, slots, bench.seconds)
                hidden = 1 - (each - alone) / copying
                say("engine", size=size, slots=len(slots), fps=round(1 / each, 2), without_copies=round(1 / alone, 2),
                    copies_ms=round(copying * 1e3, 3), hidden=round(hidden, 3), free_bytes=free,
                    free_bytes_behind=BACKEND.memory(EngineOptions(device="cuda:0")))  # fmt: skip


def through(made: Engine, slots: Any, least: float) -> float:
    """Seconds a frame, every slot waited for only when it is its turn again."""
    rng = np.random.default_rng(0)
    for slot in slots:
        fill(slot, [rng.integers(16, 236, plane.shape).astype(plane.dtype) for plane in slot.input], 8)
    for slot in slots:
        made.submit(slot)

    def submit(number: int) -> None:
        slot = slots[number % len(slots)]
        made.wait(slot)
        made.submit(slot)

    def wait() -> None:
        for slot in slots:
            made.wait(slot)

    return seconds_each(submit, wait, least)


def copies(bench: Bench, source: FrameLayout, target: FrameLayout) -> float:
    """Seconds that a frame's copies take, one behind the other."""
    from vidsr.backends.cuda.torch_device import TorchDevice

    sizes = [sum(plane.nbytes for plane in side.allocate()) for side in (source, target)]
    device = TorchDevice(0)
    with closing(device), device.current(), ExitStack() as undo:
        hosts = [undo.enter_context(closing(device.pinned(size))) for size in sizes]
        blocks = [undo.enter_context(closing(device.allocate(size))) for size in sizes]
        stream = undo.enter_context(closing(device.stream()))

        def submit(number: int) -> None:
            stream.copy_in(blocks[0], hosts[0])
            stream.copy_out(hosts[1], blocks[1])

        return seconds_each(submit, stream.wait, bench.seconds)


def opened(model: Model, source: FrameLayout, target: FrameLayout, device: str, precision: Any) -> Engine:
    allow_tf32()
    return BACKEND.open(model, source, target, BACKEND.settle(EngineOptions(device=device, precision=precision)))


def allow_tf32() -> None:
    """As in a fresh process: engines in FP32 leave it switched off for all that come after them."""
    import torch

    torch.backends.cudnn.allow_tf32 = True


@contextmanager
def attempt(bench: Bench, step: str, **what: Any) -> Iterator[None]:
    """One measurement; where it fails, the next comes all the same."""
    try:
        yield
    except Exception as error:
        bench.wrong = True
        first = next(iter(str(error).splitlines()), "")
        say(step, **what, error=f"{type(error).__name__}: {first}")


STEPS = {step.__name__: step for step in (card, right, peak, bare, engine)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", default=",".join(STEPS))
    parser.add_argument("--sizes", default="1280x720,1920x1080", metavar="WIDTHxHEIGHT,...")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--model", default="span")
    choices = parser.parse_args()
    if lack := BACKEND.lack("cuda"):
        print(f"needs an NVIDIA card: {lack}", file=sys.stderr)
        return 1
    unknown = sorted(set(choices.steps.split(",")) - STEPS.keys())
    if unknown:
        parser.error(f"there is no step {unknown[0]}; there are {', '.join(STEPS)}")
    sizes = [tuple(int(part) for part in size.split("x"))[::-1] for size in choices.sizes.split(",")]
    try:
        bench = Bench(models.load(choices.model), sizes, choices.seconds)  # type: ignore[arg-type]
    except VidsrError as error:
        print(error, file=sys.stderr)
        return 1
    for name in choices.steps.split(","):
        with attempt(bench, name):
            STEPS[name](bench)
    return 1 if bench.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
