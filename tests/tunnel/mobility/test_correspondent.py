"""What the correspondent says, to the word, and what it forgets (I13, I16, I19–I22)."""

from __future__ import annotations

from typing import Any

import pytest

from fastpath.types import Endpoint
from tests.tunnel.mobility.network import UNIX, counting
from tunnel.mobility.claims import Claim
from tunnel.mobility.commands import (
    Accepted,
    Command,
    DropBinding,
    HomeProven,
    HomeSilent,
    Invited,
    KeepProofs,
    Refused,
    Send,
    UseEndpoint,
)
from tunnel.mobility.correspondent import Correspondent
from tunnel.mobility.header import Aotc, Aotr, Aots, BindingAck, BindingUpdate, Status, Verdict
from tunnel.mobility.limits import MobilitySettings
from tunnel.mobility.options import NEVER, NatDetection
from tunnel.mobility.proofs import LIFE, NAT_LIFE, Proofs

PEER, OTHER = "desk", "shelf"
HERE: Endpoint = ("198.51.100.7", 4500)
THERE: Endpoint = ("198.51.100.8", 4500)
NOWHERE: Endpoint = ("224.0.0.1", 4500)
HOME: Endpoint = ("fd00::b", 500)
NOW = 1000.0
DIRECT = (NatDetection(NEVER, forced=True),)
BEHIND = (NatDetection(110, forced=True),)


def made(**settings: Any) -> Correspondent:
    return Correspondent(counting(), Proofs(), MobilitySettings(**settings))


def nonce(number: int) -> bytes:
    """The one that is drawn as this one, see :func:`counting`."""
    return number.to_bytes(8)


def update(
    one: Correspondent,
    sequence: int,
    source: Endpoint = HERE,
    lifetime: int = 600,
    now: float = NOW,
    claim: Claim | None = None,
    peer: str = PEER,
    acknowledge: bool = True,
) -> list[Command]:
    options = (Claim.at(source) if claim is None else claim).options
    message = BindingUpdate(sequence, lifetime, options, acknowledge)
    return one.update(peer, message, source, HOME, now, UNIX)


def answer(
    one: Correspondent, number: int, source: Endpoint, now: float = NOW, peer: str = PEER
) -> list[Command]:
    return one.answered(peer, Aotr(nonce(number)), source, now, UNIX)


def bound(**settings: Any) -> Correspondent:
    """:data:`PEER` has proven both addresses, with the nonces 1 and 2."""
    one = made(**settings)
    update(one, 1)
    answer(one, 1, HERE)
    answer(one, 2, HOME)
    assert one.bindings[PEER].used == HERE
    return one


def ack(
    status: Status, sequence: int, lifetime: int = 600, options: tuple[NatDetection, ...] = DIRECT
) -> BindingAck:
    return BindingAck(status, sequence, lifetime, options)


# --- A binding -------------------------------------------------------------------------------


def test_from_the_first_update_to_the_acknowledgement_i13_i16() -> None:
    one = made()
    assert update(one, 1) == [
        *(Accepted(PEER, HERE, False), Send(PEER, HERE, Aotc(nonce(1)))),
        Send(PEER, HOME, Aotc(nonce(2))),
    ]
    assert answer(one, 1, HERE) == []
    assert answer(one, 2, HOME) == [
        *(HomeProven(PEER), KeepProofs(), UseEndpoint(PEER, HERE)),
        Send(PEER, HERE, ack(Status.ACCEPTED, 1)),
    ]
    assert one.next_timer() == NOW + 600, "and nobody is asked at home any more"


def test_with_both_proofs_it_is_two_messages_i19() -> None:
    one = bound()
    assert update(one, 2) == [
        Accepted(PEER, HERE, True),
        Send(PEER, HERE, ack(Status.ACCEPTED, 2)),
    ]
    assert update(one, 3, acknowledge=False) == [Accepted(PEER, HERE, True)]


