"""The sentence, with numbers that are made up."""

from __future__ import annotations

import pytest

from vidsr.benchmark.advice import Trial, advise, bound_ms, weights
from vidsr.benchmark.result import Share, StageName
from vidsr.benchmark.stage import Cost

DOING: dict[StageName, str] = {
    "decode": "h264 of 640x360", "copy in": "copying in", "inference": "span", "copy out": "copying out",
    "encode": "libx265 veryslow",
}  # fmt: skip


def stages(decode: float, inference: float, encode: float, *, peak_ms: float | None = None) -> list[Share]:
    """In milliseconds; on two cores, all of which every stage keeps busy."""
    return [
        Share(name="decode", ms=decode, cpu_ms=2 * decode),
        Share(name="copy in", ms=0.01, cpu_ms=0.01),
        Share(name="inference", ms=inference, cpu_ms=2 * inference, bound="matrix bf16", bound_ms=peak_ms),
        Share(name="copy out", ms=0.02, cpu_ms=0.02),
        Share(name="encode", ms=encode, cpu_ms=2 * encode),
    ]


def trial(change: str, name: StageName, ms: float, price: str = "", *, card: bool = False) -> Trial:
    return Trial(change=change, price=price, costs={name: Cost(ms=ms, cpu_ms=2 * ms)}, card=card)


def test_the_cores_are_shared_on_a_processor_and_not_with_a_card() -> None:
    found = stages(2, 100, 30)
    assert bound_ms(found, 2, card=False) == pytest.approx(132)
    assert bound_ms(found, 2, card=True) == pytest.approx(100)
    assert bound_ms(found[:-1], 2, card=False) == pytest.approx(102)


def test_no_stage_is_faster_than_alone() -> None:
    """An encoder that keeps one core of many busy."""
    found = [*stages(1, 10, 0)[:-1], Share(name="encode", ms=80, cpu_ms=80)]
    assert bound_ms(found, 16, card=False) == pytest.approx(80)
    assert weights(found, 16, card=False)["encode"] == 1


def test_parts_of_the_time_add_up() -> None:
    parts = weights(stages(2, 100, 30), 2, card=False)
    assert sum(parts.values()) == pytest.approx(1)
    assert parts["copy in"] == 0


def test_a_slow_encoder() -> None:
    found = advise(
        stages(2, 10, 88),
        [trial("--preset slow", "encode", 40, "larger files"), trial("--preset fast", "encode", 8, "larger files")],
        2, card=False, doing=DOING,
    )  # fmt: skip
    assert (found.limit, found.change, found.gain) == ("encode", "--preset fast", 5.0)
    assert found.text == (
        "encoder-bound: libx265 veryslow takes 88 % of the time; `--preset fast` would give 5.0x (larger files)"
    )


def test_the_mildest_of_what_helps_alike_is_taken() -> None:
    found = advise(
        stages(2, 90, 8),
        [trial("--precision int8", "inference", 10.0, "coarser"), trial("--model small", "inference", 9.5, "rougher")],
        2, card=False, doing=DOING,
    )  # fmt: skip
    assert found.change == "--precision int8"


def test_a_slow_model_is_held_against_the_device_and_another_price_is_named() -> None:
    found = advise(
        stages(1, 98, 1, peak_ms=92.12),
        [trial("--precision int8", "inference", 70, "coarser"), trial("--model small", "inference", 10, "less detail")],
        2, card=False, doing=DOING,
    )  # fmt: skip
    assert (found.limit, found.change, found.gain) == ("inference", "--model small", 8.333)
    assert found.text == (
        "model-bound: span takes 98 % of the time, at 94 % of what the device computes; `--model small` would give "
        "8.3x (less detail), `--precision int8` 1.4x (coarser)"
    )


def test_a_slow_decoder_against_which_nothing_helps() -> None:
    found = advise(stages(90, 5, 5), [], 2, card=False, doing=DOING)
    assert (found.limit, found.change, found.gain) == ("decode", "", 1.0)
    assert found.text == (
        "decoder-bound: h264 of 640x360 takes 90 % of the time; there is nothing to try against that"
    )


def test_what_does_not_help_is_said_with_its_numbers() -> None:
    found = advise(stages(1, 98, 1), [trial("--streams 2", "inference", 97)], 2, card=False, doing=DOING)
    assert found.change == ""
    assert found.text.endswith("of what was tried, nothing would help (`--streams 2` 1.01x)")


def test_a_card_takes_the_model_off_the_cores() -> None:
    found = advise(stages(2, 90, 8), [trial("--device cuda", "inference", 3, card=True)], 2, card=False, doing=DOING)
    assert found.gain == 10.0
    assert "`--device cuda` would give 10.0x" in found.text


def test_an_idle_card_is_named() -> None:
    found = advise(stages(1, 98, 1), [], 2, card=False, doing=DOING, idle="the card is not used: pip install torch")
    assert found.text.endswith("against that; the card is not used: pip install torch")


def test_beside_a_card_the_encoder_can_be_what_limits() -> None:
    found = advise(stages(2, 5, 30), [trial("--encoder h264_nvenc", "encode", 4, card=True)], 2, card=True, doing=DOING)
    assert (found.limit, found.gain) == ("encode", round(32 / 6, 3))
