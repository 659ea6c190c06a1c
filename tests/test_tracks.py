"""Tracks besides the video: chosen, copied, converted, and what the plan says of each beforehand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from tests.conftest import make_clip
from vidsr.errors import UsageError
from vidsr.media.container import TrackPlan, container_of, plan_tracks, select
from vidsr.media.passthrough import Passthrough
from vidsr.media.source import probe
from vidsr.media.tags import lost_tags, tag_options

RATE = 48000
MILLISECOND = Fraction(1, 1000)
Cue = tuple[float, float, str]
CUES: list[Cue] = [(0.5, 1.25, "First <i>cue</i>"), (1.25, 2.0, "Two\nlines"), (2.2, 2.6, "Last: \u00e9\u4e2d")]


def noise(seconds: float, channels: int = 2, bits: int = 16, rate: int = RATE) -> np.ndarray:
    """Samples int32 [channels, samples], the same every time."""
    half = 2 ** (bits - 2)
    return np.random.default_rng(7).integers(-half, half, (channels, round(seconds * rate)), dtype=np.int32)


def melody(seconds: float, channels: int = 2, rate: int = RATE) -> np.ndarray:
    """Sound that survives a lossy codec and shows every shift: a sweep, float [channels, samples]."""
    time = np.arange(round(seconds * rate)) / rate
    sweep = 0.4 * np.sin(2 * np.pi * (200 * time + 900 * time**2 / 2)) * (1 + np.sin(2 * np.pi * 3 * time)) / 2
    return np.repeat(sweep.astype(np.float32)[None], channels, axis=0)


def add_sound(output: Any, codec: str, layout: str = "stereo", rate: int = RATE, bits: int = 0) -> Any:
    """bits: 16 or 24 for codecs that know both."""
    track = output.add_stream(codec, rate=rate)
    track.codec_context.layout = layout
    if bits in (16, 24):
        wanted = "s16" if bits == 16 else "s32"
        formats = [offer.name for offer in av.Codec(codec, "w").audio_formats or ()]
        track.codec_context.format = next(name for name in formats if name.startswith(wanted))
    return track


def write_sound(output: Any, track: Any, samples: np.ndarray, begin: float = 0, rate: int = RATE) -> None:
    """samples: [channels, samples]; float, or int32 of as many bits as the track has."""
    layout, deep = track.codec_context.layout.name, track.codec_context.format.name.startswith("s32")
    if samples.dtype == np.int32:
        samples = samples << 8 if deep else samples.astype(np.int16)
    name = {"int16": "s16", "int32": "s32", "float32": "flt"}[samples.dtype.name]
    for first in range(0, samples.shape[1], 4800):
        piece = np.ascontiguousarray(samples[:, first : first + 4800].T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(piece, format=name, layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, round(begin * rate) + first, Fraction(1, rate)
        output.mux(track.encode(frame))
    output.mux(track.encode(None))


def write_picture(output: Any, track: Any, seconds: float) -> None:
    for number in range(round(seconds * 25)):
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number * 3 % 256, np.uint8), format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, 25)
        output.mux(track.encode(frame.reformat(format="yuv420p")))
    output.mux(track.encode(None))


def add_picture(output: Any, codec: str = "mpeg4") -> Any:
    track = output.add_stream(codec, rate=25)
    track.width, track.height, track.pix_fmt = 64, 64, "yuv420p"
    return track


def sound_clip(
    path: Path, codec: str, samples: np.ndarray, *, layout: str = "stereo", begin: float = 0, rate: int = RATE,
    bits: int = 0,
) -> Path:  # fmt: skip
    with av.open(str(path), "w") as output:
        picture = add_picture(output)
        track = add_sound(output, codec, layout, rate, bits)
        track.metadata.update({"language": "fre", "title": "The sound"})
        write_picture(output, picture, begin + samples.shape[1] / rate)
        write_sound(output, track, samples, begin, rate)
    return path


def stamp(seconds: float, mark: str) -> str:
    whole = round(seconds * 1000)
    return f"{whole // 3600000:02}:{whole // 60000 % 60:02}:{whole // 1000 % 60:02}{mark}{whole % 1000:03}"


def subtitle_file(path: Path, cues: Sequence[Cue]) -> Path:
    mark = "." if path.suffix == ".vtt" else ","
    lines = "".join(
        f"{number}\n{stamp(begin, mark)} --> {stamp(end, mark)}\n{text}\n\n"
        for number, (begin, end, text) in enumerate(cues, 1)
    )
    path.write_text(("WEBVTT\n\n" if mark == "." else "") + lines, encoding="utf-8")
    if path.suffix == ".ass":
        events = "".join(
            f"Dialogue: 0,{stamp(a, '.')[1:-1]},{stamp(b, '.')[1:-1]},Default,,0,0,0,,{text}\n" for a, b, text in cues
        )
        path.write_text(ASS_HEADER + events, encoding="utf-8")
    return path


ASS_HEADER = (
    "[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\n"
    "Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, "
    "Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, "
    "MarginV, Encoding\nStyle: Default,Arial,20,&H00FFFFFF,&H000000FF,&H00000000,&H00000000,0,0,0,0,100,100,0,0,1,1,0,"
    "2,10,10,10,1\n\n[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
)


def subtitle_clip(path: Path, cues: Sequence[Cue], kind: str = "srt") -> Path:
    """Matroska with the subtitles as they are in a file of their own."""
    text = subtitle_file(path.with_suffix(f".{kind}"), cues)
    with av.open(str(text)) as given, av.open(str(path), "w") as output:
        picture = add_picture(output)
        track = output.add_stream_from_template(given.streams[0], opaque=True)
        track.metadata.update({"language": "ger", "title": "Words"})
        track.disposition = Disposition.forced
        write_picture(output, picture, 3)
        for packet in given.demux():
            if packet.size:
                packet.stream = track
                output.mux(packet)
    return path


def carry(
    source: Path, target: Path, *, start: Fraction | None = None, end: Fraction | None = None, keep: Any = None
) -> tuple[tuple[TrackPlan, ...], list[str]]:
    """Writes a file with another video and the source's other tracks. Returns the plans and what was noted."""
    info, container = probe(source), container_of(target)
    plans = plan_tracks(info, container, keep)
    shift = info.start_seconds + start if start else Fraction(0)
    passthrough = Passthrough(info, plans, start=start, end=end, shift=shift)
    codec = "libvpx-vp9" if target.suffix == ".webm" else "mpeg4"
    with av.open(str(target), "w", format=container.format) as output:
        tracks: list[Any] = []
        passthrough.add_streams(output, lambda: tracks.append(add_picture(output, codec)), info.video.index)
        length = (end or info.duration_seconds or Fraction(3)) - (start or 0)
        for number in range(max(1, round(length * 25))):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number % 256, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            for packet in tracks[0].encode(frame.reformat(format="yuv420p")):
                output.mux(packet)
                passthrough.copy_until(packet.dts * packet.time_base, output)
        output.mux(tracks[0].encode(None))
        passthrough.copy_until(None, output)
    lines = passthrough.notes.lines()
    passthrough.close()
    return plans, lines


