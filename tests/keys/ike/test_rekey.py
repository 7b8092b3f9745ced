"""Rekeys of children and IKE SAs, alone and when both sides begin (RFC 7296 §2.8, §2.25)."""

from __future__ import annotations

import random

import pytest

from keys.ike.payloads import Contents
from keys.ike.rekey_ike import RekeyIke
from keys.ike.types import IkeLog, InstallInbound, InstallOutbound, PeerDown, RemoveChild
from tests.keys.ike.net import DELAY, Datagram, Fate, Net, Side, deliver, pair


def up(**keywords: object) -> tuple[Net, Side, Side]:
    net, desk, lap = pair(**keywords)
    net.connect(desk, lap)
    net.play(2)
    assert net.pair_is_up()
    net.watch_gaps = True
    net.sent.clear()
    return net, desk, lap


def rekey_child(net: Net, side: Side, peer: Side) -> None:
    net.run(side, side.ike.rekey(peer.name, net.now))


def rekey_ike(net: Net, side: Side, peer: Side) -> None:
    sa = side.ike._ctx.current(peer.name)
    assert sa is not None
    sa.rekey_at = net.now
    net.run(side, side.ike.advance(net.now))


def one_of_everything(net: Net, desk: Side, lap: Side) -> None:
    assert len(desk.ike.views()) == len(lap.ike.views()) == 1
    assert len(desk.inbound) == len(lap.inbound) == 1
    assert net.pair_is_up()
    assert net.gaps == [], net.seed


def test_a_child_is_rekeyed_in_the_order_of_the_rfc() -> None:
    net, desk, lap = up()
    old = desk.outbound
    desk.told.clear()
    lap.told.clear()
    rekey_child(net, desk, lap)
    net.play(10)
    assert [d.kind for d in net.sent] == ["36q", "36r", "37q", "37r"]
    steps = (InstallInbound, InstallOutbound, RemoveChild)
    for side in (desk, lap):
        done = [type(c) for c in side.told if isinstance(c, steps)]
        assert done == [InstallInbound, InstallOutbound, RemoveChild]
    assert old is not None
    assert desk.outbound is not None
    assert desk.outbound.spi_out != old.spi_out
    assert desk.outbound.key_out != old.key_out
    one_of_everything(net, desk, lap)


def test_every_child_that_follows_from_one_ike_auth_says_so() -> None:
    """Over each rekey, of the IKE SA too; and a new IKE_AUTH is told from it."""
    net, desk, lap = up()
    sessions = []
    for rekey in (rekey_child, rekey_ike, rekey_child):
        rekey(net, desk, lap)
        net.play(30)
        assert desk.outbound is not None
        sessions.append(desk.outbound.session)
    assert len(set(sessions)) == 1 and sessions[0]
    net.restart(lap)
    net.connect(lap, desk)
    net.play(30)
    assert desk.outbound.session not in sessions


def test_the_old_child_receives_until_what_was_under_way_has_come() -> None:
    net, desk, lap = up()
    old_out, old_in = lap.outbound, set(desk.inbound)
    rekey_child(net, desk, lap)
    net.play(net.settings.drain - 0.1)
    assert lap.outbound is old_out  # the responder goes on until the Delete
    assert old_in <= set(desk.inbound)
    net.play(net.settings.drain)
    assert lap.outbound is not old_out
    assert old_in <= set(desk.inbound)
    net.play(net.settings.drain)
    assert not old_in & set(desk.inbound)
    one_of_everything(net, desk, lap)


@pytest.mark.parametrize("pfs", [True, False])
def test_lifetimes_rekey_by_themselves_without_a_gap(pfs: bool) -> None:
    net, desk, lap = up(pfs=pfs)
    net.play(3 * 4 * 3600)
    kinds = [d.kind for d in net.sent]
    assert kinds.count("36q") >= 12
    assert not desk.all(PeerDown)
    assert not lap.all(PeerDown)
    one_of_everything(net, desk, lap)


def test_a_peer_that_wants_another_group_for_the_child() -> None:
    net, desk, lap = up()
    lap.ike._ctx.settings = type(net.settings)(groups=("ecp256",))
    rekey_child(net, desk, lap)
    net.play(10)
    assert [d.kind for d in net.sent] == ["36q", "36r", "36q", "36r", "37q", "37r"]
    one_of_everything(net, desk, lap)


def test_a_peer_without_a_fresh_key_exchange_is_fine() -> None:
    net, desk, lap = up()
    lap.ike._ctx.settings = type(net.settings)(pfs=False)
    rekey_child(net, lap, desk)
    net.play(10)
    assert len(net.sent[0].data) < 300
    one_of_everything(net, desk, lap)


