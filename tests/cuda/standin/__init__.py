"""Loads `driver.c` in place of the CUDA driver, so that pycuda and cuda-bindings run here as they are."""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

__all__ = ["Standin", "load", "real_driver", "why_not"]

HERE = Path(__file__).parent
SOURCE = HERE / "driver.c"
LIVE = (
    "device_blocks", "pinned_blocks", "streams", "events", "graphs", "graph_execs", "retains", "pushed", "queued",
)  # fmt: skip
FAULTS = ("context_errors", "unpinned_copies", "freed_in_use", "bad_frees", "abandoned", "capture_errors")
HostFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _extension() -> Path | None:
    """pycuda's compiled module, found without loading it."""
    package = find_spec("pycuda")
    for folder in (package and package.submodule_search_locations) or []:
        for suffix in EXTENSION_SUFFIXES:
            if (path := Path(folder) / f"_driver{suffix}").is_file():
                return path
    return None


def why_not() -> str | None:
    """Why the stand-in cannot be used here, or None."""
    if sys.platform != "linux":
        return "the stand-in for the CUDA driver is for Linux"
    if shutil.which("cc") is None or shutil.which("nm") is None:
        return "the stand-in for the CUDA driver needs a C compiler (cc, nm)"
    if _extension() is None:
        return "pycuda is not installed"
    return "an NVIDIA driver is here, which the stand-in must not replace" if real_driver() else None


def real_driver() -> bool:
    """Whether there is an NVIDIA driver in this process, or for it."""
    try:
        return not hasattr(ctypes.CDLL("libcuda.so.1"), "standin_reset")
    except OSError:
        return False


def _symbols(path: Path, *options: str) -> set[str]:
    listing = subprocess.run(["nm", "-D", *options, str(path)], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1].partition("@")[0] for line in listing.splitlines()}


def _compile(target: Path, *sources: Path) -> None:
    command = ["cc", "-shared", "-fPIC", "-O1", "-w", "-pthread", "-Wl,-soname,libcuda.so.1", "-o", str(target)]
    subprocess.run([*command, *map(str, sources), "-ldl"], check=True)


def build() -> Path:
    """libcuda.so.1, compiled once for every state of the source and build of pycuda.

    What pycuda wants from a driver and `driver.c` does not have answers CUDA_ERROR_NOT_SUPPORTED (801).
    """
    extension = _extension()
    assert extension is not None
    wanted = {name for name in _symbols(extension, "--undefined-only") if name.startswith("cu")}
    source = b"".join(path.read_bytes() for path in (SOURCE, *sorted(HERE.glob("*.h"))))
    key = hashlib.sha256(source + "\n".join(sorted(wanted)).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"vidsr-standin-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise RuntimeError(f"{folder} belongs to somebody else")
    library = folder / key / "libcuda.so.1"
    if not library.is_file():
        library.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as name:
            first, rest, whole = (Path(name) / part for part in ("first.so", "rest.c", "libcuda.so.1"))
            _compile(first, SOURCE)
            missing = sorted(wanted - _symbols(first, "--defined-only"))
            rest.write_text("".join(f"int {symbol}(void) {{ return 801; }}\n" for symbol in missing))
            _compile(whole, SOURCE, rest)
            whole.replace(library)
    return library


class Standin:
    """The driver as tests see it. It stays loaded for the rest of the process; `reset` makes it like new.

    raised: what functions given to `call` raised.
    """

    def __init__(self) -> None:
        self.path = build()
        self.library = ctypes.CDLL(str(self.path), ctypes.RTLD_GLOBAL)
        self.library.standin_calls.restype = ctypes.c_long
        self.raised: list[BaseException] = []
        self.allowed: set[str] = set()
        self._functions: dict[int, Callable[[], object]] = {}
        self._numbers = itertools.count()
        self._trampoline = HostFunction(self._run)

    def _run(self, index: int | None) -> None:
        try:
            self._functions[index or 0]()
        except BaseException as error:
            self.raised.append(error)

    def call(self, stream: int, function: Callable[[], object], uses: Sequence[tuple[int, int]] = ()) -> int:
        """Enqueues a Python function as a kernel would be, also into a capture. Returns CUDA's code.

        uses: (address, bytes) of the device memory it works on, 16 at most: that must be there when it runs.
        """
        number = next(self._numbers)  # also where several threads call at once
        self._functions[number] = function
        starts = (ctypes.c_void_p * len(uses))(*(start for start, _ in uses))
        sizes = (ctypes.c_size_t * len(uses))(*(size for _, size in uses))
        argument = ctypes.c_void_p(number)
        return int(
            self.library.standin_call(ctypes.c_void_p(stream), self._trampoline, argument, starts, sizes, len(uses))
        )

    def live(self) -> dict[str, int]:
        """What is there and not given back yet; queued: operations that have not run."""
        values = (ctypes.c_long * len(LIVE))()
        self.library.standin_live(values)
        return dict(zip(LIVE, values, strict=True))

    def faults(self) -> dict[str, int]:
        """What was done wrong since the last reset.

        context_errors: calls without a current context. unpinned_copies: asynchronous copies of ordinary memory.
        freed_in_use: memory freed under queued work, which is dropped. bad_frees: of what was not there.
        abandoned: objects that went with their context. capture_errors: captures disturbed by a call.
        """
        values = (ctypes.c_long * len(FAULTS))()
        self.library.standin_faults(values)
        return dict(zip(FAULTS, values, strict=True))

    def allow(self, *faults: str) -> None:
        """The test does these on purpose; "live" and "raised" are allowed so as well."""
        self.allowed.update(faults)

    def calls(self, name: str) -> int:
        """How often a function was called since the last reset; names without "_v2"."""
        return int(self.library.standin_calls(name.encode()))

    def fail(self, name: str, code: int, *, nth: int = 1, times: int | None = 1) -> None:
        """Lets the nth call from now on of a function, and `times` in all (None: for good), answer `code`."""
        last = nth + times if times else 1 << 40
        assert self.library.standin_fail(name.encode(), ctypes.c_long(nth), ctypes.c_long(last), code)

    def limit(self, size: int) -> None:
        """Bytes of memory of the devices together."""
        self.library.standin_limit(ctypes.c_size_t(size))

    def lose(self, code: int, *, stack: bool = False) -> None:
        """From now on everything answers `code`. stack: but contexts can still be pushed and popped."""
        self.library.standin_lose(code, int(stack))

    def devices(self, count: int) -> None:
        self.library.standin_devices(count)

    def reset(self) -> None:
        """Clears away whatever is there, limits, failures and counters; two devices."""
        self.library.standin_reset()
        self.raised.clear()
        self.allowed.clear()
        self._functions.clear()


@cache
def load() -> Standin:
    """The one of this process. Only where `why_not` has nothing to say, and before pycuda is imported."""
    return Standin()
