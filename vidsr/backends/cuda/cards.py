"""NVIDIA cards as a user names them."""

from __future__ import annotations

import re

from vidsr.errors import BackendError

__all__ = ["card_device", "card_numbers"]


def card_numbers(device: str) -> tuple[int, ...]:
    """The numbers in "cuda", "cuda:1" or "cuda:0,1", each once. Raises BackendError."""
    match = re.fullmatch(r"cuda(?::([0-9]+(?:,[0-9]+)*))?", device.lower())
    if match is None:
        raise BackendError(f"--device {device}: write cuda, cuda:1 or cuda:0,1 for NVIDIA cards")
    return tuple(dict.fromkeys(int(number) for number in (match[1] or "0").split(",")))


def card_device(device: str, count: int) -> str:
    """A device with all numbers written out, of which this machine has `count`. Raises BackendError."""
    numbers = card_numbers(device)
    absent = [number for number in numbers if number >= count]
    if absent:
        raise BackendError(
            f"--device {device}: there is no card {absent[0]}; this machine has {count}, numbered from 0"
        )
    return f"cuda:{','.join(map(str, numbers))}"
