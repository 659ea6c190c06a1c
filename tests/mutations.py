"""Runs vidsr on broken files: `python -m tests.mutations 2000 [--seed N]`, or `--folder DIR` for the files in one.

Each run must end within 30 s and 2 GB with a valid output or one clear line, leaving no other file. What a damaged file
shows can differ from one reading to the next, so an output that differs from its input (exit code 3) may be valid, too.
One run at a time; two of these with different seeds use two cores.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from tests.conftest import make_clip, nearest_model

LIMIT_SECONDS, LIMIT_BYTES = 30, 2 * 2**30
ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Outcome:
    code: int
    seconds: float
    peak_bytes: int
    said: str
    wrong: str


def seeds(folder: Path) -> list[Path]:
    """Sound files to start from, of nine containers."""
    made = [
        make_clip(folder / "a.mp4"),
        make_clip(folder / "b.mov"),
        make_clip(folder / "c.mkv"),
        make_clip(folder / "d.ts"),
        make_clip(folder / "e.avi", codec="mpeg4", audio=False),
        make_clip(folder / "f.webm", codec="libvpx-vp9", audio=False),
        make_clip(folder / "g.nut"),
        make_clip(folder / "h.flv"),
        make_clip(folder / "i.mkv", codec="ffv1"),
        make_clip(folder / "j.mp4", codec="libx265", pix_fmt="yuv420p10le"),
        make_clip(folder / "k.mpg", codec="mpeg2video", audio=False, time_base=Fraction(1, 25)),
    ]
    return [*made, *sorted((ROOT / "samples").glob("*.*"))]


def mutations(sources: list[Path], folder: Path, count: int, chance: random.Random) -> Iterator[Path]:
    """Bit flips, truncations, spliced headers, blocks that are gone, doubled or zeroed."""
    contents = [(path, path.read_bytes()) for path in sources if path.suffix not in (".py", ".md")]
    for number in range(count):
        path, content = chance.choice(contents)
        data = bytearray(content)
        kind = chance.choice(["flips", "head flips", "cut", "splice", "gone", "doubled", "zeroes", "sizes"])
        size = len(data)
        if kind in ("flips", "head flips"):
            reach = size if kind == "flips" else min(size, 2048)
            for _ in range(chance.choice([1, 4, 30, 300])):
                data[chance.randrange(reach)] ^= 1 << chance.randrange(8)
        elif kind == "cut":
            del data[chance.randrange(size) :]
        elif kind == "splice":
            other = chance.choice(contents)[1]
            data = bytearray(other[: chance.randrange(1, min(4096, len(other)))]) + data[chance.randrange(size) :]
        else:
            begin = chance.randrange(size)
            end = min(size, begin + chance.choice([1, 16, 188, 1024, 8192]))
            block = data[begin:end]
            data[begin:end] = {
                "gone": b"", "doubled": block + block, "zeroes": bytes(len(block)),
                "sizes": b"\xff" * min(4, len(block)) + block[4:],
            }[kind]  # fmt: skip
        made = folder / f"{number:05}-{kind.replace(' ', '_')}-{path.stem}{path.suffix}"
        made.write_bytes(data)
        yield made


def attempt(source: Path, target: Path, model: Path) -> Outcome:
    """One run in a process of its own, forked so that nothing has to be loaded again."""
    begin = time.monotonic()
    said = target.with_name(target.name + ".said")
    child = os.fork()
    if child == 0:
        run(source, target, model, said)
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() - begin > LIMIT_SECONDS:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    seconds = time.monotonic() - begin
    text = said.read_text(errors="replace") if said.exists() else ""
    said.unlink(missing_ok=True)
    code = os.waitstatus_to_exitcode(status)
    outcome = Outcome(code, seconds, usage.ru_maxrss * 1024, text, "")
    outcome.wrong = judge(outcome, target)
    return outcome


def run(source: Path, target: Path, model: Path, said: Path) -> None:
    """In the child: the command, and then nothing of the parent's."""
    handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    from vidsr.cli import main

    code = 99
    try:
        quick = ["--backend", "onnxruntime", "--preset", "ultrafast", "--quiet"]
        main([str(source), str(target), "--model", str(model), *quick])
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    finally:
        sys.stderr.flush()
        os._exit(code)


def judge(outcome: Outcome, target: Path) -> str:
    """What is wrong with it, "" if nothing is."""
    folder = target.with_name(target.name + ".vidsr")
    lines = [line for line in outcome.said.splitlines() if line.startswith("vidsr:")]
    if outcome.seconds > LIMIT_SECONDS:
        return "hang"
    if outcome.code < 0:
        return f"killed by signal {-outcome.code}"
    if outcome.peak_bytes > LIMIT_BYTES:
        return f"{outcome.peak_bytes / 2**20:.0f} MiB"
    if "Traceback" in outcome.said or "internal error" in outcome.said or outcome.code not in (0, 1, 2, 3):
        return "no clear line"
    if outcome.code in (1, 2):
        if len(lines) != 1:
            return f"{len(lines)} lines"
        if target.exists():
            return "a file under the final name"
        if folder.exists() and "--resume" not in lines[0]:
            return "a folder left without a word"
        return ""
    if folder.exists() or not target.exists():
        return "output missing or folder left"
    try:
        with av.open(str(target)) as container:
            if not sum(1 for _ in container.decode(video=0)):
                return "no frames"
    except (av.error.FFmpegError, OSError, IndexError) as error:
        return f"output unreadable: {error}"
    return "" if outcome.code == 0 or len(lines) == 1 else f"{len(lines)} lines"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--keep", type=Path, help="keep the files that went wrong here")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import onnxruntime  # noqa: F401 - loaded once, before the forks


    work = Path(tempfile.mkdtemp(prefix="vidsr-mutations-"))
    model = nearest_model(work / "nearest.onnx")
    if options.folder:
        files: Iterator[Path] = iter(sorted(path for path in options.folder.iterdir() if path.is_file()))
    else:
        (work / "seeds").mkdir()
        (work / "made").mkdir()
        chance = random.Random(options.seed)
        files = mutations(seeds(work / "seeds"), work / "made", options.count, chance)
    codes: Counter[str] = Counter()
    slowest, largest, wrong = 0.0, 0, 0

    for number, path in enumerate(files):
        suffix = path.suffix if path.suffix in (".mp4", ".mov", ".mkv", ".webm", ".ts", ".avi", ".nut") else ".mkv"
        target = work / f"{number}{suffix if number % 3 else '.mp4'}"
        outcome = attempt(path, target, model)
        codes[f"exit {outcome.code}"] += 1
        slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.peak_bytes)
        if outcome.wrong:
            wrong += 1
            last = re.sub(r"\s+", " ", outcome.said)[-300:]
            print(f"{path.name}: {outcome.wrong} (exit {outcome.code}, {outcome.seconds:.1f} s): {last}", flush=True)
            if options.keep:
                options.keep.mkdir(exist_ok=True)
                shutil.copy(path, options.keep)
        target.unlink(missing_ok=True)
        shutil.rmtree(target.with_name(target.name + ".vidsr"), ignore_errors=True)
        if not options.folder:
            path.unlink()
    print(f"{dict(codes)}; slowest {slowest:.1f} s, largest {largest / 2**20:.0f} MiB; {wrong} wrong")
    shutil.rmtree(work)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
