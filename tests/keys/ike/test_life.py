"""Liveness, probes, Delete, retransmission (RFC 7296 §1.4, §2.1, §2.4)."""

from __future__ import annotations

import itertools

import pytest

from keys.ike.informational import delete_child
from keys.ike.types import InstallOutbound, PeerDown, PeerUp, ProbeAnswered, RemoveChild
from tests.keys.ike.net import DELAY, Datagram, Net, Side, deliver, pair


def up(**keywords: object) -> tuple[Net, Side, Side]:
    net, desk, lap = pair(**keywords)
    net.connect(desk, lap)
    net.play(2)
    assert net.pair_is_up()
    net.sent.clear()
    desk.told.clear()
    lap.told.clear()
    return net, desk, lap


# --- loss and doubles ------------------------------------------------------------------------


@pytest.mark.parametrize("lost", range(4))
def test_any_one_message_of_the_first_exchanges_may_be_lost(lost: int) -> None:
    net, desk, lap = pair(fate=lambda d: [] if d.number == lost else [DELAY])
    net.connect(desk, lap)
    net.play(3)
    assert net.pair_is_up()
    assert len(desk.all(PeerUp)) == len(lap.all(PeerUp)) == 1
    (again,) = [d for d in net.sent[lost + 1 :] if d.data == net.sent[lost].data]
    assert again.data == net.sent[lost].data  # bit for bit


@pytest.mark.parametrize("what", ["rekey", "close", "probe"])
@pytest.mark.parametrize("lost", range(4))
def test_any_one_message_of_later_exchanges_may_be_lost(what: str, lost: int) -> None:
    net, desk, lap = up()
    net.fate = lambda d: [] if d.number == lost else [DELAY]
    net.run(desk, getattr(desk.ike, what)(lap.name, net.now))
    net.play(20)
    if what == "close":
        assert not desk.inbound
        assert not lap.inbound
        assert desk.all(PeerDown)
        assert lap.all(PeerDown)
    else:
        assert net.pair_is_up()
    if what == "probe":
        assert len(desk.all(ProbeAnswered)) == 1


def test_every_message_comes_twice() -> None:
    net, desk, lap = pair(fate=lambda d: [DELAY, DELAY * 1.5])
    net.connect(desk, lap)
    net.play(3)
    net.run(desk, desk.ike.rekey(lap.name, net.now))
    net.play(10)
    assert net.pair_is_up()
    assert len(desk.all(PeerUp)) == len(lap.all(PeerUp)) == 1
    assert len(desk.inbound) == len(lap.inbound) == 1
    net.run(desk, desk.ike.close(lap.name, net.now))
    net.play(10)
    assert len(desk.ike._ctx) == 0
    assert len([s for s in lap.ike._ctx if s.is_established]) == 0


def test_retransmission_backs_off_with_jitter_and_ends() -> None:
    """0.5 s, ×1.8, at most 60 s, 12 times (RFC 7296 §2.4 leaves the numbers to us)."""
    net, desk, lap = up()
    times: list[float] = []

    def fate(datagram: Datagram) -> list[float]:
        times.append(net.now)
        return []

    net.fate = fate
    net.run(desk, desk.ike.rekey(lap.name, net.now))
    net.play(400)
    assert len(times) == 12
    assert len({d.data for d in net.sent}) == 1
    waits = [b - a for a, b in itertools.pairwise(times)]
    for number, wait in enumerate(waits):
        planned = min(0.5 * 1.8**number, 60.0)
        assert planned * 0.9 <= wait <= planned * 1.1
        assert wait != planned
    (down,) = desk.all(PeerDown)
    assert down.reason.startswith("no answer from lap.alice.example for ")
    assert not desk.inbound


# --- liveness --------------------------------------------------------------------------------


def test_only_outgoing_traffic_starts_a_check_and_a_dead_peer_is_found_out() -> None:
    net, desk, lap = up()
    net.fate = lambda d: []
    start = net.now
    for second in range(60):
        net.run(desk, desk.ike.traffic(lap.name, start, start + second + 1, net.now))
        net.play(1)
    kinds = [d.kind for d in net.sent]
    assert kinds == ["37q"] * net.settings.liveness_tries
    assert "no answer from lap" in desk.all(PeerDown)[0].reason
    assert desk.all(RemoveChild)


