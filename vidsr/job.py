"""Jobs: one input to one output with every setting resolved. The one place where the parts meet."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from threading import Event

import platformdirs

from vidsr import backends, models
from vidsr.backends import Backend, Engine, EngineOptions
from vidsr.backends.base import Precision
from vidsr.backends.tiled import TiledEngine, halo_of, tile_size
from vidsr.color import RGB, ColorTags, Conversion, conversion
from vidsr.errors import Cancelled, InputError, OutputError, UsageError
from vidsr.events import Observer, Report, Start, Warned
from vidsr.frame import Frame, FrameLayout, VideoTrack
from vidsr.media import encoder as encoders
from vidsr.media.container import Container, TrackPlan, container_of, plan_tracks
from vidsr.media.encoder import EncoderSettings
from vidsr.media.pixel import closest, layout_of, native, pixel_format
from vidsr.media.source import SourceInfo, VideoReader, probe
from vidsr.models import Model
from vidsr.pipeline import Pipeline, PipelineSpec, transfer
from vidsr.sinks.file import FileSink

__all__ = [
    "Conversions",
    "EnginePlan",
    "Job",
    "Settings",
    "available_memory",
    "plan_engine",
    "resolve",
    "run",
    "stream",
]

_SLOTS = 4
_MEMORY_SHARE = 0.4
_FALLBACK_MEMORY = 4 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a user may say about a job; None is "as usual" and ends in `resolve`.

    start, end: seconds from the beginning of the file. memory_bytes: for one frame's inference.
    """

    scale: int | None = None
    model: str = models.DEFAULT
    backend: str = "auto"
    precision: Precision = "auto"
    device: str = "auto"
    memory_bytes: int | None = None
    start: Fraction | None = None
    end: Fraction | None = None
    encoder: str | None = None
    crf: float | None = None
    preset: str | None = None
    encoder_options: Mapping[str, str] = field(default_factory=dict)
    pix_fmt: str | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan:
    """An engine that is decided but not made yet. tile: (height, width) where frames must be cut, else None."""

    model: Model
    backend: Backend
    options: EngineOptions
    source: FrameLayout
    target: FrameLayout
    tile: tuple[int, int] | None

    def open(self) -> Engine:
        """Makes it, in the calling thread."""

        def inner(source: FrameLayout, target: FrameLayout) -> Engine:
            return self.backend.open(self.model, source, target, self.options)

        if self.tile is None:
            return inner(self.source, self.target)
        halo = halo_of(self.model, self.source, self.target)
        assert halo is not None
        return TiledEngine(inner, self.source, self.target, tile=self.tile, halo=halo)

    def __str__(self) -> str:
        tiles = f", tiles of {self.tile[1]}x{self.tile[0]}" if self.tile else ""
        return f"{self.backend.name} {self.options.device} {self.options.precision}{tiles}"


class Conversions:
    """Colour conversions by the tags of a frame, for one pair of layouts."""

    def __init__(self, source: FrameLayout, target: FrameLayout, target_tags: ColorTags) -> None:
        @lru_cache(maxsize=16)
        def lookup(tags: ColorTags) -> Conversion:
            inward = tags.resolved(height=source.height, width=source.width, rgb=source.family == "rgb")
            outward = target_tags.resolved(height=source.height, width=source.width, rgb=target.family == "rgb")
            return conversion(
                inward,
                outward,
                source_bits=source.bits,
                target_bits=target.bits,
                gray_source=source.family == "gray",
            )

        self._lookup: Callable[[ColorTags], Conversion] = lookup

    def __call__(self, tags: ColorTags) -> Conversion:
        return self._lookup(tags)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything about one run, decided. warnings: what the user should know before it starts."""

    source: SourceInfo
    path: Path
    container: Container
    tracks: tuple[TrackPlan, ...]
    engine: EnginePlan
    encoder: EncoderSettings
    video: VideoTrack
    start: Fraction | None
    end: Fraction | None
    overwrite: bool
    frames: int | None
    warnings: tuple[str, ...]


def available_memory() -> int:
    """Bytes of memory free for use on this machine, within a container's limit; a guess where it cannot be read."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return _FALLBACK_MEMORY
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
        stat = dict(
            line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text(encoding="ascii").splitlines()
        )
        return max(0, min(free, limit - used + int(stat["inactive_file"]) + int(stat["active_file"])))
    except (OSError, ValueError, KeyError):  # no control group, or "max": no limit
        return free


