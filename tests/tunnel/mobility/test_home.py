"""Registration with the home agent: BU with H and BA, no test (I29, I53; RFC 6275 §10.3, §11.7)."""

from __future__ import annotations

from ipaddress import IPv4Address
from itertools import pairwise

import pytest

from tests.tunnel.mobility.network import A1, A2, H1, Network
from tunnel.mobility.claims import Claim
from tunnel.mobility.commands import (
    HomeBound,
    HomeUnbound,
    NotRegistered,
    Refused,
    Registered,
    Send,
)
from tunnel.mobility.header import BindingAck, BindingUpdate, Status
from tunnel.mobility.home import HomeAgent, HomeBinding
from tunnel.mobility.limits import MobilitySettings, is_old
from tunnel.mobility.mobile import Mobile
from tunnel.mobility.options import Ipv4Acknowledgement, Ipv4Home, NatDetection, first


@pytest.fixture
def net() -> Network:
    network = Network()
    network.host("h", H1, HomeAgent(hosts=2))
    network.host("a", A1)
    return network


def test_a_host_registers_with_two_messages_and_no_test_i29_i53(net: Network) -> None:
    net.register("a", "h", home=True)
    assert net.run() == ["a BU 192.0.2.1", "h BA 198.51.100.7"]
    assert net.said["h"] == [HomeBound("a", A1)]
    assert net.said["a"] == [Registered("h", A1, 3600)]


def test_a_move_is_told_at_once_and_with_two_messages(net: Network) -> None:
    net.register("a", "h", home=True)
    net.run()
    net.where["a"] = A2
    net.register("a", "h", home=True)
    assert net.run() == ["a BU 192.0.2.1", "h BA 198.51.100.8"]
    assert net.said["h"][-1] == HomeBound("a", A2)


def test_it_is_refreshed_before_its_end_and_ends_without(net: Network) -> None:
    net.register("a", "h", home=True)
    net.run()
    net.wait(2700)
    assert net.run() == ["a BU 192.0.2.1", "h BA 198.51.100.7"]
    assert [one for one in net.said["h"] if isinstance(one, HomeBound)] == [HomeBound("a", A1)]
    assert net.said["a"][-1] == Registered("h", A1, 3600, fresh=False)
    net.where["h"] = ("192.0.2.99", 1)  # nobody hears the refreshes any more
    for _ in range(10):
        net.wait(360)
        net.lose()
    assert HomeUnbound("a", "its registration ended") in net.said["h"]
    assert any(one.reason == "the binding ended" for one in ends(net))


def ends(net: Network) -> list[NotRegistered]:
    return [one for one in net.said["a"] if isinstance(one, NotRegistered)]


def test_retransmission_doubles_from_a_second_and_a_half_to_32_with_greater_numbers(
    net: Network,
) -> None:
    net.register("a", "h", home=True)
    times, numbers = [], []
    start = net.now
    for _ in range(8):
        (letter,) = net.letters
        times.append(net.now - start)
        message = letter.message
        assert isinstance(message, BindingUpdate) and message.home and message.acknowledge
        numbers.append(message.sequence)
        net.letters.clear()
        due = net.hosts["a"].next_timer()
        assert due is not None
        net.wait(due - net.now)
    pauses = [b - a for a, b in pairwise(times)]
    assert pauses == [1.5, 3.0, 6.0, 12.0, 24.0, 32.0, 32.0]
    assert all((b - a) % 65536 == 1 for a, b in pairwise(numbers))
    assert [one.tries for one in ends(net)] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_it_is_taken_back_with_lifetime_0(net: Network) -> None:
    net.register("a", "h", home=True)
    net.run()
    net.take("a", net.hosts["a"].deregister("h", net.now))
    assert net.run() == ["a BU 192.0.2.1", "h BA 198.51.100.7"]
    assert net.said["h"][-1] == HomeUnbound("a", "it took its registration back")
    assert net.said["a"][-1] == NotRegistered("h", None, 1, "we took it back")
    assert net.hosts["a"].next_timer() is None and net.hosts["h"].next_timer() is None


def test_a_farewell_that_nobody_hears_ends_after_three(net: Network) -> None:
    net.register("a", "h", home=True)
    net.run()
    net.take("a", net.hosts["a"].deregister("h", net.now))
    net.wait(60)
    assert net.lose() == ["a BU 192.0.2.1"] * 3
    assert net.hosts["a"].next_timer() is None


