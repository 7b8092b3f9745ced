"""The octets of mobility messages: computed known answers, and both ways round."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.mobility import header, options
from tunnel.mobility.header import (
    Aotc,
    Aoto,
    Aotr,
    Aots,
    BindingAck,
    BindingError,
    BindingUpdate,
    Message,
    RefreshRequest,
    Unrecognised,
)
from tunnel.mobility.options import (
    AlternateCareOf,
    Ipv4Acknowledgement,
    Ipv4CareOf,
    Ipv4Home,
    MobilityError,
    NatDetection,
    Nonce,
    Option,
    Port,
    RefreshAdvice,
)

S = IPv6Address("fd01:203:405:607:22:69ff:fe8e:342a")
D = IPv6Address("fd11:1213:1415:1617:22:69ff:fe00:1")
NONCE = bytes(range(0x10, 0x18))
KNOWN: list[tuple[Message, IPv6Address, IPv6Address, str]] = [
    (Aoto(), S, D, "3b001e005f100000"),
    (Aotc(NONCE), D, S, "3b021f00b8a10000 010400000000 5808 1011121314151617"),
    (Aotr(NONCE), S, D, "3b022000b7a10000 010400000000 5808 1011121314151617"),
    (Aots(1), D, S, "3b0021005b100100"),
    (
        BindingUpdate(0x0102, 600, (AlternateCareOf(options.mapped("198.51.100.7")),)),
        *(S, D),
        "3b030500c8110102 80000096 0100 0310 00000000000000000000ffffc6336407",
    ),
    (BindingAck(0, 0x0102, 600), D, S, "3b010600746d0000 01020096 01020000"),
]


@pytest.mark.parametrize(("message", "source", "destination", "octets"), KNOWN)
def test_the_known_answers_of_the_sheet(
    message: Message, source: IPv6Address, destination: IPv6Address, octets: str
) -> None:
    assert header.pack(message, source, destination) == bytes.fromhex(octets)
    assert header.read(bytes.fromhex(octets), source, destination) == message


def test_numbers_are_those_of_the_draft_and_the_rfcs_i4_i28() -> None:
    """The draft's test values, RFC 6275 §6.1 and RFC 5555 §3.2; not what both ends agree on."""
    assert [int(kind) for kind in header.Kind] == [0, 5, 6, 7, 30, 31, 32, 33]
    assert [int(code) for code in header.Verdict] == [0, 1]
    assert header.Verdict.NOT_ALLOWED == 0 and header.Verdict.VALID == 1
    statuses = [0, 128, 129, 130, 131, 133, 135, 144, 174]
    assert [int(status) for status in header.Status] == statuses
    assert (header.UNKNOWN_BINDING, header.UNKNOWN_TYPE) == (1, 2)
    assert (options.NONCE, options.EXPERIMENTAL, header.NEXT_HEADER) == (88, 18, 135)


FIELDS: list[tuple[Message, str]] = [
    (RefreshRequest(), "3b00 00 00 .... 0000"),
    (RefreshRequest((RefreshAdvice(40),)), "3b01 00 00 .... 0000 0202000a 01020000"),
    (BindingUpdate(0xFFFE, 262140, (), False), "3b01 05 00 .... fffe 0000 ffff 01020000"),
    (BindingUpdate(1, 4, (), False, home=True), "3b01 05 00 .... 0001 4000 0001 01020000"),
    (BindingUpdate(1, 4, (), False, link_local=True), "3b01 05 00 .... 0001 2000 0001 01020000"),
    (BindingUpdate(1, 4, (), False, keys=True), "3b01 05 00 .... 0001 1000 0001 01020000"),
    (BindingUpdate(1, 4, (), False, force_udp=True), "3b01 05 00 .... 0001 0100 0001 01020000"),
    (BindingUpdate(1, 4), "3b01 05 00 .... 0001 8000 0001 01020000"),
    (BindingAck(174, 0xFFFE, 262140), "3b01 06 00 .... ae00 fffe ffff 01020000"),
    (BindingAck(0, 1, 4, (), True), "3b01 06 00 .... 0080 0001 0001 01020000"),
    (BindingError(2, D), "3b02 07 00 .... 0200" + D.packed.hex()),
    (Aots(0), "3b00 21 00 .... 0000"),
]
"""Each field by itself (RFC 6275 §6.1); the dots are the checksum."""


@pytest.mark.parametrize(("message", "form"), FIELDS)
def test_each_field_stands_where_the_rfc_has_it_i4(message: Message, form: str) -> None:
    before, after = (bytes.fromhex(half) for half in form.split("...."))
    octets = header.pack(message, S, D)
    assert (octets[:4], octets[6:]) == (before, after)
    assert header.read(octets, S, D) == message


def test_an_error_has_options_too() -> None:
    told = BindingError(1, S, (Port(4500),))
    assert header.read(header.pack(told, S, D), S, D) == told


