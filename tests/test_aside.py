"""Long preparations: what they tell and raise arrives in the calling thread."""

from __future__ import annotations

from threading import Event, current_thread, main_thread

import pytest

from vidsr.backends import Watch
from vidsr.errors import BackendError
from vidsr.pipeline import aside


def test_news_arrive_in_the_calling_thread_and_order() -> None:
    heard: list[object] = []
    threads = set()

    def hear(what: object) -> None:
        heard.append(what)
        threads.add(current_thread())

    def work(watch: Watch) -> None:
        threads.add(current_thread())
        assert current_thread() is not main_thread()
        watch.progress(0.5)
        watch.warn("one")
        watch.progress(1.0)

    caller = current_thread()
    worker: set[object] = set()
    aside(lambda watch: (worker.add(current_thread()), work(watch))[1], Watch(progress=hear, warn=hear))
    assert heard == [0.5, "one", 1.0]
    assert threads - worker == {caller}


def test_errors_arrive() -> None:
    def work(watch: Watch) -> None:
        raise BackendError("no card")

    watch = Watch()
    with pytest.raises(BackendError, match="no card"):
        aside(work, watch)
    assert not watch.stop.is_set()  # it is the caller's, who may go on


def test_an_error_of_the_watcher_stops_the_work_and_waits_for_it() -> None:
    ended = Event()

    def work(watch: Watch) -> None:
        watch.progress(0.1)
        assert watch.stop.wait(60)
        ended.set()

    def burst(done: float) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        aside(work, Watch(progress=burst))
    assert ended.is_set()
