"""Codecs: what we write we read again, and what we read is bounded (RFC 7296 §3)."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.ike.cipher import IntegrityError, MessageCipher, Opened
from keys.ike.cookie import CookieJar, demand, glance
from keys.ike.errors import IkeError, InvalidSyntaxError, UnsupportedCriticalError
from keys.ike.header import Exchange, Header, HeaderError, decode_header
from keys.ike.notify import Notify, NotifyType, decode_notify
from keys.ike.payloads import (
    Authentication,
    Contents,
    Delete,
    Identity,
    KeyExchange,
    decode_chain,
    decode_contents,
    encode_chain,
)
from keys.ike.proposals import (
    ENCRYPTION,
    ESN,
    GROUP,
    NO_INTEGRITY,
    NO_KE,
    PROTOCOL_ESP,
    PROTOCOL_IKE,
    Proposal,
    Transform,
    TransformType,
    answers,
    choose,
    decode_sa,
    describe,
    encode_sa,
    offer,
)
from keys.ike.sa import plain_message
from keys.ike.selectors import Selector, claimed_host, decode_selectors, encode_selectors, host

U8, U16, U32 = st.integers(0, 255), st.integers(0, 65535), st.integers(0, 2**32 - 1)
SHORT = st.binary(max_size=64)

headers = st.builds(
    Header,
    spi_i=st.binary(min_size=8, max_size=8),
    spi_r=st.binary(min_size=8, max_size=8),
    exchange=U8,
    message_id=U32,
    response=st.booleans(),
    initiator=st.booleans(),
    next_payload=U8,
    version=st.just(0x20),
)
notifies = st.builds(Notify, kind=U16, data=SHORT, protocol=U8, spi=SHORT)
deletes = st.integers(1, 8).flatmap(
    lambda size: st.builds(
        Delete,
        protocol=U8,
        spis=st.lists(st.binary(min_size=size, max_size=size), max_size=5).map(tuple),
    )
)
transforms = st.builds(Transform, type=U8, id=U16, key_bits=st.none() | U16)
proposals = st.builds(
    Proposal,
    number=U8,
    protocol=U8,
    spi=st.binary(max_size=8),
    transforms=st.lists(transforms, max_size=8).map(tuple),
)
addresses = st.integers(0, 2**128 - 1).map(IPv6Address)
selectors = st.builds(
    lambda a, b, protocol, low, high: Selector(min(a, b), max(a, b), protocol, (low, high)),
    addresses,
    addresses,
    U8,
    U16,
    U16,
)
selector_lists = st.lists(selectors, min_size=1, max_size=5).map(tuple)
contents = st.builds(
    Contents,
    sa=st.none() | st.lists(proposals, min_size=1, max_size=4).map(tuple),
    ke=st.none() | st.builds(KeyExchange, group=U16, data=SHORT),
    idi=st.none() | st.builds(Identity, kind=U8, data=SHORT),
    idr=st.none() | st.builds(Identity, kind=U8, data=SHORT),
    auth=st.none() | st.builds(Authentication, method=U8, data=SHORT),
    nonce=st.none() | st.binary(min_size=16, max_size=256),
    tsi=st.none() | selector_lists,
    tsr=st.none() | selector_lists,
    notifies=st.lists(notifies, max_size=4),
    deletes=st.lists(deletes, max_size=3),
)


@given(headers)
def test_headers(header: Header) -> None:
    assert decode_header(header.encode()) == header


@given(notifies)
def test_notifications(notify: Notify) -> None:
    assert decode_notify(notify.encode()) == notify


@given(st.lists(proposals, min_size=1, max_size=5).map(tuple))
def test_proposals(offered: tuple[Proposal, ...]) -> None:
    assert decode_sa(encode_sa(offered)) == offered


@given(selector_lists)
def test_selectors(some: tuple[Selector, ...]) -> None:
    assert decode_selectors(encode_selectors(some)) == some


@given(contents)
def test_whole_contents(whole: Contents) -> None:
    first, chain = encode_chain(whole.encode())
    assert decode_contents(decode_chain(first, chain)) == whole


@given(contents, headers, st.sampled_from(sorted(ENCRYPTION)))
def test_sealed_messages(whole: Contents, header: Header, suite: str) -> None:
    key = bytes(range(20 if suite == "aes128gcm16" else 36))
    sealed = MessageCipher(suite, key).seal(header, whole.encode())
    assert decode_header(sealed).length == len(sealed)
    opened = MessageCipher(suite, key).open(sealed)
    assert decode_contents(opened.payloads()) == whole
    with pytest.raises(IntegrityError):
        MessageCipher(suite, key[::-1]).open(sealed)


@given(st.binary(max_size=200), U8)
def test_any_octets_are_read_or_refused(data: bytes, first: int) -> None:
    with contextlib.suppress(IkeError):
        decode_contents(decode_chain(first, data))
    with contextlib.suppress(HeaderError):
        decode_header(data)


def test_the_iv_never_repeats_under_one_key() -> None:
    cipher = MessageCipher("aes128gcm16", bytes(20))
    header = Header(bytes(8), bytes(8), Exchange.INFORMATIONAL, 0, response=False, initiator=True)
    ivs = {cipher.seal(header, [])[32:40] for _ in range(100)}
    assert len(ivs) == 100


def test_padding_longer_than_the_message_is_refused() -> None:
    with pytest.raises(InvalidSyntaxError):
        Opened(0, 0, b"\x00\x05").payloads()
    assert Opened(0, 0, b"\xaa\xbb\x02").payloads() == []


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("00", "shorter than its header"),
        ("000000080103040200000000", "length or last mark"),
        ("0000000c0103040100000000", "transform is shorter"),
        ("00000014010304010000000000000009" + "01000014", "length or last mark"),
        ("000000140103040100000000" + "0300000801000014", "transform count"),
        ("0100000801030400", "length or last mark"),
    ],
)
def test_broken_sa_payloads(body: str, fault: str) -> None:
    with pytest.raises(InvalidSyntaxError, match=fault):
        decode_sa(bytes.fromhex(body))


def test_an_unknown_attribute_makes_only_its_transform_unacceptable() -> None:
    """RFC 7296 §3.3.6."""
    good = Transform(TransformType.ENCR, 20, 128)
    odd = bytes.fromhex("0300001001000014800e0080800f0001")
    body = odd + good.encode(last=False) + ESN[False].encode(last=True)
    head = bytes([0, 0, 0, 8 + 4 + len(body), 1, 3, 4, 3]) + b"\xc0\xff\xee\x01"
    (proposal,) = decode_sa(head + body)
    assert not proposal.transforms[0].known
    table = {TransformType.ENCR: [good], TransformType.ESN: [ESN[False]]}
    chosen = choose([proposal], PROTOCOL_ESP, 4, table)
    assert chosen is not None
    assert chosen.transforms == (good, ESN[False])


def esp(*some: Transform) -> Proposal:
    return Proposal(1, PROTOCOL_ESP, b"\xc0\xff\xee\x01", some)


AES, CHACHA = ENCRYPTION["aes128gcm16"], ENCRYPTION["chacha20poly1305"]
TABLE = {TransformType.ENCR: [CHACHA, AES], TransformType.ESN: [ESN[True], ESN[False]]}


def test_our_order_decides_among_what_the_peer_offers() -> None:
    chosen = choose([esp(AES, CHACHA, ESN[False], ESN[True])], PROTOCOL_ESP, 4, TABLE)
    assert chosen == esp(CHACHA, ESN[True])


def test_integrity_and_key_exchange_may_be_none_but_nothing_else() -> None:
    assert choose([esp(AES, ESN[False], NO_INTEGRITY, NO_KE)], PROTOCOL_ESP, 4, TABLE)
    hmac = Transform(TransformType.INTEG, 12)
    assert choose([esp(AES, ESN[False], hmac)], PROTOCOL_ESP, 4, TABLE) is None
    unknown = Transform(77, 1)
    assert choose([esp(AES, ESN[False], unknown)], PROTOCOL_ESP, 4, TABLE) is None
    assert choose([esp(AES)], PROTOCOL_ESP, 4, TABLE) is None
    assert choose([esp(AES, ESN[False], GROUP["x25519"])], PROTOCOL_ESP, 4, TABLE) is None


def test_an_answer_must_be_one_of_each_type_that_we_offered() -> None:
    """RFC 7296 §2.7."""
    offered = [offer(PROTOCOL_ESP, b"\xc0\xff\xee\x01", TABLE)]
    assert answers(esp(AES, ESN[False]), offered)
    assert answers(esp(AES, ESN[False], NO_INTEGRITY), offered)
    assert not answers(esp(AES), offered)
    assert not answers(esp(AES, CHACHA, ESN[False]), offered)
    assert not answers(esp(ENCRYPTION["aes256gcm16"], ESN[False]), offered)
    assert not answers(Proposal(2, PROTOCOL_ESP, b"1234", (AES, ESN[False])), offered)


def test_descriptions_are_for_people() -> None:
    assert describe([esp(AES, ESN[False])]) == "aes128gcm16-noesn"
    assert describe([esp(Transform(1, 12, 256))]) == "aes256"
    assert describe([esp(Transform(1, 99, 256))]) == "transform 1/99-256"
    several = (AES, Transform(1, 12, 128), ESN[False])
    assert describe([esp(*several)]) == "aes128gcm16/aes128-noesn"
    assert describe([]) == "nothing"
    assert Notify(24).name == "AUTHENTICATION_FAILED"
    assert Notify(8192).name == "notification 8192"
    assert Identity(1, b"\x01\x02").describe() == "an identity of type 1 (0102)"
    assert Identity(2, b"bad name\n").name is None
    assert UnsupportedCriticalError(99).notify().data == b"c"


def test_a_claim_is_the_first_single_address() -> None:
    one = IPv6Address("fd00::1")
    assert claimed_host(host(one)) == one
    assert claimed_host((Selector(one, IPv6Address("fd00::2")),)) == IPv6Address(0)


def test_other_selector_types_are_narrowed_away() -> None:
    ipv4 = bytes.fromhex("070000100000ffff0000000000000000")
    ours = encode_selectors(host(IPv6Address("fd00::1")))[4:]
    assert decode_selectors(b"\x02\0\0\0" + ipv4 + ours) == host(IPv6Address("fd00::1"))


# --- COOKIE ----------------------------------------------------------------------------------


def test_a_glance_sees_what_a_whole_reading_sees() -> None:
    for cookie in (b"", b"c" * 17):
        notifies = [Notify(NotifyType.COOKIE, cookie)] if cookie else []
        notifies.append(Notify(NotifyType.MOBIKE_SUPPORTED))
        contents = Contents(
            sa=(Proposal(1, PROTOCOL_IKE, b"", (ENCRYPTION["aes128gcm16"],)),),
            ke=KeyExchange(31, bytes(32)),
            nonce=b"n" * 32,
            notifies=notifies,
        )
        header = Header(b"i" * 8, bytes(8), Exchange.IKE_SA_INIT, 0, response=False, initiator=True)
        assert glance(plain_message(header, contents.encode())) == (b"n" * 32, cookie)
        for less in (
            replace(contents, sa=None),
            replace(contents, ke=None),
            replace(contents, nonce=None),
        ):
            assert glance(plain_message(header, less.encode())) is None


def test_a_demand_is_smaller_than_what_it_answers() -> None:
    """Else a stranger could make us shout at others."""
    least = 28 + 4 + 4 + (4 + 16)  # a header; SA and KE without anything; a nonce
    assert len(demand(b"i" * 8, bytes(17))) < least
    header = decode_header(demand(b"i" * 8, b"c" * 17))
    assert (header.spi_i, header.spi_r, header.response) == (b"i" * 8, bytes(8), True)
    contents = decode_contents(decode_chain(header.next_payload, demand(b"i" * 8, b"c" * 17)[28:]))
    assert contents.notifies == [Notify(NotifyType.COOKIE, b"c" * 17)]


def test_a_cookie_binds_nonce_spi_and_endpoint_and_outlives_one_change_of_secret() -> None:
    """RFC 7296 §2.6."""
    counter = iter(range(1, 1000))
    jar = CookieJar(lambda octets: bytes([next(counter)]) * octets, lifetime=60.0)
    args = (bytes(32), b"spi-of-i", ("192.0.2.1", 4500))
    cookie = jar.make(*args, now=0.0)
    assert 1 <= len(cookie) <= 64
    assert jar.check(cookie, *args, now=1.0)
    assert jar.check(cookie, *args, now=61.0)
    assert not jar.check(cookie, *args, now=130.0)
    fresh = jar.make(*args, now=130.0)
    assert not jar.check(fresh, b"1" * 32, *args[1:], now=130.0)
    assert not jar.check(fresh, args[0], b"another!", args[2], now=130.0)
    assert not jar.check(fresh, *args[:2], ("192.0.2.1", 4501), now=130.0)
    assert not jar.check(b"", *args, now=130.0)
    assert not jar.check(fresh[:-1] + b"x", *args, now=130.0)