def test_a_proof_alone_is_no_word_of_being_at_home_i22() -> None:
    """``proven`` of what is told at once means both addresses."""
    one = made()
    one._proofs.add(PEER, HERE, UNIX)
    assert update(one, 1) == [Accepted(PEER, HERE, False), Send(PEER, HOME, Aotc(nonce(1)))]


def test_after_a_move_the_new_endpoint_is_asked_and_then_used_i13() -> None:
    one = bound()
    assert update(one, 2, THERE) == [
        Accepted(PEER, THERE, False),
        Send(PEER, THERE, Aotc(nonce(3))),
    ]
    assert one.bindings[PEER].used == HERE
    proven = [KeepProofs(), UseEndpoint(PEER, THERE), Send(PEER, THERE, ack(Status.ACCEPTED, 2))]
    assert answer(one, 3, THERE) == proven
    assert answer(one, 3, THERE) == proven[2:], "the same answer again: acknowledged again (I17)"


def test_the_acknowledgement_says_what_was_granted_and_seen() -> None:
    """In units of four seconds, at most the longest; RFC 5555 §3.2.2 for the NAT."""
    one = made(longest=1001)
    seen = ("198.51.100.7", 61000)
    update(one, 1, seen, 5000, claim=Claim("198.51.100.7", 4500, "10.0.0.2"))
    answer(one, 1, seen)
    said = answer(one, 2, HOME)
    assert said[-1] == Send(PEER, seen, ack(Status.ACCEPTED, 1, 1000, BEHIND))
    assert one.next_timer() == NOW + 1000
    assert KeepProofs() not in said, "what a NAT made is not kept"


def test_it_ends_at_its_time_and_not_before() -> None:
    one = bound()
    assert one.advance(NOW + 599.9) == []
    assert one.advance(NOW + 600) == [DropBinding(PEER, "its binding ended")]
    assert one.bindings[PEER].care_of is None and one.next_timer() is None


def test_it_is_taken_back_i14() -> None:
    one = bound()
    gone = DropBinding(PEER, "it took its binding back", asked=True)
    assert update(one, 2, lifetime=0) == [
        gone,
        Send(PEER, HERE, BindingAck(Status.ACCEPTED, 2, 0)),
    ]
    assert update(one, 3, lifetime=0, acknowledge=False) == []
    assert one.next_timer() is None
    assert one.bindings[PEER].tests == []


def test_whoever_says_by_the_home_agent_to_be_there_is_at_home() -> None:
    """Without an endpoint, or with its relay endpoint: both take the binding back."""
    for claim in (Claim(), Claim(HOME[0], HOME[1])):
        one = bound()
        said = update(one, 2, HOME, claim=claim)
        assert said[0] == DropBinding(PEER, "it took its binding back", asked=True)


def test_a_binding_that_was_taken_back_is_not_taken_for_one() -> None:
    """An acknowledgement of a refusal says no lifetime, nor what was seen of a NAT."""
    one = bound()
    update(one, 9, lifetime=0)
    said = update(one, 9, now=NOW + 5)
    refused = BindingAck(Status.SEQUENCE, 9, 0)
    assert said == [Refused(PEER, HERE, "sequence"), Send(PEER, HERE, refused)]


def test_an_old_update_is_told_the_last_number() -> None:
    one = bound()
    refused = BindingAck(Status.SEQUENCE, 1, 0)
    assert update(one, 1) == [Refused(PEER, HERE, "sequence"), Send(PEER, HERE, refused)]


def test_any_number_is_taken_at_first() -> None:
    for first in (0, 1, 32767, 32768, 65535):
        one = made()
        assert update(one, first)[0] == Accepted(PEER, HERE, False)
        assert one.bindings[PEER].sequence == first


# --- Refusals --------------------------------------------------------------------------------


def test_a_promise_that_does_not_hold_i12() -> None:
    one = made()
    refusal = BindingAck(Status.INVALID_CARE_OF, 1, 0)
    said = [Refused(PEER, THERE, "care_of"), Send(PEER, THERE, refusal)]
    assert update(one, 1, THERE, claim=Claim.at(HERE)) == said
    assert one.bindings[PEER].care_of is None and one.next_timer() is None


