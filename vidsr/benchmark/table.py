"""A result for people: the roofline, the whole, and the sentence."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from vidsr.benchmark.advice import weights
from vidsr.benchmark.result import Result, Share

__all__ = ["lines"]

_WIDTH = 98
_BAR = 24
_BUSY = 0.25
_LOW, _HIGH = 0.85, 1.03
"""Below, the stages are not what keeps the whole from being faster; above is more than noise."""


def lines(result: Result, *, full: str = "#", rest: str = ".") -> Iterator[str]:
    """full, rest: what bars are drawn with."""
    said, machine = result.settings, result.machine
    chosen = (said.get("encoder", "no encoder"), said.get("preset"), f"crf {said['crf']}" if said.get("crf") else None)
    encoder = " ".join(filter(None, chosen))
    frames = f"{said['frames']} frame{'' if said['frames'] == 1 else 's'}"
    yield f"{said['source']}: {said['size']} -> {said['output']}, {frames}"
    yield (
        f"{said['model']} on {said['backend']} {said['device']} {said['precision']}, {encoder}, "
        f"{said['slots']} slots, {said['streams']} stream{'' if said['streams'] == 1 else 's'}"
    )
    yield f"{machine.processor}, {machine.cores} cores" + ("" if not _card(result) else f"; {machine.device}")
    peaks = [f"{gflops:,.0f} in {precision}" for precision, gflops in machine.matrix_gflops.items()]
    bus = "" if machine.bus_gbps is None else f", bus {machine.bus_gbps:.1f} GB/s"
    yield from textwrap.wrap(
        f"at most {', '.join(peaks) or 'an unknown number of'} GFLOP/s; memory {machine.memory_gbps:.1f} GB/s{bus}",
        _WIDTH,
    )
    if machine.load is not None and machine.load > _BUSY * machine.cores:
        yield f"warning: the machine was busy with other work before this began (load {machine.load:g})"
    yield ""
    yield from _stages(result, full, rest)
    yield ""
    low, high = min(result.rounds), max(result.rounds)
    runs = f"{len(result.rounds)} runs: {low:.2f} to {high:.2f}" if len(result.rounds) > 1 else "1 run"
    yield f"whole       {result.fps:.2f} frames a second ({runs})"
    if result.reused >= 0.01:
        yield f"reused      {result.reused:.0%} of the model's work, which is left out of all that is said of it"
    yield f"at most     {result.bound_fps:.2f}, as the stages alone allow: {result.efficiency:.0%} are reached"
    if result.efficiency < _LOW:
        yield "            (the rest is lost between them, or to other work on this machine; see `vidsr tune`)"
    if result.efficiency > _HIGH:
        yield "            (more than can be: other work on this machine slowed the stages down; measure again)"
    yield ""
    yield from textwrap.wrap(result.advice.text, _WIDTH)


def _card(result: Result) -> bool:
    return str(result.settings["device"]).startswith("cuda")


def _stages(result: Result, full: str, rest: str) -> Iterator[str]:
    """Each alone: its times, its part of the bound as a bar, and how near it is to its limit."""
    parts = weights(result.stages, result.machine.cores, card=_card(result))
    yield f"{'alone':11} {'ms a frame':>10} {'CPU ms':>9}   {'of the time':{_BAR + 6}} of its limit"
    for stage in result.stages:
        part = parts[stage.name]
        long = round(_BAR * part)
        bar = f"{full * long}{rest * (_BAR - long)} {100 * part:3.0f} %"
        if not part:
            bar = f"(in {_within(result, stage)})"
        near = "" if stage.efficiency is None else f"{100 * stage.efficiency:3.0f} % of {stage.bound}"
        yield f"{stage.name:11} {_number(stage.ms):>10} {_number(stage.cpu_ms):>9}   {bar:{_BAR + 6}} {near}".rstrip()


def _within(result: Result, stage: Share) -> str:
    """Which stage a copy is part of."""
    if _card(result):
        return "inference"
    return "decode" if stage.name == "copy in" else "encode"


def _number(ms: float) -> str:
    return f"{ms:.3f}" if ms < 1 else f"{ms:.2f}" if ms < 100 else f"{ms:.0f}"