def default_cache() -> Path | None:
    """Where compiled models are kept between runs; None where nothing can be kept."""
    folder = Path(platformdirs.user_cache_dir("vidsr", appauthor=False)) / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def plan_engine(settings: Settings, model: Model, source: FrameLayout, target: FrameLayout) -> EnginePlan:
    """Chooses backend, precision and tiles. Raises UsageError, BackendError, MemoryBudgetError."""
    backend = backends.choose(settings.backend)
    options = backend.settle(EngineOptions(device=settings.device, precision=settings.precision, cache=default_cache()))
    budget = int(available_memory() * _MEMORY_SHARE) if settings.memory_bytes is None else settings.memory_bytes
    item = 4 if options.precision == "fp32" else 2
    tile = tile_size(model, source, target, item_bytes=item, overhead=backend.memory_overhead, budget_bytes=budget)
    return EnginePlan(model=model, backend=backend, options=options, source=source, target=target, tile=tile)


def _check_paths(source: Path, target: Path, overwrite: bool) -> None:
    if not os.path.isdir(target.parent):
        raise OutputError(f"{target.parent}: no such folder")
    if os.path.exists(target):
        if source.exists() and target.samefile(source):
            raise OutputError(f"{target} is the input itself: give another name for the output")
        if not overwrite:
            raise OutputError(f"{target} exists already: add -y (overwrite=True) to replace it, or choose another name")
    for other in (FileSink.part_of(target), FileSink.partial_of(target)):
        if os.path.exists(other) and other.samefile(source):
            raise OutputError(f"{source} is the name a part of {target} would get: give another name for the output")
    _check_writable(FileSink.part_of(target), overwrite)


def _check_writable(part: Path, overwrite: bool) -> None:
    """Makes the temporary file for a moment: no permission bit says what a file system really allows."""
    try:
        if overwrite:
            part.unlink(missing_ok=True)
        part.open("xb").close()
        part.unlink()
    except FileExistsError:
        raise OutputError(
            f"{part} exists: another run is writing it, or was killed; add -y (overwrite=True) to replace it"
        ) from None
    except OSError as error:
        raise OutputError(f"{part}: cannot be written ({error.strerror}); choose another folder or name") from error


def _check_span(settings: Settings, source: SourceInfo) -> None:
    duration = source.duration_seconds
    if settings.start is not None and settings.start < 0:
        raise UsageError("--start cannot be before the beginning")
    if settings.start is not None and duration is not None and settings.start >= duration:
        raise UsageError(f"--start {float(settings.start):g}: the input is only {float(duration):.3f} seconds long")
    if settings.start is not None and settings.end is not None and settings.end <= settings.start:
        raise UsageError(f"--end {float(settings.end):g} is not after --start {float(settings.start):g}")
    if settings.end is not None and settings.end <= 0:
        raise UsageError("--end must be later than the beginning of the input")


def _expected_frames(settings: Settings, source: SourceInfo) -> int | None:
    frames, duration = source.video.frames, source.duration_seconds
    if (settings.start is None and settings.end is None) or not frames or not duration:
        return frames
    kept = min(settings.end or duration, duration) - (settings.start or 0)
    return max(1, math.ceil(frames * kept / duration))


def _choose_model(settings: Settings) -> Model:
    model = models.load(settings.model)
    if settings.scale is not None and settings.scale != model.scale:
        fitting = [other.name for other in models.usable() if other.scale == settings.scale]
        hint = f"models for x{settings.scale}: {', '.join(fitting)}" if fitting else "see `vidsr models`"
        raise UsageError(f"--scale {settings.scale}: the model {model.name} enlarges {model.scale} times; {hint}")
    return model


def _output_tags(source: SourceInfo, target: FrameLayout) -> ColorTags:
    """The source's tags as they are, or definite ones where the family changes and a player could not guess."""
    video = source.video
    if video.layout.family == target.family:
        return video.color
    if target.family == "rgb":
        return replace(video.color, matrix=RGB, full_range=True)
    plain = replace(video.color, full_range=video.color.full_range if video.layout.family == "gray" else False)
    return plain.resolved(height=target.height, width=target.width, rgb=False)


