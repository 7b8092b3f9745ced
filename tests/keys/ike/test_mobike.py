"""MOBIKE (RFC 4555), both roles: endpoints move, and only after proof."""

from __future__ import annotations

import pytest

from keys.ike import natd
from keys.ike.header import Exchange
from keys.ike.mobike import acceptable, addresses
from keys.ike.notify import Notify, NotifyType
from keys.ike.payloads import Contents
from keys.ike.sa import IkeSa
from keys.ike.types import Endpoint, IkeLog, InstallOutbound, PeerDown, ProbeAnswered, SendIke
from tests.keys.ike.net import DELAY, Datagram, Net, Side, pair
from tests.keys.ike.test_hostile import ask
from tests.keys.ike.test_rekey import rekey_child, rekey_ike

ELSEWHERE = ("203.0.113.77", 4500)
SIX = ("2001:db8::1", 4500)


def up(**keywords: object) -> tuple[Net, Side, Side]:
    net, desk, lap = pair(**keywords)
    for side in (desk, lap):
        side.ike.set_local([side.address])
    net.connect(desk, lap)
    net.play(2)
    assert net.pair_is_up()
    net.sent.clear()
    desk.told.clear()
    lap.told.clear()
    return net, desk, lap


def sa_of(side: Side, peer: Side) -> IkeSa:
    sa = side.ike._ctx.current(peer.name)
    assert sa is not None
    return sa


def move(net: Net, side: Side, address: Endpoint = ELSEWHERE) -> None:
    side.address = address
    net.run(side, side.ike.move([address], net.now))


def kinds(net: Net) -> list[str]:
    return [f"{d.sender.partition('.')[0]} {d.kind}" for d in net.sent]


def goes_to(side: Side) -> list[Endpoint]:
    return [c.remote for c in side.told if isinstance(c, InstallOutbound)]


def settled(net: Net, desk: Side, lap: Side) -> None:
    assert net.pair_is_up()
    assert sa_of(desk, lap).sends_to == sa_of(desk, lap).remote == lap.address
    assert sa_of(lap, desk).sends_to == sa_of(lap, desk).remote == desk.address
    for side in (desk, lap):
        assert not side.all(PeerDown)
        assert len(side.inbound) == 1


def test_the_leader_moves() -> None:
    net, desk, lap = up()
    before = desk.outbound
    move(net, desk)
    net.play(DELAY + 0.01)
    assert sa_of(lap, desk).remote == ELSEWHERE  # IKE at once
    assert goes_to(lap) == []  # data not before the proof
    net.play(1)
    assert kinds(net) == ["desk 37q", "lap 37r", "lap 37q", "desk 37r"]
    assert goes_to(lap) == [ELSEWHERE]
    assert goes_to(desk) == []
    assert desk.outbound is before  # SPIs and keys stay
    settled(net, desk, lap)


def test_the_follower_moves() -> None:
    net, desk, lap = up()
    move(net, lap)
    net.play(2)
    assert goes_to(desk) == [ELSEWHERE]
    settled(net, desk, lap)


def test_both_move_at_once_and_one_of_them_hears_the_other() -> None:
    """The follower's new address is not known to the leader, nor the other way round: what the
    node knows from the zone (``moved``) brings them together."""
    net, desk, lap = up()
    move(net, desk)
    move(net, lap, ("198.51.100.5", 4500))
    net.play(1)
    net.run(desk, desk.ike.moved(lap.name, lap.address, net.now))
    net.play(60)
    settled(net, desk, lap)


@pytest.mark.parametrize("lost", range(6))
@pytest.mark.parametrize("who", ["desk", "lap"])
def test_any_one_message_of_a_move_may_be_lost(who: str, lost: int) -> None:
    net, desk, lap = up()
    net.fate = lambda d: [] if d.number == lost else [DELAY]
    move(net, desk if who == "desk" else lap)
    net.play(20)
    settled(net, desk, lap)


