"""NVIDIA: driver, cards and libraries, found without the code that engines use."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vidsr.nvidia import NAME, driver_library

__all__ = ["installed_version", "look"]

_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""
_LIBRARIES = {
    "pycuda": ("pycuda.driver", ("pycuda",)),
    "cuda-bindings": ("cuda.bindings.runtime", ("cuda-bindings", "cuda-python")),
    "tensorrt": ("tensorrt", ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu13-bindings")),
}
"""What to import, and the packages that bring it."""


def look(say: Callable[[dict[str, Any]], None]) -> None:
    """Says present, driver, found_by, cuda, cards, reason and libraries."""
    driver, found_by = _driver()
    say({"present": _on_the_bus(), "driver": driver, "found_by": found_by, "cuda": None, "cards": [], "reason": None})
    libraries: list[dict[str, Any]] = [
        {"name": name, "version": installed_version(*packages), "error": None}
        for name, (_, packages) in _LIBRARIES.items()
    ]
    say({"libraries": libraries, "doing": "asking the NVIDIA driver for its cards"})
    found = _cards()
    say(found)
    if not found["cards"]:
        return  # all of them need the driver's library
    say({"present": True})
    for entry in libraries:
        if entry["version"] is None:
            continue
        say({"doing": f"importing {entry['name']}"})
        # Whatever a broken installation raises is what is asked for.
        try:
            import_module(_LIBRARIES[entry["name"]][0])
        except Exception as error:
            entry["error"] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        say({"libraries": libraries})


def installed_version(*packages: str) -> str | None:
    """Of the first of these that is installed."""
    for package in packages:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return None


def _on_the_bus() -> bool | None:
    """Whether an NVIDIA display or compute device is plugged in; None where that cannot be seen."""
    devices = Path("/sys/bus/pci/devices")
    if not devices.is_dir():
        return None
    try:
        return any(
            (device / "vendor").read_text().strip() == "0x10de" and (device / "class").read_text().startswith("0x03")
            for device in devices.iterdir()
        )
    except OSError:
        return None


def _driver() -> tuple[str | None, str | None]:
    """The driver's version, and who said so."""
    try:
        given = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=15, check=True,
        ).stdout.split()  # fmt: skip
        if given and re.match(r"\d+\.", given[0]):
            return given[0], "nvidia-smi"
    except (OSError, subprocess.SubprocessError):
        pass
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None, None
    match = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", text)
    return (match[1], "/proc/driver/nvidia/version") if match else (None, None)


def _cards() -> dict[str, Any]:
    """cuda, cards and reason, from the driver's own library."""
    found: dict[str, Any] = {"cuda": None, "cards": [], "reason": None}
    library = driver_library()
    if library is None:
        return found | {"reason": f"no NVIDIA driver is installed ({NAME} is not there)"}
    number = ctypes.c_int()
    if code := library.cuInit(0):
        return found | {"reason": f"the NVIDIA driver does not start (cuInit gives {code})"}
    library.cuDriverGetVersion(ctypes.byref(number))
    found["cuda"] = f"{number.value // 1000}.{number.value % 1000 // 10}"
    library.cuDeviceGetCount(ctypes.byref(number))
    found["cards"] = [_card(library, index) for index in range(number.value)]
    return found if found["cards"] else found | {"reason": "the NVIDIA driver sees no card"}


def _card(library: ctypes.CDLL, index: int) -> dict[str, Any]:
    device, name, size, major, minor = (
        ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t(), ctypes.c_int(), ctypes.c_int(),
    )  # fmt: skip
    library.cuDeviceGet(ctypes.byref(device), index)
    library.cuDeviceGetName(name, 256, device)
    library.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    library.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    library.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    return {
        "name": name.value.decode(errors="replace"),
        "capability": f"{major.value}.{minor.value}",
        "memory_bytes": size.value,
    }
