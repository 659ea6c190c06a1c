"""`vidsr eval`: what models make of pictures and clips, in figures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from vidsr.evaluate import Footage
    from vidsr.media.recode import Codec

__all__ = [
    "BICUBIC",
    "CODEC_HELP",
    "Numbers",
    "Way",
    "evaluate_model",
    "machine_options",
    "names_of",
    "qualities_of",
    "refuse",
    "ways_of",
]

_F = TypeVar("_F", bound=Callable[..., Any])
BICUBIC = "bicubic"
_LARGEST = (540, 960)


class Numbers(click.ParamType[tuple[int, ...]]):
    """Whole numbers between separators, as many as the pattern has letters."""

    def __init__(self, pattern: str, separator: str) -> None:
        self.name, self._separator = pattern, separator

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        parts = str(value).lower().split(self._separator)
        if len(parts) != len(self.name.split(self._separator)) or not all(part.isdecimal() for part in parts):
            self.fail(f"{value!r}: write it as {self.name}, in whole numbers", param, ctx)
        return tuple(int(part) for part in parts)


def machine_options(function: _F) -> _F:
    for option in reversed([
        click.option("--backend", default="auto", show_default=True, metavar="NAME", help="See `vidsr --help`."),
        click.option("--device", default="auto", show_default=True, metavar="NAME", help="See `vidsr --help`."),
        click.option(
            "--precision", default="fp32", show_default=True,
            type=click.Choice(["auto", "fp32", "bf16", "fp16", "int8"]), help="See `vidsr --help`.",
        ),
        click.option(
            "--guard", default="auto", show_default=True, type=click.Choice(["auto", "on", "off"]),
            help="See `vidsr --help`.",
        ),
        click.option("--debug", is_flag=True, help="Show the traceback of an error."),
    ]):  # fmt: skip
        function = option(function)
    return function


CODEC_HELP = "h264, hevc, vp9, av1, mpeg2, or none to shrink only."


@click.command("eval", options_metavar="[OPTIONS]")
@click.argument("paths", metavar="CLIP | LR_DIR HR_DIR", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--model",
    "--models",
    "names",
    default="span",
    show_default=True,
    metavar="NAME|FILE.onnx",
    help="Model to measure; for a clip also several: span,span-fast,my.onnx. Bicubic is always measured beside them.",
)
@click.option(
    "--codec", default="h264", show_default=True, metavar="NAME", help=f"Clip: what it is encoded with: {CODEC_HELP}"
)
@click.option(
    "--crf",
    metavar="N[,N...]",
    help="Clip: quality on the encoder's own scale, smaller is better; for mpeg2 its quantizer, 1 to 31. Several are "
    "measured one after the other.  [default: h264 23, hevc 28, vp9 33, av1 35, mpeg2 5]",
)
@click.option(
    "--frames",
    default=24,
    show_default=True,
    type=click.IntRange(1),
    metavar="N",
    help="Clip: how many frames, in runs of 8 consecutive ones spread evenly.",
)
@click.option(
    "--crop",
    type=Numbers("WxH", "x"),
    metavar="WxH",
    help="Clip: measure the middle of its pictures, at most so large.  [default: 960x540]",
)
@click.option(
    "--stability",
    is_flag=True,
    help="Does the model stay within reason? On synthetic extremes, and on CLIP if one is given.",
)
@machine_options
@click.option("--json", "as_json", is_flag=True, help="As JSON: the figures of every row, or of every picture.")
@click.pass_context
def evaluate_model(
    ctx: click.Context, /, paths: tuple[Path, ...], names: str, codec: str, crf: str | None, frames: int,
    crop: tuple[int, int] | None, stability: bool, as_json: bool, debug: bool, **machine: Any,
) -> int:  # fmt: skip
    """Measures models, and bicubic interpolation beside them.

    \b
      vidsr eval CLIP                     on a video, as people have them
      vidsr eval LR_DIR HR_DIR            on pictures, as papers do
      vidsr eval --stability [CLIP]       whether it stays within reason

    CLIP is shrunk by the model's scale (antialiased bicubic in RGB, as MATLAB's), encoded in 4:2:0, decoded, enlarged
    by the model and compared with what it was. Models of another scale get a clip shrunk by theirs; the table says so.
    Everything happens in memory.

    LR_DIR holds small pictures, HR_DIR the large ones of the same names.

    PSNR and SSIM are means over frames, on luma (BT.601), a border of `scale` pixels left out: the convention of the
    field's papers. An equal frame of a clip counts 100 dB. Flicker is how far the change from one frame to the next is
    from the true change: mean |(out[t+1] - out[t]) - (true[t+1] - true[t])| of luma in code values; 0 is as calm as the
    original. kbit/s is at the clip's own frame rate. No VMAF: FFmpeg as PyAV ships it is built without libvmaf.
    """
    clip_alone = ["codec", "crf", "frames", "crop"]
    if stability:
        from vidsr.cli.stability import report

        refuse(ctx, [*clip_alone, "backend", "device", "precision", "guard"], "with --stability")
        if len(paths) > 1:
            raise click.UsageError("--stability takes one clip at most")
        return report(names, paths[0] if paths else None, as_json)
    if len(paths) == 2:
        refuse(ctx, clip_alone, "with LR_DIR HR_DIR")
        _pictures(*paths, names, as_json, machine)
        return 0
    if len(paths) != 1 or paths[0].is_dir():
        raise click.UsageError("give a clip, or a folder of small pictures and a folder of large ones")
    _clip(paths[0], names, codec, crf, frames, crop, as_json, machine)
    return 0


def refuse(ctx: click.Context, options: Sequence[str], where: str) -> None:
    """Raises UsageError for an option that was given and means nothing there."""
    for parameter in ctx.command.params:
        if parameter.name in options and ctx.get_parameter_source(parameter.name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"{parameter.opts[0]} means nothing {where}")


def _pictures(small: Path, large: Path, model: str, as_json: bool, machine: dict[str, Any]) -> None:
    from vidsr.api import Upscaler
    from vidsr.evaluate import Score, evaluate

    pictures: dict[str, Score] = {}
    with Upscaler(model, **machine) as upscaler:
        mean = evaluate(upscaler, upscaler.scale, small, large, on_picture=pictures.__setitem__)
        scale = upscaler.scale
    if as_json:
        each = {name: _finite(asdict(score)) for name, score in pictures.items()}
        click.echo(json.dumps({"model": model, "scale": scale, **_finite(asdict(mean)), "pictures": each}))
        return
    click.echo(f"{'':24} {'PSNR-Y':>8} {'SSIM-Y':>8}   {'bicubic PSNR-Y':>14} {'SSIM-Y':>8}")
    for name, score in [*pictures.items(), ("mean", mean)]:
        click.echo(
            f"{name:24} {score.psnr_y:8.3f} {score.ssim_y:8.4f}   "
            f"{score.bicubic_psnr_y:14.3f} {score.bicubic_ssim_y:8.4f}"
        )


def _finite(fields: dict[str, float]) -> dict[str, float | None]:
    """JSON has no infinity, which is the PSNR of equal pictures: null."""
    return {key: value if math.isfinite(value) else None for key, value in fields.items()}


def _clip(
    path: Path, names: str, codec: str, crf: str | None, frames: int, crop: tuple[int, int] | None, as_json: bool,
    machine: dict[str, Any],
) -> None:  # fmt: skip
    from vidsr.evaluate import footage_of

    qualities = qualities_of(codec, crf)
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        ways = ways_of(stack, names_of(names, always=BICUBIC), machine)
        multiple = 2 * math.lcm(*(scale for _, scale, _ in ways))
        footage = footage_of(path, frames=frames, largest=crop[::-1] if crop else _LARGEST, multiple=multiple)
        (height, width), runs = footage.size, [len(run) for run in footage.runs]
        for row in _rows(footage, ways, codec, qualities):
            if not as_json:
                if not rows:
                    taken = " + ".join(map(str, runs))
                    click.echo(f"{path}: {width}x{height} of the middle, {taken} consecutive frames")
                    click.echo(_HEADING)
                click.echo(_line(row))
            rows.append(row)
    if as_json:
        click.echo(json.dumps({"clip": str(path), "width": width, "height": height, "runs": runs, "rows": rows}))


def _rows(footage: Footage, ways: Sequence[Way], codec: str, qualities: Sequence[float]) -> Iterator[dict[str, Any]]:
    from vidsr.evaluate import measure, small_of

    for quality in qualities:
        for scale in sorted({scale for _, scale, _ in ways}):
            small = small_of(footage, scale, None if codec == "none" else codec, quality)
            for name, own, upscale in ways:
                if own == scale:
                    yield {
                        "codec": codec,
                        "crf": None if codec == "none" else quality,
                        "kilobits_per_second": small.kilobits_per_second,
                        "scale": scale,
                        "model": name,
                        **asdict(measure(footage, small, upscale)),
                    }


_HEADING = f"{'encoded':14} {'kbit/s':>7} {'scale':>5}  {'model':24} {'PSNR-Y':>7} {'SSIM-Y':>7} {'flicker':>7}"


def _line(row: dict[str, Any]) -> str:
    encoded = row["codec"] if row["crf"] is None else f"{row['codec']} {row['crf']:g}"
    rate, flicker = (
        f"{row[key]:7.{digits}f}" if row[key] is not None else f"{'-':>7}"
        for key, digits in (("kilobits_per_second", 0), ("flicker", 3))
    )
    scale = f"x{row['scale']}"
    return f"{encoded:14} {rate} {scale:>5}  {row['model']:24} {row['psnr_y']:7.2f} {row['ssim_y']:7.4f} {flicker}"


def _codec(name: str) -> Codec:
    from vidsr.media.recode import CODECS

    if name not in CODECS:
        raise click.UsageError(f"--codec {name}: choose among {', '.join(CODECS)} and none")
    return CODECS[name]


def qualities_of(codec: str, crf: str | None) -> list[float]:
    """What --crf names, in the codec's range; [0] without a codec."""
    if codec == "none":
        if crf is not None:
            raise click.UsageError("--crf: with --codec none nothing is encoded")
        return [0.0]
    row = _codec(codec)
    try:
        qualities = [float(part) for part in crf.split(",")] if crf is not None else [row.usual]
    except ValueError:
        raise click.UsageError(f"--crf {crf}: write a number, or several: 18,23,28") from None
    for quality in qualities:
        if not row.best <= quality <= row.smallest:
            raise click.UsageError(
                f"--crf {quality:g}: {codec} takes {row.best:g} (best) to {row.smallest:g} (smallest)"
            )
        if row.whole and quality != int(quality):
            raise click.UsageError(f"--crf {quality:g}: {codec} takes whole numbers")
    return list(dict.fromkeys(qualities))


def names_of(models: str, *, always: str | None = None) -> list[str]:
    names = list(dict.fromkeys(part.strip() for part in models.split(",") if part.strip()))
    if not names:
        raise click.UsageError("--model: name one")
    return [*names, *([always] if always and always not in names else [])]


Way = tuple[str, int, Callable[[Any], Any]]
"""(name, scale, uint8 [H, W, 3] -> uint8 [scale*H, scale*W, 3])"""


def ways_of(stack: ExitStack, names: Sequence[str], machine: dict[str, Any]) -> list[Way]:
    """One for each model; bicubic at every scale that the others have, else at 2."""
    from vidsr.api import Upscaler
    from vidsr.evaluate import bicubic

    models = {name: stack.enter_context(Upscaler(name, **machine)) for name in names if name != BICUBIC}
    scales = sorted({upscaler.scale for upscaler in models.values()}) or [2]

    def of(scale: int) -> Callable[[Any], Any]:
        return lambda image: bicubic(image, scale)

    ways: list[Way] = []
    for name in names:
        if name == BICUBIC:
            ways += [(name, scale, of(scale)) for scale in scales]
        else:
            ways.append((name, models[name].scale, models[name]))
    return ways
