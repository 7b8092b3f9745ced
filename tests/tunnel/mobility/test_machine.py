"""The door to the machines: who is known, what is counted, and what a peer's end takes along."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest

from fastpath.types import Endpoint, Source
from tests.tunnel.mobility.network import A1, A2, A_ID, B1, B_ID, H_ID, UNIX, counting
from tunnel.mobility import header
from tunnel.mobility.claims import Claim
from tunnel.mobility.commands import (
    Command,
    DropBinding,
    HomeBound,
    HomeUnbound,
    KeepProofs,
    NotRegistered,
    Refused,
    Registered,
    SendMobility,
    Unheard,
)
from tunnel.mobility.header import (
    UNKNOWN_TYPE,
    Aotc,
    Aoto,
    Aotr,
    Aots,
    BindingAck,
    BindingError,
    BindingUpdate,
    Message,
    RefreshRequest,
    Status,
)
from tunnel.mobility.home import HomeAgent
from tunnel.mobility.limits import MobilitySettings
from tunnel.mobility.machine import HEARD_PER_SECOND, Mobility
from tunnel.mobility.proofs import Proofs

PEER = "laptop"
NOW = 1000.0
HOME: Endpoint = (str(A_ID), 500)
UNKNOWN = bytes.fromhex("3b00010000000000")  # HoTI: a type that we do not speak


@pytest.fixture
def desk() -> Mobility:
    """The host :data:`B_ID`, a home agent too, that knows a laptop."""
    made = Mobility(B_ID, counting(), home_agent=HomeAgent())
    made.know(PEER, A_ID)
    return made


def says(
    desk: Mobility, message: Message | bytes, source: Endpoint = A1, now: float = NOW
) -> list[Command]:
    """The laptop, in octets with a right checksum."""
    if isinstance(message, bytes):
        check = header._checksum(message, A_ID, B_ID)
        octets = message[:4] + check.to_bytes(2) + message[6:]
    else:
        octets = header.pack(message, A_ID, B_ID)
    return desk.received(PEER, source, octets, now, UNIX)


def sent(endpoint: Endpoint, message: Message, source: Source | None = None) -> SendMobility:
    """The desk's words to the laptop."""
    return SendMobility(PEER, endpoint, header.pack(message, B_ID, A_ID), source)


def update(sequence: int, lifetime: int = 600, home: bool = False) -> BindingUpdate:
    return BindingUpdate(sequence, lifetime, Claim.at(A1).options if lifetime else (), home=home)


def bind(desk: Mobility) -> None:
    """The laptop has proven both of its addresses."""
    says(desk, update(1))
    says(desk, Aotr((1).to_bytes(8)))
    says(desk, Aotr((2).to_bytes(8)), HOME)
    assert desk.correspondent.bindings[PEER].used == A1


# --- Who is known ----------------------------------------------------------------------------


def test_nothing_is_said_to_who_is_not_known() -> None:
    desk = Mobility(B_ID, counting())
    assert desk.register(PEER, A1, Claim.at(B1), NOW) == []
    assert desk.open(PEER, A1, NOW) == [] and desk.next_timer() is None
    assert says(desk, Aoto()) == [Refused(PEER, A1, "stranger")]


def test_known_again_it_is_no_new_one(desk: Mobility) -> None:
    """Else it would be heard without limit; with another host id it is another."""
    for _ in range(HEARD_PER_SECOND):
        says(desk, b"junk" * 2)
    desk.know(PEER, A_ID)
    assert says(desk, b"junk" * 2) == [Refused(PEER, A1, "flood")]
    desk.know(PEER, H_ID)
    assert says(desk, Aoto()) == [Refused(PEER, A1, "malformed")], "the checksum is another's (I9)"


def test_the_end_of_a_peer_takes_all_along(desk: Mobility) -> None:
    """Its binding, its home registration and ours with it; nobody is left to be asked."""
    bind(desk)
    desk.register(PEER, A1, Claim.at(B1), NOW)
    assert HomeBound(PEER, A1) in says(desk, update(7, home=True))
    gone = "its tunnel is gone"
    assert desk.forget(PEER) == [DropBinding(PEER, gone), HomeUnbound(PEER, gone)]
    assert desk.mobile.registrations == {} and desk.next_timer() is None
    assert says(desk, update(2)) == [Refused(PEER, A1, "stranger")]
    assert desk.forget(PEER) == []


def test_a_home_registration_begins_anew_with_a_new_tunnel(desk: Mobility) -> None:
    """The number of before is not held against it, nor the rate."""
    says(desk, update(7, home=True))
    desk.forget(PEER)
    desk.know(PEER, A_ID)
    said = says(desk, update(7, home=True), now=NOW + 5)
    assert said[0] == HomeBound(PEER, A1)


def test_without_a_home_agent_a_peer_ends_as_well() -> None:
    one = Mobility(B_ID, counting())
    one.know(PEER, A_ID)
    bind(one)
    assert one.forget(PEER) == [DropBinding(PEER, "its tunnel is gone")]


