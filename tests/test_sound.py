"""Every sample of a file's sound is at its time, wherever reading begins."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vidsr.media.demux import open_input
from vidsr.media.info import SourceInfo
from vidsr.media.sound import Sound, SoundReader
from vidsr.media.source import probe

RATE = 48_000
Run = tuple[float, float]
"""Where a run of packets begins, and how long it is; seconds."""


def write(
    path: Path,
    runs: Sequence[Run] = ((0.0, 3.0),),
    *,
    clicks: Sequence[float] = (),
    rate: int = RATE,
    layout: str = "stereo",
    codec: str = "pcm_s16le",
    samples: int = 0,
    begin: float = 0.0,
    damaged: int | None = None,
    noise: bool = False,
) -> SourceInfo:
    """A video of a second with sound: silence or noise, with clicks at those times.

    samples: in a packet; a hundredth of a second if not given. begin: of everything. damaged: a packet that is garbage.
    """
    size, made = samples or rate // 100, np.random.default_rng(3)
    with av.open(str(path), "w") as output:
        picture = output.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        track = output.add_stream(codec, rate=rate, layout=layout)
        time_base = Fraction(1, 1000)
        picture.codec_context.time_base = time_base
        packets = []
        for number in range(10):
            frame = av.VideoFrame(32, 32, "yuv420p")
            frame.pts, frame.time_base = round((begin + number / 10) * 1000), time_base
            packets += picture.encode(frame)
        packets += picture.encode(None)
        number = 0
        for start, length in runs:
            for place in range(0, round(length * rate), size):
                count = min(size, round(length * rate) - place)
                values = np.zeros((1, count * track.codec_context.layout.nb_channels), np.int16)
                if noise:
                    values[:] = made.integers(-9000, 9000, values.shape)
                first = round(start * rate) + place
                for click in clicks:
                    at = (round(click * rate) - first) * track.codec_context.layout.nb_channels
                    if 0 <= at < values.size:
                        values[0, at : at + track.codec_context.layout.nb_channels] = 20_000
                sound = av.AudioFrame.from_ndarray(values, format="s16", layout=layout)
                sound.sample_rate, sound.time_base = rate, Fraction(1, rate)
                sound.pts = first + round(begin * rate)
                for packet in track.encode(sound):
                    number += 1
                    if number == damaged:
                        packet = garbled(packet)
                    packets.append(packet)
        packets += track.encode(None)
        packets.sort(key=lambda packet: packet.pts * packet.time_base)
        output.mux(packets)
    return probe(path)


def garbled(packet: av.Packet) -> av.Packet:
    found = av.Packet(b"\xff" * packet.size)
    found.pts, found.dts, found.time_base, found.stream = packet.pts, packet.dts, packet.time_base, packet.stream
    return found


def reader_of(info: SourceInfo, track: int | None = None) -> SoundReader:
    reader, note = SoundReader.of(info, track=track)
    assert reader is not None, note
    assert note is None
    return reader


def joined(reader: SoundReader) -> tuple[Fraction, np.ndarray]:
    """From where the reader stands to the end: where that is, and int16 [N, 2]; pieces have to adjoin."""
    pieces: list[Sound] = []
    while (piece := reader.read()) is not None:
        if pieces:
            assert piece.seconds == pieces[-1].seconds + Fraction(len(pieces[-1].samples), reader.rate)
        assert (piece.samples.dtype, piece.samples.shape[1]) == (np.int16, 2)
        pieces.append(piece)
    assert all(len(piece.samples) == reader.rate // 10 for piece in pieces[:-1])
    return pieces[0].seconds, np.concatenate([piece.samples for piece in pieces])


def clicks_in(samples: np.ndarray) -> list[int]:
    """Positions of what stands out."""
    loud = np.abs(samples.astype(np.int32)).max(1)
    places = np.flatnonzero(loud > 4000)
    groups = np.split(places, np.flatnonzero(np.diff(places) > 200) + 1) if len(places) else []
    return [int(group[np.argmax(loud[group])]) for group in groups]


@pytest.mark.parametrize("rate", [48_000, 44_100, 8_000, 96_000])
@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1", "8 channels"])
def test_clicks_are_at_their_times(tmp_path: Path, rate: int, layout: str) -> None:
    info = write(tmp_path / "in.mkv", clicks=(0.25, 1.5, 2.75), rate=rate, layout=layout)
    begin, samples = joined(reader_of(info))
    assert (begin, len(samples)) == (0, 3 * RATE)
    for found, wanted in zip(clicks_in(samples), (0.25, 1.5, 2.75), strict=True):
        assert abs(found - wanted * RATE) <= 3


def test_sound_without_resampling_is_untouched(tmp_path: Path) -> None:
    info = write(tmp_path / "in.mkv", noise=True)
    with av.open(str(info.path)) as opened:
        wanted = np.concatenate([frame.to_ndarray().reshape(-1, 2) for frame in opened.decode(audio=0)])
    assert np.array_equal(joined(reader_of(info))[1], wanted)


@pytest.mark.parametrize("begin", [0.0, 5.0])
def test_late_beginning_and_gap_are_silence(tmp_path: Path, begin: float) -> None:
    """Also where the file itself begins late: times count from its beginning."""
    info = write(tmp_path / "in.mkv", ((0.7, 0.5), (2.0, 1.0)), clicks=(0.8, 2.5), begin=begin, noise=True)
    assert info.start_seconds == begin
    first, samples = joined(reader_of(info))
    assert (first, len(samples)) == (0, 3 * RATE)
    assert clicks_in(np.where(np.abs(samples) == 20_000, samples, 0)) == [round(0.8 * RATE), round(2.5 * RATE)]
    for start, end in ((0, 0.7), (1.2, 2.0)):
        assert not samples[round(start * RATE) : round(end * RATE)].any()
    assert samples[round(0.7 * RATE)].any()
    assert samples[round(1.2 * RATE) - 1].any()
    assert samples[round(2.0 * RATE)].any()


def test_a_beginning_late_by_little_counts(tmp_path: Path) -> None:
    info = write(tmp_path / "in.mkv", ((0.004, 1.0),), clicks=(0.5,))
    assert clicks_in(joined(reader_of(info))[1]) == [RATE // 2]


def test_overlap_is_left_out(tmp_path: Path) -> None:
    """The second run begins before the first has ended."""
    info = write(tmp_path / "in.mkv", ((0.0, 1.0), (0.96, 1.0)), clicks=(1.5,), samples=RATE // 20)
    first, samples = joined(reader_of(info))
    assert (first, len(samples)) == (0, round(1.96 * RATE))
    assert clicks_in(samples) == [round(1.5 * RATE)]


def test_no_drift(tmp_path: Path) -> None:
    """Matroska rounds the time of each packet to a millisecond."""
    clicks = (1.0, 450.0, 899.0)
    info = write(
        tmp_path / "in.mkv", ((0.0, 900.0),), clicks=clicks, rate=44_100, layout="mono", codec="flac", samples=4096
    )
    reader = reader_of(info)
    for click in clicks:
        reader.seek(Fraction(click) - 1)
        piece = [reader.read() for _ in range(20)]
        found = clicks_in(np.concatenate([part.samples for part in piece if part is not None]))
        assert abs(found[0] - RATE) <= RATE // 1000
    reader.seek(Fraction(0))
    count, places = 0, []
    while (part := reader.read()) is not None:
        places += [count + place for place in clicks_in(part.samples)]
        count += len(part.samples)
    assert count == 900 * RATE
    for found_at, wanted in zip(places, clicks, strict=True):
        assert abs(found_at - wanted * RATE) <= RATE // 1000


@pytest.mark.parametrize("suffix", ["mkv", "mov", "avi"])
def test_seeks_are_exact(tmp_path: Path, suffix: str) -> None:
    info = write(tmp_path / f"in.{suffix}", ((0.0, 3.0),), noise=True)
    reader = reader_of(info)
    _, whole = joined(reader)
    for seconds in map(Fraction, ("2", "1/3", "0", "0.095", "1.2345", "2.99", "1")):
        reader.seek(seconds)
        first, rest = joined(reader)
        assert first == Fraction(round(seconds * RATE), RATE)
        assert np.array_equal(rest, whole[round(seconds * RATE) :])
    reader.seek(Fraction(7))
    assert reader.read() is None
    reader.seek(Fraction(-1))
    assert np.array_equal(joined(reader)[1], whole)


class Lying:
    """A file whose index leads behind what is sought, as those of transport streams can."""

    def __init__(self, path: Path) -> None:
        self._container = open_input(path)

    def seek(self, time: int, *, stream: Any) -> None:
        self._container.seek(time + round(3 / stream.time_base), stream=stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)


def test_an_index_that_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = write(tmp_path / "in.mkv", ((0.0, 15.0),), noise=True, samples=RATE // 10)
    monkeypatch.setattr("vidsr.media.sound.open_input", Lying)
    reader = SoundReader(info, 1)
    _, whole = joined(reader)
    for seconds in (12, 5):
        reader.seek(Fraction(seconds))
        first, rest = joined(reader)
        assert first == seconds
        assert np.array_equal(rest, whole[seconds * RATE :])


def test_seeks_into_silence(tmp_path: Path) -> None:
    info = write(tmp_path / "in.mkv", ((1.0, 0.5), (30.0, 1.0)), clicks=(1.2, 30.5))
    reader = reader_of(info)
    for seconds, wanted in ((0.5, 0.7), (10.0, 20.5), (30.0, 0.5)):
        reader.seek(Fraction(seconds))
        first, samples = joined(reader)
        assert first == seconds
        assert clicks_in(samples)[0] == round(wanted * RATE)


@pytest.mark.parametrize(("codec", "suffix"), [("aac", "mp4"), ("libopus", "mkv"), ("mp2", "ts")])
def test_codecs_with_loss(tmp_path: Path, codec: str, suffix: str) -> None:
    """Their delay is in the file, and their frames need those before."""
    info = write(tmp_path / f"in.{suffix}", ((0.0, 12.0),), clicks=(0.5, 11.0), codec=codec, samples=1152)
    reader = reader_of(info)
    _, whole = joined(reader)
    offset = clicks_in(whole)[0] - RATE // 2
    assert abs(offset) <= (RATE // 1000 if suffix != "ts" else RATE // 40)  # TS does not tell the delay
    reader.seek(Fraction(21, 2))
    first, rest = joined(reader)
    assert first == Fraction(21, 2)
    assert abs(clicks_in(rest)[0] - RATE // 2 - offset) <= RATE // 1000


def test_damage_is_passed_over(tmp_path: Path) -> None:
    info = write(tmp_path / "in.mkv", clicks=(0.2, 2.5), codec="flac", damaged=100, samples=480)
    first, samples = joined(reader_of(info))
    assert (first, len(samples)) == (0, 3 * RATE)
    assert clicks_in(samples) == [round(0.2 * RATE), round(2.5 * RATE)]


def test_truncated_file_ends(tmp_path: Path) -> None:
    info = write(tmp_path / "in.mkv", clicks=(0.5,), noise=True)
    data = info.path.read_bytes()
    info.path.write_bytes(data[: len(data) // 2])
    _, samples = joined(reader_of(info))
    assert RATE < len(samples) < 2 * RATE


def test_no_sound(tmp_path: Path) -> None:
    path = tmp_path / "in.mkv"
    with av.open(str(path), "w") as output:
        track = output.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        output.mux(track.encode(av.VideoFrame(32, 32, "yuv420p")))
        output.mux(track.encode(None))
    assert SoundReader.of(probe(path)) == (None, None)


@pytest.mark.parametrize("name", [b"A_FLAX", b"A_AC3\0"])
def test_what_cannot_be_decoded_is_said(tmp_path: Path, name: bytes) -> None:
    """A codec that nobody knows, and data that are not what they are called."""
    path = write(tmp_path / "in.mkv", codec="flac").path
    path.write_bytes(path.read_bytes().replace(b"A_FLAC", name))
    reader, note = SoundReader.of(probe(path))
    assert reader is None
    assert note is not None
    assert "cannot be played" in note
    assert "\n" not in note


def test_default_track_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "in.mkv"
    with av.open(str(path), "w") as output:
        picture = output.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        tracks = [output.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in range(2)]
        tracks[0].disposition, tracks[1].disposition = av.stream.Disposition(0), av.stream.Disposition.default
        output.mux(picture.encode(av.VideoFrame(32, 32, "yuv420p")))
        output.mux(picture.encode(None))
        for level, track in zip((1000, 2000), tracks, strict=True):
            frame = av.AudioFrame.from_ndarray(np.full((1, RATE), level, np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
            output.mux(track.encode(frame))
    info = probe(path)
    levels = [joined(reader_of(info, track))[1].mean() for track in (None, 1, 2)]
    assert levels[0] == levels[2] > levels[1] > 0


@pytest.mark.parametrize(
    "name", ["edit_list_edts.mp4", "edit_list_positive_shift.mp4", "hevc.ts", "video_with_failing_audio.mp4"]
)
def test_clips(shared: Path, name: str) -> None:
    info = probe(shared / "clips" / name)
    reader = reader_of(info)
    begin, whole = joined(reader)
    assert begin == 0
    assert info.duration_seconds is not None
    assert abs(len(whole) - float(info.duration_seconds) * RATE) < RATE / 10
    for seconds in (Fraction(3), Fraction(29, 7)):
        reader.seek(seconds)
        first, rest = joined(reader)
        assert first == Fraction(round(seconds * RATE), RATE)
        tail = whole[len(whole) - len(rest) :].astype(np.float64)
        assert np.abs(rest - tail).mean() <= 0.1 * np.abs(tail).mean()
