"""Runs every clip of a folder through vidsr and writes what became of each as a table.

    python benchmarks/fidelity.py ../shared/clips docs/fidelity.md -- --model nearest.onnx

What stands behind `--` goes to every run. Each output gets its source's container (Matroska where vidsr writes none of
that kind) and is verified by the run itself. Exit code 1 if a run fails or an output is not what it should be.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from vidsr.media.container import CONTAINERS
from vidsr.media.pixel import pixel_format
from vidsr.media.source import SourceInfo, probe

NAMES = {1: "BT.709", 5: "BT.601", 6: "BT.601", 9: "BT.2020", 16: "PQ", 18: "HLG"}
"""Of H.273 codes, as far as they occur."""


@dataclass
class Row:
    """has, came_out, announced, verified: cells of the table. right: nothing failed."""

    name: str
    has: str
    came_out: str
    announced: str
    verified: str
    right: bool


def described(info: SourceInfo) -> str:
    """What is in a file, in a few words."""
    video = info.video
    layout, color = video.layout, video.color
    words = [video.codec, f"{layout.width}x{layout.height}", video.pixel_format]
    words += [name for code in dict.fromkeys((color.matrix, color.transfer)) if (name := NAMES.get(code))]
    words += ["full range"] if color.full_range else []
    words += [f"SAR {video.sample_aspect_ratio}"] if video.sample_aspect_ratio not in (None, 1) else []
    words += ["turned"] if video.display_matrix else []
    words += {"tff": ["interlaced, top first"], "bff": ["interlaced, bottom first"]}.get(video.scan, [])
    words += ["HDR10"] if video.hdr else []
    words += list(video.dynamic_hdr)
    others = [track for track in info.tracks if track.index != video.index]
    words += [f"cover {track.codec}" if track.cover else track.codec or track.kind for track in others]
    with open_(info.path) as container:
        words += [f"{count} chapters"] if (count := len(container.chapters())) else []
    return ", ".join(words)


def open_(path: Path) -> Any:
    return av.open(f"file:{path}")


def row(clip: Path, folder: Path, options: list[str]) -> Row:
    suffix = clip.suffix if clip.suffix in CONTAINERS else ".mkv"
    target = folder / (clip.stem + suffix)
    begin = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-m", "vidsr", str(clip), str(target), "--json", *options], capture_output=True, text=True
    )
    events = [json.loads(line) for line in run.stdout.splitlines()]
    announced = announced_in(events)
    if not target.exists():
        return Row(clip.name, "", "nothing", announced, f"exit code {run.returncode}: {run.stderr.strip()}", False)
    done = events[-1]
    info = probe(target)
    layout = info.video.layout
    made = f"{suffix[1:]}, {layout.width}x{layout.height}, {info.video.codec}, {pixel_format(layout)}"
    print(f"{clip.name}: {time.monotonic() - begin:.0f} s", flush=True)
    target.unlink()
    right = run.returncode == 0 and done["verified"]
    verified = f"{done['frames']} frames right" if right else f"**exit code {run.returncode}**"
    return Row(
        clip.name, described(probe(clip)), made, announced, "<br>".join([verified, *done.get("faults", [])]), right
    )


def announced_in(events: list[dict[str, Any]]) -> str:
    """What was said before the run and, marked so, what was met on the way."""
    cells, begun = [], False
    for event in events:
        begun = begun or event["event"] == "start"
        if event["event"] == "warning":
            cells.append(f"met on the way: {event['message']}" if begun else event["message"])
    return "<br>".join(cells)


def main() -> int:
    given = sys.argv[1:]
    cut = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--only", default="*", metavar="PATTERN")
    choices = parser.parse_args(given[:cut])
    options = given[cut + 1 :]
    rows = []
    with tempfile.TemporaryDirectory(prefix="vidsr-fidelity-") as folder:
        for clip in sorted(choices.clips.glob(choices.only)):
            rows.append(row(clip, Path(folder), options))
            print(f"{rows[-1].name}: {rows[-1].verified.replace('<br>', '; ')}", flush=True)
    right = sum(entry.right for entry in rows)
    lines = [
        "# What became of awkward files",
        "",
        f"`python benchmarks/fidelity.py {choices.clips} {choices.table} -- {' '.join(options)}`",
        "",
        f"{right} of {len(rows)} outputs are what they should be: every frame's time and picture, every packet of the "
        "other tracks, chapters, tags, colour and shape compared with the source.",
        "",
        "| clip | has | came out | said before the run | verified |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {entry.name} | {entry.has} | {entry.came_out} | {entry.announced} | {entry.verified} |"
            for entry in rows
        ),
    ]
    choices.table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0 if right == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
