"""Frames too large for the memory budget: an engine that runs another one tile by tile."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from vidsr.backends.base import Engine, Slot
from vidsr.errors import MemoryBudgetError
from vidsr.frame import FrameLayout
from vidsr.models import Model

__all__ = ["TiledEngine", "frame_bytes", "halo_of", "smaller_tile", "steps_of", "tile_layouts", "tile_size"]

_MIN_INSIDE = 16
# The chroma filters around the model reach two chroma samples up and, on the finer grid behind it, four luma ones down.
_CHROMA_REACH = 4


def halo_of(model: Model, source: FrameLayout, target: FrameLayout) -> int | None:
    """Pixels around a tile, a multiple of the steps; None if there is no such. They make its inside exact, unless the
    model sees the whole picture: then they are what its metadata state."""
    if model.overlap is None:
        return None
    reach = model.overlap
    if model.radius is not None:
        reach += _CHROMA_REACH * max(*source.chroma, *target.chroma)
    step = math.lcm(*steps_of(source, target, model.tile_step))
    return -(-reach // step) * step


def steps_of(source: FrameLayout, target: FrameLayout, multiple: int) -> tuple[int, int]:
    """What tiles begin on multiples of, down and right: where chroma samples of both source and target begin, and
    where the model does. multiple: `Model.tile_step`."""
    scale = target.height // source.height
    down, right = (
        math.lcm(multiple, near, far // math.gcd(far, scale))
        for near, far in zip(source.chroma, target.chroma, strict=True)
    )
    return down, right


def frame_bytes(model: Model, source: FrameLayout, target: FrameLayout, item_bytes: int) -> float:
    """Bytes of the tensors alive at once in one inference. item_bytes: of one activation, 4 in FP32."""
    activations = source.height * source.width * model.activation_bytes * item_bytes / 4
    # Head and tail work in FP32: three channels in, three channels and one plane out.
    edges = 4.0 * (3 * source.height * source.width + 5 * target.height * target.width)
    return activations + edges


def tile_size(
    model: Model,
    source: FrameLayout,
    target: FrameLayout,
    *,
    item_bytes: int,
    overhead: float,
    budget_bytes: int,
    fuses_attention: bool = True,
) -> tuple[int, int] | None:
    """(height, width) of the tiles that fit the budget, halo included, and compute least in all; None if whole frames
    fit.

    item_bytes: of one activation, 4 in FP32. overhead, fuses_attention: the backend's.

    Raises MemoryBudgetError if not even small tiles fit, or if this model cannot be cut.
    """

    def needed(size: FrameLayout) -> float:
        scaled = _scaled(target, source, size.height, size.width)
        scores = 0.0 if fuses_attention else size.height * size.width * model.score_bytes
        return overhead * frame_bytes(model, size, scaled, item_bytes) + scores

    whole = needed(source)
    if whole <= budget_bytes:
        return None
    size = f"{source.width}x{source.height}"
    halo = halo_of(model, source, target)
    if halo is None:
        raise MemoryBudgetError(
            f"{size} frames need about {whole / 2**20:.0f}M with {model.name}, which looks at the whole picture and "
            f"cannot work in tiles: raise --memory (now {budget_bytes / 2**20:.0f}M)"
        )
    step = math.lcm(*steps_of(source, target, model.tile_step))
    # Where tiles are not exact, a step more than must be makes them differ less.
    around = halo if model.radius is not None else halo + step
    heights, widths = (_tile_lengths(length, around, step) for length in (source.height, source.width))
    found: list[tuple[int, tuple[int, int]]] = []
    columns = len(widths)
    for rows, height in enumerate(heights, 1):
        # The lower tiles are, the wider they can be.
        while columns and needed(replace(source, height=height, width=widths[columns - 1])) <= budget_bytes:
            columns -= 1
        if columns < len(widths):
            width = widths[columns]
            found.append((rows * height * (columns + 1) * width, (height, width)))
    if not found:
        raise MemoryBudgetError(
            f"--memory {budget_bytes / 2**20:.0f}M is too little for {model.name}: "
            f"{whole / 2**20:.0f}M would hold whole {size} frames"
        )
    return min(found)[1]


def tile_layouts(source: FrameLayout, target: FrameLayout, tile: tuple[int, int]) -> tuple[FrameLayout, FrameLayout]:
    """(source, target) of the engine for tiles of (height, width)."""
    height, width = min(tile[0], source.height), min(tile[1], source.width)
    return replace(source, height=height, width=width), _scaled(target, source, height, width)


def smaller_tile(
    model: Model, source: FrameLayout, target: FrameLayout, tile: tuple[int, int] | None
) -> tuple[int, int] | None:
    """(height, width) of tiles that take half the memory of `tile`, or of whole frames; None where there are none."""
    now, made = (source, target) if tile is None else tile_layouts(source, target, tile)
    half = int(frame_bytes(model, now, made, 4) / 2)
    try:
        return tile_size(model, source, target, item_bytes=4, overhead=1.0, budget_bytes=half)
    except MemoryBudgetError:
        return None


def _tile_lengths(length: int, halo: int, step: int) -> list[int]:
    """Length of equal tiles with their halo, by how many there are (1, 2, ...): such that the last can end with the
    frame on whole chroma, and no longer."""
    rest = length % step
    counts = range(1, max(1, length // _MIN_INSIDE) + 1)
    # Where tiles meet each has a halo; the frame's border has none.
    shared = (-(-(length - rest + 2 * halo * (count - 1)) // (count * step)) for count in counts)
    return [min(length, steps * step + rest) for steps in shared]


def _scaled(target: FrameLayout, source: FrameLayout, height: int, width: int) -> FrameLayout:
    scale = target.height // source.height
    return replace(target, height=height * scale, width=width * scale)


class TiledEngine:
    """Cuts frames into overlapping tiles of one size and keeps each tile's exact inside.

    Tiles at the border end with the frame, so that the model sees the true border; the result equals that of whole
    frames but for the rounding of the engine underneath, and what a model sees beyond `halo`. multiple:
    `Model.tile_step`. on_tile: told how many tiles of how many are done with; what it raises ends the frame.
    """

    def __init__(
        self,
        open_inner: Callable[[FrameLayout, FrameLayout], Engine],
        source: FrameLayout,
        target: FrameLayout,
        *,
        tile: tuple[int, int],
        halo: int,
        multiple: int = 1,
        on_tile: Callable[[int, int], None] = lambda done, count: None,
    ) -> None:
        self.source, self.target, self.in_flight = source, target, 2
        self._on_tile = on_tile
        self._scale = target.height // source.height
        layouts = tile_layouts(source, target, tile)
        height, width = layouts[0].height, layouts[0].width
        self._inner = open_inner(*layouts)
        self.description = f"{self._inner.description}, in tiles of {width}x{height}"
        step_y, step_x = steps_of(source, target, multiple)
        self._spans = [
            (rows, columns)
            for rows in _spans(source.height, height, halo, step_y)
            for columns in _spans(source.width, width, halo, step_x)
        ]
        self._todo = deque[tuple[Slot, _Span, _Span]]()
        self._busy = deque[tuple[Slot, Slot, _Span, _Span]]()
        self._left: dict[Slot, int] = {}
        try:
            self._work = list(self._inner.slots(self._inner.in_flight))
        except BaseException:
            self._inner.close()
            raise
        self._free = deque(self._work)

    def slots(self, count: int) -> Sequence[Slot]:
        return [Slot.allocate(self.source, self.target) for _ in range(count)]

    def submit(self, slot: Slot) -> None:
        self._left[slot] = len(self._spans)
        self._todo += ((slot, *span) for span in self._spans)

    def wait(self, slot: Slot) -> None:
        """Runs the tiles of this frame. The next is cut out while others are on the device, be it one of the frame
        behind."""
        try:
            while slot in self._left:
                while self._todo and self._free:
                    self._begin(self._free.popleft(), *self._todo.popleft())
                self._finish(*self._busy.popleft())
                self._on_tile(len(self._spans) - self._left.get(slot, 0), len(self._spans))
        except BaseException:
            self._give_up()
            raise

    def close(self) -> None:
        self._give_up()
        self._work.clear()
        self._inner.close()

    def _begin(self, work: Slot, slot: Slot, rows: _Span, columns: _Span) -> None:
        self._cut(slot, work, rows, columns)
        self._inner.submit(work)
        self._busy.append((work, slot, rows, columns))

    def _finish(self, work: Slot, slot: Slot, rows: _Span, columns: _Span) -> None:
        """Brings a tile home."""
        self._inner.wait(work)
        self._paste(work, rows, columns, slot)
        self._free.append(work)
        self._left[slot] -= 1
        if not self._left[slot]:
            del self._left[slot]

    def _give_up(self) -> None:
        """Leaves all frames as they are; nothing is on the device any more."""
        self._left.clear()
        self._todo.clear()
        while self._busy:
            self._inner.wait(self._busy.popleft()[0])
        self._free = deque(self._work)

    def _cut(self, slot: Slot, work: Slot, rows: _Span, columns: _Span) -> None:
        work.rgb_from_codes[:] = slot.rgb_from_codes
        work.codes_from_rgb[:] = slot.codes_from_rgb
        for plane, part, (down, right) in zip(slot.input, work.input, _factors(self.source), strict=True):
            top, left = rows[0] // down, columns[0] // right
            np.copyto(part, plane[top : top + part.shape[0], left : left + part.shape[1]])

    def _paste(self, work: Slot, rows: _Span, columns: _Span, slot: Slot) -> None:
        for plane, part, (down, right) in zip(slot.output, work.output, _factors(self.target), strict=True):
            y, x = (
                _inside(rows, self._scale, down, plane.shape[0]),
                _inside(columns, self._scale, right, plane.shape[1]),
            )
            plane[y[1], x[1]] = part[y[0], x[0]]


_Span = tuple[int, int, int]
"""Where a tile begins, and from where to where its inside is kept: all in frame coordinates of the source."""


def _factors(layout: FrameLayout) -> Iterator[tuple[int, int]]:
    for index in range(len(layout.shapes)):
        yield layout.chroma if index else (1, 1)


def _spans(length: int, tile: int, halo: int, step: int) -> list[_Span]:
    """Tiles along one axis: begins are multiples of `step`, insides join without gap or overlap.

    length - tile and halo are multiples of step.
    """
    spans: list[_Span] = []
    done = 0
    while done < length:
        begin = min(max(0, done - halo), length - tile)
        finish = length if begin + tile == length else (begin + tile - halo) // step * step
        spans.append((begin, done, finish))
        done = finish
    return spans


def _inside(span: _Span, scale: int, factor: int, limit: int) -> tuple[slice, slice]:
    """(slice in the tile's plane, slice in the frame's plane) of a span's inside."""
    begin, first, last = (edge * scale for edge in span)
    first, last = -(-first // factor), min(-(-last // factor), limit)
    origin = begin // factor
    return slice(first - origin, last - origin), slice(first, last)
