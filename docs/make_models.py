"""Makes the pictures of compressed video in `models.md`: `python docs/make_models.py ../shared`, with Pillow."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from vidsr.checkpoint import import_checkpoint

CLIPS = {
    "line": "anime_640x480.mp4",
    "face": "bt601.mov",
    "grass": "bbb_480p_30s.mp4",
    "dark": "with_data_streams.mov",
    "text": "screen_recording_vp8_or_vp9.webm",
}
MODELS = "bicubic,{official},span-clean,span,span-fast"
OPTIONS = ("--shrink", "--crf", "23", "--zoom", "4", "--crops", "2")


def main() -> None:
    shared, target = Path(sys.argv[1]), Path(__file__).resolve().parent / "models"
    with tempfile.TemporaryDirectory() as folder:
        weights = shared / "weights/spanx2_ch48.safetensors"
        official = import_checkpoint(weights, "official", folder=Path(folder), overwrite=True)
        for name, clip in CLIPS.items():
            sheet = Path(folder, f"{name}.png")
            models = MODELS.format(official=official)
            command = [sys.executable, "-m", "vidsr", "compare", str(shared / "clips" / clip), "--models", models]
            subprocess.run([*command, *OPTIONS, "-o", str(sheet)], check=True)
            Image.open(sheet).save(target / f"{name}.jpg", quality=88)


if __name__ == "__main__":
    main()
