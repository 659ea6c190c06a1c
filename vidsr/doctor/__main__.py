"""`python -m vidsr.doctor TOPIC ...`: looks at one thing and says what it finds as JSON lines, to `child.Child`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

TOPICS = {
    "installation": "vidsr.doctor.installation",
    "video": "vidsr.doctor.video",
    "nvidia": "vidsr.doctor.nvidia",
    "reference": "vidsr.doctor.smoke:reference",
    "backend": "vidsr.doctor.smoke:backend",
}


def main(arguments: list[str]) -> None:
    say = _private_output()
    topic, *rest = arguments
    module, _, function = TOPICS[topic].partition(":")
    # Whatever a broken library raises is what is looked for here.
    try:
        getattr(import_module(module), function or "look")(say, *rest)
    except Exception as error:
        text = (str(error).strip().splitlines() or ["no reason given"])[0]
        say(
            {
                "error": text if _deliberate(error) else f"{type(error).__name__}: {text}",
                "deliberate": _deliberate(error),
            }
        )
    sys.stderr.flush()
    os._exit(0)  # libraries that crash while they are unloaded have worked


def _deliberate(error: Exception) -> bool:
    from vidsr.errors import VidsrError

    return isinstance(error, VidsrError)


def _private_output() -> Callable[[dict[str, Any]], None]:
    """Writes an object as a line to what was standard output; what libraries print there goes to standard error."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(found: dict[str, Any]) -> None:
        out.write(json.dumps(found) + "\n")
        out.flush()

    return say


if __name__ == "__main__":
    main(sys.argv[1:])
