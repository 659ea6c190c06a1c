"""A whole training run in one folder: data, loop, log, weights, model."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from vidsr.checkpoint import import_checkpoint
from vidsr.durable import write_whole
from vidsr.errors import InputError, OutputError, UsageError
from vidsr.media import picture
from vidsr.training.loop import Row, network_from, train
from vidsr.training.machine import Machine
from vidsr.training.prepare import prepare
from vidsr.training.recipe import Recipe, find_recipe, read_recipe
from vidsr.training.record import Record
from vidsr.training.store import Store
from vidsr.training.weights import read_start, read_teacher, write_weights

__all__ = ["Order", "Watch", "run"]

_SUFFIXES = picture.SUFFIXES | {".mp4", ".mkv", ".mov", ".webm", ".m4v", ".avi", ".ts", ".mpg", ".y4m"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a user asks for. recipe: a name or a .toml file. folders: of large pictures. out: the run's folder.

    init: a checkpoint, or a model by name or file. teacher: a checkpoint. steps, seed: None for the recipe's. license:
    of the weights, empty if not stated.
    """

    recipe: str
    folders: tuple[Path, ...]
    out: Path
    init: str | None = None
    teacher: Path | None = None
    steps: int | None = None
    seed: int | None = None
    device: str = "auto"
    license: str = ""

    def command(self) -> str:
        """The command line that makes the same again."""
        parts = ["vidsr", "train", self.recipe]
        parts += [part for folder in self.folders for part in ("--pictures", str(folder))]
        for name, value in (
            ("--init", self.init),
            ("--teacher", self.teacher),
            ("--steps", self.steps),
            ("--seed", self.seed),
            ("--device", self.device if self.device != "auto" else None),
        ):
            parts += [name, str(value)] if value is not None else []
        return shlex.join([*parts, "--out", str(self.out)])


class Watch(Protocol):
    """Told how the run goes on."""

    def preparing(self, done: float) -> None:
        """Training data are being made; `done` is 0..1."""

    def training(self, row: Row, steps: int) -> None:
        """A row of the log; the run ends at `steps`."""


def run(order: Order, watch: Watch, stopped: Callable[[], bool] = lambda: False) -> Path | None:
    """Trains and writes OUT/NAME.safetensors and OUT/NAME.onnx, whose path comes back; None if it was stopped.

    Raises UsageError for a recipe, InputError for pictures, weights or a folder that cannot be used, ModelError for
    checkpoints, BackendError for a device, EncoderError for an FFmpeg without an encoder, OutputError.
    """
    recipe = _recipe(order)
    pictures = [path for folder in order.folders for path in _sources(folder)]
    machine = Machine(order.device)
    start, begun = read_start(order.init) if order.init is not None else (None, None)
    network_from(recipe, start)  # refuses a start that does not fit, before minutes are spent
    teacher = machine.placed(read_teacher(order.teacher, recipe.model.scale)) if order.teacher else None
    data = order.out / "data"
    made = (data / "kinds.json").exists()
    begun_before = made or (order.out / "last.pt").exists()
    _claim(order, recipe, pictures, begun, machine, bound=begun_before)
    if not made and not prepare(
        recipe.data, pictures, data,
        scale=recipe.model.scale, seed=recipe.train.seed, on_progress=watch.preparing, stopped=stopped,
    ):  # fmt: skip
        return None
    record = Record(order.out)

    def on_row(row: Row) -> None:
        record.add(row)
        watch.training(row, recipe.train.steps)

    network = train(
        recipe, Store(data), order.out, machine=machine, start=start, teacher=teacher, on_row=on_row, stopped=stopped
    )
    if network is None:
        return None
    record.plot()
    weights = order.out / f"{recipe.name}.safetensors"
    notes = {
        "command": order.command(),
        "init": f"sha256 {_digest(begun.read_bytes())}" if begun else "",
        "data": f"{len(pictures)} pictures and clips",
        "for": recipe.note,
    }
    write_weights(weights, network, {key: value for key, value in notes.items() if value})
    return import_checkpoint(weights, recipe.name, license=order.license, folder=order.out, overwrite=True)


def _sources(folder: Path) -> list[Path]:
    """Pictures and clips in a folder and below. Raises InputError where there are none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    if not found:
        raise InputError(
            f"--pictures {folder}: {'no pictures or clips in it' if folder.is_dir() else 'no such folder'}"
        )
    return found


def _recipe(order: Order) -> Recipe:
    recipe = read_recipe(find_recipe(order.recipe))
    plan = recipe.train
    if order.steps is not None:
        plan = replace(plan, steps=order.steps)
    if order.seed is not None:
        plan = replace(plan, seed=order.seed)
    if (plan.teach > 0) != (order.teacher is not None):
        raise UsageError(
            f"--teacher: the recipe {recipe.name} has none (teach = 0)"
            if order.teacher
            else f"the recipe {recipe.name} learns from a larger model as well; name its checkpoint with --teacher"
        )
    return replace(recipe, train=plan)


def _claim(
    order: Order, recipe: Recipe, pictures: list[Path], begun: Path | None, machine: Machine, *, bound: bool
) -> None:
    """Makes the folder this run's. begun: the file it begins from. bound: it has training data or weights, and may be
    another's: they would be mixed without a word. Raises InputError for that, OutputError."""
    said = {
        "recipe": repr(recipe),
        "pictures": _digest(repr([(path.name, path.stat().st_size) for path in pictures]).encode()),
        "init": _digest(begun.read_bytes()) if begun else "",
        "teacher": _digest(order.teacher.read_bytes()) if order.teacher else "",
        "device": machine.device.type,
    }
    path = order.out / "run.json"
    try:
        order.out.mkdir(parents=True, exist_ok=True)
        if not bound:
            write_whole(path, json.dumps(said, indent=1).encode())
            return
        try:
            other = json.loads(path.read_bytes())
        except FileNotFoundError as error:
            raise InputError(
                f"{order.out}: data or weights, but no run.json that says whose; choose another --out, or remove it"
            ) from error
        changed = ", ".join(name for name in said if other.get(name, said[name]) != said[name])
    except OSError as error:
        raise OutputError(f"{order.out}: cannot be used for a run ({error.strerror or error})") from error
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: damaged; choose another --out, or remove {order.out}") from error
    if changed:
        raise InputError(f"{order.out}: holds a run with another {changed}; choose another --out, or remove it")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
