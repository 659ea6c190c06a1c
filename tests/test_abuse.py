"""Small rounds of the scripts that abuse vidsr; docs/design.md has the large ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import killing

ROOT = Path(__file__).resolve().parents[1]


def mutations(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutations", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_a_killed_run_is_resumed_to_the_same_frames() -> None:
    assert killing.main(4, frames=600) == 0


def test_mutated_files_end_well() -> None:
    mutations("40")


def test_corrupt_files_end_well(shared: Path) -> None:
    mutations("--folder", str(shared / "corrupt"))
