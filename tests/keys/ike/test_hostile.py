"""What strangers, broken peers and broken networks cannot do (fact sheet §14)."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest

from keys.ike.errors import InvalidSyntaxError
from keys.ike.header import Exchange, decode_header
from keys.ike.notify import Notify, NotifyType
from keys.ike.payloads import (
    Contents,
    Payload,
    PayloadType,
    decode_chain,
    decode_contents,
    encode_chain,
)
from keys.ike.sa import IkeSa, SaState
from keys.ike.selectors import Selector
from keys.ike.types import AskPeer, IkeFailed, IkeLog, PeerDown, SendIke
from tests.keys.ike.net import DELAY, Datagram, Net, Side, pair


def up(**keywords: object) -> tuple[Net, Side, Side]:
    net, desk, lap = pair(**keywords)
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


def state_of(side: Side) -> object:
    """All that a message could change."""
    return [
        (
            sa.state,
            sa.remote,
            sa.window.next_id,
            sa.window.expected,
            sa.window.outstanding and sa.window.outstanding.data,
            sorted(sa.children),
            len(sa.queue),
            sa.name,
            sa.last_heard,
        )
        for sa in side.ike._ctx
    ]


# --- tampering -------------------------------------------------------------------------------


def test_no_changed_octet_of_a_protected_message_changes_anything() -> None:
    """Header, SK header, IV, ciphertext and tag are all covered (RFC 5282 §5.1)."""
    net, desk, lap = up()
    net.run(desk, desk.ike.rekey(lap.name, net.now))
    request = net.sent[0].data
    before = state_of(lap)
    for position in range(len(request)):
        for flip in (0x01, 0x80):
            broken = bytearray(request)
            broken[position] ^= flip
            commands = lap.ike.receive(bytes(broken), desk.address, net.now)
            assert state_of(lap) == before, position
            assert len([c for c in commands if isinstance(c, SendIke)]) <= 1
    net.play(10)
    assert net.pair_is_up()


def test_no_changed_octet_of_an_ike_auth_lets_anybody_in() -> None:
    net, desk, lap = pair()
    net.connect(desk, lap)
    net.play(2 * DELAY + 0.01)
    request = net.sent[2].data
    assert decode_header(request).exchange == Exchange.IKE_AUTH
    before = state_of(lap)
    for position in range(len(request)):
        broken = bytearray(request)
        broken[position] ^= 0x10
        lap.ike.receive(bytes(broken), desk.address, net.now)
        assert state_of(lap) == before, position
    net.play(1)
    assert net.pair_is_up()


@pytest.mark.parametrize(("kind", "octets"), [("34q", 236), ("34r", 200)])
def test_no_changed_octet_of_ike_sa_init_makes_a_tunnel(kind: str, octets: int) -> None:
    """Nothing there is protected, but AUTH covers all of it (RFC 7296 §2.15)."""
    for position in range(0, octets, 2):
        net, desk, lap = pair(retransmit_tries=3)

        def changed(datagram: Datagram, position: int = position) -> bytes:
            data = bytearray(datagram.data)
            if datagram.kind == kind:
                data[position] ^= 0x04
            return bytes(data)

        net.tamper = changed
        net.connect(desk, lap)
        net.play(4)
        assert not desk.inbound, position
        assert not lap.inbound, position


def test_a_replay_of_any_message_changes_nothing() -> None:
    net, desk, lap = up()
    net.run(desk, desk.ike.rekey(lap.name, net.now))
    net.play(10)
    net.run(lap, lap.ike.probe(desk.name, net.now))
    net.play(1)
    for datagram in list(net.sent):
        receiver = net.sides[datagram.receiver]
        before = state_of(receiver)
        commands = receiver.ike.receive(datagram.data, ("198.51.100.66", 666), net.now)
        assert state_of(receiver) == before
        assert all(isinstance(c, SendIke) for c in commands)


def test_an_ike_sa_init_that_comes_again_gets_the_same_answer() -> None:
    """Bit for bit (RFC 7296 §2.1), and makes no second SA."""
    net, desk, lap = pair()
    net.connect(desk, lap)
    request = net.sent[0].data
    (first,) = lap.ike.receive(request, desk.address, net.now)
    (second,) = lap.ike.receive(request, desk.address, net.now)
    assert first == second
    assert len(lap.ike._ctx) == 1


def test_the_peer_follows_only_fresh_messages() -> None:
    """An old packet from elsewhere does not move the endpoint (RFC 7296 §2.23)."""
    net, desk, lap = up()
    net.run(desk, desk.ike.probe(lap.name, net.now))
    net.play(1)
    lap.ike.receive(net.sent[0].data, ("198.51.100.66", 666), net.now)
    assert lap.ike.views()[0].remote == desk.address


def test_a_fresh_request_from_elsewhere_moves_esp_after_an_answer_from_there() -> None:
    net, desk, lap = up(mobike=False)
    desk.address = ("192.0.2.77", 40000)
    net.run(desk, desk.ike.probe(lap.name, net.now))
    net.play(2)
    assert lap.ike.views()[0].remote == desk.address
    assert [type(c).__name__ for c in lap.told] == ["InstallOutbound"]
    assert lap.told[0].remote == desk.address


def test_behind_a_nat_we_do_not_follow() -> None:
    net, desk, lap = pair(mobike=False)
    lap.ike.set_local([("10.9.9.9", 4500)])
    net.connect(desk, lap)
    net.play(2)
    old = desk.address
    desk.address = ("192.0.2.77", 40000)
    net.run(desk, desk.ike.probe(lap.name, net.now))
    net.play(2)
    assert lap.ike.views()[0].remote == old
    net.run(lap, lap.ike.moved(desk.name, desk.address, net.now))
    assert lap.ike.views()[0].remote == desk.address


# --- broken peers ----------------------------------------------------------------------------


def ask(net: Net, side: Side, peer: Side, payloads: list[Payload], exchange: Exchange) -> Contents:
    """A request that our exchanges would never send; its answer."""
    sa = sa_of(side, peer)
    assert sa._seal is not None
    data = sa._seal.seal(sa.header(exchange, sa.window.next_id, response=False), payloads)
    sa.window.next_id += 1
    commands = peer.ike.receive(data, side.address, net.now)
    net.run(peer, [c for c in commands if not isinstance(c, SendIke)])
    answer = next(c for c in commands if isinstance(c, SendIke))
    opened = sa.open(answer.data)
    assert opened.plain[-1] == 0
    return decode_contents(opened.payloads())


def test_an_unknown_critical_payload_is_refused_by_its_type() -> None:
    """RFC 7296 §2.5."""
    net, desk, lap = up()
    answer = ask(net, desk, lap, [Payload(99, b"x", critical=True)], Exchange.INFORMATIONAL)
    (notify,) = answer.notifies
    assert (notify.kind, notify.data) == (NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD, b"\x63")
    assert net.pair_is_up()


def test_unknown_payloads_and_notifications_are_passed_over() -> None:
    """MOBIKE, fragmentation, vendor ids and whatever comes (RFC 7296 §3.10.1)."""
    net, desk, lap = up()
    payloads = [
        Payload(99, b"x"),
        Payload(PayloadType.VENDOR, b"strongSwan"),
        *Contents(notifies=[Notify(16396), Notify(16430), Notify(40000, b"?")]).encode(),
    ]
    assert ask(net, desk, lap, payloads, Exchange.INFORMATIONAL) == Contents()
    assert net.pair_is_up()


def test_a_protected_message_with_wrong_syntax_ends_the_sa() -> None:
    """INVALID_SYNTAX is fatal (RFC 7296 §2.21.3)."""
    net, desk, lap = up()
    payloads = [Payload(PayloadType.NONCE, bytes(15))]
    answer = ask(net, desk, lap, payloads, Exchange.CREATE_CHILD_SA)
    assert answer.notify(NotifyType.INVALID_SYNTAX) is not None
    assert lap.ike.views() == []
    assert "wrong message" in lap.all(PeerDown)[0].reason


@pytest.mark.parametrize("octets", [0, 15, 257])
def test_nonces_of_wrong_length(octets: int) -> None:
    with pytest.raises(InvalidSyntaxError):
        decode_contents([Payload(PayloadType.NONCE, bytes(octets))])


def test_a_payload_that_stands_twice() -> None:
    with pytest.raises(InvalidSyntaxError):
        decode_contents([Payload(PayloadType.NONCE, bytes(32))] * 2)


def child_request(side: Side, peer: Side, net: Net, **changes: object) -> list[Payload]:
    from keys.ike.create_child import CreateChild

    sa = sa_of(side, peer)
    task = CreateChild()
    task._is_needed = lambda _: True
    contents = task.request(sa, net.now)
    assert contents is not None
    for name, value in changes.items():
        setattr(contents, name, value)
    return contents.encode()


def test_wider_selectors_are_narrowed_to_the_two_host_ids() -> None:
    """RFC 7296 §2.9."""
    net, desk, lap = up()
    wide = (Selector(IPv6Address("fd00::"), IPv6Address("fdff::ffff")),)
    payloads = child_request(desk, lap, net, tsi=wide, tsr=wide)
    answer = ask(net, desk, lap, payloads, Exchange.CREATE_CHILD_SA)
    assert answer.tsi == (Selector(desk.host_id, desk.host_id),)
    assert answer.tsr == (Selector(lap.host_id, lap.host_id),)


@pytest.mark.parametrize(
    "selector",
    [
        Selector(IPv6Address("fd00::5"), IPv6Address("fd00::6")),
        Selector(IPv6Address("fd00::1"), IPv6Address("fd00::1"), ports=(80, 80)),
        Selector(IPv6Address("fd00::1"), IPv6Address("fd00::1"), 17, ports=(80, 79)),
    ],
)
def test_selectors_that_no_traffic_of_the_host_id_fits_are_refused(selector: Selector) -> None:
    net, desk, lap = up()
    payloads = child_request(desk, lap, net, tsi=(selector,))
    answer = ask(net, desk, lap, payloads, Exchange.CREATE_CHILD_SA)
    assert answer.notify(NotifyType.TS_UNACCEPTABLE) is not None
    assert len(lap.inbound) == 1


def test_children_of_one_sa_are_bounded() -> None:
    """NO_ADDITIONAL_SAS (RFC 7296 §1.3)."""
    net, desk, lap = up()
    answers = [
        ask(net, desk, lap, child_request(desk, lap, net), Exchange.CREATE_CHILD_SA)
        for _ in range(10)
    ]
    refused = [a.notify(NotifyType.NO_ADDITIONAL_SAS) is not None for a in answers]
    assert refused == [False] * 7 + [True] * 3
    assert len(lap.inbound) == net.settings.children_per_sa


def test_a_peer_that_answers_with_wider_selectors_is_left() -> None:
    net, desk, lap = pair()
    wide = (Selector(IPv6Address("fd00::"), IPv6Address("fd00::ffff")),)
    net.connect(desk, lap)
    lap.answer_asks = False
    net.play(1)
    sa = next(iter(lap.ike._ctx))
    reply = sa.reply

    def widened(exchange: Exchange, contents: Contents, remote: object = None) -> None:
        contents.tsr = wide
        reply(exchange, contents)

    sa.reply = widened
    (question,) = lap.all(AskPeer)
    net.run(lap, lap.ike.authorise(question.ticket, net.policy(lap, desk), net.now))
    net.play(10)
    (failed,) = desk.all(IkeFailed)
    assert "wants the selectors fd00::1 to fd00::-fd00::ffff" in failed.reason
    assert not desk.inbound
    assert desk.ike.views() == lap.ike.views() == []


def test_no_request_is_answered_before_ike_auth() -> None:
    """A half-open SA knows only IKE_AUTH; its keys prove nothing (fact sheet §14)."""
    net, desk, lap = pair()
    net.connect(desk, lap)
    net.play(2 * DELAY + 0.01)
    sa = next(iter(desk.ike._ctx))
    assert sa._seal is not None
    for exchange in (Exchange.CREATE_CHILD_SA, Exchange.INFORMATIONAL):
        data = sa._seal.seal(sa.header(exchange, 1, response=False), [])
        before = state_of(lap)
        assert lap.ike.receive(data, desk.address, net.now) == []
        assert state_of(lap) == before


def test_a_peer_may_not_pile_up_ike_sas(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that never says INITIAL_CONTACT, and never deletes anything."""
    monkeypatch.setattr("keys.ike.convergence.forget_older", lambda sa, now: None)
    net, desk, lap = up(sas_per_peer=3)
    for _ in range(6):
        net.restart(desk)
        net.connect(desk, lap)
        net.play(4 * DELAY + 0.01)
    assert len(lap.ike.views()) == 3
    assert net.pair_is_up()


