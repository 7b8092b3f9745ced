"""What a stock miniupnpd really does, octet by octet: what our machines were built for.

Each fact has its test, so that a newer one that does otherwise is noticed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from discovery.nat import natpmp, pcp
from tests.namespaces.test_mapping import HOST, INNER, INNER6, PATIENCE, WAN, Home
from tunnel.io.lab import Lab, Process, missing, read_packets, wait_until
from tunnel.io.lab.nat import INSIDE, OUTSIDE

pytestmark = pytest.mark.root

ELSEWHERE = "192.0.1.99"
NONCE, OTHER = bytes(range(12)), bytes(range(100, 112))
NOT_AUTHORIZED, NO_RESOURCES = 2, 8
PREFER_FAILURE = bytes((2, 0, 0, 0))


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    """One router for all that asks only."""
    if (reason := missing(("miniupnpd", "nft"), tun=False)) is not None:
        pytest.skip(reason)
    with Lab() as lab:
        made = Home(lab)
        made.mapper.start()
        yield made


def say(home: Home, *messages: bytes) -> list[bytes]:
    """What is answered to each message of a host inside, one after the other."""
    texts = [message.hex() for message in messages]
    done = home.host.run(sys.executable, "-c", ASK, INNER, *texts, timeout=60.0)
    return [bytes.fromhex(line) for line in done.stdout.split("\n")[:-1]]


def pcp_map(port: int, lifetime: int = 600, wish: int = 0, nonce: bytes = NONCE) -> bytes:
    return pcp.map_request((HOST, port), nonce, lifetime, ("0.0.0.0", wish))


# --- Requests and answers ---------------------------------------------------------------------


def test_a_suggested_port_of_0_gives_the_inner_one(home: Home) -> None:
    nat, port_control = say(home, natpmp.mapping_request(5001, 0, 600), pcp_map(5002))
    one, other = natpmp.read_reply(nat), pcp.read_reply(port_control)
    assert one is not None and other is not None
    assert (one.result, one.external_port) == (0, 5001)
    assert (other.result, other.external) == (0, (WAN, 5002))


def test_a_delete_succeeds_whether_there_is_a_mapping_or_not(home: Home) -> None:
    """B30: with external port 0 and lifetime 0."""
    replies = say(
        home,
        natpmp.mapping_request(5003, 5003, 600),
        natpmp.mapping_request(5003, 0, 0),
        natpmp.mapping_request(5004, 0, 0),
    )
    for data in replies[1:]:
        reply = natpmp.read_reply(data)
        assert reply is not None
        assert (reply.result, reply.external_port, reply.lifetime) == (0, 0, 0)


def test_unknown_versions_and_opcodes_are_refused(home: Home) -> None:
    version, opcode = say(home, bytes((9, 0)) + bytes(22), bytes((0, 77)) + bytes(10))
    assert version[:4] == bytes((2, 0x80, 0, 1))
    assert (len(opcode), opcode[1], int.from_bytes(opcode[2:4])) == (8, 77 | 0x80, 5)


def test_another_nonce_takes_a_mapping_over_and_the_first_may_not_delete_it(home: Home) -> None:
    replies = [
        pcp.read_reply(data)
        for data in say(
            home,
            pcp_map(5005, nonce=NONCE),
            pcp_map(5005, nonce=OTHER),
            pcp_map(5005, lifetime=0, nonce=NONCE),
            pcp_map(5005, lifetime=0, nonce=OTHER),
        )
    ]
    assert [reply.result for reply in replies if reply] == [0, 0, NOT_AUTHORIZED, 0]


def test_prefer_failure_is_echoed_and_not_honoured(home: Home) -> None:
    """Whoever must have one port looks at what it got."""
    home.host.address("eth0", "192.168.7.11/24")
    say(home, natpmp.mapping_request(5006, 5006, 600))
    asked = pcp_map(5007, wish=5006) + PREFER_FAILURE
    (data,) = say(home, asked)
    reply = pcp.read_reply(data)
    assert reply is not None
    assert data.endswith(PREFER_FAILURE)
    assert reply.result == 0
    assert reply.external[1] not in (0, 5006)


def test_lifetimes_are_bounded_by_pcp_alone(home: Home) -> None:
    nat, port_control = say(
        home, natpmp.mapping_request(5008, 5008, 1_000_000), pcp_map(5009, lifetime=1_000_000)
    )
    one, other = natpmp.read_reply(nat), pcp.read_reply(port_control)
    assert one is not None and other is not None
    assert one.lifetime == 1_000_000
    assert other.lifetime == 86_400


# --- Restarts and announcements ---------------------------------------------------------------


def hear(home: Home) -> Process:
    """Announcements as they come to a host: hex, a line each."""
    heard = home.host.start(sys.executable, "-c", HEAR, name="hear")
    heard.wait_for("joined", PATIENCE)
    return heard


def announced(heard: Process) -> list[bytes]:
    return [bytes.fromhex(line) for line in heard.output().splitlines() if line != "joined"]


def test_a_restart_is_announced_once_by_pcp_and_mappings_survive_it(lab: Lab) -> None:
    """B28, B32: one ANNOUNCE to each group, none in NAT-PMP. That of IPv6 names no link, and may
    leave by the wrong one: renewals find out. (A restart is no power cut: the rules in the kernel
    stay, without an end.)"""
    home = Home(lab)
    home.speak_ipv6()
    home.mapper.start()
    say(home, natpmp.mapping_request(4500, 4500, 600))
    heard = hear(home)
    captures = [
        lab.capture(home.router, device, device, "udp port 5350") for device in (INSIDE, OUTSIDE)
    ]
    home.mapper.stop()
    assert f"{HOST}:4500" in home.mapper.mappings()
    home.mapper.start()
    wait_until(lambda: announced(heard), PATIENCE, "the host hears of it")
    (reply,) = say(home, natpmp.mapping_request(4500, 4500, 600))  # it is up, and has said all
    again = natpmp.read_reply(reply)
    assert again is not None
    assert (again.result, again.external_port) == (0, 4500)
    for capture in captures:
        capture.stop()
    sent = [packet for capture in captures for packet in read_packets(capture.file)]
    assert sorted(packet.target for packet in sent) == [("224.0.0.1", 5350), ("ff02::1", 5350)]
    for data in (*announced(heard), *(packet.payload for packet in sent)):
        seen = pcp.read_reply(data)
        assert seen is not None
        assert (seen.opcode, seen.result) == (pcp.ANNOUNCE, 0)


def test_a_changed_address_is_announced_first_as_it_was(lab: Lab) -> None:
    """B32: in NAT-PMP; the clock begins anew with the new address. The later word counts."""
    home = Home(lab)
    home.mapper.start()
    heard = hear(home)
    home.router.ip("address", "del", f"{WAN}/24", "dev", OUTSIDE)
    home.router.ip("address", "add", f"{ELSEWHERE}/24", "dev", OUTSIDE)
    home.mapper.announce_address()

    def told() -> list[natpmp.Reply]:
        return [one for data in announced(heard) if (one := natpmp.read_reply(data)) is not None]

    wait_until(lambda: any(one.address == ELSEWHERE for one in told()), PATIENCE, "it is told")
    addresses = [one.address for one in told()]
    assert addresses == sorted(addresses, key=lambda one: one == ELSEWHERE)  # old ones first
    assert next(one.epoch for one in told() if one.address == ELSEWHERE) <= 1


# --- Behind another NAT -----------------------------------------------------------------------


@pytest.mark.parametrize("outside", ["192.168.0.17", "100.64.0.17", "203.0.113.17"])
def test_a_private_shared_or_documentation_address_outside_is_refused(
    lab: Lab, outside: str
) -> None:
    """B33: result 3 with address 0.0.0.0, result 8 with that address in its answer."""
    home = Home(lab)
    home.router.ip("address", "del", f"{WAN}/24", "dev", OUTSIDE)
    home.router.ip("address", "add", f"{outside}/24", "dev", OUTSIDE)
    home.mapper.start()
    address, mapping, port_control = say(
        home, natpmp.address_request(), natpmp.mapping_request(4500, 4500, 600), pcp_map(4500)
    )
    assert (address[3], address[8:12]) == (3, bytes(4))
    assert int.from_bytes(mapping[2:4]) == 3
    reply = pcp.read_reply(port_control)
    assert reply is not None
    assert (reply.result, reply.external[0]) == (NO_RESOURCES, outside)


def test_with_its_stun_the_address_is_right_and_the_mapping_fails_still(lab: Lab) -> None:
    """Both answers count, never the address alone: what asks a STUN server for its address learns
    the outer one, and can map nothing there."""
    server = ("ext_perform_stun=yes", "ext_stun_host=192.0.1.200", "ext_stun_port=3478")
    home = Home(lab, more=server)
    home.router.ip("address", "del", f"{WAN}/24", "dev", OUTSIDE)
    home.router.ip("address", "add", "100.64.0.17/24", "dev", OUTSIDE)
    home.router.ip("route", "add", "192.0.1.0/24", "dev", OUTSIDE)
    home.outer.ip("route", "add", "100.64.0.0/24", "dev", "eth0")
    answering = home.outer.start(sys.executable, "-c", STUN, name="stun")
    answering.wait_for("bound", PATIENCE)
    home.mapper.start()
    address, mapping = say(home, natpmp.address_request(), natpmp.mapping_request(4500, 4500, 600))
    assert (address[3], address[8:12]) == (0, bytes((192, 0, 1, 77))), home.mapper.said
    assert int.from_bytes(mapping[2:4]) != 0, home.mapper.said


def test_its_ipv6_pinholes_are_made_by_pcp_alone(lab: Lab) -> None:
    """NAT-PMP knows no IPv6: a request in it over IPv6 maps nothing."""
    home = Home(lab)
    home.speak_ipv6()
    home.mapper.start()
    done = home.host.run(
        *(sys.executable, "-c", ASK, INNER6, natpmp.mapping_request(4500, 4500, 600).hex()),
        timeout=60.0,
    )
    answer = bytes.fromhex(done.stdout.strip())
    assert not answer or int.from_bytes(answer[2:4]) != 0
    assert "dport 4500" not in home.mapper.pinholes()


ASK = """
import socket, sys
kind = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
s = socket.socket(kind, socket.SOCK_DGRAM)
s.settimeout(3)
s.connect((sys.argv[1], 5351))
for text in sys.argv[2:]:
    answer = b""
    for _ in range(4):
        s.send(bytes.fromhex(text))
        try:
            answer = s.recv(2000)
            break
        except TimeoutError:
            pass
    print(answer.hex(), flush=True)
"""
HEAR = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("224.0.0.1", 5350))
joined = socket.inet_aton("224.0.0.1") + socket.inet_aton("192.168.7.10")
s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
print("joined", flush=True)
while True:
    print(s.recv(2000).hex(), flush=True)
"""
STUN = """
import socket
from discovery.nat import stun
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 3478))
print("bound", flush=True)
while True:
    data, there = s.recvfrom(2000)
    answer = stun.answer(data, ("192.0.1.77", there[1]))  # as through another NAT
    if answer:
        s.sendto(answer, there)
"""
