"""Looks at everything, two things at a time, and draws the conclusions."""

from __future__ import annotations

import base64
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import Any

import vidsr
from vidsr import machine
from vidsr.doctor.child import Child, Heard, listen
from vidsr.doctor.report import Check, Report, State, advice, auto

__all__ = ["examine"]

_AT_A_TIME = 2
_MEAN_LIMIT = 0.5
_LIMITS = {"fp32": 2}
_LIMIT_OF_LOW_PRECISION = 40
"""Code values that a result may be off, on the average and at most. Wrong colours or swapped planes are far beyond."""


def examine(*, smoke: bool = True, observer: Callable[[str], None] = lambda text: None) -> Report:
    """smoke: run every usable backend once. observer: told what is being looked at."""
    begin = time.perf_counter()
    processor = machine.processor()  # before there is a load of ours
    modules: Mapping[str, str] = {}
    preference: Sequence[tuple[str, str]] = ()
    broken = None
    try:
        from vidsr import backends

        modules, preference = backends.MODULES, backends.PREFERENCE
    except ImportError as error:  # numpy or onnx is broken; what else there is can still be told
        broken = f"vidsr cannot be loaded: {error}"
    topics = {topic: Child(topic) for topic in ("installation", "nvidia", "video")}
    exact = Child("reference")
    targets = dict.fromkeys([*((name, "auto") for name in modules), *preference])
    runs = {pair: Child("backend", modules[pair[0]], pair[1], "yes" if smoke else "no") for pair in targets}
    _listen([*topics.values(), *([exact] if smoke else [])], runs, observer)
    checks = [_check(*pair, child, exact if smoke else None) for pair, child in runs.items()]
    found = {topic: child.found | {"fault": child.fault} for topic, child in topics.items()}
    chosen = auto(checks, preference)
    advised = advice(checks, chosen, found["nvidia"], found["installation"])
    if broken:
        # Not by its name: `vidsr` on PyPI is another project.
        advised.insert(0, {"problem": broken, "command": "pip install --force-reinstall ., in vidsr's folder"})
    return Report(
        vidsr=vidsr.__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        seconds=round(time.perf_counter() - begin, 1),
        ok=chosen["state"] == ("works" if smoke else "unchecked"),
        processor=processor,
        environment=machine.environment(),
        installation=_without(found["installation"]),
        video=_without(found["video"]),
        nvidia=_without(found["nvidia"]),
        backends=checks,
        auto=chosen,
        advice=advised,
    )


def _listen(topics: Sequence[Child], runs: Mapping[tuple[str, str], Child], observer: Callable[[str], None]) -> None:
    """Looks at everything, a few things side by side; then, one after the other, each backend takes its rate.

    topics: the installation first, which knows the cache of compiled models.
    """
    heard: Heard = SimpleQueue()
    early, late = topics[:_AT_A_TIME], topics[_AT_A_TIME:]
    try:
        listen(early, heard, at_a_time=_AT_A_TIME, observer=observer)
        cache = topics[0].found.get("cache", {})
        for child in runs.values():
            child.arguments += (cache["folder"] if cache.get("writable") else "",)
        listen([*late, *runs.values()], heard, until="planes", at_a_time=_AT_A_TIME, observer=observer)
        for child in runs.values():
            if child.runs:
                child.go_on()
                listen([child], heard)
    finally:
        for child in (*topics, *runs.values()):
            child.close()


def _without(found: dict[str, Any]) -> dict[str, Any]:
    """A section without what was meant for us."""
    return {key: value for key, value in found.items() if key not in ("doing", "error", "deliberate")}


def _check(backend: str, asked: str, child: Child, exact: Child | None) -> Check:
    """exact: the reference, None where nothing was run."""
    found = child.found
    state, reason = _verdict(child, exact)
    difference, mean = None, None
    if exact is not None and "planes" in found and "planes" in exact.found:
        difference, mean = _difference(found["planes"], exact.found["planes"])
        limit = _LIMITS.get(found["precision"], _LIMIT_OF_LOW_PRECISION)
        if state == "works" and (difference > limit or mean > _MEAN_LIMIT):
            state = "wrong"
            reason = f"is off by up to {difference} code values, {mean:.2f} on the average"
    return Check(
        backend=backend,
        asked=asked,
        state=state,
        reason=reason,
        command=_command(backend, child, reason),
        version=found.get("version"),
        devices=found.get("devices", ()),
        device=found.get("device"),
        precision=found.get("precision"),
        engine=found.get("engine"),
        difference=difference,
        mean_difference=None if mean is None else round(mean, 4),
        rate=round(found["rate"], 1) if "rate" in found else None,
        frame=tuple(found["frame"]) if "frame" in found else None,
    )


def _command(backend: str, child: Child, reason: str | None) -> str | None:
    """What to type: as the reason says, or to install again what is there and cannot even be loaded."""
    said = re.search(r"pip install [^();,]+", reason or "")
    if said:
        return said[0].strip()
    unloadable = child.kind is not None and "devices" not in child.found and not child.found.get("deliberate")
    return f"pip install --force-reinstall {backend}" if unloadable and child.found.get("version") else None


def _verdict(child: Child, exact: Child | None) -> tuple[State, str | None]:
    if child.kind == "failed":
        return ("refused" if child.found.get("deliberate") else "failed"), child.fault
    if child.kind is not None:
        return child.kind, child.fault
    if child.found.get("lack"):
        return "missing", child.found["lack"]
    if exact is None:
        return "unchecked", None
    if "planes" not in exact.found:
        return "unchecked", f"there is no reference to compare with: {exact.fault}"
    return "works", None


def _difference(made: str, wanted: str) -> tuple[int, float]:
    """The largest and the mean difference of samples."""
    first, second = base64.b64decode(made), base64.b64decode(wanted)
    if len(first) != len(second):
        return 255, 255.0
    differences = [abs(one - other) for one, other in zip(first, second, strict=True)]
    return max(differences), sum(differences) / len(differences)
