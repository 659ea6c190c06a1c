"""Kills runs at random moments, resumes them and compares with the uninterrupted one: `python -m tests.killing 30`."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from tests.conftest import make_clip, nearest_model

Moment = Callable[[], bool]


def command(source: Path, target: Path, model: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "vidsr", str(source), str(target), "--model", str(model), "--backend", "onnxruntime",
        "--preset", "veryfast", "--quiet", *more,
    ]  # fmt: skip


def contents(path: Path) -> list[tuple[object, ...]]:
    """Every frame's pts, duration and hash, and every packet of the other tracks."""
    found: list[tuple[object, ...]] = []
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.stream.type != "video":
                found.append((packet.stream_index, packet.pts, packet.duration, hashlib.sha256(bytes(packet)).digest()))
                continue
            for frame in packet.decode():
                planes = [np.frombuffer(plane, np.uint8).reshape(plane.height, -1) for plane in frame.planes]
                pixels = [rows[:, : plane.width] for rows, plane in zip(planes, frame.planes, strict=True)]
                digest = hashlib.sha256(b"".join(rows.tobytes() for rows in pixels)).digest()
                found.append((packet.stream_index, frame.pts, frame.duration, digest))
    return found


def killed(arguments: list[str], moment: Moment) -> bool:
    """Runs until `moment` says so and kills it then; False where it ended before."""
    process = subprocess.Popen(arguments, start_new_session=True)
    while process.poll() is None:
        if moment():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.0005)
    return False


def after(seconds: float) -> Moment:
    begin = time.monotonic()
    return lambda: time.monotonic() - begin >= seconds


def once_there(path: Path, seconds: float) -> Moment:
    """`seconds` after the path appeared."""
    seen: list[float] = []

    def moment() -> bool:
        if not seen and path.exists():
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() - seen[0] >= seconds

    return moment


def main(rounds: int, *, frames: int = 1600, seed: int = 1) -> int:
    chance = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="vidsr-killing-"))
    source = make_clip(folder / "in.mp4", frames=frames, width=160, height=120)
    model = nearest_model(folder / "nearest.onnx")
    whole, target = folder / "whole.mp4", folder / "out.mp4"
    begin = time.monotonic()
    subprocess.run(command(source, whole, model), check=True)
    lasting = time.monotonic() - begin
    wanted = contents(whole)
    joined = target.with_name("out.mp4.vidsr") / "joined.mp4"
    good = 0
    for number in range(rounds):
        places = [
            ("at random", after(chance.uniform(0, 0.6 * lasting))),
            ("at random", after(chance.uniform(0.3 * lasting, 0.6 * lasting))),
            ("joining", once_there(joined, chance.uniform(0, 0.03))),
            ("naming", once_there(target, chance.uniform(0, 0.002))),
        ]
        name, moment = places[number % len(places)]
        if not killed(command(source, target, model), moment):
            raise SystemExit(f"the run ended before it could be killed {name}")
        left = sorted(path.name for path in folder.glob("out*"))
        # The last thing a run does is to remove its folder; killed behind that it is complete.
        complete = left == ["out.mp4"]
        again = subprocess.run(command(source, target, model, "--resume"), capture_output=True, text=True)
        same = (complete or again.returncode == 0) and contents(target) == wanted
        clean = sorted(path.name for path in folder.glob("out*")) == ["out.mp4"]
        good += same and clean
        print(
            f"{number + 1}: killed {name}, left {left}, resumed {again.returncode} "
            f"{'same' if same else 'DIFFERENT'} {'' if clean else 'NOT CLEAN'} {again.stderr.strip()}",
            flush=True,
        )
        target.unlink(missing_ok=True)
        shutil.rmtree(joined.parent, ignore_errors=True)
    print(f"{good} of {rounds} identical; the run lasts {lasting:.1f} s, {len(wanted)} frames and packets")
    shutil.rmtree(folder)
    return 0 if good == rounds else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 30))
