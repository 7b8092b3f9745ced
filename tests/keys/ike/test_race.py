"""Endpoints race for an IKE_SA_INIT: the first that answers is the one (RFC 8305 in spirit)."""

from __future__ import annotations

import pytest

from keys.ike.types import Endpoint, IkeFailed, InstallOutbound, PeerUp
from tests.keys.ike.net import DELAY, Datagram, Net, Side, pair

V6 = ("2001:db8::2", 4500)
NOWHERE = ("192.0.2.200", 4500)


def also(net: Net, side: Side, peer: Side, remote: Endpoint) -> None:
    """``peer`` may be at this endpoint, too."""
    net.run(side, side.ike.connect(peer.name, net.policy(side, peer), remote, net.now))


def two_families(slow: Endpoint | None = None) -> tuple[Net, Side, Side]:
    """Both sides have IPv4 and IPv6; what goes to ``slow`` takes half a second longer."""

    def fate(datagram: Datagram) -> list[float]:
        return [DELAY + (0.5 if datagram.target == slow else 0.0)]

    net, desk, lap = pair(fate=fate)
    desk.also, lap.also = (("2001:db8::1", 4500),), (V6,)
    return net, desk, lap


@pytest.mark.parametrize(("slow", "winner"), [(None, V6), (V6, ("192.0.2.2", 4500))])
def test_the_first_that_answers_wins_and_one_sa_is_made(
    slow: Endpoint | None, winner: Endpoint
) -> None:
    net, desk, lap = two_families(slow)
    also(net, desk, lap, V6)
    also(net, desk, lap, lap.address)
    net.play(3)
    assert net.pair_is_up()
    assert desk.all(PeerUp) == [PeerUp(lap.name, winner, True)]
    assert {command.remote for command in desk.all(InstallOutbound)} == {winner}
    assert len(desk.ike.views()) == len(lap.ike.views()) == 1
    assert lap.ike.half_open() == 0
    assert lap.ike.counters()["repeated_request"] == 1
    assert [d.kind for d in net.sent if d.kind.startswith("35")] == ["35q", "35r"]


def test_one_that_is_silent_keeps_nobody_waiting() -> None:
    net, desk, lap = two_families()
    also(net, desk, lap, NOWHERE)
    also(net, desk, lap, lap.address)
    net.play(1)
    assert desk.all(PeerUp) == [PeerUp(lap.name, lap.address, True)]


def test_who_joins_late_has_as_much_time_as_the_first() -> None:
    """Else a slow way that is tried last, as that by a home agent, ends in the midst of its
    exchanges, again and again (``tests.sim.scenarios --relay --seed 588``)."""
    net, desk, lap = pair(connect_timeout=15.0, fate=lambda _: [1.0])
    also(net, desk, lap, NOWHERE)
    net.play(13.0)
    also(net, desk, lap, lap.address)
    net.play(10.0)
    assert desk.all(PeerUp) == [PeerUp(lap.name, lap.address, True)]
    assert not desk.all(IkeFailed)


def test_all_are_repeated_until_one_answers_and_named_if_none_does() -> None:
    net, desk, lap = pair(fate=lambda _: [])
    also(net, desk, lap, lap.address)
    also(net, desk, lap, NOWHERE)
    net.play(60)
    (failed,) = desk.all(IkeFailed)
    assert "192.0.2.2 port 4500 and 192.0.2.200 port 4500" in failed.reason
    assert (failed.remote, failed.others) == (None, False)
    assert len(net.sent) > 3


def test_a_cookie_ends_the_race_since_auth_signs_it() -> None:
    net, desk, lap = two_families()
    lap.ike = net._endpoint(lap.name, lap.rng, cookie_threshold=0)
    also(net, desk, lap, V6)
    also(net, desk, lap, lap.address)
    net.play(3)
    assert net.pair_is_up()
    assert len(desk.ike.views()) == len(lap.ike.views()) == 1


def test_another_machine_that_answers_fails_and_says_where() -> None:
    """A private address of another network: somebody else may have it here."""
    net, desk, lap = pair()
    net.add("printer.example", 3)
    other = net.sides["printer.example"]
    also(net, desk, lap, other.address)
    net.play(2)
    (failed,) = desk.all(IkeFailed)
    assert (failed.remote, failed.others) == (other.address, False)
    assert not other.ike.views()
    also(net, desk, lap, lap.address)
    net.play(2)
    assert net.pair_is_up()


def test_one_that_answers_and_proves_nothing_does_not_stand_in_the_way() -> None:
    net, desk, lap = pair()
    net.add("printer.example", 3)
    other = net.sides["printer.example"]
    net.fate = lambda d: [] if d.sender == other.name and d.kind == "35r" else [DELAY]
    also(net, desk, lap, other.address)
    net.play(1)
    assert list(desk.ike.answered(lap.name)) == [other.address]
    also(net, desk, lap, lap.address)  # a second attempt, since this one is not proven
    assert desk.ike.answered(lap.name) == {}
    net.play(1)
    assert net.pair_is_up()
    net.play(40)
    assert not desk.all(IkeFailed)
    assert len(desk.ike.views()) == len(lap.ike.views()) == 1


def test_a_failure_says_whether_others_go_on() -> None:
    net, desk, lap = pair()
    net.add("printer.example", 3)
    other = net.sides["printer.example"]
    net.fate = lambda d: [3.0 if d.kind == "35r" else DELAY]
    also(net, desk, lap, other.address)
    net.play(1)
    also(net, desk, lap, lap.address)
    net.play(2.2)
    (failed,) = desk.all(IkeFailed)
    assert (failed.remote, failed.others) == (other.address, True)
    net.play(5)
    assert net.pair_is_up()


def test_rfc4555_3_9_a_silent_peer_is_looked_for_everywhere_at_once() -> None:
    """It went to another address without a word: the one that it answers from is proven."""
    net, desk, lap = pair()
    net.connect(desk, lap)
    net.play(2)
    there = ("198.51.100.77", 4500)
    lap.also, lap.address = (there,), there
    net.run(desk, desk.ike.search(lap.name, (NOWHERE, there), net.now))
    moved = desk.all(InstallOutbound)
    net.play(1)
    assert [c.remote for c in desk.all(InstallOutbound)[len(moved) :]] == [there]
    assert net.pair_is_up()


def test_a_search_that_finds_the_peer_where_it_was_moves_nothing() -> None:
    net, desk, lap = pair()
    net.connect(desk, lap)
    net.play(2)
    before = len(desk.all(InstallOutbound))
    net.run(desk, desk.ike.search(lap.name, (NOWHERE,), net.now))
    net.play(5)
    assert len(desk.all(InstallOutbound)) == before
    assert not [d for d in net.sent if d.target == NOWHERE]  # nobody is there
