"""The race: which protocol begins when, who wins, and what happens to what the others granted."""

from __future__ import annotations

import random as pseudo
import struct

import pytest

from discovery.nat.mapper import Doubt, Gateway, Mapper, MapperCommand, UpnpSearch, Way
from discovery.nat.pcp import mapped
from discovery.nat.types import Method, SendNat, UpnpCall

ROUTER, OTHER = "192.168.1.1", "192.168.2.1"
HOME = Gateway(ROUTER, ("192.168.1.10", 4500))
SECOND = Gateway(OTHER, ("192.168.2.10", 4500))
SIX = Gateway("fe80::1", ("2001:db8::10", 4500))
ALL: tuple[Method, ...] = ("pcp", "nat-pmp", "upnp")


def mapper(methods: tuple[Method, ...] = ALL) -> Mapper:
    return Mapper(methods, pseudo.Random(1).randbytes)


def pcp_reply(ask: SendNat, address: str = "203.0.113.9", result: int = 0, port: int = 4500):
    life = 7200 if ask.data[4:8] != bytes(4) else 0
    head = struct.pack("!BBBBII", 2, 0x81, 0, result, life, 1000) + bytes(12)
    return head + ask.data[24:42] + struct.pack("!H", port) + mapped(address), ask.to


def pmp_replies(address: str = "203.0.113.9", port: int = 4500) -> tuple[bytes, bytes]:
    first = struct.pack("!BBHI4B", 0, 0x80, 0, 1000, *map(int, address.split(".")))
    return first, struct.pack("!BBHIHHI", 0, 0x81, 0, 1000, 4500, port, 7200)


def sends(commands: list[MapperCommand], to: str | None = None) -> list[SendNat]:
    found = [one for one in commands if isinstance(one, SendNat)]
    return [one for one in found if to is None or one.to[0] == to]


def ways(commands: list[MapperCommand]) -> list[Way]:
    return [one for one in commands if isinstance(one, Way)]


def until(machine: Mapper, end: float) -> list[tuple[float, MapperCommand]]:
    """All that time brings up to ``end``."""
    out: list[tuple[float, MapperCommand]] = []
    while (due := machine.next_timer()) is not None and due <= end:
        out += [(due, one) for one in machine.advance(due)]
    return out


def test_pcp_begins_then_nat_pmp_then_the_search_for_upnp() -> None:
    machine = mapper()
    (first,) = machine.network([HOME], 10.0)
    assert isinstance(first, SendNat)
    assert first.data[0] == 2
    later = until(machine, 12.5)
    pmp = next(at for at, one in later if isinstance(one, SendNat) and one.data == b"\0\0")
    search = next(at for at, one in later if isinstance(one, UpnpSearch))
    assert (pmp, search) == (11.0, 12.0)


def test_the_first_mapping_ends_the_race() -> None:
    machine = mapper()
    (ask,) = machine.network([HOME], 0.0)
    assert isinstance(ask, SendNat)
    (way,) = machine.receive(*pcp_reply(ask), 0.1)
    assert isinstance(way, Way)
    assert way.mapping is not None
    assert way.mapping.external == ("203.0.113.9", 4500)
    assert machine.way() == way.mapping
    assert until(machine, 3000.0) == []  # nobody else is asked


def test_a_gateway_of_nat_pmp_is_asked_in_its_own_words_at_once() -> None:
    machine = mapper()
    machine.network([HOME], 0.0)
    out = machine.receive(bytes.fromhex("0081000100000bb8"), (ROUTER, 5351), 0.1)
    assert [one.data for one in sends(out)] == [b"\0\0"]
    address, port = pmp_replies()
    machine.receive(address, (ROUTER, 5351), 0.2)
    (way,) = machine.receive(port, (ROUTER, 5351), 0.3)
    assert isinstance(way, Way)
    assert way.mapping is not None
    assert way.mapping.method == "nat-pmp"


