"""Steps 7, 8, 9, 11 and 12: frames through the engine on the card, and from the card's decoder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.step import Failed, Say, Skipped, devices, need, need_torch_on_a_card, require, seconds

CARD = "cuda:0"
CLIP = Path(__file__).resolve().parents[2] / "samples" / "clip.mp4"
SMALLEST_PSNR = 55.0
LARGEST_SHARE = 0.01
"""FP16 against FP32 on pictures like photographs: dB, and the share of 8-bit samples more than one code value off."""


def subject(height: int, width: int, bits: int = 8) -> tuple[Any, Any, Any, Any]:
    """The default model, source and target layout, colours."""
    from vidsr import models
    from vidsr.color import BT709, ColorTags, conversion
    from vidsr.frame import FrameLayout

    model = models.load(models.DEFAULT)
    source = FrameLayout(family="yuv", bits=bits, height=height, width=width, chroma=(2, 2))
    target = replace(source, height=height * model.scale, width=width * model.scale)
    tags = ColorTags(matrix=BT709, full_range=False)
    return model, source, target, conversion(tags, tags, source_bits=bits, target_bits=bits)


def pictures(layout: Any, count: int) -> list[list[Any]]:
    """Something like photographs (1/f noise with edges), each another: planes in the limited range."""
    numpy = import_module("numpy")
    random, made = numpy.random.default_rng(11), []
    base = []
    for height, width in layout.shapes:
        frequency = numpy.hypot(numpy.fft.fftfreq(height)[:, None], numpy.fft.fftfreq(width))
        frequency[0, 0] = 1
        noise = numpy.fft.ifft2(numpy.fft.fft2(random.standard_normal((height, width))) / frequency**1.2).real
        noise[height // 3 : height // 2] += noise.std()
        noise[:, width // 4 : width // 3] -= noise.std()
        share = (noise - noise.min()) / numpy.ptp(noise)
        base.append(numpy.rint((16 + 208 * share) * 2 ** (layout.bits - 8)).astype(layout.dtype))
    for index in range(count):
        made.append([numpy.roll(plane, (3 * index, 5 * index), (0, 1)) for plane in base])
    return made


def fill(slot: Any, planes: Sequence[Any], colours: Any) -> None:
    slot.convert(colours)
    for place, plane in zip(slot.input, planes, strict=True):
        place[:] = plane


def pipelined(
    engine: Any, slots: Sequence[Any], frames: Sequence[Any], colours: Any, take: Callable[[int, Any], None]
) -> None:
    """All frames through the slots in turn; `take` gets number and slot of each result, in order."""
    waiting: deque[tuple[int, Any]] = deque()
    for index, planes in enumerate(frames):
        slot = slots[index % len(slots)]
        if len(waiting) == len(slots):
            engine.wait(waiting[0][1])
            take(*waiting.popleft())
        fill(slot, planes, colours)
        engine.submit(slot)
        waiting.append((index, slot))
    for number, slot in waiting:
        engine.wait(slot)
        take(number, slot)


def frames_per_second(engine: Any, slots: Sequence[Any], count: int) -> float:
    """With whatever lies in the slots: nothing is filled or read, so this is copies and the model."""

    def run() -> None:
        waiting: deque[Any] = deque()
        for index in range(count):
            if len(waiting) == len(slots):
                engine.wait(waiting.popleft())
            engine.submit(slots[index % len(slots)])
            waiting.append(slots[index % len(slots)])
        for slot in waiting:
            engine.wait(slot)

    run()
    return round(count / seconds(run), 1)


def slots(say: Say, few: bool) -> None:
    """The engine with torch's program: order of frames, bytes as in a serial run, fps with 1 to 4 slots."""
    need_torch_on_a_card()
    height, width = (96, 128) if few else (360, 640)
    model, source, target, colours = subject(height, width)
    given = pictures(source, 3 if few else 24)
    from vidsr.backends.cuda.slots import CudaEngine
    from vidsr.backends.torch_program import TorchProgram

    for library, make in devices(say).items():
        if library == "pycuda":
            # A capture that torch does not know of breaks its allocator: here frames are enqueued one by one.
            stream = import_module("vidsr.backends.cuda.pycuda_device").PycudaStream
            stream.capture = lambda self, work: None
        say({"doing": f"making the engine with {library}"})
        device = make()
        with device.current():
            program = TorchProgram(model, source, target, device=CARD, precision="fp16")
        with closing(CudaEngine(device, program, source, target)) as engine:
            say({f"{library}_engine": engine.description, "doing": f"running frames with {library}"})
            (one,) = engine.slots(1)
            serial: dict[int, bytes] = {}
            for index, planes in enumerate(given):
                fill(one, planes, colours)
                engine.submit(one)
                engine.wait(one)
                serial[index] = _bytes(one)
            require(len(set(serial.values())) == len(given), "different frames gave the same result")
            rates = {}
            for count in (2,) if few else (1, 2, 3, 4):
                several = engine.slots(count)
                require(len(several) == count, f"{library}: the card has room for {len(several)} slots only")
                order: list[int] = []

                def take(number: int, slot: Any) -> None:
                    order.append(number)  # noqa: B023 - used at once
                    require(_bytes(slot) == serial[number], f"frame {number} differs with {count} slots")  # noqa: B023

                pipelined(engine, several, given, colours, take)
                require(order == sorted(order), f"{library}: frames came out of order")
                if not few:
                    rates[count] = frames_per_second(engine, several, 200)
            say({f"{library}_frames_per_second": rates, "frame": f"{width}x{height}"})
        if not few:
            _large(say, library, make)
    if not few:
        _measured(say)


def _measured(say: Say) -> None:
    """`benchmarks/torch_cuda.py`, briefly: right results, the card's peak, the share of the copies that is hidden."""
    try:
        need("av")
    except Skipped as skipped:
        say({"torch_cuda": f"skipped: {skipped}"})
        return
    say({"doing": "running torch_cuda.py"})
    script = Path(__file__).resolve().parents[1] / "torch_cuda.py"
    done = subprocess.run(
        [sys.executable, str(script), "--steps", "right,peak,engine", "--seconds", "1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    say({"torch_cuda": found})
    fault = next((line for line in found if "error" in line or line.get("right") is False), done.stderr[-300:])
    require(done.returncode == 0, f"torch_cuda.py: {fault}")


def _large(say: Say, library: str, make: Callable[[], Any]) -> None:
    """Frames a second of 720p and 1080p, with four slots or as many as the card has room for."""
    from vidsr.backends.cuda.slots import CudaEngine
    from vidsr.backends.torch_program import TorchProgram
    from vidsr.errors import DeviceMemoryError

    for height, width in ((720, 1280), (1080, 1920)):
        model, source, target, colours = subject(height, width)
        device = make()
        with device.current():
            program = TorchProgram(model, source, target, device=CARD, precision="fp16")
        try:
            with closing(CudaEngine(device, program, source, target)) as engine:
                several = engine.slots(4)
                for slot, planes in zip(several, pictures(source, len(several)), strict=True):
                    fill(slot, planes, colours)
                rate = frames_per_second(engine, several, 40)
        except DeviceMemoryError as error:
            say({f"{library}_{height}p": str(error)})
            continue
        say({f"{library}_{height}p": {"slots": len(several), "frames_per_second": rate}})


def _bytes(slot: Any) -> bytes:
    return b"".join(plane.tobytes() for plane in slot.output)


def fp16(say: Say, few: bool) -> None:
    """The default model in FP16 against FP32, both by torch: PSNR, NaN, the largest activation of each layer."""
    torch = need_torch_on_a_card()
    need("numpy", "onnx")
    numpy = import_module("numpy")
    from vidsr import models, networks

    model = models.load(models.DEFAULT)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    full, half = (
        networks.load(model.metadata["network"]).build(model.state(), model.metadata).to(CARD) for _ in range(2)
    )
    half.halve()
    largest: dict[str, float] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            peak = float(output.detach().float().abs().max())
            largest[name] = max(largest.get(name, 0.0), peak if peak == peak else float("inf"))

        return hook

    for name, layer in half.named_modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(watch(name))
    from vidsr.frame import FrameLayout

    height, width = (24, 32) if few else (360, 640)
    layout = FrameLayout(family="rgb", bits=8, height=height, width=width)
    squares, far, samples, bad = 0.0, 0, 0, 0
    with torch.inference_mode():
        for planes in [*pictures(layout, 1 if few else 4), *_clip(4)]:
            image = torch.from_numpy(numpy.stack(planes)).to(CARD).float()[None] / 255
            exact, fast = full(image), half(image).float()
            bad += int((~torch.isfinite(fast)).sum())
            exact, fast = exact.clamp(0, 1), fast.clamp(0, 1)
            squares += float(((exact - fast) ** 2).sum(dtype=torch.float64))
            far += int((((255 * exact).round() - (255 * fast).round()).abs() > 1).sum())
            samples += exact.numel()
    psnr = float(10 * numpy.log10(samples / max(squares, 1e-30)))
    layers = {name: round(peak, 1) if peak != float("inf") else None for name, peak in largest.items()}
    top = max(largest.values())
    say({"psnr_db": round(psnr, 2), "share_off_by_more_than_1": far / samples, "not_finite": bad})
    say({"largest_activation": layers, "headroom": round(65504 / top, 1)})
    require(bad == 0, f"{bad} samples are NaN or infinite")
    require(psnr >= SMALLEST_PSNR, f"{psnr:.1f} dB is less than {SMALLEST_PSNR:g}")
    require(far / samples <= LARGEST_SHARE, f"{far / samples:.2%} of the samples are off by more than 1")


def _clip(count: int) -> list[Any]:
    """Frames of the sample clip, uint8 [3, H, W]; none without PyAV."""
    try:
        need("av")
    except Skipped:
        return []
    with import_module("av").open(str(CLIP)) as container:
        frames = [frame.to_ndarray(format="rgb24").transpose(2, 0, 1) for frame in container.decode(video=0)]
    return frames[:: -(-len(frames) // count)]


def rounding(say: Say, few: bool) -> None:
    """From planes to planes around a model that only repeats pixels: the card against the processor, and grey as it
    was. 8 and 10 bits, limited and full range."""
    torch = need_torch_on_a_card()
    need("numpy", "onnx")
    numpy = import_module("numpy")
    from vidsr.backends.torch_program import PlaneModule
    from vidsr.color import BT709, ColorTags, conversion

    for bits, full in ((8, False), (8, True), (10, False), (10, True)):
        _, source, target, _ = subject(64, 1024, bits)
        tags = ColorTags(matrix=BT709, full_range=full)
        colours = conversion(tags, tags, source_bits=bits, target_bits=bits)
        ramp = numpy.broadcast_to((numpy.arange(1024) * 2**bits) >> 10, (64, 1024)).astype(source.dtype)
        grey = [ramp, *(numpy.full(shape, 2 ** (bits - 1), source.dtype) for shape in source.shapes[1:])]
        wild = [
            numpy.random.default_rng(3).integers(0, 2**bits, shape).astype(source.dtype) for shape in source.shapes
        ]
        results = {}
        for name, planes in (("grey", grey), ("wild", wild)):
            module = PlaneModule(torch.nn.Upsample(scale_factor=2, mode="nearest"), source, target)
            results[name] = [_through(torch, module, planes, colours, target, where) for where in ("cpu", CARD)]
        off = [_differences(numpy, *results[name]) for name in ("grey", "wild")]
        luma, *chroma = results["grey"][1]
        returned = bool((luma[::2, ::2] == ramp).all() and all((plane == 2 ** (bits - 1)).all() for plane in chroma))
        label = f"{bits}_bit_{'full' if full else 'limited'}"
        say({label: {"grey_as_it_was": returned, "largest": off[1][0], "share_different": off[1][1]}})
        require(returned, f"{label}: a grey ramp does not come back as it was")
        require(off[0][0] == 0, f"{label}: the card rounds a grey ramp in another way than the processor")
        # Another order of additions moves what lies on the edge between two code values, and nothing else.
        require(off[1][0] <= 1 and off[1][1] < 1e-3, f"{label}: the card rounds in another way than the processor")


def _through(torch: Any, module: Any, planes: Any, colours: Any, target: Any, where: str) -> list[Any]:
    numpy = import_module("numpy")
    kinds = {"uint8": torch.uint8, "uint16": torch.uint16}
    made = [torch.zeros(shape, dtype=kinds[target.dtype.name], device=where) for shape in target.shapes]
    matrices = [torch.from_numpy(matrix).to(where) for matrix in (colours.rgb_from_codes, colours.codes_from_rgb)]
    with torch.inference_mode():
        given = [torch.from_numpy(numpy.ascontiguousarray(plane)).to(where) for plane in planes]
        module.to(where)(given, *matrices, made)
    return [plane.cpu().numpy() for plane in made]


def _differences(numpy: Any, first: Sequence[Any], second: Sequence[Any]) -> tuple[int, float]:
    """The largest, and the share of samples that differ."""
    off = numpy.concatenate(
        [numpy.abs(one.astype(numpy.int32) - two).ravel() for one, two in zip(first, second, strict=True)]
    )
    return int(off.max()), float((off > 0).mean())


def nvdec(say: Say, few: bool) -> None:
    """The card's decoder against the processor's, every frame, bit for bit; and its frames through DLPack."""
    need("av", "numpy", "onnx")
    from vidsr.media import nvdec
    from vidsr.media.demux import Decoder
    from vidsr.media.hardware import HardwareError
    from vidsr.media.interleave import unpack
    from vidsr.media.pixel import planes_of
    from vidsr.media.source import probe

    numpy = import_module("numpy")
    with tempfile.TemporaryDirectory(prefix="vidsr-") as folder:
        files = {"h264": CLIP} | _encoded(Path(folder))
        for name, path in files.items():
            say({"doing": f"decoding {name}"})
            info = probe(path)
            try:
                hardware = nvdec.prove(info, 0)
            except HardwareError as error:
                say({name: {"refused": str(error)}})
                if name == "h264":
                    raise Failed(f"the card does not decode H.264: {error}") from error
                continue
            planes = info.video.layout.allocate()
            left: list[str] = []
            pair = [
                Decoder(path, info.video.index, threads=False, hardware=kind, on_leaving=left.append)
                for kind in (hardware, None)
            ]
            count = same = 0
            for ours, theirs in zip(*(decoder.frames() for decoder in pair), strict=True):
                unpack(planes, ours.picture, info.video.layout.bits)
                count += 1
                same += all(numpy.array_equal(*both) for both in zip(planes, planes_of(theirs.picture), strict=True))
            for decoder in pair:
                decoder.close()
            say({name: {"frames": count, "same": same, "format": hardware.shape and hardware.shape[2], "left": left}})
            require(count > 0 and same == count and not left, f"{name}: {same} of {count} frames are the same {left}")
    _dlpack(say)


def _encoded(folder: Path) -> dict[str, Path]:
    """Short clips of other kinds, made on the processor."""
    av = import_module("av")
    numpy = import_module("numpy")
    as_scheduled = import_module("vidsr.media.schedule").as_scheduled
    made = {}
    for name, encoder, pix_fmt in (
        ("hevc_10bit", "libx265", "yuv420p10le"), ("av1", "libsvtav1", "yuv420p"), ("vp9", "libvpx-vp9", "yuv420p"),
    ):  # fmt: skip
        path = folder / f"{name}.mkv"
        rows, columns = numpy.mgrid[0:240, 0:320]
        with av.open(str(path), "w") as output, as_scheduled():
            stream = output.add_stream(encoder, rate=25)
            stream.width, stream.height, stream.pix_fmt = 320, 240, pix_fmt
            for index in range(20):
                image = numpy.stack([columns + 4 * index, rows + 2 * index, rows + columns], 2) % 256
                frame = av.VideoFrame.from_ndarray(image.astype(numpy.uint8), format="rgb24")
                output.mux(stream.encode(frame.reformat(format=pix_fmt)))
            output.mux(stream.encode(None))
        made[name] = path
    return made


def _dlpack(say: Say) -> None:
    """Frames that stay on the card: their first plane, as torch sees it, against the processor's."""
    try:
        torch = need_torch_on_a_card()
    except Skipped as skipped:
        say({"dlpack": f"skipped: {skipped}"})
        return
    say({"doing": "looking at frames on the card"})
    av = import_module("av")
    hwaccel = import_module("av.codec.hwaccel").HWAccel
    numpy = import_module("numpy")
    torch.zeros(1, device=CARD)  # the context that FFmpeg is to share
    options = {"primary_ctx": "1"}
    path = str(CLIP)
    accel = hwaccel("cuda", device=0, allow_software_fallback=False, is_hw_owned=True, options=options)
    same = count = 0
    with av.open(path, hwaccel=accel) as ours, av.open(path) as theirs:
        for mine, other in zip(ours.decode(video=0), theirs.decode(video=0), strict=True):
            torch.cuda.synchronize()
            # As a capsule: PyAV does not wait for the stream that torch would name.
            luma = torch.utils.dlpack.from_dlpack(mine.planes[0].__dlpack__()).cpu().numpy()
            plane = other.planes[0]
            expected = numpy.frombuffer(plane, numpy.uint8).reshape(plane.height, -1)[:, : plane.width]
            count += 1
            same += numpy.array_equal(luma.reshape(plane.height, -1)[:, : plane.width], expected)
    say({"dlpack": {"frames": count, "same": int(same)}})
    require(count > 0 and same == count, f"DLPack: {same} of {count} frames are the same")


def sanitizer(say: Say, few: bool) -> None:
    """NVIDIA's memory checker over a small step 7."""
    need_torch_on_a_card()
    devices(say)
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not os.path.exists(program):
        raise Skipped("compute-sanitizer is not installed (it comes with the CUDA toolkit)")
    step = [sys.executable, "-m", "benchmarks.gpu_check", "--step", "7", "--few"]
    # Calls that fail are not counted: torch tries some on purpose, and ours raise.
    done = subprocess.run(
        [program, "--tool", "memcheck", "--report-api-errors", "no", *step],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    output = done.stdout + done.stderr
    summary = re.findall(r"ERROR SUMMARY: (\d+) error", output)
    say({"errors": int(summary[-1]) if summary else None, "step_7": _last_verdict(done.stdout)})
    if not summary:
        last = (output.strip().splitlines() or ["no output"])[-1]
        raise Skipped(f"compute-sanitizer cannot be used here: {last[:300]}")
    first = next((line.strip("= ") for line in output.splitlines() if "Invalid" in line or "Program hit" in line), "")
    require(summary[-1] == "0", f"{summary[-1]} errors, the first: {first[:300]}")
    require('"ok": true' in done.stdout, f"step 7 failed under it: {_last_verdict(done.stdout)}")


def _last_verdict(output: str) -> str | None:
    return next((line for line in reversed(output.splitlines()) if '"ok"' in line), None)
