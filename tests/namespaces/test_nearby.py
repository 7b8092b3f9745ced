"""Two hosts of an account on one local network, and no rendezvous: they find each other by name."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest

from tunnel.cli.demo.scenes import find_token
from tunnel.io.lab import HostMachine, Lab, RendezvousMachine, find_all, wait_until

pytestmark = pytest.mark.root

DOMAIN = "alice.members.example"
STUB = "127.0.0.53"


def test_multicast_finds_the_account_hosts_and_tells_strangers_nothing(lab: Lab) -> None:
    home = lab.switch("home")
    machines = lab.machines_of("rendezvous", "attic-desk", "garden-laptop")
    for number, machine in enumerate(machines):
        home.plug(machine, "eth0", f"192.168.77.{10 + number}/24")
    rendezvous = RendezvousMachine(machines[0])
    desk, laptop = (HostMachine(machine) for machine in machines[1:])
    where = ("--rendezvous", "192.168.77.10", "--name", "attic-desk", "-c", str(desk.config))
    desk.cli("init", DOMAIN, "--auth", "psk", *where)
    rendezvous.adopt(desk)
    rendezvous.serve()
    token = find_token(desk.cli("invite", "--json", "-c", str(desk.config)).stdout)
    laptop.cli("join", token, "--name", "garden-laptop", "-c", str(laptop.config))
    assert rendezvous.process is not None
    rendezvous.process.kill()  # neither host was ever up: nothing is remembered

    capture = lab.capture(home.namespace, home.device, "home")
    for host in (desk, laptop):
        host.settle(STUB)
        host.machine.set_resolver(STUB)
        host.begin_up()
    for host in (desk, laptop):
        host.wait_until_up()
    desk_id = str(desk.status()["host"]["id"])
    answer = wait_until(
        lambda: (
            laptop.machine.run(
                "getent", "ahostsv6", f"attic-desk.{DOMAIN}", check=False, timeout=60
            ).stdout
        ),
        120.0,
        "the laptop finds the desk by name",
    )
    assert desk_id in answer.split()
    laptop.machine.run("ping", "-6", "-c", "1", "-W", "30", desk_id)
    capture.stop()
    needles = {text: text.encode() for text in ("attic-desk", "garden-laptop", "alice", desk_id)}
    needles["the host id"] = IPv6Address(desk_id).packed
    assert not find_all(capture.file, needles)