def test_a_late_answer_in_the_other_protocol_counts() -> None:
    """miniupnpd can answer a NAT-PMP question while a PCP one is awaited."""
    machine = mapper()
    machine.network([HOME], 0.0)
    until(machine, 9.0)
    address, port = pmp_replies()
    machine.receive(address, (ROUTER, 5351), 9.1)
    assert ways(machine.receive(port, (ROUTER, 5351), 9.2))


def test_every_gateway_is_asked_and_the_mapping_that_reaches_outside_wins() -> None:
    """B33: what is granted inside another NAT is kept only until there is better, and returned."""
    machine = mapper()
    asks = sends(machine.network([HOME, SECOND], 0.0))
    assert [one.to[0] for one in asks] == [ROUTER, OTHER]
    (inner,) = machine.receive(*pcp_reply(asks[0], "192.168.0.17"), 0.1)
    assert isinstance(inner, Way)
    assert inner.mapping is not None
    assert inner.mapping.double_nat
    out = machine.receive(*pcp_reply(asks[1]), 0.2)
    (way,) = ways(out)
    assert way.mapping is not None
    assert way.mapping.gateway == OTHER
    (goodbye,) = sends(out, ROUTER)
    assert goodbye.data[4:8] == bytes(4)


def test_ipv6_has_a_race_of_its_own_and_no_nat_pmp() -> None:
    machine = mapper()
    asks = sends(machine.network([HOME, SIX], 0.0))
    assert [one.to[0] for one in asks] == [ROUTER, "fe80::1"]
    machine.receive(*pcp_reply(asks[0]), 0.1)
    (way,) = machine.receive(*pcp_reply(asks[1], "2001:db8::10"), 0.2)
    assert isinstance(way, Way)
    assert machine.way() is not None
    assert machine.way(ipv6=True) == way.mapping
    assert all(":" not in one.to[0] for _, one in until(machine, 5) if isinstance(one, SendNat))


def test_a_lost_mapping_begins_the_race_again_and_asks_for_the_same_port() -> None:
    """B28."""
    machine = mapper(("nat-pmp",))
    machine.network([HOME], 0.0)
    address, port = pmp_replies(port=61000)
    machine.receive(address, (ROUTER, 5351), 0.1)
    machine.receive(port, (ROUTER, 5351), 0.2)
    until(machine, 3600.2)  # the renewal
    refusal = struct.pack("!BBHI4B", 0, 0x80, 3, 4600, 0, 0, 0, 0)
    (gone,) = machine.receive(refusal, (ROUTER, 5351), 3600.4)
    assert isinstance(gone, Way)
    assert gone.mapping is None
    assert "external address" in gone.reason
    again = until(machine, 3901.0)
    assert [one for _, one in again if isinstance(one, SendNat)]
    (ask,) = sends(machine.receive(address, (ROUTER, 5351), 3901.0))
    assert ask.data[6:8] == struct.pack("!H", 61000)


def test_a_router_that_restarted_is_doubted_until_it_has_answered() -> None:
    """Its mapping may be gone and its address another one: others may be asked meanwhile."""
    machine = mapper()
    (ask,) = machine.network([HOME], 0.0)
    assert isinstance(ask, SendNat)
    machine.receive(*pcp_reply(ask), 0.1)
    restarted = struct.pack("!BBBBII", 2, 0x80, 0, 0, 0, 3) + bytes(12)
    assert machine.receive(restarted, (ROUTER, 5351), 50.0) == [Doubt()]
    assert machine.doubted
    assert machine.receive(restarted, (ROUTER, 5351), 50.1) == []
    (_, again), *_ = until(machine, 55.2)
    assert isinstance(again, SendNat)
    answer, source = pcp_reply(again)  # what it said before
    (way,) = machine.receive(answer, source, 55.2)
    assert isinstance(way, Way)
    assert not machine.doubted


def test_another_network_begins_anew() -> None:
    machine = mapper()
    (ask,) = machine.network([HOME], 0.0)
    assert isinstance(ask, SendNat)
    machine.receive(*pcp_reply(ask), 0.1)
    (ask,) = machine.network([SECOND], 50.0)
    assert isinstance(ask, SendNat)
    assert ask.to[0] == OTHER
    assert machine.way() is None
    assert machine.receive(*pcp_reply(ask, port=1), 50.1)


