"""`vidsr build` and `vidsr cache`."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict
from typing import Any

import click

from vidsr.cli.shape import SectionedCommand, interruptible, option, shared
from vidsr.cli.upscale import upscale

__all__ = ["build_engine", "cache"]


class _Sizes(click.ParamType[tuple[tuple[int, int], tuple[int, int] | None]]):
    """WIDTHxHEIGHT, or two of them: ((height, width), the largest or None)."""

    name = "size"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[int, int], tuple[int, int] | None]:
        match = re.fullmatch(r"(\d{1,6})x(\d{1,6})(?:\.\.(\d{1,6})x(\d{1,6}))?", str(value).strip())
        if match is None:
            self.fail(f"{value!r}: write 1920x1080, or 640x360..1920x1080 for every size between", param, ctx)
        width, height, last_width, last_height = (int(part or 0) for part in match.groups())
        return (height, width), (last_height, last_width) if match[3] else None


@click.command("build", cls=SectionedCommand)
@option(
    "--size",
    "sizes",
    type=_Sizes(),
    required=True,
    section="What it is for",
    metavar="WxH[..WxH]",
    help="Of the videos, as stored: 1920x1080. With tensorrt also a range: 640x360..1920x1080.",
)
@option(
    "--pix-fmt",
    default="yuv420p",
    show_default=True,
    section="What it is for",
    metavar="NAME",
    help="Pixel format of the videos.",
)
@option("--json", "as_json", is_flag=True, section="Output", help="As JSON.")
@option("--debug", is_flag=True, section="Output", help="Show the traceback of an error.")
def build_engine(sizes: Any, pix_fmt: str, as_json: bool, debug: bool, **choices: Any) -> None:
    """Compiles a model for one size of video ahead of the first run, and tries it.

    With TensorRT that takes minutes and is done once for each size, precision, card and driver; the first run of such
    a video does the same. Other backends take seconds.
    """
    from vidsr.compiled import build
    from vidsr.job import Settings

    size, largest = sizes
    shown = -1

    def progress(done: float) -> None:
        nonlocal shown
        if int(done * 20) > shown:
            shown = int(done * 20)
            click.echo(f"compiling {done:.0%}", err=True)

    def warn(text: str) -> None:
        click.echo(f"warning: {text}", err=True)

    with interruptible() as (stop, _):
        built = build(
            size,
            largest=largest,
            pix_fmt=pix_fmt,
            settings=Settings(**choices),
            on_progress=progress,
            on_warning=warn,
            stop=stop,
        )
    if as_json:
        click.echo(json.dumps(asdict(built)))
        return
    frames = "1 frame" if built.slots == 1 else f"{built.slots} frames"
    click.echo(
        f"{built.engine}: ready in {built.seconds:.1f} s, room for {frames} in flight, "
        f"{1000 * built.frame_seconds:.1f} ms for one alone"
    )


build_engine.params += shared(
    upscale, "model", "scale", "guard", "backend", "device", "precision", "slots", section="As in the runs to come"
)


@click.group("cache")
def cache() -> None:
    """Compiled models and tunings that vidsr keeps: `vidsr cache list`, `clear` or `path`."""


@cache.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_kept(as_json: bool) -> None:
    """Lists them with their size and age: TensorRT's plans with model, sizes and card; of OpenVINO's compiled graphs
    no more is known. What tunings say is shown by `vidsr tune --show`."""
    from vidsr.compiled import kept
    from vidsr.progress import human_bytes

    entries = list(kept())
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in entries], default=str))
        return
    if not entries:
        click.echo("nothing is kept yet")
        return
    lines = [("what", "made for", "size", "made", "file")]
    for entry in entries:
        day = time.strftime("%Y-%m-%d", time.localtime(entry.built)) if entry.built else "unknown"
        lines.append((entry.what, entry.made_for, human_bytes(entry.bytes), day, entry.path.name))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@cache.command("clear")
def clear_kept() -> None:
    """Removes them; the next runs compile again, and take what is usual."""
    from vidsr.compiled import clear, forget
    from vidsr.errors import OutputError

    models, tunings = clear(), forget()
    obstacles = models.obstacles + tunings.obstacles
    counts = {"compiled model": models.removed, "tuning": tunings.removed}
    said = " and ".join(f"{count} {what}{'s' if count > 1 else ''}" for what, count in counts.items() if count)
    if said or not obstacles:
        click.echo(f"removed {said}" if said else "nothing was kept")
    if obstacles:
        more = f" (and {len(obstacles) - 1} more)" if len(obstacles) > 1 else ""
        raise OutputError(f"could not remove everything: {obstacles[0]}{more}")


@cache.command("path")
def show_path() -> None:
    """Prints the folder they lie in."""
    from vidsr.job.engine import cache_folder

    click.echo(cache_folder())
