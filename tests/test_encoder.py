"""What encoders are told: options, HDR metadata, siting, transparency."""

from __future__ import annotations

import os
from dataclasses import replace
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.conftest import HDR
from vidsr import job
from vidsr.color import ColorTags, HdrMetadata
from vidsr.errors import EncoderError, UsageError
from vidsr.frame import Frame, FrameLayout, VideoTrack
from vidsr.media import encoder, segment
from vidsr.media.container import CONTAINERS
from vidsr.media.encoder import alpha_encoder, carries_hdr, coded_format, configure, formats, prove, settings
from vidsr.media.pixel import closest, layout_of, pixel_format
from vidsr.media.preset import PRESETS, EncoderPreset
from vidsr.media.segment import SegmentWriter
from vidsr.nvidia import driver_present

LAYOUT = FrameLayout(family="yuv", bits=10, height=64, width=64, chroma=(2, 2))
TRACK = VideoTrack(layout=LAYOUT, color=ColorTags(), time_base=Fraction(1, 90000), rate=Fraction(25))


def options_of(name: str, track: VideoTrack = TRACK, **extra: str) -> dict[str, str]:
    """The options an encoder gets."""
    context: Any = av.CodecContext.create(name, "w")
    configure(context, track, settings(name, crf=None, preset=None, extra=extra))
    return dict(context.options)


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        (
            "libx264",
            "x264-params",
            "mastering-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):cll=997,200"
            ":cpu-independent=1",
        ),
        (
            "libx265",
            "x265-params",
            "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=997,200"
            ":log-level=error",
        ),
        (
            "libsvtav1",
            "svtav1-params",
            "mastering-display=G(0.26500,0.69000)B(0.15000,0.06000)R(0.68000,0.32000)WP(0.31270,0.32900)"
            "L(1000.00000,0.00500):content-light=997,200",
        ),
    ],
)
def test_hdr_metadata_in_the_encoder_s_own_words(name: str, parameters: str, expected: str) -> None:
    track = replace(TRACK, hdr=HDR)
    assert options_of(name, track)[parameters] == expected
    prove(track, settings(name, crf=None, preset=None, extra={}), "mp4")


def test_what_is_not_whole_is_said_with_zeros_or_not_at_all() -> None:
    no_luminance = replace(TRACK, hdr=replace(HDR, luminance=None))
    assert "WP(15635,16450)L(0,0):max-cll=997,200" in options_of("libx265", no_luminance)["x265-params"]
    prove(no_luminance, settings("libx265", crf=None, preset=None, extra={}), "mp4")
    only_light = replace(TRACK, hdr=HdrMetadata(primaries=HDR.primaries, max_fall=180))
    assert options_of("libsvtav1", only_light)["svtav1-params"] == "content-light=0,180"
    assert "svtav1-params" not in options_of("libsvtav1", replace(TRACK, hdr=HdrMetadata()))


def test_the_user_s_parameters_come_last_and_win() -> None:
    options = options_of("libx265", replace(TRACK, hdr=HDR), **{"x265-params": "max-cll=1,1"})
    assert options["x265-params"].endswith(":max-cll=997,200:log-level=error:max-cll=1,1")
    assert options_of("libx264", threads="5")["threads"] == "5"


def test_threads_that_change_the_result_are_settings() -> None:
    for name in ("libx264", "libx265"):
        assert int(settings(name, crf=None, preset=None, extra={}).options["threads"]) > 0
    for name in ("libsvtav1", "libvpx-vp9", "ffv1"):
        assert "threads" not in settings(name, crf=None, preset=None, extra={}).options


@pytest.mark.parametrize(
    ("chroma", "siting", "expected"),
    [((2, 2), "left", None), ((2, 2), "topleft", "topleft"), ((2, 2), "center", "center"), ((1, 2), "topleft", None)],
)
@pytest.mark.parametrize("name", ["libx264", "libx265", "libsvtav1"])
def test_siting_is_stated_where_it_is_not_the_usual(
    name: str, chroma: tuple[int, int], siting: Any, expected: str | None
) -> None:
    track = replace(TRACK, layout=replace(LAYOUT, chroma=chroma, siting=siting))
    assert options_of(name, track).get("chroma_sample_location") == expected
    if chroma == (2, 2):
        prove(track, settings(name, crf=None, preset=None, extra={}), "mp4")


