"""An account with certificates, real processes on the demo's network: join, connect, revoke."""

from __future__ import annotations

import pytest

from tests.namespaces.account import DESK_NAME, LAPTOP_NAME
from tunnel.cli.demo.scenes import DESK, DOMAIN, LAPTOP, find_token
from tunnel.io.lab import HostMachine, Lab, RendezvousMachine, wait_until
from tunnel.io.lab.two_homes import RENDEZVOUS, STUB, build

pytestmark = pytest.mark.root

# What a host does without (decision 0022), also once it has a zone, a peer and certificates.
# Modules deep in a library: the library itself may have been looked for.
HEAVY = {
    *("typer.main", "pydantic._internal", "rich.console", "pygments.token", "tomlkit.api"),
    *("segno.consts", "pyroute2.netlink", "zeroconf._core", "aiohttp.client", "csv", "zipfile"),
    *("async_upnp_client.client", "dns.asyncresolver", "dns.zone", "idna.core", "sqlite3"),
    *("discovery.zone", "discovery.io_store", "discovery.push_server", "discovery.llq_server"),
    *("tunnel.io.portable_pump", "tunnel.io.lab", "multiprocessing", "http.client"),
}


def up_telling_imports(host: HostMachine) -> None:
    """Starts it; it says on stderr what it imports (python(1), PYTHONPROFILEIMPORTTIME)."""
    host.env["PYTHONPROFILEIMPORTTIME"] = "1"
    host.up()
    del host.env["PYTHONPROFILEIMPORTTIME"]


def imported(host: HostMachine) -> set[str]:
    """What the process that stays has imported, or has tried to: the last that became it."""
    assert host.process is not None
    _, _, said = host.process.output().rpartition("| imported package")
    lines = said.splitlines()
    return {one.rpartition("|")[2].strip() for one in lines if one.startswith("import time:")}


def test_a_host_joins_speaks_by_certificate_and_is_revoked(lab: Lab) -> None:
    """The newcomer's key is made there; `revoke` ends what stands, and nothing comes back."""
    stage = build(lab)
    rendezvous = RendezvousMachine(stage.rendezvous)
    desk, laptop = HostMachine(stage.desk), HostMachine(stage.laptop)
    desk_file, laptop_file = ("-c", str(desk.config)), ("-c", str(laptop.config))
    desk.cli("init", DOMAIN, "--rendezvous", RENDEZVOUS, "--name", DESK, *desk_file)
    rendezvous.adopt(desk)
    rendezvous.serve()
    desk.settle(STUB)
    desk.up()
    token = find_token(desk.cli("invite", "--json", *desk_file).stdout)
    laptop.cli("join", token, "--name", LAPTOP, *laptop_file, timeout=60)
    for secret in ("ca.key", "issued.json"):
        assert not (laptop.config.parent / secret).exists()
    laptop.settle(STUB)
    up_telling_imports(laptop)

    laptop.cli("ping", DESK, *laptop_file)
    for host, peer in ((laptop, DESK_NAME), (desk, LAPTOP_NAME)):
        shown = host.peer(peer)
        assert shown is not None and shown["auth"] == "cert"
    assert laptop.status()["certificate"]["issuer"] is False
    assert desk.status()["certificate"]["issuer"] is True

    loaded = imported(laptop)
    assert {"keys.ike.certificates", "discovery.push", "fastpath._core"} <= loaded
    assert loaded & HEAVY == set()

    desk.cli("revoke", LAPTOP, *desk_file)

    def let_go() -> bool:
        shown = desk.peer(LAPTOP_NAME)
        return shown is None or shown["state"] != "up"

    wait_until(let_go, 90, "desk lets go of the revoked host")
    refused = laptop.cli("ping", DESK, "-n", "1", *laptop_file, check=False)
    assert refused.returncode == 1
    assert "does not accept our certificate" in refused.stderr
    assert "was revoked" in desk.log()
