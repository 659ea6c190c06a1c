"""Long preparations in a thread of their own, so that the caller's stays free for signals."""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread

from vidsr.backends.base import Watch

__all__ = ["aside"]

_TICK_SECONDS = 0.25


def aside(work: Callable[[Watch], None], watch: Watch) -> None:
    """Runs `work` in another thread and waits for it; what it tells goes to `watch` in the calling one. Raises what
    `work` raises."""
    told: SimpleQueue[Callable[[], None] | BaseException | None] = SimpleQueue()
    messenger = Watch(
        progress=lambda done: told.put(lambda: watch.progress(done)),
        warn=lambda text: told.put(lambda: watch.warn(text)),
        stop=watch.stop,
    )

    def run() -> None:
        try:
            work(messenger)
            told.put(None)
        except BaseException as error:
            told.put(error)

    thread = Thread(target=run, name="vidsr-prepare")
    thread.start()
    try:
        error = _pass_on(told)
    except BaseException:  # of the watcher, or a signal's
        watch.stop.set()
        raise
    finally:
        thread.join()
    if error is not None:
        raise error


def _pass_on(told: SimpleQueue[Callable[[], None] | BaseException | None]) -> BaseException | None:
    """Until the work is done; what it raised."""
    while True:
        try:
            # With no end in sight, some platforms would not let a signal through.
            item = told.get(timeout=_TICK_SECONDS)
        except Empty:
            continue
        if item is None or isinstance(item, BaseException):
            return item
        item()
