"""Jobs whose output is read while it is made: by a player, or by whatever is behind a pipe."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from threading import Event

from vidsr.backends.base import Watch
from vidsr.errors import Cancelled, InputError, ReaderGone, UsageError
from vidsr.events import Event as Told
from vidsr.events import Observer, Report, Warned
from vidsr.job.engine import tile_note
from vidsr.job.resolve import choose_model, resolve_into, wanted_layout
from vidsr.job.run import Tap, start_of, stream_of, ticking
from vidsr.job.settings import Job, Settings
from vidsr.media.container import PIPES
from vidsr.media.pixel import closest, pixel_format
from vidsr.media.source import probe
from vidsr.pipeline import aside, transfer
from vidsr.sinks.pipe import Outlet, PipeSink

__all__ = ["resolve_pipe", "run_pipe"]

_OF_FILES = {"overwrite": "-y", "resume": "--resume", "keep_partial": "--keep-partial"}
_OF_PICTURES = {"quality": "--quality", "rate": "--rate"}
_OF_ENCODERS = {"encoder": "--encoder", "crf": "--crf", "preset": "--preset", "encoder_options": "-e"}


def resolve_pipe(source_path: Path, settings: Settings, *, format: str = "matroska", name: str = "the stream") -> Job:
    """Checks and decides. format: one of `PIPES`. name: what people call the output. Raises a VidsrError.

    Without a word about the encoder the stream is lossless.
    """
    if format not in PIPES:
        raise UsageError(f"--format {format}: choose {', '.join(PIPES)}")
    container, usual = PIPES[format], Settings()
    for field, option in {**_OF_FILES, **_OF_PICTURES}.items():
        if getattr(settings, field) != getattr(usual, field):
            what = "a stream, which is kept nowhere" if field in _OF_FILES else "a stream of video"
            raise UsageError(f"{option} has no meaning for {what}: leave it away")
    chosen = [option for field, option in _OF_ENCODERS.items() if getattr(settings, field) != getattr(usual, field)]
    if chosen and format in ("y4m", "raw"):
        raise UsageError(f"{chosen[0]}: {format} holds nothing but raw video; --format matroska and nut take encoders")
    if str(source_path) == "-" and not source_path.exists():
        raise InputError("a video cannot be read from standard input, since it is read several times: store it first")
    source = probe(source_path)
    if not chosen:
        settings = _lossless(settings, format)
    if container.formats and settings.pix_fmt is None:
        wanted = wanted_layout(settings, source.video.layout, choose_model(settings, source).scale)
        fitting = closest(wanted, container.formats)
        assert fitting is not None
        settings = replace(settings, pix_fmt=pixel_format(fitting))
    job = resolve_into(Path(name), container, source, settings)
    return replace(job, warnings=tuple(line.replace(container.format, format) for line in job.warnings))


def _lossless(settings: Settings, format: str) -> Settings:
    """With the encoder that costs least.

    Matroska holds raw video of few pixel formats, and mpv does not know FFV1 in it, which costs twice as much anyway.
    """
    if format != "matroska":
        return replace(settings, encoder="rawvideo")
    return replace(settings, encoder="libx264", preset="ultrafast", encoder_options={"qp": "0"})


def run_pipe(
    job: Job, descriptor: int, *, observer: Observer, stop: Event, cancel: Event, tap: Tap | None = None
) -> Report:
    """Runs a job into an open file descriptor, which stays open, as fast as it is read.

    `stop` ends the stream early, as soon as what is on its way is read; `cancel` at once. Raises ReaderGone where
    whoever reads goes away, as soon as that can be known, and other VidsrErrors.
    """
    outlet = Outlet(descriptor, (stop, cancel))
    warnings: list[str] = []

    def tell(event: Told) -> None:
        """Looks whether somebody still reads; whatever ends the run must end a write that waits, too."""
        try:
            outlet.check()
            observer(event)
        except BaseException:
            outlet.abandon()
            raise

    def warn(text: str) -> None:
        warnings.append(text)
        observer(Warned(message=text))

    sink = PipeSink(
        outlet,
        job.source,
        job.container,
        job.container_options,
        job.tracks,
        job.encoder,
        start=job.settings.start,
        end=job.settings.end,
        seconds=_length(job),
    )
    stream = stream_of(job, job.engine)
    try:
        for line in filter(None, (*job.warnings, tile_note(job.engine))):
            warn(line)
        tell(start_of(job, job.engine))
        aside(job.engine.prepare, Watch(progress=ticking(tell, "preparing"), warn=warn, stop=stop))
        totals = transfer(
            stream.spec(),
            sink,
            job.video,
            stop=stop,
            cancel=cancel,
            total=job.frames,
            on_progress=tell,
            written_bytes=lambda: outlet.written_bytes,
            tap=tap,
        )
    except ReaderGone as error:
        if stop.is_set():  # a Ctrl-C reaches whoever reads as well
            raise Cancelled("stopped") from error
        raise
    for line in (*stream.mended(reached_end=totals.reached_end), *sink.notes):
        warn(line)
    report = Report(
        target=str(job.path),
        frames=totals.frames,
        resumed=0,
        seconds=totals.seconds,
        fps=totals.frames / totals.seconds if totals.seconds else 0.0,
        written_bytes=outlet.written_bytes,
        busy=totals.busy,
        engine=totals.engine,
        warnings=tuple(warnings),
        complete=totals.reached_end,
    )
    observer(report)
    return report


def _length(job: Job) -> Fraction | None:
    """How many seconds will be shown; None if unknown."""
    duration, settings = job.source.duration_seconds, job.settings
    if duration is None:
        return None
    return min(settings.end or duration, duration) - (settings.start or 0)
