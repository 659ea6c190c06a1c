"""Decoding on a card: its pixel formats to ours and back, when it is trusted, and when it is left.

There is no card here, so one is played: FFmpeg's decoder in the processor, whose frames come as a card gives them.
FFmpeg's scaler works with one thread throughout: with more, whole lines of 16-bit pictures come out wrong at times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.conftest import make_clip
from tests.test_reader import damaged, footage, joined, same, taken
from vidsr import job, upscale
from vidsr.errors import UsageError
from vidsr.media import hardware, nvdec
from vidsr.media.hardware import Hardware, HardwareError, prepared
from vidsr.media.interleave import holds, pack, unpack
from vidsr.media.nvdec import card_of, choose, prove
from vidsr.media.pixel import layout_of, planes_of
from vidsr.media.source import SourceInfo, probe
from vidsr.nvidia import driver_present

Spoil = Callable[[int, av.VideoFrame], av.VideoFrame]
WITHOUT = pytest.mark.skipif(driver_present(), reason="says what happens on a machine without NVIDIA's driver")
PAIRS = [
    ("yuv420p", "nv12"), ("yuv420p10le", "p010le"), ("yuv420p12le", "p012le"), ("yuv420p12le", "p016le"),
    ("yuv422p", "nv16"), ("yuv422p10le", "p210le"), ("yuv444p", "nv24"), ("yuv444p10le", "p410le"),
    ("yuv444p10le", "yuv444p10msble"), ("yuv444p12le", "yuv444p12msble"), ("gbrp10le", "gbrp10msble"),
]  # fmt: skip


def noise(fmt: str, height: int, width: int) -> av.VideoFrame:
    """Every code value of the format's depth is as likely."""
    rng = np.random.default_rng(7)
    picture = av.VideoFrame(width, height, fmt)
    for plane in planes_of(picture):
        plane[...] = rng.integers(0, 1 << picture.format.components[0].bits, plane.shape)
    return picture


# Formats


@pytest.mark.parametrize("size", [(48, 64), (49, 65), (2, 2)], ids=["even", "odd", "tiny"])
@pytest.mark.parametrize(("plain", "other"), PAIRS, ids=[other for _, other in PAIRS])
def test_samples_to_other_places_and_back(plain: str, other: str, size: tuple[int, int]) -> None:
    """FFmpeg's scaler, where it is exact, finds the samples where they were put; and so do we."""
    given = noise(plain, *size)
    layout = layout_of(plain, height=size[0], width=size[1], siting="left")
    assert holds(other, layout)
    packed = av.VideoFrame(size[1], size[0], other)
    for plane in packed.planes:
        np.frombuffer(plane, np.uint8)[:] = 0xFF  # type: ignore[call-overload]
    pack(packed, planes_of(given), layout.bits)
    found = layout.allocate()
    unpack(found, packed, layout.bits)
    assert all(np.array_equal(plane, own) for plane, own in zip(found, planes_of(given), strict=True))
    if layout.family == "yuv":
        again = packed.reformat(format=plain, threads=1)
        assert all(np.array_equal(plane, own) for plane, own in zip(planes_of(again), planes_of(given), strict=True))
    samples = np.frombuffer(packed.planes[0], layout.dtype)[: size[1]]  # type: ignore[call-overload]
    shift = 0 if layout.bits == 8 else 16 - layout.bits
    assert np.array_equal(samples, planes_of(given)[0][0] << shift), "nothing lies below"


def test_few_bits_in_a_format_for_sixteen() -> None:
    """So cards give 4:4:4 of ten bits; those of the lowest order are nothing."""
    planes = [np.arange(1024, dtype=np.uint16).reshape(16, 64) for _ in range(3)]
    picture = av.VideoFrame(64, 16, "yuv444p16le")
    for target, plane in zip(planes_of(picture), planes, strict=True):
        target[...] = (plane << 6) | 63
    layout = layout_of("yuv444p10le", height=16, width=64, siting="left")
    assert holds("yuv444p16le", layout)
    found = layout.allocate()
    unpack(found, picture, 10)
    assert all(np.array_equal(*both) for both in zip(found, planes, strict=True))


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("nv12", "yuv420p10le"), ("p010le", "yuv420p"), ("nv12", "yuv422p"), ("nv16", "yuv420p"), ("nv12", "gray"),
        ("yuv420p", "yuv420p"), ("yuv444p16le", "gbrp10le"), ("nv12", "yuva420p"), ("rgb24", "gbrp"),
    ],
)  # fmt: skip
def test_formats_that_do_not_hold_a_layout(name: str, plain: str) -> None:
    assert not holds(name, layout_of(plain, height=16, width=16, siting="left"))