# --- The home agent alone ------------------------------------------------------------------


def status(commands: list[object]) -> BindingAck:
    (answer,) = [one.message for one in commands if isinstance(one, Send)]
    assert isinstance(answer, BindingAck)
    return answer


def update(sequence: int, lifetime: int = 600, *options: object) -> BindingUpdate:
    return BindingUpdate(sequence, lifetime, options, home=True)


def test_the_lifetime_is_granted_up_to_the_longest() -> None:
    agent = HomeAgent(settings=MobilitySettings(longest=1000))
    assert status(list(agent.update("a", update(1, 600), A1, 0.0))).lifetime == 600
    assert status(list(agent.update("a", update(2, 3600), A1, 1.0))).lifetime == 1000
    assert agent.next_timer() == 1001.0


@pytest.mark.parametrize(
    ("sequence", "old"), [(15, True), (0, True), (32783, True), (32782, False), (16, False)]
)
def test_the_sequence_window_wraps(sequence: int, old: bool) -> None:
    """The sheet's cases for a last number of 15 (RFC 6275 §9.5.1)."""
    assert is_old(sequence, 15) is old
    agent = HomeAgent()
    agent.update("a", update(15), A1, 0.0)
    answer = status(list(agent.update("a", update(sequence), A1, 1.0)))
    assert answer.status == (Status.SEQUENCE if old else Status.ACCEPTED)
    assert answer.sequence == (15 if old else sequence)


def test_an_old_update_from_elsewhere_moves_nothing() -> None:
    agent = HomeAgent()
    agent.update("a", update(7), A1, 0.0)
    said = agent.update("a", update(7), A2, 1.0)
    assert Refused("a", A2, "sequence") in said
    assert agent.bindings["a"].endpoint == A1


def test_no_more_hosts_than_it_has_room_for() -> None:
    agent = HomeAgent(hosts=1)
    agent.update("a", update(1), A1, 0.0)
    said = agent.update("b", update(1), A2, 0.0)
    assert Refused("b", A2, "full") in said and status(list(said)).status == Status.NO_RESOURCES
    agent.update("a", update(2, 0), A1, 1.0)
    assert status(list(agent.update("b", update(2), A2, 2.0))).status == Status.ACCEPTED


def test_three_updates_a_second_and_no_more() -> None:
    agent = HomeAgent()
    said = [agent.update("a", update(n), A1, 5.0 + n / 100) for n in range(1, 9)]
    assert [Refused("a", A1, "flood")] == said[3] == said[7]
    assert status(list(agent.update("a", update(9), A1, 6.2))).status == Status.ACCEPTED


def test_a_nat_is_seen_and_the_observed_endpoint_bound() -> None:
    """RFC 5555 §4.2: the IPv4 care-of address differs from where it came from."""
    agent = HomeAgent()
    inside = Claim(None, 4500, "10.0.0.2")
    said = agent.update("a", update(1, 600, *inside.options), ("198.51.100.7", 61000), 0.0)
    assert said[0] == HomeBound("a", ("198.51.100.7", 61000))
    seen = first(status(list(said)).options, NatDetection)
    assert seen == NatDetection(110, forced=True)
    said = agent.update("a", update(2, 600, *Claim.at(A1).options), A1, 1.0)
    assert first(status(list(said)).options, NatDetection) == NatDetection(0xFFFFFFFF, True)


def test_what_is_said_is_not_bound_where_something_else_is_seen_i53() -> None:
    """RFC 5555 §4.2: whatever the message says, packets go to where it came from."""
    agent = HomeAgent()
    said = agent.update("a", update(1, 600, *Claim.at(A1).options), A2, 0.0)
    assert said[0] == HomeBound("a", A2) and agent.bindings["a"].endpoint == A2


@pytest.mark.parametrize(("wanted", "no"), [("0.0.0.0", 132), ("192.0.2.7", 129)])
def test_there_are_no_ipv4_home_addresses(wanted: str, no: int) -> None:
    agent = HomeAgent()
    home = Ipv4Home(32, IPv4Address(wanted))
    answer = status(list(agent.update("a", update(1, 600, home), A1, 0.0)))
    assert first(answer.options, Ipv4Acknowledgement) == Ipv4Acknowledgement(no, 0, home.address)