def _wanted_layout(settings: Settings, source: FrameLayout, scale: int) -> FrameLayout:
    """The source's layout, enlarged, or the one asked for."""
    height, width = source.height * scale, source.width * scale
    if settings.pix_fmt is None:
        return replace(source, height=height, width=width)
    if not native(settings.pix_fmt):
        raise UsageError(
            f"--pix-fmt {settings.pix_fmt}: choose a planar format such as yuv420p, yuv444p10le, gray, gbrp"
        )
    return layout_of(settings.pix_fmt, height=height, width=width, siting=source.siting)


def _choose_encoder(
    settings: Settings, container: Container, wanted: FrameLayout
) -> tuple[EncoderSettings, FrameLayout]:
    """The encoder and the layout it gets: the wanted one or the closest it takes."""
    name = settings.encoder or container.encoders[8 if wanted.bits == 8 else 16]
    name = encoders.ALIASES.get(name, name)
    offered = encoders.formats(name)
    if settings.encoder is None and container.format == "webm" and pixel_format(wanted) not in offered:
        name, offered = "libvpx-vp9", encoders.formats("libvpx-vp9")
    if settings.pix_fmt is not None and offered and pixel_format(wanted) not in offered:
        raise UsageError(f"--pix-fmt {settings.pix_fmt}: {name} takes {', '.join(f for f in offered if native(f))}")
    layout = closest(wanted, offered) if offered else wanted
    if layout is None:
        raise UsageError(f"--encoder {name}: takes none of the picture formats vidsr makes ({', '.join(offered)})")
    extra = {**container.encoder_options, **settings.encoder_options}
    return encoders.settings(name, crf=settings.crf, preset=settings.preset, extra=extra), layout


def resolve(source_path: Path, target_path: Path, settings: Settings) -> Job:
    """Checks and decides everything that can be known before the run. Raises a VidsrError with one clear line."""
    if not os.path.exists(source_path):
        raise InputError(f"{source_path}: no such file")
    if os.path.isdir(target_path):
        raise OutputError(f"{target_path} is a folder: give the name of the file to write")
    container = container_of(target_path)
    _check_paths(source_path, target_path, settings.overwrite)
    model = _choose_model(settings)
    source = probe(source_path)
    _check_span(settings, source)
    layout = source.video.layout
    wanted = _wanted_layout(settings, layout, model.scale)
    encoder, target = _choose_encoder(settings, container, wanted)
    engine = plan_engine(settings, model, layout, target)
    matrix = source.video.display_matrix
    if matrix is not None:
        # The last row moves the turned picture back into view: in pixels, so it grows with the picture.
        matrix = (*matrix[:6], matrix[6] * model.scale, matrix[7] * model.scale, matrix[8])
    video = VideoTrack(
        layout=target,
        color=_output_tags(source, target),
        # A container without times gets frames by their number.
        time_base=source.video.time_base if container.time_base != 0 else 1 / (source.video.rate or Fraction(25)),
        rate=source.video.rate,
        sample_aspect_ratio=source.video.sample_aspect_ratio,
        display_matrix=matrix,
    )
    encoders.prove(video, encoder, container.format)
    tracks = plan_tracks(source, container)
    return Job(
        source=source,
        path=target_path,
        container=container,
        tracks=tracks,
        engine=engine,
        encoder=encoder,
        video=video,
        start=settings.start,
        end=settings.end,
        overwrite=settings.overwrite,
        frames=_expected_frames(settings, source),
        warnings=tuple(_foreseen(source, wanted, target, tracks, container)),
    )


