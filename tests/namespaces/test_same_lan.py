"""Two hosts behind one router, the worst one for meeting at its outside: they talk inside."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.namespaces.homes import RENDEZVOUS
from tunnel.cli.demo.scenes import DOMAIN, find_token
from tunnel.io.lab import HostMachine, Lab, RendezvousMachine, missing, wait_until
from tunnel.io.lab.nat import INSIDE, OUTSIDE, make_nat

pytestmark = pytest.mark.root

PATIENCE = 60.0


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[HostMachine, HostMachine]]:
    """Both up, behind a NAT that takes another port for every destination and sends nothing back
    inside that came from there."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with Lab() as lab:
        internet, home = lab.switch("internet"), lab.switch("home")
        machine = lab.namespace("rendezvous")
        internet.plug(machine, "eth0", f"{RENDEZVOUS}/24")
        rendezvous = RendezvousMachine(machine)
        router = lab.namespace("router")
        home.plug(router, INSIDE, "192.168.7.1/24")
        internet.plug(router, OUTSIDE, "192.0.1.20/24")
        make_nat(router, "symmetric")
        made = []
        for number, name in ((5, "desk"), (6, "laptop")):
            machine = lab.namespace(name)
            home.plug(machine, "eth0", f"192.168.7.{number}/24")
            machine.gateway("192.168.7.1")
            made.append(HostMachine(machine))
        desk, laptop = made
        where = ("--rendezvous", RENDEZVOUS, "--name", "desk", "-c", str(desk.config))
        desk.cli("init", DOMAIN, "--auth", "psk", *where)
        rendezvous.adopt(desk)
        rendezvous.serve()
        said = desk.cli("invite", "--json", "-c", str(desk.config)).stdout
        laptop.cli("join", find_token(said), "--name", "laptop", "-c", str(laptop.config))
        for host in made:
            host.settle()
            host.change("resolver", {"enabled": False})
            host.change("nat", {"methods": []})
            host.begin_up()
        for host in made:
            host.wait_until_up()
            wait_until(lambda host=host: _settled(host) or None, PATIENCE, "NAT known")
        yield desk, laptop


def _settled(host: HostMachine) -> bool:
    status = host.status()
    return status["nat"]["mapping"] is not None and bool(status["zone"]["published"])


def test_they_are_direct_on_their_local_addresses(
    hosts: tuple[HostMachine, HostMachine],
) -> None:
    desk, laptop = hosts
    done = laptop.cli("ping", "desk", "-n", "1", "--json", "-c", str(laptop.config), check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["path"], answer["endpoint"]) == ("direct", "192.168.7.5:4500")
    peer = desk.peer("laptop")
    assert peer is not None and peer["endpoint"] == "192.168.7.6:4500"


def test_the_zone_says_where_they_are_inside(hosts: tuple[HostMachine, HostMachine]) -> None:
    desk, _ = hosts
    said = json.loads(desk.cli("lookup", "laptop", "--json", "-c", str(desk.config)).stdout)
    assert "lan=192.168.7.6:4500" in said["info"]
    assert all("192.168" not in endpoint for endpoint in said["endpoints"])
