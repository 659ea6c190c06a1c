"""The lanes of a player: made in threads of their own, so that what is shown goes on meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Event, Lock, Thread

from vidsr.backends.base import Watch
from vidsr.errors import Cancelled, VidsrError, first_line
from vidsr.job import Settings, resolve_stream
from vidsr.media.info import SourceInfo
from vidsr.preview.desk import Desk
from vidsr.preview.lane import Lane, Listener

__all__ = ["Built", "Lanes", "Size", "plain"]

Size = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What was asked for, or the error that was met instead. playing_only: see `Lanes.build`."""

    lane: Lane | VidsrError
    playing_only: bool


class Lanes:
    """still: shows single frames, by what the viewer has chosen. live: plays; the same, or something faster. loading:
    what is being made, in words; loads_playing_only: see `build`.

    Belongs to one thread, but for `make`. later: has something done in that thread. built: is told there of each lane
    that was asked for last.
    """

    def __init__(
        self,
        source: SourceInfo,
        desk: Desk,
        listener: Listener,
        quality: Callable[[], int],
        *,
        later: Callable[[Callable[[], None]], None],
        built: Callable[[Built], None],
    ) -> None:
        self.still: Lane | None = None
        self.live: Lane | None = None
        self.loading: str | None = None
        self.loads_playing_only = False
        self._source, self._desk, self._listener, self._quality = source, desk, listener, quality
        self._later, self._built = later, built
        self._open: list[Lane] = []
        self._threads: list[Thread] = []
        self._order = 0
        self._stop = Event()
        self._one_at_a_time = Lock()

    def build(self, settings: Settings, size: Size | None = None, *, playing_only: bool = False) -> None:
        """Begins to make a lane, in place of the one that is being made.

        size: (height, width) of the part that is enlarged, None for all. playing_only: it will not show single frames.
        """
        self.forget()
        order, stop = self._order, Event()
        self._stop = stop
        self.loading = f"loading {settings.model}" + (" for a part of the picture" if size else "")
        self.loads_playing_only = playing_only

        def run() -> None:
            with self._one_at_a_time:
                made = self._made(f"lane-{order}", settings, size, stop)
            self._later(lambda: self._take(order, Built(lane=made, playing_only=playing_only)))

        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(Thread(target=run, name=f"vidsr-build-{order}"))
        self._threads[-1].start()

    def use(self, *, still: Lane | None, live: Lane | None) -> None:
        """From now on; the others are closed. The desk must have no wish for those."""
        self.still, self.live = still, live
        for lane in self._open:
            if lane is not still and lane is not live:
                lane.close()
        self._open = [lane for lane in self._open if lane is still or lane is live]

    def forget(self) -> None:
        """Nobody wants what is being made."""
        self._stop.set()
        self._order += 1
        self.loading = None

    def clear(self) -> None:
        """Closes all, and takes none that is being made."""
        self.forget()
        self.use(still=None, live=None)

    def join(self) -> None:
        """Waits for what is being made, to close it."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _made(self, name: str, settings: Settings, size: Size | None, stop: Event) -> Lane | VidsrError:
        try:
            if stop.is_set():
                raise Cancelled("not wanted any more")
            # One frame at once: a picture that is stepped or sought to is waited for.
            stream = resolve_stream(self._source.path, replace(settings, start=None, end=None, streams=1))
            if size is not None:
                stream = stream.part(*size)
            stream.plan.prepare(Watch(stop=stop))
            lane = Lane(name, stream, self._desk, size=size, quality=self._quality, listener=self._listener)
        except Exception as error:
            return plain(error)
        lane.start()
        lane.ready.wait()
        if lane.failure is not None:
            lane.close()
            return plain(lane.failure)
        return lane

    def _take(self, order: int, built: Built) -> None:
        if isinstance(built.lane, Lane):
            self._open.append(built.lane)
            if built.lane.failure is not None:
                built = replace(built, lane=plain(built.lane.failure))
        if order != self._order:
            self.use(still=self.still, live=self.live)
            return
        self.loading = None
        self._built(built)


def plain(error: BaseException) -> VidsrError:
    """In one line, whatever it is."""
    if isinstance(error, VidsrError):
        return error
    return VidsrError(f"internal error: {type(error).__name__}: {first_line(error)}")
