"""A model run in parts, with what passes between them kept: a change is computed anew only as far as it reaches.

A change of one pixel changes the output within the model's radius R, and to compute that a tile needs R more around it:
(4R)^2 pixels for one. Cut into parts of radius r each, with everything that passes a cut kept for the whole frame, a
part computes what the change has reached so far and r around it.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidsr.backends.base import Backend, EngineOptions, Part, Slot
from vidsr.backends.change import Mask, Move, Tile, TileSize, cover, dilated
from vidsr.backends.tiled import steps_of, tile_layouts
from vidsr.frame import FrameLayout
from vidsr.graph import CODES_FROM_RGB, RGB_FROM_CODES, ModelProto, plane_names
from vidsr.graph.cost import multiply_adds
from vidsr.graph.cut import Cut, cuts, part
from vidsr.models import Model

__all__ = ["CELL", "Plan", "Staged", "stages_of"]

CELL = 4
"""Side of the cells in which changes are followed, in luma pixels; a multiple of all chroma factors that are known."""

_SIDES = (64, 128)
_MOST_STAGES = 4
_DEPTH, _FULL = 2, 0.8
"""Tiles under way for each that is computed; how full large ones have to be of what is needed."""
_STEADY, _FITTING_SHARE, _GRAIN = 8, 0.8, 16
"""Frames in a row that want the same part, smaller than that share of the frame, before a tile is made to fit it, with
sides that are multiples of so many pixels."""
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


def stages_of(
    backend: Backend,
    model: Model,
    source: FrameLayout,
    target: FrameLayout,
    options: EngineOptions,
    *,
    budget_bytes: int,
) -> tuple[Cut, ...] | None:
    """Where to cut the model for frames of this layout; None where it cannot be, or what would be kept is more than
    `budget_bytes`."""
    step = math.lcm(*steps_of(source, target, model.tile_step))
    if model.radius is None or CELL % step or source.height % step or source.width % step:
        return None
    composed = backend.graph(model, source, target, options)
    if composed is None:
        return None
    chroma = max(*source.chroma, *target.chroma)
    reach = model.radius + (4 * chroma if chroma > 1 else 0)
    most = min(_MOST_STAGES, max(1, round(multiply_adds(model.proto) / _STAGE_PAIRS)))
    for count in range(most, 0, -1):
        found = cuts(composed, source, count, reach=reach)
        if found is not None and _kept_bytes(found) <= budget_bytes:
            return tuple(replace(cut, reach=-(-cut.reach // step) * step) for cut in found)
    return None


def _kept_bytes(found: Sequence[Cut]) -> int:
    tensors = {tensor.name: tensor for cut in found for tensor in cut.tensors}
    return sum(4 * math.prod(tensor.shape) for tensor in tensors.values())


class Staged:
    """Keeps the output of the last frame it was given and what passed the cuts. Belongs to one thread.

    output: planes of the target's layout, of the last frame. step: what all positions in the source are multiples of.
    Raises BackendError where the parts cannot be made.
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
        self._source, self._target, self._scale = source, target, target.height // source.height
        self._parts: dict[tuple[int, int, int], Sequence[Part]] = {}
        self._kept: dict[str, NDArray[Any]] = {}
        self._steps = {tensor.name: tensor.step for cut in stages for tensor in cut.tensors}
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
        self._extents: dict[int, tuple[tuple[int, int, int, int], int]] = {}
        self._pairs = multiply_adds(model.proto)
        self._sizes = [
            [self._price(index, height, width) for height, width in self._shapes()] for index in range(len(stages))
        ]

    def plan(self, dirty: Mask, limit: float, *, move: Move | None = None, usual: bool = True) -> Plan | None:
        """What to compute where these cells have changed; None where it costs more than `limit`, as a share of a whole
        frame. move: what has moved meanwhile, whose new place `dirty` is about. usual: frames to come will be alike."""
        tiles, cost = list[tuple[Tile, ...]](), 0.0
        frame = (self._source.height, self._source.width)
        reached = 0
        for index, stage in enumerate(self._stages):
            reached += stage.reach
            wanted = dilated(dirty, -(-reached // CELL))
            sizes = self._balanced(index, float(wanted.mean()), self._fitting(index, wanted) if usual else [])
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
            for running, _ in busy:  # only where something was raised
                running.wait()

    def _finish(self, busy: deque[tuple[Part, Tile]]) -> None:
        """Brings the oldest tile home."""
        oldest, tile = busy[0]
        oldest.wait()
        busy.popleft()
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

    def _balanced(self, index: int, share: float, fitting: list[TileSize]) -> list[TileSize]:
        """The sizes of which so many are needed for that share of the frame that what computes at once ends at once."""
        streams, needed = self._options.streams, share * self._stages[index].share
        small, *larger, band = sorted(self._sizes[index], key=lambda size: size.cost)
        several = [size for size in larger if 2 * streams * size.cost <= needed]
        return [small, *several, *(size for size in (band, *fitting) if _FULL * streams * size.cost <= needed)]

    def _fitting(self, index: int, wanted: Mask) -> list[TileSize]:
        """What fits the part of the frame that is wanted, where frame after frame wants the same: the picture between
        black bars, a speaker beside slides."""
        rows, columns = (np.flatnonzero(wanted.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return []
        extent = (int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1]))
        last, times = self._extents.get(index, (extent, 0))
        self._extents[index] = (extent, times + 1 if extent == last else 0)
        tall, wide = ((1 + end - begin) * CELL for begin, end in (extent[:2], extent[2:]))
        if times < _STEADY or tall * wide > _FITTING_SHARE * self._source.height * self._source.width:
            return []
        around = 2 * self._stages[index].reach
        shape = (-(-tall // self._options.streams) + around, wide + around)
        height, width = (
            min(-(-length // _GRAIN) * _GRAIN, whole)
            for length, whole in zip(shape, (self._source.height, self._source.width), strict=True)
        )
        return [self._price(index, height, width)]

    def _shapes(self) -> list[tuple[int, int]]:
        """(height, width) of tiles of every stage."""
        source, reach = self._source, max(stage.reach for stage in self._stages)
        shapes = dict.fromkeys((min(side, source.height), min(side, source.width)) for side in _SIDES)
        # For whole frames, as many as run at once.
        band = -(-(source.height // self._options.streams + 2 * reach) // CELL) * CELL
        shapes[min(band, source.height), source.width] = None
        return [
            shape
            for shape in shapes
            if all(
                length == whole or length >= 2 * reach + 4 * CELL
                for length, whole in zip(shape, (source.height, source.width), strict=True)
            )
        ]

    def _price(self, index: int, height: int, width: int) -> TileSize:
        pixels = height * width * self._stages[index].share + _TILE_PAIRS / self._pairs
        return TileSize(height=height, width=width, cost=pixels / (self._source.height * self._source.width))


def _edge(edge: int, scale: int, factor: int, limit: int) -> int:
    """Where an edge in source pixels lies in a plane."""
    return min(-(-edge * scale // factor), limit)
