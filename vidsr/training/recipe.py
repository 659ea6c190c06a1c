"""Recipes: everything that decides what a training run makes, as a TOML file."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from vidsr.checkpoint import check_name
from vidsr.errors import UsageError
from vidsr.training.prepare import DataRecipe

__all__ = ["ModelRecipe", "Recipe", "TrainRecipe", "find_recipe", "read_recipe"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecipe:
    """The network, a SPAN. unshuffle: it works at 1/unshuffle of the input's size, with more channels going in."""

    channels: int = 48
    blocks: int = 6
    scale: int = 2
    unshuffle: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRecipe:
    """How the weights are found.

    steps: of the optimiser. batch: shots a step. patch_px: side of the small picture's crop. rate: the learning rate
    at its highest, after `warmup` steps; a cosine brings it to 0. ema: decay a step of the averaged weights, which
    are what is kept in the end. calm: weight of the loss between two frames of a shot; 0 takes single frames, any
    other value takes two frames of each shot. teach: share of the loss that a teacher gets, if one is given.
    bits: 8 trains for INT8, with rounded weights and activations; 0 does not. seed: of data, weights and crops.
    """

    steps: int = 10000
    batch: int = 16
    patch_px: int = 48
    rate: float = 0.004
    warmup: int = 100
    ema: float = 0.998
    calm: float = 0.0
    teach: float = 0.0
    bits: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One model. name: what `--model` will call it. note: what it is for, in a line."""

    name: str
    note: str = ""
    model: ModelRecipe = field(default_factory=ModelRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    train: TrainRecipe = field(default_factory=TrainRecipe)


def find_recipe(name: str) -> Path:
    """The file of a recipe by its path, or by the name of one that comes with vidsr. Raises UsageError."""
    if Path(name).suffix == ".toml":
        return Path(name)
    package = Path(__file__).resolve().parents[1]
    folders = [package / "recipes", package.parent / "training"]  # in a wheel, or beside the package
    found = (sorted(folder.glob("*.toml")) for folder in folders)
    known = {path.stem: path for path in next(filter(None, found), [])}
    if name not in known:
        raise UsageError(f"no recipe is called {name!r}: there are {', '.join(known)} (or give a .toml file)")
    return known[name]


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file. Raises UsageError, with the table and key that are wrong."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such recipe") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: not a readable recipe ({error})") from None
    tables = {"model": ModelRecipe, "data": DataRecipe, "train": TrainRecipe}
    parts: dict[str, Any] = {}
    for name, cls in tables.items():
        table = content.pop(name, {})
        if not isinstance(table, dict):
            raise UsageError(f"{path}: {name} must be a table, [{name}]")
        parts[name] = _filled(cls, table, f"{path}: [{name}]")
    recipe = _filled(Recipe, {"name": path.stem, **content} | parts, f"{path}:")
    _check(recipe, path)
    return recipe


def _filled(cls: type[_T], values: Mapping[str, Any], place: str) -> _T:
    known = {entry.name: entry for entry in fields(cls)}  # type: ignore[arg-type]  # mypy wants a DataclassInstance
    for key, value in values.items():
        if key not in known:
            raise UsageError(f"{place} there is no {key!r}; there are {', '.join(known)}")
        wanted = str(known[key].type)
        fits = {
            "int": isinstance(value, int) and not isinstance(value, bool),
            "float": isinstance(value, (int, float)) and not isinstance(value, bool),
            "str": isinstance(value, str),
        }
        if not fits.get(wanted, True):
            raise UsageError(f"{place} {key} = {value!r}: a {wanted} is needed")
    return cls(**values)


def _check(recipe: Recipe, path: Path) -> None:
    model, data, train = recipe.model, recipe.data, recipe.train
    small_px = data.patch_px // max(1, model.scale)
    rules = {
        "[model] channels must be at least 1 and blocks at least 2": model.channels >= 1 and model.blocks >= 2,
        "[model] scale must be 1 to 8 and unshuffle 1 to 4": 1 <= model.scale <= 8 and 1 <= model.unshuffle <= 4,
        "[data] samples must be at least 2, as one is kept back": data.samples >= 2,
        f"[train] patch_px must be 8 to {small_px}, [data] patch_px over the scale": 8 <= train.patch_px <= small_px,
        "[train] patch_px must be a multiple of unshuffle": train.patch_px % max(1, model.unshuffle) == 0,
        "[train] steps and batch must be more than 0": min(train.steps, train.batch) > 0,
        "[train] rate must be more than 0, and finite": 0 < train.rate < math.inf,
        "[train] warmup must not be negative": train.warmup >= 0,
        "[train] ema and teach must be 0 to 1, below 1 for ema": 0 <= train.ema < 1 and 0 <= train.teach <= 1,
        "[train] seed must be 0 to 2**63 - 1": 0 <= train.seed < 2**63,
        "[train] calm must not be negative, and finite": 0 <= train.calm < math.inf,
        "[train] bits must be 0 or 8": train.bits in (0, 8),
    }
    for rule, kept in rules.items():
        if not kept:
            raise UsageError(f"{path}: {rule}")
    check_name(recipe.name, f"{path}: name")
    try:
        data.check(model.scale)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
