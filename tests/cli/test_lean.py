"""A process that stays, or answers in a moment, loads nothing that it has no use for."""

from __future__ import annotations

import subprocess
import sys

import pytest

# What comes along with others and weighs; tests/namespaces/test_certificates.py asks a host that
# has run for a while.
HEAVY = {
    "tunnel.cli.host": {
        *("typer", "pydantic", "rich", "pygments", "typing_extensions", "tomlkit", "segno"),
        *("pyroute2", "zeroconf", "aiohttp", "async_upnp_client", "dns.asyncresolver", "dns.zone"),
        *("importlib.metadata", "idna", "csv", "zipfile", "lzma", "bz2", "difflib", "sqlite3"),
        *("discovery.zone", "discovery.store", "discovery.push_server", "discovery.llq_server"),
    },
    "tunnel.cli.observe": {"pydantic", "pyroute2", "segno", "tomlkit", "cryptography", "dns"},
    "bench.pump_end": {"pydantic", "pyroute2", "typer", "rich", "structlog", "cryptography"},
}
LIST = "import sys, importlib; importlib.import_module(sys.argv[1]); print(*sys.modules)"


@pytest.mark.parametrize("module", HEAVY)
def test_a_lean_process_does_not_load(module: str) -> None:
    command = [sys.executable, "-c", LIST, module]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert not HEAVY[module] & set(loaded)


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
