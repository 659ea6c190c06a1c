"""Decode and infer, each in its own thread; whoever iterates over the frames is the third stage."""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Protocol

from vidsr.backends.base import Engine, Slot
from vidsr.color import ColorTags, Conversion
from vidsr.frame import Frame, Plane
from vidsr.pipeline.channel import Aborted, Channel, Closed
from vidsr.pipeline.meter import Meter

__all__ = ["Guard", "Pipeline", "PipelineSpec", "Reader"]


class Reader(Protocol):
    """Fills planes with frames, one after the other; None at the end."""

    def read(self, planes: Sequence[Plane]) -> Frame | None: ...

    def close(self) -> None: ...


class Guard(Protocol):
    """Looks at each result before it goes on, and mends it in place where it can."""

    def check(self, slot: Slot, frame: Frame) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSpec:
    """What a pipeline runs. The makers are called inside the threads that use what they make, and closed there.

    slots: frames in flight at most; the bound on memory and the only back-pressure.
    convert: the colour conversion for a frame with these tags. finish: what is done to the planes of every result, in
    the thread that takes it.
    """

    open_reader: Callable[[], Reader]
    open_engine: Callable[[], Engine]
    convert: Callable[[ColorTags], Conversion]
    slots: int
    open_guard: Callable[[], Guard] | None = None
    finish: Callable[[Sequence[Plane]], Sequence[Plane]] | None = None


def _end(channels: Sequence[Channel[Any]], threads: Sequence[Thread]) -> None:
    """Aborts and joins; the one thing that ends a pipeline, also when nobody else does."""
    for channel in channels:
        channel.abort()
    for thread in threads:
        if thread.ident is not None:
            thread.join()


class Pipeline:
    """Runs a spec while used as a context manager; `frames` gives the results in order.

    The first error of any stage ends the run and is raised from `frames` (later ones become notes on it). Leaving the
    context, for whatever reason, ends both threads and joins them.
    """

    def __init__(self, spec: PipelineSpec, *, stop: Event | None = None, meter: Meter | None = None) -> None:
        self.meter = meter or Meter()
        self.engine_description = ""
        self.reached_end = False
        self.error: BaseException | None = None
        self._spec = spec
        self._stop = stop or Event()
        self._free: Channel[Slot] = Channel()
        self._ready: Channel[tuple[Slot, Frame]] = Channel()
        self._finished: Channel[tuple[Slot, Frame]] = Channel()
        self._lock = Lock()
        self._threads = [
            # Daemons only so that `finalize` comes before the interpreter waits for them: whoever ends a program with
            # an iterator of frames half way has left nobody to say so.
            Thread(target=self._run, args=(self._decode,), name="vidsr-decode", daemon=True),
            Thread(target=self._run, args=(self._infer,), name="vidsr-infer", daemon=True),
        ]

    def __enter__(self) -> Pipeline:
        self._ending = weakref.finalize(self, _end, (self._free, self._ready, self._finished), self._threads)
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def frames(self) -> Iterator[Frame]:
        """Upscaled frames in order. A frame's planes are valid until the next one is asked for."""
        while True:
            try:
                slot, frame = self._finished.get()
            except Closed:
                return
            except Aborted:
                break
            if self._spec.finish is not None:
                with self.meter.at("encode"):
                    frame = replace(frame, planes=self._spec.finish(frame.planes))
            yield frame
            with suppress(Aborted):  # the next get says so, too
                self._free.put(slot)
        if self.error is not None:
            raise self.error

    def abort(self) -> None:
        """Gives the run up: all stages end as soon as they can."""
        for channel in (self._free, self._ready, self._finished):
            channel.abort()

    def fail(self, error: BaseException) -> None:
        """Gives the run up because of `error`: the one it ends with, or a note on the one that came before."""
        with self._lock:
            if self.error is None:
                self.error = error
            elif error is not self.error:
                self.error.add_note(f"then, while ending: {error}")
        self.abort()

    def _end(self) -> None:
        self._ending()

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Hands errors to `fail` and goes on behind the block, where things are closed."""
        try:
            yield
        except Aborted:
            pass
        except BaseException as error:
            self.fail(error)

    def _run(self, stage: Callable[[], None]) -> None:
        with self._reporting():
            stage()

    def _decode(self) -> None:
        reader = self._spec.open_reader()
        with self._reporting():
            self._decode_all(reader)
        reader.close()
        self._ready.close()

    def _decode_all(self, reader: Reader) -> None:
        while not self._stop.is_set():
            slot = self._free.get()
            if self._stop.is_set():  # that can have taken long
                return
            with self.meter.at("decode"):
                frame = reader.read(slot.input)
                if frame is None:
                    self.reached_end = True
                    return
                slot.convert(self._spec.convert(frame.color))
            self._ready.put((slot, frame))

    def _infer(self) -> None:
        with ExitStack() as leaving:
            engine = self._spec.open_engine()
            leaving.callback(engine.close)
            guard = self._spec.open_guard() if self._spec.open_guard is not None else None
            if guard is not None:
                leaving.callback(guard.close)
            pending: deque[tuple[Slot, Frame]] = deque()
            with self._reporting():
                self.engine_description = engine.description
                slots = engine.slots(self._spec.slots)
                self.meter.start()
                for slot in slots:
                    self._free.put(slot)
                self._infer_all(engine, guard, pending)
            for slot, _ in pending:
                with self._reporting():
                    engine.wait(slot)
            self.engine_description = engine.description
        self._finished.close()

    def _infer_all(self, engine: Engine, guard: Guard | None, pending: deque[tuple[Slot, Frame]]) -> None:
        begin = 0.0
        more = True
        while more or pending:
            # With work under way take only what is ready; with none, wait for some.
            try:
                item = self._ready.get_now() if pending else self._ready.get()
            except Closed:
                item, more = None, False
            if item is not None:
                begin = begin if pending else time.perf_counter()
                engine.submit(item[0])
                pending.append(item)
                if len(pending) < engine.in_flight:
                    continue
            if pending:
                slot, frame = pending.popleft()
                engine.wait(slot)
                if guard is not None:
                    guard.check(slot, frame)
                self.meter.add("model", begin)
                begin = time.perf_counter()
                self._finished.put((slot, replace(frame, planes=slot.output, source=slot.input)))
