"""What a progress monitor hears of a build."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.cuda.fake_tensorrt.bindings import IProgressMonitor, called_back
from tests.cuda.fake_tensorrt.world import Build


def play(monitor: IProgressMonitor | None, kernels: list[str], known: set[str], build: Build) -> bool:
    """Goes through the phases of a build and times what is not `known` yet; False when the monitor has had enough.

    Phases are nested, one ends before its announced number of steps, and a name comes again once it was finished.
    """
    step = _steps(monitor)
    timed = [kernel for kernel in kernels if kernel not in known]
    with _phase(monitor, "Building Engine", None, 3):
        with _phase(monitor, "Optimizing Graph", "Building Engine", 5):
            if not (step("Optimizing Graph", 0) and step("Optimizing Graph", 1)):
                return False
        if not step("Building Engine", 0):
            return False
        for part in filter(None, (timed[0::2], timed[1::2])):
            with _phase(monitor, "Timing Kernels", "Building Engine", len(part)):
                for index, kernel in enumerate(part):
                    build.timed += 1
                    known.add(kernel)
                    if not step("Timing Kernels", index):
                        return False
        return step("Building Engine", 1) and step("Building Engine", 2)


def _steps(monitor: IProgressMonitor | None) -> Callable[[str, int], bool]:
    if monitor is None:
        return lambda _phase_name, _step: True
    # What the bindings make of a method that raises, or returns nothing, is False.
    return lambda phase_name, step: bool(called_back(monitor.step_complete, phase_name, step))


@contextmanager
def _phase(monitor: IProgressMonitor | None, name: str, parent: str | None, steps: int) -> Iterator[None]:
    if monitor is not None:
        called_back(monitor.phase_start, name, parent, steps)
    try:
        yield
    finally:
        if monitor is not None:
            called_back(monitor.phase_finish, name)
