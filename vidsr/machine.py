"""The processor and what this process may use of it. Reads files and asks the system; loads no library."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["VARIABLES", "cores", "environment", "processor"]

VARIABLES = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

_X86 = {
    "AVX2": {"avx2"},
    "AVX-512": {"avx512f"},
    "VNNI": {"avx512_vnni", "avx_vnni"},
    "BF16": {"avx512_bf16"},
    "AMX": {"amx_tile"},
}
_ARM = {
    "NEON": {"asimd", "neon", "advsimd"},
    "FP16": {"asimdhp", "feat_fp16"},
    "BF16": {"bf16", "feat_bf16"},
    "I8MM": {"i8mm", "feat_i8mm"},
    "SVE": {"sve"},
}
"""What helps vidsr, by the names that systems give it; any of them will do."""


def environment() -> dict[str, str]:
    """Those of `VARIABLES` that are set."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def cores() -> int:
    """Those that this process gets, of a control group's share whole ones."""
    here = processor()
    return max(1, int(min(here["cores"], here["cores_allowed"] or here["cores"])))


def processor() -> dict[str, Any]:
    """See `vidsr.doctor.report.Report`. features: empty where the system does not tell."""
    name, flags = _linux() if sys.platform == "linux" else _other()
    known = _X86 if platform.machine().lower() in ("x86_64", "amd64") else _ARM
    features = {feature: bool(names & flags) for feature, names in known.items()} if flags else {}
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not every system has such a thing
        cores = os.cpu_count() or 1
    return {
        "name": name or platform.processor() or None,
        "architecture": platform.machine(),
        "cores": cores,
        "cores_present": os.cpu_count(),
        "cores_allowed": _quota(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "features": features,
    }


def _linux() -> tuple[str, set[str]]:
    name, flags = "", set()
    for line in _text("/proc/cpuinfo").splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "model name":
            name = name or value
        elif key in ("flags", "Features"):
            flags |= set(value.split())
    return name, flags


def _other() -> tuple[str, set[str]]:
    if sys.platform != "darwin":
        return platform.processor(), set()
    name = _asked("sysctl", "-n", "machdep.cpu.brand_string").strip()
    flags = set()
    for line in _asked("sysctl", "hw.optional").splitlines():
        key, _, value = line.partition(":")
        if value.strip() == "1":
            flags.add(key.strip().rpartition(".")[2].lower().removesuffix("_0"))
    return name, flags


def _quota() -> float | None:
    """Processors' worth of time that a control group allows; None without a limit."""
    limit, _, period = _text("/sys/fs/cgroup/cpu.max").partition(" ")
    if not limit:  # the older kind
        limit, period = (_text(f"/sys/fs/cgroup/cpu/cpu.cfs_{name}_us") for name in ("quota", "period"))
    try:
        return round(int(limit) / int(period), 2) if int(limit) > 0 else None
    except ValueError:  # "max", or no control group
        return None


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _asked(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
