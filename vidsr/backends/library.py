"""Libraries that may be missing or broken."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["trouble"]


def trouble(title: str, package: str, load: Callable[[], object]) -> str | None:
    """Why an installed library cannot be loaded, in a line; None where it can. Broken ones raise whatever they like."""
    try:
        load()
    except (Exception, SystemExit) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        return f"{title} cannot be loaded ({reason}): pip install --force-reinstall {package}"
    return None
