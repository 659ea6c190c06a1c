"""A virtual environment for each peer, made when it is first needed and kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["Missing", "folder_of", "installed", "python_of"]

_REQUIREMENTS = Path(__file__).with_name("requirements")
_CHECKOUTS = {"theanimescripter": "VIDSR_PEERS_TAS"}
"""Peers that no registry has: the variable that names the folder they lie in, with a virtual environment in venv/."""


class Missing(Exception):
    """A peer that is not to be had here, in one line for people."""


def folder_of(environment: str) -> Path:
    if variable := _CHECKOUTS.get(environment):
        if not os.environ.get(variable):
            raise Missing(f"not in any registry: name a checkout of it, with its needs in venv/, in {variable}")
        return Path(os.environ[variable], "venv")
    cache = os.environ.get("VIDSR_PEERS") or Path.home() / ".cache" / "vidsr-peers"
    return Path(cache, environment)


def installed(environment: str) -> bool:
    """Whether it is there and of the versions asked for."""
    try:
        folder = folder_of(environment)
    except Missing:
        return False
    if environment in _CHECKOUTS:
        return _python(folder).exists()
    stamp = folder / "made-of"
    return stamp.exists() and stamp.read_text(encoding="utf-8") == _digest(environment)


def python_of(environment: str, oldest: tuple[int, int]) -> Path:
    """The interpreter of a peer's environment, made now if need be. Raises Missing."""
    folder = folder_of(environment)
    if installed(environment):
        return _python(folder)
    if environment in _CHECKOUTS:
        raise Missing(f"there is no {_python(folder)}")
    base = _base(oldest)
    print(f"installing {environment} into {folder}", file=sys.stderr)
    _try([base, "-m", "venv", "--clear", folder])
    pip = [_python(folder), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
    _try([*pip, "-r", _REQUIREMENTS / f"{environment}.txt"])
    if (bare := _REQUIREMENTS / f"{environment}-bare.txt").exists():
        _try([*pip, "--no-deps", "-r", bare])
    (folder / "made-of").write_text(_digest(environment), encoding="utf-8")
    return _python(folder)


def _python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _digest(environment: str) -> str:
    files = sorted(_REQUIREMENTS.glob(f"{environment}*.txt"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _base(oldest: tuple[int, int]) -> Path:
    """This interpreter, or else the first younger one on the path or among pyenv's."""
    if sys.version_info >= oldest:
        return Path(sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for minor in range(oldest[1], oldest[1] + 4):
        name = f"python3.{minor}"
        found = shutil.which(name)
        for candidate in [*([Path(found)] if found else []), *sorted(pyenv.glob(f"3.{minor}.*/bin/{name}"))]:
            if not subprocess.run([candidate, "-c", "import ensurepip"], capture_output=True, check=False).returncode:
                return candidate
    raise Missing(f"needs Python {oldest[0]}.{oldest[1]}, of which there is none here")


def _try(command: list[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise Missing((errors or done.stderr.splitlines() or ["it failed without a word"])[-1])
