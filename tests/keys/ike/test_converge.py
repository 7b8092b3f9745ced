"""One IKE SA per peer: simultaneous initiation, restarts, INITIAL_CONTACT (RFC 7296 §2.4)."""

from __future__ import annotations

import random

import pytest

from keys.ike.informational import delete_child
from keys.ike.types import AskPeer, IkeFailed, InstallOutbound, PeerDown, PeerUp
from tests.keys.ike.net import DELAY, Net, Side, deliver, pair
from tests.keys.ike.test_rekey import storm


def one_sa(net: Net, desk: Side, lap: Side) -> None:
    assert len(desk.ike.views()) == len(lap.ike.views()) == 1, net.seed
    assert len(desk.inbound) == len(lap.inbound) == 1, net.seed
    assert net.pair_is_up(), net.seed
    for side in (desk, lap):
        assert not side.all(IkeFailed)


def both_connect(net: Net, desk: Side, lap: Side, later: float) -> None:
    net.connect(desk, lap)
    net.play(later)
    net.connect(lap, desk)
    for _ in range(200):
        net.play(0.02)
        net.watch_gaps = net.watch_gaps or net.pair_is_up()


@pytest.mark.parametrize("later", [0.0, 0.02, DELAY, 0.07, 2 * DELAY, 0.12, 3 * DELAY])
@pytest.mark.parametrize("lost", [None, *range(9)])
def test_both_sides_begin_at_once(later: float, lost: int | None) -> None:
    """Two become one, by the four nonces, with no gap once packets can pass."""
    for seed in range(4):
        net, desk, lap = pair(seed=seed, fate=lambda d: [] if d.number == lost else [DELAY])
        both_connect(net, desk, lap, later)
        net.play(30)
        one_sa(net, desk, lap)
        assert net.gaps == [], net.seed
        assert not desk.all(PeerDown)
        assert not lap.all(PeerDown)


def test_both_sides_begin_in_a_storm() -> None:
    for seed in range(60):
        rng = random.Random(seed)
        net, desk, lap = pair(seed=seed, connect_timeout=120.0)
        net.fate = storm(rng, 0.1)
        both_connect(net, desk, lap, rng.random() * 0.2)
        net.play(60)
        net.fate = deliver
        net.play(60)
        one_sa(net, desk, lap)
        assert net.gaps == [], net.seed


def test_both_sides_choose_the_same_survivor() -> None:
    survivors = set()
    for seed in range(12):
        net, desk, lap = pair(seed=seed)
        both_connect(net, desk, lap, 0.0)
        net.play(30)
        (one,), (two,) = desk.ike.views(), lap.ike.views()
        assert one.initiator is not two.initiator
        survivors.add(one.initiator)
    assert survivors == {True, False}


def test_a_restarted_peer_replaces_its_old_sas() -> None:
    net, desk, lap = pair()
    net.connect(desk, lap)
    net.play(2)
    net.restart(desk)
    lap.told.clear()
    net.connect(desk, lap)
    net.play(2)
    one_sa(net, desk, lap)
    assert len(lap.all(PeerUp)) == 1
    assert not lap.all(PeerDown)


def test_a_restarted_peer_that_is_called_replaces_its_old_sas() -> None:
    """The living side finds out by a check, hastened by unauthenticated hints."""
    net, desk, lap = pair()
    net.connect(desk, lap)
    net.play(2)
    net.restart(desk)
    assert lap.outbound is not None
    net.run(desk, desk.ike.orphan(lap.outbound.spi_out, lap.address, net.now))
    net.play(15)
    assert "no answer from desk" in lap.all(PeerDown)[0].reason
    assert not lap.inbound
    net.connect(lap, desk)
    net.play(2)
    one_sa(net, desk, lap)


def test_hints_about_a_living_peer_change_nothing() -> None:
    net, desk, lap = pair()
    net.connect(desk, lap)
    net.play(2)
    assert lap.outbound is not None
    for _ in range(50):
        net.run(desk, desk.ike.orphan(lap.outbound.spi_out, lap.address, net.now))
        net.play(0.2)
    one_sa(net, desk, lap)
    assert [d.kind for d in net.sent if d.sender == lap.name].count("37q") <= 3


@pytest.mark.parametrize("by", ["hints", "its owner"])
def test_a_restarted_peer_is_left_within_a_minute_while_another_request_waits(by: str) -> None:
    """The check cannot begin, but what waits before it is then no longer asked for five minutes
    (found by ``tests.sim.scenarios --relay --seed 64``)."""
    net, desk, lap = pair()
    net.connect(desk, lap)
    net.play(2)
    net.restart(desk)
    if by == "its owner":
        net.fate = lambda _: []
    net.run(lap, lap.ike.rekey("desk.alice.example", net.now))
    net.run(lap, lap.ike.probe("desk.alice.example", net.now) if by == "its owner" else [])
    net.play(net.settings.liveness + net.settings.silence + 5)
    assert "no answer from desk" in lap.all(PeerDown)[0].reason
    assert not lap.inbound


