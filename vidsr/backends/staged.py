"""A model run in parts, with what passes between them kept: a change is computed anew only as far as it reaches.

A change of one pixel changes the output within the model's radius R, and to compute that a tile needs R more around it:
(4R)^2 pixels for one. Cut into parts of radius r each, with everything that passes a cut kept for the whole frame, a
part computes what the change has reached so far and r around it.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidsr.backends.base import Backend, EngineOptions, Part, Slot
from vidsr.backends.change import Mask, Tile, TileSize, cover, dilated
from vidsr.backends.tiled import steps_of, tile_layouts
from vidsr.frame import FrameLayout
from vidsr.graph import CODES_FROM_RGB, RGB_FROM_CODES, ModelProto, plane_names
from vidsr.graph.cost import multiply_adds
from vidsr.graph.cut import Cut, cuts, part
from vidsr.models import Model

__all__ = ["CELL", "Plan", "Staged", "stages_of"]

CELL = 4
"""Side of the cells in which changes are followed, in luma pixels; a multiple of all chroma factors that are known."""

_SIDES = (64, 128, 256)
_MOST_STAGES = 4
_STAGE_PAIRS = 4e4
"""Multiplications and additions a pixel that are worth a stage of their own: what a tile costs besides is about that of
a thousand pixels of so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """tiles: of each stage. cost: as a share of what a whole frame costs."""

    tiles: tuple[tuple[Tile, ...], ...]
    cost: float


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

    output: planes of the target's layout, of the last frame. Raises BackendError where the parts cannot be made.
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
        self._sizes = self._measured()

    def plan(self, dirty: Mask, limit: float) -> Plan | None:
        """What to compute where these cells have changed; None where it costs more than `limit`, as a share of a whole
        frame."""
        tiles, cost = list[tuple[Tile, ...]](), 0.0
        frame = (self._source.height, self._source.width)
        reached = 0
        for stage, sizes in zip(self._stages, self._sizes, strict=True):
            reached += stage.reach
            wanted = dilated(dirty, -(-reached // CELL))
            covered = cover(wanted, sizes, frame, cell=CELL, reach=stage.reach, limit=limit - cost)
            if covered is None:
                return None
            tiles.append(tuple(covered[0]))
            cost += covered[1]
        return Plan(tiles=tuple(tiles), cost=cost)

    def run(self, slot: Slot, plan: Plan) -> None:
        """Brings `output` up to the frame in `slot.input`."""
        given: dict[str, NDArray[Any]] = {
            **dict(zip(plane_names("in", self._source), slot.input, strict=True)),
            RGB_FROM_CODES: slot.rgb_from_codes,
            CODES_FROM_RGB: slot.codes_from_rgb,
        }
        for index, tiles in enumerate(plan.tiles):
            busy = deque[tuple[Part, Tile]]()
            free: dict[TileSize, deque[Part]] = {}
            try:
                for tile in tiles:
                    size = tile.size
                    ready = free.setdefault(size, deque(self._part(index, size)))
                    while not ready or len(busy) >= self._options.streams:
                        done, its = busy.popleft()
                        done.wait()
                        self._paste(done.made, its)
                        free[its.size].append(done)
                    chosen = ready.popleft()
                    self._cut(chosen.given, given, tile)
                    chosen.submit()
                    busy.append((chosen, tile))
                while busy:
                    done, its = busy.popleft()
                    done.wait()
                    self._paste(done.made, its)
            finally:
                for done, _ in busy:  # only where something was raised
                    done.wait()

    def _part(self, index: int, size: TileSize) -> Sequence[Part]:
        key = (index, size.height, size.width)
        if key not in self._parts:
            before = self._stages[index - 1] if index else None
            behind = self._stages[index]
            passing = (*(before.tensors if before else ()), *behind.tensors)
            exact = {tensor.name for tensor in passing if tensor.exact} | {RGB_FROM_CODES, CODES_FROM_RGB}
            proto = part(self._composed(size.height, size.width), before, behind)
            self._parts[key] = parts = self._backend.open_part(proto, exact, self._options)
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

    def _measured(self) -> list[list[TileSize]]:
        """The sizes of tiles of each stage with what they cost, from the time of two of them: so much a pixel, and so
        much besides. Stages do about the same to a pixel, in proportion to their share."""
        source = self._source
        step = CELL
        shapes = dict.fromkeys(
            (min(side, source.height), min(side, source.width))
            for side in _SIDES
            if side < max(source.height, source.width)
        )
        band = -(-(source.height // 2 + 2 * max(stage.reach for stage in self._stages)) // step) * step
        if band < source.height:
            shapes[band, source.width] = None
        shapes[source.height, source.width] = None
        return self._priced([shape for shape in shapes if self._fits(shape)])

    def _fits(self, shape: tuple[int, int]) -> bool:
        """Whether enough of the tile is inside."""
        reach = max(stage.reach for stage in self._stages)
        pairs = zip(shape, (self._source.height, self._source.width), strict=True)
        return all(length == whole or length >= 2 * reach + 4 * CELL for length, whole in pairs)

    def _priced(self, shapes: Sequence[tuple[int, int]]) -> list[list[TileSize]]:
        index = max(range(len(self._stages)), key=lambda number: self._stages[number].share)
        squares = [shape for shape in shapes if max(shape) <= max(_SIDES)] or shapes
        trials = sorted({min(squares, key=math.prod), max(squares, key=math.prod)}, key=math.prod)
        seconds = [self._seconds(index, TileSize(height=height, width=width, cost=0.0)) for height, width in trials]
        pixels = [math.prod(shape) for shape in trials]
        slope = seconds[-1] / pixels[-1]
        if len(trials) > 1 and seconds[1] > seconds[0]:
            slope = (seconds[1] - seconds[0]) / (pixels[1] - pixels[0])
        besides = max(0.0, seconds[0] - slope * pixels[0])
        whole = slope * self._source.height * self._source.width / self._stages[index].share
        return [
            [
                TileSize(
                    height=height,
                    width=width,
                    cost=(slope * height * width * stage.share / self._stages[index].share + besides) / whole,
                )
                for height, width in shapes
            ]
            for stage in self._stages
        ]

    def _seconds(self, index: int, size: TileSize) -> float:
        """Of one tile, the shortest of a few."""
        runner = self._part(index, size)[0]
        tile = Tile(size=size, top=0, left=0, inside=(0, size.height, 0, size.width))
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            runner.submit()
            runner.wait()
            self._paste(runner.made, tile)
            times.append(time.perf_counter() - begin)
        return min(times)


def _edge(edge: int, scale: int, factor: int, limit: int) -> int:
    """Where an edge in source pixels lies in a plane."""
    return min(-(-edge * scale // factor), limit)
