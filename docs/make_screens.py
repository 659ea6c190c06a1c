"""Makes the pictures of `preview.md`: `python docs/make_screens.py`, with the extra test and a Chromium."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[1]
SCREENS = ROOT / "docs/preview"
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@contextmanager
def preview(clip: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "vidsr", "preview", str(clip), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[1]
        finally:
            process.terminate()


def until(page: Page, script: str) -> None:
    while not page.evaluate(script):
        page.wait_for_timeout(50)


def screen(browser: Browser, address: str, name: str, act: Callable[[Page], object], **context: Any) -> None:
    opened = browser.new_context(**context)
    page = opened.new_page()
    page.goto(address)
    until(page, "window.vidsr?.state.shown > 0")
    page.keyboard.press(",")  # pauses, also at the end
    page.keyboard.press("4")
    until(page, "window.vidsr.state.exact && !window.vidsr.state.playing")
    act(page)
    page.wait_for_timeout(500)
    page.screenshot(path=SCREENS / f"{name}.png")
    opened.close()


def zoomed(page: Page) -> None:
    for key in ("z", "+", "+", "Shift+ArrowLeft", "Shift+ArrowLeft"):
        page.keyboard.press(key)


def main() -> None:
    path = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    wide, narrow = {"width": 1280, "height": 760}, {"width": 360, "height": 740}
    with sync_playwright() as playwright, preview(ROOT / "samples/clip.mp4") as address:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        screen(browser, address, "light", lambda page: None, viewport=wide, color_scheme="light")
        screen(browser, address, "dark", zoomed, viewport=wide, color_scheme="dark")
        screen(browser, address, "narrow", lambda page: None, viewport=narrow, color_scheme="dark")
        browser.close()


if __name__ == "__main__":
    main()
