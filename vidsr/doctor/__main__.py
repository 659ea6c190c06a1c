"""`python -m vidsr.doctor TOPIC ...`: looks at one thing and says what it finds as JSON lines, to `child.Child`."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from vidsr.doctor.child import private_output

TOPICS = {
    "installation": "vidsr.doctor.installation",
    "video": "vidsr.doctor.video",
    "nvidia": "vidsr.doctor.nvidia",
    "reference": "vidsr.doctor.smoke:reference",
    "backend": "vidsr.doctor.smoke:backend",
}


def main(arguments: list[str]) -> None:
    say = private_output()
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


if __name__ == "__main__":
    main(sys.argv[1:])
