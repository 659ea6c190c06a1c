"""`vidsr preview`: the page that plays a video upscaled."""

from __future__ import annotations

import getpass
import ipaddress
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from threading import Event, Thread, Timer
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

import click

from vidsr.cli.shape import Bytes, Factor, Time, interruptible

if TYPE_CHECKING:
    from vidsr.preview.server import Server
    from vidsr.preview.session import Session

    class Ending(Session, Protocol):
        """failure: why nothing can be shown any more, once `ended` is set. parting: what to say once it is closed."""

        failure: str | None
        ended: Event

        @property
        def parting(self) -> str | None: ...


__all__ = ["preview", "serve"]

_LOOK_SECONDS = 0.1
_CLOSE_SECONDS = 1.7
_VISIT_SECONDS = 10.0


@click.command("preview")
@click.argument("source", metavar="IN", type=click.Path(path_type=Path, readable=False))
@click.option(
    "--model", default="span", show_default=True, metavar="NAME|FILE.onnx", help="To begin with; see `vidsr models`."
)
@click.option(
    "--scale", type=Factor(), metavar="N", help="How many times as large, to begin with.  [default: the model's own]"
)
@click.option("--start", type=Time(), metavar="TIME", help="Begin here: seconds or H:MM:SS.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address or name of this machine to listen on; 0.0.0.0 for all it has. What is not loopback is open to the "
    "network, not encrypted.",
)
@click.option(
    "--port",
    default=0,
    show_default=True,
    type=click.IntRange(0, 65535),
    metavar="N",
    help="Port to listen on; 0 takes any that is free.",
)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@click.option("--backend", default="auto", show_default=True, metavar="NAME", help="See `vidsr --help`.")
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="See `vidsr --help`.")
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "fp32", "bf16", "fp16", "int8"]),
    help="See `vidsr --help`.",
)
@click.option(
    "--guard",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "on", "off"]),
    help="See `vidsr --help`.",
)
@click.option("--memory", "memory_bytes", type=Bytes(), metavar="SIZE", help="See `vidsr --help`.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def preview(source: Path, host: str, port: int, no_browser: bool, debug: bool, **choices: Any) -> int:
    """Plays IN upscaled in the browser, live, beside the original, before a whole run is started.

    \b
      vidsr preview in.mp4
      vidsr preview in.mp4 --model span-fast --start 1:00
      vidsr preview in.mp4 --no-browser --port 8000     on a server, through an SSH tunnel

    The first line printed is the address with its token; nobody else can open the page. There, models and scales can be
    changed while it plays, the time and size of the whole job predicted, and the job started. Sound plays along. Where
    the model is too slow a faster one plays, or a part of the picture, and the page says so. One page shows at a time,
    and while none does, nothing runs.

    Needs one more package: pip install 'vidsr[preview]'

    Ctrl-C ends it, with exit code 0; 1 says that IN cannot be shown, or the page not served.
    """
    from vidsr.errors import InputError
    from vidsr.job import Settings
    from vidsr.preview.broken import BrokenSession
    from vidsr.preview.server import Server
    from vidsr.preview.show import PreviewSession

    browser = not no_browser and _has_screen()
    try:
        session: Ending = PreviewSession(source, Settings(**choices))
    except InputError as error:
        if debug or not browser:
            raise
        session = BrokenSession(str(error))
    return serve(session, Server(session, host=host, port=port), browser=browser)


def serve(session: Ending, server: Server, *, browser: bool) -> int:
    """Serves the session until Ctrl-C (0) or its own end (1), and closes it. Raises what it should not have raised."""
    with interruptible() as (stop, _), closing(session), server:
        _announce(server, server.start(), browser=browser)
        code = _exit_code(session, server, stop)
        # An engine that is being made cannot be interrupted, and a job that is cut off can be resumed.
        late = Timer(_CLOSE_SECONDS, os._exit, (code,))
        late.daemon = True
        late.start()
    late.cancel()
    if session.parting is not None:
        click.echo(f"vidsr: {session.parting}", err=True)
    return code


def _exit_code(session: Ending, server: Server, stop: Event) -> int:
    """0 once `stop` is set; 1 once the session has ended and a page was told why, if one came soon."""
    while not stop.wait(_LOOK_SECONDS):
        if server.failure is not None:
            raise server.failure
        if session.ended.is_set():
            click.echo(f"vidsr: {session.failure}", err=True)
            end = monotonic() + _VISIT_SECONDS
            while not server.visited.wait(_LOOK_SECONDS) and not stop.is_set() and monotonic() < end:
                pass
            return 1
    return 0


def _announce(server: Server, address: str, *, browser: bool) -> None:
    """Says where the page is, and opens it."""
    loopback = _is_loopback(server.host)
    tunnel = f"; {_tunnel(server.host, server.port)}" if loopback and not _has_screen() else ""
    click.echo(f"open {address}\nCtrl-C ends it{tunnel}")  # at once: who reads only the first line closes the pipe
    if not loopback:
        who = "whoever can listen on the network can use the page, and write files as you"
        click.echo(f"vidsr: --host {server.host}: {who}", err=True)
    if browser:
        # In a process of its own, since browsers talk to the terminal; and each call can be seen by all users.
        call = [sys.executable, "-I", "-m", "webbrowser", server.once()]
        apart: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        Thread(target=subprocess.run, args=(call,), kwargs={**apart, "start_new_session": True}, daemon=True).start()


def _has_screen() -> bool:
    """Whether a browser opened here can be seen."""
    if os.environ.get("BROWSER"):
        return True
    if "SSH_CONNECTION" in os.environ:
        return False
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _tunnel(host: str, port: int) -> str:
    """How to look at it from another machine: the same address there."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # an id without a name
        user = "USER"
    reached = os.environ.get("SSH_CONNECTION", "").split()
    machine = reached[2] if len(reached) == 4 else "THIS-MACHINE"
    inner = f"[{host}]" if ":" in host else host
    return f"to open it on yours: ssh -N -L {port}:{inner}:{port} {user}@{machine}"