@pytest.mark.parametrize(
    ("gateway", "local"), [("192.168.1.2", "192.168.1.10"), (ROUTER, "192.168.9.9")]
)
def test_only_our_own_routers_are_used_through_upnp(gateway: str, local: str) -> None:
    machine = mapper(("upnp",))
    assert machine.network([HOME], 0.0) == [UpnpSearch()]
    assert machine.upnp_found(gateway, 1, local, 0.1) == []


def test_upnp_alone_maps() -> None:
    machine = mapper(("upnp",))
    machine.network([HOME], 0.0)
    (call,) = machine.upnp_found(ROUTER, 1, "192.168.1.10", 0.1)
    assert isinstance(call, UpnpCall)
    (call,) = machine.upnp_answered(call.ticket, {}, 0.2)
    assert isinstance(call, UpnpCall)
    (way,) = machine.upnp_answered(call.ticket, {"NewExternalIPAddress": "203.0.113.9"}, 0.3)
    assert isinstance(way, Way)
    assert way.mapping is not None
    assert way.mapping.method == "upnp"
    (goodbye,) = machine.stop(1.0)
    assert isinstance(goodbye, UpnpCall)
    assert goodbye.action == "DeletePortMapping"


def test_an_icmp_error_is_an_answer_too() -> None:
    machine = mapper(("pcp", "nat-pmp"))
    machine.network([HOME], 0.0)
    until(machine, 1.0)
    machine.refused(ROUTER, 1.1)
    assert set(machine.answers) == {(ROUTER, "pcp"), (ROUTER, "nat-pmp")}
    assert all("nothing listens" in said for said in machine.answers.values())


def test_without_methods_nobody_is_asked() -> None:
    machine = mapper(())
    assert machine.network([HOME], 0.0) == []
    assert machine.next_timer() is None


@pytest.mark.parametrize("method", ["pcp", "nat-pmp"])
def test_a_router_that_is_asked_again_tells_its_new_address(method: Method) -> None:
    machine = mapper((method,))

    def talk(asked: list[MapperCommand], address: str, now: float) -> list[MapperCommand]:
        """Plays the router until it has nothing to answer."""
        told: list[MapperCommand] = []
        while asked:
            ask = asked.pop(0)
            if not isinstance(ask, SendNat):
                told.append(ask)
            elif method == "pcp":
                data, source = pcp_reply(ask, address)
                asked += machine.receive(data, source, now)
            else:
                first, second = pmp_replies(address)
                asked += machine.receive(first if len(ask.data) == 2 else second, ask.to, now)
        return told

    assert talk(machine.network([HOME], 0.0), "203.0.113.9", 0.1)
    assert talk(machine.refresh(1.0), "203.0.113.9", 1.1) == []  # nothing new
    (way,) = ways(talk(machine.refresh(20.0), "203.0.113.77", 20.1))
    assert way.mapping is not None
    assert way.mapping.external == ("203.0.113.77", 4500)
    machine.refresh(40.0)  # it does not answer: what it granted holds
    until(machine, 100.0)
    held = machine.way()
    assert held is not None
    assert held.external == ("203.0.113.77", 4500)
    assert mapper((method,)).refresh(0.0) == []


def test_upnp_is_not_asked_before_its_time() -> None:
    machine = mapper(("upnp",))
    machine.network([HOME], 0.0)
    (call,) = machine.upnp_found(ROUTER, 1, "192.168.1.10", 0.1)
    assert isinstance(call, UpnpCall)
    (call,) = machine.upnp_answered(call.ticket, {}, 0.2)
    assert isinstance(call, UpnpCall)
    machine.upnp_answered(call.ticket, {"NewExternalIPAddress": "203.0.113.9"}, 0.3)
    assert machine.refresh(1.0) == []
