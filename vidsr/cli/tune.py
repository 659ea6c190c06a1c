"""`vidsr tune`: what is fastest on this machine, kept for later runs."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from vidsr.cli.bench import source_of
from vidsr.cli.shape import Factor, SectionedCommand, Waiting, ending, option, refuse, shared
from vidsr.cli.upscale import upscale
from vidsr.machine import processor

__all__ = ["tune"]

_CLIP_SECONDS = 8
_MOST_SECONDS = 3600


@click.command("tune", cls=SectionedCommand)
@click.argument("source", metavar="[IN]", required=False, type=click.Path(path_type=Path, readable=False))
@option(
    "--size",
    section="What is measured",
    metavar="WxH",
    help="Of the clip that is made where no IN is given.  [default: 640x360]",
)
@option(
    "--seconds",
    type=Factor(),
    default="50",
    show_default=True,
    section="What is measured",
    metavar="N",
    help="How long to measure; slow models and large frames need more for a result that is sure.",
)
@option("--show", is_flag=True, section="Other ways", help="Instead say what is kept.")
@option(
    "--forget",
    is_flag=True,
    section="Other ways",
    help="Instead remove all that is kept; later runs take what is usual.",
)
@option("--json", "as_json", is_flag=True, section="Output", help="As JSON.")
@option("--debug", is_flag=True, section="Output", help="Show the traceback of an error.")
def tune(
    source: Path | None, size: str | None, seconds: Fraction, show: bool, forget: bool, as_json: bool,
    debug: bool, **choices: Any,
) -> None:  # fmt: skip
    """Finds how many frames at once (--streams, --slots) are fastest on this machine, and keeps
    that: later runs take it where these options, and --memory, are not given, and say "tuned".

    Whole runs with IN, or a clip that is made, are measured in turn; nothing else should run meanwhile. Something else
    than the usual is kept only where it is surely faster and gives the same pictures, bit for bit. It holds for this
    machine, model, backend, precision, encoder with its preset, and frames of about this size. What changes the
    picture, such as --precision, is measured as well and left to you.
    """
    if show and forget:
        raise click.UsageError("--show and --forget are two things: ask for one at a time")
    if not 1 <= seconds <= _MOST_SECONDS:
        raise click.UsageError(f"--seconds {float(seconds):g}: give 1 to {_MOST_SECONDS}")
    if show or forget:
        refuse(click.get_current_context(), ("show", "forget", "as_json", "debug"), "nothing is measured then")
    if show:
        _show(as_json)
    elif forget:
        _forget(as_json)
    else:
        _tune(source, size, float(seconds), choices, as_json)


tune.params += shared(
    upscale, "model", "scale", "encoder", "preset", "backend", "device", "precision", section="As in the runs to come"
)


def _tune(source: Path | None, size: str | None, seconds: float, choices: dict[str, Any], as_json: bool) -> None:
    from vidsr import tuning
    from vidsr.benchmark.tune import lines
    from vidsr.benchmark.tune import tune as find
    from vidsr.errors import OutputError
    from vidsr.job import Settings
    from vidsr.job.engine import cache_folder, default_cache

    if source is not None and size is not None:
        raise click.UsageError(f"--size {size} is for the clip that is made where no IN is given")
    cache = default_cache()
    if cache is None:
        raise OutputError(f"{cache_folder()}: cannot be written, so nothing could be kept there")
    waiting, load = Waiting(), processor()["load"]
    with ending(), source_of(source, size, None, _CLIP_SECONDS) as (path, name):
        try:
            found = find(path, Settings(**choices), name=name, load=load, seconds=seconds, tell=waiting)
        finally:
            waiting.clear()
    try:
        path = tuning.keep(cache, found.key, found.chosen)
    except OSError as error:
        raise OutputError(f"{cache / tuning.FOLDER}: cannot be written ({error.strerror or error})") from error
    if as_json:
        click.echo(json.dumps(asdict(found) | {"kept": str(path)}))
        return
    for line in lines(found):
        click.echo(line)


def _show(as_json: bool) -> None:
    from vidsr import tuning
    from vidsr.backends.trt.key import printable
    from vidsr.job.engine import cache_folder

    entries = list(tuning.kept(cache_folder()))
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in entries], default=str))
        return
    if not entries:
        click.echo("nothing is kept: `vidsr tune` finds what is fastest here")
        return
    table = [("model", "frames", "backend", "precision", "streams", "slots", "times the usual", "machine", "found")]
    for entry in entries:
        key, found = entry.key, entry.tuning
        table.append((
            found.model,
            f"about {found.frames}",
            key.library,
            key.precision,
            str(found.streams or "usual"),
            str(found.slots or "usual"),
            f"{found.gain:.2f}",
            key.machine,
            time.strftime("%Y-%m-%d", time.localtime(entry.made)),
        ))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo(printable("  ".join(cells).rstrip()))


def _forget(as_json: bool) -> None:
    from vidsr.compiled import forget
    from vidsr.errors import OutputError

    forgotten = forget()
    if forgotten.obstacles:
        raise OutputError(f"could not remove everything: {forgotten.obstacles[0]}")
    if as_json:
        click.echo(json.dumps({"removed": forgotten.removed}))
    else:
        count = forgotten.removed
        click.echo(f"removed {count} tuning{'s' if count > 1 else ''}" if count else "nothing was kept")
