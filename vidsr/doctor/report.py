"""What is found, and what follows from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["Check", "Report", "State", "advice", "auto", "without_home"]

_FOR_CARDS = {"tensorrt"}
"""Backends that are of no use without an NVIDIA card that works."""
_BROKEN = ("wrong", "failed", "crashed", "hung")

State = Literal["works", "wrong", "unchecked", "missing", "refused", "failed", "crashed", "hung"]
"""works: its result is right. wrong: it is not. unchecked: usable, but not run or not compared. missing: cannot be used
here. refused: will not run the model here. failed: an unexpected error. crashed, hung: took its process along."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One backend on one device.

    asked: the device that was asked for; device, precision: those it takes, None where it never came to that. reason:
    why it does not work. command: what to type against that. version: of its library. devices: what the library can
    run on. engine: what ran, for people. difference, mean_difference: from the reference, in code values. rate: frames
    a second, rough; of frames of the size `frame`, (height, width).
    """

    backend: str
    asked: str
    state: State
    reason: str | None = None
    command: str | None = None
    version: str | None = None
    devices: Sequence[dict[str, Any]] = ()
    device: str | None = None
    precision: str | None = None
    engine: str | None = None
    difference: int | None = None
    mean_difference: float | None = None
    rate: float | None = None
    frame: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All of it. As JSON (`fields`) the keys are these, and stay; what could not be found out is null.

    vidsr, python, platform: versions. seconds: how long it took. ok: whether the backend that `auto` takes works and
        gives what it should; without a smoke run, whether it is usable.
    processor: name, architecture, cores (this process may use), cores_present, cores_allowed (by a control group's
        quota), load (processes that want to run, of the last minute), features (name -> whether the processor has it).
    environment: variables that change what libraries do, where set.
    installation: memory_bytes, memory_free_bytes, models (name, scale, bytes, error), cache (folder, bytes, writable).
    video: pyav, ffmpeg, encoders and decoders (name, compiled, usable, reason).
    nvidia: present (a card is on the bus), driver, found_by, cuda (version the driver speaks), cards (name,
        capability, memory_bytes), libraries (name, version, error), reason (no card can be used).
    backends: see `Check`. auto: backend, device, precision, state, and passed_over (backend, device, reason).
    advice: problem and command, the latter null where there is none to type.
    Every section may have `fault`: why looking at it ended early.
    """

    vidsr: str
    python: str
    platform: str
    seconds: float
    ok: bool
    processor: dict[str, Any]
    environment: dict[str, str]
    installation: dict[str, Any]
    video: dict[str, Any]
    nvidia: dict[str, Any]
    backends: Sequence[Check]
    auto: dict[str, Any]
    advice: Sequence[dict[str, Any]] = field(default=())

    def fields(self) -> dict[str, Any]:
        """For JSON, the user's home folder as ~."""
        found: dict[str, Any] = without_home(asdict(self))
        return found


def without_home(value: Any, home: str | None = None) -> Any:
    """The same with ~ for the home folder, in every string within."""
    home = str(Path.home()) if home is None else home
    if isinstance(value, str):
        return re.sub(rf"{re.escape(home)}(?![\w.-])", "~", value) if len(home) > 1 else value
    if isinstance(value, dict):
        return {key: without_home(entry, home) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_home(entry, home) for entry in value]
    return value


def auto(checks: Sequence[Check], preference: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What `--backend auto` takes here, and why nothing that stands before it."""
    found = {(check.backend, check.asked): check for check in checks}
    passed_over = []
    for backend, device in preference:
        check = found[backend, device]
        # What has settled on a device is taken, also where it fails later. So is what crashes: it takes vidsr along.
        if check.precision is None and check.state in ("missing", "refused"):
            passed_over.append({"backend": backend, "device": device, "reason": check.reason})
            continue
        return {
            "backend": backend,
            "device": check.device or device,
            "precision": check.precision,
            "state": check.state,
            "passed_over": passed_over,
        }
    return {"backend": None, "device": None, "precision": None, "state": "missing", "passed_over": passed_over}


def advice(
    checks: Sequence[Check], chosen: dict[str, Any], nvidia: dict[str, Any], installation: dict[str, Any]
) -> list[dict[str, Any]]:
    """What to do, most pressing first: problem and command."""
    given = []
    working = [check for check in checks if check.state in ("works", "unchecked")]
    if chosen["state"] in (*_BROKEN, "refused"):
        other = next((check for check in working if check.backend != chosen["backend"]), None)
        command = f"vidsr IN OUT --backend {other.backend}" if other else None
        given.append({"problem": f"auto takes {chosen['backend']}, which does not work here", "command": command})
    if nvidia.get("present") and not nvidia.get("cards"):
        given.append(
            {
                "problem": f"an NVIDIA card cannot be used: {nvidia.get('reason') or 'its driver is missing'}",
                "command": None,
            }
        )
    if installation.get("cache", {}).get("writable") is False:
        given.append(
            {
                "problem": f"{installation['cache']['folder']} cannot be written: models are compiled at every start",
                "command": None,
            }
        )
    for check in checks:
        entry = _repair(check, bool(working), bool(nvidia.get("cards")))
        if entry is not None and not any(
            entry["problem"] == earlier["problem"] or (entry["command"] and entry["command"] == earlier["command"])
            for earlier in given
        ):
            given.append(entry)
    return given


def _repair(check: Check, working: bool, card: bool) -> dict[str, Any] | None:
    """What to do about one backend. Whoever has one that works needs no other, unless it is for the card."""
    if check.state in _BROKEN:
        return {"problem": f"{check.backend} does not work here: {check.reason}", "command": check.command}
    wanted = card if check.backend in _FOR_CARDS else not working or check.version is not None
    if check.command is None or not wanted:
        return None
    return {"problem": f"for {check.backend}: {check.reason}", "command": check.command}
