"""Rekeys with additional key exchanges: IKE_FOLLOWUP_KE (RFC 9370 §2.2.4)."""

from __future__ import annotations

import random

import pytest

from keys.ike.header import Exchange
from keys.ike.notify import Notify, NotifyType
from keys.ike.payloads import Contents, KeyExchange
from keys.ike.proposals import METHOD
from keys.ike.sa import IkeSa
from keys.ike.types import IkeLog, PeerDown
from tests.keys.ike.net import DELAY, Net, Side, deliver
from tests.keys.ike.test_hostile import ask
from tests.keys.ike.test_rekey import one_of_everything, rekey_child, rekey_ike, storm, up

HYBRID: dict[str, object] = {"additional": ("mlkem768",), "fragment_ipv4": 1500}


def sa_of(side: Side, peer: Side) -> IkeSa:
    sa = side.ike._ctx.current(peer.name)
    assert sa is not None
    return sa


def test_a_child_is_rekeyed_with_ml_kem() -> None:
    net, desk, lap = up(**HYBRID)
    old = desk.outbound
    rekey_child(net, desk, lap)
    net.play(10)
    assert [d.kind for d in net.sent] == ["36q", "36r", "44q", "44r", "37q", "37r"]
    assert desk.outbound is not None
    assert old is not None
    assert desk.outbound.key_out != old.key_out
    one_of_everything(net, desk, lap)


def test_an_ike_sa_is_rekeyed_with_ml_kem() -> None:
    net, desk, lap = up(**HYBRID)
    rekey_ike(net, lap, desk)
    net.play(10)
    assert [d.kind for d in net.sent] == ["36q", "36r", "44q", "44r", "37q", "37r"]
    assert lap.ike.views()[0].key_exchange == desk.ike.views()[0].key_exchange == "x25519+mlkem768"
    one_of_everything(net, desk, lap)
    rekey_child(net, desk, lap)
    net.play(10)
    assert [d.kind for d in net.sent].count("44q") == 2
    one_of_everything(net, desk, lap)


@pytest.mark.parametrize("what", [rekey_child, rekey_ike])
def test_a_rekey_in_fragments(what) -> None:
    net, desk, lap = up(additional=("mlkem768",))
    what(net, desk, lap)
    net.play(10)
    assert [d.kind for d in net.sent].count("44q") == 3
    one_of_everything(net, desk, lap)


@pytest.mark.parametrize("what", [rekey_child, rekey_ike])
def test_a_peer_that_has_turned_it_off_is_rekeyed_without(what) -> None:
    net, desk, lap = up(**HYBRID)
    lap.ike._ctx.settings = type(net.settings)(additional=())
    what(net, desk, lap)
    net.play(10)
    assert [d.kind for d in net.sent] == ["36q", "36r", "37q", "37r"]
    one_of_everything(net, desk, lap)


def test_an_sa_made_without_it_is_rekeyed_without() -> None:
    """Nothing new is shown to a peer that did not know it (strongSwan before 6)."""
    net, desk, lap = up()
    desk.ike._ctx.settings = type(net.settings)(**HYBRID)
    rekey_child(net, desk, lap)
    net.play(10)
    assert "44q" not in [d.kind for d in net.sent]
    one_of_everything(net, desk, lap)


