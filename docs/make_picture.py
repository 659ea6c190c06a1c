"""Makes `before_after.png`, the README's picture: `python docs/make_picture.py`.

One crop of the sample clip: on the left enlarged with bicubic interpolation, as a player does it, on the right by
vidsr. Both are then repeated pixel by pixel to a size at which one sees the difference.
"""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

import vidsr
from vidsr.evaluate import bicubic
from vidsr.media.picture import write_png

ROOT = Path(__file__).resolve().parents[1]
FRAME, TOP, LEFT, HEIGHT, WIDTH, REPEAT = 20, 38, 66, 100, 150, 2


def main() -> None:
    with av.open(str(ROOT / "samples/clip.mp4")) as clip:
        frames = (frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0))
        image = next(frame for index, frame in enumerate(frames) if index == FRAME)
    with vidsr.Upscaler() as upscaler:
        pair = [bicubic(image, upscaler.scale), upscaler(image)]
        scale = upscaler.scale
    crops = [p[TOP * scale : (TOP + HEIGHT) * scale, LEFT * scale : (LEFT + WIDTH) * scale] for p in pair]
    crops = [crop.repeat(REPEAT, axis=0).repeat(REPEAT, axis=1) for crop in crops]
    gap = np.full((crops[0].shape[0], 8, 3), 255, np.uint8)
    write_png(ROOT / "docs/before_after.png", np.hstack([crops[0], gap, crops[1]]))


if __name__ == "__main__":
    main()
