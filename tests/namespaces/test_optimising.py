"""From the home agent to the direct path and back in one transfer, with real routers (I10–I21)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.namespaces.homes import Home, Homes
from tunnel.cli.demo.scenes import DOMAIN
from tunnel.cli.demo.secrecy import Secrets, make_file
from tunnel.io.lab import Lab, LabError, missing, wait_until

pytestmark = pytest.mark.root

PATIENCE = 90.0
OCTETS = 8_000_000
RATE = "250k"
LIFETIME = 8.0
PINGS = 450


@pytest.fixture(scope="module")
def homes() -> Iterator[Homes]:
    """Two hosts behind NATs that can meet, a public one whose keys live short, a home agent."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with Lab() as lab:
        made = Homes(lab, "restricted", "double", "public", agents=1)
        made.of("public").host.change("ike", {"child_lifetime": LIFETIME})
        made.up()
        for home in made.homes[:2]:
            wait_until(lambda home=home: registered(home) or None, PATIENCE, "it is registered")
        yield made


def registered(home: Home) -> bool:
    return any(one["registered"] for one in home.host.status()["home_agents"])


@contextmanager
def cut(source: Home, target: Home) -> Iterator[Callable[[], None]]:
    """Nothing passes directly between the two; what is given makes it pass again."""
    router = source.routers[0]
    hook = "type filter hook forward priority -10"
    drop = f"ip daddr {target.outer} drop\nip saddr {target.outer} drop\n"
    router.run("nft", "-f", "-", stdin=f"table ip cut {{\nchain it {{\n{hook}\n{drop}}}\n}}\n")
    there = [True]

    def mend() -> None:
        if there.pop():
            there.append(False)
            router.run("nft", "delete", "table", "ip", "cut")
        else:
            there.append(False)

    try:
        yield mend
    finally:
        mend()


def path(source: Home, target: Home) -> str | None:
    peer = source.host.peer(target.label)
    return None if peer is None else peer["path"]


def takes(source: Home, target: Home, wanted: str) -> None:
    def both() -> bool | None:
        return (path(source, target), path(target, source)) == (wanted, wanted) or None

    try:
        wait_until(both, PATIENCE, f"{source.label} and {target.label} go by {wanted}")
    except LabError as error:
        ends = (source, target), (target, source)
        raise LabError(f"{error}\n" + "\n".join(told(*one) for one in ends)) from error


def told(home: Home, other: Home) -> str:
    """How a host came to its path."""
    said = home.host.cli("explain", other.label, "-c", str(home.host.config)).stdout
    return f"{home.label} says:\n{said[-4000:]}\n{home.host.log()[-1000:]}"


def rules(home: Home) -> list[dict[str, Any]]:
    """What ``autotunnel rules`` prints, for programs and for people."""
    told = json.loads(home.host.cli("rules", "--json", "-c", str(home.host.config)).stdout)
    text = home.host.cli("rules", "-c", str(home.host.config)).stdout
    lines = [line for peer in told["peers"] for sa in peer["sas"] for line in sa["text"]]
    assert lines == [line for line in text.splitlines() if not line.startswith("#")]
    peers: list[dict[str, Any]] = told["peers"]
    return peers


def test_one_transfer_over_the_relay_the_direct_path_and_the_relay_again(homes: Homes) -> None:
    source, target = ends = homes.homes[:2]
    folder = target.host.machine.folder / "served"
    folder.mkdir()
    secrets = Secrets(file=make_file(folder / "file.bin", OCTETS))
    host_id = target.host.status()["host"]["id"]
    for home in homes.homes:
        secrets.add_host(home.label, DOMAIN, home.host.status()["host"]["id"])
    links = [homes.lab.capture(one.host.machine, "eth0", f"link-{one.label}") for one in ends]
    server = target.host.machine.start(
        *("python3", "-u", "-m", "http.server", "0", "--bind", host_id, "--directory", str(folder)),
        name="http",
    )
    server.wait_for("Serving HTTP", PATIENCE)
    port = re.search(r"port (\d+)", server.output())
    assert port is not None
    file = source.host.machine.folder / "fetched"
    source.host.machine.start("ping", "-6", "-i", "0.2", host_id, name="ping")
    with cut(source, target) as mend:
        curl = source.host.machine.start(
            *("curl", "-sS", "--fail", "--noproxy", "*", "--retry", "9", "--retry-connrefused"),
            *("--limit-rate", RATE, "-o", str(file), f"http://[{host_id}]:{port[1]}/file.bin"),
            name="curl",
        )
        takes(source, target, "relay")
        spi = source.host.peer(target.label)["spi_in"]
        relayed = next(one for one in rules(source) if str(one["name"]).startswith(target.label))
        assert relayed["sas"] == []
        mend()
        takes(source, target, "direct")
    direct = next(one for one in rules(source) if str(one["name"]).startswith(target.label))
    assert direct["sas"]
    with cut(source, target):
        takes(source, target, "relay")
    assert source.host.peer(target.label)["spi_in"] == spi, "no SA was made anew"
    assert curl.wait(240) == 0, curl.tail()
    served = (folder / "file.bin").read_bytes()
    assert hashlib.sha256(file.read_bytes()).digest() == hashlib.sha256(served).digest()
    for link in links:  # the sheet's tests 7 and 8, on all three paths and between them (I5, I50)
        link.stop()
        assert link.octets > OCTETS
        assert secrets.look(link.file) == []


def test_a_rekey_under_load_loses_no_packet_and_leaves_no_rules(homes: Homes) -> None:
    """The sheet's test 6 (I42): the SAs for data and for mobility messages, on a direct path."""
    source, target = homes.of("restricted"), homes.of("public")
    config = ("-c", str(source.host.config))
    source.host.cli("ping", target.label, "-n", "1", *config, timeout=PATIENCE)
    takes(source, target, "direct")
    first = rules_of(source, target)
    host_id = target.host.status()["host"]["id"]
    ping = source.host.machine.start(
        *("ping", "-6", "-q", "-i", "0.02", "-c", str(PINGS), host_id), name="pings"
    )
    assert ping.wait(PATIENCE) == 0, ping.tail()
    assert f"{PINGS} packets transmitted, {PINGS} received, 0% packet loss" in ping.output()

    def of_later_ones() -> bool | None:
        return first.isdisjoint(rules_of(source, target)) or None

    wait_until(of_later_ones, PATIENCE, "all keys are others, and no rules of old ones are left")


def rules_of(source: Home, target: Home) -> set[str]:
    """The SPIs that ``autotunnel rules`` names for a peer."""
    config = ("-c", str(source.host.config))
    told = json.loads(source.host.cli("rules", "--json", *config).stdout)
    (peer,) = [one for one in told["peers"] if one["name"].startswith(target.label)]
    return {rule["spi"] for sa in peer["sas"] for rule in sa["rules"]}
