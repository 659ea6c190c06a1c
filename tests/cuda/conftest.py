"""For the tests that run on the stand-in for the CUDA driver. They come last, because it stays in the process."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cuda.standin import Standin, load, why_not

HERE = Path(__file__).parent


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.is_relative_to(HERE))


@pytest.fixture(scope="module", autouse=True)
def quick_collections() -> Iterator[None]:
    """What was loaded before, torch and others, is not looked at in each of many collections."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def standin() -> Iterator[Standin]:
    """The driver, like new. Afterwards everything has to be given back, and nothing done that CUDA forbids."""
    if reason := why_not():
        pytest.skip(reason)
    driver = load()
    gc.collect()
    driver.reset()
    yield driver
    gc.collect()
    live, faults, raised, allowed = driver.live(), driver.faults(), list(driver.raised), set(driver.allowed)
    driver.reset()
    assert "raised" in allowed or not raised, raised
    assert "live" in allowed or not any(live.values()), live
    assert not {name: number for name, number in faults.items() if number and name not in allowed}