@pytest.mark.parametrize(
    ("suffix", "layout", "expected"),
    [
        (".webm", replace(LAYOUT, bits=8, alpha=True), "libvpx-vp9"),
        (".webm", replace(LAYOUT, alpha=True), "libvpx-vp9"),
        (".mkv", replace(LAYOUT, bits=8, alpha=True), "libvpx-vp9"),
        (".mkv", replace(LAYOUT, alpha=True), "ffv1"),
        (".mkv", replace(LAYOUT, bits=8, chroma=(1, 1), alpha=True), "ffv1"),
        (".nut", replace(LAYOUT, bits=8, alpha=True), "ffv1"),
        (".mov", replace(LAYOUT, bits=8, alpha=True), "prores_ks"),
        (".mp4", replace(LAYOUT, bits=8, alpha=True), None),
        (".ts", replace(LAYOUT, bits=8, alpha=True), None),
        (".avi", replace(LAYOUT, bits=8, alpha=True), None),
        (".webm", LAYOUT, None),
    ],
)
def test_the_encoder_that_keeps_transparency(suffix: str, layout: FrameLayout, expected: str | None) -> None:
    assert alpha_encoder(CONTAINERS[suffix], layout) == expected


@pytest.mark.parametrize(
    ("name", "suffix", "expected"),
    [
        ("libx264", ".ts", True), ("libx265", ".mkv", True), ("libsvtav1", ".webm", True),
        ("libvpx-vp9", ".webm", True),
        ("libvpx-vp9", ".nut", False), ("ffv1", ".mkv", True), ("ffv1", ".nut", False), ("prores_ks", ".mov", True),
    ],
)  # fmt: skip
def test_who_carries_hdr_metadata(name: str, suffix: str, expected: bool) -> None:
    assert carries_hdr(name, CONTAINERS[suffix]) is expected


def test_vp9_is_told_of_transparency() -> None:
    assert settings("libvpx-vp9", crf=None, preset=None, extra={}).options["auto-alt-ref"] == "1"
    assert settings("libvpx-vp9", crf=None, preset=None, extra={}, alpha=True).options["auto-alt-ref"] == "0"


def test_prores_chooses_its_kind_by_the_picture() -> None:
    for chroma, alpha in (((1, 2), False), ((1, 1), False), ((1, 1), True)):
        track = replace(TRACK, layout=replace(LAYOUT, chroma=chroma, alpha=alpha))
        prove(track, settings("prores_ks", crf=None, preset=None, extra={}, alpha=alpha), "mov")


@pytest.mark.parametrize("key", ["x265-params", "nonsense"])
def test_options_that_do_not_exist_are_refused(key: str) -> None:
    with pytest.raises(EncoderError, match="nonsense"):
        prove(TRACK, settings("libx265", crf=None, preset=None, extra={key: "nonsense=1"}), "mp4")


def test_quality_outside_its_range_is_refused() -> None:
    with pytest.raises(UsageError, match=r"0 \(best\) to 51"):
        settings("libx264", crf=60, preset=None, extra={})


# NVIDIA's encoders: FFmpeg has them everywhere, so what they are told can be looked at, but not what they write.

NVENC = ("h264_nvenc", "hevc_nvenc", "av1_nvenc")
WITHOUT = pytest.mark.skipif(driver_present(), reason="says what happens on a machine without NVIDIA's driver")


@pytest.mark.parametrize("name", NVENC)
@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, {"rc": "vbr", "b": "0", "preset": "p5", "tune": "hq"}),
        ({"crf": 30.5, "preset": "p7"}, {"cq": "30.5", "preset": "p7"}),
        ({"extra": {"b": "4M"}}, {"b": "4M", "cq": None, "rc": "vbr"}),
        ({"extra": {"qp": "20"}}, {"qp": "20", "cq": None, "rc": "constqp"}),
        ({"extra": {"qp": "20", "rc": "cbr"}}, {"rc": "cbr"}),
    ],
)
def test_what_nvidia_s_encoders_are_told(name: str, chosen: dict[str, Any], expected: dict[str, str | None]) -> None:
    """Every option exists in this FFmpeg, with such a value."""
    options = settings(name, **({"crf": None, "preset": None, "extra": {}} | chosen)).options
    assert {key: options.get(key) for key in expected} == expected
    known = av.CodecContext.create(name, "w").supported_options
    described = {option.name: option for option in (*known.generic, *known.private)}
    for key, value in options.items():
        choices = [choice.name for choice in described[key].choices]
        if value in choices or key == "b":
            continue
        assert described[key].min <= float(value) <= described[key].max, f"{key}={value}"


@pytest.mark.parametrize("name", NVENC)
@pytest.mark.parametrize(
    ("fmt", "written", "its"),
    [
        ("yuv420p", "yuv420p", "yuv420p"), ("yuv420p10le", "yuv420p10le", "p010le"),
        ("yuv420p12le", "yuv420p10le", "p010le"), ("yuv422p", "yuv422p", "nv16"),
        ("yuv422p10le", "yuv422p10le", "p210le"), ("yuv444p", "yuv444p", "yuv444p"),
        ("yuv444p10le", "yuv444p10le", "yuv444p10msble"), ("gbrp", "gbrp", "gbrp"), ("gray", "yuv420p", "yuv420p"),
    ],
)  # fmt: skip
def test_formats_for_nvidia_s_encoders(name: str, fmt: str, written: str, its: str) -> None:
    """Ten bits stay ten, although it takes them only in a format of its own; of more it would write ten."""
    chosen = closest(layout_of(fmt, height=64, width=64, siting="left"), formats(name))
    assert chosen is not None
    assert pixel_format(chosen) == written
    assert coded_format(name, chosen) == its
    assert its in [entry.name for entry in av.Codec(name, "w").video_formats or ()]


