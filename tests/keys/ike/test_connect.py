"""IKE_SA_INIT and IKE_AUTH between two of our endpoints (RFC 7296 §1.2, §2.6, §2.7, §2.15)."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest

from keys.ike.header import Exchange, decode_header
from keys.ike.notify import NotifyType
from keys.ike.payloads import decode_chain, decode_contents
from keys.ike.types import AskPeer, IkeFailed, IkeLog, PeerDown, PeerPolicy, PeerUp, RemoveChild
from tests.keys.ike.net import PSK, Datagram, Net, Side, deliver, pair


def kinds(net: Net) -> list[str]:
    return [datagram.kind for datagram in net.sent]


def failure(side: Side) -> str:
    (failed,) = side.all(IkeFailed)
    reason: str = failed.reason
    return reason


def plain(datagram: Datagram):
    header = decode_header(datagram.data)
    return decode_contents(decode_chain(header.next_payload, datagram.data[28:]))


def test_four_messages_make_a_tunnel() -> None:
    net, desk, lap = pair()
    net.connect(desk, lap)
    net.play(2)
    assert kinds(net) == ["34q", "34r", "35q", "35r"]
    assert net.pair_is_up()
    assert desk.all(PeerUp) == [PeerUp(lap.name, lap.address, True)]
    assert lap.all(PeerUp) == [PeerUp(desk.name, desk.address, False)]
    assert desk.outbound is not None
    assert (desk.outbound.suite, desk.outbound.esn) == ("aes128gcm16", True)
    assert (desk.outbound.local_id, desk.outbound.peer_id) == (desk.host_id, lap.host_id)
    (view,) = desk.ike.views()
    assert (view.encryption, view.prf, view.key_exchange) == ("aes256gcm16", "prfsha256", "x25519")


def test_the_responder_can_receive_before_it_answers_and_sends_only_after() -> None:
    """RFC 7296 §2.8: ready to receive first."""
    net, desk, lap = pair()
    lap.answer_asks = False
    net.connect(desk, lap)
    net.play(1)
    (ask,) = lap.all(AskPeer)
    assert (ask.name, ask.claimed, ask.remote) == (desk.name, desk.host_id, desk.address)
    commands = lap.ike.authorise(ask.ticket, net.policy(lap, desk), net.now)
    order = [type(c).__name__ for c in commands if not isinstance(c, IkeLog)]
    assert order == ["InstallInbound", "SendIke", "InstallOutbound", "PeerUp"]


def test_the_answer_waits_for_the_owner_and_repeats_are_absorbed() -> None:
    net, desk, lap = pair()
    lap.answer_asks = False
    net.connect(desk, lap)
    net.play(6)
    assert kinds(net).count("35q") >= 3
    assert kinds(net).count("35r") == 0
    (ask,) = lap.all(AskPeer)
    net.run(lap, lap.ike.authorise(ask.ticket, net.policy(lap, desk), net.now))
    net.play(1)
    assert net.pair_is_up()
    assert lap.ike.authorise(ask.ticket, net.policy(lap, desk), net.now) == []


def test_an_owner_who_says_nothing_is_a_refusal_after_a_while() -> None:
    net, desk, lap = pair(connect_timeout=100.0)
    lap.answer_asks = False
    net.connect(desk, lap)
    net.play(60)
    assert "AUTHENTICATION_FAILED" in failure(desk)
    assert lap.ike.next_timer() is None


def test_an_owner_who_refuses() -> None:
    net, desk, lap = pair()
    lap.refuse_with = "its host id is another's"
    net.connect(desk, lap)
    net.play(5)
    assert "AUTHENTICATION_FAILED" in failure(desk)
    assert any("another's" in log.text for log in lap.all(IkeLog))
    assert not lap.inbound
    assert not desk.inbound


def test_a_lost_refusal_is_said_again() -> None:
    lost = 1

    def fate(datagram: Datagram) -> list[float]:
        nonlocal lost
        if datagram.kind == "35r" and lost:
            lost -= 1
            return []
        return deliver(datagram)

    net, desk, lap = pair(fate=fate)
    lap.refuse_with = "no"
    net.connect(desk, lap)
    net.play(5)
    assert "AUTHENTICATION_FAILED" in failure(desk)


def test_a_wrong_pre_shared_key_has_a_sentence_on_both_sides() -> None:
    net, desk, lap = pair()
    net.secrets[desk.name, lap.name] = b"another secret"
    net.connect(desk, lap)
    net.play(5)
    assert "another pre-shared key" in failure(desk)
    assert any("the pre-shared key that desk" in log.text for log in lap.all(IkeLog))
    assert not lap.all(AskPeer)
    assert not lap.inbound


def test_a_responder_that_cannot_prove_itself_is_left() -> None:
    """RFC 7296 §2.21.2: the initiator says AUTHENTICATION_FAILED in a message of its own."""
    net, desk, lap = pair()
    secrets = iter([PSK, b"changed in between"])
    net.connect(desk, lap)
    lap.ike._ctx.secret_for = lambda name: next(secrets)
    net.play(5)
    assert "is not the one that we hold" in failure(desk)
    assert kinds(net)[4] == "37q"
    (down,) = lap.all(PeerDown)
    assert "our authentication failed" in down.reason
    assert not lap.inbound
    assert not desk.inbound


def test_a_name_without_a_key_is_not_even_tried() -> None:
    net, desk, lap = pair()
    net.secrets[desk.name, lap.name] = None
    net.connect(desk, lap)
    assert "no pre-shared key for lap" in failure(desk)
    assert net.sent == []


def test_a_stranger_by_name_is_refused() -> None:
    net, desk, lap = pair()
    net.secrets[lap.name, desk.name] = None
    net.connect(desk, lap)
    net.play(5)
    assert "does not know this name" in failure(desk)
    assert any("no pre-shared key for desk" in log.text for log in lap.all(IkeLog))


def test_another_host_at_that_endpoint_is_not_the_one_we_wanted() -> None:
    """A right key with a wrong name is wrong (fact sheet §14)."""
    net, desk, lap = pair()
    policy = PeerPolicy("shop.alice.example", desk.host_id, IPv6Address("fd00::9"))
    net.run(desk, desk.ike.connect("shop.alice.example", policy, lap.address, net.now))
    net.play(5)
    assert "AUTHENTICATION_FAILED" in failure(desk)
    assert any("wants shop.alice.example; we are lap" in log.text for log in lap.all(IkeLog))


def test_names_are_compared_in_lower_case() -> None:
    net, desk, lap = pair()
    policy = net.policy(desk, lap)
    net.run(desk, desk.ike.connect("Lap.Alice.EXAMPLE", policy, lap.address, net.now))
    net.play(2)
    assert net.pair_is_up()


def test_nobody_there_is_a_sentence_with_the_endpoint() -> None:
    net, desk, lap = pair(fate=lambda datagram: [])
    net.connect(desk, lap)
    net.play(31)
    assert "no IKE answer from lap.alice.example at 192.0.2.2 port 4500 within 30 s" in (
        failure(desk)
    )
    assert desk.ike.next_timer() is None
    assert kinds(net) == ["34q"] * 7


# --- proposals -------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", ["aes128gcm16", "aes256gcm16", "chacha20poly1305"])
@pytest.mark.parametrize("esn", [True, False])
def test_every_suite_of_a_child(suite: str, esn: bool) -> None:
    net, desk, lap = pair()
    net.connect(desk, lap, suites=(suite,), esn=(esn,))
    lap.answer_asks = False
    net.play(1)
    (ask,) = lap.all(AskPeer)
    suites = ("aes128gcm16", "aes256gcm16", "chacha20poly1305")
    policy = net.policy(lap, desk, suites=suites)
    net.run(lap, lap.ike.authorise(ask.ticket, policy, net.now))
    net.play(1)
    assert net.pair_is_up()
    assert desk.outbound is not None
    assert (desk.outbound.suite, desk.outbound.esn) == (suite, esn)
    assert len(desk.outbound.key_out) == (20 if suite == "aes128gcm16" else 36)


@pytest.mark.parametrize("encryption", ["aes128gcm16", "aes256gcm16", "chacha20poly1305"])
@pytest.mark.parametrize("prf", ["prfsha256", "prfsha384"])
@pytest.mark.parametrize("group", ["x25519", "ecp256"])
def test_every_suite_of_an_ike_sa(encryption: str, prf: str, group: str) -> None:
    net = Net()
    desk = net.add("desk.example", 1, encryption=(encryption,), prf=(prf,), groups=(group,))
    lap = net.add("lap.example", 2)
    net.connect(desk, lap)
    net.play(2)
    assert net.pair_is_up()
    (view,) = desk.ike.views()
    assert (view.encryption, view.prf, view.key_exchange) == (encryption, prf, group)


def test_a_wrong_guess_of_the_group_is_put_right() -> None:
    """INVALID_KE_PAYLOAD (RFC 7296 §1.2)."""
    net = Net()
    desk, lap = net.add("desk.example", 1), net.add("lap.example", 2, groups=("ecp256",))
    net.connect(desk, lap)
    net.play(2)
    assert kinds(net) == ["34q", "34r", "34q", "34r", "35q", "35r"]
    assert net.pair_is_up()
    assert desk.ike.views()[0].key_exchange == "ecp256"


def test_no_common_ike_proposal_says_what_we_offered() -> None:
    """An unauthenticated refusal is believed only when nothing better came for a while."""
    net = Net()
    desk = net.add("desk.example", 1, encryption=("chacha20poly1305",))
    lap = net.add("lap.example", 2, encryption=("aes128gcm16",))
    net.connect(desk, lap)
    net.play(1)
    assert not desk.all(IkeFailed)
    net.play(5)
    assert "NO_PROPOSAL_CHOSEN" in failure(desk)
    assert "chacha20poly1305-prfsha256" in failure(desk)
    assert any("we accept aes128gcm16" in log.text for log in lap.all(IkeLog))


def test_a_forged_refusal_does_not_stop_the_real_answer() -> None:
    net, desk, lap = pair()
    net.connect(desk, lap)
    request = decode_header(net.sent[0].data)
    forged = bytes.fromhex("00000008 0000 000e".replace(" ", ""))
    head = request.spi_i + bytes(8) + b"\x29\x20\x22\x20" + bytes(4) + (36).to_bytes(4, "big")
    net.run(desk, desk.ike.receive(head + forged, lap.address, net.now))
    net.play(2)
    assert net.pair_is_up()
    assert not desk.all(IkeFailed)


def test_no_common_child_proposal_says_which_side_wanted_what() -> None:
    net, desk, lap = pair()
    net.connect(desk, lap, suites=("chacha20poly1305",))
    net.play(10)
    assert "refused the child with NO_PROPOSAL_CHOSEN" in failure(desk)
    assert "we offered chacha20poly1305-esn/noesn" in failure(desk)
    assert any("we accept aes128gcm16/aes256gcm16" in log.text for log in lap.all(IkeLog))
    assert desk.ike.views() == lap.ike.views() == []


# --- selectors -------------------------------------------------------------------------------


def test_a_host_id_that_the_policy_does_not_give_is_refused() -> None:
    net, desk, lap = pair()
    policy = PeerPolicy(lap.name, IPv6Address("fd00::bad"), lap.host_id)
    net.run(desk, desk.ike.connect(lap.name, policy, lap.address, net.now))
    net.play(10)
    assert lap.all(AskPeer)[0].claimed == IPv6Address("fd00::bad")
    assert "TS_UNACCEPTABLE" in failure(desk)
    assert any("it may have fd00::1 to fd00::2" in log.text for log in lap.all(IkeLog))
    assert not lap.inbound
    assert not desk.inbound


# --- half-open SAs and COOKIE ----------------------------------------------------------------


def test_a_cookie_is_asked_for_when_many_are_half_open() -> None:
    """RFC 7296 §2.6; the initiator brings it back as the first payload."""
    net, desk, lap = pair(cookie_threshold=0)
    net.connect(desk, lap)
    net.play(2)
    assert kinds(net) == ["34q", "34r", "34q", "34r", "35q", "35r"]
    again = decode_chain(decode_header(net.sent[2].data).next_payload, net.sent[2].data[28:])
    assert again[0].body[2:4] == NotifyType.COOKIE.to_bytes(2, "big")
    assert net.pair_is_up()


def test_a_cookie_and_another_group() -> None:
    net = Net()
    desk = net.add("desk.example", 1)
    lap = net.add("lap.example", 2, groups=("ecp256",), cookie_threshold=0)
    net.connect(desk, lap)
    net.play(2)
    assert kinds(net) == ["34q", "34r", "34q", "34r", "34q", "34r", "35q", "35r"]
    assert plain(net.sent[4]).notify(NotifyType.COOKIE) is not None
    assert net.pair_is_up()


def test_a_flood_of_strangers_leaves_bounded_state_and_honest_peers_get_in() -> None:
    net, desk, lap = pair()
    net.connect(desk, lap)
    request = bytearray(net.sent[0].data)
    for number in range(3000):
        request[:8] = (number + 1).to_bytes(8, "big")
        source = (f"198.51.100.{number % 250}", 1024 + number)
        lap.ike.receive(bytes(request), source, net.now)
    assert len(lap.ike._ctx) == net.settings.cookie_threshold
    assert lap.ike.counters()["cookie_demanded"] == 3000 - net.settings.cookie_threshold
    net.play(1)  # the honest one gets its cookie in the midst of the flood
    assert net.pair_is_up()
    net.play(60)
    assert len(lap.ike._ctx) == 1


def test_even_with_cookies_the_half_open_ones_are_bounded() -> None:
    net, desk, lap = pair(cookie_threshold=10_000, half_open_limit=40)
    net.connect(desk, lap)
    request = bytearray(net.sent[0].data)
    for number in range(200):
        request[:8] = (number + 1).to_bytes(8, "big")
        lap.ike.receive(bytes(request), (f"198.51.100.{number}", 4500), net.now)
    assert len(lap.ike._ctx) == 40


def test_answers_to_strangers_are_limited() -> None:
    net, desk, lap = pair()
    sent = 0
    for number in range(500):
        data = bytes([7] * 16) + bytes([46, 0x20, Exchange.INFORMATIONAL, 8])
        data += number.to_bytes(4, "big") + (57).to_bytes(4, "big") + bytes(29)
        sent += len(lap.ike.receive(data, desk.address, net.now))
    assert sent == net.settings.answers_per_second


def test_a_newer_major_version_is_told_ours() -> None:
    """RFC 7296 §2.5."""
    net, desk, lap = pair()
    net.connect(desk, lap)
    request = bytearray(net.sent[0].data)
    request[17] = 0x30
    (answer,) = lap.ike.receive(bytes(request), desk.address, net.now)
    header = decode_header(answer.data)
    assert header.version == 0x20
    contents = decode_contents(decode_chain(header.next_payload, answer.data[28:]))
    assert contents.notify(NotifyType.INVALID_MAJOR_VERSION) is not None


# --- NAT detection ---------------------------------------------------------------------------


def test_our_source_hash_never_matches_so_that_everything_is_encapsulated() -> None:
    """RFC 6281 §2 with RFC 7296 §2.23; the destination hash is true."""
    net, desk, lap = pair()
    lap.ike.set_local([lap.address])
    desk.ike.set_local([("10.0.0.1", 4500)])
    net.connect(desk, lap)
    net.play(2)
    (at_lap,), (at_desk,) = lap.ike.views(), desk.ike.views()
    assert (at_lap.peer_behind_nat, at_desk.peer_behind_nat) == (True, True)
    assert (at_lap.behind_nat, at_desk.behind_nat) == (False, True)


def test_closing_an_attempt_ends_it() -> None:
    net, desk, lap = pair()
    net.connect(desk, lap)
    net.run(desk, desk.ike.close(lap.name, net.now))
    net.play(60)
    assert "we closed the connection" in failure(desk)
    assert not desk.all(RemoveChild)
    assert desk.ike.next_timer() is None
