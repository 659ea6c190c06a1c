"""`vidsr IN OUT`: the main command."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import click

from vidsr.cli import pipe
from vidsr.cli.shape import Bytes, Factor, KeyValue, SectionedCommand, Time, interruptible, option
from vidsr.cli.watch import watched
from vidsr.errors import UsageError

if TYPE_CHECKING:
    from vidsr.events import Event as RunEvent
    from vidsr.events import Observer, Report
    from vidsr.progress import Display, JsonLines

__all__ = ["upscale"]

_HELP = """Makes a video larger and sharper, and leaves everything else in the file as it was: sound, subtitles,
chapters, fonts, timestamps, colour.

\b
  vidsr in.mp4 out.mp4                      twice the size
  vidsr in.mkv out.mkv --start 1:00 --end 1:10     try ten seconds first
  vidsr in.mp4 out.mp4 --scale 4            four times, or any other factor: 1.5, 3
  vidsr in.mp4 out.mp4 --size 1080p         to a size instead of a factor
  vidsr in.mp4 out.mp4 --model NAME         another model, see `vidsr models`
  vidsr in.mp4 out.mp4 --resume             go on where an interrupted run ended
  vidsr photo.jpg large.png                 a picture; photos/ out/ a folder of them
  vidsr in.mkv --player mpv                 watch it meanwhile; also: vidsr in.mkv - | mpv -

\b
Other commands (each has its own --help):
  vidsr preview    play a video upscaled in the browser, beside the original
  vidsr verify     compare an output with its input
  vidsr models     list the models
  vidsr import     turn a checkpoint (.pth, .safetensors) into a model
  vidsr eval       measure a model on pictures or on a video
  vidsr compare    crops of a video by several models, side by side
  vidsr bench      how fast this machine is, what limits it, what would help
  vidsr tune       find what is fastest on this machine; later runs take it
  vidsr train      make a model from a folder of pictures
  vidsr doctor     what this machine can run, and what is missing
  vidsr build      compile a model for a size ahead of the first run
  vidsr cache      compiled models and tunings: list, clear, path

What is done lies in out.mp4.vidsr/ until the output is complete. After Ctrl-C, a crash or a power cut, the same
command with --resume goes on there and makes the same frames as a run that was never interrupted.

