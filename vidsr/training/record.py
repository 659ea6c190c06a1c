"""The log of a run: a CSV file that grows, and a plot made of it."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from vidsr.durable import write_whole
from vidsr.errors import InputError, OutputError
from vidsr.training.loop import Row

__all__ = ["Record"]

_COLUMNS = Row.__slots__


class Record:
    """The run's rows, in log.csv of its folder. A step that is made again after a stop takes the place of its row.

    Raises InputError for a log.csv of another kind, OutputError.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._plot = folder / "log.csv", folder / "log.svg"
        self._rows: dict[int, dict[str, Any]] = {}
        if self._path.exists():
            try:
                with self._path.open(newline="", encoding="utf-8") as lines:
                    reader = csv.DictReader(lines)
                    self._rows = {int(row["step"]): row for row in reader}
                    if list(reader.fieldnames or ()) != list(_COLUMNS):
                        raise ValueError("other columns")
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise InputError(f"{self._path}: not the log of a run; remove it to begin a new one") from error

    def add(self, row: Row) -> None:
        """Keeps a row."""
        self._rows = {step: kept for step, kept in self._rows.items() if step < row.step}
        self._rows[row.step] = {
            "step": row.step,
            "loss": f"{row.loss:.6f}",
            "rate": f"{row.rate:.6g}",
            "steps_per_second": f"{row.steps_per_second:.3f}",
            "psnr_y": "" if row.psnr_y is None else f"{row.psnr_y:.4f}",
        }
        lines = io.StringIO(newline="")
        writer = csv.DictWriter(lines, _COLUMNS)
        writer.writeheader()
        writer.writerows(self._rows.values())
        self._write(self._path, lines.getvalue().encode())

    def plot(self) -> None:
        """Writes log.svg: loss and validation over the steps."""
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        axes.set(xlabel="step", ylabel="loss (dB)")
        axes.plot(
            [int(row["step"]) for row in self._rows.values()],
            [float(row["loss"]) for row in self._rows.values()],
            label="loss",
        )
        scored = [row for row in self._rows.values() if row["psnr_y"]]
        if scored:
            right = axes.twinx()
            right.set_ylabel("PSNR-Y of shots kept back (dB)")
            steps = [int(row["step"]) for row in scored]
            right.plot(steps, [float(row["psnr_y"]) for row in scored], "o-", color="tab:orange")
        drawn = io.BytesIO()
        figure.savefig(drawn, format="svg")
        self._write(self._plot, drawn.getvalue())

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        try:
            write_whole(path, data)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
