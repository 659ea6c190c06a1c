"""What this machine can do at most: what the stages are held against."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from vidsr.backends.cuda.cards import card_numbers
from vidsr.benchmark.peak import matrix_gflops
from vidsr.benchmark.result import Limits
from vidsr.job import EnginePlan, available_memory
from vidsr.machine import cores, processor

if TYPE_CHECKING:
    from vidsr.backends.cuda.device import Device

__all__ = ["card_of", "copy_seconds", "higher", "limits", "memory_gbps"]

_COPIED_BYTES = 64 * 2**20
_RUNS = 5
_DEVICES = {
    "torch": ("vidsr.backends.cuda.torch_device", "TorchDevice"),
    "tensorrt": ("vidsr.backends.cuda.pycuda_device", "PycudaDevice"),
}
"""What drives a card, by the backend that runs there."""


def limits(plan: EnginePlan, load: float | None = None) -> Limits:
    """Measures for some seconds the machine that runs this engine. load: see `Limits`."""
    here = processor()
    name, bus = plan.options.device, None
    with card_of(plan) as card:
        if card is not None:
            name, bus = card.name, 2e-9 * _COPIED_BYTES / sum(copy_seconds(card, _COPIED_BYTES))
    cards = len(_numbers(plan))
    peaks = matrix_gflops(plan.backend, plan.options)
    return Limits(
        processor=here["name"] or here["architecture"],
        cores=cores(),
        device=name if cards == 1 else f"{cards} x {name}",
        matrix_gflops={precision: cards * gflops for precision, gflops in peaks.items()},
        memory_gbps=memory_gbps(cores()),
        bus_gbps=bus,
        load=load,
    )


def higher(found: Limits, plan: EnginePlan) -> Limits:
    """What the stages are held against measured once more: only the highest of several times is a limit."""
    precision = plan.options.precision
    again = matrix_gflops(plan.backend, plan.options, [precision]).get(precision, 0.0) * len(_numbers(plan))
    peaks = found.matrix_gflops
    return replace(
        found,
        matrix_gflops=peaks | {precision: max(again, peaks[precision])} if precision in peaks else peaks,
        memory_gbps=max(found.memory_gbps, memory_gbps(cores())),
    )


def memory_gbps(threads: int) -> float:
    """Thousand million bytes a second, read and written, by `threads` copies at once of what no cache holds."""
    size = max(_COPIED_BYTES // 8, min(_COPIED_BYTES, available_memory() // (8 * threads)))
    pairs = [(np.ones(size, np.uint8), np.ones(size, np.uint8)) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        best = _best_seconds(lambda: list(pool.map(lambda pair: np.copyto(*pair), pairs)))
    return 2e-9 * size * threads / best


@contextmanager
def card_of(plan: EnginePlan) -> Iterator[Device | None]:
    """The first card that the engine runs on, current in this thread; None where it runs on none that can be asked."""
    if not plan.options.device.startswith("cuda") or plan.backend.name not in _DEVICES:
        yield None
        return
    module, kind = _DEVICES[plan.backend.name]
    with closing(getattr(import_module(module), kind)(_numbers(plan)[0])) as card, card.current():
        yield card


def _numbers(plan: EnginePlan) -> tuple[int, ...]:
    """Of the cards that it runs on; (0,) for a processor."""
    return card_numbers(plan.options.device) if plan.options.device.startswith("cuda") else (0,)


def copy_seconds(card: Device, size: int) -> tuple[float, float]:
    """(to the card, back) of `size` bytes of page-locked memory."""
    with (
        closing(card.pinned(size)) as pinned,
        closing(card.allocate(size)) as memory,
        closing(card.stream()) as stream,
    ):

        def both(copy: Callable[[], None]) -> float:
            def run() -> None:
                copy()
                stream.wait()

            return _best_seconds(run)

        return both(lambda: stream.copy_in(memory, pinned)), both(lambda: stream.copy_out(pinned, memory))


def _best_seconds(run: Callable[[], object]) -> float:
    times = []
    for _ in range(_RUNS + 1):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times[1:])