@pytest.mark.parametrize("later", [0.0, 0.02, DELAY, 0.07, 2 * DELAY, 0.13, 3 * DELAY])
@pytest.mark.parametrize("lost", [None, 0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("what", [rekey_child, rekey_ike])
def test_both_sides_rekey_at_once(what, lost: int | None, later: float) -> None:
    """The holder of the lowest nonce stops; nothing is lost and nothing is left."""
    for seed in range(3):
        net, desk, lap = up(
            seed=seed,
            fate=lambda d: [] if d.number == lost else [DELAY],
            **HYBRID,
        )
        net.sent.clear()
        what(net, desk, lap)
        net.play(later)
        what(net, lap, desk)
        net.play(80)
        one_of_everything(net, desk, lap)
        for side, peer in ((desk, lap), (lap, desk)):
            assert sa_of(side, peer).series is None
            assert len(side.ike._ctx) == 1


def test_rekeys_in_a_storm_leave_no_gap() -> None:
    for seed in range(25):
        rng = random.Random(seed)
        net, desk, lap = up(seed=seed, **HYBRID)
        net.fate = storm(rng, 0.15)
        for _ in range(4):
            side, peer = rng.choice([(desk, lap), (lap, desk)])
            rng.choice([rekey_child, rekey_child, rekey_ike])(net, side, peer)
            net.play(rng.choice([0.03, 0.2, 3.0]))
        net.fate = deliver
        net.play(150)
        one_of_everything(net, desk, lap)


def forget(net: Net, side: Side, peer: Side) -> None:
    """The series is left as if its time were over."""
    sa_of(side, peer).cancel_series(net.now)


@pytest.mark.parametrize("what", [rekey_child, rekey_ike])
def test_a_forgotten_series_is_begun_again(what) -> None:
    """STATE_NOT_FOUND is no end of the SA, three in a row are."""
    net, desk, lap = up(rekey_retry=5.0, **HYBRID)
    what(net, desk, lap)
    net.play(2 * DELAY + 0.01)
    forget(net, lap, desk)
    net.play(30)
    assert [d.kind for d in net.sent][:4] == ["36q", "36r", "44q", "44r"]
    assert [d.kind for d in net.sent].count("36q") == 2
    assert any("STATE_NOT_FOUND" in log.text for log in desk.all(IkeLog))
    one_of_everything(net, desk, lap)


def test_a_peer_that_always_forgets_is_left() -> None:
    net, desk, lap = up(rekey_retry=5.0, **HYBRID)
    net.watch_gaps = False

    def fate(datagram):
        if datagram.kind == "44q":
            forget(net, lap, desk)
        return [DELAY]

    net.fate = fate
    rekey_child(net, desk, lap)
    net.play(60)
    (down,) = desk.all(PeerDown)
    assert "forgets every rekey" in down.reason


@pytest.mark.parametrize("what", [rekey_child, rekey_ike])
def test_a_series_that_its_initiator_left_ends_in_time(what) -> None:
    """RFC 9370 §2.2.4: 5 to 20 seconds; nothing of it is left."""
    net, desk, lap = up(followup_timeout=5.0, retransmit_tries=1, **HYBRID)
    net.fate = lambda d: [] if d.kind == "44q" else [DELAY]
    before = len(lap.inbound), len(lap.ike._ctx._child_spis)
    what(net, desk, lap)
    net.play(0.3)
    assert sa_of(lap, desk).series is not None
    net.run(lap, lap.ike.advance(net.now + 5.0))
    assert sa_of(lap, desk).series is None
    assert (len(lap.inbound), len(lap.ike._ctx._child_spis)) == before
    assert len(lap.ike._ctx) == 1


def test_a_followup_out_of_nowhere_is_state_not_found() -> None:
    net, desk, lap = up(**HYBRID)
    for notify in ([], [Notify(NotifyType.ADDITIONAL_KEY_EXCHANGE, b"?")]):
        contents = Contents(ke=KeyExchange(METHOD["mlkem768"], bytes(1184)), notifies=notify)
        answer = ask(net, desk, lap, contents.encode(), Exchange.IKE_FOLLOWUP_KE)
        assert answer.error() is not None
        assert answer.error().kind == NotifyType.STATE_NOT_FOUND
    one_of_everything(net, desk, lap)


def test_a_rekey_request_during_followups_is_put_off() -> None:
    """RFC 9370 §2.2.4: TEMPORARY_FAILURE."""
    net, desk, lap = up(**HYBRID)
    rekey_child(net, desk, lap)
    net.play(2 * DELAY + 0.01)
    sa, task = sa_of(desk, lap), sa_of(desk, lap).task
    assert task is not None
    assert task.exchange is Exchange.IKE_FOLLOWUP_KE
    forget(net, lap, desk)  # as if the packet that began it all had been lost
    rekey_child(net, lap, desk)
    net.play(DELAY + 0.001)
    assert sa.window.expected == 1
    net.play(60)
    assert [d.kind for d in net.sent].count("36q") >= 2
    one_of_everything(net, desk, lap)
