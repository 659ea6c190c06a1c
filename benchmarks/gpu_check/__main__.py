"""Runs the steps one after the other, each in a process of its own, and writes one JSON line for each.

    python -m benchmarks.gpu_check [-o FILE] [--only 1,7,13] [--minutes 8]
    python -m benchmarks.gpu_check --step 7 [--few]        one step, in this process

A line holds step, name, ok (true, false, or null where the step was skipped), seconds, why (unless ok), and figures.
The standard library is all that this file needs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

from benchmarks.gpu_check.step import Failed, Skipped
from vidsr.doctor.child import private_output

STEPS: dict[int, tuple[str, str, int]] = {
    1: ("env", "card:env", 30),
    2: ("pycuda", "card:pycuda", 60),
    3: ("pinned", "card:pinned", 60),
    4: ("streams", "card:streams", 60),
    5: ("threads", "card:threads", 60),
    6: ("graph", "card:graph", 60),
    7: ("slots", "frames:slots", 180),
    8: ("fp16", "frames:fp16", 60),
    9: ("rounding", "frames:rounding", 60),
    10: ("runtime", "plans:runtime", 60),
    11: ("nvdec", "frames:nvdec", 60),
    12: ("sanitizer", "frames:sanitizer", 150),
    13: ("tensorrt", "plans:tensorrt", 300),
}
"""Number -> name, module:function, the most seconds it may take."""
RESULTS = Path(__file__).resolve().parents[1] / "results"


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="gpu_check.sh", description=__doc__, formatter_class=raw)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="where the lines go beside standard output")
    parser.add_argument("--only", metavar="N,N", type=_numbers, default=list(STEPS), help="which steps")
    parser.add_argument("--minutes", type=float, default=8.0, help="no step goes on for longer than this in all")
    parser.add_argument("--step", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--few", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step is not None:
        run_here(given.step, few=given.few)
        return 0
    card = _card()
    if "name" not in card:
        print(f"gpu_check: no NVIDIA card can be used here: {card['why']}", file=sys.stderr)
        return 1
    name = re.sub(r"\W+", "-", card["name"]).strip("-").lower()
    output = given.output or RESULTS / f"{name}-{date.today():%Y-%m-%d}.jsonl"
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("w", encoding="utf-8") as file:
        good = run_all(given.only, time.monotonic() + 60 * given.minutes, file)
    print(f"gpu_check: {output}", file=sys.stderr)
    return 0 if good else 1


def _numbers(text: str) -> list[int]:
    for part in text.split(","):
        if not part.isdigit() or int(part) not in STEPS:
            raise argparse.ArgumentTypeError(f"there is no step {part}")
    return [int(part) for part in text.split(",")]


def _card() -> dict[str, str]:
    """The first card's name, or why there is none; asked in a process of its own."""
    code = "import json, vidsr.doctor.nvidia as n; n.look(lambda found: print(json.dumps(found), flush=True))"
    found, ending = _run([sys.executable, "-c", code], 60)
    if found.get("cards"):
        return {"name": found["cards"][0]["name"]}
    return {"why": found.get("reason") or ending or "it does not say why"}


def command(number: int) -> list[str]:
    """What runs a step."""
    return [sys.executable, "-m", "benchmarks.gpu_check", "--step", str(number)]


def run_all(wanted: list[int], deadline: float, file: TextIO) -> bool:
    """Writes a line for each step to standard output and `file`. deadline: of `time.monotonic`. False if one failed."""
    good = True
    for number in wanted:
        name, _, limit = STEPS[number]
        left = deadline - time.monotonic()
        line: dict[str, Any] = {"step": number, "name": name, "ok": None, "seconds": 0.0}
        if left < 5:
            line["why"] = "skipped: no time is left"
        else:
            begin = time.monotonic()
            said, ending = _run(command(number), min(limit, left))
            line |= {key: value for key, value in said.items() if key not in line or key == "ok"}
            line["seconds"] = round(time.monotonic() - begin, 2)
            if ending is not None:
                doing = f" while {line['doing']}" if "doing" in line else ""
                line |= {"ok": False, "why": ending + doing}
            line.pop("doing", None)
        good &= line["ok"] is not False
        text = json.dumps(line)
        print(text, flush=True)
        file.write(text + "\n")
        file.flush()
    return good


def _run(arguments: list[str], limit: float) -> tuple[dict[str, Any], str | None]:
    """What a process said, all its JSON lines together, and how it ended where that was not as planned."""
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True
    )
    ending = None
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        _kill(process)
        out, err = process.communicate()
        ending = f"stopped after {limit:.0f} s"
    except BaseException:
        _kill(process)
        raise
    said: dict[str, Any] = {}
    for text in out.splitlines():
        try:
            said |= json.loads(text)
        except (ValueError, TypeError):  # cut short by a crash
            continue
    code = process.returncode
    if ending is None and code < 0:
        ending = f"crashed (signal {-code})"
    elif ending is None and code:
        last = err.decode(errors="replace").strip().splitlines()[-1:]
        ending = f"ended with code {code}" + (f": {last[0][:300]}" if last else "")
    return said, ending


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With whatever it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (AttributeError, ProcessLookupError):
        process.kill()


def run_here(number: int, *, few: bool) -> None:
    """Runs a step in this process and ends it."""
    say = private_output()
    module, _, function = STEPS[number][1].partition(":")
    # A step may fail in any way that a driver or library can fail; that is its result.
    try:
        step: Callable[..., None] = getattr(import_module(f"benchmarks.gpu_check.{module}"), function)
        step(say, few)
        say({"ok": True})
    except Skipped as skipped:
        say({"ok": None, "why": f"skipped: {skipped}"})
    except Failed as failed:
        say({"ok": False, "why": str(failed)})
    except Exception as error:
        text = " ".join(str(error).split())[:500]
        say({"ok": False, "why": f"{type(error).__name__}: {text}"})
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
