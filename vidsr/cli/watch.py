"""`--watch`: the page that shows a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event
from typing import TYPE_CHECKING

import click

from vidsr.errors import OutputError, UsageError, VidsrError

if TYPE_CHECKING:
    from vidsr.events import Event as RunEvent
    from vidsr.events import Observer, Report
    from vidsr.job import Job

__all__ = ["watched"]


@contextmanager
def watched(
    run: partial[Report], observer: Observer, stop: Event, port: int
) -> Iterator[tuple[Callable[..., Report], Observer]]:
    """The run and its observer, with a page that shows them as long as this is entered.

    The address goes to standard error alone: whoever has it can see and stop the run, and logs of JSON lines are kept.
    Raises UsageError where the run is not that of a video.
    """
    job = _job(run)
    from vidsr.preview.server import Server
    from vidsr.preview.watch import WatchSession

    session = WatchSession(job, stop)

    def both(event: RunEvent) -> None:
        session.event(event)
        observer(event)

    with Server(session, port=port) as server:
        try:
            address = server.start()
        except OutputError as error:
            raise OutputError(str(error).replace("--port", "--watch-port")) from error
        click.echo(f"watch it at {address}", err=True)
        try:
            yield partial(run, tap=session.frame), both
        except VidsrError as error:
            session.failed(str(error))
            raise


def _job(run: partial[Report]) -> Job:
    from vidsr import job

    if run.func is not job.run:
        raise UsageError("--watch shows how a file with a video is made: leave it out for pictures and for streams")
    resolved: Job = run.args[0]
    return resolved
