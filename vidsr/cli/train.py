"""`vidsr train`."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import click

from vidsr.cli.shape import interruptible
from vidsr.errors import BackendError

if TYPE_CHECKING:
    from vidsr.training.loop import Row

__all__ = ["train_model"]


@click.command("train")
@click.argument("recipe", metavar="RECIPE")
@click.option(
    "--pictures", "folders", required=True, multiple=True, metavar="DIR", type=click.Path(path_type=Path),
    help="Folder of clean pictures and clips to learn from, each at least as large as the recipe's patch_px; may be "
    "repeated.",
)  # fmt: skip
@click.option(
    "--out", required=True, metavar="DIR", type=click.Path(path_type=Path),
    help="Folder of the run: training data, log, weights and the model. A run that was stopped goes on from it.",
)  # fmt: skip
@click.option(
    "--init", metavar="FILE|NAME",
    help="Checkpoint or model to begin from, of the same network; its scale may be another.  [default: random weights]",
)  # fmt: skip
@click.option(
    "--teacher", metavar="FILE", type=click.Path(path_type=Path),
    help="Checkpoint of a larger model to learn from as well, as much as `teach` in the recipe says.",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Steps to train.  [default: the recipe's]")
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), metavar="N",
    help="Of data, weights and crops.  [default: the recipe's]",
)  # fmt: skip
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="cpu, cuda, cuda:1, ...")
@click.option("--license", default="", metavar="TEXT", help="Licence of the weights; it goes into the model.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def train_model(
    recipe: str,
    folders: tuple[Path, ...],
    out: Path,
    init: str | None,
    teacher: Path | None,
    steps: int | None,
    seed: int | None,
    device: str,
    license: str,
    debug: bool,
) -> int:
    """Trains a model as RECIPE says: a name (span, span-fast, ...) or a .toml file.

    The large pictures are shrunk and degraded as real files are (encoded with H.264, HEVC, VP9, AV1 and MPEG-2, among
    others), and the network learns the way back. The same command gives the same weights on the same processor; on a
    CUDA card the last digits may differ. Ctrl-C stops and keeps what is there; a second one leaves at once.
    Needs more packages: pip install 'vidsr[train]'
    """
    try:
        from vidsr.training.machine import prepare_process
        from vidsr.training.run import Order, run
    except ModuleNotFoundError as error:
        raise BackendError(
            f"training needs {error.name}, which is not installed (pip install 'vidsr[train]')"
        ) from error

    order = Order(
        recipe=recipe, folders=folders, out=out, init=init, teacher=teacher, steps=steps, seed=seed, device=device,
        license=license,
    )  # fmt: skip
    prepare_process()
    with interruptible() as (stop, cancel), _Display() as display:
        Thread(target=_leave, args=(cancel, display), daemon=True).start()
        path = run(order, display, stop.is_set)
    if path is None:
        click.echo(f"stopped; the same command goes on from {out}")
        return 130
    weights = path.with_suffix(".safetensors")
    click.echo(f"{path}: use it with --model {path}, or install it with `vidsr import {weights} --name NAME`")
    return 0


def _leave(cancel: Event, display: _Display) -> None:
    """Ends the process once `cancel` is set, whatever it is in the midst of: all files it keeps are written whole."""
    cancel.wait()
    display.__exit__()
    os._exit(130)


class _Display:
    """A bar on a terminal, a line for each row of the log elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.percentage:>3.0f}%"), BarColumn(bar_width=24), TextColumn("{task.description}"),
            TimeElapsedColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        console = Console(stderr=True)
        self._live = console.is_terminal
        self._bar = Progress(*columns, console=console, disable=not self._live)
        self._task = self._bar.add_task("making training data", total=1.0)
        self._psnr = ""

    def __enter__(self) -> _Display:
        self._bar.start()
        return self

    def __exit__(self, *reason: Any) -> None:
        self._bar.stop()

    def preparing(self, done: float) -> None:
        self._bar.update(self._task, completed=done)

    def training(self, row: Row, steps: int) -> None:
        if row.psnr_y is not None:
            self._psnr = f", kept back {row.psnr_y:.2f} dB"
        text = f"step {row.step}/{steps}, loss {row.loss:.2f} dB{self._psnr}, {row.steps_per_second:.1f} steps/s"
        self._bar.update(self._task, completed=row.step, total=steps, description=text)
        if not self._live:
            click.echo(text, err=True)