def heard(path: Path, index: int = 0) -> tuple[np.ndarray, Fraction, Fraction]:
    """Samples [channels, samples] of a sound track, its first time and that of the first frame of the video."""
    with av.open(str(path)) as opened:
        picture = opened.streams.video[0]
        first = min(packet.pts * packet.time_base for packet in opened.demux(picture) if packet.size)
    with av.open(str(path)) as opened:
        frames = list(opened.decode(audio=index))
        pieces = []
        for frame in frames:
            packed = av.AudioResampler(format=frame.format.packed.name).resample(frame)[0]
            piece = packed.to_ndarray()
            pieces.append(piece.reshape(-1, frame.layout.nb_channels).T)
        return np.concatenate(pieces, axis=1), frames[0].pts * frames[0].time_base, first


def lag(first: np.ndarray, second: np.ndarray) -> int:
    """By how many samples the second is late, found by correlation."""
    size = 2 ** (len(first) + len(second)).bit_length()
    peak = np.fft.irfft(np.fft.rfft(second, size) * np.conj(np.fft.rfft(first, size)), size).argmax()
    return int(peak if peak < size // 2 else peak - size)


def only(plans: Sequence[TrackPlan]) -> TrackPlan:
    (plan,) = plans
    return plan


LOSSLESS = [
    # source, its codec and bits, output, what it becomes
    ("in.mov", "pcm_s16be", 16, "out.mkv", None),
    ("in.mov", "pcm_mulaw", 0, "out.mkv", "flac"),
    ("in.mov", "pcm_mulaw", 0, "out.mp4", "flac"),
    ("in.mkv", "flac", 16, "out.mov", "alac"),
    ("in.mkv", "flac", 24, "out.mov", "alac"),
    ("in.mkv", "wavpack", 16, "out.mp4", "flac"),
    ("in.mov", "pcm_s24be", 24, "out.avi", "pcm_s24le"),
    ("in.mov", "alac", 16, "out.avi", "pcm_s16le"),
    ("in.mov", "alac", 24, "out.nut", "pcm_s24le"),
    ("in.mov", "pcm_f32be", 32, "out.mkv", "pcm_f32le"),
]


@pytest.mark.parametrize(("name", "codec", "bits", "target", "becomes"), LOSSLESS, ids=lambda value: str(value))
def test_sound_without_loss_stays_so(
    tmp_path: Path, name: str, codec: str, bits: int, target: str, becomes: str | None
) -> None:
    samples = melody(1) if bits in (0, 32) else noise(1, bits=bits)
    source = sound_clip(tmp_path / name, codec, samples, bits=bits)
    plans, notes = carry(source, tmp_path / target)
    before, began, _ = heard(source)
    after, begins, picture = heard(tmp_path / target)
    plan = only(plans)
    if becomes is None:
        assert plan.how == "copy"
    else:
        assert plan.how == "convert"
        assert plan.reason == f"{plan.track} is converted to {becomes}, without loss"
        with av.open(str(tmp_path / target)) as opened:
            assert opened.streams.audio[0].codec_context.name == becomes
    assert not notes
    assert abs(begins - picture - began) <= MILLISECOND / 2
    assert after.shape == before.shape
    assert before.dtype == after.dtype
    assert np.array_equal(before, after)


LOSSY = [
    # source, its codec, layout and rate, output, what it becomes
    ("in.mkv", "aac", "stereo", 48000, "out.webm", "opus, 192 kbit/s"),
    ("in.mp4", "aac", "stereo", 44100, "out.webm", "opus, 192 kbit/s, 48000 Hz"),
    ("in.mkv", "flac", "5.1", 48000, "out.webm", "opus, 576 kbit/s"),
    ("in.mkv", "ac3", "5.1(side)", 48000, "out.webm", "opus, 576 kbit/s"),
    ("in.webm", "libopus", "stereo", 48000, "out.mov", "aac, 256 kbit/s"),
    ("in.mkv", "libopus", "mono", 48000, "out.avi", "pcm_s16le"),
    ("in.mkv", "flac", "stereo", 48000, "out.ts", "aac, 256 kbit/s"),
    ("in.avi", "wmav2", "stereo", 44100, "out.ts", "aac, 256 kbit/s"),
    ("in.avi", "adpcm_ms", "mono", 22050, "out.mkv", "opus, 96 kbit/s, 48000 Hz"),
    ("in.avi", "adpcm_ms", "stereo", 44100, "out.mp4", "aac, 256 kbit/s"),
]


@pytest.mark.parametrize(("name", "codec", "layout", "rate", "target", "becomes"), LOSSY, ids=lambda value: str(value))
def test_sound_with_loss_stays_in_step(
    tmp_path: Path, name: str, codec: str, layout: str, rate: int, target: str, becomes: str
) -> None:
    channels = av.AudioLayout(layout).nb_channels
    samples = melody(2, channels, rate)
    source = tmp_path / name
    with av.open(str(source), "w") as output:
        picture = add_picture(output, "libvpx-vp9" if source.suffix == ".webm" else "mpeg4")
        track = output.add_stream(codec, rate=rate, bit_rate=96000 * channels)
        track.codec_context.layout = layout
        write_picture(output, picture, 2)
        write_sound(output, track, samples, rate=rate)
    plans, notes = carry(source, tmp_path / target)
    assert only(plans).reason == f"{only(plans).track} is converted to {becomes}"
    assert not notes
    before, began, picture_began = heard(source)
    after, begins, picture_begins = heard(tmp_path / target)
    assert len(after) == channels
    with av.open(str(tmp_path / target)) as opened:
        new = opened.streams.audio[0].rate
    old, fresh = as_float(before), as_float(after)
    if new != rate:
        times = np.arange(round(old.shape[1] * new / rate)) * rate / new
        old = np.stack([np.interp(times, np.arange(old.shape[1]), channel) for channel in old])
    for index in range(channels):
        if layout == "5.1(side)" and index == 3:
            continue  # the AC-3 encoder filters what is high out of the channel for effects
        late = Fraction(lag(old[index], fresh[index]), new) + (begins - picture_begins) - (began - picture_began)
        assert abs(late) <= MILLISECOND
    assert abs(fresh.shape[1] - old.shape[1]) < new * 0.06


def as_float(samples: np.ndarray) -> np.ndarray:
    return samples.astype(np.float64) / (1 if samples.dtype.kind == "f" else np.iinfo(samples.dtype).max)


@pytest.mark.parametrize("target", ["out.mkv", "out.webm", "out.mov", "out.avi"])
def test_late_sound_stays_late(tmp_path: Path, target: str) -> None:
    source = sound_clip(tmp_path / "in.mkv", "wavpack", noise(1), begin=0.6, bits=16)
    if target == "out.mkv":
        source = sound_clip(tmp_path / "in.mov", "pcm_mulaw", melody(1), begin=0.6)
    carry(source, tmp_path / target)
    before, began, picture_began = heard(source)
    after, begins, picture_begins = heard(tmp_path / target)
    wait = begins - picture_begins
    if target == "out.avi":
        assert not after[:, : round(0.59 * RATE)].any()
    late = Fraction(lag(as_float(before)[0], as_float(after)[0]), RATE)
    assert abs(late + wait - (began - picture_began)) <= MILLISECOND


@pytest.mark.parametrize("target", ["out.mov", "out.webm"])
def test_span_of_converted_sound_is_exact(tmp_path: Path, target: str) -> None:
    source = sound_clip(tmp_path / "in.mkv", "wavpack", noise(3), bits=16)
    carry(source, tmp_path / target, start=Fraction(11, 10), end=Fraction(21, 10))
    before, _, _ = heard(source)
    after, begins, picture = heard(tmp_path / target)
    expected = before[:, round(1.1 * RATE) : round(2.1 * RATE)]
    assert abs(begins - picture) <= MILLISECOND
    if target == "out.mov":
        assert np.array_equal(expected, after)
    else:
        assert lag(as_float(expected)[0], as_float(after)[0]) == 0
        assert after.shape == expected.shape


def test_gap_becomes_silence(tmp_path: Path) -> None:
    source = tmp_path / "in.mkv"
    samples = noise(1)
    with av.open(str(source), "w") as output:
        picture, track = add_picture(output), add_sound(output, "pcm_s16le")
        write_picture(output, picture, 3)
        for begin in (0, 1.5):
            frame = av.AudioFrame.from_ndarray(samples.astype(np.int16), format="s16p", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = RATE, round(begin * RATE), Fraction(1, RATE)
            output.mux(track.encode(frame))
    _, notes = carry(source, tmp_path / "out.webm")
    assert notes == ["gaps in converted sound were filled with silence at 1.000 s"]
    after, _, _ = heard(tmp_path / "out.webm")
    first, pause, second = (as_float(after)[0][round(a * RATE) : round(b * RATE)] for a, b in
                            ((0, 1), (1.02, 1.48), (1.5, 2.5)))  # fmt: skip
    assert np.abs(pause).max() < 1e-2  # the encoder's ring
    assert lag(samples[0].astype(float), first) == 0
    assert lag(samples[0].astype(float), second) == 0


@pytest.mark.parametrize("layout", ["2.1", "6.1", "7.1", "hexadecagonal"])
@pytest.mark.parametrize("target", ["out.mov", "out.webm"])
def test_many_channels(tmp_path: Path, layout: str, target: str) -> None:
    channels = av.AudioLayout(layout).nb_channels
    codec = "wavpack" if channels <= 8 else "pcm_s16le"
    samples = noise(1, channels)
    source = sound_clip(tmp_path / "in.mkv", codec, samples, layout=layout, bits=16)
    plans, notes = carry(source, tmp_path / target, start=Fraction(1, 4))
    assert not notes
    assert only(plans).how in ("convert", "copy")
    after, _, _ = heard(tmp_path / target)
    if only(plans).how == "copy":
        return
    before, _, _ = heard(source)
    assert after.shape[1] == RATE * 3 // 4
    if target == "out.mov":
        assert np.array_equal(after, before[:, RATE // 4 :])
    elif layout in ("6.1", "7.1"):
        assert len(after) == channels
    else:  # Opus knows no such channels
        assert only(plans).reason.endswith("mixed to stereo" if layout == "2.1" else "mixed to 5.1")


def test_damaged_sound_is_passed_over(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.mkv", tmp_path / "broken.mkv"
    sound_clip(whole, "flac", noise(2), bits=16)
    with av.open(str(whole)) as given, av.open(str(broken), "w") as output:
        copies = [output.add_stream_from_template(stream, opaque=True) for stream in given.streams]
        for packet in given.demux():
            if packet.size:
                kept = packet
                if packet.stream_index == 1 and 0.5 < packet.pts * packet.time_base < 0.7:
                    kept = av.Packet(b"\xff\xf8" + bytes(packet.size - 2))
                    kept.pts, kept.dts, kept.time_base = packet.pts, packet.dts, packet.time_base
                    kept.duration = packet.duration
                kept.stream = copies[packet.stream_index]
                output.mux(kept)
    _, notes = carry(broken, tmp_path / "out.mov")
    assert "damaged sound was passed over" in notes[0]
    before, _, _ = heard(whole)
    after, _, _ = heard(tmp_path / "out.mov")
    assert after.shape == before.shape
    same = (before == after).all(axis=0)
    assert same[: round(0.5 * RATE)].all()
    assert same[round(0.8 * RATE) :].all()


def cues_of(path: Path) -> list[tuple[Fraction, Fraction, str, str]]:
    """(begin, end, ASS text, plain text) of each cue that shows something."""
    found = []
    with av.open(str(path)) as opened:
        track = opened.streams.subtitles[0]
        for packet in opened.demux(track):
            cue = track.codec_context.decode2(packet) if packet.size else None
            if cue is not None and len(cue):
                begin = packet.pts * packet.time_base
                text = cue[0].ass.decode().split(",", 8)[8]
                plain = re.sub(r"\{[^}]*\}", "", text).replace("\\N", "\n")
                found.append((begin, begin + packet.duration * packet.time_base, text, plain))
    return found


SUBTITLES = [
    # the text, output, what it becomes
    ("srt", "out.mp4", "mov_text"),
    ("srt", "out.mov", "mov_text"),
    ("srt", "out.webm", "webvtt"),
    ("ass", "out.mp4", "mov_text: fonts, colours, bold and italics stay, positions and animation do not"),
    ("ass", "out.webm", "webvtt: bold, italics and underlining stay, other styling does not"),
    ("vtt", "out.mp4", "mov_text"),
]


def as_ass(text: str) -> str:
    return text.replace("<i>", "{\\i1}").replace("</i>", "{\\i0}").replace("\n", "\\N")


@pytest.mark.parametrize(("kind", "target", "becomes"), SUBTITLES)
def test_subtitles_are_converted(tmp_path: Path, kind: str, target: str, becomes: str) -> None:
    cues = CUES if kind != "ass" else [(begin, end, as_ass(text)) for begin, end, text in CUES]
    source = subtitle_clip(tmp_path / "in.mkv", cues, kind)
    plans, notes = carry(source, tmp_path / target)
    plan = only(plans)
    assert plan.reason.startswith(f"{plan.track} is converted to {becomes.split(':')[0]}")
    if kind == "ass":
        assert plan.reason == f"{plan.track} is converted to {becomes}"
    assert not notes
    before, after = cues_of(source), cues_of(tmp_path / target)
    assert [cue[3] for cue in after] == [cue[3] for cue in before] == ["First cue", "Two\nlines", "Last: \u00e9\u4e2d"]
    assert "First {\\i1}cue" in after[0][2]
    for old, new in zip(before, after, strict=True):
        assert old[:2] == new[:2]
    with av.open(str(tmp_path / target)) as opened:
        track = opened.streams.subtitles[0]
        assert track.metadata["language"] == "ger"
        assert track.metadata.get("title", track.metadata.get("name")) == "Words"
        if target != "out.mov":
            assert track.disposition & Disposition.forced
    assert plan.loses == (("forced",) if target == "out.mov" else ())


@pytest.mark.parametrize(("text", "becomes"), [("Plain", "subrip"), ("<i>Slanted</i>", "ass")])
def test_subtitles_of_mp4_go_to_matroska(tmp_path: Path, text: str, becomes: str) -> None:
    carry(subtitle_clip(tmp_path / "in.mkv", [(0.5, 1, text), (1.5, 2, "Plain")]), tmp_path / "middle.mp4")
    plans, _ = carry(tmp_path / "middle.mp4", tmp_path / "out.mkv")
    assert f"converted to {becomes}" in only(plans).reason
    before, after = cues_of(tmp_path / "middle.mp4"), cues_of(tmp_path / "out.mkv")
    assert [cue[:2] + cue[3:] for cue in before] == [cue[:2] + cue[3:] for cue in after]
    assert len(after) == 2


def test_overlapping_subtitles_share_the_screen(tmp_path: Path) -> None:
    cues = [(0.5, 2.0, "<b>One</b>"), (1.0, 1.5, "Two"), (1.5, 2.5, "Three")]
    carry(subtitle_clip(tmp_path / "in.mkv", cues), tmp_path / "out.mp4")
    half = Fraction(1, 2)
    assert [(begin, end, plain) for begin, end, _, plain in cues_of(tmp_path / "out.mp4")] == [
        (half, 2 * half, "One"),
        (2 * half, 3 * half, "One\nTwo"),
        (3 * half, 4 * half, "One\nThree"),
        (4 * half, 5 * half, "Three"),
    ]


@pytest.mark.parametrize("target", ["out.mp4", "out.webm"])
def test_drawings_are_no_text(tmp_path: Path, target: str) -> None:
    cues = [(0.5, 1.0, "{\\p1}m 0 0 l 100 0 100 100{\\p0}"), (1.0, 1.5, "{\\pos(10,20)}Text")]
    carry(subtitle_clip(tmp_path / "in.mkv", cues, "ass"), tmp_path / target)
    assert [plain for _, _, _, plain in cues_of(tmp_path / target)] == ["Text"]


def test_subtitles_are_cut_with_the_video(tmp_path: Path) -> None:
    source = subtitle_clip(tmp_path / "in.mkv", CUES)
    carry(source, tmp_path / "out.mp4", start=Fraction(1), end=Fraction(2))
    found = [(begin, end, plain) for begin, end, _, plain in cues_of(tmp_path / "out.mp4")]
    assert found == [(0, Fraction(1, 4), "First cue"), (Fraction(1, 4), 1, "Two\nlines")]


@pytest.mark.parametrize("target", ["out.avi", "out.ts", "out.nut"])
def test_subtitles_that_fit_nowhere_are_left_out(tmp_path: Path, target: str) -> None:
    plans = plan_tracks(probe(subtitle_clip(tmp_path / "in.mkv", CUES)), container_of(tmp_path / target))
    assert only(plans).lost
    assert only(plans).reason.endswith("holds no subtitles as text")


def test_pictures_as_subtitles_are_copied_or_left_out(shared: Path, tmp_path: Path) -> None:
    source = probe(shared / "clips/sample_with_pgs_subtitles.mkv")
    assert plan_tracks(source, container_of(tmp_path / "out.mkv"))[1].how == "copy"
    assert plan_tracks(source, container_of(tmp_path / "out.mp4"))[1].lost


def test_chapters_and_timecode_are_made_anew(tmp_path: Path) -> None:
    source = tmp_path / "in.mov"
    with av.open(str(source), "w") as output:
        picture = add_picture(output)
        picture.metadata["timecode"] = "01:02:03:04"
        half = {"id": 1, "start": 0, "end": 500, "time_base": MILLISECOND, "metadata": {"title": "One"}}
        output.set_chapters([half, {**half, "id": 2, "start": 500, "end": 1000, "metadata": {"title": "Two"}}])
        write_picture(output, picture, 1)
    info = probe(source)
    for name in ("out.mp4", "out.mov", "out.mkv"):
        plans, _ = carry(source, tmp_path / name)
        assert [plan.how for plan in plans] == ["regenerate", "regenerate"]
        assert not any(plan.lost for plan in plans)
        again = plan_tracks(probe(tmp_path / name), container_of(tmp_path / name))
        assert [plan.how for plan in again] == ["regenerate"] * len(again)
        with av.open(str(tmp_path / name)) as opened:
            assert [chapter["metadata"]["title"] for chapter in opened.chapters()] == ["One", "Two"]
            assert len(opened.streams) == (1 if name == "out.mkv" else 2)
    avi = container_of(tmp_path / "out.avi")
    assert not any(plan.lost for plan in plan_tracks(info, avi))
    assert (avi.chapters, avi.timecode) == (False, False)


def test_second_video_track_of_matroska_goes_to_mp4(shared: Path, tmp_path: Path) -> None:
    """Matroska states no decode times, and FFmpeg finds none for the first frames."""
    source = shared / "clips/resolution_change_midstream.mkv"
    plans, notes = carry(source, tmp_path / "out.mp4")
    assert [plan.how for plan in plans] == ["copy"] * 3
    assert not notes
    found = []
    for path, number in ((source, 1), (tmp_path / "out.mp4", 1)):
        with av.open(str(path)) as opened:
            track = opened.streams.video[number]
            packets = [packet for packet in opened.demux(track) if packet.size]
            found.append([(packet.pts * packet.time_base, packet.size) for packet in packets])
    assert found[0] == found[1]


def png() -> bytes:
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 16, 16, "rgb24", Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def test_attachments_and_covers(tmp_path: Path) -> None:
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as output:
        picture = add_picture(output)
        output.add_attachment("cover.png", "image/png", png())
        output.add_attachment("font.ttf", "font/ttf", b"no real font")
        write_picture(output, picture, 1)
    expected = {
        "out.mkv": ["attach", "copy"],
        "out.mp4": ["copy", "mp4 holds no attachments"],
        "out.webm": ["webm holds no cover pictures", "webm holds no attachments"],
        "out.mov": ["mov holds no cover pictures", "mov holds no attachments"],
    }
    for name, fates in expected.items():
        plans, _ = carry(source, tmp_path / name)
        assert [plan.reason or plan.how for plan in plans] == fates
        with av.open(str(tmp_path / name)) as opened:
            covers = [s for s in opened.streams.video if s.disposition & Disposition.attached_pic]
            assert len(covers) == (fates[0] in ("attach", "copy"))


def test_tags_that_mp4_would_lose(tmp_path: Path) -> None:
    source = tmp_path / "in.mkv"

    def written(tags: dict[str, str]) -> Path:
        with av.open(str(source), "w") as output:
            picture = add_picture(output)
            output.metadata.update(tags)
            write_picture(output, picture, 1)
        return source

    usual = written({"title": "T", "artist": "A", "my_own": "x"})
    assert tag_options(usual, "mp4", covers=False) == {}
    assert [name.lower() for name in lost_tags(usual, "mp4", {})] == ["my_own"]
    assert lost_tags(usual, "matroska", {}) == ()
    telephone = written({"com.apple.quicktime.make": "Apple"})
    options = tag_options(telephone, "mov", covers=False)
    assert options == {"movflags": "use_metadata_tags"}
    assert lost_tags(telephone, "mov", options) == ()
    assert tag_options(telephone, "mov", covers=True) == {}
    assert len(lost_tags(telephone, "mov", {})) == 1


def test_quicktime_has_its_own_languages(tmp_path: Path) -> None:
    source = sound_clip(tmp_path / "in.mkv", "aac", melody(1))
    plans, _ = carry(source, tmp_path / "out.mov")
    assert only(plans).loses == ()
    with av.open(str(tmp_path / "out.mov")) as opened:
        assert opened.streams.audio[0].metadata["language"] == "fra"


@pytest.fixture
def many(shared: Path) -> Any:
    return probe(shared / "clips/kitchen_sink.mkv")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("all", {1, 2, 3, 4, 5, 6}),
        ("none", set()),
        ("audio", {1, 2}),
        ("audio,subtitle:jpn", {1, 2, 4}),
        ("audio:fra", {2}),
        ("0,3", {3}),
        ("-subtitle", {1, 2, 5, 6}),
        ("-subtitle:eng,-cover", {1, 2, 4, 6}),
        ("all,-2", {1, 3, 4, 5, 6}),
        ("AUDIO, cover", {1, 2, 5}),
        ("data,attachment", {6}),
        ("none,4", {4}),
    ],
)
def test_tracks_are_chosen(many: Any, text: str, kept: set[int]) -> None:
    assert select(many, text) == kept


@pytest.mark.parametrize("text", ["", "sound", "7", "audio:ger", "audio,", "-audio:ger", "subtitle:"])
def test_what_names_no_track_is_refused(many: Any, text: str) -> None:
    with pytest.raises(UsageError, match=r"--tracks .*: .* names no track: there is 1 is audio track 1"):
        select(many, text)


def test_what_is_not_chosen_is_no_loss(many: Any, tmp_path: Path) -> None:
    plans = plan_tracks(many, container_of(tmp_path / "out.mp4"), select(many, "audio"))
    assert [plan.chosen for plan in plans] == [True, True, False, False, False, False]
    assert not any(plan.lost for plan in plans)
    assert [plan.track.index for plan in plan_tracks(many, container_of(tmp_path / "out.mp4")) if plan.lost] == [6]


def test_every_track_of_a_made_clip_is_copied(tmp_path: Path) -> None:
    plans, notes = carry(make_clip(tmp_path / "in.mp4", frames=25), tmp_path / "out.mp4")
    assert [plan.how for plan in plans] == ["copy"]
    assert not notes


def test_sound_that_changes_its_form_midway(tmp_path: Path) -> None:
    parts = []
    for number, (layout, rate) in enumerate((("stereo", 48000), ("mono", 44100))):
        part = tmp_path / f"{number}.ts"
        with av.open(str(part), "w") as output:
            picture = add_picture(output, "mpeg2video")
            track = add_sound(output, "mp2", layout, rate)
            write_picture(output, picture, 2)
            write_sound(output, track, (noise(2, len(track.layout.channels), rate=rate)), rate=rate)
        parts.append(part.read_bytes())
    source = tmp_path / "in.ts"
    source.write_bytes(b"".join(parts))
    _, notes = carry(source, tmp_path / "out.webm")
    assert any("changed its form" in note for note in notes)
    after, _, _ = heard(tmp_path / "out.webm")
    assert len(after) == 2
    assert abs(after.shape[1] / RATE - 4) < 0.1
