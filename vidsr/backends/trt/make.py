"""The plan for an engine: a kept one, or a new one that is then kept."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import tensorrt as trt

from vidsr.backends.base import EngineOptions, Watch
from vidsr.backends.cuda.device import Device
from vidsr.backends.cuda.slots import border_tensors
from vidsr.backends.trt.build import BuildSpec, Profile, build
from vidsr.backends.trt.key import PlanKey, Size
from vidsr.backends.trt.plans import Found, PlanCache
from vidsr.backends.trt.run import PlanError, TensorRtProgram
from vidsr.errors import BackendError, DeviceLostError, DeviceMemoryError
from vidsr.frame import FrameLayout
from vidsr.graph import Planes, compose, plane_tensors
from vidsr.half import half, rests_on_base
from vidsr.models import Model

__all__ = ["Recipe", "make_recipe"]

Recipe = Callable[[], TensorRtProgram]
"""Makes a program of a plan that TensorRT has taken before; to be called where the device is current."""

_BUILDER = 1
"""Grows with every change to `build` that makes other plans of the same graph."""
_LEVEL = 3
_WORKSPACE_BYTES = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """One plan that would serve. sizes: (smallest, largest) frames of a dynamic one."""

    model: Model
    source: FrameLayout
    target: FrameLayout
    precision: str
    planes: Planes
    sizes: tuple[Size, Size] | None
    device: Device

    def graph(self) -> bytes:
        """The ONNX for TensorRT; the same bytes every time. Raises BackendError."""
        proto = self.model.proto
        if self.precision == "fp16":
            try:
                # Near white the steps of FP16 are a fourth of a code value of 10 bits, unless a base is added behind.
                deep = self.target.bits > 8
                proto = self.model.lowered(
                    lambda part: half(part.proto, keep_last=deep and not rests_on_base(part.proto))
                )
            except ValueError as error:
                raise BackendError(f"{self.model.name} has no FP16 form ({error}): use --precision fp32") from error
        dynamic = self.sizes is not None
        composed = compose(
            proto,
            self.source,
            self.target,
            multiple=self.model.multiple,
            guard=self.model.guarded,
            planes=self.planes,
            dynamic=dynamic,
        )
        return bytes(composed.SerializeToString(deterministic=True))

    def key(self, graph: bytes) -> PlanKey:
        device, size = self.device, (self.source.height, self.source.width)
        smallest, largest = self.sizes or (size, size)
        return PlanKey(
            model=self.model.name,
            model_sha256=self.model.sha256,
            graph=hashlib.sha256(graph).hexdigest(),
            layout=f"{_words(self.source)} to {_words(self.target)}",
            precision=self.precision,
            planes=self.planes,
            smallest=smallest,
            largest=largest,
            tensorrt=trt.__version__,
            device=device.name,
            capability=".".join(map(str, device.capability)),
            multiprocessors=device.multiprocessors,
            memory_bytes=device.total_bytes,
            driver=device.driver,
            platform=f"{platform.system()} {platform.machine()}",
            builder=_BUILDER,
            level=_LEVEL,
            workspace_bytes=_WORKSPACE_BYTES,
        )

    def profile(self) -> Profile:
        if self.sizes is None:
            return {}
        smallest, largest = (
            {tensor.name: tensor.shape for tensor in plane_tensors("in", _sized(self.source, size), self.planes)}
            for size in self.sizes
        )
        return {name: (smallest[name], largest[name]) for name in smallest}

    def recipe(self, plan: bytes) -> Recipe:
        """Tries the plan first. Raises PlanError."""
        given, made = border_tensors(self.source, self.target, self.planes)
        description = f"TensorRT {trt.__version__} on {self.device.name}, {self.precision.upper()}"
        recipe = partial(TensorRtProgram, plan, given, made, planes=self.planes, description=description)
        recipe().close()
        return recipe


def make_recipe(
    model: Model, source: FrameLayout, target: FrameLayout, options: EngineOptions, device: Device, watch: Watch
) -> Recipe:
    """What makes the program for one device, whose context is current. options: settled.

    A kept plan is taken where it is whole and was made for exactly this; one that is not is built again once, and
    `watch` is told why. Where no uint8 planes can be had they are float16. Raises BackendError, Cancelled.
    """
    cache = PlanCache(options.cache / "tensorrt" if options.cache is not None else None)
    wanted = _Request(
        model=model,
        source=source,
        target=target,
        precision=options.precision,
        planes="bytes",
        sizes=options.sizes,
        device=device,
    )
    fallback = replace(wanted, planes="half")
    for request, key in (*_exact(wanted, fallback), *_covering(wanted, cache)):
        kept = _kept(request, key, cache, watch)
        if kept is not None:
            return kept
    try:
        return _built(wanted, cache, watch)
    except (PlanError, DeviceMemoryError, DeviceLostError):  # which other planes would not help
        raise
    except BackendError as error:
        first = error
    try:
        recipe = _built(fallback, cache, watch)
    except BackendError:
        raise first from None
    watch.warn(f"TensorRT takes no 8-bit planes here, so frames go to the card as FP16, twice the bytes ({first})")
    return recipe


def _exact(*requests: _Request) -> Iterator[tuple[_Request, PlanKey]]:
    for request in requests:
        yield request, request.key(request.graph())


def _covering(wanted: _Request, cache: PlanCache) -> Iterator[tuple[_Request, PlanKey]]:
    """Dynamic plans whose sizes include the wanted one."""
    if wanted.sizes is not None:
        return
    for entry in cache.entries():
        key = entry.key
        if key is None or key.smallest == key.largest or key.model_sha256 != wanted.model.sha256:
            continue
        if not key.covers(wanted.source.height, wanted.source.width):
            continue
        request = replace(wanted, sizes=(key.smallest, key.largest), planes=key.planes)
        try:
            if request.key(request.graph()) == key:
                yield request, key
        except ValueError:  # a frame of half a chroma sample or half a square, which no dynamic plan takes
            continue


def _kept(request: _Request, key: PlanKey, cache: PlanCache, watch: Watch) -> Recipe | None:
    found = cache.get(key)
    if found.plan is not None:
        try:
            return request.recipe(found.plan)
        except PlanError as error:
            found = Found(reason=str(error), spoiled=True)
    if found.reason is not None:
        watch.warn(f"the kept TensorRT plan {key.stem} cannot be used and is built again: {found.reason}")
    if found.spoiled:
        cache.drop(key)
    return None


def _built(request: _Request, cache: PlanCache, watch: Watch) -> Recipe:
    """Builds a plan and keeps it; another process that builds the same is waited for."""
    graph = request.graph()
    key = request.key(graph)
    with cache.building(key, watch.stop) as obstacle:
        if obstacle is not None:
            watch.warn(f"the TensorRT plan is not kept: {obstacle}")
        else:
            # What is wrong with one that was there before has been said.
            kept = _kept(request, key, cache, replace(watch, warn=lambda text: None))
            if kept is not None:
                return kept
        begin = time.monotonic()
        spec = BuildSpec(
            graph=graph,
            profile=request.profile(),
            level=_LEVEL,
            workspace_bytes=_WORKSPACE_BYTES,
            timing=cache.timing(key),
        )
        data = build(
            spec,
            on_progress=watch.progress,
            stop=watch.stop,
            keep_timing=lambda timing: cache.put_timing(key, timing) if obstacle is None else None,
        )
        recipe = request.recipe(data)
        if obstacle is None:
            try:
                cache.put(key, data, time.monotonic() - begin)
            except OSError as error:
                watch.warn(f"the TensorRT plan could not be kept: {cache.folder}: {error.strerror or error}")
        return recipe


def _sized(layout: FrameLayout, size: Size) -> FrameLayout:
    return replace(layout, height=size[0], width=size[1])


def _words(layout: FrameLayout) -> str:
    chroma = "x".join(map(str, layout.chroma))
    return f"{layout.family} {layout.bits} bits chroma {chroma} {layout.siting}"
