"""Compares an output with its source, as a viewer would miss things: `python -m tests.comparison IN OUT`."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition


@dataclass
class Comparison:
    """What was found. times: (source, output) seconds of every frame. psnr, shift: dB and code values by plane."""

    size: tuple[int, int] = (0, 0)
    frames: tuple[int, int] = (0, 0)
    times: list[tuple[Fraction, Fraction]] = field(default_factory=list)
    durations: list[tuple[Fraction, Fraction]] = field(default_factory=list)
    colour: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    ratio: tuple[Any, Any] = (None, None)
    rotation: tuple[int, int] = (0, 0)
    psnr: list[float] = field(default_factory=list)
    shift: list[float] = field(default_factory=list)
    packets: dict[str, tuple[int, int, Fraction]] = field(default_factory=dict)
    differing: list[str] = field(default_factory=list)

    @property
    def worst_time(self) -> Fraction:
        return max(abs(a - b) for a, b in self.times)


def video_of(container: Any) -> Any:
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    return ([s for s in streams if s.disposition & Disposition.default] or streams)[0]


def _planes(frame: Any) -> list[np.ndarray]:
    dtype = np.uint8 if frame.format.components[0].bits == 8 else np.uint16
    size = np.dtype(dtype).itemsize
    return [
        np.frombuffer(p, dtype).reshape(p.height, p.line_size // size)[:, : p.width].astype(np.float32)
        for p in frame.planes
    ]


def _shrunk(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """Box average; the chroma of an odd size has half a box more."""
    down = np.pad(plane, ((0, max(0, 2 * height - plane.shape[0])), (0, max(0, 2 * width - plane.shape[1]))), "edge")
    return down[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean(axis=(1, 3))


def _tags(frame: Any, stream: Any) -> tuple[int, ...]:
    context = stream.codec_context
    full = {1: 1, 2: 2}.get(int(frame.color_range or context.color_range), 0)
    return (int(context.color_primaries), int(context.color_trc), int(context.colorspace), full)


def compare(source: Path, output: Path, *, last: int | None = None) -> Comparison:
    """Reads both files whole, or `last` frames of the source. `psnr` and `shift` are for scale 2 and equal layouts."""
    result = Comparison()
    with av.open(str(source)) as first, av.open(str(output)) as second:
        streams = [video_of(first), video_of(second)]
        for stream in streams:
            stream.thread_type = "AUTO"
        pairs = [container.decode(stream) for container, stream in zip((first, second), streams, strict=True)]
        counts, squares, sums, pixels = [0, 0], [0.0] * 3, [0.0] * 3, [0] * 3
        while True:
            frames = [next(iterator, None) for iterator in pairs]
            if last is not None and counts[0] == last:
                frames[0] = None
            for index, frame in enumerate(frames):
                counts[index] += frame is not None
            if None in frames:
                if frames == [None, None]:
                    break
                continue
            a, b = frames
            result.times.append((a.pts * streams[0].time_base, b.pts * streams[1].time_base))
            result.durations.append(
                ((a.duration or 0) * streams[0].time_base, (b.duration or 0) * streams[1].time_base)
            )
            if counts[0] == 1:
                result.size = (b.width, b.height)
                result.colour = (_tags(a, streams[0]), _tags(b, streams[1]))
                result.rotation = (a.rotation, b.rotation)
            if b.width == 2 * a.width and len(a.planes) == len(b.planes):
                for index, (small, large) in enumerate(zip(_planes(a), _planes(b), strict=True)):
                    error = _shrunk(large, *small.shape) - small
                    squares[index] += float((error**2).sum())
                    sums[index] += float(error.sum())
                    pixels[index] += error.size
        result.frames = (counts[0], counts[1])
        result.ratio = tuple(stream.sample_aspect_ratio or None for stream in streams)
        peak = 2.0 ** streams[1].codec_context.format.components[0].bits - 1
        step = (peak + 1) / 256
        result.psnr = [10 * math.log10(peak**2 / max(s / n, 1e-9)) for s, n in zip(squares, pixels, strict=True) if n]
        result.shift = [abs(s / n) / step for s, n in zip(sums, pixels, strict=True) if n]
    _compare_tracks(source, output, result)
    return result


def _compare_tracks(source: Path, output: Path, result: Comparison) -> None:
    with av.open(str(source)) as first, av.open(str(output)) as second:
        kinds = ("audio", "subtitle")
        ours = [s for s in first.streams if s.type in kinds]
        theirs = [s for s in second.streams if s.type in kinds]
        if [s.codec_context.name for s in ours] != [s.codec_context.name for s in theirs]:
            result.differing.append(f"tracks: {[str(s) for s in ours]} became {[str(s) for s in theirs]}")
            return
        indices = [(mine.index, other.index, mine.type) for mine, other in zip(ours, theirs, strict=True)]
    for mine, other, kind in indices:
        a, b = _packets(source, mine), _packets(output, other)
        same = [bytes_ for bytes_, _ in a] == [bytes_ for bytes_, _ in b]
        late = max((abs(x - y) for (_, x), (_, y) in zip(a, b, strict=False)), default=Fraction(0))
        name = f"{kind} {mine}"
        result.packets[name] = (len(a), len(b), late)
        if not same:
            result.differing.append(f"{name}: {len(a)} packets became {len(b)} or changed")


def _packets(path: Path, index: int) -> list[tuple[bytes, Fraction]]:
    with av.open(str(path)) as container:
        stream = container.streams[index]
        return [
            (_payload(bytes(packet)), (packet.pts if packet.pts is not None else packet.dts or 0) * packet.time_base)
            for packet in container.demux(stream)
            if packet.size
        ]


def _payload(packet: bytes) -> bytes:
    """Without the ADTS header that AAC carries in transport streams and nowhere else."""
    if packet[:2] not in (b"\xff\xf1", b"\xff\xf9", b"\xff\xf0", b"\xff\xf8"):
        return packet
    return packet[7:] if packet[1] & 1 else packet[9:]


if __name__ == "__main__":
    found = compare(Path(sys.argv[1]), Path(sys.argv[2]))
    print(
        f"{Path(sys.argv[2]).name}: size {found.size} frames {found.frames} worst time {float(found.worst_time):.6f} "
        f"colour {found.colour} sar {found.ratio} rotation {found.rotation} psnr {[round(p, 2) for p in found.psnr]} "
        f"shift {[round(s, 3) for s in found.shift]} packets {found.packets} differing {found.differing}"
    )