def test_nobody_is_bound_where_nobody_can_be() -> None:
    agent = HomeAgent()
    said = agent.update("a", update(1), ("224.0.0.1", 4500), 0.0)
    assert said == [Refused("a", ("224.0.0.1", 4500), "not_unicast")] and not agent.bindings


def test_a_host_that_is_forgotten_is_not_registered_and_begins_anew() -> None:
    agent = HomeAgent()
    for number in (1, 2, 3):
        agent.update("a", update(number), A1, 0.0)
    agent.update("b", update(1), A2, 0.0)
    assert agent.forget("a", "why") == [HomeUnbound("a", "why")]
    assert agent.forget("a", "why") == [] and list(agent.bindings) == ["b"]
    assert agent.update("a", update(1), A1, 0.0)[0] == HomeBound("a", A1), "with any number"


def test_what_is_taken_back_is_acknowledged_for_no_time() -> None:
    agent = HomeAgent()
    agent.update("a", update(1), A1, 0.0)
    gone = Send("a", A1, BindingAck(Status.ACCEPTED, 2, 0))
    assert agent.update("a", update(2, 0), A1, 1.0) == [
        *(HomeUnbound("a", "it took its registration back"), gone)
    ]
    again = Send("a", A1, BindingAck(Status.ACCEPTED, 3, 0))
    assert agent.update("a", update(3, 0), A1, 2.0) == [again]


def test_what_is_kept_of_a_host_is_where_it_is_until_when() -> None:
    agent = HomeAgent()
    seen = ("198.51.100.7", 61000)
    agent.update("a", update(7, 603, *Claim(None, 4500).options), seen, 10.0)
    assert agent.bindings == {"a": HomeBinding(seen, 7, 610.0, nat=True)}
    agent.update("a", update(8, 600, *Claim.at(A1).options), A1, 20.0)
    assert agent.bindings == {"a": HomeBinding(A1, 8, 620.0, nat=False)}


def test_refusals_say_no_lifetime() -> None:
    agent = HomeAgent(hosts=1)
    agent.update("a", update(7), A1, 0.0)
    old = Send("a", A2, BindingAck(Status.SEQUENCE, 7, 0))
    assert agent.update("a", update(6), A2, 0.0) == [Refused("a", A2, "sequence"), old]
    full = Send("b", A2, BindingAck(Status.NO_RESOURCES, 3, 0))
    assert agent.update("b", update(3), A2, 0.0) == [Refused("b", A2, "full"), full]


def test_all_that_end_at_once_end() -> None:
    agent = HomeAgent()
    for name in ("a", "b"):
        agent.update(name, update(1, 4), A1, 0.0)
    assert agent.next_timer() == 4.0
    assert agent.advance(4.0) == [HomeUnbound(name, "its registration ended") for name in "ab"]


# --- The mobile, refused ---------------------------------------------------------------------


def test_a_host_that_is_no_home_agent_says_so(net: Network) -> None:
    net.host("b", ("203.0.113.9", 4500))
    net.register("a", "b", home=True)
    assert net.run() == ["a BU 203.0.113.9", "b BA 198.51.100.7"]
    assert [one.status for one in ends(net)] == [Status.NO_HOME_REGISTRATION]
    assert net.hosts["b"].refused == {"home_registration": 1}
    net.wait(59.5)
    assert not net.letters
    net.wait(1)
    assert [str(one) for one in net.letters] == ["a BU 203.0.113.9"]  # perhaps it is one now


def test_a_restarted_host_learns_the_sequence_number(net: Network) -> None:
    net.register("a", "h", home=True)
    net.run()
    net.hosts["a"].mobile = Mobile(lambda count: bytes(count))  # begins below what was used
    net.register("a", "h", home=True)
    assert net.run() == ["a BU 192.0.2.1", "h BA 198.51.100.7"] * 2
    assert isinstance(net.said["a"][-1], Registered)
    assert net.hosts["h"].refused == {"sequence": 1}


def test_ten_thousand_bindings_are_looked_after_in_a_blink() -> None:
    """The next timer is found without a look at all of them, and refreshes leave nothing behind."""
    agent = HomeAgent(hosts=10_000)
    for round_ in range(1, 4):
        for number in range(10_000):
            agent.update(f"host{number}", update(round_), A1, 1000.0 * round_)
    assert len(agent.bindings) == 10_000 and agent.next_timer() == 3600.0
    assert len(agent._ends._heap) < 25_000
    assert len(agent.advance(3600.0)) == 10_000 and not agent.bindings
