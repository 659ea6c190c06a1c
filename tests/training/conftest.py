"""What the tests of training share."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vidsr.training.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Small pictures whose pixels are the first ones of the large picture's 2x2 squares."""
    folder = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(1)
    large = rng.integers(0, 256, (20, 2, 48, 48, 3), np.uint8)
    np.save(folder / "large.npy", large)
    np.save(folder / "small.npy", large[:, :, ::2, ::2])
    (folder / "kinds.json").write_text(json.dumps({"kinds": ["clean"], "kind": [0] * 20}))
    return Store(folder)
