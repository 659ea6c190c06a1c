"""A training run within a test. Needs torch."""

from __future__ import annotations

from pathlib import Path

from vidsr.networks.span import Span
from vidsr.training.loop import Row, train
from vidsr.training.machine import Machine
from vidsr.training.recipe import Recipe
from vidsr.training.store import Store


def trained(
    recipe: Recipe, store: Store, folder: Path, stop_after: int | None = None
) -> tuple[list[Row], Span | None]:
    """The rows and the network; stop_after: steps until it is stopped."""
    folder.mkdir(exist_ok=True)
    rows: list[Row] = []
    calls = iter(range(10**6))
    network = train(
        recipe, store, folder, machine=Machine("cpu"), on_row=rows.append,
        stopped=lambda: stop_after is not None and next(calls) >= stop_after,
    )  # fmt: skip
    return rows, network
