"""Shared by all tests: small models, small clips, and where the big test material lies."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from vidsr.color import HdrMetadata

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before anything imports ONNX Runtime

SHARED = Path(__file__).resolve().parents[2] / "shared"
"""Clips, weights and test sets that lie beside the checkout of developers and CI, never in it."""


HDR = HdrMetadata(
    primaries=tuple(
        (Fraction(x, 50000), Fraction(y, 50000))
        for x, y in ((34000, 16000), (13250, 34500), (7500, 3000), (15635, 16450))
    ),
    luminance=(Fraction(1, 200), Fraction(1000)),
    max_cll=997,
    max_fall=200,
)
"""A mastering display with DCI-P3 primaries, and light levels."""


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("needs ../shared (test clips and weights), which only developers and CI have")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The same as `own_home` for what is made once for several tests: there the user's tunings are out of the way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def no_real_time() -> Iterator[None]:
    """SVT-AV1 makes a process of root real-time, and all that it starts: nothing else would get any time."""
    yield
    if hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        pytest.fail("this made the process real-time: open encoders within `as_scheduled`")


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps imported models, compiled graphs and tunings of the tests out of the user's folders, and those out of the
    tests."""
    home = tmp_path_factory.mktemp("home")
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(home))


def write_sound(path: Path) -> None:
    """A file with silence and no picture."""
    with av.open(path, "w") as output:
        track = output.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        output.mux(track.encode(frame))
        output.mux(track.encode(None))


def nearest_model(path: Path, scale: int = 2) -> Path:
    """Writes a model that repeats every pixel: fast, and its result is known."""
    scales = onnx.numpy_helper.from_array(np.array([1, 1, scale, scale], np.float32), "scales")
    node = helper.make_node(
        "Resize", ["x", "", "scales"], ["y"], mode="nearest",
        coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip
    sizes = ([1, 3, "h", "w"], [1, 3, "H", "W"])
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in zip("xy", sizes, strict=True)
    ]
    graph = helper.make_graph([node], "nearest", tensors[:1], tensors[1:], [scales])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="session")
def nearest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nearest_model(tmp_path_factory.mktemp("models") / "nearest.onnx")


def make_clip(
    path: Path, *, frames: int = 12, width: int = 64, height: int = 48, codec: str = "libx264",
    pix_fmt: str = "yuv420p", times: list[int] | None = None, time_base: Fraction = Fraction(1, 12800),
    audio: bool = True, options: dict[str, str] | None = None,
) -> Path:  # fmt: skip
    """Writes a moving pattern with a tone. times: pts of each frame in `time_base`; default 25 a second."""
    times = times or [index * int(1 / (25 * time_base)) for index in range(frames)]
    with av.open(str(path), "w") as output:
        video = output.add_stream(codec, rate=25, options=options or {})
        video.width, video.height, video.pix_fmt, video.time_base = width, height, pix_fmt, time_base
        video.codec_context.time_base = time_base
        sound = output.add_stream("aac", rate=48000) if audio else None
        rows, columns = np.mgrid[0:height, 0:width]
        for index, pts in enumerate(times):
            picture = np.stack(
                [(columns * 3 + index * 5) % 256, (rows * 4 + index * 3) % 256, (rows + columns + index * 7) % 256],
                axis=2,
            ).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base, frame.pict_type = pts, time_base, 0
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        if sound is not None:
            seconds = float((times[-1] + 1) * time_base)
            samples = np.sin(np.arange(max(1024, int(seconds * 48000))) * (2 * math.pi * 440 / 48000)).astype(
                np.float32
            )
            tone = av.AudioFrame.from_ndarray(samples[None, :], format="fltp", layout="mono")
            tone.rate, tone.pts, tone.time_base = 48000, 0, Fraction(1, 48000)
            output.mux(sound.encode(tone))
            output.mux(sound.encode(None))
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "clip.mp4")
