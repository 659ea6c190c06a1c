"""Steps 1 to 6: the card and the libraries that drive it, through vidsr's seam (`vidsr.backends.cuda.device`)."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from contextlib import ExitStack, closing
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from threading import Thread
from types import SimpleNamespace
from typing import Any

from benchmarks.gpu_check.step import Say, Skipped, devices, need, need_torch_on_a_card, opened, require, seconds

PACKAGES = (
    "vidsr", "av", "numpy", "onnx", "torch", "pycuda", "cuda-bindings", "tensorrt", "onnxruntime", "openvino",
)  # fmt: skip
QUERY = (
    "name,driver_version,memory.total,clocks.max.sm,clocks.max.memory,power.limit,pcie.link.gen.max,"
    "pcie.link.width.max"
)
LARGE, SMALL = 25_000_000, 6_000_000
"""Bytes: about a 4K and a 1080p frame in RGB."""


def env(say: Say, few: bool) -> None:
    """Versions and the card. Not ok where CUDA does not start."""
    from vidsr.doctor import nvidia

    say({"python": platform.python_version(), "platform": platform.platform()})
    say({"packages": {name: _version(name) for name in PACKAGES}})
    asked = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout
        cards = [dict(zip(QUERY.split(","), line.split(", "), strict=False)) for line in answer.splitlines()]
    except (OSError, subprocess.SubprocessError) as error:
        cards = [{"error": str(error)}]
    say({"nvidia_smi": cards, "doing": "starting CUDA"})
    found: dict[str, Any] = {}
    nvidia.look(found.update)
    say({"cuda": found["cuda"], "cards": found["cards"], "libraries": found["libraries"]})
    require(bool(found["cards"]), f"CUDA does not start: {found['reason']}")
    try:
        torch = need_torch_on_a_card()
    except Skipped as skipped:
        say({"torch": str(skipped)})
        return
    properties = torch.cuda.get_device_properties(0)
    say(
        {
            "torch": {
                "cuda": torch.version.cuda,
                "cudnn": torch.backends.cudnn.version(),
                "multiprocessors": properties.multi_processor_count,
                "capability": f"{properties.major}.{properties.minor}",
            }
        }
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def pycuda(say: Say, few: bool) -> None:
    """pycuda through the seam: a copy there and back, and the context that torch has."""
    need("pycuda", "numpy", "onnx")
    from vidsr.backends.cuda import pycuda_device

    if lack := pycuda_device.lack():
        raise Skipped(lack)
    with opened(lambda: pycuda_device.PycudaDevice(0)) as device, ExitStack() as undo:
        say({"card": device.name, "capability": device.capability, "driver": device.driver})
        say({"multiprocessors": device.multiprocessors, "total_bytes": device.total_bytes})
        given, made = (undo.enter_context(closing(device.pinned(SMALL))) for _ in range(2))
        memory = undo.enter_context(closing(device.allocate(SMALL)))
        stream = undo.enter_context(closing(device.stream()))
        _fill(given.array, 3)
        stream.copy_in(memory, given)
        stream.copy_out(made, memory)
        stream.wait()
        require(bool((given.array == made.array).all()), "what came back from the card is not what went there")
        ours = _context()
        try:
            torch = need_torch_on_a_card()
        except Skipped as skipped:
            say({"torch": str(skipped)})
            return
        tensor = torch.arange(256, dtype=torch.uint8, device="cuda:0")
        torch.cuda.synchronize()
        say({"context_is_torchs": (same := _context() == ours)})
        require(same, "pycuda and torch are in different contexts")
        seen = undo.enter_context(closing(device.pinned(256)))
        device.pycuda.memcpy_dtoh(seen.array, tensor.data_ptr())
        require(bool((seen.array == tensor.cpu().numpy()).all()), "pycuda reads something else than torch wrote")


def _context() -> int | None:
    """The context that is current in this thread, as the driver itself says."""
    library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    handle = ctypes.c_void_p()
    require(library.cuCtxGetCurrent(ctypes.byref(handle)) == 0, "cuCtxGetCurrent fails")
    return handle.value


def _fill(array: Any, seed: int) -> None:
    array[:] = (import_module("numpy").arange(array.size) * 2654435761 + seed * 40503) >> 13 & 255


def pinned(say: Say, few: bool) -> None:
    """Page-locked against pageable memory, GB/s; page-locked memory in another thread; write-combined."""
    for library, make in devices(say).items():
        with opened(make) as device, ExitStack() as undo:
            stream = undo.enter_context(closing(device.stream()))
            for size in (SMALL, LARGE):
                host = undo.enter_context(closing(device.pinned(size)))
                memory = undo.enter_context(closing(device.allocate(size)))
                figures = {
                    "in": _rate(stream, lambda: stream.copy_in(memory, host), size),  # noqa: B023 - used at once
                    "out": _rate(stream, lambda: stream.copy_out(host, memory), size),  # noqa: B023
                }
                figures |= _other_memory(library, device, stream, memory, size)
                say({f"{library}_{size // 1_000_000}MB_gb_per_s": figures})
            say({f"{library}_other_thread": _in_another_thread(device, host, memory)})


def _rate(stream: Any, copy: Any, size: int, count: int = 30) -> float:
    """GB/s"""
    copy()
    stream.wait()
    taken = seconds(lambda: [*(copy() for _ in range(count)), stream.wait()])
    return round(count * size / taken / 1e9, 2)


def _other_memory(library: str, device: Any, stream: Any, memory: Any, size: int) -> dict[str, float]:
    """Into the card from ordinary memory, and with pycuda from write-combined memory."""
    numpy = import_module("numpy")
    ordinary = numpy.ones(size, numpy.uint8)
    if library == "torch":
        tensor = import_module("torch").from_numpy(ordinary)
        return {"pageable_in": _rate(stream, lambda: memory.tensor.copy_(tensor), size)}
    cuda = device.pycuda
    combined = cuda.pagelocked_empty(size, numpy.uint8, mem_flags=cuda.host_alloc_flags.WRITECOMBINED)
    return {
        "pageable_in": _rate(stream, lambda: cuda.memcpy_htod(memory.address, ordinary), size),
        "write_combined_in": _rate(
            stream, lambda: cuda.memcpy_htod_async(memory.address, combined, stream.raw), size
        ),
    }


def _in_another_thread(device: Any, host: Any, memory: Any) -> str:
    """Page-locked memory of this thread, used by another one."""
    said: list[str] = []

    def work() -> None:
        try:
            with device.current(), closing(device.stream()) as stream:
                _fill(host.array, 5)
                expected = host.array.copy()
                stream.copy_in(memory, host)
                stream.wait()
                host.array[:] = 0
                stream.copy_out(host, memory)
                stream.wait()
                said.append("ok" if (host.array == expected).all() else "other bytes")
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")

    thread = Thread(target=work)
    thread.start()
    thread.join()
    require(said == ["ok"], f"page-locked memory in another thread: {said}")
    return said[0]


def streams(say: Say, few: bool) -> None:
    """Do our streams run beside the default one, and copies beside kernels; do events come in order?"""
    torch = need_torch_on_a_card()
    cycles = _cycles(torch, 0.05)
    for library, make in devices(say).items():
        with opened(make) as device, ExitStack() as undo:
            stream, copies = (undo.enter_context(closing(device.stream())) for _ in range(2))
            host = undo.enter_context(closing(device.pinned(LARGE)))
            memory = undo.enter_context(closing(device.allocate(LARGE)))
            event = undo.enter_context(closing(device.event()))
            unused = undo.enter_context(closing(device.event()))
            figures: dict[str, Any] = {"unmarked_event_ms": round(1000 * seconds(unused.wait), 3)}

            # While the default stream is busy, a copy on ours must come through.
            torch.cuda._sleep(cycles)
            copies.copy_in(memory, host)
            event.record(copies)
            figures["beside_default_stream_ms"] = round(1000 * seconds(event.wait), 2)
            torch.cuda.synchronize()

            def kernel() -> None:
                with torch.cuda.stream(torch.cuda.ExternalStream(stream.handle)):  # noqa: B023 - used at once
                    torch.cuda._sleep(cycles)

            def copy() -> None:
                for _ in range(60):
                    copies.copy_in(memory, host)  # noqa: B023

            alone = [seconds(lambda: (kernel(), stream.wait())), seconds(lambda: (copy(), copies.wait()))]  # noqa: B023
            both = seconds(lambda: (kernel(), copy(), stream.wait(), copies.wait()))  # noqa: B023
            figures |= {
                "kernel_ms": round(1000 * alone[0], 2),
                "copies_ms": round(1000 * alone[1], 2),
                "both_ms": round(1000 * both, 2),
                "overlap": round((sum(alone) - both) / min(alone), 2),
            }
            kernel()
            event.record(stream)
            figures["event_after_kernel_ms"] = round(1000 * seconds(event.wait), 2)
            say({library: figures})
            require(figures["beside_default_stream_ms"] < 25, f"{library}: our stream waits for the default stream")
            require(figures["event_after_kernel_ms"] > 25, f"{library}: the event came before the kernel's end")
            require(figures["overlap"] > 0.5, f"{library}: copies do not run beside kernels")
            if library == "pycuda":
                say({"pycuda_blocking_stream_ms": _blocking(torch, device, memory, host, cycles)})


def _cycles(torch: Any, wanted_seconds: float) -> int:
    """For torch's sleeping kernel."""
    count = 20_000_000
    for _ in range(2):
        taken = seconds(lambda: (torch.cuda._sleep(count), torch.cuda.synchronize()))
    return int(count * wanted_seconds / taken)


def _blocking(torch: Any, device: Any, memory: Any, host: Any, cycles: int) -> float:
    """The same as beside_default_stream_ms with a stream of flags 0: it should wait for the default stream."""
    stream = device.pycuda.Stream(0)
    torch.cuda._sleep(cycles)
    device.pycuda.memcpy_htod_async(memory.address, host.array, stream)
    return round(1000 * seconds(stream.synchronize), 2)


def threads(say: Say, few: bool) -> None:
    """Four threads, 250 frames each: contexts pushed and popped, every byte right, no memory lost."""
    count = 5 if few else 250
    for library, make in devices(say).items():
        with opened(make) as device:
            _worker(device, 0, 1, [])  # what libraries allocate once
            before = device.free_bytes()
            faults: list[str] = []
            workers = [Thread(target=_worker, args=(device, index, count, faults)) for index in range(4)]
            taken = seconds(lambda: [*(one.start() for one in workers), *(one.join() for one in workers)])  # noqa: B023
            lost = before - device.free_bytes()
            say({library: {"frames_per_second": round(4 * count / taken), "lost_bytes": lost}})
            require(not faults, f"{library}: {faults[:1]}")
            require(lost <= 2**21, f"{library}: {lost} bytes of the card's memory are gone")


def _worker(device: Any, index: int, count: int, faults: list[str]) -> None:
    try:
        with device.current(), ExitStack() as undo:
            given, made = (undo.enter_context(closing(device.pinned(1_000_000))) for _ in range(2))
            memory = undo.enter_context(closing(device.allocate(1_000_000)))
            stream = undo.enter_context(closing(device.stream()))
            event = undo.enter_context(closing(device.event()))
            for frame in range(count):
                given.array[:] = (index * 61 + frame * 7) % 256
                with device.current():
                    stream.copy_in(memory, given)
                    stream.copy_out(made, memory)
                    event.record(stream)
                    event.wait()
                if not (made.array == given.array).all():
                    faults.append(f"frame {frame} of thread {index} came back different")
    except Exception as error:
        faults.append(f"{type(error).__name__}: {error}")


