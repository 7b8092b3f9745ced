"""``keys export``: the keys of the SAs with one peer, for a person who must see their packets.

Whoever has these keys reads and forges all that goes through the SAs, so that the person is asked
first, the running host logs it, and the files are the person's alone. A rekey makes them useless
for what comes after it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from keys import store
from tunnel.cli.files import config_path
from tunnel.cli.talk import ConfigOption, Failure, JsonOption, command, emit, put, say
from tunnel.config import load_host
from tunnel.io.control import ask

TABLES = ("esp_sa", "ikev2_decryption_table")
"""Files of a Wireshark configuration folder, by Wireshark's names for them."""
DECRYPT = (
    *("-o", "esp.enable_encryption_decode:TRUE"),
    *("-o", "esp.enable_authentication_check:TRUE"),
)
"""Without these options Wireshark does not look at ``esp_sa``."""


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    group = typer.Typer(help="The keys of SAs, for Wireshark.", no_args_is_help=True)
    command(group, "export", schema="keys")(export)
    app.add_typer(group, name="keys")


def export(
    peer: Annotated[
        str,
        typer.Option("--wireshark", metavar="PEER", help="Whose SAs: a label, or a full name."),
    ],
    folder: Annotated[
        Path | None,
        typer.Option(
            "--dir", metavar="DIR", help="Where the tables are; else Wireshark's own folder."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="I want this; do not ask.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the keys of the SAs with PEER into the tables with which Wireshark decrypts."""
    place = (folder or wireshark_folder()).expanduser().absolute()
    socket = load_host(config_path(config)).control_socket
    if not yes:
        _ask_consent(peer, place)
    tables = asyncio.run(ask(socket, {"command": "keys", "name": peer}))
    files = write_tables(place, tables)
    for note in tables["notes"]:
        say(note)
    if as_json:
        emit("keys", {"files": files, "notes": tables["notes"]})
        return
    for file in files:
        put(str(file))
    say(f"WIRESHARK_CONFIG_DIR={place} tshark {' '.join(DECRYPT)} -r CAPTURE")


def wireshark_folder() -> Path:
    """The person's own configuration folder of Wireshark, by its documentation."""
    base = os.environ.get("XDG_CONFIG_HOME") or ""
    return (Path(base) if base.startswith("/") else Path("~/.config").expanduser()) / "wireshark"


def _ask_consent(peer: str, place: Path) -> None:
    if not sys.stdin.isatty():
        cause = "this hands out secrets, and nobody is here to agree"
        raise Failure(f"{cause}; say --yes if you mean it")
    say(f"Whoever has these keys reads and forges all that goes through the SAs with {peer}.")
    if not typer.confirm(f"Write them to {place}?", err=True):
        raise Failure("nothing was written")


def write_tables(folder: Path, tables: dict[str, Any]) -> list[Path]:
    """Adds the lines that are not there yet; other lines of the files stay. Mode 0600.

    Raises OSError.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return [_add_lines(folder / name, tables[name]) for name in TABLES]


def _add_lines(file: Path, lines: Iterable[str]) -> Path:
    old = file.read_text().splitlines() if file.exists() else []
    new = [line for line in lines if line not in old]
    text = "".join(f"{line}\n" for line in (*old, *new))
    store.write_atomically(file, text.encode(), 0o600)
    return file
