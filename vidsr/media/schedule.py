"""Keeps encoders from taking the machine for themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["as_scheduled"]


@contextmanager
def as_scheduled() -> Iterator[None]:
    """Around what opens an encoder: threads have the priority behind it that the calling one had before.

    SVT-AV1 makes its threads and the calling one real-time (SCHED_FIFO, 99) where it may, as root; all that they start
    is real-time as well, and an ordinary process gets no time any more.
    """
    if not hasattr(os, "sched_getscheduler"):  # Linux alone
        yield
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread in map(int, os.listdir("/proc/self/task")):
            with suppress(OSError):  # it is gone
                if os.sched_getscheduler(thread) != policy:
                    os.sched_setscheduler(thread, policy, priority)
