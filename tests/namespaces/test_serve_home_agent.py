"""``serve --home-agent``: one machine is rendezvous and home agent, by one command."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.namespaces.homes import HUB, RENDEZVOUS, Homes
from tunnel.cli.demo.scenes import DOMAIN
from tunnel.io.lab import Lab, Process, missing, wait_until
from tunnel.io.lab.process import alive

pytestmark = pytest.mark.root

PATIENCE = 90.0


@pytest.fixture(scope="module")
def homes() -> Iterator[Homes]:
    """Two hosts that cannot meet, and a hub."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with Lab() as lab:
        made = Homes(lab, "symmetric", "double", hub=True).up()
        yield made
        for home in made.homes:  # nobody is left to whom they could say farewell
            assert home.host.process is not None
            home.host.process.kill()


def process_of(homes: Homes) -> Process:
    """The one that was started."""
    process = homes.rendezvous.process
    assert process is not None
    return process


def children(homes: Homes, program: str = "") -> list[int]:
    """The processes below it."""
    wanted = ("-f", program) if program else ()
    said = homes.rendezvous.machine.run("pgrep", "-P", str(process_of(homes).pid), *wanted)
    return [int(pid) for pid in said.stdout.split()]


def test_two_hosts_that_cannot_meet_do_through_the_machine_that_serves(homes: Homes) -> None:
    source, target = (home.host for home in homes.homes)
    label = homes.homes[1].label

    def registered() -> bool:
        return all(
            [one["registered"] for one in home.host.status()["home_agents"]] == [True]
            for home in homes.homes
        )

    wait_until(lambda: registered() or None, PATIENCE, "both are registered with the hub")
    source.cli("ping", label, "-n", "1", "-c", str(source.config), timeout=PATIENCE)
    peer = source.peer(label)
    assert peer is not None
    assert (peer["path"], peer["home_agent"]) == ("relay", f"{HUB}.{DOMAIN}")
    ours = homes.hub.status()["home_agent"]
    assert ours["relayed_packets"] > 0
    assert len(ours["bindings"]) == len(homes.homes)
    assert target.status()["zone"]["published"]


def test_each_process_has_dropped_what_it_could_do(homes: Homes) -> None:
    machine = homes.rendezvous.machine
    for pid in children(homes):
        told = machine.run("grep", "CapEff", f"/proc/{pid}/status").stdout
        assert int(told.split()[1], 16) == 0


def test_a_host_that_is_killed_comes_back_and_the_rendezvous_does_not_notice(homes: Homes) -> None:
    machine = homes.rendezvous.machine
    (before,) = children(homes, "cli.host")
    machine.run("kill", "-9", str(before))
    process_of(homes).wait_for("the rendezvous serves on without", PATIENCE)
    question = ("dig", "+short", "+time=5", f"@{RENDEZVOUS}", "nothing.example", "SOA")
    assert machine.run(*question, check=False).returncode == 0
    wait_until(homes.hub.try_status, PATIENCE, "the home agent answers again")
    assert children(homes, "cli.host") != [before]


def test_one_signal_ends_both_and_the_host_withdraws_its_records_first(homes: Homes) -> None:
    config, left = str(homes.rendezvous.config), children(homes)
    assert len(left) == 2
    assert process_of(homes).stop(signal.SIGTERM, PATIENCE) == 0
    assert not any(map(alive, left))
    zone = homes.rendezvous.cli("serve", "--export", "-", "-c", config).stdout
    assert homes.homes[0].label in zone
    assert HUB not in zone
