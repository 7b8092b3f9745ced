"""Through a home agent, with real routers: files, secrecy, path MTU, and ways that die."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.namespaces.homes import Home, Homes
from tests.namespaces.liar import Liar
from tunnel.cli.demo.scenes import DOMAIN
from tunnel.cli.demo.secrecy import Secrets, make_file
from tunnel.io.lab import Lab, Namespace, Process, missing, wait_until
from tunnel.mobility.claims import Claim
from tunnel.mobility.header import (
    Aotc,
    Aoto,
    Aotr,
    Aots,
    BindingAck,
    BindingUpdate,
    Message,
    Status,
    Verdict,
)

pytestmark = pytest.mark.root

_T = TypeVar("_T")
PATIENCE = 90.0
OCTETS = 3_000_000
LONG = 24_000_000  # more than the buffers of both ends hold: it takes its time at RATE
RATE = "2M"
VICTIM, ELSEWHERE = "192.0.1.99", "192.0.1.98"
PORTS = count(5000)
"""Of the victim's machine: at one of its own each message hears no late answer to another."""
UNDER_WAY = 1_000_000
NESTED_MTU = 1362
"""1500 octets less IPv4, UDP, ESP, IPv6 and ESP: 20 + 8 + 34 + 40 + 34, on ESP's alignment."""


@dataclass
class Web:
    """A file that a host serves on its host id."""

    url: str
    digest: str
    needles: dict[str, bytes]


