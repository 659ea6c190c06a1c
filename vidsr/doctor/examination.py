"""Looks at everything, two things at a time, and draws the conclusions."""

from __future__ import annotations

import base64
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import vidsr
from vidsr.doctor import machine
from vidsr.doctor.child import Child
from vidsr.doctor.report import Check, Report, State, advice, auto

__all__ = ["examine"]

_AT_A_TIME = 2
_MEAN_LIMIT = 0.5
_LIMITS = {"fp32": 2}
_LIMIT_OF_LOW_PRECISION = 40
"""Code values that a result may be off, on the average and at most. Wrong colours or swapped planes are far beyond."""


def examine(*, smoke: bool = True, observer: Callable[[str], None] = lambda text: None) -> Report:
    """smoke: run every usable backend once. observer: told what is being looked at; called from several threads."""
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
        advised.insert(0, {"problem": broken, "command": "pip install --force-reinstall vidsr"})
    return Report(
        vidsr=vidsr.__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        seconds=round(time.perf_counter() - begin, 1),
        ok=any(check.state == ("works" if smoke else "unchecked") for check in checks),
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
    """Everything looks and runs side by side; then, one after the other, each backend takes its rate.

    topics: the installation first, which knows the cache of compiled models.
    """

    def look(child: Child) -> Child:
        observer(child.name)
        child.start()
        child.listen(until="planes")
        return child

    def run(child: Child, installation: Future[Child]) -> Child:
        cache = installation.result().found.get("cache", {})
        child.arguments += (cache["folder"] if cache.get("writable") else "",)
        return look(child)

    children = [*topics, *runs.values()]
    try:
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            installation = pool.submit(look, topics[0])
            others = [pool.submit(look, child) for child in topics[1:]]
            made = [pool.submit(run, child, installation) for child in runs.values()]
        for future in (*others, *made):
            future.result()
        for child in runs.values():
            child.go_on()
            child.listen()
    finally:
        for child in children:
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
    command = re.search(r"pip install [^();,]+", reason or "")
    return Check(
        backend=backend,
        asked=asked,
        state=state,
        reason=reason,
        command=command[0].strip() if command else None,
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
