"""IKEv2 fragmentation (RFC 7383), both ways."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.ike import fragments
from keys.ike.cipher import FRAGMENT_OVERHEAD, IntegrityError, MessageCipher, Place, place_of
from keys.ike.header import HEADER_OCTETS, Exchange, Header, decode_header
from keys.ike.notify import Notify, NotifyType
from keys.ike.payloads import Contents, PayloadType, encode_chain
from keys.ike.sa import IkeSa
from keys.ike.settings import IkeSettings
from keys.ike.types import ProbeAnswered, SendIke
from tests.keys.ike.net import DELAY, Datagram, Net, Side, pair

KEY = bytes(range(36))
HEADER = Header(b"i" * 8, b"r" * 8, Exchange.IKE_AUTH, 7, response=False, initiator=True)
SMALL = 120  # octets of an IP datagram: everything but an empty message is cut


def cut(chain: bytes, limit: int, first: int = 41) -> tuple[bytes, ...]:
    return fragments.seal(MessageCipher("aes256gcm16", KEY), HEADER, first, chain, limit)


def joined(assembly: fragments.Assembly, data: bytes, now: float = 0.0) -> fragments.Joined | None:
    place = place_of(data)
    assert place is not None
    if not assembly.wants(7, place, now):
        return None
    opened = MessageCipher("aes256gcm16", KEY).open_fragment(data)
    return assembly.add(7, place, opened, data, octets=65535, now=now)


# --- The codec --------------------------------------------------------------------------------


def test_the_layout_of_a_fragment() -> None:
    """RFC 7383 §2.5: the type of the first payload stands in fragment 1 only; each has its own IV,
    and number and total are authenticated."""
    one, two = cut(bytes(100), 28 + FRAGMENT_OVERHEAD + 60)
    assert (one[16], two[16]) == (53, 53)
    assert (one[28], two[28]) == (41, 0)
    assert one[32:36] == bytes.fromhex("00010002")
    assert two[32:36] == bytes.fromhex("00020002")
    assert one[36:44] != two[36:44]
    assert decode_header(one).message_id == decode_header(two).message_id == 7
    for position in range(len(one)):
        if position in (*range(16), *range(17, 30), *range(32, len(one))):
            broken = bytearray(one)
            broken[position] ^= 1
            with pytest.raises(IntegrityError):
                MessageCipher("aes256gcm16", KEY).open_fragment(bytes(broken))


@given(st.binary(min_size=1, max_size=5000), st.integers(90, 1400), st.randoms())
def test_what_is_cut_is_joined_in_any_order(chain: bytes, limit: int, rng: random.Random) -> None:
    pieces = list(cut(chain, limit))
    assert all(len(piece) <= limit for piece in pieces)
    if len(pieces) == 1:
        assert MessageCipher("aes256gcm16", KEY).open(pieces[0]).chain == chain
        return
    head = pieces[0]
    rng.shuffle(pieces)
    assembly = fragments.Assembly(IkeSettings(fragments_limit=10_000))
    results = [joined(assembly, piece) for piece in [*pieces[:-1], *pieces[:-1]]]
    assert results == [None] * len(results)
    whole = joined(assembly, pieces[-1])
    assert whole is not None
    assert (whole.opened.first, whole.opened.chain, whole.head) == (41, chain, head)
    assert assembly.until is None


def test_a_short_message_is_not_cut() -> None:
    """RFC 7383 §2.5: a message that fits is sent as ever; so is any to a peer without SKF."""
    assert [data[16] for data in cut(b"x" * 30, 200)] == [PayloadType.SK]
    cipher = MessageCipher("aes256gcm16", KEY)
    assert len(fragments.seal(cipher, HEADER, 41, bytes(5000), None)) == 1


def test_thresholds_are_those_of_the_rfc() -> None:
    """RFC 7383 §2.5.1: IP datagrams of 576 and 1280 octets."""
    settings = IkeSettings()
    assert fragments.room(settings, ("192.0.2.1", 4500)) == 576 - 20 - 8 - 4
    assert fragments.room(settings, ("2001:db8::1", 4500)) == 1280 - 40 - 8 - 4


@pytest.mark.parametrize(("number", "total"), [(0, 1), (0, 0), (1, 0), (3, 2), (65535, 1)])
def test_places_that_are_none(number: int, total: int) -> None:
    """RFC 7383 §2.6: neither is zero, and the number is not above the total."""
    data = cut(bytes(500), 200)[0]
    broken = data[:32] + number.to_bytes(2, "big") + total.to_bytes(2, "big") + data[36:]
    assert place_of(broken) is None
    assert place_of(data[: HEADER_OCTETS + FRAGMENT_OVERHEAD - 1]) is None


def test_a_larger_total_starts_over_and_a_smaller_one_is_dropped() -> None:
    """RFC 7383 §2.6."""
    chain = bytes(range(250)) * 4
    coarse, fine = cut(chain, 500), cut(chain, 300)
    assert len(coarse) < len(fine)
    assembly = fragments.Assembly(IkeSettings())
    assert joined(assembly, coarse[0]) is None
    assert [joined(assembly, piece) for piece in fine[:-1]] == [None] * (len(fine) - 1)
    assert not assembly.wants(7, Place(2, len(coarse)), 0.0)
    whole = joined(assembly, fine[-1])
    assert whole is not None
    assert whole.opened.chain == chain


def test_an_assembly_is_bounded_in_number_octets_and_time() -> None:
    settings = IkeSettings(fragments_limit=4, reassembly_timeout=30.0)
    assembly = fragments.Assembly(settings)
    assert not assembly.wants(7, Place(1, 5), 0.0)
    assert not assembly.wants(7, Place(1, 65535), 0.0)
    pieces = cut(bytes(300), 200)
    assert joined(assembly, pieces[0], now=0.0) is None
    assert assembly.until == 30.0
    assert joined(assembly, pieces[0], now=30.0) is None  # forgotten by now, so it is wanted
    assert assembly.until == 60.0
    assembly.forget(59.0)
    assert assembly.until == 60.0
    assembly.forget(60.0)
    assert assembly.until is None


# --- On the way -------------------------------------------------------------------------------


def up(**keywords: object) -> tuple[Net, Side, Side]:
    net, desk, lap = pair(fragment_ipv4=SMALL, **keywords)
    net.connect(desk, lap)
    net.play(3)
    assert net.pair_is_up()
    return net, desk, lap


def sa_of(side: Side, peer: Side) -> IkeSa:
    sa = side.ike._ctx.current(peer.name)
    assert sa is not None
    return sa


def cut_of(net: Net, kind: str) -> list[Datagram]:
    return [d for d in net.sent if d.kind == kind and d.data[16] == PayloadType.SKF]


def test_every_message_may_travel_in_fragments() -> None:
    net, desk, lap = up()
    assert len(cut_of(net, "35q")) > 3
    assert len(cut_of(net, "35r")) > 2
    assert all(len(d.data) <= SMALL - 32 for d in net.sent if d.kind != "34q" and d.kind != "34r")
    net.run(desk, desk.ike.rekey(lap.name, net.now))
    net.play(10)
    assert len(cut_of(net, "36q")) > 3
    assert len(cut_of(net, "36r")) > 3
    assert net.pair_is_up()


def test_any_one_fragment_may_be_lost() -> None:
    for lost in range(2, 22):
        net, desk, lap = pair(
            fragment_ipv4=SMALL, fate=lambda d, lost=lost: [] if d.number == lost else [DELAY]
        )
        net.connect(desk, lap)
        net.play(5)
        assert net.pair_is_up(), lost


def test_fragments_come_in_any_order_and_twice() -> None:
    for seed in range(20):
        rng = random.Random(seed)
        net, desk, lap = pair(
            seed=seed,
            fragment_ipv4=SMALL,
            fate=lambda d, rng=rng: [DELAY * (1 + rng.random()) for _ in range(2)],
        )
        net.connect(desk, lap)
        net.play(5)
        net.run(desk, desk.ike.rekey(lap.name, net.now))
        net.play(10)
        assert net.pair_is_up(), seed
        assert len(desk.inbound) == len(lap.inbound) == 1


def test_only_the_first_fragment_of_a_repeat_is_answered() -> None:
    """RFC 7383 §2.6.1: else each lost answer would come back many times over."""
    net, desk, lap = up()
    net.sent.clear()
    net.run(desk, desk.ike.rekey(lap.name, net.now))
    net.play(1)
    request = [d.data for d in cut_of(net, "36q")]
    answer = [d.data for d in cut_of(net, "36r")]
    for number, data in enumerate(request, 1):
        commands = lap.ike.receive(data, desk.address, net.now)
        sent = [c.data for c in commands if isinstance(c, SendIke)]
        assert sent == (answer if number == 1 else [])


def test_a_request_cut_anew_is_answered_by_its_first_fragment() -> None:
    """RFC 7383 §2.5.2: a peer that looks for the path's MTU cuts the same message smaller."""
    net, desk, lap = up()
    sa = sa_of(desk, lap)
    chain = encode_chain(Contents(notifies=[Notify(40001, bytes(300))]).encode())
    header = sa.header(Exchange.INFORMATIONAL, sa.window.next_id, response=False)
    assert sa._seal is not None
    first = fragments.seal(sa._seal, header, *chain, 200)
    again = fragments.seal(sa._seal, header, *chain, 150)
    answers = [lap.ike.receive(data, desk.address, net.now) for data in first]
    assert [len(a) for a in answers] == [0] * (len(first) - 1) + [1]
    answers = [lap.ike.receive(data, desk.address, net.now) for data in again]
    assert [len(a) for a in answers] == [1] + [0] * (len(again) - 1)
    broken = bytearray(again[0])
    broken[-1] ^= 1
    assert lap.ike.receive(bytes(broken), desk.address, net.now) == []


