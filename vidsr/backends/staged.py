"""A model run in parts, with what passes between them kept: a change is computed anew only as far as it reaches.

A change of one pixel changes the output within the model's radius R, and to compute that a tile needs R more around it:
(4R)^2 pixels for one. Cut into parts of radius r each, with everything that passes a cut kept for the whole frame, a
part computes what the change has reached so far and r around it.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidsr.backends.base import Backend, EngineOptions, Part, Slot
from vidsr.backends.change import Mask, Move, Tile, TileSize, cover, dilated
from vidsr.backends.tiled import frame_bytes, steps_of, tile_layouts
from vidsr.frame import FrameLayout
from vidsr.graph import CODES_FROM_RGB, RGB_FROM_CODES, ModelProto, plane_names
from vidsr.graph.cost import multiply_adds
from vidsr.graph.cut import Cut, cuts, part
from vidsr.models import Model

__all__ = ["CELL", "Plan", "Staged", "stages_of"]

CELL = 4
"""Side of the cells in which changes are followed, in luma pixels; a multiple of all chroma factors that are known."""

_SIDES = (64, 128, 256)
"""Of tiles: what parts need of memory does not grow with the frame."""
_MOST_STAGES = 4
_DEPTH = 2
"""Tiles under way for each that is computed."""
_STAGE_PAIRS = 4e4
"""Multiplications and additions a pixel that are worth a stage of their own."""
_TILE_PAIRS = 3e7
"""What a tile takes besides, in those that would take as long: 0.1 ms on one core (64x64 of SPAN-48: 2.4 ms)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """move: what is moved first of what is kept. tiles: of each stage. cost: as a share of what a whole frame costs."""

    tiles: tuple[tuple[Tile, ...], ...]
    cost: float
    move: Move | None = None

    @property
    def shapes(self) -> set[tuple[int, int]]:
        """(height, width) of all tiles."""
        return {(tile.size.height, tile.size.width) for tiles in self.tiles for tile in tiles}