def test_where_nobody_can_be() -> None:
    one = made()
    assert update(one, 1, NOWHERE) == [Refused(PEER, NOWHERE, "not_unicast")]
    assert one.bindings[PEER].care_of is None


def test_no_more_bindings_than_there_is_room_for() -> None:
    one = made(bindings=1)
    update(one, 1)
    refusal = BindingAck(Status.NO_RESOURCES, 7, 0)
    said = [Refused(OTHER, HERE, "full"), Send(OTHER, HERE, refusal)]
    assert update(one, 7, peer=OTHER) == said
    assert list(one.bindings) == [PEER]
    assert update(one, 2)[0] == Accepted(PEER, HERE, False), "who has one goes on"


def test_three_of_each_a_second() -> None:
    """Updates, acknowledgements, challenges and verdicts, each for itself."""
    one = bound()
    now = NOW + 5
    flood = [Refused(PEER, HERE, "flood")]
    assert [update(one, 2 + n, now=now) == flood for n in range(4)] == [False] * 3 + [True]
    assert answer(one, 1, HERE, now) == flood, "three acknowledgements have gone"
    assert [one.opened(PEER, HERE, HOME, now, UNIX) == flood for _ in range(4)] == [
        *(False, False, False, True)
    ]
    tests = [one.opened(PEER, THERE, HOME, now, UNIX) for _ in range(4)]
    assert [len(said) for said in tests] == [1] * 4
    assert tests[3] == [Refused(PEER, THERE, "flood")]


def test_a_hundred_tests_a_second_go_to_all_together() -> None:
    one = made(tests_per_second=2)
    assert len(update(one, 1)) == 3
    assert update(one, 1, peer=OTHER) == [
        *(Accepted(OTHER, HERE, False), Refused(OTHER, HERE, "flood")),
        Refused(OTHER, HOME, "flood"),
    ]
    later = [Accepted(OTHER, HERE, False), Send(OTHER, HERE, Aotc(nonce(3)))]
    assert update(one, 2, now=NOW + 0.5, peer=OTHER) == later, "two a second, all the time"


def test_refusals_of_a_promise_are_acknowledgements_too() -> None:
    """Three a second of them, with those of other updates."""
    one = bound()
    for _ in range(3):
        assert answer(one, 1, HERE, NOW + 5) == [Send(PEER, HERE, ack(Status.ACCEPTED, 1))]
    said = update(one, 2, THERE, now=NOW + 5, claim=Claim.at(HERE))
    assert said == [Refused(PEER, THERE, "care_of")]


# --- Invitations -----------------------------------------------------------------------------


def test_an_invitation_names_where_it_is_and_binds_nothing() -> None:
    one = made()
    assert update(one, 1, HOME, claim=Claim.at(HERE)) == [Invited(PEER, HERE)]
    assert one.bindings == {}


def test_an_invitation_to_nowhere_is_refused() -> None:
    said = update(made(), 1, HOME, claim=Claim.at(NOWHERE))
    assert said == [Refused(PEER, HOME, "not_unicast")]


def test_an_invitation_to_where_data_goes_is_nothing_new() -> None:
    one = bound()
    assert update(one, 2, HOME, claim=Claim.at(HERE)) == []
    assert update(one, 2, HOME, claim=Claim.at(THERE)) == [Invited(PEER, THERE)]


# --- Early proof -----------------------------------------------------------------------------


def test_an_early_proof_is_a_test_and_a_verdict_i20_i28() -> None:
    one = bound()
    assert one.opened(PEER, THERE, HOME, NOW, UNIX) == [Send(PEER, THERE, Aotc(nonce(3)))]
    assert answer(one, 3, THERE) == [Send(PEER, THERE, Aots(Verdict.VALID))], "no BA, no traffic"
    assert one.bindings[PEER].used == HERE
    assert one.opened(PEER, THERE, HOME, NOW, UNIX) == [Send(PEER, THERE, Aots(Verdict.VALID))]