def test_initial_contact_spares_an_sa_that_came_to_stand_meanwhile() -> None:
    """A delayed IKE_AUTH with INITIAL_CONTACT is not a restart."""
    held: list[float] = [0.3]

    def fate(datagram):
        if datagram.kind == "35q" and datagram.sender.startswith("desk") and held:
            return [held.pop()]
        return deliver(datagram)

    net, desk, lap = pair(fate=fate)
    both_connect(net, desk, lap, 0.0)
    net.play(30)
    one_sa(net, desk, lap)
    assert net.gaps == []


def test_connect_while_connected_does_nothing() -> None:
    net, desk, lap = pair()
    net.connect(desk, lap)
    net.play(2)
    count = len(net.sent)
    net.connect(desk, lap)
    net.connect(lap, desk)
    net.play(2)
    assert len(net.sent) == count


def test_connect_makes_a_new_child_when_the_peer_has_closed_the_old() -> None:
    net, desk, lap = pair()
    net.connect(desk, lap)
    net.play(2)
    sa = lap.ike._ctx.current(desk.name)
    assert sa is not None
    delete_child(sa, next(iter(sa.children.values())), net.now)
    net.run(lap, lap.ike._ctx.take())
    net.play(10)
    assert desk.outbound is None
    net.connect(desk, lap)
    net.play(2)
    one_sa(net, desk, lap)
    assert [d.kind for d in net.sent[-2:]] == ["36q", "36r"]


def test_a_refused_new_child_is_a_sentence() -> None:
    net, desk, lap = pair()
    net.connect(desk, lap)
    net.play(2)
    sa = lap.ike._ctx.current(desk.name)
    assert sa is not None
    delete_child(sa, next(iter(sa.children.values())), net.now)
    net.run(lap, lap.ike._ctx.take())
    net.play(10)
    net.connect(desk, lap, suites=("chacha20poly1305",))
    net.play(2)
    (failed,) = desk.all(IkeFailed)
    assert failed.reason.startswith(
        "lap.alice.example refused a new child with NO_PROPOSAL_CHOSEN; we offered chacha20poly1305"
    )


def test_both_sides_begin_and_their_owners_take_their_time() -> None:
    """AskPeer is answered seconds later, in any order."""
    for seed in range(25):
        rng = random.Random(seed)
        net, desk, lap = pair(seed=seed, connect_timeout=60.0)
        desk.answer_asks = lap.answer_asks = False
        net.connect(desk, lap)
        net.play(rng.random() * 0.3)
        net.connect(lap, desk)
        due: dict[tuple[str, int], float] = {}
        for _ in range(300):
            net.play(0.02)
            for side, peer in ((desk, lap), (lap, desk)):
                for ask in side.all(AskPeer):
                    key = (side.name, ask.ticket)
                    if net.now >= due.setdefault(key, net.now + rng.random() * 2):
                        policy = net.policy(side, peer)
                        net.run(side, side.ike.authorise(ask.ticket, policy, net.now))
            net.watch_gaps = net.watch_gaps or net.pair_is_up()
        net.play(40)
        one_sa(net, desk, lap)
        assert net.gaps == [], net.seed


@pytest.mark.parametrize("what", ["a rekey", "the other's end"])
def test_data_go_to_no_endpoint_that_ike_only_tries(what: str) -> None:
    """What makes a child carry our packets says nothing of where the peer is: neither the end of a
    rekey that began before, nor that of another IKE SA (``tests.sim.scenarios --relay --seed
    588``)."""
    net, desk, lap = pair()
    net.connect(desk, lap)
    if what != "a rekey":
        net.connect(lap, desk)  # both begin at once: one of the two SAs is closed soon
    net.play(2 if what == "a rekey" else 4 * DELAY)
    elsewhere = ("198.51.100.66", 666)
    if what == "a rekey":
        net.run(lap, lap.ike.rekey(desk.name, net.now))
    for side, other in ((desk, lap), (lap, desk)):
        net.run(side, side.ike.moved(other.name, elsewhere, net.now))
        side.told.clear()
    net.play(3)
    said = [*desk.all(InstallOutbound), *lap.all(InstallOutbound)]
    assert said
    assert elsewhere not in {one.remote for one in said}
    for side, other in ((desk, lap), (lap, desk)):
        net.run(side, side.ike.moved(other.name, other.address, net.now))
    net.play(60)
    one_sa(net, desk, lap)


def test_what_the_owner_has_proven_counts_for_the_ike_sa_that_takes_over() -> None:
    """The peer has moved while one of two SAs is about to end: data go where it is."""
    net, desk, lap = pair()
    net.connect(desk, lap)
    net.connect(lap, desk)
    net.play(4 * DELAY)
    new = lap.address = ("203.0.113.77", 4500)
    net.run(desk, desk.ike.moved(lap.name, new, net.now, proven=True))
    desk.told.clear()
    net.play(30)
    assert {one.remote for one in desk.all(InstallOutbound)} == {new}
    one_sa(net, desk, lap)