Exit codes: 0 done, 1 failed, 2 used wrongly, 3 done but OUT differs from IN, 70 an internal error, 130 stopped,
141 OUT was a pipe, and whoever read it has closed it.
"""


@click.command(
    "upscale",
    cls=SectionedCommand,
    help=_HELP,
    options_metavar="[OPTIONS]",
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)
@click.argument("source", metavar="IN", type=click.Path(path_type=Path, readable=False))
@click.argument("target", metavar="OUT", required=False, type=click.Path(path_type=Path, readable=False))
@option(
    "--scale",
    type=Factor(),
    section="Picture",
    metavar="N",
    help="How many times as large, up to 16: 2, 1.5, 4. Takes the model of that name that fits, NAME-x4 beside NAME, "
    "or several in a row; resamples the rest.  [default: the model's own]",
)
@option(
    "--size",
    section="Picture",
    metavar="WxH|NAME|N%",
    help="Size of the output instead of --scale: 1920x1080 (as stored, before turning); 1080p, 1440p, 4k: as large as "
    "fits; 150%: one and a half times the input's width and height, 50%: half.",
)
@option(
    "--model",
    default="span",
    show_default=True,
    section="Picture",
    metavar="NAME|FILE.onnx",
    help="A name from `vidsr models`, or a file. --scale and --size may take NAME-x4 instead, or it several times.",
)
@option(
    "--guard",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    section="Picture",
    help="Keep out of the picture the speckles that some models draw on hard patterns; auto does it where "
    "`vidsr eval --stability` finds that.",
)
@option(
    "--deinterlace",
    type=click.Choice(["auto", "off", "frame", "field"]),
    default="auto",
    show_default=True,
    section="Picture",
    help="Interlaced video to one frame for each frame, or for each field; auto finds it and takes frame.",
)
@option(
    "--rate",
    type=Factor(),
    section="Picture",
    metavar="N",
    help="Frames a second of numbered pictures that become a video, such as 24000/1001.  [default: 25]",
)
@option("--start", type=Time(), section="Picture", metavar="TIME", help="Begin here: seconds or H:MM:SS.")
@option(
    "--end", type=Time(), section="Picture", metavar="TIME", help="End here, counted from the beginning of the input."
)
@option(
    "--tracks",
    default="all",
    show_default=True,
    section="Other tracks",
    metavar="LIST",
    help="Which to keep: all, none, video, audio, subtitle, attachment, cover, data, audio:eng, 3 (FFmpeg's number); "
    "-subtitle for all but.",
)
@option(
    "--strict",
    is_flag=True,
    section="Other tracks",
    help="Refuse any loss (times rounded to what the container holds are none), and end at the first damage in the "
    "input.",
)
@option(
    "--encoder",
    section="Encoding",
    metavar="NAME",
    help="FFmpeg's name of a video encoder: libx264, libx265, libsvtav1, ...; hevc_nvenc, h264_nvenc and "
    "av1_nvenc are an NVIDIA card's: faster, larger files.  [default: fits OUT]",
)
@option(
    "--crf",
    type=float,
    section="Encoding",
    metavar="N",
    help="Quality, the encoder's own scale: smaller is better and larger.  [default: 18 for libx264]",
)
@option(
    "--preset",
    section="Encoding",
    metavar="NAME",
    help="Speed against size, the encoder's own names: veryfast, medium, slow, ...",
)
@option(
    "-e",
    "encoder_options",
    type=KeyValue(),
    multiple=True,
    section="Encoding",
    metavar="KEY=VALUE",
    help="Any other option of the encoder; may be repeated.",
)
@option(
    "--quality",
    type=click.IntRange(1, 100),
    section="Encoding",
    metavar="N",
    help="Of JPEG, WebP and AVIF pictures, 1 to 100.  [default: 95, AVIF 85]",
)
@option(
    "--pix-fmt",
    section="Encoding",
    metavar="NAME",
    help="Pixel format to write, e.g. yuv420p10le.  [default: as the input]",
)
@option(
    "--player",
    section="Stream",
    metavar="COMMAND",
    help="Show it in a player instead of writing OUT: mpv, or a command line such as 'mpv --fs'.",
)
@option(
    "--format",
    type=click.Choice(["matroska", "nut", "y4m", "raw"]),
    section="Stream",
    help="What a player gets, or standard output where OUT is -. matroska: all tracks, the video as lossless H.264 "
    "unless --encoder or --crf say otherwise; nut: raw video of any pixel format, with sound; y4m, raw: nothing but "
    "video.  [default: matroska]",
)
@option("-y", "--overwrite", is_flag=True, section="Run", help="Replace OUT if it exists, or an unfinished run.")
@option("--resume", is_flag=True, section="Run", help="Go on with an unfinished run; begins where there is none.")
@option("--keep-partial", is_flag=True, section="Run", help="Make what a Ctrl-C leaves playable: out.partial.mp4.")
@option(
    "--verify/--no-verify",
    default=True,
    section="Run",
    help="Read OUT again, compare it with IN.  [default: verify]",
)
@option(
    "--backend",
    default="auto",
    show_default=True,
    section="Machine",
    metavar="NAME",
    help="What runs the model: auto, tensorrt, openvino, onnxruntime or torch.",
)
@option(
    "--device",
    default="auto",
    show_default=True,
    section="Machine",
    metavar="NAME",
    help="The backend's device: cuda, cuda:1 or cuda:0,1 for NVIDIA cards; CPU, GPU, NPU or AUTO for openvino; cpu, "
    "cuda, directml or coreml for onnxruntime.",
)
@option(
    "--precision",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "fp32", "bf16", "fp16", "int8"]),
    section="Machine",
    help="Arithmetic of the model; auto takes the fastest the device has, but never int8, for which a "
    "model needs ranges; those `vidsr train` makes have them.",
)
@option(
    "--hwaccel",
    type=click.Choice(["auto", "cuda", "none"]),
    default="auto",
    show_default=True,
    section="Machine",
    help="Decode on an NVIDIA card; auto does where it gives the processor's frames, but never with --strict.",
)
@option(
    "--memory",
    "memory_bytes",
    type=Bytes(),
    section="Machine",
    metavar="SIZE",
    help="Memory for the model and one frame, e.g. 2G; larger frames are cut into tiles.  [default: 40 % of what is "
    "free; on a card 80 %, shared by --slots]",
)
@option(
    "--slots",
    type=click.IntRange(1, 16),
    section="Machine",
    metavar="N",
    help="Frames in flight, on each card where there are several: more hide copies, fewer take less memory.  "
    "[default: 3 and one for each stream, fewer for very large frames]",
)
@option(
    "--streams",
    type=click.IntRange(1, 16),
    section="Machine",
    metavar="N",
    help="Frames that a processor computes at once, each on its share of the cores; takes memory for each.  "
    "[default: 2 for light models, else 1]",
)
@option(
    "--reuse",
    type=click.Choice(["auto", "off"]),
    default="auto",
    show_default=True,
    section="Machine",
    help="auto does not compute again what a frame has in common with the one before: held drawings, still parts of "
    "screens. The result is the same, bit for bit.",
)
@option("--watch", is_flag=True, section="Output", help="A page in the browser that shows the run; says its address.")
@option(
    "--watch-port",
    type=click.IntRange(0, 65535),
    section="Output",
    metavar="N",
    help="The port of that page.  [default: any that is free]",
)
@option("--json", "as_json", is_flag=True, section="Output", help="Report in JSON lines on standard output.")
@option("--quiet", is_flag=True, section="Output", help="Say nothing but errors.")
@option("--debug", is_flag=True, section="Output", help="Show the traceback of an error.")
@click.version_option(package_name="vidsr", message="%(prog)s %(version)s")
def upscale(
    source: Path,
    target: Path | None,
    player: str | None,
    format: str | None,
    as_json: bool,
    quiet: bool,
    debug: bool,
    watch: bool,
    watch_port: int | None,
    **choices: Any,
) -> int:
    """Resolves the job, runs it and shows how it goes."""
    from vidsr import api, job

    _check_target(target, player, format)
    choices["encoder_options"] = dict(choices["encoder_options"])
    settings = job.Settings(**choices)
    streamed = target is None or target == pipe.STDOUT
    if target is None or streamed:
        resolved = pipe.resolve(source, settings, format=format, player=player, as_json=as_json)
    else:
        resolved = api.resolve(source, target, settings)
    run: Callable[..., Report] = resolved
    display = _display(as_json, quiet, streamed)
    try:
        with interruptible() as (stop, cancel), ExitStack() as page:
            observer: Observer = _Announcing(display, stop, resumable=not streamed)
            if watch or watch_port is not None:
                run, observer = page.enter_context(watched(resolved, observer, stop, watch_port or 0))
            report = run(observer=observer, stop=stop, cancel=cancel)
    finally:
        if display is not None:
            display.close()
    return _exit_code(report)


def _check_target(target: Path | None, player: str | None, format: str | None) -> None:
    """Sees to it that there is one thing that gets the video. Raises UsageError."""
    if target is None and player is None:
        raise UsageError("OUT is missing: give a name, - for standard output, or --player mpv to watch it")
    if target is not None and player is not None:
        raise UsageError(f"--player shows the video instead of writing {target}: give one of them")
    if format is not None and target not in (None, pipe.STDOUT):
        raise UsageError(f"--format is for a player and for standard output: the name {target} says what to write")


def _exit_code(report: Report) -> int:
    """0 done, 130 stopped, 3 done but not as it should be."""
    if not report.complete:
        parts = [f"what was done is playable in {report.target}"] if report.target else []
        parts += [f"the same command with --resume goes on from {report.kept}"] if report.kept else []
        click.echo(f"vidsr: stopped; {'; '.join(parts) or 'no segment was whole, so nothing was kept'}", err=True)
        return 130
    if report.verified is False:
        count = len(report.faults)
        click.echo(
            f"vidsr: {report.target} differs from its input: {report.faults[0]}"
            + (f", and {count - 1} more" if count > 1 else "")
            + " (see `vidsr verify`)",
            err=True,
        )
        return 3
    return 0


class _Announcing:
    """Passes events on, and says once that a Ctrl-C was understood; a signal handler must not print."""

    def __init__(self, display: Display | JsonLines | None, stop: Event, *, resumable: bool) -> None:
        self._display, self._stop, self._said = display, stop, False
        self._kept = "what is done can be resumed; " if resumable else ""

    def __call__(self, event: RunEvent) -> None:
        if self._display is None:
            return
        if self._stop.is_set() and not self._said:
            self._said = True
            self._display.line(f"stopping: {self._kept}Ctrl-C again ends at once")
        self._display(event)


def _display(as_json: bool, quiet: bool, streamed: bool) -> Display | JsonLines | None:
    from vidsr.progress import Display, JsonLines

    if as_json:
        return JsonLines(sys.stdout)
    return None if quiet else Display(bar=not streamed)
