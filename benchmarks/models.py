"""Measures models on compressed video and writes the tables of docs/models.md.

    python -m benchmarks.models ../shared --model span --model span-clean --model span-fast --frames 8 \
        --results models.json --into docs/models.md

Clips of different kinds, and screen recordings, are shrunk by two, encoded, decoded, enlarged and compared, as by
`vidsr eval`. Beside each --model stand bicubic interpolation and the official checkpoints (--official, from
../shared/weights), imported into a temporary folder. What --results holds already is not measured again; frames and
models are known there by what they hold, models by the precision and the guard as well, so what has changed is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vidsr import models
from vidsr.api import Upscaler
from vidsr.checkpoint import import_checkpoint
from vidsr.evaluate import bicubic, footage_of, measure, small_of
from vidsr.job.engine import default_cache
from vidsr.stability import needs_guard

CLIPS = {
    "anime_640x480.mp4": "drawn animation, subtitles",
    "bbb_480p_30s.mp4": "rendered animation, grass, fur",
    "bt601.mov": "face, webcam",
    "live_action_bottles.mp4": "still life",
    "live_action_cockatoo.mp4": "bird, close",
    "live_action_short.mp4": "plants, held in hand",
    "park_joy_480x270.y4m": "trees, people running",
    "phone_vfr_hevc_fullrange_rotated.mp4": "face, phone",
    "rotated_90.mp4": "dog in a forest",
    "with_data_streams.mov": "face in a dark room",
}
SCREENS = {
    "screen_recording_vp8_or_vp9.webm": "web page",
    "screen_recording_tscc.avi": "old desktop",
}
CONDITIONS = (("h264", 18), ("h264", 23), ("h264", 28), ("hevc", 28), ("vp9", 33))
GUARD = 1
"""Counts up when the guard changes (`vidsr.graph.guard`); what was measured with another is measured again."""
SCALE = 2
LARGEST = (270, 480)
FIGURES = {"psnr_y": ("PSNR-Y, dB", 2), "ssim_y": ("SSIM-Y", 4), "flicker": ("flicker, code values", 3)}

Row = dict[str, Any]


def opened(choices: argparse.Namespace, stack: ExitStack) -> Iterator[tuple[str, str, Callable[[Any], Any]]]:
    """(label, what its file is known by, function) for bicubic, the official models and the given ones."""
    yield "bicubic", "bicubic", lambda image: bicubic(image, SCALE)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vidsr-models-")))
    paths = []
    for name in choices.official:
        weights = choices.shared / "weights" / f"{name}.safetensors"
        # The weights are what counts; how they are imported may change.
        paths.append((f"official {name}", weights, import_checkpoint(weights, name, folder=folder, overwrite=True)))
    for name in choices.model:
        path = models.load(name).path
        paths.append((Path(name).stem, path, path))
    if len({shown for shown, *_ in paths}) < len(paths):
        raise SystemExit("two models have the same name: give one of the files another")
    for shown, known, path in paths:
        key = digest(known.read_bytes())
        upscaler = stack.enter_context(Upscaler(str(path), precision=choices.precision))
        if upscaler.scale != SCALE:
            raise SystemExit(f"{shown}: this measures x{SCALE}, it is x{upscaler.scale}")
        guard = f" guard {GUARD}" if needs_guard(models.load(str(path)), default_cache()) else ""
        yield shown, f"{key} {choices.precision}{guard}", upscaler


def measured(choices: argparse.Namespace, kept: dict[str, Row], save: Callable[[], None]) -> list[Row]:
    """Rows of every clip, condition and model; those in `kept` as they are, others are added to it."""
    rows = []
    with ExitStack() as stack:
        ways = list(opened(choices, stack))
        for clip in [*CLIPS, *SCREENS]:
            footage = footage_of(
                choices.shared / "clips" / clip, frames=choices.frames, largest=LARGEST, multiple=2 * SCALE
            )
            seen = digest(b"".join(run.tobytes() for run in footage.runs))
            for codec, crf in CONDITIONS:
                keys = {shown: f"{clip} {seen} {codec} {crf} {known}" for shown, known, _ in ways}
                missing = [way for way in ways if keys[way[0]] not in kept]
                if missing:
                    small = small_of(footage, SCALE, codec, crf)
                    for shown, _, upscale in missing:
                        score = asdict(measure(footage, small, upscale))
                        kept[keys[shown]] = {"kilobits_per_second": small.kilobits_per_second, **score}
                    save()
                rows += [
                    {"clip": clip, "codec": codec, "crf": crf, "model": shown, **kept[key]}
                    for shown, key in keys.items()
                ]
                print(clip, codec, crf, file=sys.stderr, flush=True)
    return rows


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def table(heading: Sequence[str], lines: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heading)} |"
    yield f"| {' | '.join('---' for _ in heading)} |"
    yield from (f"| {' | '.join(line)} |" for line in lines)
    yield ""


def markdown(rows: Sequence[Row]) -> Iterator[str]:
    """Means over the clips, what the given models gain, and each clip."""
    shown = list(dict.fromkeys(row["model"] for row in rows))
    found = {(row["clip"], row["codec"], row["crf"], row["model"]): row for row in rows}

    def values(clips: Sequence[str], condition: tuple[str, int], model: str, figure: str) -> list[float]:
        return [found[clip, *condition, model][figure] for clip in clips]

    for figure, (title, digits) in FIGURES.items():
        yield f"Mean {title}, {len(CLIPS)} clips:"
        yield ""
        yield from table(
            ["encoded", *shown],
            [
                [f"{codec} {crf}"]
                + [f"{np.mean(values([*CLIPS], (codec, crf), model, figure)):.{digits}f}" for model in shown]
                for codec, crf in CONDITIONS
            ],
        )
    references = [model for model in shown if model == "bicubic" or model.startswith("official")]
    for model in shown:
        if model in references:
            continue
        yield f"What `{model}` gains in PSNR-Y, mean and on the worst clip:"
        yield ""
        lines = []
        for condition in CONDITIONS:
            cells = [f"{condition[0]} {condition[1]}"]
            for other in references:
                pairs = zip(
                    values([*CLIPS], condition, model, "psnr_y"), values([*CLIPS], condition, other, "psnr_y"),
                    CLIPS, strict=True,
                )  # fmt: skip
                gains = [(mine - its, clip) for mine, its, clip in pairs]
                cells.append(f"{np.mean([gain for gain, _ in gains]):+.2f}, {min(gains)[0]:+.2f} ({min(gains)[1]})")
            lines.append(cells)
        yield from table(["encoded", *(f"over {other}" for other in references)], lines)
    for condition in CONDITIONS:
        yield f"PSNR-Y and flicker, {condition[0]} {condition[1]}:"
        yield ""
        yield from table(
            ["clip", "kind", "kbit/s", *shown],
            [
                [clip, kind, f"{found[clip, *condition, shown[0]]['kilobits_per_second']:.0f}"]
                + [
                    " / ".join(f"{found[clip, *condition, model][figure]:.2f}" for figure in ("psnr_y", "flicker"))
                    for model in shown
                ]
                for clip, kind in (CLIPS | SCREENS).items()
            ],
        )


def replaced(document: str, tables: str) -> str:
    """The document with these tables in place of those with the same titles; others are left out, which is said."""
    for title, lines in re.findall(r"^(.+:)\n\n((?:\|.*\n)+)", tables, re.MULTILINE):
        place = re.compile(rf"^{re.escape(title)}\n\n(?:\|.*\n)+", re.MULTILINE)
        document, count = place.subn(lambda found, new=f"{title}\n\n{lines}": new, document)
        if not count:
            print(f"not in the document: {title}", file=sys.stderr)
    return document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with clips/ and weights/")
    parser.add_argument("--model", action="append", metavar="NAME|FILE.onnx", help="may be repeated; default span")
    parser.add_argument("--official", nargs="*", default=["spanx2_ch48"], metavar="NAME", help="default spanx2_ch48")
    parser.add_argument("--frames", type=int, default=16, metavar="N", help="of each clip, in runs of 8; default 16")
    parser.add_argument("--precision", default="fp32", choices=["auto", "fp32", "bf16", "fp16", "int8"])
    parser.add_argument("--results", type=Path, required=True, metavar="FILE.json", help="read, and written as it goes")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--table", type=Path, metavar="FILE.md", help="default: standard output")
    where.add_argument("--into", type=Path, metavar="FILE.md", help="there instead of the tables with the same titles")
    choices = parser.parse_args()
    choices.model = choices.model or [models.DEFAULT]
    kept: dict[str, Row] = json.loads(choices.results.read_text()) if choices.results.exists() else {}

    def save() -> None:
        part = choices.results.with_name(f"{choices.results.name}.part")
        part.write_text(json.dumps(kept, indent=1), encoding="utf-8")
        part.replace(choices.results)

    text = "\n".join(markdown(measured(choices, kept, save)))
    if choices.into:
        choices.into.write_text(replaced(choices.into.read_text(encoding="utf-8"), text), encoding="utf-8")
    elif choices.table:
        choices.table.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
