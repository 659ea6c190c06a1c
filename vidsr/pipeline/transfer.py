"""Runs a pipeline into a sink, with the sink's work in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread

from vidsr.errors import Cancelled
from vidsr.events import Progress, Stage
from vidsr.frame import Frame, VideoTrack
from vidsr.pipeline.channel import Aborted
from vidsr.pipeline.meter import Meter
from vidsr.pipeline.stage import Pipeline, PipelineSpec
from vidsr.sinks import Sink

__all__ = ["Totals", "transfer"]

_TICK_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What a finished transfer amounts to; see `vidsr.events.Report`."""

    frames: int
    seconds: float
    busy: dict[Stage, float]
    engine: str
    reached_end: bool


def transfer(
    spec: PipelineSpec,
    sink: Sink,
    video: VideoTrack,
    *,
    stop: Event,
    cancel: Event,
    total: int | None,
    on_progress: Callable[[Progress], None],
    written_bytes: Callable[[], int],
    earlier: int = 0,
    tap: Callable[[Frame], None] | None = None,
) -> Totals:
    """Moves every frame of `spec` into `sink`.

    earlier: frames that an earlier run has moved, which progress counts in.
    tap: sees each frame before the sink gets it, in the sink's thread.
    stop: no more frames are read, those on the way are finished. cancel: everything is given up.
    on_progress: called in the calling thread, a few times a second. Raises the first error of any stage, after all
        threads have ended and the sink is closed.
    """
    if sink.overrun != "wait":
        raise ValueError("transfer serves sinks that wait; one that drops frames needs a run of its own")
    meter = Meter()
    done, given_up = Event(), Event()
    state = _State()

    def encode(pipeline: Pipeline) -> None:
        try:
            sink.open(video)
            for frame in pipeline.frames():
                if tap is not None:
                    tap(frame)
                with meter.at("encode"):
                    sink.write(frame)
                state.frames += 1
            if cancel.is_set() or given_up.is_set():
                raise Aborted
            with meter.at("encode"):
                state.closed = True
                sink.close("complete" if pipeline.reached_end else "stopped")
        except Aborted:
            pass
        except BaseException as error:
            pipeline.fail(error)
        finally:
            if not state.closed:
                try:
                    sink.close("failed")
                except BaseException as error:
                    pipeline.fail(error)
            pipeline.abort()
            done.set()

    with Pipeline(spec, stop=stop, meter=meter) as pipeline:
        thread = Thread(target=encode, args=(pipeline,), name="vidsr-encode")
        thread.start()
        try:
            while not done.wait(_TICK_SECONDS):
                if cancel.is_set():
                    pipeline.abort()
                on_progress(_progress(meter, state.frames, earlier, total, written_bytes()))
        finally:
            if not done.is_set():
                given_up.set()
                pipeline.abort()
            thread.join()
    if pipeline.error is not None:
        raise pipeline.error
    if not state.closed:
        raise Cancelled("stopped at once")
    return Totals(
        frames=state.frames,
        seconds=meter.seconds,
        busy=meter.shares(),
        engine=pipeline.engine_description,
        reached_end=pipeline.reached_end,
    )


class _State:
    """What the sink's thread tells the calling one."""

    frames = 0
    closed = False


def _progress(meter: Meter, frames: int, earlier: int, total: int | None, written: int) -> Progress:
    fps, busy = meter.recent(frames)
    busiest: Stage = max(busy, key=busy.__getitem__)
    limit = busiest if frames else None
    return Progress(
        frames=earlier + frames,
        total=total,
        seconds=meter.seconds,
        fps=fps,
        written_bytes=written,
        busy=busy,
        limit=limit,
    )
