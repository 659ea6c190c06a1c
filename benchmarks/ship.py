"""Makes a trained model one of those that come with vidsr: measures it and puts it into engines/.

    python -m benchmarks.ship runs/span/span.safetensors ../shared --data "what it was trained on" --license Apache-2.0

PSNR-Y on Set5, Set14 and BSD100 (FP32) goes into its metadata, beside the command that made it and its stability.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from vidsr.api import Upscaler
from vidsr.checkpoint import import_checkpoint
from vidsr.evaluate import evaluate

ENGINES = Path(__file__).resolve().parents[1] / "engines"
SETS = ("Set5", "Set14", "BSD100")


def quality(model: Path, testsets: Path) -> str:
    with Upscaler(str(model), precision="fp32", guard="off") as upscaler:
        scale = upscaler.scale
        folders = [(name, testsets / name / f"LRbicx{scale}", testsets / name / "HR") for name in SETS]
        return ", ".join(
            f"{name} {evaluate(upscaler, scale, small, large).psnr_y:.2f}" for name, small, large in folders
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="RUN/NAME.safetensors; the model will be called NAME")
    parser.add_argument("shared", type=Path, help="folder with testsets/")
    parser.add_argument("--data", required=True)
    parser.add_argument("--license", required=True)
    choices = parser.parse_args()
    said = {"data": choices.data}
    name = choices.weights.stem
    with tempfile.TemporaryDirectory(prefix="vidsr-ship-") as folder:
        tried = import_checkpoint(choices.weights, name, folder=Path(folder), overwrite=True)
        said["quality"] = quality(tried, choices.shared / "testsets")
    path = import_checkpoint(
        choices.weights, name, license=choices.license, folder=ENGINES, overwrite=True, metadata=said
    )
    print(f"{path}: {said['quality']}")


if __name__ == "__main__":
    main()