def test_a_peer_that_does_not_join_fragments_gets_none() -> None:
    net, desk, lap = pair(fragment_ipv4=SMALL)

    def without(datagram: Datagram) -> bytes:
        return (
            datagram.data.replace(b"\x40\x2e", b"\x9c\x40")
            if "34" in datagram.kind
            else (datagram.data)
        )

    net.tamper = without
    net.connect(desk, lap)
    net.play(2)
    assert not cut_of(net, "35q")
    assert not cut_of(net, "35r")


def test_fragments_that_were_not_agreed_on_are_dropped() -> None:
    net, desk, lap = up()
    sa_of(lap, desk).fragmentation = False
    net.run(desk, desk.ike.rekey(lap.name, net.now))
    net.play(0.3)
    assert lap.ike.counters()["fragment"] > 0
    assert not [d for d in net.sent if d.kind == "36r"]


def test_a_flood_of_fragments_leaves_nothing_behind() -> None:
    """A peer before AUTH fills at most one bounded message, and that is forgotten in time."""
    net, desk, lap = pair(reassembly_octets_half_open=1000, half_open_timeout=100.0)
    net.connect(desk, lap)
    net.play(2 * DELAY + 0.01)
    sa = sa_of_attempt(desk)
    (half,) = list(lap.ike._ctx)
    assert sa._seal is not None
    header = sa.header(Exchange.IKE_AUTH, 1, response=False)
    for number, total in itertools.product(range(1, 12), (100, 110, 120)):
        data = sa._seal.seal_fragment(header, 35, bytes(200), Place(number, total))
        assert lap.ike.receive(data, desk.address, net.now) == []
        assert half.asked._pieces is None or half.asked._pieces.octets <= 1000
    assert lap.ike.counters()["fragment"] > 0
    data = sa._seal.seal_fragment(header, 35, bytes(200), Place(1, 128))
    lap.ike.receive(data, desk.address, net.now)
    assert half.asked.until is not None
    net.run(lap, lap.ike.advance(net.now + 31))
    assert half.asked.until is None


