"""Pictures of results: everything in them can be read, and they are files of the kind that was asked for."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

plot = pytest.importorskip("vidsr.benchmark.plot", reason="needs matplotlib", exc_type=ModuleNotFoundError)

from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.text import Text  # noqa: E402

from vidsr.benchmark.comparison import ratio_of  # noqa: E402
from vidsr.benchmark.interval import median_interval  # noqa: E402
from vidsr.benchmark.result import Advice, Limits, Result, Share  # noqa: E402
from vidsr.benchmark.sweep import Row, Sweep  # noqa: E402
from vidsr.errors import OutputError, UsageError  # noqa: E402

ADVICE = (
    "Inference takes four fifths of the time and runs near the limit of the processor's matrix units: only a smaller "
    "model (--model span-fast) would help, which would give 2.4x."
)


def result(inference: float = 15.0, encode: float = 3.0, fps: float = 50.0) -> Result:
    return Result(
        made="2026-01-01",
        settings={"source": "live", "size": "640x360", "model": "span", "precision": "bf16", "encoder": "libx264"},
        machine=Limits(processor="A Processor with a Name", cores=2, device="CPU", matrix_gflops={}, memory_gbps=10.0),
        versions={},
        stages=(
            Share(name="decode", ms=0.6, cpu_ms=1.0),
            Share(name="copy in", ms=0.02, cpu_ms=0.02, bound="memory", bound_ms=0.01),
            Share(name="inference", ms=inference, cpu_ms=2 * inference, bound="matrix bf16", bound_ms=0.93 * inference),
            Share(name="copy out", ms=0.09, cpu_ms=0.09, bound="memory", bound_ms=0.05),
            Share(name="encode", ms=encode, cpu_ms=2 * encode),
        ),
        rounds=(0.96 * fps, fps, 1.01 * fps),
        fps=fps,
        bound_fps=1.05 * fps,
        busy={},
        advice=Advice(limit="inference", change="", gain=1.0, text=ADVICE),
    )


def sweep(count: int) -> Sweep:
    base = [52.0, 53, 54, 55, 56]
    rows = []
    for number in range(count):
        rounds = [fps / (1 + number) for fps in base]
        name = f"onnxruntime, fp32, slots {number}, streams 16"
        fps, ratio = median_interval(rounds), ratio_of(base, rounds)
        rows.append(Row(name=name, options={}, engine="", frames=8, rounds=tuple(rounds), fps=fps, ratio=ratio))
    about = {"source": "clip.mkv", "size": "640x360", "processor": "A Processor with a Name", "cores": 2}
    return Sweep(about=about, base=rows[0].name, rows=tuple(rows), refused={})


FIGURES = {
    "usual": lambda: plot.result_figure(result()),
    "encoder slowest": lambda: plot.result_figure(result(inference=1.0, encode=200.0, fps=5.0)),
    "noisy": lambda: plot.result_figure(result(inference=0.1, encode=0.1, fps=3000.0)),
    "sweep": lambda: plot.sweep_figure(sweep(5)),
    "one way": lambda: plot.sweep_figure(sweep(1)),
    "many ways": lambda: plot.sweep_figure(sweep(40)),
}


def written(figure: Any) -> dict[str, Any]:
    """Where every text lies, in pixels."""
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_text().strip()]
    axes = figure.axes[0]
    beyond = [tick for tick in axes.get_xticklabels() if tick.get_position()[0] > axes.get_xlim()[1]]  # not drawn
    visible = [text for text in texts if text.get_visible() and text not in beyond]
    return {f"{number} {text.get_text()}": text.get_window_extent() for number, text in enumerate(visible)}


@pytest.mark.parametrize("name", FIGURES)
def test_texts_lie_in_the_picture_and_not_on_each_other(name: str) -> None:
    figure = FIGURES[name]()

    boxes = written(figure)

    assert len(boxes) > 4
    for text, box in boxes.items():
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text
    for (one, here), (other, there) in itertools.combinations(boxes.items(), 2):
        assert not here.overlaps(there), (one, other)


def test_it_says_the_figures() -> None:
    texts = " | ".join(written(plot.result_figure(result())))

    assert "15.00 ms: 93 % of its limit (matrix bf16)" in texts
    assert "50.0 frames/s: 95 % of 52.5" in texts
    assert "milliseconds a frame" in texts
    assert "which would give 2.4x" in texts.replace("\n", " ")


@pytest.mark.parametrize(("name", "begins"), [("a.svg", b"<?xml"), ("b.PNG", b"\x89PNG")])
def test_files_are_of_the_kind_that_was_asked_for(tmp_path: Path, name: str, begins: bytes) -> None:
    plot.save(FIGURES["sweep"](), tmp_path / name)

    assert (tmp_path / name).read_bytes().startswith(begins)


def test_other_kinds_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^--plot out\.pdf: name a file that ends in \.svg or \.png$"):
        plot.check(Path("out.pdf"))


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"none/out\.svg: cannot be written"):
        plot.save(FIGURES["one way"](), tmp_path / "none" / "out.svg")