def graph(say: Say, few: bool) -> None:
    """Copy in, a kernel of torch's, copy out: captured and replayed, the same as enqueued one by one."""
    for library, make in devices(say).items():
        with opened(make) as device, ExitStack() as undo:
            given, made = (undo.enter_context(closing(device.pinned(SMALL))) for _ in range(2))
            memory = undo.enter_context(closing(device.allocate(SMALL)))
            stream = undo.enter_context(closing(device.stream()))
            kernel, what = _kernel(memory, stream)

            def work() -> None:
                stream.copy_in(memory, given)  # noqa: B023 - used at once
                kernel()  # noqa: B023
                stream.copy_out(made, memory)  # noqa: B023

            _fill(given.array, 1)
            work()
            stream.wait()
            captured = stream.capture(work)
            say({library: {"captured": captured is not None, "kernel": what}})
            if captured is None and library == "pycuda":
                need("cuda-bindings")
            require(captured is not None, f"{library}: the work was not captured")
            undo.enter_context(closing(captured))
            for seed in range(10):
                _fill(given.array, seed)
                made.array[:] = 0
                captured.launch()
                stream.wait()
                expected = given.array + 1 if what else given.array  # uint8 wraps round, on the card as well
                require(bool((made.array == expected).all()), f"{library}: replay {seed} differs")
            times = {
                name: round(1e6 * seconds(lambda: [*(once() for _ in range(100)), stream.wait()]) / 100, 1)  # noqa: B023
                for name, once in (("eager", work), ("replay", captured.launch))
            }
            say({library: {"captured": True, "kernel": what, "microseconds": times}})


def _kernel(memory: Any, stream: Any) -> tuple[Any, bool]:
    """Adds one to every byte, in place and without an allocation; nothing where torch has no card."""
    try:
        torch = need_torch_on_a_card()
    except Skipped:
        return (lambda: None), False

    lying = SimpleNamespace()
    lying.__cuda_array_interface__ = {
        "shape": (memory.size,), "typestr": "|u1", "data": (memory.address, False), "version": 2,
    }  # fmt: skip
    tensor = torch.as_tensor(lying, device="cuda:0")
    place = torch.cuda.ExternalStream(stream.handle)

    def run() -> None:
        with torch.cuda.stream(place):
            tensor.add_(1)

    return run, True
