"""The README's commands, flags and names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import vidsr
from vidsr.cli import command
from vidsr.cli.upscale import upscale

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = {
    name: match.strip() for name, match in re.findall(r"<!-- command: (\w+) -->\s*```sh\n(.*?)```", README, re.S)
}


def vidsr_calls() -> list[str]:
    """Every line in a shell block that calls vidsr, without its comment."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.S)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [part.strip() for line in lines for part in line.split("&&") if re.match(r"(\S*/)?vidsr ", part.strip())]


def test_no_blanks_are_left() -> None:
    assert not re.search(r"@\w+@|TODO|TBD", README)


def test_both_commands_are_there() -> None:
    assert set(COMMANDS) == {"run", "test"}
    assert all(len(text.splitlines()) == 1 for text in COMMANDS.values())


def test_the_run_command_uses_a_sample_that_exists() -> None:
    sample = re.search(r"samples/\S+", COMMANDS["run"])
    assert sample
    assert (ROOT / sample[0]).is_file()


@pytest.mark.parametrize("call", vidsr_calls())
def test_call_parses(call: str) -> None:
    """Every option in the README is one of the command's, and takes what is given."""
    _, first, *rest = call.replace("'", "").split()
    chosen, arguments = (command.commands[first], rest) if first in command.commands else (upscale, [first, *rest])
    chosen.make_context("vidsr", list(arguments)).close()


def test_every_named_option_exists() -> None:
    known = {option for each in (upscale, *command.commands.values()) for p in each.params for option in p.opts}
    assert set(re.findall(r"`(--[a-z-]+)", README)) <= known


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_python_names_exist() -> None:
    for name in re.findall(r"vidsr\.(\w+)\(", README):
        assert name in vidsr.__all__


def test_extras_exist() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = re.findall(r"'\.\[([a-z]+)\]'", README)
    assert extras
    for extra in extras:
        assert re.search(rf"^{extra} = ", project, re.M)