@pytest.mark.parametrize("six", [False, True])
def test_an_early_proof_of_ipv4_may_be_a_nats(six: bool) -> None:
    """An AOTO does not say whether there is one: with IPv4 it ends with what a NAT keeps."""
    one = bound()
    source = ("2001:db8::8", 4500) if six else THERE
    one.opened(PEER, source, HOME, NOW, UNIX)
    said = answer(one, 3, source)
    assert (KeepProofs() in said) is six
    life = LIFE if six else NAT_LIFE
    assert one._proofs.holds(PEER, source, UNIX + life - 1)
    assert not one._proofs.holds(PEER, source, UNIX + life)


def test_an_aoto_is_not_heeded_from_home_from_nowhere_and_unregistered_i25() -> None:
    one = bound()
    for source in (HOME, NOWHERE):
        refused = [Refused(PEER, source, "not_unicast")]
        assert one.opened(PEER, source, HOME, NOW, UNIX) == refused
    assert one.opened(OTHER, HERE, HOME, NOW, UNIX) == [Refused(OTHER, HERE, "unregistered")]
    update(one, 2, lifetime=0)
    assert one.opened(PEER, HERE, HOME, NOW, UNIX) == [Refused(PEER, HERE, "unregistered")]


def test_where_it_is_not_welcome_the_verdict_says_so_i28() -> None:
    one = bound(early=False)
    no = [Send(PEER, THERE, Aots(Verdict.NOT_ALLOWED))]
    assert one.opened(PEER, THERE, HOME, NOW, UNIX) == no


# --- Tests -----------------------------------------------------------------------------------


def test_a_test_is_open_for_its_time_alone_i17() -> None:
    one = made(nonce_life=60.0)
    update(one, 1)
    assert answer(one, 1, HERE, NOW + 60) == [Refused(PEER, HERE, "nonce")]
    assert answer(one, 1, HERE, NOW + 59.9) == []


def test_as_many_tests_are_open_as_there_may_be_the_newest() -> None:
    one, places = bound(tests=2), [(HERE[0], port) for port in (1, 2, 3)]
    for number, place in enumerate(places):
        update(one, 2 + number, place, now=NOW + 2 + number)
    assert len(one.bindings[PEER].tests) == 2
    assert answer(one, 3, places[0], NOW + 5) == [Refused(PEER, places[0], "nonce")]
    assert answer(one, 4, places[1], NOW + 5) == [KeepProofs()], "proven, but it is there no more"
    assert UseEndpoint(PEER, places[2]) in answer(one, 5, places[2], NOW + 5)


def test_of_tests_at_home_as_many() -> None:
    one = bound(tests=2)
    for number in range(5):
        one.rekeyed(PEER, NOW + 20 * number)
        one.advance(NOW + 20 * number + 1)
        one.advance(NOW + 20 * number + 3)
        assert len(one.bindings[PEER].home_tests) == 2
        one.advance(NOW + 20 * number + 7)


def test_an_answer_for_the_care_of_address_that_is_late_is_not_kept() -> None:
    """It waited for the home address until its own time was over."""
    one = made()
    update(one, 1)
    answer(one, 1, HERE)
    one.advance(NOW + 1)
    one.advance(NOW + 3)
    one.advance(NOW + 7)
    update(one, 2, now=NOW + 59)
    said = answer(one, 6, HOME, NOW + 60)
    assert said == [HomeProven(PEER)]
    assert not one._proofs.holds(PEER, HERE, UNIX)


# --- The home address ------------------------------------------------------------------------


def test_who_is_silent_at_home_is_asked_three_times_i22() -> None:
    one = made()
    update(one, 1)
    times, said = [], []
    for _ in range(3):
        due = one.next_timer()
        assert due is not None
        times.append(due - NOW)
        said += one.advance(due)
    assert times == [1.0, 3.0, 7.0]
    asked = [Send(PEER, HOME, Aotc(nonce(number))) for number in (3, 4)]
    assert said == [*asked, HomeSilent(PEER, before=False)]
    assert one.next_timer() == NOW + 600


