"""A backend's run of the default model on one small picture, and what the picture should become."""

from __future__ import annotations

import base64
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from vidsr.doctor.nvidia import installed_version

if TYPE_CHECKING:
    from vidsr.backends import Engine, Slot
    from vidsr.color import Conversion
    from vidsr.frame import FrameLayout, Plane
    from vidsr.models import Model

__all__ = ["backend", "picture", "reference"]

_HEIGHT, _WIDTH = 96, 128
_RATE_SECONDS = 0.4
_BUILD_PATIENCE_SECONDS = 900.0

_Say = Callable[[dict[str, Any]], None]


def reference(say: _Say) -> None:
    """Says `planes`: what onnx's own evaluator, which shares nothing with any backend, makes of the picture."""
    say({"doing": "loading onnx"})
    import numpy as np
    from onnx.reference import ReferenceEvaluator

    from vidsr.graph import CODES_FROM_RGB, RGB_FROM_CODES, compose, plane_names

    model, source, target, colours = _subject()
    say({"doing": "computing the reference"})
    given: dict[str, Any] = dict(zip(plane_names("in", source), picture(source), strict=True))
    given |= {RGB_FROM_CODES: colours.rgb_from_codes, CODES_FROM_RGB: colours.codes_from_rgb}
    with np.errstate(all="ignore"):  # it computes both sides of every choice
        made: Any = ReferenceEvaluator(compose(model.proto, source, target, multiple=model.multiple)).run(None, given)
    say({"planes": _text(made)})


def backend(say: _Say, module: str, device: str, smoke: str, cache: str) -> None:
    """Says version, lack, devices, device, precision; with smoke "yes" then engine, planes and frame, and after a word
    on standard input rate. cache: folder for compiled models, empty for none."""
    say({"doing": "loading vidsr"})
    from pathlib import Path

    from vidsr.backends import Backend, EngineOptions
    from vidsr.errors import BackendError

    library: Backend = import_module(module).BACKEND
    packages = {"tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")}.get(library.name, (library.name,))
    say({"version": installed_version(*packages), "doing": f"looking whether {library.name} is there"})
    lack = library.lack(device)
    say({"lack": lack})
    if lack:
        return
    say({"doing": f"loading {library.name}"})
    refusal: BackendError | None = None
    try:
        options = library.settle(EngineOptions(device=device, cache=Path(cache) if cache else None))
    except BackendError as error:
        refusal = error
    say({"devices": _DEVICES.get(library.name, list)()})
    if refusal is not None:
        raise refusal
    say({"device": options.device, "precision": options.precision})
    if smoke == "yes":
        _run(say, library, options)


def _run(say: _Say, library: Any, options: Any) -> None:
    from vidsr.backends import Watch

    model, source, target, colours = _subject()
    say({"doing": "making the engine", "patience_seconds": _BUILD_PATIENCE_SECONDS})
    warnings: list[str] = []
    watch = Watch(progress=lambda done: say({"progress": done}), warn=warnings.append)
    library.prepare(model, source, target, options, watch)
    with closing(library.open(model, source, target, options)) as engine:
        say({"doing": "running the model", "engine": engine.description})
        slots = engine.slots(max(1, min(engine.in_flight, 4)))
        for slot in slots:
            slot.convert(colours)
            for plane, given in zip(slot.input, picture(source), strict=True):
                plane[:] = given
        engine.submit(slots[0])
        engine.wait(slots[0])
        say({"planes": _text(slots[0].output), "frame": (_HEIGHT, _WIDTH)})
        # Others are being looked at meanwhile: the rate is taken when it is quiet.
        if not sys.stdin.readline():
            return  # whoever asked is gone
        say({"doing": "measuring its rate"})
        say({"rate": _rate(engine, slots), "doing": "closing the engine"})


def _rate(engine: Engine, slots: Sequence[Slot]) -> float:
    """Frames a second; rough."""
    waiting: deque[Slot] = deque()
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < _RATE_SECONDS or count < len(slots):
        if len(waiting) == len(slots):
            engine.wait(waiting.popleft())
        engine.submit(slots[count % len(slots)])
        waiting.append(slots[count % len(slots)])
        count += 1
    for slot in waiting:
        engine.wait(slot)
    return count / (time.perf_counter() - begin)


def _subject() -> tuple[Model, FrameLayout, FrameLayout, Conversion]:
    """The default model, both layouts and the colours of the picture."""
    from vidsr import models
    from vidsr.color import BT709, ColorTags, conversion
    from vidsr.frame import FrameLayout

    model = models.load(models.DEFAULT)
    source = FrameLayout(family="yuv", bits=8, height=_HEIGHT, width=_WIDTH, chroma=(2, 2))
    target = replace(source, height=_HEIGHT * model.scale, width=_WIDTH * model.scale)
    tags = ColorTags(matrix=BT709, full_range=False)
    return model, source, target, conversion(tags, tags, source_bits=8, target_bits=8)


def picture(layout: FrameLayout) -> list[Plane]:
    """Something like a photograph: noise with a 1/f spectrum and two edges, uint8 planes within the limited range."""
    import numpy as np

    random, planes = np.random.default_rng(7), []
    for height, width in layout.shapes:
        frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
        frequency[0, 0] = 1
        noise = np.fft.ifft2(np.fft.fft2(random.standard_normal((height, width))) / frequency**1.2).real
        noise[height // 3 : height // 2] += noise.std()
        noise[:, width // 4 : width // 3] -= noise.std()
        share = (noise - noise.min()) / np.ptp(noise)
        planes.append(np.rint(16 + 208 * share).astype(layout.dtype))
    return planes


def _text(planes: Sequence[Any]) -> str:
    return base64.b64encode(b"".join(plane.tobytes() for plane in planes)).decode("ascii")


def _openvino_devices() -> list[dict[str, Any]]:
    core = import_module("openvino").Core()
    return [
        {
            "name": device,
            "full_name": str(core.get_property(device, "FULL_DEVICE_NAME")),
            "precisions": sorted(
                {"FP32", "BF16", "FP16", "INT8"} & set(core.get_property(device, "OPTIMIZATION_CAPABILITIES"))
            ),
        }
        for device in core.available_devices
    ]


def _onnxruntime_devices() -> list[dict[str, Any]]:
    from vidsr.backends.onnxruntime_engine import load_library

    return [{"name": name} for name in load_library().get_available_providers()]


def _torch_devices() -> list[dict[str, Any]]:
    torch = import_module("torch")
    cards = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return [{"name": "cpu"}] + [
        {"name": f"cuda:{index}", "full_name": torch.cuda.get_device_name(index)} for index in cards
    ]


_DEVICES: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "openvino": _openvino_devices,
    "onnxruntime": _onnxruntime_devices,
    "torch": _torch_devices,
}
