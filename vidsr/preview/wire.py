"""What page and server say to each other."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from fractions import Fraction
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

__all__ = [
    "LONGEST_BYTES",
    "BadMessage",
    "Choose",
    "Clock",
    "Command",
    "Job",
    "Look",
    "Pause",
    "Play",
    "Predict",
    "Seek",
    "Smooth",
    "Step",
    "StopJob",
    "command_from_json",
    "json_from_text",
    "packed",
    "text_from_json",
]

LONGEST_BYTES = 4096
"""Of a command."""


class BadMessage(Exception):
    """A page of ours sends no such thing. The text is short, plain ASCII, and holds nothing of the message."""


def _within(least: float, most: float) -> Callable[[float], bool]:
    return lambda number: least <= number <= most


def _is_name(text: str) -> bool:
    return 0 < len(text) <= 200 and _is_path(text)


def _is_path(text: str) -> bool:
    """Surrogates stand for bytes that are no UTF-8, as in `os.fsdecode`; no others are in a name."""
    return bool(text) and not re.search(r"[\0\ud800-\udc7f\udd00-\udfff]", text)


def _is_factor(text: str) -> bool:
    return bool(re.fullmatch(r"\d{1,9}(\.\d{1,9}|/0*[1-9]\d{0,8})?", text, re.ASCII)) and Fraction(text) > 0


_Seconds = Annotated[float, _within(-1e7, 1e7)]  # a file's first frames may lie before its beginning
_Share = Annotated[float, _within(0, 1)]
_Count = Annotated[int, _within(0, 2**53)]
_Name = Annotated[str, _is_name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """Go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """seconds: time of the picture on screen."""

    seconds: _Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Seek:
    """Show the frame that is on screen at that time."""

    seconds: _Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The next frame of the source (1) or the one before (-1)."""

    by: Literal[1, -1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choose:
    """Another model or scale; None for the model's own."""

    model: _Name | None = None
    scale: Annotated[str, _is_factor] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Smooth:
    """What to do where the machine cannot keep up: auto takes a faster model, then a part of the picture."""

    how: Literal["auto", "drop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The middle of what the viewer looks at, as shares of the picture, 0..1."""

    x: _Share
    y: _Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Where the viewer's clock stands, and how it goes there: pictures shown and late since the page was loaded, and
    how far picture and sound are apart."""

    seconds: _Seconds
    shown: _Count
    late: _Count
    offset_ms: Annotated[float, _within(-1e7, 1e7)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predict:
    """Measure how long the whole job would take, and how large its output would be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Start the job."""

    target: Annotated[str, _is_path]
    overwrite: bool
    crf: Annotated[float, _within(-1000, 1000)] | None = None
    preset: _Name | None = None
    encoder: _Name | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StopJob:
    """End it; what is done is kept."""


Command = Play | Pause | Seek | Step | Choose | Smooth | Look | Clock | Predict | Job | StopJob

_COMMANDS: Mapping[str, type[Command]] = MappingProxyType(
    {re.sub("(?<!^)([A-Z])", r"-\1", kind.__name__).lower(): kind for kind in get_args(Command)}
)
"""By what a message calls them: stop-job for StopJob."""


def json_from_text(text: str | bytes) -> Any:
    """Raises BadMessage for what is no JSON, or has numbers without end."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise BadMessage("not JSON") from error


def _refuse(name: str) -> None:
    raise ValueError(name)


def command_from_json(message: Any) -> Command:
    """The command of `{"do": its name, field: value, ...}`; a field that may be null may also be left out."""
    if not isinstance(message, dict) or not isinstance(message.get("do"), str):
        raise BadMessage("not a command")
    kind = _COMMANDS.get(message["do"])
    if kind is None:
        raise BadMessage("unknown command")
    hints = get_type_hints(kind, include_extras=True)
    if not message.keys() <= {"do", *hints}:
        raise BadMessage(f"{message['do']}: unknown key")
    values: dict[str, Any] = {}
    for field in fields(kind):
        if field.name not in message and field.default is MISSING:
            raise BadMessage(f"{message['do']}: {field.name} is missing")
        values[field.name] = message.get(field.name)
        if not _fits(values[field.name], hints[field.name]):
            raise BadMessage(f"{message['do']}: bad {field.name}")
    return kind(**values)


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, option) for option in inner)
    if origin is Annotated:
        kind, is_allowed = inner
        return _fits(value, kind) and is_allowed(value)
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in inner)
    return type(value) in ((int, float) if hint is float else (hint,))  # exactly: a bool is no number


def text_from_json(message: Mapping[str, Any]) -> str:
    """A text message. Raises ValueError for numbers that JSON has not."""
    return json.dumps(message, allow_nan=False)


def packed(header: Mapping[str, Any], parts: Sequence[bytes]) -> bytes:
    """A binary message: length of the header (4 bytes, little endian), the header as JSON, the parts."""
    text = text_from_json({**header, "parts": [len(part) for part in parts]}).encode()
    return b"".join([struct.pack("<I", len(text)), text, *parts])