def test_moves_in_quick_succession_end_at_the_last() -> None:
    """RFC 4555 §3.5: an answer to an update that is not the last is ignored."""
    net, desk, lap = up()
    for number in range(1, 6):
        move(net, desk, (f"203.0.113.{number}", 4500))
        net.play(0.03)
    net.play(30)
    settled(net, desk, lap)


def test_a_move_in_the_midst_of_rekeys() -> None:
    for what in (rekey_child, rekey_ike):
        for later in (0.0, 0.02, 0.06, 0.12):
            for hybrid in ((), ("mlkem768",)):
                net, desk, lap = up(additional=hybrid)
                what(net, lap, desk)
                net.play(later)
                move(net, desk)
                net.play(60)
                settled(net, desk, lap)


def test_after_an_ike_sa_rekey_by_the_other_the_leader_leads_still() -> None:
    """RFC 4555 §1.3: the initiator is who began the first of the IKE SAs."""
    net, desk, lap = up()
    rekey_ike(net, lap, desk)
    net.play(5)
    assert not sa_of(desk, lap).initiator
    assert sa_of(desk, lap).leads
    assert not sa_of(lap, desk).leads
    net.sent.clear()
    move(net, desk)
    net.play(2)
    assert kinds(net)[0] == "desk 37q"
    settled(net, desk, lap)


def test_somebody_who_sends_our_messages_on_gets_no_data() -> None:
    """A forwarder on the path changes the source of an update: the check never comes back, and
    IKE returns to where the data flows."""
    net, desk, lap = up()
    thief = ("198.51.100.66", 666)
    net.run(desk, desk.ike.move([desk.address], net.now))
    (update,) = [d.data for d in net.sent]
    net._queue.clear()
    net.run(lap, lap.ike.receive(update, thief, net.now))
    assert sa_of(lap, desk).remote == thief
    net.play(60)
    assert goes_to(lap) == []
    settled(net, desk, lap)


def test_an_old_message_from_elsewhere_changes_nothing() -> None:
    net, desk, lap = up()
    move(net, desk)
    net.play(2)
    lap.told.clear()
    for datagram in list(net.sent):
        if datagram.receiver == lap.name:
            lap.ike.receive(datagram.data, ("198.51.100.66", 666), net.now)
    settled(net, desk, lap)


def test_ike_messages_alone_do_not_move_a_peer_with_mobike() -> None:
    """RFC 4555 §3.4 (no dynamic update from IKE packets)."""
    net, desk, lap = up()
    old, desk.address = desk.address, ELSEWHERE
    net.run(desk, desk.ike.probe(lap.name, net.now))
    net.play(1)
    assert sa_of(lap, desk).remote == old


@pytest.mark.parametrize("side", ["desk", "lap"])
def test_a_peer_without_mobike_follows_a_fresh_message(side: str) -> None:
    """RFC 7296 §2.23."""
    net, desk, lap = pair(mobike=False)
    net.connect(desk, lap)
    net.play(2)
    assert not desk.ike.views()[0].mobike
    move(net, desk if side == "desk" else lap)
    net.play(5)
    settled(net, desk, lap)


def test_a_wrong_cookie2_closes_the_sa() -> None:
    """RFC 4555 §3.7."""
    net, desk, lap = up()
    move(net, desk)
    net.play(DELAY + 0.01)
    task = sa_of(lap, desk).task
    task._cookie = b"another one, 16."
    net.play(10)
    assert "COOKIE2" in lap.all(PeerDown)[0].reason


def test_cookie2_is_copied_if_it_is_one() -> None:
    """RFC 4555 §4.2.5: 8 to 64 octets."""
    net, desk, lap = up()
    for size in (7, 8, 64, 65):
        notify = Notify(NotifyType.COOKIE2, bytes(size))
        answer = ask(net, desk, lap, Contents(notifies=[notify]).encode(), Exchange.INFORMATIONAL)
        assert answer.notifies == ([notify] if 8 <= size <= 64 else [])