def sa_of_attempt(side: Side) -> IkeSa:
    (sa,) = list(side.ike._ctx)
    return sa


def test_fragments_may_be_empty() -> None:
    """RFC 7383 §2.5.3: the first may hold nothing."""
    net, desk, lap = up()
    sa = sa_of(desk, lap)
    assert sa._seal is not None
    header = sa.header(Exchange.INFORMATIONAL, sa.window.next_id, response=False)
    one, two = (sa._seal.seal_fragment(header, 0, b"", Place(n, 2)) for n in (1, 2))
    assert lap.ike.receive(one, desk.address, net.now) == []
    (answer,) = lap.ike.receive(two, desk.address, net.now)
    assert isinstance(answer, SendIke)
    assert answer.data[18] == Exchange.INFORMATIONAL


def test_a_probe_works_over_fragments_after_an_ike_sa_rekey() -> None:
    net, desk, lap = up()
    sa = sa_of(desk, lap)
    sa.rekey_at = net.now
    net.run(desk, desk.ike.advance(net.now))
    net.play(5)
    assert sa_of(desk, lap) is not sa
    assert sa_of(desk, lap).fragmentation
    net.run(desk, desk.ike.probe(lap.name, net.now))
    net.play(1)
    assert desk.all(ProbeAnswered)
    net.run(desk, desk.ike.rekey(lap.name, net.now))
    net.play(10)
    assert net.pair_is_up()


def test_an_unanswered_message_in_fragments_is_sent_again_bit_for_bit() -> None:
    net, desk, lap = up()
    net.sent.clear()
    net.fate = lambda datagram: []
    net.run(desk, desk.ike.rekey(lap.name, net.now))
    net.play(3)
    data = [d.data for d in net.sent]
    count = place_of(data[0])
    assert count is not None
    assert data[: count.total] == data[count.total : 2 * count.total]


def test_the_header_of_a_joined_message_is_that_of_its_first_fragment() -> None:
    pieces = cut(bytes(300), 200, first=PayloadType.IDI)
    assembly = fragments.Assembly(IkeSettings())
    results = [joined(assembly, piece) for piece in reversed(pieces)]
    assert results[-1] is not None
    assert results[-1].opened.first == PayloadType.IDI
    assert replace(results[-1].opened, first=0).flags == 0


def test_fragmentation_is_announced_both_ways() -> None:
    """RFC 7383 §2.3."""
    net, _, _ = up()
    notify = Notify(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED).encode()
    for datagram in net.sent[:2]:
        assert notify in datagram.data
