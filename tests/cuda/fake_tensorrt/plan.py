"""The fake's plans and timing caches: what is in them, as bytes."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import asdict, dataclass
from typing import Any

from tests.cuda.fake_tensorrt.world import World

_PLAN, _TIMING = b"fakeplan", b"faketime"
_HEAD = struct.Struct("<8sQ32s")


class Refused(Exception):
    """Why TensorRT logs an error and returns nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """profile: (smallest, usual, largest) shape by input name. compatible: HardwareCompatibilityLevel's member."""

    version: str
    card: str
    capability: tuple[int, int]
    compatible: str
    detailed: bool
    tf32: bool
    profile: dict[str, tuple[tuple[int, ...], ...]]
    model: bytes


def plan_bytes(plan: Plan) -> bytes:
    values = asdict(plan)
    model = values.pop("model")
    return _framed(_PLAN, values, model)


def read_plan(data: bytes, world: World) -> Plan:
    """Raises Refused for what TensorRT recognises as wrong, and aborts for damage that it does not."""
    values, model = _unframed(_PLAN, data, world, "a plan")
    plan = Plan(model=model, **values)
    identity = world.identity()
    assert identity is not None
    card, capability = identity
    if plan.version != world.version:
        raise Refused(f"the engine plan is from version {plan.version}, this is {world.version}")
    wanted = tuple(plan.capability)
    compatible = {
        "NONE": (plan.card, wanted) == (card, capability),
        "SAME_COMPUTE_CAPABILITY": wanted == capability,
        "AMPERE_PLUS": min(wanted, capability) >= (8, 0),
    }
    if not compatible[plan.compatible]:
        raise Refused(f"the engine plan was generated on {plan.card} ({wanted}), this is {card} ({capability})")
    profile = {name: tuple(map(tuple, shapes)) for name, shapes in plan.profile.items()}
    return Plan(**{**asdict(plan), "profile": profile, "capability": wanted})


def timing_bytes(version: str, card: str, known: set[str]) -> bytes:
    return _framed(_TIMING, {"version": version, "card": card, "known": sorted(known)}, b"")


def read_timing(data: bytes, world: World) -> tuple[str, str, set[str]]:
    """(version, card, kernels). TensorRT does not survive damage here."""
    try:
        values, _ = _unframed(_TIMING, data, world, "a timing cache")
    except Refused as error:
        raise world.abort(f"LLVM ERROR: out of memory (the timing cache is damaged: {error})") from error
    return values["version"], values["card"], set(values["known"])


def _framed(magic: bytes, values: dict[str, Any], rest: bytes) -> bytes:
    head = json.dumps(values, sort_keys=True).encode()
    body = struct.pack("<Q", len(head)) + head + rest
    return _HEAD.pack(magic, len(body), hashlib.sha256(body).digest()) + body


def _unframed(magic: bytes, data: bytes, world: World, what: str) -> tuple[dict[str, Any], bytes]:
    if len(data) < _HEAD.size or not data.startswith(magic):
        raise Refused("magicTag does not match")
    _, length, digest = _HEAD.unpack_from(data)
    body = data[_HEAD.size :]
    if len(body) != length:
        raise Refused(f"the size in the header, {length}, does not match that of the archive, {len(body)}")
    if hashlib.sha256(body).digest() != digest:
        raise world.abort(f"{what} with flipped bytes was given to TensorRT, which does not check them")
    (size,) = struct.unpack_from("<Q", body)
    return json.loads(body[8 : 8 + size]), body[8 + size :]
