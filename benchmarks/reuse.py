"""What exact reuse gains on clips, and that it changes no bit of them; see README.md beside this file."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path

from vidsr.benchmark.interval import median_interval
from vidsr.benchmark.whole import job_in, once, warm
from vidsr.errors import VidsrError
from vidsr.job import Settings, resolve_stream


def hashes(path: Path, settings: Settings, frames: int) -> list[str]:
    """Of all planes of each enlarged frame, as they leave the model."""
    found = []
    video = resolve_stream(path, settings).frames()
    for frame in video:
        found.append(hashlib.sha256(b"".join(plane.tobytes() for plane in frame.planes)).hexdigest())
        if len(found) == frames:
            break
    video.close()
    return found


def row(path: Path, settings: Settings, frames: int, rounds: int) -> dict[str, object]:
    """One clip: whether the frames are the same, and how many times as fast, end to end, reuse is."""
    off = replace(settings, reuse="off")
    begin = time.perf_counter()
    with_reuse = hashes(path, settings, frames)
    measured: dict[str, object] = {
        "clip": path.name,
        "frames": len(with_reuse),
        "same": bool(with_reuse) and with_reuse == hashes(path, off, frames),
    }
    if rounds:
        with job_in(path, settings) as first, job_in(path, off) as second:
            for job in (first, second):
                warm(job, "file", frames)
            pairs = []
            for number in range(rounds):
                order = (second, first) if number % 2 else (first, second)
                done = [once(job, "file", frames) for job in order]
                pairs.append(done[::-1] if number % 2 else done)
        ratio = median_interval([one.fps / other.fps for one, other in pairs])
        measured |= {
            "times": round(ratio.middle, 3),
            "low": round(ratio.low, 3),
            "high": round(ratio.high, 3),
            "reused": round(pairs[-1][0].reused, 3),
        }
    return measured | {"seconds": round(time.perf_counter() - begin)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--model", default="span")
    parser.add_argument("--frames", type=int, default=10**9)
    parser.add_argument("--rounds", type=int, default=5, help="of paired runs, end to end; with 0 none are made")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    rows = []
    for path in chosen.clips:
        try:
            rows.append(row(path, Settings(model=chosen.model), chosen.frames, chosen.rounds))
        except VidsrError as error:
            rows.append({"clip": path.name, "error": str(error)})
        print(json.dumps(rows[-1]), flush=True)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(rows, indent=2) + "\n")
    raise SystemExit(not all(entry.get("same") for entry in rows))


if __name__ == "__main__":
    main()