def stages_of(
    backend: Backend,
    model: Model,
    source: FrameLayout,
    target: FrameLayout,
    options: EngineOptions,
    *,
    budget_bytes: int,
) -> tuple[Cut, ...] | None:
    """Where to cut the model for frames of this layout; None where it cannot be, or what is kept and what runs would
    take more than `budget_bytes`."""
    step = math.lcm(*steps_of(source, target, model.tile_step))
    if model.radius is None or CELL % step or source.height % step or source.width % step:
        return None
    composed = backend.graph(model, source, target, options)
    if composed is None:
        return None
    chroma = max(*source.chroma, *target.chroma)
    reach = model.radius + (4 * chroma if chroma > 1 else 0)
    pairs = multiply_adds(model.proto)
    if not pairs:  # nothing to save
        return None
    most = min(_MOST_STAGES, max(1, round(pairs / _STAGE_PAIRS)))
    item_bytes = 2 if options.precision in ("bf16", "fp16") else 4
    for count in range(most, 0, -1):
        found = cuts(composed, source, count, reach=reach)
        if found is None:
            continue
        stages = tuple(replace(cut, reach=-(-cut.reach // step) * step) for cut in found)
        shapes = _shapes(source, stages)
        tiles = [frame_bytes(model, *tile_layouts(source, target, shape), item_bytes) for shape in shapes]
        running = count * options.streams * backend.memory_overhead * sum(tiles)
        # Each size is a graph of its own, kept as such and compiled.
        weights = 2 * len(shapes) * composed.ByteSize()
        if shapes and _kept_bytes(stages) + running + weights <= budget_bytes:
            return stages
    return None


def _shapes(source: FrameLayout, stages: Sequence[Cut]) -> list[tuple[int, int]]:
    """(height, width) of tiles, the smallest first; none where too little of them would be inside."""
    least = 2 * max(stage.reach for stage in stages) + 4 * CELL
    shapes = dict.fromkeys((min(side, source.height), min(side, source.width)) for side in _SIDES)
    return [
        (height, width)
        for height, width in shapes
        if (height == source.height or height >= least) and (width == source.width or width >= least)
    ]


def _kept_bytes(found: Sequence[Cut]) -> int:
    tensors = {tensor.name: tensor for cut in found for tensor in cut.tensors}
    return sum(4 * math.prod(tensor.shape) for tensor in tensors.values())


class Staged:
    """Keeps the output of the last frame it was given and what passed the cuts. Belongs to one thread.

    output: planes of the target's layout, of the last frame. keeps: whether it keeps anything else. step: what all
    positions in the source are multiples of. `run` makes parts when it needs them, and raises BackendError where they
    cannot be made.
    """

    def __init__(
        self,
        backend: Backend,
        model: Model,
        source: FrameLayout,
        target: FrameLayout,
        options: EngineOptions,
        stages: Sequence[Cut],
    ) -> None:
        self.output = target.allocate()
        self.step = math.lcm(*steps_of(source, target, model.tile_step))
        self._backend, self._options, self._stages = backend, options, stages
        self._source, self._scale = source, target.height // source.height
        self._parts: dict[tuple[int, int, int], Sequence[Part]] = {}
        self._kept: dict[str, NDArray[Any]] = {}
        self._steps = {tensor.name: tensor.step for cut in stages for tensor in cut.tensors}
        self.keeps = bool(self._steps)
        self._outputs = dict(zip(plane_names("out", target), self.output, strict=True))
        self._factors = {
            name: layout.chroma if index else (1, 1)
            for layout, kind in ((source, "in"), (target, "out"))
            for index, name in enumerate(plane_names(kind, layout))
        }

        @cache
        def composed(height: int, width: int) -> ModelProto:
            proto = backend.graph(model, *tile_layouts(source, target, (height, width)), options)
            assert proto is not None
            return proto

        self._composed = composed
        self._pairs = multiply_adds(model.proto)
        self._sizes = [
            [self._price(index, height, width) for height, width in _shapes(source, stages)]
            for index in range(len(stages))
        ]

    def plan(
        self, dirty: Mask, limit: float, *, move: Move | None = None, shape: tuple[int, int] | None = None
    ) -> Plan | None:
        """What to compute where these cells have changed; None where it costs more than `limit`, as a share of a whole
        frame. move: what has moved meanwhile, whose new place `dirty` is about. shape: (height, width) that all tiles
        are to have."""
        tiles, cost = list[tuple[Tile, ...]](), 0.0
        frame = (self._source.height, self._source.width)
        reached = 0
        for index, stage in enumerate(self._stages):
            reached += stage.reach
            wanted = dilated(dirty, -(-reached // CELL))
            sizes = [size for size in self._sizes[index] if (size.height, size.width) == shape]
            sizes = sizes or self._balanced(index, float(wanted.mean()))
            covered = cover(wanted, sizes, frame, cell=CELL, reach=stage.reach, limit=limit - cost)
            if covered is None:
                return None
            tiles.append(tuple(covered[0]))
            cost += covered[1]
        return Plan(tiles=tuple(tiles), cost=cost, move=move)

    def run(self, slot: Slot, plan: Plan) -> None:
        """Brings `output` up to the frame in `slot.input`."""
        given: dict[str, NDArray[Any]] = {
            **dict(zip(plane_names("in", self._source), slot.input, strict=True)),
            RGB_FROM_CODES: slot.rgb_from_codes,
            CODES_FROM_RGB: slot.codes_from_rgb,
        }
        if plan.move is not None:
            self._move(plan.move)
        busy = deque[tuple[Part, Tile]]()
        try:
            for index, tiles in enumerate(plan.tiles):
                turns = Counter[TileSize]()
                # Large ones first, and more under way than run at once: nothing idles while one is waited for.
                for tile in sorted(tiles, key=lambda tile: -tile.size.cost):
                    if len(busy) == _DEPTH * self._options.streams:
                        self._finish(busy)
                    parts = self._part(index, tile.size)
                    # Those of one size in turn: this one is the first that was finished.
                    chosen = parts[turns[tile.size] % len(parts)]
                    turns[tile.size] += 1
                    self._cut(chosen.given, given, tile)
                    chosen.submit()
                    busy.append((chosen, tile))
                while busy:
                    self._finish(busy)
        finally:
            for running, _ in busy:  # only where something was raised, which is what counts
                with suppress(Exception):
                    running.wait()

    def _finish(self, busy: deque[tuple[Part, Tile]]) -> None:
        """Brings the oldest tile home."""
        oldest, tile = busy.popleft()
        oldest.wait()
        self._paste(oldest.made, tile)

    def _part(self, index: int, size: TileSize) -> Sequence[Part]:
        key = (index, size.height, size.width)
        if key not in self._parts:
            before = self._stages[index - 1] if index else None
            behind = self._stages[index]
            passing = (*(before.tensors if before else ()), *behind.tensors)
            exact = {tensor.name for tensor in passing if tensor.exact} | {RGB_FROM_CODES, CODES_FROM_RGB}
            proto = part(self._composed(size.height, size.width), before, behind)
            self._parts[key] = parts = self._backend.open_part(
                proto, exact, self._options, _DEPTH * self._options.streams
            )
            held = {**parts[0].given, **parts[0].made}
            for tensor in passing:
                if tensor.name in held and tensor.name not in self._kept:
                    self._kept[tensor.name] = np.zeros(tensor.shape, held[tensor.name].dtype)
        return self._parts[key]

    def _cut(self, part: Mapping[str, NDArray[Any]], given: Mapping[str, NDArray[Any]], tile: Tile) -> None:
        """Fills the inputs of a part: planes, what is kept, and colour matrices, which have no place."""
        for name, array in part.items():
            if name in self._kept:
                step = self._steps[name]
                top, left = tile.top // step, tile.left // step
                array[...] = self._kept[name][..., top : top + array.shape[-2], left : left + array.shape[-1]]
            elif name in self._factors:
                down, right = self._factors[name]
                top, left = tile.top // down, tile.left // right
                array[...] = given[name][top : top + array.shape[0], left : left + array.shape[1]]
            else:
                array[...] = given[name]

    def _paste(self, made: Mapping[str, NDArray[Any]], tile: Tile) -> None:
        """Keeps the inside of what a part has made."""
        for name, array in made.items():
            if name in self._kept:
                whole, (down, right), scale = self._kept[name], (self._steps[name],) * 2, 1
            else:
                whole, (down, right), scale = self._outputs[name], self._factors[name], self._scale
            top, bottom = (_edge(edge, scale, down, whole.shape[-2]) for edge in tile.inside[:2])
            left, right_end = (_edge(edge, scale, right, whole.shape[-1]) for edge in tile.inside[2:])
            first, begin = tile.top * scale // down, tile.left * scale // right
            whole[..., top:bottom, left:right_end] = array[
                ..., top - first : bottom - first, left - begin : right_end - begin
            ]

    def _move(self, move: Move) -> None:
        """Moves a part of all that is kept."""
        scale = self._scale
        arrays = [(array, (self._steps[name],) * 2, 1) for name, array in self._kept.items()]
        arrays += [(array, self._factors[name], scale) for name, array in self._outputs.items()]
        for array, (tall, wide), factor in arrays:
            rows = [_edge(cell * CELL, factor, tall, array.shape[-2]) for cell in move.rows]
            columns = slice(*(_edge(cell * CELL, factor, wide, array.shape[-1]) for cell in move.columns))
            down = move.down * factor // tall
            array[..., slice(*rows), columns] = array[..., rows[0] - down : rows[1] - down, columns].copy()

    def _balanced(self, index: int, share: float) -> list[TileSize]:
        """The sizes of which so many are needed for that share of the frame that what computes at once ends at once."""
        least = 2 * self._options.streams
        small, *larger = self._sizes[index]
        return [small, *(size for size in larger if least * size.cost <= share * self._stages[index].share)]

    def _price(self, index: int, height: int, width: int) -> TileSize:
        pixels = height * width * self._stages[index].share + _TILE_PAIRS / self._pairs
        return TileSize(height=height, width=width, cost=pixels / (self._source.height * self._source.width))


def _edge(edge: int, scale: int, factor: int, limit: int) -> int:
    """Where an edge in source pixels lies in a plane."""
    return min(-(-edge * scale // factor), limit)