def test_traffic_in_both_directions_needs_no_check() -> None:
    net, desk, lap = up()
    for _ in range(100):
        net.run(desk, desk.ike.traffic(lap.name, net.now - 0.5, net.now - 0.1, net.now))
        net.play(1)
    assert net.sent == []


def test_an_idle_tunnel_is_silent() -> None:
    net, desk, lap = up()
    for _ in range(100):
        net.run(desk, desk.ike.traffic(lap.name, 1001.0, 1001.0, net.now))
        net.play(1)
    assert net.sent == []


def test_a_peer_whose_esp_arrives_is_not_dead() -> None:
    net, desk, lap = up()
    net.fate = lambda d: []
    net.run(desk, desk.ike.probe(lap.name, net.now))
    for _ in range(60):
        net.play(1)
        net.run(desk, desk.ike.traffic(lap.name, net.now, net.now, net.now))
    assert not desk.all(PeerDown)
    net.fate = deliver
    net.play(30)
    assert desk.all(ProbeAnswered)


def test_a_probe_measures_the_round_trip() -> None:
    net, desk, lap = up()
    net.run(desk, desk.ike.probe(lap.name, net.now))
    net.run(desk, desk.ike.probe(lap.name, net.now))
    net.play(1)
    (answer,) = desk.all(ProbeAnswered)
    assert answer.rtt == pytest.approx(2 * DELAY)
    assert desk.ike.views()[0].rtt == pytest.approx(2 * DELAY)


def test_a_peer_that_moved_is_followed_at_once() -> None:
    net, desk, lap = up()
    lap.address = ("203.0.113.9", 4500)
    net.run(desk, desk.ike.probe(lap.name, net.now))
    net.run(desk, desk.ike.moved(lap.name, lap.address, net.now))
    net.play(0.3)
    assert desk.all(ProbeAnswered)
    assert desk.ike.views()[0].remote == lap.address


# --- Delete ----------------------------------------------------------------------------------


def test_close_is_told_to_the_peer() -> None:
    net, desk, lap = up()
    net.run(desk, desk.ike.close(lap.name, net.now))
    assert [type(c) for c in desk.told] == [RemoveChild]  # at once
    net.play(1)
    assert [d.kind for d in net.sent] == ["37q", "37r"]
    assert desk.all(PeerDown) == [PeerDown(lap.name, f"we closed the connection to {lap.name}")]
    assert lap.all(PeerDown) == [PeerDown(desk.name, f"{desk.name} closed the connection")]
    assert not lap.inbound


def test_close_towards_a_dead_peer_ends_within_seconds() -> None:
    net, desk, _ = up()
    net.fate = lambda d: []
    net.run(desk, desk.ike.close_all(net.now))
    net.play(12)
    assert desk.all(PeerDown)
    assert desk.ike.next_timer() is None


def test_both_sides_close_at_once() -> None:
    net, desk, lap = up()
    net.run(desk, desk.ike.close(lap.name, net.now))
    net.run(lap, lap.ike.close(desk.name, net.now))
    net.play(10)
    for side in (desk, lap):
        assert len(side.all(PeerDown)) == 1
        assert len(side.ike._ctx) == 0


def test_crossing_deletes_of_a_child() -> None:
    """Both delete the same child: neither answers with its SPI (RFC 7296 §1.4.1)."""
    net, desk, lap = up()
    for side, peer in ((desk, lap), (lap, desk)):
        sa = side.ike._ctx.current(peer.name)
        assert sa is not None
        delete_child(sa, next(iter(sa.children.values())), net.now)
        net.run(side, side.ike._ctx.take())
    net.play(10)
    sizes = {d.kind: len(d.data) for d in net.sent}
    assert sizes == {"37q": 69, "37r": 57}
    assert not desk.inbound
    assert not lap.inbound
    assert len(desk.ike.views()) == len(lap.ike.views()) == 1


def test_a_new_connection_may_follow_a_close_at_once() -> None:
    net, desk, lap = up()
    net.run(desk, desk.ike.close(lap.name, net.now))
    net.connect(desk, lap)
    net.play(10)
    assert net.pair_is_up()
    assert len(desk.all(InstallOutbound)) == 1
    told = [type(c) for c in desk.told if isinstance(c, PeerUp | PeerDown)]
    assert told == [PeerDown, PeerUp]
