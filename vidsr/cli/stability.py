"""`vidsr eval --stability`."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from vidsr.stability import Finding

__all__ = ["report"]

_FRAMES = 16
_LARGEST = (400, 640)


def report(model: str, clip: Path | None, as_json: bool) -> int:
    """Prints what a model makes of the extremes, and of the middle of 16 frames of a clip; 0 also where it is bad."""
    from vidsr import models
    from vidsr.evaluate import footage_of
    from vidsr.stability import examine

    loaded = models.load(model)
    if clip is None:
        found = examine(loaded)
    else:
        found = examine(loaded, clip.name, footage_of(clip, frames=_FRAMES, largest=_LARGEST).runs)
    if as_json:
        click.echo(json.dumps({
            "model": model,
            "safe": found.safe,
            "verdict": found.verdict,
            "extremes": [_plain(finding) for finding in found.extremes],
            "clip": None if found.clip is None else _plain(found.clip),
        }))  # fmt: skip
        return 0
    rows = [*found.extremes, *([found.clip] if found.clip else [])]
    width = max(len(finding.name) for finding in rows)
    click.echo(f"{'':{width}} {'lowest':>9} {'highest':>9} {'wild':>9} {'flicker':>9}")
    for finding in rows:
        flicker = "" if finding.flicker is None else f"{finding.flicker:.2f}"
        values = f"{finding.low:9.2f} {finding.high:9.2f} {100 * finding.wild:7.2f} % {flicker:>9}"
        click.echo(f"{finding.name:{width}} {values}".rstrip())
    click.echo("white is 1; wild: more than 0.25 from bicubic; flicker: change over bicubic's where nothing moves")
    click.echo(f"{loaded.name}: {found.verdict}")
    return 0


def _plain(finding: Finding) -> dict[str, Any]:
    """For JSON, which has neither NaN nor infinity."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in asdict(finding).items()
    }
