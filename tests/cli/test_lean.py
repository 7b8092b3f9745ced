"""A process that stays, or answers in a moment, loads nothing that it has no use for."""

from __future__ import annotations

import subprocess
import sys

import pytest

# What came along with others, and weighed.
EXTRAS = {
    *("typer", "pydantic", "rich", "pygments", "typing_extensions", "tomlkit", "segno", "idna"),
    *("importlib.metadata", "csv", "zipfile", "lzma", "bz2", "difflib", "dns.asyncresolver"),
    *("pyroute2", "zeroconf", "aiohttp", "async_upnp_client"),
}
OF_A_SERVER = {"discovery.zone", "discovery.store", "discovery.io_store", "sqlite3", "dns.zone"}
OF_A_SERVER |= {"discovery.push_server", "discovery.llq_server"}
HEAVY = {
    "tunnel.cli.host": EXTRAS | OF_A_SERVER,
    "tunnel.cli.server": EXTRAS | {"tunnel.io.host", "tunnel.node", "keys.ike.endpoint"},
    "tunnel.cli.together": EXTRAS | OF_A_SERVER | {"tunnel.io.host", "tunnel.node", "cryptography"},
    "tunnel.cli.observe": {"pydantic", "pyroute2", "segno", "tomlkit", "cryptography", "dns"},
    "bench.pump_end": {"pydantic", "pyroute2", "typer", "rich", "structlog", "cryptography"},
}
LIST = "import sys, importlib; importlib.import_module(sys.argv[1]); print(*sys.modules)"


@pytest.mark.parametrize("module", HEAVY)
def test_a_lean_process_does_not_load(module: str) -> None:
    command = [sys.executable, "-c", LIST, module]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert HEAVY[module] & set(loaded) == set()


def test_every_command_is_in_the_family_that_registers_it() -> None:
    from tunnel.cli import FAMILIES, application

    def names(command: str | None) -> set[str | None]:
        app = application(command)
        return {one.name for one in app.registered_commands} | {
            one.name for one in app.registered_groups
        }

    assert names(None) == {one for commands in FAMILIES.values() for one in commands}
    for commands in FAMILIES.values():
        assert names(commands[0]) == set(commands)
