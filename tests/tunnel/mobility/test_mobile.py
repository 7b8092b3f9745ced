"""What the mobile says, to the word, and when (RFC 6275 §11.7, §11.8; I14, I17, I20, I21)."""

from __future__ import annotations

from ipaddress import IPv6Address
from itertools import pairwise

import pytest

from fastpath.types import Endpoint, Source
from tunnel.mobility.claims import Claim
from tunnel.mobility.commands import (
    Command,
    EarlyProof,
    NotRegistered,
    Refused,
    Registered,
    Send,
)
from tunnel.mobility.header import (
    UNKNOWN_BINDING,
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
from tunnel.mobility.limits import MobilitySettings
from tunnel.mobility.mobile import Mobile, Phase, Registration
from tunnel.mobility.options import NEVER, NatDetection, Option, RefreshAdvice

PEER = "desk"
VIA: Endpoint = ("198.51.100.7", 4500)
OTHER: Endpoint = ("198.51.100.99", 4500)
HOME: Endpoint = ("fd00::b", 500)
OURS = IPv6Address("fd00::a")
HERE = Claim.at(("203.0.113.8", 4500))
SECOND: Source = ("192.168.9.10", 3)
NONCE, NEWER = b"8 octets", b"others 8"
NOW = 1000.0
SILENT, UNREGISTERED = "it does not answer", [Refused(PEER, VIA, "unasked")]


@pytest.fixture
def mobile() -> Mobile:
    """It has said where it is: with sequence number 1."""
    made = Mobile(bytes)
    assert made.register(PEER, VIA, HERE, NOW) == [Send(PEER, VIA, told(1))]
    return made


@pytest.fixture
def bound(mobile: Mobile) -> Mobile:
    acknowledge(mobile)
    return mobile


def known(mobile: Mobile) -> Registration:
    return mobile.registrations[PEER]


def told(sequence: int, claim: Claim = HERE, lifetime: int = 600) -> BindingUpdate:
    return BindingUpdate(sequence, lifetime, claim.options if lifetime else ())


def acknowledge(
    mobile: Mobile, lifetime: int = 600, *options: Option, now: float = NOW
) -> list[Command]:
    ack = BindingAck(Status.ACCEPTED, known(mobile).sequence, lifetime, options)
    return mobile.acknowledged(PEER, ack, VIA, now)


def refuse(mobile: Mobile, status: int = Status.PROHIBITED) -> list[Command]:
    ack = BindingAck(status, known(mobile).sequence, 0)
    return mobile.acknowledged(PEER, ack, VIA, NOW)


def challenge(
    mobile: Mobile, source: Endpoint = VIA, now: float = NOW, nonce: bytes = NONCE
) -> list[Command]:
    return mobile.challenged(PEER, Aotc(nonce), source, HOME, now)


def error(mobile: Mobile, status: int, now: float = NOW) -> list[Command]:
    return mobile.failed(PEER, BindingError(status, OURS), VIA, now)


def due(mobile: Mobile) -> float:
    at = mobile.next_timer()
    assert at is not None
    return at


# --- Acknowledgements ------------------------------------------------------------------------


def test_it_is_registered_for_what_was_granted_and_asked_for_i14(mobile: Mobile) -> None:
    assert acknowledge(mobile, 400) == [Registered(PEER, ("203.0.113.8", 4500), 400)]
    one = known(mobile)
    assert (one.until, one.next_at, one.tries) == (NOW + 400, NOW + 300, 0)


def test_a_lifetime_beyond_what_was_asked_for_is_not_believed(mobile: Mobile) -> None:
    acknowledge(mobile, 4000)
    assert (known(mobile).until, known(mobile).next_at) == (NOW + 600, NOW + 450)


@pytest.mark.parametrize(("seconds", "at"), [(100, 100.0), (500, 450.0), (0, 450.0), (4, 4.0)])
def test_a_refresh_advice_is_heeded_where_it_is_sooner(
    mobile: Mobile, seconds: int, at: float
) -> None:
    """RFC 6275 §6.2.4; 0 is no advice."""
    acknowledge(mobile, 600, RefreshAdvice(seconds))
    assert known(mobile).next_at == NOW + at


def test_whatever_is_granted_the_next_update_comes_after_a_second(mobile: Mobile) -> None:
    acknowledge(mobile, 4, now=NOW + 3.5)
    assert known(mobile).next_at == NOW + 4.5


@pytest.mark.parametrize(("refresh", "nat"), [(110, True), (0, False), (NEVER, False), (1, True)])
def test_it_says_whether_a_nat_was_seen(mobile: Mobile, refresh: int, nat: bool) -> None:
    (said,) = acknowledge(mobile, 600, NatDetection(refresh))
    assert said == Registered(PEER, ("203.0.113.8", 4500), 600, nat)


def test_it_is_new_once(bound: Mobile) -> None:
    bound.asked(PEER, VIA, NOW + 1)
    (said,) = acknowledge(bound)
    assert said == Registered(PEER, ("203.0.113.8", 4500), 600, fresh=False)


def test_an_acceptance_for_no_time_is_a_refusal(mobile: Mobile) -> None:
    refused = NotRegistered(PEER, Status.ACCEPTED, 1, "it granted no time")
    assert acknowledge(mobile, 0) == [refused]
    assert known(mobile).phase is Phase.REFUSED


def test_after_a_refusal_it_is_quiet_for_a_minute(mobile: Mobile) -> None:
    words = "it refused the binding update"
    assert refuse(mobile) == [NotRegistered(PEER, Status.PROHIBITED, 1, words)]
    assert known(mobile).until is None and due(mobile) == NOW + 60
    assert mobile.advance(NOW + 60) == [Send(PEER, VIA, told(2))]
    assert due(mobile) == NOW + 61, "and begins with a second"


def test_an_update_to_nobodys_address_says_nothing_of_where_we_are() -> None:
    one = Mobile(bytes)
    one.register(PEER, VIA, Claim(local="10.0.0.2"), NOW)
    assert acknowledge(one) == [Registered(PEER, ("", 0), 600)]


def test_acknowledgements_that_answer_nothing(bound: Mobile) -> None:
    assert acknowledge(bound) == UNREGISTERED
    stranger = bound.acknowledged("nobody", BindingAck(0, 1, 600), VIA, NOW)
    assert stranger == [Refused("nobody", VIA, "unasked")]


def test_a_number_that_was_used_is_passed_over(mobile: Mobile) -> None:
    ack = BindingAck(Status.SEQUENCE, 40, 0)
    assert mobile.acknowledged(PEER, ack, VIA, NOW) == [Send(PEER, VIA, told(41))]
    late = BindingAck(Status.SEQUENCE, 40, 0)
    assert mobile.acknowledged(PEER, late, VIA, NOW) == UNREGISTERED


# --- Without an answer -----------------------------------------------------------------------


def test_an_update_is_repeated_less_and_less(mobile: Mobile) -> None:
    times, said = [], []
    for _ in range(7):
        times.append(due(mobile) - NOW)
        said.append(mobile.advance(due(mobile)))
    assert times == [1.0, 3.0, 7.0, 15.0, 31.0, 63.0, 95.0]
    assert said[0] == [Send(PEER, VIA, told(2)), NotRegistered(PEER, None, 1, SILENT)]
    assert said[6] == [Send(PEER, VIA, told(8)), NotRegistered(PEER, None, 7, SILENT)]


def test_a_binding_that_is_not_refreshed_ends_and_says_so(bound: Mobile) -> None:
    ended: list[NotRegistered] = []
    while not ended:
        now = due(bound)
        ended = [one for one in bound.advance(now) if isinstance(one, NotRegistered)]
        ended = [one for one in ended if one.reason != SILENT]
    assert now == NOW + 600
    assert ended == [NotRegistered(PEER, None, 9, "the binding ended")]
    assert known(bound).until is None


def test_a_challenge_is_answered_three_times_and_then_an_update_goes_i17(mobile: Mobile) -> None:
    answer = [Send(PEER, VIA, Aotr(NONCE))]
    assert challenge(mobile) == answer
    times, said = [], []
    for _ in range(3):
        times.append(due(mobile) - NOW)
        said.append(mobile.advance(due(mobile)))
    assert times == [1.0, 3.0, 7.0]
    assert said == [
        answer,
        answer,
        [Send(PEER, VIA, told(2)), NotRegistered(PEER, None, 1, SILENT)],
    ]


def test_who_tests_us_and_never_acknowledges_hears_less_and_less(mobile: Mobile) -> None:
    """The pause between two updates counts, where it is longer than the answers take."""
    updates = [0.0]
    while len(updates) < 8:
        if known(mobile).phase is Phase.SAID:
            challenge(mobile, now=known(mobile).said_at)
        now = due(mobile)
        said = [one for one in mobile.advance(now) if isinstance(one, Send)]
        updates += [now - NOW for one in said if isinstance(one.message, BindingUpdate)]
    assert [later - sooner for sooner, later in pairwise(updates)] == [7, 7, 8, 16, 32, 32, 32]


def test_all_that_is_due_at_once_is_done(bound: Mobile) -> None:
    """The end of the binding, the next AOTO, and the next update, in this order; of each peer."""
    bound.register("other", OTHER, HERE, NOW)
    bound.open(PEER, VIA, NOW)
    assert bound.advance(NOW + 600) == [
        *(NotRegistered(PEER, None, 0, "the binding ended"), Send(PEER, VIA, Aoto())),
        Send(PEER, VIA, told(2)),
        *(Send("other", OTHER, told(2)), NotRegistered("other", None, 1, SILENT)),
    ]


def test_a_newer_challenge_is_the_one_that_is_answered_again(mobile: Mobile) -> None:
    challenge(mobile)
    challenge(mobile, OTHER, NOW + 0.1, NEWER)
    assert mobile.advance(NOW + 1) == [Send(PEER, OTHER, Aotr(NEWER))]


def test_answers_keep_the_rate_and_come_when_it_allows(mobile: Mobile) -> None:
    for later in (0.0, 0.7, 0.8):
        assert len(challenge(mobile, now=NOW + later)) == 1
    assert challenge(mobile, now=NOW + 0.9) == [Refused(PEER, VIA, "flood")]
    challenge(mobile, HOME, NOW + 1.0)
    assert mobile.advance(NOW + 1.0) == [] and due(mobile) == NOW + 1.7
    assert mobile.advance(NOW + 1.7) == [Send(PEER, VIA, Aotr(NONCE))]
    assert due(mobile) == NOW + 3.7


# --- Challenges ------------------------------------------------------------------------------


def test_what_comes_by_the_home_agent_is_answered_as_long_as_the_peer_may_know_of_us_i21(
    bound: Mobile,
) -> None:
    bound.rest(PEER)
    assert challenge(bound, HOME) == [Send(PEER, HOME, Aotr(NONCE))]
    assert challenge(bound, VIA) == UNREGISTERED
    bound.forget(PEER)
    assert challenge(bound, HOME) == [Refused(PEER, HOME, "unasked")]


def test_a_home_agent_asks_in_vain_i29() -> None:
    """RFC 6275 hosts and home agents trust each other: they exchange no AOT messages."""
    one = Mobile(bytes)
    one.register(PEER, VIA, HERE, NOW, home=True)
    for source in (VIA, HOME):
        assert challenge(one, source) == [Refused(PEER, source, "unasked")]


def test_a_challenge_while_all_is_well_is_answered_and_changes_nothing(bound: Mobile) -> None:
    before = due(bound)
    assert challenge(bound) == [Send(PEER, VIA, Aotr(NONCE))]
    assert known(bound).phase is Phase.BOUND and due(bound) == before


# --- Other messages --------------------------------------------------------------------------


def test_a_refresh_request_of_who_has_no_binding_is_not_heeded(mobile: Mobile) -> None:
    assert mobile.asked(PEER, VIA, NOW) == UNREGISTERED
    assert mobile.asked("nobody", VIA, NOW) == [Refused("nobody", VIA, "unasked")]
    acknowledge(mobile)
    assert mobile.asked(PEER, VIA, NOW) == [Send(PEER, VIA, told(2))]


def test_an_error_about_the_binding_brings_an_update_where_there_was_one(mobile: Mobile) -> None:
    assert error(mobile, UNKNOWN_BINDING) == [], "one is under way"
    acknowledge(mobile)
    assert error(mobile, UNKNOWN_BINDING) == [Send(PEER, VIA, told(2))]


def test_a_peer_that_does_not_speak_our_messages_is_left_in_peace_for_a_minute(
    mobile: Mobile,
) -> None:
    """I9: as if it had refused."""
    words = "it does not speak our mobility messages"
    assert error(mobile, UNKNOWN_TYPE) == [NotRegistered(PEER, None, 1, words)]
    assert known(mobile).phase is Phase.REFUSED and due(mobile) == NOW + 60
    assert error(mobile, UNKNOWN_TYPE) == UNREGISTERED, "and not once more"


def test_errors_that_answer_nothing(bound: Mobile) -> None:
    assert error(bound, UNKNOWN_TYPE) == UNREGISTERED
    assert known(bound).phase is Phase.BOUND
    bound.rest(PEER)
    for status in (UNKNOWN_BINDING, UNKNOWN_TYPE):
        assert error(bound, status) == UNREGISTERED
    bound.forget(PEER)
    assert error(bound, UNKNOWN_BINDING) == UNREGISTERED


def test_verdicts_on_nothing(bound: Mobile) -> None:
    assert bound.judged(PEER, Aots(Verdict.VALID), VIA) == UNREGISTERED
    stranger = bound.judged("nobody", Aots(Verdict.VALID), VIA)
    assert stranger == [Refused("nobody", VIA, "unasked")]


# --- What the owner wants --------------------------------------------------------------------


def test_the_next_update_goes_where_it_is_told_when_it_is_due(mobile: Mobile) -> None:
    there = Claim.at(("203.0.113.9", 4500))
    before = due(mobile)
    mobile.redirect(PEER, OTHER, there)
    mobile.redirect("nobody", OTHER, there)
    assert due(mobile) == before and list(mobile.registrations) == [PEER]
    assert mobile.advance(before)[0] == Send(PEER, OTHER, told(2, there))


def test_at_rest_nothing_is_said_and_nothing_is_due(bound: Mobile) -> None:
    bound.open(PEER, VIA, NOW)
    bound.rest(PEER)
    bound.rest("nobody")
    one = known(bound)
    assert (one.phase, one.next_at, one.until, one.opening) == (Phase.IDLE, None, None, None)
    assert bound.next_timer() is None and bound.advance(NOW + 10_000) == []
    assert bound.deregister(PEER, NOW) == [], "there is nothing to take back"


def test_it_is_taken_back_three_times_and_then_over(bound: Mobile) -> None:
    bound.open(PEER, VIA, NOW)
    assert bound.deregister(PEER, NOW, OTHER) == [Send(PEER, OTHER, told(2, lifetime=0))]
    assert known(bound).opening is None
    said = [bound.advance(due(bound)) for _ in range(3)]
    farewells = [[Send(PEER, OTHER, told(number, lifetime=0))] for number in (3, 4)]
    assert said == [*farewells, [NotRegistered(PEER, None, 3, "we took it back")]]
    assert bound.next_timer() is None and known(bound).until is None
    assert bound.deregister("nobody", NOW) == []


def test_that_it_was_taken_back_may_be_acknowledged(bound: Mobile) -> None:
    assert bound.deregister(PEER, NOW) == [Send(PEER, VIA, told(2, lifetime=0))]
    assert acknowledge(bound, 0) == [NotRegistered(PEER, None, 1, "we took it back")]
    assert bound.next_timer() is None


def test_an_invitation_goes_first_and_names_what_it_shall() -> None:
    inviting = Claim.at(("203.0.113.77", 61000))
    one = Mobile(bytes)
    said = one.register(PEER, VIA, HERE, NOW, invite=HOME, inviting=inviting)
    assert said == [Send(PEER, HOME, told(1, inviting)), Send(PEER, VIA, told(2))]
    said = one.register(PEER, VIA, HERE, NOW + 2, invite=HOME)
    assert said == [Send(PEER, HOME, told(3)), Send(PEER, VIA, told(4))]


def test_who_knows_no_endpoint_invites_nobody() -> None:
    """It would say that it is at home."""
    one, inside = Mobile(bytes), Claim(local="10.0.0.2")
    assert one.register(PEER, VIA, inside, NOW, invite=HOME) == [Send(PEER, VIA, told(1, inside))]


def test_more_than_three_updates_a_second_wait_for_their_time(mobile: Mobile) -> None:
    for later in (0.1, 0.2):
        assert len(mobile.register(PEER, VIA, HERE, NOW + later)) == 1
    assert mobile.register(PEER, OTHER, HERE, NOW + 0.3) == []
    assert due(mobile) == NOW + 1.0
    assert mobile.advance(NOW + 1.0) == [Send(PEER, OTHER, told(4))]


def test_the_first_words_to_a_home_agent_wait_longer(mobile: Mobile) -> None:
    """RFC 6275 §11.8: 1.5 s, since it may have to look for others of that address first."""
    one = Mobile(bytes)
    (said,) = one.register(PEER, VIA, HERE, NOW, home=True)
    assert said == Send(PEER, VIA, BindingUpdate(1, 3600, HERE.options, home=True))
    assert due(one) == NOW + 1.5 and due(mobile) == NOW + 1.0
    acknowledge(one, 3600)
    one.register(PEER, VIA, HERE, NOW + 5, home=True)
    assert due(one) == NOW + 6.0


def test_a_peer_that_is_forgotten_is_looked_after_no_more(mobile: Mobile) -> None:
    mobile.forget(PEER)
    assert mobile.registrations == {} and mobile.next_timer() is None
    assert mobile.advance(NOW + 10) == []


# --- Two ways, one rate ------------------------------------------------------------------------


def spent(at: float) -> Mobile:
    """It has used up its rate one by one, so that from now on one at a time becomes free."""
    one = Mobile(bytes)
    for later in (0.0, 0.3, 0.6):
        one.register(PEER, VIA, HERE, at + later)
    return one


def run(mobile: Mobile, until: float) -> list[tuple[float, Endpoint]]:
    """When its binding updates went, and where to."""
    went = []
    while (at := mobile.next_timer()) is not None and at < until:
        said = mobile.advance(at)
        went += [(at, one.endpoint) for one in said if isinstance(one, Send)]
    return went


def test_what_the_rate_does_not_allow_yet_follows_and_nothing_goes_twice_before() -> None:
    """Each time that one was free again, the invitation took it, and the update itself never went:
    a move was not noticed for minutes, with 100 messages a minute."""
    one = spent(NOW)
    assert one.register(PEER, VIA, HERE, NOW + 0.7, invite=HOME) == []
    went = run(one, NOW + 10)
    assert [(round(at - NOW, 3), to) for at, to in went] == [
        *((1.0, HOME), (1.3, VIA)),
        *((2.3, HOME), (2.3, VIA)),
        *((4.3, HOME), (4.3, VIA)),
        *((8.3, HOME), (8.3, VIA)),
    ]


@pytest.mark.parametrize("every", [0.05, 0.2, 1 / 3, 0.4])
def test_neither_way_starves_however_often_it_moves(every: float) -> None:
    one, went = spent(NOW), list[tuple[float, Endpoint]]()
    for step in range(1, round(30 / every)):
        at = NOW + 0.7 + step * every
        went += run(one, at)
        said = one.register(PEER, VIA, HERE, at, invite=HOME)
        went += [(at, each.endpoint) for each in said if isinstance(each, Send)]
    for way in (HOME, VIA):
        times = [at for at, to in went if to == way]
        assert max(b - a for a, b in pairwise(times)) < 1.5
        assert len(times) >= 25


def test_what_was_left_of_an_answered_update_is_not_left_of_the_next() -> None:
    one = spent(NOW)
    one.register(PEER, VIA, HERE, NOW + 0.7, invite=HOME)
    assert run(one, NOW + 1.1) == [(NOW + 1.0, HOME)]
    acknowledge(one, now=NOW + 1.2)
    assert [to for _, to in run(one, NOW + 451)] == [HOME, VIA]


# --- Early proof -----------------------------------------------------------------------------


def test_openings_keep_the_rate_and_come_when_it_allows(bound: Mobile) -> None:
    for later in (0.0, 0.1, 0.2):
        assert bound.open(PEER, VIA, NOW + later) == [Send(PEER, VIA, Aoto())]
    assert bound.open(PEER, OTHER, NOW + 0.3) == []
    assert due(bound) == NOW + 1.0
    assert bound.advance(NOW + 1.0) == [Send(PEER, OTHER, Aoto())]


def test_when_it_is_over_the_refresh_is_due_again(bound: Mobile) -> None:
    bound.open(PEER, VIA, NOW, SECOND)
    assert due(bound) == NOW + 1.0
    no = Aots(Verdict.NOT_ALLOWED)
    assert bound.judged(PEER, no, VIA) == [EarlyProof(PEER, VIA, False, SECOND)]
    assert due(bound) == NOW + 450


def test_no_home_agent_is_asked_for_a_proof_i29() -> None:
    one = Mobile(bytes)
    one.register(PEER, VIA, HERE, NOW, home=True)
    acknowledge(one, 3600)
    assert one.open(PEER, VIA, NOW) == []


def test_what_is_asked_for_is_what_was_set() -> None:
    settings = MobilitySettings(lifetime=100, refresh_at=0.5, refused_pause=7.0)
    one = Mobile(bytes, settings)
    assert one.register(PEER, VIA, HERE, NOW) == [Send(PEER, VIA, told(1, lifetime=100))]
    acknowledge(one)
    assert due(one) == NOW + 50
    one.asked(PEER, VIA, NOW)
    refuse(one)
    assert due(one) == NOW + 7
