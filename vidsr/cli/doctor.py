"""`vidsr doctor`: the report, for people and for programs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from vidsr.cli.shape import Waiting

if TYPE_CHECKING:
    from vidsr.doctor import Check, Report

__all__ = ["doctor"]

_WIDTH = 80
_LABEL = 12


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="As JSON, with more in it.")
@click.option("--no-smoke", is_flag=True, help="Only look at what is there; do not run a model.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def doctor(as_json: bool, no_smoke: bool, debug: bool) -> int:
    """Says what vidsr finds on this machine, what of it works, and what to do about the rest.

    Every usable backend runs the default model on one small picture, which is compared with a reference. What it
    prints belongs in a bug report. It sends nothing anywhere.

    Exits with 0 if the backend that vidsr takes by itself works and gives what it should, else with 1.
    """
    from vidsr.doctor import examine

    waiting = Waiting("looking at ")
    try:
        report = examine(smoke=not no_smoke, observer=waiting)
    finally:
        waiting.clear()
    if as_json:
        click.echo(json.dumps(report.fields()))
    else:
        for line in _lines(report):
            click.echo(line)
    return 0 if report.ok else 1


def _lines(report: Report) -> Iterator[str]:
    from vidsr.doctor.report import without_home

    found = report.fields()
    yield from textwrap.wrap(f"vidsr {report.vidsr}, Python {report.python}, {report.platform}", _WIDTH)
    yield ""
    yield from _machine(found)
    yield from _video(found["video"])
    yield from _nvidia(found["nvidia"])
    yield ""
    missing = set()
    for check in report.backends:
        if check.state == "missing" and (check.backend, check.reason) in missing:
            continue  # on each of its devices for the same reason
        missing.add((check.backend, check.reason))
        yield from _row(check.state, without_home(_told(check)), _COLOURS[check.state])
    chosen = found["auto"]
    takes = (
        f"{chosen['backend']}, {chosen['device']}, {chosen['precision']}" if chosen["precision"] else chosen["backend"]
    )
    yield from _row("auto takes", takes or "nothing")
    if found["advice"]:
        yield ""
        yield "what to do"
    for entry in found["advice"]:
        yield from textwrap.wrap(entry["problem"], _WIDTH, initial_indent="  ", subsequent_indent="  ")
        if entry["command"]:
            yield f"      {entry['command']}"
    yield ""
    yield click.style(f"{_verdict(report)} ({report.seconds:.0f} s)", fg="green" if report.ok else "red")


def _verdict(report: Report) -> str:
    states = {check.state for check in report.backends}
    if report.ok:
        return "vidsr works here" if "works" in states else "looks usable; nothing was run"
    if states & {"works", "unchecked"} and report.auto["backend"] is not None:
        return f"vidsr does not work here without --backend: it takes {report.auto['backend']}"
    return "vidsr does not work here"


def _machine(found: dict[str, Any]) -> Iterator[str]:
    from vidsr.progress import human_bytes

    processor, installation = found["processor"], found["installation"]
    cores = f"{processor['cores']} of {processor['cores_present']} cores"
    if processor["cores_allowed"]:
        cores += f", time of {processor['cores_allowed']:g} allowed (control group)"
    if processor["load"] is not None and processor["load"] > processor["cores"]:
        cores += f"; busy with other work (load {processor['load']:g}), so rates are too low"
    yield from _row("processor", f"{processor['name'] or processor['architecture']}, {cores}")
    has = [name for name, there in processor["features"].items() if there]
    lacks = [name for name, there in processor["features"].items() if not there]
    if processor["features"]:
        yield from _row("", f"{', '.join(has) or 'nothing special'}" + (f"; no {', '.join(lacks)}" if lacks else ""))
    if found["environment"]:
        yield from _row("environment", ", ".join(f"{name}={value}" for name, value in found["environment"].items()))
    yield from _fault("vidsr", installation)
    if installation.get("memory_bytes"):
        free, total = (human_bytes(installation[key]) for key in ("memory_free_bytes", "memory_bytes"))
        yield from _row("memory", f"{free} free of {total}")
    if "models" in installation:
        models = [f"{model['name']} (x{model['scale']})" for model in installation["models"] if not model["error"]]
        broken = [f"{model['name']} unusable" for model in installation["models"] if model["error"]]
        yield from _row("models", ", ".join(models + broken) or "none")
        cache = installation["cache"]
        unwritable = "" if cache["writable"] else ", cannot be written"
        yield from _row("cache", f"{cache['folder']}, {human_bytes(cache['bytes'])}{unwritable}")


def _video(video: dict[str, Any]) -> Iterator[str]:
    yield from _row("video", f"PyAV {video.get('pyav', '?')}, FFmpeg {video.get('ffmpeg', '?')}")
    for kind in ("encoders", "decoders"):
        entries = video.get(kind, [])
        good = [entry["name"] for entry in entries if entry["usable"]]
        reasons: dict[str, list[str]] = {}
        for entry in entries:
            if not entry["usable"]:
                reasons.setdefault(entry["reason"], []).append(entry["name"])
        if good:
            yield from _row(f"  {kind}", ", ".join(good))
        for reason, names in reasons.items():
            yield from _row("" if good else f"  {kind}", f"not {', '.join(names)}: {reason}")
    yield from _fault("video", video)


def _nvidia(nvidia: dict[str, Any]) -> Iterator[str]:
    from vidsr.progress import human_bytes

    cards = nvidia.get("cards", [])
    for index, card in enumerate(cards):
        size = human_bytes(card["memory_bytes"])
        yield from _row("" if index else "NVIDIA", f"{card['name']}, compute capability {card['capability']}, {size}")
    if nvidia.get("driver") or nvidia.get("cuda"):
        yield from _row(
            "" if cards else "NVIDIA", f"driver {nvidia['driver'] or '?'}, for CUDA {nvidia['cuda'] or '?'}"
        )
    if nvidia.get("reason"):
        card = "there is a card, but " if nvidia.get("present") else ""
        yield from _row("NVIDIA", f"{card}{nvidia['reason']}")
    libraries = nvidia.get("libraries", [])
    named = [f"{entry['name']} {entry['version']}" for entry in libraries if entry["version"]]
    missing = [f"no {entry['name']}" for entry in libraries if not entry["version"]]
    if libraries and (cards or named):
        yield from _row("", ", ".join(named + missing))
    for entry in libraries:
        if entry["error"]:
            yield from _row("", f"{entry['name']} does not load: {entry['error']}", "red")
    yield from _fault("NVIDIA", nvidia)


_COLOURS = {"works": "green", "missing": "", "unchecked": "", "refused": "yellow"} | dict.fromkeys(
    ("wrong", "failed", "crashed", "hung"), "red"
)


def _told(check: Check) -> str:
    device = "" if check.asked == "auto" else f" on {check.asked}"
    version = f" {check.version}" if check.version else ""
    if check.precision is None:
        return f"{check.backend}{device}: {check.reason}"
    text = f"{check.backend}{version} on {check.device}, {check.precision}"
    if check.reason:
        text += f": {check.reason}"
    elif check.difference is not None:
        text += f", at most {check.difference} of 255 from the reference"
    if check.rate and check.frame:
        rate = f"{check.rate:.{0 if check.rate >= 10 else 1}f}"
        text += f"; roughly {rate} frames a second at {check.frame[1]}x{check.frame[0]}"
    names = [device.get("full_name") or device["name"] for device in check.devices]
    if len(names) > 1:
        text += f"; it has {', '.join(names)}"
    return text


def _fault(label: str, section: dict[str, Any]) -> Iterator[str]:
    if section.get("fault"):
        yield from _row(label, section["fault"], "red")


def _row(label: str, text: str, colour: str = "") -> Iterator[str]:
    """The label in a column of its own, the text wrapped beside it."""
    lines: Sequence[str] = textwrap.wrap(text, _WIDTH - _LABEL, break_on_hyphens=False) or [""]
    for index, line in enumerate(lines):
        head = (label if not index else "").ljust(_LABEL)
        yield (click.style(head, fg=colour) if colour and head.strip() else head) + line
