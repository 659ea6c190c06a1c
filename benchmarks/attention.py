"""Fused attention against the same written out: peak memory and time of ESC's attention, and of all of ESC-light.

    python benchmarks/attention.py [--sizes 128 256] [--threads 1] [--json out.json]

Memory is what a process of its own takes beyond what it had before the run, so Linux is needed. Times are the least of
some runs in turns within one process; on a busy machine only their ratio says something.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from vidsr.networks.esc_config import EscConfig
from vidsr.networks.esc_module import Attention, Esc

LIGHT = EscConfig(
    form="esc", channels=64, scale=4, blocks=3, layers=5, heads=4, window=32, far=16, kernel=13, wide=128, hidden=80,
    squeeze=8,
)  # fmt: skip
PARTS = ("attention", "network")
FORMS = ("fused", "naive")


def naive(query: Any, key: Any, value: Any, attn_mask: Any) -> Any:
    """Softmax of all scores at once, which lie in memory whole."""
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1]) + attn_mask
    return torch.softmax(scores, dim=-1) @ value


@contextlib.contextmanager
def attending(form: str) -> Iterator[None]:
    """Within it networks attend in that form."""
    if form == "fused":
        yield
        return
    with mock.patch("torch.nn.functional.scaled_dot_product_attention", naive):
        yield


def work(part: str, size: int) -> Callable[[], Any]:
    """One run of a part on a square picture, with random weights."""
    torch.manual_seed(0)
    module = Attention(LIGHT) if part == "attention" else Esc(LIGHT)
    for weights in module.parameters():
        torch.nn.init.normal_(weights, std=0.02)
    given = torch.rand(1, LIGHT.channels if part == "attention" else 3, size, size)
    return lambda: module.eval()(given)


def peak_bytes(part: str, form: str, size: int) -> int:
    """What this process takes for the first run, beyond what it has before; for a process that did nothing else."""
    run = work(part, size)
    before = _status("VmRSS")
    with torch.inference_mode(), attending(form):
        run()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def seconds(part: str, size: int, runs: int) -> dict[str, float]:
    """Least time of each form, run in turns; and how far apart their results are."""
    run = work(part, size)
    times: dict[str, list[float]] = {form: [] for form in FORMS}
    results = {}
    with torch.inference_mode():
        for _ in range(runs + 1):
            for form in FORMS:
                with attending(form):
                    begin = time.perf_counter()
                    results[form] = run()
                    times[form].append(time.perf_counter() - begin)
    difference = float((results["fused"] - results["naive"]).abs().max())
    return {**{form: min(taken[1:]) for form, taken in times.items()}, "difference": difference}


def measured(part: str, size: int, threads: int, runs: int) -> dict[str, Any]:
    row: dict[str, Any] = {"part": part, "size": size}
    for form in FORMS:
        child = [sys.executable, __file__, "--child", part, form, str(size), "--threads", str(threads)]
        row[f"{form}_bytes"] = int(subprocess.run(child, check=True, capture_output=True, text=True).stdout)
    times = seconds(part, size, runs)
    row |= {f"{form}_seconds": times[form] for form in FORMS} | {"difference": times["difference"]}
    row["times_less_memory"] = row["naive_bytes"] / row["fused_bytes"]
    row["times_faster"] = row["naive_seconds"] / row["fused_seconds"]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.child:
        part, form, size = chosen.child
        print(peak_bytes(part, form, int(size)))
        return
    rows = []
    print("part       size       fused MiB  naive MiB  less memory  fused s  naive s  faster  difference")
    for part in PARTS:
        for size in chosen.sizes:
            row = measured(part, size, chosen.threads, chosen.runs)
            rows.append(row)
            print(
                f"{part:10} {size}x{size}  {row['fused_bytes'] / 2**20:11.0f}  {row['naive_bytes'] / 2**20:9.0f}  "
                f"{row['times_less_memory']:10.1f}x  {row['fused_seconds']:7.3f}  {row['naive_seconds']:7.3f}  "
                f"{row['times_faster']:5.1f}x  {row['difference']:10.1e}",
                flush=True,
            )
    if chosen.json:
        chosen.json.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
