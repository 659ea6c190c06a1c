"""What encoders are told: options, HDR metadata, siting, transparency."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
import pytest

from tests.conftest import HDR
from vidsr.color import ColorTags, HdrMetadata
from vidsr.errors import EncoderError, UsageError
from vidsr.frame import FrameLayout, VideoTrack
from vidsr.media.container import CONTAINERS
from vidsr.media.encoder import alpha_encoder, carries_hdr, configure, prove, settings

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
