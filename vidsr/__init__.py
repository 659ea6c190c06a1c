"""vidsr: video super-resolution that leaves everything else in the file as it was.

    import vidsr
    report = vidsr.upscale("in.mp4", "out.mp4")
    for frame in vidsr.frames("in.mp4"): ...
    large = vidsr.Upscaler()(image)        # uint8 [H, W, 3] -> uint8 [2H, 2W, 3]

Importing this loads neither PyAV nor a backend; the first use does.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidsr.api import Upscaler, frames, upscale
    from vidsr.errors import VidsrError
    from vidsr.events import Report
    from vidsr.frame import Frame

__all__ = ["Frame", "Report", "Upscaler", "VidsrError", "__version__", "frames", "upscale"]

_HOMES = {
    "Frame": "vidsr.frame",
    "Report": "vidsr.events",
    "Upscaler": "vidsr.api",
    "VidsrError": "vidsr.errors",
    "frames": "vidsr.api",
    "upscale": "vidsr.api",
}

try:
    __version__ = version("vidsr")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'vidsr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
