"""Libraries that may be missing or broken."""

from __future__ import annotations

from collections.abc import Callable

from vidsr.errors import first_line

__all__ = ["trouble"]


def trouble(title: str, package: str, load: Callable[[], object]) -> str | None:
    """Why an installed library cannot be loaded, in a line; None where it can. Broken ones raise whatever they like."""
    try:
        load()
    except (Exception, SystemExit) as error:
        return f"{title} cannot be loaded ({first_line(error)}): pip install --force-reinstall {package}"
    return None
