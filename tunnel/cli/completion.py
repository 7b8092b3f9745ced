"""``completion``: the script by which a shell completes our command line."""

from __future__ import annotations

from enum import StrEnum

import typer
from typer.completion import (  # type: ignore[attr-defined]  # typer forgets to re-export them
    completion_init,
    get_completion_script,
)

from tunnel.cli import PROGRAM
from tunnel.cli.talk import JsonOption, command, emit, put

_VARIABLE = "_AUTOTUNNEL_COMPLETE"  # typer asks for this name: the program's, in capitals


class Shell(StrEnum):
    """The shells that typer can serve and we test."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def register(app: typer.Typer) -> None:
    """Adds the command, and readies typer's answers to the scripts."""
    completion_init()
    command(app, "completion")(completion)


def completion(shell: Shell, as_json: JsonOption = False) -> None:
    """Print a completion script; in bash: source <(autotunnel completion bash)."""
    script = get_completion_script(
        prog_name=PROGRAM, complete_var=_VARIABLE, shell=shell.value
    ).strip()
    if as_json:
        emit("completion", {"shell": shell.value, "script": script})
    else:
        put(script)