# A card is played


class Card:
    """Gives frames of FFmpeg's software decoder as a card would. made: contexts so far. frames: given so far."""

    def __init__(self, fmt: str, spoil: Spoil = lambda index, frame: frame, *, fail_at: int | None = None) -> None:
        self._fmt, self._spoil, self._fail_at = fmt, spoil, fail_at
        self.made = self.frames = 0

    def context(self, hardware: Hardware, template: Any) -> Any:
        self.made += 1
        name = "libdav1d" if hardware.codec == "av1" else hardware.codec
        return _Context(self, prepared(av.CodecContext.create(name, "r"), template))

    def given(self, frame: av.VideoFrame) -> av.VideoFrame:
        if self.frames == self._fail_at:
            raise av.error.ExternalError(-542398533, "Generic error in an external library")
        self.frames += 1
        return self._spoil(self.frames - 1, frame.reformat(format=self._fmt, threads=1))


class _Context:
    def __init__(self, card: Card, inner: Any) -> None:
        self._card, self._inner = card, inner

    def decode(self, packet: Any) -> list[av.VideoFrame]:
        return [self._card.given(frame) for frame in self._inner.decode(packet)]


@pytest.fixture
def insert(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Card]:
    def put_in(fmt: str = "nv12", *args: Any, **options: Any) -> Card:
        card = Card(fmt, *args, **options)
        monkeypatch.setattr(Hardware, "context", lambda self, template: card.context(self, template))
        monkeypatch.setattr(nvdec, "driver_present", lambda: True)
        return card

    return put_in


def moving(path: Path, fmt: str, codec: str, *, frames: int = 40, **options: str) -> Path:
    """Frames that differ from each other, several key frames, and B-frames where the codec has them."""
    settings = {"libx264": {"bf": "3"}, "libx265": {"x265-params": "log-level=error"}}.get(codec, {})
    return make_clip(
        path, frames=frames, codec=codec, pix_fmt=fmt, audio=False, options={"g": "12"} | settings | options
    )


CLIPS = [
    ("libx264", "yuv420p", "nv12"), ("libx264", "yuvj420p", "nv12"), ("libx265", "yuv420p10le", "p010le"),
    ("libx265", "yuv420p12le", "p016le"), ("libx265", "yuv444p10le", "yuv444p10msble"),
    ("libvpx-vp9", "yuv420p", "nv12"),
]  # fmt: skip


@pytest.mark.parametrize(("codec", "fmt", "its"), CLIPS, ids=[f"{codec}-{fmt}" for codec, fmt, _ in CLIPS])
def test_the_same_frames(insert: Callable[..., Card], tmp_path: Path, codec: str, fmt: str, its: str) -> None:
    info = probe(moving(tmp_path / "in.mkv", fmt, codec))
    card = insert(its)
    found, warning = choose(info, "auto", device="cuda:1")
    assert (found, warning) == (Hardware(codec=info.video.codec, card=1, shape=(48, 64, its)), None)
    expected, _ = taken(info)
    for options in ({}, {"start": Fraction(9, 10)}, {"skip": 17}, {"end": Fraction(1)}):
        frames, reader = taken(info, hardware=found, **options)
        plain, _ = taken(info, **options)
        assert same(frames, plain) and frames
        assert not reader.notes
    assert len(expected) == 40 and card.made > 4


@pytest.mark.parametrize(
    ("name", "its"),
    [
        ("hdr10_av1_10bit.mp4", "p010le"), ("hdr10_hevc_10bit_vfr_1080p.mp4", "p010le"),
        ("odd_dimensions_161x121_vp9.webm", "nv12"), ("vfr_cursed.mp4", "nv12"), ("rotated_90.mp4", "nv12"),
        ("yuv444p_editlist_bframes.mp4", "yuv444p"),
    ],
)  # fmt: skip
def test_the_same_frames_of_real_files(insert: Callable[..., Card], shared: Path, name: str, its: str) -> None:
    info = probe(shared / "clips" / name)
    insert(its)
    found = prove(info, 0)
    end = Fraction(1)
    frames, reader = taken(info, hardware=found, end=end)
    plain, _ = taken(info, end=end)
    assert same(frames, plain) and frames
    assert not reader.notes


