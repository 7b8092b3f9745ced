"""An opening has the ways of its own messages, and a binding update ends it (I20, I25, I27)."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest

from fastpath.types import Endpoint, Source
from tunnel.mobility.claims import Claim
from tunnel.mobility.commands import Command, EarlyProof, Refused, Send, Unheard
from tunnel.mobility.header import (
    UNKNOWN_TYPE,
    Aotc,
    Aoto,
    Aotr,
    Aots,
    BindingAck,
    BindingError,
    BindingUpdate,
    Status,
    Verdict,
)
from tunnel.mobility.limits import INITIAL_BINDACK_TIMEOUT, MobilitySettings
from tunnel.mobility.mobile import Mobile, Phase

PEER = "desk"
VIA: Endpoint = ("198.51.100.7", 4500)
OTHER: Endpoint = ("198.51.100.99", 4500)
OURS = IPv6Address("fd00::a")
HOME: Endpoint = ("fd00::b", 500)
SECOND: Source = ("192.168.9.10", 3)
NONCE = b"8 octets"
NOW = 1000.0


@pytest.fixture
def mobile() -> Mobile:
    """It is registered."""
    made = Mobile(bytes)
    made.register(PEER, VIA, Claim.at(("203.0.113.8", 4500)), NOW)
    acknowledge(made)
    return made


def acknowledge(mobile: Mobile) -> None:
    known = mobile.registrations[PEER]
    mobile.acknowledged(PEER, BindingAck(Status.ACCEPTED, known.sequence, 600), VIA, NOW)
    assert known.phase is Phase.BOUND


def challenge(mobile: Mobile, source: Endpoint, now: float = NOW) -> list[Command]:
    return mobile.challenged(PEER, Aotc(NONCE), source, HOME, now)


def opened(mobile: Mobile) -> bool:
    return mobile.registrations[PEER].opening is not None


def test_what_is_about_the_second_network_leaves_from_there(mobile: Mobile) -> None:
    assert mobile.open(PEER, VIA, NOW, SECOND) == [Send(PEER, VIA, Aoto(), SECOND)]
    assert challenge(mobile, VIA) == [Send(PEER, VIA, Aotr(NONCE), SECOND)]
    assert mobile.judged(PEER, Aots(Verdict.VALID), VIA) == [EarlyProof(PEER, VIA, True, SECOND)]
    assert not opened(mobile)
    assert mobile.registrations[PEER].phase is Phase.BOUND


def test_what_is_about_another_address_does_not(mobile: Mobile) -> None:
    """The home address is asked by relay; what comes from elsewhere answers no AOTO of ours."""
    mobile.open(PEER, VIA, NOW, SECOND)
    for source in (HOME, OTHER):
        assert challenge(mobile, source) == [Send(PEER, source, Aotr(NONCE))]
    assert opened(mobile)


@pytest.mark.parametrize("what", ["register", "refresh", "refresh request", "no binding"])
def test_a_binding_update_ends_it(mobile: Mobile, what: str) -> None:
    """From then on an AOTC is about the address of the binding, and leaves from there."""
    mobile.open(PEER, VIA, NOW, SECOND)
    known = mobile.registrations[PEER]
    if what == "register":
        said = mobile.register(PEER, VIA, Claim(), NOW + 1)
    elif what == "refresh":
        assert known.next_at is not None
        said = mobile.advance(known.next_at)
    elif what == "refresh request":
        said = mobile.asked(PEER, VIA, NOW + 1)
    else:
        said = mobile.failed(PEER, BindingError(1, OURS), VIA, NOW + 1)
    assert [type(one.message) for one in said if isinstance(one, Send)][-1] is BindingUpdate
    assert not opened(mobile)
    assert challenge(mobile, VIA) == [Send(PEER, VIA, Aotr(NONCE))]
    assert known.phase is Phase.ANSWERED
    assert mobile.judged(PEER, Aots(Verdict.VALID), VIA) == [Refused(PEER, VIA, "unasked")]


def test_it_begins_only_where_we_are_registered(mobile: Mobile) -> None:
    mobile.register(PEER, VIA, Claim(), NOW)
    assert mobile.open(PEER, VIA, NOW, SECOND) == []
    assert mobile.open("stranger", VIA, NOW, SECOND) == []
    assert not opened(mobile)


def test_without_an_answer_it_is_given_up_from_where_it_went(mobile: Mobile) -> None:
    said, now = mobile.open(PEER, VIA, NOW, SECOND), NOW
    while opened(mobile):
        due = mobile.next_timer()
        assert due is not None
        now = due
        said += mobile.advance(now)
    tries = MobilitySettings().opens
    assert said.pop(2) == Unheard(PEER, VIA, SECOND), "once, beside the second one"
    assert said[:-1] == [Send(PEER, VIA, Aoto(), SECOND)] * tries
    assert said[-1] == EarlyProof(PEER, VIA, False, SECOND)
    assert now - NOW == INITIAL_BINDACK_TIMEOUT * (2**tries - 1)


def test_a_peer_that_knows_no_aoto_ends_it(mobile: Mobile) -> None:
    mobile.open(PEER, VIA, NOW, SECOND)
    error = BindingError(UNKNOWN_TYPE, OURS)
    assert mobile.failed(PEER, error, VIA, NOW) == [EarlyProof(PEER, VIA, False, SECOND)]


def test_without_an_answer_the_peer_is_told_by_relay_where_we_shall_come_from(
    mobile: Mobile,
) -> None:
    """From the second AOTO on; that binds nothing, and no acknowledgement is waited for."""
    claim = Claim.at(("203.0.113.77", 4500))
    known = mobile.registrations[PEER]
    before = known.sequence
    assert mobile.open(PEER, VIA, NOW, SECOND, (HOME, claim)) == [Send(PEER, VIA, Aoto(), SECOND)]
    due = mobile.next_timer()
    assert due is not None
    again, told = mobile.advance(due)
    assert again == Send(PEER, VIA, Aoto(), SECOND)
    assert told == Send(PEER, HOME, BindingUpdate(before + 1, known.lifetime, claim.options))
    assert opened(mobile)
    assert known.phase is Phase.BOUND


def test_a_place_that_is_found_out_is_told_at_once_and_two_more_follow(mobile: Mobile) -> None:
    """However late: the peer's one octet has a second before the next AOTO."""
    claim = Claim.at(("203.0.113.9", 50_000), SECOND[0])
    known = mobile.registrations[PEER]
    before = known.sequence
    mobile.open(PEER, VIA, NOW, SECOND)
    now = NOW
    assert mobile.place(PEER, SECOND, HOME, claim, now) == [], "the first AOTO may still be heard"
    for _ in range(2):
        now = due(mobile)
        mobile.advance(now)
    now += 2.5
    update = Send(PEER, HOME, BindingUpdate(before + 1, known.lifetime, claim.options))
    assert mobile.place(PEER, SECOND, HOME, claim, now) == [update]
    assert mobile.place(PEER, SECOND, HOME, claim, now) == [], "once"
    aotos, began = [], now
    while opened(mobile):
        now = due(mobile)
        said = mobile.advance(now)
        aotos += [now - began for one in said if one == Send(PEER, VIA, Aoto(), SECOND)]
        assert not [one for one in said if isinstance(one, Unheard)]
    assert aotos == [1.0, 3.0]
    assert said == [EarlyProof(PEER, VIA, False, SECOND)]


def test_a_place_of_what_is_not_under_test_is_not_told(mobile: Mobile) -> None:
    claim = Claim.at(("203.0.113.9", 50_000), SECOND[0])
    assert mobile.place(PEER, SECOND, HOME, claim, NOW) == []
    mobile.open(PEER, VIA, NOW, SECOND)
    mobile.advance(due(mobile))
    now = due(mobile)
    assert mobile.place("stranger", SECOND, HOME, claim, now) == []
    assert mobile.place(PEER, ("192.168.9.11", 3), HOME, claim, now) == []
    mobile.register(PEER, VIA, Claim(), now)
    assert mobile.place(PEER, SECOND, HOME, claim, now) == [], "a binding update has ended it"


def due(mobile: Mobile) -> float:
    at = mobile.next_timer()
    assert at is not None
    return at
