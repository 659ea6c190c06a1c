"""The page, in a real browser, with a session of plain colours behind the real server."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.preview.browser import FPS, FRAMES, HEIGHT, WIDTH, ColorSession, pixels, state, until
from vidsr.preview import wire
from vidsr.preview.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Open = Callable[..., "Page"]

NO_SOCKET = "delete window.WebSocket"
DEAD_SOCKET = """window.WebSocket = class {
  constructor() { setTimeout(() => this.onclose({ reason: "" })); }
  close() {}
  send() {}
}"""


@pytest.fixture
def session(request: pytest.FixtureRequest) -> ColorSession:
    return ColorSession(**getattr(request, "param", {}))


@pytest.fixture
def server(session: ColorSession) -> Iterator[Server]:
    with Server(session) as server:
        yield server


@pytest.fixture
def open_page(chromium: Browser, server: Server) -> Iterator[Open]:
    """Opens the page, with a picture on it; in the end nothing may have gone wrong in the browser."""
    address = server.start()
    wrong: list[str] = []

    def open_page(width: int = 1200, height: int = 700, script: str = "", shown: bool = True, **more: Any) -> Page:
        size = {"width": width, "height": height}
        context = chromium.new_context(viewport=size, reduced_motion="reduce", **more)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        if script:
            page.add_init_script(script)
        page.goto(address)
        if shown:
            until(page, "window.vidsr?.state.shown > 0")
        return page

    yield open_page
    for context in chromium.contexts:
        context.close()
    offline = [text for text in wrong if "ERR_INTERNET_DISCONNECTED" in text]
    assert [text for text in wrong if text not in offline] == []


def commands(session: ColorSession, page: Page, count: int) -> list[wire.Command]:
    """Those that the session has got, once there are so many, without where people look."""

    def got() -> list[wire.Command]:
        return [command for command in session.takes if not isinstance(command, wire.Look)]

    for _ in range(1000):
        if len(got()) >= count:
            break
        page.wait_for_timeout(20)
    return got()


def border(screen: NDArray[Any]) -> int:
    """The first column of the enlarged picture."""
    row = screen[screen.shape[0] // 2].astype(int)
    return int(np.argmax(row[:, 2] - row[:, 0] > 100))


def band(screen: NDArray[Any]) -> tuple[int, int]:
    """(first, last) of the columns that are white."""
    white = np.flatnonzero((screen[screen.shape[0] // 2] > 250).all(axis=-1))
    return int(white[0]), int(white[-1])


# What is seen.


def test_the_border_goes_where_it_is_dragged(open_page: Open, session: ColorSession, tmp_path: Path) -> None:
    page = open_page()
    screen = pixels(page, tmp_path)
    width = screen.shape[1]
    assert border(screen) == pytest.approx(width / 2, abs=1)
    box = page.locator("#split").bounding_box()
    canvas = page.locator("#canvas").bounding_box()
    assert box and canvas
    page.mouse.move(box["x"], box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(canvas["x"] + width / 4, 300, steps=4)
    page.mouse.up()
    assert border(pixels(page, tmp_path)) == pytest.approx(width / 4, abs=2)
    assert page.locator("#split").get_attribute("aria-valuenow") == "25"
    assert commands(session, page, 0) == []
    page.mouse.dblclick(canvas["x"] + width / 4, 300)
    assert border(pixels(page, tmp_path)) == pytest.approx(width / 2, abs=1)


def test_the_border_follows_the_keyboard(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    slider = page.get_by_role("slider", name="Border between original and enlarged")
    slider.focus()
    for key, share in (("ArrowRight", 52), ("ArrowLeft", 50), ("PageDown", 40), ("End", 100), ("Home", 0)):
        page.keyboard.press(key)
        until(page, f"document.getElementById('split').getAttribute('aria-valuenow') === '{share}'")
    assert border(pixels(page, tmp_path)) == 0


def test_one_finger_moves_the_border_too(open_page: Open, tmp_path: Path) -> None:
    page = open_page(400, 800, has_touch=True)
    page.evaluate(
        """() => {
        const stage = document.getElementById("stage");
        stage.setPointerCapture = () => {};
        const box = stage.getBoundingClientRect();
        const at = (kind, share) => stage.dispatchEvent(new PointerEvent(kind, { pointerId: 7, pointerType: "touch",
          bubbles: true, isPrimary: true, clientX: box.left + share * box.width, clientY: box.top + 50 }));
        at("pointerdown", 0.5);
        for (const share of [0.55, 0.6, 0.65, 0.7]) at("pointermove", share);
        at("pointerup", 0.7);
      }"""
    )
    screen = pixels(page, tmp_path)
    assert border(screen) == pytest.approx(0.7 * screen.shape[1], abs=2)


@pytest.mark.parametrize("density", [1, 2])
def test_zoom_shows_the_same_place_in_both_halves(open_page: Open, tmp_path: Path, density: int) -> None:
    page = open_page(device_scale_factor=density)
    page.get_by_role("button", name="Side by side").click()
    for zoom, name in ((1, "100"), (2, "200"), (4, "400"), (8, "800 %")):
        page.get_by_role("button", name=name, exact=True).click()
        screen = pixels(page, tmp_path)
        assert state(page)["view"]["factor"] == zoom
        half = (screen.shape[1] - 2 * density) // 2  # with a gap between
        left, right = band(screen[:, :half]), band(screen[:, -half:])
        # Columns 168 to 175 of the output, one of the screen's own pixels for each at 100 %.
        assert right[1] - right[0] + 1 == 8 * zoom
        assert sum(left) / 2 == pytest.approx(sum(right) / 2, abs=1)


def test_from_200_percent_on_pixels_are_squares(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    page.get_by_role("button", name="400", exact=True).click()

    def blurred() -> tuple[int, int]:
        """How many columns of the screen at the band's edges are neither, in the original and the enlarged one."""
        counts = []
        for key in ("a", None):
            if key:
                page.keyboard.down(key)
            row = pixels(page, tmp_path)[300].astype(int)
            if key:
                page.keyboard.up(key)
            counts.append(int(((row[:, 1] > 5) & (row[:, 1] < 250)).sum()))
        return counts[0], counts[1]

    page.keyboard.press("Home")
    page.evaluate("document.getElementById('split').focus()")
    page.keyboard.press("Home")
    smooth, square = blurred()
    assert smooth > 4
    assert square == 0
    page.get_by_role("button", name="Pixels of the original as squares").click()
    assert blurred() == (0, 0)


