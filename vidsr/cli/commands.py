"""The commands beside the main one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidsr.cli.bench import bench
from vidsr.cli.compare import compare
from vidsr.cli.compiled import build_engine, cache
from vidsr.cli.doctor import doctor
from vidsr.cli.evaluate import evaluate_model
from vidsr.cli.preview import preview
from vidsr.cli.shape import KeyValue, Time
from vidsr.cli.train import train_model
from vidsr.cli.tune import tune

if TYPE_CHECKING:
    from vidsr.models import Model

__all__ = ["COMMANDS"]


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def list_models(as_json: bool, debug: bool) -> None:
    """Lists the models that --model knows by name: those shipped and those imported."""
    from vidsr import models
    from vidsr.errors import ModelError

    rows: list[dict[str, Any]] = []
    for path in models.installed():
        try:
            model = models.load(str(path))
        except ModelError as error:
            rows.append({"name": path.stem, "error": str(error), "path": str(path)})
            continue
        metadata = model.metadata
        rows.append(
            {
                "name": model.name,
                "scale": model.scale,
                "network": metadata.get("network", ""),
                "bytes": path.stat().st_size,
                "license": metadata.get("license", ""),
                "quality": metadata.get("quality", ""),
                "for": metadata.get("for", ""),
                "guard": metadata.get("guard", ""),
                "path": str(path),
            }
        )
    if as_json:
        click.echo(json.dumps(rows))
        return
    _table(rows)


def _table(rows: list[dict[str, Any]]) -> None:
    lines = [("name", "scale", "made for", "guard", "license", "measured (PSNR-Y, dB)")]
    for row in rows:
        if "error" in row:
            lines.append((row["name"], "", "", "", "", f"unusable: {row['error']}"))
        else:
            licence = row["license"] or "not stated"
            lines.append((row["name"], f"x{row['scale']}", row["for"], row["guard"], licence, row["quality"]))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@click.command("import")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--name", required=True, metavar="NAME", help="What --model is to call it.")
@click.option("--license", default="", metavar="TEXT", help="Licence of the weights, shown by `vidsr models`.")
@click.option(
    "--note",
    "notes",
    type=KeyValue(),
    multiple=True,
    metavar="KEY=VALUE",
    help="Written into the model; `quality` is shown by `vidsr models`; `base`, `img_range` and `rgb_mean` describe "
    "weights whose file does not. May be repeated.",
)
@click.option("-y", "--overwrite", is_flag=True, help="Replace a model of that name.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def import_model(
    checkpoint: Path, name: str, license: str, notes: tuple[tuple[str, str], ...], overwrite: bool, debug: bool
) -> None:
    """Turns CHECKPOINT (.safetensors, .pth, .pt, .ckpt) into a model. Needs torch: pip install torch safetensors.

    The network is recognised by its weights: our own, and with spandrel installed (pip install 'vidsr[spandrel]') many
    more, whose model is compared with the network first. An unknown network is refused. Pickled files are read
    weights-only and can run no code.
    """
    from vidsr import models
    from vidsr.checkpoint import import_checkpoint

    path = import_checkpoint(checkpoint, name, license=license, overwrite=overwrite, metadata=dict(notes))
    model = models.load(str(path))
    for row in _findings(model):
        click.echo(row)
    click.echo(f"{path}: use it with --model {name}")
    if model.metadata["guard"] == "on":
        click.echo(f"{name} leaves all reason on hard patterns, so its videos get the guard (see --guard)")


def _findings(model: Model) -> list[str]:
    """What an imported model is, a line each."""
    from vidsr import models
    from vidsr.graph.cost import multiply_adds

    metadata = model.metadata
    parameters = int(metadata.get("parameters") or sum(weights.size for weights in model.state().values()))
    about = [f"x{model.scale}", f"{parameters:,} parameters", metadata.get("tags", "")]
    share = max(multiply_adds(model.proto), 1.0) / multiply_adds(models.load(models.DEFAULT).proto)
    speed = f"1/{share:.2g} of" if share > 1 else f"{1 / share:.2g} times"
    rows = [
        f"network: {', '.join(part for part in (metadata.get('architecture') or metadata['network'], *about) if part)}",
        f"licence of the weights: {metadata.get('license') or 'not stated'}",
        f"speed: about {speed} {models.DEFAULT}'s (an estimate: it counts multiplications)",
    ]
    return [*rows, f"checked: {metadata['exact']}"] if "exact" in metadata else rows


@click.command("verify")
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("output", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--start", type=Time(), metavar="TIME", help="As in the run that made OUT.")
@click.option("--end", type=Time(), metavar="TIME", help="As in the run that made OUT.")
@click.option(
    "--deinterlace",
    type=click.Choice(["auto", "off", "frame", "field"]),
    default="auto",
    show_default=True,
    help="As in the run that made OUT.",
)
@click.option("--tracks", default="all", show_default=True, metavar="LIST", help="As in the run that made OUT.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def verify_output(
    source: Path, output: Path, start: Any, end: Any, deinterlace: Any, tracks: str, as_json: bool, debug: bool
) -> int:
    """Compares OUT with the IN it was made of: every frame's time and picture, every packet of the other tracks,
    chapters, tags, colour, shape.

    Exits with 0 if OUT is what it should be, with 3 if not; the first differences are named by their time.
    """
    from dataclasses import asdict as fields

    from vidsr.errors import InputError
    from vidsr.job import Settings, check_span
    from vidsr.media.container import select
    from vidsr.media.source import probe
    from vidsr.verify import expectation_from, verify

    if not output.is_file():
        raise InputError(f"{output}: no such file")
    info = probe(source)
    check_span(Settings(start=start, end=end), info)
    keep = select(info, tracks)
    expected = expectation_from(source, output, start=start, end=end, deinterlace=deinterlace, keep=keep)
    found = verify(output, expected, on_progress=lambda done: None, stop=None)
    if as_json:
        click.echo(json.dumps({"ok": found.ok, **fields(found)}, default=str))
    else:
        for row in found.rows():
            click.echo(row)
    return 0 if found.ok else 3


_HELP = {"help_option_names": ["-h", "--help"]}
COMMANDS = [
    preview,
    verify_output,
    list_models,
    import_model,
    evaluate_model,
    compare,
    bench,
    tune,
    doctor,
    build_engine,
    cache,
    train_model,
]
for _command in COMMANDS:
    _command.context_settings = _HELP
