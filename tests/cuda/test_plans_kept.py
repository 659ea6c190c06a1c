"""Kept plans that are not trusted: left alone, and used again once they can be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.contract.test_engine import enlarged
from tests.cuda.fake_tensorrt import World
from tests.cuda.test_tensorrt import SMALL, backend, model, options, tensorrt  # noqa: F401 - fixtures
from vidsr.backends import Backend, Watch
from vidsr.errors import Cancelled
from vidsr.models import Model

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs POSIX permissions")


@pytest.mark.parametrize("what", ["folder", "plan"])
def test_plan_that_others_can_write_stays(
    backend: Backend,  # noqa: F811
    tensorrt: World,  # noqa: F811
    model: Model,  # noqa: F811
    tmp_path: Path,
    what: str,
) -> None:
    """What the message tells to do makes it usable again, even where the new build was given up."""
    chosen, ends = options(backend, tmp_path), (SMALL, enlarged(SMALL))
    backend.prepare(model, *ends, chosen, Watch())
    (plan,) = (tmp_path / "tensorrt").glob("*.plan")
    path, data = plan.parent if what == "folder" else plan, plan.read_bytes()
    mode = path.stat().st_mode
    path.chmod(mode | 0o022)
    said: list[str] = []
    watch = Watch(warn=said.append)
    given_up = Watch(warn=said.append, progress=lambda done: given_up.stop.set())
    with pytest.raises(Cancelled):
        backend.prepare(model, *ends, chosen, given_up)
    assert sum("cannot be used" in line and "chmod go-w" in line for line in said) == 1
    assert plan.read_bytes() == data
    path.chmod(mode)
    said.clear()
    builds = len(tensorrt.record.builds)
    backend.prepare(model, *ends, chosen, watch)
    assert len(tensorrt.record.builds) == builds
    assert not said


def test_plan_that_others_can_write_is_replaced(
    backend: Backend,  # noqa: F811
    tensorrt: World,  # noqa: F811
    model: Model,  # noqa: F811
    tmp_path: Path,
) -> None:
    """By one that only the user can write, said once."""
    chosen, ends = options(backend, tmp_path), (SMALL, enlarged(SMALL))
    backend.prepare(model, *ends, chosen, Watch())
    (plan,) = (tmp_path / "tensorrt").glob("*.plan")
    plan.chmod(0o666)
    said: list[str] = []
    for _ in range(2):
        backend.prepare(model, *ends, chosen, Watch(warn=said.append))
    assert len(said) == 1
    assert len(tensorrt.record.builds) == 2