# --- after the end ---------------------------------------------------------------------------


def test_keys_are_dropped_when_an_sa_closes() -> None:
    net, desk, lap = up()
    one, two = sa_of(desk, lap), sa_of(lap, desk)
    net.run(desk, desk.ike.close(lap.name, net.now))
    net.play(2)
    for sa in (one, two):
        assert sa.state is SaState.CLOSED
        assert (sa.keys, sa._seal, sa._open, sa.children) == (None, None, None, {})
        assert sa.init.request == sa.init.response == sa.nonces.i == b""
    assert not desk.inbound
    assert not lap.inbound
    assert len(desk.ike._ctx) == len(lap.ike._ctx) == 0


def test_log_lines_about_strangers_are_limited() -> None:
    net, desk, lap = pair()
    net.connect(desk, lap)
    broken = net.sent[0].data[:28][:16] + b"\x21\x20\x22\x08" + bytes(4) + (28).to_bytes(4, "big")
    lines = 0
    for _ in range(300):
        lines += sum(isinstance(c, IkeLog) for c in lap.ike.receive(broken, desk.address, net.now))
    assert lines == net.settings.answers_per_second
    assert lap.ike.counters()["bad_init_request"] == 300


def test_an_empty_chain_is_no_payload() -> None:
    assert encode_chain([]) == (PayloadType.NONE, b"")
    assert decode_chain(PayloadType.NONE, b"") == []