def test_the_nearest_depth() -> None:
    deep = replace(LAYOUT, bits=12)
    assert pixel_format(closest(deep, ["yuv420p", "yuv420p10le"]) or deep) == "yuv420p10le"
    assert pixel_format(closest(deep, ["yuv420p16le", "yuv420p14le", "yuv420p10le"]) or deep) == "yuv420p14le"


@pytest.mark.parametrize("bits", [8, 10])
def test_samples_in_the_encoder_s_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    """An encoder that keeps every sample, told to take them as a card does."""
    layout = replace(LAYOUT, bits=bits)
    packed = {"yuv420p": "nv12", "yuv420p10le": "p010le"}
    monkeypatch.setitem(PRESETS, "rawvideo", EncoderPreset(packed=packed))
    monkeypatch.setattr(segment, "segment_format", lambda *of: "nut")
    chosen = settings("rawvideo", crf=None, preset=None, extra={})
    writer = SegmentWriter(tmp_path / "segment", replace(TRACK, layout=layout), chosen)
    rng = np.random.default_rng(1)
    planes = [rng.integers(0, 1 << bits, shape).astype(layout.dtype) for shape in layout.shapes]
    writer.write(Frame(planes=planes, pts=0, duration=3600, time_base=TRACK.time_base, color=ColorTags()))
    writer.close()
    luma, first, second = (plane << (0 if bits == 8 else 6) for plane in planes)
    with av.open(str(tmp_path / "segment")) as written:
        packets = [bytes(packet) for packet in written.demux(video=0) if packet.size]
    assert packets == [luma.tobytes() + np.stack([first, second], axis=2).tobytes()]


@WITHOUT
@pytest.mark.parametrize(("name", "twin"), list(zip(NVENC, ("libx264", "libx265", "libsvtav1"), strict=True)))
def test_no_card(name: str, twin: str) -> None:
    with pytest.raises(EncoderError) as error:
        prove(TRACK, settings(name, crf=None, preset=None, extra={}), "mp4")
    assert str(error.value) == (
        f"--encoder {name}: needs an NVIDIA card with its driver, and this machine has none "
        f"(leave --encoder away, or take {twin})"
    )


@WITHOUT
def test_a_driver_that_does_not_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """What FFmpeg says is passed on."""
    monkeypatch.setattr(encoder, "driver_present", lambda: True)
    with pytest.raises(EncoderError, match=r"^hevc_nvenc cannot encode 64x64 yuv420p10le with .*: Cannot load \S+$"):
        prove(TRACK, settings("hevc_nvenc", crf=None, preset=None, extra={}), "mp4")


@WITHOUT
def test_the_engine_s_card_encodes(clip: Path, tmp_path: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "driver_present", lambda: True)
    resolving = import_module("vidsr.job.resolve")
    plan = resolving.plan_engine

    def on_processor(given: job.Settings, *rest: Any, **more: Any) -> Any:
        return plan(replace(given, device="cpu"), *rest, **more)

    monkeypatch.setattr(resolving, "plan_engine", on_processor)
    told = job.Settings(model=str(nearest), backend="onnxruntime", encoder="hevc_nvenc", hwaccel="none")
    for device, expected in (("cuda:1", True), ("cuda", False), ("cpu", False)):
        with pytest.raises(EncoderError) as error:
            job.resolve(clip, tmp_path / "out.mkv", replace(told, device=device))
        assert ("gpu=1" in str(error.value)) is expected


def test_light_levels_go_beside_nvidia_s_video() -> None:
    """PyAV has no way to hand them to it; boxes of the container hold them."""
    for name in NVENC:
        assert carries_hdr(name, CONTAINERS[".mp4"]) and carries_hdr(name, CONTAINERS[".mkv"])
        assert not carries_hdr(name, CONTAINERS[".ts"])


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="only Linux tells how threads are scheduled")
def test_no_encoder_makes_the_process_real_time(tmp_path: Path) -> None:
    """SVT-AV1 does, as root; in threads, which start as the one that started them."""
    layout = FrameLayout(family="yuv", bits=8, height=64, width=64, chroma=(2, 2))
    video = VideoTrack(layout=layout, color=ColorTags(), time_base=Fraction(1, 25), rate=Fraction(25))
    chosen = settings("libsvtav1", crf=40, preset="12", extra={})
    prove(video, chosen, "matroska")
    writer = SegmentWriter(tmp_path / "segment", video, chosen)
    writer.write(Frame(planes=layout.allocate(), pts=0, duration=1, time_base=Fraction(1, 25), color=ColorTags()))
    found = {os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")}
    writer.close()
    assert found == {os.SCHED_OTHER}