def test_the_wheel_zooms_where_the_pointer_is(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    page.keyboard.press("x")
    before = band(pixels(page, tmp_path))
    canvas = page.locator("#canvas").bounding_box()
    assert canvas
    page.mouse.move(canvas["x"] + before[0], canvas["y"] + canvas["height"] / 2)
    page.mouse.wheel(0, -100)
    until(page, "vidsr.state.view.zoom > 0")
    after = band(pixels(page, tmp_path))
    assert after[0] == pytest.approx(before[0], abs=2)
    assert after[1] > before[1] + 4


@pytest.mark.parametrize("session", [{"turn": 90}, {"turn": 270, "mirrored": True}], indirect=True)
def test_a_turned_video_stands_upright(open_page: Open, session: ColorSession, tmp_path: Path) -> None:
    session.box = [0, 0, WIDTH // 4, HEIGHT]
    page = open_page()
    page.keyboard.press("x")
    screen = pixels(page, tmp_path)
    blue = np.argwhere((screen[..., 2] > 180) & (screen[..., 0] < 50))
    high, wide = np.ptp(blue, axis=0) + 1
    middle = screen.shape[1] / 2
    assert blue[:, 1].mean() == pytest.approx(middle, abs=2)  # a bar that is as wide as the stored picture is high
    assert wide / high == pytest.approx(HEIGHT / (WIDTH / 4), rel=0.03)
    # The stored picture's left is at the top either way: turned right, or mirrored and turned left.
    assert blue[:, 0].max() < screen.shape[0] / 3
    assert page.get_by_text("Only the framed part is enlarged").is_visible()


@pytest.mark.parametrize("session", [{"aspect": "2:1"}], indirect=True)
def test_wide_pixels_are_shown_wide(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    page.keyboard.press("x")
    screen = pixels(page, tmp_path)
    blue = np.argwhere((screen[..., 2] > 180) & (screen[..., 0] < 50))
    high, wide = np.ptp(blue, axis=0) + 1
    assert wide / high == pytest.approx(2 * WIDTH / HEIGHT, rel=0.02)


@pytest.mark.parametrize("view", ["s", "d", "x"])
@pytest.mark.parametrize(("width", "text"), [(360, 100), (768, 100), (400, 200), (1024, 200)])
def test_nothing_is_wider_than_the_window(open_page: Open, width: int, text: int, view: str) -> None:
    page = open_page(width, 740)
    page.evaluate(f"document.documentElement.style.fontSize = '{text}%'")
    page.keyboard.press(view)
    page.get_by_text("More", exact=True).click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


# What is done.


@pytest.mark.parametrize(
    ("key", "command"),
    [
        (" ", wire.Play()),
        ("k", wire.Play()),
        (".", wire.Step(by=1)),
        (",", wire.Step(by=-1)),
        ("ArrowRight", wire.Seek(seconds=5)),
        ("l", wire.Seek(seconds=10)),
        ("j", wire.Seek(seconds=0)),
        ("End", wire.Seek(seconds=FRAMES / FPS)),
        ("Home", wire.Seek(seconds=0)),
        ("7", wire.Seek(seconds=7)),
    ],
)
def test_keys_are_commands(open_page: Open, session: ColorSession, key: str, command: wire.Command) -> None:
    page = open_page()
    page.keyboard.press(key)
    assert commands(session, page, 1) == [command]


def test_keys_belong_to_the_field_that_is_typed_into(open_page: Open, session: ColorSession) -> None:
    page = open_page()
    page.get_by_label("Save as").fill("")
    page.get_by_label("Save as").type("k 5.mp4")
    assert page.get_by_label("Save as").input_value() == "k 5.mp4"
    page.get_by_role("button", name="Play").press(" ")
    assert commands(session, page, 1) == [wire.Play()]


def test_the_help_lists_every_key(open_page: Open) -> None:
    page = open_page()
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    assert "play or pause" in dialog.inner_text()
    page.keyboard.press("k")  # is for the page below
    page.keyboard.press("Escape")
    assert dialog.is_hidden()
    assert not state(page)["playing"]


def test_choices_while_it_plays(open_page: Open, session: ColorSession) -> None:
    page = open_page()
    page.get_by_role("combobox", name="Model").select_option("span-fast")
    until(page, "document.getElementById('tag-enlarged').textContent === 'span-fast 2x'")
    page.get_by_role("combobox", name="Model").select_option("span")
    page.get_by_role("button", name="4\N{MULTIPLICATION SIGN}").click()
    until(page, "document.getElementById('tag-enlarged').textContent === 'span 4x'")
    page.get_by_role("combobox", name="Model").select_option("span-fast")  # which has no 4
    page.get_by_role("button", name="Leave out frames").click()
    assert commands(session, page, 5) == [
        wire.Choose(model="span-fast", scale=None),
        wire.Choose(model="span", scale=None),
        wire.Choose(model="span", scale="4"),
        wire.Choose(model="span-fast", scale=None),
        wire.Smooth(how="drop"),
    ]


def test_it_plays_and_stops_at_the_picture_that_is_seen(open_page: Open, session: ColorSession, tmp_path: Path) -> None:
    page = open_page()
    page.get_by_role("button", name="Play").click()
    until(page, "vidsr.state.seconds >= 1")
    page.get_by_role("button", name="Pause").click()
    until(page, "!vidsr.state.playing && vidsr.state.exact")
    shown = state(page)["seconds"]
    assert commands(session, page, 2)[-1] == wire.Pause(seconds=shown)
    assert pixels(page, tmp_path)[300, 10, 1] == 2 * round(shown * FPS)
    assert page.locator("#time").inner_text() == f"0:00:0{shown:.3f}"
    told = [clock.seconds for clock in session.clocks]
    assert told == sorted(told)
    assert session.clocks[-1].shown <= 1 + 1 + round(shown * FPS)


def test_steps_and_seeks_show_the_exact_frame(open_page: Open, session: ColorSession, tmp_path: Path) -> None:
    page = open_page()
    for key, index in ((".", 1), (".", 2), (",", 1), ("5", 50), (",", 49), ("Home", 0)):
        page.keyboard.press(key)
        until(page, f"vidsr.state.pts === '{index}/{FPS}' && vidsr.state.exact")
        assert pixels(page, tmp_path)[300, 10, 1] == 2 * index
    slider = page.get_by_role("slider", name="Position")
    box = slider.bounding_box()
    assert box
    page.mouse.click(box["x"] + box["width"] * 0.305, box["y"] + box["height"] / 2)
    until(page, f"vidsr.state.pts === '30/{FPS}'")
    assert slider.get_attribute("aria-valuetext") == "0:00:03.000 of 10 s"


def test_pictures_are_let_go(open_page: Open) -> None:
    count = """
      window.open = 0;
      const make = createImageBitmap, close = ImageBitmap.prototype.close;
      window.createImageBitmap = (...given) => make(...given).then((made) => { window.open += 1; return made; });
      ImageBitmap.prototype.close = function () { window.open -= 1; close.call(this); };"""
    page = open_page(script=count)
    page.keyboard.press("k")
    until(page, "vidsr.state.seconds >= 1")
    page.keyboard.press("5")
    until(page, "vidsr.state.seconds >= 5.5")
    page.keyboard.press("k")
    until(page, "vidsr.state.exact")
    until(page, "window.open === 2")  # the pair on screen


def test_a_paused_page_draws_nothing(open_page: Open) -> None:
    count = """
      window.draws = 0;
      window.frame = requestAnimationFrame;
      window.requestAnimationFrame = (draw) => { window.draws += 1; return window.frame(draw); };"""
    page = open_page(script=count)
    page.keyboard.press("k")
    until(page, "vidsr.state.seconds >= 0.2")
    drawn = """async () => {
      const before = window.draws;
      for (let turn = 0; turn < 20; turn += 1) await new Promise((done) => window.frame(done));
      return window.draws - before;
    }"""
    assert page.evaluate(drawn) > 0
    page.keyboard.press("k")
    until(page, "vidsr.state.exact")
    assert page.evaluate(drawn) == 0


@pytest.mark.parametrize(("session", "look"), [({}, (1, 0.5)), ({"turn": 90}, (0.5, 0))], indirect=["session"])
def test_the_session_hears_where_people_look(open_page: Open, session: ColorSession, look: tuple[float, float]) -> None:
    """In shares of the picture as stored: the right of one that is turned is its top."""
    page = open_page()
    page.get_by_role("button", name="800 %").click()
    for _ in range(40):
        page.keyboard.press("Shift+ArrowRight")

    def at() -> tuple[float, float]:
        last = [command for command in session.takes if isinstance(command, wire.Look)][-1:]
        return (last[0].x, last[0].y) if last else (0.5, 0.5)

    for _ in range(1000):
        if at() == pytest.approx(look, abs=0.35):
            break
        page.wait_for_timeout(20)
    assert at() == pytest.approx(look, abs=0.35)


# What is told.


def test_figures_and_forecast(open_page: Open, session: ColorSession) -> None:
    page = open_page()
    figures = {"source_fps": 24.0, "made_fps": 12.1, "dropped": 3, "dropped_link": 2, "latency_ms": 120}
    figures |= {"limit": "model", "busy": {"model": 0.98}, "engine": "openvino CPU bf16"}
    session.tell(tell="stats", **figures, job_fps=12.1, job_seconds=2400)
    live = page.get_by_label("Right now")
    live.get_by_text("The model is what takes the time.").wait_for()
    for text in ("12", "3 frames, 2 by the connection", "120 ms", "model 98 %", "openvino CPU bf16"):
        assert text in live.inner_text()
    forecast = page.locator("#forecast")
    assert forecast.inner_text() == "About 40 min with span, 12.1 frames a second"
    page.get_by_role("button", name="Measure time and size").click()
    assert commands(session, page, 1) == [wire.Predict()]
    session.tell(tell="predicted", state="measuring", seconds=None, bytes=None, fps=None, text=None)
    page.get_by_role("progressbar", name="Measuring").wait_for()
    session.tell(tell="predicted", state="done", seconds=4000.0, bytes=123456789, fps=12.3, text=None)
    until(page, "document.getElementById('forecast').textContent === '1 h 7 min, about 123 MB, 12.3 frames a second'")


def test_a_job_from_start_to_result(open_page: Open, session: ColorSession) -> None:
    page = open_page()
    page.get_by_label("Save as").fill("/films/it's.mp4")
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Quality (crf)").fill("16.5")
    line = "vidsr colours.mp4 '/films/it'\\''s.mp4' --model span --crf 16.5"
    assert page.locator("#command").inner_text() == line
    page.get_by_role("button", name="Start").click()
    job = wire.Job(target="/films/it's.mp4", overwrite=False, crf=16.5)
    assert commands(session, page, 1) == [job]
    told = {"tell": "job", "text": "", "target": "/films/o.mp4", "total": 720, "fps": 11.9, "left_seconds": 59.0,
            "written_bytes": 1000, "phase": None, "limit": "model", "verified": None, "faults": [], "warnings": [],
            "command": "vidsr all of it"}  # fmt: skip
    session.tell(**told, state="running", frames=360, done=0.5)
    page.get_by_text("59 s left").wait_for()
    assert page.get_by_role("progressbar", name="Job").get_attribute("value") == "0.5"
    assert page.get_by_role("button", name="Job 50 %: show it").is_visible()
    assert page.title() == "50 % colours.mp4 \N{EN DASH} vidsr"
    assert page.locator("#command").inner_text() == "vidsr all of it"
    page.get_by_role("button", name="Stop").click()
    assert commands(session, page, 2)[-1] == wire.StopJob()
    session.tell(**{**told, "verified": True}, state="done", frames=720, done=1.0)
    page.get_by_text("Done and verified").wait_for()
    session.tell(**{**told, "faults": ["frame 7 is another"]}, state="done", frames=720, done=1.0)
    page.get_by_text("Done, but it differs from the input").wait_for()
    assert page.get_by_text("frame 7 is another").is_visible()
    session.tell(**{**told, "text": "the disk is full"}, state="failed", frames=3, done=None)
    page.get_by_text("the disk is full").wait_for()
    page.get_by_role("button", name="Back").click()
    assert page.get_by_role("button", name="Start").is_visible()


@pytest.mark.parametrize("session", [{"mode": "watch", "sound": False}], indirect=True)
def test_a_job_that_is_watched(open_page: Open, session: ColorSession) -> None:
    page = open_page()
    for name in ("Play", "Position", "Model", "Start", "Measure time and size"):
        assert page.get_by_label(name, exact=True).or_(page.get_by_role("button", name=name)).first.is_hidden()
    session.take(wire.Step(by=1))
    until(page, "vidsr.state.seconds === 0.1")
    assert page.locator("#time").inner_text() == "0:00:00.100"
    session.tell(
        tell="job", state="running", text="", target="o.mp4", frames=1, total=10, fps=1.0, left_seconds=9.0,
        written_bytes=0, phase="verifying", done=0.1, limit=None, verified=None, faults=[], warnings=[],
    )  # fmt: skip
    page.get_by_text("Verifying against the input").wait_for()
    page.keyboard.press("k")
    page.get_by_role("button", name="Stop").click()
    assert commands(session, page, 2) == [wire.Step(by=1), wire.StopJob()]


def test_what_the_page_does_not_know_is_let_pass(open_page: Open, session: ColorSession) -> None:
    page = open_page()
    session.tell(tell="weather", text="fine")
    session.tell(tell="constructor")
    session.tell(nothing="at all")
    session.send({"kind": "smell"}, b"rose")
    session.tell(tell="notice", text="<b>still</b> here", level="info")
    page.get_by_text("<b>still</b> here").wait_for()
    page.keyboard.press(".")
    until(page, f"vidsr.state.pts === '1/{FPS}'")


# The link.


@pytest.mark.parametrize("script", [NO_SOCKET, DEAD_SOCKET])
def test_without_sockets_it_polls(open_page: Open, session: ColorSession, script: str) -> None:
    page = open_page(script=script)
    assert state(page)["link"] == "poll"
    page.keyboard.press(".")
    until(page, f"vidsr.state.pts === '1/{FPS}'")
    page.keyboard.press("k")
    until(page, "vidsr.state.seconds >= 2")
    page.keyboard.press("k")
    until(page, "vidsr.state.exact")
    assert [type(command) for command in commands(session, page, 3)] == [wire.Step, wire.Play, wire.Pause]


def test_one_viewer_at_a_time(open_page: Open, session: ColorSession) -> None:
    first = open_page()
    second = open_page()
    first.get_by_role("alertdialog", name="Playing in another tab").wait_for()
    first.wait_for_timeout(1000)  # it would be back by then
    assert state(first)["link"] == "none"
    assert session.attached == 2
    first.get_by_role("button", name="Continue here").click()
    second.get_by_role("alertdialog", name="Playing in another tab").wait_for()
    assert first.get_by_role("alertdialog").is_hidden()
    first.keyboard.press(".")
    until(first, f"vidsr.state.pts === '1/{FPS}'")


def test_what_cannot_be_shown_is_said(open_page: Open, session: ColorSession) -> None:
    page = open_page()
    session.tell(tell="broken", text="song.m4a: no video in it")
    dialog = page.get_by_role("alertdialog", name="This cannot be shown")
    dialog.get_by_text("song.m4a: no video in it").wait_for()
    assert page.evaluate("document.getElementById('app').inert")
    assert dialog.get_by_role("button").count() == 0
    assert session.detached.wait(20)
    assert session.attached == 1


def test_a_lost_link_is_found_again(open_page: Open, session: ColorSession) -> None:
    page = open_page()
    page.context.set_offline(True)
    outbox: Any = session.outbox
    outbox.close()
    page.get_by_role("alertdialog", name="Connection lost").wait_for()
    page.context.set_offline(False)
    page.get_by_role("alertdialog").wait_for(state="hidden")
    page.keyboard.press(".")
    until(page, f"vidsr.state.pts === '1/{FPS}'")
    assert session.attached == 2


# For everybody.


@pytest.mark.parametrize("width", [360, 1200])
def test_every_control_has_a_name(open_page: Open, session: ColorSession, width: int) -> None:
    page = open_page(width)
    page.get_by_text("More", exact=True).click()
    page.keyboard.press("x")
    session.tell(tell="notice", text="something", level="error")
    page.get_by_text("something").wait_for()
    tree = page.locator("body").aria_snapshot()
    controls = re.findall(r"- (button|slider|textbox|combobox|checkbox|spinbutton|link|meter)\b(.*)", tree)
    assert len(controls) > 25
    assert [role for role, rest in controls if not rest.startswith(' "')] == []


def test_the_keyboard_reaches_every_control_and_leaves_it(open_page: Open) -> None:
    page = open_page()
    seen: list[str] = []
    for _ in range(80):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")
        if name in seen[:1]:
            break
        seen.append(name)
    assert {"theme", "help-open", "split", "seek", "play", "volume", "snapshot"} <= {*seen}
    assert {"model", "predict", "target", "overwrite", "copy", "job-start"} <= {*seen}
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_colours_are_the_systems_until_somebody_chooses(open_page: Open) -> None:
    page = open_page(color_scheme="dark")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(ground)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(ground)
    assert dark != light
    page.keyboard.press("t")
    page.keyboard.press("t")
    assert page.evaluate(ground) == dark
    page.reload()
    until(page, "window.vidsr?.state.shown > 0")
    assert page.evaluate(ground) == dark


def test_a_snapshot_is_saved_under_the_servers_name(open_page: Open) -> None:
    page = open_page()
    with page.expect_download() as download:
        page.keyboard.press("n")
    assert download.value.suggested_filename == "colours-pair.png"
