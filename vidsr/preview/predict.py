"""How long a whole job would take, and how large its output would be: measured by samples of it."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from vidsr import job
from vidsr.errors import Cancelled, InputError, VidsrError, first_line
from vidsr.events import Event as RunEvent
from vidsr.events import Phase
from vidsr.frame import Frame
from vidsr.job.settings import Job, Settings
from vidsr.media.container import select
from vidsr.media.weigh import Weight, attached_bytes, weigh
from vidsr.preview.told import Tell, Told
from vidsr.preview.work import default_target
from vidsr.sinks.segments import segment_frames

__all__ = ["Prediction", "Predictor", "predict"]

_PLACES = (Fraction(1, 2), Fraction(1, 10), Fraction(9, 10))
"""Where in the video the samples lie; in the middle first, which is all there is time for with a slow model."""
_SAMPLE_SECONDS = 3
_SHARE = 6
"""Of the video, samples together take at most half."""
_FIRST_SECONDS, _BUDGET_SECONDS = 2.0, 12.0
"""So long the first sample is given frames, and so much all of them may take."""
_LEAST_FRAMES = 8
_WEIGHED_SECONDS = Fraction(1)
"""From a sample's first frame on at least that much of the source is weighed: a few packets are no measure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Of the whole job. seconds: from the first frame to the last, without loading the model and without verifying.
    bytes: of the output."""

    seconds: float
    bytes: int
    fps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """made: the video that came out, over `span_seconds`. given: of the source behind its first frame, by track, over
    `given_seconds`. seconds: from having made the first frame to having encoded the last."""

    made: Weight
    span_seconds: Fraction
    given: dict[int, Weight]
    given_seconds: Fraction
    seconds: float


def predict(source: Path, settings: Settings, cancel: Event) -> Prediction:
    """Runs samples of the job that these settings make of `source`, into a folder that is gone afterwards.

    Takes up to some 15 seconds, more only where one frame takes seconds. Raises a VidsrError; Cancelled as soon as
    `cancel` is set.
    """
    with tempfile.TemporaryDirectory(prefix="vidsr-", ignore_cleanup_errors=True) as folder:
        target = Path(folder, f"sample{default_target(source, 1).suffix}")
        alone = replace(settings, tracks="none", verify=False, keep_partial=True, overwrite=True, resume=False)
        whole = job.resolve(source, target, alone)
        begin, end = _span(whole)
        length = min(Fraction(_SAMPLE_SECONDS), (end - begin) / _SHARE)
        samples: list[_Sample] = []
        since, left = time.monotonic(), _FIRST_SECONDS
        for place in _PLACES:
            if cancel.is_set():
                raise Cancelled("given up")
            start = begin + (end - begin - length) * place
            sample = _sample(whole, start, start + length, left, cancel)
            if sample is None:
                continue
            samples.append(sample)
            left = (_BUDGET_SECONDS - (time.monotonic() - since)) / (len(_PLACES) - 1)
            length = min(length, Fraction(left / sample.seconds).limit_denominator(1000) * sample.span_seconds)
            if length * sample.made.packets < _LEAST_FRAMES * sample.span_seconds:
                break
        if not samples:
            raise InputError(f"{source}: no two frames were found where samples were taken")
        return _extrapolated(whole, samples, end - begin, settings.tracks)


def _extrapolated(whole: Job, samples: Sequence[_Sample], seconds: Fraction, tracks: str) -> Prediction:
    """What the samples say of all."""
    made_frames = sum(sample.made.packets - 1 for sample in samples)
    span_seconds = sum((sample.span_seconds for sample in samples), Fraction(0))
    frames = whole.frames or round(seconds * made_frames / span_seconds)
    fps = made_frames / sum(sample.seconds for sample in samples)
    sampled: Counter[int] = Counter()
    for sample in samples:
        sampled.update({index: weight.bytes for index, weight in sample.given.items()})
    given_seconds = sum((sample.given_seconds for sample in samples), Fraction(0))
    rates = {index: count / given_seconds for index, count in sampled.items()}
    attached = attached_bytes(whole.source.path)
    kept = select(whole.source, tracks)
    copied = sum((rates.get(index, Fraction(0)) * seconds + attached.get(index, 0) for index in kept), Fraction(0))
    grown = sum(sample.made.rest_bytes for sample in samples) / span_seconds
    shape = _evenness(whole, rates, sum(attached.values()))
    begun = frames / segment_frames(whole.encoder) * sum(sample.made.first_bytes for sample in samples) / len(samples)
    return Prediction(seconds=frames / fps, bytes=round(grown * shape * seconds + copied + begun), fps=fps)


def _evenness(whole: Job, rates: Mapping[int, Fraction], attached: int) -> Fraction:
    """How many bytes a second the source's own video has throughout, over how many it has in the samples.

    The output's video is taken to be as uneven as that, which knows where scenes are hard: that came within 11 % on
    seven clips, where the rate of the samples alone was off by up to 20 %.
    """
    source, index = whole.source, whole.source.video.index
    if source.duration_seconds is None or not rates.get(index):
        return Fraction(1)
    others = sum(rate for track, rate in rates.items() if track != index)
    throughout = (source.path.stat().st_size - attached) / source.duration_seconds - others
    return throughout / rates[index] if throughout > 0 else Fraction(1)


def _span(whole: Job) -> tuple[Fraction, Fraction]:
    """From where to where the job goes, in seconds from the beginning of the file."""
    duration = whole.source.video.duration_seconds or whole.source.duration_seconds
    ends = [end for end in (whole.settings.end, duration) if end is not None]
    if not ends:
        raise InputError(f"{whole.source.path}: the file does not say how long it is, so nothing can be predicted")
    return whole.settings.start or Fraction(0), min(ends)


class _Clock:
    """Sees the frames and events of a sample: times them, and ends the sample where it takes too long."""

    def __init__(self, slots: int, work_seconds: float) -> None:
        self.stop = Event()
        self.frames = 0
        self.first, self.last = Fraction(0), Fraction(0)
        self._slots, self._work_seconds = slots, work_seconds
        self._begin, self._end, self._over = 0.0, 0.0, False

    @property
    def seconds(self) -> float:
        return self._end - self._begin

    def frame(self, frame: Frame) -> None:
        self._end, self.last = time.perf_counter(), frame.pts * frame.time_base
        self.frames += 1
        if self.frames == 1:
            self._begin, self.first = self._end, self.last
        # Those on their way are still finished.
        elif self.seconds * (self.frames + self._slots) / self.frames > self._work_seconds:
            self.stop.set()

    def event(self, event: RunEvent) -> None:
        if isinstance(event, Phase) and event.name == "joining" and not self._over:  # the encoder has given its last
            self._over, self._end = True, time.perf_counter()


def _sample(whole: Job, start: Fraction, end: Fraction, work_seconds: float, cancel: Event) -> _Sample | None:
    """None where that part of the video has no two frames."""
    clock = _Clock(whole.engine.options.slots, work_seconds)
    part = replace(whole, settings=replace(whole.settings, start=start, end=end), frames=None)
    report = job.run(part, observer=clock.event, stop=clock.stop, cancel=cancel, tap=clock.frame)
    if clock.frames < 2 or report.target is None:
        return None
    (made,) = weigh(Path(report.target), 0).values()
    source, tick, span = whole.source, whole.source.video.time_base, clock.last - clock.first
    end = source.start_seconds + source.duration_seconds if source.duration_seconds else clock.last
    weighed = max(span, min(_WEIGHED_SECONDS, end - clock.first))
    given = weigh(source.path, source.video.index, begin=clock.first + tick, end=clock.first + tick + weighed)
    return _Sample(made=made, span_seconds=span, given=given, given_seconds=weighed, seconds=clock.seconds)


class Predictor:
    """Predicts in a thread of its own, and what the page is told of it."""

    def __init__(self) -> None:
        self._told = Told(tell="predicted", state=None, seconds=None, bytes=None, fps=None, text=None)
        self._cancel = Event()
        self._thread: Thread | None = None
        self._closed = False
        self._lock = Lock()

    def look(self, tell: Tell | None) -> None:
        """Who gets the "predicted" messages: the last one at once, then each; None where nobody is there."""
        self._told.look(tell)

    def start(self, source: Path, settings: Settings) -> None:
        """Predicts for these settings; what is being predicted for others is given up."""
        with self._lock:
            if self._closed:
                return
            before, self._cancel = self._give_up(), Event()
            self._told.change(state="measuring", seconds=None, bytes=None, fps=None, text=None)
            self._thread = Thread(target=self._run, args=(source, settings, self._cancel, before), name="vidsr-predict")
            self._thread.start()

    def refuse(self, why: str) -> None:
        """Says why nothing is predicted now."""
        self._told.change(state="failed", seconds=None, bytes=None, fps=None, text=why)

    def cancel(self) -> None:
        """Gives up what is being predicted."""
        with self._lock:
            self._give_up()
            self._told.turn({"measuring"}, "failed", text="given up")

    def close(self) -> None:
        """Gives up, and waits until all has ended."""
        with self._lock:
            self._closed = True
            last = self._give_up()
        if last is not None:
            last.join()

    def _give_up(self) -> Thread | None:
        """The thread that has still to end."""
        self._cancel.set()
        return self._thread

    def _run(self, source: Path, settings: Settings, cancel: Event, before: Thread | None) -> None:
        if before is not None:
            before.join()
        found: dict[str, Any]
        try:
            found = {"state": "done", **asdict(predict(source, settings, cancel))}
        except VidsrError as error:
            found = {"state": "failed", "text": " ".join(str(error).split())}
        except Exception as error:
            found = {"state": "failed", "text": f"internal error: {type(error).__name__}: {first_line(error)}"}
        with self._lock:
            if not cancel.is_set():
                self._told.change(**found)
