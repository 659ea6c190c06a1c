"""Pairs vidsr with two scripts and with the bound of the machine; see README.md beside this file."""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np

from vidsr import models
from vidsr.media.source import SourceInfo, VideoReader, probe

HERE = Path(__file__).resolve().parent
OPTIONS = {"crf": "18", "preset": "veryfast"}


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def codec_seconds(source: SourceInfo, frames: int, scale: int) -> tuple[float, float]:
    """(decode, encode) CPU seconds a frame, each alone. What is encoded are the frames, enlarged by FFmpeg."""
    reader, planes = VideoReader(source), source.video.layout.allocate()
    begin = cpu_seconds()
    for _ in range(frames):
        if reader.read(planes) is None:
            break
    decode = (cpu_seconds() - begin) / frames
    reader.close()
    layout = source.video.layout
    pictures = []
    with av.open(str(source.path)) as opened:
        for picture in opened.decode(opened.streams[source.video.index]):
            large = picture.reformat(width=layout.width * scale, height=layout.height * scale)
            pictures.append(large)
            large.pict_type = 0
            if len(pictures) == frames:
                break
    with av.open(io.BytesIO(), "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=source.video.rate, options=OPTIONS)
        stream.width, stream.height, stream.pix_fmt = pictures[0].width, pictures[0].height, pictures[0].format.name
        stream.codec_context.thread_type = "FRAME"
        stream.codec_context.time_base = source.video.time_base
        begin = cpu_seconds()
        for picture in pictures:
            stream.encode(picture)
        stream.encode(None)
        encode = (cpu_seconds() - begin) / len(pictures)
    return decode, encode


def bare_seconds(model: str, source: SourceInfo, runs: int) -> float:
    """Seconds of one inference of the bare RGB network, as the best script compiles it, nothing around it."""
    import openvino

    core = openvino.Core()
    graph = core.read_model(models.load(model).path)
    height, width = source.video.layout.shapes[0]
    graph.reshape([1, 3, height, width])
    bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32"}
    request = core.compile_model(graph, "CPU", hints).create_infer_request()
    image = np.random.default_rng(0).random((1, 3, height, width), np.float32)
    times = []
    for _ in range(runs + 1):
        begin = time.perf_counter()
        request.infer(image)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


def script_fps(name: str, *arguments: object) -> float:
    command = [sys.executable, str(HERE / name), *(str(argument) for argument in arguments)]
    report = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return float(report["frames"] / report["seconds"])


def vidsr_fps(*arguments: object) -> float:
    command = [sys.executable, "-m", "vidsr", "--no-verify", *(str(argument) for argument in arguments)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return float(json.loads(lines[-1])["fps"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", type=Path)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="span")
    parser.add_argument("--without-naive", action="store_true", help="leave out the slow loop")
    chosen = parser.parse_args()
    source = probe(chosen.video)
    model = models.load(chosen.model)
    assert source.video.rate is not None
    end = float(chosen.frames / source.video.rate) - 1e-4
    measured = ("bare", "decode", "encode", "vidsr", "script", "naive", "strided")
    results: dict[str, list[float]] = {key: [] for key in measured}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "out.mp4")
        for _ in range(chosen.rounds):
            results["bare"].append(bare_seconds(chosen.model, source, 8))
            asked = ["--crf", 18, "--preset", "veryfast", "--end", end, "--model", chosen.model, "-y", "--json"]
            results["vidsr"].append(vidsr_fps(chosen.video, output, *asked))
            results["script"].append(script_fps("script.py", model.path, chosen.video, output, chosen.frames))
            if not chosen.without_naive:
                few = max(2, chosen.frames // 10)
                results["naive"].append(script_fps("naive.py", model.path, chosen.video, output, few))
                results["strided"].append(script_fps("naive.py", model.path, chosen.video, output, few, "strided"))
            decode, encode = codec_seconds(source, chosen.frames, model.scale)
            results["decode"].append(decode)
            results["encode"].append(encode)
    cores = len(os.sched_getaffinity(0))
    bounds = [
        1 / (bare + (decode + encode) / cores)
        for bare, decode, encode in zip(results["bare"], results["decode"], results["encode"], strict=True)
    ]

    def ratio(first: list[float], second: list[float]) -> float | None:
        return round(statistics.median(a / b for a, b in zip(first, second, strict=True)), 3) if second else None

    report = {key: round(statistics.median(values), 5) for key, values in results.items() if values}
    report |= {"bound_fps": round(statistics.median(bounds), 3), "cores": cores}
    report |= {
        "vidsr_of_bound": ratio(results["vidsr"], bounds),
        "vidsr_over_script": ratio(results["vidsr"], results["script"]),
        "vidsr_over_naive": ratio(results["vidsr"], results["naive"]),
        "vidsr_over_strided": ratio(results["vidsr"], results["strided"]),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