@pytest.mark.parametrize("source", [("0.0.0.0", 4500), ("224.0.0.1", 4500), ("192.0.2.9", 0)])
def test_addresses_where_no_host_can_be(source: Endpoint) -> None:
    """UNACCEPTABLE_ADDRESSES."""
    assert not acceptable(source)
    net, desk, lap = up()
    desk.address = source
    update = [Notify(NotifyType.UPDATE_SA_ADDRESSES)]
    answer = ask(net, desk, lap, Contents(notifies=update).encode(), Exchange.INFORMATIONAL)
    assert [n.kind for n in answer.notifies] == [NotifyType.UNACCEPTABLE_ADDRESSES]
    assert sa_of(lap, desk).remote == ("192.0.2.1", 4500)


def test_a_leader_that_is_refused_stays() -> None:
    net, desk, lap = up()
    sa = sa_of(lap, desk)
    from keys.ike import mobike

    original = mobike.acceptable
    mobike.acceptable = lambda endpoint: endpoint != ELSEWHERE
    try:
        move(net, desk)
        net.play(1)
    finally:
        mobike.acceptable = original
    assert sa.remote == ("192.0.2.1", 4500)
    assert any("UNACCEPTABLE_ADDRESSES" in log.text for log in desk.all(IkeLog))


@pytest.mark.parametrize(("port", "refused"), [(4500, False), (4501, True)])
def test_no_nats_allowed(port: int, refused: bool) -> None:
    """RFC 4555 §3.9: what the peer sees must be what we see."""
    net, desk, lap = up()
    data = bytes((192, 0, 2, 1, 192, 0, 2, 2)) + (port).to_bytes(2, "big") + (4500).to_bytes(2)
    notifies = [
        Notify(NotifyType.UPDATE_SA_ADDRESSES),
        Notify(NotifyType.NO_NATS_ALLOWED, data),
    ]
    answer = ask(net, desk, lap, Contents(notifies=notifies).encode(), Exchange.INFORMATIONAL)
    kinds_ = [n.kind for n in answer.notifies]
    assert kinds_ == ([NotifyType.UNEXPECTED_NAT_DETECTED] if refused else [])
    broken = Notify(NotifyType.NO_NATS_ALLOWED, data[:-1])
    answer = ask(
        net, desk, lap, Contents(notifies=[notifies[0], broken]).encode(), Exchange.INFORMATIONAL
    )
    assert [n.kind for n in answer.notifies] == [NotifyType.UNEXPECTED_NAT_DETECTED]


def test_a_follower_that_says_update_is_answered_and_not_followed() -> None:
    """The leader decides (RFC 4555 §3.5)."""
    net, desk, lap = up()
    old, lap.address = lap.address, ELSEWHERE
    update = [Notify(NotifyType.UPDATE_SA_ADDRESSES)]
    ask(net, lap, desk, Contents(notifies=update).encode(), Exchange.INFORMATIONAL)
    assert sa_of(desk, lap).remote == old


def test_lists_of_addresses_replace_one_another() -> None:
    """RFC 4555 §3.6."""
    net, desk, lap = up()
    six = Notify(NotifyType.ADDITIONAL_IP6_ADDRESS, bytes.fromhex("20010db8" + "00" * 11 + "01"))
    short = Notify(NotifyType.ADDITIONAL_IP4_ADDRESS, b"\x01")
    none = Notify(NotifyType.NO_ADDITIONAL_ADDRESSES)
    many = [Notify(NotifyType.ADDITIONAL_IP4_ADDRESS, bytes((192, 0, 2, n))) for n in range(90)]
    for notifies, expected in (
        ([six, short], 1),
        ([short], 1),
        ([none], 0),
        (many, 8),
        ([none], 0),
    ):
        ask(net, desk, lap, Contents(notifies=notifies).encode(), Exchange.INFORMATIONAL)
        assert len(sa_of(lap, desk).peer_addresses) == expected