def test_a_new_authentication_ends_what_the_peer_said_and_not_what_we_did(desk: Mobility) -> None:
    """I22: it has to prove its home address again; it still knows where we are."""
    bind(desk)
    desk.register(PEER, A1, Claim.at(B1), NOW)
    assert desk.renewed(PEER) == [DropBinding(PEER, "its tunnel is gone")]
    assert desk.renewed(PEER) == []
    assert PEER in desk.mobile.registrations and PEER in desk._known


# --- What the owner wants --------------------------------------------------------------------


def test_where_we_are_is_said_between_the_two_home_addresses(desk: Mobility) -> None:
    claim = Claim.at(B1)
    assert desk.register(PEER, A1, claim, NOW) == [sent(A1, BindingUpdate(2, 600, claim.options))]
    other = Claim.at(("203.0.113.10", 61000))
    assert desk.register(PEER, A1, claim, NOW + 2, invite=True, inviting=other) == [
        sent(HOME, BindingUpdate(3, 600, other.options)),
        sent(A1, BindingUpdate(4, 600, claim.options)),
    ]
    (said,) = desk.register(PEER, A1, claim, NOW + 4, home=True)
    assert said == sent(A1, BindingUpdate(5, 3600, claim.options, home=True))


def test_it_is_taken_back_where_it_was_said_or_by_relay(desk: Mobility) -> None:
    desk.register(PEER, A1, Claim.at(B1), NOW)
    assert desk.deregister(PEER, NOW + 1) == [sent(A1, BindingUpdate(3, 0))]
    assert desk.deregister(PEER, NOW + 2, HOME) == [sent(HOME, BindingUpdate(4, 0))]


def test_an_early_proof_from_another_network_and_its_invitation_i20(desk: Mobility) -> None:
    second: Source = ("192.168.9.10", 3)
    desk.register(PEER, A1, Claim.at(B1), NOW)
    assert Registered(PEER, B1, 600) in says(desk, BindingAck(Status.ACCEPTED, 2, 600))
    inviting = Claim.at(("203.0.113.77", 4500))
    assert desk.open(PEER, A1, NOW, second, inviting) == [sent(A1, Aoto(), second)]
    assert desk.next_timer() == NOW + 1
    said = desk.advance(NOW + 1)
    assert said == [sent(A1, Aoto(), second), sent(HOME, BindingUpdate(3, 600, inviting.options))]
    assert says(desk, Aotc(bytes(8))) == [sent(A1, Aotr(bytes(8)), second)]


def test_a_place_that_is_found_out_is_told_by_relay_i20(desk: Mobility) -> None:
    """From the second AOTO on, which nobody has answered."""
    second: Source = ("192.168.9.10", 3)
    place = Claim.at(("203.0.113.77", 50_000), second[0])
    assert desk.place(PEER, second, place, NOW) == []
    desk.register(PEER, A1, Claim.at(B1), NOW)
    says(desk, BindingAck(Status.ACCEPTED, 2, 600))
    desk.open(PEER, A1, NOW, second)
    assert desk.place(PEER, second, place, NOW) == []
    assert desk.advance(NOW + 1) == [sent(A1, Aoto(), second), Unheard(PEER, A1, second)]
    assert desk.place("nobody", second, place, NOW + 1) == []
    told = sent(HOME, BindingUpdate(3, 600, place.options))
    assert desk.place(PEER, second, place, NOW + 1) == [told]
    assert desk.next_timer() == NOW + 2


def test_a_place_that_was_left_has_to_be_proven_again(desk: Mobility) -> None:
    bind(desk)
    assert desk.proofs.holds(PEER, A1, UNIX)
    assert desk.left(PEER, A1) == [KeepProofs()]
    assert not desk.proofs.holds(PEER, A1, UNIX)


def test_after_a_rekey_it_is_asked_at_home_i21(desk: Mobility) -> None:
    bind(desk)
    assert desk.rekeyed(PEER, NOW) == [sent(HOME, Aotc((3).to_bytes(8)))]


# --- What peers say --------------------------------------------------------------------------


def test_so_many_messages_a_second_are_looked_at(desk: Mobility) -> None:
    said = [says(desk, b"junk" * 2) for _ in range(HEARD_PER_SECOND + 1)]
    assert said[-2:] == [[Refused(PEER, A1, "malformed")], [Refused(PEER, A1, "flood")]]
    assert desk.refused == {"malformed": HEARD_PER_SECOND, "flood": 1}


def test_a_type_that_we_do_not_speak_is_told_so(desk: Mobility) -> None:
    """RFC 6275 §9.2: a Binding Error, three a second."""
    refused = Refused(PEER, A1, "unrecognised")
    told = sent(A1, BindingError(UNKNOWN_TYPE, A_ID))
    assert [says(desk, UNKNOWN) for _ in range(4)] == [[refused, told]] * 3 + [[refused]]
    assert says(desk, UNKNOWN, now=NOW + 1) == [refused, told]