@pytest.mark.parametrize("deinterlace", ["off", "frame", "field"])
def test_fields(insert: Callable[..., Card], tmp_path: Path, deinterlace: Any) -> None:
    info = probe(footage(tmp_path / "in.mkv", "tff", flags="tff"))
    insert("nv12")
    frames, _ = taken(info, hardware=prove(info, 0, deinterlace), deinterlace=deinterlace)
    assert same(frames, taken(info, deinterlace=deinterlace)[0]) and frames


# Trust


def flipped(index: int, frame: av.VideoFrame) -> av.VideoFrame:
    """One bit of one sample of the fifth frame."""
    if index == 4:
        np.frombuffer(frame.planes[1], np.uint8)[5] ^= 1  # type: ignore[call-overload]
    return frame


def later(index: int, frame: av.VideoFrame) -> av.VideoFrame:
    frame.pts += index == 3
    return frame


def unkeyed(index: int, frame: av.VideoFrame) -> av.VideoFrame:
    frame.key_frame = False
    return frame


def retagged(index: int, frame: av.VideoFrame) -> av.VideoFrame:
    frame.colorspace = 1
    return frame


def uncut(index: int, frame: av.VideoFrame) -> av.VideoFrame:
    """What is cropped at the left or at the top a card leaves in place."""
    return frame.reformat(width=frame.width + 8, threads=1)


@pytest.mark.parametrize("spoil", [flipped, later, unkeyed, retagged, uncut])
def test_whatever_differs_ends_trust(insert: Callable[..., Card], tmp_path: Path, spoil: Spoil) -> None:
    info = probe(moving(tmp_path / "in.mkv", "yuv420p", "libx264"))
    insert("nv12")
    assert prove(info, 0)
    insert("nv12", spoil)
    with pytest.raises(HardwareError, match="not those of the processor"):
        prove(info, 0)


def test_a_card_that_makes_another_format(insert: Callable[..., Card], tmp_path: Path) -> None:
    info = probe(moving(tmp_path / "in.mkv", "yuv420p10le", "libx265"))
    insert("nv12")
    with pytest.raises(HardwareError, match="makes nv12 of yuv420p10le"):
        prove(info, 0)
    deep = probe(moving(tmp_path / "deep.mkv", "yuv420p12le", "libx265"))
    insert("p016le")
    assert prove(deep, 0)
    with pytest.raises(HardwareError, match="cannot be deinterlaced"):
        prove(deep, 0, "frame")


def test_a_card_that_fails(insert: Callable[..., Card], tmp_path: Path) -> None:
    info = probe(moving(tmp_path / "in.mkv", "yuv420p", "libx264"))
    card = insert("nv12", fail_at=0)
    found, warning = choose(info, "auto")
    assert found is None
    assert warning and warning.startswith("the card does not decode this video, so the processor does: ")
    assert "external library" in warning and "\n" not in warning
    assert card.made == 1
    with pytest.raises(UsageError, match=r"--hwaccel cuda: .*external library.*; leave it away"):
        choose(info, "cuda")