def test_our_list_holds_the_other_family() -> None:
    net, desk, lap = up()
    sa = sa_of(desk, lap)
    desk.ike.set_local([desk.address, SIX])
    (notify,) = addresses(sa)
    assert notify.kind == NotifyType.ADDITIONAL_IP6_ADDRESS
    assert notify.data == bytes.fromhex("20010db8" + "00" * 11 + "01")
    desk.ike.set_local([desk.address, (SIX[0], 999)])  # only 4500 can be meant
    assert addresses(sa) == [Notify(NotifyType.NO_ADDITIONAL_ADDRESSES)]
    assert net.pair_is_up()


def test_a_new_mapping_of_our_nat_is_told() -> None:
    """RFC 4555 §3.8: found by the NAT detection in a liveness check."""
    net, desk, lap = pair()
    desk.ike.set_local([("10.0.0.5", 4500)])
    net.connect(desk, lap)
    net.play(2)
    net.run(desk, desk.ike.probe(lap.name, net.now))
    net.play(1)
    assert sa_of(lap, desk).remote == desk.address
    lap.told.clear()
    desk.address = ("192.0.2.1", 61000)  # the NAT has rebooted; nobody here knows
    net.run(desk, desk.ike.probe(lap.name, net.now))
    net.play(2)
    assert goes_to(lap) == [desk.address]
    settled(net, desk, lap)


def test_a_host_that_knows_it_has_no_nat_does_not_ask_about_it() -> None:
    net, desk, lap = up()
    net.run(desk, desk.ike.probe(lap.name, net.now))
    net.play(1)
    assert len(net.sent[0].data) == 57  # nothing in it


def test_the_leader_updates_when_the_owner_has_seen_the_follower_move() -> None:
    """ESP came from elsewhere (tunnel.following): allowed by RFC 4555 §3.4."""
    net, desk, lap = up()
    lap.address = ELSEWHERE
    net.run(desk, desk.ike.moved(lap.name, ELSEWHERE, net.now))
    net.play(2)
    assert kinds(net) == ["desk 37q", "lap 37r"]
    settled(net, desk, lap)


def test_an_outstanding_request_follows_at_once() -> None:
    net, desk, lap = up()
    net.fate = lambda d: []
    net.run(desk, desk.ike.rekey(lap.name, net.now))
    net.fate = lambda d: [DELAY]
    move(net, desk)
    net.play(0.2)
    assert [d.source for d in net.sent[:2]] == [("192.0.2.1", 4500), ELSEWHERE]
    assert net.sent[0].data == net.sent[1].data
    net.play(20)
    settled(net, desk, lap)


def test_moving_without_anybody_is_nothing() -> None:
    net, desk, _ = pair()
    assert desk.ike.move([ELSEWHERE], net.now) == []


def test_nat_detection_of_a_follower_echoes_what_it_sees() -> None:
    net, desk, lap = up()
    sa = sa_of(desk, lap)
    asks = Contents(notifies=natd.notifies(sa.spi_i, sa.spi_r, lap.address, desk.rng.randbytes))
    answer = ask(net, desk, lap, asks.encode(), Exchange.INFORMATIONAL)
    seen = answer.notify(NotifyType.NAT_DETECTION_DESTINATION_IP)
    assert seen is not None
    assert seen.data == natd.nat_hash(sa.spi_i, sa.spi_r, desk.address)


def test_a_check_answers_nobody_twice() -> None:
    """The answer to a request that went to two endpoints does not tell which is right (§3.7)."""
    net, desk, lap = up()
    move(net, desk)
    net.play(DELAY + 0.01)
    sa = sa_of(lap, desk)
    net.run(lap, lap.ike.moved(desk.name, ("203.0.113.9", 4500), net.now))
    net.run(lap, lap.ike.moved(desk.name, ELSEWHERE, net.now))
    count = len([c for c in lap.told if isinstance(c, SendIke)])
    assert count == 0
    net.play(5)
    assert sa.sends_to == ELSEWHERE
    settled(net, desk, lap)


