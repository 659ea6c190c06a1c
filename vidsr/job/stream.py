"""From the frames of a file to enlarged ones: what a run writes, and what whoever wants frames gets."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

from vidsr.backends.base import Watch
from vidsr.backends.guard import Guard
from vidsr.color import ColorTags
from vidsr.errors import InputError
from vidsr.frame import Frame, FrameLayout
from vidsr.job.engine import Conversions, EnginePlan, plan_engine, plan_notes
from vidsr.job.geometry import target_geometry
from vidsr.job.resolve import (
    check_span,
    choose_decoder,
    choose_deinterlace,
    choose_model,
    expected_frames,
    output_tags,
    wanted_layout,
    without_alpha,
)
from vidsr.job.settings import Settings
from vidsr.media.hardware import Hardware
from vidsr.media.info import Deinterlace, SourceInfo
from vidsr.media.resize import Resizer
from vidsr.media.source import VideoReader, probe
from vidsr.notes import Notes
from vidsr.pipeline import Pipeline, PipelineSpec, aside

__all__ = ["Stream", "resolve_stream", "stream"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """The way of the frames from a file through an engine, with everything decided.

    layout, color: of the frames that come out. skip: frames that an earlier run has made. total: expected frames, None
    if unknown. warnings: what the user should know before it starts.
    """

    settings: Settings
    source: SourceInfo
    plan: EnginePlan
    layout: FrameLayout
    color: ColorTags
    deinterlace: Deinterlace
    hardware: Hardware | None
    skip: int = 0
    total: int | None = None
    warnings: tuple[str, ...] = ()
    _readers: list[VideoReader] = field(default_factory=list, init=False, compare=False)
    _guard_notes: Notes = field(default_factory=Notes, init=False, compare=False)

    def frames(self, watch: Watch | None = None) -> Generator[Frame]:
        """The frames in order; planes are the receiver's to keep. To be called once.

        watch: of the preparations, and told at the end what had to be mended. Raises a VidsrError.
        """
        watch = watch or Watch()
        aside(self.plan.prepare, watch)
        with Pipeline(self.spec()) as pipeline:
            for frame in pipeline.frames():
                yield replace(frame, planes=tuple(plane.copy() for plane in frame.planes))
        for line in self.mended(reached_end=pipeline.reached_end):
            watch.warn(line)

    def spec(self) -> PipelineSpec:
        plan = self.plan
        return PipelineSpec(
            open_reader=self._open_reader,
            open_engine=plan.open,
            convert=Conversions(plan.source, plan.target, self.color),
            slots=plan.options.slots,
            open_guard=self._guard(),
            finish=_resizer(plan, self.layout),
        )

    def mended(self, *, reached_end: bool) -> list[str]:
        """What had to be made do with, after a pipeline has run the spec. Raises InputError where the end is missing
        and the settings are strict."""
        (reader,) = self._readers
        if reached_end and self.settings.end is None:
            stated, reached = self.source.video.duration_seconds, reader.end_seconds
            if stated is not None and stated - reached > max(Fraction(1), stated / 50):
                what = f"the video ends at {float(reached):.2f} s, but the file says {float(stated):.2f} s"
                if self.settings.strict:
                    raise InputError(f"{self.source.path}: {what}")
                reader.notes.add(what)
        return [line for notes in (reader.notes, self._guard_notes, self.plan.notes) for line in notes.lines()]

    def reader(
        self,
        start: Fraction | None,
        end: Fraction | None = None,
        *,
        skip: int = 0,
        given_up: Callable[[], bool] = lambda: False,
    ) -> VideoReader:
        """Of the frames from `start` to `end`, see `VideoReader`. Raises InputError."""
        return VideoReader(
            self.source,
            given_up=given_up,
            start=start,
            end=end,
            deinterlace=self.deinterlace,
            skip=skip,
            strict=self.settings.strict,
            hardware=self.hardware,
        )

    def part(self, height: int, width: int) -> Stream:
        """The same for a part of each frame, of that size in the source; its reader still gives whole frames.

        Raises BackendError, MemoryBudgetError.
        """
        whole = self.source.video.layout
        tall, wide = Fraction(self.layout.height, whole.height), Fraction(self.layout.width, whole.width)
        scale, (down, right) = self.plan.model.scale, self.layout.chroma
        source, target = (
            replace(layout, height=height * factor, width=width * factor)
            for layout, factor in ((self.plan.source, 1), (self.plan.target, scale))
        )
        layout = replace(
            self.layout, height=round(height * tall / down) * down, width=round(width * wide / right) * right
        )
        return replace(self, plan=plan_engine(self.settings, self.plan.model, source, target), layout=layout)

    def _open_reader(self) -> VideoReader:
        reader = self.reader(self.settings.start, self.settings.end, skip=self.skip)
        self._readers.append(reader)
        return reader

    def _guard(self) -> Callable[[], Guard] | None:
        """What makes a guard for the engine; None for one that is exact."""
        plan, begin = self.plan, self.source.start_seconds
        if plan.options.precision == "fp32":
            return None
        return lambda: Guard(plan.exact().open, plan.source, plan.target, self._guard_notes, begin)


def resolve_stream(source_path: Path, settings: Settings) -> Stream:
    """Checks and decides. Frames have the source's own layout, or that of `pix_fmt`. Raises a VidsrError."""
    source = probe(source_path)
    check_span(settings, source)
    model = choose_model(settings, source)
    deinterlace = choose_deinterlace(settings, source)
    target = wanted_layout(settings, source.video.layout, model.scale)
    source = without_alpha(source) if not target.alpha else source
    height, width, _ = target_geometry(
        source.video, scale=settings.scale, size=settings.size, model_scale=model.scale, even=target.chroma
    )
    plan = plan_engine(settings, model, source.video.layout, target)
    hardware, why_not = choose_decoder(settings, source, deinterlace)
    return Stream(
        settings=settings,
        source=source,
        plan=plan,
        layout=replace(target, height=height, width=width),
        color=output_tags(source, target),
        deinterlace=deinterlace,
        hardware=hardware,
        total=expected_frames(settings, source, deinterlace),
        warnings=(*plan_notes(settings, plan), *([why_not] if why_not else [])),
    )


def stream(source_path: Path, settings: Settings) -> Generator[Frame]:
    """Enlarged frames of a file, see `Stream`."""
    return resolve_stream(source_path, settings).frames()


def _resizer(plan: EnginePlan, layout: FrameLayout) -> Resizer | None:
    """What brings the engine's frames to the output's size."""
    same = (plan.target.height, plan.target.width) == (layout.height, layout.width)
    return None if same else Resizer(plan.target, layout)