def test_who_answers_elsewhere_after_that_is_asked_at_home_again_i22() -> None:
    one = made()
    update(one, 1)
    for later in (1, 3, 7):
        one.advance(NOW + later)
    assert answer(one, 1, HERE, NOW + 9) == [Send(PEER, HOME, Aotc(nonce(5)))]
    assert one.next_timer() == NOW + 10
    assert UseEndpoint(PEER, HERE) in answer(one, 5, HOME, NOW + 9)


def test_after_a_rekey_the_binding_stays_and_the_old_nonce_does_not_count_i21() -> None:
    one = bound()
    assert one.rekeyed(PEER, NOW + 10) == [Send(PEER, HOME, Aotc(nonce(3)))]
    assert answer(one, 2, HOME, NOW + 10) == [Refused(PEER, HOME, "nonce")]
    assert one.bindings[PEER].used == HERE
    assert answer(one, 3, HOME, NOW + 10) == [HomeProven(PEER)], "nothing waited for it"
    assert one.next_timer() == NOW + 600


def test_after_a_rekey_silence_is_told_and_takes_nothing_away_i21() -> None:
    one = bound()
    one.rekeyed(PEER, NOW)
    said = one.advance(NOW + 1) + one.advance(NOW + 3) + one.advance(NOW + 7)
    assert said[-1] == HomeSilent(PEER, before=True)
    assert one.bindings[PEER].at_home and one.bindings[PEER].used == HERE


def test_a_second_answer_at_home_changes_nothing() -> None:
    one = bound()
    assert answer(one, 2, HOME) == []
    one.rekeyed(PEER, NOW)
    answer(one, 3, HOME)
    assert answer(one, 3, HOME) == []


def test_all_that_is_due_at_once_is_done() -> None:
    one = made()
    for number, peer in ((1, PEER), (3, OTHER)):
        update(one, 1, lifetime=8, peer=peer)
        answer(one, number, HERE, peer=peer)
        answer(one, number + 1, HOME, peer=peer)
    for name in ("a", "b"):
        update(one, 1, lifetime=60, now=NOW + 7, peer=name)
    assert one.advance(NOW + 8) == [
        *(DropBinding(peer, "its binding ended") for peer in (PEER, OTHER)),
        *(Send(name, HOME, Aotc(nonce(9 + number))) for number, name in enumerate("ab")),
    ]


# --- Ends ------------------------------------------------------------------------------------


def test_a_place_that_was_left_has_to_be_proven_again_i16() -> None:
    """Nothing came back from there: the next update from there is tested."""
    one = bound()
    assert one.left(PEER, THERE) == []
    assert one.bindings[PEER].used == HERE
    assert one.left(PEER, HERE) == [KeepProofs()], "it is kept no longer"
    assert one.bindings[PEER].used is None
    assert one.left(PEER, HERE) == []
    assert update(one, 2)[1:] == [Send(PEER, HERE, Aotc(nonce(3)))]
    assert one.left(OTHER, HERE) == []


def test_a_peer_that_is_forgotten_begins_anew_i22() -> None:
    """But for the proofs of its care-of addresses; and nobody asks it at home any more."""
    one = bound()
    one.rekeyed(PEER, NOW)
    assert one.forget(PEER) == [DropBinding(PEER, "its tunnel is gone")]
    assert one.forget(PEER) == []
    assert one.bindings == {} and one.next_timer() is None
    assert one.advance(NOW + 1000) == []
    said = update(one, 1, now=NOW + 10)
    assert said == [Accepted(PEER, HERE, False), Send(PEER, HOME, Aotc(nonce(4)))]


def test_who_is_rekeyed_without_a_binding_is_not_asked_and_has_to_prove_it_again_i21() -> None:
    one = bound()
    update(one, 2, lifetime=0)
    assert one.rekeyed(PEER, NOW + 5) == []
    assert one.bindings[PEER].at_home is False and one.next_timer() is None
    said = update(one, 3, now=NOW + 5)
    assert said == [Accepted(PEER, HERE, False), Send(PEER, HOME, Aotc(nonce(3)))]