def test_a_driver_without_a_card(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody who has none wants to hear of it, unless it was asked for."""

    def context(hardware: Hardware, template: Any) -> Any:
        raise HardwareError("cu->cuInit(0) failed -> CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected")

    monkeypatch.setattr(Hardware, "context", context)
    monkeypatch.setattr(nvdec, "driver_present", lambda: True)
    assert choose(probe(clip), "auto") == (None, None)
    with pytest.raises(UsageError, match="no CUDA-capable device"):
        choose(probe(clip), "cuda")


def test_codecs_that_leave_freedom(insert: Callable[..., Card], tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "in.mkv", codec="mpeg4", audio=False))
    card = insert()
    found, warning = choose(info, "auto")
    assert found is None and card.made == 0
    assert warning is not None and "mpeg4 is not among h264, hevc, vp9, av1" in warning


def test_transparency(insert: Callable[..., Card], shared: Path) -> None:
    insert()
    found, warning = choose(probe(shared / "clips/alpha_vp9.webm"), "auto")
    assert found is None and warning is not None and "transparency" in warning


def test_strict_wants_the_processor(insert: Callable[..., Card], clip: Path) -> None:
    card = insert()
    assert choose(probe(clip), "auto", strict=True) == (None, None)
    with pytest.raises(UsageError, match="--hwaccel cuda: --strict"):
        choose(probe(clip), "cuda", strict=True)
    assert card.made == 0


def test_none_asks_no_card(insert: Callable[..., Card], clip: Path) -> None:
    card = insert()
    assert choose(probe(clip), "none") == (None, None)
    assert card.made == 0
    assert choose(probe(clip), "auto", device="cpu") == (None, None)
    assert card.made == 0
    with pytest.raises(UsageError, match="choose auto, cuda or none"):
        choose(probe(clip), "qsv")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("device", "card"), [("auto", 0), ("cuda", 0), ("cuda:1", 1), ("CUDA:12", 12), ("cuda:2,cuda:0", 2), ("GPU.1", 0)]
)
def test_the_engine_s_card(device: str, card: int) -> None:
    assert card_of(device) == card


# Leaving it


def proven(info: SourceInfo, its: str = "nv12") -> Hardware:
    return Hardware(codec=info.video.codec, shape=(info.video.layout.height, info.video.layout.width, its))


def test_a_card_that_fails_on_the_way(insert: Callable[..., Card], tmp_path: Path) -> None:
    info = probe(moving(tmp_path / "in.mkv", "yuv420p", "libx264", frames=60))
    for fail_at in (0, 5, 47):
        card = insert("nv12", fail_at=fail_at)
        frames, reader = taken(info, hardware=proven(info))
        assert same(frames, taken(info)[0])
        assert card.frames == fail_at
        (line,) = reader.notes.lines()
        assert line.startswith("the card ended decoding, and the processor went on (") and "external library" in line
        # ... and within a span
        insert("nv12", fail_at=fail_at // 5)
        frames, _ = taken(info, hardware=proven(info), start=Fraction(1))
        assert same(frames, taken(info, start=Fraction(1))[0])


@pytest.mark.parametrize("name", ["in.mkv", "in.ts"])
def test_damage(insert: Callable[..., Card], tmp_path: Path, name: str) -> None:
    """What is found at the latest by the processor gives the frames that it gives alone."""
    info = probe(damaged(tmp_path, name))
    insert("nv12")
    frames, reader = taken(info, hardware=proven(info))
    alone, other = taken(info)
    assert same(frames, alone)
    assert [line for line in reader.notes.lines() if "the card" not in line] == other.notes.lines()
    # x264 does not write the same bytes each time, and in the stream the flips then hit something else
    assert name == "in.ts" or any("was passed over" in line for line in other.notes.lines())
    assert any("the card ended decoding" in line for line in reader.notes.lines())


def test_another_size_on_the_way(insert: Callable[..., Card], tmp_path: Path) -> None:
    info = probe(moving(tmp_path / "in.mkv", "yuv420p", "libx264"))
    card = insert("nv12", lambda index, frame: frame if index < 20 else frame.reformat(width=72, threads=1))
    frames, reader = taken(info, hardware=proven(info))
    assert same(frames, taken(info)[0])
    assert 20 < card.frames < 40
    assert any("(the frames become 72x48 nv12)" in line for line in reader.notes.lines())


def test_files_put_together(insert: Callable[..., Card], tmp_path: Path) -> None:
    """Numbers of transport packets begin anew in the middle, which looks as if some were lost."""
    parts = [
        make_clip(tmp_path / f"{width}.ts", frames=30, width=width, height=height, audio=False).read_bytes()
        for width, height in ((64, 48), (128, 96))
    ]
    info = probe(joined(tmp_path / "in.ts", *parts))
    insert("nv12")
    frames, reader = taken(info, hardware=proven(info))
    assert len(frames) == 60
    assert same(frames, taken(info)[0])
    assert any("(the file marks data as damaged)" in line for line in reader.notes.lines())


def test_a_lost_packet(insert: Callable[..., Card], tmp_path: Path) -> None:
    """A gap in a transport stream's numbers; of what it does to the pictures a card says nothing."""
    data = bytearray(moving(tmp_path / "in.ts", "yuv420p", "libx264", bf="0").read_bytes())
    cells = [data[place : place + 188] for place in range(0, len(data), 188)]
    video = [index for index, cell in enumerate(cells) if (cell[1] & 0x1F, cell[2]) == (1, 0)]
    del cells[video[len(video) // 2]]
    (tmp_path / "in.ts").write_bytes(b"".join(cells))
    info = probe(tmp_path / "in.ts")
    card = insert("nv12")
    frames, reader = taken(info, hardware=proven(info))
    assert same(frames, taken(info)[0])
    assert card.frames < 40
    assert any("the card ended decoding" in line for line in reader.notes.lines())


# PyAV as it is


@WITHOUT
def test_without_a_driver(clip: Path) -> None:
    info = probe(clip)
    assert choose(info, "auto") == (None, None)
    with pytest.raises(UsageError, match=r"--hwaccel cuda: this machine has no NVIDIA driver; leave it away"):
        choose(info, "cuda")
    with pytest.raises(HardwareError, match=r"libcuda|Operation not permitted"):
        prove(info, 0)


def test_a_decoder_without_a_way_to_a_card() -> None:
    """PyAV then makes an ordinary one and says nothing."""
    with pytest.raises(HardwareError, match="prores has no way"):
        Hardware(codec="prores").context(av.CodecContext.create("prores", "r"))


def test_what_the_container_says(tmp_path: Path) -> None:
    """Without it, a decoder gives the first frames in a wrong order where the video does not say how many it holds."""
    with av.open(str(moving(tmp_path / "in.mp4", "yuv420p", "libx264"))) as container:
        template: Any = container.streams.video[0].codec_context
        context = prepared(av.CodecContext.create("h264", "r"), template)
        assert context.reorder_depth == template.reorder_depth == 2
        assert context.extradata == template.extradata and context.thread_count == 1


def test_what_is_asked_of_a_card() -> None:
    accel = Hardware(codec="h264", card=2)._accel()
    assert (accel.device_id, accel.is_hw_owned, accel.options) == (2, False, {})
    assert hardware.advice("Cannot load libnvcuvid.so.1").startswith(" (that part of the driver is missing")
    assert not hardware.advice("Hardware is lacking required capabilities")


# Jobs


def test_a_job(insert: Callable[..., Card], tmp_path: Path, nearest: Path) -> None:
    source = moving(tmp_path / "in.mkv", "yuv420p", "libx264")
    card = insert("nv12")
    options: Any = {"model": str(nearest), "backend": "onnxruntime"}
    report = upscale(source, tmp_path / "card.mkv", hwaccel="cuda", **options)
    assert report.verified and not report.warnings
    assert card.frames == 6 + 40, "those compared, and all of them; what verifies is the processor"
    upscale(source, tmp_path / "plain.mkv", hwaccel="none", **options)
    assert card.frames == 6 + 40
    assert same(taken(tmp_path / "card.mkv")[0], taken(tmp_path / "plain.mkv")[0])


def test_a_job_that_the_card_cannot_do(insert: Callable[..., Card], clip: Path, tmp_path: Path, nearest: Path) -> None:
    insert("nv12", flipped)
    settings = job.Settings(model=str(nearest), backend="onnxruntime")
    resolved = job.resolve(clip, tmp_path / "out.mkv", settings)
    assert resolved.hardware is None
    assert resolved.warnings[0].startswith("the card does not decode this video")
    insert("nv12", flipped)
    with pytest.raises(UsageError, match="not those of the processor"):
        job.resolve(clip, tmp_path / "out.mkv", replace(settings, hwaccel="cuda"))


def test_frames_for_python(insert: Callable[..., Card], clip: Path, nearest: Path) -> None:
    from vidsr import frames

    card = insert("nv12")
    options: Any = {"model": str(nearest), "backend": "onnxruntime"}
    mine = [plane for frame in frames(clip, hwaccel="cuda", **options) for plane in frame.planes]
    assert card.frames == 6 + 12
    others = [plane for frame in frames(clip, hwaccel="none", **options) for plane in frame.planes]
    assert all(np.array_equal(*pair) for pair in zip(mine, others, strict=True))
