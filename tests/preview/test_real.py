"""The whole of it: a real video, a real browser, and what is on its screen."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

import vidsr
from tests.preview.browser import pixels, state, until
from tests.preview.fake import PATIENCE_SECONDS
from vidsr.color import ColorTags, conversion
from vidsr.job import Settings
from vidsr.preview.server import Server
from vidsr.preview.show import PreviewSession

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FPS, FRAMES, WIDTH, HEIGHT, DIGITS = 25, 200, 192, 96, 8


def numbered(path: Path) -> Path:
    """A clip whose every frame says its number, in stripes of black and white: the highest digit is on the left."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=FPS, options={"crf": "8", "g": "48", "bf": "3"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv444p"
        sound = output.add_stream("aac", rate=48000)
        rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
        digit = DIGITS - 1 - columns * DIGITS // WIDTH
        for index in range(FRAMES):
            planes = np.stack([np.where(index >> digit & 1, 200, 40), rows + 80, columns // 2 + 80]).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(planes, format="yuv444p")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            output.mux(video.encode(frame))
        tone = np.sin(np.arange(48000 * FRAMES // FPS) / 20).astype(np.float32)[None]
        heard = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        heard.rate, heard.pts, heard.time_base = 48000, 0, Fraction(1, 48000)
        for track, last in ((video, None), (sound, heard)):
            output.mux(track.encode(last))
            if last is not None:
                output.mux(track.encode(None))
    return path


def number_on(image: NDArray[Any]) -> int:
    """What a picture of the clip, uint8 [H, W, 3], says."""
    middles = (np.arange(DIGITS) + 0.5) * image.shape[1] / DIGITS
    row = image[image.shape[0] // 2].mean(axis=1)
    return int("".join("1" if row[int(middle)] > 128 else "0" for middle in middles), 2)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered(tmp_path_factory.mktemp("numbered") / "numbered.mp4")


@pytest.fixture
def session(clip: Path, nearest: Path, tmp_path: Path) -> Iterator[PreviewSession]:
    source = tmp_path / clip.name
    source.write_bytes(clip.read_bytes())
    session = PreviewSession(source, Settings(model=str(nearest)))
    yield session
    session.close()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("vidsr")] == []


@pytest.fixture
def page(chromium: Browser, session: PreviewSession) -> Iterator[Page]:
    with Server(session) as server:
        context = chromium.new_context(viewport={"width": 1200, "height": 700}, accept_downloads=True)
        page = context.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(server.start())
        until(page, "window.vidsr?.state.shown > 0")
        yield page
        context.close()
    assert wrong == []


def pause(page: Page) -> float:
    """The time of the frame that is shown then."""
    page.keyboard.press("k")
    until(page, "!window.vidsr.state.playing && window.vidsr.state.exact")
    return float(state(page)["seconds"])


def seek(page: Page, key: str, seconds: float) -> None:
    page.keyboard.press(key)
    until(page, f"window.vidsr.state.exact && Math.abs(window.vidsr.state.seconds - {seconds}) < 1e-6")


def picture(page: Page, folder: Path) -> NDArray[Any]:
    """The canvas, cut to the video."""
    screen = pixels(page, folder)
    height = round(screen.shape[1] * HEIGHT / WIDTH)
    top = max(0, (screen.shape[0] - height) // 2)
    width = min(screen.shape[1], round(screen.shape[0] * WIDTH / HEIGHT))
    left = (screen.shape[1] - width) // 2
    return screen[top : top + height, left : left + width]


def test_plays_in_time_and_the_picture_is_the_frame_it_says(page: Page, tmp_path: Path) -> None:
    until(page, "window.vidsr.state.seconds > 1")
    seconds = pause(page)
    assert number_on(picture(page, tmp_path)) == round(seconds * FPS)


def test_steps_and_seeks_show_the_exact_frame(page: Page, tmp_path: Path) -> None:
    pause(page)
    seek(page, "5", 4.0)
    assert number_on(picture(page, tmp_path)) == 100
    for key, expected in [(".", 101), (".", 102), (",", 101), (",", 100), (",", 99)]:
        seek(page, key, expected / FPS)
        assert number_on(picture(page, tmp_path)) == expected
    page.keyboard.press("End")
    until(page, "window.vidsr.state.exact && window.vidsr.state.seconds > 7.9")
    assert number_on(picture(page, tmp_path)) == FRAMES - 1


def test_another_model_while_it_is_shown(page: Page) -> None:
    pause(page)
    page.locator("#model").select_option("span-fast")
    until(page, "document.getElementById('tag-enlarged').textContent.includes('span-fast')")
    until(page, "window.vidsr.state.exact")


def test_a_snapshot_is_what_the_file_will_hold(page: Page, session: PreviewSession, tmp_path: Path) -> None:
    pause(page)
    page.locator("#model").select_option("span-fast")
    until(page, "document.getElementById('tag-enlarged').textContent.includes('span-fast')")
    seek(page, "5", 4.0)
    with page.expect_download() as download:
        page.keyboard.press("n")
    pair = _rgb(Path(download.value.path()).read_bytes())
    assert download.value.suggested_filename == "numbered-0h00m04.000s-pair.png"
    assert pair.shape == (2 * HEIGHT, 4 * WIDTH, 3)

    output = tmp_path / "whole.mkv"
    vidsr.upscale(tmp_path / "numbered.mp4", output, model="span-fast", encoder="ffv1")
    with av.open(str(output)) as container:
        frame = next(frame for index, frame in enumerate(container.decode(video=0)) if index == 100)
    codes = frame.to_ndarray()
    tags = ColorTags().resolved(height=HEIGHT, width=WIDTH, rgb=False)
    matrix = conversion(tags, tags, source_bits=8, target_bits=8).rgb_from_codes
    expected = np.einsum("rc,chw->hwr", matrix[:, :3], codes.astype(np.float32)) + matrix[:, 3]
    difference = np.abs(pair[:, 2 * WIDTH :] - np.clip(expected * 255, 0, 255))
    assert difference.max() <= 1
    assert np.abs(np.diff(codes[0].astype(int))).max() > 50, "a picture with something in it"


def test_the_job_of_the_page_finishes_and_verifies(page: Page, tmp_path: Path) -> None:
    target = tmp_path / "made.mkv"
    page.get_by_label("Save as").fill(str(target))
    page.get_by_role("button", name="Start").click()
    until(page, "/verified/i.test(document.querySelector('.job').innerText)")
    with av.open(str(target)) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (2 * WIDTH, 2 * HEIGHT)
        assert sum(1 for _ in container.decode(video=0)) == FRAMES


def test_closing_the_tab_stops_the_work_and_opening_it_resumes(page: Page) -> None:
    pause(page)
    seek(page, "3", 2.4)
    address = page.url
    context = page.context
    page.close()
    end = monotonic() + PATIENCE_SECONDS
    for thread in threading.enumerate():
        if thread.name.startswith(("vidsr-show", "vidsr-infer", "vidsr-decode")):
            thread.join(max(0.0, end - monotonic()))
            assert not thread.is_alive()
    again = context.new_page()
    again.goto(address)
    until(again, "window.vidsr?.state.exact && Math.abs(window.vidsr.state.seconds - 2.4) < 1e-6")


def _rgb(data: bytes) -> NDArray[Any]:
    with av.open(io.BytesIO(data)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")
