"""A session of plain colours for the page, and what a browser shows of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tests.preview.fake import PATIENCE_SECONDS
from vidsr.media.picture import png_bytes, read_rgb
from vidsr.preview import wire
from vidsr.preview.session import Outbox, Which

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["FPS", "FRAMES", "HEIGHT", "WIDTH", "ColorSession", "pixels", "state", "until"]

WIDTH, HEIGHT, SCALE = 160, 90, 2
FPS, FRAMES = 10, 100
BRIGHT = 200
BAND = (84, 88)
"""Columns of the source that are white in both pictures: something to find again after zooming."""

_SEE_THROUGH = """(opacity) => {
  for (const over of document.querySelectorAll(".stage > :not(canvas), .toasts")) over.style.opacity = opacity;
  return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
}"""
"""What lies over the picture; a style of our own would be forbidden by the page's CSP."""


class ColorSession:
    """Answers commands with pictures at once, and plays to a second ahead of the viewer's clock.

    The original is red and the enlarged one blue, with a white band; both are green by twice their frame's number.
    takes: the commands so far, without the clock's, which are in clocks.
    """

    def __init__(self, **source: Any) -> None:
        self.takes: list[wire.Command] = []
        self.clocks: list[wire.Clock] = []
        self.outbox: Outbox | None = None
        self.attached = 0
        self.detached = Event()
        self.box = [0, 0, WIDTH, HEIGHT]
        self._serial, self._playing, self._index = 0, False, 0
        self._choice: dict[str, Any] = {"model": "span", "scale": None, "smooth": "auto"}
        self._source = {
            "tell": "source", "mode": "preview", "name": "colours.mp4", "width": WIDTH, "height": HEIGHT,
            "aspect": "1:1", "turn": 0, "mirrored": False, "fps": float(FPS), "seconds": FRAMES / FPS, "start": 0.0,
            "sound": True, "target": "/films/colours-2x.mp4", "notes": [],
            "models": [
                {"name": "span", "own": "2", "scales": ["2", "4"], "about": "for most"},
                {"name": "span-fast", "own": "2", "scales": ["2"], "about": "quicker"},
            ],
            **source,
        }  # fmt: skip

    def attach(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.attached += 1
        outbox.tell(self._source)
        self.wish()

    def detach(self) -> None:
        self.outbox = None
        self.detached.set()

    def tell(self, **message: Any) -> None:
        assert self.outbox is not None
        self.outbox.tell(message)

    def send(self, header: Mapping[str, Any], *parts: bytes) -> None:
        assert self.outbox is not None
        self.outbox.send({"serial": self._serial, "seconds": self._index / FPS, **header}, parts)

    def take(self, command: wire.Command) -> None:
        if isinstance(command, wire.Clock):
            self.clocks.append(command)
            self._play_to(command.seconds + 1)
            return
        self.takes.append(command)
        match command:
            case wire.Play():
                self._playing = True
            case wire.Pause(seconds=seconds):
                self._playing, self._index = False, math.floor(seconds * FPS + 1e-6)
            case wire.Seek(seconds=seconds):
                self._index = min(FRAMES - 1, math.floor(seconds * FPS + 1e-6))
            case wire.Step(by=by):
                self._playing, self._index = False, min(FRAMES - 1, max(0, self._index + by))
            case wire.Choose(model=model, scale=scale):
                self._choice |= {"model": model, "scale": scale}
            case wire.Smooth(how=how):
                self._choice["smooth"] = how
            case _:
                return
        self.wish()

    def snapshot(self, which: Which) -> tuple[str, bytes]:
        return f"colours-{which}.png", _picture(0, 1)

    def close(self) -> None:
        pass

    def wish(self) -> None:
        """Everything anew from the frame that is the next to be shown."""
        self._serial += 1
        self.tell(
            tell="state", playing=self._playing, serial=self._serial, seconds=self._index / FPS, crop=None,
            size=[WIDTH * SCALE, HEIGHT * SCALE], loading=None, ended=False, **self._choice,
        )  # fmt: skip
        self._show()
        if self._playing:
            self._play_to(self._index / FPS + 1)

    def _play_to(self, seconds: float) -> None:
        while self._playing and self._index < min(FRAMES - 1, seconds * FPS):
            self.send({"kind": "sound", "rate": 48000, "channels": 2}, bytes(48000 * 4 // FPS))
            self._index += 1
            self._show()

    def _show(self) -> None:
        left, top, width, height = self.box
        part = np.s_[top * SCALE : (top + height) * SCALE, left * SCALE : (left + width) * SCALE]
        header = {
            "kind": "picture", "pts": f"{self._index}/{FPS}", "key": True, "exact": not self._playing,
            "types": ["image/png"] * 2, "box": self.box,
        }  # fmt: skip
        self.send(header, _picture(self._index, 1), _picture(self._index, SCALE, part))


def _picture(index: int, scale: int, part: Any = ...) -> bytes:
    image = np.empty((HEIGHT * scale, WIDTH * scale, 3), np.uint8)
    image[...] = (BRIGHT, 2 * index, 0) if scale == 1 else (0, 2 * index, BRIGHT)
    image[:, BAND[0] * scale : BAND[1] * scale] = 255
    return png_bytes(image[part])


def state(page: Page) -> Any:
    """What the page says of itself."""
    return page.evaluate("window.vidsr.state")


def until(page: Page, script: str) -> None:
    """Waits until that is true in the page; by evaluation from outside, which no CSP forbids."""
    end = monotonic() + PATIENCE_SECONDS
    while not page.evaluate(script):
        assert monotonic() < end, f"{script} is not true in time; {state(page)}"
        page.wait_for_timeout(20)


def pixels(page: Page, folder: Path) -> NDArray[Any]:
    """uint8 [H, W, 3]: the screen where the picture is, without what lies over it."""
    page.evaluate(_SEE_THROUGH, "0")
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    path = folder / "screen.png"
    path.write_bytes(page.screenshot(clip=box))
    page.evaluate(_SEE_THROUGH, "")
    return read_rgb(path)