def test_who_is_no_home_agent_says_so() -> None:
    """RFC 6275 §9.5.1, status 131, three a second; a home agent says so to who comes by relay."""
    one = Mobility(B_ID, counting())
    one.know(PEER, A_ID)
    no = BindingAck(Status.NO_HOME_REGISTRATION, 7, 0)
    refused = Refused(PEER, A1, "home_registration")
    assert [says(one, update(7, home=True)) for _ in range(4)] == [
        *([[refused, sent(A1, no)]] * 3),
        [refused],
    ]
    assert one.next_timer() is None


def test_a_home_registration_by_relay_is_none(desk: Mobility) -> None:
    said = says(desk, update(7, home=True), HOME)
    no = BindingAck(Status.NO_HOME_REGISTRATION, 7, 0)
    assert said == [Refused(PEER, HOME, "home_registration"), sent(HOME, no)]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (BindingAck(0, 1, 600), "unasked"),
        (Aotc(bytes(8)), "unasked"),
        (Aots(1), "unasked"),
        (RefreshRequest(), "unasked"),
        (BindingError(1, B_ID), "unasked"),
        (Aotr(bytes(8)), "nonce"),
        (Aoto(), "unregistered"),
    ],
)
def test_what_answers_nothing_is_refused_by_name(
    desk: Mobility, message: Message, why: str
) -> None:
    assert says(desk, message, A2) == [Refused(PEER, A2, why)]
    assert desk.refused == {why: 1} and desk.next_timer() is None


def test_requests_and_errors_of_who_knows_us_bring_an_update(desk: Mobility) -> None:
    claim = Claim.at(B1)
    desk.register(PEER, A1, claim, NOW)
    says(desk, BindingAck(Status.ACCEPTED, 2, 600))
    update_ = sent(A1, BindingUpdate(3, 600, claim.options))
    assert says(desk, RefreshRequest(), now=NOW + 2) == [update_]
    says(desk, BindingAck(Status.ACCEPTED, 3, 600), now=NOW + 3)
    update_ = sent(A1, BindingUpdate(4, 600, claim.options))
    assert says(desk, BindingError(1, B_ID), now=NOW + 4) == [update_]
    assert desk.next_timer() == NOW + 5
    words = "it does not speak our mobility messages"
    assert says(desk, BindingError(2, B_ID), now=NOW + 4) == [NotRegistered(PEER, None, 1, words)]


def test_an_aoto_by_relay_is_none(desk: Mobility) -> None:
    """It is about the address that it comes from, which is proven to be home in another way."""
    bind(desk)
    assert says(desk, Aoto(), HOME) == [Refused(PEER, HOME, "not_unicast")]


def test_messages_are_of_whom_the_checksum_says() -> None:
    """Between these two home addresses, and in this direction (RFC 6275 §6.1.1)."""
    one = Mobility(B_ID, counting())
    one.know(PEER, A_ID)
    for source, destination in ((H_ID, B_ID), (A_ID, H_ID)):
        octets = header.pack(update(1), source, destination)
        assert one.received(PEER, A1, octets, NOW, UNIX) == [Refused(PEER, A1, "malformed")]


def test_who_asks_and_who_is_asked_in_vain_is_counted(desk: Mobility) -> None:
    for number in (1, 2):
        says(desk, update(number), now=NOW + 10 * number)
        for later in (1, 3, 7):
            desk.advance(NOW + 10 * number + later)
        assert desk.refused == {"home": number}


# --- Time ------------------------------------------------------------------------------------


def test_the_first_that_is_due_of_all_three(desk: Mobility) -> None:
    assert desk.next_timer() is None
    says(desk, update(7, 40, home=True))
    assert desk.next_timer() == NOW + 40
    bind(desk)
    says(desk, update(2, 20))
    assert desk.next_timer() == NOW + 20
    desk.register(PEER, A1, Claim.at(B1), NOW)
    assert desk.next_timer() == NOW + 1


def test_what_is_due_of_all_three_is_done(desk: Mobility) -> None:
    says(desk, update(7, 40, home=True))
    bind(desk)
    says(desk, update(2, 40))
    desk.register(PEER, A1, Claim.at(B1), NOW)
    said = desk.advance(NOW + 40)
    assert said == [
        sent(A1, BindingUpdate(5, 600, Claim.at(B1).options)),
        NotRegistered(PEER, None, 1, "it does not answer"),
        DropBinding(PEER, "its binding ended"),
        HomeUnbound(PEER, "its registration ended"),
    ]


def test_what_was_set_and_kept_holds_for_all() -> None:
    """Settings and proofs are those that the owner gave."""
    proofs = Proofs()
    proofs.add(PEER, A2, UNIX)
    one = Mobility(B_ID, counting(), proofs, MobilitySettings(lifetime=100, longest=200))
    one.know(PEER, IPv6Address(A_ID))
    assert one.proofs is proofs
    (said,) = one.register(PEER, A1, Claim.at(B1), NOW)
    assert said == sent(A1, BindingUpdate(2, 100, Claim.at(B1).options))
    says(one, update(1))
    assert one.correspondent.bindings[PEER].lifetime == 200
    moved = BindingUpdate(2, 600, Claim.at(A2).options)
    assert not [c for c in says(one, moved, A2) if isinstance(c, SendMobility)], "it is proven"
