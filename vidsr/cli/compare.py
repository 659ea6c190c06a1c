"""`vidsr compare`: what models make of a picture, for eyes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidsr.cli.evaluate import (
    BICUBIC,
    CODEC_HELP,
    Numbers,
    machine_options,
    names_of,
    qualities_of,
    refuse,
    ways_of,
)
from vidsr.cli.shape import Time

if TYPE_CHECKING:
    from vidsr.evaluate import Box

__all__ = ["compare"]

_CROP = (72, 96)
_LEAD = 7
"""Frames that are encoded before the one that is shown."""


@click.command("compare")
@click.argument("source", metavar="CLIP|PICTURE", type=click.Path(path_type=Path))
@click.option(
    "--models",
    "--model",
    "names",
    default="span",
    show_default=True,
    metavar="NAME[,NAME...]",
    help="Models, one column each: span,my.onnx. Bicubic is always shown, where you name it or first.",
)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="OUT.png", help="Picture to write."
)
@click.option("--at", "at", type=Time(), metavar="TIME", help="Which frame: seconds or H:MM:SS.  [default: the middle]")
@click.option(
    "--crop",
    "crops",
    type=Numbers("X,Y,W,H", ","),
    multiple=True,
    metavar="X,Y,W,H",
    help="Part to show, in pixels of the source; may be repeated.",
)
@click.option(
    "--crops",
    "count",
    default=3,
    show_default=True,
    type=click.IntRange(1, 20),
    metavar="N",
    help="Without --crop: how many parts, where the columns differ most.",
)
@click.option(
    "--zoom",
    default=4,
    show_default=True,
    type=click.IntRange(1, 32),
    metavar="N",
    help="How many times the parts are enlarged: by the model, and from there on pixel by pixel.",
)
@click.option(
    "--shrink", is_flag=True, help="Shrink and encode the source first; then the original is shown, and PSNR."
)
@click.option("--codec", default="h264", show_default=True, metavar="NAME", help=f"With --shrink: {CODEC_HELP}")
@click.option("--crf", metavar="N", help="With --shrink: as for `vidsr eval`.")
@click.option("-y", "--overwrite", is_flag=True, help="Replace OUT.png if it exists.")
@machine_options
@click.pass_context
def compare(
    ctx: click.Context, /, source: Path, names: str, output: Path, at: Any, crops: tuple[tuple[int, ...], ...],
    count: int, zoom: int, shrink: bool, codec: str, crf: str | None, overwrite: bool, debug: bool, **machine: Any,
) -> None:  # fmt: skip
    """Shows what models make of one frame: the same parts enlarged in several ways, side by side, as one PNG.

    The first column is the source, every pixel a square; then bicubic interpolation and each model. With --shrink the
    source is shrunk by the models' scale and encoded as by `vidsr eval`, together with the frames before it.
    """
    from vidsr.evaluate import Column, choose, sheet
    from vidsr.media.picture import write_png

    if not shrink:
        refuse(ctx, ["codec", "crf"], "without --shrink")
    if crops:
        refuse(ctx, ["count"], "with --crop")
    quality = qualities_of(codec, crf)
    _check_target(output, overwrite)
    with ExitStack() as stack:
        listed = names_of(names)
        ways = ways_of(stack, listed if BICUBIC in listed else [BICUBIC, *listed], machine)
        scales = {scale for _, scale, _ in ways}
        if zoom % math.lcm(*scales):
            raise click.UsageError(f"--zoom {zoom}: take a multiple of {math.lcm(*scales)}, the models' scale")
        if shrink and (len(scales) > 1 or len(quality) > 1):
            raise click.UsageError("--shrink: all models must have the same scale, and --crf one number")
        scale = max(scales)
        picture, true, corner = _source(
            source, at, scale if shrink else None, None if codec == "none" else codec, quality[0]
        )
        plain = Column(name=f"{'shrunk' if shrink else 'source'}, {zoom}x", image=picture, scale=1)
        several = len(scales) > 1
        made = [
            Column(name=f"{Path(name).stem} x{own}" if several else Path(name).stem, image=upscale(picture), scale=own)
            for name, own, upscale in ways
        ]
    truth = Column(name="original", image=true, scale=scale) if true is not None else None
    boxes = _boxes(crops, corner, picture.shape[:2], scale if shrink else 1) or choose(
        made if len(made) > 1 else [plain, *made], count=count, height=_CROP[0], width=_CROP[1]
    )
    write_png(output, sheet([plain, *made], boxes, zoom=zoom, truth=truth))
    counted = "1 crop" if len(boxes) == 1 else f"{len(boxes)} crops"
    click.echo(f"{output}: {counted}, {', '.join(column.name for column in [plain, *made])}")


def _check_target(output: Path, overwrite: bool) -> None:
    from vidsr.errors import OutputError

    if output.suffix.lower() != ".png":
        raise click.UsageError(f"-o {output}: name it .png, which is what is written")
    if output.is_dir() or not output.parent.is_dir():
        raise OutputError(f"{output}: {'is a folder' if output.is_dir() else 'no such folder'}")
    if output.exists() and not overwrite:
        raise OutputError(f"{output} exists already: add -y to replace it, or choose another name")


def _source(
    path: Path, at: Any, scale: int | None, codec: str | None, quality: float
) -> tuple[Any, Any, tuple[int, int]]:
    """The picture that is enlarged, and what it was before it was shrunk by `scale` or None, uint8 [H, W, 3].

    The last is what was cut from above and from the left, so that it can be shrunk.
    """
    from fractions import Fraction

    from vidsr.evaluate import footage_of, small_of
    from vidsr.media.source import probe

    video = probe(path).video
    rate = video.rate or Fraction(25)
    lead = _LEAD if scale else 0
    if at is not None:
        lead = min(lead, math.floor(at * rate))
    start = None if at is None else at - lead / rate
    footage = footage_of(path, frames=lead + 1, multiple=2 * scale if scale else 1, start=start)
    true = footage.runs[0][-1]
    if scale is None:
        return true, None, (0, 0)
    corner = (video.layout.height - true.shape[0]) // 2, (video.layout.width - true.shape[1]) // 2
    return small_of(footage, scale, codec, quality).runs[0][-1], true, corner


def _boxes(crops: Sequence[tuple[int, ...]], corner: tuple[int, int], size: tuple[int, int], scale: int) -> list[Box]:
    """The parts that --crop names, in pixels of the picture that is enlarged.

    corner: (top, left) of that picture in the source. size: its (height, width), `scale` times smaller.
    """
    from vidsr.evaluate import Box

    boxes = []
    for crop in crops:
        offsets = (corner[1], corner[0], 0, 0)
        left, top, width, height = ((number - offset) // scale for number, offset in zip(crop, offsets, strict=True))
        if min(left, top) < 0 or min(height, width) < 1 or top + height > size[0] or left + width > size[1]:
            where = f"{size[1] * scale}x{size[0] * scale}"
            if any(corner):
                where += f" from {corner[1]},{corner[0]} on"
            raise click.UsageError(f"--crop {','.join(map(str, crop))} is not within the picture, {where}")
        boxes.append(Box(top=top, left=left, height=height, width=width))
    return boxes
