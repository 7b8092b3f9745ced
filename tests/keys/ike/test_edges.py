"""The codec at its edges: the last length that is right beside the first that is wrong."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest

from keys.ike.cipher import IntegrityError, MessageCipher, Opened, Place
from keys.ike.errors import IkeError, InvalidSyntaxError, UnsupportedCriticalError
from keys.ike.fragments import Assembly, Joined, room, seal
from keys.ike.header import MAX_MESSAGE, Exchange, Header, HeaderError, decode_header
from keys.ike.notify import Notify
from keys.ike.payloads import (
    MAX_PAYLOADS,
    Authentication,
    Contents,
    Delete,
    Identity,
    KeyExchange,
    Payload,
    PayloadType,
    decode_chain,
    decode_contents,
    encode_chain,
)
from keys.ike.proposals import (
    MAX_PROPOSALS,
    MAX_TRANSFORMS,
    Proposal,
    Transform,
    decode_sa,
    encode_sa,
)
from keys.ike.selectors import decode_selectors, host
from keys.ike.settings import IkeSettings

HEADER = Header(b"i" * 8, b"r" * 8, Exchange.IKE_AUTH, 1, response=False, initiator=True)


def contents(kind: int, body: bytes, *, critical: bool = False) -> Contents:
    chain = bytes((0, 0x80 if critical else 0)) + (4 + len(body)).to_bytes(2, "big") + body
    return decode_contents(decode_chain(kind, chain))


# --- Header and chain -------------------------------------------------------------------------


def test_a_message_is_28_to_65535_octets() -> None:
    for octets, fine in ((27, False), (28, True), (MAX_MESSAGE, True), (MAX_MESSAGE + 1, False)):
        head = Header(b"i" * 8, b"r" * 8, 37, 7, True, False, 0, min(octets, MAX_MESSAGE)).encode()
        data = (head + bytes(octets))[:octets]
        if fine:
            read = decode_header(data)
            assert (read.length, read.message_id, read.response, read.initiator) == (
                octets,
                7,
                True,
                False,
            )
        else:
            with pytest.raises(HeaderError):
                decode_header(data)


def test_a_chain_holds_128_payloads() -> None:
    one = bytes((43, 0, 0, 4))
    assert len(decode_chain(43, one * (MAX_PAYLOADS - 1) + bytes((0, 0, 0, 4)))) == 128
    with pytest.raises(InvalidSyntaxError, match="more than 128"):
        decode_chain(43, one * MAX_PAYLOADS + bytes((0, 0, 0, 4)))


@pytest.mark.parametrize(
    ("chain", "fault"),
    [
        ("000000", "shorter than its header"),
        ("00000003", "not inside the message"),
        ("00000005", "not inside the message"),
        ("0000000400", "follow the last payload"),
        ("2b000004", "shorter than its header"),
    ],
)
def test_broken_chains(chain: str, fault: str) -> None:
    with pytest.raises(InvalidSyntaxError, match=fault):
        decode_chain(43, bytes.fromhex(chain))


def test_the_critical_bit_is_the_highest_and_counts_where_a_payload_is_unknown() -> None:
    assert contents(200, b"x") == Contents()
    assert contents(PayloadType.VENDOR, b"x", critical=True) == Contents()
    with pytest.raises(UnsupportedCriticalError, match="type 200") as refused:
        contents(200, b"x", critical=True)
    assert refused.value.notify().data == bytes((200,))
    reserved = bytes((0, 0x7F, 0, 4))
    assert decode_contents(decode_chain(200, reserved)) == Contents()


def test_versions_are_read_as_they_stand() -> None:
    head = Header(b"i" * 8, b"r" * 8, 34, 0, False, True, 33, 28, 0x31).encode()
    assert (decode_header(head).version, decode_header(head).major) == (0x31, 3)
    assert decode_header(head).encode() == head


# --- What is sealed ---------------------------------------------------------------------------


def test_ivs_count_from_zero() -> None:
    cipher = MessageCipher("aes128gcm16", bytes(20))
    for number in range(3):
        sealed = cipher.seal_chain(HEADER, 0, b"")
        assert sealed[32:40] == number.to_bytes(8, "big")


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("suite", ["aes128gcm16", "chacha20poly1305"])
def test_a_message_that_is_too_short_is_not_opened(suite: str, cut: bool) -> None:
    """Whatever its lengths say."""
    cipher = MessageCipher(suite, bytes(20 if suite == "aes128gcm16" else 36))
    whole = (
        cipher.seal_fragment(HEADER, 0, b"", Place(1, 1))
        if cut
        else cipher.seal_chain(HEADER, 0, b"")
    )
    opens = cipher.open_fragment if cut else cipher.open
    assert opens(whole).plain == b"\0"
    for octets in range(len(whole)):
        short = whole[:octets]
        told = short[:30] + max(0, octets - 28).to_bytes(2, "big") + short[32:]
        for data in (short, told[:octets]):
            with pytest.raises(IntegrityError):
                opens(data)
    with pytest.raises(IntegrityError):
        (cipher.open if cut else cipher.open_fragment)(whole)


# --- Bodies -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "read"),
    [
        ("01000000", Delete(1)),
        ("03040000", Delete(3)),
        ("030400010a0b0c0d", Delete(3, (b"\x0a\x0b\x0c\x0d",))),
        ("030200020a0b0c0d", Delete(3, (b"\x0a\x0b", b"\x0c\x0d"))),
        ("030400010a0b0c", None),
        ("030400010a0b0c0d0e", None),
        ("0304000000", None),
        ("03000001", None),
        ("030400", None),
    ],
)
def test_deletes(body: str, read: Delete | None) -> None:
    if read is None:
        with pytest.raises(InvalidSyntaxError):
            contents(PayloadType.DELETE, bytes.fromhex(body))
    else:
        assert contents(PayloadType.DELETE, bytes.fromhex(body)).deletes == [read]


def test_a_delete_without_spis_says_that_they_have_no_size() -> None:
    assert Delete(1).encode() == bytes.fromhex("01000000")
    assert Delete(3, (b"abcd",)).encode() == bytes.fromhex("03040001") + b"abcd"


@pytest.mark.parametrize(("octets", "fine"), [(15, 0), (16, 1), (256, 1), (257, 0)])
def test_nonces(octets: int, fine: int) -> None:
    try:
        assert contents(PayloadType.NONCE, bytes(octets)).nonce == bytes(octets)
        assert fine
    except IkeError:
        assert not fine


def test_identities_in_words() -> None:
    assert Identity.fqdn("Desk.alice.example").name == "desk.alice.example"
    assert Identity(2, b"desk.alice.example").describe() == "desk.alice.example"
    assert Identity(1, bytes(40)).describe() == f"an identity of type 1 ({'00' * 32})"
    for name in (b"", b"a b", b"a\x7fb", b"\xe4", b"a" * 256):
        assert Identity(2, name).name is None
    assert Identity(2, b"!~").name == "!~" and Identity(2, b"a" * 255).name == "a" * 255
    assert Identity(3, b"desk").name is None


def test_fixed_parts_must_be_whole() -> None:
    for kind in (PayloadType.KE, PayloadType.IDI, PayloadType.IDR, PayloadType.AUTH):
        contents(kind, bytes(4))
        with pytest.raises(InvalidSyntaxError):
            contents(kind, bytes(3))


def test_certificates_of_another_encoding_are_passed_over() -> None:
    assert contents(PayloadType.CERT, b"\4der").certs == [b"der"]
    assert contents(PayloadType.CERT, b"\5der").certs == contents(PayloadType.CERT, b"").certs == []
    assert contents(PayloadType.CERTREQ, b"\4hash").certreq == b"hash"
    assert contents(PayloadType.CERTREQ, b"\5hash").certreq is None


WHOLE = Contents(
    sa=(Proposal(1, 1, b"", (Transform(1, 20, 256),)),),
    ke=KeyExchange(31, bytes(32)),
    idi=Identity.fqdn("desk.alice.example"),
    idr=Identity.fqdn("lap.alice.example"),
    certs=[b"one", b"two"],
    certreq=b"hash",
    auth=Authentication(14, b"proof"),
    nonce=bytes(16),
    tsi=host(IPv6Address("fd00::1")),
    tsr=host(IPv6Address("fd00::2")),
    notifies=[Notify(16384), Notify(16390, b"cookie")],
    deletes=[Delete(1), Delete(3, (b"spi!",))],
)


def test_all_payloads_in_the_order_of_the_rfc() -> None:
    made = WHOLE.encode()
    order = "IDI CERT CERT CERTREQ IDR AUTH NOTIFY NOTIFY DELETE DELETE SA KE NONCE TSI TSR"
    assert [PayloadType(payload.kind).name for payload in made] == order.split()
    assert decode_contents(decode_chain(*encode_chain(made))) == WHOLE


def test_a_responder_names_itself_alone() -> None:
    name = Identity.fqdn("lap.alice.example")
    answer = Contents(idr=name, certs=[b"der"], auth=Authentication(14, b"proof"))
    order = [PayloadType.IDR, PayloadType.CERT, PayloadType.AUTH]
    assert [payload.kind for payload in answer.encode()] == order
    assert decode_contents(answer.encode()) == answer
    assert Contents(certreq=b"").encode() == [Payload(PayloadType.CERTREQ, b"\4")]


@pytest.mark.parametrize("payload", WHOLE.encode(), ids=lambda p: PayloadType(p.kind).name)
def test_what_may_stand_twice(payload: Payload) -> None:
    many = (PayloadType.CERT, PayloadType.CERTREQ, PayloadType.NOTIFY, PayloadType.DELETE)
    if payload.kind in many:
        assert decode_contents([payload] * 2) != decode_contents([payload])
    else:
        with pytest.raises(InvalidSyntaxError, match="stands twice"):
            decode_contents([payload] * 2)


def test_the_critical_bit_is_written() -> None:
    payloads = [Payload(200, b"x", critical=True), Payload(201, b"")]
    first, chain = encode_chain(payloads)
    assert (first, chain) == (200, bytes((201, 0x80, 0, 5)) + b"x" + bytes((0, 0, 0, 4)))
    assert decode_chain(first, chain) == payloads
    assert encode_chain([]) == (0, b"")


@pytest.mark.parametrize("kind", [PayloadType.SK, PayloadType.SKF])
def test_what_is_sealed_ends_a_chain(kind: PayloadType) -> None:
    """Its next payload is the type of the first one inside (RFC 7296 §3.14)."""
    sealed = bytes((33, 0, 0, 5)) + b"x"
    assert decode_chain(kind, sealed) == [Payload(kind, b"x")]
    with pytest.raises(InvalidSyntaxError, match="follow the last"):
        decode_chain(kind, sealed + bytes(4))


# --- SA and selectors -------------------------------------------------------------------------


def test_proposals_and_transforms_are_counted() -> None:
    some = tuple(Transform(1, n) for n in range(MAX_TRANSFORMS))
    most = (Proposal(1, 3, b"spi!", some),) * MAX_PROPOSALS
    assert decode_sa(encode_sa(most)) == most
    with pytest.raises(InvalidSyntaxError, match="more than 32 proposals"):
        decode_sa(encode_sa((*most, most[0])))
    with pytest.raises(InvalidSyntaxError, match="more than 128 transforms"):
        decode_sa(encode_sa((Proposal(1, 3, b"", (*some, some[0])),)))


@pytest.mark.parametrize(
    ("attributes", "transform"),
    [
        ("", Transform(1, 20)),
        ("800e0100", Transform(1, 20, 256)),
        ("800e0100800e0080", Transform(1, 20, 256, known=False)),  # a second length
        ("80070001", Transform(1, 20, None, known=False)),
        ("80070001800e0080", Transform(1, 20, 128, known=False)),
        ("000700020102", Transform(1, 20, None, known=False)),  # with a length of its own
        ("000700020102800e0080", Transform(1, 20, 128, known=False)),
        ("00070000800e0080", Transform(1, 20, 128, known=False)),
        ("000e00020080", Transform(1, 20, None, known=False)),
        ("0007000201", None),
        ("000700030102", None),
        ("800e01", None),
    ],
)
def test_attributes_of_a_transform(attributes: str, transform: Transform | None) -> None:
    """The short form holds its value, the long one says how long that is (RFC 7296 §3.3.5)."""
    extra = bytes.fromhex(attributes)
    body = bytes((0, 0, 0, 8 + len(extra), 1, 0, 0, 20)) + extra
    sa = bytes((0, 0, 0, 8 + len(body), 1, 3, 0, 1)) + body
    if transform is None:
        with pytest.raises(InvalidSyntaxError, match="transform attribute"):
            decode_sa(sa)
    else:
        assert decode_sa(sa) == (Proposal(1, 3, b"", (transform,)),)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("000000", "shorter than its header"),
        ("00000000", "says that it holds 0"),
        ("41000000" + "0700000800000000" * 65, "says that it holds 65"),
        ("01000000" + "07000008000000", "selector is shorter"),
        ("01000000" + "0700000700000000", "longer than its payload"),
        ("01000000" + "0700000900000000", "longer than its payload"),
        ("01000000" + "0800000800000000", "not 40 octets"),
        ("01000000" + "080000290000ffff" + "00" * 33, "not 40 octets"),
        ("01000000" + "0700000800000000" + "00", "follow the last"),
    ],
)
def test_broken_selectors(body: str, fault: str) -> None:
    with pytest.raises(InvalidSyntaxError, match=fault):
        decode_selectors(bytes.fromhex(body))


def test_sixty_four_selectors_are_read() -> None:
    assert decode_selectors(bytes.fromhex("40000000" + "0700000800000000" * 64)) == ()
    backwards = "01000000" + "080000280000ffff" + "00" * 15 + "02" + "00" * 15 + "01"
    assert decode_selectors(bytes.fromhex(backwards)) == ()
    (one,) = decode_selectors(bytes.fromhex(backwards[:-1] + "2"))
    assert one.first == one.last and (one.protocol, one.ports) == (0, (0, 65535))


# --- Fragments --------------------------------------------------------------------------------

SETTINGS = IkeSettings(fragments_limit=4, reassembly_timeout=30.0)


def add(
    assembly: Assembly, place: Place, octets: int = 10, *, now: float = 0.0, message_id: int = 1
) -> Joined | None:
    opened = Opened(40 if place.number == 1 else 0, place.number, bytes(octets) + b"\0")
    data = b"fragment %d" % place.number
    return assembly.add(message_id, place, opened, data, octets=25, now=now)


def test_which_fragments_are_worth_verifying() -> None:
    assembly = Assembly(SETTINGS)
    assert assembly.wants(1, Place(1, 4), 0.0) and not assembly.wants(1, Place(1, 5), 0.0)
    assert add(assembly, Place(2, 3)) is None
    assert assembly.wants(1, Place(1, 3), 0.0) and assembly.wants(1, Place(3, 3), 0.0)
    assert not assembly.wants(1, Place(2, 3), 0.0), "it is here already"
    assert not assembly.wants(1, Place(1, 2), 0.0), "cut into fewer than what we have"
    assert assembly.wants(1, Place(2, 4), 0.0), "cut anew into more"
    assert assembly.wants(2, Place(2, 2), 0.0), "another message"


def test_a_message_is_forgotten_when_its_time_is_over() -> None:
    assembly = Assembly(SETTINGS)
    add(assembly, Place(2, 3), now=5.0)
    assert assembly.until == 35.0
    add(assembly, Place(1, 3), 1, now=20.0)
    assert assembly.until == 35.0, "the first fragment sets the time"
    assembly.forget(34.9)
    assert assembly.until == 35.0
    assert not assembly.wants(1, Place(2, 3), 34.9)
    assert assembly.wants(1, Place(2, 3), 35.0) and assembly.until is None
    add(assembly, Place(2, 3))
    assembly.forget()
    assert assembly.until is None


def test_octets_are_added_up() -> None:
    assembly = Assembly(SETTINGS)
    assert add(assembly, Place(1, 3)) is None and add(assembly, Place(2, 3)) is None
    with pytest.raises(InvalidSyntaxError, match="longer than any"):
        add(assembly, Place(3, 3), 6)
    assert assembly.until is None
    assert add(assembly, Place(1, 3)) is None and add(assembly, Place(3, 3)) is None
    joined = add(assembly, Place(2, 3), 5)
    assert joined is not None and assembly.until is None
    assert joined.opened == Opened(40, 1, bytes(25) + b"\0")
    assert joined.head == b"fragment 1"


def test_a_message_cut_anew_and_another_message_start_over() -> None:
    for place, message_id in ((Place(1, 3), 1), (Place(1, 2), 2)):
        assembly = Assembly(SETTINGS)
        add(assembly, Place(1, 2))
        assert add(assembly, place, message_id=message_id, now=7.0) is None
        assert assembly.until == 37.0
        for number in range(2, place.total):
            assert add(assembly, Place(number, place.total), 1, message_id=message_id) is None
        assert add(assembly, Place(place.total, place.total), 1, message_id=message_id)


def test_a_message_is_cut_only_when_it_must_be() -> None:
    cipher = MessageCipher("aes128gcm16", bytes(20))
    whole = 28 + 29  # header, SK header, IV, pad length and tag
    for chain, limit, datagrams in (
        (bytes(100), None, 1),
        (bytes(100), whole + 100, 1),
        (bytes(100), whole + 99, 2),
        (bytes(95), whole + 50 - 1, 3),
    ):
        made = seal(cipher, HEADER, 40, chain, limit)
        assert len(made) == datagrams
        assert all(len(one) <= (limit or 65535) for one in made)
        assert made[0][16] == (PayloadType.SK if datagrams == 1 else PayloadType.SKF)
        assert [one[28] for one in made] == [40, *[0] * (datagrams - 1)]


def test_room_in_a_datagram() -> None:
    settings = IkeSettings(fragment_ipv4=576, fragment_ipv6=1280)
    assert room(settings, ("192.0.2.1", 4500)) == 576 - 20 - 8 - 4
    assert room(settings, ("2001:db8::1", 4500)) == 1280 - 40 - 8 - 4
