"""`vidsr bench`: how fast this machine enlarges video, what limits it, and what would help."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from vidsr.cli.evaluate import Numbers
from vidsr.cli.shape import Factor, SectionedCommand, Waiting, ending, option, refuse, shared
from vidsr.cli.upscale import upscale
from vidsr.machine import processor

if TYPE_CHECKING:
    from vidsr.benchmark.clip import Kind
    from vidsr.benchmark.sweep import Way
    from vidsr.job import Settings

__all__ = ["bench", "source_of"]

_SIZE, _SECONDS, _LEAST_SECONDS = "640x360", 20, 2
_USUAL_PIXELS = 1280 * 720
"""Up to which a clip has all of its seconds."""
_ROUNDS, _SWEEP_ROUNDS = 3, 5
_AS_VIDSR = "As vidsr"
_HELP = """Measures how fast this machine enlarges video, says what limits it, and what would help.

With IN, that video is measured as it is; without it a clip is made. First what the machine can do at most, then every
stage alone, then whole runs in turn with them; at last what might help is tried for a moment. A minute or two, more
where stages are slow; nothing else should run meanwhile. It keeps nothing but what is asked for, and compiled models in
the cache; it sends nothing anywhere.

\b
  vidsr bench                                   640x360, with the settings that `vidsr` takes by itself
  vidsr bench in.mkv --encoder libx265 --preset slow      what that would be like with your video
  vidsr bench --size 1920x1080 --model span-fast --sink null        the model without an encoder
  vidsr bench --json before.json                keep what was found; then, after a change:
  vidsr bench --json after.json && vidsr bench --compare before.json after.json
  vidsr bench --against '--model span-fast'     what an option changes, both ways measured in turn
  vidsr bench --sweep backend,precision         all that this machine has, against each other
  vidsr bench --plot bench.svg                  a picture of it

