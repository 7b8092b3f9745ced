"""What is chosen of what a peer offers: proposals and selectors, case by case."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest

from keys.ike.proposals import (
    ENCRYPTION,
    ESN,
    GROUP,
    NO_INTEGRITY,
    NO_KE,
    PRF,
    Additional,
    Proposal,
    Transform,
    TransformType,
    additional_methods,
    answers,
    choose,
    describe,
    name_of,
    offer,
    offers,
)
from keys.ike.selectors import (
    Selector,
    covers,
    describe_traffic,
    host,
    local_side,
    narrowness,
    peer_side,
    widest,
)
from keys.ike.selectors import describe as describe_selectors
from keys.ike.types import ANY_PORT, EVERYTHING, Traffic

GCM, CHACHA = ENCRYPTION["aes256gcm16"], ENCRYPTION["chacha20poly1305"]
X25519, P256 = GROUP["x25519"], GROUP["ecp256"]
SHA256 = PRF["prfsha256"]
IKE = {TransformType.ENCR: [GCM, CHACHA], TransformType.PRF: [SHA256], TransformType.KE: [X25519]}


def ke(number: int, method: int) -> Transform:
    """Additional key exchange ``number``, counted from 1."""
    return Transform(TransformType.ADDKE1 + number - 1, method)


def ike(*more: Transform, number: int = 1, spi: bytes = b"") -> Proposal:
    return Proposal(number, 1, spi, (GCM, SHA256, X25519, *more))


# --- Additional key exchanges -----------------------------------------------------------------

BOTH = Additional((36, 37))


@pytest.mark.parametrize(
    ("offered", "additional", "chosen"),
    [
        ((ke(1, 36),), BOTH, (36,)),
        ((ke(1, 37), ke(1, 36)), BOTH, (36,)),  # our order decides
        ((ke(1, 36), ke(2, 37)), BOTH, (36, 37)),
        ((ke(2, 36), ke(1, 37)), BOTH, (37, 36)),  # in the order of their numbers
        ((ke(7, 36),), BOTH, (36,)),
        ((ke(1, 36), ke(2, 36)), BOTH, None),  # no method twice, and NONE is not offered
        ((ke(1, 36), ke(2, 36), ke(2, 0)), BOTH, (36,)),
        ((ke(1, 36), ke(2, 37), ke(3, 36)), BOTH, None),
        ((ke(1, 20),), Additional((20,)), (20,)),  # what is used are methods, not ENCR 20
        ((ke(1, 0),), BOTH, ()),
        ((ke(1, 38),), BOTH, None),
        ((ke(1, 31),), Additional((31,)), None),  # the first key exchange was that already
        ((ke(1, 36),), Additional(), None),
        ((), Additional((36,), required=True), None),
        ((ke(1, 0),), Additional((36,), required=True), None),
        ((ke(1, 0), ke(1, 36)), Additional((36,), required=True), (36,)),
    ],
)
def test_additional_key_exchanges(
    offered: tuple[Transform, ...], additional: Additional, chosen: tuple[int, ...] | None
) -> None:
    found = choose((ike(*offered),), 1, 0, IKE, additional)
    assert (None if found is None else additional_methods(found)) == chosen
    if found is not None:
        assert found.transforms[:3] == (GCM, SHA256, X25519)


def test_what_we_offer_with_and_without_them() -> None:
    first, second = offers(1, b"spi", IKE, BOTH)
    assert (first.number, first.protocol, first.spi) == (1, 1, b"spi")
    assert first.transforms == (GCM, CHACHA, SHA256, X25519, ke(1, 36), ke(1, 37))
    assert (second.number, second.protocol, second.spi) == (2, 1, b"spi")
    assert second.transforms == (GCM, CHACHA, SHA256, X25519)
    assert offers(1, b"", IKE, Additional()) == (offer(1, b"", IKE),)
    assert offers(3, b"", IKE, Additional((36,), required=True)) == (
        Proposal(1, 3, b"", (GCM, CHACHA, SHA256, X25519, ke(1, 36))),
    )


# --- Proposals --------------------------------------------------------------------------------


def test_the_first_acceptable_proposal_is_taken_as_it_is_numbered() -> None:
    wrong = Proposal(1, 1, b"", (GCM, SHA256))  # no key exchange
    other = Proposal(2, 3, b"", ike().transforms)  # another protocol
    named = ike(number=3, spi=b"12345678")  # an SPI where none belongs
    right, later = ike(number=4), ike(number=5)
    found = choose((wrong, other, named, right, later), 1, 0, IKE)
    assert found == right
    assert choose((named,), 1, 8, IKE) == named
    assert choose((wrong, other), 1, 0, IKE) is None
    assert choose((), 1, 0, IKE) is None


def test_our_order_decides_and_every_type_stands_once_by_its_number() -> None:
    offered = Proposal(9, 1, b"", (P256, X25519, NO_INTEGRITY, SHA256, CHACHA, GCM))
    found = choose((offered,), 1, 0, IKE)
    assert found == Proposal(9, 1, b"", (GCM, SHA256, NO_INTEGRITY, X25519))


def test_a_type_that_we_do_not_want_must_be_none() -> None:
    esp = {TransformType.ENCR: [GCM], TransformType.ESN: [ESN[True], ESN[False]]}
    plain = (GCM, ESN[False])
    for more, fine in (
        ((), True),
        ((NO_KE,), True),
        ((X25519, NO_KE), True),
        ((X25519,), False),
        ((NO_INTEGRITY,), True),
        ((Transform(TransformType.INTEG, 12),), False),
        ((Transform(TransformType.PRF, 0),), False),
        ((Transform(77, 0),), False),
    ):
        found = choose((Proposal(1, 3, b"spi!", (*plain, *more)),), 3, 4, esp)
        assert (found is not None) is fine, more
    odd = Transform(TransformType.ENCR, 20, 256, known=False)
    assert choose((Proposal(1, 3, b"spi!", (odd, ESN[True])),), 3, 4, esp) is None


@pytest.mark.parametrize(
    ("chosen", "right"),
    [
        (ike(), True),
        (ike(NO_INTEGRITY), True),
        (ike(number=2), False),
        (Proposal(1, 3, b"", ike().transforms), False),
        (Proposal(1, 1, b"", (GCM, SHA256)), False),
        (Proposal(1, 1, b"", (GCM, CHACHA, SHA256, X25519)), False),
        (Proposal(1, 1, b"", (GCM, SHA256, P256)), False),
        (ike(ke(1, 36)), False),
    ],
)
def test_an_answer_is_one_of_each_type_of_one_of_ours(chosen: Proposal, right: bool) -> None:
    assert answers(chosen, (offer(1, b"", IKE),)) is right
    assert answers(chosen, ()) is False


def test_an_answer_may_be_to_any_of_ours() -> None:
    ours = offers(1, b"", IKE, BOTH)
    assert answers(ike(ke(1, 37)), ours) and answers(ike(number=2), ours)
    assert not answers(ike(ke(1, 37), number=2), ours)
    assert not answers(ike(ke(1, 38)), ours)


def test_the_first_of_a_type() -> None:
    one = Proposal(1, 1, b"", (GCM, CHACHA, SHA256))
    assert one.of(TransformType.ENCR) == GCM and one.of(TransformType.PRF) == SHA256
    assert one.of(TransformType.KE) is None


@pytest.mark.parametrize(
    ("transform", "name"),
    [
        (GCM, "aes256gcm16"),
        (ESN[True], "esn"),
        (ESN[False], "noesn"),
        (ke(1, 36), "ke1_mlkem768"),
        (ke(7, 37), "ke7_mlkem1024"),
        (ke(2, 0), "ke2_none"),
        (ke(3, 99), "ke3_99"),
        (Transform(TransformType.PRF, 77), "transform 2/77"),
        (Transform(TransformType.ENCR, 77, 99), "transform 1/77-99"),
        (Transform(99, 1), "transform 99/1"),
    ],
)
def test_names(transform: Transform, name: str) -> None:
    assert name_of(transform) == name


def test_sentences_stay_short() -> None:
    assert describe(()) == "nothing"
    whole = "aes256gcm16/chacha20poly1305-prfsha256-x25519"
    assert describe([offer(1, b"", IKE)]) == whole
    assert describe([offer(1, b"", IKE)] * 9) == " or ".join([whole] * 4)
    many = Proposal(1, 1, b"", tuple(Transform(TransformType.ENCR, 1000 + n) for n in range(99)))
    assert describe([many]).count("/") == 2 * 24 - 1


# --- Selectors --------------------------------------------------------------------------------

DESK, LAP, OTHER = (IPv6Address(f"fd00::{n}") for n in (1, 2, 3))
DNS, HTTP = (53, 53), (80, 80)


def spans(first: IPv6Address, last: IPv6Address, *what: object) -> Selector:
    return Selector(first, last, *what)


@pytest.mark.parametrize(
    ("selector", "traffic", "inside"),
    [
        (spans(DESK, DESK), (), True),
        (spans(DESK, OTHER), (), True),
        (spans(LAP, OTHER), (), False),
        (spans(IPv6Address(0), IPv6Address("fd00::")), (), False),
        (spans(DESK, DESK), (17, DNS), True),
        (spans(DESK, DESK, 17), (17, DNS), True),
        (spans(DESK, DESK, 17, DNS), (17, DNS), True),
        (spans(DESK, DESK, 17, (53, 54)), (17, DNS), True),
        (spans(DESK, DESK, 17, (52, 53)), (17, DNS), True),
        (spans(DESK, DESK, 17, (54, 60)), (17, DNS), False),
        (spans(DESK, DESK, 17, (50, 52)), (17, DNS), False),
        (spans(DESK, DESK, 17), (6, DNS), False),
        (spans(DESK, DESK, 17), (), False),
        (spans(DESK, DESK, 1), (), False),
        (spans(DESK, DESK, 17, (50, 60)), (17, (40, 55)), False),
        (spans(DESK, DESK, 0, DNS), (), False),
    ],
)
def test_what_a_selector_holds(selector: Selector, traffic: tuple, inside: bool) -> None:
    assert selector.holds(DESK, *traffic) is inside


def test_a_host_id_is_all_of_one_address() -> None:
    assert host(DESK) == (spans(DESK, DESK),)
    assert host(DESK, 17, DNS) == (spans(DESK, DESK, 17, DNS),)
    assert spans(DESK, DESK).is_everything_of_one_host
    for less in (spans(DESK, LAP), spans(DESK, DESK, 6), spans(DESK, DESK, 0, DNS)):
        assert not less.is_everything_of_one_host


def test_the_two_ends_of_a_child() -> None:
    traffic = Traffic(17, DNS, HTTP)
    assert local_side(DESK, traffic) == host(DESK, 17, DNS)
    assert peer_side(LAP, traffic) == host(LAP, 17, HTTP)


@pytest.mark.parametrize(
    ("theirs", "ours", "agreed"),
    [
        ([spans(LAP, LAP)], [spans(DESK, DESK)], EVERYTHING),
        ([spans(DESK, OTHER)], [spans(DESK, OTHER)], EVERYTHING),
        ([spans(OTHER, OTHER)], [spans(DESK, DESK)], None),
        ([spans(LAP, LAP)], [spans(LAP, OTHER)], None),
        ([spans(DESK, DESK)], [spans(DESK, DESK)], None),
        ([], [spans(DESK, DESK)], None),
        ([spans(LAP, LAP, 17)], [spans(DESK, DESK, 17)], Traffic(17)),
        ([spans(LAP, LAP, 17)], [spans(DESK, DESK)], Traffic(17)),
        ([spans(LAP, LAP)], [spans(DESK, DESK, 17)], Traffic(17)),
        ([spans(LAP, LAP, 17)], [spans(DESK, DESK, 6)], None),
        ([spans(LAP, LAP, 17, DNS)], [spans(DESK, DESK, 17, HTTP)], Traffic(17, HTTP, DNS)),
        # Ports without a protocol mean nothing, and OPAQUE ones neither.
        ([spans(LAP, LAP, 0, DNS)], [spans(DESK, DESK)], None),
        ([spans(LAP, LAP)], [spans(DESK, DESK, 0, DNS)], None),
        ([spans(LAP, LAP, 17, (65535, 0))], [spans(DESK, DESK, 17)], None),
        ([spans(LAP, LAP, 17)], [spans(DESK, DESK, 17, (65535, 0))], None),
        # The first is one packet's: what is chosen holds it, and is the widest that does.
        (
            [spans(LAP, LAP, 17, DNS), spans(LAP, LAP)],
            [spans(DESK, DESK, 17, HTTP), spans(DESK, DESK)],
            EVERYTHING,
        ),
        (
            [spans(LAP, LAP, 17, DNS), spans(LAP, LAP, 17)],
            [spans(DESK, DESK, 17, HTTP)],
            Traffic(17, HTTP, ANY_PORT),
        ),
        (
            [spans(LAP, LAP, 17, DNS), spans(LAP, LAP, 17, (54, 65535))],
            [spans(DESK, DESK, 17)],
            Traffic(17, ANY_PORT, DNS),
        ),
        (
            [spans(LAP, LAP, 17, (53, 60)), spans(LAP, LAP, 17, (55, 65535))],
            [spans(DESK, DESK, 17)],
            Traffic(17, ANY_PORT, (53, 60)),
        ),
        (
            [spans(LAP, LAP, 17, DNS), spans(LAP, LAP, 6)],
            [spans(DESK, DESK)],
            Traffic(17, ANY_PORT, DNS),
        ),
    ],
)
def test_the_widest_traffic_of_two_lists(
    theirs: list[Selector], ours: list[Selector], agreed: Traffic | None
) -> None:
    assert widest(theirs, ours, LAP, DESK) == agreed


def test_what_is_wider_comes_first() -> None:
    by_width = (
        EVERYTHING,
        Traffic(17),
        Traffic(17, DNS),
        Traffic(17, (53, 54), (80, 81)),
        Traffic(17, (53, 54), HTTP),
        Traffic(17, DNS, HTTP),
    )
    for turn in range(len(by_width)):
        turned = by_width[turn:] + by_width[:turn]
        assert tuple(sorted(turned, key=narrowness)) == by_width
    assert narrowness(EVERYTHING) == (False, -131070)
    assert narrowness(Traffic(17, (10, 13), (20, 25))) == (True, -8)


@pytest.mark.parametrize(
    ("theirs", "ours", "traffic", "fine"),
    [
        ([spans(LAP, LAP)], [spans(DESK, DESK)], EVERYTHING, True),
        ([spans(LAP, LAP)], [spans(DESK, DESK)], Traffic(17, DNS, HTTP), True),
        ([spans(LAP, LAP, 17, HTTP)], [spans(DESK, DESK, 17, DNS)], Traffic(17, DNS, HTTP), True),
        ([spans(LAP, LAP, 17, DNS)], [spans(DESK, DESK, 17, HTTP)], Traffic(17, DNS, HTTP), False),
        ([spans(LAP, LAP, 17, DNS)], [spans(DESK, DESK)], Traffic(17, DNS, HTTP), False),
        ([spans(LAP, LAP)], [spans(DESK, DESK, 17, HTTP)], Traffic(17, DNS, HTTP), False),
        ([spans(OTHER, OTHER)], [spans(DESK, DESK)], EVERYTHING, False),
        ([spans(LAP, LAP)], [spans(OTHER, OTHER)], EVERYTHING, False),
        ([spans(OTHER, OTHER), spans(LAP, LAP)], [spans(DESK, DESK)], EVERYTHING, True),
        ([], [spans(DESK, DESK)], EVERYTHING, False),
    ],
)
def test_what_may_be_narrowed_to(
    theirs: list[Selector], ours: list[Selector], traffic: Traffic, fine: bool
) -> None:
    assert covers(theirs, ours, LAP, DESK, traffic) is fine


def test_selectors_in_words() -> None:
    assert describe_selectors(()) == "no IPv6 address"
    assert describe_selectors(host(DESK)) == "fd00::1"
    assert describe_selectors([spans(DESK, LAP)]) == "fd00::1-fd00::2"
    assert describe_selectors(host(DESK, 17)) == "fd00::1 (protocol 17)"
    assert describe_selectors(host(DESK, 17, DNS)) == "fd00::1 (protocol 17 port 53)"
    assert describe_selectors(host(DESK, 6, (1, 2))) == "fd00::1 (protocol 6 ports 1-2)"
    assert describe_selectors(host(DESK, 0, DNS)) == "fd00::1 (protocol 0 port 53)"
    assert describe_selectors(host(DESK) * 9) == ", ".join(["fd00::1"] * 4)


@pytest.mark.parametrize(
    ("traffic", "words"),
    [
        (EVERYTHING, "everything"),
        (Traffic(17), "protocol 17"),
        (Traffic(17, DNS), "protocol 17 from port 53"),
        (Traffic(17, ANY_PORT, DNS), "protocol 17 to port 53"),
        (Traffic(6, (1, 2), (3, 4)), "protocol 6 from ports 1-2 to ports 3-4"),
        (Traffic(0, DNS), "protocol any from port 53"),
    ],
)
def test_traffic_in_words(traffic: Traffic, words: str) -> None:
    assert describe_traffic(traffic) == words