def test_a_child_that_the_peer_has_lost_is_made_anew() -> None:
    """CHILD_SA_NOT_FOUND (RFC 7296 §2.25)."""
    net, desk, lap = up()
    net.watch_gaps = False
    sa = lap.ike._ctx.current(desk.name)
    assert sa is not None
    for child in list(sa.children.values()):
        sa.remove_child(child)
    net.run(lap, lap.ike._ctx.take())
    rekey_child(net, desk, lap)
    net.play(10)
    one_of_everything(net, desk, lap)


def test_a_child_that_cannot_be_rekeyed_is_replaced_at_its_end() -> None:
    net, desk, lap = up(child_lifetime=100.0, rekey_retry=5.0)
    net.watch_gaps = False
    busy = lap.ike._ctx.current(desk.name)
    assert busy is not None
    for child in busy.children.values():
        child.theirs = child  # answers TEMPORARY_FAILURE to a rekey
        child.rekey_at = child.expires_at = float("inf")
    net.play(300)
    assert any("ended before it could be rekeyed" in log.text for log in desk.all(IkeLog))
    assert net.pair_is_up()


def test_an_ike_sa_rekey_moves_the_children_and_starts_new_message_ids() -> None:
    net, desk, lap = up()
    before = (desk.ike.views()[0].children, lap.ike.views()[0].children)
    desk.told.clear()
    lap.told.clear()
    rekey_ike(net, lap, desk)
    net.play(10)
    assert [d.kind for d in net.sent] == ["36q", "36r", "37q", "37r"]
    assert (desk.ike.views()[0].children, lap.ike.views()[0].children) == before
    assert lap.ike.views()[0].initiator
    assert not desk.ike.views()[0].initiator
    assert not [c for c in desk.told + lap.told if not isinstance(c, IkeLog)]
    one_of_everything(net, desk, lap)
    net.run(lap, lap.ike.probe(desk.name, net.now))
    assert net.sent[-1].data[20:24] == bytes(4)
    rekey_child(net, desk, lap)
    net.play(10)
    one_of_everything(net, desk, lap)


def test_an_unanswered_ike_sa_rekey_leaves_nothing_behind() -> None:
    net, desk, lap = up()
    net.watch_gaps = False
    net.fate = lambda datagram: []
    rekey_ike(net, desk, lap)
    net.play(600)
    assert desk.all(PeerDown)
    assert len(desk.ike._ctx) == 0


@pytest.mark.parametrize("later", [0.0, 0.02, DELAY, 0.07, 2 * DELAY])
@pytest.mark.parametrize("lost", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("what", [rekey_child, rekey_ike])
def test_both_sides_rekey_at_once(what, lost: int | None, later: float) -> None:
    """The four-nonce rule (RFC 7296 §2.8.1, §2.8.2), with any one message lost."""
    for seed in range(6):
        net, desk, lap = up(seed=seed, fate=lambda d: [] if d.number == lost else [DELAY])
        net.sent.clear()
        what(net, desk, lap)
        net.play(later)
        what(net, lap, desk)
        net.play(60)
        one_of_everything(net, desk, lap)


def storm(rng: random.Random, loss: float) -> Fate:
    def fate(datagram: Datagram) -> list[float]:
        if rng.random() < loss:
            return []
        copies = [DELAY * (1 + 3 * rng.random())]
        if rng.random() < 0.3:
            copies.append(DELAY * (1 + 8 * rng.random()))
        return copies

    return fate


def test_rekeys_in_a_storm_leave_no_gap() -> None:
    """Loss, doubles and reordering; the seed is in the failure."""
    for seed in range(40):
        rng = random.Random(seed)
        net, desk, lap = up(seed=seed)
        net.fate = storm(rng, 0.15)
        for _ in range(4):
            side, peer = rng.choice([(desk, lap), (lap, desk)])
            rng.choice([rekey_child, rekey_child, rekey_ike])(net, side, peer)
            net.play(rng.choice([0.03, 0.2, 3.0]))
        net.fate = deliver
        net.play(120)
        one_of_everything(net, desk, lap)


def test_tasks_say_nothing_when_there_is_nothing_to_ask() -> None:
    net, desk, lap = up()
    sa = desk.ike._ctx.current(lap.name)
    assert sa is not None
    assert isinstance(RekeyIke().request(sa, net.now), Contents)
    sa.state = type(sa.state).CLOSING
    assert RekeyIke().request(sa, net.now) is None
