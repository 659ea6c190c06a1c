"""How the command line is shaped: a main command without a name, options in sections, values with units."""

from __future__ import annotations

import copy
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from threading import Event
from types import FrameType
from typing import Any, TypeVar

import click
from click.core import ParameterSource

__all__ = [
    "Bytes",
    "Factor",
    "KeyValue",
    "MainGroup",
    "SectionedCommand",
    "Time",
    "Waiting",
    "ending",
    "interruptible",
    "option",
    "refuse",
    "shared",
]

_F = TypeVar("_F", bound=Callable[..., Any])


class _Option(click.Option):
    """An option that says under which heading of the help it stands."""

    def __init__(self, *args: Any, section: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


def option(*names: str, section: str, **kwargs: Any) -> Callable[[_F], _F]:
    """`click.option`, under a heading of a SectionedCommand."""
    return click.option(*names, cls=_Option, section=section, **kwargs)


class SectionedCommand(click.Command):
    """Lists its options under their headings, in the order of first appearance."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                sections.setdefault(getattr(parameter, "section", "Output"), []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def refuse(ctx: click.Context, allowed: Sequence[str], why: str) -> None:
    """Raises UsageError where the command line names anything but these."""
    for parameter in ctx.command.params:
        name = str(parameter.name)
        if name not in allowed and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            said = parameter.opts[0] if isinstance(parameter, click.Option) else (parameter.metavar or name).strip("[]")
            raise click.UsageError(f"{why}, so {said} says nothing there")


def shared(command: click.Command, *names: str, section: str) -> list[click.Parameter]:
    """The options of a command for another one, under this heading; in the order of the names."""
    own = {parameter.name: parameter for parameter in command.params}
    twins = [copy.copy(own[name]) for name in names]
    for twin in twins:
        vars(twin)["section"] = section
    return list(twins)


class MainGroup(click.Group):
    """`vidsr IN OUT` runs the default command, `vidsr NAME ...` one of the others."""

    def __init__(self, name: str, *, default: click.Command, commands: Sequence[click.Command]) -> None:
        super().__init__(name, commands=list(commands))
        self.default = default

    def main(self, args: Sequence[str] | None = None, *rest: Any, **kwargs: Any) -> Any:
        given = list(args or [])
        named = given and given[0] in self.commands and given[0] != self.default.name
        if not given:
            given = ["--help"]
        if len(given) == 1 and not given[0].startswith("-") and not named and not os.path.exists(given[0]):
            raise click.UsageError(f"{given[0]!r} is neither a command ({', '.join(self.commands)}) nor a file")
        if named:
            return super().main(given, *rest, **kwargs)
        return self.default.main(given, *rest, **kwargs)


class Time(click.ParamType[Fraction]):
    """Seconds, M:SS or H:MM:SS, with decimals."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        match = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?)", str(value).strip())
        if not match:
            self.fail(f"{value!r} is not a time; write seconds (90.5) or H:MM:SS (0:01:30.5)", param, ctx)
        hours, minutes, seconds = (Fraction(part or 0) for part in match.groups())
        if (match[2] and seconds >= 60) or (match[1] and minutes >= 60):
            self.fail(f"{value!r} is not a time: 60 seconds are a minute, 60 minutes an hour", param, ctx)
        return hours * 3600 + minutes * 60 + seconds


class Factor(click.ParamType[Fraction]):
    """A positive number, exactly as written; fractions too."""

    name = "factor"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        text = str(value).strip()
        if not re.fullmatch(r"\d{1,9}(\.\d{1,9}|/0*[1-9]\d{0,8})?", text) or Fraction(text) == 0:
            self.fail(f"{value!r} is not a number above 0; write for example 2, 1.5 or 24000/1001", param, ctx)
        return Fraction(text)


class Bytes(click.ParamType[int]):
    """A number of bytes with K, M, G or T."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", str(value).strip(), re.IGNORECASE)
        if not match or float(match[1]) == 0:
            self.fail(f"{value!r} is not a size; write for example 800M or 2G", param, ctx)
        return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


class KeyValue(click.ParamType[tuple[str, str]]):
    """KEY=VALUE."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        key, separator, text = str(value).partition("=")
        if not separator or not key:
            self.fail(f"{value!r}: write it as key=value", param, ctx)
        return key, text


class Waiting:
    """Says on a terminal what takes long, in one line that the next one replaces."""

    _WIDTH = 79

    def __init__(self, begin: str = "") -> None:
        self._begin, self._live = begin, sys.stderr is not None and sys.stderr.isatty()

    def __call__(self, name: str) -> None:
        if self._live:
            click.echo(f"\r{self._begin}{name} ..."[: self._WIDTH].ljust(self._WIDTH), err=True, nl=False)

    def clear(self) -> None:
        if self._live:
            click.echo("\r" + " " * self._WIDTH + "\r", err=True, nl=False)


@contextmanager
def ending() -> Iterator[None]:
    """What ends a process ends the block as Ctrl-C does, so that nothing is left behind."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[tuple[Event, Event]]:
    """(stop, cancel): the first Ctrl-C asks for the one, the second for the other."""
    stop, cancel = Event(), Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            cancel.set()
        stop.set()

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield stop, cancel
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
