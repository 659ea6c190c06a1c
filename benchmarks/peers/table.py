"""What was found, for people and for a file."""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from benchmarks.peers.measure import VIDSR, Tally, ratio
from benchmarks.peers.peer import Peer

__all__ = ["kept", "table"]

_NETWORKS = {"same": "", "ch48": "published ch48", "other": "another network"}


def table(peers: Mapping[str, Peer], tallies: Mapping[str, Tally]) -> list[str]:
    """A row for each, below it what is wrong with its output."""
    lines = [f"{'':16} {'fps':>6} {'loading':>8}  {'vidsr is times as fast':23} output"]
    for name, tally in tallies.items():
        if not tally.runs:
            lines.append(f"{name:16} {tally.failed}")
            continue
        fps = statistics.median(run.fps for run in tally.runs.values())
        loading = statistics.median(run.other_seconds for run in tally.runs.values())
        found, times = tally.findings, "" if name == VIDSR else _times(tally, tallies[VIDSR])
        verdict = "WRONG" if found.wrong else "right"
        network = _NETWORKS[peers[name].network] if name in peers else ""
        lines.append(f"{name:16} {fps:6.2f} {loading:6.1f} s  {times:23} {verdict:6} {network}".rstrip())
        lines += [f"{'':18}{fault}" for fault in found.wrong]
        lines += [f"{'':18}lost: {loss}" for loss in found.lost]
        lines += [f"{'':18}{tally.failed}"] if tally.failed else []
    return lines


def kept(peers: Mapping[str, Peer], tallies: Mapping[str, Tally], asked: argparse.Namespace) -> dict[str, Any]:
    """For a JSON file: every run, the ratios with their intervals, and what was measured."""
    settings = {key: getattr(asked, key) for key in ("frames", "rounds", "model", "preset", "crf")}
    rows = {}
    for name, tally in tallies.items():
        found = ratio(tallies[VIDSR], tally) if name in peers else None
        rows[name] = {
            **({"what": peers[name].what, "network": peers[name].network} if name in peers else {}),
            "vidsr_over_it": asdict(found) if found else None,
            "failed": tally.failed or None,
            **asdict(tally.findings),
            "runs": [asdict(run) | {"round": number} for number, run in tally.runs.items()],
        }
    return {"clip": asked.clip.name, **settings, "cores": len(os.sched_getaffinity(0)), "contestants": rows}


def _times(tally: Tally, vidsr: Tally) -> str:
    found = ratio(vidsr, tally)
    if found is None:
        return ""
    doubt = "" if found.enough else f", {found.sure:.0%}"
    return f"{found.middle:.3f} [{found.low:.3f}, {found.high:.3f}{doubt}]"
