"""How fast the preview is, in a real browser: `python benchmarks/preview.py [CLIP]`, --soak SECONDS for a long run.

Needs the extras preview and test, and a Chromium. The command is the user's own; the page is asked what it shows.
Reports the first picture after the command, seeks, the frames a second of the page beside those of the engine alone
(measured before and after, in this process), the distance of picture and sound, and the memory of the server.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from vidsr.job import Settings, resolve_stream

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required",
)  # fmt: skip


def generated(folder: Path, width: int, height: int, seconds: int, rate: int) -> Path:
    """A moving pattern with noise and a tone."""
    path = folder / "moving.mp4"
    random = np.random.default_rng(1)
    grain = random.integers(-12, 12, (height, width, 3))
    rows, columns = np.mgrid[0:height, 0:width]
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=rate, options={"preset": "veryfast", "g": "48"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        sound = output.add_stream("aac", rate=48000)
        for index in range(seconds * rate):
            waves = [np.sin((columns * a + rows * b + index * c) / 17) for a, b, c in ((1, 2, 5), (2, 1, 3), (1, 1, 7))]
            picture = np.clip(128 + 90 * np.stack(waves, 2) + np.roll(grain, index, (0, 1)), 0, 255).astype(np.uint8)
            output.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            if index % rate == 0:
                tone = np.sin(np.arange(48000) * 2 * np.pi * 440 / 48000).astype(np.float32)[None]
                heard = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
                heard.rate, heard.pts, heard.time_base = 48000, index // rate * 48000, Fraction(1, 48000)
                output.mux(sound.encode(heard))
        for track in (video, sound):
            output.mux(track.encode(None))
    return path


def bare_fps(clip: Path, model: str, seconds: float) -> float:
    """Of the engine alone, on one frame again and again."""
    engine = resolve_stream(clip, Settings(model=model)).plan.open()
    try:
        slots = list(engine.slots(3))
        for slot in slots:
            engine.submit(slot)
            engine.wait(slot)
        count, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            for slot in slots[: engine.in_flight]:
                engine.submit(slot)
            for slot in slots[: engine.in_flight]:
                engine.wait(slot)
            count += engine.in_flight
        return count / (time.perf_counter() - begin)
    finally:
        engine.close()


@contextmanager
def preview(clip: Path, model: str) -> Iterator[tuple[str, int, float]]:
    """(address, process, when it was started) of the command."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "vidsr", "preview", str(clip), "--model", model, "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[1], process.pid, begin
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(10)


class Watcher:
    """Asks the page."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def state(self) -> dict[str, Any]:
        result: dict[str, Any] = self._page.evaluate("window.vidsr.state")
        return result

    def until(self, script: str) -> float:
        """Seconds until that is true."""
        begin = time.perf_counter()
        while not self._page.evaluate(script):
            self._page.wait_for_timeout(5)
        return time.perf_counter() - begin

    def sustained(self, seconds: float) -> dict[str, float]:
        """Of that long a time of playing."""
        offsets, begin, before = [], time.perf_counter(), self.state()
        while time.perf_counter() - begin < seconds:
            self._page.wait_for_timeout(100)
            state = self.state()
            if state["ended"]:
                self._page.keyboard.press("Space")
            offsets.append(abs(state["offsetMillis"]))
        after, passed = self.state(), time.perf_counter() - begin
        shown = after["shown"] - before["shown"]
        return {
            "shown_fps": round(shown / passed, 2),
            "late_share": round((after["late"] - before["late"]) / max(1, shown), 4),
            "offset_median_ms": round(statistics.median(offsets), 1),
            "offset_95_ms": round(float(np.percentile(offsets, 95)), 1),
            "offset_most_ms": round(max(offsets), 1),
        }


def memory_mib(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def measure(clip: Path, model: str, seconds: float, soak: float) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        raise SystemExit("needs a Chromium")
    before = bare_fps(clip, model, 4)
    found: dict[str, Any] = {"clip": clip.name, "model": model}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        with preview(clip, model) as (address, process, begin):
            found["address_seconds"] = round(time.perf_counter() - begin, 2)
            page.goto(address)
            watcher = Watcher(page)
            watcher.until("window.vidsr?.state.shown > 0")
            found["first_picture_seconds"] = round(time.perf_counter() - begin, 2)
            page.mouse.click(5, 5)  # lets the sound begin
            watcher.until("window.vidsr.state.shown > 30")
            found |= watcher.sustained(seconds)
            found["memory_mib"] = [memory_mib(process)]
            page.keyboard.press("k")
            seeks, length = [], float(resolve_stream(clip, Settings(model=model)).source.duration_seconds or 0)
            for key in "5827361":
                page.keyboard.press(key)
                place = int(key) * length / 10
                seeks.append(watcher.until(f"Math.abs(window.vidsr.state.seconds - {place}) < 0.1"))
            found["seek_seconds"] = {"median": round(statistics.median(seeks), 3), "most": round(max(seeks), 3)}
            if soak:
                page.keyboard.press("k")
                found["soak"] = []
                for _ in range(max(1, round(soak / 60))):
                    found["soak"].append(watcher.sustained(60) | {"memory_mib": memory_mib(process)})
                    print(json.dumps(found["soak"][-1]), file=sys.stderr)
        browser.close()
    found["bare_fps"] = round((before + bare_fps(clip, model, 4)) / 2, 2)
    possible = min(found["bare_fps"], float(resolve_stream(clip, Settings(model=model)).source.video.rate or 25))
    found["ratio"] = round(found["shown_fps"] / possible, 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", type=Path, help="a video; one of 640x360 is made where none is given")
    parser.add_argument("--model", default="span-fast")
    parser.add_argument("--size", default="640x360", help="of the clip that is made")
    parser.add_argument("--rate", type=int, default=24, help="of the clip that is made, frames a second")
    parser.add_argument("--length", type=int, default=60, help="of the clip that is made, in seconds")
    parser.add_argument("--seconds", type=float, default=20, help="of playing")
    parser.add_argument("--soak", type=float, default=0, help="further seconds, with figures for each minute")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        width, height = map(int, given.size.split("x"))
        clip = given.clip or generated(Path(folder), width, height, given.length, given.rate)
        print(json.dumps(measure(clip, given.model, given.seconds, given.soak), indent=2))


if __name__ == "__main__":
    main()