def _foreseen(
    source: SourceInfo, wanted: FrameLayout, target: FrameLayout, tracks: tuple[TrackPlan, ...], container: Container
) -> Iterator[str]:
    """What the output will not hold as the source did."""
    for plan in tracks:
        if plan.how is None:
            yield f"{plan.track} is left out: {plan.reason}"
    if target != wanted:
        given, made = source.video.pixel_format, pixel_format(target)
        yield f"the picture, {given}, is written as {made}: nothing closer fits the encoder"
    if source.video.layout.family == target.family == "yuv":
        before, after = (
            source.video.color.resolved(height=layout.height, width=layout.width, rgb=False).matrix
            for layout in (source.video.layout, target)
        )
        if before != after:
            yield "the input states no colour matrix; players that go by the size will change their guess to BT.709"
    if source.video.has_alpha:
        yield "transparency is left out"
    if source.video.interlaced:
        yield "the video is interlaced; it is enlarged as it is and written as progressive, so deinterlace it first"
    if source.video.has_hdr_metadata:
        yield "HDR mastering and light level data are left out; the colour tags are kept"
    # Opus has its priming stated beside the times in Matroska, others have not.
    begins = [plan.first_seconds for plan in tracks if plan.first_seconds is not None and plan.track.codec != "opus"]
    begin = min(begins, default=Fraction(0))
    if begin < 0 and container.format in ("matroska", "webm"):
        yield f"{container.format} keeps no times before zero: everything begins {float(-begin):.3f} s later, in step"
    kept = container.time_base
    if kept == 0:
        yield f"{container.format} keeps no frame times: frames follow each other at a fixed rate"
    elif kept is not None and (source.video.time_base / kept).denominator != 1:
        yield f"{container.format} keeps times in steps of {kept} seconds, so frame times are rounded to those"


def run(job: Job, *, observer: Observer, stop: Event, cancel: Event) -> Report:
    """Runs a job to its end; `stop` ends it early with a playable part, `cancel` without. Raises a VidsrError."""
    for warning in job.warnings:
        observer(Warned(message=warning))
    observer(_start(job))
    warnings = list(job.warnings)
    readers: list[VideoReader] = []

    def open_reader() -> VideoReader:
        readers.append(VideoReader(job.source, start=job.start, end=job.end))
        return readers[-1]

    spec = PipelineSpec(
        open_reader=open_reader,
        open_engine=job.engine.open,
        convert=Conversions(job.engine.source, job.engine.target, job.video.color),
        slots=_SLOTS,
    )
    sink = FileSink(
        job.path,
        job.source,
        job.container,
        job.encoder,
        job.tracks,
        start=job.start,
        end=job.end,
        overwrite=job.overwrite,
    )
    totals = transfer(
        spec, sink, job.video, stop=stop, cancel=cancel, total=job.frames, on_progress=observer,
        written_bytes=lambda: sink.written_bytes,
    )  # fmt: skip
    (reader,) = readers
    notes = reader.notes + sink.notes
    if totals.reached_end and job.end is None:
        stated, reached = job.source.video.duration_seconds, reader.end_seconds
        if stated is not None and stated - reached > max(Fraction(1), stated / 50):
            notes[f"the video ends at {float(reached):.2f} s, but the file says {float(stated):.2f} s"] += 1
    for note, count in notes.items():
        warnings.append(f"{note} ({count} times)" if count > 1 else note)
        observer(Warned(message=warnings[-1]))
    written = job.path if totals.reached_end else sink.kept
    if written is None:
        raise Cancelled("stopped before the first frame; nothing was written")
    done = Report(
        target=str(written),
        frames=totals.frames,
        seconds=totals.seconds,
        fps=totals.frames / totals.seconds,
        written_bytes=written.stat().st_size,
        busy=totals.busy,
        engine=totals.engine,
        warnings=tuple(warnings),
        complete=totals.reached_end,
    )
    observer(done)
    return done


def _start(job: Job) -> Start:
    layout = job.source.video.layout
    return Start(
        source=str(job.source.path),
        target=str(job.path),
        source_size=(layout.width, layout.height),
        target_size=(job.video.layout.width, job.video.layout.height),
        model=job.engine.model.name,
        engine=str(job.engine),
        encoder=f"{job.encoder.name} {pixel_format(job.video.layout)}",
        frames=job.frames,
    )


def stream(source_path: Path, settings: Settings) -> Iterator[Frame]:
    """Upscaled frames of a file in the source's own layout; planes are the receiver's to keep."""
    model = _choose_model(settings)
    source = probe(source_path)
    _check_span(settings, source)
    layout = source.video.layout
    target = _wanted_layout(settings, layout, model.scale)
    engine = plan_engine(settings, model, layout, target)
    spec = PipelineSpec(
        open_reader=lambda: VideoReader(source, start=settings.start, end=settings.end),
        open_engine=engine.open,
        convert=Conversions(layout, target, _output_tags(source, target)),
        slots=_SLOTS,
    )
    with Pipeline(spec) as pipeline:
        for frame in pipeline.frames():
            yield replace(frame, planes=tuple(plane.copy() for plane in frame.planes))
