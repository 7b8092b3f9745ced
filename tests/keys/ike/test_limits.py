"""Bounds: half-open SAs by source, lifetimes by use, modes, windows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keys.ike.context import HalfOpen
from keys.ike.header import Exchange
from keys.ike.notify import Notify, NotifyType
from keys.ike.payloads import Contents
from keys.ike.types import IkeLog, SendIke
from tests.keys.ike.net import Net, Side, pair
from tests.keys.ike.test_hostile import ask
from tests.keys.ike.test_rekey import one_of_everything, rekey_child, rekey_ike, up

# --- Strangers --------------------------------------------------------------------------------


def requests(net: Net, desk: Side, lap: Side, count: int) -> list[bytes]:
    """So many different IKE_SA_INIT requests."""
    made = []
    for _ in range(count):
        commands = desk.ike.connect(lap.name, net.policy(desk, lap), lap.address, net.now)
        made += [c.data for c in commands if isinstance(c, SendIke)]
        desk.ike.close(lap.name, net.now)
    return made


def test_half_open_sas_are_bounded_by_source() -> None:
    net, desk, lap = pair(cookie_threshold=1000, half_open_per_source=5, half_open_limit=12)
    one, other, third = ("192.0.2.1", 1), ("192.0.2.77", 1), ("192.0.2.78", 1)
    for data in requests(net, desk, lap, 9):
        lap.ike.receive(data, one, net.now)
    assert lap.ike.counters()["half_open_per_source"] == 4
    for source in (other, third):
        for data in requests(net, desk, lap, 5):
            lap.ike.receive(data, source, net.now)
    assert lap.ike.counters()["half_open_limit"] == 3
    assert len(lap.ike._ctx) == lap.ike._ctx.half_open.total == 12
    net.run(lap, lap.ike.advance(net.now + 31))
    assert len(lap.ike._ctx) == lap.ike._ctx.half_open.total == len(lap.ike._ctx.half_open) == 0


def test_an_sa_that_stands_is_not_half_open() -> None:
    net, _, lap = up()
    assert lap.ike._ctx.half_open.total == 0
    assert net.pair_is_up()


def test_a_source_is_an_ipv4_address_or_an_ipv6_64() -> None:
    table = HalfOpen()
    for remote in (
        ("2001:db8::1", 1),
        ("2001:db8::2", 2),
        ("2001:db8:0:1::1", 1),
        ("192.0.2.1", 1),
    ):
        table.add(remote)
    assert table.of(("2001:db8::ffff:0:0:9", 9)) == 2
    assert table.of(("2001:db8:0:1::", 9)) == 1
    assert table.of(("fe80::1%eth0", 9)) == 0
    assert len(table) == 3
    table.remove(("2001:db8::7", 7))
    table.remove(("2001:db8::8", 7))
    assert len(table) == table.total == 2


# --- Lifetimes --------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["in", "out"])
@pytest.mark.parametrize(
    ("counts", "rekeys"),
    [((100, 100), False), ((849, 0), False), ((900, 0), True), ((0, 84_999), False),
     ((0, 90_000), True)],
)  # fmt: skip
def test_a_child_is_rekeyed_by_what_it_has_carried(
    side: str, counts: tuple[int, int], rekeys: bool
) -> None:
    """10 % before the end, and up to half of that earlier."""
    net, desk, lap = up(child_packets=1000, child_octets=100_000)
    old = desk.outbound
    assert old is not None
    spi = old.spi_in if side == "in" else old.spi_out
    for _ in range(3):  # asked every second: one rekey all the same
        net.run(desk, desk.ike.used(lap.name, {spi: counts}, net.now))
        net.play(1)
    net.play(10)
    assert (desk.outbound is not old) is rekeys
    assert [d.kind for d in net.sent].count("36q") == (1 if rekeys else 0)
    one_of_everything(net, desk, lap)


def test_jitter_keeps_both_sides_apart() -> None:
    limits = set()
    for seed in range(8):
        _, desk, _ = up(seed=seed, child_packets=100_000)
        (life,) = desk.ike.views()[0].lifetimes
        assert life.packets_left is not None
        assert 85_000 <= life.packets_left <= 90_000
        limits.add(life.packets_left)
    assert len(limits) > 4


def test_a_child_that_is_used_up_is_replaced() -> None:
    """The end itself, when the rekey did not go through."""
    net, desk, lap = up(child_packets=1000)
    net.watch_gaps = False
    assert desk.outbound is not None
    old = desk.outbound.spi_out
    net.run(desk, desk.ike.used(lap.name, {old: (1000, 0)}, net.now))
    net.play(10)
    assert desk.outbound is not None
    assert desk.outbound.spi_out != old
    assert net.pair_is_up()
    assert any("ended before" in log.text for log in desk.all(IkeLog))


def test_what_is_left_is_shown() -> None:
    net, desk, lap = up(child_packets=1000, child_octets=100_000)
    assert desk.outbound is not None
    net.run(desk, desk.ike.used(lap.name, {desk.outbound.spi_in: (10, 2000)}, net.now))
    (before,) = lap.ike.views()[0].lifetimes
    (after,) = desk.ike.views()[0].lifetimes
    assert before.packets_left is not None
    assert after.packets_left is not None
    assert after.octets_left is not None
    assert 840 <= after.packets_left <= 890
    assert 83_000 <= after.octets_left <= 88_000
    assert after.rekey_at < after.expires_at
    view = desk.ike.views()[0]
    assert view.rekey_at is not None
    assert view.expires_at is not None
    assert view.fragmentation
    assert view.mobike
    assert not view.ppk


# --- Modes ------------------------------------------------------------------------------------


def modes(net: Net, desk: Side, lap: Side, ours: str, theirs: str) -> tuple[str, str]:
    original = net.policy

    def policy(side: Side, peer: Side, **changes: object):
        return replace(original(side, peer, **changes), mode=ours if side is desk else theirs)

    net.policy = policy
    net.connect(desk, lap)
    net.play(2)
    assert net.pair_is_up()
    assert desk.outbound is not None
    assert lap.outbound is not None
    return desk.outbound.mode, lap.outbound.mode


@pytest.mark.parametrize(
    ("ours", "theirs", "mode"),
    [
        ("tunnel", "tunnel", "tunnel"),
        ("transport", "tunnel", "tunnel"),
        ("tunnel", "transport", "tunnel"),
        ("transport", "transport", "transport"),
    ],
)
def test_transport_mode_needs_both_sides(ours: str, theirs: str, mode: str) -> None:
    """USE_TRANSPORT_MODE in request and answer (RFC 7296 §1.3.1)."""
    net, desk, lap = pair()
    assert modes(net, desk, lap, ours, theirs) == (mode, mode)
    net.watch_gaps = True
    for what, side, peer in ((rekey_child, lap, desk), (rekey_ike, desk, lap)):
        what(net, side, peer)
        net.play(10)
    rekey_child(net, desk, lap)
    net.play(10)
    one_of_everything(net, desk, lap)
    assert desk.outbound is not None
    assert desk.outbound.mode == mode


# --- Windows ----------------------------------------------------------------------------------


def test_a_peer_with_a_larger_window_is_asked_one_thing_at_a_time() -> None:
    """SET_WINDOW_SIZE allows, and does not oblige (RFC 7296 §2.3); ours stays 1."""
    net, desk, lap = up()
    notify = Notify(NotifyType.SET_WINDOW_SIZE, (8).to_bytes(4, "big"))
    answer = ask(net, lap, desk, Contents(notifies=[notify]).encode(), Exchange.INFORMATIONAL)
    assert answer == Contents()
    net.sent.clear()
    net.run(desk, desk.ike.rekey(lap.name, net.now))
    net.run(desk, desk.ike.probe(lap.name, net.now))
    assert [d.kind for d in net.sent] == ["36q"]
    net.play(10)
    one_of_everything(net, desk, lap)