def test_the_longest_message_is_read_and_a_longer_one_is_not() -> None:
    """RFC 6275 §6.1.1 would allow for 2,048 octets."""
    fits = "3b9f 06 00 0000 0000 0001 0001" + "00" * (header.MAX_OCTETS - 12)
    assert header.read(checked(fits), S, D) == BindingAck(0, 1, 4)
    longer = "3ba0 06 00 0000 0000 0001 0001" + "00" * (header.MAX_OCTETS - 4)
    with pytest.raises(MobilityError, match="length"):
        header.read(checked(longer), S, D)


def test_acceptance_ends_at_128() -> None:
    """RFC 6275 §6.1.8."""
    assert BindingAck(127, 1, 4).accepted and not BindingAck(128, 1, 4).accepted


four = st.integers(0, 0xFFFF).map(lambda units: units * 4)
octet = st.integers(0, 255)
ipv4 = st.integers(0, 2**32 - 1).map(IPv4Address)
ipv6 = st.integers(0, 2**128 - 1).map(IPv6Address)
option: st.SearchStrategy[Option] = st.one_of(
    st.builds(RefreshAdvice, four),
    st.builds(AlternateCareOf, ipv6),
    st.builds(Port, st.integers(0, 65535)),
    st.builds(Nonce, st.binary(min_size=8, max_size=8)),
    st.builds(Ipv4Home, st.integers(0, 63), ipv4, st.booleans()),
    st.builds(Ipv4Acknowledgement, octet, st.integers(0, 63), ipv4),
    st.builds(NatDetection, st.integers(0, 2**32 - 1), st.booleans()),
    st.builds(Ipv4CareOf, ipv4),
)
several = st.lists(option, max_size=8).map(tuple)
sequence = st.integers(0, 65535)
flag = st.booleans()
message: st.SearchStrategy[Message] = st.one_of(
    st.builds(RefreshRequest, several),
    st.builds(BindingUpdate, sequence, four, several, flag, flag, flag, flag, flag),
    st.builds(BindingAck, octet, sequence, four, several, flag),
    st.builds(BindingError, octet, ipv6, several),
    st.builds(Aoto),
    st.builds(Aotc, st.binary(min_size=8, max_size=8)),
    st.builds(Aotr, st.binary(min_size=8, max_size=8)),
    st.builds(Aots, octet),
)
ALIGNED = {2: (2, 0), 3: (8, 6), 88: (8, 6), 29: (4, 0), 30: (4, 0), 31: (4, 0), 32: (4, 0)}


@given(message, ipv6, ipv6)
def test_what_is_packed_is_read_back_aligned_and_a_multiple_of_eight(
    said: Message, source: IPv6Address, destination: IPv6Address
) -> None:
    octets = header.pack(said, source, destination)
    assert header.read(octets, source, destination) == said
    assert len(octets) == 8 * (octets[1] + 1)
    fixed = {0: 8, 5: 12, 6: 12, 7: 24}.get(octets[2], 8)
    at = fixed
    while at < len(octets):
        step, remainder = ALIGNED.get(octets[at], (1, 0))
        assert at % step == remainder
        at += 1 if octets[at] == 0 else 2 + octets[at + 1]
    assert at == len(octets)


@given(message, st.integers(0, 10_000), st.integers(1, 255))
def test_any_changed_octet_is_noticed(said: Message, where: int, change: int) -> None:
    octets = bytearray(header.pack(said, S, D))
    octets[where % len(octets)] ^= change
    with pytest.raises(MobilityError):
        header.read(bytes(octets), S, D)


def test_the_checksum_is_over_the_home_addresses_i9() -> None:
    """Whoever does not remap sees a wrong checksum, and drops the message silently."""
    octets = header.pack(Aoto(), S, D)
    with pytest.raises(MobilityError, match="checksum"):
        header.read(octets, IPv6Address("2001:db8::1"), D)


def checked(octets: str) -> bytes:
    """With the right checksum between ``S`` and ``D``."""
    plain = bytes.fromhex(octets)
    check = header._checksum(plain[:4] + bytes(2) + plain[6:], S, D)
    return plain[:4] + check.to_bytes(2) + plain[6:]


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        ("", "length"),
        ("3b00050000000000", "longer than 8"),  # a BU of eight octets
        ("3b011e0000000000", "length"),  # shorter than it says
        ("3b001e0000000000 0000000000000000", "length"),  # something follows
        ("11001e0000000000", "next header 17"),
        ("3b021f0000000000 010400000000 5807 1011121314151600", "option 88 has 7"),
        ("3b011f0000000000 010600000000 0000", "AOTC without a nonce"),
        ("3b021f0000000000 0105000000000058 1011121314151658", "longer than its message"),
        ("3b021f0000000000 010400000000 5809 1011121314151617", "longer than its message"),
    ],
)
def test_what_is_no_message_is_refused_and_says_why(octets: str, why: str) -> None:
    with pytest.raises(MobilityError, match=why):
        header.read(checked(octets) if octets else b"", S, D)


def test_other_types_are_known_as_such() -> None:
    assert header.read(checked("3b01010000000000 0102030405060708"), S, D) == Unrecognised(1)