@pytest.fixture(scope="module")
def homes() -> Iterator[Homes]:
    """A host behind a symmetric NAT, one behind two NATs, a public one, and two home agents."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with Lab() as lab:
        made = Homes(lab, "symmetric", "double", "public", agents=2)
        for home in made.homes:
            home.host.change("ike", {"liveness": 5.0})
        made.up()
        for home in made.homes[:3]:
            settle(home)
        yield made


@pytest.fixture(scope="module")
def victim(homes: Homes) -> Namespace:
    """A machine that has nothing to do with the account."""
    machine = homes.lab.namespace("victim")
    homes.internet.plug(machine, "eth0", f"{VICTIM}/24")
    return machine


@pytest.fixture(scope="module")
def liar(homes: Homes) -> Liar:
    """The host behind the symmetric NAT was taken over; it has a direct path to the public one."""
    source, target = homes.of("symmetric"), homes.of("public")
    reach(target, source)
    wait_until(lambda: path_of(target, source) == "direct" or None, PATIENCE, "it is direct")
    wait_until(lambda: bound_peer(target, source), PATIENCE, "the direct path is proven")
    wait_until(lambda: registrations(source) > 2, PATIENCE, "both home agents and it said so")
    return Liar(source, target)


def settle(home: Home) -> None:
    """Wait until it is registered with both home agents."""
    wait_until(lambda: registered(home) == 2 or None, PATIENCE, f"{home.label} is registered")


def registered(home: Home) -> int:
    """With how many home agents it is registered."""
    return sum(one["registered"] for one in home.host.status()["home_agents"])


def path_of(source: Home, target: Home) -> str | None:
    """By which path packets go there."""
    peer = source.host.peer(target.label)
    return None if peer is None else peer["path"]


def reach(source: Home, target: Home) -> None:
    """Make the tunnel."""
    config = ("-c", str(source.host.config))
    source.host.cli("ping", target.label, "-n", "1", *config, timeout=PATIENCE)


def serve(home: Home, name: str, octets: int = OCTETS) -> Web:
    """Serve a file with marks."""
    folder = home.host.machine.folder / name
    folder.mkdir()
    needles = make_file(folder / f"{name}.bin", octets)
    host_id = home.host.status()["host"]["id"]
    server: Process = home.host.machine.start(
        *("python3", "-u", "-m", "http.server", "0", "--bind", host_id),
        *("--directory", str(folder)),
        name=f"http-{name}",
    )
    server.wait_for("Serving HTTP", PATIENCE)
    port = re.search(r"port (\d+)", server.output())
    assert port is not None
    digest = hashlib.sha256((folder / f"{name}.bin").read_bytes()).hexdigest()
    return Web(f"http://[{host_id}]:{port[1]}/{name}.bin", digest, needles)


def fetch(home: Home, web: Web, rate: str = "") -> tuple[Process, Path]:
    """Begin to fetch a file, at ``rate`` octets a second at most."""
    target = home.host.machine.folder / f"fetched-{web.digest[:12]}-{rate}"
    slowly = ("--limit-rate", rate) if rate else ()
    curl = home.host.machine.start(
        *("curl", "-sS", "--fail", "--noproxy", "*", "--retry", "3", "--retry-connrefused"),
        *("-o", str(target), *slowly, web.url),
        name=f"curl-{web.digest[:8]}{rate}",
    )
    return curl, target


def is_whole(curl: Process, target: Path, web: Web) -> bool:
    """Whether the transfer ends well, with the very file."""
    code = curl.wait(240)
    assert code == 0, curl.tail()
    return hashlib.sha256(target.read_bytes()).hexdigest() == web.digest


def under_way(target: Path, octets: int) -> None:
    """Wait until so much of a file is there."""
    wait_until(
        lambda: (target.exists() and target.stat().st_size >= octets) or None,
        PATIENCE,
        f"{octets} octets of {target.name} are there",
    )


def agent_of(homes: Homes, source: Home, target: Home) -> Home:
    """The home agent through which it goes."""
    peer = source.host.peer(target.label)
    assert peer is not None
    label = str(peer["home_agent"]).partition(".")[0]
    return next(agent for agent in homes.agents if agent.label == label)


def test_a_file_goes_through_a_home_agent_which_sees_sealed_octets_only(homes: Homes) -> None:
    """I45–I48, I50, and the first of the acceptance: symmetric NAT and double NAT."""
    source, target = homes.of("symmetric"), homes.of("double")
    web = serve(target, "relayed")
    captures = [
        homes.lab.capture(agent.host.machine, "eth0", f"agent-{agent.label}")
        for agent in homes.agents
    ]
    curl, file = fetch(source, web)
    assert is_whole(curl, file, web)
    assert (path_of(source, target), path_of(target, source)) == ("relay", "relay")
    agent = agent_of(homes, source, target)
    ours = agent.host.status()["home_agent"]
    assert {one["name"].partition(".")[0] for one in ours["bindings"]} >= {
        source.label,
        target.label,
    }
    assert ours["relayed_bytes"] > OCTETS
    secrets = Secrets(file=web.needles)
    for home in homes.homes:
        secrets.add_host(home.label, DOMAIN, home.host.status()["host"]["id"])
    assert sum(capture.octets for capture in captures) > OCTETS
    for capture in captures:
        capture.stop()
        assert secrets.look(capture.file) == []


def test_the_path_mtu_is_right_on_a_nested_path(homes: Homes) -> None:
    source, target = homes.of("symmetric"), homes.of("double")
    host_id = target.host.status()["host"]["id"]

    def largest() -> bool | None:
        source.host.machine.run("ping", "-6", "-c", "1", "-W", "1", host_id, check=False)
        peer = source.host.peer(target.label)
        return (peer is not None and peer["mtu"] == NESTED_MTU) or None

    wait_until(largest, PATIENCE, f"packets of {NESTED_MTU} octets are known to fit")
    octets = str(NESTED_MTU - 48)
    wait_until(
        lambda: (
            source.host.machine.run(
                *("ping", "-6", "-M", "do", "-s", octets, "-c", "1", "-W", "1", host_id),
                check=False,
            ).returncode
            == 0
            or None
        ),
        PATIENCE,
        "an echo of that size comes back",
    )


def test_another_home_agent_takes_over_and_tcp_goes_on(homes: Homes) -> None:
    source, target = homes.of("symmetric"), homes.of("double")
    web = serve(target, "failover", LONG)
    reach(source, target)
    first = agent_of(homes, source, target)
    assert first.host.process is not None
    curl, file = fetch(source, web, RATE)
    under_way(file, UNDER_WAY)
    first.host.process.kill()
    try:
        assert is_whole(curl, file, web)
        assert agent_of(homes, source, target) is not first
    finally:
        first.host.up()
    settle(source)


def test_a_victim_gets_one_challenge_on_the_wire_and_no_data(
    homes: Homes, victim: Namespace, liar: Liar
) -> None:
    """The sheet's tests 2 and 10 (I18, I27): a host that was taken over says that it is where a
    victim is, and can send from there; it guesses the nonce, and answers from elsewhere."""
    source, target = homes.of("symmetric"), homes.of("public")
    peer = bound_peer(target, source)
    assert peer is not None
    before = unheeded(target)
    capture = homes.lab.capture(victim, "eth0", "victim", f"udp and dst host {VICTIM}")
    there = Claim.at((VICTIM, 4500)).options
    refused = liar.says(BindingUpdate(0, 600, there), victim)
    if isinstance(refused, BindingAck):
        assert refused.status == Status.SEQUENCE
        number = (refused.sequence + 1) % 65536
        challenge = liar.says(BindingUpdate(number, 600, there), victim)
    else:
        challenge, refused = refused, None
    assert isinstance(challenge, Aotc)
    wrong = bytes(octet ^ 0xFF for octet in challenge.nonce)
    assert liar.says(Aotr(wrong), victim, wait=0.5) is None
    assert liar.says(Aotr(challenge.nonce), victim, port=4501, wait=0.5) is None
    host_id = source.host.status()["host"]["id"]
    target.host.machine.run("ping", "-6", "-c", "30", "-i", "0.1", "-W", "10", host_id, timeout=60)
    capture.stop()
    assert capture.packets() == (1 if refused is None else 2), "small answers, one for one"
    after = target.host.peer(source.label)
    assert after is not None
    assert (after["path"], after["endpoint"]) == ("direct", peer["endpoint"])
    before |= {"nonce": before.get("nonce", 0) + 2}
    if refused is not None:
        before |= {"sequence": before.get("sequence", 0) + 1}
    assert unheeded(target) == before


def test_numbers_and_places_on_the_wire(homes: Homes, victim: Namespace, liar: Liar) -> None:
    """The sheet's tests 1 and 11: every update names another address than it comes from, so that
    none is accepted; those of the window are told the last number."""
    source, target = homes.of("symmetric"), homes.of("public")
    before = bound_peer(target, source)
    assert before is not None
    options = Claim.at((ELSEWHERE, 4500)).options

    def answer(number: int) -> BindingAck:
        update = BindingUpdate(number % 65536, 600, options)
        return insists(lambda: liar.says(update, victim, next(PORTS), wait=2.0), BindingAck)

    first = [answer(number) for number in (0, 32768)]  # one of them at least is old
    last = next(one.sequence for one in first if one.status == Status.SEQUENCE)
    for number in (last, last - 15, last - 32768):
        said = answer(number)
        assert (said.status, said.sequence) == (Status.SEQUENCE, last)
    refused = unheeded(target).get("care_of", 0)
    newest = answer(last + 32767)
    assert (newest.status, newest.lifetime) == (Status.INVALID_CARE_OF, 0)
    assert unheeded(target)["care_of"] > refused
    after = bound_peer(target, source)
    assert after is not None
    assert (after["path"], after["endpoint"]) == ("direct", before["endpoint"])


def test_an_early_proof_on_the_wire(homes: Homes, victim: Namespace, liar: Liar) -> None:
    """The sheet's test 9: a test and its verdict, the verdict at once where it is proven, and
    silence for who is not registered: no host is with a home agent in this sense (I29)."""
    source, target = homes.of("symmetric"), homes.of("public")
    port = next(PORTS)

    def answer(message: Message, kind: type[_T]) -> _T:
        return insists(lambda: liar.says(message, victim, port, wait=2.0), kind)

    challenge = answer(Aoto(), Aotc)
    verdicts = [answer(message, Aots) for message in (Aotr(challenge.nonce), Aoto())]
    assert verdicts == [Aots(Verdict.VALID)] * 2
    peer = bound_peer(target, source)
    assert peer is not None
    assert not str(peer["endpoint"]).startswith(VICTIM), "proven, not used"

    agent = homes.agents[0]
    before = unheeded(agent).get("unregistered", 0)
    capture = homes.lab.capture(victim, "eth0", "silence", f"udp and src host {agent.outer}")
    assert Liar(source, agent).says(Aoto(), victim, port, wait=0.5) is None
    wait_until(
        lambda: unheeded(agent).get("unregistered", 0) > before, PATIENCE, "it was not heeded"
    )
    capture.stop()
    assert capture.packets() == 0


def insists(say: Callable[[], object], kind: type[_T]) -> _T:
    """Say it until there is an answer of this kind: who says more than three messages a second gets
    none."""

    def heard() -> _T | None:
        said = say()
        return said if isinstance(said, kind) else None

    return wait_until(heard, PATIENCE, f"there is a {kind.__name__}")


def bound_peer(home: Home, other: Home) -> dict[str, Any] | None:
    """What a host says of a peer, once there is an SA for mobility messages and a binding."""
    peer = home.host.peer(other.label)
    if peer is None or "protocol 135" not in {one["traffic"] for one in peer["children"]}:
        return None
    return peer if home.host.status()["mobility"]["bindings"] else None


def registrations(home: Home) -> int:
    """How many know where it is."""
    number: int = home.host.status()["mobility"]["registrations"]
    return number


def unheeded(home: Home) -> dict[str, int]:
    """The mobility messages that a host did not heed, by reason."""
    refused: dict[str, int] = home.host.status()["mobility"]["refused"]
    return refused


def test_a_direct_path_that_is_cut_is_left_at_once_and_tcp_goes_on(homes: Homes) -> None:
    source, target = homes.of("symmetric"), homes.of("public")
    web = serve(target, "fallback", LONG)
    reach(source, target)
    assert path_of(source, target) == "direct"
    router = source.routers[0]
    cut = f"ip daddr {target.outer} udp dport 4500 drop\nip saddr {target.outer} drop\n"
    hook = "type filter hook forward priority -10"
    rules = f"table ip cut {{\nchain it {{\n{hook}\n{cut}}}\n}}\n"
    curl, file = fetch(source, web, RATE)
    under_way(file, UNDER_WAY)
    router.run("nft", "-f", "-", stdin=rules)
    try:
        assert is_whole(curl, file, web)
        assert path_of(source, target) == "relay"
    finally:
        router.run("nft", "delete", "table", "ip", "cut")
