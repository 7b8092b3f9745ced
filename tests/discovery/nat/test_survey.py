"""The survey of a network, on NATs of every kind in memory, and over real sockets."""

from __future__ import annotations

import heapq
import itertools
import random as pseudo
from collections.abc import Callable

import pytest

from discovery.io_stun import StunServer
from discovery.io_survey import survey
from discovery.nat import stun
from discovery.nat.survey import WAITS, Filtering, SendFrom, Survey, Surveyed, Which
from discovery.nat.types import Endpoint

SERVER, NEAR, FAR = "203.0.113.1", ("203.0.113.1", 3478), ("203.0.113.1", 3479)
OUTSIDE = "198.51.100.7"
INSIDE: dict[Which, Endpoint] = {"first": ("192.168.1.9", 50001), "second": ("192.168.1.9", 50002)}
PATIENCE = 3 * sum(WAITS)


class Net:
    """What stands between the two sockets and the server: a NAT, a firewall, or nothing."""

    def __init__(
        self,
        *,
        lets_in: str = "port",
        translates: bool = True,
        hairpin: bool = False,
        blocked: bool = False,
        two_ports: bool = True,
        loss: Callable[[], bool] = lambda: False,
    ) -> None:
        self.lets_in, self.translates, self.hairpin = lets_in, translates, hairpin
        self.blocked, self.two_ports, self.loss = blocked, two_ports, loss
        self.sent_to: set[tuple[Which, Endpoint]] = set()

    def outer(self, which: Which) -> Endpoint:
        inside = INSIDE[which]
        return (OUTSIDE, inside[1] + 10_000) if self.translates else inside

    def carry(self, command: SendFrom) -> list[tuple[Which, bytes, Endpoint]]:
        """Whom of us a datagram brings what, from where."""
        if self.blocked or self.loss():
            return []
        self.sent_to.add((command.which, command.to))
        for which in INSIDE:
            if command.to == self.outer(which):
                back = (which, command.data, self.outer(command.which))
                return [back] if self.hairpin else []
        if command.to != NEAR:
            return []
        seen = self.outer(command.which)
        reply = stun.answer(command.data, seen, changes_port=self.two_ports)
        changed = self.two_ports and stun.wants_other_port(command.data)
        source = FAR if changed else NEAR
        known = (command.which, source) in self.sent_to
        if reply is None or not (known or self.lets_in != "port") or self.loss():
            return []
        return [(command.which, reply, source)]


def run(net: Net) -> tuple[Surveyed, float]:
    """The survey on a virtual clock: what it found, and how long it took."""
    machine = Survey(SERVER, (3478, 3479), INSIDE["first"], pseudo.Random(1).randbytes)
    order = itertools.count()
    now = 0.0
    heap: list[tuple[float, int, Which, bytes, Endpoint]] = []

    def send(commands: list[SendFrom]) -> None:
        for command in commands:
            for which, data, source in net.carry(command):
                heapq.heappush(heap, (now + 0.02, next(order), which, data, source))

    send(machine.start(now))
    while (found := machine.result()) is None:
        due = machine.next_timer()
        assert due is not None and now < PATIENCE
        if heap and heap[0][0] <= due:
            now, _, which, data, source = heapq.heappop(heap)
            send(machine.received(which, data, source, now))
        else:
            now = due
            send(machine.advance(now))
    return found, now


@pytest.mark.parametrize("translates", [True, False])
@pytest.mark.parametrize("lets_in", ["address", "port"])
def test_whom_the_network_lets_in(translates: bool, lets_in: Filtering) -> None:
    found, _ = run(Net(lets_in=lets_in, translates=translates))
    seen = (OUTSIDE, 60001) if translates else INSIDE["first"]
    assert found == Surveyed(True, seen, lets_in, False if translates else None)


def test_a_nat_that_leads_back_inside() -> None:
    found, took = run(Net(lets_in="address", hairpin=True))
    assert found.hairpin is True
    assert took < 1


def test_a_network_where_udp_does_not_get_out() -> None:
    found, took = run(Net(blocked=True))
    assert found == Surveyed(udp=False)
    assert took == sum(WAITS)


def test_a_rendezvous_with_one_port_cannot_tell_whom_the_network_lets_in() -> None:
    found, _ = run(Net(two_ports=False))
    assert (found.udp, found.filtering) == (True, "")


@pytest.mark.parametrize("lost", range(8))
def test_a_lost_datagram_costs_time_and_nothing_else(lost: int) -> None:
    count = itertools.count()
    found, took = run(Net(lets_in="address", hairpin=True, loss=lambda: next(count) == lost))
    assert found == Surveyed(True, (OUTSIDE, 60001), "address", True)
    assert took < sum(WAITS)


def test_strangers_are_not_believed() -> None:
    machine = Survey(SERVER, (3478, 3479), INSIDE["first"], pseudo.Random(1).randbytes)
    (asked,) = machine.start(0.0)
    reply = stun.answer(asked.data, (OUTSIDE, 60001)) or b""
    other = stun.answer(stun.ask(bytes(12)), (OUTSIDE, 60001)) or b""
    told: list[tuple[Which, bytes, Endpoint]] = [
        ("first", reply, FAR),
        ("first", reply, ("192.0.2.66", 3478)),
        ("second", reply, NEAR),
        ("first", other, NEAR),
        ("first", asked.data, NEAR),
        ("first", b"", NEAR),
        ("first", b"\xff" * 40, NEAR),
    ]
    for which, data, source in told:
        assert machine.received(which, data, source, 0.1) == []
    assert machine.result() is None
    assert machine.received("first", reply, NEAR, 0.2)
    assert machine.received("first", reply, NEAR, 0.2) == []


async def test_over_real_sockets() -> None:
    server = StunServer((("127.0.0.1", 0), ("127.0.0.1", 0)))
    await server.start()
    (_, near), (_, far) = server.listening
    try:
        found = await survey("127.0.0.1", (near, far), "127.0.0.1")
    finally:
        server.stop()
    assert found.udp
    assert (found.filtering, found.hairpin) == ("address", None)
    assert found.seen is not None
    assert found.seen[0] == "127.0.0.1"


async def test_an_address_that_is_not_ours_is_no_fault() -> None:
    assert await survey("203.0.113.1", (3478, 3479), "192.0.2.77") == Surveyed(udp=False)
