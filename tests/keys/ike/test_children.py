"""Several children with one peer, each for its own traffic (RFC 7296 §1.3.1, §2.9)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keys.ike.header import Exchange
from keys.ike.informational import delete_child
from keys.ike.notify import Notify, NotifyType
from keys.ike.payloads import Contents
from keys.ike.selectors import Selector, describe_traffic
from keys.ike.types import (
    EVERYTHING,
    ChildPolicy,
    ChildSa,
    IkeFailed,
    IkeLog,
    InstallOutbound,
    PeerDown,
    Traffic,
)
from tests.keys.ike.net import DELAY, Net, Side, pair
from tests.keys.ike.test_hostile import ask, child_request, sa_of
from tests.keys.ike.test_mobike import ELSEWHERE, move
from tests.keys.ike.test_rekey import rekey_ike

MOBILITY = Traffic(135)
DNS = Traffic(17, peer_ports=(53, 53))
MIRRORED = Traffic(17, local_ports=(53, 53))  # the same, seen by the other side


def seen_by_peer(traffic: Traffic) -> Traffic:
    return Traffic(traffic.protocol, traffic.peer_ports, traffic.local_ports)


def up(*more: ChildPolicy, **keywords: object) -> tuple[Net, Side, Side]:
    """``desk`` has asked for these."""
    net, desk, lap = pair(**keywords)
    net.connect(desk, lap, more=more)
    net.play(2)
    assert_whole(net, desk, lap, *(child.traffic for child in more))
    net.sent.clear()
    desk.told.clear()
    lap.told.clear()
    return net, desk, lap


def assert_whole(net: Net, desk: Side, lap: Side, *traffics: Traffic) -> None:
    """One child for everything and one for each of these (as ``desk`` sees them), both ways."""
    assert set(desk.narrow) == set(traffics)
    assert set(lap.narrow) == {seen_by_peer(traffic) for traffic in traffics}
    assert len(desk.inbound) == len(lap.inbound) == 1 + len(traffics)
    for traffic in (EVERYTHING, *traffics):
        assert net.understood(desk, lap, traffic)
        assert net.understood(lap, desk, seen_by_peer(traffic))
    assert not desk.all(PeerDown)
    assert not lap.all(PeerDown)


def spis(side: Side) -> dict[Traffic, int]:
    assert side.outbound is not None
    outbound = {EVERYTHING: side.outbound, **side.narrow}
    return {traffic: child.spi_out for traffic, child in outbound.items()}


def child_of(side: Side, traffic: Traffic) -> ChildSa:
    child = side.outbound if traffic == EVERYTHING else side.narrow[traffic]
    assert child is not None
    return child


# --- Asking -----------------------------------------------------------------------------------


def test_more_children_are_asked_for_once_the_first_one_stands() -> None:
    net, desk, lap = pair()
    net.connect(desk, lap, more=(ChildPolicy(MOBILITY), ChildPolicy(DNS)))
    net.play(2)
    assert [d.kind for d in net.sent] == ["34q", "34r", "35q", "35r", *(["36q", "36r"] * 2)]
    assert_whole(net, desk, lap, MOBILITY, DNS)
    (view,) = lap.ike.views()
    assert [child.traffic for child in view.children] == [EVERYTHING, MOBILITY, MIRRORED]


@pytest.mark.parametrize("who", ["initiator", "responder"])
def test_either_side_may_ask_for_one_later(who: str) -> None:
    net, desk, lap = up()
    side, peer = (desk, lap) if who == "initiator" else (lap, desk)
    for _ in range(2):  # asking twice gives one
        net.run(side, side.ike.add(peer.name, ChildPolicy(DNS), net.now))
    net.play(2)
    assert_whole(net, side, peer, DNS)
    net.run(side, side.ike.add(peer.name, ChildPolicy(DNS), net.now))
    net.play(2)
    assert [d.kind for d in net.sent] == ["36q", "36r"]
    assert side.ike.add("nobody.example", ChildPolicy(DNS), net.now) == []
    assert side.ike.remove("nobody.example", DNS, net.now) == []


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"),
    [
        ("transport", "transport", "transport"),
        ("transport", "tunnel", "tunnel"),
        ("tunnel", "transport", "tunnel"),
    ],
)
def test_each_child_has_a_mode_of_its_own(ours: str, theirs: str, agreed: str) -> None:
    net, desk, lap = up()
    sa = sa_of(lap, desk)
    assert sa.policy is not None
    sa.policy = replace(sa.policy, more=(ChildPolicy(MOBILITY, theirs),))
    net.run(desk, desk.ike.add(lap.name, ChildPolicy(MOBILITY, ours), net.now))
    net.play(2)
    for side in (desk, lap):
        assert child_of(side, MOBILITY).mode == agreed
        assert child_of(side, EVERYTHING).mode == "tunnel"


def test_a_peer_need_not_name_what_it_is_asked_for() -> None:
    """All traffic between the two host ids is allowed already."""
    *_, lap = up(ChildPolicy(Traffic(6, (1024, 2047), (22, 22))))
    assert set(lap.narrow) == {Traffic(6, (22, 22), (1024, 2047))}


def test_the_widest_traffic_with_the_first_selector_is_taken() -> None:
    """What stands first may be the one packet that made the peer ask (RFC 7296 §2.9)."""
    net, desk, lap = up()
    tsi = (
        Selector(desk.host_id, desk.host_id, 17, (4321, 4321)),
        Selector(desk.host_id, desk.host_id, 6),
        Selector(desk.host_id, desk.host_id, 17),
    )
    tsr = (
        Selector(lap.host_id, lap.host_id, 17, (53, 53)),
        Selector(lap.host_id, lap.host_id, 6),
    )
    payloads = child_request(desk, lap, net, tsi=tsi, tsr=tsr)
    answer = ask(net, desk, lap, payloads, Exchange.CREATE_CHILD_SA)
    assert answer.tsi == (Selector(desk.host_id, desk.host_id, 17),)
    assert answer.tsr == (Selector(lap.host_id, lap.host_id, 17, (53, 53)),)
    assert set(lap.narrow) == {MIRRORED}


def test_a_first_child_is_for_everything_or_there_is_none() -> None:
    net, desk, lap = pair()
    net.connect(desk, lap)
    sa = next(iter(desk.ike._ctx))
    encode = sa.encode

    def narrowed(exchange: Exchange, number: int, contents: Contents, *, response: bool) -> object:
        if exchange is Exchange.IKE_AUTH:
            contents.tsi = (Selector(desk.host_id, desk.host_id, 6),)
            contents.tsr = (Selector(lap.host_id, lap.host_id, 6),)
        return encode(exchange, number, contents, response=response)

    sa.encode = narrowed
    net.play(2)
    (failed,) = desk.all(IkeFailed)
    assert "TS_UNACCEPTABLE" in failed.reason
    assert any("protocol 6" in log.text for log in lap.all(IkeLog))


# --- Refusals ---------------------------------------------------------------------------------


def test_a_refused_child_leaves_the_others() -> None:
    net, desk, lap = up(children_per_sa=1)
    net.run(desk, desk.ike.add(lap.name, ChildPolicy(MOBILITY), net.now))
    net.play(2)
    assert_whole(net, desk, lap)
    (log,) = desk.all(IkeLog)
    assert "refused a child for protocol 135 with NO_ADDITIONAL_SAS" in log.text
    assert not desk.all(IkeFailed)


def test_a_refusal_says_which_side_wanted_what() -> None:
    net, desk, lap = up()
    sa, policy = sa_of(lap, desk), sa_of(lap, desk).policy
    assert policy is not None
    sa.policy = replace(policy, suites=("chacha20poly1305",))
    net.run(desk, desk.ike.add(lap.name, ChildPolicy(DNS), net.now))
    net.run(desk, desk.ike.rekey(lap.name, net.now))
    net.play(3)
    new, rekey = (log.text for log in desk.all(IkeLog) if "refused" in log.text)
    assert "a child for protocol 17 to port 53 with NO_PROPOSAL_CHOSEN; we offered aes128" in new
    assert "the rekey of a child with NO_PROPOSAL_CHOSEN; we offered aes128gcm16" in rekey
    (theirs, *_) = (log.text for log in lap.all(IkeLog) if "offers" in log.text)
    assert "offers aes128gcm16" in theirs
    assert "we accept chacha20poly1305" in theirs
    sa.policy = replace(policy, peer_id=lap.host_id)
    net.run(desk, desk.ike.add(lap.name, ChildPolicy(MOBILITY), net.now))
    net.play(3)
    ours = desk.all(IkeLog)[-1].text
    assert "TS_UNACCEPTABLE; we wanted fd00::1 (protocol 135) to fd00::2 (protocol 135)" in ours
    theirs = lap.all(IkeLog)[-1].text
    assert "wants fd00::1 (protocol 135) to fd00::2 (protocol 135); it may have" in theirs


def test_a_peer_that_narrows_further_loses_that_child_alone() -> None:
    net, desk, lap = up()
    sa = sa_of(lap, desk)
    reply = sa.reply

    def narrowed(exchange: Exchange, contents: Contents, remote: object = None) -> None:
        if contents.tsr is not None:
            contents.tsr = (Selector(lap.host_id, lap.host_id, 17, (54, 54)),)
        reply(exchange, contents)

    sa.reply = narrowed
    net.run(desk, desk.ike.add(lap.name, ChildPolicy(DNS), net.now))
    net.play(10)
    assert [d.kind for d in net.sent] == ["36q", "36r", "37q", "37r"]
    assert_whole(net, desk, lap)
    assert any("port 54" in log.text and "port 53" in log.text for log in desk.all(IkeLog))


# --- Rekeys -----------------------------------------------------------------------------------


@pytest.mark.parametrize("traffic", [EVERYTHING, MOBILITY, DNS])
@pytest.mark.parametrize("who", ["initiator", "responder"])
def test_each_child_is_rekeyed_on_its_own(who: str, traffic: Traffic) -> None:
    net, desk, lap = up(ChildPolicy(MOBILITY), ChildPolicy(DNS))
    before = spis(desk)
    side, peer = (desk, lap) if who == "initiator" else (lap, desk)
    mine = traffic if who == "initiator" else seen_by_peer(traffic)
    spi = child_of(side, mine).spi_out
    net.run(side, side.ike.rekey(peer.name, net.now, spi))
    net.play(10)
    assert [d.kind for d in net.sent] == ["36q", "36r", "37q", "37r"]
    assert {t for t, spi in spis(desk).items() if spi != before[t]} == {traffic}
    assert_whole(net, desk, lap, MOBILITY, DNS)


def test_both_rekey_different_children_at_once() -> None:
    net, desk, lap = up(ChildPolicy(MOBILITY), ChildPolicy(DNS))
    before = spis(desk)
    for side, peer, traffic in ((desk, lap, MOBILITY), (lap, desk, MIRRORED)):
        spi = side.narrow[traffic].spi_in
        net.run(side, side.ike.rekey(peer.name, net.now, spi))
    net.play(10)
    after = spis(desk)
    assert {t for t in after if after[t] != before[t]} == {MOBILITY, DNS}
    assert_whole(net, desk, lap, MOBILITY, DNS)


@pytest.mark.parametrize("seed", range(6))
def test_both_rekey_the_same_narrow_child_at_once(seed: int) -> None:
    net, desk, lap = up(ChildPolicy(MOBILITY), seed=seed)
    for side, peer in ((desk, lap), (lap, desk)):
        net.run(side, side.ike.rekey(peer.name, net.now, side.narrow[MOBILITY].spi_in))
    net.play(10)
    assert_whole(net, desk, lap, MOBILITY)


def test_a_rekey_keeps_to_the_traffic_of_what_it_replaces() -> None:
    net, desk, lap = up(ChildPolicy(MOBILITY))
    old = Notify(
        NotifyType.REKEY_SA, protocol=3, spi=desk.narrow[MOBILITY].spi_in.to_bytes(4, "big")
    )
    elsewhere = (Selector(desk.host_id, desk.host_id, 17),)
    payloads = child_request(desk, lap, net, tsi=elsewhere, notifies=[old])
    answer = ask(net, desk, lap, payloads, Exchange.CREATE_CHILD_SA)
    assert answer.notify(NotifyType.TS_UNACCEPTABLE) is not None
    payloads = child_request(desk, lap, net, notifies=[old])  # everything: narrowed
    answer = ask(net, desk, lap, payloads, Exchange.CREATE_CHILD_SA)
    assert answer.tsr == (Selector(lap.host_id, lap.host_id, 135),)


def test_a_narrow_child_that_the_peer_has_lost_is_made_anew() -> None:
    """CHILD_SA_NOT_FOUND (RFC 7296 §2.25)."""
    net, desk, lap = up(ChildPolicy(MOBILITY))
    sa = sa_of(lap, desk)
    sa.remove_child(sa.children[lap.narrow[MOBILITY].spi_in])
    net.run(lap, sa.ctx.take())
    net.run(desk, desk.ike.rekey(lap.name, net.now, desk.narrow[MOBILITY].spi_out))
    net.play(10)
    assert_whole(net, desk, lap, MOBILITY)


def test_days_of_rekeys_keep_every_child() -> None:
    net, desk, lap = up(ChildPolicy(MOBILITY), ChildPolicy(DNS))
    net.watch_gaps = True
    net.play(2 * 24 * 3600)
    assert_whole(net, desk, lap, MOBILITY, DNS)
    assert net.gaps == []


def test_a_narrow_child_that_ends_is_asked_for_again() -> None:
    net, desk, lap = up(ChildPolicy(MOBILITY))
    before = spis(desk)
    child = sa_of(desk, lap).children[desk.narrow[MOBILITY].spi_in]
    child.expires_at = net.now
    net.run(desk, desk.ike.advance(net.now))
    net.play(10)
    after = spis(desk)
    assert after[EVERYTHING] == before[EVERYTHING]
    assert after[MOBILITY] != before[MOBILITY]
    assert_whole(net, desk, lap, MOBILITY)


# --- Ends -------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["initiator", "responder"])
def test_each_child_is_deleted_on_its_own(who: str) -> None:
    net, desk, lap = up(ChildPolicy(MOBILITY), ChildPolicy(DNS))
    before = spis(desk)
    side, peer = (desk, lap) if who == "initiator" else (lap, desk)
    mine = DNS if who == "initiator" else MIRRORED
    net.run(side, side.ike.remove(peer.name, mine, net.now))
    net.play(10)
    assert [d.kind for d in net.sent] == ["37q", "37r"]
    assert_whole(net, desk, lap, MOBILITY)
    assert spis(desk) == {t: spi for t, spi in before.items() if t != DNS}
    net.play(5 * 3600)  # nor is it asked for again by who removed it
    assert mine not in side.narrow


def test_the_first_child_goes_and_comes_back_without_the_others() -> None:
    net, desk, lap = up(ChildPolicy(MOBILITY))
    sa = sa_of(lap, desk)
    before = spis(desk)
    child = sa.active_child()
    assert child is not None
    delete_child(sa, child, net.now)
    net.run(lap, sa.ctx.take())
    net.play(5)
    assert desk.outbound is None
    assert spis_of_narrow(desk) == {MOBILITY: before[MOBILITY]}
    net.connect(desk, lap, more=(ChildPolicy(MOBILITY),))
    net.play(5)
    assert_whole(net, desk, lap, MOBILITY)
    assert spis(desk)[MOBILITY] == before[MOBILITY]


def spis_of_narrow(side: Side) -> dict[Traffic, int]:
    return {traffic: child.spi_out for traffic, child in side.narrow.items()}


def test_a_closed_ike_sa_takes_all_children_along() -> None:
    net, desk, lap = up(ChildPolicy(MOBILITY), ChildPolicy(DNS))
    net.run(desk, desk.ike.close(lap.name, net.now))
    net.play(10)
    assert not desk.inbound
    assert not lap.inbound
    assert not (desk.narrow or lap.narrow)


# --- With the rest ----------------------------------------------------------------------------


def test_all_children_move_to_a_new_ike_sa() -> None:
    net, desk, lap = up(ChildPolicy(MOBILITY), ChildPolicy(DNS))
    before = spis(desk)
    rekey_ike(net, desk, lap)
    net.play(10)
    assert spis(desk) == before
    assert len(desk.ike.views()) == 1
    net.run(desk, desk.ike.rekey(lap.name, net.now, before[DNS]))
    net.play(10)
    assert_whole(net, desk, lap, MOBILITY, DNS)
    assert spis(desk)[DNS] != before[DNS]


def test_all_children_follow_a_move() -> None:
    net, desk, lap = up(ChildPolicy(MOBILITY), ChildPolicy(DNS))
    for side in (desk, lap):
        side.ike.set_local([side.address])
    move(net, desk)
    net.play(5)
    for side, where in ((lap, ELSEWHERE), (desk, lap.address)):
        moved = {c.child.traffic: c.remote for c in side.told if isinstance(c, InstallOutbound)}
        assert len(moved) == 3 or side is desk
        assert set(moved.values()) <= {where}
    assert_whole(net, desk, lap, MOBILITY, DNS)


@pytest.mark.parametrize("seed", range(8))
def test_when_both_begin_at_once_the_children_are_there_once(seed: int) -> None:
    net, desk, lap = pair(seed=seed)
    desk.more = (ChildPolicy(DNS),)
    lap.more = (ChildPolicy(MIRRORED),) if seed % 2 else ()
    net.connect(desk, lap)
    net.play(DELAY / 2)
    net.connect(lap, desk)
    net.play(20)
    assert len(desk.ike.views()) == len(lap.ike.views()) == 1
    assert_whole(net, desk, lap, DNS)


@pytest.mark.parametrize("both", [True, False])
def test_a_responder_asks_for_what_the_initiator_did_not(both: bool) -> None:
    net, desk, lap = pair()
    lap.more = (ChildPolicy(MIRRORED),)
    desk.more = (ChildPolicy(DNS),) if both else ()
    net.connect(desk, lap)
    net.play(10)
    assert [d.kind for d in net.sent].count("36q") == 1
    assert_whole(net, desk, lap, DNS)


def test_a_restarted_peer_gets_its_children_again() -> None:
    net, desk, lap = up(ChildPolicy(MOBILITY))
    net.restart(desk)
    net.connect(desk, lap, more=(ChildPolicy(MOBILITY),))
    net.play(10)
    assert net.understood(desk, lap, MOBILITY)
    assert net.understood(lap, desk, MOBILITY)


# --- Words ------------------------------------------------------------------------------------


def test_traffic_in_words() -> None:
    assert describe_traffic(EVERYTHING) == "everything"
    assert describe_traffic(MOBILITY) == "protocol 135"
    assert describe_traffic(DNS) == "protocol 17 to port 53"
    both = Traffic(6, (1, 2), (3, 4))
    assert describe_traffic(both) == "protocol 6 from ports 1-2 to ports 3-4"
