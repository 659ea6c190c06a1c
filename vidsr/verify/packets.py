"""Packets of whole tracks as times and fingerprints, free of what containers put around them."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path
from typing import Any

import av

from vidsr.media.source import open_input

__all__ = ["Packets", "Place", "demuxed", "presentation_times", "read_packets"]

Place = Callable[[Any], tuple[int, int] | None]
"""Time and duration of a packet in units of its time base, None for one that does not count."""

_JOINED = ("pcm_", "adpcm_")
"""Every container cuts samples of constant size into packets as it likes."""
_AUDIO_DATA_TRANSPORT = (b"\xff\xf1", b"\xff\xf9", b"\xff\xf0", b"\xff\xf8")
_PARAMETER_SETS = {"h264": {7, 8, 9}, "hevc": {32, 33, 34, 35}}


@dataclass(slots=True)
class Packets:
    """One track. times, durations: in units of time_base. prints: 64 bits of each payload's digest.

    joined: digest of all payloads as one, for codecs that are cut in another way in each container, else None.
    size_bytes: of all payloads.
    """

    time_base: Fraction
    times: array[int] = field(default_factory=lambda: array("q"))
    durations: array[int] = field(default_factory=lambda: array("q"))
    prints: array[int] = field(default_factory=lambda: array("Q"))
    joined: bytes | None = None
    size_bytes: int = 0

    def seconds(self, index: int) -> Fraction:
        return self.times[index] * self.time_base


def presentation_times(path: Path, index: int) -> list[int]:
    """Of all packets of a track, sorted, in units of its time base."""
    with open_input(path) as opened:
        stream: Any = opened.streams[index]
        found = (_plain_place(packet) for packet in demuxed(opened, [stream]))
        return sorted(place[0] for place in found if place is not None)


def read_packets(path: Path, places: Mapping[int, Place | None]) -> dict[int, Packets]:
    """The packets of these tracks by index, read at once. places: where each packet belongs, None as it says itself."""
    with open_input(path) as opened:
        streams: list[Any] = [opened.streams[index] for index in places]
        found = {stream.index: Packets(stream.time_base or Fraction(1)) for stream in streams}
        payloads = {stream.index: _payload(stream) for stream in streams}
        whole = {stream.index: blake2b() for stream in streams if _codec(stream).startswith(_JOINED)}
        for packet in demuxed(opened, streams) if streams else ():
            index = packet.stream_index
            place, payload = (places[index] or _plain_place)(packet), payloads[index](bytes(packet))
            if place is None or payload is None:
                continue
            track = found[index]
            track.times.append(place[0])
            track.durations.append(place[1])
            track.size_bytes += len(payload)
            if index in whole:
                whole[index].update(payload)
            else:
                track.prints.append(int.from_bytes(blake2b(payload, digest_size=8).digest()))
        for index, digest in whole.items():
            found[index].joined = digest.digest()
        return found


def demuxed(opened: Any, streams: list[Any]) -> Iterator[Any]:
    """Packets with content, up to where the file cannot be read any more."""
    packets = opened.demux(streams)
    while True:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, OSError):
            return
        if packet is None:
            return
        if packet.size:
            yield packet


def _plain_place(packet: Any) -> tuple[int, int]:
    time = packet.pts if packet.pts is not None else packet.dts
    return time or 0, packet.duration or 0


def _codec(stream: Any) -> str:
    context = stream.codec_context
    return "" if context is None else str(context.codec.canonical_name)


def _payload(stream: Any) -> Callable[[bytes], bytes | None]:
    """What of a packet is the codec's own; None for packets that only fill a gap."""
    codec = _codec(stream)
    if codec == "aac":
        return _without_transport_header
    if codec == "mov_text":
        return lambda packet: packet if packet[:2] != b"\0\0" else None
    if codec in _PARAMETER_SETS:
        configuration = stream.codec_context.extradata or b""
        prefix = 0
        if configuration[:1] == b"\1":
            prefix = (configuration[4 if codec == "h264" else 21] & 3) + 1
        return lambda packet: b"".join(_units(packet, prefix, codec))
    return lambda packet: packet


def _without_transport_header(packet: bytes) -> bytes:
    """AAC has one in transport streams and nowhere else."""
    if packet[:2] not in _AUDIO_DATA_TRANSPORT:
        return packet
    return packet[7:] if packet[1] & 1 else packet[9:]


def _units(packet: bytes, prefix: int, codec: str) -> Iterator[bytes]:
    """The units of a video packet, without parameter sets, which containers keep elsewhere.

    prefix: length of the numbers that say how long each unit is; 0 where start codes separate them.
    """
    units = packet.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if not prefix else _prefixed(packet, prefix)
    for unit in units:
        if unit:
            kind = unit[0] & 31 if codec == "h264" else unit[0] >> 1 & 63
            if kind not in _PARAMETER_SETS[codec]:
                yield unit


def _prefixed(packet: bytes, prefix: int) -> Iterator[bytes]:
    position = 0
    while position + prefix <= len(packet):
        begin = position + prefix
        position = begin + int.from_bytes(packet[position:begin])
        yield packet[begin:position]