"of the time": what part of a frame's time a stage is the reason for, where decoder, model and encoder share the cores.
"of its limit": how near it is to what was measured as the most that arithmetic, memory or bus can do.
"""


@click.command("bench", cls=SectionedCommand, help=_HELP)
@click.argument("source", metavar="[IN]", required=False, type=click.Path(path_type=Path, readable=False))
@option(
    "--size",
    section="What is measured",
    metavar="WxH|NAME|N%",
    help="Of the clip that is made, as WIDTHxHEIGHT; of the output where IN is given, as for `vidsr`.  "
    "[default: 640x360]",
)
@option(
    "--kind",
    type=click.Choice(["live", "screen", "drawn"]),
    section="What is measured",
    help="Of the clip that is made: live action, a recorded screen, animation.  [default: live]",
)
@option(
    "--seconds",
    type=Factor(),
    section="What is measured",
    metavar="N",
    help="How long that clip is, or how much of IN is taken.  [default: 20, less above 720p; all of IN]",
)
@option(
    "--frames",
    type=click.IntRange(1),
    section="What is measured",
    metavar="N",
    help="Of one run.  [default: as many as take about seven seconds]",
)
@option(
    "--sink",
    type=click.Choice(["file", "null"]),
    default="file",
    show_default=True,
    section="What is measured",
    help="Encode into a file that is thrown away, or do not encode at all.",
)
@option(
    "--rounds",
    type=click.IntRange(1, 1000),
    section="What is measured",
    metavar="N",
    help="How often everything is measured.  [default: 3; of a sweep 5]",
)
@option(
    "--sweep",
    section="Other ways",
    metavar="LIST",
    help="Instead measure whole runs with everything there is of these, in turn: backend, precision, slots, streams; "
    "with commas between.",
)
@option(
    "--against",
    "others",
    multiple=True,
    section="Other ways",
    metavar="'OPTIONS'",
    help="Instead measure whole runs with and without these options of vidsr, in turn, and say what the difference is; "
    "may be repeated.",
)
@option(
    "--compare",
    type=click.Path(path_type=Path),
    nargs=2,
    section="Other ways",
    metavar="A.json B.json",
    help="Instead say what changed between two results of --json, and whether it is more than noise.",
)
@option(
    "--json",
    "json_target",
    is_flag=False,
    flag_value="-",
    section="Output",
    metavar="[FILE.json]",
    help="Keep the result as JSON; without a name, JSON on standard output instead of the table.",
)
@option(
    "--plot",
    type=click.Path(path_type=Path),
    section="Output",
    metavar="FILE.svg|png",
    help="Draw it. Needs matplotlib.",
)
@option("--debug", is_flag=True, section="Output", help="Show the traceback of an error.")
def bench(
    source: Path | None,
    size: str | None,
    kind: Kind | None,
    seconds: Any,
    sweep: str | None,
    others: tuple[str, ...],
    compare: tuple[Path, Path] | None,
    json_target: str | None,
    plot: Path | None,
    debug: bool,
    **choices: Any,
) -> None:
    """Measures, compares or sweeps."""
    if sum((sweep is not None, bool(others), bool(compare))) > 1:
        raise click.UsageError("--sweep, --against and --compare answer three questions: ask one at a time")
    if compare:
        refuse(click.get_current_context(), ("compare", "json_target", "debug"), "--compare measures nothing")
    _check_output(json_target, plot)
    if compare:
        _compare(compare, json_target)
        return
    measured = {name: choices.pop(name) for name in ("frames", "sink", "rounds")}
    settings = _settings(choices, size if source is not None else None, seconds if source is not None else None)
    load = processor()["load"]
    with ending(), source_of(source, size, kind, seconds) as (path, name):
        if sweep is not None or others:
            _in_turn(path, name, sweep, others, settings, measured, json_target, plot)
        else:
            _bench(path, name, settings, measured | {"load": load}, json_target, plot)


bench.params += shared(
    upscale,
    "model", "scale", "encoder", "crf", "preset", "encoder_options",
    "backend", "device", "precision", "hwaccel", "memory_bytes", "slots", "streams", "reuse",
    section=_AS_VIDSR,
)  # fmt: skip


def _check_output(json_target: str | None, plot: Path | None) -> None:
    """Finds out before the minutes what would fail behind them. Raises UsageError."""
    for name, path in (("--json", json_target), ("--plot", plot)):
        if path not in (None, "-") and not Path(path).parent.is_dir():
            raise click.UsageError(f"{name} {path}: there is no folder {Path(path).parent}")
    if json_target is not None and json_target != "-" and not json_target.lower().endswith(".json"):
        raise click.UsageError(
            f"--json {json_target}: name a file that ends in .json; for standard output write --json -, or put it last"
        )
    if plot is None:
        return
    if find_spec("matplotlib") is None:
        raise click.UsageError("--plot needs matplotlib: pip install 'vidsr[bench]'")
    from vidsr.benchmark.plot import check

    check(plot)


def _settings(choices: dict[str, Any], size: str | None, seconds: Any) -> Settings:
    """size, seconds: where there is an IN."""
    from vidsr.job import Settings

    given = {name: value for name, value in choices.items() if value is not None}
    given["encoder_options"] = dict(given["encoder_options"])
    return Settings(size=size, end=seconds, **given)


@contextmanager
def source_of(source: Path | None, size: str | None, kind: Kind | None, seconds: Any) -> Iterator[tuple[Path, str]]:
    """What to measure with, and its name; what is made for that is gone behind the block."""
    if source is not None:
        if kind is not None:
            raise click.UsageError(f"--kind {kind} is for the clip that is made where no IN is given")
        yield source, source.name
        return
    from vidsr.benchmark.clip import generate

    chosen: Kind = kind or "live"
    try:
        width, height = Numbers("WxH", "x").convert(size or _SIZE, None, None)
    except click.BadParameter:
        raise click.UsageError(f"--size {size}: write the size of the clip that is made as {_SIZE}") from None
    # Large frames take so long that fewer will do.
    usual = min(_SECONDS, max(_LEAST_SECONDS, _SECONDS * _USUAL_PIXELS / max(1, width * height)))
    with tempfile.TemporaryDirectory(prefix="vidsr-bench-") as folder:
        waiting = Waiting()
        waiting("making a clip")
        try:
            path = generate(Path(folder), width, height, float(seconds or usual), chosen)
        finally:
            waiting.clear()
        yield path, f"generated clip ({chosen})"


def _bench(
    source: Path, name: str, settings: Settings, measured: dict[str, Any], json_target: str | None, plot: Path | None
) -> None:
    from vidsr.benchmark import result
    from vidsr.benchmark.measure import measure
    from vidsr.benchmark.table import lines

    measured["rounds"] = measured["rounds"] or _ROUNDS
    waiting = Waiting()
    try:
        found = measure(source, settings, name=name, tell=waiting, **measured)
    finally:
        waiting.clear()
    if json_target == "-":
        click.echo(result.text(found))
    else:
        for line in lines(found, **_bars()):
            click.echo(line)
    if json_target not in (None, "-"):
        result.write(Path(json_target), found)
    if plot is not None:
        from vidsr.benchmark.plot import result_figure, save

        save(result_figure(found), plot)


def _compare(files: tuple[Path, Path], json_target: str | None) -> None:
    from vidsr.benchmark.comparison import compare, lines
    from vidsr.benchmark.result import read

    first, second = files
    found = compare(read(first), read(second), (str(first), str(second)))
    _say(json_target, asdict(found), lines(found))


def _in_turn(
    source: Path,
    name: str,
    dimensions: str | None,
    others: tuple[str, ...],
    settings: Settings,
    measured: dict[str, Any],
    json_target: str | None,
    plot: Path | None,
) -> None:
    from vidsr.benchmark import sweep

    if dimensions is not None:
        ways, base = sweep.ways_of(dimensions.split(","), settings), None
    else:
        base = "without it"
        ways = [sweep.Way(name=base, options={}, settings=settings), *_ways(others, settings)]
    measured["rounds"] = measured["rounds"] or _SWEEP_ROUNDS
    waiting = Waiting()
    try:
        found = sweep.measure(source, ways, base=base, name=name, tell=waiting, **measured)
    finally:
        waiting.clear()
    ends = sweep.verdicts(found) if base else [sweep.fastest(found)]
    _say(json_target, asdict(found), [*sweep.lines(found), "", *ends])
    if plot is not None:
        from vidsr.benchmark.plot import save, sweep_figure

        save(sweep_figure(found), plot)


def _ways(others: Iterable[str], settings: Settings) -> Iterator[Way]:
    """The settings with other options, each written as on a command line. Raises UsageError."""
    from vidsr.benchmark.sweep import Way

    for text in dict.fromkeys(others):
        try:
            given = bench.make_context("--against", shlex.split(text), help_option_names=[])
        except (ValueError, click.UsageError) as error:
            raise click.UsageError(f"--against {text!r}: {error}") from error
        own = {parameter.name for parameter in bench.params if getattr(parameter, "section", "") == _AS_VIDSR}
        named = [name for name in given.params if given.get_parameter_source(name) is ParameterSource.COMMANDLINE]
        if not named or not own.issuperset(named):
            raise click.UsageError(f"--against {text!r}: name options of `vidsr IN OUT`, such as '--model span-fast'")
        chosen = {name: given.params[name] for name in named}
        if "encoder_options" in chosen:
            chosen["encoder_options"] = {**settings.encoder_options, **dict(chosen["encoder_options"])}
        yield Way(name=text, options=chosen, settings=replace(settings, **chosen))


def _say(json_target: str | None, fields: dict[str, Any], lines: Iterable[str]) -> None:
    """Lines for people, or JSON; into a file as well."""
    text = json.dumps(fields, default=str)
    if json_target == "-":
        click.echo(text)
        return
    for line in lines:
        click.echo(line)
    if json_target is not None:
        from vidsr.durable import write_whole
        from vidsr.errors import OutputError

        try:
            write_whole(Path(json_target), f"{text}\n".encode())
        except OSError as error:
            raise OutputError(f"{json_target}: cannot be written ({error.strerror or error})") from error


def _bars() -> dict[str, str]:
    """What bars are drawn with, as far as standard output has letters for it."""
    full, rest = "█", "░"
    try:
        f"{full}{rest}".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return {}
    return {"full": full, "rest": rest}
