"""What a page may say, and what it may not."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from vidsr.preview.wire import (
    BadMessage,
    Choose,
    Clock,
    Command,
    Job,
    Look,
    Pause,
    Play,
    Predict,
    Seek,
    Smooth,
    Step,
    StopJob,
    command_from_json,
    json_from_text,
    packed,
)

GOOD: dict[str, Command] = {
    '{"do":"play"}': Play(),
    '{"do":"pause","seconds":12.345}': Pause(seconds=12.345),
    '{"do":"seek","seconds":12}': Seek(seconds=12),
    '{"do":"seek","seconds":-0.02}': Seek(seconds=-0.02),
    '{"do":"step","by":-1}': Step(by=-1),
    '{"do":"choose","model":"span-fast","scale":"2"}': Choose(model="span-fast", scale="2"),
    '{"do":"choose","scale":"4/3"}': Choose(model=None, scale="4/3"),
    '{"do":"choose","model":"/home/ich/mein modell é.onnx","scale":null}': Choose(
        model="/home/ich/mein modell é.onnx", scale=None
    ),
    '{"do":"smooth","how":"drop"}': Smooth(how="drop"),
    '{"do":"look","x":0,"y":1.0}': Look(x=0, y=1.0),
    '{"do":"clock","seconds":12.3,"shown":100,"late":2,"offset_ms":-4.1}': Clock(
        seconds=12.3, shown=100, late=2, offset_ms=-4.1
    ),
    '{"do":"predict"}': Predict(),
    '{"do":"job","target":"/tmp/\\udcff.mp4","overwrite":true,"crf":18,"preset":"medium","encoder":null}': Job(
        target="/tmp/\udcff.mp4", overwrite=True, crf=18, preset="medium", encoder=None
    ),
    '{"do":"stop-job"}': StopJob(),
}

BAD = {
    "nothing": "",
    "no JSON": "play",
    "half of it": '{"do":"play"',
    "not a number": '{"do":"seek","seconds":NaN}',
    "endless": '{"do":"seek","seconds":Infinity}',
    "too large for a float": '{"do":"seek","seconds":1e999}',
    "digits without end": '{"do":"seek","seconds":' + "9" * 4050 + "}",
    "deep": "[" * 4000,
    "a list": '["do","play"]',
    "a string": '"play"',
    "no command": "{}",
    "command of another type": '{"do":["play"]}',
    "unknown command": '{"do":"format-disk"}',
    "a class's name": '{"do":"StopJob"}',
    "unknown key": '{"do":"play","loud":true}',
    "missing key": '{"do":"look","x":0.5}',
    "null": '{"do":"seek","seconds":null}',
    "a bool as a number": '{"do":"seek","seconds":true}',
    "a bool as a choice": '{"do":"step","by":true}',
    "a number as a bool": '{"do":"job","target":"a","overwrite":1}',
    "a string as a number": '{"do":"seek","seconds":"1"}',
    "a fraction as a count": '{"do":"clock","seconds":1,"shown":1.5,"late":0,"offset_ms":0}',
    "a count below zero": '{"do":"clock","seconds":1,"shown":-1,"late":0,"offset_ms":0}',
    "another choice": '{"do":"step","by":2}',
    "outside": '{"do":"look","x":0.5,"y":1.01}',
    "far away": '{"do":"seek","seconds":1e9}',
    "no scale": '{"do":"choose","scale":"two"}',
    "scale zero": '{"do":"choose","scale":"0.0"}',
    "scale by zero": '{"do":"choose","scale":"1/0"}',
    "scale with a power": '{"do":"choose","scale":"1e999999999"}',
    "long name": '{"do":"choose","model":"' + "x" * 201 + '"}',
    "empty name": '{"do":"choose","model":""}',
    "a name that ends early": '{"do":"job","target":"/etc/passwd\\u0000.mp4","overwrite":false}',
    "half a character": '{"do":"job","target":"\\ud83d","overwrite":false}',
}


@pytest.mark.parametrize("text", GOOD)
def test_commands(text: str) -> None:
    assert command_from_json(json_from_text(text)) == GOOD[text]


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_what_is_no_command_is_refused_in_few_words(text: str) -> None:
    with pytest.raises(BadMessage) as refused:
        command_from_json(json_from_text(text))
    reason = str(refused.value)
    assert reason.isascii() and 0 < len(reason) < 60


def test_every_command_survives_any_value_in_any_place() -> None:
    values: list[Any] = [None, True, 0, -1, 2**70, 1.5, "", "x", "\0", [], {}, [[]], {"a": 1}]
    for text in GOOD:
        message = json.loads(text)
        for key in message:
            for value in values:
                try:
                    command_from_json({**message, key: value})
                except BadMessage:
                    continue


def test_packed() -> None:
    message = packed({"kind": "picture", "serial": 3}, [b"one", b""])
    (length,) = struct.unpack("<I", message[:4])
    assert json.loads(message[4 : 4 + length]) == {"kind": "picture", "serial": 3, "parts": [3, 0]}
    assert message[4 + length :] == b"one"


def test_numbers_that_json_has_not_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        packed({"kind": "sound", "seconds": float("nan")}, [])