@pytest.mark.parametrize(
    ("said", "offset", "octets"),
    [
        ((), 8, ""),
        ((), 14, "0100"),
        ((), 15, "00"),
        ((), 12, "01020000"),
        ((Nonce(NONCE),), 8, "010400000000 5808 1011121314151617"),
        ((Nonce(NONCE),), 2, "01020000 5808 1011121314151617"),
        ((Port(4500), Nonce(NONCE)), 12, "120461541194 01020000 5808 1011121314151617"),
        ((Port(4500),), 10, "120461541194"),
        ((RefreshAdvice(40),), 7, "00 0202000a 01020000"),
        ((NatDetection(7, forced=True),), 10, "0100 1f06800000000007 01020000"),
        ((Ipv4Home(24, IPv4Address("192.0.2.7"), True),), 8, "1d066200c0000207"),
        ((Ipv4Acknowledgement(132, 24, IPv4Address("192.0.2.7")),), 8, "1e068460c0000207"),
        ((Ipv4CareOf(IPv4Address("192.0.2.7")),), 8, "20060000c0000207"),
    ],
)
def test_options_stand_where_they_are_aligned(
    said: tuple[Option, ...], offset: int, octets: str
) -> None:
    """RFC 6275 §6.2.1: from this octet of the message on, and up to a multiple of eight."""
    packed = options.pack(said, offset)
    assert packed == bytes.fromhex(octets)
    assert options.read(packed) == said


def test_padding_of_one_octet_is_passed_over_wherever_it_stands() -> None:
    told = bytes.fromhex("00 0202000a 00 00 120461541194 00")
    assert options.read(told) == (RefreshAdvice(40), Port(4500))


@pytest.mark.parametrize("octets", ["02", "0202", "020200", "0101", "1204615411", "00 58"])
def test_an_option_that_is_cut_is_refused(octets: str) -> None:
    with pytest.raises(MobilityError, match="longer than its message"):
        options.read(bytes.fromhex(octets))


@pytest.mark.parametrize(
    "octets", ["0201 0a", "0203 000a00", "030f" + "00" * 15, "5807" + "00" * 7, "2005" + "00" * 5]
)
def test_an_option_of_another_length_is_refused(octets: str) -> None:
    with pytest.raises(MobilityError, match="octets, not"):
        options.read(bytes.fromhex(octets))


@pytest.mark.parametrize(
    "octets", ["1204 61540000", "1204 61550001", "1203 615400", "1205 6154000100"]
)
def test_of_the_experimental_options_only_ours_is_a_port(octets: str) -> None:
    """RFC 5096: type 18 may be anybody's. Ours begins with two octets, and is four long."""
    found = options.read(bytes.fromhex(octets))
    assert found == ((Port(0),) if octets == "1204 61540000" else ())


def test_unknown_options_are_skipped() -> None:
    told = checked("3b02060000000000 01020096 c8020102 1204 5a5a 1194 0000")
    assert header.read(told, S, D) == BindingAck(0, 0x0102, 600)  # type 18, but not ours


def test_reserved_fields_are_ignored() -> None:
    home, seen = Ipv4Home(24, IPv4Address("192.0.2.7")), NatDetection(7)
    assert options.read(bytes.fromhex("1d0661ffc0000207 1f067fff00000007")) == (home, seen)
    assert header.read(checked("3b001e000000ffff"), S, D) == Aoto()


def test_the_packet_around_it() -> None:
    octets = header.packet(header.pack(Aoto(), S, D), S, D)
    assert octets[:8].hex() == "6000000000088740"
    assert octets[8:40] == S.packed + D.packed and len(octets) == 48


def test_endpoints_in_options() -> None:
    assert str(options.mapped("198.51.100.7")) == "::ffff:c633:6407"
    assert options.unmapped(options.mapped("198.51.100.7")) == "198.51.100.7"
    assert options.unmapped(options.mapped("2001:db8::1")) == "2001:db8::1"


@pytest.mark.parametrize(
    ("endpoint", "fits"),
    [
        (("198.51.100.7", 4500), True),
        (("10.0.0.1", 4500), True),
        (("2001:db8::1", 4500), True),
        (("fd00::1", 500), True),
        (("198.51.100.7", 65535), True),
        (("198.51.100.7", 65536), False),
        (("198.51.100.7", 0), False),
        (("0.0.0.0", 4500), False),
        (("0.1.2.3", 4500), False),
        (("255.255.255.255", 4500), False),
        (("224.0.0.1", 4500), False),
        (("127.0.0.1", 4500), False),
        (("169.254.1.1", 4500), False),
        (("::", 4500), False),
        (("::1", 4500), False),
        (("ff02::1", 4500), False),
        (("fe80::1", 4500), False),
    ],
)
def test_only_unicast_endpoints_are_care_of_addresses(
    endpoint: tuple[str, int], fits: bool
) -> None:
    assert options.is_unicast(endpoint) is fits