@pytest.mark.parametrize("mobike", [True, False])
def test_who_moves_before_it_is_answered_says_so_afterwards(mobike: bool) -> None:
    """The proof has come from the old address, the answer to it went there; only the repeated
    request, which changes nothing, came from the new one (found by ``make fuzz``)."""
    net, desk, lap = pair(mobike=mobike)
    net.connect(desk, lap)
    net.play(2.5 * DELAY)
    assert [datagram.kind for datagram in net.sent] == ["34q", "34r", "35q"]
    move(net, desk)
    net.play(10)
    assert net.pair_is_up()
    assert sa_of(lap, desk).remote == ELSEWHERE == sa_of(lap, desk).sends_to


# --- A path that falls silent -----------------------------------------------------------------

SIXES = (("2001:db8::1", 4500), ("2001:db8::2", 4500))


def dual(**keywords: object) -> tuple[Net, Side, Side]:
    """Both have an IPv6 address besides, and a tunnel over IPv4."""
    net, desk, lap = pair(**keywords)
    for side, six in zip((desk, lap), SIXES, strict=True):
        side.also = (six,)
        side.ike.set_local([side.address, six])
    net.connect(desk, lap)
    net.play(2)
    assert sa_of(desk, lap).peer_addresses == (SIXES[1],)
    assert sa_of(lap, desk).peer_addresses == (SIXES[0],)
    net.sent.clear()
    desk.told.clear()
    lap.told.clear()
    return net, desk, lap


def without_ipv4(datagram: Datagram) -> list[float]:
    return [DELAY] if ":" in datagram.target[0] else []


@pytest.mark.parametrize("who", ["leader", "follower"])
def test_a_silent_path_is_left_for_another_address_of_the_peer(who: str) -> None:
    """RFC 4555 §3.9: both may look; the data follows an exchange with a COOKIE2 (§3.7)."""
    net, desk, lap = dual()
    net.fate = without_ipv4
    side, peer = (desk, lap) if who == "leader" else (lap, desk)
    net.run(side, side.ike.probe(peer.name, net.now))
    net.play(1.2)  # not before two repeats were in vain
    assert {d.target for d in net.sent} == {peer.address}
    net.play(30)
    six = peer.also[0]
    assert goes_to(side)[-1] == six
    assert sa_of(side, peer).sends_to == sa_of(side, peer).remote == six
    if who == "leader":  # it tells the follower, which looks for itself before it follows
        assert goes_to(peer)[-1] == side.also[0]
    assert not desk.all(PeerDown)
    assert not lap.all(PeerDown)
    assert any("answers at" in log.text for log in side.all(IkeLog))


def test_where_nobody_answers_the_peer_is_given_up_as_before() -> None:
    net, desk, lap = dual()
    net.fate = lambda datagram: []
    net.run(desk, desk.ike.probe(lap.name, net.now))
    net.play(60)
    assert desk.all(PeerDown)
    targets = [d.target for d in net.sent]
    tries = net.settings.liveness_tries
    assert targets.count(lap.address) == tries
    assert targets.count(SIXES[1]) == tries - 2


def test_a_path_that_came_back_meanwhile_stays() -> None:
    """The old path answers first: nothing is moved."""
    net, desk, lap = dual()
    net.fate = lambda datagram: []
    net.run(desk, desk.ike.probe(lap.name, net.now))
    net.play(3)
    net.fate = lambda datagram: [DELAY * (20 if ":" in datagram.target[0] else 1)]
    net.play(30)
    settled(net, desk, lap)
    assert goes_to(desk) == []


