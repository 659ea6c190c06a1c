"""Pictures of what a benchmark found. Needs the extra `bench`: matplotlib."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from vidsr.benchmark.result import Result, Share
from vidsr.benchmark.sweep import Sweep
from vidsr.durable import write_whole
from vidsr.errors import OutputError, UsageError

__all__ = ["check", "result_figure", "save", "sweep_figure"]

_BOUND, _REST, _FREE, _LINE = "#1b4f8a", "#a9cbea", "#c9ccd1", "#d1495b"
_WIDTH, _ROW, _THICK = 9.0, 0.42, 0.62
"""Of the picture and of a row in inches; of a bar in rows."""


def check(path: Path) -> str:
    """The format that the name asks for. Raises UsageError."""
    wanted = path.suffix.lower().removeprefix(".")
    if wanted not in ("svg", "png"):
        raise UsageError(f"--plot {path}: name a file that ends in .svg or .png")
    return wanted


def result_figure(result: Result) -> Figure:
    """How long each stage takes alone and how much of that its limit takes, then the whole."""
    rounds = [1000 / fps for fps in result.rounds]
    names = [*(stage.name for stage in result.stages), "the whole"]
    times = [*(stage.ms for stage in result.stages), 1000 / result.fps]
    bounds = [*(stage.bound_ms for stage in result.stages), 1000 / result.bound_fps]
    notes = [_note(stage) for stage in result.stages]
    notes.append(f"{result.fps:.1f} frames/s: {_percent(result.efficiency)} of {result.bound_fps:.1f}")
    figure, axes = _barred(len(names))
    places = [place + 0.35 * (place == len(names) - 1) for place in range(len(names))]
    axes.barh(places, times, color=[_FREE if bound is None else _REST for bound in bounds], height=_THICK)
    within = [min(bound or 0.0, ms) for bound, ms in zip(bounds, times, strict=True)]
    axes.barh(places, within, color=_BOUND, height=_THICK)
    axes.plot(rounds, [places[-1]] * len(rounds), "|", color=_LINE, markersize=14)
    for place, end, note in zip(places, [*times[:-1], max(rounds)], notes, strict=True):
        axes.annotate(note, (end, place), (7, 0), textcoords="offset points", va="center")
    axes.axhline(places[-1] - 0.675, color="0.8", linewidth=0.8)
    axes.set_yticks(places, names)
    axes.set_ylim(places[-1] + 0.6, -0.6)
    axes.set_xlabel("milliseconds a frame; each stage alone")
    axes.set_xlim(0, 1.65 * max(*times, *rounds))
    marks = [
        Patch(color=_BOUND, label="what its limit takes"),
        Patch(color=_REST, label="the rest"),
        Patch(color=_FREE, label="limit not known"),
        axes.plot([], [], "|", color=_LINE, markersize=11, label="one round")[0],
    ]
    axes.legend(handles=marks, ncols=len(marks), frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    chosen = [result.settings.get(name) for name in ("model", "size", "precision", "encoder")]
    heading = (
        f"{', '.join(str(part) for part in chosen if part)}\n{result.machine.processor}, {result.machine.cores} cores"
    )
    figure.suptitle(heading, fontsize=11)
    figure.supxlabel("\n".join(textwrap.wrap(result.advice.text, 110)), fontsize=10)
    return figure


def sweep_figure(found: Sweep) -> Figure:
    """Frames a second of every way, the fastest first, with their intervals."""
    rows = found.rows
    figure, axes = _barred(len(rows))
    middles = [row.fps.middle for row in rows]
    spread = [[row.fps.middle - row.fps.low for row in rows], [row.fps.high - row.fps.middle for row in rows]]
    colors = [_BOUND if row.name == found.base else _REST for row in rows]
    axes.barh(range(len(rows)), middles, xerr=spread, color=colors, ecolor=_LINE, capsize=3, height=_THICK)
    for place, row in enumerate(rows):
        note = f"{row.fps.middle:.1f}" if row.name == found.base else f"{row.fps.middle:.1f}, {row.ratio.middle:.2f}x"
        axes.annotate(note, (row.fps.high, place), (8, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(f"frames a second: median and interval of {len(rows[0].rounds)} rounds made in turn")
    axes.set_xlim(0, 1.25 * max(row.fps.high for row in rows))
    about = found.about
    figure.suptitle(f"{about['source']}, {about['size']}\n{about['processor']}, {about['cores']} cores", fontsize=11)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Raises UsageError, OutputError."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format=check(path))
    try:
        write_whole(path, drawn.getvalue())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error


def _note(stage: Share) -> str:
    ms = f"{stage.ms:.{2 if stage.ms >= 0.1 else 3}f} ms"
    return ms if stage.efficiency is None else f"{ms}: {_percent(stage.efficiency)} of its limit ({stage.bound})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _barred(count: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, 2.0 + _ROW * count), layout="constrained", dpi=150)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes
