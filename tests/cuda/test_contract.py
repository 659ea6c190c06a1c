"""The contract of all engines, over TensorRT's fake: what `tests/contract` asks of every backend that is installed."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.contract.test_engine import (
    engine,
    model,
    references,
    span,
    squares,
    test_cache,
    test_close,
    test_description,
    test_frames_in_flight,
    test_planes_stay_where_they_are,
    test_result_is_that_of_torch,
    test_settled_options,
    test_size_that_the_model_does_not_take,
    test_slots,
    test_slots_are_used_again,
    test_target_of_another_kind,
    test_unknown_device,
)
from tests.cuda.fake_tensorrt import install
from tests.cuda.standin import load, why_not
from vidsr import backends
from vidsr.backends import Backend

__all__ = [
    "engine",
    "model",
    "references",
    "span",
    "squares",
    "test_cache",
    "test_close",
    "test_description",
    "test_frames_in_flight",
    "test_planes_stay_where_they_are",
    "test_result_is_that_of_torch",
    "test_settled_options",
    "test_size_that_the_model_does_not_take",
    "test_slots",
    "test_slots_are_used_again",
    "test_target_of_another_kind",
    "test_unknown_device",
]


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    if reason := why_not():
        pytest.skip(reason)
    standin = load()
    standin.reset()
    with pytest.MonkeyPatch.context() as patch:
        world = install(patch, standin)
        yield backends.load("tensorrt")
        world.check()
    gc.collect()
    assert not any(standin.live().values()), standin.live()
    assert not any(standin.faults().values()), standin.faults()
