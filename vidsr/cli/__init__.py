"""The command. Only click is imported here, so that the help appears at once.

click, because it is the best kept of the libraries that start fast: `vidsr --help` takes about 0.1 s of CPU, where
typer and cyclopts import rich and their docstring parsers first.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from traceback import walk_tb
from typing import Any, NoReturn

import click

from vidsr.cli.commands import COMMANDS
from vidsr.cli.shape import MainGroup
from vidsr.cli.upscale import upscale
from vidsr.errors import VidsrError

__all__ = ["command", "main"]

command = MainGroup(name="vidsr", default=upscale, commands=COMMANDS)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs the command line and exits: 0 done, 1 failed, 2 used wrongly, 3 the output differs, 70 our fault,
    130 interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    try:
        result: Any = command.main(given, prog_name="vidsr", standalone_mode=False)
        sys.exit(result if isinstance(result, int) else 0)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # a group without its command
            click.echo(error.format_message(), err=True)
            sys.exit(2)
        named = ["vidsr", *(name for name in given[:1] if name in command.commands)]
        path = context.command_path if context else " ".join(named)
        _fail(f"{error.format_message()} (see `{path} --help`)", 2, given)
    except click.Abort:
        _fail("interrupted", 130, given)
    except KeyboardInterrupt:
        _fail("interrupted", 130, given)
    except BrokenPipeError:
        _forget_output()  # whoever read it is gone, which is their choice
        sys.exit(1)
    except VidsrError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code, given)
    except Exception as error:
        if isinstance(error, OSError) and _in_echo(error):
            _forget_output()
            _fail(f"standard output cannot be written ({error.strerror or error})", 1, given)
        if debug:
            raise
        _fail(f"internal error: {type(error).__name__}: {error} (run again with --debug and report it)", 70, given)


def _in_echo(error: OSError) -> bool:
    """Whether standard output refused what was said: nothing in the error itself tells."""
    return any(frame.f_code is click.echo.__code__ for frame, _ in walk_tb(error.__traceback__))


def _forget_output() -> None:
    """Keeps Python from complaining about what is left of it while it exits."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - lives as long as the process


def _fail(message: str, code: int, given: list[str]) -> NoReturn:
    line = " ".join(message.split())
    if "--json" in given:
        from vidsr.progress import JsonLines

        with suppress(OSError, VidsrError):  # what cannot be written there is still said below
            JsonLines(sys.stdout).write({"event": "error", "message": line, "code": code})
    if sys.stderr is not None:
        print(f"vidsr: {line}", file=sys.stderr)
    sys.exit(code)
