"""python -m benchmarks.peers CLIP: how fast vidsr is beside others, and whether what they make is right."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.peers.check import span
from benchmarks.peers.environment import Missing
from benchmarks.peers.measure import (
    VIDSR,
    Contestant,
    Failed,
    Tally,
    in_turn,
    peer_command,
    play,
    vidsr_command,
)
from benchmarks.peers.peer import PEERS
from benchmarks.peers.table import kept, table
from vidsr import models
from vidsr.errors import VidsrError


def main() -> None:
    asked = arguments()
    if asked.cores:
        os.sched_setaffinity(0, asked.cores)  # children inherit it
    try:
        model = models.load(asked.model)
        whole, few = (span(asked.clip, frames) for frames in (asked.frames, max(asked.frames // 4, 4)))
    except VidsrError as error:
        sys.exit(f"error: {error}")
    if model.scale != 2:
        sys.exit(f"error: {asked.model} makes a picture {model.scale} times as large: the peers' scripts double it")
    peers = {peer.name: peer for peer in PEERS if not asked.only or peer.name in asked.only}
    path = model.path.resolve()
    tallies = {name: Tally() for name in (VIDSR, *peers)}
    contestants = {VIDSR: Contestant(name=VIDSR, command=vidsr_command(whole, path, asked), span=whole)}
    for name, peer in peers.items():
        part = few if peer.slow else whole
        try:
            contestants[name] = Contestant(name=name, command=peer_command(peer, part, path, asked), span=part)
        except Missing as missing:
            tallies[name].failed = f"not here: {missing}"
    with tempfile.TemporaryDirectory() as folder:
        for number, name in in_turn(list(contestants), asked.rounds):
            if tallies[name].failed:
                continue
            try:
                tallies[name].runs[number] = run = play(contestants[name], Path(folder), model.scale)
                print(f"round {number + 1}: {name} {run.fps:.2f} fps", file=sys.stderr)
            except Failed as failed:
                tallies[name].failed = f"failed: {failed}"
    print("\n".join(table(peers, tallies)))
    if asked.json:
        asked.json.write_text(json.dumps(kept(peers, tallies, asked), indent=2) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--frames", type=int, default=60, help="of the clip; slow peers do a quarter of them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", type=lambda text: text.split(","), help=", ".join(peer.name for peer in PEERS))
    parser.add_argument("--model", default="span", help="name or file of an ONNX model that doubles the size")
    parser.add_argument("--preset", default="veryfast")
    parser.add_argument("--crf", default="18")
    parser.add_argument("--cores", type=lambda text: {int(core) for core in text.split(",")}, help="0,1: only these")
    parser.add_argument("--json", type=Path, metavar="FILE")
    asked = parser.parse_args()
    asked.clip = asked.clip.resolve()
    if unknown := set(asked.only or []) - {peer.name for peer in PEERS}:
        parser.error(f"there is no peer {', '.join(sorted(unknown))}: --help lists them")
    return asked


if __name__ == "__main__":
    main()