def test_an_address_that_answers_and_then_falls_silent_is_left_again() -> None:
    net, desk, lap = dual()
    sixes = 0

    def fate(datagram: Datagram) -> list[float]:
        nonlocal sixes
        if ":" not in datagram.target[0]:
            return [DELAY] if sixes > 2 else []
        sixes += 1
        return [DELAY] if sixes <= 2 else []  # one question and its answer

    net.fate = fate
    net.run(desk, desk.ike.probe(lap.name, net.now))
    net.play(60)
    assert not desk.all(PeerDown)
    assert sa_of(desk, lap).remote == sa_of(desk, lap).sends_to == lap.address
    assert net.pair_is_up()


def test_addresses_that_the_peer_never_named_are_not_followed() -> None:
    """An answer sent on from elsewhere, by somebody between us."""
    net, desk, lap = dual()
    sa_of(desk, lap).peer_addresses = (("2001:db8::77", 4500),)
    net.fate = without_ipv4
    net.run(desk, desk.ike.probe(lap.name, net.now))
    outstanding = sa_of(desk, lap).window.outstanding
    assert outstanding is not None
    net.play(2)
    (question,) = outstanding.data
    answers = [
        c for c in lap.ike.receive(question, desk.address, net.now) if isinstance(c, SendIke)
    ]
    net.run(desk, desk.ike.receive(answers[0].data, ("2001:db8::66", 4500), net.now))
    assert sa_of(desk, lap).remote == lap.address


def test_an_answer_proves_no_endpoint_that_was_left_and_come_back_to_meanwhile() -> None:
    """RFC 4555 §3.7. The cookie was first sent elsewhere, then to where the peer is, and its
    answer comes when its packets seem to come from elsewhere again (found by tests.sim.scenarios,
    seed 238: somebody sends the peer's messages on)."""
    net, desk, lap = up()
    home = desk.address
    move(net, desk)
    net.play(DELAY + 0.01)
    assert sa_of(lap, desk).remote == ELSEWHERE  # and the cookie is on its way there
    desk.address = home
    net.run(lap, lap.ike.moved(desk.name, home, net.now))
    net.run(lap, lap.ike.moved(desk.name, ELSEWHERE, net.now))
    net.play(3 * DELAY)
    assert goes_to(lap) == []
    net.play(30)
    assert ELSEWHERE not in goes_to(lap)


def test_a_peer_that_is_gone_counts_as_such_whatever_request_of_ours_waits() -> None:
    """A move whose update nobody answers is no reason to wait for minutes (tests.sim.scenarios,
    seed 90)."""
    net, desk, lap = up()
    net.fate = lambda _: []
    move(net, desk)
    net.run(desk, desk.ike.traffic(lap.name, None, net.now + 1, net.now + 1))
    limit = net.settings.liveness + net.settings.silence
    net.play(limit - 1)
    assert not desk.all(PeerDown)
    net.play(3)
    assert [c.reason for c in desk.all(PeerDown)] == [f"no answer from {lap.name} for 50 s"]


@pytest.mark.parametrize("who", ["leader", "follower"])
def test_an_answer_proves_nothing_where_the_question_went_elsewhere_too(who: str) -> None:
    """Somebody between us made us ask at an address of its own; where we look for the peer at its
    real one besides, it hears us there, and its answers are sent on from the false one."""
    net, desk, lap = up()
    side, peer = (desk, lap) if who == "leader" else (lap, desk)
    forger = ("198.51.100.66", 666)
    net.fate = lambda datagram: [] if datagram.sender == peer.name else [DELAY]
    side.told.clear()
    net.run(side, side.ike.moved(peer.name, forger, net.now))
    for _ in range(20):
        net.run(side, side.ike.probe(peer.name, net.now))
        net.run(side, side.ike.search(peer.name, (peer.address,), net.now))
        before = len(net.sent)
        net.play(1)
        for datagram in [one for one in net.sent[before:] if one.sender == peer.name]:
            net.run(side, side.ike.receive(datagram.data, forger, net.now))
    assert forger not in {one.remote for one in side.all(InstallOutbound)}
    assert forger not in {one.remote for one in side.all(ProbeAnswered)}
